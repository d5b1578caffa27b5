import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy import special, stats

    from course import (
        Bars,
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
    from cryoinfer.physics.noise import GaussianNoise


@app.cell
def _():
    opening("counting")
    return


@app.cell
def _():
    mo.md(r"""
    ## Grains

    Look at a micrograph closely and it is grainy. The grains are no structure of the ice, and no fault
    of the camera. They are electrons. With 20 electrons per Å$^2$ a pixel of 1 Å$^2$ is hit by about 20
    of them, but one pixel by 14 and its neighbour by 27.

    Where does this come from? Cut the exposure into $n$ short moments. In each an electron hits the
    pixel with a small probability $q$, whatever happened before. The number of hits $k$ is then
    binomial,

    $$p(k) = \binom{n}{k}\, q^k (1 - q)^{n - k} .$$

    Make the moments shorter: $n \to \infty$, $q \to 0$, while the mean $m = n q$ stays. The factor
    $n (n-1) \cdots (n-k+1)\, q^k$ goes to $m^k$, and $(1 - m/n)^{n-k}$ goes to $e^{-m}$. What is left
    is the **Poisson distribution**,

    $$p(k) = \frac{m^k e^{-m}}{k!} .$$

    One number says all. A binomial has the mean $nq$ and the variance $n q (1 - q)$, so the limit has
    mean $m$ and variance $m$. The standard deviation is $\sqrt m$: of 20 electrons it is 4.5, or 22 %.

    Frames may be added: the short moments of two exposures, taken together, are again short moments, so
    the sum is a Poisson number with the mean $m_1 + m_2$. And a detector that misses electrons at random leaves a Poisson number: only $q$ is smaller.

    ## Signal among grains

    Ice without a particle has the same mean $m$ everywhere. A particle changes it to $m\,(1 + c)$,
    where the **contrast** $c$ is a few per cent for a protein. A disc that receives $M$ electrons in
    all differs from ice by $cM$ electrons, and chance makes differences of $\sqrt M$. The
    **signal-to-noise ratio of the disc** is the square of their ratio,

    $$\mathrm{SNR} = c^2 M .$$

    It grows with the dose and with the area. Rose found in 1948 that an eye wants
    $c \sqrt M \approx 5$. In the figure the disc has a diameter of 16 Å, an area of 201 Å$^2$. Raise
    the dose and watch the disc appear as $c\sqrt M$ passes 5. Then look at the histogram, which is
    of the pixels beside the disc: it has the width that Poisson says, at every dose.
    """)
    return


@app.function
def disc_counts(dose, contrast, seed=1):
    """Return counts of 48 x 48 pixels of 1 square angstrom, and where the disc is."""
    axis = np.arange(48) - 24.0
    disc = np.hypot(axis[:, None], axis) <= 8.0
    mean = dose * (1.0 + contrast * disc)
    return np.random.default_rng(seed).poisson(mean), disc


@app.cell
def _():
    def grains(dose, contrast_percent):
        counts, _disc = disc_counts(dose, contrast_percent / 100.0)
        beside, wide = counts[~_disc], 5.0 * np.sqrt(dose)
        k = np.arange(max(0, int(dose - wide)), int(dose + wide + 2.0) + 1)
        share = np.array([(beside == one).mean() for one in k])
        law = stats.poisson.pmf(k, dose)
        image = Heat(counts, (-24, 24, -24, 24), limits=(dose - wide, dose + wide))
        bars = Bars(k, share, "counted beside the disc")
        bell = Line(k, stats.norm.pdf(k, dose, np.sqrt(dose)), "normal", dashed=True)
        return Plot(
            (
                Panel((image,), "Counts by pixel", "x (Å)", "y (Å)", equal=True),
                Panel(
                    (bars, Line(k, law, "Poisson"), bell),
                    *("How often", "electrons in a pixel", "share of pixels"),
                    x_range=(k[0] - 0.5, k[-1] + 0.5),
                    y_range=(0.0, 1.25 * law.max()),
                ),
            ),
            f"Mean {beside.mean():.2f}, variance {beside.var():.2f} beside the disc; "
            f"for the disc c √M = {contrast_percent / 100 * np.sqrt(dose * 201):.1f}.",
        )

    _dose = Slider("dose (electrons per Å²)", (1, 2, 5, 10, 20, 40, 80), 20)
    _c = Slider("contrast of the disc (%)", (0, 2, 5, 10, 20, 40), 10)
    explore(grains, dose=_dose, contrast_percent=_c)
    return


@app.cell
def _():
    mo.md(r"""
    ## Few electrons, or many

    For a large mean the Poisson distribution looks like a normal one of the same mean and variance. For
    a small one it is skewed, and it has no negative numbers: set the dose to 1 in the figure. A whole
    exposure has means of tens per pixel. A single frame of a movie has a mean far below 1, and that is
    what a counting detector works on.

    A simple counting detector sees in each pixel of each frame whether something came, yes or no. Two
    electrons in the same pixel and frame are then one. Of $m$ electrons on average it counts
    $1 - p(0) = 1 - e^{-m}$, and the lost share,

    $$1 - \frac{1 - e^{-m}}{m} \approx \frac m 2 ,$$

    is called **coincidence loss**. At $m = 0.05$ it is 2.5 %, at $m = 1$ it is 37 %. So the dose rate
    of a detector is limited, and its frames are many.
    """)
    return


@app.function
def coincidence_loss(mean):
    """Return the share of electrons lost where a pixel and frame count once at most."""
    return 1.0 + np.expm1(-mean) / mean


@app.cell
def _():
    def yes_or_no(mean):
        rate = np.geomspace(0.01, 3.0, 80)
        marks = (
            Line(rate, -np.expm1(-rate), "counted"),
            Line(rate, rate, "arrived", dashed=True),
            Points([mean] * 2, [-np.expm1(-mean)] * 2),
        )
        words = ("A detector of yes or no", "mean electrons per pixel and frame")
        return Plot(
            (Panel(marks, *words, "mean count", (0.0, 3.1), (0.0, 2.0)),),
            f"Of {mean:g} electrons on average {-np.expm1(-mean):.4f} are counted: "
            f"{100 * coincidence_loss(mean):.1f} % are lost.",
        )

    explore(yes_or_no, mean=Slider("mean m", (0.05, 0.1, 0.2, 0.5, 1, 1.5, 2, 3), 0.5))
    return


@app.cell
def _():
    mo.md(r"""
    ## What counts say of what was there

    Turn the question round. The counts $y_j$ are known, the means $\lambda_j$ of the pixels are wanted
    ($\lambda$ is a mean here, not a wavelength).
    Pixels are independent, so their log-probabilities add up to the **Poisson log-likelihood**,

    $$\ell(\lambda) = \sum_j \left( y_j \ln \lambda_j - \lambda_j - \ln y_j! \right) .$$

    Each image may hold the same signal, shifted by an unknown $t$: its means are $\lambda_{j-t}$. Every
    shift has a log-likelihood $\ell_t$, and with equal prior chances the probability of a shift, its
    **responsibility** for the image, is

    $$\gamma_t = \frac{e^{\ell_t}}{\sum_u e^{\ell_u}} .$$

    Now the computer fails. A pixel with a mean of 20 has on average $\ln p = -2.9$, an image of 256 by
    256 pixels $-191{,}000$, and the smallest positive number in double precision is about $e^{-745}$.
    All $e^{\ell_u}$ are zero, and $\gamma_t$ is $0/0$. The cure is to take out the largest first:

    $$\ln \sum_u e^{\ell_u} = \ell_{\max} + \ln \sum_u e^{\ell_u - \ell_{\max}} .$$

    This **log-sum-exp** is exact, one term of the sum is 1, and what underflows was negligible.

    Given the $\gamma$, which $\lambda$ is best? Write $i$ for the image, of $I$ images; shifts wrap around. Set the derivative of
    $\sum_i \sum_t \gamma_{it} \sum_j (y_{i,j+t} \ln \lambda_j - \lambda_j)$ to zero:

    $$\lambda_j = \frac 1 I \sum_{i=1}^I \sum_t \gamma_{it}\, y_{i,j+t} .$$

    It is the mean of the images, each shifted back by every $t$, with the probability of that $t$ as its
    weight. Repeat both steps: this is expectation and maximisation, which *Expectation and maximisation, in one dimension*
    treats in full. It never lowers the likelihood.

    In the figure 300 rows of counts share one signal, with contrast up to 60 %. Step 0 is the first
    image, smoothed. At 20 electrons per pixel the signal is found in two steps, at 5 in twelve. Then
    watch both panels: at every dose the likelihood still rises while the estimate moves away from the
    truth. It fits the grains. At 20 that costs little: the estimate is off by 0.015 after 2 steps and by
    0.033 after 40, at 5 by 0.071 after 20 and 0.087 after 40. At 2 and at 0.5 it ends farther from the
    truth than it began, 0.163 after 0.148 and 0.327 after 0.252.
    """)
    return


@app.function
def em_step(counts, mean):
    """Return the next mean, and the log-likelihood of this one without ln y!."""
    shifted = np.stack([np.roll(mean, t) for t in range(len(mean))])
    logs = counts @ np.log(shifted).T - mean.sum()
    total = special.logsumexp(logs, axis=1)
    gamma = np.exp(logs - total[:, None])
    new = sum(gamma[:, t] @ np.roll(counts, -t, axis=1) for t in range(len(mean)))
    return new / len(counts), float((total - np.log(len(mean))).sum())


@app.function
def signal_1d():
    """Return 32 pixels with two bumps, the larger of height 0.6."""
    x = np.arange(32)
    return 0.6 * np.exp(-((x - 11) ** 2) / 8.0) + 0.35 * np.exp(-((x - 20) ** 2) / 4.0)


@app.function
def em_run(dose, steps):
    """Return means and log-likelihoods of 300 rows at random cyclic shifts, by step."""
    rng, truth = np.random.default_rng(2), dose * (1.0 + signal_1d())
    counts = rng.poisson([np.roll(truth, t) for t in rng.integers(32, size=300)])
    first = np.pad(counts[0], 2, mode="wrap")
    smooth = np.convolve(first, np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 9.0, mode="valid")
    means, values = [0.5 * smooth + 0.5 * counts.mean()], []
    for _ in range(steps + 1):
        mean, value = em_step(counts, means[-1])
        means.append(mean)
        values.append(value)
    return np.array(means[:-1]), np.array(values)


@app.function
def laid_over(estimate, truth):
    """Return the estimate at the cyclic shift that is nearest to the truth."""
    turned = [np.roll(estimate, t) for t in range(len(truth))]
    return min(turned, key=lambda one: np.square(one - truth).sum())


@app.cell
def _():
    _doses, _steps = (0.5, 2.0, 5.0, 20.0), (0, 1, 2, 3, 5, 8, 12, 20, 40)
    em_runs = {dose: em_run(dose, 40) for dose in _doses}

    def learned(step, dose):
        means, values = em_runs[dose]
        x, truth, gained = np.arange(32), 1.0 + signal_1d(), (values - values[0]) / 300
        estimate = laid_over(means[step] / dose, truth)
        off = np.sqrt(np.square(estimate - truth).mean())
        rows = (Line(x, estimate, "estimate"), Line(x, truth, "truth", dashed=True))
        climb = (Line(np.arange(41), gained), Points([step] * 2, [gained[step]] * 2))
        return Plot(
            (
                Panel(rows, "Mean", "pixel", "mean over that of ice", y_range=(0, 2.5)),
                Panel(climb, "Log-likelihood", "step", "gained (nats per image)"),
            ),
            f"Step {step}, {dose:g} electrons per pixel: off by {off:.3f} (root mean "
            f"square), {gained[step]:.2f} nats per image gained.",
        )

    explore(learned, step=Slider("step", _steps, 3), dose=Slider("dose", _doses, 5))
    return


@app.cell
def _():
    source(em_step, coincidence_loss)
    return


@app.cell
def _():
    mo.md(r"""
    ## Why programs may say Gaussian

    Write the mean as $\lambda_j = m (1 + c_j)$ with small $c_j$. Then
    $\ln \lambda_j \approx \ln m + c_j - c_j^2 / 2$, and up to terms without $c$

    $$\ell \approx \sum_j \left( (y_j - m)\, c_j - \frac{y_j\, c_j^2}{2} \right)
    \approx -\sum_j \frac{(y_j - m - m c_j)^2}{2 m} ,$$

    where $y_j$ in the term of second order was replaced by $m$. This is the log-likelihood of Gaussian
    noise with the variance $m$ everywhere. At the contrast of a protein in ice the noise hardly depends
    on the signal, and adding noise of a fixed variance is a good model. For a fiducial of gold, or a
    carbon edge, it is not.

    ## What goes wrong in practice

    - *"All responsibilities are NaN after the first iteration."* Exponentials of log-likelihoods were
      summed without taking out the largest. With enough pixels it always happens.
    - *"The likelihood jumps when I change the set of images."* A log-likelihood has no meaning by
      itself (and $\ln y!$ is usually left out). Only differences on the same images count.
    - *"The detector counts fewer electrons than the dose meter says."* Coincidence loss. A weaker beam
      or shorter frames cure it, a longer exposure does not.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "A pixel receives 50 electrons on average. By how many per cent of that does its count vary (one standard deviation)?",
        100.0 / np.sqrt(50.0),
        tolerance=0.2,
        unit="%",
        hint=r"The standard deviation of a Poisson number is $\sqrt m$.",
        explanation=r"$\sqrt{50} / 50$ is 14.1 %. Four times the dose would halve it.",
    )
    return


@app.cell
def _():
    exercise(
        r"A disc of 100 Å diameter has 1 % contrast. Which dose makes $c \sqrt M = 5$?",
        (5.0 / 0.01) ** 2 / (np.pi * 50.0**2),
        tolerance=0.5,
        unit="electrons per Å²",
        hint=r"$M$ is the dose times the area, $\pi \cdot 50^2$ Å$^2$.",
        explanation=r"$M = (5 / 0.01)^2 = 250{,}000$ electrons over 7,854 Å$^2$ are 31.8 per Å². Small particles need more dose than they survive: they are hard to pick.",
    )
    return


@app.cell
def _():
    choose(
        "A detector says yes or no in every pixel and frame. The same exposure is cut into twice as many frames. What becomes of the coincidence loss, if it was small?",
        ("It stays.", "It is halved.", "It is a quarter."),
        1,
        hint=r"What happens to the mean per pixel and frame?",
        explanation=r"The mean per frame is halved, and the loss is about $m/2$.",
    )
    return


@app.function
def test_known_numbers():
    """Binomial limit, entropy at a mean of 20, loss of five per cent."""
    # The binomial differs from its limit by about m^2 / 2n, here 5e-7 of each value.
    assert abs(stats.binom.pmf(3, 10**6, 1e-6) - np.exp(-1.0) / 6.0) < 1e-6
    # ln(2 pi e m) / 2 - 1 / 12m, to the order 1 / 24m^2 = 1e-4: the 2.9 nats of the text.
    entropy = 0.5 * np.log(2 * np.pi * np.e * 20.0) - 1 / 240.0
    assert abs(stats.poisson.entropy(20.0) - entropy) < 2e-4
    # m / 2 - m^2 / 6 + m^3 / 24 = 0.05 has the root 0.1035; the next term is 1e-6.
    assert abs(coincidence_loss(0.1035) - 0.05) < 3e-5
    # The variance of pixels beside the disc, to four standard errors.
    counts, disc = disc_counts(20.0, 0.1)
    beside = counts[~disc]
    assert abs(beside.var() - 20.0) < 4 * 20.0 * np.sqrt(2.05 / beside.size)


@app.function
def test_likelihood_rises_and_signal_is_found():
    """With known shifts a pixel is off by 1.3 %; unsure ones cost a factor of 2.5."""
    means, values = em_run(20.0, 40)
    assert (np.diff(values) > -1e-8 * abs(values[0])).all()
    off = laid_over(means[-1] / 20.0, 1.0 + signal_1d()) - 1.0 - signal_1d()
    assert np.sqrt(np.square(off).mean()) < 0.05
    # Numbers of the text: off by how much at the start or best, and after 40 steps.
    for dose, step, before, after in (
        (20.0, 2, 0.015, 0.033),
        (5.0, 20, 0.071, 0.087),
        (2.0, 0, 0.148, 0.163),
        (0.5, 0, 0.252, 0.327),
    ):
        means, truth = em_run(dose, 40)[0] / dose, 1.0 + signal_1d()
        for at, said in ((step, before), (40, after)):
            off = laid_over(means[at], truth) - truth
            assert abs(np.sqrt(np.square(off).mean()) - said) < 1e-3


@app.function
def test_small_contrast_is_gaussian():
    """Shift by shift it is the library's Gaussian one; third order: 0.03 nats."""
    image = np.random.default_rng(3).poisson(100.0, (16, 16)).astype(float)
    contrast = 0.01 * np.random.default_rng(4).uniform(-1.0, 1.0, (16, 16))
    noise, poisson, gaussian = GaussianNoise.white(100.0, 16), [], []
    for shift in range(4):
        mean = 100.0 * (1.0 + np.roll(contrast, shift, axis=1))
        poisson.append(stats.poisson.logpmf(image, mean).sum())
        residual = torch.from_numpy((image - mean).astype(np.float32))
        gaussian.append(noise.log_prob(residual).item())
    assert np.ptp(np.subtract(poisson, gaussian)) < 0.05 < 0.1 * np.ptp(poisson)


@app.cell
def _():
    closing(
        "counting",
        library=["cryoinfer.physics.noise.GaussianNoise.log_prob"],
        sources=[
            "A. Rose 1948, The sensitivity performance of the human eye on an absolute scale, Journal of the Optical Society of America.",
            "learn_cryoem_math (Woollard), notebook poisson_noise.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
