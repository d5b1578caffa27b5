import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy.spatial.transform import Rotation

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
    from cryoinfer.evaluation.fsc import fourier_shell_correlation, resolution_at
    from cryoinfer.physics.structures.atoms import GaussianAtoms
    from cryoinfer.reconstruction.backproject import signal_to_noise

    BOX, PIXEL_ANGSTROM = 40, 2.0


@app.cell
def _():
    opening("fsc")
    return


@app.cell
def _():
    mo.md(r"""
    ## Two halves

    A map is made of noisy images, and it shows details. Which of them are real? Nobody has the truth to
    compare with. But the images can be dealt into two halves, and a map made of each. What is real is in
    both. What is noise is in one only.

    Compare them detail by detail, that is frequency by frequency. Let $F_1(k)$ and $F_2(k)$ be the transforms
    of the half-maps. All coefficients of nearly the same length $|k| = s$ are a **shell**, a ring in two
    dimensions. The **Fourier shell correlation** is their correlation over the shell,

    $$\mathrm{FSC}(s) = \frac{\operatorname{Re} \sum_{|k| \approx s} F_1(k)\, F_2^*(k)}
    {\sqrt{\sum |F_1(k)|^2\; \sum |F_2(k)|^2}} .$$

    The star is the complex conjugate. The FSC is 1 where the halves agree but for a factor, 0 where they have
    nothing to do with each other, and $-1$ where one is the negative of the other. For images the same with
    rings is the Fourier ring correlation.

    In the figure a protein of 24 kDa is given two different noises. The two sections look worse as the noise
    is raised. The curve tells at which detail that begins, and it is smooth at the right and ragged at the
    left: shells near the origin have few coefficients.
    """)
    return


@app.function
def protein(moved=lambda xyz: xyz, b_factor=60.0):
    """Return the density of adenylate kinase, 40 voxels of 2 angstrom, of spread 1."""
    model = example_atoms("adenylate-kinase-open")
    xyz = torch.from_numpy(moved(model.coordinates_angstrom).copy()).float()
    atoms = GaussianAtoms.from_elements(xyz, model.elements, b_factor)
    density = atoms.to_map(BOX, PIXEL_ANGSTROM).double().numpy()
    return (density - density.mean()) / density.std()


@app.function
def shells(box):
    """Return round(|k|) of every coefficient of a transform, in Fourier pixels."""
    k = np.fft.fftfreq(box, 1.0 / box)
    return np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2).round().astype(int)


@app.function
def shell_correlation(one, other):
    """Return the FSC of two maps up to Nyquist, as the formula says."""
    a, b, shell = np.fft.fftn(one), np.fft.fftn(other), shells(len(one)).ravel()
    products = ((a * b.conj()).real, abs(a) ** 2, abs(b) ** 2)
    cross, first, second = (np.bincount(shell, p.ravel()) for p in products)
    return (cross / np.sqrt(first * second))[: len(one) // 2 + 1]


@app.function
def shell_power(density):
    """Return the mean of |F|^2 over every shell up to Nyquist."""
    shell = shells(len(density)).ravel()
    power = abs(np.fft.fftn(density)).ravel() ** 2
    return (np.bincount(shell, power) / np.bincount(shell))[: len(density) // 2 + 1]


@app.cell
def _():
    truth = protein()
    frequency = np.arange(BOX // 2 + 1) / (BOX * PIXEL_ANGSTROM)
    _noise = np.random.default_rng(11).normal(size=(2, BOX, BOX, BOX))
    _power, _side, _xy = shell_power(truth), (-40, 40, 40, -40), ("x (Å)", "y (Å)")

    def halves(noise):
        one, two = truth + noise * _noise
        ssnr = _power / (noise**2 * BOX**3)
        expected, curve = ssnr / (1.0 + ssnr), shell_correlation(one, two)
        reached = resolution_at(torch.from_numpy(curve), 0.143, BOX, PIXEL_ANGSTROM)
        sections = [
            Panel((Heat(half[20], _side, limits=(-3, 8)),), title, *_xy, equal=True)
            for half, title in ((one, "Half-map 1"), (two, "Half-map 2"))
        ]
        lines = (
            Line(frequency[1:], curve[1:], "FSC"),
            Line(
                frequency[1:], expected[1:], "SSNR / (1 + SSNR) of a half", dashed=True
            ),
            Line([0.0, 0.25], [1 / 7, 1 / 7], "0.143", dashed=True),
        )
        words = ("Correlation", "frequency (1/Å)", "FSC", (0.0, 0.25), (-0.2, 1.02))
        return Plot(
            (*sections, Panel(lines, *words)),
            f"Noise {noise:g} times the spread of the map: {reached:.2f} Å at 0.143.",
        )

    _noises = (0.1, 0.2, 0.5, 1, 2, 3, 5, 8, 15)
    explore(halves, noise=Slider("noise / spread of the map", _noises, 2))
    return frequency, truth


@app.cell
def _():
    source(shell_correlation, shell_power)
    return


@app.cell
def _():
    mo.md(r"""
    ## What the number means

    Write $F_1 = S + N_1$ and $F_2 = S + N_2$: the same signal, independent noise of the same power. Average
    over a large shell. Of the products only those of a thing with itself remain, so the numerator is the
    power of the signal and each sum below is signal plus noise. With the **spectral signal-to-noise ratio**
    of a half, $\mathrm{SSNR}_{1/2} = |S|^2 / |N|^2$,

    $$\mathrm{FSC} = \frac{|S|^2}{|S|^2 + |N|^2} = \frac{\mathrm{SSNR}_{1/2}}{1 + \mathrm{SSNR}_{1/2}} .$$

    The dashed line of the first figure is this, from the powers that were put in. The map of all images is
    the mean of the halves. Its noise has half the power, so

    $$\mathrm{SSNR} = 2\, \mathrm{SSNR}_{1/2} = \frac{2\, \mathrm{FSC}}{1 - \mathrm{FSC}} .$$

    How well does the map of all images correlate with the truth $S$? Again only $S$ with itself remains:

    $$C_{\mathrm{ref}} = \frac{|S|^2}{\sqrt{|S|^2\, (|S|^2 + |N|^2 / 2)}}
    = \sqrt{\frac{\mathrm{SSNR}}{1 + \mathrm{SSNR}}} = \sqrt{\frac{2\, \mathrm{FSC}}{1 + \mathrm{FSC}}} .$$

    In crystallography a map is held to be readable where its figure of merit is above 0.5, a phase error of
    60 degrees. Rosenthal and Henderson asked the same of $C_{\mathrm{ref}}$. Solve $C_{\mathrm{ref}} = 1/2$:
    $8\, \mathrm{FSC} = 1 + \mathrm{FSC}$, hence

    $$\mathrm{FSC} = \frac 1 7 = 0.143 .$$

    So 0.143 between halves and 0.5 against the truth are the same demand. Between halves 0.5 would be
    another: there the map of all images has an SSNR of 2 and correlates to 0.816 with the truth. The
    **resolution** of a map, as it is usually given, is $1/s$ where its FSC first falls below 0.143.
    """)
    return


@app.function
def full_ssnr(fsc):
    """Return the SSNR of the map of all images from the FSC of its halves."""
    return 2.0 * fsc / (1.0 - fsc)


@app.function
def correlation_with_truth(fsc):
    """Return C_ref of the map of all images from the FSC of its halves."""
    return np.sqrt(2.0 * fsc / (1.0 + fsc))


@app.cell
def _():
    def meanings(fsc):
        f = np.linspace(0.005, 0.99, 198)
        c, ssnr = correlation_with_truth(fsc), full_ssnr(fsc)
        left = (
            Line(f, correlation_with_truth(f), "of all images with the truth"),
            Line(f, f, "half with half", dashed=True),
            Points([fsc] * 2, [c] * 2),
        )
        right = (Line(f, full_ssnr(f)), Points([fsc] * 2, [ssnr] * 2))
        words = ("Correlation", "FSC of the halves", "correlation")
        more = ("SSNR of the map of all images", "FSC of the halves", "SSNR")
        return Plot(
            (
                Panel(left, *words, (0.0, 1.0), (0.0, 1.02)),
                Panel(right, *more, (0.0, 1.0), (0.01, 200.0), log_y=True),
            ),
            f"FSC {fsc:.3f}: SSNR {ssnr:.3f}, correlation with the truth {c:.3f}.",
        )

    _values = (0.01, 0.02, 0.05, 0.1, 1 / 7, 0.2, 0.3, 0.4, 0.5, 0.7, 0.8, 0.9, 0.95)
    explore(meanings, fsc=Slider("FSC of the halves", _values, 1 / 7))
    return


@app.cell
def _():
    mo.md(r"""
    ## What it does not see

    Multiply all coefficients of a shell of one map by the same positive number. It stands above and below and
    cancels. So sharpening, blurring and any other radial filter leave the FSC as it is. A map can have a
    perfect FSC and amplitudes that are all wrong. A negative number turns the sign: a map whose CTF was not
    corrected correlates by turns to 1 and to $-1$ with one that was.

    What is not radial is seen. A shift by $d$ multiplies $F(k)$ with $e^{-2\pi i k d}$, whose mean over a
    shell is $\sin(2\pi s d) / (2 \pi s d)$. A turn or a wrong magnification moves what is far from the
    centre, and details suffer first. In the figure two noiseless maps are compared, so every fall of the
    curve is due to what was done to one of them. Half-maps that do not lie on each other lose resolution that
    the data have.

    ## Chance

    Where there is only noise, the FSC is not 0 but scatters about it. A shell of $n$ coefficients holds as
    many independent real numbers (half of the coefficients repeat the others, and each has two parts). A
    correlation of $n$ independent pairs scatters by $1 / \sqrt n$. A shell of radius $r$ has about
    $4 \pi r^2$ coefficients, so at $r = 5$ the scatter is 0.056 and at $r = 50$ it is 0.0056. A ring has
    $2 \pi r$, and 0.18 at $r = 5$. A crossing near the origin, or of images, may be chance.
    """)
    return


@app.function
def filtered(density, factor):
    """Return a map whose shells are multiplied by factor(s), s in 1/angstrom."""
    s = shells(len(density)) / (len(density) * PIXEL_ANGSTROM)
    return np.fft.ifftn(np.fft.fftn(density) * factor(s)).real


@app.cell
def _(frequency, truth):
    def _turned(degrees):
        turn = Rotation.from_euler("zy", (degrees, degrees), degrees=True)
        return protein(turn.apply)

    _others = {
        "sharpened by 150 Å²": filtered(truth, lambda s: np.exp(150.0 * s**2 / 4.0)),
        "times the CTF": filtered(truth, lambda s: np.sin(495.0 * s**2 + 0.1)),
        "shifted by 1 Å": protein(lambda xyz: xyz + np.array([1.0, 0.0, 0.0])),
        "shifted by 3 Å": protein(lambda xyz: xyz + np.array([3.0, 0.0, 0.0])),
        "turned by 3 degrees": _turned(3.0 / np.sqrt(2.0)),
        "turned by 10 degrees": _turned(10.0 / np.sqrt(2.0)),
        "magnified by 3 %": protein(lambda xyz: 1.03 * xyz),
        "mirrored": protein(lambda xyz: xyz * np.array([1.0, 1.0, -1.0])),
    }

    def compared(done):
        other, side, xy = _others[done], (-40, 40, 40, -40), ("x (Å)", "y (Å)")
        curve = shell_correlation(truth, other)
        reached = resolution_at(torch.from_numpy(curve), 0.5, BOX, PIXEL_ANGSTROM)
        words = ("Correlation with the map as it was", "frequency (1/Å)", "FSC")
        line = (Line(frequency[1:], curve[1:]),)
        says = f"0.5 at {reached:.2f} Å" if curve[1:].min() < 0.5 else "never below 0.5"
        return Plot(
            (
                Panel((Heat(other[20], side),), "Its section", *xy, equal=True),
                Panel(line, *words, (0.0, 0.25), (-1.05, 1.05)),
            ),
            f"One map {done}: FSC {says}; lowest {curve[1:].min():.3f}.",
        )

    explore(compared, done=Choice("one map was", tuple(_others), "shifted by 3 Å"))
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"The FSC does not go to zero at Nyquist."* The halves share more than the signal: the same particles
      twice under other names, the same reference up to high frequency, the same mask (*Masks and what they
      feign*), or pixels that are too large for what the data hold.
    - *"The FSC is 1 everywhere."* A map was compared with itself or a filtered copy.
    - *"Two programs give me 3.2 Å and 3.6 Å for the same half-maps."* They used different masks, or one took
      the first crossing of 0.143 and the other the last. The curve says more than the number.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "In some shell the half-maps correlate to 0.8. What is the SSNR of the map of all images there?",
        full_ssnr(0.8),
        tolerance=0.05,
        hint=r"Solve $\mathrm{FSC} = \mathrm{SSNR}_{1/2} / (1 + \mathrm{SSNR}_{1/2})$, then think of the noise of a mean of two.",
        explanation="Each half has 0.8 / 0.2 = 4, and both together 8.",
    )
    return


@app.cell
def _():
    exercise(
        "Which FSC between the halves means a correlation of 0.9 of the map of all images with the truth?",
        0.81 / (2.0 - 0.81),
        tolerance=0.01,
        hint=r"Square $C_{\mathrm{ref}}$ and solve for the FSC.",
        explanation=r"$0.81\,(1 + \mathrm{FSC}) = 2\, \mathrm{FSC}$ gives 0.681.",
    )
    return


@app.cell
def _():
    choose(
        "Both half-maps are sharpened by the same B-factor. What becomes of their FSC?",
        ("It rises at high frequency.", "It falls at high frequency.", "It stays."),
        2,
        hint="What does the factor do to the numerator, and what to the denominator?",
        explanation="The factor is the same for a whole shell and cancels. Signal and noise grow alike.",
    )
    return


@app.function
def test_one_seventh():
    """0.143 and 0.5 are the same demand; the library's ratio is that of the text."""
    assert abs(correlation_with_truth(1 / 7) - 0.5) < 1e-12
    assert abs(full_ssnr(1 / 7) - 1 / 3) < 1e-12
    assert abs(correlation_with_truth(0.5) - 0.816497) < 1e-6
    f = torch.linspace(0.05, 0.95, 10, dtype=torch.float64)
    found = signal_to_noise(f, joined=True).numpy()
    np.testing.assert_allclose(found, full_ssnr(f.numpy()), rtol=1e-12)


@app.function
def test_formulas_hold_for_maps():
    """Shell 15 has 2,800 numbers: a correlation is off by 0.019; three of them."""
    signal, n1, n2 = np.random.default_rng(12).normal(size=(3, BOX, BOX, BOX))
    for ssnr in (1 / 6, 1.0, 4.0):
        one, two = np.sqrt(ssnr) * signal + n1, np.sqrt(ssnr) * signal + n2
        expected = ssnr / (1 + ssnr)
        assert abs(shell_correlation(one, two)[15] - expected) < 0.057
        with_truth = shell_correlation(one + two, signal)[15]
        assert abs(with_truth - correlation_with_truth(expected)) < 0.057


@app.function
def test_radial_scaling_changes_nothing():
    """To 1e-10, which is rounding of FFTs; and it is the library's FSC."""
    one, two = np.random.default_rng(13).normal(size=(2, 24, 24, 24))
    scaled = filtered(one, lambda s: np.exp(40.0 * s**2) + s)
    before, after = shell_correlation(one, two), shell_correlation(scaled, two)
    assert abs(before - after).max() < 1e-10
    library = fourier_shell_correlation(torch.from_numpy(one), torch.from_numpy(two))
    np.testing.assert_allclose(before, library.numpy(), atol=1e-10)


@app.function
def test_scatter_of_noise():
    """1 / sqrt(n): 11 shells of 20 pairs tell it to 5 %; three of them."""
    rng, count = np.random.default_rng(14), np.bincount(shells(32).ravel())[5:16]
    curves = [
        shell_correlation(*rng.normal(size=(2, 32, 32, 32)))[5:16] for _ in range(20)
    ]
    scatter = np.sqrt(np.mean(np.square(curves) * count))
    assert abs(scatter - 1.0) < 0.15


@app.cell
def _():
    closing(
        "fsc",
        library=[
            "cryoinfer.evaluation.fsc.fourier_shell_correlation",
            "cryoinfer.evaluation.fsc.resolution_at",
            "cryoinfer fsc",
        ],
        sources=[
            "G. Harauz, M. van Heel 1986, Exact filters for general geometry three dimensional reconstruction, Optik.",
            "P. B. Rosenthal, R. Henderson 2003, Optimal determination of particle orientation, absolute hand, and contrast loss in single-particle electron cryomicroscopy, Journal of Molecular Biology.",
            "learn_cryoem_math (Woollard), notebooks fsc and guinier_fsc_sharpen.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
