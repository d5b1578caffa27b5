import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy.stats import wasserstein_distance

    from course import choose, closing, exercise, explore, opening, source
    from course.explore import Slider
    from course.plot import Heat, Line, Panel, Plot, Points
    from cryoinfer.evaluation.transport import sinkhorn_plan, wavelet_coefficients


@app.cell
def _():
    opening("sinkhorn_and_wavelets")
    return


@app.cell
def _():
    mo.md(r"""
    ## Exact is slow

    The cheapest plan between $n$ points and $n$ others is found exactly in a time that
    grows as $n^3$. A map of 64 voxels along an edge has 262,144 of them. Nobody waits for
    that. Two ways out are in use: blur the plan, or leave the plan out.

    ## Blur the plan

    Ask for a plan that is cheap and not too sharp. With masses $a_i$ and $b_j$ and the cost
    $C_{ij}$, make the least of

    $$\sum_{ij} P_{ij} C_{ij} + \varepsilon \sum_{ij} P_{ij}
    \ln \frac{P_{ij}}{a_i b_j} .$$

    The second sum is the information that the plan has about who goes where: zero if everybody
    goes everywhere, $P_{ij} = a_i b_j$. The blur $\varepsilon$ has the unit of the cost, here Å$^2$.
    The sums of $P$ must be $a$ and $b$; give them the multipliers $f_i$ and $g_j$ and set the
    derivative by $P_{ij}$ to zero:

    $$C_{ij} + \varepsilon \ln \frac{P_{ij}}{a_i b_j} = f_i + g_j
    \quad\Rightarrow\quad
    P_{ij} = a_i\, u_i\, K_{ij}\, v_j\, b_j , \qquad
    K_{ij} = e^{-C_{ij} / \varepsilon} .$$

    (The constant $\varepsilon$ of the derivative is put into $f$; $u = e^{f/\varepsilon}$,
    $v = e^{g/\varepsilon}$.) The whole plan is known but for two rows of numbers. They
    follow from the sums: $\sum_j P_{ij} = a_i$ says $u_i = 1 / \sum_j K_{ij} v_j b_j$, and
    $v_j = 1 / \sum_i K_{ij} u_i a_i$ in the same way. Each needs the other, so one sets them in turns.
    This is **Sinkhorn's algorithm**. A round costs two products with the matrix $K$:
    $n^2$, not $n^3$. Each of its steps makes one of the two sums exact and spoils the
    other by less than before.

    In the figure twelve grains go to twelve others. Little blur: the plan is nearly the exact
    assignment, but rounds are many. Much blur: few rounds, and everybody goes everywhere.
    Look at the error of the sums after a few rounds as you lower the blur.
    """)
    return


@app.function
def clouds(count=12):
    """Return the places (n, 2), in angstrom, of two clouds of grains."""
    rng = np.random.default_rng(1)
    first = rng.normal(size=(count, 2)) * [9.0, 4.0] - [10.0, 0.0]
    return first, rng.normal(size=(count, 2)) * [4.0, 9.0] + [10.0, 0.0]


@app.function
def plan(cost, blur, rounds, reach=None):
    """Return the library's plan of equal grains, each of mass 1 / n."""
    n, m = cost.shape
    masses = torch.full((n,), 1.0 / n).double(), torch.full((m,), 1.0 / m).double()
    return sinkhorn_plan(torch.tensor(cost), *masses, blur, reach, rounds).numpy()


@app.cell
def _():
    _first, _second = clouds()
    _cost = np.sum((_first[:, None] - _second[None]) ** 2, axis=-1)

    def blurred(blur, rounds):
        found = plan(_cost, blur, rounds)
        error = np.abs(found.sum(1) - 1.0 / 12.0).sum()
        ways = []
        for i, j in zip(*np.nonzero(found > 0.25 / 12.0), strict=True):
            ways += [_first[i], _second[j], [np.nan, np.nan]]
        ways = np.array(ways if ways else [[np.nan, np.nan]])
        return Plot(
            (
                Panel(
                    (
                        Line(*ways.T, "a quarter of a grain or more"),
                        Points(*_first.T, "from"),
                        Points(*_second.T, "to"),
                    ),
                    *("Plan", "x (Å)", "y (Å)", (-36.0, 26.0), (-24.0, 24.0)),
                ),
                Panel(
                    (Heat(12.0 * found, limits=(0.0, 1.0)),),
                    *("Part of each grain", "to grain", "from grain"),
                ),
            ),
            says=f"Carried: {np.sum(found * _cost):.1f} Å² on average. Sums are off by "
            f"{error:.1e} of the mass after {rounds} rounds.",
        )

    explore(
        blurred,
        blur=Slider("blur ε (Å²)", (5, 10, 20, 50, 100, 200, 500, 1000), 50),
        rounds=Slider("rounds", (1, 3, 10, 30, 100, 1000), 30),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What blur costs

    The blurred plan is one of the plans, so it cannot be cheaper than the best. It can be
    dearer by at most $\varepsilon \ln n$ for $n$ equal grains: the information of
    a permutation is $\ln n$, and of any plan at least 0. A blur that is small beside
    the squares of the distances of neighbouring grains is almost exact. But it is also slow,
    and there is a trap: $K_{ij} = e^{-C_{ij}/\varepsilon}$ becomes zero in the computer
    once $C/\varepsilon$ is above 745, in double precision (103 in single). If a whole row of $K$ is
    zero, the next step divides by it. Programs then keep logarithms. Or they begin with
    a large $\varepsilon$ and lower it while the clouds are being laid on each other,
    so that costs fall together with it.

    One more surprise: blurred, the cost from a cloud to itself is not zero. The
    remedy is the **Sinkhorn divergence**, $S(a, b) - \frac12 S(a, a) - \frac12 S(b, b)$, with
    $S$ the least value of the blurred problem.

    ## Leave mass behind

    If the second cloud lacks a part, the sums cannot be met by a sensible plan. Let them
    be missed, at a price: in place of the condition, pay $\rho$ times
    $\sum_i (s_i \ln (s_i / a_i) - s_i + a_i)$ for the sums $s_i$ of the plan. The
    multipliers are then bounded, and the same derivation gives

    $$u_i = \Big( \sum_j K_{ij} v_j b_j \Big)^{-\rho / (\rho + \varepsilon)} .$$

    Only the power is new. This is **unbalanced transport**; $\rho$, the reach,
    says from which squared distance on it is cheaper to leave a grain than to carry it.

    ## Leave the plan out

    There is another way to see $W_1$. Let $\varphi$ be any function that changes by at
    most 1 per Å. Carrying a gram from $x$ to $y$ can gain at most $|x - y|$ of $\varphi$,
    so $\int \varphi\,(a - b) \le W_1$ for each $\varphi$; and the best of them reaches it
    (Kantorovich's duality). Now write $a - b$ in wavelets. A wavelet of the scale
    $2^{-j}$ of the box sees $\varphi$ on so short a piece that it can change by no more
    than that piece. So a coefficient $c_{j}$ of $a - b$ can contribute only
    in proportion to its scale. With wavelets of norm 1 in $n$ dimensions,

    $$W_1 \approx \sum_j 2^{-j (1 + n/2)} \sum_k |c_{jk}| ,$$

    between two constants that do not depend on the images. That is the
    **wavelet transport distance**. It costs one wavelet transform: a time proportional to
    the number of voxels. It is a weighted sum of absolute values, in which coarse differences
    count more than fine ones.

    In the figure a spot is moved away from another one. In one dimension the true $W_1$ is
    known: it is the distance. Squares stop at the width of the spot. Wavelets go on growing,
    with steps: they know the distance within a constant only. Averaging over shifts of the
    grid, the second slider, smooths the steps. The line stays bent: what is near is taken
    for farther than it is.
    """)
    return


@app.function
def haar_levels(values):
    """Return Haar coefficients of 2^J samples: a list, coarse to fine, of norm 1."""
    levels, rest = [], np.asarray(values, dtype=float)
    while rest.shape[-1] > 1:
        even, odd = rest[..., 0::2], rest[..., 1::2]
        levels.append((even - odd) / np.sqrt(2.0))
        rest = (even + odd) / np.sqrt(2.0)
    return levels[::-1]


@app.function
def wavelet_distance(first, second, shifts=1):
    """Return the wavelet transport distance of two densities, in boxes.

    2^J samples of mass 1 on a ring; averaged over shifts of the grid.
    """
    apart = (first - second) * np.sqrt(len(first))  # samples of norm 1
    steps = [int(k * len(first) / shifts) for k in range(shifts)]
    moved = np.stack([np.roll(apart, step) for step in steps])
    weighted = [
        2.0 ** (-1.5 * j) * np.abs(c).sum() for j, c in enumerate(haar_levels(moved))
    ]
    return sum(weighted) / shifts


@app.cell
def _():
    _x = np.arange(128.0)
    _apart = np.arange(0.0, 61.0, 1.0)

    def growing(width, shifts):
        spots = [np.exp(-((_x - 30.0 - d) ** 2) / (2.0 * width**2)) for d in _apart]
        spots = [one / one.sum() for one in spots]
        waves = np.array([wavelet_distance(one, spots[0], shifts) for one in spots])
        squares = np.array([np.sum((one - spots[0]) ** 2) for one in spots])
        scale = (waves @ _apart) / (_apart @ _apart)
        ratio = waves[5:] / _apart[5:] / scale
        return Plot(
            (
                Panel(
                    (
                        Line(_apart, _apart, "W1", dashed=True),
                        Line(_apart, waves / scale, "wavelets, scaled"),
                        Line(_apart, 60.0 * squares / squares.max(), "squares, scaled"),
                    ),
                    "A spot moves away",
                    *("distance (Å)", "how far apart (Å)", None, (0.0, 75.0)),
                ),
            ),
            says=f"From 5 Å on, wavelets over W1 lie between {ratio.min():.2f} and "
            f"{ratio.max():.2f} of the mean ratio.",
        )

    explore(
        growing,
        width=Slider("width of the spot, sigma (Å)", (2, 4, 6, 8), 4),
        shifts=Slider("shifts of the grid", (1, 16, 128), 1),
    )
    return


@app.cell
def _():
    source(sinkhorn_plan, wavelet_coefficients)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"Sinkhorn returns NaN."* The blur is too small for the cost: a row of $K$ is all
      zeros. Divide the cost by its largest value before you choose $\varepsilon$, keep
      logarithms, or lower the blur step by step.
    - *"The plan does not have the masses that I gave."* It was stopped early. Each round
      makes one of the sums exact, the one that came last. Look at the other.
    - *"The best match of a cloud with itself is a smaller cloud."* Blur pulls the ends of all ways
      to the middle. Take the divergence, or less blur at the end.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        r"Two equal grains, each of mass 1/2, go to two others. The straight ways cost 0, the "
        r"crossed ways cost 10 Å$^2$. With $\varepsilon = 10$ Å$^2$, which part of "
        "the mass crosses?",
        2.0 * plan(np.array([[0.0, 10.0], [10.0, 0.0]]), 10.0, 50)[0, 1],
        tolerance=0.01,
        hint=r"By symmetry $u$ and $v$ are all equal, so $P$ is in proportion to $K$.",
        explanation=r"$e^{-1} / (1 + e^{-1}) = 0.269$.",
    )
    return


@app.cell
def _():
    exercise(
        r"The largest cost is 3,600 Å$^2$. What is the least blur for which no element of $K$ "
        r"is zero in double precision?",
        3600.0 / 745.0,
        tolerance=0.1,
        unit="Å²",
        hint="The exponential of less than -745 is zero.",
        explanation="3,600 / 745 is 4.8 Å². In single precision it would be 35 Å².",
    )
    return


@app.cell
def _():
    choose(
        "In three dimensions, a wavelet coefficient of one scale counts how many times as "
        "much as an equal one of the next finer scale?",
        ("2 times", r"$2^{3/2} = 2.8$ times", r"$2^{5/2} = 5.7$ times"),
        2,
        hint="Look at the weight, with n = 3.",
        explanation=r"The weight is $2^{-j(1 + 3/2)}$: twice for the distance, and "
        r"$2^{3/2}$ because a wavelet of norm 1 that is half as long along three axes holds "
        "less mass.",
    )
    return


@app.function
def test_known_numbers():
    """Two grains have a closed form; a large blur forgets who goes where."""
    crossed = np.array([[0.0, 10.0], [10.0, 0.0]])
    found = plan(crossed, 10.0, 50)
    assert abs(2.0 * found[0, 1] - np.exp(-1.0) / (1.0 + np.exp(-1.0))) < 1e-12
    assert np.allclose(plan(crossed, 1e6, 50), 0.25, atol=1e-5)  # 10 / 1e6 off
    # Unbalanced, one grain: s = a b (s / a)^(-2 rho / eps) exp(-C / eps), a = b = 1.
    cost, blur, reach = 3.0, 1.0, 2.0
    mass = plan(np.array([[cost]]), blur, 500, reach).sum()
    assert abs(np.log(mass) - (-cost / blur) / (1.0 + 2.0 * reach / blur)) < 1e-12


@app.function
def test_wavelets_keep_the_norm_and_order_of_distances():
    """Haar's transform is orthogonal; the distance lies within a factor of W1."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=64)
    values -= values.mean()
    total = sum(np.sum(one**2) for one in haar_levels(values))
    assert abs(total - np.sum(values**2)) < 1e-10
    ratios = []
    for _ in range(50):
        pair = rng.random((2, 64)) ** 8
        pair /= pair.sum(1, keepdims=True)
        line = np.arange(64) / 64.0
        true = wasserstein_distance(line, line, *pair)
        # A ring is never longer than the line: shifts see the shorter way.
        ratios.append(wavelet_distance(*pair, 64) / true)
    # Constants of the theorem exist and do not depend on the images.
    assert max(ratios) / min(ratios) < 4.0


@app.function
def test_the_library_s_wavelets_have_these_weights():
    """Three dimensions: a scale weighs 2^(-5/2) of the coarser one."""
    noise = torch.randn((16, 16, 16), generator=torch.Generator().manual_seed(0))
    one, two = (wavelet_coefficients(noise.double(), levels) for levels in (1, 2))
    fine = 7 * 8**3  # details of the first level, the eighth of averages left out
    details = one[: 16**3][one[: 16**3] != 0][:fine]
    again = two[: 16**3][two[: 16**3] != 0][:fine]
    assert torch.allclose(details, again)  # they come first, whatever follows
    # White noise stays white: without weights its power is 1, to 4 sd of so many.
    assert abs(float(details.square().mean()) * 2.0 ** (5 * 3) - 1.0) < 0.1
    coarse = two[16**3 : 16**3 + 8**3]
    coarse = coarse[coarse != 0]
    assert len(coarse) == 7 * 4**3
    assert abs(float(coarse.square().mean()) * 2.0 ** (5 * 2) - 1.0) < 0.27


@app.cell
def _():
    closing(
        "sinkhorn_and_wavelets",
        library=[
            "cryoinfer.evaluation.transport.sinkhorn_plan",
            "cryoinfer.evaluation.transport.wavelet_coefficients",
        ],
        sources=[
            "M. Cuturi 2013, Sinkhorn distances: lightspeed computation of optimal "
            "transport, Advances in Neural Information Processing Systems 26.",
            "L. Chizat, G. Peyré, B. Schmitzer and F.-X. Vialard 2018, Scaling algorithms "
            "for unbalanced optimal transport problems, Mathematics of Computation 87.",
            "S. Shirdhonkar and D. Jacobs 2008, Approximate earth mover's distance in "
            "linear time, IEEE Conference on Computer Vision and Pattern Recognition.",
            "J. Feydy et al. 2019, Interpolating between optimal transport and MMD using "
            "Sinkhorn divergences, AISTATS.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
