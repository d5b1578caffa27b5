import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy.spatial.transform import Rotation
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
    from cryoinfer.geometry.rotations import random_rotations
    from cryoinfer.physics.structures.beads import GaussianBeads
    from cryoinfer.records import Pose

    AXIS, RADII, STEP = np.arange(32.0) - 16.0, np.arange(1, 11) / 32.0, 6
    ANGLES = np.radians(np.arange(0, 360, STEP))


@app.cell
def _():
    opening("common_lines")
    return


@app.cell
def _():
    mo.md(r"""
    ## Two images share a line

    Refinement compares images with a map. Before there is a map, images can only be compared with each other. Two images
    of one particle do have something in common, whatever their directions: both are planes through the origin of the same
    transform, and two planes through a point meet in a line. On this **common line** both images have the same values.

    Where is it? Let image $i$ have the pose $R_i$. Its plane is at a right angle to the direction of its beam,
    $n_i = R_i^{T} e_z$. The line lies in both planes, so it is along

    $$c_{12} = \frac{n_1 \times n_2}{\lvert n_1 \times n_2\rvert} ,$$

    and in image $i$ it appears along the first two numbers of $R_i\, c_{12}$. In real space: there is one angle in each
    image for which the shadows of both images on a line are the same curve.

    To find it, correlate each ray of the one transform with each ray of the other. The heat map shows this correlation,
    and should be brightest where the dot of the truth is. (The second dot is the same line from its other end.) Add
    noise, and the brightest place jumps. At small angles between the views it becomes a ridge: planes that nearly
    coincide are alike everywhere.
    """)
    return


@app.function
def beads():
    return np.random.default_rng(7).uniform(-6.5, 6.5, (12, 3))


@app.function
def images(rotations):
    """Return the program's images of the beads in poses, (n, 32, 32), axes y and x."""
    turns, one = torch.as_tensor(rotations), torch.ones(12, dtype=torch.float64)
    made = GaussianBeads(torch.tensor(beads()), one, 1.69 * one)
    return made.project(Pose(turns, turns.new_zeros(len(turns), 2)), 32, 1.0).numpy()


@app.function
def rays(images):
    """Return the transforms along rays at ANGLES, shape (..., angles, radii)."""
    kx, ky = np.outer(np.cos(ANGLES), RADII), np.outer(np.sin(ANGLES), RADII)
    x, y = (np.exp(-2j * np.pi * one[..., None] * AXIS) for one in (kx, ky))
    return np.einsum("...yx,akx,aky->...ak", images, x, y, optimize=True)


@app.function
def correlations(first, second):
    """Return how alike each ray of one image is to each of the other, -1 to 1."""
    # Weighted by the root of k: low frequencies, alike everywhere, would decide alone.
    pair = [one * RADII**0.5 for one in (first, second)]
    pair = [one / np.linalg.norm(one, axis=-1, keepdims=True) for one in pair]
    return (pair[0] @ pair[1].conj().T).real


@app.function
def common_line(first, second):
    """Return the angles (degrees) of the common line in images of two poses."""
    line = np.cross(first[2], second[2])
    there = np.array([first @ line, second @ line])
    return np.degrees(np.arctan2(there[:, 1], there[:, 0])) % 360.0


@app.function
def brightest(found):
    return np.array(np.unravel_index(found.argmax(), found.shape)) * STEP


@app.cell
def _():
    _noise = np.random.default_rng(1).standard_normal((2, 32, 32))

    def shared(between, noise):
        euler = [[20.0, 25.0, 0.0], [20.0, 25.0 + between, 50.0]]
        views = Rotation.from_euler("zyz", euler, True).as_matrix()
        both = images(views)
        both = both + noise * both.std() * _noise
        found, (a, b) = correlations(*rays(both)), common_line(*views)
        best = brightest(found)
        edges = (-STEP / 2, 360 - STEP / 2) * 2
        marks = (
            Heat(found[::-1], edges, limits=(0.2, 1.0)),
            Points([b, (b + 180) % 360], [a, (a + 180) % 360], "truth"),
            Points(best[1:], best[:1], "brightest"),
        )
        words = "Correlation", "angle in image 2 (°)", "angle in image 1 (°)"
        at = {"x": "x (px)", "y": "y (px)", "equal": True}
        pictures = [
            Panel((Heat(p),), f"Image {n}", **at) for n, p in enumerate(both, 1)
        ]
        return Plot(
            (*pictures, Panel(marks, *words, equal=True)),
            f"The common line is at {a:.0f}° in image 1 and {b:.0f}° in image 2, the brightest place at {best[0]}° and {best[1]}°.",
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

    One common line leaves a hinge: two planes that are joined along it can still be opened and shut. A third image stops
    it. Let $c_{12}$, $c_{13}$ and $c_{23}$ be the three lines in space, of length 1. Image 1 contains $c_{12}$ and
    $c_{13}$ and shows the angle between them; image 2 shows that of $c_{12}$ and $c_{23}$, image 3 the third. So all
    inner products of the three vectors are known,

    $$G = \begin{pmatrix} 1 & \cos\alpha_1 & \cos\alpha_2\\ \cos\alpha_1 & 1 & \cos\alpha_3\\
    \cos\alpha_2 & \cos\alpha_3 & 1\end{pmatrix} ,$$

    and three vectors with the inner products $G$ are the rows of its Cholesky factor. They are determined up to a
    rotation and a mirror: from common lines alone a map and its mirror image cannot be told apart. This is **angular
    reconstitution**. With the lines in space, each image's pose follows from two of them.

    It needs right lines. A ray has few values, and the best of 3,600 pairs of rays is searched. The figure shows how
    often the line is found, for random pairs of views. Averaging $n$ images of the same view divides the power of the
    noise by $n$ and moves the curve by $10\log_{10} n$ dB: that is why class averages come first. And lines can vote: a
    hundred images have 4,950 lines for 300 unknown angles, so many may be wrong.
    """)
    return


@app.function
def lines_in_space(angles):
    """Return c12, c13, c23 (rows) from the angles (degrees) of the two in each image."""
    cosine = np.cos(np.radians([b - a for a, b in angles]))
    gram = np.eye(3)
    gram[0, 1], gram[0, 2], gram[1, 2] = cosine
    return np.linalg.cholesky(gram + np.triu(gram, 1).T)


@app.function
def misses(snr_db):
    """Return how far off (degrees) the line found is, for 40 pairs of random views."""
    views = random_rotations(80, torch.Generator().manual_seed(1)).numpy()
    clean = images(views)
    noise = clean.std() * np.random.default_rng(2).standard_normal(clean.shape)
    seen = rays(clean + noise * 10.0 ** (-snr_db / 20.0))
    lines = [common_line(*views[n : n + 2]) for n in range(0, 80, 2)]
    alike = [correlations(*seen[n : n + 2]) for n in range(0, 80, 2)]
    off = np.array([brightest(one) for one in alike]) - lines
    off = (off[:, None] + [[0.0], [180.0]] + 180.0) % 360.0 - 180.0
    return np.abs(off).max(2).min(1)


@app.cell
def _():
    _snr = np.arange(-30.0, 21.0, 5.0)
    _off = np.stack([misses(one) for one in _snr])

    def detection(averaged):
        moved, words = _snr - 10.0 * np.log10(averaged), "SNR of an image (dB)"
        lines = [
            Line(moved, 100 * (_off <= w).mean(1), f"to {w}°") for w in (6, 12, 24)
        ]
        panel = Panel(lines, "", words, "found (%)", (-40, 20), (0, 105))
        return Plot((panel,), f"Averages of {averaged} images.")

    explore(detection, averaged=Slider("images in an average", (1, 4, 16, 64, 256), 1))
    return


@app.cell
def _():
    mo.md(r"""
    ## Without any directions

    The **method of moments** does not ask for directions at all. If all poses are equally likely, averages over images
    are averages over rotations, and these depend on the map alone. For atoms at $r_j$, the mean power at the frequency
    $k$ is

    $$\langle \lvert \hat y(k)\rvert^2 \rangle = \sum_{i,j} \langle
    e^{-2\pi i k\cdot R(r_i - r_j)} \rangle = \sum_{i,j}
    \frac{\sin 2\pi k r_{ij}}{2\pi k r_{ij}} ,$$

    times the factor of one atom squared: the mean of a wave over a sphere is a sinc. This is **Debye's formula**, known
    from scattering by powders. Distances $r_{ij}$ between atoms are all that it depends on. Two frequencies at an angle
    $\psi$ in the image tell more,

    $$\langle \hat y(k_1)\, \hat y(k_2)^{*}\rangle = \sum_l P_l(\cos\psi)\, C_l(k_1, k_2) ,$$

    $$C_l = (2l + 1) \sum_{i,j} j_l(2\pi k_1 r_i)\, j_l(2\pi k_2 r_j)\, P_l(\cos\gamma_{ij}) ,$$

    with spherical Bessel functions $j_l$, Legendre polynomials $P_l$ and the angle $\gamma_{ij}$ between $r_i$ and $r_j$
    seen from the centre. This is **Kam's method**: $C_l$ gives the map's spherical harmonics of degree $l$ up to an
    orthogonal matrix for each $l$, which third moments, or one known map, must settle.

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
    """Return slices in random poses, at 12 angles and the 10 radii, (views, 12, 10)."""
    poses = random_rotations(views, torch.Generator().manual_seed(0))
    return rays(images(poses))[:, ::5]


@app.cell
def _():
    _slices = random_slices(500)
    _noise = np.random.default_rng(3).standard_normal((*_slices.shape, 2))
    _noise = _noise.view(complex)[..., 0] / 2**0.5
    _fine, _psi = np.linspace(0.02, 0.32, 60), np.linspace(0.0, np.pi, 61)

    def moments(count, noise):
        seen = _slices[:count] + noise * _noise[:count]
        power = (np.abs(seen) ** 2).mean((0, 1)) - noise**2
        ring = seen[:, :, 4]
        pairs = [(ring * np.roll(ring, -m, 1).conj()).mean().real for m in range(7)]
        pairs[0] -= noise**2
        off = np.sqrt(np.mean((power - debye(RADII)) ** 2))
        first = Line(_fine, debye(_fine), "Debye"), Points(RADII, power, "images")
        second = Line(np.degrees(_psi), kam(RADII[4], _psi), "Kam")
        second = second, Points(np.arange(7) * 30.0, pairs, "images")
        return Plot(
            (
                Panel(first, "Power", "k (1/px)", "mean power", y_range=(-10, 150)),
                Panel(second, "At k = 0.156", "angle (°)", "moment", y_range=(-5, 8)),
            ),
            f"{count} images, noise of power {noise**2:g}: the mean power is off by {off:.2g} (root mean square).",
        )

    explore(
        moments,
        count=Slider("images", (10, 30, 100, 200, 500), 100),
        noise=Slider("sd of the noise", (0, 2, 5, 10), 2),
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

    - *Common lines of raw particles give a ball.* At -10 dB nearly all are wrong. Average first, or let lines vote.
    - *The first map is left-handed half of the time.* The mirror of the Gram matrix. A tilted pair of images, or an
      $\alpha$-helix in the finished map, decides.
    - *Two class averages of the same view spoil the frame.* Planes that coincide meet anywhere: leave such pairs out.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "Image 1 is seen along z in the pose of the identity, image 2 along the particle's x axis. At which angle to its x axis is the line in image 1?",
        common_line(np.eye(3), np.eye(3)[[1, 2, 0]])[0] % 180.0,
        tolerance=1.0,
        unit="degrees",
        hint="The vector product of z and x.",
        explanation="It is y: 90 degrees.",
    )
    return


@app.cell
def _():
    exercise(
        "Two points are 10 Å apart. What is the mean power of their transform over all directions at 1/40 per Å? One alone has 1.",
        2.0 + 2.0 * np.sinc(2.0 * 10.0 / 40.0),
        tolerance=0.03,
        hint="Two of four terms are 1; the others are sin(π/2) / (π/2).",
        explanation="2 + 2 · 0.637 = 3.27.",
    )
    return


@app.cell
def _():
    choose(
        "The power of the noise is ten times higher. How many times more images do the second moments need, where noise dominates?",
        ("10", "100", "1,000"),
        1,
        hint=r"The error is about $\sigma^2/\sqrt n$.",
        explanation="The power is ten times larger, so the root of n must be.",
    )
    return


@app.function
def test_the_line_is_common():
    views = random_rotations(3, torch.Generator().manual_seed(5)).numpy()
    values = []
    for rotation, angle in zip(views[:2], common_line(*views[:2]), strict=True):
        at = np.radians(angle)
        k = np.outer(RADII, [np.cos(at), np.sin(at)]) @ rotation[:2]
        values.append(np.exp(-2j * np.pi * k @ beads().T).sum(1))
    # Rounding, here and below.
    assert np.abs(values[0] - values[1]).max() < 1e-10
    pairs = ((0, 1), (0, 2), (1, 2))
    (a, b), (c, d), (e, f) = (common_line(views[i], views[j]) for i, j in pairs)
    found = lines_in_space([(a, c), (b, e), (d, f)])
    normals = [np.cross(found[i], found[j]) for i, j in pairs]
    normals = [one / np.linalg.norm(one) for one in normals]
    for i, j in pairs:
        off = abs(normals[i] @ normals[j]) - abs(views[i][2] @ views[j][2])
        assert abs(off) < 1e-10


@app.function
def test_known_numbers():
    # Planes at right angles: their lines are at right angles as well.
    found = lines_in_space([(0.0, 90.0), (0.0, 90.0), (0.0, 90.0)])
    assert np.abs(found - np.eye(3)).max() < 1e-12
    # Kam's sum at the angle 0 is Debye's (the addition theorem of Bessel functions).
    assert abs(kam(0.15, np.zeros(1))[0] - debye(np.array([0.15]))[0]) < 1e-9
    # 500 views: power varies by about itself from view to view, 4.5 % on average; 4 of that.
    slices = random_slices(500)
    power = (np.abs(slices) ** 2).mean((0, 1))
    assert np.abs(power / debye(RADII) - 1.0).max() < 0.18
    pair = (slices[:, :, 4] * np.roll(slices[:, :, 4], -2, 1).conj()).mean().real
    assert abs(pair - kam(RADII[4], np.array([np.pi / 3.0]))[0]) < 0.18 * power[4]


@app.cell
def _():
    closing(
        "common_lines",
        library=["cryoinfer.geometry.hand.flip_hand", "cryoinfer abinitio"],
        sources=[
            "M. van Heel 1987, Angular reconstitution, Ultramicroscopy.",
            "A. Singer and Y. Shkolnisky 2011, Three-dimensional structure determination from common lines in cryo-EM by eigenvectors and semidefinite programming, SIAM J. Imaging Sciences.",
            "Z. Kam 1980, The reconstruction of structure from electron micrographs of randomly oriented particles, Journal of Theoretical Biology.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
