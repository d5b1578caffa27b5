import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
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
    from cryoinfer.data.bead_model import beads_of_map


@app.cell
def _():
    opening("pseudo_atoms")
    return


@app.cell
def _():
    mo.md(r"""
    ## Spread points over the mass

    An elastic network wants nodes, and there is only a map. Soft motions depend on where
    the mass is and on what touches what, so a few hundred points that stand for the mass
    will do. They are called **pseudo-atoms**, or beads.

    Where should they lie? Let a point $x$ be drawn from the density, as if it were a
    probability. It goes to the nearest bead. Ask that the mean squared way be short,

    $$D = \operatorname{E}\, \min_j \lVert x - w_j \rVert^2 .$$

    With given points for each bead, $D$ is least if it lies at their mean. With given
    beads, it is least if each point goes to the nearest. Do one after the other; $D$
    falls and comes to rest. This is **k-means**. Below it starts from random points.
    """)
    return


@app.function
def nearest(points, beads):
    """Return the nearest bead of each point, and the squared distance."""
    squared = ((points[:, None] - beads) ** 2).sum(-1)
    return squared.argmin(1), squared.min(1)


@app.function
def k_means(points, beads, steps):
    """Return beads after some steps; one without points stays where it is."""
    beads = np.array(beads, dtype=float)
    for _ in range(steps):
        own, _ = nearest(points, beads)
        count = np.bincount(own, minlength=len(beads))
        sums = np.stack([np.bincount(own, axis, len(beads)) for axis in points.T], 1)
        beads = np.where(
            count[:, None] > 0, sums / np.maximum(count, 1)[:, None], beads
        )
    return beads


@app.function
def ring_and_arm():
    """Return a two-dimensional map of 48 x 48 pixels of 2 angstrom."""
    axis = (np.arange(48) - 23.5) * 2.0
    x, y = axis[None, :], axis[:, None]
    ring = np.exp(-((np.hypot(x + 12.0, y) - 20.0) ** 2) / 32.0)
    arm = np.exp(-(y**2) / 32.0) / (1.0 + np.exp(-(x - 6.0))) / (1.0 + np.exp(x - 38.0))
    return np.maximum(ring, arm)


@app.function
def drawn(density, pixel_angstrom, count, seed):
    """Return points drawn from a map of two dimensions, in angstrom."""
    rng = np.random.default_rng(seed)
    inside = np.where(density > 0.3 * density.max(), density, 0.0).ravel()
    chosen = rng.choice(len(inside), count, p=inside / inside.sum())
    row, column = np.unravel_index(chosen, density.shape)
    places = np.stack([column, row], 1) + rng.random((count, 2)) - 0.5
    return (places - (density.shape[0] - 1) / 2.0) * pixel_angstrom


@app.cell
def _():
    _map = ring_and_arm()
    _points = drawn(_map, 2.0, 3000, seed=0)
    _edge = (-48.0, 48.0, -48.0, 48.0)
    _picture = Heat(_map[::-1], _edge, limits=(0.0, 1.5))
    _counts = (5, 10, 20, 40, 80)

    def settling(count, step):
        beads = k_means(_points, _points[:count], step)
        _, squared = nearest(_points, beads)
        spread = np.sqrt(squared.mean() / 2.0)
        marks = (_picture, Points(beads[:, 0], beads[:, 1]))
        return Plot(
            (Panel(marks, "Beads in the map", "x (Å)", "y (Å)", equal=True),),
            says=f"Root mean square way to the nearest bead along one axis: {spread:.2f} Å.",
        )

    explore(
        settling,
        count=Slider("beads", _counts, 20),
        step=Slider("step", (0, 1, 2, 3, 5, 10, 30), 0),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## How many beads for which resolution

    On a line of length $L$ with $M$ beads each owns a piece $L/M$, and the mean square
    way within it is $\tfrac{1}{12} (L/M)^2$. In $d$ dimensions a bead owns the volume
    $V/M$, nearly a ball, and the mean square way along one axis is about
    $0.08\, (V/M)^{2/d}$ (0.083 for a line, 0.080 for hexagons in a plane, 0.079 for the
    best cells in space). The **spread** is its root. In space it is

    $$s \approx 0.28 \left( \frac{V}{M} \right)^{1/3} .$$

    Beads cannot show what is finer than about twice that. Half the spread costs eight times
    as many beads. Dense parts get more beads, but fewer than their share of the mass: the
    best density of beads goes with the power $d/(d+2)$ of that of the mass, $3/5$ in space.

    Below are two domains in space, from the side, with the program's beads.
    """)
    return


@app.function
def expected_spread_angstrom(volume_angstrom3, beads):
    """Return the spread of evenly distributed mass about its beads, along an axis."""
    return np.sqrt(0.0785) * (volume_angstrom3 / beads) ** (1.0 / 3.0)


@app.function
def two_domain_map():
    """Return a map of 24 voxels of 3 angstrom: two even balls, joined."""
    axis = (np.arange(24) - 12.0) * 3.0
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    one = np.sqrt((x + 14.0) ** 2 + y**2 + z**2) - 14.0
    other = np.sqrt((x - 12.0) ** 2 + y**2 + (z - 4.0) ** 2) - 16.0
    return 1.0 / (1.0 + np.exp(np.minimum(one, other) / 0.7))


@app.function
def beads_in_space(density, count):
    """Return the program's beads, in angstrom from the middle, and what it says."""
    generator = torch.Generator().manual_seed(0)
    found = beads_of_map(torch.from_numpy(density), 3.0, count, 0.5, generator)
    return found.model.coordinates_angstrom - 36.0, found


@app.cell
def _():
    _map = two_domain_map()
    _counts = (10, 20, 40, 80, 160)
    _found = {count: beads_in_space(_map, count) for count in _counts}
    _edge = (-37.5, 34.5, -37.5, 34.5)

    def in_space(count):
        beads, whole = _found[count]
        flat = _map.sum(1)
        axis = (np.arange(24) - 12.0) * 3.0
        # Each bead is a Gaussian as wide as the mass about it.
        wide = whole.spread_angstrom
        across = np.exp(-((axis - beads[:, :1]) ** 2) / (2.0 * wide**2))
        up = np.exp(-((axis - beads[:, 2:]) ** 2) / (2.0 * wide**2))
        drawn_again = up.T @ across
        like = np.corrcoef(flat.ravel(), drawn_again.ravel())[0, 1]
        several = np.geomspace(8.0, 200.0, 30)
        measured = [_found[one][1].spread_angstrom for one in _counts]
        law = expected_spread_angstrom(whole.volume_angstrom3, several)
        spread = (
            Line(several, law, "formula"),
            Points(_counts, measured, "measured"),
            Points([count], [wide], "chosen"),
        )
        side, unit = "x (Å)", "z (Å)"
        dots = Points(beads[:, 0], beads[:, 2])
        return Plot(
            (
                Panel(
                    (Heat(flat[::-1], _edge), dots),
                    "Map, beads",
                    side,
                    unit,
                    equal=True,
                ),
                Panel(
                    (Heat(drawn_again[::-1], _edge),), "Beads", side, unit, equal=True
                ),
                Panel(spread, "Spread", "beads", "spread (Å)", log_x=True, log_y=True),
            ),
            says=f"Spread {wide:.2f} Å: good for about {2 * wide:.0f} Å. Correlation of the "
            f"two images {like:.3f}.",
        )

    explore(in_space, count=Slider("beads", _counts, 40))
    return


@app.cell
def _():
    mo.md(r"""
    ## Points that pull their neighbours along

    K-means comes to rest at the first place where no step helps, and that depends on the
    start. A **topology-representing network** (TRN) is patient. It draws one point $x$ at
    a time, orders all beads by their distance to it, and moves every one of them, the
    nearest most:

    $$w_j \leftarrow w_j + \epsilon\, e^{-k_j / \lambda}\, (x - w_j) ,$$

    where $k_j = 0, 1, 2, \dots$ is the rank of bead $j$. At first $\lambda$ is large: all
    beads go along, as one crowd. It falls from step to step, and so does $\epsilon$; in the
    end each bead minds its own points. The name comes from a second idea: join the two
    beads that are nearest to each point. After many points the joined beads are those that
    share a border within the mass. That is a network of neighbours, without any cutoff:
    beads on two sides of a gap are not joined.

    All beads start in one corner. Move the step and watch the crowd come, spread and
    settle. K-means from the same corner is stuck. (From a good start it does as well.)
    """)
    return


@app.function
def topology_network(points, beads, steps, last):
    """Return beads after some of the points, and pairs that the last fifth joined."""
    beads, count = np.array(beads, dtype=float), len(beads)
    joined = np.zeros((count, count), dtype=bool)
    for number in range(steps):
        done = number / last
        size, reach = 0.3 * (0.05 / 0.3) ** done, 0.2 * count * (2.5 / count) ** done
        x = points[number % len(points)]
        order = ((beads - x) ** 2).sum(1).argsort()
        rank = np.empty(count)
        rank[order] = np.arange(count)
        beads += size * np.exp(-rank / reach)[:, None] * (x - beads)
        if number > 0.8 * last:
            joined[order[0], order[1]] = joined[order[1], order[0]] = True
    return beads, joined


@app.cell
def _():
    source(k_means, topology_network)
    return


@app.cell
def _():
    _map = ring_and_arm()
    _points = drawn(_map, 2.0, 3000, seed=0)
    _edge = (-48.0, 48.0, -48.0, 48.0)
    _picture = Heat(_map[::-1], _edge, limits=(0.0, 1.5))

    def crowd(step, count):
        rng = np.random.default_rng(1)
        start = np.array([-40.0, 40.0]) + rng.normal(0.0, 2.0, (count, 2))
        beads, joined = topology_network(_points, start, step, 3000)
        first, second = np.nonzero(np.triu(joined))
        gap = np.full(len(first), np.nan)
        lines = [
            np.stack([beads[first, axis], beads[second, axis], gap], 1).ravel()
            for axis in (0, 1)
        ]
        plain = k_means(_points, start, max(1, step // 100))
        both = (nearest(_points, one)[1] for one in (beads, plain))
        spread = [np.sqrt(one.mean() / 2.0) for one in both]
        marks = (_picture, Points(beads[:, 0], beads[:, 1]), Line(*lines))
        dots = (_picture, Points(plain[:, 0], plain[:, 1]))
        return Plot(
            (
                Panel(marks, "TRN", "x (Å)", "y (Å)", equal=True),
                Panel(dots, "k-means", "x (Å)", "y (Å)", equal=True),
            ),
            says=f"Spread {spread[0]:.2f} Å of the network, {spread[1]:.2f} Å of k-means.",
        )

    explore(
        crowd,
        step=Slider("points drawn", (10, 30, 100, 300, 1000, 2000, 3000), 3000),
        count=Slider("beads", (15, 40), 40),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *Beads lie outside of the molecule.* The level is too low: voxels of noise count.
    - *The elastic network comes apart, or hardly moves.* The cutoff must fit the beads'
      distance, about $(V/M)^{1/3}$: two to three times that, not the 15 Å of residues.
    - *Two domains move as one.* At a low resolution springs cross the gap between them.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "Four beads stand for an even rod of 12 Å. What is the root mean square distance of "
        "the mass from its bead, along the rod?",
        12.0 / 4.0 / np.sqrt(12.0),
        tolerance=0.01,
        unit="Å",
        hint=r"Each owns 3 Å, and a piece $\ell$ has the mean square $\ell^2 / 12$.",
        explanation="0.87 Å.",
    )
    return


@app.cell
def _():
    exercise(
        "A protein of 120,000 Å³ gets 200 beads. Which spread is expected?",
        expected_spread_angstrom(120_000.0, 200),
        tolerance=0.06,
        unit="Å",
        hint=r"$0.28\, (V/M)^{1/3}$.",
        explanation="A bead owns 600 Å³: 2.4 Å.",
    )
    return


@app.cell
def _():
    choose(
        "One half of a molecule is twice as dense as the other. Which share of the beads goes "
        "there, if they are placed best?",
        ("Half of them.", "About 60 %.", "Two thirds, as of the mass."),
        1,
        hint="In space the density of beads goes with the power 3/5 of that of the mass.",
        explanation="2 to the power 0.6 is 1.52, and 1.52 / 2.52 is 60 %.",
    )
    return


@app.function
def test_beads_on_a_line():
    """Even mass: (L/M)^2 / 12, by 4,000 points to 1 %. Rising mass: Panter and Dite."""
    even = (np.arange(4000)[:, None] + 0.5) / 4000.0
    beads = k_means(even, np.linspace(0.02, 0.9, 8)[:, None], 200)
    assert abs(nearest(even, beads)[1].mean() * 12.0 * 8**2 - 1.0) < 0.01
    # The integral of the cubic root of 2 x, cubed: 27 / 32, to 2 % with 20 beads.
    rising = np.sqrt(even)
    beads = k_means(rising, (rising[100::200] ** 2) ** 0.75, 100)
    left = nearest(rising, beads)[1].mean() * 12.0 * 20**2
    assert abs(left / (27.0 / 32.0) - 1.0) < 0.02
    even_share = nearest(rising, k_means(rising, rising[100::200], 3))[1].mean()
    assert even_share * 12.0 * 20**2 > left


@app.function
def test_spread_in_space():
    """The program's beads: the formula for even mass, to 8 %, for the rim is not even."""
    for count in (40, 160):
        _, whole = beads_in_space(two_domain_map(), count)
        expected = expected_spread_angstrom(whole.volume_angstrom3, count)
        assert abs(whole.spread_angstrom / expected - 1.0) < 0.08


@app.cell
def _():
    closing(
        "pseudo_atoms",
        library=["cryoinfer.data.bead_model.beads_of_map", "cryoinfer beads"],
        sources=[
            "T. Martinetz and K. Schulten 1994, Neural Networks 7, 507.",
            "A. Gersho 1979, IEEE Transactions on Information Theory 25, 373.",
            "D. Ming et al. 2002, PNAS 99, 8620.",
            "learn_cryoem_math (Woollard): notebooks on pseudo-atoms and TRN.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
