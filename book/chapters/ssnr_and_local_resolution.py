import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy import ndimage

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
    from cryoinfer.evaluation import ssnr as library
    from cryoinfer.physics.structures.atoms import GaussianAtoms
    from cryoinfer.reconstruction.backproject import signal_to_noise


@app.cell
def _():
    opening("ssnr_and_local_resolution")
    return


@app.cell
def _():
    mo.md(r"""
    ## Noise from the spread of images

    A hundred images of the same view are averaged. How good is the average? Halves can be compared, but one can
    also look at how far the images differ from each other. At one frequency let $F_i = S + N_i$, with noise of
    the power $P = \mathrm{E}|N_i|^2$, and $\bar F$ the mean of $n$ images. Its noise has the power $P / n$. The
    spectral signal-to-noise ratio of the average, over a ring or shell, is

    $$\mathrm{SSNR}(s) = \frac{\sum |S|^2}{\sum P / n} .$$

    Both parts can be had from the images. The spread gives the noise,

    $$\hat P = \frac{1}{n - 1} \sum_{i=1}^n |F_i - \bar F|^2 , \qquad \mathrm{E}\, \hat P = P ,$$

    and the power of the mean is signal and what is left of the noise, $\mathrm{E}|\bar F|^2 = |S|^2 + P / n$.
    Hence

    $$\widehat{\mathrm{SSNR}} = \frac{n \sum |\bar F|^2}{\sum \hat P} - 1 .$$

    Unser and others proposed this in 1987. It uses all images at once, where halves waste some. It grows in
    proportion to $n$. And where there is no signal it scatters about 0, so it can come out negative.

    ## What to do with it

    An average is to be shown. At high frequency it is mostly noise, so it should be weakened there. By how
    much? Multiply $\bar F$ with a real $W$ and ask for the smallest mean square error,

    $$\mathrm{E}\, |W \bar F - S|^2 = W^2 \left( |S|^2 + P/n \right) - 2 W |S|^2 + |S|^2 .$$

    The derivative vanishes for the **Wiener filter**

    $$W = \frac{|S|^2}{|S|^2 + P/n} = \frac{\mathrm{SSNR}}{1 + \mathrm{SSNR}} ,$$

    and the error that remains is $|S|^2 / (1 + \mathrm{SSNR})$. By *Shell correlation*,
    $W = C_{\mathrm{ref}}^2$ with the correlation $C_{\mathrm{ref}}$ between the average and the truth. So the
    filter can be had from half-maps, too.

    In the figure, raise the number of images. The SSNR rises by the same factor at all frequencies, and crosses
    1 further and further to the right. The filtered average gains detail as that happens. It never shows
    grains.
    """)
    return


@app.function
def rings(side):
    """Return round(|k|) of every coefficient of an image's transform."""
    k = np.fft.fftfreq(side, 1.0 / side)
    return np.hypot(k[:, None], k).round().astype(int)


@app.function
def ring_mean(values):
    """Return the mean of values over every ring up to Nyquist."""
    ring = rings(len(values)).ravel()
    return (np.bincount(ring, values.ravel()) / np.bincount(ring))[
        : len(values) // 2 + 1
    ]


@app.function
def ssnr_of_images(images):
    """Return the SSNR of the average of images by ring, from their spread."""
    transforms, n = np.fft.fft2(images), len(images)
    mean = transforms.mean(0)
    spread = (abs(transforms - mean) ** 2).sum(0) / (n - 1)
    return n * ring_mean(abs(mean) ** 2) / ring_mean(spread) - 1.0


@app.function
def ssnr_of_halves(images):
    """Return the same from the ring correlation of the averages of two halves."""
    one, two = (np.fft.fft2(images[half::2].mean(0)) for half in (0, 1))
    cross = ring_mean((one * two.conj()).real)
    norm = np.sqrt(ring_mean(abs(one) ** 2) * ring_mean(abs(two) ** 2))
    fsc = 0.999999 * cross / norm  # the mean, a single number, is correlated to 1
    return 2.0 * fsc / (1.0 - fsc)


@app.function
def wiener(image, ssnr):
    """Return an image, each ring times SSNR / (1 + SSNR)."""
    weight = np.maximum(ssnr, 0.0) / (1.0 + np.maximum(ssnr, 0.0))
    ring = np.minimum(rings(len(image)), len(ssnr) - 1)
    return np.fft.ifft2(np.fft.fft2(image) * weight[ring]).real


@app.function
def projection():
    """Return the view of adenylate kinase along z, 48 pixels of 2 angstrom, spread 1."""
    model = example_atoms("adenylate-kinase-open")
    xyz = torch.from_numpy(model.coordinates_angstrom.copy()).float()
    atoms = GaussianAtoms.from_elements(xyz, model.elements, 30.0)
    image = atoms.to_map(48, 2.0).double().sum(0).numpy()
    return (image - image.mean()) / image.std()


@app.cell
def _():
    _truth, _side = projection(), (-48.0, 48.0, 48.0, -48.0)
    _noise = np.random.default_rng(31).normal(size=(300, 48, 48))
    _s, _power = np.arange(1, 25) / 96.0, ring_mean(abs(np.fft.fft2(_truth)) ** 2)

    def averages(images, noise):
        seen = _truth + noise * _noise[:images]
        mean, spread, halves = seen.mean(0), ssnr_of_images(seen), ssnr_of_halves(seen)
        true = images * _power / (noise**2 * 48**2)
        filtered = wiener(mean, true)
        above = np.where(spread > 1e-2, spread, np.nan)
        lines = (
            Line(_s, above[1:], "from the spread"),
            Line(_s, np.where(halves > 1e-2, halves, np.nan)[1:], "from halves"),
            Line(_s, true[1:], "true", dashed=True),
        )
        words = ("SSNR", "frequency (1/Å)", "SSNR", (0.0, 0.25), (1e-2, 1e4))
        xy = ("x (Å)", "y (Å)")
        pictures = [
            Panel((Heat(one, _side, limits=(-1.5, 4.5)),), title, *xy, equal=True)
            for one, title in ((mean, "Average"), (filtered, "Average, filtered"))
        ]
        return Plot(
            (*pictures, Panel(lines, *words, log_y=True)),
            "Mean square error over the signal's power: average "
            f"{np.square(mean - _truth).mean():.3f}, filtered "
            f"{np.square(filtered - _truth).mean():.3f}.",
        )

    _levels = Slider("noise / spread of the signal", (1, 3, 6, 10), 3)
    explore(averages, images=Slider("images", (4, 10, 30, 100, 300), 30), noise=_levels)
    return


@app.cell
def _():
    source(ssnr_of_images, wiener)
    return


@app.cell
def _():
    mo.md(r"""
    ## Here and there

    One number for a whole map hides much. The core of a protein may be known to 3 Å and a loop, which moves, to
    8 Å. The **local resolution** is the resolution to which half-maps agree in the neighbourhood of a place.

    Take a window $g$ around the place, and do what *Masks and what they feign* did last: filter both halves to
    one band of frequencies about $s$, then correlate under the window,

    $$\mathrm{FSC}(x, s) = \frac{\int g(x - u)\, f_1(u)\, f_2(u)\, \mathrm{d}u}
    {\sqrt{\int g(x - u) f_1^2(u)\, \mathrm{d}u \int g(x - u) f_2^2(u)\, \mathrm{d}u}} .$$

    For all places at once the integrals are convolutions. The local resolution at $x$ is $1/s$ where this first
    falls below a threshold.

    ## How small a place?

    A window of width $w$ knows frequencies to about $1/w$, so bands need not be narrower. How many independent
    numbers are there in a band and a window? As many as the volume of the window times the volume of the band
    in Fourier space. In three dimensions this is

    $$n \approx w^3 \cdot 4 \pi s^2 \frac 1 w = 4 \pi\, (s w)^2 ,$$

    and in an image $n \approx w^2 \cdot 2 \pi s / w = 2 \pi s w$. By *Shell correlation* chance makes
    correlations of $1 / \sqrt n$. A window of five periods of the detail, $s w = 5$, has $n = 314$ in a map,
    and a scatter of 0.056. With two periods it is 0.14: a threshold of 0.143 is crossed by accident. A small
    window sees sharply and believes anything, a large one is reliable and blurs the borders.

    The figure is an image of two textures: right of the middle there is detail to 4 Å, at the left to 12 Å
    only. Half-images add noise. A window of 6 Å gives a map of speckles. One of 32 Å is smooth. But now lower
    the noise to 0.2: the left side is said to be at 4 Å, though it has not changed. The strong signal at the
    rim of its windows outweighs the little noise within. An image has fewer coefficients than a map, so its
    windows must be wider than those of a map.
    """)
    return


@app.function
def two_textures():
    """Return 64 x 64 pixels of 1 angstrom: detail to 12 angstrom at the left, 4 right."""
    s = rings(64) / 64.0
    white = np.fft.fft2(np.random.default_rng(32).normal(size=(64, 64)))
    left, right = (
        np.fft.ifft2(white / (1.0 + np.exp((s - 1.0 / d) / 0.006))).real
        for d in (12.0, 4.0)
    )
    share = 1.0 / (1.0 + np.exp(-(np.arange(64) - 32.0) / 1.5))
    return left * (1.0 - share) + right * share


@app.function
def band(image, s, half_width):
    """Return an image of pixels of 1 angstrom, filtered to frequencies about s."""
    k = np.fft.fftfreq(len(image))
    away = np.minimum(abs(np.hypot(k[:, None], k) - s) / half_width, 1.0)
    return np.fft.ifft2(np.fft.fft2(image) * np.cos(np.pi / 2.0 * away) ** 2).real


@app.function
def local_fsc(one, two, s, window):
    """Return FSC(x, s) under a Gaussian window of this full width at half maximum."""
    sigma = window / 2.355
    a, b = (band(half, s, 1.0 / window) for half in (one, two))
    products = (a * b, a * a, b * b)
    sums = [ndimage.gaussian_filter(p, sigma) for p in products]
    return sums[0] / np.sqrt(sums[1] * sums[2])


@app.function
def local_resolution(one, two, window, threshold=0.5):
    """Return 1/s of the first band below the threshold, or of the last one."""
    s = np.arange(3, 29) / 64.0
    below = np.array([local_fsc(one, two, f, window) < threshold for f in s])
    first = np.where(below.any(0), below.argmax(0), len(s) - 1)
    return 1.0 / s[first]


@app.cell
def _():
    _image = two_textures()
    _noise = np.random.default_rng(33).normal(size=(2, 64, 64))

    def places(window, noise):
        one, two = _image + noise * _noise
        found = local_resolution(one, two, window)
        x, columns = np.arange(64) + 0.5, np.median(found, axis=0)
        truth = np.where(x < 32.0, 12.0, 4.0)
        profile = (
            Line(x, columns, "median of columns"),
            Line(x, truth, "what is in the image", dashed=True),
        )
        shown = Heat(found, limits=(16.0, 2.0))
        xy, last = ("x (Å)", "y (Å)"), ("Across", "x (Å)", "resolution (Å)")
        sides = [np.median(found[:, part]) for part in (slice(4, 28), slice(36, 60))]
        return Plot(
            (
                Panel((Heat(one, limits=(-2, 2)),), "A half-image", *xy, equal=True),
                Panel((shown,), "Local resolution", *xy, equal=True),
                Panel(profile, *last, y_range=(0.0, 18.0)),
            ),
            f"Median {sides[0]:.1f} Å at the left and {sides[1]:.1f} Å at the right; "
            f"spread at the left {found[:, 6:26].std():.1f} Å. Lighter is finer.",
        )

    _window = Slider("window (Å)", (6, 8, 12, 16, 24, 32), 16)
    _noises = Slider("noise", (0.2, 0.3, 0.4, 0.5), 0.5)
    explore(places, window=_window, noise=_noises)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"The solvent has a local resolution of 4 Å."* Outside the particle there is no signal, and the answer is
      chance, or what a mask's edge has leaked. Look inside the mask only.
    - *"The local resolution is better than the global one everywhere."* The windows are too small, or both
      numbers have different thresholds, or the global one was not masked.
    - *"The flexible domain is at 4 Å, but nothing can be built there."* Agreement of halves is no proof of one
      structure. If both halves mix the same conformations, their blurs agree.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "The average of 50 images has an SSNR of 0.4 at some frequency. How many images give an SSNR of 4?",
        50 * 4 / 0.4,
        tolerance=1.0,
        unit="images",
        hint="The noise of an average falls as one over the number of images.",
        explanation="The SSNR grows in proportion to the number: 500.",
    )
    return


@app.cell
def _():
    exercise(
        "A window of 25 Å is used on a map. Which scatter do correlations at 5 Å have by chance?",
        1.0 / np.sqrt(4.0 * np.pi * 5.0**2),
        tolerance=0.003,
        hint=r"$s w$ is 25/5, and $n \approx 4 \pi (s w)^2$.",
        explanation=r"$n = 314$, and $1/\sqrt{314} = 0.056$.",
    )
    return


@app.cell
def _():
    choose(
        "The SSNR of an average is 1 at some frequency. By which factor does the Wiener filter multiply it there?",
        ("0", "0.5", r"$1/\sqrt 2$", "1"),
        1,
        hint=r"$W = \mathrm{SSNR} / (1 + \mathrm{SSNR})$.",
        explanation="Half. Left as it is, the error would be as large as the signal; at half, it is half of that.",
    )
    return


@app.function
def test_ssnr_of_images():
    """800 pairs in rings 8 to 24: it scatters by (1 + SSNR) / sqrt(800); three of them."""
    rng = np.random.default_rng(34)
    for amplitude in (0.0, 0.5):
        signal, noise = (
            amplitude * rng.normal(size=(48, 48)),
            rng.normal(size=(20, 48, 48)),
        )
        power = ring_mean(abs(np.fft.fft2(signal)) ** 2)[8:]
        true = (20 * power / 48**2).mean()
        found = ssnr_of_images(signal + noise)[8:].mean()
        assert abs(found - true) < 0.11 * (1.0 + true)


@app.function
def test_the_library_finds_the_same():
    """From images and from halves, to rounding; its error is that of the scatter.

    Of 300 draws, which know the scatter of each ring to 4 %.
    """
    rng, draws = np.random.default_rng(37), []
    signal = 0.5 * rng.normal(size=(48, 48))
    for _ in range(300):
        seen = signal + rng.normal(size=(4, 48, 48))
        images = torch.from_numpy(seen)
        mean = images.mean(0, keepdim=True).expand_as(images)
        found = library.ssnr_of_images(images, mean, library.ring_sizes(48)).times(4.0)
        draws.append(found.ratio.numpy())
    assert np.allclose(ssnr_of_images(seen), draws[-1], rtol=1e-9, atol=1e-9)
    power = 4 * ring_mean(abs(np.fft.fft2(signal)) ** 2) / 48**2
    rings = library.ring_sizes(48).numpy()
    told = np.sqrt(2 * (1 + 2 * power) / rings + 2 * (1 + power) ** 2 / (3 * rings))
    scatter = np.std(draws, axis=0)[8:] / told[8:]
    assert abs(scatter - 1.0).max() < 0.16
    fsc = torch.tensor([1 / 7, 1 / 3], dtype=torch.float64)
    ratio = library.ssnr_from_fsc(fsc, torch.tensor([100.0, 100.0])).ratio
    assert np.allclose(ratio.numpy(), [1 / 3, 1.0])


@app.function
def test_wiener_is_best_and_leaves_what_it_says():
    """W minimises the error, which is 1 / (1 + SSNR) of the signal (2,304 pixels: 3 %)."""
    signal, noise = np.random.default_rng(35).normal(size=(2, 48, 48))
    for snr in (0.25, 4.0):
        seen = signal + noise / np.sqrt(snr)
        tried = [wiener(seen, np.full(25, snr * times)) for times in (0.5, 1.0, 2.0)]
        errors = [np.square(one - signal).mean() for one in tried]
        assert errors[1] < min(errors[0], errors[2])
        assert abs(errors[1] * (1.0 + snr) - 1.0) < 0.1
    ratio = signal_to_noise(torch.tensor([1 / 7]), joined=True).item()
    assert abs(ratio / (1 + ratio) - 0.25) < 1e-6


@app.function
def test_local_resolution_finds_the_two_sides():
    """12 and 4 angstrom, to two thirds of the half-width of a band (1 / window)."""
    one, two = two_textures() + 0.5 * np.random.default_rng(36).normal(size=(2, 64, 64))
    found = local_resolution(one, two, 16.0)
    left, right = np.median(found[:, 6:26]), np.median(found[:, 38:58])
    assert abs(1 / left - 1 / 12) < 0.04
    assert abs(1 / right - 1 / 4) < 0.04


@app.cell
def _():
    closing(
        "ssnr_and_local_resolution",
        library=[
            "cryoinfer.evaluation.ssnr.ssnr_of_images",
            "cryoinfer.evaluation.ssnr.ssnr_from_fsc",
            "cryoinfer.reconstruction.backproject.signal_to_noise",
            "cryoinfer.evaluation.local_resolution.local_resolution",
            "cryoinfer local-resolution",
        ],
        sources=[
            "M. Unser, B. L. Trus, A. C. Steven 1987, A new resolution criterion based on spectral signal-to-noise ratios, Ultramicroscopy.",
            "G. Cardone, J. B. Heymann, A. C. Steven 2013, One number does not fit all: mapping local variations in resolution in cryo-EM reconstructions, Journal of Structural Biology.",
            "P. A. Penczek 2020, Reliable cryo-EM resolution estimation with modified Fourier shell correlation, IUCrJ.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
