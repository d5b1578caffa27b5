import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch

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
    from cryoinfer.inference.variational import GaussianGuide, bound


@app.cell
def _():
    opening("variational_autoencoder")
    return


@app.cell
def _():
    mo.md(r"""
    ## A decoder, and a reader for it

    A function makes a map of a few coordinates, and a slice of it an image: call it the
    **decoder**, $y = C P_R V(z) + \text{noise}$. A second network, the **encoder**, looks at
    an image once and gives a mean and a spread of its coordinates, $q(z \mid y)$. Both are
    trained together. This is a **variational auto-encoder** (VAE); cryoDRGN is one,
    with a neural field as decoder and known poses.

    The probability of the images, with $z$ averaged over its prior, is what one wants to
    be large, and cannot compute. Jensen's inequality gives a bound that one can,

    $$\log p(y) \ge \operatorname{E}_q \left[ \log p(y \mid z) \right] -
    \operatorname{KL}\left( q(z \mid y) \,\Vert\, p(z) \right) ,$$

    and what it lacks is $\operatorname{KL}(q \Vert p(z \mid y))$: the encoder is at its best
    when it gives the posterior. For one image with a linear decoder all of this is in
    closed form. Let $y = s z + \text{noise of power } \sigma^2$, with a prior of mean 0 and
    variance 1. For $q$ of mean $m$ and standard deviation $d$

    $$\operatorname{E}_q \log p(y \mid z) = -\tfrac12 \log 2 \pi \sigma^2 -
    \frac{(y - s m)^2 + s^2 d^2}{2 \sigma^2}, \qquad
    \operatorname{KL} = \tfrac12 \left( m^2 + d^2 - 1 - \log d^2 \right) .$$

    Move $m$ and $d$ and look for the top. It is at the posterior, where the bound touches
    the evidence. A sure encoder, with a small $d$, pays in the second term.
    """)
    return


@app.function
def bound_and_evidence(image, size, noise, mean, sd):
    """Return the lower bound and log p(y), for y = size z + noise, in nats."""
    power = noise**2
    fit = -0.5 * np.log(2.0 * np.pi * power)
    fit = fit - ((image - size * mean) ** 2 + size**2 * sd**2) / (2.0 * power)
    divergence = 0.5 * (mean**2 + sd**2 - 1.0 - np.log(sd**2))
    variance = size**2 + power
    evidence = -0.5 * (np.log(2.0 * np.pi * variance) + image**2 / variance)
    return fit - divergence, evidence


@app.function
def posterior(image, size, noise):
    """Return mean and standard deviation of z."""
    variance = 1.0 / (1.0 + size**2 / noise**2)
    return variance * size * image / noise**2, np.sqrt(variance)


@app.cell
def _():
    def one_image(mean, sd, noise):
        image, size = 1.5, 1.0
        means = np.linspace(-1.0, 3.0, 81)
        curve, evidence = bound_and_evidence(image, size, noise, means, sd)
        here, _ = bound_and_evidence(image, size, noise, mean, sd)
        true_mean, true_sd = posterior(image, size, noise)
        z = np.linspace(-2.0, 4.0, 121)
        root, true = np.sqrt(2.0 * np.pi), (true_mean, true_sd)
        each = {"prior": (0, 1), "posterior": true, "q": (mean, sd)}
        curves = tuple(
            Line(z, np.exp(-((z - m) ** 2) / (2.0 * d**2)) / (d * root), name)
            for name, (m, d) in each.items()
        )
        marks = (
            Line(means, curve, "bound"),
            Line([-1, 3], [evidence, evidence], "evidence", dashed=True),
            Points([mean], [here], "now"),
        )
        return Plot(
            (
                Panel(curves, "What is believed of z", "z", "density", None, (0, 2.2)),
                Panel(marks, "Bound", "mean of q", "nats", None, (-8, 0)),
            ),
            says=f"The bound is {here:.3f} nats, {evidence - here:.3f} below the evidence. "
            f"The posterior is {true_mean:.2f} ± {true_sd:.2f}.",
        )

    explore(
        one_image,
        mean=Slider("mean m of q", (-0.5, 0, 0.5, 0.75, 1, 1.2, 1.5, 2), 0.5),
        sd=Slider("standard deviation d of q", (0.2, 0.3, 0.45, 0.7, 1, 1.4), 1),
        noise=Slider("noise (standard deviation)", (0.5, 1), 0.5),
    )
    return


@app.cell
def _():
    source(bound_and_evidence)
    return


@app.cell
def _():
    mo.md(r"""
    ## With a straight decoder it is nothing new

    Let decoder and encoder be linear. The best encoder is the posterior, and the most
    probable decoder is then that of *Principal components with noise*. Some programs weigh
    the second term by a factor $\beta$. Multiply the bound by $1/\beta$: it is as if the
    noise had the power $\beta \sigma^2$. A component along which images have the variance
    $\lambda$ is then learned with the squared length

    $$\lambda - \beta \sigma^2 , \quad \text{and not at all if } \lambda \le \beta \sigma^2 .$$

    This is **posterior collapse**: the decoder does not use a coordinate, and the encoder
    gives the prior for every image. Components go out, the weakest first, as $\beta$
    rises; with a small $\beta$ noise comes in.
    """)
    return


@app.function
def learned_lengths(variances, noise_power, beta):
    """Return the lengths of components in the optimum of a linear VAE."""
    return np.sqrt(np.maximum(np.asarray(variances) - beta * noise_power, 0.0))


@app.cell
def _():
    def collapse(beta, noise_power):
        number = np.arange(1, 9)
        true = np.array([4.0, 2.0, 1.0, 0.5, 0.25, 0.0, 0.0, 0.0])
        found = learned_lengths(true + noise_power, noise_power, beta)
        bars = (Bars(number, found, "learned"), Points(number, np.sqrt(true), "truth"))
        kept, false = int((found[:5] > 0).sum()), int((found[5:] > 0).sum())
        says = f"{kept} of 5 true components are used, and {false} that are noise."
        return Plot((Panel(bars, "", "component", "length", None, (0.0, 2.6)),), says)

    explore(
        collapse,
        beta=Slider(
            "factor of the KL term", (0, 0.25, 0.5, 0.9, 1, 1.2, 1.5, 2, 4), 1.5
        ),
        noise_power=Slider("noise power", (0.25, 0.5, 1, 2), 1),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What a latent coordinate means

    Nothing in the images names the coordinates. Take any smooth, rising function $u = g(z)$,
    and let the decoder undo it: $V'(u) = V(g^{-1}(u))$. All images stay as likely as they
    were, if the prior is changed to the one that $u$ has. A flexible decoder can do this, and
    a prior of fixed shape invites it: whatever the molecules do, particles are to be spread
    like a normal distribution. Distances, densities and straight lines in latent space are
    facts about the network as much as about the molecule.

    Densities change by the slope: $p(u) = p(z) / g'(z)$. Two heaps can be made of one and one
    of two. No such change alters the map of a particle, and how many lie between two maps.
    Below is a population in an angle, and the same in four equally good coordinates.
    """)
    return


@app.function
def latent_of(angle, kind):
    """Return a coordinate of angles (degrees, sorted) that rises with them."""
    if kind == "normal scores":
        rank = (np.arange(len(angle)) + 0.5) / len(angle)
        return np.sqrt(2.0) * torch.erfinv(torch.from_numpy(2.0 * rank - 1.0)).numpy()
    if kind == "steep in the middle":
        return 3.0 * np.tanh(np.asarray(angle) / 7.0)
    if kind == "flat in the middle":
        return np.asarray(angle) ** 3 / 3000.0 + np.asarray(angle) / 100.0
    return np.asarray(angle) / 10.0


@app.cell
def _():
    _kinds = ("angle", "steep in the middle", "flat in the middle", "normal scores")

    def heaps(kind, states):
        rng = np.random.default_rng(0)
        apart = 0.0 if states == 1 else 12.0
        side, wide = np.sign(rng.random(4000) - 0.4), 10.0 if states == 1 else 5.0
        angle = np.sort(apart * side + rng.normal(0.0, wide, 4000))
        both = (angle, "angle (degrees)", 30), (latent_of(angle, kind), "latent", 3.2)
        panels = []
        for value, unit, most in both:
            count, edges = np.histogram(value, 32, (-most, most))
            middle = (edges[1:] + edges[:-1]) / 2.0
            panels.append(Panel((Bars(middle, count),), "", unit, "particles"))
        right = 100.0 * np.mean(angle > 0.0)
        says = f"In both, {right:.1f} % of the particles are beyond 0 degrees."
        return Plot(tuple(panels), says)

    explore(
        heaps,
        kind=Choice("latent coordinate", _kinds, "steep in the middle"),
        states=Slider("states", (1, 2), 1),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Keep out what is known

    An image varies by pose first, and a VAE that is not told so spends its coordinates on
    that. A **spatial-VAE** is told: angle and shift turn and move the places which the
    decoder is asked for, and only what is left has to be learned. CryoDRGN does it with
    given poses: it asks the field for the slice of each image's own pose.

    Below are images of a rod that bends, at all angles in a range. The bars are the
    components that images need, as they are, and once every image is turned back.
    """)
    return


@app.function
def bent_rods(turn_degrees, bend, pixels=24):
    """Return images, one a row, of rods at some angles that are bent by some pixels."""
    axis = np.arange(pixels) - pixels / 2.0
    turn = np.radians(np.asarray(turn_degrees))[:, None, None]
    x = axis[None, None, :] * np.cos(turn) + axis[None, :, None] * np.sin(turn)
    y = -axis[None, None, :] * np.sin(turn) + axis[None, :, None] * np.cos(turn)
    y = y - np.asarray(bend)[:, None, None] * (x / 8.0) ** 2
    images = np.exp(-(y**2) / 4.5) / (1.0 + np.exp(2.0 * (np.abs(x) - 8.0)))
    return images.reshape(len(turn), -1)


@app.cell
def _():
    def kept_out(range_degrees, bend):
        rng = np.random.default_rng(1)
        turn, bends = (
            range_degrees * rng.uniform(-1, 1, 200),
            bend * rng.normal(size=200),
        )
        images = (bent_rods(turn, bends), bent_rods(0.0 * turn, bends))
        panels, counts = (
            [Panel((Heat(images[0][0].reshape(24, 24)),), "Image", equal=True)],
            [],
        )
        for each, title in zip(images, ("As they are", "Turned back"), strict=True):
            values = np.linalg.svd(each - each.mean(0), compute_uv=False) ** 2
            share = values / values.sum()
            counts.append(int(np.searchsorted(share.cumsum(), 0.9)) + 1)
            bars = (Bars(np.arange(1, 13), 100.0 * share[:12]),)
            panels.append(Panel(bars, title, "component", "share (%)", None, (0, 100)))
        says = f"{counts[0]} components hold 90 % of the variance; turned back, {counts[1]}."
        return Plot(tuple(panels), says)

    explore(
        kept_out,
        range_degrees=Slider("angles ± (degrees)", (0, 5, 10, 30, 90), 30),
        bend=Slider("bend (pixels)", (0.5, 1, 2), 1),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *The latent space is a round, even cloud.* The prior has made it so, or nothing was
      learned. Look whether maps differ across it.
    - *z tells the pose, or the defocus.* What is not told to the decoder is learned.
    - *8 dimensions or 4?* Those beyond what the data fill collapse, or hold noise.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "An encoder gives the prior itself, mean 0 and standard deviation 1. What is its KL "
        "term, in nats?",
        0.5 * (0.0 + 1.0 - 1.0 - np.log(1.0)),
        tolerance=0.001,
        hint=r"$\frac12 (m^2 + d^2 - 1 - \log d^2)$.",
        explanation="0: it says nothing, and pays nothing.",
    )
    return


@app.cell
def _():
    exercise(
        r"Images have the variance 3 along a component, of which the noise is 1. With "
        r"$\beta = 2$, which length has the component in a linear VAE?",
        learned_lengths(3.0, 1.0, 2.0),
        tolerance=0.01,
        hint=r"$\sqrt{\lambda - \beta \sigma^2}$.",
        explanation="1, where the truth is the root of 2.",
    )
    return


@app.cell
def _():
    choose(
        "A histogram of latent coordinates has two peaks. What is certain?",
        ("There are two states.", "There is a barrier.", "Neither of the two."),
        2,
        hint="What does a coordinate that is steep in the middle do to one peak?",
        explanation="Densities need a coordinate with a meaning.",
    )
    return


@app.function
def test_bound_is_tight_at_the_posterior():
    """To rounding; and the program's bound has no scatter there, for log p / q is flat."""
    mean, sd = posterior(1.5, 1.0, 0.5)
    lower, evidence = bound_and_evidence(1.5, 1.0, 0.5, mean, sd)
    assert abs(lower - evidence) < 1e-12
    assert bound_and_evidence(1.5, 1.0, 0.5, mean + 0.1, sd)[0] < lower
    exact = (
        torch.from_numpy(np.full(n, x)) for n, x in (((1, 1), mean), ((1, 1, 1), sd))
    )
    guide = GaussianGuide(*exact)

    def log_joint(z):
        fit = -0.5 * (1.5 - z[..., 0]) ** 2 / 0.25 - 0.5 * np.log(2.0 * np.pi * 0.25)
        return fit - 0.5 * z[..., 0] ** 2 - 0.5 * np.log(2.0 * np.pi)

    found = bound(log_joint, guide, 5, torch.Generator().manual_seed(0), False)
    assert abs(float(found[0]) - evidence) < 1e-12


@app.function
def test_linear_vae_is_ppca():
    """Gradient ascent on the bound finds the length of the formula, to 1e-3."""
    variance, power, beta = 3.0, 1.0, 1.5
    size, gain, log_sd = 0.5, 0.5, 0.0
    for _ in range(10_000):
        # Mean of q is gain * y; expectations over y have E y^2 = variance.
        sd2 = np.exp(2.0 * log_sd)
        by_size = (variance * gain * (1 - size * gain) - size * sd2) / power
        by_gain = variance * size * (1 - size * gain) / power - beta * variance * gain
        by_log_sd = -(size**2) * sd2 / power - beta * (sd2 - 1.0)
        size, gain = size + 0.01 * by_size, gain + 0.01 * by_gain
        log_sd += 0.01 * by_log_sd
    assert abs(size - learned_lengths(variance, power, beta)) < 1e-3


@app.cell
def _():
    closing(
        "variational_autoencoder",
        library=["cryoinfer.inference.variational.bound", "cryoinfer train"],
        sources=[
            "D. P. Kingma and M. Welling 2013, Auto-encoding variational Bayes, arXiv.",
            "T. Bepler et al. 2019, spatial-VAE, NeurIPS.",
            "E. D. Zhong et al. 2021, CryoDRGN, Nature Methods 18, 176.",
            "J. Lucas et al. 2019, Don't blame the ELBO, NeurIPS.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
