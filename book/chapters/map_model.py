import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy import ndimage
    from scipy.spatial import cKDTree

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
    from cryoinfer.data.examples import example_atoms
    from cryoinfer.evaluation.fsc import fourier_shell_correlation
    from cryoinfer.physics.structures.atoms import GaussianAtoms


@app.cell
def _():
    opening("map_model")
    return


@app.cell
def _():
    mo.md(r"""
    ## The same currency

    A map is there, and someone has built atoms into it. Do they fit? Turn the atoms into a map as well, by
    their scattering factors and B-factors, and compare map with map. The correlation of the two over shells is
    the **map-model FSC**.

    What would it be for a perfect model? Then the model's map is the truth $S$, and the correlation of the map
    of all images with the truth is, by *Shell correlation*,

    $$C_{\mathrm{ref}} = \sqrt{\frac{2\, \mathrm{FSC}}{1 + \mathrm{FSC}}} ,$$

    with the FSC of the half-maps. Where that is 0.143, this is 0.5, so 0.5 is the threshold for a map against a
    model. No model that is true can do better on average. One that does has been fitted to noise.

    ## A model with errors

    Let the atoms of the model be off by errors that are normal, independent, with the standard deviation
    $\sigma$ along each axis. Take $F = \sum_j f_j e^{-2\pi i k r_j}$ for the truth and $F_m$ with
    $r_j + \delta_j$ for the model. In $\mathrm{E}\, F F_m^*$ the terms of different atoms average out, as far
    as atoms lie at random (*Falling amplitudes*), and each atom with itself gives

    $$\mathrm{E}\, f_j^2\, e^{2 \pi i k \delta_j} = f_j^2\, e^{-2 \pi^2 s^2 \sigma^2} .$$

    The power of truth and model is the same, $\sum f_j^2$. So the correlation is multiplied by

    $$D(s) = e^{-2\pi^2 s^2 \sigma^2} ,$$

    as Luzzati found in 1952. A model that is off by 0.5 Å along each axis has $D = 0.29$ at 2 Å and 0.74 at 4
    Å: at low frequency all models are good.

    In the figure the map-model FSC follows $C_{\mathrm{ref}} D$, nearly, for atoms are not quite at random.
    Raise the noise first, then the error. The two look different: noise brings the halves down as well, an
    error of the model does not.
    """)
    return


@app.function
def protein(error=0.0, seed=51):
    """Return 40 voxels of 1.5 angstrom of adenylate kinase whose atoms are off."""
    model = example_atoms("adenylate-kinase-open")
    moved = np.random.default_rng(seed).normal(size=model.coordinates_angstrom.shape)
    xyz = torch.from_numpy(model.coordinates_angstrom + error * moved).float()
    atoms = GaussianAtoms.from_elements(xyz, model.elements, 60.0)
    return atoms.to_map(40, 1.5).double()


@app.function
def correlation_with_truth(fsc):
    """Return C_ref from the FSC of halves; 0 where that is negative."""
    fsc = np.maximum(fsc, 0.0)
    return np.sqrt(2.0 * fsc / (1.0 + fsc))


@app.function
def luzzati(s, error):
    """Return D(s) for errors of this standard deviation along each axis."""
    return np.exp(-2.0 * np.pi**2 * s**2 * error**2)


@app.cell
def _():
    _errors, _s = (0.0, 0.3, 0.5, 0.8, 1.2, 2.0), np.arange(1, 21) / 60.0
    _models = {error: protein(error) for error in _errors}
    _truth = _models[0.0]
    _noise = torch.from_numpy(np.random.default_rng(52).normal(size=(2, 40, 40, 40)))

    def against_model(noise, error):
        one, two = _truth + noise * _truth.std() * _noise
        halves = fourier_shell_correlation(one, two).numpy()[1:]
        model = fourier_shell_correlation(one + two, _models[error]).numpy()[1:]
        expected = correlation_with_truth(halves) * luzzati(_s, error)
        lines = (
            Line(_s, model, "map against model"),
            Line(_s, halves, "half against half"),
            Line(_s, expected, "C_ref D", dashed=True),
        )
        picture, xy = (Heat((one + two)[20], (-30, 30, -30, 30)),), ("x (Å)", "y (Å)")
        words = ("Correlation", "frequency (1/Å)", "FSC", (0.0, 0.334), (-0.2, 1.02))
        below = np.append(np.nonzero(model < 0.5)[0], 19)[0]
        return Plot(
            (Panel(picture, "The map", *xy, equal=True), Panel(lines, *words)),
            f"Atoms off by {error:g} Å along each axis: map against model falls below "
            f"0.5 at about {1 / _s[below]:.1f} Å.",
        )

    _noises = Slider("noise / spread of the map", (0.2, 0.5, 1, 2, 4), 0.5)
    explore(against_model, noise=_noises, error=Slider("error (Å)", _errors, 0.5))
    return


@app.cell
def _():
    mo.md(r"""
    ## Atom by atom

    A curve says nothing about a single side chain. A correlation in real space near the atom can. The
    **Q-score** of Pintilie and others takes the map's values $u$ at points up to 2 Å from the atom, those
    nearer to it than to any other, and correlates them with what a well-resolved atom would give, a Gaussian of
    width 0.6 Å, $v(r) = e^{-r^2 / (2 \cdot 0.6^2)}$:

    $$Q = \frac{\sum (u - \bar u)(v - \bar v)}{\sqrt{\sum (u - \bar u)^2\, \sum (v - \bar v)^2}} .$$

    Scale and offset of the map drop out. $Q$ is near 1 if the density peaks at the atom and falls as it should,
    lower if it is flat, and negative if the atom sits in a hole. Two things lower it: a blurred map, and an
    atom at the wrong place. The figure tells them apart. With the B-factor all profiles get flatter together,
    and the histogram moves almost as one. With wrong places it spreads: some atoms happen to sit well, others
    do not.
    """)
    return


@app.function
def core_map(b_factor):
    """Return 48 voxels of 0.9 angstrom of the atoms near the centre, and their places."""
    model = example_atoms("adenylate-kinase-open")
    near = np.linalg.norm(model.coordinates_angstrom, axis=1) < 18.0
    xyz = model.coordinates_angstrom[near]
    elements = [e for e, keep in zip(model.elements, near, strict=True) if keep]
    places = torch.from_numpy(xyz).float()
    atoms = GaussianAtoms.from_elements(places, elements, b_factor)
    return atoms.to_map(48, 0.9).double().numpy(), xyz


@app.function
def around_atoms(density, xyz, chosen):
    """Return values of the map around atoms, (a, 21 radii, 16); NaN near others."""
    unit = np.random.default_rng(53).normal(size=(16, 3))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    radii = np.linspace(0.0, 2.0, 21)
    points = xyz[chosen, None, None] + radii[:, None, None] * unit
    own = cKDTree(xyz).query(points)[1] == np.asarray(chosen)[:, None, None]
    # Axes of a map are z, y, x; its origin is voxel n // 2.
    voxels = np.moveaxis(points[..., ::-1], -1, 0) / 0.9 + len(density) // 2
    values = ndimage.map_coordinates(density, voxels, order=3, mode="wrap")
    return np.where(own, values, np.nan)


@app.function
def q_scores(values):
    """Return Q of every atom from the values around it."""
    r = np.linspace(0.0, 2.0, 21)[:, None]
    v = np.where(np.isnan(values), np.nan, np.exp(-(r**2) / (2.0 * 0.6**2)))
    u, v = (x - np.nanmean(x, axis=(1, 2), keepdims=True) for x in (values, v))
    sums = [np.nansum(x, axis=(1, 2)) for x in (u * v, u * u, v * v)]
    return sums[0] / np.sqrt(sums[1] * sums[2])


@app.cell
def _():
    _maps = {b: core_map(b) for b in (10, 30, 60, 100, 150, 250)}
    _off = np.random.default_rng(54).normal(size=(len(_maps[10][1]), 3))

    def atom_by_atom(b, error):
        density, xyz = _maps[b]
        values = around_atoms(density, xyz + error * _off, np.arange(0, len(xyz), 5))
        q, r = q_scores(values), np.linspace(0.0, 2.0, 21)
        mean = np.nanmean(values, axis=(0, 2))
        mean = (mean - mean.min()) / (mean.max() - mean.min())
        share, edges = np.histogram(q, np.linspace(-1.0, 1.0, 31))
        profile = (
            Line(r, mean, "mean of the map, 0 to 1"),
            Line(r, np.exp(-(r**2) / 0.72), "Gaussian of 0.6 Å", dashed=True),
        )
        words = ("Around an atom", "distance (Å)", "density", (0.0, 2.0), (-0.05, 1.05))
        bars = (Bars((edges[1:] + edges[:-1]) / 2.0, share / len(q)),)
        more = ("Q-scores", "Q", "share of atoms", (-1.0, 1.0), (0.0, 0.6))
        return Plot(
            (Panel(profile, *words), Panel(bars, *more)),
            f"Mean Q {q.mean():.2f}, spread {q.std():.2f}, of {len(q)} atoms.",
        )

    _b = Slider("B-factor of the map (Å²)", tuple(_maps), 60)
    explore(atom_by_atom, b=_b, error=Slider("error (Å)", (0, 0.3, 0.6, 1, 1.5), 0))
    return


@app.cell
def _():
    source(q_scores, around_atoms, luzzati)
    return


@app.cell
def _():
    mo.md(r"""
    ## Whether the map explains the model

    Atoms are moved until they fit. With enough freedom they fit the noise, and every score rises. The cure is
    data that the fit has not seen. Fit into half-map 1, then compare with half-map 2. The signal is in both,
    the noise of half 1 is not in half 2. The correlation with the half that was used is the work score, that
    with the other the **free score**. A gap between them is overfitting.

    The figure does it with 40 atoms in a plane, which begin 0.7 Å off and slide down the gradient of the
    squared difference to half 1. With little noise both scores rise together. With noise the work score goes on
    rising after the free one has turned. The best model is where the free score is highest, long before the fit
    has ended.
    """)
    return


@app.function
def plane_image(places, width=1.2):
    """Return 40 x 40 pixels of 1 angstrom with a Gaussian at every place (y, x)."""
    axis = np.arange(40) - 20.0
    y, x = (np.exp(-((axis - c[:, None]) ** 2) / (2 * width**2)) for c in places.T)
    return y.T @ x


@app.function
def plane_slope(places, residual, width=1.2):
    """Return the derivative of sum(residual^2) / 2 by the places, shape (a, 2)."""
    axis = np.arange(40) - 20.0
    away = [axis - c[:, None] for c in places.T]
    y, x = (np.exp(-(d**2) / (2 * width**2)) for d in away)
    along_y = np.einsum("ai,ij,aj->a", y * away[0], residual, x)
    along_x = np.einsum("ai,ij,aj->a", y, residual, x * away[1])
    return np.stack([along_y, along_x], axis=1) / width**2


@app.function
def fitted(noise, steps=160, rate=0.05):
    """Return scores (work, free, truth) of every step of a fit into half 1."""
    rng = np.random.default_rng(55)
    true = rng.uniform(-15.0, 15.0, size=(40, 2))
    places, signal = true + 0.7 * rng.normal(size=true.shape), plane_image(true)
    halves = signal + noise * rng.normal(size=(2, 40, 40))
    scores = []
    for _ in range(steps + 1):
        model = plane_image(places)
        targets = (*halves, signal)
        scores.append([np.corrcoef(model.ravel(), t.ravel())[0, 1] for t in targets])
        places = places - rate * plane_slope(places, model - halves[0])
    return np.array(scores)


@app.cell
def _():
    _levels = (0.1, 0.3, 0.6, 1.0)
    _runs = {noise: fitted(noise) for noise in _levels}

    def fit(step, noise):
        scores, steps = _runs[noise], np.arange(161)
        names = ("work: half 1", "free: half 2", "truth")
        lines = [Line(steps, y, n) for y, n in zip(scores.T, names, strict=True)]
        words = ("Scores while atoms are fitted to half 1", "step", "correlation")
        marks = (*lines, Points([step] * 3, scores[step]))
        work, free, truth = scores[step]
        return Plot(
            (Panel(marks, *words, y_range=(0.0, 1.02)),),
            f"Step {step}: work {work:.3f}, free {free:.3f}, truth {truth:.3f}. The free "
            f"score is highest at step {scores[:, 1].argmax()}.",
        )

    _step = Slider("step", (0, 5, 10, 20, 40, 80, 160), 20)
    _noises = Slider("noise (1 = height of an atom)", _levels, 0.6)
    explore(fit, step=_step, noise=_noises)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"The map-model FSC is better than the half-maps allow."* The model was refined against the same map.
      Compare with $C_{\mathrm{ref}}$, and fit into one half only.
    - *"The correlation is 0.85, and side chains are wrong."* A correlation over all frequencies is dominated by
      low ones. Look at the curve, or at single atoms.
    - *"The FSC is low from the first shell on."* The model does not cover the map (micelle, missing domains),
      its pixel size or origin is another, or the hand is wrong.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        r"A perfect map is compared with a model whose atoms are off by $\sigma = 0.4$ Å along each axis. What is the map-model FSC at 2.5 Å?",
        luzzati(0.4, 0.4),
        tolerance=0.01,
        hint=r"$C_{\mathrm{ref}} = 1$, so it is $D = e^{-2\pi^2 s^2 \sigma^2}$ with $s = 0.4$ 1/Å.",
        explanation=r"$2\pi^2 \times 0.16 \times 0.16 = 0.505$, and $e^{-0.505} = 0.60$.",
    )
    return


@app.cell
def _():
    exercise(
        "The half-maps correlate to 0.6 in some shell. Which map-model FSC would a perfect model have there?",
        correlation_with_truth(0.6),
        tolerance=0.01,
        hint=r"$\sqrt{2\, \mathrm{FSC} / (1 + \mathrm{FSC})}$.",
        explanation=r"$\sqrt{1.2 / 1.6} = 0.866$. More than that would be suspicious.",
    )
    return


@app.cell
def _():
    choose(
        "Two models have the same Q-score on average. In one all atoms have 0.7, in the other half of them 0.95 and half 0.45. What differs?",
        ("The first map is finer.", "In the second, atoms are misplaced.", "Nothing."),
        1,
        hint="What did a B-factor do to the histogram, and what did an error?",
        explanation="A blur that is the same everywhere moves all scores. Errors, and local disorder, spread them.",
    )
    return


@app.function
def test_luzzati():
    """D as the text has it, and maps: 0.03 by chance, and atoms are not at random."""
    assert abs(luzzati(0.5, 0.5) - 0.291) < 1e-3
    s = np.arange(21) / 60.0
    for error in (0.5, 0.8):
        found = fourier_shell_correlation(protein(), protein(error)).numpy()
        assert abs(found - luzzati(s, error))[10:].max() < 0.12


@app.function
def test_perfect_model_gives_c_ref():
    """Noisy halves against the truth: 0.03 by chance in most shells, three of it."""
    truth, rng = protein(), np.random.default_rng(56)
    one, two = truth + truth.std() * torch.from_numpy(rng.normal(size=(2, 40, 40, 40)))
    halves = fourier_shell_correlation(one, two).numpy()[5:]
    found = fourier_shell_correlation(one + two, truth).numpy()[5:]
    assert abs(found - correlation_with_truth(halves)).mean() < 0.09


@app.function
def test_q_of_a_gaussian_is_one():
    """A single atom of width 0.6 sampled by its formula, and its negative (rounding)."""
    r = np.linspace(0.0, 2.0, 21)[None, :, None] * np.ones((1, 1, 16))
    values = 3.0 + 2.0 * np.exp(-(r**2) / 0.72)
    assert abs(q_scores(values) - 1.0).max() < 1e-12
    assert abs(q_scores(-values) + 1.0).max() < 1e-12


@app.cell
def _():
    closing(
        "map_model",
        library=["cryoinfer.physics.structures.atoms.GaussianAtoms.to_map"],
        sources=[
            "V. Luzzati 1952, Traitement statistique des erreurs dans la détermination des structures cristallines, Acta Crystallographica.",
            "P. B. Rosenthal, R. Henderson 2003, Optimal determination of particle orientation, absolute hand, and contrast loss in single-particle electron cryomicroscopy, Journal of Molecular Biology.",
            "G. Pintilie et al. 2020, Measurement of atom resolvability in cryo-EM maps with Q-scores, Nature Methods.",
            "learn_cryoem_math (Woollard), notebook map_model.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
