import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch

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
    from cryoinfer.reconstruction.kernel_regression import (
        ConformationPosterior,
        bandwidths,
        effective_number,
        narrowest_kernels,
    )


@app.cell
def _():
    opening("kernel_maps")
    return


@app.cell
def _():
    mo.md(r"""
    ## Ask the neighbours

    Principal components gave every particle a coordinate $z$. But a map of few components
    fades where it should move. So use the coordinate to choose particles: the map at
    $z^*$ is made of the images whose $z$ is near $z^*$, by the sums that make any map,

    $$V(\xi; z^*) = \frac{\sum_i K_i\, C_i\, y_i(\xi)}{\sum_i K_i\, C_i^2 + 1/\tau^2} ,
    \qquad K_i = 1 \text{ if } \lvert z_i - z^* \rvert < h, \text{ else } 0 .$$

    This is **kernel regression**, and $h$ is the **bandwidth**. With a small $h$ few images
    are left, and the map is noisy. With a large one it is blurred by the motion.

    Let a part move by $a$ ångström per unit of $z$, and $z$ be spread evenly. Its wave of
    frequency $s$ is turned by $2 \pi s a (z - z^*)$, and the mean over the kernel makes it
    weaker by

    $$\frac{1}{2h} \int_{-h}^{h} \cos(2 \pi s a u) \, \mathrm{d}u
    = \frac{\sin 2 \pi s a h}{2 \pi s a h} .$$

    The noise has the power $\sigma^2 / n$ with $n$ images in the kernel, and $n$ grows as $h$.
    Below, one blob stands still and one moves by 6 Å per unit of $z$, for 1,000 particles
    with $z$ between $-1$ and 1; the map at $z^* = 0$ is asked for. Find the bandwidth with
    the least error. Then make the noise stronger.
    """)
    return


@app.function
def weakened(frequency, angstrom_per_z, half_width):
    """Return by what the blur of a box kernel multiplies a wave of the moving part."""
    return np.sinc(2.0 * np.asarray(frequency) * angstrom_per_z * half_width)


@app.function
def moving_profiles(z, noise, seed):
    """Return profiles of 64 pixels of 1 angstrom, one a row, and the truth at z = 0."""
    at = np.arange(64.0) - 32.0

    def profile(where):
        moved = at - 8.0 - 6.0 * np.asarray(where, dtype=float)[:, None]
        return np.exp(-((at + 12.0) ** 2) / 18.0) + np.exp(-(moved**2) / 4.5)

    rng = np.random.default_rng(seed)
    return profile(z) + noise * rng.standard_normal((len(z), 64)), profile([0.0])[0]


@app.cell
def _():
    _z = np.random.default_rng(0).uniform(-1.0, 1.0, 1000)
    _widths = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)

    # Blur from images without noise; what noise adds is known.
    _clean, _truth = moving_profiles(_z, 0.0, 1)
    _near = [np.abs(_z) < width for width in _widths]
    _blur = np.array([np.mean((_clean[one].mean(0) - _truth) ** 2) for one in _near])

    def bandwidth(width, noise):
        images, truth = moving_profiles(_z, noise, 1)
        near = np.abs(_z) < width
        found, at = images[near].mean(0), np.arange(64.0) - 32.0
        rough = noise**2 / np.array([one.sum() for one in _near])
        maps = (Line(at, truth, "truth"), Line(at, found, "kernel map"))
        curves = (
            Line(_widths, np.sqrt(_blur), "blur"),
            Line(_widths, np.sqrt(rough), "noise"),
            Line(_widths, np.sqrt(_blur + rough), "both"),
        )
        best = _widths[(_blur + rough).argmin()]
        log = {"log_x": True, "log_y": True}
        return Plot(
            (
                Panel(maps, "Map", "place (Å)", "density", None, (-0.6, 1.6)),
                Panel(curves, "Error", "bandwidth h", "rms", None, (1e-3, 1.0), **log),
            ),
            says=f"{near.sum()} particles are in the kernel. The best bandwidth is {best:g}.",
        )

    explore(
        bandwidth,
        width=Slider("bandwidth h", _widths, 0.4),
        noise=Slider("noise (standard deviation)", (0.2, 0.5, 1, 2, 4), 1),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## A bandwidth for each shell

    The blur depends on the frequency, and so does the signal. Coarse waves hardly mind
    the motion: let them come from many particles. Waves in the middle are strong and are
    blurred: they want few. The finest are better blurred than noisy. So every shell of
    Fourier space gets a bandwidth of its own.

    Who chooses? Split the images. The map of one half, with a narrow kernel, is noisy but
    hardly blurred, and its noise is independent of the other half. The squared difference
    between it and the other half's map with bandwidth $h$ has the mean

    $$\operatorname{E} \lvert V_h^{(1)} - V_0^{(2)} \rvert^2
    = \text{error of } V_h^{(1)} + \text{noise of } V_0^{(2)} ,$$

    and the second term is the same for all $h$: the least difference tells the best $h$,
    without the truth. (The program asks how much of the images' power a map explains.)
    Kernels are nested, each of twice as many particles as the one before. A shell of a
    volume has thousands of coefficients; here each frequency has sixteen. Where is the
    choice narrow?
    """)
    return


@app.function
def nested_maps(squared_distance, half, transforms):
    """Return maps of both halves in the program's kernels, and particles in each."""
    squared, which = torch.from_numpy(squared_distance), torch.from_numpy(half)
    radii = bandwidths(squared, which)
    kernel = narrowest_kernels(squared, radii).numpy()
    maps, counts = [], []
    for number in (0, 1):
        each = [transforms[(half == number) & (kernel <= k)] for k in range(len(radii))]
        maps.append([one.mean(0) for one in each])
        counts.append([len(one) for one in each])
    return np.array(maps), np.array(counts).sum(0)


@app.function
def chosen_kernels(maps):
    """Return for each frequency the kernel that predicts the other half best."""
    first, second = maps
    missed = np.abs(first - second[0]) ** 2 + np.abs(second - first[0]) ** 2
    return missed.sum(1).argmin(0)


@app.function
def by_shell(count, noise, seed):
    """Return particles of kernels, their errors (kernels, frequencies), and the choice."""
    rng = np.random.default_rng(seed)
    z, half = rng.uniform(-1.0, 1.0, count), rng.permutation(count) % 2
    # Sixteen coefficients of each frequency: rows of one image, with their own noise.
    rows = [moving_profiles(z, noise, 16 * seed + row) for row in range(16)]
    images, goal = np.stack([one for one, _ in rows], 1), np.fft.rfft(rows[0][1])
    maps, counts = nested_maps(z**2, half, np.fft.rfft(images))
    error = np.mean(np.abs(maps.mean(0) - goal) ** 2, axis=1) / np.sum(
        np.abs(goal) ** 2
    )
    return counts, error, chosen_kernels(maps)


@app.cell
def _():
    source(nested_maps, chosen_kernels)
    return


@app.cell
def _():
    def shells(count, noise):
        counts, error, kernel = by_shell(count, noise, 1)
        own, frequency = error[kernel, np.arange(33)], np.arange(33) / 64.0
        told = [np.sqrt(one.sum()) for one in (error[0], error[-1], own)]
        picked = (
            Line(frequency, counts[kernel], "chosen"),
            Line(frequency, counts[error.argmin(0)], "best", dashed=True),
        )
        curves = (
            Line(frequency, np.sqrt(error[0]), "narrowest"),
            Line(frequency, np.sqrt(error[-1]), "all particles"),
            Line(frequency, np.sqrt(own), "chosen"),
        )
        unit = "frequency (1/Å)"
        return Plot(
            (
                Panel(picked, "Particles", unit, "in the kernel", log_y=True),
                Panel(curves, "Error", unit, "relative", log_y=True),
            ),
            says=f"Error over the size of the map: narrowest kernel {told[0]:.2f}, all "
            f"particles {told[1]:.2f}, chosen by shell {told[2]:.2f}.",
        )

    explore(
        shells,
        count=Slider("particles", (500, 1000, 2000, 4000), 2000),
        noise=Slider("noise (standard deviation)", (0.5, 1, 2), 1),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Near in which measure

    Of a particle one knows a posterior, a mean $m_i$ and a covariance $C_i$. It is tempting
    to count the distance in units of the particle's own error,
    $(m_i - z^*)^\mathsf{T} C_i^{-1} (m_i - z^*)$. But then a particle of which nothing is known
    is near to everything. Ask instead for the expected squared distance of the true $z_i$,
    in units of the spread $S$ of all particles:

    $$d_i^2 = (m_i - z^*)^\mathsf{T} S^{-1} (m_i - z^*) + \operatorname{tr} S^{-1} C_i .$$

    Below, 5 % of 4,000 particles are in a rare state at $z = 2$, and some of all are known
    badly. The map at $z^* = 2$ is to be made of 150. The bars show the truth about those
    that either measure takes.
    """)
    return


@app.function
def nearest_particles(own_measure, percent_bad, bad_sd, count=150):
    """Return true z of the particles nearest to 2."""
    rng = np.random.default_rng(0)
    truth = np.where(rng.random(4000) < 0.05, 2.0, 0.0) + rng.normal(0.0, 0.3, 4000)
    error = np.where(rng.random(4000) < percent_bad / 100.0, bad_sd, 0.15)
    spread = truth.std()
    # Posteriors under a normal prior of the particles' spread.
    share = spread**2 / (spread**2 + error**2)
    noisy = truth - truth.mean() + error * rng.standard_normal(4000)
    mean = truth.mean() + share * noisy
    variance = share * error**2
    known = ConformationPosterior(
        torch.from_numpy(mean[:, None]), torch.from_numpy(variance[:, None, None])
    )
    away = known.squared_distance(torch.tensor([2.0])).numpy()
    if own_measure:
        away = (mean - 2.0) ** 2 / variance
    return truth[away.argsort(kind="stable")[:count]]


@app.cell
def _():
    def measures(percent_bad, bad_sd):
        edges = np.linspace(-1.2, 3.2, 23)
        middle = (edges[1:] + edges[:-1]) / 2.0
        panels, told = [], []
        for own, name in ((True, "Own error"), (False, "Spread of all")):
            found = nearest_particles(own, percent_bad, bad_sd)
            bars = Bars(middle, np.histogram(found, edges)[0])
            panels.append(Panel((bars,), name, "true z", "particles", None, (0, 60)))
            told.append(100.0 * np.mean(found > 1.0))
        return Plot(
            tuple(panels),
            says=f"In the rare state are {told[0]:.0f} % of those near by their own error, "
            f"and {told[1]:.0f} % of those near by the spread of all.",
        )

    explore(
        measures,
        percent_bad=Slider("known badly (%)", (0, 10, 20, 40, 60), 40),
        bad_sd=Slider("their error (standard deviation)", (0.3, 0.6, 1, 2, 4), 2),
    )
    return


@app.cell
def _():
    mo.md(r"""
    A map whose shells have kernels of their own is made of no definite number of particles.
    The **effective number** is $(\sum w)^2 / \sum w^2$, where the weight $w$ of a particle is
    the share of Fourier voxels that it adds to. Two halves give half-maps at any $z^*$.

    ## What goes wrong in practice

    - *The maps at the ends of the path are all alike.* The kernel reaches to the middle.
    - *The map of a rare state looks like the common one.* Badly known particles are in it.
    - *The moving domain stays blurred.* More particles do not help if $z$ of each is known
      no better than the motion is wide.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "A domain moves by 10 Å per unit of z. By what is its wave of 5 Å period multiplied "
        "in the map of a kernel of half-width 0.1?",
        weakened(0.2, 10.0, 0.1),
        tolerance=0.01,
        hint=r"$\sin(x)/x$ with $x = 2 \pi \cdot 0.2 \cdot 10 \cdot 0.1$.",
        explanation="0.76; at 2.5 Å it would be 0.23.",
    )
    return


@app.cell
def _():
    exercise(
        "A kernel holds 400 of 100,000 particles. How many times larger is the noise of a "
        "coefficient than in the map of all?",
        np.sqrt(100_000 / 400),
        tolerance=0.2,
        hint="The power of the noise goes with 1 / number.",
        explanation="15.8 times.",
    )
    return


@app.cell
def _():
    choose(
        "Why may the bandwidth not be chosen by the squared difference of a map from the very "
        "images that it is made of?",
        ("It is slow.", "The narrowest kernel would win.", "The widest would win."),
        1,
        hint="Which map fits a single image best?",
        explanation="A map of one image fits it without error, noise and all.",
    )
    return


@app.function
def test_blur_of_a_kernel():
    """Mean of turned waves, by 100,001 places to 1e-4; and sin(x) / x."""
    mean = np.cos(0.4 * np.pi * np.linspace(-1.0, 1.0, 100_001)).mean()
    assert abs(mean - weakened(0.2, 10.0, 0.1)) < 1e-4


@app.function
def test_nested_kernels():
    """Each holds about twice as many; one kernel for all has its own number, exactly."""
    rng = np.random.default_rng(0)
    squared, half = rng.random(6400), rng.permutation(6400) % 2
    _, counts = nested_maps(squared, half, np.zeros((6400, 1)))
    assert counts[-1] == 6400
    # So many of either half: a few more than twice as many by chance.
    assert np.allclose(counts[1:] / counts[:-1], 2.0, rtol=0.1)
    kernel = torch.from_numpy(np.repeat([0, 1], [100, 300]))
    assert effective_number(kernel, torch.ones(10, dtype=torch.long), 8) == 400.0
    # Kish: shells of 1 and 4 voxels, of which the first takes 300 particles more.
    found = effective_number(kernel, torch.tensor([0, 1, 0]), 2)
    assert abs(found - (100 + 300 * 0.2) ** 2 / (100 + 300 * 0.2**2)) < 1e-3


@app.function
def test_chosen_by_the_other_half():
    """The choice by shell errs less than any one kernel for all shells, in 3 seeds."""
    for seed in range(3):
        _, error, kernel = by_shell(1000, 1.0, seed)
        assert error[kernel, np.arange(33)].sum() < 0.9 * error.sum(1).min()


@app.cell
def _():
    closing(
        "kernel_maps",
        library=[
            "cryoinfer.reconstruction.kernel_regression.bandwidths",
            "cryoinfer volumes",
        ],
        sources=[
            "E. A. Nadaraya 1964, On estimating regression, Theory of Probability 9, 141.",
            "M. A. Gilles and A. Singer 2025, RECOVAR, PNAS 122, e2419140122.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
