import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    from scipy.optimize import linear_sum_assignment
    from scipy.stats import wasserstein_distance

    from course import choose, closing, exercise, explore, opening, source
    from course.explore import Slider
    from course.plot import Heat, Line, Panel, Plot, Points


@app.cell
def _():
    opening("transport")
    return


@app.cell
def _():
    mo.md(r"""
    ## Squares are blind to distance

    A spot lies at one place in the first image and at another in the second. How far apart
    are the images? The usual answer is the sum of squared differences of pixels. Move the
    spot and look at it. While the two spots overlap, the sum grows. Once they do not
    overlap any more it stays the same: a spot that is 20 Å off and one that is 60 Å off
    are equally wrong. An algorithm that improves a guess step by step needs to know in
    which direction it is better. Here squares tell it nothing.

    A mover would answer: so much mass, carried so far. That grows, however far it is.
    """)
    return


@app.function
def spot(x, centre, width):
    """Return a Gaussian of mass 1 on equally spaced places."""
    values = np.exp(-((x - centre) ** 2) / (2.0 * width**2))
    return values / values.sum()


@app.function
def w1(x, first, second):
    """Return the mass times distance of moving one density into the other, in 1-D."""
    return np.abs(np.cumsum(first - second))[:-1] @ np.diff(x)


@app.cell
def _():
    def far(distance, width):
        x = np.arange(-60.0, 121.0)
        still, moved = spot(x, 0.0, width), spot(x, distance, width)
        apart = np.arange(0.0, 81.0, 2.0)
        others = [spot(x, d, width) for d in apart]
        squares = np.array([np.sum((one - still) ** 2) for one in others])
        squares /= 2.0 * np.sum(still**2)
        moves = np.array([w1(x, one, still) for one in others])
        now = np.interp(distance, apart, squares), w1(x, moved, still)
        spots = (Line(x, still, "first"), Line(x, moved, "second"))
        lines = (
            Line(apart, squares, "squares"),
            Line(apart, moves / 80.0, "transport / 80 Å"),
            Points([distance, distance], [now[0], now[1] / 80.0]),
        )
        return Plot(
            (
                Panel(spots, "Two spots", "place (Å)", "density (1/Å)", (-40.0, 110.0)),
                Panel(lines, "How far apart", "distance (Å)", "over the largest"),
            ),
            says=f"At {distance:.0f} Å the squares are {now[0]:.3f} of their largest "
            f"value; a mass of 1 is carried over {now[1]:.1f} Å.",
        )

    explore(
        far,
        distance=Slider("distance of the spots (Å)", range(0, 81, 5), 20),
        width=Slider("width of a spot, sigma (Å)", (3, 5, 8, 12), 5),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## The cheapest plan

    Let the first image have the masses $a_i$ at places $x_i$, the second $b_j$ at $y_j$,
    both of total 1. A **transport plan** $P$ says how much goes from where to where:
    $P_{ij} \ge 0$ is carried from $x_i$ to $y_j$, everything leaves and everything
    arrives,

    $$\sum_j P_{ij} = a_i , \qquad \sum_i P_{ij} = b_j .$$

    Each gram pays the distance that it is carried to the power $p$. The cheapest plan
    defines the **Wasserstein distance**

    $$W_p(a, b) = \Big( \min_P \sum_{ij} P_{ij}\, |x_i - y_j|^p \Big)^{1/p} .$$

    $W_1$ is also called the **earth mover's distance**. All of it is linear in $P$: a
    linear program. If all masses are equal and equally many, some cheapest plan sends each
    point whole to one other (a corner of the set of plans is a permutation): an assignment.

    ## On a line: never cross

    Two grams start at $x_1 < x_2$ and end at $y_1 < y_2$. Sent straight they pay
    $(x_1 - y_1)^2 + (x_2 - y_2)^2$, sent crosswise
    $(x_1 - y_2)^2 + (x_2 - y_1)^2$. The crossed one costs
    $2 (x_2 - x_1)(y_2 - y_1) \ge 0$ more. So in the cheapest plan nobody
    overtakes: the first gram on the left goes to the first place on the left, and so on.
    In words of statistics, the part $u$ of the mass goes from the quantile
    $F^{-1}(u)$ to the quantile $G^{-1}(u)$, where $F$ and $G$ are the cumulative
    masses:

    $$W_p^p = \int_0^1 \big| F^{-1}(u) - G^{-1}(u) \big|^p \, \mathrm{d}u , \qquad
    W_1 = \int | F(x) - G(x) | \, \mathrm{d}x .$$

    The second form of $W_1$ is the same area, cut in columns in place of rows. It has
    a meaning of its own: $|F(x) - G(x)|$ is what must pass the place $x$. For two Gaussians
    the quantiles are $m + s\, q(u)$ with the quantile $q$ of the standard one. As
    $q$ has mean 0 and variance 1,

    $$W_2^2 = (m_1 - m_2)^2 + (s_1 - s_2)^2 .$$
    """)
    return


@app.function
def edges(x):
    """Return the borders of pixels."""
    step = x[1] - x[0]
    return np.append(x - step / 2.0, x[-1] + step / 2.0)


@app.function
def grams(x, density, count=20_000):
    """Return the places of equal small masses, from left to right: quantiles."""
    total = np.append(0.0, np.cumsum(density))
    return np.interp((np.arange(count) + 0.5) / count, total / total[-1], edges(x))


@app.function
def w2(x, first, second):
    """Return the distance W2 of two densities on a line, zero nowhere."""
    return np.sqrt(np.mean((grams(x, first) - grams(x, second)) ** 2))


@app.function
def in_between(x, first, second, t):
    """Return the density whose every gram has gone the part t of its way."""
    place = (1.0 - t) * grams(x, first) + t * grams(x, second)
    return np.histogram(place, edges(x))[0] / len(place)


@app.cell
def _():
    mo.md(r"""
    ## The way between

    What lies halfway between two images? Their average shows both, each at half the
    contrast: a fade. If a domain moves, no molecule ever looks like that. Transport has
    another answer: stop every gram at half of its way. This is **displacement
    interpolation**; the result has the same distance from either end. More generally the
    **barycentre** of images $b_k$ with weights $w_k$ is the image $a$ for which
    $\sum_k w_k W_2^2(a, b_k)$ is least. On a line it is the average of the quantiles, for
    $\int \sum_k w_k (q - q_k)^2 \,\mathrm{d}u$ is least at $q = \sum_k w_k q_k$.

    Move $t$. The fade has two peaks all the way; transport has one that travels. Then look
    at the cumulative masses: the fade averages them upwards, transport averages them
    sideways.
    """)
    return


@app.cell
def _():
    def between(t):
        x = np.arange(-50.0, 51.0)
        first, second = spot(x, -25.0, 6.0) + 1e-9, spot(x, 20.0, 10.0) + 1e-9
        fade = (1.0 - t) * first + t * second
        moved = in_between(x, first, second, t)
        names = ("start", "end", "fade", "transport")
        shown = list(zip((first, second, fade, moved), names, strict=True))
        densities = tuple(Line(x, y, name, name in names[:2]) for y, name in shown)
        sums = tuple(
            Line(x, np.cumsum(y), name, name in names[:2]) for y, name in shown
        )
        return Plot(
            (
                Panel(densities, "Densities", "place (Å)", "density (1/Å)"),
                Panel(sums, "Cumulative masses", "place (Å)", "mass to the left"),
            ),
            says=f"From the start W2 is {w2(x, first, moved + 1e-9):.1f} Å for transport "
            f"and {w2(x, first, fade):.1f} Å for the fade; the whole way is "
            f"{w2(x, first, second):.1f} Å.",
        )

    explore(between, t=Slider("part of the way, t", np.linspace(0, 1, 21), 0.5))
    return


@app.cell
def _():
    mo.md(r"""
    ## In the plane

    In two or three dimensions there is no left and right, and the plan must be searched
    for. Here are two images of 160 equal grains each: a molecule, and the same with its arm
    turned by 70 degrees. The assignment of least cost is found exactly (the
    Hungarian method; its time grows with the cube of the number of grains, which is why
    the chapter *Sinkhorn and wavelets* exists). The fade shows a molecule with two arms.
    Transport moves one arm. It does not know that arms turn rigidly: grains go straight,
    so halfway the arm is shorter. Look at its tip.
    """)
    return


@app.function
def molecule(arm_degrees, grains=160):
    """Return grains (n, 2) in angstrom: a disc and an arm."""
    rng = np.random.default_rng(2)
    body = rng.normal(size=(grains // 2, 2)) * 5.0
    along = np.linspace(8.0, 34.0, grains - grains // 2)
    across = rng.normal(size=len(along)) * 2.0
    c, s = np.cos(np.radians(arm_degrees)), np.sin(np.radians(arm_degrees))
    return np.concatenate([body, np.column_stack([along, across]) @ [[c, s], [-s, c]]])


@app.function
def assigned(first, second):
    """Return the second grains in the order of the first that costs least."""
    squared = np.sum((first[:, None] - second[None]) ** 2, axis=-1)
    return second[linear_sum_assignment(squared)[1]]


@app.function
def picture(grains, weight=1.0, side=36, pixel=2.4, width=2.4):
    """Return an image of grains, each a small spot."""
    line = (np.arange(side) - side // 2) * pixel
    x, y = np.exp(-((line - grains.T[:, :, None]) ** 2) / (2.0 * width**2))
    return weight * y.T @ x


@app.cell
def _():
    _shuffled = molecule(80.0)[np.random.default_rng(5).permutation(160)]
    _start, _end = molecule(10.0), assigned(molecule(10.0), _shuffled)
    _way = np.sqrt(np.mean(np.sum((_end - _start) ** 2, axis=1)))

    def plane(t):
        moved = (1.0 - t) * _start + t * _end
        fade = picture(_start, 1.0 - t) + picture(_end, t)
        extent = (-44.4, 42.0, -44.4, 42.0)
        panels = (
            Panel((Heat(image[::-1], extent),), title, "x (Å)", "y (Å)", equal=True)
            for image, title in ((fade, "Fade"), (picture(moved), "Transport"))
        )
        return Plot(
            tuple(panels),
            says=f"Grains have gone {t * _way:.1f} Å of {_way:.1f} Å (root mean square: "
            f"W2); the arm's tip is at {np.hypot(*moved[-8:].mean(0)):.1f} Å.",
        )

    explore(plane, t=Slider("part of the way, t", np.linspace(0, 1, 11), 0.5))
    return


@app.cell
def _():
    source(w1, w2, in_between, assigned)
    return


@app.cell
def _():
    mo.md(r"""
    ## A shift splits off

    Let both images have their centre of mass at zero, and shift the second one by $t$. Every
    plan pays $\sum P_{ij} |x_i - y_j - t|^2 = \sum P_{ij} |x_i - y_j|^2 + |t|^2$, for the
    mixed term contains only the centres. So the best plan stays the same and

    $$W_2^2 = W_{2,\,\mathrm{centred}}^2 + |t|^2 :$$

    the best shift for $W_2$ lays the centres of mass on each other, without a search. The
    rotation is the subject of *Landscapes of a rotation*.

    ## What goes wrong in practice

    - *"The distance depends on the background."* Mass must be positive, and equal. A
      cryo-EM map has negative voxels, and noise everywhere. Set to zero below a threshold
      the noise leaves small masses at large distances; those dominate, the more the higher
      $p$ is. Mask first, threshold, then divide by the sum.
    - *"The centre of mass is off."* Where one map lacks a domain, its centre of mass is
      another, and so is every gram that must be moved although nothing has moved. Balanced
      transport explains a missing part by moving everything else.
    - *"The path bends the molecule."* Grains do not know that they are bonded: in a turn by
      a large angle the arm shrinks on the way.

    ## Exercises
    """)
    return


@app.cell
def _():
    _x = np.arange(-60.0, 80.0, 0.05)
    exercise(
        "A Gaussian spot at 0 Å with sigma 4 Å is moved to 12 Å and becomes broader, with "
        "sigma 9 Å. What is $W_2$?",
        w2(_x, spot(_x, 0.0, 4.0) + 1e-15, spot(_x, 12.0, 9.0) + 1e-15),
        tolerance=0.1,
        unit="Å",
        hint="Use the formula of two Gaussians: centres and widths add as squares.",
        explanation=r"$\sqrt{12^2 + 5^2} = 13$ Å.",
    )
    return


@app.cell
def _():
    exercise(
        "Half of the mass of a spot at 0 Å is carried to 30 Å, the other half stays. What "
        "is $W_2$? (For $W_1$ it would be 15 Å.)",
        np.sqrt(np.mean(assigned(np.zeros((2, 1)), np.array([[0.0], [30.0]])) ** 2)),
        tolerance=0.2,
        unit="Å",
        hint="Half of the mass pays 30 squared. Do not forget the root.",
        explanation=r"$\sqrt{0.5 \cdot 900} = 21.2$ Å: squares weigh long ways more.",
    )
    return


@app.cell
def _():
    choose(
        "Two images are centred on their centres of mass, and the second is then shifted "
        "by 10 Å. $W_2^2$ was 44 Å$^2$. What is it now?",
        ("144 Å$^2$", "100 Å$^2$", "between 44 and 144 Å$^2$, depending on the images"),
        0,
        hint="Look at the mixed term of the square.",
        explanation="The mixed term vanishes for every plan, so squares add up: 44 + 100.",
    )
    return


@app.function
def test_known_numbers():
    """Gaussians have a closed form; grids of 0.1 Å and 20,000 grams cost less than 1e-3."""
    x = np.arange(-80.0, 80.0, 0.1)
    first, second = spot(x, -5.0, 4.0) + 1e-15, spot(x, 7.0, 9.0) + 1e-15
    # What is cut off of the tails is less than a gram.
    assert abs(w2(x, first, second) - 13.0) < 0.02
    # Scipy's own, from sorted samples with weights.
    assert abs(w1(x, first, second) - wasserstein_distance(x, x, first, second)) < 1e-9
    # Halfway is as far from either end; pixels of 0.1 Å round places.
    half = in_between(x, first, second, 0.5) + 1e-15
    assert max(abs(w2(x, end, half) - 6.5) for end in (first, second)) < 0.05


@app.function
def test_a_shift_splits_off():
    """Assignments of a shifted cloud: squares add up to rounding."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 40, 2))
    first, second = first - first.mean(0), second - second.mean(0)

    def squared(cloud):
        return np.mean(np.sum((first - assigned(first, cloud)) ** 2, axis=1))

    shift = np.array([3.0, -4.0])
    assert abs(squared(second + shift) - squared(second) - 25.0) < 1e-10
    # On a line the assignment of sorted points is the identity.
    first, second = (np.sort(one[:, :1], axis=0) for one in (first, second))
    assert np.array_equal(assigned(first, second), second)


@app.cell
def _():
    closing(
        "transport",
        library=["cryoinfer.evaluation.transport.sinkhorn_plan"],
        sources=[
            "G. Monge 1781, Mémoire sur la théorie des déblais et des remblais.",
            "G. Peyré and M. Cuturi 2019, Computational optimal transport, Foundations and "
            "Trends in Machine Learning 11.",
            "Y. Rubner, C. Tomasi and L. Guibas 2000, The earth mover's distance as a "
            "metric for image retrieval, International Journal of Computer Vision 40.",
            "learn_cryoem_math (Woollard), notebooks on optimal transport.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
