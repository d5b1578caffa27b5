import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch

    from course import (
        Choice,
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
    from cryoinfer.fourier.transform import fourier_to_image, image_to_fourier


@app.cell
def _():
    opening("convolution")
    return


@app.cell
def _():
    mo.md(r"""
    ## Every point becomes a spot

    A microscope shows a point as a small spot $h$. A picture is many points, and the spots add up: the pixel at
    $u$ of brightness $f(u)$ puts $f(u)\, h(x - u)$ into the image. The **convolution** of $f$ with the
    **kernel** $h$ is their sum,

    $$g(x) = (f * h)(x) = \sum_u f(u)\, h(x - u) .$$

    Take the discrete transform of it, and write $x = u + v$:

    $$G_k = \sum_u \sum_v f(u)\, h(v)\, e^{-2\pi i k (u + v)/N} = F_k\, H_k .$$

    The exponential of a sum is a product, so the double sum falls apart into two. A convolution is a product in
    Fourier space: this is the **convolution theorem**. It says what blurring does. Each wave of the picture is
    multiplied by a number, and no wave is turned into another. It also saves work: for an image of 256 pixels
    the sum has $256^4 = 4.3 \times 10^9$ terms, and three fast transforms have about $3 \times 10^6$
    operations.

    Choose a kernel. A Gaussian weakens high frequencies. Two spots show everything twice, and their transform
    is a cosine: at its zeros the wave is lost. A ring, roughly what a defocused point looks like, has a
    transform that changes sign: those waves come with black and white exchanged.
    """)
    return


@app.function
def particle(n=48):
    """Return an image of three round features and two thin bars."""
    y, x = np.mgrid[:n, :n] - n // 2
    image = np.exp(-((x + 8) ** 2 + (y + 6) ** 2) / 30.0)
    image += 0.8 * np.exp(-((x - 7) ** 2 + (y + 8) ** 2) / 16.0)
    image += 0.7 * np.exp(-((x + 3) ** 2 + (y - 9) ** 2) / 20.0)
    for place in (6, 10):
        image += np.exp(-((x - place) ** 2) / 1.5) * (np.abs(y - 5) < 6)
    return image


@app.function
def kernel(shape, size, n=48):
    """Return a kernel of sum 1, its origin at pixel n // 2."""
    y, x = np.mgrid[:n, :n] - n // 2
    if shape == "Gaussian":
        spot = np.exp(-(x**2 + y**2) / (2 * (size / 2) ** 2))
    elif shape == "two spots":
        spot = sum(np.exp(-((x - at) ** 2 + y**2) / 1.5) for at in (-size, size))
    else:
        spot = np.exp(-((np.hypot(x, y) - size) ** 2) / 1.5)
    return spot / spot.sum()


@app.function
def convolved(image, spot):
    """Return the circular convolution with a kernel whose origin is the middle."""
    product = np.fft.fft2(image) * np.fft.fft2(np.fft.ifftshift(spot))
    return np.fft.ifft2(product).real


@app.function
def square(image, title, *, limits=None, signed=False, fourier=False):
    """Return a panel with an image whose origin is its middle pixel."""
    low, high = -0.5 - len(image) // 2, len(image) - 0.5 - len(image) // 2
    seen = Heat(image, (low, high, high, low), signed, limits)
    unit = "k{} (per box)" if fourier else "{} (pixel)"
    return Panel((seen,), title, unit.format("x"), unit.format("y"), equal=True)


@app.cell
def _():
    def blurring(shape, size):
        image, spot = particle(), kernel(shape, size)
        factor = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(spot))).real
        lowest = factor.min()
        return Plot(
            (
                square(spot, "Kernel"),
                square(convolved(image, spot), "Convolution", limits=(0, 1.1)),
                square(
                    factor,
                    "Factor of each wave",
                    limits=(-1, 1),
                    signed=True,
                    fourier=True,
                ),
            ),
            says=f"Waves are multiplied by 1 to {lowest:.2f}; {100 * np.mean(np.abs(factor) < 0.05):.0f} % "
            "of them by less than 0.05 either way.",
        )

    explore(
        blurring,
        shape=Choice("kernel", ("Gaussian", "two spots", "ring")),
        size=Slider("size (pixels)", range(1, 9), 3),
    )
    return


@app.cell
def _():
    source(convolved)
    return


@app.cell
def _():
    mo.md(r"""
    ## The picture is on a ring

    In the derivation $u + v$ ran beyond $N$, and the waves did not mind, for they repeat. So the product gives
    the **circular convolution**: what is blurred out of the right edge comes in at the left. Put zeros around
    the picture, at least as many as the kernel is wide, and cut them off afterwards. Then the ends do not meet.
    In the figure the kernel is a one-sided tail. Pad, and watch what stands at the left edge.
    """)
    return


@app.function
def padded_convolution(row, tail, padding):
    """Return a row convolved with a kernel that begins at 0, with zeros at its end."""
    n = len(row) + padding
    product = np.fft.fft(row, n) * np.fft.fft(tail, n)
    return np.fft.ifft(product).real[: len(row)]


@app.cell
def _():
    def wrapping(padding, length):
        x = np.arange(64)
        row = ((x > 12) & (x < 20)) + 1.0 * (x > 53)
        tail = np.exp(-x / length)
        tail /= tail.sum()
        true = np.convolve(row, tail)[:64]
        found = padded_convolution(row, tail, padding)
        marks = (
            Line(x, row, "row", dashed=True),
            Line(x, true, "sum, no ring"),
            Line(x, found, "by transforms"),
        )
        return Plot(
            (
                Panel(
                    marks, "A row with a tail", "pixel", "value", y_range=(-0.05, 1.1)
                ),
            ),
            says=f"{padding} zeros: the largest error is {np.abs(found - true).max():.3f}.",
        )

    explore(
        wrapping,
        padding=Slider("zeros", range(0, 65, 8), 0),
        length=Slider("length of the tail (pixels)", (2, 4, 8, 16), 8),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Where is it?

    The other question of every day: an image $g$ holds a known picture $f$, moved by an unknown $t$, and noise.
    Which $t$ fits best? Compare by squares:

    $$\sum_x \big( g(x) - f(x - t) \big)^2 = \sum_x g^2 + \sum_x f^2 - 2 c(t), \qquad c(t) = \sum_x f(x - t)\, g(x) .$$

    The first two sums do not depend on $t$. The best shift is where the **cross-correlation** $c$ is largest.
    It is a convolution with one of the two turned round, and its transform is

    $$C_k = \overline{F_k}\, G_k .$$

    One product compares all $N^2$ shifts. Of a picture with itself it is $|F_k|^2$: the power spectrum is the
    transform of the **autocorrelation**.

    How strong must the picture be? At the right shift the sum is $E = \sum f^2$ plus a sum of noise. For white
    noise of standard deviation $\sigma$ that sum has the standard deviation $\sigma \sqrt{E}$, at every shift.
    So the peak stands

    $$\frac{E}{\sigma \sqrt E} = \frac{\sqrt E}{\sigma} = \sqrt{N^2 \cdot \mathrm{SNR}}$$

    standard deviations high, where SNR is the power of the picture over that of the noise. The highest of $n$
    chance peaks is near $\sqrt{2 \ln n}$: 3.9 for the 2,304 shifts of the figure. Raise the noise. The eye
    loses the particle first. Then the highest point begins to wander over the broad peak. When the expected
    height comes down to about 4, it is anywhere.
    """)
    return


@app.function
def cross_correlation(picture, image):
    """Return the correlation at every shift, shift zero at pixel n // 2."""
    product = np.conj(np.fft.fft2(picture)) * np.fft.fft2(image)
    return np.fft.fftshift(np.fft.ifft2(product).real)


@app.function
def best_shift(picture, image):
    """Return the whole shift (x, y) in pixels at which a picture is found."""
    found = cross_correlation(picture, image)
    y, x = np.unravel_index(found.argmax(), found.shape)
    return int(x) - len(picture) // 2, int(y) - len(picture) // 2


@app.cell
def _():
    def finding(noise, seed):
        picture = particle() - particle().mean()
        moved = np.roll(picture, (7, -5), (0, 1))
        white = np.random.default_rng(seed).normal(size=moved.shape)
        image, energy = moved + noise * white, (picture**2).sum()
        found = cross_correlation(picture, image) / (noise * np.sqrt(energy))
        panel = square(found, "Correlation (standard deviations)", limits=(-4, 12))
        x, y = best_shift(picture, image)
        marks = (*panel.marks, Points([x], [y], "highest"), Points([-5], [7], "true"))
        right = Panel(
            marks, panel.title, "shift x (pixel)", "shift y (pixel)", equal=True
        )
        return Plot(
            (square(image, "Picture moved by (-5, 7), and noise"), right),
            says=f"SNR {energy / 2304 / noise**2:.3g}; expected height {np.sqrt(energy) / noise:.1f}, "
            f"found {found.max():.1f} at ({x}, {y}).",
        )

    explore(
        finding,
        noise=Slider("noise of a pixel", (0.3, 0.6, 1, 1.5, 2, 3, 4, 6), 1),
        seed=Slider("seed", range(5), 0),
    )
    return


@app.cell
def _():
    source(cross_correlation, best_shift)
    return


@app.cell
def _():
    mo.md(r"""
    ## Going back

    If blurring is a product, is sharpening a division? Yes, $F = G/H$, where $H$ is not small. Where it is,
    noise is divided by a small number too. How to divide with care is the subject of *The most probable map*.

    ## What goes wrong in practice

    - *"The blurred image has moved by half a box."* The kernel was drawn in the middle of its box. In the
      product its origin is pixel 0, so its middle must be brought there first.
    - *"The shift comes out with the wrong sign."* $\overline F G$ peaks at how far $g$ is moved against $f$;
      $F \overline G$ at the opposite. Test once with a known roll.
    - *"All particles are found at shift zero."* Something that does not move is in both images: the gain
      pattern of the camera, an edge, a circle of a mask, or just the mean. It correlates better than a
      particle. Subtract means, and correct the gain.
    - *"A ghost at the edge."* The ring. Pad.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "A Gaussian feature with a standard deviation of 3 Å is blurred by a Gaussian of 4 Å. What is its standard deviation now?",
        np.hypot(3, 4),
        tolerance=0.02,
        unit="Å",
        hint=r"Transforms of Gaussians are $e^{-2\pi^2\sigma^2 s^2}$. Multiply two.",
        explanation="Exponents add, so variances do: 9 + 16 = 25.",
    )
    return


@app.cell
def _():
    exercise(
        "A particle image has 128 x 128 pixels and an SNR of 0.02. How many standard deviations high does the peak of its correlation with the true picture stand?",
        np.sqrt(128**2 * 0.02),
        tolerance=0.2,
        hint="The formula before the last figure.",
        explanation="The root of 327.7 is 18.1: far above chance, though no eye sees the particle.",
    )
    return


@app.cell
def _():
    choose(
        "At some frequency the kernel's transform is exactly zero. What can be said of the picture there, after blurring?",
        (
            "It can be had back by division.",
            "Nothing: that wave is lost.",
            "It was zero before.",
        ),
        1,
        hint="What is 0 times 5, and 0 times 7?",
        explanation="All pictures that differ in this wave alone give the same blurred image.",
    )
    return


@app.function
def test_products_are_sums():
    """Against the sum over all pixels, by rolling the picture; 1e-12: double rounding."""
    image, spot = np.random.default_rng(0).normal(size=(2, 8, 8))
    centred = [(y, x) for y in range(8) for x in range(8)]
    summed = sum(
        spot[y, x] * np.roll(image, (y - 4, x - 4), (0, 1)) for y, x in centred
    )
    np.testing.assert_allclose(convolved(image, spot), summed, atol=1e-12)
    # The program's transforms are divided by n each way: a factor n is left.
    one, two = (image_to_fourier(torch.from_numpy(each)) for each in (image, spot))
    np.testing.assert_allclose(8 * fourier_to_image(one * two, 8), summed, atol=1e-12)


@app.function
def test_padding_makes_the_convolution_linear():
    """Against numpy's sum; as many zeros as the tail is long leave only rounding."""
    row, tail = np.random.default_rng(1).normal(size=(2, 16))
    found = padded_convolution(row, tail, 15)
    np.testing.assert_allclose(found, np.convolve(row, tail)[:16], atol=1e-12)


@app.function
def test_gaussian_variances_add():
    """3 and 4 pixels make 5; 1e-9: the tails beyond the box are smaller."""
    r2 = np.sum((np.mgrid[:96, :96] - 48) ** 2, 0)
    spots = [np.exp(-r2 / (2 * s**2)) / (2 * np.pi * s**2) for s in (3, 4, 5)]
    np.testing.assert_allclose(convolved(*spots[:2]), spots[2], atol=1e-9)


@app.function
def test_correlation_finds_the_shift_and_its_height():
    """Known shift; height against sqrt(E) / sigma over 200 draws, sd 1 / sqrt(200) = 0.07."""
    picture = particle() - particle().mean()
    assert best_shift(picture, np.roll(picture, (7, -5), (0, 1))) == (-5, 7)
    rng, energy = np.random.default_rng(2), (picture**2).sum()
    images = picture + 2 * rng.normal(size=(200, *picture.shape))
    heights = [cross_correlation(picture, image)[24, 24] for image in images]
    heights = np.array(heights) / (2 * np.sqrt(energy))
    assert abs(heights.mean() - np.sqrt(energy) / 2) < 0.28
    assert abs(heights.std() - 1) < 0.2


@app.cell
def _():
    closing(
        "convolution",
        library=[
            "cryoinfer.physics.image_model.ImageModel",
            "cryoinfer.evaluation.rigid_search.likeliest_frame",
        ],
        sources=[
            "R. N. Bracewell 2000, The Fourier Transform and Its Applications, third edition.",
            "F. J. Sigworth 2004, Classical detection theory and the cryo-EM particle selection problem, Journal of Structural Biology 145.",
            "learn_cryoem_math (Woollard).",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
