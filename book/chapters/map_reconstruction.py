import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    from dataclasses import replace

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
    from cryoinfer.evaluation.fsc import fourier_shell_correlation
    from cryoinfer.fourier.grids import FourierDisc
    from cryoinfer.fourier.slices import SliceAccumulator, insert_slices
    from cryoinfer.fourier.transform import image_to_fourier
    from cryoinfer.geometry.rotations import random_rotations
    from cryoinfer.physics.ctf import evaluate_ctf
    from cryoinfer.physics.structures.beads import GaussianBeads
    from cryoinfer.reconstruction.backproject import signal_to_noise, solve
    from cryoinfer.records import Optics, Pose


@app.cell
def _():
    opening("map_reconstruction")
    return


@app.cell
def _():
    mo.md(r"""
    ## One coefficient, seen many times

    Poses are known, and a map is wanted. By the slice theorem each image tells some values of the map's transform, times
    a CTF, in noise. Look at one value $v$ that was seen in the images $j = 1, \dots, n$:

    $$y_j = C_j v + \text{noise of power } \sigma^2 .$$

    Images have said something; before them something was believed as well: that $v$ has about the power $\tau^2$, as
    coefficients of proteins at that resolution have. With normal distributions for both, minus the logarithm of the
    **posterior**, the product of both probabilities, is

    $$L(v) = \sum_j \frac{\lvert y_j - C_j v\rvert^2}{\sigma^2} + \frac{\lvert v\rvert^2}{\tau^2} .$$

    It is a parabola in $v$. Where its derivative is zero lies the most probable value,

    $$\hat v = \frac{\sum_j C_j y_j / \sigma^2}{w + 1/\tau^2}, \qquad
    w = \sum_j C_j^2 / \sigma^2 ,$$

    and the posterior's variance is $1 / (w + 1/\tau^2)$. Without the prior, at $\tau^2 = \infty$, this is **least
    squares**. With it, least squares is multiplied by

    $$\frac{w}{w + 1/\tau^2} = \frac{w\tau^2}{1 + w\tau^2} ,$$

    which is the **Wiener filter**: the share of the answer that is data. The rest, $1/(1 + w\tau^2)$, is prior, and the
    prior says zero.

    At a zero of the CTF an image says nothing: $C_j = 0$, and the share is 0. Other images have other defoci, and their
    zeros lie elsewhere. In the figure, begin with one image. Add images without spreading their defocus, then spread it,
    and see the holes close.
    """)
    return


@app.function
def ctf(defocus_angstrom, s):
    """Return the CTF at s (1/angstrom), of 300 kV, Cs 2 mm, amplitude contrast 0.1."""
    z, s = torch.atleast_1d(torch.as_tensor(defocus_angstrom)), torch.as_tensor(s)
    given = {"defocus_u_angstrom": z, "defocus_v_angstrom": z, "cs_mm": 2.0 + 0 * z}
    bare = Optics.without_ctf(len(z), 1.0)
    optics = replace(bare, amplitude_contrast=0.1 + 0 * z, **given)
    return evaluate_ctf(optics, s, torch.zeros_like(s)).numpy()


@app.function
def most_probable(seen, contrast, noise_power, prior_power):
    """Return the most probable coefficients (k,) of values (n, k), and the data's share."""
    weight = (contrast**2).sum(0) / noise_power
    value = (contrast * seen).sum(0) / noise_power
    return value / (weight + 1.0 / prior_power), weight / (weight + 1.0 / prior_power)


@app.cell
def _():
    def holes(images, spread_um, snr):
        s = np.linspace(0.0, 0.2, 401)
        place = np.linspace(-0.5, 0.5, images) if images > 1 else np.zeros(1)
        contrast = ctf(1e4 * (1.5 + spread_um * place), s)
        _, share = most_probable(contrast, contrast, 1.0, snr + 0.0 * s)
        mean = (contrast**2).mean(0)
        band = share[s > 0.02]
        x, left, right = "frequency (1/Å)", Line(s, mean), Line(s, share)
        return Plot(
            (
                Panel((left,), "Mean of C² over images", x, "C²"),
                Panel((right,), "Share that is data", x, "filter", y_range=(0, 1)),
            ),
            f"Beyond 1/50 Å the data have {100 * band.mean():.0f} % on average, and at their worst frequency {100 * band.min():.2g} %.",
        )

    explore(
        holes,
        images=Slider("images", (1, 2, 5, 20, 100, 1000), 5),
        spread_um=Slider("spread of defocus (µm)", (0, 0.1, 0.3, 1), 0),
        snr=Slider("signal over noise of one image", (0.001, 0.01, 0.1, 1), 0.1),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## How much prior is right?

    Now a whole signal, in one dimension: a line of 64 samples whose coefficients were drawn with powers $\tau^2$ that
    fall with frequency, seen through CTFs in noise ten times as strong as itself. The slider "belief" multiplies
    $\tau^2$: below 1 one believes in less signal than there is, far above 1 the prior says nothing, and least squares is
    left.

    With few images, look at the error at both ends. A belief that is far too small flattens the line; one far too large
    lets noise in, above all at frequencies that hardly any image shows. The least error is near 1. With 1,000 images the
    curve is flat to the right: the data speak for themselves.
    """)
    return


@app.function
def line_experiment():
    """Return the truth (33,), values seen (1000, 33), CTFs, noise power, prior power."""
    generator, k = np.random.default_rng(4), np.arange(33)
    normal = generator.standard_normal((1001, 33, 2)).view(complex)[..., 0] / 2**0.5
    power = np.exp(-((k / 9.0) ** 2)) + 1e-4
    truth = np.sqrt(power) * normal[0] * (k > 0)
    contrast = ctf(generator.uniform(0.8e4, 2.2e4, 1000), k / (64 * 3.0))
    noise_power = 10.0 * (power * (contrast**2).mean(0)).mean()
    seen = contrast * truth + np.sqrt(noise_power) * normal[1:]
    return truth, seen, contrast, noise_power, power


@app.cell
def _():
    _truth, _seen, _contrast, _noise, _power = line_experiment()
    _beliefs, _size = np.arange(-3.0, 4.1, 0.25), np.sum(np.abs(_truth) ** 2)

    def belief(images, factor):
        few = _seen[:images], _contrast[:images], _noise

        def error(times):
            off = most_probable(*few, times * _power)[0] - _truth
            return (np.abs(off) ** 2).sum() / _size

        x, (value, share) = 3.0 * np.arange(64), most_probable(*few, factor * _power)
        lines = (
            Line(x, np.fft.irfft(64 * _truth), "truth", dashed=True),
            Line(x, np.fft.irfft(64 * value), "most probable"),
        )
        words = "log10 of the belief", "squared error / power"
        errors = (
            Line(_beliefs, [min(error(10**one), 3.0) for one in _beliefs]),
            Points([np.log10(factor)], [min(error(factor), 3.0)]),
        )
        return Plot(
            (
                Panel(lines, "The line", "place (Å)", "density", y_range=(-14, 14)),
                Panel(errors, "Error", *words, y_range=(0.0, 3.1)),
            ),
            f"Error {error(factor):.2g}; on average {100 * np.average(share, weights=_power):.0f} % of the power is data.",
        )

    explore(
        belief,
        images=Slider("images", (1, 3, 10, 30, 100, 1000), 10),
        factor=Slider("belief over the true power", 10.0 ** np.arange(-3, 5), 1),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Where the prior comes from

    Nobody knows $\tau^2$, but halves of the data tell it. Make two maps by least squares, each from half of the images.
    Each is $v$ plus an error of power $1/w$, and the errors are independent. The correlation of the halves in a shell of
    frequencies, the FSC, is then the signal's share of the power,

    $$\text{FSC} = \frac{\tau^2}{\tau^2 + 1/w}, \quad\text{so}\quad
    w\tau^2 = \frac{\text{FSC}}{1 - \text{FSC}} .$$

    Both halves together have twice the weight, and their Wiener filter is
    $2 w\tau^2 / (1 + 2 w\tau^2) = 2\,\text{FSC} / (1 + \text{FSC})$. No strength is left to be chosen. At the known
    threshold FSC = 0.143 the filter is 1/4, and the correlation of the joint map with the truth its root, 1/2.

    ## From values to a volume

    Values of slices lie between grid points. **Gridding** deals each out to its neighbours, value and weight alike
    (*Between the grid points*), divides the sums, and takes the kernel's fall-off out of the map. Strictly the equations
    of neighbouring voxels are coupled, since one value depends on eight of them. Dividing ignores that; with padding
    little is lost. The weights do what the ramp of *Back-projection* does: slices crowd near the origin, so $w$ falls as
    $1/\lvert k\rvert$, and the division lifts high frequencies. It does so for any distribution of views.

    The figure is the program's own reconstruction of a helix, 24 voxels wide, from images without a CTF. With ten noisy
    images and no prior the section is all grain. With the prior it is smooth: what the images do not support is left at
    zero, and more images bring it back.
    """)
    return


@app.function
def helix(count):
    """Return 40 beads of sigma 1.2 A, and the poses of some images of them."""
    t = torch.linspace(-1.0, 1.0, 40)
    place = torch.stack([5 * torch.cos(9 * t), 5 * torch.sin(9 * t), 7 * t], 1)
    rotation = random_rotations(1000, torch.Generator().manual_seed(0)).float()[:count]
    beads = GaussianBeads(place, torch.ones(40), torch.full((40,), 1.44))
    return beads, Pose(rotation, torch.zeros(count, 2))


@app.function
def reconstructed(beads, pose, noise_sd, has_prior):
    """Return the map of 24 voxels of 1 A from images in white noise."""
    images = beads.project(pose, 24, 1.0)
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    disc = FourierDisc.of_box(24, 11)
    values = disc.gather(image_to_fourier(images + noise_sd * noise)) / noise_sd**2
    weights = torch.full(values.shape, noise_sd**-2)
    halves = [SliceAccumulator.empty(24, 11, 2.0) for _ in range(2)]
    for start, sums in enumerate(halves):
        half = slice(start, None, 2)
        insert_slices(sums, pose.rotation[half], disc, values[half], weights[half])
    both = SliceAccumulator(halves[0].sums + halves[1].sums, 11, 2.0)
    if not has_prior:
        return solve(both, None, 24, 24)
    fsc = fourier_shell_correlation(*(solve(one, None, 24, 24) for one in halves))
    return solve(both, signal_to_noise(fsc, joined=True), 24, 24)


@app.cell
def _():
    _beads, _pose = helix(50)
    _truth = _beads.to_map(24, 1.0)
    _signal = float(_beads.project(_pose, 24, 1.0).std())

    def volume(images, snr, prior):
        found = reconstructed(*helix(images), _signal / snr**0.5, prior == "yes")
        curve = fourier_shell_correlation(found, _truth)[:12]
        most = float(_truth[15].max())
        off = float((found - _truth).square().sum() / _truth.square().sum())
        words, axes = ("frequency (1/Å)", "FSC with the truth"), ("x (Å)", "y (Å)")
        before, after = (
            Heat(one[15], signed=True, limits=(-most, most)) for one in (_truth, found)
        )
        return Plot(
            (
                Panel((before,), "Truth, a section", *axes, equal=True),
                Panel((after,), "Map", *axes, equal=True),
                Panel(
                    (Line(np.arange(12) / 24.0, curve),),
                    "Agreement",
                    *words,
                    y_range=(-0.2, 1.0),
                ),
            ),
            f"{images} images, SNR {snr}, prior: {prior}. Squared error over the map's power: {off:.2g}.",
        )

    explore(
        volume,
        images=Slider("images", (10, 30, 100, 300, 1000), 30),
        snr=Slider("SNR of an image (power)", (0.03, 0.3), 0.3),
        prior=Choice("prior from halves", ("no", "yes")),
    )
    return


@app.cell
def _():
    source(most_probable, reconstructed)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *The map is smoother than the number of particles promises.* The noise was estimated too high (by images that are
      scaled differently, or by masks), and data that is weighted down loses against the prior.
    - *Fine detail of one half-map is fine detail of the other, and wrong.* The halves were not independent: aligned to
      one reference, they share its errors, the FSC is too high, and the prior lets noise through (*Einstein from noise*).
    - *A dark halo surrounds the particle.* The lowest frequencies have a CTF of about the amplitude contrast, 0.1, hence
      $C^2 = 0.01$. At the same power of the signal they need fifty times the images of the average $C^2 = 1/2$; where
      $\tau^2$ does not make up for it, the prior says zero.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        r"One image has $\tau^2/\sigma^2 = 0.01$, and $C^2$ is 1/2 on average. How many images make the answer half data?",
        1.0 / (0.01 * 0.5),
        tolerance=2.0,
        hint=r"Half is where $w\tau^2 = 1$.",
        explanation="n times 0.5 times 0.01 is 1 at n = 200.",
    )
    return


@app.cell
def _():
    exercise(
        "Two half-maps have an FSC of 0.5 in a shell. By which factor does the Wiener filter multiply the joint map there?",
        2.0 * 0.5 / 1.5,
        tolerance=0.01,
        hint="2 FSC / (1 + FSC).",
        explanation="1 / 1.5 is 0.67: a third of the answer is prior.",
    )
    return


@app.cell
def _():
    choose(
        "All images have the same defocus. What becomes of a zero of the CTF if their number grows without end?",
        (
            "It is known better and better.",
            "It stays zero, the prior.",
            "It becomes noise.",
        ),
        1,
        hint="First figure, spread 0.",
        explanation="The weight stays 0, and so does the share of data.",
    )
    return


@app.function
def test_known_numbers():
    # Zeros of the CTF at 1.5 micrometres, found elsewhere to six digits.
    assert np.abs(ctf(15000.0, np.array([0.057280, 0.081707, 0.129988]))).max() < 2e-4
    # FSC 0.143 is a filter of 1/4 and a correlation of 1/2 (Rosenthal and Henderson).
    ratio = float(signal_to_noise(torch.tensor([0.143], dtype=torch.float64), True))
    assert abs(ratio / (1.0 + ratio) - 0.25) < 1e-3
    assert abs(np.sqrt(2 * 0.143 / 1.143) - 0.5) < 1e-3


@app.function
def test_it_is_the_solution_of_the_equations():
    # Against numpy's least squares with the prior as one more observation (rounding).
    _, seen, contrast, noise, power = line_experiment()
    found, _ = most_probable(seen[:7], contrast[:7], noise, power)
    for k in (1, 8, 20):
        column = np.append(contrast[:7, k] / noise**0.5, power[k] ** -0.5)[:, None]
        right = np.append(seen[:7, k] / noise**0.5, 0.0)
        expected = np.linalg.lstsq(column.astype(complex), right, rcond=None)[0][0]
        assert abs(found[k] - expected) < 1e-9


@app.function
def test_the_library_returns_the_map_that_was_seen():
    beads, pose = helix(1000)
    found = reconstructed(beads, pose, 1e-3, False)
    truth = beads.to_map(24, 1.0)
    # Hardly any noise: what is left is trilinear error, 2 %.
    assert float(fourier_shell_correlation(found, truth)[1:9].min()) > 0.98


@app.cell
def _():
    closing(
        "map_reconstruction",
        library=["cryoinfer.reconstruction.backproject.solve"],
        sources=[
            "S. H. W. Scheres 2012, A Bayesian view on cryo-EM structure determination, Journal of Molecular Biology.",
            "P. B. Rosenthal and R. Henderson 2003, Optimal determination of particle orientation, absolute hand, and contrast loss in single-particle electron cryomicroscopy, Journal of Molecular Biology.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
