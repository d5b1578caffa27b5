import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    from scipy.stats import norm

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

    SIDE = 32  # pixels of an image
    COUNTS = (1, 3, 10, 30, 100, 300, 1000, 3000)  # images that are averaged


@app.cell
def _():
    opening("einstein_from_noise")
    return


@app.cell
def _():
    mo.md(r"""
    ## A face in the noise

    Take images in which there is nothing: each pixel is an independent normal number. Take a picture of a face. Move each noise image to where it fits the face best, and average the moved
    images. Raise the number of images. A face appears.

    The images did not know the face. The search did. This is called **Einstein from noise**, after the portrait with which it was shown. Choose another picture as the reference, with the
    same images: that one appears.
    """)
    return


@app.function
def reference(name):
    """Return a picture of 32 by 32 pixels, of mean 0 and norm 1."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2 + 0.5
    far = np.hypot(x, y)
    if name == "face":
        image = 1.0 * (abs(far - 11.0) < 1.2)
        image += (np.hypot(abs(x) - 4.5, y + 3.5) < 1.8) + (abs(x) < 1) * (
            abs(y - 0.5) < 2
        )
        image += (abs(np.hypot(x, y - 1.0) - 6.0) < 1.0) * (y > 3.5)
    elif name == "cross":
        image = 1.0 * ((abs(x) < 2) | (abs(y) < 2)) * (far < 12)
    else:
        image = np.random.default_rng(7).normal(size=(SIDE, SIDE))
        spectrum = np.fft.fft2(image)
        image = np.fft.ifft2(spectrum / abs(spectrum)).real
    image = image - image.mean()
    return image / np.sqrt((image**2).sum())


@app.function
def noise_images(count, seed=0):
    """Return images of nothing: normal numbers of variance 1."""
    return np.random.default_rng(seed).normal(size=(count, SIDE, SIDE))


@app.function
def aligned(images, picture, places=SIDE):
    """Return each image moved (cyclically) to where it fits a picture best.

    Shifts of 0 to places - 1 pixels along each axis are tried.
    """
    product = np.fft.fft2(images) * np.conj(np.fft.fft2(picture))
    fit = np.fft.ifft2(product).real[:, :places, :places]
    best = fit.reshape(len(images), -1).argmax(1)
    rows, columns = best // places, best % places
    axis = np.arange(SIDE)
    at_row = (axis + rows[:, None]) % SIDE
    at_column = (axis + columns[:, None]) % SIDE
    own = np.arange(len(images))[:, None, None]
    return images[own, at_row[:, :, None], at_column[:, None]]


@app.function
def correlation(one, other):
    """Return the correlation of two images without their means."""
    one, other = one - one.mean(), other - other.mean()
    return (one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum())


@app.function
def picture(image, title):
    """Return a panel with an image, in units of its standard deviation."""
    most = 3.5 * image.std()
    return Panel((Heat(image, signed=True, limits=(-most, most)),), title, equal=True)


@app.cell
def _():
    _names = ("face", "cross", "noise of its own")
    _data = noise_images(COUNTS[-1])
    _moved = {name: aligned(_data, reference(name)) for name in _names}

    def faces(images, name):
        mean = _moved[name][:images].mean(0)
        return Plot(
            (
                picture(reference(name), "The reference"),
                picture(_moved[name][0], "One image, moved to it"),
                picture(mean, "The average"),
            ),
            f"Average of {images} images of nothing: its correlation with the reference is {correlation(mean, reference(name)):.2f}, that of the first image alone "
            f"{correlation(_moved[name][0], reference(name)):.2f}.",
        )

    explore(
        faces, images=Slider("images", COUNTS, 30), name=Choice("reference", _names)
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## How strong it is

    Let the reference $A$ have norm 1, and let the images $n$ have independent pixels of variance $\sigma^2$. The fit at a shift $q$ is the number $c_q = \langle S_q A, n\rangle$. Each $c_q$
    is normal with variance $\sigma^2$. The search takes the largest of $L$ such numbers, and moves the image by it. By construction the moved image has the product $\max_q c_q$ with the
    reference. So has the average:

    $$\langle A, \text{average}\rangle \to \sigma\, m_L, \qquad
    m_L = E\left[\max \text{ of } L \text{ normal numbers}\right] \lesssim \sqrt{2 \ln L} .$$

    If different shifts of the reference are uncorrelated, the $c_q$ are independent, and $m_L$ is 0.56 for two places, 2.34 for 64 and 3.25 for 1,024. All else in an average of $M$ images
    of $N$ pixels is noise of the power $N \sigma^2 / M$. Hence the correlation of average and reference,

    $$r = \frac{m_L}{\sqrt{m_L^2 + N / M}} .$$

    $\sigma$ has gone: weak noise does it as well as strong. With 1,024 places and as many pixels, $r = 0.9$ takes about 410 images. The strength grows only as the root of a logarithm. Yet
    there is no way to search little enough: two places are enough to begin with.
    """)
    return


@app.function
def expected_maximum(places):
    """Return the mean of the largest of some independent normal numbers."""
    if places == 1:
        return 0.0
    x = np.linspace(-10.0, 10.0, 20001)
    density = places * norm.pdf(x) * norm.cdf(x) ** (places - 1)
    return float((x * density).sum() * (x[1] - x[0]))


@app.function
def expected_correlation(places, images, pixels=SIDE * SIDE):
    """Return the correlation of reference and average, for uncorrelated shifts."""
    strength = expected_maximum(places)
    return strength / np.sqrt(strength**2 + pixels / images)


@app.cell
def _():
    _white = reference("white")
    _sides = (1, 2, 4, 8, 16, 32)
    _curves = {}
    for _side in _sides:
        _one = aligned(noise_images(COUNTS[-1], 5), _white, _side)
        _sums = _one.cumsum(0)
        _curves[_side] = [correlation(_sums[n - 1], _white) for n in COUNTS]

    def strength(side):
        n = np.geomspace(1, COUNTS[-1], 60)
        expected = expected_correlation(side**2, n)
        marks = (
            Line(n, expected, "expected"),
            Points(COUNTS, _curves[side], "measured"),
        )
        title, x = "Correlation of average and reference", "images of nothing"
        return Plot(
            (Panel(marks, title, x, "correlation", y_range=(-0.1, 1), log_x=True),),
            f"{side**2} places tried: the largest of so many normal numbers is {expected_maximum(side**2):.2f} on average; after {COUNTS[-1]} images r is "
            f"{_curves[side][-1]:.2f} (expected {expected[-1]:.2f}).",
        )

    explore(strength, side=Slider("places tried along each axis", _sides, 8))
    return


@app.cell
def _():
    source(aligned, expected_maximum, expected_correlation)
    return


@app.cell
def _():
    mo.md(r"""
    ## Two halves that agree about nothing

    A usual test of a map is to make it twice, from two halves of the images, and to compare. The comparison is in rings of Fourier space: the correlation of the coefficients of both,

    $$\mathrm{FRC}(k) = \frac{\mathrm{Re} \sum a\, b^{*}}{\sqrt{\sum |a|^2 \sum |b|^2}},$$

    summed over the ring. Noise has no correlation with other noise. But if both halves were aligned to the same reference, they agree, for both resemble it. With separate references, each
    half makes its own face, and the two have nothing in common. This is why half-maps are refined apart from the start (the **gold standard**). What both share, they share forever: a common
    starting map is safe only beyond the resolution that it was filtered to.

    Below, both halves are images of nothing. Compare "the same" with "one each", and raise the number of images.
    """)
    return


@app.function
def ring_correlation(one, other):
    """Return the Fourier ring correlation of two images, rings 1 to 15."""
    a, b = np.fft.fft2(one), np.fft.fft2(other)
    axis = np.fft.fftfreq(SIDE, 1 / SIDE)
    ring = np.rint(np.hypot(axis, axis[:, None])).astype(int).ravel()

    def summed(values):
        return np.bincount(ring, values.ravel())[1 : SIDE // 2]

    cross = summed((a * b.conj()).real)
    return cross / np.sqrt(summed(abs(a) ** 2) * summed(abs(b) ** 2))


@app.cell
def _():
    _second = np.roll(reference("face")[::-1].T, (5, 9), (0, 1))
    _one = aligned(noise_images(COUNTS[-1], 1), reference("face"))
    _data = noise_images(COUNTS[-1], 2)
    _two = {
        "the same": aligned(_data, reference("face")),
        "one each": aligned(_data, _second),
    }

    def halves(images, references):
        one, two = _one[:images].mean(0), _two[references][:images].mean(0)
        rings = np.arange(1, SIDE // 2)
        curve = ring_correlation(one, two)
        level = Line(rings, np.full(len(rings), 0.143), "0.143", dashed=True)
        heats = [picture(one, "First half"), picture(two, "Second half")]
        ring, marks = "ring (1 / 32 pixels)", (Line(rings, curve, "FRC"), level)
        rings_panel = Panel(marks, "Agreement", ring, "correlation", None, (-0.6, 1))
        return Plot(
            (*heats, rings_panel),
            f"{images} images of nothing in each half: {(curve > 0.143).sum()} of {len(rings)} rings above 0.143, mean {curve.mean():.2f}.",
        )

    explore(
        halves,
        images=Slider("images in each half", COUNTS, 1000),
        references=Choice("references", ("the same", "one each")),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## The other side of the same coin

    Taking the best place makes a reference grow to the norm $\sigma m_L$, however weak it was. What do responsibilities do? Give each place the weight $\gamma_q \propto e^{c_q/\sigma^2}$
    that belongs to the true noise (here $\sigma = 1$, 64 places), and let the reference have a norm. One of norm 1 comes back from images of nothing with norm 0.98, one of norm 2 with 1.7,
    one of norm 4 with 2.2. So a strong guess shrinks, round after round, and a weak one does not grow. A search with too small a noise, or best places only, lacks this brake.

    ## What goes wrong in practice

    - *"The automatic picking worked: the class averages look just like the templates."* They would. Pick a part of the micrographs without templates, or with a shape that has no detail, and
      see whether the same classes appear.
    - *"The FSC says 4 Å, and the map has no side chains."* Both halves were aligned to one map, or to each other. Refine them apart. Another test is to replace the phases of all images
      beyond some frequency by random ones: what agreement remains there was made by the search.
    - *"My data fit the published structure."* They do if they were searched with it. Look for what was not in the reference: another length of filter, a ligand that was left out, a
      resolution beyond that of the filtered start.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "Images have 10,000 pixels of pure noise. A search over 1,000 uncorrelated places finds "
        r"$m_L = 3.24$. In how many images does the average reach a correlation of 0.5 with the reference?",
        10_000 / (expected_maximum(1000) ** 2 * (1 / 0.25 - 1)),
        tolerance=10.0,
        hint=r"Solve $r^2 (m^2 + N/M) = m^2$ for $M$.",
        explanation=r"$M = N / (m^2 (1/r^2 - 1)) = 10{,}000 / (10.5 \times 3)$, about 317.",
    )
    return


@app.cell
def _():
    exercise(
        "The noise is made three times weaker. By what factor does the correlation of average and reference change, all else equal?",
        1.0,
        tolerance=0.01,
        hint=r"Where is $\sigma$ in the formula of $r$?",
        explanation="By none. Both the feigned signal and the noise that is left scale with the noise of the images.",
    )
    return


@app.cell
def _():
    choose(
        "Two half-sets were aligned to one map that had been filtered to 20 Å, then refined apart. Their FSC falls below 0.143 at 6 Å. What may be believed?",
        ("Nothing.", "What is finer than 20 Å.", "All of it, down to 6 Å."),
        1,
        hint="What could the halves inherit from the start?",
        explanation="Up to 20 Å their agreement may be inherited. Beyond, there was nothing to inherit (if the filter was sharp, and no mask cuts both in the same way).",
    )
    return


@app.function
def test_largest_of_normal_numbers():
    """Of two, 1 / sqrt(pi); of three, 3 / (2 sqrt(pi)); sums of a smooth function: 1e-6."""
    assert abs(expected_maximum(2) - 1.0 / np.sqrt(np.pi)) < 1e-6
    assert abs(expected_maximum(3) - 1.5 / np.sqrt(np.pi)) < 1e-6
    for places, told in ((64, 2.34), (1000, 3.24), (1024, 3.25)):
        assert abs(expected_maximum(places) - told) < 0.005
        assert expected_maximum(places) < np.sqrt(2.0 * np.log(places))


@app.function
def returned(size, images=20_000, places=64):
    """Return the product of a unit reference, times a size, with soft-aligned noise."""
    fits = np.random.default_rng(0).normal(size=(images, places))
    weight = np.exp(size * (fits - fits.max(1)[:, None]))
    return ((weight * fits).sum(1) / weight.sum(1)).mean()


@app.function
def test_noise_follows_the_formula():
    """Correlations of 1,000 images: their noise is about 1 / sqrt(1,024) = 0.03."""
    for size, told in ((1.0, 0.98), (2.0, 1.7), (4.0, 2.2)):
        assert abs(returned(size) - told) < 0.05
    white, images = reference("white"), noise_images(1000, 9)
    for side in (4, 32):
        found = correlation(aligned(images, white, side).mean(0), white)
        assert abs(found - expected_correlation(side**2, 1000)) < 0.06
    assert abs(correlation(images.mean(0), white)) < 0.1
    assert abs(expected_correlation(1024, 413) - 0.9) < 0.001


@app.function
def test_alignment_undoes_a_shift():
    """A moved picture comes back to itself, exactly."""
    face = reference("face")
    assert np.array_equal(aligned(np.roll(face, (3, 7), (0, 1))[None], face)[0], face)
    assert abs(ring_correlation(face, 2.0 * face) - 1.0).max() < 1e-12


@app.cell
def _():
    closing(
        "einstein_from_noise",
        library=[
            "cryoinfer.evaluation.fsc.fourier_shell_correlation",
            "cryoinfer.evaluation.fsc.masked_fsc",
            "cryoinfer abinitio",
        ],
        sources=[
            "R. Henderson 2013, Avoiding the pitfalls of single particle cryo-electron microscopy: Einstein from noise, PNAS.",
            "S. H. W. Scheres and S. Chen 2012, Prevention of overfitting in cryo-EM structure determination, Nature Methods.",
            "S. Chen and others 2013, High-resolution noise substitution to measure overfitting and validate resolution in 3D structure determination by single "
            "particle electron cryomicroscopy, Ultramicroscopy.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
