import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    from types import SimpleNamespace

    import marimo as mo
    import numpy as np
    import torch

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
    from cryoinfer.fourier.grids import FourierDisc
    from cryoinfer.fourier.transform import image_to_fourier
    from cryoinfer.inference.whitening import WhitenedImages


@app.cell
def _():
    opening("sampling")
    return


@app.cell
def _():
    mo.md(r"""
    ## Two waves, the same numbers

    A camera does not see a picture, it takes numbers: the value of the picture at places $x = np$, with a
    pixel size $p$ and whole $n$. Look at a wave of frequency $s$ (in 1/Å; its period is $1/s$) at these
    places only. Add $1/p$ to its frequency:

    $$e^{2\pi i (s + 1/p)\, n p} = e^{2\pi i s\, n p}\, e^{2\pi i n} = e^{2\pi i s\, n p} .$$

    The numbers are the same. No computation can tell the two waves apart afterwards. All frequencies
    $s + m/p$ are one frequency to the camera, and it is natural to call it by the one nearest to zero, the
    **alias**

    $$s' = s - \frac{m}{p}, \qquad m \text{ such that } |s'| \le \frac{1}{2p} .$$

    The largest frequency that is its own alias is $1/2p$, the **Nyquist frequency**: a period of two pixels.
    In the figure the pixel is fixed by one slider, the true period by the other. Let the period shrink: below
    two pixels the dots lie on a second, longer wave. At a period of one pixel they are constant.
    """)
    return


@app.function
def alias_per_angstrom(frequency_per_angstrom, pixel_size_angstrom):
    """Return the frequency between -1/2p and 1/2p that has the same samples."""
    whole = np.rint(frequency_per_angstrom * pixel_size_angstrom)
    return frequency_per_angstrom - whole / pixel_size_angstrom


@app.cell
def _():
    def two_waves(period, pixel):
        s, x, at = 1 / period, np.linspace(0, 24, 600), np.arange(0, 24.01, pixel)
        seen = alias_per_angstrom(s, pixel)
        marks = (
            Line(x, np.cos(2 * np.pi * s * x), "the wave"),
            Line(x, np.cos(2 * np.pi * seen * x), "its alias", dashed=True),
            Points(at, np.cos(2 * np.pi * s * at), "pixels"),
        )
        true = np.linspace(0.0, 1.1, 400)
        folded = np.abs(alias_per_angstrom(true, pixel))
        ways = (Line(true, folded, "all waves"), Points([s], [abs(seen)], "this one"))
        return Plot(
            (
                Panel(marks, "A wave and its samples", "place (Å)", "value"),
                Panel(ways, "What it is taken for", "frequency (1/Å)", "alias (1/Å)"),
            ),
            says=f"Nyquist is {0.5 / pixel:.3f} per Å. The wave of {s:.3f} per Å is seen as one of {abs(seen):.3f}.",
        )

    explore(
        two_waves,
        period=Slider("period (Å)", np.arange(1, 4.6, 0.25), 1.75),
        pixel=Slider("pixel (Å)", (0.5, 0.8, 1, 1.5, 2, 3), 1.5),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## The transform of a sampled picture is a sum of copies

    Now any function $f$ with the transform $\hat f$. At the pixels
    $f(np) = \int \hat f(s)\, e^{2\pi i s n p}\, \mathrm{d}s$. Cut the line of frequencies into pieces of
    length $1/p$. The exponential is the same in all pieces, so they can be laid on top of each other:

    $$f(np) = \int_0^{1/p} \Big[ \sum_m \hat f\Big(s + \frac{m}{p}\Big) \Big] e^{2\pi i s n p}\, \mathrm{d}s .$$

    So the samples are the Fourier series of the bracket, which has the period $1/p$. Turned round,

    $$p \sum_n f(np)\, e^{-2\pi i s n p} = \sum_m \hat f\Big(s + \frac{m}{p}\Big) .$$

    To sample is to add copies of the transform, one every $1/p$. If $\hat f$ ends before Nyquist, the copies
    do not touch, and the one in the middle is $\hat f$ itself. Then nothing at all is lost: this is the
    **sampling theorem**. Keep the middle copy, transform back, and the function between the pixels comes out,

    $$f(x) = \sum_n f(np)\, \operatorname{sinc}\Big(\frac{x}{p} - n\Big), \qquad \operatorname{sinc} u = \frac{\sin \pi u}{\pi u} .$$

    Where the copies overlap, what is finer than two pixels is added to what is coarser. That is **aliasing**,
    and it cannot be undone. In the figure is a Gaussian of standard deviation $\sigma$, whose transform is
    $\sigma\sqrt{2\pi}\, e^{-2\pi^2\sigma^2 s^2}$. Find the $\sigma$, in pixels, from which the sum agrees
    with the true curve.
    """)
    return


@app.function
def gaussian_transform(sigma_angstrom, frequency_per_angstrom):
    """Return the transform of exp(-x^2 / 2 sigma^2)."""
    power = 2 * (np.pi * sigma_angstrom * np.asarray(frequency_per_angstrom)) ** 2
    return sigma_angstrom * np.sqrt(2 * np.pi) * np.exp(-power)


@app.function
def sampled_transform(sigma_angstrom, pixel_size_angstrom, frequency_per_angstrom):
    """Return p times the sum over all samples of a Gaussian times a wave."""
    x = pixel_size_angstrom * np.arange(-200, 201)
    values = np.exp(-((x / sigma_angstrom) ** 2) / 2)
    waves = np.exp(-2j * np.pi * np.outer(frequency_per_angstrom, x))
    return pixel_size_angstrom * (waves @ values).real


@app.cell
def _():
    def copies(sigma, pixel):
        s = np.linspace(-1.0, 1.0, 401)
        marks = (
            Line(s, gaussian_transform(sigma, s), "true"),
            Line(s, sampled_transform(sigma, pixel, s), "sampled"),
            Line(s, gaussian_transform(sigma, s - 1 / pixel), "next copy", dashed=True),
            Line([0.5 / pixel] * 2, [0.0, 3.0], "Nyquist", dashed=True),
        )
        true = gaussian_transform(sigma, 0.5 / pixel)
        wrong = sampled_transform(sigma, pixel, [0.5 / pixel])[0] - true
        x, y = "frequency (1/Å)", "transform (Å)"
        return Plot(
            (Panel(marks, "Copies", x, y, (-1, 1), (0, 4)),),
            says=f"The Gaussian's sigma is {sigma / pixel:.2f} pixels. At Nyquist aliasing adds "
            f"{wrong:.2g} Å, {wrong / gaussian_transform(sigma, 0):.1g} of the transform at zero.",
        )

    explore(
        copies,
        sigma=Slider("sigma (Å)", (0.3, 0.5, 0.7, 0.85, 1, 1.25, 1.5), 0.7),
        pixel=Slider("pixel (Å)", (0.6, 0.8, 1, 1.25, 1.5, 2), 1.5),
    )
    return


@app.cell
def _():
    mo.md(r"""
    A real pixel does not take the value at a point: it adds up what falls on its width. This multiplies the
    transform by $\operatorname{sinc}(sp)$ before the copies are made, 0.64 at Nyquist. It weakens what would
    alias, but does not stop it.

    ## What one sees in a transform

    Three things are worth knowing by sight. The **constant term** $F_0$ is the sum of all pixels: an image of
    mean 3 has $F_0 = 3 N^2$, and it outshines all else. A plane wave $\cos(2\pi (k_x x + k_y y)/N)$ is two
    points, at $(k_x, k_y)$ and $(-k_x, -k_y)$. And a wave beyond Nyquist is two points in the wrong place.
    Move $k_x$ up in the box of 32 pixels: from 16 on, the point that leaves on the right comes in on the
    left, and the stripes turn the other way. At a $k_x$ between two whole numbers the wave does not fit into
    the box. Its left edge does not meet its right edge, and a row of points is lit: **leakage**.
    """)
    return


@app.function
def plane_wave(n, kx, ky):
    """Return an image of a plane wave of mean 0.25."""
    y, x = np.mgrid[:n, :n]
    return 0.25 + np.cos(2 * np.pi * (kx * x + ky * y) / n)


@app.cell
def _():
    def stripes(kx, ky):
        image = plane_wave(32, kx, ky)
        size = np.abs(np.fft.fftshift(np.fft.fft2(image)))
        shown = (Heat(np.log10(1 + size), (-16.5, 15.5, 15.5, -16.5), limits=(0, 3)),)
        far = alias_per_angstrom(kx, 1 / 32)
        return Plot(
            (
                Panel((Heat(image),), "Wave", "x (pixel)", "y (pixel)", equal=True),
                Panel(
                    shown, "Modulus (log)", "kx (per box)", "ky (per box)", equal=True
                ),
            ),
            says=f"The wave with kx = {kx:g} is seen as kx = {far:g}. Constant term: {size[16, 16]:.0f}.",
        )

    explore(
        stripes,
        kx=Slider("kx (waves per box)", np.arange(0, 24.1, 0.5), 4),
        ky=Slider("ky (waves per box)", (0, 5), 5),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## A shift is a phase

    Move a row by $t$ pixels, $g_x = f_{x-t}$, and put $x = u + t$ into its transform:

    $$G_k = \sum_u f_u\, e^{-2\pi i k (u + t)/N} = e^{-2\pi i k t/N} F_k .$$

    No modulus changes. The phases get a slope, $-2\pi t/N$ a step of $k$. This holds for a $t$ that is no
    whole number too, if one takes it as the definition: it moves the band-limited function between the
    pixels, without blurring anything. That is how the program shifts particles. What leaves on the right
    comes in on the left, as always in a discrete transform.
    """)
    return


@app.function
def shifted(row, pixels):
    """Return a row moved to the right, also by parts of a pixel."""
    k = np.fft.fftfreq(len(row), 1 / len(row))
    turn = np.exp(-2j * np.pi * k * pixels / len(row))
    return np.fft.ifft(np.fft.fft(row) * turn).real


@app.cell
def _():
    def moved(pixels):
        x, k = np.arange(32), np.arange(11)
        row = np.exp(-((x - 12) ** 2) / 4.5) + 0.5 * np.exp(-((x - 20) ** 2) / 8)
        now = shifted(row, pixels)
        turn = np.unwrap(np.angle(np.fft.fft(now)[:11] / np.fft.fft(row)[:11]))
        return Plot(
            (
                Panel(
                    (Line(x, row), Points(x, now, "moved")), "A row", "pixel", "value"
                ),
                Panel((Points(k, turn),), "Phase", "k (waves per row)", "radian"),
            ),
            says=f"Moved by {pixels:g} pixels: {turn[1]:.3f} radian a wave.",
        )

    explore(moved, pixels=Slider("shift (pixels)", np.arange(-6, 12.1, 0.5), start=3.5))
    return


@app.cell
def _():
    source(alias_per_angstrom, sampled_transform, shifted)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"My resolution stays at 2.6 Å whatever I do."* With pixels of 1.3 Å that is Nyquist. The FSC curve then
      ends high, it does not fall to its threshold. The remedy is finer pixels, from the movies.
    - *"I halved my images by taking every second pixel, and now the noise is stronger."* All that was beyond
      the new Nyquist was folded back. White noise keeps its variance a pixel, when four pixels should share
      it: after Fourier cropping the variance is a quarter. Filter first, or crop (*Cropping and padding*).
    - *"There is a bright cross in my power spectrum."* Leakage. The image is brighter on one side than on the
      other, and to the transform the two sides are neighbours. Subtract a plane first.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "Graphene has a reflection at 2.13 Å. At what period is it seen in an image with pixels of 1.5 Å?",
        1 / abs(alias_per_angstrom(1 / 2.13, 1.5)),
        tolerance=0.06,
        unit="Å",
        hint="Take the frequency 1/2.13 and subtract 1/1.5.",
        explanation="0.4695 less 0.6667 is -0.1972 per Å: stripes of 5.07 Å, turned round.",
    )
    return


@app.cell
def _():
    exercise(
        "A box has 200 pixels of 1.2 Å. How many waves of period 8 Å fit into it?",
        200 * 1.2 / 8,
        tolerance=0.1,
        hint="How long is the box in Å?",
        explanation="240 Å over 8 Å is 30: that is the k, or ring, at which 8 Å is found.",
    )
    return


@app.cell
def _():
    choose(
        "An image is moved by half its box along x. What happens to its coefficients?",
        (
            "All change sign.",
            r"Those of odd $k_x$ change sign.",
            "Their moduli are halved.",
        ),
        1,
        hint=r"Put $t = N/2$ into the phase.",
        explanation=r"$e^{-\pi i k_x} = (-1)^{k_x}$, the checkerboard of the last chapter.",
    )
    return


@app.function
def test_copies_of_a_gaussian():
    """Poisson's sum, term by term; 1e-12: rounding of sums of order 1, no other error."""
    s = np.linspace(-0.4, 0.4, 9)
    by_copies = sum(gaussian_transform(0.6, s + m / 1.5) for m in range(-9, 10))
    np.testing.assert_allclose(sampled_transform(0.6, 1.5, s), by_copies, atol=1e-12)


@app.function
def test_aliases():
    """By hand, from 1/2.13 - 1/1.5, and the wave that becomes a constant."""
    assert abs(alias_per_angstrom(1 / 2.13, 1.5) + 0.197183) < 1e-6
    assert alias_per_angstrom(1 / 1.5, 1.5) == 0.0
    # 0.9 per angstrom at 0.8 angstrom is 0.72 turns a pixel, so -0.28.
    assert abs(alias_per_angstrom(0.9, 0.8) + 0.28 / 0.8) < 1e-12


@app.function
def test_shift_and_interpolation():
    """Whole shifts are rolls; half ones are the Gaussian itself, as is the sum of sincs."""
    row = np.exp(-(((np.arange(64) - 30) / 2.0) ** 2) / 2)
    np.testing.assert_allclose(shifted(row, 5), np.roll(row, 5), atol=1e-12)
    # Of a Gaussian of 2 pixels the samples hold all but exp(-2 (pi 2 / 2)^2) = 3e-9.
    x = np.arange(64) - 30.5
    true = np.exp(-((x / 2) ** 2) / 2)
    np.testing.assert_allclose(shifted(row, 0.5), true, atol=1e-7)
    sincs = np.sinc(np.arange(64)[:, None] - 0.5 - np.arange(64)) @ row
    np.testing.assert_allclose(sincs, true, atol=1e-7)


@app.function
def test_the_programs_shift():
    """It moves images back: that is a roll by whole pixels (single precision, 1e-5)."""
    image = torch.from_numpy(np.random.default_rng(2).normal(size=(32, 32))).float()
    disc = FourierDisc.of_box(32, 12)
    one, optics = torch.ones(1, len(disc)), SimpleNamespace(pixel_size_angstrom=[1.5])
    seen = disc.gather(image_to_fourier(image))[None]
    images = WhitenedImages(disc, seen, one, optics, one[0], 1.0)
    back = images.moved_back(torch.tensor([[3.0, -6.0]]))
    rolled = disc.gather(image_to_fourier(image.roll((4, -2), (0, 1))))
    np.testing.assert_allclose(back[0], rolled, atol=1e-5)


@app.function
def test_noise_of_every_second_pixel():
    """Variance 1 stays 1, and is 1/4 after cropping; 65,536 numbers: sd 0.006 of each."""
    noise = np.random.default_rng(1).normal(size=(512, 512))
    assert abs(noise[::2, ::2].var() - 1.0) < 4 * 0.006
    half = np.fft.fftshift(np.fft.fft2(noise))[128:384, 128:384] / 4
    assert abs(np.fft.ifft2(np.fft.ifftshift(half)).real.var() - 0.25) < 4 * 0.006 / 4
    assert abs(np.sinc(0.5) - 2 / np.pi) < 1e-12


@app.cell
def _():
    closing(
        "sampling",
        library=["cryoinfer.inference.whitening.WhitenedImages"],
        sources=[
            "C. E. Shannon 1949, Communication in the presence of noise, Proceedings of the IRE 37.",
            "R. K. Hobbie and B. J. Roth, Intermediate Physics for Medicine and Biology.",
            "learn_cryoem_math (Woollard).",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
