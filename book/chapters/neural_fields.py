import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    from itertools import pairwise

    import marimo as mo
    import numpy as np
    import torch

    from course import (
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


@app.cell
def _():
    opening("neural_fields")
    return


@app.cell
def _():
    mo.md(r"""
    ## A map that is asked

    A grid holds a map at its points, and between them one interpolates. One may as well
    keep a function that is asked for the value at a place $x$, any place, and gives it:
    $V(x) = f_w(x)$, with some thousand numbers $w$ that are learned. Where $f$ is a
    neural network, this is a **neural field**. It may be asked in space or, as in cryoDRGN,
    in Fourier space, where an image needs values on a slice; and it may be asked for a
    conformation too, $f_w(x, z)$.

    What does such a function prefer? Take the simplest network: one layer of waves with
    random frequencies $\omega_j$ that stay as they are, and learned weights,

    $$f_w(x) = \sum_{j=1}^{m} \left( a_j \cos \omega_j x + b_j \sin \omega_j x \right)
    / \sqrt m .$$

    Such waves are the **positional encoding** of larger networks. If the weights are normal
    with unit variance, values of $f$ at two places have the covariance
    $\tfrac1m \sum_j \cos \omega_j (x - x')$, for $\cos \cos + \sin \sin$ is the cosine of the
    difference. With frequencies drawn from a normal distribution of width $\beta$ its
    mean is

    $$k(x - x') = e^{-\beta^2 (x - x')^2 / 2} .$$

    So the network says beforehand that places nearer than $1/\beta$ have nearly the same
    density: a prior of resolution. Below it fits noisy samples of a profile. A small
    $\beta$ cannot show the detail. A large one shows noise, and falls to 0 in between.
    """)
    return


@app.function
def random_waves(places, frequencies):
    """Return features of places (n,), shape (n, 2 m), for m frequencies."""
    turns = np.asarray(places)[:, None] * frequencies
    return np.concatenate([np.cos(turns), np.sin(turns)], 1) / np.sqrt(len(frequencies))


@app.function
def profile(places_angstrom):
    """Return the density of three blobs of 3, 1.5 and 1.5 angstrom."""
    x = np.asarray(places_angstrom, dtype=float)
    blobs = ((-12.0, 3.0), (4.0, 1.5), (11.0, 1.5))
    return sum(np.exp(-((x - at) ** 2) / (2.0 * wide**2)) for at, wide in blobs)


@app.function
def fitted(places, values, asked, frequencies, noise_power):
    """Return the field at other places, by the weights that are most probable."""
    features = random_waves(places, frequencies)
    matrix = features @ features.T + noise_power * np.eye(len(places))
    return (
        random_waves(asked, frequencies) @ features.T @ np.linalg.solve(matrix, values)
    )


@app.cell
def _():
    def fit(beta, count, noise):
        rng = np.random.default_rng(0)
        places = np.sort(rng.uniform(-22.0, 22.0, 40))
        values = profile(places) + noise * rng.standard_normal(40)
        frequencies = np.random.default_rng(1).normal(0.0, beta, count)
        asked = np.linspace(-24.0, 24.0, 161)
        field = fitted(places, values, asked, frequencies, max(noise, 0.02) ** 2)
        error = np.sqrt(np.mean((field - profile(asked)) ** 2))
        marks = (
            Line(asked, profile(asked), "truth"),
            Line(asked, field, "field"),
            Points(places, values, "samples"),
        )
        return Plot(
            (Panel(marks, "", "place (Å)", "density", None, (-0.8, 1.8)),),
            says=f"Places nearer than {1 / beta:.1f} Å are thought alike. Root mean square "
            f"error {error:.3f}.",
        )

    explore(
        fit,
        beta=Slider("width of frequencies (1/Å)", (0.1, 0.2, 0.4, 0.7, 1.5, 4.0), 0.4),
        count=Slider("waves", (5, 20, 100, 500), 100),
        noise=Slider("noise (standard deviation)", (0.0, 0.1, 0.3), 0.1),
    )
    return


@app.cell
def _():
    source(random_waves, fitted)
    return


@app.cell
def _():
    mo.md(r"""
    ## The fine detail comes last

    Networks are not solved for, they are trained: weights follow the slope of the squared
    error, step by step. Values $f$ at the samples then change by
    $f \leftarrow f + \eta K (y - f)$, with the matrix $K$ of the covariances above. Along an
    eigenvector of $K$ with eigenvalue $\lambda$ the error shrinks by $1 - \eta \lambda$ each
    step. For samples all around a ring the eigenvectors are waves, and the eigenvalue at
    $s$ cycles per ångström is the transform of the kernel,
    $\lambda(s) \propto e^{-2 \pi^2 s^2 / \beta^2}$. With a step that the largest bears,
    $\eta = 1 / \lambda(0)$, a wave is learned after

    $$\frac{1}{\eta \lambda(s)} = e^{\,2 \pi^2 s^2 / \beta^2} \text{ steps} .$$

    Coarse first, fine exponentially later: the **spectral bias** of networks. It is a
    blessing while there is noise: to stop early is a low-pass filter. It is a curse when
    one asks whether training is done. Move the steps. The loss falls, then hardly
    changes, and yet the detail is missing.
    """)
    return


@app.function
def ring_eigenvalues(count, spacing_angstrom, beta):
    """Return eigenvalues of the kernel on a ring at each frequency, and these (1/Å)."""
    away = np.minimum(np.arange(count), count - np.arange(count)) * spacing_angstrom
    values = np.fft.rfft(np.exp(-(beta**2) * away**2 / 2.0)).real
    return np.maximum(values, 0.0), np.fft.rfftfreq(count, spacing_angstrom)


@app.function
def trained(values, spacing_angstrom, beta, steps):
    """Return the field on a ring of samples after steps of gradient descent from 0."""
    own, _ = ring_eigenvalues(len(values), spacing_angstrom, beta)
    learned = 1.0 - (1.0 - own / own[0]) ** steps
    return np.fft.irfft(learned * np.fft.rfft(values), len(values))


@app.cell
def _():
    def training(power_of_ten, beta, noise):
        at = np.arange(96) * 0.5 - 24.0
        truth = profile(at)
        seen = truth + noise * np.random.default_rng(2).standard_normal(96)
        steps = 10**power_of_ten
        field = trained(seen, 0.5, beta, steps)
        own, frequency = ring_eigenvalues(96, 0.5, beta)
        learned = 100.0 * (1.0 - (1.0 - own / own[0]) ** steps)
        loss = np.sqrt(np.mean((field - seen) ** 2))
        error = np.sqrt(np.mean((field - truth) ** 2))
        curves = (Line(at, truth, "truth"), Line(at, field, "field"))
        share = (Line(frequency[:33], learned[:33]),)
        unit, high = "frequency (1/Å)", (0.0, 105.0)
        return Plot(
            (
                Panel(curves, "Field", "place (Å)", "density", None, (-0.8, 1.8)),
                Panel(share, "Learned", unit, "share (%)", None, high),
            ),
            says=f"After {steps:,} steps the loss is {loss:.3f} and the error {error:.3f}.",
        )

    explore(
        training,
        power_of_ten=Slider("steps (power of ten)", (0, 1, 2, 3, 4, 5, 6), 2),
        beta=Slider("width of frequencies (1/Å)", (0.2, 0.4, 0.8, 1.6), 0.4),
        noise=Slider("noise (standard deviation)", (0.0, 0.2, 0.5), 0.2),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What it says of conformations that nobody saw

    Give the field a second input, the conformation $z$, with its own waves. Then the
    covariance is a product, $k(x - x')\, k_z(z - z')$. Let maps at some $z_j$ be known
    well. The most probable map elsewhere is a weighted sum of them,

    $$V(z) = \sum_j c_j(z)\, V(z_j), \qquad
    c(z) = \left( K_z + \epsilon I \right)^{-1} k_z(z) ,$$

    since $x$ does not enter the weights. Where conformations are close to each other the
    sum shows what lies between. Where they are far apart it does what principal components
    do: one fades, the other appears. Nothing in it knows that matter moves. Deeper networks
    mix their inputs in less simple ways, but the question stays: between the data stands
    the prior. Below a blob moves by 24 Å; some conformations were seen.
    """)
    return


@app.function
def between(seen, asked, reach):
    """Return weights of the conformations that were seen, at one that is asked for."""
    near = np.exp(-((seen[:, None] - seen) ** 2) / (2.0 * reach**2))
    to = np.exp(-((seen - asked) ** 2) / (2.0 * reach**2))
    return np.linalg.solve(near + 1e-3 * np.eye(len(seen)), to)


@app.cell
def _():
    def moving(count, reach, asked):
        seen = np.linspace(0.0, 1.0, count)
        at = np.linspace(-24.0, 24.0, 121)

        def maps(z):
            return np.exp(
                -((at - (24.0 * np.atleast_1d(z)[:, None] - 12.0)) ** 2) / 18.0
            )

        truth = maps(asked)[0]
        field = between(seen, asked, reach) @ maps(seen)
        error = np.sum((field - truth) ** 2) / np.sum(truth**2)
        places = 24.0 * seen - 12.0
        marks = (
            Line(at, truth, "truth"),
            Line(at, field, "field"),
            Points(places, np.zeros(count), "seen there"),
        )
        return Plot(
            (Panel(marks, "", "place (Å)", "density", None, (-0.4, 1.3)),),
            says=f"The conformations seen are {24 / (count - 1):.1f} Å apart. "
            f"{100 * error:.1f} % of the power is wrong.",
        )

    explore(
        moving,
        count=Slider("conformations seen", (3, 5, 9, 17), 5),
        reach=Slider("reach of z", (0.05, 0.1, 0.2, 0.4), 0.2),
        asked=Slider(
            "z asked for", (0.0, 0.125, 0.25, 0.3125, 0.375, 0.44, 0.5), 0.375
        ),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## The price

    A grid that is asked for a value reads 8 neighbours: 8 multiplications. A network
    multiplies by every weight. With 200 inputs (encoding and $z$), three hidden layers of
    1,024 and 2 outputs it has 2.3 million weights, about as many as a map of $128^3$ has
    voxels. It is asked for the 6,434 coefficients of an image of 128 pixels: $1.5 \times
    10^{10}$ multiplications, where a grid takes 51,000; and about three times as many when
    it is trained. For that it says what a grid cannot: it needs no memory that grows with
    the box, it is asked off the grid at no loss, and it bends in $z$ as it likes.
    """)
    return


@app.function
def network_weights(inputs, width, layers, outputs=2):
    """Return weights and biases of a network with equally wide hidden layers."""
    hidden = (layers - 1) * (width * width + width)
    return inputs * width + width + hidden + width * outputs + outputs


@app.cell
def _():
    mo.md(r"""
    This program keeps grids, and bends in $z$ by *Curves in the space of maps*.

    ## What goes wrong in practice

    - *The loss is flat. Is it done?* The loss is mostly noise, and what is learned late has
      little power. Compare two half-sets by shell instead.
    - *The map is smooth, and wrong in detail.* The encoding's frequencies are too low.
    - *Maps at z where no particle is look fine.* A network answers everywhere.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "A network of 3 hidden layers of 256 reads 3 numbers and gives 1. How many weights "
        "and biases has it?",
        network_weights(3, 256, 3, 1),
        tolerance=0.5,
        hint="3 x 256, then 256 x 256 twice, then 256; and a bias for each value.",
        explanation="132,096 weights and 769 biases.",
    )
    return


@app.cell
def _():
    exercise(
        r"Frequencies have the width $\beta$ = 1 per ångström. After about how many steps is "
        "a wave of period 5 Å learned?",
        np.exp(2.0 * np.pi**2 * 0.2**2),
        tolerance=0.1,
        unit="steps",
        hint=r"$e^{2 \pi^2 s^2 / \beta^2}$ with $s = 1/5$.",
        explanation="2.2. A period of 2.5 Å takes 24 steps, of 1.5 Å 6,500.",
    )
    return


@app.cell
def _():
    choose(
        "Two fields are trained on two halves of the images. Their maps agree at all shells "
        "to 3 Å. What else could have made them agree than the images?",
        (
            "Nothing: halves were independent.",
            "The same noise in both halves.",
            "The same network, encoding and start.",
        ),
        2,
        hint="Which prior do both have?",
        explanation="What both take from a common prior agrees, true or not.",
    )
    return


@app.function
def test_waves_make_the_kernel():
    """The covariance is a Gaussian (Rahimi and Recht), to 4 / sqrt(2 x 20,000 waves)."""
    frequencies = np.random.default_rng(0).normal(0.0, 0.5, 20_000)
    places = np.linspace(0.0, 6.0, 13)
    features = random_waves(places, frequencies)
    expected = np.exp(-0.125 * (places[:, None] - places) ** 2)
    assert np.abs(features @ features.T - expected).max() < 0.02


@app.function
def test_training_is_gradient_descent():
    """Literal steps on a ring (rounding), and the transform of the Gaussian."""
    values = np.random.default_rng(0).standard_normal(64)
    away = np.minimum(np.arange(64), 64 - np.arange(64)) * 0.5
    kernel = np.exp(-(0.8**2) * away**2 / 2.0)
    matrix = np.stack([np.roll(kernel, k) for k in range(64)])
    field = np.zeros(64)
    for _ in range(50):
        field += matrix @ (values - field) / kernel.sum()
    assert np.allclose(field, trained(values, 0.5, 0.8, 50), atol=1e-10)
    own, frequency = ring_eigenvalues(64, 0.5, 0.8)
    expected = np.exp(-2.0 * np.pi**2 * frequency[:10] ** 2 / 0.8**2)
    assert np.allclose(own[:10] / own[0], expected, rtol=1e-6)


@app.function
def test_weights_are_counted_as_torch_does():
    """Exactly."""
    sizes = (5, 16, 16, 16, 2)
    layers = [torch.nn.Linear(a, b) for a, b in pairwise(sizes)]
    counted = sum(p.numel() for one in layers for p in one.parameters())
    assert counted == network_weights(5, 16, 3)


@app.cell
def _():
    closing(
        "neural_fields",
        library=[
            "cryoinfer.inference.voxel_map.VoxelMap",
            "cryoinfer.workflows.field_heterogeneity.field_heterogeneity",
        ],
        sources=[
            "A. Rahimi and B. Recht 2007, Random features for large-scale kernel machines.",
            "M. Tancik et al. 2020, Advances in Neural Information Processing Systems 33.",
            "E. D. Zhong et al. 2021, CryoDRGN, Nature Methods 18, 176.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
