import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np

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


@app.cell
def _():
    opening("covariance")
    return


@app.cell
def _():
    mo.md(r"""
    ## Two images of one view

    Take all images of a molecule from the same side. Their mean is blurred where it is not
    rigid. A part may be missing in some particles, or be there always and move. The
    mean cannot tell. The second moment can.

    Write an image as a column $y$ of $d$ pixels, the mean image as $m$. The
    **covariance** of the images is the $d \times d$ matrix

    $$\Sigma_{ab} = \operatorname{E}\left[(y_a - m_a)(y_b - m_b)\right] .$$

    Its eigenvectors are images too, the **principal components**: along the first the
    images vary most, and its eigenvalue is the variance along it. White noise of power
    $\sigma^2$ adds $\sigma^2 I$ to $\Sigma$: every eigenvalue rises, no eigenvector changes.

    Below, the right one of two discs varies. If it comes and goes, one component has its
    shape. If it moves, the first component is a derivative, bright on one side and dark
    on the other, and a second one follows. Try few images and much noise.
    """)
    return


@app.function
def two_discs(varies, amount, count, seed):
    """Return images without noise, one a row: the right disc changes by ``amount``."""
    axis = np.arange(20.0) - 10.0
    x, y = axis[None, None, :], axis[None, :, None]
    change = np.random.default_rng(seed).standard_normal(count)[:, None, None] * amount
    bright = 1.0 + change if varies == "brightness" else np.ones_like(change)
    moved = change if varies == "place" else np.zeros_like(change)
    left = np.exp(-((x + 4.0) ** 2 + y**2) / (2.0 * 2.0**2))
    right = np.exp(-((x - 4.0) ** 2 + (y - moved) ** 2) / (2.0 * 2.0**2))
    return (left + bright * right).reshape(count, -1)


@app.function
def principal_components(images):
    """Return eigenvalues of the covariance and its eigenvectors as rows."""
    centred = images - images.mean(0)
    _, singular, rows = np.linalg.svd(centred, full_matrices=False)
    largest = rows[np.arange(len(rows)), np.abs(rows).argmax(1)]
    return singular**2 / len(images), rows * np.sign(largest)[:, None]


@app.function
def noise_edge(noise_power, pixels, count):
    """Return the largest eigenvalue that noise alone would have (many of both)."""
    return noise_power * (1.0 + np.sqrt(pixels / count)) ** 2


@app.cell
def _():
    def variability(varies, count, noise):
        amount = 0.5 if varies == "brightness" else 1.0
        clean = two_discs(varies, amount, count, seed=1)
        rng = np.random.default_rng(2)
        seen = clean + noise * rng.standard_normal(clean.shape)
        values, rows = principal_components(seen)
        edge = noise_edge(noise**2, clean.shape[1], count)
        above = int((values > 1.02 * edge).sum())
        one, other = (
            Panel((Heat(row.reshape(20, 20), signed=True),), title=name, equal=True)
            for row, name in zip(rows, ("Component 1", "Component 2"), strict=False)
        )
        dots = Points(np.arange(1, 11), values[:10], "eigenvalues")
        crowd = Line([0.5, 10.5], [edge, edge], "edge of noise", dashed=True)
        marks = (dots, crowd)
        bare = Panel(marks, "Variance", "component", "variance", (0, 11), (0, 5))
        says = (
            f"{above} of the components vary more than the edge of noise, {edge:.2f}."
        )
        return Plot((one, other, bare), says)

    explore(
        variability,
        varies=Choice("what varies", ("brightness", "place")),
        count=Slider("images", (30, 100, 300, 1000, 3000), 1000),
        noise=Slider("noise (standard deviation)", (0.1, 0.3, 0.5, 0.8), 0.3),
    )
    return


@app.cell
def _():
    mo.md(r"""
    Why is there an edge? With finitely many images noise varies more in some directions,
    by chance. For $n$ images of $d$ pixels its eigenvalues spread from
    $\sigma^2 (1 - \sqrt{d/n})^2$ to

    $$\sigma^2 \left(1 + \sqrt{d/n}\right)^2 \qquad \text{(Marchenko and Pastur).}$$

    A true component of variance $s$ comes out of this crowd if
    $s > \sigma^2 \sqrt{d/n}$. Four times as many images find a component of half the
    variance.

    ## What a slice sees of a covariance

    Now the molecule is three-dimensional. Of a map $V$ an image shows one central slice
    through its transform, in the pose $R$:

    $$\hat y = C \, P_R \hat V + \text{noise}, \qquad
    \operatorname{Cov}(\hat y) = C \, P_R \, \Sigma \, P_R^* \, C + \sigma^2 I .$$

    No particle was ever seen whole. But read the equation element by element. If $\xi$ and
    $\eta$ are two frequencies in the slice, the product of the residuals there has the mean

    $$\operatorname{E}\left[\hat r(\xi)\, \overline{\hat r(\eta)}\right]
    = C(\xi)\, C(\eta)\, \Sigma(\xi, \eta) + \sigma^2\, [\xi = \eta] .$$

    This is the **slice theorem of covariance**. Any two frequencies and the origin
    lie in one plane. So there is a view that shows them together, and $\Sigma$ can be
    found from images if views are everywhere.

    But how rarely are they seen. Let directions of view $n$ be spread evenly, and a slice
    be one Fourier pixel thick. It touches $\xi$ if $\lvert n \cdot \xi \rvert < 1/2$. Along
    any axis a random direction is spread evenly between $-1$ and 1 (Archimedes), so this
    happens with the probability $1 / (2 \lvert \xi \rvert)$. For two frequencies, $n$ must
    lie in two bands around the sphere, of widths $1/\lvert\xi\rvert$ and
    $1/\lvert\eta\rvert$, which cross at the angle $\theta$ twice. Each crossing has the
    area of a parallelogram; over the $4 \pi$ of the sphere

    $$p(\xi, \eta) = \frac{1}{2 \pi\, \lvert\xi\rvert\, \lvert\eta\rvert\, \sin\theta} .$$

    Look how far apart the curves are, and how they close at small angles.
    """)
    return


@app.function
def share_that_sees_one(radius):
    """Return the share of random slices, one pixel thick, through a frequency."""
    return np.minimum(1.0, 0.5 / np.asarray(radius, dtype=float))


@app.function
def share_that_sees_two(radius, other, angle_degrees):
    """Return the share through two frequencies with an angle between them."""
    sine = np.sin(np.radians(angle_degrees))
    both = 1.0 / (2.0 * np.pi * np.asarray(radius, dtype=float) * other * sine)
    return np.minimum(both, np.minimum(share_that_sees_one(radius), 0.5 / other))


@app.cell
def _():
    def coverage(thousands, angle_degrees):
        radius = np.arange(2.0, 41.0)
        one = 1000.0 * thousands * share_that_sees_one(radius)
        two = 1000.0 * thousands * share_that_sees_two(radius, radius, angle_degrees)
        at = int(np.flatnonzero(radius == 20.0)[0])
        return Plot(
            (
                Panel(
                    (
                        Line(radius, one, "one frequency (the map)"),
                        Line(radius, two, "two of them (its covariance)"),
                    ),
                    title="Images that see",
                    x="distance from the origin (Fourier pixels)",
                    y="images",
                    y_range=(0.5, 3e5),
                    log_y=True,
                ),
            ),
            says=f"At 20 Fourier pixels {one[at]:,.0f} images see one, {two[at]:,.0f} both.",
        )

    explore(
        coverage,
        thousands=Slider("images (thousands)", (3, 10, 30, 100, 300, 1000), 100),
        angle_degrees=Slider("angle between the two (degrees)", (2, 5, 10, 30, 90), 90),
    )
    return


@app.cell
def _():
    source(share_that_sees_one, share_that_sees_two)
    return


@app.cell
def _():
    mo.md(r"""
    ## A covariance from holes

    The estimate is what least squares says. Call $w_i(a)$ what image $i$ shows of
    coefficient $a$: its CTF where the slice passes, and 0 elsewhere. Each image gives an
    equation for each pair that it sees, $r_i(a)\, r_i(b) \approx w_i(a)\, w_i(b)\,
    \Sigma_{ab} + \sigma^2 [a = b]$. Least squares over all images divides sums:

    $$\Sigma_{ab} = \frac{\sum_i w_i(a)\, w_i(b) \left( r_i(a)\, r_i(b) -
    \sigma^2 [a = b] \right)}{\sum_i w_i(a)^2\, w_i(b)^2} .$$

    Below, 24 numbers vary in two ways. Every "image" shows some of them, at random, with
    noise. Let images show fewer: pairs become rare as the square of the share, and the
    estimate breaks up. Pairs that were never seen stay blank.
    """)
    return


@app.function
def covariance_from_holes(shown, values, noise_power):
    """Return the covariance by least squares, NaN for pairs that were never seen."""
    own = np.eye(shown.shape[1])
    weighted = shown * values
    above = weighted.T @ weighted - noise_power * own * (shown**2).sum(0)
    below = (shown**2).T @ (shown**2)
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), np.nan)


@app.function
def two_ways():
    """Return two ways in which 24 numbers vary, one a row."""
    place = np.arange(24)
    waved = np.sin(place * 2.0 * np.pi / 12.0) * (place >= 12)
    return np.stack([np.exp(-((place - 7.0) ** 2) / 18.0), waved])


@app.cell
def _():
    def holes(count, percent):
        rng, ways = np.random.default_rng(3), two_ways()
        truth, z = ways.T @ ways, rng.standard_normal((count, 2))
        shown = (rng.random((count, 24)) < percent / 100.0).astype(float)
        values = shown * (z @ ways) + 0.5 * rng.standard_normal((count, 24))
        found = covariance_from_holes(shown, values, 0.25)
        pairs = shown.T @ shown
        off, seen = ~np.eye(24, dtype=bool), np.isfinite(found)
        error = np.sqrt(np.mean((found - truth)[seen] ** 2) / np.mean(truth**2))
        true, estimate = (Heat(one, None, True, (-1.5, 1.5)) for one in (truth, found))
        number = Heat(np.log10(1.0 + pairs), limits=(0.0, 4.0))
        names = ("Truth", "Estimate", "Images that see a pair (log)")
        each = zip((true, estimate, number), names, strict=True)
        return Plot(
            tuple(Panel((heat,), title=name, equal=True) for heat, name in each),
            says=f"{pairs[off].mean():,.0f} images see a pair. Error: {100 * error:.0f} % "
            f"of the truth's size; {(~seen).sum()} of 576 elements were never seen.",
        )

    explore(
        holes,
        count=Slider("images", (30, 100, 300, 1000, 3000, 10000), 1000),
        percent=Slider("what an image shows (%)", (5, 10, 20, 50, 100), 20),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## It need not be written down

    A map of $128^3$ voxels has a covariance of $4 \times 10^{12}$ elements, of which few
    eigenvalues are large. One may estimate some hundred columns and the space that they
    span (RECOVAR), or write $\Sigma = U U^\mathsf{T}$ with a few unknown maps $U$ and find
    these directly, as this program does (*Principal components with noise*).

    ## What goes wrong in practice

    - *The first component looks like the map itself.* Images differ in contrast: thick
      ice dims the particle. It is no motion. Programs estimate the contrast of each image.
    - *Components look like bright and dark edges all over the molecule.* That is a
      derivative of the mean with respect to a turn, which wrong poses make.
    - *Components are noise, and fill the box.* Too few images. A mask lowers $d/n$.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "A set has 50,000 images, seen from everywhere. How many of them see two "
        "frequencies at 30 and 10 Fourier pixels with 90 degrees between them?",
        50_000 * share_that_sees_two(30.0, 10.0, 90.0),
        tolerance=2.0,
        unit="images",
        hint=r"$1 / (2 \pi \cdot 30 \cdot 10)$ of the images.",
        explanation="27. The frequency at 30 pixels by itself is seen by 833.",
    )
    return


@app.cell
def _():
    exercise(
        "1,600 images of 400 pixels hold noise of power 1. What is about the largest "
        "eigenvalue of their covariance?",
        noise_edge(1.0, 400, 1600),
        tolerance=0.02,
        hint=r"$(1 + \sqrt{d/n})^2$.",
        explanation="2.25, though no direction has more than 1.",
    )
    return


@app.cell
def _():
    choose(
        "All slices of a data set contain the z axis, and turn about it. Which pairs of "
        "frequencies are never seen together?",
        (
            "Those whose plane does not contain the z axis.",
            "Those that are farther apart than 90 degrees.",
            "None: every frequency is seen by some slice.",
        ),
        0,
        hint="Two frequencies and the origin span one plane. Which planes are there?",
        explanation="Every frequency is seen, so the map is complete. Most pairs are not.",
    )
    return


@app.function
def test_shares_are_those_of_random_planes():
    """Counts among 1e6 directions: tolerances are four standard errors."""
    normal = np.random.default_rng(0).standard_normal((1_000_000, 3))
    normal /= np.linalg.norm(normal, axis=1)[:, None]
    angle = np.radians(60.0)
    one = np.abs(normal[:, 0] * 8.0) < 0.5
    other = np.abs(normal[:, :2] @ (np.cos(angle), np.sin(angle))) * 10.0 < 0.5
    assert abs(one.mean() / share_that_sees_one(8.0) - 1.0) < 0.02
    assert abs((one & other).mean() / share_that_sees_two(8.0, 10.0, 60.0) - 1.0) < 0.09


@app.function
def test_covariances():
    """Of noise, of projections and of what is seen in part."""
    rng, ways = np.random.default_rng(0), two_ways()
    # The largest of 200 eigenvalues is within 3 % of the limit.
    values, _ = principal_components(rng.standard_normal((800, 200)))
    assert abs(values[0] / noise_edge(1.0, 200, 800) - 1.0) < 0.03
    # Maps are projected in space; the covariance is a slice, to rounding.
    maps = rng.standard_normal((5, 8, 8, 8))
    images = np.fft.fft2(maps.sum(2)).reshape(5, -1)
    whole = np.fft.fftn(maps, axes=(1, 2, 3))[:, :, 0, :].reshape(5, -1)
    assert np.allclose(images.T @ images.conj(), whole.T @ whole.conj(), atol=1e-8)
    # Errors are a few times 1 / sqrt(8,000 images that see a pair).
    shown = (rng.random((200_000, 24)) < 0.2) * rng.uniform(0.5, 1.0, (200_000, 24))
    seen = shown * (rng.standard_normal((200_000, 2)) @ ways)
    seen += 0.5 * rng.standard_normal(seen.shape)
    assert np.abs(covariance_from_holes(shown, seen, 0.25) - ways.T @ ways).max() < 0.1


@app.cell
def _():
    closing(
        "covariance",
        library=[
            "cryoinfer.reconstruction.coupled.CoupledSums",
            "cryoinfer heterogeneity",
        ],
        sources=[
            "E. Katsevich, A. Katsevich and A. Singer 2015, SIAM J. Imaging Sciences.",
            "M. A. Gilles and A. Singer 2025, RECOVAR, PNAS 122, e2419140122.",
            "V. A. Marchenko and L. A. Pastur 1967, Mathematics of the USSR-Sbornik.",
            "learn_cryoem_math (Woollard): the notebook on sample covariance.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
