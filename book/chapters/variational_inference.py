import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import dataclasses

    import marimo as mo
    import numpy as np
    import torch
    from scipy.stats import norm

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
    from cryoinfer.inference import variational
    from cryoinfer.physics.ctf import electron_wavelength_angstrom, evaluate_ctf
    from cryoinfer.records import Optics

    STEPS = variational.VariationalConfig(steps=200, samples=8, learning_rate=0.1)


@app.cell
def _():
    opening("variational_inference")
    return


@app.cell
def _():
    mo.md(r"""
    ## Choose the shape, then fit it

    A number $x$ is unknown: a shift, a defocus, a pose. After the image $y$ it has the posterior $p(x \mid y) = p(y, x) / p(y)$. The top is easy to compute at any one $x$. The evidence
    $p(y) = \int p(y, x)\, \mathrm{d}x$ is an integral over all $x$, and with six or ten unknowns no grid has enough points.

    **Variational inference** avoids the integral. Choose a family of densities that one can handle, say Gaussians $q(x)$ with mean $m$ and standard deviation $s$, called the **guide**. Then
    find the member that is nearest to the posterior.

    Nearest in what? Take the identity of the chapter on EM, with $q$ for the weights:

    $$\log p(y) = \int q \log \frac{p(y, x)}{q(x)}\, \mathrm{d}x +
    \int q \log \frac{q(x)}{p(x \mid y)}\, \mathrm{d}x .$$

    The first integral is the **evidence lower bound**, or ELBO; it needs only $p(y, x)$. The second is the divergence $\mathrm{KL}(q \,\|\, p)$, which is never negative. Their sum does not
    depend on $q$. To raise the bound is to lower the divergence, and the bound is the evidence exactly if $q$ is the posterior.

    ## By hand

    An unknown mean $\mu$ with the prior $N(1, \sqrt 5)$ (the second number is the standard deviation). Two measurements, 8 and 9, each with noise of $\sqrt 2$. Precisions, which are
    $1/\text{variance}$, add up:

    $$\frac{1}{5} + \frac{1}{2} + \frac{1}{2} = 1.2, \qquad
    m = \frac{1/5 + 8/2 + 9/2}{1.2} = 7.25, \qquad s = \frac{1}{\sqrt{1.2}} = 0.9129 .$$

    Find this with the sliders: make the ELBO as large as you can. It cannot pass the evidence, $-8.24$ nats. Note that a guide that is too narrow loses less than one that is too wide by the
    same factor.
    """)
    return


@app.function
def elbo_by_hand(mean, deviation):
    """Return the ELBO of a guide N(mean, deviation) for the unknown mean, in nats."""
    total = norm.entropy(mean, deviation)
    for value, spread in ((1.0, 5.0**0.5), (8.0, 2.0**0.5), (9.0, 2.0**0.5)):
        total += norm.logpdf(mean, value, spread) - 0.5 * (deviation / spread) ** 2
    return float(total)


@app.cell
def _():
    def guide(mean, deviation):
        x = np.linspace(2.0, 12.0, 201)
        marks = (
            Line(x, norm.pdf(x, 7.25, 0.9129), "posterior"),
            Line(x, norm.pdf(x, mean, deviation), "guide"),
        )
        here, best = elbo_by_hand(mean, deviation), elbo_by_hand(7.25, 1.2**-0.5)
        return Plot(
            (Panel(marks, "The unknown mean", "mean", "density", None, (0, 1.0)),),
            f"ELBO {here:.3f} nats; evidence {best:.3f}; divergence {best - here:.3f}.",
        )

    explore(
        guide,
        mean=Slider("mean of the guide", np.arange(4.0, 9.76, 0.25).tolist(), 5.0),
        deviation=Slider("its standard deviation", (0.45, 0.65, 0.91, 1.3, 1.8), 1.8),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## With slopes

    For other models the ELBO has no formula. It is an average over the guide, though, and *Gradients of what is random* says how to climb such a thing. Draw $x = m + s e$ with
    $e \sim N(0, 1)$, compute $\log p(y, x) - \log q(x)$, and follow its slope in $m$ and $\log s$. This needs one thing of the model: that $\log p(y, x)$ has a slope. It is **stochastic
    variational inference**.

    Take an image in one dimension: a blob of width 3.16 pixels and height 1, moved by an unknown shift $x$ with the prior $N(0, 2)$, on 32 pixels with noise $\nu$. How narrow should the
    posterior be? The slope of the blob along $x$ has the sum of squares $\sqrt\pi / (2 w) = 0.280$ with $w = 3.16$. So

    $$s = \left(\frac{0.280}{\nu^2} + \frac{1}{2^2}\right)^{-1/2} :$$

    0.188 pixels at $\nu = 0.1$, and 0.371 at 0.2. The fit finds this. Now count the likelihood of the image 32 times, once for each pixel: a mistake that is easily made where a sum over
    pixels meets another sum over pixels. The result looks wonderful. Its error bar is 0.033 pixels, and the truth is 6 error bars off.
    """)
    return


@app.function
def blob(shift):
    """Return a blob of height 1 and variance 10, moved by shifts (...), in (..., 32)."""
    x = torch.arange(32, dtype=torch.float64) - 16
    return torch.exp(-0.05 * (x - shift[..., None]) ** 2)


@app.function
def expected_deviation(noise, counted=1):
    """Return the standard deviation of the shift, from the blob's slope and the prior."""
    return (counted * np.sqrt(np.pi / 40.0) / noise**2 + 0.25) ** -0.5


@app.function
def fitted_shift(noise, counted=1, truth=1.0, seed=4):
    """Return an image, and mean and deviation of a guide that starts at the best of 17."""
    rng = np.random.default_rng(seed)
    image = blob(torch.tensor(truth)) + noise * torch.as_tensor(rng.normal(size=32))

    def log_joint(unknown):
        squares = ((image - blob(unknown[..., 0])) / noise).square().sum(-1)
        return -0.5 * counted * squares - 0.5 * (unknown[..., 0] / 2.0) ** 2

    tried = torch.linspace(-3.0, 5.0, 17, dtype=torch.float64)[:, None, None]
    wide = torch.tensor([[[2.0 * expected_deviation(noise, counted)]]]).double()
    start = variational.GaussianGuide(tried[log_joint(tried).argmax()], wide)
    found = variational.fit_guides(
        log_joint, start, STEPS, torch.Generator().manual_seed(seed)
    )
    return image.numpy(), float(found.mean), float(found.standard_deviation)


@app.function
def exact_shift(image, noise):
    """Return shifts on a fine grid, their posterior over its top, and its deviation."""
    x = torch.linspace(-3.0, 5.0, 1601, dtype=torch.float64)
    squares = ((torch.as_tensor(image) - blob(x)) / noise).square().sum(-1)
    mass = (-0.5 * squares - 0.5 * (x / 2.0) ** 2).softmax(0)
    deviation = (mass * (x - (mass * x).sum()) ** 2).sum().sqrt()
    return x.numpy(), (mass / mass.max()).numpy(), float(deviation)


@app.cell
def _():
    _fits = {(n, c): fitted_shift(n, c) for n in (0.05, 0.1, 0.2, 0.4) for c in (1, 32)}

    _clean = blob(torch.tensor([1.0]).double())[0].numpy()

    def shifts(noise, counted):
        image, mean, deviation = _fits[noise, counted]
        x, density, spread = exact_shift(image, noise)
        pixel = range(-16, 16)
        true = Line(pixel, _clean, "true", dashed=True)
        left = (Line(pixel, image, "measured"), true)
        keep = slice(400, 1201, 2)
        given = norm.pdf(x, mean, deviation)
        right = (
            Line(x[keep], density[keep], "exact posterior"),
            Line(x[keep], given[keep] / given.max(), "fitted guide"),
            Line([1.0, 1.0], [0.0, 1.0], "true shift", dashed=True),
        )
        return Plot(
            (
                Panel(left, "The image", "place (pixel)", "signal", None, (-1.2, 2.2)),
                Panel(right, "The shift", "shift (pixel)", "density / top", (-1, 3)),
            ),
            f"Fitted {mean:.3f} with an error bar of {deviation:.3f}; exact error bar {spread:.3f}; the formula {expected_deviation(noise, counted):.3f}; the truth is {abs(mean - 1.0) / deviation:.1f} error bars away.",
        )

    explore(
        shifts,
        noise=Slider("noise", (0.05, 0.1, 0.2, 0.4), 0.1),
        counted=Slider("times the image is counted", (1, 32), 1),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What is lost

    *Correlations.* If the guide of two unknowns is a product $q(x_1)\, q(x_2)$, it has no correlation to give. It then takes the width of a cut through the posterior instead of its shadow:
    with a correlation $c$, each standard deviation comes out $\sqrt{1 - c^2}$ times too small. A guide with a full covariance costs little and does not.

    *Other modes.* $\mathrm{KL}(q \,\|\, p)$ is large where $q$ is and $p$ is not, so a guide avoids empty places, even at the price of missing others that are full. A Gaussian settles on
    one top and does not tell of the others.

    Take the defocus of an image. The model is $\sin(\pi \lambda\, \Delta z\, s^2)$ at 100 frequencies $s$ up to 1/5 Å, the truth is 15,000 Å, and the prior is wide. The posterior has hills
    about 2,500 Å apart, where the waves at high frequency match again. Choose where the guide starts. Some settle on a wrong hill with a tight error bar, some lie over several hills. The
    bound tells: compare it with that of a start at 15,000 Å.
    """)
    return


@app.function
def waves(defocus_angstrom):
    """Return sin(pi lambda dz s^2) of defoci (...), at 100 frequencies to 1/5 angstrom."""
    s = torch.linspace(0.0, 0.2, 101, dtype=torch.float64)[1:]
    wave = electron_wavelength_angstrom(torch.tensor(300.0, dtype=torch.float64))
    return torch.sin(torch.pi * wave * defocus_angstrom[..., None] * s**2)


@app.function
def defocus_model(noise):
    """Return log p(y, dz) as a function of defoci in units of 1,000 angstrom."""
    grain = torch.as_tensor(np.random.default_rng(2).normal(size=100))
    image = waves(torch.tensor(15000.0).double()) + noise * grain

    def log_joint(unknown):
        squares = ((image - waves(1000.0 * unknown[..., 0])) / noise).square().sum(-1)
        return -0.5 * squares - 0.5 * ((unknown[..., 0] - 15.0) / 4.0) ** 2

    return log_joint


@app.function
def fitted_defoci(noise, starts):
    """Return means, standard deviations and bounds of guides from several starts."""
    model, torch_seed = defocus_model(noise), torch.Generator().manual_seed(0)
    mean = torch.tensor(starts).double()[:, None]
    start = variational.GaussianGuide(
        mean, torch.full((len(starts), 1, 1), 0.3).double()
    )
    found = variational.fit_guides(model, start, STEPS, torch_seed)
    bounds = variational.bound(model, found, 2000, torch_seed, importance=False)
    told = (found.mean[:, 0], found.standard_deviation[:, 0], bounds)
    return [one.numpy() for one in told]


@app.cell
def _():
    _starts = [8.5, 10.0, 11.5, 13.0, 14.0, 15.0, 16.0, 17.5, 19.0, 20.5]
    _found = {noise: fitted_defoci(noise, _starts) for noise in (0.5, 1.0, 2.0)}

    def hills(start, noise):
        grid = torch.linspace(7.0, 23.0, 401, dtype=torch.float64)
        log = defocus_model(noise)(grid[:, None, None])[:, 0].numpy()
        mean, deviation, bounds = (one[_starts.index(start)] for one in _found[noise])
        x, density = grid.numpy(), norm.pdf(grid.numpy(), mean, deviation)
        left = (Line(x, log - log.max()), Points([start], [-60.0], "start"))
        right = (
            Line(x, np.exp(log - log.max()), "posterior"),
            Line(x, density / density.max(), "guide"),
        )
        name, below = "defocus (1,000 Å)", "nats below the top"
        return Plot(
            (
                Panel(left, "Log posterior", name, below, None, (-60, 3)),
                Panel(right, "Over their tops", name, "density / top", None, (0, 1.05)),
            ),
            f"The guide ends at {1000 * mean:.0f} Å with an error bar of {1000 * deviation:.0f} Å; bound {bounds:.1f} nats, best of all starts {_found[noise][2].max():.1f}.",
        )

    explore(
        hills,
        start=Slider("start (1,000 Å)", _starts, 13.0),
        noise=Slider("noise", (0.5, 1.0, 2.0), 1.0),
    )
    return


@app.cell
def _():
    source(elbo_by_hand, fitted_shift, fitted_defoci)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"The error bars are far too small."* The likelihood was counted several times (a sum over pixels within another), or the guide cannot hold the correlations of the posterior.
    - *"The ELBO is high and the answer is wrong."* High compared with what? Fit from several starts and compare.
    - *"One guide for all particles."* If the data are 1,000 images with 1,000 shifts, a single guide learns their population, not the shift of any. Each image needs its own, or a network
      that makes it from the image (*Amortization*).

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "A third measurement of the unknown mean gives 7, with the same noise. What is the mean of the posterior now?",
        (1 / 5 + 8 / 2 + 9 / 2 + 7 / 2) / (1 / 5 + 3 / 2),
        tolerance=0.02,
        hint="Add its precision below, and its value times the precision above.",
        explanation=r"$(0.2 + 4 + 4.5 + 3.5) / 1.7 = 7.18$.",
    )
    return


@app.cell
def _():
    exercise(
        "The noise of the blob is 0.4. What is the standard deviation of the shift, in pixels?",
        expected_deviation(0.4),
        tolerance=0.01,
        hint="Put the noise into the formula; the prior counts too.",
        explanation=r"$(0.280 / 0.16 + 0.25)^{-1/2} = 0.71$. Without the prior it were 0.76.",
    )
    return


@app.cell
def _():
    choose(
        "Rotation and motion of a particle have a posterior correlation of 0.95. A guide that is a product is fitted. How large are its error bars?",
        ("As large as the true ones.", "A third of them.", "Three times them."),
        1,
        hint=r"$\sqrt{1 - 0.95^2}$.",
        explanation="0.31 of them: the width of a cut, not of the shadow.",
    )
    return


@app.function
def test_unknown_mean():
    """Known posterior N(7.25, 0.9129); the bound there is the evidence (quadrature)."""
    best = elbo_by_hand(7.25, 1.2**-0.5)
    x = np.linspace(-20.0, 30.0, 50_001)
    joint = (
        norm.pdf(x, 1.0, 5**0.5) * norm.pdf(x, 8.0, 2**0.5) * norm.pdf(x, 9.0, 2**0.5)
    )
    assert abs(best - np.log(joint.sum() * 0.001)) < 1e-9
    assert abs(best + 8.24) < 0.005
    mean = (joint * x).sum() / joint.sum()
    spread = np.sqrt((joint * (x - mean) ** 2).sum() / joint.sum())
    assert abs(mean - 7.25) < 1e-9
    assert abs(spread - 0.9129) < 5e-5
    assert best > elbo_by_hand(7.25, spread / 2) > elbo_by_hand(7.25, spread * 2)


@app.function
def test_shift():
    """0.188, 0.371, 0.033 (counted 32 times) within 10 % for one image; fits to 3 %."""
    for noise, counted, told in ((0.1, 1, 0.188), (0.2, 1, 0.371), (0.1, 32, 0.033)):
        assert abs(expected_deviation(noise, counted) - told) < 0.0007
        image, _, deviation = fitted_shift(noise, counted)
        assert abs(deviation / told - 1.0) < 0.1
        _, _, exact = exact_shift(image, noise)
        assert (abs(deviation / exact - 1.0) < 0.03) == (counted == 1)


@app.function
def test_product_guide():
    """A cut is sqrt(1 - c^2) of a shadow; waves are the CTF without Cs and absorption."""
    cut = np.linalg.inv(np.array([[1.0, 0.95], [0.95, 1.0]]))[0, 0] ** -0.5
    assert abs(cut - np.sqrt(1.0 - 0.95**2)) < 1e-12
    one = {f"defocus_{axis}_angstrom": 9000.0 for axis in "uv"} | {"voltage_kv": 300.0}
    one |= {"cs_mm": 0.0, "amplitude_contrast": 0.0}
    values = {name: torch.tensor([value]).double() for name, value in one.items()}
    optics = dataclasses.replace(Optics.without_ctf(1, 1.0), **values)
    s = torch.linspace(0.0, 0.2, 101, dtype=torch.float64)[1:]
    ctf = evaluate_ctf(optics, s, torch.zeros_like(s))[0]
    assert torch.allclose(ctf, waves(torch.tensor(9000.0).double()), atol=1e-9)


@app.cell
def _():
    closing(
        "variational_inference",
        library=["cryoinfer.inference.variational.fit_guides", "cryoinfer dynamics"],
        sources=[
            "D. P. Kingma and M. Welling 2013, Auto-encoding variational Bayes, arXiv.",
            "D. M. Blei, A. Kucukelbir and J. D. McAuliffe 2017, Variational inference: a review for statisticians, Journal of the American Statistical Association.",
            "learn_cryoem_math (Woollard), notebooks pyro_*.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
