import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch

    from course import (
        Bars,
        Heat,
        Line,
        Panel,
        Plot,
        Slider,
        choose,
        closing,
        exercise,
        explore,
        opening,
        source,
    )
    from cryoinfer.fourier.transform import image_to_fourier, map_to_fourier


@app.cell
def _():
    opening("dft")
    return


@app.cell
def _():
    mo.md(r"""
    ## A row of pixels, and waves that fit into it

    Take one row of an image: $N$ numbers $f_0, f_1, \dots, f_{N-1}$. Take also the waves that fit into the
    row a whole number of times. The wave that goes round $k$ times is

    $$w_k(x) = e^{2\pi i k x / N} = \cos\frac{2\pi k x}{N} + i \sin\frac{2\pi k x}{N} .$$

    There are $N$ different ones: wave $k + N$ has the same value as wave $k$ at every pixel, since
    $e^{2\pi i x} = 1$ for a whole $x$. So $k$ may run from 0 to $N - 1$, or from $-N/2$ to $N/2 - 1$: the
    wave $N - 1$ is the wave $-1$.

    Any two of them are perpendicular. Multiply one by the complex conjugate of another and add up; the sum is
    a geometric series with the ratio $q = e^{2\pi i (k - l)/N}$,

    $$\sum_{x=0}^{N-1} w_k(x)\, \overline{w_l(x)} = \sum_{x=0}^{N-1} q^x =
    \frac{q^N - 1}{q - 1} = 0 \quad (k \ne l), \qquad \text{and } N \text{ for } k = l .$$

    Suppose that the row is a sum of waves, $f_x = \frac{1}{N}\sum_k F_k\, w_k(x)$. Multiply by
    $\overline{w_l(x)}$, sum over $x$, and all terms vanish but one. What is left is the **discrete Fourier
    transform** of the row, and the sum we began with is its inverse:

    $$F_k = \sum_{x=0}^{N-1} f_x\, e^{-2\pi i k x / N}, \qquad
    f_x = \frac{1}{N} \sum_{k=0}^{N-1} F_k\, e^{2\pi i k x / N} .$$

    $N$ perpendicular waves span all rows of $N$ numbers, so every row is such a sum. The number $F_k$ is a
    **Fourier coefficient**: its modulus says how much of the wave there is, its angle how far the wave is
    moved along the row.

    Move the slider: the sum begins as the mean ($k = 0$), then gets broad features, then edges. With all
    waves it is the row, to the last digit. Look at the edge of the box-shaped feature: it needs waves of
    every frequency.
    """)
    return


@app.function
def dft_matrix(n):
    """Return the matrix of the transform: row k holds the conjugate of wave k."""
    k = np.arange(n)
    return np.exp(-2j * np.pi * np.outer(k, k) / n)


@app.function
def row_of_pixels(n=64):
    """Return a row with two round features and one with edges."""
    x = np.arange(n) / n
    first, second = (x - 0.3) / 0.05, (x - 0.45) / 0.03
    box = (x > 0.62) & (x < 0.8)
    return np.exp(-(first**2)) + 0.6 * np.exp(-(second**2)) + 0.8 * box


@app.function
def low_pass_row(row, highest):
    """Return the sum of the waves with frequencies from -highest to highest."""
    n = len(row)
    kept = np.abs(np.fft.fftfreq(n, 1 / n)) <= highest
    return (np.conj(dft_matrix(n)) @ (kept * (dft_matrix(n) @ row))).real / n


@app.cell
def _():
    def sum_of_waves(highest):
        row, x, k = row_of_pixels(), np.arange(64), np.arange(33)
        size = np.abs(dft_matrix(64) @ row)[:33]
        kept = low_pass_row(row, highest)
        rows = (Line(x, kept, "sum of waves"), Line(x, row, "row", dashed=True))
        size = np.where([k <= highest, k > highest], size, np.nan)
        bars = (Bars(k, size[0], "in the sum"), Bars(k, size[1], "left out"))
        return Plot(
            (
                Panel(rows, "A row of 64 pixels", "pixel", "value"),
                Panel(bars, "How much of each wave", "k (waves per row)", "modulus"),
            ),
            says=f"Waves up to {highest} per row: the sum differs from the row by "
            f"{np.sqrt(np.mean((kept - row) ** 2)):.3f} (root mean square).",
        )

    explore(sum_of_waves, highest=Slider("highest k", range(33), start=6))
    return


@app.cell
def _():
    mo.md(r"""
    ## A matrix, and how to avoid it

    The transform is linear: $F = W f$ with the matrix $W_{kx} = e^{-2\pi i k x/N}$. It costs $N^2$
    multiplications. But many of them are done more than once. Split the row into its pixels of even and of
    odd number, and write $E_k$ and $O_k$ for the transforms of these two rows of $N/2$ pixels:

    $$F_k = \sum_{m} f_{2m}\, e^{-2\pi i k m/(N/2)} + e^{-2\pi i k/N} \sum_m f_{2m+1}\,
    e^{-2\pi i k m/(N/2)} = E_k + e^{-2\pi i k/N} O_k .$$

    $E$ and $O$ repeat after $N/2$, and $e^{-2\pi i (k + N/2)/N} = -e^{-2\pi i k/N}$. So the upper half comes
    for free: $F_{k+N/2} = E_k - e^{-2\pi i k/N} O_k$. Do the same to the halves, and to their halves. There
    are $\log_2 N$ levels with about $N$ operations each. This is the **fast Fourier transform** (FFT): the
    same numbers for $N \log_2 N$ operations. For 256 pixels that is 2,048 instead of 65,536.
    """)
    return


@app.function
def recursive_fft(row):
    """Return the transform of a row whose length is a power of two."""
    if len(row) == 1:
        return np.asarray(row, dtype=complex)
    even, odd = recursive_fft(row[0::2]), recursive_fft(row[1::2])
    turned = np.exp(-2j * np.pi * np.arange(len(odd)) / len(row)) * odd
    return np.concatenate([even + turned, even - turned])


@app.cell
def _():
    source(dft_matrix, low_pass_row, recursive_fft)
    return


@app.cell
def _():
    mo.md(r"""
    ## Two axes, three axes

    A wave in an image has a frequency along x and one along y. Since an exponential of a sum is a product,

    $$F_{k_x k_y} = \sum_{y} e^{-2\pi i k_y y/N} \Big( \sum_{x} f_{xy}\, e^{-2\pi i k_x x/N} \Big) ,$$

    one transforms all rows, then all columns of the result. A map needs a third round, along z. Nothing new
    comes in. A map of $256^3$ voxels takes $3 \times 8 \times 256^3 \approx 4 \times 10^8$ operations. With
    the matrix of all voxels against all waves it would be $2.8 \times 10^{14}$.

    Set $k_z = 0$ in the sum for a map: the z axis is then simply summed. So one plane of the transform of a
    map is the transform of its projection along z. *The slice theorem* is built on this.

    Images are real. Conjugate the sum for $F_k$ and you get the sum for $F_{-k}$: $F_{-k} = \overline{F_k}$,
    which is **Friedel symmetry**. Half of the transform holds all of it. Programs store only the columns
    $k_x = 0 \dots N/2$.

    The slider keeps the waves inside a circle of Fourier space. Six waves per box show where the particle is.
    The two thin bars are 4 pixels apart, the period of wave 12 in this box of 48: they part from 10 on.
    """)
    return


@app.function
def particle(n=48):
    """Return an image: three round features, and two thin bars 4 pixels apart."""
    y, x = np.mgrid[:n, :n] - n // 2
    image = np.exp(-((x + 8) ** 2 + (y + 6) ** 2) / 30.0)
    image += 0.8 * np.exp(-((x - 7) ** 2 + (y + 8) ** 2) / 16.0)
    image += 0.7 * np.exp(-((x + 3) ** 2 + (y - 9) ** 2) / 20.0)
    for place in (6, 10):
        image += np.exp(-((x - place) ** 2) / 1.5) * (np.abs(y - 5) < 6)
    return image


@app.cell
def _():
    def picture(radius):
        image, n = particle(), 48
        centred = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(image)))
        inside = np.hypot(*(np.mgrid[:n, :n] - n // 2)) <= radius
        kept = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(centred * inside))).real
        power = np.abs(centred) ** 2
        shown = np.where(inside, np.log10(1 + np.abs(centred)), np.nan)
        seen = (Heat(kept, limits=(-0.2, 1.2)),)
        moduli = (Heat(shown, (-24.5, 23.5, 23.5, -24.5), limits=(0.0, 2.8)),)
        left, right = "Sum of the waves kept", "Their moduli (logarithm)"
        return Plot(
            (
                Panel(seen, left, "x (pixel)", "y (pixel)", equal=True),
                Panel(moduli, right, "kx (per box)", "ky (per box)", equal=True),
            ),
            says=f"{inside.sum()} of {n * n} coefficients, "
            f"{100 * power[inside].sum() / power.sum():.1f} % of the sum of squares.",
        )

    explore(picture, radius=Slider("radius kept (waves per box)", range(25), start=6))
    return


@app.cell
def _():
    mo.md(r"""
    ## Who decides where the centre is

    You do, and every program does. In the formula all waves are 1 at pixel 0. That pixel is the **origin**: a
    bright pixel there, and nothing else, has $F_k = 1$ for every $k$. But a particle lies in the middle of
    its box, at pixel $N/2$. Move the origin to a pixel $o$, that is, write $x - o$ for $x$ in the exponent:
    each coefficient is multiplied by $e^{2\pi i k o/N}$. For $o = N/2$ and an even $N$ that is

    $$e^{\pi i k} = (-1)^k , \qquad \text{in an image } (-1)^{k_x + k_y} .$$

    So to centre a transform, multiply it by a checkerboard of signs. The same holds the other way round:
    multiply the *image* by a checkerboard, and frequency zero moves from the corner of the transform to its
    middle. To move the pixels instead is the same thing: `ifftshift` brings the middle pixel to place 0
    before the transform.

    The slider moves the origin through a row that holds a Gaussian at pixel 32. At 0 the coefficients change
    sign from each to the next. Watch them slow down: at 32 they are real, positive and smooth, and the
    imaginary part is gone.
    """)
    return


@app.function
def transform_from(row, origin):
    """Return the transform with the origin at a pixel, frequencies -n/2 to n/2 - 1."""
    k = np.arange(len(row)) - len(row) // 2
    return np.fft.fftshift(np.fft.fft(row)) * np.exp(2j * np.pi * k * origin / len(row))


@app.cell
def _():
    def origin_of(origin):
        x, k = np.arange(64), np.arange(64) - 32
        row = np.exp(-(((x - 32) / 2.5) ** 2) / 2)
        found = transform_from(row, origin)
        here = Line([origin, origin], [0.0, 1.1], "origin", dashed=True)
        parts = (Line(k, found.real, "real"), Line(k, found.imag, "imaginary"))
        return Plot(
            (
                Panel((Line(x, row, "row"), here), "The row", "pixel", "value"),
                Panel(parts, "Its transform", "k (waves per row)", "coefficient"),
            ),
            says=f"Origin at pixel {origin}: each coefficient is turned by "
            f"{abs(360 * (32 - origin) / 64):.1f} degrees against the one before it. The "
            f"largest imaginary part is {np.abs(found.imag).max():.2f}.",
        )

    explore(origin_of, origin=Slider("origin (pixel)", range(0, 65, 2), start=0))
    return


@app.cell
def _():
    mo.md(r"""
    The factor in front is a second free choice. Numpy has none forward and $1/N$ back. For images the program
    divides by $\sqrt N$ an axis, both ways. Then the sum of squares is the same on both sides (**Parseval's
    theorem**), and white noise of variance $\sigma^2$ has the power $\sigma^2$ in every coefficient.

    ## What goes wrong in practice

    - *"My transform alternates in sign and my slices are noise."* The image was transformed with its origin
      in the corner. Interpolation between a coefficient and its neighbour of opposite sign gives about zero.
      Shift first, or multiply by the checkerboard.
    - *"After a round trip the map is one voxel off."* For an odd $N$ `fftshift` and `ifftshift` differ: the
      middle is pixel $(N-1)/2$, and moving it to 0 is not the same number of pixels as moving 0 to it. Use
      `ifftshift` before a transform, `fftshift` after the inverse. One voxel is a phase of nearly half a turn
      at the highest frequency.
    - *"Mirrored, the particle has moved."* Reversing an even row takes pixel $N/2$ to $N/2 - 1$. Reverse,
      then roll by one.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        r"A row of 64 pixels is $3 \cos(2\pi \cdot 5 x/64)$. What is the modulus of $F_5$?",
        np.abs(dft_matrix(64) @ (3.0 * np.cos(2 * np.pi * 5 * np.arange(64) / 64)))[5],
        tolerance=0.5,
        hint="A cosine is half the sum of the waves 5 and -5.",
        explanation="Half of 3, times 64, is 96. As much is in wave -5, which is wave 59.",
    )
    return


@app.cell
def _():
    exercise(
        r"For a row of 1,024 pixels, how many times less is $N \log_2 N$ than $N^2$?",
        1024**2 / (1024 * np.log2(1024)),
        tolerance=1.0,
        hint="1,024 is 2 to the power of 10.",
        explanation="1,024 over 10 is 102. The gain grows with the row.",
    )
    return


@app.cell
def _():
    choose(
        r"An image is real, and its coefficient at $(3, -2)$ is $1 + 2i$. Which other is known?",
        (r"$1 - 2i$ at $(3, 2)$", r"$1 - 2i$ at $(-3, 2)$", r"$1 + 2i$ at $(-3, 2)$"),
        1,
        hint="Conjugate the sum, and see which signs change in the exponent.",
        explanation="The whole exponent changes its sign, so both frequencies do.",
    )
    return


@app.function
def test_three_ways_agree():
    """Matrix, recursion and numpy; 1e-11: 64 sums of numbers near 1 in double precision."""
    row = row_of_pixels()
    np.testing.assert_allclose(dft_matrix(64) @ row, np.fft.fft(row), atol=1e-11)
    np.testing.assert_allclose(low_pass_row(row, 32), row, atol=1e-11)
    np.testing.assert_allclose(recursive_fft(row), np.fft.fft(row), atol=1e-11)
    by_hand = [10, -2 + 2j, -2, -2 - 2j]  # sums with powers of -i
    np.testing.assert_allclose(recursive_fft([1, 2, 3, 4]), by_hand, atol=1e-12)


@app.function
def test_a_centred_gaussian_is_real_and_gaussian():
    """It has s sqrt(2 pi) exp(-2 pi^2 s^2 k^2 / n^2); 1e-9: Nyquist's is 3e-13."""
    x = np.arange(64) - 32
    found = transform_from(np.exp(-((x / 2.5) ** 2) / 2), 32)
    expected = 2.5 * np.sqrt(2 * np.pi) * np.exp(-2 * (np.pi * 2.5 * x / 64) ** 2)
    np.testing.assert_allclose(found, expected, atol=1e-9)


@app.function
def test_checkerboards_and_the_programs_transform():
    """The library shifts pixels, the chapter multiplies by signs; double rounding."""
    image = particle()
    n = len(image)
    signs = (-1.0) ** np.add.outer(np.arange(n), np.arange(n // 2 + 1))
    found = image_to_fourier(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(found, np.fft.rfft2(image) * signs / n, atol=1e-12)
    assert abs((image**2).sum() - (np.abs(np.fft.fft2(image)) ** 2).sum() / n**2) < 1e-9
    # Signs on the image bring frequency zero to the middle.
    y, x = np.mgrid[:n, :n]
    middle = np.fft.fft2(image * (-1.0) ** (x + y))
    np.testing.assert_allclose(middle, np.fft.fftshift(np.fft.fft2(image)), atol=1e-10)
    # By hand: of five pixels the middle one is 2; only ifftshift brings it to place 0.
    assert (np.fft.ifftshift(np.arange(5))[0], np.fft.fftshift(np.arange(5))[0]) == (
        2,
        3,
    )


@app.function
def test_three_axes_and_the_plane_of_the_projection():
    """One axis after the other is numpy's fftn; the plane kz = 0 is the projection's."""
    density = np.random.default_rng(0).normal(size=(8, 8, 8))
    whole = np.einsum("az,by,cx,zyx->abc", *[dft_matrix(8)] * 3, density)
    np.testing.assert_allclose(whole, np.fft.fftn(density), atol=1e-10)
    one = torch.from_numpy(density)
    plane = image_to_fourier(one.sum(0))
    np.testing.assert_allclose(map_to_fourier(one)[0], plane, atol=1e-12)
    np.testing.assert_allclose(whole[0], np.fft.fft2(density.sum(0)), atol=1e-10)


@app.cell
def _():
    closing(
        "dft",
        library=[
            "cryoinfer.fourier.transform.image_to_fourier",
            "cryoinfer.fourier.transform.map_to_fourier",
        ],
        sources=[
            "J. W. Cooley and J. W. Tukey 1965, Mathematics of Computation 19, 297-301.",
            "R. N. Bracewell 2000, The Fourier Transform and Its Applications, third edition.",
            "learn_cryoem_math (Woollard).",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
