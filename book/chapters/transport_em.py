import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    from scipy.optimize import linear_sum_assignment
    from scipy.stats import ks_2samp, wasserstein_distance

    from course import choose, closing, exercise, explore, opening, source
    from course.explore import Slider
    from course.plot import Bars, Line, Panel, Plot, Points


@app.cell
def _():
    opening("transport_em")
    return


@app.cell
def _():
    mo.md(r"""
    ## Classes of things that move

    Expectation-maximisation sorts images into classes (*EM in one dimension*): weigh each class by
    how well it explains the image, then average. Both halves use squares. Squares come from
    a model of the noise, and for raw images that is right. But for class averages, denoised
    images or maps, what differs is often not noise but motion: a domain is 5 Å further out.
    The average by squares is then a smear. What if the distance is transport, and the
    average its barycentre?

    On a line this is easy. Write each density by its quantile function, the places of
    its grams from left to right (*Moving mass*). $W_2$ is the plain distance of these lists, and
    the barycentre is their plain mean. So **Wasserstein k-means** is k-means on quantiles:

    $$r_{ik} \propto e^{-W_2^2(b_i, m_k) / 2\tau^2} , \qquad
    q_{m_k} = \frac{\sum_i r_{ik}\, q_{b_i}}{\sum_i r_{ik}} .$$

    With $\tau \to 0$ each image goes whole to its nearest class. With $\tau > 0$ it is soft,
    like EM. But beware: $e^{-W^2 / 2 \tau^2}$ is no density of images that integrates to one.
    $\tau$ is a temperature, not a noise level, and the weights are not probabilities of anything.

    In the figure 60 profiles are of two kinds: one peak, or two peaks. Each is shifted at random.
    Raise the shift. Squares begin to err at 4 Å. Transport is right up to 6 Å, and its
    averages keep the width of the peaks. From 9 Å on transport sorts by position too, and
    errs more: $W_2^2$ contains the squared shift of the centre. Raise $\tau$: the
    classes by transport become one. (For squares $\tau$ is scaled to densities.)
    """)
    return


@app.function
def profiles(shift, count=60):
    """Return places, densities (count, x) of two kinds, and which kind each is."""
    rng = np.random.default_rng(3)
    x = np.arange(-60.0, 61.0, 1.0)
    kind = np.arange(count) % 2
    centre = shift * rng.normal(size=count)
    apart = np.where(kind == 1, 18.0, 0.0)[:, None]
    density = sum(
        np.exp(-((x - centre[:, None] - side * apart) ** 2) / (2.0 * 4.0**2))
        for side in (-1.0, 1.0)
    )
    return x, density / density.sum(1, keepdims=True), kind


@app.function
def grams(x, density, count=200):
    """Return the places of equal small masses, from left to right: quantiles."""
    total = np.append(0.0, np.cumsum(density + 1e-12))
    edge = np.append(x - 0.5, x[-1] + 0.5)
    return np.interp((np.arange(count) + 0.5) / count, total / total[-1], edge)


@app.function
def soft_means(features, temperature, rounds=30):
    """Return class means and weights (n, 2) by squared distance, from two images."""
    start = features[np.argmax(np.sum((features - features[0]) ** 2, axis=1))]
    means = np.stack([features[0], start])
    for _ in range(rounds):
        squared = np.mean((features[:, None] - means) ** 2, axis=-1)
        squared -= squared.min(1, keepdims=True)
        weight = np.exp(-squared / (2.0 * temperature**2))
        weight /= weight.sum(1, keepdims=True)
        means = weight.T @ features / weight.sum(0)[:, None]
    return means, weight


@app.function
def sorted_right(weight, kind):
    """Return the part of images in the class of their kind, for the better naming."""
    right = np.mean(weight.argmax(1) == kind)
    return max(right, 1.0 - right)


@app.cell
def _():
    def classes(shift, temperature):
        x, density, kind = profiles(shift)
        places = np.stack([grams(x, one) for one in density])
        by_squares, first = soft_means(density, temperature * 3e-4)
        quantile, second = soft_means(places, temperature)
        edge = np.arange(-60.5, 61.0)
        moved = [np.histogram(one, edge)[0] / 200.0 for one in quantile]
        smooth = [np.convolve(one, np.ones(5) / 5.0, "same") for one in moved]
        images = tuple(Line(x, one) for one in density[:6])
        averages = (
            *(Line(x, one, f"squares, {k + 1}") for k, one in enumerate(by_squares)),
            *(Line(x, one, f"transport, {k + 1}") for k, one in enumerate(smooth)),
        )
        rights = [100.0 * sorted_right(one, kind) for one in (first, second)]
        return Plot(
            (
                Panel(images, "Six of 60 profiles", "place (Å)", "density (1/Å)"),
                Panel(averages, "Class averages", "place (Å)", "density (1/Å)"),
            ),
            says=f"In the class of their kind: {rights[0]:.0f} % by squares, "
            f"{rights[1]:.0f} % by transport.",
        )

    explore(
        classes,
        shift=Slider("shift, sd (Å)", (0, 2, 4, 6, 9, 12, 16), 6),
        temperature=Slider("temperature τ (Å)", (1, 4, 8, 16, 32), 1),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Downhill on a deformation

    Transport can also be a loss that is differentiated. Let a map be made of grains $x_i$,
    moved by a smooth field $x_i + u(x_i)$ with coefficients $c$, and let a second map be given. For a
    fixed plan the loss $\sum P_{ij} |x_i + u(x_i) - y_j|^2$ has the gradient

    $$\frac{\partial W_2^2}{\partial x_i} = 2 \sum_j P_{ij}\, (x_i + u(x_i) - y_j) ,$$

    and the plan need not be differentiated: it is the best one, so the loss does not change to
    first order when the plan does (the envelope theorem). The chain rule takes it to $c$. Each
    grain is drawn to where its mass belongs, however far; the field makes neighbours move
    together. Squares would be silent until the maps overlap.

    The field is a sum of 36 bumps. Follow the steps: the loss falls more than a hundred times.
    """)
    return


@app.function
def ring_and_bent(count=120):
    """Return two clouds (n, 2): an ellipse, and one that a smooth field has bent."""
    rng = np.random.default_rng(0)
    angle = np.sort(rng.uniform(0.0, 2.0 * np.pi, count))
    ring = np.column_stack([30.0 * np.cos(angle), 18.0 * np.sin(angle)])
    ring += rng.normal(size=ring.shape)
    bent = ring + np.column_stack([0.1 * ring[:, 1], 0.012 * ring[:, 0] ** 2 - 4.0])
    return ring, bent[rng.permutation(count)]


@app.function
def bumps(place):
    """Return 36 Gaussian bumps at places, (n, 36)."""
    line = np.linspace(-40.0, 40.0, 6)
    centre = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    squared = np.sum((place[:, None] - centre) ** 2, axis=-1)
    return np.exp(-squared / (2.0 * 16.0**2))


@app.function
def emd_flow(first, second, steps=200):
    """Return the coefficients and W2 squared before each step of gradient descent."""
    basis = bumps(first)
    rate = len(first) / (2.0 * np.linalg.norm(basis, 2) ** 2)
    weight, path = np.zeros((basis.shape[1], 2)), []
    for _ in range(steps + 1):
        there = first + basis @ weight
        squared = np.sum((there[:, None] - second) ** 2, axis=-1)
        rows, partner = linear_sum_assignment(squared)
        path.append((weight, squared[rows, partner].mean()))
        slope = 2.0 * basis.T @ (there - second[partner]) / len(first)
        weight = weight - rate * slope
    return path


@app.cell
def _():
    _ring, _bent = ring_and_bent()
    _path = emd_flow(_ring, _bent)
    _loss = np.array([value for _, value in _path])

    def flow(step):
        there = _ring + bumps(_ring) @ _path[step][0]
        spots = Points(*_bent.T, "given"), Points(*there.T, "moved")
        lines = Line(np.arange(len(_loss)), _loss), Points([step], [_loss[step]])
        box = (-46.0, 46.0)
        panel = Panel(lines, "Loss", "step", "W2 squared (Å²)", log_y=True)
        return Plot(
            (Panel(spots, "Grains", "x (Å)", "y (Å)", box, box, True), panel),
            says=f"After {step} steps W2 squared is {_loss[step]:.4f} Å², "
            f"{_loss[0] / _loss[step]:.0f} times less than at first.",
        )

    explore(flow, step=Slider("step", (0, 1, 2, 4, 8, 16, 32, 64, 128, 200), 4))
    return


@app.cell
def _():
    mo.md(r"""
    ## Are two sets different?

    Two samples give two clouds of conformations $z$. Is the difference more than chance? A
    test of means is blind if a state splits in two around the same mean. $W_1$ between the samples
    sees every difference, and says how far, in the unit of $z$. What is large? If both sets came
    from one source, names would mean nothing. So shuffle the names many times and compute
    $W_1$ each time: the **permutation test**. With $m$ shuffles, of which $k$ reach the
    measured value, the p-value is $p = (k + 1) / (m + 1)$. The measured set counts as one of the shuffles, so $p$ is never zero, and below a level
    $\alpha$ at most in the part $\alpha$ of cases without a difference.

    In the figure the second set has two states, at $\pm s$ from the common mean. Raise the
    number of particles, and see from which $s$ on it is noticed.
    """)
    return


@app.function
def shuffled_w1(first, second, shuffles=199):
    """Return W1 of two samples, and of shuffles of their names."""
    rng = np.random.default_rng(1)
    both = np.concatenate([first, second])
    drawn = [rng.permutation(both) for _ in range(shuffles)]
    n = len(first)
    return wasserstein_distance(first, second), np.array(
        [wasserstein_distance(one[:n], one[n:]) for one in drawn]
    )


@app.cell
def _():
    def test(split, count):
        rng = np.random.default_rng(54)
        first, second = rng.normal(size=(2, count))
        second = second * np.sqrt(max(1.0 - split**2, 0.0))
        second += split * np.where(np.arange(count) % 2, 1.0, -1.0)
        measured, drawn = shuffled_w1(first, second)
        p = (1 + np.sum(drawn >= measured)) / (len(drawn) + 1)
        height, edge = np.histogram(drawn, np.linspace(0.0, 0.8, 41))
        place = np.linspace(-3.875, 3.875, 32)
        sets = tuple(
            Line(place, np.histogram(one, np.linspace(-4.0, 4.0, 33))[0], name)
            for one, name in ((first, "first set"), (second, "second set"))
        )
        marks = (
            Bars((edge[1:] + edge[:-1]) / 2.0, height, "shuffled"),
            Line([measured, measured], [0.0, 60.0], "measured", dashed=True),
        )
        return Plot(
            (
                Panel(sets, "Conformations", "z", "particles"),
                Panel(marks, "W1 of the two sets", "W1 (units of z)", "shuffles"),
            ),
            says=f"W1 = {measured:.3f}, p = {p:.3f}. The means differ by "
            f"{abs(first.mean() - second.mean()):.3f}.",
        )

    explore(
        test,
        split=Slider(
            "s, states from the mean",
            (0, 0.5, 0.7, 0.8, 0.9, 0.95),
            0.95,
        ),
        count=Slider("particles in each set", (20, 50, 100, 200, 400), 200),
    )
    return


@app.cell
def _():
    source(soft_means, emd_flow, shuffled_w1)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"Transport on raw images gives nonsense."* It has no model of noise, which has negative
      values and most of the power. Use the likelihood for raw images.
    - *"The classes are those of the position."* Centre the images first, if position is of no
      interest: lay the centres of mass on each other.
    - *"The test says p = 0.001, but halves of one data set differ as well."* Errors of $z$ that
      two sets do not share (another map, another noise) are differences, too. Shuffle within what was
      processed together.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "Of 199 shuffles 9 reach the measured distance. What is the p-value?",
        (9 + 1) / (199 + 1),
        tolerance=0.0005,
        hint="The measured set is one of the shuffles.",
        explanation="10 / 200 = 0.05.",
    )
    return


@app.cell
def _():
    exercise(
        "A spot at 0 Å and an equal one at 20 Å are averaged by transport, with weights 0.75 and "
        "0.25. Where is the barycentre's peak?",
        0.75 * grams(np.arange(-60.0, 61.0), np.eye(121)[60]).mean()
        + 0.25 * grams(np.arange(-60.0, 61.0), np.eye(121)[80]).mean(),
        tolerance=0.3,
        unit="Å",
        hint="Every gram stops at the weighted mean of its two places.",
        explanation="0.25 times 20 Å. The average by squares has peaks at 0 and at 20 Å.",
    )
    return


@app.cell
def _():
    choose(
        r"In the classes by transport, $\tau$ is doubled again and again. What do the two "
        "averages become?",
        ("The barycentre of all.", "The most extreme images.", "They do not change."),
        0,
        hint=r"What are the weights $r_{ik}$ if $\tau$ is very large?",
        explanation="All weights become 1/2, so both averages are over all images.",
    )
    return


@app.function
def test_known_numbers():
    """The flow lowers the loss 100-fold, as was asked of it beforehand."""
    path = emd_flow(*ring_and_bent())
    losses = np.array([value for _, value in path])
    assert losses[0] / losses[-1] > 100.0
    assert np.all(np.diff(losses) < 1e-12)  # the rate is below 1 / curvature
    # Hot: all weights are one half.
    x, density, kind = profiles(2.0)
    places = np.stack([grams(x, one) for one in density])
    means, weight = soft_means(places, 1e6)
    assert np.allclose(weight, 0.5, atol=1e-6)
    assert np.allclose(means, places.mean(0), atol=1e-4)
    assert sorted_right(soft_means(places, 0.5)[1], kind) == 1.0


@app.function
def test_distances_and_p_values():
    """Quantiles give scipy's W1; p-values without a difference are uniform."""
    rng = np.random.default_rng(2)
    x, density, _ = profiles(9.0)
    for one, two in zip(density[:5], density[5:10], strict=True):
        by_grams = np.mean(np.abs(grams(x, one, 20_000) - grams(x, two, 20_000)))
        # Mass is spread over a pixel here, and at its centre there: a tenth of one.
        assert abs(by_grams - wasserstein_distance(x, x, one, two)) < 0.1
    found = []
    for _ in range(120):
        first, second = rng.normal(size=(2, 12))
        measured, drawn = shuffled_w1(first, second, 39)
        found.append((1 + np.sum(drawn >= measured)) / 40.0)
    # Uniform on 1/40 .. 1: Kolmogorov and Smirnov's test at 0.1 %.
    assert ks_2samp(found, np.arange(1, 41) / 40.0).pvalue > 1e-3


@app.cell
def _():
    closing(
        "transport_em",
        library=["cryoinfer.evaluation.transport.sinkhorn_plan"],
        sources=[
            "R. Rao, A. Moscovich and A. Singer 2020, Wasserstein K-means for clustering "
            "tomographic projections, arXiv.",
            "M. Agueh and G. Carlier 2011, Barycenters in the Wasserstein space, SIAM "
            "Journal on Mathematical Analysis 43.",
            "B. Phipson and G. Smyth 2010, Permutation p-values should never be zero, "
            "Statistical Applications in Genetics and Molecular Biology 9.",
            "learn_cryoem_math (Woollard), notebooks on optimal transport.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
