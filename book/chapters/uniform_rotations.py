import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import roma
    import torch
    from numpy.testing import assert_allclose

    from course import (
        Bars,
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
    from cryoinfer.geometry.rotation_volume import log_exponential_volume
    from cryoinfer.geometry.rotations import geodesic_angle, random_rotations
    from cryoinfer.geometry.so3_grid import (
        children,
        grid_step_radian,
        healpix_directions,
        rotation_grid,
    )


@app.cell
def _():
    opening("uniform_rotations")
    return


@app.cell
def _():
    mo.md(r"""
    ## Equally likely directions

    Particles that do not care how they lie are seen from all sides alike: equal areas of the sphere of views
    get equally many. Draw tilt evenly between 0 and 180 degrees, and rot between 0 and 360, and this is not so.
    A band of width $\mathrm{d}\theta$ at the angle $\theta$ from the pole has the circumference
    $2\pi\sin\theta$ and the area

    $$2\pi \sin\theta\, \mathrm{d}\theta = 2\pi\, |\mathrm{d}(\cos\theta)| .$$

    Near the poles bands are small, and even angles crowd them. But the area depends on $\cos\theta$ alone. So
    draw $z = \cos\theta$ evenly between -1 and 1, and $\varphi$ evenly: then directions are even. (Archimedes
    knew: a sphere and the cylinder around it have equal areas between any two parallel planes.) Half of the
    views of even angles lie within 45 degrees of a pole; of even directions only 29 % do.

    The left panel is a map of the sphere that keeps areas. Choose how to draw.
    """)
    return


@app.function
def directions(way, count, seed):
    """Return z and longitude of random directions, drawn well or badly."""
    rng = np.random.default_rng(seed)
    phi = rng.uniform(-np.pi, np.pi, count)
    if way == "even tilt":
        return np.cos(rng.uniform(0, np.pi, count)), phi
    if way == "even z":
        return rng.uniform(-1, 1, count), phi
    x, y, z = rng.normal(size=(3, count))
    return z / np.sqrt(x**2 + y**2 + z**2), np.arctan2(y, x)


@app.cell
def _():
    def views(way, seed):
        z, phi = directions(way, 2000, seed)
        share, edges = np.histogram(z, np.linspace(-1, 1, 21))
        bars = Bars((edges[1:] + edges[:-1]) / 2, share / 2000, "drawn")
        even = Line([-1, 1], [0.05, 0.05], "even", dashed=True)
        near, seen = np.mean(z**2 > 0.5), (Points(np.degrees(phi), z),)
        return Plot(
            (
                Panel(seen, "Views", "longitude (degrees)", "z"),
                Panel(
                    (bars, even), "Bands of equal area", "z, cosine of tilt", "share"
                ),
            ),
            says=f"{100 * near:.0f} % of 2,000 views are within 45 degrees of a pole; even would be 29 %.",
        )

    explore(
        views,
        way=Choice("drawn by", ("even tilt", "even z", "three normal numbers")),
        seed=Slider("seed", range(4), 0),
    )
    return


@app.cell
def _():
    mo.md(r"""
    Three independent normal numbers do it as well: their density depends on $x^2 + y^2 + z^2$ only, so no
    direction is preferred, and one may divide by the length.

    ## Equally likely rotations

    A rotation is a view and a turn in the plane. The **uniform distribution** of rotations does not change when
    all are turned by one more; there is only one such, and in Euler angles it is

    $$\frac{\sin\theta\, \mathrm{d}\theta\, \mathrm{d}\varphi\, \mathrm{d}\psi}{8\pi^2} .$$

    With quaternions it is simpler still. A product with a unit quaternion turns the sphere $|q| = 1$ in four
    dimensions, so the uniform distribution is the even one on that sphere: four normal numbers, divided by
    their length. Or write two circles, of radii $\sqrt{1 - u}$ and $\sqrt{u}$,

    $$q = \big(\sqrt{1 - u}\, \sin\alpha,\; \sqrt{1 - u}\, \cos\alpha,\; \sqrt{u}\, \sin\beta,\; \sqrt{u}\, \cos\beta\big) .$$

    With $\sqrt u = \sin\eta$ the volume is
    $\sin\eta \cos\eta\, \mathrm{d}\eta\, \mathrm{d}\alpha\, \mathrm{d}\beta = \tfrac12 \mathrm{d}u\, \mathrm{d}\alpha\, \mathrm{d}\beta$.
    So $u$ is even between 0 and 1, and both angles are even over the *whole* circle, $2\pi u_2$ and $2\pi u_3$.
    Code that runs has been seen with $\pi u_2$ and with $\pi u_2/2$. Nothing fails, and the poses look random.

    A good test costs a line. No matrix entry is preferred to its negative, so the mean of uniform rotations is
    0; of $n$ draws each entry is within $3/\sqrt n$ or so, since its variance is $1/3$. Take half a circle, and two entries are $1/\pi = 0.32$. Take a quarter, and three are $2/\pi = 0.64$.
    """)
    return


@app.function
def quaternions(count, circle, seed):
    """Return unit quaternions (x, y, z, w) whose angles span a share of the circle."""
    u, first, second = np.random.default_rng(seed).uniform(size=(3, count))
    alpha, beta = 2 * np.pi * circle * first, 2 * np.pi * circle * second
    inner, outer = np.sqrt(1 - u), np.sqrt(u)
    first_two = inner * np.sin(alpha), inner * np.cos(alpha)
    return torch.from_numpy(
        np.stack([*first_two, outer * np.sin(beta), outer * np.cos(beta)], 1)
    )


@app.function
def angle_density(omega):
    """Return the density of the angle of a uniform rotation, per radian."""
    return (1 - np.cos(omega)) / np.pi


@app.cell
def _():
    def mean_rotation(circle, log_count):
        count = int(10**log_count)
        rotation = roma.unitquat_to_rotmat(quaternions(count, circle, 0))
        mean = rotation.mean(0).numpy()
        angle = torch.rad2deg(geodesic_angle(rotation, torch.eye(3).double()))
        share, edges = np.histogram(angle, np.linspace(0, 180, 19))
        middle = (edges[1:] + edges[:-1]) / 2
        expected = angle_density(np.radians(middle)) * np.radians(10)
        shown = (Heat(mean, signed=True, limits=(-0.7, 0.7)),)
        bars = (Bars(middle, share / count, "drawn"), Line(middle, expected, "uniform"))
        return Plot(
            (
                Panel(shown, "Mean of the matrices", "column", "row", equal=True),
                Panel(bars, "Angle of the rotation", "degrees", "share"),
            ),
            says=f"Largest entry of the mean {np.abs(mean).max():.3f}; allowed {3 / np.sqrt(count):.3f}. "
            f"Mean angle {angle.mean():.1f} degrees; uniform 126.5.",
        )

    explore(
        mean_rotation,
        circle=Slider("share of the circle", (0.25, 0.5, 0.75, 1), 0.5),
        log_count=Slider("log10 of the number drawn", (2, 2.5, 3, 3.5, 4), 4),
    )
    return


@app.cell
def _():
    mo.md(r"""
    The angle of a uniform rotation is not even either. In the ball of rotation vectors (*Rotations and their
    coordinates*) volumes are scaled by $2(1 - \cos\omega)/\omega^2$, and a shell has the area $4\pi\omega^2$.
    So the density is $(1 - \cos\omega)/\pi$ from 0 to $\pi$: small angles are rare. Its mean is

    $$\int_0^\pi \omega\, \frac{1 - \cos\omega}{\pi}\, \mathrm{d}\omega = \frac{\pi}{2} + \frac{2}{\pi} ,$$

    or 126.5 degrees. A method whose mean pose error is 126 degrees has found nothing at all.
    """)
    return


@app.cell
def _():
    source(directions, quaternions, random_rotations)
    return


@app.cell
def _():
    mo.md(r"""
    ## Searching all of them

    A search tries a grid. It should be as coarse as it may, and leave no hole. Even steps of tilt and rot waste
    points: near the pole neighbours nearly coincide. **HEALPix**, made by astronomers, divides the sphere into
    12 equal areas, each into four, and so on: $12 \cdot 4^k$ directions of order $k$. Times an equal division
    of psi this is a grid of rotations. The program's has $72 \cdot 8^k$, at steps of $60/2^k$ degrees:

    | order | step (degrees) | directions | rotations |
    |---|---|---|---|
    | 0 | 60 | 12 | 72 |
    | 1 | 30 | 48 | 576 |
    | 2 | 15 | 192 | 4,608 |
    | 3 | 7.5 | 768 | 36,864 |
    | 4 | 3.75 | 3,072 | 294,912 |

    The space of rotations has the volume $8\pi^2$ in cubic radians. One degree in all three directions would be
    $8\pi^2/(\pi/180)^3$, or 15 million, for each image. So one searches coarsely, keeps the best few cells, and
    divides each into its $2^3$ **children**: another step costs 8 times the cells kept, and not 8 times all.

    Compare the grids. On the right is the share of directions below each height $z$: of an even grid it is the
    diagonal.
    """)
    return


@app.function
def grid_of_views(kind, order):
    """Return z and longitude of a grid of directions, with steps alike."""
    if kind == "HEALPix":
        theta, phi = healpix_directions(order).numpy().T
        return np.cos(theta), phi
    steps = 3 * 2**order
    theta = (np.arange(steps) + 0.5) * np.pi / steps
    phi = np.arange(2 * steps) * np.pi / steps
    theta, phi = np.meshgrid(theta, phi)
    return np.cos(theta).ravel(), phi.ravel()


@app.cell
def _():
    def grids(kind, order):
        z, phi = grid_of_views(kind, order)
        radius = np.sqrt(1 - z[z > 0])  # from above, and keeping areas
        x, y = radius * np.cos(phi[z > 0]), radius * np.sin(phi[z > 0])
        share = (np.arange(len(z)) + 0.5) / len(z)
        even = Line([-1, 1], [0, 1], "even", dashed=True)
        limits = ((-1.05, 1.05), (-1.05, 1.05), True)
        return Plot(
            (
                Panel((Points(x, y),), "Northern half", "x", "y", *limits),
                Panel(
                    (Line(np.sort(z), share, "grid"), even),
                    "Share below z",
                    "z",
                    "share",
                ),
            ),
            says=f"{len(z)} directions, steps of {60 / 2**order:g} degrees; with turns in the plane "
            f"{len(z) * 6 * 2**order:,} rotations.",
        )

    explore(
        grids,
        kind=Choice("grid", ("HEALPix", "even angles")),
        order=Slider("order", range(5), 2),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"My simulated set has preferred views, though I drew them at random."* Tilt was drawn evenly, or an angle
      of the quaternion only over half the circle. Take the mean of the matrices.
    - *"The search has a step of 15 degrees and finds poses that are 11 off."* A step is not the largest error.
      In three dimensions the corner of a cell is farther than half its side. Of random rotations the nearest
      one of the grid of 15 degrees is 7 degrees away on average, and 12 at worst.
    - *"I refine locally from the grid and some particles never arrive."* The cell kept was the wrong one: at
      low resolution several have nearly the same score. Keep more of them.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "Views are even on the sphere. What share of them lies within 30 degrees of the north pole?",
        (1 - np.cos(np.radians(30))) / 2,
        tolerance=0.002,
        hint="z is even between -1 and 1. Which z has a tilt of 30 degrees?",
        explanation="(1 - 0.866) / 2 is 0.067. Even tilts would have given 0.167.",
    )
    return


@app.cell
def _():
    exercise(
        "How many rotations has the grid with steps of 1.875 degrees?",
        72 * 8**5,
        tolerance=1000,
        hint="Which order has it? Each order has eight times the rotations of the last.",
        explanation="Order 5: 2,359,296. For each image, and each shift.",
    )
    return


@app.cell
def _():
    choose(
        "A program reports a mean pose error of 126 degrees. What has it learned?",
        (
            "Nothing about the poses.",
            "The views, but not psi.",
            "The hand is wrong, all else is right.",
        ),
        0,
        hint="What is the mean angle of a uniform rotation?",
        explanation="126.5 degrees is the mean distance of two random rotations.",
    )
    return


@app.function
def test_mean_rotation():
    """Uniform: 0 within 3 / sqrt(n), 5 sd of an entry. Parts of the circle: not."""
    count = 10000
    mine = roma.unitquat_to_rotmat(quaternions(count, 1.0, 1)).mean(0)
    theirs = random_rotations(count, torch.Generator().manual_seed(1)).mean(0)
    assert mine.abs().max() < 3 / np.sqrt(count)
    assert theirs.abs().max() < 3 / np.sqrt(count)
    quarter = roma.unitquat_to_rotmat(quaternions(count, 0.25, 1)).mean(0)
    assert_allclose(quarter.flatten().sort()[0][-3:], 2 / np.pi, atol=0.02)  # 4 sd
    half = roma.unitquat_to_rotmat(quaternions(count, 0.5, 1)).mean(0).abs().max()
    assert abs(half - 1 / np.pi) < 0.03


@app.function
def test_angles_of_uniform_rotations():
    """Mean pi / 2 + 2 / pi, sd 0.65 over sqrt(n); the density is the library's volume."""
    rotation = random_rotations(20000, torch.Generator().manual_seed(2))
    angle = geodesic_angle(rotation, torch.eye(3, dtype=torch.float64))
    assert abs(angle.mean() - (np.pi / 2 + 2 / np.pi)) < 4 * 0.65 / np.sqrt(20000)
    omega = torch.linspace(0.1, 3.1, 9, dtype=torch.float64)
    shell = 4 * np.pi * omega**2 * log_exponential_volume(omega).exp() / (8 * np.pi**2)
    assert_allclose(angle_density(omega.numpy()), shell, atol=1e-12)


@app.function
def test_grids():
    """Equal areas, numbers, and the holes: of 500 rotations none is 14 degrees from order 2."""
    z, _ = grid_of_views("HEALPix", 4)
    # A ring of HEALPix has at most 64 of 3,072 directions.
    assert_allclose(
        (np.arange(len(z)) + 0.5) / len(z), (np.sort(z) + 1) / 2, atol=0.021
    )
    grid = rotation_grid(2)
    assert len(grid) == 4608
    assert abs(np.degrees(grid_step_radian(2)) - 15) < 1e-9
    assert_allclose(grid.mean(0), 0, atol=1e-12)
    rotation = random_rotations(500, torch.Generator().manual_seed(3))
    trace = (rotation.flatten(1) @ grid.flatten(1).T).amax(1)
    nearest = torch.rad2deg(((trace - 1) / 2).clamp(-1, 1).acos())
    assert 6.5 < nearest.mean() < 7.5
    assert nearest.max() < 14
    cells = children(grid[0], grid_step_radian(2))
    corner = torch.rad2deg(geodesic_angle(cells[0], grid[0]))
    assert abs(corner - 15 / 4 * np.sqrt(3)) < 1e-9


@app.cell
def _():
    closing(
        "uniform_rotations",
        library=[
            "cryoinfer.geometry.rotations.random_rotations",
            "cryoinfer.geometry.so3_grid.rotation_grid",
            "cryoinfer.geometry.so3_grid.children",
        ],
        sources=[
            "K. Shoemake 1992, Uniform random rotations, in Graphics Gems III.",
            "K. M. Górski and others 2005, HEALPix, The Astrophysical Journal 622, 759-771.",
            "A. Yershova, S. Jain, S. M. LaValle and J. C. Mitchell 2010, Generating uniform incremental grids on SO(3) using the Hopf fibration, International Journal of Robotics Research 29.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
