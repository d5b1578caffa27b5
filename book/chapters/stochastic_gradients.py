import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np

    from course import (
        Bars,
        Choice,
        Line,
        Panel,
        Plot,
        Slider,
        choose,
        closing,
        exercise,
        explore,
        opening,
        source,
    )

    KINDS = ("score", "score with a baseline", "path")


@app.cell
def _():
    opening("stochastic_gradients")
    return


@app.cell
def _():
    mo.md(r"""
    ## The slope of an average

    A program throws dice. Poses are drawn, or images are, or both, and what is to be made
    small is an average over the dice. To go downhill one needs the slope of the average. All
    that one has are throws.

    Let $x$ have the density $p_\theta(x)$, and let $f(x)$ be the loss of a throw. Wanted is

    $$g = \frac{\mathrm{d}}{\mathrm{d}\theta} \int f(x)\, p_\theta(x)\, \mathrm{d}x .$$

    An **estimator** of $g$ is a number computed from a throw. It is **unbiased** if its mean
    is $g$. Its variance says how many throws must be averaged.

    First way, the **score function**: move the derivative under the integral. As
    $p' = p\, (\log p)'$,

    $$g = E\left[ f(x)\, \frac{\partial \log p_\theta(x)}{\partial \theta} \right] .$$

    $f$ itself need not have a slope: it may be a count, a choice, a black box. Since the
    mean of $\partial \log p / \partial\theta$ is zero, a constant $b$ may be subtracted from
    $f$ without a bias. This **baseline** takes away variance.

    Second way, the **path derivative**: write the throw as a function of $\theta$ and a die that does not know it,
    such as $x = \theta + \sigma e$ with $e \sim N(0, 1)$. Then the die stays and $x$ moves:

    $$g = E\left[ f'(\theta + \sigma e) \right] .$$

    Take $f = x^2$ and $x \sim N(\theta, 1)$. The average is $\theta^2 + 1$, and $g = 2\theta$.
    With $x = \theta + e$ the score is $e$. The estimators and their variances, from the moments
    1, 3 and 15 of a normal number:

    | estimator | value | variance |
    |---|---|---|
    | score | $x^2 e$ | $\theta^4 + 14\theta^2 + 15$ |
    | score, baseline $b = \theta^2 + 3$ | $(x^2 - b)\, e$ | $8\theta^2 + 6$ |
    | path | $2x$ | $4$ |

    All three have the right mean. Move $\theta$ and see how wide they are.
    """)
    return


@app.function
def estimates(theta, dice, kind):
    """Return estimates of the slope of E[x^2], x = theta + die, one a die."""
    x = theta + dice
    if kind == "path":
        return 2.0 * x
    baseline = theta**2 + 3.0 if "baseline" in kind else 0.0
    return (x**2 - baseline) * dice


@app.function
def variance(theta, kind):
    """Return the variance of an estimate from one die, by hand."""
    if kind == "path":
        return 4.0
    if "baseline" in kind:
        return 8.0 * theta**2 + 6.0
    return theta**4 + 14.0 * theta**2 + 15.0


@app.cell
def _():
    _dice = np.random.default_rng(0).normal(size=(3000, 100))

    def spread(theta, throws, kind):
        values = estimates(theta, _dice[:, :throws], kind).mean(1)
        edges = np.linspace(-30.0, 40.0, 141)
        share, _ = np.histogram(values, edges)
        middle = (edges[1:] + edges[:-1]) / 2
        marks = (
            Bars(middle, share / len(values), "estimates"),
            Line([2 * theta, 2 * theta], [0.0, 0.3], "the slope", dashed=True),
        )
        return Plot(
            (
                Panel(
                    marks, "3,000 estimates", "estimate", "share", (-30, 40), (0, 0.35)
                ),
            ),
            f"Mean {values.mean():.2f} (slope {2 * theta:.1f}), standard deviation "
            f"{values.std():.2f}; by hand {np.sqrt(variance(theta, kind) / throws):.2f}.",
        )

    explore(
        spread,
        theta=Slider("θ", (0, 0.5, 1, 2, 3), 2),
        throws=Slider("throws in an estimate", (1, 3, 10, 30, 100), 10),
        kind=Choice("estimator", KINDS),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Rough losses

    The path looks best. It fails where $f$ is rough. Let $f = \sin kx$ and
    $x = \theta + \sigma e$. The average is $e^{-k^2\sigma^2/2} \sin k\theta$: the dice have
    smoothed the waves away. The path multiplies by $k$ and has a variance of about $k^2/2$. The
    score, $\sin(kx)\, e / \sigma$, has about $1 / 2\sigma^2$ however fast the waves are. They
    cross near $k\sigma = 1$. If $f$ is a step, its slope is 0 wherever one looks: the path
    returns 0 always, which is wrong, and the score is still right.

    Likelihoods of images are rough in the pose. At a resolution $d$ they have waves as
    short as $d$, and a slope taken half a wave away from the truth points astray. Making
    images smooth first, or the dice wide, is what *frequency marching* does.
    """)
    return


@app.function
def variances_of_waves(k, sigma, theta=0.3):
    """Return the variances of path and score for f = sin(k x), from 20,000 dice."""
    dice = np.random.default_rng(1).normal(size=20_000)
    wave = k * (theta + sigma * dice)
    return (k * np.cos(wave)).var(), (np.sin(wave) * dice / sigma).var()


@app.cell
def _():
    _ks = np.geomspace(0.3, 30.0, 25)

    def rough(k, sigma):
        x = np.linspace(-2.0, 2.0, 241)
        left = (
            Line(x, np.sin(k * x), "one throw"),
            Line(x, np.exp(-0.5 * (k * sigma) ** 2) * np.sin(k * x), "average"),
        )
        path, score = np.array([variances_of_waves(one, sigma) for one in _ks]).T
        here = variances_of_waves(k, sigma)
        right = (
            Line(_ks, path, "path"),
            Line(_ks, score, "score"),
            Line([k, k], [1e-2, 1e3], dashed=True),
        )
        range_y = (1e-2, 1e3)
        return Plot(
            (
                Panel(left, "Loss", "θ", "f, and its average", None, (-1.1, 1.1)),
                Panel(
                    right,
                    "Variance",
                    "k",
                    "variance",
                    None,
                    range_y,
                    log_x=True,
                    log_y=True,
                ),
            ),
            f"k times the width is {k * sigma:.2g}: variance {here[0]:.3g} by the path, {here[1]:.3g} by "
            "the score.",
        )

    explore(
        rough,
        k=Slider("waves k", (0.5, 1, 2, 4, 8, 16), 2),
        sigma=Slider("width of the dice", (0.1, 0.2, 0.5, 1.0), 0.5),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Dice within dice

    In longer programs, follow one rule. Each random number that depends on $\theta$ gives a
    term: its score, times the losses that come after it. Each loss that depends on
    $\theta$ along a path without dice gives its plain slope. For example, if $\theta$ sets
    $x_1$, then $\theta$ and $x_1$ set $x_2$, and the loss is $f_1(x_1) + f_2(x_2)$,

    $$g = E\left[ \frac{\partial \log p(x_1)}{\partial\theta} (f_1 + f_2) +
    \frac{\partial \log p(x_2 \mid x_1)}{\partial\theta} f_2 \right] .$$

    $x_2$ does not pay for $f_1$, which came before it.

    ## A map from few images at a time

    The most common die is which images one looks at. Let the map be one number $A$, the
    images $y_i = A_0 + \text{noise}$ of variance $s^2$, and take steps along the
    slope of the squared error of $B$ random images,

    $$A \leftarrow A - \eta\, (A - \bar y_B) .$$

    The error $d = A - A_0$ becomes $(1 - \eta)\, d + \eta\, \epsilon$, with $\epsilon$ of
    variance $s^2 / B$. It shrinks as $(1-\eta)^t$ at first, and then stays: its
    variance $v$ repeats itself, $v = (1-\eta)^2 v + \eta^2 s^2/B$, so

    $$v = \frac{\eta}{2 - \eta}\, \frac{s^2}{B} .$$

    A large rate is fast and ends noisy. A small rate is slow and ends calm. A rate that falls,
    $\eta_t = 1 / t$, is the plain average of all that was seen, which no constant rate
    reaches.
    """)
    return


@app.function
def descended(rate, batch, falling, steps=300, noise=1.0, seed=0):
    """Return A after every step from A = 3, for A_0 = 0; falling: rate / (1 + rate t)."""
    rng = np.random.default_rng(seed)
    means = rng.normal(0.0, noise / np.sqrt(batch), steps)
    value, told = 3.0, [3.0]
    for t, mean in enumerate(means):
        step = rate / (1.0 + rate * t) if falling else rate
        value -= step * (value - mean)
        told.append(value)
    return np.array(told)


@app.function
def settled_deviation(rate, batch, noise=1.0):
    """Return the standard deviation that a constant rate ends with."""
    return np.sqrt(rate / (2.0 - rate) / batch) * noise


@app.cell
def _():
    def descent(rate, batch, schedule):
        told = descended(rate, batch, schedule == "falling")
        t, band = np.arange(len(told)), settled_deviation(rate, batch)
        marks = (
            Line(t, told, "A"),
            Line(t, np.full(len(t), band), "± end of a constant rate", dashed=True),
            Line(t, np.full(len(t), -band), dashed=True),
        )
        last = told[200:].std()
        return Plot(
            (Panel(marks, "A, whose truth is 0", "step", "A", None, (-1.5, 3.0)),),
            f"Standard deviation over the last 100 steps {last:.3f}; that of a constant "
            f"rate in the long run {band:.3f}.",
        )

    explore(
        descent,
        rate=Slider("rate η", (0.02, 0.05, 0.1, 0.3, 1.0), 0.1),
        batch=Slider("images a step", (1, 10, 100), 1),
        schedule=Choice("rate", ("constant", "falling")),
    )
    return


@app.cell
def _():
    source(estimates, variances_of_waves, descended)
    return


@app.cell
def _():
    mo.md(r"""
    ## The slope of a marginal likelihood

    With an unknown pose $\phi$ the log-likelihood of a map $V$ is
    $\log p(y) = \log \sum_\phi p(y, \phi)$. Its slope is

    $$\frac{\partial \log p(y)}{\partial V} = \sum_\phi p(\phi \mid y)\,
    \frac{\partial \log p(y, \phi)}{\partial V} :$$

    an average of slopes over the posterior. The weights are those of EM. Where the sum can be
    taken, no die is needed, and the slope has no variance at all.

    ## What goes wrong in practice

    - *"The loss is flat, has it converged?"* A constant rate ends in noise of its own
      making. Lower the rate: if the loss falls, it had not.
    - *"It works with batches of 64 and not of 8."* The variance of a step is eight times
      larger. Lower the rate by as much.
    - *"Gradients through the class label are zero."* A label is a step. Sum over labels with
      their weights, or use the score.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        r"At $\theta = 2$, how many times more throws does the score without a baseline need "
        "than the path, for the same precision?",
        variance(2.0, "score") / variance(2.0, "path"),
        tolerance=0.3,
        hint="Divide the variances of the table.",
        explanation=r"$(16 + 56 + 15) / 4 = 21.75$. With the baseline it is $38 / 4 = 9.5$.",
    )
    return


@app.cell
def _():
    exercise(
        "Steps of 10 images, a constant rate of 0.1, noise of standard deviation 1. With what "
        "standard deviation does $A$ end?",
        settled_deviation(0.1, 10),
        tolerance=0.003,
        hint=r"Take the root of $\eta / (2 - \eta) \times s^2 / B$.",
        explanation=r"$\sqrt{0.1 / 1.9 / 10} = 0.0725$.",
    )
    return


@app.cell
def _():
    choose(
        "A loss counts how many particles are in the right class. Which estimator of its "
        "slope is unbiased?",
        ("The path.", "The score.", "Both."),
        1,
        hint="What is the slope of a count, where it has one?",
        explanation="A count is flat between jumps. Its slope is 0 wherever it exists, and the "
        "jumps are never met. The score uses the count itself.",
    )
    return


@app.function
def test_means_and_variances():
    """A million dice: means to five of their standard errors, variances to 3 %.

    The variance of a variance is that of an eighth moment or more, up to 1.5 % here.
    """
    dice = np.random.default_rng(3).normal(size=1_000_000)
    for theta in (0.0, 2.0):
        for kind in KINDS:
            values = estimates(theta, dice, kind)
            error = np.sqrt(variance(theta, kind) / len(dice))
            assert abs(values.mean() - 2.0 * theta) < 5.0 * error
            assert abs(values.var() / variance(theta, kind) - 1.0) < 0.03


@app.function
def test_rough_and_smooth():
    """k^2 / 2 and 1 / (2 sigma^2) where k sigma is large (5 % of 20,000 dice)."""
    path, score = variances_of_waves(20.0, 0.5)
    assert abs(path / 200.0 - 1.0) < 0.05
    assert abs(score / 2.0 - 1.0) < 0.05
    path, score = variances_of_waves(0.5, 0.5)
    assert path < score / 10.0


@app.function
def test_descent():
    """A falling rate of 1 is the mean of what was seen; a constant one ends as foretold."""
    seen = np.random.default_rng(0).normal(0.0, 1.0, 300)
    assert abs(descended(1.0, 1, True)[-1] - seen.mean()) < 1e-12
    # 20,000 steps, correlated over about 1 / rate of them: 2,000 / 2 free numbers, 2 %.
    long = descended(0.1, 10, False, steps=20_000)[200:]
    assert abs(long.std() / settled_deviation(0.1, 10) - 1.0) < 0.08


@app.cell
def _():
    closing(
        "stochastic_gradients",
        library=[
            "cryoinfer.inference.variational.fit_guides",
            "cryoinfer.inference.training",
        ],
        sources=[
            "J. Schulman, N. Heess, T. Weber and P. Abbeel 2015, Gradient estimation using "
            "stochastic computation graphs, NIPS.",
            "R. J. Williams 1992, Simple statistical gradient-following algorithms for "
            "connectionist reinforcement learning, Machine Learning.",
            "learn_cryoem_math (Woollard), stochastic_gradients.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
