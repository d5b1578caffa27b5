import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    from scipy.optimize import brentq

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


@app.cell
def _():
    opening("damage_and_motion")
    return


@app.cell
def _():
    mo.md(r"""
    ## Looking destroys

    An electron of 300 kV that crosses water loses 2.4 MeV per g/cm$^2$ on its way. One electron on each Å$^2$ is
    $10^{16}$ on each cm$^2$, and deposits $10^{16} \times 2.4\ \text{MeV/g} = 3.8$ million joules per kilogram. Ten
    joules per kilogram are deadly. Cold slows the consequences down: broken bonds stay nearly where they were. Even
    so, the fine details of a protein are gone after a few electrons per Å$^2$, and coarse ones after tens.

    How is that measured? Take a movie, reconstruct a map from each span of exposure, and see how the amplitudes fade.
    At a frequency $s$ they fall as $e^{-n / (2 N_e)}$ with the exposure $n$. $N_e(s)$ is the **critical exposure**.
    Grant and Grigorieff found, at 300 kV and near liquid nitrogen's temperature,

    $$N_e(s) = 0.24499\, s^{-1.6649} + 2.8141 \quad \text{electrons per Å}^2 ,$$

    with $s$ in 1/Å. That is 4.3 at 3 Å and 14 at 10 Å. At 200 kV it is 0.8 of this.

    ## When to stop

    Let a frame of the movie see $\mathrm{d}n$ electrons per Å$^2$. Noise of counting has a power in proportion to
    $\mathrm{d}n$, and powers of different frames add. The signal has the amplitude $e^{-n/2N_e}\, \mathrm{d}n$, and
    amplitudes add. After the exposure $N$ the sum of all frames has

    $$\mathrm{SNR} \propto \frac{1}{N} \left( \int_0^N e^{-n/2N_e}\, \mathrm{d}n \right)^2
      = 2 N_e\, \frac{(1 - e^{-x})^2}{x} , \qquad x = \frac{N}{2 N_e} .$$

    Its derivative is zero where $2x = e^x - 1$, at $x = 1.256$: the best moment to stop is $N = 2.51\, N_e$. But it
    is another moment for each frequency. Stop at 11 for 3 Å, and large features have had too little; at 35 for 10 Å,
    and the end of the movie has added noise to the fine ones.

    ## No need to stop

    Give each frame a weight $w_i$, at each frequency its own. The sum has the signal $\sum w_i q_i$, with
    $q_i = e^{-n_i/2N_e}$, and the noise power $\sum w_i^2$. By the inequality of Cauchy and Schwarz

    $$\frac{(\sum w_i q_i)^2}{\sum w_i^2} \le \sum q_i^2 ,$$

    with equality for $w_i \propto q_i$. This is **exposure weighting**: each frame counts for as much as it still
    has. Divided by $\sqrt{\sum q_i^2}$, the weights leave the noise white. The best SNR, $N_e (1 - e^{-N/N_e})$ in
    the limit of many frames, only grows with $N$. Late frames do no harm at high frequency, and add contrast at low
    frequency.

    Compare both curves while you change the period. How much does weighting gain at the best moment to stop, and
    later?
    """)
    return


@app.function
def critical_exposure(s):
    """Return N_e at 300 kV, in electrons per A^2 (Grant and Grigorieff 2015)."""
    return 0.24499 * np.asarray(s) ** -1.6649 + 2.8141


@app.function
def plain_snr(exposure, critical):
    """Return the SNR of the sum of all frames, over that of an undamaged electron per A^2."""
    x = exposure / (2 * critical)
    return 2 * critical * (1 - np.exp(-x)) ** 2 / x


@app.function
def weighted_snr(exposure, critical):
    """Return the SNR with the best weights."""
    return critical * (1 - np.exp(-exposure / critical))


@app.function
def best_stop():
    """Return N / N_e at which the SNR of the plain sum is largest: 2x = e^x - 1."""
    return 2 * brentq(lambda x: 2 * x - np.expm1(x), 0.5, 3.0)


@app.cell
def _():
    def stopping(period_angstrom, exposure):
        critical = critical_exposure(1 / period_angstrom)
        n = np.linspace(0.5, 100.0, 200)
        left = (
            Line(n, plain_snr(n, critical), "plain sum"),
            Line(n, weighted_snr(n, critical), "weighted"),
            Points([exposure], [plain_snr(exposure, critical)], "this exposure"),
        )
        s = np.linspace(0.02, 0.5, 150)
        ends = exposure / 4, exposure / 2, exposure
        left_over = [np.exp(-end / (2 * critical_exposure(s))) for end in ends]
        pairs = zip(ends, left_over, strict=True)
        right = tuple(Line(s, one, f"after {end:.0f}") for end, one in pairs)
        words = f"SNR at {period_angstrom} Å", "exposure (electrons per Å²)", "SNR"
        first = Panel(left, *words, (0, 100), (0, 18))
        words = "Amplitude left in a frame", "spatial frequency (1/Å)", "amplitude"
        second = Panel(right, *words, (0.0, 0.5), (0.0, 1.0))
        stop, weighted = best_stop() * critical, weighted_snr(exposure, critical)
        gain = 100 * weighted / plain_snr(exposure, critical) - 100
        says = f"N_e = {critical:.1f}: best stop at {stop:.0f}. Weighting gains {gain:.0f} %."
        return Plot((first, second), says)

    periods = Slider("period (Å)", (2, 2.5, 3, 4, 6, 10), 3)
    exposures = Slider("electrons per Å²", (4, 8, 12, 20, 30, 40, 60, 80), 40)
    explore(stopping, period_angstrom=periods, exposure=exposures)
    return


@app.cell
def _():
    mo.md(r"""
    ## Everything moves

    The beam breaks bonds, gas forms, stress is set free, and the film of ice bends like a drum. The motion is fast at
    first, several Å during the first few electrons per Å$^2$, and slows down. So the frames that are least damaged
    are most blurred.

    What does motion cost? A displacement by $t$ multiplies the transform by $e^{-2\pi i k \cdot t}$. The mean of this
    over a uniform motion from $-\delta/2$ to $\delta/2$, along $k$, is

    $$\frac{\sin (\pi s \delta)}{\pi s \delta} ,$$

    and over random displacements of $\rho$ rms along an axis it is $e^{-2\pi^2 \rho^2 s^2}$. The second is a B-factor
    of $8\pi^2\rho^2$: half an ångström makes 20 Å$^2$.

    A movie can be repaired: find the displacement of each frame, and undo it before adding. What stays is motion
    *within* a frame, and errors of what was found. In the figure a particle moves by $a\,(1 - e^{-n/3})$, all of it
    along $k$, during 40 electrons per Å$^2$. The frames are weighted for damage; the curve shows the amplitude of the
    sum, over that without motion. Weights for damage make matters worse, for they trust the first frames most. With 4
    Å in all, details of 3 Å keep 0.39 in frames of 4 electrons, 0.74 in those of 2, and 0.98 in those of 0.5.
    """)
    return


@app.function
def amplitude_left(s, initial_angstrom, per_frame, corrected, total=40.0):
    """Return the weighted mean of exp(-2 pi i s t) over the movie, as a modulus."""
    fine = 200
    n = (np.arange(fine * round(total / per_frame)) + 0.5) * per_frame / fine
    place = initial_angstrom * (1 - np.exp(-n / 3.0))
    if corrected:  # each frame is moved back by its mean place
        place = place - np.repeat(place.reshape(-1, fine).mean(1), fine)
    phases = np.exp(-2j * np.pi * np.multiply.outer(s, place))
    weights = np.exp(-np.multiply.outer(1 / critical_exposure(s), n))
    return np.abs((weights * phases).sum(1) / weights.sum(1))


@app.cell
def _():
    def blurred(initial_angstrom, per_frame):
        s = np.linspace(0.02, 0.5, 60)
        given = s, initial_angstrom, per_frame
        aligned, raw = (
            amplitude_left(*given, corrected) for corrected in (True, False)
        )
        marks = Line(s, aligned, "frames aligned"), Line(s, raw, "not aligned")
        words = "Amplitude that motion leaves", "spatial frequency (1/Å)", "amplitude"
        kept = [np.interp(1 / 3, s, one) for one in (aligned, raw)]
        says = f"At 3 Å aligned frames keep {kept[0]:.2f}, others {kept[1]:.2f}."
        return Plot((Panel(marks, *words, (0.0, 0.5), (0.0, 1.02)),), says)

    ways = Slider("motion in all, a (Å)", (0.5, 1, 2, 4, 8), 4)
    fractions = Slider("electrons per Å² and frame", (0.5, 1, 2, 4, 8), 2)
    explore(blurred, initial_angstrom=ways, per_frame=fractions)
    return


@app.cell
def _():
    mo.md(r"""
    ## Finding the motion

    Frames are aligned by their correlation (*Convolution and correlation*): the peak of the correlation of a frame
    with the sum of all others is its displacement. The sum is then made anew, a few times over.

    How exactly can it be found? A displacement by a small $t$ changes the transform by $-2\pi i k t \hat f$. Compare
    this with the noise, whose power per frame is $\sigma^2$ in each coefficient: no method does better than

    $$\operatorname{var} t = \frac{\sigma^2}{\sum_k (2\pi k)^2 \lvert \hat f(k) \rvert^2} ,$$

    the sum over all coefficients. Twice as many frames have half the exposure each, and so twice the noise power
    against their signal: each displacement is less certain, by $\sqrt 2$.  What helps is that motion is smooth: a
    curve with few parameters is fitted to all of them, and averages their errors.

    Here is a one-dimensional movie of 256 pixels, with the same exposure cut into more or fewer frames. Dots are the
    displacements found, the line is a cubic through them. Take 80 frames and add noise: at first dots scatter, then
    single ones leap away to false peaks and pull the cubic along. With 10 frames nothing of that happens.
    """)
    return


@app.function
def movie(frames, noise, seed=1, size=256):
    """Return frames and their true displacements (pixels); total exposure is fixed."""
    random = np.random.default_rng(seed)
    k = np.fft.fftfreq(size)
    structure = np.fft.fft(random.standard_normal(size)) * np.exp(-60.0 * k**2)
    structure[0] = 0
    structure *= size / np.linalg.norm(structure)  # variance 1 in a pixel
    exposure = (np.arange(frames) + 0.5) / frames
    true = 6.0 * (1 - np.exp(-4.0 * exposure))
    moved = structure * np.exp(-2j * np.pi * np.multiply.outer(true, k))
    grain = random.standard_normal((frames, size)) * noise * np.sqrt(frames)
    return np.fft.ifft(moved).real + grain, true


@app.function
def displacements(transforms, references):
    """Return places of the peaks of correlations, to 1/16 pixel, of rows of transforms."""
    products = transforms * references.conj()
    count, size = products.shape
    padded = np.zeros((count, 16 * size), complex)  # 16 points a pixel
    padded[:, : size // 2] = products[:, : size // 2]
    padded[:, -(size // 2) :] = products[:, size // 2 :]
    lags = np.fft.fftfreq(16 * size) * size
    near = np.abs(lags) < 20
    return lags[near][np.fft.ifft(padded).real[:, near].argmax(1)]


@app.function
def found_motion(frames, rounds=5):
    """Return displacements, from the correlation with the sum of the other frames."""
    k = np.fft.fftfreq(frames.shape[1])
    transforms, shifts = np.fft.fft(frames), np.zeros(len(frames))
    for _ in range(rounds):
        aligned = transforms * np.exp(2j * np.pi * np.multiply.outer(shifts, k))
        others = (aligned.sum(0) - aligned) * np.exp(-60.0 * k**2)
        shifts = displacements(transforms, others)
    return shifts - shifts.mean()


@app.cell
def _():
    def tracking(frames, noise):
        images, true = movie(frames, noise)
        true, found = true - true.mean(), found_motion(images)
        n = 40 * (np.arange(frames) + 0.5) / frames
        smooth = np.polynomial.Polynomial.fit(n, found, 3)(n)
        real = Line(n, true, "true", dashed=True)
        marks = real, Points(n, found, "found"), Line(n, smooth, "cubic")
        words = "Motion of a movie", "electrons per Å²", "displacement (pixels)"
        dots, cubic = np.std(found - true), np.std(smooth - true)
        says = f"Dots are off by {dots:.2f} pixels rms, the cubic by {cubic:.2f}."
        return Plot((Panel(marks, *words, (0, 40), (-6, 4)),), says)

    counts = Slider("frames", (5, 10, 20, 40, 80), 20)
    noises = Slider("noise of the whole movie", (0.05, 0.1, 0.2, 0.3, 0.4), 0.1)
    explore(tracking, frames=counts, noise=noises)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"With all frames the map is worse than with half of them."* They were added without weights, or with the wrong
      exposure. Programs want electrons per Å$^2$ and frame; given per pixel, it is off by $p^2$.
    - *"Motion correction finds no motion."* The detector's fixed pattern, from a gain image that was not applied or
      was turned, is the strongest thing that all frames share, and it does not move.
    - *"Whole frames align, particles are blurred."* The film bends: parts of it move differently. Track patches, or
      each particle with the map as reference.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "Frames are added without weights, at 300 kV. After which exposure is the SNR best at 4 Å?",
        best_stop() * critical_exposure(0.25),
        tolerance=0.4,
        unit="electrons per Å²",
        hint=r"$0.25^{-1.6649} = 10.05$; then $N_e$, then 2.51 times that.",
        explanation=r"$N_e = 0.245 \times 10.05 + 2.81 = 5.28$, and $2.51\,N_e = 13.3$.",
    )
    return


@app.cell
def _():
    exercise(
        "Particles move at random by 0.7 Å rms along each axis while they are recorded. What B-factor is that?",
        8 * np.pi**2 * 0.7**2,
        tolerance=1.0,
        unit="Å²",
        hint=r"$8\pi^2 \rho^2$.",
        explanation=r"$78.96 \times 0.49 = 38.7$ Å$^2$.",
    )
    return


@app.cell
def _():
    choose(
        "A movie of 60 electrons per Å² is weighted for exposure. Are its last 30 of any use?",
        (
            "No, they hold noise alone and should be left out.",
            "They add contrast at low frequency and nothing, not even noise, at high frequency.",
        ),
        1,
        hint="Look at the right panel of the first figure: what has a frame after 60?",
        explanation="At 3 Å a frame after 45 has an amplitude of 0.006 left, and gets that weight. At 20 Å it has 0.56.",
    )
    return


@app.function
def test_known_numbers():
    """2.51284, and a critical exposure by hand (Grant and Grigorieff 2015: all digits)."""
    assert abs(best_stop() - 2.51284) < 1e-4
    assert abs(critical_exposure(1 / 3) - (0.24499 * 6.2275 + 2.8141)) < 1e-3


@app.function
def test_weights_are_the_best():
    """Sums over 4,000 frames (the midpoint rule is good to 1e-6), and no other weights do
    better; at the best stop weighting gains 12.8 percent."""
    critical, total = 5.0, 40.0
    q = np.exp(-(np.arange(4000) + 0.5) / 4000 * total / (2 * critical))
    assert abs((q**2).mean() * total / weighted_snr(total, critical) - 1) < 1e-5
    assert abs(q.mean() ** 2 * total / plain_snr(total, critical) - 1) < 1e-5
    for power in (0.5, 0.9, 1.1, 2.0):
        assert (q**power @ q) ** 2 / (q**power @ q**power) < q @ q
    stop = best_stop() * critical
    assert abs(weighted_snr(stop, critical) / plain_snr(stop, critical) - 1.1282) < 1e-3


@app.function
def test_blur():
    """Motion without damage is a mean of exp(-2 pi i s t): a short, even one is a sinc. In a
    frame of 0.1 of the time constant it is even to a hundredth."""
    s = np.array([0.05, 0.1])
    only = amplitude_left(s, 30.0, 0.3, True, total=0.3)
    assert np.abs(only - np.sinc(s * 30.0 * (1 - np.exp(-0.1)))).max() < 0.01


@app.function
def test_shifts_reach_the_bound():
    """Against a noiseless reference the rms error is that of the formula; 400 trials tell it
    to 5 percent, and steps of 1/16 pixel add little to an error of 0.2."""
    clean = np.fft.fft(movie(1, 0.0)[0])
    k = np.fft.fftfreq(clean.shape[1])
    slope = ((2 * np.pi * k) ** 2 * np.abs(clean) ** 2).sum() / len(k)
    grain = np.random.default_rng(3).standard_normal((400, len(k)))
    errors = displacements(clean + np.fft.fft(grain), clean)
    assert abs(errors.std() * np.sqrt(slope) - 1) < 0.15


@app.cell
def _():
    source(critical_exposure, weighted_snr, amplitude_left, found_motion)
    return


@app.cell
def _():
    closing(
        "damage_and_motion",
        library=["cryoinfer.records.Optics"],
        sources=[
            "T. Grant and N. Grigorieff 2015, Measuring the optimal exposure for single particle cryo-EM using a 2.6 Å reconstruction of rotavirus VP6, eLife.",
            "A. F. Brilot and others 2012, Beam-induced motion of vitrified specimen on holey carbon film, Journal of Structural Biology.",
            "S. Q. Zheng and others 2017, MotionCor2: anisotropic correction of beam-induced motion for improved cryo-electron microscopy, Nature Methods.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
