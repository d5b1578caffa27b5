import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    from dataclasses import replace

    import marimo as mo
    import numpy as np
    import torch

    from course import (
        Bars,
        Choice,
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
    from cryoinfer.data.simulate import Simulation, SimulationConfig
    from cryoinfer.physics.ctf import evaluate_ctf

    SAID = ("power ratio", "ratio of standard deviations", "decibels", "log10 of power")


@app.cell
def _():
    opening("simulated_particles")
    return


@app.cell
def _():
    mo.md(r"""
    ## A recipe in five lines

    Whether a method works is seen on images whose truth is known. Such images are simulated, by the model that this book
    is about:

    $$y = C \cdot P_R V \text{, shifted by } t \text{, plus noise} .$$

    This is a **forward model**: from the truth to the image. Its steps, in order, are the structure, atoms that are sums
    of Gaussians; the pose $R$, all rotations being equally likely, or not; the projection, for which atoms are turned and
    drawn, or the transform of a map is sliced; the shift, a phase $e^{-2\pi i k \cdot t}$ on the image's transform, and
    the CTF, a factor $C(k)$; and last the noise, independent of all before.

    The order is part of the physics. Noise comes from counting electrons, after the lens: it must not be multiplied by
    the CTF. Noise is white if nothing else is said, while that of a real detector with ice around falls towards high
    frequency.

    The figure shows adenylate kinase, a protein of 1,656 atoms besides hydrogen, in 64 pixels of 1.5 Å. With more defocus
    the protein shows up, and its detail is carried away from it. At a signal-to-noise ratio of -20 dB the eye finds
    nothing.
    """)
    return


@app.function
def simulation(box, defocus_um, snr_db=-10.0):
    """Return the program's own simulation of 12 images."""
    config = SimulationConfig(
        structure="adenylate-kinase-open",
        n=12,
        box=box,
        pixel_size_angstrom=1.5,
        snr_db=snr_db,
        defocus_range_angstrom=(1e4 * defocus_um, 1e4 * defocus_um),
    )
    return Simulation.of(config)


@app.function
def clean_images(box, defocus_um):
    """Return 12 images with CTF and without noise, (12, box, box), float64."""
    truth = simulation(box, defocus_um)
    return truth.model.mean(truth.latents, truth.optics).double().numpy()


@app.cell
def _():
    _first = simulation(64, 1.0)
    _bare = _first.model.structure.project(_first.latents.pose[:1], 64, 1.5)[0].numpy()
    _noise = np.random.default_rng(0).standard_normal((64, 64))

    _defoci = (0.2, 0.5, 1, 1.5, 2, 3)
    _clean = {one: clean_images(64, one) for one in _defoci}

    def recipe(defocus_um, snr_db):
        clean = _clean[defocus_um]
        sd = clean.std() / 10 ** (snr_db / 20.0)
        noisy, edge = clean[0] + sd * _noise, np.abs(clean[0]).max()
        panels = [
            Panel((Heat(image, limits=limits),), title, "x (px)", "y (px)", equal=True)
            for title, image, limits in (
                ("Projection", _bare, None),
                ("With the CTF", clean[0], (-edge, edge)),
                ("With noise", noisy, (-3.5 * noisy.std(), 3.5 * noisy.std())),
            )
        ]
        return Plot(
            tuple(panels),
            f"Defocus {defocus_um} µm, {snr_db} dB: the noise has "
            f"{sd / clean.std():.2g} times the standard deviation of the signal.",
        )

    explore(
        recipe,
        defocus_um=Slider("defocus (µm)", _defoci, 1),
        snr_db=Slider("signal-to-noise ratio (dB)", (10, 0, -5, -10, -15, -20), -5),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Four numbers called SNR

    How strong is the noise? The **signal-to-noise ratio** answers, and papers and programs mean four different things by
    it:

    $$\frac{\operatorname{var}(s)}{\operatorname{var}(n)}, \qquad
    \frac{\operatorname{sd}(s)}{\operatorname{sd}(n)}, \qquad
    10\log_{10}\frac{\operatorname{var}(s)}{\operatorname{var}(n)} \text{ dB}, \qquad
    \log_{10}\frac{\operatorname{var}(s)}{\operatorname{var}(n)} .$$

    The second is the square root of the first: a set "at SNR 0.1" by standard deviations has a hundredth of the noise's
    power. The last two can be negative. In this book SNR is the first, or the third in **decibels** (dB). Choose a number
    and what is meant by it: the bars are $\log_{10}$ of the power ratio by each of the four, in the order above.
    """)
    return


@app.function
def power_ratio(number, said):
    """Return var(signal) / var(noise) of an SNR that was given in one of four ways."""
    if said == "power ratio":
        return number
    if said == "ratio of standard deviations":
        return number**2
    return 10.0 ** (number / 10.0 if said == "decibels" else number)


@app.cell
def _():
    _clean = clean_images(64, 1.5)
    _noise = np.random.default_rng(1).standard_normal((64, 64))

    def meanings(number, said):
        ratio = power_ratio(number, said)
        noisy = _clean[0] + _clean.std() / ratio**0.5 * _noise
        limits = (-3.5 * noisy.std(), 3.5 * noisy.std())
        bars = Bars(
            np.arange(1, 5), [np.log10(power_ratio(number, one)) for one in SAID]
        )
        return Plot(
            (
                Panel(
                    (Heat(noisy, limits=limits),),
                    "Image",
                    "x (px)",
                    "y (px)",
                    equal=True,
                ),
                Panel(
                    (bars,), "By each meaning", "meaning", "log10 of the power ratio"
                ),
            ),
            f"An SNR of {number}, as {said}: the signal has {ratio:.3g} of the noise's "
            f"power, or {10 * np.log10(ratio):.1f} dB.",
        )

    explore(
        meanings,
        number=Slider("SNR", (0.05, 0.1, 0.3, 0.5, 1, 2), 0.1),
        said=Choice("meant as", SAID),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Of which pixels?

    Even then the number depends on what surrounds the particle. Put the same particle, in the same noise, into a box of
    twice the side: the sum of squares of the signal stays and is divided by four times the pixels. The SNR over all
    pixels falls by 6 dB, and nothing became harder. Over the pixels of a circle around the particle it stays. Fourier
    cropping to pixels of twice the size averages noise away, and its variance falls to a quarter; the signal loses only
    its high frequencies, so the SNR rises by up to 6 dB, and nothing became easier.

    What does stay is the sum of squares over the variance of a pixel's noise,

    $$\frac{E}{\sigma^2} = \frac{\sum_{\text{pixels}} s^2}{\sigma^2} .$$

    It is how well the true image can be told from nothing: the logarithm of the likelihood ratio of both is $E/2\sigma^2$
    on average. A pose that is searched among a million must beat chance by $\ln 10^6 = 14$, so below about 30 an image
    cannot tell its pose by itself, whatever its SNR is called. In the figure look for the curve that does not move with
    the box.
    """)
    return


@app.function
def cropped(images):
    """Return images at half the size, with twice the pixel, of the same values."""
    box = images.shape[-1]
    spectrum = np.fft.fftshift(np.fft.fft2(images), axes=(-2, -1))
    middle = slice(box // 4, 3 * box // 4)
    small = np.fft.ifftshift(spectrum[..., middle, middle], axes=(-2, -1))
    return np.fft.ifft2(small).real / 4.0


@app.function
def ratios(images, noise_sd):
    """Return power ratios over all pixels, in the circle, cropped; and E / sigma^2."""
    axis = np.arange(images.shape[-1]) - images.shape[-1] // 2
    circle = np.hypot(axis, axis[:, None]) <= 24.0
    variance = noise_sd**2
    whole, inside = images.var() / variance, images[:, circle].var() / variance
    small = cropped(images).var() / (variance / 4.0)
    return whole, inside, small, len(axis) ** 2 * images.var() / variance


@app.cell
def _():
    _boxes, _defoci = (56, 64, 80, 96, 128), (0.5, 1, 2)
    _sets = {one: [clean_images(box, one) for box in _boxes] for one in _defoci}

    def surroundings(defocus_um, snr_db):
        sets = _sets[defocus_um]
        noise_sd = sets[1].std() / 10 ** (snr_db / 20.0)
        found = np.array([ratios(one, noise_sd) for one in sets]).T
        names = "all pixels", "in a circle of 24 px", "cropped to half"
        x = "box (pixels of 1.5 Å)"
        lines = tuple(
            Line(_boxes, 10 * np.log10(one), name)
            for one, name in zip(found[:3], names, strict=True)
        )
        return Plot(
            (
                Panel(lines, "Signal-to-noise ratio", x, "dB"),
                Panel(
                    (Line(_boxes, found[3]),), "What stays", x, "E over noise variance"
                ),
            ),
            f"{snr_db} dB over all pixels of a box of 64: E over the noise variance is {found[3, 1]:.0f}; "
            f"in a box of 128 the same images have {10 * np.log10(found[0, 4]):.1f} dB.",
        )

    explore(
        surroundings,
        defocus_um=Slider("defocus (µm)", _defoci, 1),
        snr_db=Slider("SNR in a box of 64 (dB)", (0, -5, -10, -15, -20), -10),
    )
    return


@app.cell
def _():
    source(power_ratio, cropped, ratios)
    return


@app.cell
def _():
    mo.md(r"""
    ## Too good to be true

    Two habits make simulated data easier than real data. The first is the **inverse crime**: images are sliced from a map
    with the same interpolation with which the map is reconstructed. Errors of slicing then cancel, and the result is
    better than any on real images. Drawing atoms exactly (*Projections of Gaussians*) avoids it. The second is a box that
    is too small. The CTF moves a detail of frequency $k$ by $\lambda\,\Delta z\,k$: at 2 µm and 3 Å that is 131 Å. In a
    simulation it wraps around and comes in on the other side; in a real box it is gone. Simulate in a larger box, and cut
    the middle out.

    ## What goes wrong in practice

    - *The rings of a simulated spectrum are at the wrong place.* A frequency in cycles per pixel was multiplied by the
      pixel size, and must be divided by it. At 1.5 Å all frequencies are then too high by $1.5^2 = 2.25$, and the first
      ring of 1.5 µm defocus, at 17.5 Å, appears at 39 Å. At 1 Å a pixel nothing is seen of the mistake.
    - *Two programs at SNR 0.1 do not agree at all.* One means power, the other standard deviations: ten times the noise
      power apart.
    - *A network that was trained on simulations fails on real images.* White noise, one pixel size, perfect centring, no
      contrast differences: it learned the simulation.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "The standard deviation of the signal is a tenth of that of the noise. How many decibels is that?",
        10.0 * np.log10(power_ratio(0.1, SAID[1])),
        tolerance=0.1,
        unit="dB",
        hint="Square the ratio first.",
        explanation="The power ratio is 0.01, whose logarithm is -2.",
    )
    return


@app.cell
def _():
    exercise(
        "Images of 64 pixels have -10 dB over all pixels. The same particles are cut out "
        "again, in boxes of 128 pixels. What is the SNR over all pixels now?",
        -10.0 - 10.0 * np.log10(4.0),
        tolerance=0.1,
        unit="dB",
        hint="The same sum of squares, four times the pixels.",
        explanation="A quarter of the power ratio: -16.0 dB, with the same information.",
    )
    return


@app.cell
def _():
    choose(
        "Noise is added to the projection first, and the CTF is applied to the sum. How can one see it in the images?",
        (
            "They are noisier.",
            "The background has rings in its spectrum, where no particle is.",
            "It cannot be seen.",
        ),
        1,
        hint="What is the spectrum of white noise that was multiplied by C?",
        explanation="It is $C^2$: rings everywhere, and zeros without any noise, where "
        "a method that divides by the noise would find perfect data.",
    )
    return


@app.function
def test_known_numbers():
    """The four meanings; the delocalisation; the mistaken ring."""
    assert abs(power_ratio(-10.0, "decibels") - 0.1) < 1e-12
    assert abs(10 * np.log10(power_ratio(0.5, SAID[1])) + 6.0206) < 1e-4
    assert power_ratio(-2.0, "log10 of power") == 0.01
    # lambda = 0.0196875 A at 300 kV.
    assert abs(0.0196875 * 20000.0 / 3.0 - 131.25) < 0.01
    # The first zero at 1.5 micrometres, Cs 2 mm, contrast 0.1 is at 1 / 17.46 A.
    assert abs(2.25 / 0.057280 - 39.28) < 0.01


@app.function
def test_cropping_leaves_a_quarter_of_the_variance_of_noise():
    noise = np.random.default_rng(0).standard_normal((8, 64, 64))
    # 8,192 independent values: 1.6 %, four times that.
    assert abs(cropped(noise).var() - 0.25) < 0.25 * 0.064
    assert np.abs(cropped(np.full((1, 64, 64), 3.0)) - 3.0).max() < 1e-12


@app.function
def test_it_is_the_recipe_of_the_library():
    """Noise of the wanted power; images that are the CTF times the projection."""
    truth = simulation(64, 1.0, snr_db=-10.0)
    clean = clean_images(64, 1.0)
    # 12 images are all of those by which the program sets its noise (single precision).
    assert abs(truth.model.noise.pixel_variance(64) / (10.0 * clean.var()) - 1) < 1e-4
    bare = truth.model.structure.project(truth.latents.pose, 64, 1.5).double().numpy()
    k = np.fft.fftfreq(64, 1.5)
    x, y = (torch.tensor(one.ravel()) for one in np.meshgrid(k, k))
    optics = replace(truth.optics[:1], phase_flipped=torch.zeros(1, dtype=torch.bool))
    ctf = evaluate_ctf(optics, x, y).numpy().reshape(64, 64)
    again = np.fft.ifft2(np.fft.fft2(bare) * ctf).real
    # Single precision, of values up to 10.
    assert np.abs(again - clean).max() < 1e-4


@app.cell
def _():
    closing(
        "simulated_particles",
        library=[
            "cryoinfer.data.simulate.SimulationConfig",
            "cryoinfer.physics.image_model.ImageModel",
            "cryoinfer.data.simulated_acquisition.noise_of_variance",
            "cryoinfer simulate",
        ],
        sources=["learn_cryoem_math (Woollard): simulated particles from slices."],
    )
    return


if __name__ == "__main__":
    app.run()
