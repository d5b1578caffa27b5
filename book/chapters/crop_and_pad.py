import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np

    from course import (
        Heat,
        Line,
        Panel,
        Plot,
        Points,
        Slider,
        choose,
        closing,
        exercise,
        explore,
        opening,
        source,
    )
    from cryoinfer.data.resampling import band_limited_matrix


@app.cell
def _():
    opening("crop_and_pad")
    return


@app.cell
def _():
    mo.md(r"""
    ## Fewer pixels, and no pixel interpolated

    Images come with pixels finer than the first steps of a reconstruction need. One would like them smaller: a
    quarter of the pixels is a quarter of the work. Averaging blocks of pixels blurs; skipping pixels aliases.
    There is an exact way. The row $f$ is a sum of waves,

    $$f_x = \frac{1}{N} \sum_{k=-N/2}^{N/2-1} F_k\, e^{2\pi i k x/N} .$$

    Keep the waves below a new Nyquist frequency only, $|k| < M/2$. What is left is smooth enough for $M$
    samples. Read it at the $M$ places $x = nN/M$, which need not be pixels:

    $$g_n = \frac{1}{N} \sum_{|k| < M/2} F_k\, e^{2\pi i k n/M} = \frac{M}{N} \cdot \Big[ \frac{1}{M} \sum_{|k| < M/2} F_k\, e^{2\pi i k n/M} \Big] .$$

    The bracket is an inverse transform of length $M$. So: transform, cut out the middle, transform back,
    multiply by $M/N$ per axis. This is **Fourier cropping**. The box covers the same area, so the new pixel is
    $p N/M$. Coefficients that are kept are not changed but for the common factor $M/N$. (For an even $M$ the wave $-M/2$ has lost its
    partner $+M/2$, and is left out.)

    White noise of standard deviation $\sigma$ has the same power at all frequencies. Of $N^2$ parts $M^2$ are
    kept, so a cropped pixel has the variance $\sigma^2 M^2/N^2$. (For an even $M$ they are $(M-1)^2$: so a noise
    of 0.60 becomes 0.59 in the figure when all 64 pixels are kept.) The slider crops an image of 64 pixels.
    Without noise, look for the size at which the two bars, 6 Å apart, are lost. With noise, see the picture get
    clearer as the pixels get larger.
    """)
    return


@app.function
def middle(transform, n):
    """Return the n x n coefficients around zero of a centred transform, Nyquist's as 0."""
    first = transform.shape[0] // 2 - n // 2
    cut = transform[first : first + n, first : first + n].copy()
    if n % 2 == 0:
        cut[0, :] = cut[:, 0] = 0
    return cut


@app.function
def fourier_crop(image, n):
    """Return an image of n x n pixels of the same area, by cropping its transform."""
    centred = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image)))
    cut = np.fft.ifftshift(middle(centred, n)) * (n / len(image)) ** 2
    return np.fft.fftshift(np.fft.ifft2(cut)).real


@app.function
def particle(n=64, pixel_size_angstrom=1.5):
    """Return an image with round features and two bars 6 angstrom apart."""
    y, x = (np.mgrid[:n, :n] - n // 2) * pixel_size_angstrom
    image = np.exp(-((x + 16) ** 2 + (y + 12) ** 2) / 120.0)
    image += 0.8 * np.exp(-((x - 14) ** 2 + (y + 16) ** 2) / 64.0)
    image += 0.7 * np.exp(-((x + 6) ** 2 + (y - 18) ** 2) / 80.0)
    for place in (12, 18):
        image += np.exp(-((x - place) ** 2) / 3) * np.exp(-(((y - 8) / 12) ** 6))
    return image


@app.cell
def _():
    def cropping(size, noise):
        white = np.random.default_rng(0).normal(size=(64, 64))
        image = particle() + noise * white
        small, half = fourier_crop(image, size), 48 / size
        power = np.abs(np.fft.fftshift(np.fft.fft2(image)))
        edge = size / 2 - 0.5
        square = (
            np.array([-1, 1, 1, -1, -1]) * edge,
            np.array([-1, -1, 1, 1, -1]) * edge,
        )
        seen = Heat(
            small, (-48 - half, 48 - half, 48 - half, -48 - half), limits=(-0.3, 1.3)
        )
        moduli = Heat(np.log10(1 + power), (-32.5, 31.5, 31.5, -32.5), limits=(0, 3))
        kept = (moduli, Line(*square, "kept"))
        return Plot(
            (
                Panel((seen,), "Cropped", "x (Å)", "y (Å)", equal=True),
                Panel(
                    kept, "Modulus (log)", "kx (per box)", "ky (per box)", equal=True
                ),
            ),
            says=f"{size} x {size} pixels of {96 / size:.2f} Å; Nyquist is {192 / size:.1f} Å. "
            f"Noise of a pixel: {noise * (size - 1) / 64:.2f}, before it was {noise:.2f}.",
        )

    explore(
        cropping,
        size=Slider("pixels along a side", range(8, 65, 4), 40),
        noise=Slider("noise of a pixel", (0, 0.3, 0.6, 1.2), 0),
    )
    return


@app.cell
def _():
    source(middle, fourier_crop)
    return


@app.cell
def _():
    mo.md(r"""
    ## Why a hard edge rings

    Cropping keeps all waves below a frequency and nothing beyond. That is a **low-pass filter** with a hard
    edge. Take a step, from 0 to 1. Its sum of waves up to a frequency $K$ is the integral of a sinc, and near
    the step

    $$g(x) = \frac12 + \frac{1}{\pi} \operatorname{Si}(2\pi K x), \qquad \operatorname{Si}(u) = \int_0^u \frac{\sin v}{v}\, \mathrm{d}v .$$

    The integrand changes sign first at $u = \pi$. There $g$ has its maximum,
    $\tfrac12 + \operatorname{Si}(\pi)/\pi = 1.0895$. It overshoots by 9 % of the step, for every $K$: a higher
    cut makes the ripple narrower, not lower. This is **Gibbs' phenomenon**. Around a particle it is seen as
    dark and bright fringes.

    The cure is to let the filter fall gradually, over a width $w$ of frequencies, for instance as half a
    cosine: a **soft edge**. It is centred on the cut, from $K - w/2$ to $K + w/2$. Widen it in the figure. The ripples far from the step go first. The overshoot
    itself is small only when the edge takes up the whole filter, $w = 2K$, and passes waves up to
    $2K$: then it is 0.6 %, and the
    step is about as steep as before.
    """)
    return


@app.function
def soft_edge(frequency, cut, width):
    """Return 1 below and 0 above a cut, with a cosine of a width between."""
    if width == 0:
        return (np.abs(frequency) <= cut).astype(float)
    along = np.clip((np.abs(frequency) - cut) / width + 0.5, 0, 1)
    return (1 + np.cos(np.pi * along)) / 2


@app.function
def filtered_step(cut, width, n=512):
    """Return a row that is 1 in its second half, filtered."""
    row = np.where(np.arange(n) < n // 2, 0.0, 1.0)
    k = np.fft.fftfreq(n, 1 / n)
    return np.fft.ifft(np.fft.fft(row) * soft_edge(k, cut, width)).real


@app.cell
def _():
    def ringing(cut, share):
        row, k = filtered_step(cut, share * cut), np.linspace(0, 80, 321)
        x = np.arange(512) - 255.5
        near, far = np.abs(x) < 80, (x > 40) & (x < 80)
        step = Line([-80, 0, 0, 80], [0, 0, 1, 1], "step", dashed=True)
        filtered = (Line(x[near], row[near], "filtered"), step)
        factor = (Line(k, soft_edge(k, cut, share * cut)),)
        return Plot(
            (
                Panel(factor, "Filter", "k (waves per 512 pixels)", "factor"),
                Panel(filtered, "A step of 1", "pixel", "value", y_range=(-0.25, 1.25)),
            ),
            says=f"It overshoots by {100 * (row.max() - 1):.1f} % of the step; 40 pixels away it is "
            f"still wrong by {100 * np.abs(row[far] - 1).max():.1f} %. From 0.1 to 0.9 it takes "
            f"{np.sum((row[near] > 0.1) & (row[near] < 0.9))} pixels.",
        )

    explore(
        ringing,
        cut=Slider("cut (waves per 512 pixels)", (10, 14, 20, 28, 40), 20),
        share=Slider("width of the edge over the cut", np.arange(0, 2.1, 0.25), 0),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Padding: the same the other way round

    Cropping has a counterpart. Put zeros around the *transform*, and the image gets finer pixels: exact
    interpolation, for an image that has no finer waves.
    Put zeros around the *image*, **zero padding**, and the transform gets finer steps. A row of $N$ pixels in a
    box of $QN$ has the coefficients

    $$F'_j = \sum_{x=0}^{N-1} f_x\, e^{-2\pi i j x/(QN)} ,$$

    which is the old sum, read at the frequency $k = j/Q$ between the old ones. Nothing new was measured. But
    whoever must read the transform between its points (every Fourier slice of a map does) can now join
    neighbours by straight lines. In the figure the row holds a feature at a distance from the origin. The
    farther away, the faster its transform goes up and down, and the worse the straight lines are. Look at the
    error fall when you pad: by four, nearly, for each doubling.
    """)
    return


@app.function
def transform_at(row, frequency):
    """Return the transform of a row, origin in its middle, at any frequencies."""
    x = np.arange(len(row)) - len(row) // 2
    return np.exp(-2j * np.pi * np.outer(frequency, x) / len(row)) @ row


@app.function
def read_by_lines(row, padding, frequency):
    """Return the transform read linearly between the points of a padded transform."""
    longer = np.zeros(padding * len(row))
    first = len(longer) // 2 - len(row) // 2
    longer[first : first + len(row)] = row
    j = np.arange(-len(longer) // 2, len(longer) // 2)
    points = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(longer)))
    at = np.asarray(frequency) * padding
    return np.interp(at, j, points.real) + 1j * np.interp(at, j, points.imag)


@app.cell
def _():
    def padding_helps(padding, distance):
        x, k = np.arange(32) - 16, np.linspace(-8, 8, 321)
        row = np.exp(-(((x - distance) / 1.2) ** 2) / 2)
        true, lines = transform_at(row, k), read_by_lines(row, padding, k)
        points = np.arange(-8 * padding, 8 * padding + 1) / padding
        marks = (
            Line(k, true.real, "true"),
            Line(k, lines.real, "straight lines"),
            Points(points, transform_at(row, points).real, "coefficients"),
        )
        error = np.sqrt(np.mean(np.abs(lines - true) ** 2) / np.mean(np.abs(true) ** 2))
        return Plot(
            (Panel(marks, "Transform, real part", "k (waves per 32 pixels)", "value"),),
            says=f"Read between the points, the transform is wrong by {100 * error:.1f} % (root mean square).",
        )

    explore(
        padding_helps,
        padding=Slider("padding", (1, 2, 3, 4), 1),
        distance=Slider("distance from the origin (pixels)", (0, 2, 4, 6, 8, 10), 8),
    )
    return


@app.cell
def _():
    source(soft_edge, transform_at, read_by_lines)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"After cropping my values are sixteen times larger."* The factor $(M/N)^2$ was left out (for $N/M = 4$).
      Means should stay, so compare the mean of an image before and after.
    - *"My map is half a per cent too small."* 256 pixels of 1.06 Å cropped to 100 have 2.7136 Å. Whoever writes
      2.7 into the file has changed all lengths, and every fitted defocus by 1 %, since the CTF's phase has
      $s^2$ in it.
    - *"I padded my images with zeros and the noise estimate fell."* Zeros are noise of no power, and a
      likelihood takes their quiet for information. The program fills what was not measured with noise of the
      image's own spectrum.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "Images of 360 pixels of 0.85 Å are cropped to 128 pixels. What is the new pixel size?",
        0.85 * 360 / 128,
        tolerance=0.003,
        unit="Å",
        hint="The side of the box stays as long as it was.",
        explanation="306 Å over 128 is 2.3906 Å. Keep the digits.",
    )
    return


@app.cell
def _():
    exercise(
        "In those images white noise has a standard deviation of 10 in each pixel. How much has it after cropping to 128 pixels?",
        10 * 128 / 360,
        tolerance=0.05,
        hint="The variance goes with the number of coefficients that are kept.",
        explanation="Variance falls by the square of 128/360, the standard deviation by 0.356.",
    )
    return


@app.cell
def _():
    choose(
        "An image is padded with zeros to twice its side. What has been gained?",
        (
            "Detail of half the period.",
            "Steps of half the size in Fourier space, the same detail.",
            "Half the noise.",
        ),
        1,
        hint="Which number in the sum became larger?",
        explanation="The highest frequency is set by the pixel, which did not change. The step is one over the side.",
    )
    return


@app.function
def test_the_programs_matrix_crops():
    """One matrix along y and x is Fourier cropping; double rounding, odd boxes too."""
    image = np.random.default_rng(3).normal(size=(64, 64))
    for n in (40, 33, 16):
        matrix = band_limited_matrix(64, n, 64.0).numpy()
        np.testing.assert_allclose(
            matrix @ image @ matrix.T, fourier_crop(image, n), atol=1e-12
        )


@app.function
def test_values_and_noise_of_cropped_images():
    """A smooth function is read at the new places; noise falls as the coefficients kept."""
    y, x = np.mgrid[:64, :64] - 32
    fine = np.exp(-(x**2 + y**2) / (2 * 6.0**2))
    y, x = 64 / 40 * (np.mgrid[:40, :40] - 20)
    # Of a Gaussian of 6 pixels the tail beyond the box is 7e-7, beyond Nyquist nothing.
    np.testing.assert_allclose(
        fourier_crop(fine, 40), np.exp(-(x**2 + y**2) / 72), atol=5e-6
    )
    noise = fourier_crop(np.random.default_rng(4).normal(size=(512, 512)), 256)
    # 255^2 of 512^2 coefficients; a variance of 65,000 numbers is known to 0.6 %.
    assert abs(noise.var() / (255 / 512) ** 2 - 1) < 4 * 0.006


@app.function
def test_gibbs():
    """Si(pi) / pi - 1/2 = 0.0894899; 0.003: the row has pixels, and a second step."""
    assert abs(filtered_step(20, 0).max() - 1.0894899) < 0.003
    assert filtered_step(20, 40).max() < 1.01


@app.function
def test_padding_halves_the_step_and_quarters_the_error():
    """Linear interpolation errs by h^2 f'' / 8: 4 a doubling, once the step is small."""
    k = np.linspace(-8, 8, 321)
    row = np.exp(-(((np.arange(32) - 22) / 1.2) ** 2) / 2)
    error = [
        np.abs(read_by_lines(row, q, k) - transform_at(row, k)).max() for q in (2, 4, 8)
    ]
    assert 3.2 < error[0] / error[1] < 4.2
    assert 3.7 < error[1] / error[2] < 4.2


@app.cell
def _():
    closing(
        "crop_and_pad",
        library=[
            "cryoinfer.data.resampling.band_limited_matrix",
            "cryoinfer.data.resampling.Resampling",
            "cryoinfer.fourier.oversampled.oversampled_transform",
        ],
        sources=[
            "J. W. Gibbs 1899, Fourier's series, Nature 59, 606.",
            "R. N. Bracewell 2000, The Fourier Transform and Its Applications, third edition.",
            "learn_cryoem_math (Woollard).",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
