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
    from cryoinfer.fourier.grids import FourierDisc
    from cryoinfer.fourier.slices import (
        FourierVolume,
        SliceAccumulator,
        extract_slices,
        insert_slices,
    )
    from cryoinfer.fourier.transform import image_to_fourier
    from cryoinfer.geometry.rotations import random_rotations

    KERNELS = ("nearest", "linear", "cubic")


@app.cell
def _():
    opening("interpolation")
    return


@app.cell
def _():
    mo.md(r"""
    ## Between two samples

    A tilted slice hits hardly any grid point of the map's transform. Its values must be read between them. How wrong is
    that?

    One point suffices to find out, for a map is a sum of points. In one dimension, a point at the distance $d$ from the
    centre of a box of $N$ pixels has the transform $e^{-2\pi i k d / N}$, with $k$ in cycles per box: a wave, which turns
    the faster the further out the point lies. A discrete transform knows it at whole $k$. If the box is **padded**, put
    into an empty box of $M N$ pixels, it is known at every $1/M$.

    Between the samples a kernel helps. **Nearest-neighbour** interpolation takes the closest sample. **Linear
    interpolation** draws straight lines. **Cubic interpolation** fits a smooth curve to four samples. In the figure, move
    the point outwards: the wave becomes fast, and straight lines cut its tops off. Then pad.
    """)
    return


@app.function
def kernel(name, t):
    """Return the weight of a sample that is t samples away."""
    t = np.abs(t)
    if name == "nearest":
        return np.where(t < 0.5, 1.0, 0.0)
    if name == "linear":
        return np.maximum(0.0, 1.0 - t)
    near = (1.5 * t - 2.5) * t * t + 1.0
    far = ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0
    return np.where(t < 1.0, near, np.where(t < 2.0, far, 0.0))


@app.function
def kernel_transform(name, u):
    """Return the kernel's transform at u, in periods per sample."""
    if name == "nearest":
        return np.sinc(u)
    if name == "linear":
        return np.sinc(u) ** 2
    t = (np.arange(800) + 0.5) / 200.0 - 2.0
    return np.cos(2.0 * np.pi * np.multiply.outer(u, t)) @ kernel(name, t) / 200.0


@app.function
def interpolated_wave(distance, padding, name, k):
    sample = np.arange(-100, 101)
    known = np.exp(-2j * np.pi * sample / padding * distance)
    return kernel(name, np.subtract.outer(k * padding, sample)) @ known


@app.cell
def _():
    def between(distance, padding, name):
        k, x = np.linspace(0.0, 6.0, 241), np.linspace(-4.0, 4.0, 321)
        exact = np.exp(-2j * np.pi * k * distance)
        found = interpolated_wave(distance, padding, name, k)
        sample = np.arange(0, 6 * padding + 1) / padding
        copies = distance + padding * np.arange(-4, 5)
        copies = copies[np.abs(copies) <= 4.0]
        height = kernel_transform(name, copies / padding)
        waves = (
            Line(k, exact.real, "true", dashed=True),
            Line(k, found.real, f"read ({name})"),
            Points(sample, np.cos(2 * np.pi * sample * distance), "samples"),
        )
        words = "What was read, in real space", "place (boxes)", "height"
        spread = (
            Line(x, kernel_transform(name, x / padding), "kernel's transform", True),
            Points(copies, height, "the point, and its ghosts"),
        )
        error = np.sqrt(np.mean(np.abs(found - exact) ** 2))
        return Plot(
            (
                Panel(waves, "The transform", "k (cycles per box)", "real part"),
                Panel(spread, *words),
            ),
            f"The point keeps {kernel_transform(name, distance / padding):.3f} of its height; "
            f"values are off by {error:.2g} (root mean square).",
        )

    explore(
        between,
        distance=Slider("point's place (boxes)", (0, 0.1, 0.2, 0.3, 0.4, 0.45), 0.3),
        padding=Slider("padding M", (1, 2, 3, 4), 1),
        name=Choice("kernel", KERNELS, "linear"),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What the error looks like

    What is read at $k$ is $\sum_j h(M k - j)\, \hat f(j / M)$: the samples, convolved with the kernel $h$. A convolution
    in Fourier space is a product in real space. And a transform that is known only at every $1/M$ belongs to something
    periodic: the map, repeated every $M$ boxes. So in real space the map and all its copies are multiplied by the
    transform of the kernel, the dashed curve of the second panel. For linear interpolation

    $$\hat h(x) = \operatorname{sinc}^2\left(\frac{x}{M N}\right), \qquad
    \operatorname{sinc}(u) = \frac{\sin \pi u}{\pi u} .$$

    Two things went wrong, and they differ. The **fall-off**: a point keeps $\operatorname{sinc}^2(d / MN)$ of its height.
    That is known beforehand: divide the map by it before it is transformed, and it is gone. The **ghosts**: copies at
    $d \pm MN$ that should have vanished. No division cures them, since they lie outside the box. With the nearest copy at
    $MN - d$, and $\sin \pi(1-u) = \sin \pi u$, its height over that of the point is

    $$\left(\frac{d}{M N - d}\right)^2 ,$$

    for the nearest kernel the same without the square. Padding helps with the second power of $M$ and costs memory with
    the third. The figure shows how fast each kernel's error falls; in three dimensions a value is read from 1, 8 or 64
    samples. Set the distance to 0.25 and see what division gains.
    """)
    return


@app.function
def reading_error(name, distance, padding, divided):
    u = distance / np.asarray(padding, dtype=float)
    scale = kernel_transform(name, u) if divided else 1.0
    error = (kernel_transform(name, u) / scale - 1.0) ** 2
    for copy in range(1, 30):
        for sign in (-1, 1):
            error = error + (kernel_transform(name, u + sign * copy) / scale) ** 2
    return np.sqrt(error)


@app.cell
def _():
    def price(distance, division):
        padding, divided = np.linspace(1.0, 4.0, 31), division == "yes"
        lines = tuple(
            Line(padding, np.log10(reading_error(one, distance, padding, divided)), one)
            for one in KERNELS
        )
        at = [float(reading_error(one, distance, 2.0, divided)) for one in KERNELS]
        words = "Error", "padding M", "log10 of the error"
        told = ", ".join(f"{n} {a:.2g}" for n, a in zip(KERNELS, at, strict=True))
        return Plot((Panel(lines, *words),), f"At padding 2: {told}.")

    explore(
        price,
        distance=Slider(
            "point's place (boxes)", (0.0625, 0.125, 0.25, 0.375, 0.45), 0.25
        ),
        division=Choice("fall-off divided out", ("no", "yes"), "yes"),
    )
    return


@app.cell
def _():
    source(kernel, kernel_transform, interpolated_wave, reading_error)
    return


@app.cell
def _():
    mo.md(r"""
    ## The way back

    Reconstruction goes the other way: values of images are put into the volume. Reading is linear, $y = A v$, each row of
    $A$ holding the eight weights of one value. **Insertion** is the transpose, $A^{T} y$: a value is dealt out to the
    same eight corners with the same weights, which add up to 1. The weights are summed in a second array, because corners
    that were hit often must be divided by how often.

    One line of code goes wrong here often. Many values fall on one voxel. In numpy, `sums[index] += values` reads all
    voxels, adds, and writes all back: where an index occurs twice, the first sum is overwritten and lost. `np.add.at`
    adds one by one. The figure inserts lines through the origin of a plane, each with 33 values of weight 1, either way.
    The true weight at the radius $k$ is about $n / \pi k$ for $n$ lines: two crossings each, spread over a circle. Add
    lines, and watch what the short form forgets.
    """)
    return


@app.function
def inserted_weight(views, careful):
    """Return the weights on a plane of 37 by 37 after inserting lines at even angles."""
    angle, k = np.pi * np.arange(views) / views, np.arange(-16, 17)
    x, y = 18 + np.multiply.outer(np.cos(angle), k), 18 + np.outer(np.sin(angle), k)
    low_x, low_y = np.floor(x).astype(int), np.floor(y).astype(int)
    sums = np.zeros((37, 37))
    for right in (0, 1):
        for up in (0, 1):
            share = kernel("linear", x - low_x - right)
            share = share * kernel("linear", y - low_y - up)
            index = (low_y + up).ravel(), (low_x + right).ravel()
            if careful:
                np.add.at(sums, index, share.ravel())
            else:
                sums[index] += share.ravel()
    return sums


@app.cell
def _():
    _k = np.arange(-18, 19)
    _ring = np.rint(np.hypot(_k[:, None], _k)).astype(int).ravel()

    def insertion(views):
        right, wrong = inserted_weight(views, True), inserted_weight(views, False)
        how = {"extent": (-18.5, 18.5, -18.5, 18.5), "limits": (0.0, 5.0)}
        rings = [
            np.bincount(_ring, w.ravel())[1:16] / np.bincount(_ring)[1:16]
            for w in (right, wrong)
        ]
        k = np.arange(1.0, 16.0)
        curves = (
            Line(k, rings[0], "added one by one"),
            Line(k, rings[1], "sums[index] += values"),
            Line(k, views / (np.pi * k), "lines over circumference", dashed=True),
        )
        axes = "kx (Fourier px)", "ky (Fourier px)"
        return Plot(
            (
                Panel((Heat(right[::-1], **how),), "One by one", *axes, equal=True),
                Panel((Heat(wrong[::-1], **how),), "The short form", *axes, equal=True),
                Panel(curves, "", "k (Fourier px)", "mean weight", log_y=True),
            ),
            f"{views} lines of 33 values: the weights add up to {right.sum():.0f}, and in the short form to {wrong.sum():.0f}.",
        )

    explore(insertion, views=Slider("lines", (1, 2, 4, 8, 16, 32, 64), 16))
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *The map fades towards the edge of the box.* The fall-off was not divided out. Without padding linear interpolation
      leaves 41 % at the middle of a face, and 7 % in the corners.
    - *A pale copy of the particle shines in from the other side.* A ghost: the box is too tight, or not padded. A
      particle should fill no more than about half of the box.
    - *The map is noisier than it should be, and changes with the batch size.* Within a batch, repeated voxels were lost
      from the sums and from the weights alike: their ratio is that of the last value alone, and the noise of the others
      is not averaged away. Low frequencies suffer most, where all slices meet.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "A map in a box that is padded to twice its size is read linearly, without dividing "
        "by the fall-off. Which share of its height does a point keep that lies at the "
        "middle of a face of the box, half a box from the centre along one axis?",
        kernel_transform("linear", 0.25),
        tolerance=0.01,
        hint=r"$d / MN$ is 1/4, and $\sin(\pi/4) = 0.7071$.",
        explanation="(0.7071 / 0.7854)² is 0.81.",
    )
    return


@app.cell
def _():
    exercise(
        "The fall-off is divided out. How high is the strongest ghost of a point a quarter of a box out, at a padding of 2, read linearly?",
        kernel_transform("linear", 0.125 - 1.0) / kernel_transform("linear", 0.125),
        tolerance=0.001,
        hint="Put $d = N/4$ and $M = 2$ into the ratio.",
        explanation="(0.25 / 1.75)² is 0.020: two per cent.",
    )
    return


@app.cell
def _():
    choose(
        "`a = np.zeros(3); a[[1, 1, 2]] += 1`. What is a?",
        ("[0, 2, 1]", "[0, 1, 1]", "[0, 3, 3]"),
        1,
        hint="All right sides are computed before anything is written.",
        explanation="Both writes to place 1 put 0 + 1 there.",
    )
    return


@app.function
def test_known_numbers():
    # sin(pi/4) / (pi/4) = 0.9003 squared.
    assert abs(kernel_transform("linear", 0.25) - 0.8106) < 1e-4
    ghost = kernel_transform("linear", -0.875) / kernel_transform("linear", 0.125)
    assert abs(ghost - (0.25 / 1.75) ** 2) < 1e-12
    for name in KERNELS:
        # A kernel that interpolates: weights of whole samples, and sums of weights, are 1.
        assert kernel(name, 0.0) == 1.0
        assert abs(kernel(name, 0.3 + np.arange(-3, 4)).sum() - 1.0) < 1e-12
        k = np.random.default_rng(0).uniform(0, 20, 4000)
        off = interpolated_wave(0.3, 2.0, name, k) - np.exp(-2j * np.pi * k * 0.3)
        expected = reading_error(name, 0.3, 2.0, divided=False)
        # 4,000 places: 5 %.
        assert abs(np.sqrt(np.mean(np.abs(off) ** 2)) / expected - 1.0) < 0.05


@app.function
def test_no_weight_is_lost():
    assert abs(inserted_weight(16, True).sum() - 16 * 33) < 1e-9
    assert inserted_weight(16, False).sum() < 0.8 * 16 * 33


@app.function
def test_insertion_is_the_transpose_of_reading_in_the_library():
    generator = torch.Generator().manual_seed(0)
    rotation, disc = random_rotations(5, generator), FourierDisc.of_box(16, 7)
    sums = SliceAccumulator.empty(16, 7, 2.0)
    shape = (*sums.sums.shape[:3], 2)
    volume = FourierVolume(torch.randn(shape, generator=generator), 7, 2.0)
    values = torch.randn(5, len(disc), 2, generator=generator)
    found = torch.view_as_real(extract_slices(volume, rotation, disc))
    weights = torch.ones(5, len(disc))
    insert_slices(sums, rotation, disc, torch.view_as_complex(values), weights)
    there, back = (found * values).sum(), (volume.values * sums.sums[..., :2]).sum()
    # Single precision: sums of 1,000 products of size 1.
    assert abs(there - back) < 1e-3
    assert abs(sums.sums[..., 2].sum() - 5 * len(disc)) < 1e-2


@app.function
def test_ghosts_are_the_error_of_the_library():
    axis = np.arange(48) - 24

    def bell(at):
        return np.exp(-((axis - at) ** 2) / 8.0)

    density = torch.tensor(np.einsum("z,y,x->zyx", bell(0.0), bell(0.0), bell(12.0)))
    turn = torch.tensor([[[0.8, 0.6, 0.0], [-0.6, 0.8, 0.0], [0.0, 0.0, 1.0]]])
    disc = FourierDisc.of_box(48, 15)
    found = extract_slices(FourierVolume.from_map(density, 15, 2.0), turn, disc)[0]
    exact = np.sqrt(8.0 * np.pi) * np.outer(bell(-0.6 * 12.0), bell(0.8 * 12.0))
    exact = disc.gather(image_to_fourier(torch.tensor(exact)))
    error = (found - exact).norm() / exact.norm()
    # The rows of a turn by 3, 4, 5 hit many grid points, and a blob is no point: 25 %.
    assert abs(error / reading_error("linear", 0.25, 2.0, divided=True) - 1.0) < 0.25


@app.cell
def _():
    closing(
        "interpolation",
        library=["cryoinfer.fourier.slices.FourierVolume"],
        sources=[
            "R. G. Keys 1981, Cubic convolution interpolation for digital image processing, IEEE Trans. Acoustics, Speech and Signal Processing.",
            "learn_cryoem_math (Woollard): cost and error of interpolation.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
