import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from numpy.testing import assert_allclose
    from scipy.ndimage import map_coordinates
    from scipy.spatial.transform import Rotation

    from course import (
        Bars,
        Choice,
        Heat,
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
    from cryoinfer.geometry.rotations import geodesic_angle, random_rotations
    from cryoinfer.geometry.so3_grid import asymmetric_unit, rotation_grid
    from cryoinfer.geometry.symmetry import nearest_mates, symmetry_rotations


@app.cell
def _():
    opening("point_groups")
    return


@app.cell
def _():
    mo.md(r"""
    ## Poses that no image tells apart

    Many particles are made of equal parts: four chains around an axis, sixty around a virus. Turn such a map $V$
    by certain rotations $g$ and it is the same map, $V(g^{-1} r) = V(r)$. Now take an image in the pose $R$: the
    density at $r$ is seen at $Rr$. In the pose $Rg$ it is seen at $R(gr)$. There the pose $R$ shows the density
    at $gr$, and that is the same. So

    $$R \quad \text{and} \quad R g$$

    give the same image, but for noise. They are **mates**. The rotation $g$ stands on the right, on the side of
    the map. ($gR$ would turn the image, which is seen.)

    If $g$ and $h$ leave the map as it is, so do $gh$ and $g^{-1}$. Such a set of rotations is a **point group**.
    One needs a few of them only, the **generators**, and multiplies until nothing new comes.

    ## There are not many

    Take a group $G$ of $|G|$ rotations. Each, but the identity, has two poles where its axis meets the sphere.
    Sort the poles into families of those that the group carries into each other. Let each pole of a family $i$
    stay fixed under $n_i$ rotations (an $n_i$-fold axis); the family then has $|G|/n_i$ poles. Count the pairs of
    a rotation and a pole of it in two ways:

    $$2 (|G| - 1) = \sum_i \frac{|G|}{n_i} (n_i - 1), \qquad \text{or} \qquad 2 - \frac{2}{|G|} = \sum_i \Big(1 - \frac1{n_i}\Big) .$$

    Each bracket is at least 1/2 and the left side is below 2: there are two families or three. Two:
    $n_1 = n_2 = |G|$, one axis. Three: $\frac1{n_1} + \frac1{n_2} + \frac1{n_3} = 1 + \frac{2}{|G|}$, and the
    only whole solutions are in the table.

    | group | families | rotations | made of |
    |---|---|---|---|
    | C*n* | *n*, *n* | *n* | one axis |
    | D*n* | 2, 2, *n* | 2*n* | one axis, two-folds across |
    | T | 2, 3, 3 | 12 | tetrahedron |
    | O | 2, 3, 4 | 24 | cube, octahedron |
    | I | 2, 3, 5 | 60 | icosahedron, dodecahedron |

    Mirrors are not in the list. A mirrored protein would be made of D-amino acids.

    In the figure a view is chosen, and all its mates are drawn on a map of the sphere. Move the view onto an
    axis: mates fall together. At a tilt of 0 in C4 only one is left.
    """)
    return


@app.function
def order_of(n1, n2, n3):
    """Return how many rotations a group with three families of poles has."""
    return 2 / (1 / n1 + 1 / n2 + 1 / n3 - 1)


@app.function
def axes(name):
    """Return how many axes of each fold a point group has, {fold: number}."""
    vectors = Rotation.from_matrix(symmetry_rotations(name)[1:].numpy()).as_rotvec()
    lines = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    fold = 1 + np.sum(np.abs(lines @ lines.T) > 1 - 1e-9, axis=1)
    return {int(n): int(np.sum(fold == n)) // (n - 1) for n in np.unique(fold)}


@app.function
def views_of_mates(name, rot_degrees, tilt_degrees):
    """Return longitude in degrees and z of a view and its mates: third rows of R g."""
    rot, tilt = np.radians([rot_degrees, tilt_degrees])
    view = [np.cos(rot) * np.sin(tilt), np.sin(rot) * np.sin(tilt), np.cos(tilt)]
    x, y, z = np.einsum("i,mij->jm", view, symmetry_rotations(name).numpy())
    return np.degrees(np.arctan2(y, x)), z


@app.cell
def _():
    def mates(name, rot, tilt):
        longitude, z = views_of_mates(name, rot, tilt)
        seen = (Points(longitude, z, "mates"), Points(longitude[:1], z[:1], "view"))
        limits = ((-185, 185), (-1.05, 1.05))
        number = ", ".join(f"{n} of {fold}-fold" for fold, n in axes(name).items())
        across = np.sqrt((1 - z**2) * (1 - z[0] ** 2))
        cosine = np.cos(np.radians(longitude - longitude[0])) * across + z * z[0]
        different = len(z) // np.sum(cosine > 1 - 1e-9)
        return Plot(
            (Panel(seen, "Mates of a view", "longitude (degrees)", "z", *limits),),
            says=f"{len(z)} rotations; axes: {number}. {different} different views.",
        )

    explore(
        mates,
        name=Choice("group", ("C4", "D2", "D7", "T", "O", "I"), "T"),
        rot=Slider("rot (degrees)", range(0, 91, 15), 15),
        tilt=Slider("tilt (degrees)", range(0, 91, 15), 30),
    )
    return


@app.cell
def _():
    source(symmetry_rotations, views_of_mates)
    return


@app.cell
def _():
    mo.md(r"""
    ## The tetrahedron, by its corners

    The group T can be held in the hand. A rotation of the tetrahedron exchanges its four corners, and is known by
    how. Of the 24 ways to exchange four things, 12 are even: those that are made of an even number of swaps.
    Turns by a third keep one corner and move three in a circle, (1 2 3) to (2 3 1): two swaps, even, and there
    are $4 \times 2$ of them. Half turns about the middle of two opposite edges swap two pairs: even, 3 of them.
    With the identity, 12. A single swap is odd: it is a mirror.

    ## Less to search, and another ruler

    Poses of a symmetric particle need not be searched everywhere. Of each set of mates one is enough, for
    instance the one nearest to the identity: the **asymmetric unit**, a share $1/|G|$ of all rotations. The
    program's grid keeps a rim of a cell around it.

    Errors must be measured with the same eye. An estimate may be at any mate of the truth, so its error is the
    angle to the *nearest* mate. This makes errors small by itself: with 60 mates none is far. A random guess is
    126.5 degrees off without symmetry, 40.7 in the group of the cube, 29.5 in that of the icosahedron. Know that
    number before you call a pose error good.
    """)
    return


@app.function
def errors_of_guesses(name, count=2000):
    """Return how far random rotations are from the nearest mate of the truth, degrees."""
    guess = random_rotations(count, torch.Generator().manual_seed(0))
    truth = torch.eye(3, dtype=torch.float64).expand(count, 3, 3)
    nearest = nearest_mates(truth, guess, symmetry_rotations(name))
    return torch.rad2deg(geodesic_angle(guess, nearest)).numpy()


@app.cell
def _():
    def guesses(name, order):
        error, group = errors_of_guesses(name), symmetry_rotations(name)
        share, edges = np.histogram(error, np.linspace(0, 180, 37))
        bars = (Bars((edges[1:] + edges[:-1]) / 2, share / len(error)),)
        whole, unit = len(rotation_grid(order)), len(asymmetric_unit(order, group))
        counts = (
            Bars([0], [whole], "all rotations"),
            Bars([1], [unit], "asymmetric unit"),
            Bars([2], [whole / len(group)], "all, over the group's"),
        )
        right = Panel(counts, "Rotations of the grid", "", "number", (-1, 3))
        left = Panel(bars, "Error of a guess", "to the nearest mate (degrees)", "share")
        return Plot(
            (left, right),
            says=f"Random guesses are {error.mean():.1f} degrees off on average, {error.max():.0f} at "
            f"most. A grid of {60 / 2**order:g} degrees has {unit} rotations to try, of {whole}.",
        )

    explore(
        guesses,
        name=Choice("group", ("C1", "C2", "C4", "D2", "D7", "T", "O", "I"), "D2"),
        order=Slider("order of the grid", (0, 1, 2), 2),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What is gained, and what is lost

    Every image may be put into the map in all $|G|$ mates. The signal of the equal parts adds up, noise does not:
    an image of a virus counts as sixty. The program turns the finished sums by all $g$ and adds them, which is
    the same.

    But what is not symmetric is averaged as well. A bound ligand at one site of four has a quarter of its density
    at each. A wrong group smears everything. The image below has a three-fold axis, up to one small extra
    feature. Impose other symmetries, and raise the noise: it falls by the root of the fold, and a little more by
    interpolation.
    """)
    return


@app.function
def nearly_threefold(n=48):
    """Return an image of three equal features and a small extra one."""
    y, x = np.mgrid[:n, :n] - n // 2
    image = np.exp(-(x**2 + y**2) / 18.0)
    for number in range(3):
        angle = 2 * np.pi * number / 3 + 0.5
        a, b = x - 11 * np.cos(angle), y - 11 * np.sin(angle)
        image += np.exp(-(a**2 + b**2) / 12.0)
    return image + 0.8 * np.exp(-((x + 3) ** 2 + (y + 17) ** 2) / 5.0)


@app.function
def symmetrised(image, fold):
    """Return the mean of an image turned by all multiples of a full turn over fold."""
    y, x = np.mgrid[: len(image), : len(image)] - len(image) // 2
    total = np.zeros_like(image)
    for angle in 2 * np.pi * np.arange(fold) / fold:
        c, s = np.cos(angle), np.sin(angle)
        back = np.array([s * x + c * y, c * x - s * y]) + len(image) // 2
        total += map_coordinates(image, back, order=1)
    return total / fold


@app.cell
def _():
    def imposing(fold, noise):
        clean = nearly_threefold()
        white = np.random.default_rng(0).normal(size=clean.shape)
        image, truth = clean + noise * white, symmetrised(clean, fold)
        mean = symmetrised(image, fold)
        left, right = ((Heat(one, limits=(-0.5, 1.2)),) for one in (image, mean))
        return Plot(
            (
                Panel(left, "As it is", "x (pixel)", "y (pixel)", equal=True),
                Panel(right, f"Averaged over C{fold}", "x (pixel)", "y", equal=True),
            ),
            says=f"The extra feature keeps {truth[7, 21] / clean[7, 21]:.2f} of its height; noise of a "
            f"pixel {noise:.2f}, after the mean {np.std((mean - truth)[12:36, 12:36]):.2f}.",
        )

    explore(
        imposing,
        fold=Slider("fold", (1, 2, 3, 4, 6, 12), 3),
        noise=Slider("noise of a pixel", (0, 0.3, 0.6, 1.2), 0.3),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"I imposed D2 and my map fell apart."* The map was not in the frame of the group. Axes are fixed by
      convention: the main one along z, in D a two-fold along x, in I two-folds along all three. A map turned by
      $Q$ has the group $Q G Q^T$. Align it first.
    - *"The pose errors pile up at 0, 90 and 180 degrees."* The particle has a four-fold axis, exactly or nearly,
      and errors were measured without mates.
    - *"Two programs' icosahedra do not fit."* There are several settings. I1 and I2 differ by a quarter turn
      about z.
    - *"With C1 the ligand appears four times, weakly."* Poses were found with symmetry, which made mates equal.
      Expand each image to its mates, and classify locally.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "A group has 3 four-fold, 4 three-fold and 6 two-fold axes. How many rotations has it, with the identity?",
        1 + 3 * 3 + 4 * 2 + 6 * 1,
        tolerance=0.1,
        hint="An n-fold axis has n - 1 rotations beside the identity.",
        explanation="1 + 9 + 8 + 6 is 24: the group O of the cube.",
    )
    return


@app.cell
def _():
    exercise(
        "The 20S proteasome has the symmetry D7. What share of all rotations is its asymmetric unit, in per cent?",
        100 / len(symmetry_rotations("D7")),
        tolerance=0.1,
        unit="%",
        hint="How many rotations has D7?",
        explanation="14 rotations, so 1/14, or 7.1 %.",
    )
    return


@app.cell
def _():
    choose(
        "A particle has a two-fold axis g. Which pose gives the same image as R?",
        (r"$g R$", r"$R g$", r"$g R g$"),
        1,
        hint="Which of the two is done first to the map?",
        explanation=r"In $Rg$ the map is turned by $g$ first, and is as it was. $gR$ turns the image.",
    )
    return


@app.function
def test_groups():
    """Orders by the formula of families; axes of solids; scipy's groups of equal angles."""
    families = {"D7": (2, 2, 7), "T": (2, 3, 3), "O": (2, 3, 4), "I": (2, 3, 5)}
    for name, three in families.items():
        assert abs(order_of(*three) - len(symmetry_rotations(name))) < 1e-9
    assert axes("T") == {2: 3, 3: 4}
    assert axes("O") == {2: 6, 3: 4, 4: 3}
    assert axes("I") == {2: 15, 3: 10, 5: 6}
    for name in ("C4", "D2", "T", "O", "I"):
        mine = symmetry_rotations(name).numpy()
        theirs = Rotation.create_group(name).as_matrix()
        traces = (np.sort(np.trace(one, axis1=1, axis2=2)) for one in (mine, theirs))
        assert_allclose(*traces, atol=1e-9)
        products = np.einsum("aij,bjk->abik", mine, mine).reshape(-1, 1, 9)
        far = np.abs(products - mine.reshape(1, -1, 9)).max(2).min(1)
        assert far.max() < 1e-9


@app.function
def test_the_tetrahedron_exchanges_corners_evenly():
    """Twelve different even permutations; a corner of T lies on a three-fold, along z."""
    corners = np.unique(np.round(symmetry_rotations("T").numpy()[:, :, 2], 9), axis=0)
    assert len(corners) == 4
    ways = set()
    for g in symmetry_rotations("T").numpy():
        to = np.argmax(corners @ (g @ corners.T), 0)
        assert abs(np.linalg.det(np.eye(4)[to]) - 1) < 1e-9
        ways.add(tuple(to))
    assert len(ways) == 12


@app.function
def test_mates_are_the_same_image():
    """Points of a symmetric map at R g are those at R (rounding); at g R they are not."""
    group = symmetry_rotations("O").numpy()
    points = group @ np.array([0.3, -1.0, 0.6])
    turn = random_rotations(1, torch.Generator().manual_seed(1))[0].numpy()
    x = np.sort(points @ turn[0])
    for g in group:
        assert_allclose(np.sort(points @ (turn @ g)[0]), x, atol=1e-9)
    assert np.abs(np.sort(points @ (group[1] @ turn)[0]) - x).max() > 0.1


@app.function
def test_errors_and_the_asymmetric_unit():
    """Angles to the nearest mate: pi / 2 + 2 / pi, and Mackenzie's 40.7 and 62.8 of cubes (4 sd)."""
    none, cube = errors_of_guesses("C1"), errors_of_guesses("O")
    assert abs(none.mean() - np.degrees(np.pi / 2 + 2 / np.pi)) < 4 * 37 / np.sqrt(2000)
    assert abs(cube.mean() - 40.74) < 4 * 11 / np.sqrt(2000)
    assert 58 < cube.max() < 62.8
    # The rim of a cell is wide where cells are: 316 instead of 192.
    assert 4608 / 24 <= len(asymmetric_unit(2, symmetry_rotations("O"))) < 4608 / 12


@app.cell
def _():
    closing(
        "point_groups",
        library=[
            "cryoinfer.geometry.symmetry.symmetry_rotations",
            "cryoinfer.geometry.so3_grid.asymmetric_unit",
            "cryoinfer.reconstruction.symmetrise.symmetrise",
        ],
        sources=[
            "H. S. M. Coxeter 1973, Regular Polytopes, third edition.",
            "J. K. Mackenzie 1958, Second paper on statistics associated with the random disorientation of cubes, Biometrika 45, 229-240.",
            "learn_cryoem_math (Woollard).",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
