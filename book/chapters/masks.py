import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch

    from course import (
        Heat,
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
    from cryoinfer.data.examples import example_atoms
    from cryoinfer.evaluation.fsc import fourier_shell_correlation, masked_fsc
    from cryoinfer.physics.structures.atoms import GaussianAtoms
    from cryoinfer.reconstruction.mask import soft_sphere

    BOX, LAST = 40, 10


@app.cell
def _():
    opening("masks")
    return


@app.cell
def _():
    mo.md(r"""
    ## Why anyone masks

    A protein fills a small part of its box. Around it is only noise, and that noise lowers the correlation of
    two half-maps. What is asked is how good the protein is. So both halves are multiplied by a **mask**
    $m(x)$, 1 on the protein and 0 far from it.

    How much is gained? Let the mask keep the fraction $f$ of the volume. White noise keeps the fraction $f$
    of its power, the signal keeps all of it. The signal-to-noise ratio of every shell is divided by $f$. With
    $\mathrm{SSNR} = \mathrm{FSC} / (1 - \mathrm{FSC})$ for a half,

    $$\mathrm{FSC}_m = \frac{\mathrm{FSC}}{\mathrm{FSC} + f\, (1 - \mathrm{FSC})} .$$

    With $f = 0.1$ an FSC of 0.143 becomes 0.625. This gain is honest. It asks for the quality of the protein
    and not of the box.

    ## What a mask does in Fourier space

    A product of maps is a convolution of their transforms. With a mask each coefficient becomes a mean of its
    neighbours, weighted by the mask's transform $\hat m$. Noise of two halves stays independent, so this
    alone makes no correlation, only fewer independent coefficients. But signals at low frequency are stronger
    than those at high frequency by orders of magnitude, and they are in both halves. What $\hat m$ carries
    from there to high frequency is the same in both. It is signal, but it is not at its place, and no detail
    of that size was ever seen.

    How far $\hat m$ reaches depends on the edge. In one dimension, a mask of half-width $w$ with a step for
    an edge has $\hat m(s) = \sin(2\pi s w) / (\pi s)$. It falls as $1/s$ only. A **soft edge** of width $e$,
    half a period of a cosine, is the step blurred with $\frac{\pi}{2e} \cos(\pi x / e)$, $|x| < e/2$.
    Blurring is a product in Fourier space:

    $$\hat m(s) = \frac{\sin(2 \pi s w)}{\pi s} \cdot \frac{\cos(\pi s e)}{1 - (2 s e)^2} .$$

    Beyond $s = 1/e$ it falls as $1/s^3$. Move the slider: an edge of 10 Å makes $\hat m$ at 5 Å fifteen times
    smaller than a step does, one of 30 Å about 140 times.
    """)
    return


@app.function
def mask_profile(x, half_width, edge):
    """Return a mask in one dimension, at 1/2 where |x| is the half-width."""
    depth = np.clip((abs(x) - half_width) / max(edge, 1e-9) + 0.5, 0.0, 1.0)
    return 0.5 + 0.5 * np.cos(np.pi * depth)


@app.function
def mask_transform(s, half_width, edge):
    """Return its Fourier transform; where 2 s e = 1 the limit is taken."""
    blur = np.pi / 4.0 * np.ones_like(s)
    usual = abs(2.0 * s * edge - 1.0) > 1e-6
    blur[usual] = np.cos(np.pi * s[usual] * edge) / (1.0 - (2.0 * s[usual] * edge) ** 2)
    return 2.0 * half_width * np.sinc(2.0 * s * half_width) * blur


@app.cell
def _():
    def edges(edge):
        x, s = np.linspace(-60.0, 60.0, 241), np.linspace(0.001, 0.3, 500)
        both = (mask_transform(s, 30.0, e) / 60.0 for e in (0, edge))
        size = [20 * np.log10(abs(one)) for one in both]
        around = abs(s - 0.2) < 1 / 60.0
        step = Line(s, np.maximum(size[0], -100.0), "a step", dashed=True)
        marks = (Line(s, np.maximum(size[1], -100.0), "this edge"), step)
        words = ("Its transform", "frequency (1/Å)", "size over that at 0 (dB)")
        mask = Line(x, mask_profile(x, 30.0, edge))
        return Plot(
            (
                Panel((mask,), "Mask", "x (Å)", "mask", y_range=(-0.05, 1.1)),
                Panel(marks, *words, (0.0, 0.3), (-100.0, 2.0)),
            ),
            f"Edge {edge} Å: at 1/5 Å the lobes reach {size[1][around].max():.0f} dB, "
            f"those of a step {size[0][around].max():.0f} dB.",
        )

    explore(edges, edge=Slider("edge e (Å)", (0, 2, 4, 6, 8, 10, 15, 20, 30), 4))
    return


@app.cell
def _():
    mo.md(r"""
    ## Measuring the mask by scrambling

    What correlation does the mask make of nothing? Replace the phases of both halves, from some frequency on,
    by random ones, different in each half, and keep the amplitudes. Beyond that frequency the halves now have
    nothing in common. Mask them, and compute the FSC again. What is left is the mask's. This is **phase
    randomisation**.

    How is it taken out? Let a shell of the masked halves hold three parts: $L$, which the mask carried there
    from low frequency and which is in both; $S$, the signal that belongs there; and $N$, independent noise.
    If they are unrelated,

    $$\mathrm{FSC}_t = \frac{L^2 + S^2}{L^2 + S^2 + N^2} , \qquad
    \mathrm{FSC}_n = \frac{L^2}{L^2 + S^2 + N^2} ,$$

    since with random phases $S$ has turned into noise of the same power. Subtract, and divide by
    $1 - \mathrm{FSC}_n = (S^2 + N^2) / (L^2 + S^2 + N^2)$:

    $$\frac{\mathrm{FSC}_t - \mathrm{FSC}_n}{1 - \mathrm{FSC}_n} = \frac{S^2}{S^2 + N^2} .$$

    That is the **corrected FSC**, as if the mask had carried nothing over. In the shells next to the first
    random one $L$ comes in part from scrambled neighbours, so there the correction fails. The library leaves
    the first two as they are.

    ## Filtering before masking

    There is another way. Take one shell of each half alone, transform it back, and correlate these two maps
    in real space, with the mask as a weight. Nothing can leak from other shells, for they are not there:

    $$\mathrm{mFSC}(s) = \frac{\sum_x m^2 f_1 f_2}{\sqrt{\sum_x m^2 f_1^2\; \sum_x m^2 f_2^2}} ,
    \qquad f_i = \text{shell } s \text{ of half } i .$$

    Penczek calls it the **modified Fourier shell correlation** (with shells of Gaussian profile, where
    ours are hard). The same steps, in another order. The price is a transform per shell.

    The figure has halves that share a protein up to 8 Å, which is shell 10, and nothing beyond. Any
    correlation beyond 0.125 1/Å is false. Look for it with a mask of radius 16 Å and a thin edge, then make
    the edge soft, then the mask wide. The right panel says what the two cures make of it.
    """)
    return


@app.function
def shells(box):
    """Return round(|k|) of every coefficient of a transform, in Fourier pixels."""
    k = np.fft.fftfreq(box, 1.0 / box)
    return np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2).round().astype(int)


@app.function
def protein_up_to_shell(last):
    """Return adenylate kinase in voxels of 2 angstrom, without what is beyond a shell."""
    model = example_atoms("adenylate-kinase-open")
    xyz = torch.from_numpy(model.coordinates_angstrom.copy()).float()
    density = GaussianAtoms.from_elements(xyz, model.elements).to_map(BOX, 2.0)
    coefficients = np.fft.fftn(density.double().numpy())
    coefficients[(shells(BOX) > last) | (shells(BOX) == 0)] = 0.0
    density = np.fft.ifftn(coefficients).real
    return density / density.std()


@app.function
def modified_fsc(half1, half2, mask):
    """Return the real-space correlation under a mask of every shell alone."""
    a, b, shell = np.fft.fftn(half1), np.fft.fftn(half2), shells(len(mask))
    values = []
    for s in range(len(mask) // 2 + 1):
        f1, f2 = (mask * np.fft.ifftn(np.where(shell == s, c, 0)).real for c in (a, b))
        values.append((f1 * f2).sum() / np.sqrt((f1**2).sum() * (f2**2).sum()))
    return np.array(values)


@app.cell
def _():
    _noise = np.random.default_rng(21).normal(size=(2, BOX, BOX, BOX))
    _half1, _half2 = protein_up_to_shell(LAST) + 0.4 * _noise
    _halves = torch.from_numpy(_half1), torch.from_numpy(_half2)
    _s, _side = np.arange(BOX // 2 + 1) / 80.0, (-40.0, 40.0, 40.0, -40.0)

    def masked(radius, edge):
        mask = soft_sphere(BOX, radius / 2.0, edge / 2.0).double()
        found = masked_fsc(*_halves, mask, torch.Generator().manual_seed(1))
        modified = modified_fsc(_half1, _half2, mask.numpy())
        left = (
            Line(_s[1:], found.masked[1:], "masked"),
            Line(_s[1:], found.randomised[1:], "masked, phases random"),
            Line(_s[1:], found.unmasked[1:], "unmasked", dashed=True),
        )
        first = Line(_s[1:], found.corrected[1:], "corrected")
        right = (first, Line(_s[1:], modified[1:], "filtered, then masked"))
        axes = ("frequency (1/Å)", "FSC", (0.0, 0.25), (-0.2, 1.02))
        section = Heat((mask.numpy() * _half1)[BOX // 2], _side, limits=(-3.0, 8.0))
        false = [np.mean(one[LAST + 3 :]) for one in (found.masked.numpy(), modified)]
        return Plot(
            (
                Panel((section,), "A masked half", "x (Å)", "y (Å)", equal=True),
                Panel(left, "The FSC", *axes),
                Panel(right, "Two cures", *axes),
            ),
            f"Mean correlation beyond 6.2 Å, where nothing is shared: masked "
            f"{false[0]:.3f}, filtered first {false[1]:.3f}.",
        )

    _radius = Slider("radius (Å)", (12, 16, 20, 25, 30, 35), 16)
    explore(masked, radius=_radius, edge=Slider("edge (Å)", (0.1, 2, 4, 8, 12), 0.1))
    return


@app.cell
def _():
    source(modified_fsc, mask_transform)
    return


@app.cell
def _():
    mo.md(r"""
    ## A mask made of the noise

    Scrambling measures what a given mask does to a map that has nothing to do with it. It does not measure
    how the mask was made. Suppose that it was drawn around everything bright in the map, and the map is
    noise. A voxel is in the mask where $n_1 + n_2$ is large, so where both are likely to be large. Under the
    mask the two noises are correlated, since the mask looked at both.

    In the next figure both halves are pure noise. The mask keeps the brightest voxels of their sum. The fewer
    it keeps, the more they agree, at all frequencies. (With 50 % kept and no smoothing they disagree, at all
    frequencies but 0: in a given sum, one can be larger only if the other is smaller.) Random phases notice
    nothing, since scrambled maps are not those from which the mask was cut. The cure is a smooth outline from a low-passed
    map, which knows nothing of the noise at high frequency, and a margin around it.
    """)
    return


@app.function
def noise_and_its_mask(kept_percent, smooth):
    """Return two noises and a mask of the brightest voxels of their (smoothed) sum."""
    halves = np.random.default_rng(22).normal(size=(2, 32, 32, 32))
    total = np.fft.fftn(halves.sum(0)) * np.exp(-((smooth * shells(32) / 32.0) ** 2))
    bright = np.fft.ifftn(total).real
    return halves, 1.0 * (bright > np.quantile(bright, 1.0 - kept_percent / 100.0))


@app.cell
def _():
    def drawn_around_noise(kept_percent, smooth):
        halves, mask = noise_and_its_mask(kept_percent, smooth)
        maps = [torch.from_numpy(one) for one in (*halves, mask)]
        curve = masked_fsc(*maps, torch.Generator().manual_seed(2))
        shell = np.arange(1, 17)
        lines = (
            Line(shell, curve.masked[1:], "masked"),
            Line(shell, curve.randomised[1:], "masked, phases random"),
            Line(shell, curve.unmasked[1:], "unmasked", dashed=True),
        )
        words, high = ("Correlation of noise", "shell", "FSC"), slice(8, 17)
        image = (Heat(mask[16], limits=(0, 1)),)
        return Plot(
            (
                Panel(image, "Mask", "x (voxels)", "y (voxels)", equal=True),
                Panel(lines, *words, y_range=(-0.3, 1.02)),
            ),
            f"Shells 8 to 16: masked {curve.masked[high].mean():.3f}, phases random "
            f"{curve.randomised[high].mean():.3f}; there is no signal at all.",
        )

    _kept = Slider("voxels kept (%)", (2, 5, 10, 20, 50), 10)
    _smooth = Slider("smoothing", (0, 4, 8, 16), 0)
    explore(drawn_around_noise, kept_percent=_kept, smooth=_smooth)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"Every time I tighten the mask, the resolution improves."* First the honest gain by $1/f$, then leakage.
      If the curve of random phases is not near 0 where the resolution is read, the mask is too sharp or cuts
      into density.
    - *"The corrected FSC has a dip at one frequency."* There randomisation begins.
    - *"Two programs disagree about my FSC."* They draw different masks. Compare the unmasked curves first.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "Unmasked, the FSC of a shell is 0.05. A mask keeps 5 % of the box and all of the protein. What becomes of the FSC, if nothing leaks?",
        0.05 / (0.05 + 0.05 * 0.95),
        tolerance=0.01,
        hint=r"Put $\mathrm{FSC} = 0.05$ and $f = 0.05$ into the first formula.",
        explanation="0.05 / (0.05 + 0.0475) = 0.513.",
    )
    return


@app.cell
def _():
    exercise(
        "The masked FSC is 0.40, and 0.10 of it remains with random phases. What is the corrected FSC?",
        (0.40 - 0.10) / (1.0 - 0.10),
        tolerance=0.005,
        hint="Subtract, and divide by what could still be reached.",
        explanation="0.30 / 0.90 = 0.333.",
    )
    return


@app.cell
def _():
    choose(
        "Both half-maps are pure noise of mean 0. A sphere with a sharp edge masks both. Their FSC",
        (
            "rises at high frequency.",
            "scatters more widely about 0.",
            "is 1 at low frequency.",
        ),
        1,
        hint="Is there anything that both halves share and that could leak?",
        explanation="Independent noise stays independent under any mask that does not depend on it. Only fewer coefficients are independent.",
    )
    return


@app.function
def test_transform_of_the_mask():
    """Against the integral by trapezoids: steps of 1e-3 angstrom leave 1e-4."""
    x, s = np.arange(-60.0, 60.0, 1e-3), np.array([0.003, 0.05, 0.125, 0.21])
    for edge in (4.0, 8.0):
        profile = mask_profile(x, 30.0, edge)
        sums = [(profile * np.cos(2 * np.pi * one * x)).sum() * 1e-3 for one in s]
        np.testing.assert_allclose(mask_transform(s, 30.0, edge), sums, atol=1e-3)


@app.function
def test_honest_gain():
    """The first formula: 1,600 numbers under the mask, chance 0.025; two of them."""
    mask = soft_sphere(32, 9.0, 2.0).double().numpy()
    signal, n1, n2 = np.random.default_rng(23).normal(size=(3, 32, 32, 32))
    signal *= mask > 0.5
    halves = [torch.from_numpy(signal + n) for n in (n1, n2)]
    before = fourier_shell_correlation(*halves)[8:].mean().item()
    after = fourier_shell_correlation(*(torch.from_numpy(mask) * h for h in halves))
    kept = (mask**2).mean() * (signal**2).sum() / ((mask * signal) ** 2).sum()
    expected = before / (before + kept * (1 - before))
    assert abs(after[8:].mean().item() - expected) < 0.05


@app.function
def test_without_a_mask_the_orders_agree():
    """Where the mask is 1, shells alone in real space are shells (Parseval: rounding)."""
    halves = np.random.default_rng(24).normal(size=(2, 16, 16, 16))
    library = fourier_shell_correlation(*torch.from_numpy(halves)).numpy()
    found = modified_fsc(*halves, np.ones((16, 16, 16)))
    np.testing.assert_allclose(found, library, atol=1e-10)


@app.cell
def _():
    closing(
        "masks",
        library=[
            "cryoinfer.evaluation.fsc.masked_fsc",
            "cryoinfer.reconstruction.mask.soft_mask",
        ],
        sources=[
            "S. Chen et al. 2013, High-resolution noise substitution to measure overfitting and validate resolution in 3D structure determination by single particle electron cryomicroscopy, Ultramicroscopy.",
            "P. A. Penczek 2020, Reliable cryo-EM resolution estimation with modified Fourier shell correlation, IUCrJ.",
            "learn_cryoem_math (Woollard), notebook mFSC.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
