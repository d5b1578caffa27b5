import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch

    from course import (
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
    from cryoinfer.data.examples import example_atoms
    from cryoinfer.evaluation.fsc import fourier_shell_correlation
    from cryoinfer.physics.structures.atoms import GaussianAtoms

    BOX, PIXEL_ANGSTROM = 48, 1.5


@app.cell
def _():
    opening("guinier")
    return


@app.cell
def _():
    mo.md(r"""
    ## A map that shows less than it knows

    A new map at 3 Å often looks like one at 6 Å: smooth tubes, no side chains. The detail is in it, and the
    FSC says so, but its amplitudes are too small to be seen. Why do they fall?

    An atom is not at the same place in every particle. It vibrates, the images are not aligned exactly, the
    specimen moved. Let the displacement $u$ be normal with the standard deviation $\sigma_u$ along each axis.
    The average of many copies of a wave is

    $$\mathrm{E}\, e^{-2\pi i k u} = e^{-2 \pi^2 s^2 \sigma_u^2} = e^{-B s^2 / 4} , \qquad B = 8 \pi^2\, \sigma_u^2 .$$

    This $B$ is the **B-factor**. It is a blur: 100 Å$^2$ stand for $\sigma_u = 1.1$ Å. Independent blurs
    multiply in Fourier space, so their B-factors add. Angles that are off by $\delta$ radian move an atom at
    the distance $r$ from the centre by $r \delta$, so large particles blur at their rim.

    ## What amplitudes would be without it

    Think of a protein as atoms thrown into a box at random. Its transform
    $F(k) = \sum_j f_j(s)\, e^{-2\pi i k r_j}$, where $f_j(s)$ is what atom $j$ alone scatters at the frequency
    $s = |k|$, is then a walk of random steps, as in *Noise in Fourier space*, with

    $$\mathrm{E} |F(k)|^2 = \sum_j f_j(s)^2 .$$

    This is **Wilson statistics**. Divided by the scattering of the atoms it is flat, at all frequencies where
    atoms are thrown independently. At low frequency they are not: they keep to the shape of the particle and
    avoid the solvent, so amplitudes rise steeply below about 0.1 1/Å. And helices and sheets repeat
    themselves, which makes bumps at about 0.10 and 0.22 1/Å (periods of 10 and 4.5 Å). With the mean power known, one may say before seeing
    any data that coefficients are Gaussian with this variance, a prior for maps.

    So plot $\ln \langle |F| \rangle$ against $s^2$, a **Guinier plot**. With a B-factor the amplitudes are
    those of Wilson times $e^{-Bs^2/4}$. Divided by Wilson's amplitude they give a line of slope $-B/4$. Undivided,
    the fall of $f_j$ is counted as part of $B$: between 10 and 3 Å it is that of 14 Å$^2$ for carbon, and of 9 to
    15 for the others. In the figure compare the protein with its own atoms at random places, then raise $B$. The bumps stay where they
    are, and make the fit find 14 Å$^2$ too much: the atoms of a protein are not quite at random.
    """)
    return


@app.function
def protein_atoms(kind="protein"):
    """Return adenylate kinase, or its atoms at random places of a sphere of 25 angstrom."""
    model = example_atoms("adenylate-kinase-open")
    xyz = model.coordinates_angstrom.copy()
    if kind != "protein":
        rng = np.random.default_rng(41)
        xyz = rng.normal(size=xyz.shape)
        radius = 25.0 * np.cbrt(rng.uniform(size=(len(xyz), 1)))
        xyz *= radius / np.linalg.norm(xyz, axis=1, keepdims=True)
    return GaussianAtoms.from_elements(torch.from_numpy(xyz), model.elements)


@app.function
def wilson_amplitude(atoms, s):
    """Return the root of the sum over atoms of f_j(s)^2, in angstrom."""
    a, w = atoms.amplitudes_angstrom.numpy(), atoms.widths_angstrom2.numpy()
    f = (a[:, :, None] * np.exp(-w[:, :, None] * s**2 / 4.0)).sum(1)
    return np.sqrt((np.bincount(atoms.element.numpy())[:, None] * f**2).sum(0))


@app.function
def shell_amplitude(atoms, s, directions=150):
    """Return the root of the mean of |F|^2 over random directions, at every s."""
    unit = np.random.default_rng(42).normal(size=(directions, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    k = torch.from_numpy((s[:, None, None] * unit).reshape(-1, 3))
    power = atoms.transform_at(k).abs().square().numpy().reshape(len(s), -1)
    return np.sqrt(power.mean(1))


@app.cell
def _():
    _s = np.sqrt(np.linspace(0.0009, 0.16, 54))
    _kinds = ("protein", "random atoms")
    _atoms = {kind: protein_atoms(kind) for kind in _kinds}
    _seen = {kind: shell_amplitude(atoms, _s) for kind, atoms in _atoms.items()}

    def falling(kind, b):
        fall = -b * _s**2 / 4.0
        wilson = np.log(wilson_amplitude(_atoms[kind], _s))
        seen = np.log(_seen[kind]) + fall
        slope = np.polyfit(_s[10:] ** 2, (seen - wilson)[10:], 1)[0]
        marks = (
            Line(_s**2, seen, kind),
            Line(_s**2, wilson + fall, "Wilson, with B"),
            Line(_s**2, wilson, "Wilson, B = 0", dashed=True),
        )
        words = ("Guinier plot", "s² (1/Å²)", "ln amplitude (Å)")
        return Plot(
            (Panel(marks, *words, (0.0, 0.16), (-4.0, 9.0)),),
            f"B = {b} Å², a spread of {np.sqrt(b / 8.0) / np.pi:.2f} Å. Fitted against "
            f"Wilson beyond 5.7 Å: B = {-4.0 * slope:.0f} Å².",
        )

    _b = Slider("B-factor (Å²)", (0, 25, 50, 100, 150, 200), 50)
    explore(falling, kind=Choice("atoms of", _kinds), b=_b)
    return


@app.cell
def _():
    source(wilson_amplitude, shell_amplitude)
    return


@app.cell
def _():
    mo.md(r"""
    ## Sharpening

    What fell by $e^{-Bs^2/4}$ is raised by $e^{+Bs^2/4}$. This is **sharpening**. It multiplies whole shells,
    so the FSC does not change (*Shell correlation*), and nothing is learned. It makes visible what was there.

    Noise is raised as well, and beyond the resolution there is only noise. So every shell gets a weight
    besides. The Wiener filter $\frac{2\, \mathrm{FSC}}{1 + \mathrm{FSC}} = \frac{\mathrm{SNR}}{1 + \mathrm{SNR}}$, with the
    SNR of the whole map in the shell, leaves the least squared error. Rosenthal and Henderson take its root, the
    correlation of the map with the truth,

    $$F_{\mathrm{sharp}} = C_{\mathrm{ref}}(s)\; e^{+B s^2 / 4}\, F , \qquad
    C_{\mathrm{ref}} = \sqrt{\frac{2\, \mathrm{FSC}}{1 + \mathrm{FSC}}} ,$$

    as crystallographers weight by a figure of merit. How is $B$ found? From the slope of the Guinier plot
    between about 10 Å, where the shape of the particle ends, and the resolution, where noise begins; undivided by Wilson's amplitude, as
    is usual, it comes out some 10 to 15 Å$^2$ too large.

    The map in the figure was blurred with 120 Å$^2$ and given noise. With 0 it is smooth. There no
    weight is best, a correlation of 0.680 against 0.656 with $C_{\mathrm{ref}}$: fine waves are too weak as it is, and a
    weight takes more of them. With 120 and either
    weight, cut off where the FSC falls below 0.143, it is closest to the unblurred truth. Take the weight off
    and noise takes over long before that. Go to 240: grains and hard edges, which may look like detail.
    """)
    return


@app.function
def shells(box=BOX):
    """Return round(|k|) of every coefficient of a transform, at most that of Nyquist."""
    k = np.fft.fftfreq(box, 1.0 / box)
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    return np.minimum(radius.round().astype(int), box // 2)


@app.function
def times_shells(density, factor):
    """Return a map whose shells are multiplied by a factor each."""
    return np.fft.ifftn(np.fft.fftn(density) * factor[shells()]).real


@app.function
def blur(b):
    """Return exp(-B s^2 / 4) for the shells of the chapter's box."""
    s = np.arange(BOX // 2 + 1) / (BOX * PIXEL_ANGSTROM)
    return np.exp(-b * s**2 / 4.0)


@app.function
def half_maps(noise, b=120.0):
    """Return the truth (of spread 1), and two blurred halves with noise."""
    density = protein_atoms().to_map(BOX, PIXEL_ANGSTROM).numpy()
    truth = (density - density.mean()) / density.std()
    added = noise * np.random.default_rng(43).normal(size=(2, *truth.shape))
    return truth, *(times_shells(truth, blur(b)) + added)


@app.cell
def _():
    _truth, _one, _two = half_maps(0.2)
    _halves = torch.from_numpy(_one), torch.from_numpy(_two)
    _fsc = fourier_shell_correlation(*_halves).numpy()
    _cut = np.nonzero(_fsc[1:] < 1 / 7)[0][0] + 1
    _squared = np.where(np.arange(len(_fsc)) < _cut, 2.0 * _fsc / (1.0 + _fsc), 0.0)
    _weights = {"C_ref": np.sqrt(_squared), "Wiener": _squared, "none": 1.0}
    _s = np.arange(1, 25) / (BOX * PIXEL_ANGSTROM)

    def log_amplitude(density):
        size, shell = abs(np.fft.fftn(density)).ravel(), shells().ravel()
        return np.log(np.bincount(shell, size) / np.bincount(shell) + 1e-9)[1:25]

    def sharp(b, weight):
        density = times_shells((_one + _two) / 2.0, blur(-b) * _weights[weight])
        close = np.corrcoef(density.ravel(), _truth.ravel())[0, 1]
        section, spread = density[BOX // 2], density.std()
        lines = (
            Line(_s**2, log_amplitude(density), "this map"),
            Line(_s**2, log_amplitude((_one + _two) / 2.0), "before"),
            Line(_s**2, log_amplitude(_truth), "truth", dashed=True),
        )
        side, limits = (-36, 36, -36, 36), (-spread, 8.0 * spread)
        picture, xy = (Heat(section, side, limits=limits),), ("x (Å)", "y (Å)")
        words = ("Guinier plot", "s² (1/Å²)", "ln amplitude", (0, 0.112), (-2, 10))
        return Plot(
            (Panel(picture, "Section", *xy, equal=True), Panel(lines, *words)),
            f"Sharpened by {b} Å²: correlation with the truth {close:.3f}.",
        )

    _b = Slider("sharpened by (Å²)", (0, 40, 80, 120, 160, 240, 400), 0)
    explore(sharp, b=_b, weight=Choice("weight", tuple(_weights)))
    return


@app.cell
def _():
    mo.md(r"""
    ## What an ångström costs

    How many particles does a resolution need? The signal's power falls as $e^{-B s^2 / 2}$, the noise per
    particle is about the same at all frequencies, and averaging $N$ particles divides it by $N$:

    $$\mathrm{SSNR}(s) \propto N\, e^{-B s^2 / 2} ,$$

    the spectral signal-to-noise ratio: power of the signal over that of the noise, at one frequency.

    The resolution $d$ is where this has fallen to a fixed threshold. Solve for $N$:

    $$\ln N = \frac{B}{2 d^2} + \text{const} .$$

    One more thing: an image is a slice, and of the $4 \pi s^2$ coefficients of a shell it has $2 \pi s$. A
    coefficient is seen in a share of images that falls as $1/s = d$, so $N$ has another factor of $1/d$. It
    is slow beside the exponential.

    Reconstruct with a half, a quarter, an eighth of the particles, and plot $\ln N$ against $1/d^2$, a
    **Rosenthal-Henderson plot**. Its slope is $B/2$; the plot ignores the factor $1/d$, which adds
    $d^2/2$ (at 3 Å and $B = 100$ Å$^2$ that is 4.5 beside 50). It tells what more data would bring. With
    $B = 100$ Å$^2$ a map at 3 Å takes 15 times as many particles as one at 4 Å, and a map at 2 Å takes 1,560
    times as many as one at 3 Å, both with the factor $1/d$. Lower $B$ to 50
    in the figure and see what a better microscope, thinner ice and better motion correction are worth.
    """)
    return


@app.function
def particles_needed(d, b, at=8.0, count=1000.0):
    """Return N for a resolution d, where `count` particles reach `at` angstrom."""
    return count * np.exp(b / 2.0 * (1.0 / d**2 - 1.0 / at**2)) * at / d


@app.cell
def _():
    def costs(b, d):
        x = np.linspace(1 / 64.0, 0.25, 120)
        here = particles_needed(d, b)
        marks = (
            Line(x, np.log10(particles_needed(1 / np.sqrt(x), b)), "this B"),
            Line(
                x,
                np.log10(particles_needed(1 / np.sqrt(x), 100.0)),
                "100 Å²",
                dashed=True,
            ),
            Points([1 / d**2] * 2, [np.log10(here)] * 2),
        )
        words = ("Particles, if 1,000 give 8 Å", "1/d² (1/Å²)", "log₁₀ N")
        return Plot(
            (Panel(marks, *words, (0.0, 0.26), (2.5, 10.0)),),
            f"B = {b} Å²: {d:g} Å take {float(f'{here:.2g}'):,.0f} particles.",
        )

    _d = Slider("resolution d (Å)", (2, 2.5, 3, 3.5, 4, 5, 6, 8), 3)
    explore(costs, b=Slider("B-factor (Å²)", (30, 50, 80, 100, 150, 200), 80), d=_d)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"My sharpened map is full of dust."* It was sharpened too much, or without a weight or a low-pass
      filter. Dust that changes from one half-map to the other is noise.
    - *"Two programs find B-factors of 60 and 140 for one map."* The slope depends on the range of the fit.
      Below 0.1 1/Å it sees the shape of the particle, beyond the resolution the flat noise. And one program may
      divide by Wilson's amplitude while the other counts the fall of $f_j$ in.
    - *"Twice the data, no better resolution."* At $B = 150$ and 4 Å a doubling is worth 0.25 Å. If less
      comes, something else limits: pixel size, wrong defocus, mixed conformations.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "Particles are aligned with errors of 0.8 Å along each axis (one standard deviation). Which B-factor is that?",
        8.0 * np.pi**2 * 0.8**2,
        tolerance=1.0,
        unit="Å²",
        hint=r"$B = 8 \pi^2 \sigma_u^2$.",
        explanation=r"$78.96 \times 0.64 = 50.5$ Å².",
    )
    return


@app.cell
def _():
    exercise(
        "A data set has $B = 80$ Å². How many times more particles take it from 3 Å to 2.5 Å? Leave the factor $1/d$ out.",
        np.exp(40.0 * (1 / 6.25 - 1 / 9.0)),
        tolerance=0.2,
        hint=r"$\ln N$ grows by $\frac{B}{2} (1/d_2^2 - 1/d_1^2)$.",
        explanation=r"$40 \times (0.160 - 0.111) = 1.96$, and $e^{1.96} = 7.1$.",
    )
    return


@app.cell
def _():
    choose(
        "A map is sharpened until its Guinier plot is flat out to Nyquist, far beyond its resolution. What is seen there?",
        ("Side chains.", "Noise, as strong as a signal would be.", "Nothing."),
        1,
        hint="Which amplitudes are raised where the FSC is 0?",
        explanation="Amplitudes look right, phases are random. The plot cannot tell the two apart, the FSC can.",
    )
    return


@app.function
def test_known_numbers():
    """Prices of an angstrom, and the B-factor of a spread, from their formulas by hand."""
    cost = particles_needed(3.0, 100.0) / particles_needed(4.0, 100.0)
    assert abs(cost - 11.365 * 4.0 / 3.0) < 0.01
    cost = particles_needed(2.0, 100.0) / particles_needed(3.0, 100.0)
    assert abs(cost - 1037.4 * 1.5) < 1.0
    # The fall of carbon (the first element) between 10 and 3 angstrom, as a B-factor.
    s, atoms = np.linspace(0.1, 1.0 / 3.0, 50), protein_atoms()
    a, w = atoms.amplitudes_angstrom[0].numpy(), atoms.widths_angstrom2[0].numpy()
    f = (a * np.exp(-w * s[:, None] ** 2 / 4.0)).sum(1)
    assert abs(-4.0 * np.polyfit(s**2, np.log(f), 1)[0] - 14.0) < 0.5
    # 200,000 displacements of 1 angstrom: the mean wave's standard error is 0.0016.
    u = np.random.default_rng(44).normal(size=200_000)
    for s in (0.1, 0.2):
        fall = np.exp(-8.0 * np.pi**2 * s**2 / 4.0)
        assert abs(np.cos(2.0 * np.pi * s * u).mean() - fall) < 0.007


@app.function
def test_random_atoms_follow_wilson():
    """About 400 of 600 directions are independent: 5 % of the power of each shell."""
    s = np.array([0.2, 0.27, 0.34, 0.41])
    atoms = protein_atoms("random atoms")
    ratio = shell_amplitude(atoms, s, 600) / wilson_amplitude(atoms, s)
    assert abs(ratio**2 - 1.0).max() < 0.25
    assert abs((ratio**2).mean() - 1.0) < 0.1


@app.function
def test_sharpening_undoes_and_keeps_the_fsc():
    """Without noise the truth comes back; with it the FSC stays to 1e-10 (rounding)."""
    truth, one, two = half_maps(0.0)
    assert abs(times_shells(one, blur(-120.0)) - truth).max() < 1e-9
    _, one, two = half_maps(0.5)
    halves = torch.from_numpy(one), torch.from_numpy(two)
    sharper = [torch.from_numpy(times_shells(half, blur(-200.0))) for half in halves]
    change = fourier_shell_correlation(*sharper) - fourier_shell_correlation(*halves)
    assert change[:-1].abs().max() < 1e-10


@app.cell
def _():
    closing(
        "guinier",
        library=["cryoinfer.physics.structures.atoms.GaussianAtoms"],
        sources=[
            "A. J. C. Wilson 1942, Determination of absolute from relative X-ray intensity data, Nature.",
            "P. B. Rosenthal, R. Henderson 2003, Optimal determination of particle orientation, absolute hand, and contrast loss in single-particle electron cryomicroscopy, Journal of Molecular Biology.",
            "A. Singer 2021, Wilson statistics: derivation, generalization and applications to electron cryomicroscopy, Acta Crystallographica A.",
            "learn_cryoem_math (Woollard), notebook guinier_fsc_sharpen.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
