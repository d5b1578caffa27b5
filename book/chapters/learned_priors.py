import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy.special import ndtr

    from course import (
        Bars,
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
    from cryoinfer.reconstruction.backproject import signal_to_noise


@app.cell
def _():
    opening("learned_priors")
    return


@app.cell
def _():
    mo.md(r"""
    ## A denoiser is a prior

    *The most probable map* believed beforehand only how strong each shell is. We know more:
    density is flat in the solvent and lumpy in the protein, helices have a pitch, side chains
    sit where they sit. Nobody can write this down, but there are thousands of maps to learn it
    from. Add noise of power $\sigma^2$ to known maps $x$, and train a network $D$ to give the
    map back from the noisy one $y$, with the squared error as its loss. The best it can do
    is the mean of all maps that might be meant,

    $$D(y) = \operatorname{E}[x \mid y] .$$

    So whoever has a denoiser has a prior. How, says a formula that needs one line. The noisy
    map has the density $p(y) = \int p(x)\, e^{-(y - x)^2 / 2 \sigma^2} \mathrm{d}x$ up to a
    factor; its derivative brings down $(x - y)/\sigma^2$ under the integral; divide by $p(y)$:

    $$\operatorname{E}[x \mid y] = y + \sigma^2\, \frac{\mathrm{d}}{\mathrm{d}y} \log p(y) .$$

    This is **Tweedie's formula**. What a denoiser adds to its input is the slope of the
    log-density of noisy maps, the **score**: it goes uphill, towards what is usual. Diffusion
    models, which are **generative priors**, take many such steps, with ever less noise.
    For a normal prior the score is straight, and the denoiser is Wiener's filter.

    Below is the smallest case, one voxel. Solvent is normal about 0 with a spread of 0.05,
    protein about 1 with 0.2. The Wiener filter pulls all values to the mean. The best
    denoiser decides for 0 or 1, and is steep in between. Raise the noise.
    """)
    return


@app.function
def voxel_denoiser(y, noise, protein_share):
    """Return E[x | y], by Tweedie's formula, and the density of y."""
    y = np.asarray(y, dtype=float)
    density, slope = np.zeros_like(y), np.zeros_like(y)
    for share, at, wide in (
        (1.0 - protein_share, 0.0, 0.05),
        (protein_share, 1.0, 0.2),
    ):
        power = wide**2 + noise**2
        bell = share * np.exp(-((y - at) ** 2) / (2.0 * power)) / np.sqrt(power)
        density, slope = density + bell, slope - bell * (y - at) / power
    return y + noise**2 * slope / density, density / np.sqrt(2.0 * np.pi)


@app.cell
def _():
    def one_voxel(noise, percent):
        share, y = percent / 100.0, np.linspace(-0.8, 1.8, 131)
        best, density = voxel_denoiser(y, noise, share)
        variance = (1 - share) * 0.05**2 + share * 0.2**2 + share * (1 - share)
        wiener = share + variance / (variance + noise**2) * (y - share)
        weight = density / density.sum()
        # The error of E[x | y] is the variance of x less that of the estimate.
        left = variance - np.sum(weight * (best - np.sum(weight * best)) ** 2)
        linear = variance * noise**2 / (variance + noise**2)
        curves = (
            Line(y, best, "best denoiser"),
            Line(y, wiener, "Wiener filter"),
            Line(y, y, "input", dashed=True),
        )
        seen = (Line(y, density),)
        return Plot(
            (
                Panel(curves, "Denoised", "noisy value", "value", None, (-0.8, 1.8)),
                Panel(seen, "Noisy values", "noisy value", "density", None, (0.0, 3.0)),
            ),
            says=f"Mean squared error {left:.3f}; of the Wiener filter {linear:.3f}.",
        )

    explore(
        one_voxel,
        noise=Slider("noise (standard deviation)", (0.15, 0.2, 0.3, 0.4), 0.3),
        percent=Slider("share of protein (%)", (5, 10, 25, 50), 25),
    )
    return


@app.cell
def _():
    source(voxel_denoiser)
    return


@app.cell
def _():
    mo.md(r"""
    ## What the images did not say

    Where there are data the prior competes with them. Where there are none, at frequencies
    beyond the resolution or in views that are missing, it speaks alone. Here is a prior that
    has seen 363 helices: bumps of several widths at many places, with stripes of a pitch
    of 5.4 Å, one in the middle of the bump. The data go to 8 Å: they show the bump and no
    stripe. The restored profile is the mean of what the prior knows, by the likelihood,

    $$\operatorname{E}[x \mid y] = \frac{\sum_j x_j\, p(y \mid x_j)}{\sum_j p(y \mid x_j)} ,$$

    which is what a perfect network of this training set would give. Stripes come out. If the
    molecule is as in training, they are right: the prior knew. Now take molecules whose
    stripes sit elsewhere in the bump. The data hardly change, and neither does the answer.

    Can a shell correlation tell? Both halves of the images are restored by the same
    prior. On the right, over 64 molecules: the halves agree far beyond the data, whether the
    stripes are right or not. The correlation of half-maps measures noise, and not what both
    were told. With more noise the prior is less sure where stripes belong, and they fade:
    to be wrong with confidence takes good data.
    """)
    return


@app.function
def helix(centre_angstrom, width_angstrom, shifted_turns=0.0):
    """Return profiles of 64 pixels of 1.5 angstrom, one for each centre."""
    at = (np.arange(64) - 32.0) * 1.5 - np.asarray(centre_angstrom, dtype=float)[
        :, None
    ]
    stripes = 1.0 + np.cos(2.0 * np.pi * (at / 5.4 + shifted_turns))
    return np.exp(-(at**2) / (2.0 * width_angstrom**2)) * stripes


@app.function
def training_set():
    """Return the helices that the prior has seen."""
    places = np.arange(-30.0, 30.25, 0.5)
    return np.concatenate([helix(places, width) for width in (8.0, 9.0, 10.0)])


@app.function
def restored(data, known, noise, finest_angstrom):
    """Return the posterior mean of each row, from frequencies up to the finest."""
    seen = np.fft.rfftfreq(64, 1.5) < 1.0 / finest_angstrom
    each, own = (np.fft.rfft(one)[:, seen] for one in (known, data))
    # A pair of frequencies counts twice, the constant once.
    pairs = np.where(np.arange(seen.sum()) == 0, 1.0, 2.0) / 64.0
    power = np.sum(pairs * np.abs(own[:, None] - each) ** 2, axis=2)
    weight = np.exp(-(power - power.min(1, keepdims=True)) / (2.0 * noise**2))
    return weight @ known / weight.sum(1, keepdims=True)


@app.function
def correlation(first, second):
    """Return the correlation of rows at each frequency, over all rows."""
    a, b = np.fft.rfft(first), np.fft.rfft(second)
    size = np.sum(np.abs(a) ** 2, axis=0) * np.sum(np.abs(b) ** 2, axis=0)
    return np.sum((a * b.conj()).real, axis=0) / np.sqrt(size)


@app.function
def two_halves(shifted_turns, noise, finest_angstrom):
    """Return true profiles of 64 molecules, and those restored from each half."""
    rng = np.random.default_rng(0)
    truth = helix(rng.uniform(-25.0, 25.0, 64), 9.0, shifted_turns)
    data = truth + noise * rng.standard_normal((2, *truth.shape))
    known = training_set()
    return truth, [restored(one, known, noise, finest_angstrom) for one in data]


@app.cell
def _():
    def restoring(shifted, noise, finest):
        truth, halves = two_halves(shifted, noise, finest)
        at, frequency = (np.arange(64) - 32.0) * 1.5, np.fft.rfftfreq(64, 1.5)
        agree, true = correlation(*halves), correlation(halves[0], truth)
        curves = Line(at, truth[0], "truth"), Line(at, halves[0][0], "restored")
        fsc = (
            Line(frequency[:26], agree[:26], "between halves"),
            Line(frequency[:26], true[:26], "with the truth"),
            Line([1 / finest, 1 / finest], [-1.0, 1.0], "end of the data", dashed=True),
        )
        stripes = int(np.argmin(np.abs(frequency - 1.0 / 5.4)))
        claimed = signal_to_noise(torch.tensor(agree), joined=False)[stripes]
        unit, high = "frequency (1/Å)", (-1.1, 1.1)
        return Plot(
            (
                Panel(curves, "A molecule", "place (Å)", "density", None, (-0.5, 2.5)),
                Panel(fsc, "Correlation", unit, "correlation", None, high),
            ),
            says=f"At 5.4 Å the halves correlate by {agree[stripes]:.2f} (signal over noise "
            f"{float(claimed):.1f}); with the truth by {true[stripes]:.2f}.",
        )

    explore(
        restoring,
        shifted=Slider("stripes shifted by (turns)", (0, 0.125, 0.25, 0.375, 0.5), 0),
        noise=Slider("noise (standard deviation)", (0.02, 0.05, 0.1, 0.2, 0.4), 0.05),
        finest=Slider("data up to (Å)", (4, 5, 8, 12), 8),
    )
    return


@app.cell
def _():
    mo.md(r"""
    So the resolution must come from maps that the prior has not touched.

    ## A network that says "empty"

    Other networks read maps: each voxel is to be named helix, sheet or nothing. A first try
    often ends like this: the loss falls, the accuracy is 97 %, and the answer is "nothing",
    everywhere. It is no bug. If 97 % of the voxels are empty, that is mostly right.

    Say that the feature which a network has found is normal with unit spread, about 0 in
    empty voxels and about $a$ in a helix, whose share is $\pi$. It is right most often if it
    says helix where that is likelier, where the feature is beyond

    $$f > \frac{a}{2} + \frac1a \log \frac{1 - \pi}{\pi\, w} , \qquad w = 1 .$$

    Early in training $a$ is small, the threshold is far out, and no voxel gets there.
    Give voxels of a helix the weight $w$ in the loss: it stands beside $\pi$, as if helices
    were more common. Raise it, and watch what is found and what is right of what is
    named. The outputs are then no probabilities any more.
    """)
    return


@app.function
def named(separation, share, weight):
    """Return threshold, accuracy, share of helix found, and of named that is right."""
    threshold = separation / 2.0 + np.log((1.0 - share) / (share * weight)) / separation
    found, false = ndtr(separation - threshold), ndtr(-threshold)
    right = share * found + (1.0 - share) * (1.0 - false)
    all_named = share * found + (1.0 - share) * false
    return threshold, right, found, share * found / max(all_named, 1e-300)


@app.cell
def _():
    def empty(separation, percent, weight):
        share, f = percent / 100.0, np.linspace(-4.0, 8.0, 121)
        threshold, right, found, precise = named(separation, share, weight)
        bell = np.exp(-(f**2) / 2.0) / np.sqrt(2.0 * np.pi)
        other = np.exp(-((f - separation) ** 2) / 2.0) / np.sqrt(2.0 * np.pi)
        curves = (
            Line(f, (1.0 - share) * bell, "empty"),
            Line(f, share * other, "helix"),
            Line([threshold, threshold], [1e-5, 1.0], "threshold", dashed=True),
        )
        bars = (Bars([1.0, 2.0, 3.0], [100 * right, 100 * found, 100 * precise]),)
        kinds, wide = "1 accuracy, 2 found, 3 named rightly", (-4.0, 8.0)
        return Plot(
            (
                Panel(curves, "Voxels", "feature", "", wide, (1e-5, 1.0), log_y=True),
                Panel(bars, "Of 100", kinds, "%", None, (0.0, 100.0)),
            ),
            says=f"Accuracy {100 * right:.1f} %, where 'empty' everywhere has "
            f"{100 * (1 - share):.0f} %; {100 * found:.1f} % of the helix is found.",
        )

    explore(
        empty,
        separation=Slider("separation a", (0.5, 1, 2, 3, 4), 1),
        percent=Slider("share of helix (%)", (1, 3, 10, 30), 3),
        weight=Slider("weight of helix", (1, 3, 10, 30, 100), 1),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *The map looks better than its resolution.* A network restored it. Show the other too.
    - *A ligand or a rare fold is gone.* A prior takes for noise what it has not seen.
    - *Accuracy is high from the first epoch.* Compare it with that of a constant answer.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "Values x are normal with mean 0 and variance 1, and noise has the power 1. A noisy "
        "value is 2. What does Tweedie's formula give for x?",
        2.0 + 1.0 * (-2.0 / 2.0),
        tolerance=0.01,
        hint=r"Noisy values have the variance 2, so the slope of $\log p(y)$ is $-y/2$.",
        explanation="1, as Wiener's filter says.",
    )
    return


@app.cell
def _():
    exercise(
        "3 % of the voxels are helix. A network gives every voxel the probability 0.03. What is "
        "its mean loss $-\\log p$ of the true class, in nats?",
        -(0.03 * np.log(0.03) + 0.97 * np.log(0.97)),
        tolerance=0.002,
        unit="nats",
        hint=r"$-0.03 \log 0.03 - 0.97 \log 0.97$.",
        explanation="0.135, where a coin has 0.693: most of the fall teaches this only.",
    )
    return


@app.cell
def _():
    choose(
        "Half-maps correlate to 4 Å. Each is improved by the same network, and now they "
        "correlate to 2.5 Å. Which resolution has the map?",
        ("2.5 Å.", "4 Å.", "About 3.2 Å, in the middle."),
        1,
        hint="What else than the images have both halves in common?",
        explanation="Beyond 4 Å the halves agree about the network.",
    )
    return


@app.function
def test_tweedie_is_the_posterior_mean():
    """By direct sums over x, a grid fine enough for 1e-6."""
    x = np.linspace(-2.0, 3.0, 20_001)
    prior = 0.75 * np.exp(-(x**2) / 0.005) / 0.05
    prior += 0.25 * np.exp(-((x - 1.0) ** 2) / 0.08) / 0.2
    for y in (-0.3, 0.4, 0.6, 1.5):
        weight = prior * np.exp(-((y - x) ** 2) / (2.0 * 0.3**2))
        best, _ = voxel_denoiser([y], 0.3, 0.25)
        assert abs(best[0] - np.sum(weight * x) / np.sum(weight)) < 1e-6


@app.function
def test_halves_agree_about_the_prior():
    """Unmeasured stripes: halves agree; with the truth, the cosine of the shift (0.05)."""
    at = int(np.argmin(np.abs(np.fft.rfftfreq(64, 1.5) - 1.0 / 5.4)))
    for shifted in (0.0, 0.25, 0.5):
        truth, halves = two_halves(shifted, 0.02, 8.0)
        assert correlation(*halves)[at] > 0.95
        true = correlation(halves[0], truth)[at]
        assert abs(true - np.cos(2.0 * np.pi * shifted)) < 0.05
    # The program's ratio: 0.5 is as much signal as noise.
    assert abs(float(signal_to_noise(torch.tensor(0.5), joined=False)) - 1.0) < 1e-6


@app.function
def test_threshold_is_right_most_often():
    """Against 400,000 drawn voxels (0.2 % is four standard errors)."""
    threshold, right, found, _ = named(2.0, 0.1, 1.0)
    rng = np.random.default_rng(0)
    helical = rng.random(400_000) < 0.1
    feature = 2.0 * helical + rng.standard_normal(400_000)
    cuts = np.linspace(0.0, 4.0, 81)
    accuracy = np.array([np.mean((feature > cut) == helical) for cut in cuts])
    assert abs(accuracy.max() - right) < 0.002
    assert abs(np.mean(feature[helical] > threshold) - found) < 0.01


@app.cell
def _():
    closing(
        "learned_priors",
        library=["cryoinfer.reconstruction.backproject.signal_to_noise"],
        sources=[
            "B. Efron 2011, Tweedie's formula and selection bias, JASA 106, 1602.",
            "D. Kimanius et al. 2024, Nature Methods 21, 1216.",
            "learn_cryoem_math (Woollard): the notebook on secondary structure.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
