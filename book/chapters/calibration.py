import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy.stats import norm

    from course import (
        Bars,
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
    from cryoinfer.evaluation.calibration import (
        coverage_curve,
        expected_calibration_error,
        mahalanobis_levels,
        posterior_ranks,
        rank_levels,
        rank_uniformity_p_value,
        tarp_levels,
    )

    NOISE, DRAWS = 0.5, 99
    FACTORS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)


@app.cell
def _():
    opening("calibration")
    return


@app.cell
def _():
    mo.md(r"""
    ## An error bar is a promise

    A program says: the shift of this particle is 1.3 pixels, with a standard deviation of 0.2.
    Is that true? The particle has one shift, it was seen once, and nobody knows it. No test
    of this one error bar is possible.

    A test of many is. If a hundred particles have intervals of 90 %, about ninety
    should hold their truths. The share that does is the **coverage**. In a posterior that is
    **calibrated** the coverage is the stated level, at every level.

    For particles of a microscope the truths are unknown. So simulate: draw a truth $x$ from
    the prior, an image $y$ from $x$, and hand $y$ to the program. Here
    $x \sim N(0, 1)$ and $y = x + \text{noise}$ with $\nu = 0.5$. The posterior is a Gaussian of
    mean $m = y / (1 + \nu^2)$ and variance $\nu^2 / (1 + \nu^2) = 0.2$.

    To see what a wrong program does, multiply its standard deviations by a factor. At 1 the
    promise is kept. With half of the width, intervals of 90 % hold 59 % of the truths,
    which is $2 \Phi(0.5 \times 1.645) - 1$, with $\Phi$ the normal distribution function.
    """)
    return


@app.function
def trials(count, factor=1.0, bias=0.0, seed=0):
    """Return truths, and means and deviations of the posteriors that a program states."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=count)
    image = truth + rng.normal(0.0, NOISE, count)
    deviation = NOISE / np.sqrt(1.0 + NOISE**2)
    mean = image / (1.0 + NOISE**2) + bias * deviation
    return truth, mean, np.full(count, factor * deviation)


@app.function
def expected_coverage(level, factor):
    """Return the coverage of intervals whose width is wrong by a factor."""
    return 2.0 * norm.cdf(factor * norm.ppf(0.5 + level / 2.0)) - 1.0


@app.cell
def _():
    def intervals(factor, level):
        truth, mean, deviation = trials(60, factor)
        reach = norm.ppf(0.5 + level / 200.0) * deviation
        holds = abs(truth - mean) <= reach
        n = np.arange(len(truth))
        # Bars from below to above as one line that is broken between them.
        x = np.repeat(n, 3).astype(float)
        y = np.stack([mean - reach, mean + reach, np.full(len(n), np.nan)], 1).ravel()
        marks = (
            Line(x, y, "stated interval"),
            Points(n[holds], truth[holds], "truth, held"),
            Points(n[~holds], truth[~holds], "truth, missed"),
        )
        return Plot(
            (
                Panel(
                    marks, "Sixty particles", "particle", "shift (pixel)", None, (-4, 4)
                ),
            ),
            f"{holds.sum()} of 60 hold the truth, stated were {0.6 * level:.0f}; in the "
            f"long run {60 * expected_coverage(level / 100, factor):.1f}.",
        )

    explore(
        intervals,
        factor=Slider("stated width over the true one", FACTORS, 1.0),
        level=Slider("level (%)", (50, 68, 90, 95), 90),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Ranks

    Posteriors are often known by draws alone. Draw $L = 99$ times from the posterior of
    $y$, and count how many draws lie below the truth. This is the **rank**, 0 to 99.

    Why should all ranks be equally likely? Look at one $y$. Given $y$, the truth is
    distributed as $p(x \mid y)$; so are the draws, if the program is right. Truth and draws are
    then 100 numbers from one distribution, in no order. The truth is as likely to be the
    third smallest as any other. This holds for each $y$, hence for all together. It is
    **simulation-based calibration**, and it needs no formula for the posterior.

    The shape of the histogram is a diagnosis. A valley (too many ranks at both ends): too
    sure. A hill: too unsure. A slope: biased. A step of the ranks is only a sign if it is
    larger than chance; the p-value is the probability of ranks that uneven or more from a
    right program. With 200 trials a factor of 0.85 often hides. With 5,000 it cannot.

    The right panel has the same facts as a curve: coverage over level. Below the diagonal is
    too sure.
    """)
    return


@app.function
def ranked(count, factor, bias=0.0, seed=1):
    """Return ranks of truths among 99 draws of the stated posteriors."""
    truth, mean, deviation = trials(count, factor, bias, seed)
    grain = np.random.default_rng(seed + 1000).normal(size=(DRAWS, count))
    dice = torch.Generator().manual_seed(seed)
    return posterior_ranks(
        torch.as_tensor(truth), torch.as_tensor(mean + deviation * grain), dice
    )


@app.function
def central_levels(ranks):
    """Return levels of central intervals on whose ends truths lie, from their ranks."""
    place = rank_levels(ranks, DRAWS, torch.Generator().manual_seed(0))
    return (2.0 * place - 1.0).abs()


@app.cell
def _():
    def ranks(factor, bias, count):
        found = ranked(count, factor, bias)
        counts = np.bincount(found.numpy() // 5, minlength=20) * 20.0 / count
        middle = np.arange(20) * 5.0 + 2.0
        band = 2.0 * np.sqrt(19.0 / count)
        left = (
            Bars(middle, counts, "truths"),
            Line(
                middle, np.full(20, 1.0 + band), "chance, ± 2 deviations", dashed=True
            ),
            Line(middle, np.full(20, 1.0 - band), dashed=True),
        )
        nominal = torch.linspace(0, 1, 51)
        levels = central_levels(found)
        curve = coverage_curve(levels, nominal).numpy()
        right = (
            Line(nominal.numpy(), curve, "coverage"),
            Line([0.0, 1.0], [0.0, 1.0], "as stated", dashed=True),
        )
        return Plot(
            (
                Panel(
                    left, "Ranks", "rank of the truth", "over the mean", None, (0, 3.5)
                ),
                Panel(right, "Coverage", "stated", "found", (0, 1), (0, 1)),
            ),
            f"p-value {rank_uniformity_p_value(found, DRAWS):.2g}; 90 % intervals hold "
            f"{curve[45]:.1%}; mean distance of coverage from level "
            f"{expected_calibration_error(levels):.3f} (by chance "
            f"{0.31 / np.sqrt(count):.3f}).",
        )

    explore(
        ranks,
        factor=Slider("stated width over the true one", FACTORS, 0.7),
        bias=Slider("bias (true deviations)", (-0.5, 0.0, 0.2, 0.5), 0.0),
        count=Slider("trials", (200, 1000, 5000), 1000),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What calibration does not see

    *It does not see waste.* A program that ignores the image and returns the prior is perfectly
    calibrated. Error bars should be true first, and then small.

    *One number at a time does not see two.* Take two unknowns whose posterior has a correlation
    $c$, and a program that states the right standard deviations and no correlation. Each
    unknown by itself passes. Jointly it fails: the stated set is a circle, the truth lies along
    an ellipse. For a Gaussian of $d$ unknowns, the level at which a truth $x$ lies is

    $$P\left(\chi^2_d \le (x - m)^{\mathsf T} \Sigma^{-1} (x - m)\right),$$

    and its distribution over trials should be even. For other posteriors, balls
    about random points do: the share of draws that lie nearer to the point than the truth does
    should be even, wherever the point is.

    Move $c$. The curve of the joint level leaves the diagonal, while that of one unknown
    stays. At $c = 0.9$ the joint 90 % sets hold too few, and the 50 % sets too many: most
    truths lie near the centre, some far out along the ellipse.
    """)
    return


@app.function
def joint_trials(correlation, count=4000, seed=3):
    """Return errors (count, 2) of posteriors with a correlation, and what is stated."""
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(np.array([[1.0, correlation], [correlation, 1.0]]))
    error = torch.as_tensor(rng.normal(size=(count, 2)) @ root.T)
    return error, torch.eye(2).double().expand(count, 2, 2)


@app.function
def ball_levels(error, seed=4):
    """Return levels of truths in balls about random points, from 99 stated draws."""
    dice = torch.Generator().manual_seed(seed)
    draws = torch.randn(DRAWS, *error.shape, generator=dice, dtype=torch.float64)
    point = 3.0 * torch.randn(error.shape, generator=dice, dtype=torch.float64)
    return tarp_levels((error - point).norm(dim=1), (draws - point).norm(dim=2), dice)


@app.cell
def _():
    def joint(correlation):
        error, stated = joint_trials(correlation)
        nominal = torch.linspace(0, 1, 51)
        both = coverage_curve(mahalanobis_levels(error, stated), nominal).numpy()
        one = coverage_curve(mahalanobis_levels(error, stated, [0]), nominal).numpy()
        balls = coverage_curve(ball_levels(error), nominal).numpy()
        level = nominal.numpy()
        angle = np.linspace(0.0, 2.0 * np.pi, 61)
        left = (
            Points(error[:400, 0].numpy(), error[:400, 1].numpy(), "400 truths"),
            Line(2.146 * np.cos(angle), 2.146 * np.sin(angle), "stated 90 % set"),
        )
        right = (
            Line(level, one, "one unknown"),
            Line(level, both, "both, by ellipses"),
            Line(level, balls, "both, by balls"),
            Line([0.0, 1.0], [0.0, 1.0], dashed=True),
        )
        return Plot(
            (
                Panel(left, "Errors", "first", "second", (-4, 4), (-4, 4), equal=True),
                Panel(right, "Coverage", "stated", "found", (0, 1), (0, 1)),
            ),
            f"90 % sets hold {one[45]:.1%} of one unknown and {both[45]:.1%} of both; 50 % "
            f"sets {one[25]:.1%} and {both[25]:.1%}.",
        )

    explore(
        joint,
        correlation=Slider("correlation", (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95), 0.8),
    )
    return


@app.cell
def _():
    source(ranked, coverage_curve, posterior_ranks)
    return


@app.cell
def _():
    mo.md(r"""
    *It does not see the real world.* The trials are simulated from the model. If real particles
    bend, or the CTF is wrong, error bars that passed the trial are still too small for them.

    ## What goes wrong in practice

    - *"The error bars are four times too small."* The likelihood was counted more than once, or
      noise of neighbouring pixels is correlated and was taken as independent.
    - *"Calibrated on average, wrong for the small particles."* Coverage is an average over
      trials. Take it apart by what you care about: size, defocus, view.
    - *"Without noise the coverage is 13 % instead of 90 %."* Error bars of the noise have shrunk
      below the errors of interpolation, which no posterior knows. More data make small
      faults of a model large.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "A program states standard deviations that are 0.7 of the true ones. What share of the "
        "truths do its 95 % intervals hold, in percent?",
        100.0 * expected_coverage(0.95, 0.7),
        tolerance=0.7,
        unit="%",
        hint=r"The interval reaches $0.7 \times 1.96$ true deviations. Or use the first figure.",
        explanation=r"$2\,\Phi(1.372) - 1 = 83\,\%$. One truth in six is missed, not in twenty.",
    )
    return


@app.cell
def _():
    exercise(
        "Of 400 particles, 90 % intervals hold the truth of 352. How many standard deviations "
        "of chance below 360 is that?",
        8.0 / np.sqrt(400 * 0.9 * 0.1),
        tolerance=0.05,
        hint=r"The count has the deviation $\sqrt{n p (1 - p)}$.",
        explanation="8 / 6 = 1.33. It happens with a right program in one of eleven cases.",
    )
    return


@app.cell
def _():
    choose(
        "A rank histogram is high at both ends and low in the middle. What is wrong?",
        (
            "Posteriors are too narrow.",
            "Posteriors are too wide.",
            "Posteriors are biased.",
        ),
        0,
        hint="Where do truths lie that are outside of all draws?",
        explanation="Truths fall outside of the draws too often, on either side.",
    )
    return


@app.function
def test_coverage_of_wrong_widths():
    """The normal distribution function against 100,000 trials: 5 deviations of chance."""
    assert abs(expected_coverage(0.9, 0.5) - 0.589) < 5e-4
    for factor in (0.5, 1.0, 2.0):
        truth, mean, deviation = trials(100_000, factor)
        error = torch.as_tensor((truth - mean)[:, None])
        variance = torch.as_tensor(deviation[:, None, None] ** 2)
        nominal = torch.tensor([0.5, 0.9])
        found = coverage_curve(mahalanobis_levels(error, variance), nominal).numpy()
        for level, share in zip((0.5, 0.9), found, strict=True):
            expected = expected_coverage(level, factor)
            chance = np.sqrt(expected * (1.0 - expected) / 100_000)
            assert abs(share - expected) < 5.0 * chance + 1e-9


@app.function
def test_ranks():
    """Even if and only if the width is right; a p-value below 1e-6 is no chance."""
    assert rank_uniformity_p_value(ranked(5000, 1.0), DRAWS) > 0.01
    assert rank_uniformity_p_value(ranked(5000, 0.85), DRAWS) < 1e-6
    assert rank_uniformity_p_value(ranked(5000, 1.0, 0.2), DRAWS) < 1e-6
    # Mean distance of 5,000 right ones: 0.31 / sqrt(n) on average, rarely three times it.
    level = central_levels(ranked(5000, 1.0))
    assert expected_calibration_error(level) < 3.0 * 0.31 / np.sqrt(5000)


@app.function
def test_joint():
    """The 90 % circle has the radius sqrt(2 ln 10); marginals pass, joint sets do not."""
    assert abs(np.sqrt(2.0 * np.log(10.0)) - 2.146) < 5e-4
    error, stated = joint_trials(0.95)
    nominal = torch.tensor([0.5, 0.9])
    one = coverage_curve(mahalanobis_levels(error, stated, [0]), nominal)
    both = coverage_curve(mahalanobis_levels(error, stated), nominal)
    assert abs(one - nominal).max() < 5.0 * 0.5 / np.sqrt(4000)
    assert both[0] > 0.55
    assert both[1] < 0.89


@app.cell
def _():
    closing(
        "calibration",
        library=[
            "cryoinfer.evaluation.calibration.posterior_ranks",
            "cryoinfer.evaluation.calibration.mahalanobis_levels",
            "cryoinfer.evaluation.calibration.tarp_levels",
            "cryoinfer.workflows.calibrate",
        ],
        sources=[
            "S. Talts and others 2018, Validating Bayesian inference algorithms with "
            "simulation-based calibration, arXiv.",
            "P. Lemos, A. Coogan, Y. Hezaveh and L. Perreault-Levasseur 2023, Sampling-based "
            "accuracy testing of posterior estimators for general inference, ICML.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
