import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    from functools import lru_cache

    import marimo as mo
    import numpy as np
    import torch
    from scipy.optimize import linear_sum_assignment

    from course import choose, closing, exercise, explore, opening, source
    from course.explore import Slider
    from course.plot import Line, Panel, Plot, Points
    from cryoinfer.evaluation.transport import rigid_motion


@app.cell
def _():
    opening("rotation_landscapes")
    return


@app.cell
def _():
    mo.md(r"""
    ## A landscape over the angle

    Two images show one molecule, and the second is turned. To find the angle, one walks:
    turn a little, keep what fits better, and repeat. Whether that ends at the right angle is
    decided by the **landscape**, the misfit drawn over the angle. The set of angles from
    which going downhill leads to the true one is its **basin**. A misfit with a wide basin
    needs few starts.

    Squares compare pixel with pixel. Transport (*Moving mass*) asks how far the grains of
    one image must be carried to make the other.

    The molecule has three domains of different mass. Turn it and watch the two curves.
    Squares fall only near the truth; elsewhere they are flat, with dips where a domain
    crosses another. Transport falls from far away. Leave the stray grains at zero for now.
    """)
    return


@app.function
def molecule():
    """Return 120 grains (n, 2) in angstrom, their centre of mass at 0: three domains."""
    rng = np.random.default_rng(4)
    parts = []
    for degrees, radius, count in (
        (20.0, 36.0, 70),
        (170.0, 30.0, 30),
        (280.0, 22.0, 20),
    ):
        middle = turned(np.array([[radius, 0.0]]), degrees)
        parts.append(middle + rng.normal(size=(count, 2)) * 2.0)
    return np.concatenate(parts) - np.concatenate(parts).mean(0)


@app.function
def turned(grains, degrees):
    """Return the grains turned about the origin, anticlockwise."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return grains @ np.array([[c, s], [-s, c]])


@app.function
def moved_squared(first, second):
    """Return W2 squared of two clouds of equally many equal grains."""
    squared = np.sum((first[:, None] - second[None]) ** 2, axis=-1)
    return squared[linear_sum_assignment(squared)].mean()


@app.function
def overlap(first, second, width):
    """Return the integral of the product of two images, each grain a Gaussian spot.

    Two spots of variance w^2 at the distance d overlap as exp(-d^2 / 4 w^2).
    """
    squared = np.sum((first[:, None] - second[None]) ** 2, axis=-1)
    return np.exp(-squared / (4.0 * width**2)).mean()


@app.function
def squares(first, second, width):
    """Return the sum of squared differences over its value without any overlap."""
    own = overlap(first, first, width) + overlap(second, second, width)
    return 1.0 - 2.0 * overlap(first, second, width) / own


@app.cell
def _():
    _grains = molecule()
    _angles = np.arange(-180.0, 181.0, 9.0)

    @lru_cache
    def curves(stray):
        extra = np.random.default_rng(7).uniform(-45.0, 45.0, (2, stray, 2))
        fixed = np.concatenate([_grains, extra[0]])
        there = [np.concatenate([turned(_grains, a), extra[1]]) for a in _angles]
        moves = np.array([moved_squared(fixed, one) for one in there])
        return fixed, moves, np.array([squares(fixed, one, 3.0) for one in there])

    def landscape(degrees, stray):
        fixed, moves, misfit = curves(stray)
        there = turned(_grains, degrees)
        now = list(_angles).index(degrees)
        spots = (Points(*fixed.T, "fixed image"), Points(*there.T, "turned molecule"))
        lines = (
            Line(_angles, moves, "transport, W2 squared"),
            Line(_angles, 400.0 * misfit, "squares (times 400)"),
            Points([degrees, degrees], [moves[now], 400.0 * misfit[now]]),
        )
        box = (-46.0, 46.0)
        return Plot(
            (
                Panel(spots, "Grains", "x (Å)", "y (Å)", box, box, True),
                Panel(lines, "Landscape", "angle (degrees)", "misfit (Å²)"),
            ),
            says=f"Turned by {degrees:.0f} degrees: squares {misfit[now]:.3f}, transport "
            f"W2 = {np.sqrt(moves[now]):.1f} Å; at the truth {np.sqrt(moves[20]):.1f} Å.",
        )

    explore(
        landscape,
        degrees=Slider("angle (degrees)", range(-180, 181, 18), 72),
        stray=Slider("stray grains beside 120", (0, 20, 40, 80), 0),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Why

    Turn by a small angle $\theta$. A grain at the radius $r$ moves along a chord of
    $2 r \sin(\theta/2)$. The plan that follows each grain is one of the plans, so

    $$W_2^2 \le 4 \sin^2(\theta/2)\, \langle r^2 \rangle
    = 2 (1 - \cos\theta)\, \langle r^2 \rangle ,$$

    where $\langle r^2\rangle$ is the mean squared distance from the axis. For small
    angles no other plan is cheaper, and this is an equality: a parabola whose curvature
    depends on the size of the molecule and on nothing finer. In fact $W_2^2$ can only be
    beaten when grains may be exchanged with profit: when a domain arrives nearer to another
    one than to itself.

    Squares see something else. Two spots of width $w$ at the distance $d$ overlap as
    $e^{-d^2 / 4 w^2}$. Put $d = r\theta$ in: the overlap is lost at

    $$\theta \approx 2 w / r .$$

    The basin of squares is as wide as the detail is coarse, over the radius. Detail of 3 Å at
    40 Å from the axis is lost after 9 degrees. This is why searches begin at low
    resolution, and why a grid of angles must be the finer the better the map is.

    Near the truth it is the other way round: the curvature of squares is
    $\propto r^2 / w^2$, that of transport $\propto r^2$ only.

    So both are wanted: transport to come near, squares (or correlation) to end precisely.

    ## Walk from everywhere

    From 36 starting angles, go downhill in steps of 2 degrees, until a step gains less than
    0.3 % of the whole height: less than that noise would hide. The figure counts how many
    arrive. Change the width of the spots, as a low-pass filter does: the walkers on squares
    profit. Those on transport do not ask.

    For transport there is a faster walk. Find the plan; then turn the molecule so that the
    plan becomes cheapest; then find the plan anew. The best rotation for given partners
    is known in closed form. With the matrix $M = \sum_{ij} P_{ij}\, y_j x_i^T$ it is the rotation
    that makes $\operatorname{tr}(R^T M)$ largest, from the singular vectors of
    $M$ (Kabsch). Neither step can raise the cost, so the walk must end.
    """)
    return


@app.function
def downhill(misfit, here, least=0.003):
    """Return where a walk on a ring ends that needs a gain at every step."""
    while True:
        near = [(here + step) % len(misfit) for step in (0, 1, -1)]
        best = near[int(np.argmin(misfit[near]))]
        if misfit[here] - misfit[best] < least * misfit.max():
            return here
        here = best


@app.function
def in_turns(first, second, rounds=40):
    """Return by how many degrees plan and rotation, in turns, turn the first cloud."""
    there, total = first, 0.0
    for _ in range(rounds):
        squared = np.sum((there[:, None] - second[None]) ** 2, axis=-1)
        rows, columns = linear_sum_assignment(squared)
        moment = second[columns].T @ first[rows]
        sine, cosine = moment[1, 0] - moment[0, 1], moment[0, 0] + moment[1, 1]
        angle = np.degrees(np.arctan2(sine, cosine))
        if abs(angle - total) < 1e-9:
            break
        there, total = turned(first, angle), angle
    return total


@app.cell
def _():
    _grains = molecule()
    _fine = np.arange(-180.0, 180.0, 2.0)
    _transport = np.array([moved_squared(_grains, turned(_grains, a)) for a in _fine])
    _starts = range(0, 180, 5)
    _found = np.array([in_turns(turned(_grains, a), _grains) for a in _fine[::5]])
    _closed_ok = np.abs((_found + _fine[::5] + 180.0) % 360.0 - 180.0) < 1.0

    def walkers(width):
        misfit = np.array([squares(_grains, turned(_grains, a), width) for a in _fine])
        ends = [
            np.array([abs(_fine[downhill(values, k)]) < 9.0 for k in _starts])
            for values in (misfit, _transport)
        ]
        names = ("squares", "transport", "plan and rotation in turns")
        marks = [
            Points(_fine[::5][ok], np.full(ok.sum(), float(row)), names[row])
            for row, ok in enumerate((*ends, _closed_ok))
        ]
        moves = _transport / _transport.max()
        lines = Line(_fine, misfit, "squares"), Line(_fine, moves, "transport")
        title, ring = "Starts that end at the truth", "starting angle (degrees)"
        return Plot(
            (
                Panel(tuple(marks), title, ring, "", (-185.0, 185.0), (-0.7, 3.2)),
                Panel(lines, "Landscape", "angle (degrees)", "misfit, relative"),
            ),
            says=f"Of 36 starts {ends[0].sum()} arrive by squares, {ends[1].sum()} by "
            f"transport and {_closed_ok.sum()} by plan and rotation in turns.",
        )

    explore(
        walkers, width=Slider("width of a spot, sigma (Å)", (1, 1.5, 2, 3, 5, 8, 12), 3)
    )
    return


@app.cell
def _():
    source(squares, moved_squared, in_turns, rigid_motion)
    return


@app.cell
def _():
    mo.md(r"""
    ## Noise, and all three angles

    Noise is mass too. Go back to the first figure and add stray grains, others in either
    image. They must be carried to each other, whatever the angle: the curve is lifted, and
    its valley becomes shallower. In a real image, where noise is both positive and negative and stronger than
    the signal, there is nothing that could be carried. Transport is for maps, class
    averages and denoised images, not for raw particles.

    In space there are three angles. The bound above holds for every axis, with
    $\langle r^2 \rangle$ measured from that axis, and the angle can be at most 180 degrees.
    The share of all rotations that lie within $\theta$ of the truth is

    $$\frac{\theta - \sin\theta}{\pi} ,$$

    with $\theta$ in radians: 0.0022 for 20 degrees, but 0.18 for 90 degrees. A basin that
    is four and a half times wider holds eighty times as many starts. That is what
    *Aligning maps* lives on.
    """)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"The fit was started 20 degrees off and went the wrong way."* Fitting in real space,
      voxel by voxel, has the basin of squares. Filter both maps to a quarter of the
      particle's diameter, fit, and repeat with more detail.
    - *"The map is fitted upside down."* Long particles have a second minimum half a
      turn away, where the outline agrees. A landscape of transport has it too, and it is
      wide. Compare the best misfits of several starts before you believe one.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "A map with detail of width 4 Å (sigma) has parts 80 Å from its centre. At which "
        "angle do squares lose sight of them?",
        np.degrees(2.0 * 4.0 / 80.0),
        tolerance=0.4,
        unit="degrees",
        hint=r"Use $2 w / r$, in radians.",
        explanation="8 / 80 is 0.1 radian: a grid of angles must be finer than that.",
    )
    return


@app.cell
def _():
    exercise(
        "All mass lies 30 Å from the axis, in one small spot. It is turned by 60 degrees. "
        "What is $W_2$?",
        np.linalg.norm(turned(np.array([30.0, 0.0]), 60.0) - [30.0, 0.0]),
        tolerance=0.3,
        unit="Å",
        hint=r"The spot moves along a chord: $2 r \sin(\theta/2)$.",
        explanation="Twice 30 Å times one half: the chord of 60 degrees is the radius.",
    )
    return


@app.cell
def _():
    choose(
        "A ring of uniform density is turned about its centre. What is the landscape of "
        "$W_2^2$?",
        ("It is what the formula says.", "It is zero.", "It has one maximum, at 180°."),
        1,
        hint="The formula is an upper bound. Which plan is cheaper here?",
        explanation="The turned ring is the same ring: nothing has to be carried. A "
        "symmetry is where the bound is beaten.",
    )
    return


@app.function
def test_known_numbers():
    """The bound is exact for small turns; both walks know the truth."""
    grains = molecule()
    inertia = np.mean(np.sum(grains**2, axis=1))
    for degrees in (0.2, 0.5):
        bound = 2.0 * (1.0 - np.cos(np.radians(degrees))) * inertia
        found = moved_squared(grains, turned(grains, degrees))
        assert found <= bound * (1.0 + 1e-9)
        assert found > 0.9 * bound  # a few grains lie within their own steps
    assert abs(in_turns(grains, turned(grains, 60.0)) - 60.0) < 1e-6
    # Shares of rotations in the text: rotations are quaternions on half a sphere.
    draws = np.random.default_rng(0).normal(size=(200_000, 4))
    draws /= np.linalg.norm(draws, axis=1)[:, None]
    degrees = np.degrees(2.0 * np.arccos(np.abs(draws[:, 0])))
    assert abs(np.mean(degrees < 90.0) - (0.5 - 1.0 / np.pi)) < 0.004  # 4 sd


@app.function
def test_the_overlap_is_that_of_images():
    """On a fine grid the sum over pixels is the integral, to 1e-6 for Gaussians."""
    grains = np.array([[0.0, 0.0], [6.0, 2.0], [-5.0, 7.0]])
    there = turned(grains, 30.0)
    line = np.arange(-40.0, 40.0, 0.5)
    first, second = (
        np.exp(-((line - one[:, :1]) ** 2) / 18.0).T
        @ np.exp(-((line - one[:, 1:]) ** 2) / 18.0)
        for one in (grains, there)
    )
    expected = np.sum((first - second) ** 2) / np.sum(first**2 + second**2)
    assert abs(squares(grains, there, 3.0) - expected) < 1e-6


@app.function
def test_the_closed_rotation_is_the_library_s():
    """The angle in the plane is that of Kabsch in space, to rounding."""
    first, noise = np.random.default_rng(3).normal(size=(2, 9, 2))
    second = turned(first, 25.0) + 0.01 * noise
    flat = [torch.tensor(np.pad(one, ((0, 0), (0, 1)))) for one in (first, second)]
    rotation, _ = rigid_motion(torch.eye(9).double() / 9.0, *flat)
    degrees = np.degrees(np.arctan2(float(rotation[1, 0]), float(rotation[0, 0])))
    centred = [one - one.mean(0) for one in (first, second)]
    assert abs(in_turns(*centred) - degrees) < 1e-6


@app.cell
def _():
    closing(
        "rotation_landscapes",
        library=[
            "cryoinfer.evaluation.transport.rigid_motion",
            "cryoinfer.geometry.rotations.geodesic_angle",
        ],
        sources=[
            "W. Kabsch 1976, A solution for the best rotation to relate two sets of "
            "vectors, Acta Crystallographica A 32, 922-923.",
            "A. Singer and R. Yang 2024, Alignment of density maps in Wasserstein "
            "distance, Biological Imaging 4.",
            "learn_cryoem_math (Woollard), notebook on transport and rotation.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
