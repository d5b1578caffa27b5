import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    from dataclasses import replace

    import marimo as mo
    import numpy as np
    import torch

    from course import (
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
    from cryoinfer.physics.ctf import electron_wavelength_angstrom, evaluate_ctf
    from cryoinfer.records import Optics

    WAVE_ANGSTROM = float(electron_wavelength_angstrom(torch.tensor(300.0).double()))
    BOX, PIXEL_ANGSTROM = 128, 1.5


@app.cell
def _():
    opening("ctf_fitting")
    return


@app.cell
def _():
    mo.md(r"""
    ## Rings that ice and carbon make

    A micrograph of particles looks like grey fog. Its power spectrum does not: there are rings, dark where the CTF is
    zero. They do not come from the particles. They come from everything that is disordered and scatters: ice, carbon,
    protein in all poses. Such matter has some of every frequency, so that the microscope's own pattern is seen. Thon
    found the rings in 1966 in films of carbon; they are called **Thon rings**.

    Let the disordered matter have the power $a(s)$, and let all that does not pass the lens, counting noise above
    all, have the power $b(s)$. Both are smooth. The expected power of the image is

    $$P(k) = b(s) + a(s)\, C(k)^2 .$$

    The CTF is squared: its sign is lost, and rings are twice as dense as its waves. With
    $\sin^2 x = \tfrac12 (1 - \cos 2x)$ the rings are a cosine of $2\chi$ on a smooth ground. To find the defocus is
    to find the frequency of that cosine, in the variable $s^2$.

    ## One picture is not enough

    One transform gives speckle. The power of a single Fourier coefficient of noise is distributed exponentially: its
    standard deviation is as large as its mean (*Noise in Fourier space*). Cut the micrograph into $M$ tiles and
    average their powers: this is the **periodogram**, and the scatter falls as $1 / \sqrt M$. Averaging over a ring
    helps as well, as long as rings are round.

    Below, a micrograph was taken at a defocus that you are to find, with $C_s = 2.7$ mm, $A = 0.1$ and 300 kV. Left
    are its ring averages, less a smooth curve (a polynomial of degree 5 in $s$), and those of $C^2$ for your guess,
    treated alike. Right is their correlation for every guess. Begin with many tiles. Where the guess is a little off,
    low rings agree and high ones do not; further off, whole rings are counted wrongly, and there are lesser maxima.
    Then take one tile.
    """)
    return


@app.function
def ctf_squared(u_angstrom, v_angstrom, angle_radian):
    """Return C^2 of the library on the centred grid of a tile, rows along y."""
    names = "cs_mm", "amplitude_contrast", "defocus_u_angstrom", "defocus_v_angstrom"
    names = *names, "defocus_angle_radian"
    values = np.array([2.7, 0.1, u_angstrom, v_angstrom, angle_radian])
    fields = dict(zip(names, torch.from_numpy(values)[:, None], strict=True))
    optics = replace(Optics.without_ctf(1, PIXEL_ANGSTROM), **fields)
    k = torch.as_tensor(np.fft.fftshift(np.fft.fftfreq(BOX, PIXEL_ANGSTROM)))
    y, x = torch.meshgrid(k, k, indexing="ij")
    ctf = evaluate_ctf(optics, x.flatten(), y.flatten())
    return ctf.reshape(BOX, BOX).numpy() ** 2


@app.function
def frequency_grid():
    """Return s in 1/angstrom on the centred grid of a tile."""
    k = np.fft.fftshift(np.fft.fftfreq(BOX, PIXEL_ANGSTROM))
    return np.hypot(k[:, None], k)


@app.function
def periodogram(u_angstrom, v_angstrom, angle_radian, tiles, seed=0):
    """Return the mean power of some tiles, each coefficient exponentially distributed."""
    s = frequency_grid()
    background = 1.0 + 4.0 * np.exp(-s / 0.06)
    rings = np.exp(-15.0 * s**2) * ctf_squared(u_angstrom, v_angstrom, angle_radian)
    random = np.random.default_rng(seed)
    speckle = random.gamma(tiles, 1.0 / tiles, (BOX, BOX))
    # A picture is real: k and -k have the same power.
    rows = np.arange(BOX)
    behind = speckle[np.ix_(-rows % BOX, -rows % BOX)]
    first = BOX * rows[:, None] + rows > (BOX + 1) * BOX // 2
    return (background + rings) * np.where(first, speckle, behind)


@app.function
def ring_means(image):
    """Return the mean of each ring of width 1 / (N p), from the centre to the edge."""
    ring = np.rint(frequency_grid() * BOX * PIXEL_ANGSTROM).astype(int).ravel()
    sums = np.bincount(ring, image.ravel()) / np.bincount(ring)
    return sums[: BOX // 2]


@app.function
def detrended(s, values, low=0.05, high=0.2):
    """Return what a polynomial of degree 5 in s does not follow, 0 outside the range."""
    kept = (s > low) & (s < high)
    x = (2 * s - low - high) / (high - low)
    trend = np.polynomial.polynomial.polyfit(x[kept], values[kept], 5)
    rest = values - np.polynomial.polynomial.polyval(x, trend)
    return np.where(kept, rest, 0.0)


@app.function
def correlation(one, other):
    """Return the cosine between two arrays."""
    return np.vdot(one, other) / np.sqrt(np.vdot(one, one) * np.vdot(other, other))


@app.function
def ring_model(s, defocus_angstrom):
    """Return C^2 of round rings at frequencies s."""
    turned = np.pi * WAVE_ANGSTROM * defocus_angstrom * s**2
    turned = turned - 0.5 * np.pi * 2.7e7 * WAVE_ANGSTROM**3 * s**4
    return np.sin(turned + np.arcsin(0.1)) ** 2


@app.function
def scores(power, guesses_angstrom):
    """Return the correlation of ring averages with C^2 at each defocus."""
    rings = ring_means(power)
    s = np.arange(len(rings)) / (BOX * PIXEL_ANGSTROM)
    data = detrended(s, rings)
    grid = frequency_grid()
    rings_of = (ring_means(ring_model(grid, guess)) for guess in guesses_angstrom)
    models = (detrended(s, model) for model in rings_of)
    return np.array([correlation(data, model) for model in models])


@app.cell
def _():
    guesses = np.arange(4000.0, 16001.0, 50.0)
    powers = {
        tiles: periodogram(9350.0, 9350.0, 0.0, tiles) for tiles in (1, 4, 30, 200)
    }
    curves = {tiles: scores(power, guesses) for tiles, power in powers.items()}

    grid = frequency_grid()

    def one_dimension(guess_um, tiles):
        rings = ring_means(powers[tiles])
        s = np.arange(len(rings)) / (BOX * PIXEL_ANGSTROM)
        data = detrended(s, rings)
        model = detrended(s, ring_means(ring_model(grid, 1e4 * guess_um)))
        here = correlation(data, model)
        left = (
            Line(s, data / data.std(), "data"),
            Line(s, model / model.std(), "guess"),
        )
        right = (
            Line(1e-4 * guesses, curves[tiles]),
            Points([guess_um], [here], "guess"),
        )
        words = (
            "Rings, smooth part taken away",
            "spatial frequency (1/Å)",
            "power (rms 1)",
        )
        first = Panel(left, *words, (0.0, 0.21), (-4, 4))
        words = "Agreement", "defocus (µm)", "correlation"
        second = Panel(right, *words, y_range=(-1.0, 1.0))
        return Plot((first, second), f"Correlation at {guess_um:.2f} µm: {here:.3f}.")

    values = np.arange(0.5, 1.501, 0.05).round(2).tolist()
    guessed = Slider("guess of the defocus (µm)", values, 0.7)
    tile_counts = Slider("tiles", (1, 4, 30, 200), 200)
    explore(one_dimension, guess_um=guessed, tiles=tile_counts)
    return


@app.cell
def _():
    mo.md(r"""
    ## In two dimensions

    With astigmatism rings are ellipses, and a mean around a circle smears them. So fit the two-dimensional spectrum:
    three unknowns, the mean defocus, the difference $u - v$, and the direction of $u$. The score is the same
    correlation, now over all pixels. Programs search the defocus on a grid first and refine all three afterwards; so
    should you.

    Left half: data, 30 tiles, the smooth part taken away. Right half: your guess. Bring the rings together where the
    halves meet. First the mean, then direction and difference. The correlation is low even when all is right, for
    each pixel has its speckle; only its maximum counts.
    """)
    return


@app.cell
def _():
    s2 = frequency_grid()
    found = detrended(s2, periodogram(8900.0, 7500.0, np.radians(50.0), 30, seed=3))
    middle, on_left = slice(BOX // 2 - 36, BOX // 2 + 36), np.arange(BOX) < BOX // 2
    edge = 36 / (BOX * PIXEL_ANGSTROM)

    def by_hand(mean_um, difference_angstrom, angle_degrees):
        u = 1e4 * mean_um + difference_angstrom / 2
        v = 1e4 * mean_um - difference_angstrom / 2
        model = detrended(s2, ctf_squared(u, v, np.radians(angle_degrees)))
        image = np.where(on_left, found / found.std(), model / model.std())
        heat = Heat(image[middle, middle], (-edge, edge, edge, -edge), False, (-2, 2))
        words = "Data (left) and guess (right)", "k_x (1/Å)", "k_y (1/Å)"
        says = f"Correlation over all pixels: {correlation(found, model):.4f}."
        return Plot((Panel((heat,), *words, equal=True),), says)

    means = Slider("mean defocus (µm)", (0.74, 0.78, 0.82, 0.86, 0.9), 0.9)
    differences = Slider("u - v (Å)", (0, 700, 1400, 2100), 700)
    angles = Slider("direction of u (degrees)", (0, 25, 50, 75, 100, 125, 150), 0)
    explore(
        by_hand, mean_um=means, difference_angstrom=differences, angle_degrees=angles
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Layers wash rings out, and bring them back

    Ice of thickness $T$ has atoms at all heights $h$, each with its own defocus $\Delta z + h$. Atoms at different
    heights are not correlated, so their powers add:

    $$\frac1T \int_{-T/2}^{T/2} \sin^2\left(\chi + \pi\lambda h s^2\right) \mathrm{d}h
      = \frac12 \left(1 - \cos 2\chi\; \frac{\sin w}{w}\right), \qquad w = \pi \lambda T s^2 .$$

    (The integral of $\cos(2\chi + 2\pi\lambda h s^2)$ over $h$ is a sine at both ends.) The rings fade, vanish at
    $\lambda T s^2 = 1$, and return with light and dark exchanged. Such a **node** tells the thickness:
    $T = 1 / (\lambda s^2)$. A fit that does not know about it finds agreement up to the node, and the opposite
    beyond. A film built up in a simulation shows how: each layer alone has perfect rings, and those of the next are a
    little shifted.
    """)
    return


@app.function
def thick_rings(s, chi, thickness_angstrom):
    """Return the mean of sin^2 over heights."""
    return 0.5 * (
        1 - np.cos(2 * chi) * np.sinc(WAVE_ANGSTROM * thickness_angstrom * s**2)
    )


@app.cell
def _():
    def washed(thickness_angstrom, defocus_um):
        s = np.linspace(0.0, 0.4, 500)
        chi = np.pi * WAVE_ANGSTROM * 1e4 * defocus_um * s**2
        node = 1 / np.sqrt(WAVE_ANGSTROM * thickness_angstrom)
        thick = Line(s, thick_rings(s, chi, thickness_angstrom), "this thickness")
        marks = (Line(s, np.sin(chi) ** 2, "a thin film", dashed=True), thick)
        words = "Rings of a thick film", "spatial frequency (1/Å)", "mean of sin² χ"
        says = f"First node at {node:.3f} / Å, a period of {1 / node:.1f} Å."
        return Plot((Panel(marks, *words, (0.0, 0.4), (-0.05, 1.05)),), says)

    thicknesses = Slider("thickness (Å)", (200, 400, 600, 800, 1200, 2000), 800)
    defoci = Slider("defocus (µm)", (0.5, 1.0, 1.5), 0.5)
    explore(washed, thickness_angstrom=thicknesses, defocus_um=defoci)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"Every defocus of this microscope is off by some percent."* Rings fix $\lambda \Delta z\, s^2$. If the pixel
      size is wrong by 1 %, so is $s$, and the fitted defocus by 2 %. The fit looks perfect.
    - *"Single micrographs have a crazy astigmatism."* The fit sat down on a lesser maximum, on the diffuse ring of
      ice or on spots of ice crystals at 3.7 to 3.9 Å. Restrict the range of frequencies, or the astigmatism.
    - *"The fit is good, the particles are not."* The rings belong to what scatters most, often a carbon film or the
      ice, whose mean height is not that of the particle. Refine the defocus for each particle.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        r"Two neighbouring dark rings are at 8 Å and 6 Å. What is the defocus, at 300 kV ($\lambda = 0.0197$ Å) and without spherical aberration?",
        1 / (WAVE_ANGSTROM * (1 / 36 - 1 / 64)),
        tolerance=60.0,
        unit="Å",
        hint=r"From one zero to the next $\lambda \Delta z\, s^2$ grows by 1.",
        explanation=r"$1 / (0.0197\,(1/36 - 1/64)) = 4180$ Å. The amplitude contrast drops out of the difference.",
    )
    return


@app.cell
def _():
    exercise(
        "A ring has 200 independent coefficients. How many tiles are needed to know its mean power to 1 %?",
        1 / (0.01**2 * 200),
        tolerance=1.0,
        unit="tiles",
        hint=r"One coefficient scatters by 100 %, a mean of $n$ by $100 / \sqrt n$ %.",
        explanation="10,000 coefficients, 200 a tile: 50 tiles.",
    )
    return


@app.cell
def _():
    choose(
        "The file says a pixel is 2 % smaller than it really is. What does a fit say of the defocus?",
        ("It is 2 % too small.", "It is 4 % too small.", "It is 4 % too large."),
        1,
        hint=r"The frequency of every ring is then 2 % too high. What of $\Delta z\, s^2$?",
        explanation=r"$\Delta z \propto 1 / s^2$: 2 % more in $s$ is 4 % less in $\Delta z$.",
    )
    return


@app.function
def test_the_fit_finds_the_defocus():
    """Without noise to the grid's 5 A; with 200 tiles to 20 A, some five times its scatter."""
    guesses = np.arange(8800.0, 9900.0, 5.0)
    clean = periodogram(9350.0, 9350.0, 0.0, 1e9)
    assert abs(guesses[scores(clean, guesses).argmax()] - 9350.0) <= 5.0
    for seed in range(3):
        power = periodogram(9350.0, 9350.0, 0.0, 200, seed)
        assert abs(guesses[scores(power, guesses).argmax()] - 9350.0) < 20.0


@app.function
def test_speckle_and_symmetry():
    """Of M tiles the scatter is 1 / sqrt(M): here 128^2 / 2 of them tell it to 2 %."""
    power = periodogram(9000.0, 8000.0, 0.5, 16)
    expected = periodogram(9000.0, 8000.0, 0.5, 1e12)
    inner = (power / expected)[1:, 1:]
    assert abs(inner.std() * 4 - 1) < 0.02
    assert np.abs(inner - inner[::-1, ::-1]).max() < 1e-4


@app.function
def test_thick_rings():
    """The node of 813 A at 4 A period; a mean over 4,000 layers (midpoints: to 1e-5)."""
    assert abs(thick_rings(0.25, 0.3, 812.7) - 0.5) < 1e-4
    s, thickness, chi = 0.27, 700.0, 5.0
    height = (np.arange(4000) + 0.5) / 4000 * thickness - thickness / 2
    mean = (np.sin(chi + np.pi * WAVE_ANGSTROM * height * s**2) ** 2).mean()
    assert abs(mean - thick_rings(s, chi, thickness)) < 1e-5


@app.function
def test_chapter_and_library_agree():
    """The model along one radius is the library's: float64, some 100 radian."""
    row = ctf_squared(9000.0, 9000.0, 0.0)[BOX // 2, BOX // 2 :]
    s = np.arange(BOX // 2) / (BOX * PIXEL_ANGSTROM)
    assert np.abs(row - ring_model(s, 9000.0)).max() < 1e-9


@app.cell
def _():
    source(periodogram, detrended, ring_model, scores, thick_rings)
    return


@app.cell
def _():
    closing(
        "ctf_fitting",
        library=["cryoinfer.physics.ctf.evaluate_ctf"],
        sources=[
            "F. Thon 1966, Zur Defokussierungsabhängigkeit des Phasenkontrastes bei der elektronenmikroskopischen Abbildung, Zeitschrift für Naturforschung A.",
            "J. A. Mindell and N. Grigorieff 2003, Accurate determination of local defocus and specimen tilt in electron microscopy, Journal of Structural Biology.",
            "G. McMullan, K. R. Vinothkumar and R. Henderson 2015, Thon rings from amorphous ice and implications of beam-induced Brownian motion in single particle electron cryo-microscopy, Ultramicroscopy.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
