import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy.special import eval_legendre, spherical_jn

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
    from cryoinfer.fourier.transform import image_to_fourier
    from cryoinfer.geometry.rotations import random_rotations
    from cryoinfer.physics.structures.beads import GaussianBeads
    from cryoinfer.records import Pose

    AXIS, RADII = np.arange(32.0) - 16.0, np.arange(1, 11) / 32.0
    STEP = 6
    ANGLES = np.radians(np.arange(0, 360, STEP))


@app.cell
def _():
    opening("common_lines")
    return


@app.cell
def _():
    mo.md(r"""
    ## Two images share a line

    Refinement compares images with a map. Before there is a map, images can only be compared with each other. Two
    images of one particle do have something in common, whatever their directions: both are planes through the origin
    of the same transform, and two planes through a point meet in a line. On this **common line** both images have the
    same values.

    Where is it? Let image $i$ have the pose $R_i$. Its plane is at a right angle to the direction of its beam,
    $n_i = R_i^{T} e_z$. The line lies in both planes, so it is along

    $$c_{12} = \frac{n_1 \times n_2}{\lvert n_1 \times n_2\rvert} ,$$

    and in image $i$ it appears along the first two numbers of $R_i\, c_{12}$. In real space: there is one angle in
    each image for which the shadows of both images on a line are the same curve.

    To find it, correlate each ray of the one transform with each ray of the other. The heat map shows this
    correlation, and should be brightest where the dot of the truth is. (A second maximum, 180 degrees further along
    both axes, is the same line from its other end.) Add noise, and the brightest place jumps. At small angles between
    the views it becomes a ridge: planes that nearly coincide are alike everywhere.
    """)
    return


@app.function
def beads():
    """Return places (12, 3) in pixels of Gaussians of sigma 1.3 px."""
    return np.random.default_rng(7).uniform(-6.5, 6.5, (12, 3))


@app.function
def image(rotation):
    """Return the image of the beads in a pose, 32 by 32 pixels (y, x)."""
    x, y = (beads() @ rotation.T).T[:2]
    across = np.exp(-((AXIS[:, None] - y) ** 2) / 3.38)
    return across @ np.exp(-((AXIS - x[:, None]) ** 2) / 3.38)


@app.function
def rays(images):
    """Return the transforms along rays at ANGLES, shape (..., angles, radii)."""
    kx, ky = np.outer(np.cos(ANGLES), RADII), np.outer(np.sin(ANGLES), RADII)
    along_x = np.exp(-2j * np.pi * kx[..., None] * AXIS)
    along_y = np.exp(-2j * np.pi * ky[..., None] * AXIS)
    waves = (along_y[..., :, None] * along_x[..., None, :]).reshape(*kx.shape, -1)
    return np.tensordot(images.reshape(*images.shape[:-2], -1), waves, (-1, -1))


@app.function
def correlations(first, second):
    """Return the correlation of each ray of one image with each of the other."""
    size = [np.linalg.norm(one, axis=-1, keepdims=True) for one in (first, second)]
    return ((first / size[0]) @ (second / size[1]).conj().T).real


@app.function
def common_line(first, second):
    """Return the angles (degrees) of the common line in images of two poses."""
    line = np.cross(first[2], second[2])
    there = [rotation @ line for rotation in (first, second)]
    return [np.degrees(np.arctan2(y, x)) % 360.0 for x, y, _ in there]


@app.function
def about(axis, degrees):
    """Return the rotation about x (0), y (1) or z (2) by an angle."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(3)
    a, b = [(1, 2), (2, 0), (0, 1)][axis]
    turn[a, a], turn[b, b], turn[a, b], turn[b, a] = c, c, -s, s
    return turn


@app.cell
def _():
    _noise = np.random.default_rng(1).standard_normal((2, 32, 32))
    _first = about(0, 25.0)

    def shared(between, noise):
        second = about(2, 50.0) @ about(1, between) @ about(2, 35.0) @ _first
        both = np.stack([image(_first), image(second)])
        both = both + noise * both.std() * _noise
        found = correlations(*rays(both))
        a, b = common_line(_first, second)
        i, j = np.unravel_index(found.argmax(), found.shape)
        best = np.degrees(ANGLES[i]), np.degrees(ANGLES[j])
        miss = min(
            max(
                abs((best[n] - one + turn + 180) % 360 - 180)
                for n, one in enumerate((a, b))
            )
            for turn in (0, 180)
        )
        edge = 360 - STEP / 2
        heat = Heat(found[::-1], (-STEP / 2, edge, -STEP / 2, edge), limits=(0.0, 1.0))
        marks = (
            heat,
            Points([b, (b + 180) % 360], [a, (a + 180) % 360], "truth"),
            Points([best[1]], [best[0]], "brightest"),
        )
        words = "Correlation", "angle in image 2 (°)", "angle in image 1 (°)"
        pictures = [
            Panel((Heat(one),), f"Image {n}", "x (px)", "y (px)", equal=True)
            for n, one in enumerate(both, 1)
        ]
        return Plot(
            (*pictures, Panel(marks, *words, equal=True)),
            f"The common line is at {a:.0f}° in image 1 and {b:.0f}° in image 2; the "
            f"brightest place is {miss:.0f}° off.",
        )

    explore(
        shared,
        between=Slider("angle between the views (°)", (5, 15, 30, 45, 60, 75, 90), 60),
        noise=Slider("noise over signal (sd)", (0, 0.3, 0.6, 1, 2, 4), 0.3),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Three images fix a frame

    One common line leaves a hinge: two planes that are joined along it can still be opened and shut. A third image
    stops it. Let $c_{12}$, $c_{13}$ and $c_{23}$ be the three lines in space, of length 1. Image 1 contains $c_{12}$
    and $c_{13}$ and shows the angle between them; image 2 shows that of $c_{12}$ and $c_{23}$, image 3 the third. So
    all inner products of the three vectors are known,

    $$G = \begin{pmatrix} 1 & \cos\alpha_1 & \cos\alpha_2\\ \cos\alpha_1 & 1 & \cos\alpha_3\\
    \cos\alpha_2 & \cos\alpha_3 & 1\end{pmatrix} ,$$

    and three vectors with the inner products $G$ are the rows of its Cholesky factor. They are determined up to a
    rotation, which is nobody's business, and a mirror, which is: from common lines alone a map and its mirror image
    cannot be told apart. This is **angular reconstitution**. With the lines in space, each image's pose follows from
    two of them.

    It needs right lines. A ray has few values, and the best of a thousand pairs of rays is searched. The figure shows
    how often the line is found, for random pairs of views. Averaging $n$ images of the same view divides the power of
    the noise by $n$ and moves the curve by $10\log_{10} n$ dB: that is why class averages come first.
    """)
    return


@app.function
def lines_in_space(angles):
    """Return c12, c13 and c23 (rows) from the angles at which images show them.

    Parameters: angles of c12 and c13 in image 1, c12 and c23 in image 2, c13 and c23
    in image 3, in degrees.
    """
    cosine = np.cos(np.radians([b - a for a, b in angles]))
    gram = np.eye(3)
    gram[0, 1], gram[0, 2], gram[1, 2] = cosine
    return np.linalg.cholesky(gram + np.triu(gram, 1).T)


@app.function
def lines_found(snr_db, within_degrees):
    """Return how often, of 40 pairs of random views, the line found is near the true one."""
    generator = np.random.default_rng(2)
    views = random_rotations(80, torch.Generator().manual_seed(1)).numpy()
    clean = np.stack([image(one) for one in views])
    noise = generator.standard_normal(clean.shape)
    clean, noise = rays(clean), clean.std() * rays(noise)
    right = []
    for decibel in snr_db:
        both = clean + noise * 10.0 ** (-decibel / 20.0)
        misses = []
        for n in range(0, 80, 2):
            found = correlations(both[n], both[n + 1])
            at = np.array(np.unravel_index(found.argmax(), found.shape)) * STEP
            off = at - common_line(views[n], views[n + 1])
            off = np.abs((off[:, None] + [0.0, 180.0] + 180.0) % 360.0 - 180.0)
            misses.append(off.max(0).min())
        right.append((np.array(misses)[:, None] <= within_degrees).mean(0))
    return np.array(right)


@app.cell
def _():
    _snr, _within = np.arange(-30.0, 16.0, 5.0), (6, 12, 24)
    _right = lines_found(_snr, np.array(_within))

    def detection(images, within_degrees):
        curve = 100.0 * _right[:, _within.index(within_degrees)]
        moved = _snr - 10.0 * np.log10(images)
        at = np.interp(-10.0, moved, curve)
        lines = (Line(moved, curve, f"averages of {images}"), Points([-10.0], [at]))
        words = "Right lines", "SNR of an image (dB)", "found (%)"
        return Plot(
            (Panel(lines, *words, x_range=(-40, 15), y_range=(0, 105)),),
            f"At -10 dB and with averages of {images}, {at:.0f} % of the lines are found "
            f"to {within_degrees}°.",
        )

    explore(
        detection,
        images=Slider("images in an average", (1, 4, 16, 64, 256), 1),
        within_degrees=Slider("right is within (°)", _within, 12),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Without any directions

    The **method of moments** does not ask for directions at all. If all poses are equally likely, averages over
    images are averages over rotations, and these depend on the map alone. For atoms at $r_j$, the mean power at the
    frequency $k$ is

    $$\langle \lvert \hat y(k)\rvert^2 \rangle = \sum_{i,j} \langle
    e^{-2\pi i k\cdot R(r_i - r_j)} \rangle = \sum_{i,j}
    \frac{\sin 2\pi k r_{ij}}{2\pi k r_{ij}} ,$$

    times the factor of one atom squared: the mean of a wave over a sphere is a sinc. This is **Debye's formula**,
    known from scattering by powders. It tells all distances $r_{ij}$ between atoms. Two frequencies at an angle
    $\psi$ in the image tell more,

    $$\langle \hat y(k_1)\, \hat y(k_2)^{*}\rangle = \sum_l P_l(\cos\psi)\, C_l(k_1, k_2), \quad
    C_l = (2l + 1) \sum_{i,j} j_l(2\pi k_1 r_i)\, j_l(2\pi k_2 r_j)\, P_l(\cos\gamma_{ij}) ,$$

    with spherical Bessel functions $j_l$, Legendre polynomials $P_l$ and the angle $\gamma_{ij}$ between $r_i$ and
    $r_j$ seen from the centre. This is **Kam's method**: $C_l$ gives the map's spherical harmonics of degree $l$ up
    to an orthogonal matrix for each $l$, which third moments, or one known map, must settle.

    Noise of power $\sigma^2$ adds $\sigma^2$ to the mean power, and is subtracted. What it leaves is a fluctuation of
    about $\sigma^2/\sqrt n$: strong noise costs the square of its power in images, and third moments its cube. In the
    figure raise the noise until the dots scatter, then bring them back with images.
    """)
    return


@app.function
def debye(k):
    """Return the mean power of the beads at k (1/px) over all rotations."""
    apart = np.linalg.norm(beads()[:, None] - beads(), axis=-1)
    factor = np.exp(-4.0 * np.pi**2 * 1.69 * k**2)
    return factor * np.sinc(2.0 * np.multiply.outer(k, apart)).sum((-2, -1))


@app.function
def kam(k, psi):
    """Return the mean of y(k1) y(k2)* for equal radii k and angles psi between them."""
    places = beads()
    radius = np.linalg.norm(places, axis=1)
    cosine = np.clip((places @ places.T) / np.outer(radius, radius), -1.0, 1.0)
    total = np.zeros_like(psi)
    for degree in range(36):
        wave = spherical_jn(degree, 2.0 * np.pi * k * radius)
        size = (2 * degree + 1) * wave @ eval_legendre(degree, cosine) @ wave
        total = total + size * eval_legendre(degree, np.cos(psi))
    return np.exp(-4.0 * np.pi**2 * 1.69 * k**2) * total


@app.function
def random_slices(views):
    """Return values of random slices at 10 radii and 12 angles, (views, 10, 12), and radii."""
    k, angle = np.arange(1, 11) * 0.025, 2.0 * np.pi * np.arange(12) / 12
    kx, ky = np.outer(k, np.cos(angle)), np.outer(k, np.sin(angle))
    turns = random_rotations(views, torch.Generator().manual_seed(0)).numpy()
    at = turns @ beads().T
    phase = np.einsum("ka,vj->vkaj", kx, at[:, 0]) + np.einsum(
        "ka,vj->vkaj", ky, at[:, 1]
    )
    size = np.exp(-2.0 * np.pi**2 * 1.69 * k**2)[:, None]
    return size * np.exp(-2j * np.pi * phase).sum(-1), k


@app.cell
def _():
    _slices, _k = random_slices(1000)
    _noise = np.random.default_rng(3).standard_normal((2, *_slices.shape)) / 2**0.5
    _noise = _noise[0] + 1j * _noise[1]
    _fine, _psi = np.linspace(0.02, 0.26, 60), np.linspace(0.0, np.pi, 61)

    def moments(images, noise):
        seen = _slices[:images] + noise * _noise[:images]
        power = (np.abs(seen) ** 2).mean((0, 2)) - noise**2
        ring = seen[:, 5]
        pairs = [(ring * np.roll(ring, -m, 1).conj()).mean().real for m in range(7)]
        pairs[0] -= noise**2
        off = np.sqrt(np.mean((power - debye(_k)) ** 2))
        first = Line(_fine, debye(_fine), "Debye"), Points(_k, power, "images")
        second = (
            Line(np.degrees(_psi), kam(0.15, _psi), "Kam"),
            Points(np.arange(7) * 30.0, pairs, "images"),
        )
        return Plot(
            (
                Panel(first, "Power", "k (1/px)", "mean power", y_range=(-10, 150)),
                Panel(second, "At k = 0.15", "angle (°)", "moment", y_range=(-8, 20)),
            ),
            f"{images} images, noise of power {noise**2:g}: the power is off by {off:.2g} "
            "(root mean square).",
        )

    explore(
        moments,
        images=Slider("images", (10, 30, 100, 300, 1000), 100),
        noise=Slider("sd of the noise", (0, 3, 10, 20), 3),
    )
    return


@app.cell
def _():
    source(common_line, correlations, lines_in_space, kam)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *Common lines of raw particles give a ball.* At -10 dB most lines are wrong. Average first, or ask many lines to
      agree.
    - *The first map is left-handed half of the time.* The mirror of the Gram matrix. A tilted pair of images, or an
      $\alpha$-helix in the finished map, decides.
    - *Two class averages of the same view spoil the frame.* The line between planes that coincide is anywhere. Pairs
      that are nearly parallel are left out.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "Image 1 is seen along z, with the pose 1. Image 2 is seen along the particle's x "
        "axis. At which angle to its x axis, from 0 to 180 degrees, does image 1 show the "
        "common line?",
        common_line(np.eye(3), about(1, -90.0))[0] % 180.0,
        tolerance=1.0,
        unit="degrees",
        hint="The vector product of z and x.",
        explanation="It is y: 90 degrees.",
    )
    return


@app.cell
def _():
    exercise(
        "Two point-like atoms are 10 Å apart. What is the mean of the power of their "
        "transform over all directions at 1/40 per Å? One atom alone has 1.",
        2.0 + 2.0 * np.sinc(2.0 * 10.0 / 40.0),
        tolerance=0.03,
        hint="Debye's sum has four terms; two of them are 1, and the others "
        "the sine of π/2 over π/2.",
        explanation="2 + 2 · 0.637 = 3.27.",
    )
    return


@app.cell
def _():
    choose(
        "The power of the noise is ten times higher. How many times more images do the "
        "second moments need, where noise dominates?",
        ("10", "100", "1,000"),
        1,
        hint=r"The error is about $\sigma^2/\sqrt n$.",
        explanation="σ² is ten times larger, so √n must be. For third moments it would be "
        "a thousand.",
    )
    return


@app.function
def test_the_line_is_common():
    """Slices agree on it, and three of them give the angles between views, or a mirror."""
    views = random_rotations(3, torch.Generator().manual_seed(5)).numpy()
    values = []
    for rotation, angle in zip(views, common_line(*views[:2]), strict=False):
        at = np.radians(angle)
        k = np.outer(RADII, [np.cos(at), np.sin(at)]) @ rotation[:2]
        values.append(np.exp(-2j * np.pi * k @ beads().T).sum(1))
    # Rounding.
    assert np.abs(values[0] - values[1]).max() < 1e-10
    (a12, a21), (a13, a31), (a23, a32) = (
        common_line(views[i], views[j]) for i, j in ((0, 1), (0, 2), (1, 2))
    )
    found = lines_in_space([(a12, a13), (a21, a23), (a31, a32)])
    normals = [np.cross(found[i], found[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    normals = [one / np.linalg.norm(one) for one in normals]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        cosine = abs(normals[i] @ normals[j])
        assert abs(cosine - abs(views[i][2] @ views[j][2])) < 1e-10


@app.function
def test_known_numbers():
    # Planes at right angles: their lines are at right angles as well.
    found = lines_in_space([(0.0, 90.0), (0.0, 90.0), (0.0, 90.0)])
    assert np.abs(found - np.eye(3)).max() < 1e-12
    # Kam's sum at the angle 0 is Debye's (the addition theorem of Bessel functions).
    assert abs(kam(0.15, np.zeros(1))[0] - debye(np.array([0.15]))[0]) < 1e-9
    # 1,000 views: power varies by about itself from view to view, 3 % on average; 4 sd.
    slices, k = random_slices(1000)
    assert np.abs((np.abs(slices) ** 2).mean((0, 2)) / debye(k) - 1.0).max() < 0.13
    ring = slices[:, 5]
    pair = (ring * np.roll(ring, -2, 1).conj()).mean().real
    assert abs(pair - kam(k[5], np.array([np.pi / 3.0]))[0]) < 0.1 * debye(k)[5]


@app.function
def test_images_are_those_of_the_library():
    places, one = torch.tensor(beads()), torch.ones(12, dtype=torch.float64)
    made = GaussianBeads(places, one, 1.69 * one)
    turn = random_rotations(1, torch.Generator().manual_seed(4))
    shown = made.project(Pose(turn, torch.zeros(1, 2).double()), 32, 1.0)
    whole = image_to_fourier(shown)[0].numpy() * 32.0
    mine = rays(image(turn[0].numpy()) / (2.0 * np.pi * 1.69))
    # Along x the rays are coefficients of the transform; sampled Gaussians of 1.3 px are
    # off by exp(-2 pi^2 sigma^2 (1 - k)^2), 2e-7 at the outermost ray, for each bead.
    assert np.abs(mine[0] - whole[0, 1:11]).max() < 1e-5


@app.cell
def _():
    closing(
        "common_lines",
        library=[
            "cryoinfer.fourier.slices.extract_slices",
            "cryoinfer.geometry.hand.flip_hand",
            "cryoinfer abinitio",
        ],
        sources=[
            "R. A. Crowther, D. J. DeRosier and A. Klug 1970, The reconstruction of a "
            "three-dimensional structure from projections, Proc. R. Soc. London A.",
            "M. van Heel 1987, Angular reconstitution, Ultramicroscopy.",
            "Z. Kam 1980, The reconstruction of structure from electron micrographs of "
            "randomly oriented particles, Journal of Theoretical Biology.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
