import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import itertools

    import marimo as mo
    import numpy as np
    from scipy.special import logsumexp
    from scipy.stats import norm

    from course import (
        Bars,
        Choice,
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

    PIXELS = 64
    IMAGES = 400
    SPREAD = 5.0  # standard deviation of the shifts, in pixels
    TRIED = np.arange(PIXELS) - PIXELS // 2  # all whole shifts, in pixels


@app.cell
def _():
    opening("em_1d")
    return


@app.cell
def _():
    mo.md(r"""
    ## The same signal, somewhere

    Each of 400 strips of 64 pixels shows the same two bumps. In each they are shifted
    by some pixels, and nobody knows by how many. Noise lies on top. The signal is wanted.

    Write $A$ for the signal, $q$ for the shift of a strip, and $S_q A$ for the signal moved
    by $q$ pixels (what leaves at one end comes in at the other). The strip is

    $$y = S_q A + \text{noise}, \qquad q \sim N(0, \sigma_q^2), \qquad
    \text{noise} \sim N(0, \sigma^2) \text{ in each pixel} .$$

    If all $q$ were known, one would move the strips back and average them. If $A$ were
    known, each $q$ could be found by trying all of them. Neither is known. A plain average
    of the strips is the signal blurred by the spread of the shifts, $\sigma_q = 5$ pixels:
    the two bumps have run together (dashed in the first figure).

    ## Where is it? A weight for each shift

    Suppose that we have a guess of $A$, $\sigma$ and $\sigma_q$. The probability density of
    a strip, had it been moved by $q$, is a product over $N$ pixels:

    $$p(y \mid q) = (2\pi\sigma^2)^{-N/2} \exp\left(-\frac{\|y - S_q A\|^2}{2\sigma^2}\right) .$$

    Bayes' rule turns it around. The **responsibility** of a shift for a strip is

    $$\gamma_q = p(q \mid y) = \frac{p(y \mid q)\, p(q)}{\sum_{q'} p(y \mid q')\, p(q')} .$$

    The sum below is the **marginal likelihood** $p(y)$ of the strip: its probability under
    the model, with the unknown shift summed out. The figure gives responsibilities, with the
    true signal as the guess. At noise 3 one or two shifts take nearly all the weight. At 12
    some neighbours share it. At 24 the strip hardly knows: the prior $p(q)$ remains.
    """)
    return


@app.function
def true_signal():
    """Return two bumps, heights 10 and 6, in 64 pixels."""
    x = np.arange(PIXELS)
    first = 10.0 * np.exp(-0.5 * ((x - 26) / 2.5) ** 2)
    return first + 6.0 * np.exp(-0.5 * ((x - 38) / 4.0) ** 2)


@app.function
def simulated(noise, images=IMAGES, seed=1):
    """Return strips (images, 64) and their shifts in pixels."""
    rng = np.random.default_rng(seed)
    shifts = np.rint(rng.normal(0.0, SPREAD, images)).astype(int)
    clean = true_signal()[(np.arange(PIXELS) - shifts[:, None]) % PIXELS]
    return clean + rng.normal(0.0, noise, clean.shape), shifts


@app.function
def log_prior(spread):
    """Return log p(q) of all shifts."""
    return -0.5 * (TRIED / spread) ** 2 - logsumexp(-0.5 * (TRIED / spread) ** 2)


@app.function
def log_likelihoods(data, signal, noise):
    """Return log p(y | q) of every strip (rows) and shift (columns)."""
    moved = signal[(np.arange(len(signal)) - TRIED[:, None]) % len(signal)]
    squares = (data**2).sum(1)[:, None] - 2.0 * data @ moved.T + (signal**2).sum()
    pixels = data.shape[1]
    return -0.5 * squares / noise**2 - 0.5 * pixels * np.log(2.0 * np.pi * noise**2)


@app.function
def expectation(data, signal, noise, spread):
    """Return responsibilities (strips, shifts), and the log marginal likelihood of all."""
    joint = log_likelihoods(data, signal, noise) + log_prior(spread)
    evidence = logsumexp(joint, axis=1)
    return np.exp(joint - evidence[:, None]), evidence.sum()


@app.function
def maximisation(data, weight):
    """Return the signal, noise and spread that are most likely under the weights."""
    strips, pixels = data.shape
    # Row q of weight.T @ data is a sum of strips by weight; moved back, they are added.
    back = (np.arange(pixels) + TRIED[:, None]) % pixels
    signal = np.take_along_axis(weight.T @ data, back, 1).sum(0) / strips
    # sum of weight * |y - S_q A|^2: the mixed term is the signal again.
    squares = (data**2).sum() - strips * (signal**2).sum()
    spread = np.sqrt((weight @ TRIED**2).mean())
    return signal, np.sqrt(squares / (strips * pixels)), spread


@app.function
def learned(data, noise, rounds=32, best_only=False):
    """Return signal, noise, spread and log likelihood of every round, from the average."""
    signal, spread, told = data.mean(0), 8.0, []
    for _ in range(rounds + 1):
        weight, value = expectation(data, signal, noise, spread)
        told.append((signal, noise, spread, value))
        if best_only:
            weight = np.eye(PIXELS)[weight.argmax(1)]
        signal, noise, spread = maximisation(data, weight)
        spread = max(spread, 0.5)
    return told


@app.cell
def _():
    def places(noise, number):
        data, shifts = simulated(noise)
        weight, _ = expectation(data[number : number + 1], true_signal(), noise, SPREAD)
        x, near = np.arange(PIXELS), np.abs(TRIED) <= 20
        left = (
            Line(x, data[number], "one strip"),
            Line(x, np.roll(true_signal(), shifts[number]), "without noise"),
            Line(x, data.mean(0), "average of 400", dashed=True),
        )
        right = (
            Bars(TRIED[near], weight[0][near], "responsibility"),
            Line(TRIED[near], np.exp(log_prior(SPREAD))[near], "prior", dashed=True),
            Points([shifts[number]], [0.0], "the truth"),
        )
        return Plot(
            (
                Panel(left, "A strip", "place (pixel)", "signal", None, (-45, 45)),
                Panel(
                    right, "Where was it?", "shift (pixel)", "probability", None, (0, 1)
                ),
            ),
            f"Most probable: {TRIED[weight[0].argmax()]} pixels, with a probability of "
            f"{weight.max():.2f}; true: {shifts[number]}.",
        )

    explore(
        places,
        noise=Slider("noise, standard deviation", (1, 3, 6, 12, 24), 6),
        number=Slider("strip", range(12), 0),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What is most likely, given the weights

    Now hold the weights $\gamma_{iq}$ of all strips $i$ and maximise
    $\sum_i \sum_q \gamma_{iq} \log\left[ p(y_i \mid q)\, p(q) \right]$, a sum of
    squares in $A$. Its derivative vanishes at

    $$A = \frac{1}{n} \sum_{i=1}^{n} \sum_q \gamma_{iq}\, S_q^{-1} y_i ,$$

    an average of the strips moved back, each to all its possible places, by weight. In the
    same way

    $$\sigma^2 = \frac{1}{nN} \sum_{i,q} \gamma_{iq} \|y_i - S_q A\|^2, \qquad
    \sigma_q^2 = \frac{1}{n} \sum_{i,q} \gamma_{iq}\, q^2 .$$

    **Expectation-maximisation** (EM) is these two steps in turn: weights from the model,
    model from the weights.

    ## It never falls

    For any weights $g_q$ that sum to one, take the logarithm of
    $p(y) = p(y, q) / p(q \mid y)$, average it over $g$, and add and subtract
    $\sum g \log g$:

    $$\log p(y) = \sum_q g_q \log \frac{p(y, q)}{g_q} +
    \sum_q g_q \log \frac{g_q}{p(q \mid y)} .$$

    The first sum bounds $\log p(y)$ from below, for the second, a divergence, is never
    negative. It is zero exactly if $g$ is the responsibilities. The first step sets $g$ to
    them: the bound touches $\log p(y)$. The second step raises the bound, or leaves it. The
    log-likelihood lies above the bound, so it rises at least as much. If a program's
    log-likelihood falls from one round to the next, the program is wrong.

    Start from the plain average and move the slider of rounds. At noise 6 the bumps part
    within four rounds, whether the first guess of $\sigma$ was 3, 6 or 12; the middle panel
    gives the log-likelihood above that of the last round. At noise 24 the
    strips are too few: the signal that comes out follows the noise.
    """)
    return


@app.cell
def _():
    _words = ("all shifts", "best shift only")
    _starts, _noises = (3, 6, 12), (6, 12, 24)
    _runs = {
        (a, b, word): learned(simulated(a)[0], float(b), best_only=word == _words[1])
        for a, b, word in itertools.product(_noises, _starts, _words)
    }

    def rounds(number, noise, start, weights):
        told = _runs[noise, start, weights]
        signal, sigma, spread, value = told[number]
        below = (np.array([one[3] for one in told]) - told[-1][3]) / IMAGES
        sigmas = np.array([one[1] for one in told])
        n, x = np.arange(len(told)), np.arange(PIXELS)
        left = (Line(x, signal, "learned"), Line(x, true_signal(), "true", dashed=True))
        middle = (Line(n, below), Points([number], [below[number]]))
        right = (
            Line(n, sigmas, "estimate"),
            Line(n, np.full(len(n), noise), "true", dashed=True),
            Points([number], [sigma]),
        )
        return Plot(
            (
                Panel(left, "The signal", "place (pixel)", "signal", None, (-10, 17)),
                Panel(middle, "Log-likelihood", "round", "nats a strip", None, (-3, 1)),
                Panel(right, "The noise", "round", "standard deviation", None, (0, 26)),
            ),
            f"Round {number}: noise {sigma:.2f} (true {noise}), spread of the shifts "
            f"{spread:.2f} pixels (true {SPREAD:.0f}), log-likelihood "
            f"{value / IMAGES:.2f} nats a strip.",
        )

    explore(
        rounds,
        number=Slider("round", (0, 1, 2, 3, 4, 6, 8, 12, 20, 32), 0),
        noise=Slider("noise, standard deviation", _noises, 6),
        start=Slider("first guess of the noise", _starts, 12),
        weights=Choice("weights", _words),
    )
    return


@app.cell
def _():
    source(log_likelihoods, expectation, maximisation, learned)
    return


@app.cell
def _():
    mo.md(r"""
    ## Why not simply take the best shift?

    Set "weights" to "best shift only": each strip then gives all its weight to its most
    probable shift. That is simpler, and wrong. The most probable shift is the one at which
    the noise happens to look most like the guess, so the average keeps the guess alive.
    The harm does not average out. At noise 12 the error of the learned signal is 2.0 with all
    shifts and 2.7 with the best ones, root mean square over the pixels. With ten times as
    many strips it is 1.0 with all shifts, and still 2.3 with the best ones.

    ## What goes wrong in practice

    - *"The average has become sharper and sharper, but it is the wrong particle."* EM climbs
      the nearest hill of the likelihood. It never falls, yet it can end on a lower top than
      another start. Run several starts and compare their likelihoods.
    - *"All my probabilities are 1.000."* Either the noise is believed too small, or the
      likelihood of an image was counted more than once, say by summing over a batch where one
      image was meant. Posteriors then become too narrow, and EM takes best shifts after all.
    - *"It says NaN."* For 10,000 pixels $p(y \mid q)$ is about $e^{-14000}$, which no number
      format holds. Work with logarithms, and subtract the largest before exponentiating.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        r"A strip of two pixels, $y = (1, 0)$. The signal $A = (1, 0)$ was shifted by 0 or by "
        r"1 pixel, equally likely before; $\sigma = 1$. How probable is 0?",
        1.0 / (1.0 + np.exp(-1.0)),
        tolerance=0.01,
        hint=r"$\|y - S_q A\|^2$ is 0 for one shift and 2 for the other.",
        explanation=r"$1 / (1 + e^{-1}) = 0.731$: even the exact picture leaves doubt where "
        "the noise is as large as the signal.",
    )
    return


@app.cell
def _():
    exercise(
        "At noise 6 the shifts of 400 strips are almost certain. What is then the standard "
        "deviation of the noise that is left in one pixel of the learned signal?",
        6.0 / np.sqrt(IMAGES),
        tolerance=0.02,
        hint="The learned signal is an average of 400 strips that were moved back.",
        explanation="6 / 20. Doubt about the shifts adds to it.",
    )
    return


@app.cell
def _():
    choose(
        "A log-likelihood of all images was -51,204.2 after round 7 and -51,209.6 after "
        "round 8. What does that say?",
        (
            "The run has converged.",
            "The run has jumped to another hill, which is normal.",
            "The two steps do not belong to the same model: there is a mistake, or an "
            "approximation.",
        ),
        2,
        hint="Which of the two steps can lower the log-likelihood?",
        explanation="Neither can. A program may show small falls if it leaves out weights.",
    )
    return


@app.function
def test_noise_is_recovered_and_likelihood_never_falls():
    """Noise 6 from first guesses of 3, 6 and 12.

    25,600 pixels tell it to 6 / sqrt(2 * 25,600) = 0.027, and the 64 of the signal lower it
    by 64 / 25,600 / 2 of it, 0.0075. The spread is told to 5 / sqrt(2 * 400) = 0.18.
    """
    for start in (3.0, 6.0, 12.0):
        told = learned(simulated(6.0)[0], start)
        assert abs(told[-1][1] - 6.0) < 3.0 * 0.027 + 0.0075
        assert abs(told[-1][2] - SPREAD) < 3.0 * 0.18
        # Rounding of a sum of 25,600 terms is about 1e-9.
        assert (np.diff([one[3] for one in told]) > -1e-6).all()


@app.function
def test_by_hand():
    """Steps with known answers (rounding)."""
    # One shift of weight 1 each: the average of what was moved back, exactly.
    data, shifts = simulated(3.0, 20)
    weight = (TRIED == shifts[:, None]).astype(float)
    signal, noise, _ = maximisation(data, weight)
    back = np.stack([np.roll(one, -q) for one, q in zip(data, shifts, strict=True)])
    assert np.allclose(signal, back.mean(0), atol=1e-12)
    assert abs(noise - np.sqrt(((back - back.mean(0)) ** 2).mean())) < 1e-10
    # scipy's density of a normal number, pixel by pixel, of one strip moved by 4.
    product = norm.logpdf(data[0], np.roll(true_signal(), 4), 3.0).sum()
    assert abs(log_likelihoods(data, true_signal(), 3.0)[0, 36] - product) < 1e-9


@app.function
def test_best_shifts_keep_their_error():
    """The numbers of the text, to their last digit; and the order that it claims."""
    for images, best_only, told in ((400, 0, 2.0), (400, 1, 2.7), (4000, 1, 2.3)):
        data, _ = simulated(12.0, images)
        signal = learned(data, 12.0, 40, bool(best_only))[-1][0]
        # A common shift of signal and strips cannot be told: take the nearest.
        moved = [np.roll(signal, k) - true_signal() for k in range(-6, 7)]
        assert abs(min(np.sqrt((one**2).mean()) for one in moved) - told) < 0.06


@app.cell
def _():
    closing(
        "em_1d",
        library=[
            "cryoinfer.inference.search.global_search",
            "cryoinfer.evaluation.grid_posterior.grid_posterior",
        ],
        sources=[
            "A. P. Dempster, N. M. Laird and D. B. Rubin 1977, Maximum likelihood from "
            "incomplete data via the EM algorithm, J. R. Stat. Soc. B.",
            "F. J. Sigworth 1998, A maximum-likelihood approach to single-particle image "
            "refinement, Journal of Structural Biology.",
            "learn_cryoem_math (Woollard), 1d_class, after a chapter by P. Nelson.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
