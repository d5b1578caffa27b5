import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy import special

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
    from cryoinfer.data.simulated_acquisition import noise_of_variance
    from cryoinfer.fourier.grids import FourierDisc
    from cryoinfer.fourier.transform import image_to_fourier
    from cryoinfer.physics.noise import GaussianNoise, radial_power


@app.cell
def _():
    opening("white_noise")
    return


@app.cell
def _():
    mo.md(r"""
    ## A walk of electrons

    Take an image of nothing: vacuum, evenly lit. $N_0$ electrons arrive at random places $x_j$. The
    detector writes down a value $g_j$ for each, about 1 but not always the same. The Fourier coefficient at
    a frequency $k \neq 0$ of the box (an integer over its side) is

    $$F(k) = \sum_{j=1}^{N_0} g_j\, e^{-2 \pi i k x_j} .$$

    Each electron adds an arrow of length $g_j$ in the complex plane, and its direction is random, for the
    place is. So $F$ is where a random walk of $N_0$ steps ends. The arrows have the mean zero and are
    independent. In $|F|^2 = \sum_j \sum_l g_j g_l e^{-2\pi i k (x_j - x_l)}$ all terms with $j \neq l$
    vanish on average, and those with $j = l$ are $g_j^2$:

    $$\mathrm{E}|F|^2 = N_0\, \mathrm{E}\, g^2 = N_0 \left( 1 + s_r^2 \right) ,$$

    if $g$ has the mean 1 and the standard deviation $s_r$. No $k$ is left in it: noise of this kind has the
    same power at all frequencies and is called **white noise**. A detector that does not give the same
    value to every electron adds noise. With $s_r = 1$ it doubles it.

    Real and imaginary part of $F$ are each a sum of many small independent numbers, hence normal, and
    no direction is preferred. Such an $F$ is a **circular complex Gaussian**: its density in the plane
    is

    $$p(F) = \frac{1}{\pi P}\, e^{-|F|^2 / P} , \qquad P = \mathrm{E}|F|^2 .$$

    Each part has the variance $P / 2$. Everything about noise in Fourier space follows from this density.
    """)
    return


@app.cell
def _():
    mo.md(r"""
    ## The amplitude of nothing

    In polar coordinates an area is $a\, \mathrm{d}a\, \mathrm{d}\varphi$. Integrate over the angle:

    $$p(a) = \frac{2 a}{P}\, e^{-a^2 / P} ,$$

    the **Rayleigh distribution** of the amplitude $a = |F|$. The power $w = a^2$ has
    $p(w) = e^{-w / P} / P$, an exponential distribution: its standard deviation is as large as its mean. A
    power spectrum of a single image is this rough everywhere.

    The mean amplitude is $\int a\, p(a)\, \mathrm{d}a = \sqrt{\pi P}\, / 2$. Its variance is
    $\mathrm{E}\, a^2 - (\mathrm{E}\, a)^2$, so

    $$\frac{\operatorname{Var} |F|}{\mathrm{E} |F|^2} = 1 - \frac \pi 4 = 0.2146 .$$

    Note what is divided by what: the variance of the amplitude by the mean of the power. Over the square of
    the mean amplitude it would be $4/\pi - 1 = 0.2732$.

    In the figure each dot is where a walk ends, over $\sqrt{N_0}$. The values $g$ are drawn from a
    gamma distribution. With one electron and $s_r = 0$ all dots lie on a circle. With 2 and 3 the amplitude
    is far from Rayleigh. With 10 it is close, at $s_r = 1$ with 30. Look at the histogram, not at the ratio
    alone: at $s_r = 0.5$ that is near 0.2146 with 2 electrons already, by coincidence. What must be large is
    the number of electrons in the image, not in a pixel.
    """)
    return


@app.function
def walk_ends(electrons, spread, walks=1500, seed=5):
    """Return F / sqrt(N0) of many images: sums of arrows of random direction.

    The lengths have mean 1 and the standard deviation `spread` (a gamma distribution).
    """
    rng = np.random.default_rng(seed)
    turns = rng.uniform(size=(walks, electrons))
    gain = np.ones_like(turns)
    if spread > 0:
        gain = rng.gamma(1.0 / spread**2, spread**2, size=turns.shape)
    return (gain * np.exp(-2j * np.pi * turns)).sum(1) / np.sqrt(electrons)


@app.function
def rayleigh(amplitude, power):
    """Return the density of |F| where E|F|^2 is `power`."""
    return 2.0 * amplitude / power * np.exp(-(amplitude**2) / power)


@app.cell
def _():
    def walks(electrons, spread):
        ends, power = walk_ends(electrons, spread), 1.0 + spread**2
        edges = np.linspace(0.0, 5.0, 41)
        share = np.histogram(abs(ends), edges)[0] / len(ends) / 0.125
        a = np.linspace(0.0, 5.0, 101)
        bars = Bars(edges[:-1] + 0.0625, share, "walks")
        limits = ((-4.0, 4.0), (-4.0, 4.0))
        words = ("Ends of 1,500 walks", "real part / √N₀", "imaginary part / √N₀")
        ratio = abs(ends).var() / (abs(ends) ** 2).mean()
        return Plot(
            (
                Panel((Points(ends.real, ends.imag),), *words, *limits, equal=True),
                Panel(
                    (bars, Line(a, rayleigh(a, power), "Rayleigh")),
                    *("Amplitude", "|F| / √N₀", "density", (0.0, 4.0), (0.0, 1.5)),
                ),
            ),
            f"Mean power over N₀: {(abs(ends) ** 2).mean():.3f}, expected {power:.3f}. "
            f"Var|F| / E|F|²: {ratio:.3f}, expected 0.2146 after many steps.",
        )

    _n = Slider("electrons N₀", (1, 2, 3, 5, 10, 30, 100), 3)
    explore(walks, electrons=_n, spread=Slider("spread s_r", (0.0, 0.5, 1.0), 0.0))
    return


@app.cell
def _():
    source(walk_ends, rayleigh)
    return


@app.cell
def _():
    mo.md(r"""
    ## The phase of a little signal

    Now let there be a signal: $F = S + \varepsilon$ with a real $S > 0$ and noise $\varepsilon$ of power $P$.
    Its phase is wanted. The phase of $F = x + iy$ is not $\arctan(y/x)$, which cannot tell $(x, y)$ from $(-x, -y)$ and knows half of the
    circle only. It is the angle of the point $(x, y)$, as `arctan2(y, x)` computes it.

    Write $F = a e^{i \varphi}$ and $\rho = S^2 / P$, the **signal-to-noise ratio of the coefficient**. The density
    of $F$ is now $e^{-|F - S|^2 / P} / \pi P$, with $|F - S|^2 = a^2 - 2 a S \cos \varphi + S^2$. Multiplied by
    $a$ and integrated over $a$ it gives

    $$p(\varphi) = \frac{e^{-\rho}}{2\pi} \left[ 1 + \sqrt{\pi \rho} \cos\varphi\; e^{\rho \cos^2 \varphi}
    \left( 1 + \operatorname{erf}(\sqrt \rho \cos \varphi) \right) \right] .$$

    At $\rho = 0$ it is flat. For large $\rho$ only the noise across the signal turns the phase, by
    $\sqrt{P/2} / S$, so the spread is $1 / \sqrt{2 \rho}$ radian. In the figure the cloud must leave the
    origin before its phase is known: at $\rho = 1$ the phase still has a spread of 50 degrees. At $\rho = 0.01$
    it has 98 degrees, and without any signal 104: one image tells next to nothing of such a phase, and only
    the sum over many does.
    """)
    return


@app.function
def phase_density(phase, rho):
    """Return the density of the phase of S + noise at the ratio rho = S^2 / P."""
    along = np.sqrt(rho) * np.cos(phase)
    # e^{-rho} times e^{along^2} together: apart they overflow at large rho.
    peak = np.sqrt(np.pi) * along * np.exp(along**2 - rho) * (1.0 + special.erf(along))
    return (np.exp(-rho) + peak) / (2.0 * np.pi)


@app.function
def phase_spread_degrees(rho):
    """Return the root mean square of the phase, in degrees."""
    phase = np.linspace(-np.pi, np.pi, 4001)
    square = np.trapezoid(phase**2 * phase_density(phase, rho), phase)
    return np.degrees(np.sqrt(square))


@app.cell
def _():
    _unit = np.random.default_rng(6).normal(scale=np.sqrt(0.5), size=(2, 1200))

    def phases(rho):
        x, y = _unit[0] + np.sqrt(rho), _unit[1]
        edges = np.linspace(-180.0, 180.0, 37)
        share = np.histogram(np.degrees(np.arctan2(y, x)), edges)[0] / 1200 / 10.0
        angle = np.linspace(-180.0, 180.0, 181)
        law = phase_density(np.radians(angle), rho) * np.pi / 180.0
        dots = (Points(x, y, "F"), Line([0, np.sqrt(rho)], [0, 0], "signal"))
        words = ("Signal and noise, P = 1", "real part", "imaginary part")
        bars = (Bars(edges[:-1] + 5.0, share, "seen"), Line(angle, law, "formula"))
        return Plot(
            (
                Panel(dots, *words, (-3.0, 6.0), (-3.5, 3.5), equal=True),
                Panel(bars, "Phase", "phase (degrees)", "density (1 / degree)"),
            ),
            f"S²/P = {rho:g}: root mean square of the phase "
            f"{phase_spread_degrees(rho):.1f} degrees.",
        )

    explore(phases, rho=Slider("S² / P", (0, 0.01, 0.05, 0.1, 0.3, 1, 2, 4, 9), 1))
    return


@app.cell
def _():
    mo.md(r"""
    ## Spectra, and how well one is known

    A detector blurs, ice is not vacuum, so real noise is coloured: its power $P(k)$ depends on the
    frequency. Such noise can be made from white noise by multiplying its transform with $\sqrt{P(k)}$.
    Coefficients of different $k$ stay independent, as long as the noise is alike everywhere in the image.
    So $P(k)$ is all that a likelihood needs,

    $$-\ln p(y) = \sum_k \left( \frac{|F(k)|^2}{P(k)} + \ln P(k) \right) + \text{const} ,$$

    summed over one of each pair $k$, $-k$. An image is real, hence $F(-k) = F^*(k)$: half of the plane
    repeats the other half. Coefficients that are their own partner, such as that at Nyquist, enter with half
    the weight. They are real, and have $\operatorname{Var}|F| / \mathrm{E}|F|^2 = 1 - 2/\pi = 0.363$.

    The spectrum is estimated as the mean power over a ring. Power has a standard deviation of its own size,
    so a mean over $n$ independent coefficients is off by $1 / \sqrt n$ of it. A ring of radius $r$ has
    about $2 \pi r$ pixels, $\pi r$ of them independent. In the figure one image gives a ragged spectrum,
    worst at the left, where rings are small. More images smooth it as $1 / \sqrt{n}$.
    """)
    return


@app.function
def ring_powers(kind, images, box=64, seed=7):
    """Return images of noise of variance 1, their power by ring, and the true spectrum."""
    noise = noise_of_variance(kind, box, 1.0)
    drawn = noise.sample(images, box, torch.Generator().manual_seed(seed))
    disc = FourierDisc.of_box(box, box // 2 - 1)
    power = radial_power(disc.gather(image_to_fourier(drawn)), disc)
    return drawn.numpy(), power.numpy(), noise.spectrum.numpy()


@app.cell
def _():
    def spectra(kind, images):
        drawn, power, true = ring_powers(kind, images)
        ring = np.arange(1, len(power))
        off = np.sqrt(np.square(power / true[:-1] - 1.0)[1:].mean())
        picture = Heat(drawn[0], limits=(-3.5, 3.5))
        lines = (
            Line(ring, power[1:], "mean over the ring"),
            Line(ring, true[1:-1], "true spectrum", dashed=True),
        )
        words = ("Its power", "ring (Fourier pixels)", "power of a coefficient")
        return Plot(
            (
                Panel((picture,), "One image", "x (pixels)", "y (pixels)", equal=True),
                Panel(lines, *words, y_range=(0.1, 20.0), log_y=True),
            ),
            f"Images: {images}. Rings are off by {100 * off:.1f} % (root mean square).",
        )

    _kinds = Choice("noise", ("white", "coloured"), "coloured")
    explore(spectra, kind=_kinds, images=Slider("images", (1, 3, 10, 30, 100), 1))
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"My white noise is not white."* Images were interpolated, or averaged over pixels, which takes power
      from high frequencies. A likelihood that expects white noise then gives the low ones too much weight.
    - *A factor of two in the variance.* $P$ is the power of a complex coefficient, $P/2$ the variance of
      its real part. And numpy's transform of $N$ pixels has $P = N \sigma^2$, an orthonormal one
      $P = \sigma^2$. A wrong factor makes every posterior too wide or too narrow, and nothing crashes.
    - *"The spectrum of the background rises at low frequency."* Neighbouring particles and uneven ice are
      no noise of the detector, but a spectrum measured around the particle has them in it.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        r"An image of vacuum has 10,000 electrons, and the values for single electrons have $s_r = 0.5$ of their mean of 1. What is $\mathrm{E}|F|^2$ at $k \neq 0$?",
        10_000 * (1.0 + 0.5**2),
        tolerance=50.0,
        hint=r"Each arrow contributes its mean square length, and $\mathrm{E}\, g^2$ is the variance plus the square of the mean.",
        explanation=r"$10{,}000 \times 1.25 = 12{,}500$: a quarter more noise than a detector that counts.",
    )
    return


@app.cell
def _():
    exercise(
        "Which share of the Fourier coefficients of white noise has more than three times the mean power?",
        100.0 * np.exp(-3.0),
        tolerance=0.1,
        unit="%",
        hint=r"The power is exponential: integrate $e^{-w/P}/P$ from $3P$ on.",
        explanation=r"$e^{-3}$ is 4.98 %. A bright spot in a spectrum of one image is no lattice yet.",
    )
    return


@app.cell
def _():
    choose(
        "The spectrum of noise is estimated from one image. By how much is the mean of a ring of radius 20 off, roughly?",
        ("1.6 %", "13 %", "100 %"),
        1,
        hint=r"Of the $2 \pi r$ coefficients one half repeats the other.",
        explanation=r"63 independent coefficients, and $1/\sqrt{63}$ is 12.6 %.",
    )
    return


@app.function
def test_amplitude_and_power_of_noise():
    """1 - pi / 4 and N0 (1 + s_r^2): standard errors 0.7 % and, of the ratio, 0.0016."""
    for spread in (0.0, 0.7):
        ends = abs(walk_ends(100, spread, walks=20_000))
        power = np.square(ends).mean()
        assert abs(power / (1.0 + spread**2) - 1.0) < 0.03
        assert abs(ends.var() / power - 0.2146) < 0.006
        assert abs(ends.var() / ends.mean() ** 2 - 0.2732) < 0.012


@app.function
def test_real_coefficients_are_half_normal():
    """1 - 2 / pi where F is its own partner: 40,000 images (four standard errors)."""
    images = np.random.default_rng(8).normal(size=(40_000, 4))
    nyquist = abs(np.fft.fft(images)[:, 2])
    assert abs(nyquist.var() / np.square(nyquist).mean() - (1 - 2 / np.pi)) < 0.012


@app.function
def test_phase_density():
    """It integrates to 1, and narrows to 1 / sqrt(2 rho)."""
    phase = np.linspace(-np.pi, np.pi, 4001)
    for rho in (0.0, 0.3, 4.0, 50.0):
        # Trapezoids of a smooth periodic function: exact to rounding.
        assert abs(np.trapezoid(phase_density(phase, rho), phase) - 1.0) < 1e-9
    # The next term of the series is smaller by about 1 / rho.
    assert abs(np.radians(phase_spread_degrees(200.0)) * 20.0 - 1.0) < 2e-3


@app.function
def test_the_likelihood_is_the_library_s():
    """Pairs of a 9 x 9 image, and k = 0 alone; the constant drops out."""
    image = np.random.default_rng(9).normal(size=(9, 9))
    power = abs(np.fft.fft2(image, norm="ortho")) ** 2
    pairs, ours, theirs = (power.sum() - power[0, 0]) / 2.0, [], []
    for p in (0.8, 1.3):
        alone = power[0, 0] / (2.0 * p) + 0.5 * np.log(p)
        ours.append(pairs / p + 40.0 * np.log(p) + alone)
        noise = GaussianNoise.white(p, 9)
        theirs.append(-noise.log_prob(torch.from_numpy(image).float()).item())
    # The library's spectrum is of single precision.
    assert abs(np.diff(ours) - np.diff(theirs)) < 1e-4


@app.cell
def _():
    closing(
        "white_noise",
        library=[
            "cryoinfer.physics.noise.GaussianNoise",
            "cryoinfer.physics.noise.estimate_background_spectrum",
        ],
        sources=[
            "P. Grob et al. 2013, Ranking TEM cameras by their response to electron shot noise, Ultramicroscopy.",
            "J. W. Goodman 1985, Statistical Optics, chapter 2.",
            "learn_cryoem_math (Woollard), notebooks detector_noise_blank and normal_arctan.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
