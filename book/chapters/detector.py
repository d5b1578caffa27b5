import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    from scipy import special

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
    from cryoinfer.physics.detector import CountingDetector

    FREQUENCY = np.linspace(0.0, 0.5, 21)


@app.cell
def _():
    opening("detector")
    return


@app.cell
def _():
    mo.md(r"""
    ## What one electron writes

    A fast electron enters the sensor, is deflected many times, and leaves some energy along its way. It may
    return from the support below and leave more, elsewhere. What the detector writes down for it is a blob
    $h(x - x_j)$ around the place $x_j$ where it came in, and no two blobs are alike. The image is the sum over
    electrons.

    Its transform is $F(k) = \sum_j \hat h_j(k)\, e^{-2 \pi i k x_j}$. The mean over blobs is what happens to a
    signal: a pattern of electrons appears multiplied by $\mathrm{E}\, \hat h(s)$. Divided by its value at 0
    this is the **modulation transfer function**,

    $$\mathrm{MTF}(s) = \frac{\mathrm{E}\, \hat h(s)}{\mathrm{E}\, \hat h(0)} .$$

    The noise is found as in *Noise in Fourier space*: in $|F|^2$ only the terms of one electron with itself
    remain. $N_0$ electrons give the **noise power spectrum**

    $$\mathrm{NPS}(s) = N_0\, \mathrm{E}\, |\hat h(s)|^2 .$$

    How good is the detector? A perfect one would write a point for each electron: signal transfer 1, noise
    power $N_0$. The ratio of signal power to noise power, compared with that of the perfect one, is the
    **detective quantum efficiency**,

    $$\mathrm{DQE}(s) = \frac{|\mathrm{E}\, \hat h(s)|^2}{\mathrm{E}\, |\hat h(s)|^2} .$$

    It cannot exceed 1, for the mean of a square is at least the square of the mean. A DQE of 0.5 at some
    frequency means that as much is learned as with half the electrons on a perfect detector.

    ## What costs, and what does not

    - Blobs that are all alike give $\mathrm{DQE} = 1$, however wide they are. A blur takes signal and noise
      alike, and a filter undoes it. The MTF alone tells nothing about quality.
    - Blobs of different size: at $s = 0$, with total energy $w$,
      $\mathrm{DQE}(0) = (\mathrm{E}\, w)^2 / \mathrm{E}\, w^2 = 1 / (1 + s_r^2)$, where $s_r$ is the standard
      deviation of $w$ over its mean.
    - Blobs at a wrong place: if they are points that are off by $\sigma$,
      $\mathrm{DQE} = e^{-4 \pi^2 s^2 \sigma^2}$.
    - Pixels. A pixel sums over its width $p$, which multiplies the signal with
      $\operatorname{sinc}(s p) = \sin(\pi s p)/(\pi s p)$. Sampling folds the noise from beyond Nyquist back,
      so for points the noise stays flat. At Nyquist the DQE is then $(2/\pi)^2 = 0.405$ at best.

    **Counting** means to replace each blob by one point of value 1 in the pixel where it seems to be. Then
    $s_r = 0$, and errors of place are left. (So are electrons that are missed, and those that fall together,
    *Counting electrons*; the figure leaves them out.) In the figure switch between summing and counting. Then
    raise the share of electrons that come back from the support: it costs at all frequencies when summing (at 0
    most when a few return), and only at high ones when counting. Detectors are made thin for this.
    """)
    return


@app.function
def tracks(returning, seed=61, electrons=2000):
    """Return places (pixels), shape (n, 16, 2), and energies (n, 16) of tracks.

    Eight deposits of a short walk; then, for the share that returns, eight of another.
    """
    rng = np.random.default_rng(seed)
    walk = rng.normal(scale=0.12, size=(electrons, 2, 8, 2)).cumsum(axis=2)
    walk[:, 1] += rng.normal(scale=1.2, size=(electrons, 1, 2))
    energy = rng.gamma([3.0, 1.5], [1.0 / 3.0, 1.0], size=(electrons, 2)) / 8.0
    energy[:, 1] *= rng.uniform(size=electrons) < returning
    return walk.reshape(electrons, 16, 2), np.repeat(energy, 8, axis=1)


@app.function
def counted(places, energies):
    """Return tracks as counting writes them: one point at the centroid, of value 1."""
    total = energies.sum(axis=1)
    centre = (places * energies[..., None]).sum(axis=1) / total[:, None]
    return centre[:, None], np.ones((len(centre), 1))


@app.function
def transfer(places, energies):
    """Return MTF, noise power (1 at s = 0) and DQE along x, with pixels of width 1."""

    def blobs(s):
        waves = np.exp(-2j * np.pi * s[:, None, None] * places[..., 0])
        hat = (energies * waves).sum(axis=2) * np.sinc(s)[:, None]
        return hat.mean(axis=1), (abs(hat) ** 2).mean(axis=1)

    signal = abs(blobs(FREQUENCY)[0])
    # Sampling folds the noise from beyond Nyquist onto s.
    noise = sum(blobs(FREQUENCY + fold)[1] for fold in range(-5, 5))
    return signal / signal[0], noise / noise[0], signal**2 / noise


@app.cell
def _():
    def detecting(how, returning):
        places, energies = tracks(returning / 100.0)
        seen = (places, energies) if how == "summing" else counted(places, energies)
        mtf, noise, dqe = transfer(*seen)
        at = np.random.default_rng(62).uniform(1.0, 15.0, size=(20, 1, 2))
        both = ((places, energies, "deposits"), (*seen, how))
        left = [Points(*(at + p[:20])[e[:20] > 0].T, name) for p, e, name in both]
        ideal = np.sinc(FREQUENCY) ** 2
        right = (
            Line(FREQUENCY, mtf, "MTF"),
            Line(FREQUENCY, noise, "noise power"),
            Line(FREQUENCY, dqe, "DQE"),
            Line(FREQUENCY, ideal, "DQE, perfect pixels", dashed=True),
        )
        words = ("20 electrons", "x (pixels)", "y (pixels)", (0, 16), (0, 16))
        more = ("Transfer", "frequency (1/pixel)", "", (0.0, 0.5), (0.0, 1.15))
        marks = tuple(left if how == "counting" else left[:1])
        return Plot(
            (Panel(marks, *words, equal=True), Panel(right, *more)),
            f"DQE {dqe[0]:.2f} at 0, {dqe[10]:.2f} at half Nyquist, {dqe[-1]:.2f} at "
            "Nyquist.",
        )

    _share = Slider("electrons that return (%)", (0, 10, 20, 40, 60, 80), 40)
    _how = Choice("detector", ("summing", "counting"))
    explore(detecting, how=_how, returning=_share)
    return


@app.cell
def _():
    source(transfer, counted)
    return


@app.cell
def _():
    mo.md(r"""
    ## Measuring it: a knife edge, and nothing

    The MTF is measured with an edge. Half of the beam is blocked by something thick with a straight rim, a
    **knife edge**. Across the rim the image is a step, blurred. Its derivative is the blob summed along the
    rim, and the transform of that is the MTF along one direction. Pixels are too coarse for this, unless the
    rim is a little tilted: then every row sees it at another distance from the pixel's centre, and all rows
    together sample it finely.

    The figure does it. At a tilt of 0 all rows are the same, and the MTF comes out wrong. At 3 degrees it is
    right, if there are electrons enough: a derivative amplifies noise.

    The noise power comes from images of nothing. There is a trap at low frequency: a single pixel's variance is
    not $\mathrm{NPS}(0)$ when blobs are wider than pixels, for neighbours are correlated. Sum over large blocks
    of pixels instead. If a block receives $N$ electrons and its sums have the relative standard deviation $v$,

    $$\mathrm{DQE}(0) = \frac{1}{N\, v^2} ,$$

    since a perfect detector has $v = 1/\sqrt N$. The number of electrons must be known, from a beam stop or a
    Faraday cup.
    """)
    return


@app.function
def edge_image(tilt_degrees, electrons, blur=0.45, side=64):
    """Return counts beside a rim through the centre, blurred and summed over pixels."""
    fine = (np.arange(side * 4) + 0.5) / 4.0 - side / 2.0
    tilt = np.radians(tilt_degrees)
    away = fine * np.cos(tilt) + fine[:, None] * np.sin(tilt) - 0.2
    lit = special.ndtr(away / blur).reshape(side, 4, side, 4).mean(axis=(1, 3))
    return np.random.default_rng(63).poisson(electrons * lit) / electrons


@app.function
def mtf_of_edge(image, tilt_degrees, step=0.125):
    """Return the MTF at FREQUENCY from the edge: profile, derivative, transform."""
    centre = np.arange(len(image)) + 0.5 - len(image) / 2.0
    tilt = np.radians(tilt_degrees)
    away = centre * np.cos(tilt) + centre[:, None] * np.sin(tilt) - 0.2
    bins = np.rint(away / step).astype(int).ravel()
    near = abs(bins) <= 8 / step
    count = np.bincount(bins[near] + int(8 / step), minlength=int(16 / step) + 1)
    total = np.bincount(bins[near] + int(8 / step), image.ravel()[near], len(count))
    x, known = (np.arange(len(count)) * step - 8.0), count > 0
    profile = np.interp(x, x[known], total[known] / count[known])
    line, middle = np.diff(profile), x[:-1] + step / 2.0
    waves = np.exp(-2j * np.pi * FREQUENCY[:, None] * middle)
    hat = abs((line * waves).sum(axis=1))
    # A difference over a step, of means over bins, is a blur by two boxes.
    return x, profile, hat / hat[0] / np.sinc(FREQUENCY * step) ** 2


@app.function
def mtf_of_blur(blur=0.45):
    """Return the MTF of a Gaussian blur and pixels of width 1, at FREQUENCY."""
    return np.exp(-2.0 * (np.pi * FREQUENCY * blur) ** 2) * np.sinc(FREQUENCY)


@app.cell
def _():
    def knife(tilt, electrons):
        image = edge_image(tilt, electrons)
        x, profile, found = mtf_of_edge(image, tilt)
        off = abs(found - mtf_of_blur()).max()
        lines = (
            Line(FREQUENCY, found, "from the edge"),
            Line(FREQUENCY, mtf_of_blur(), "true", dashed=True),
        )
        words = ("MTF", "frequency (1/pixel)", "MTF", (0.0, 0.5), (0.0, 1.3))
        across, xy = (Line(x, profile),), ("x (pixels)", "y (pixels)")
        return Plot(
            (
                Panel((Heat(image),), "The edge", *xy, equal=True),
                Panel(across, "Across it", "distance (pixels)", "signal", (-4.0, 4.0)),
                Panel(lines, *words),
            ),
            f"The MTF is off by {off:.3f} at most.",
        )

    _electrons = Slider("electrons per pixel", (10, 100, 1000, 10000, 100000), 10000)
    _tilt = Slider("tilt (degrees)", (0, 1, 2, 3, 5, 10), 3)
    explore(knife, tilt=_tilt, electrons=_electrons)
    return


@app.cell
def _():
    mo.md(r"""
    ## The pattern that stays

    Pixels differ: one gives 3 % more than its neighbour for the same electrons. This **gain** $g$ multiplies
    every image in the same way. It is measured with a long exposure of nothing and divided out. The reference
    is counted as well, so with $n$ electrons per pixel it is wrong by $1/\sqrt n$, and that error is the same
    in every image afterwards.

    In one image of 20 electrons per pixel a pattern of 3 % is lost in grains of 22 %. Averaging brings it out,
    since it stays while the grains average out. In the figure, raise the number of images: the grains fall as
    $1/\sqrt{\text{images}}$, the pattern does not. A reference must have many more electrons than all images
    together whose sum is looked at.
    """)
    return


@app.function
def averaged(images, reference, gain_spread=0.03, electrons=20.0):
    """Return the mean of images of nothing, as they are and divided by a reference."""
    rng = np.random.default_rng(64)
    gain = 1.0 + gain_spread * rng.normal(size=(48, 48))
    measured = gain * rng.poisson(reference, size=gain.shape) / reference
    mean = gain * rng.poisson(electrons * images, size=gain.shape) / images
    return mean / electrons, mean / electrons / measured


@app.cell
def _():
    def pattern(images, reference):
        pictures = averaged(images, reference)
        grains, xy = 1.0 / np.sqrt(20.0 * images), ("x (pixels)", "y (pixels)")
        raw, corrected = (one.std() for one in pictures)
        limits, titles = (0.85, 1.15), ("As it is", "Divided by the reference")
        return Plot(
            tuple(
                Panel((Heat(one, limits=limits),), title, *xy, equal=True)
                for one, title in zip(pictures, titles, strict=True)
            ),
            f"Spread {100 * raw:.2f} % as it is, {100 * corrected:.2f} % corrected; grains "
            f"alone {100 * grains:.2f} %.",
        )

    _reference = Slider("electrons in the reference", (100, 1000, 10**4, 10**5), 1000)
    _images = Slider("images", (1, 10, 100, 1000), 100)
    explore(pattern, images=_images, reference=_reference)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"Motion correction finds no motion at all."* The fixed pattern of a wrong, flipped or missing gain
      reference is the same in all frames, and correlates best at shift 0.
    - *"My DQE is above 1."* The dose was underestimated, or the noise was taken from single pixels although
      blobs are wider than they are.
    - *"After dividing by the MTF the image looks terrible."* That raises noise and signal alike. Only the DQE
      says whether there is anything to raise.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "Blocks that receive 10,000 electrons each have sums with a relative standard deviation of 1.2 %. What is DQE(0)?",
        1.0 / (10_000 * 0.012**2),
        tolerance=0.02,
        hint=r"A perfect detector would have $1/\sqrt{10{,}000} = 1$ %.",
        explanation=r"$1 / (10{,}000 \times 0.000144) = 0.69$.",
    )
    return


@app.cell
def _():
    exercise(
        "A counting detector puts its points off by 0.3 pixels along each axis. What does that alone make of the DQE at Nyquist?",
        np.exp(-4.0 * np.pi**2 * 0.25 * 0.09),
        tolerance=0.02,
        hint=r"$e^{-4\pi^2 s^2 \sigma^2}$ with $s = 0.5$ per pixel.",
        explanation=r"$4\pi^2 \times 0.25 \times 0.09 = 0.888$, and $e^{-0.888} = 0.41$. Finding the place to a fraction of a pixel pays.",
    )
    return


@app.cell
def _():
    choose(
        "Two summing detectors write the same blob for each electron, one twice as wide as the other. Leaving pixels aside, which has the higher DQE?",
        ("That of the narrow blob.", "That of the wide blob.", "Both have 1."),
        2,
        hint="How does the blob enter above, and how below?",
        explanation="Without randomness in the blob the two means are equal. The wide one has a lower MTF, which a filter undoes, until other noise, such as that of reading, comes in.",
    )
    return


@app.function
def test_pixels_and_places():
    """(2 / pi)^2 at Nyquist, and 0.02 for folds left out; places: errors of 0.02."""
    points = np.zeros((2000, 1, 2)), np.ones((2000, 1))
    assert abs(transfer(*points)[2][-1] - 4.0 / np.pi**2) < 0.03
    off = np.random.default_rng(65).normal(scale=0.2, size=points[0].shape)
    fall = transfer(off, points[1])[2] / transfer(*points)[2]
    expected = np.exp(-4.0 * np.pi**2 * FREQUENCY**2 * 0.04)
    assert abs(fall - expected).max() < 0.04


@app.function
def test_dqe_of_counting_is_the_library_s():
    """The square of its MTF; places off by 0.2 pixels, errors of 0.02 as above."""
    off = np.random.default_rng(68).normal(scale=0.2, size=(2000, 1, 2))
    one = np.ones((2000, 1))
    fall = transfer(off, one)[2] / transfer(np.zeros_like(off), one)[2]
    detector = CountingDetector(20.0, np.exp(-0.02 * np.pi**2))
    assert abs(fall - detector.mtf(40)[0].numpy() ** 2).max() < 0.04


@app.function
def test_dqe_at_zero():
    """1 / (1 + s_r^2) of gamma energies, s_r^2 = 1/3 (3,000 electrons: 2 %)."""
    places, energies = tracks(0.0)
    assert abs(transfer(places, energies)[2][0] - 0.75) < 0.03
    total = energies.sum(axis=1)
    # Blocks of Poisson numbers of electrons, as it is measured: 1 % in v^2.
    counts = np.random.default_rng(66).poisson(30, size=20_000)
    values = np.random.default_rng(67).choice(total, size=counts.sum())
    sums = np.add.reduceat(values, counts.cumsum() - counts)
    assert abs(sums.mean() ** 2 / sums.var() / 30.0 - 0.75) < 0.03


@app.function
def test_knife_edge():
    """A tilted edge gives the MTF to a per cent or two; an upright one does not."""
    found = mtf_of_edge(edge_image(3, 1e7), 3)[2]
    assert abs(found - mtf_of_blur()).max() < 0.02
    assert abs(mtf_of_edge(edge_image(0, 1e7), 0)[2] - mtf_of_blur()).max() > 0.1


@app.cell
def _():
    closing(
        "detector",
        library=[
            "cryoinfer.physics.detector.CountingDetector",
            "cryoinfer.physics.noise.estimate_background_spectrum",
            "cryoinfer simulate",
        ],
        sources=[
            "R. R. Meyer, A. I. Kirkland 2000, Characterisation of the signal and noise transfer of CCD cameras for electron detection, Microscopy Research and Technique.",
            "G. McMullan, S. Chen, R. Henderson, A. R. Faruqi 2009, Detective quantum efficiency of electron area detectors in electron microscopy, Ultramicroscopy.",
            "learn_cryoem_math (Woollard), notebook dqe.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
