import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch

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
    from cryoinfer.inference.hermite import HermiteFeatures


@app.cell
def _():
    opening("manifolds")
    return


@app.cell
def _():
    mo.md(r"""
    ## One number, many components

    A domain moves to and fro. One number says where it is. Yet a report of principal
    components shows three, five or ten of them, and the particles lie on a bent line in
    the scatter plot. Are there ten motions?

    Take the simplest motion: a blob of width $\sigma$ at the place $t$ of a line. Its map
    is $g(x - t)$. Think of every pixel as an axis, so that a map is one point of a space
    with many dimensions. As $t$ changes, the point draws a **latent curve**. All maps on
    it have the same sum of squares, so the curve lies on a sphere: it cannot be straight.
    For a small motion Taylor's series tells how it bends,

    $$g(x - t) = g(x) - t\, g'(x) + \tfrac12 t^2\, g''(x) - \dots$$

    The first component is the derivative $g'$, with the coordinate $t$. The second is
    made of $g''$, with the coordinate $t^2$: where the first is far from the middle, to
    either side, the second is large. Hence the horseshoe in the scatter plot. Let $t$ be
    spread evenly between $-a$ and $a$. Then $t$ has the variance $a^2/3$ and $t^2$ has
    $4 a^4 / 45$. For a Gaussian blob $\lVert g' \rVert^2 = \lVert g \rVert^2 / 2 \sigma^2$
    and $\lVert g'' \rVert^2 = 3 \lVert g \rVert^2 / 4 \sigma^4$, so that

    $$\frac{\lambda_2}{\lambda_1} = \frac{\tfrac14 \cdot \tfrac{4}{45} a^4 \cdot
    \tfrac{3}{4 \sigma^4}}{\tfrac13 a^2 \cdot \tfrac{1}{2 \sigma^2}}
    = \frac{1}{10} \left( \frac{a}{\sigma} \right)^2 .$$

    A motion by half the width of a detail to either side is one component to 97 %. A
    motion by three widths is not. Move the range of the motion and count. Then move the
    width: fine detail, at high resolution, makes more components of the same motion.
    """)
    return


@app.function
def blob_maps(places_px, width_px, pixels=64):
    """Return profiles of a Gaussian blob at places from the middle, one a row."""
    at = np.arange(pixels) - pixels / 2.0
    away = at - np.asarray(places_px, dtype=float)[:, None]
    return np.exp(-(away**2) / (2.0 * width_px**2))


@app.function
def components_of(maps):
    """Return mean, eigenvalues of the covariance, components as rows, coordinates."""
    mean = maps.mean(0)
    left, singular, rows = np.linalg.svd(maps - mean, full_matrices=False)
    return mean, singular**2 / len(maps), rows, left * singular


@app.function
def count_for(values, share):
    """Return how many of falling eigenvalues hold a share of their sum."""
    return int(np.searchsorted(np.cumsum(values) / values.sum(), share - 1e-12)) + 1


@app.cell
def _():
    def counted(range_px, width_px):
        places = np.linspace(-range_px, range_px, 201)
        _, values, _, z = components_of(blob_maps(places, width_px))
        number = np.arange(1, 13)
        share = 100.0 * values[:12] / values.sum()
        size = np.sqrt(np.sum(blob_maps([0.0], width_px) ** 2))
        bend = z[::4, :2] / size * np.sign(z[-1, :2] + 1e-12)
        wide = (-1.2, 1.2)
        return Plot(
            (
                Panel((Bars(number, share),), "Variance", "component", "share (%)"),
                Panel(
                    (Points(bend[:, 0], bend[:, 1]),),
                    "Maps, places equally spaced",
                    "first coordinate (sizes of the blob)",
                    "second coordinate",
                    wide,
                    wide,
                ),
            ),
            says=f"{count_for(values, 0.95)} components hold 95 % of the variance, "
            f"{count_for(values, 0.99)} hold 99 %. The ratio of the first two is "
            f"{values[1] / values[0]:.3f}; small motions: "
            f"{0.1 * (range_px / width_px) ** 2:.3f}.",
        )

    explore(
        counted,
        range_px=Slider("range ±a (pixels)", (0.5, 1, 2, 3, 4, 6, 8, 12, 16, 20), 6),
        width_px=Slider("width of the blob (pixels)", (1, 2, 3, 4), 2),
    )
    return


@app.cell
def _():
    mo.md(r"""
    How many can there be? Let the blob go once around a ring of length $L$, all places
    alike. Then the covariance depends on the difference of two pixels alone, its
    components are sines and cosines, and their variances are the power of the blob's
    transform, $e^{-4 \pi^2 \sigma^2 k^2 / L^2}$ at the $k$-th frequency, each twice. The
    number of components grows as $L / \sigma$, the way in units of the detail. In three
    dimensions it is the same: a domain that swings by 30 Å, seen at 5 Å, is not a matter
    of two components.

    ## What too few components show

    With few components the map between two ends is not a blob in the middle. It is a
    mixture of blobs: one fades while another appears, with negative ghosts beside them.
    Move the place with two components, and look whether the peak moves or jumps. Then
    add components. The straight line between the maps of the two ends is what a morph of
    densities shows: in the middle two half blobs, and nothing where the domain is.
    """)
    return


@app.cell
def _():
    _places = np.linspace(-8.0, 8.0, 201)
    _maps = blob_maps(_places, 2.0)
    _mean, _values, _rows, _ = components_of(_maps)

    def shown(place_px, kept):
        truth = blob_maps([place_px], 2.0)[0]
        rows = _rows[:kept]
        model = _mean + (truth - _mean) @ rows.T @ rows
        share = (place_px + 8.0) / 16.0
        morph = (1.0 - share) * _maps[0] + share * _maps[-1]
        at = np.arange(64) - 32.0
        marks = (
            Line(at, truth, "truth"),
            Line(at, model, f"{kept} components"),
            Line(at, morph, "morph between the ends", dashed=True),
        )
        error = np.sum((model - truth) ** 2) / np.sum(truth**2)
        return Plot(
            (Panel(marks, "", "place (pixels)", "density", (-20, 20), (-0.5, 1.2)),),
            says=f"The peak is at {at[model.argmax()]:.0f}, the truth at {place_px:.0f}; "
            f"{100 * error:.0f} % of the power of the map is wrong.",
        )

    explore(
        shown,
        place_px=Slider("true place (pixels)", range(-8, 9), 4),
        kept=Slider("components", (1, 2, 3, 4, 6, 8), 2),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Follow the curve instead

    The curve has one coordinate, whatever it bends through. So let the map be a function
    of few coordinates that need not be linear. One way is a **curved field**, maps
    that are polynomials of $z$,

    $$V(z) = \sum_r f_r(z)\, U_r ,$$

    with one volume $U_r$ for each Hermite polynomial $f_r$. It has as many volumes as a
    subspace of the same size, but a particle has one coordinate and not $r$ of them:
    places off the curve, where there are no molecules, are not in the model, and what an
    image says of $z$ is not spread over coordinates that belong together. Neural networks
    are another such function (*Neural fields*), displacements of atoms a third (*Elastic
    networks*), and walking from neighbour to neighbour a fourth, which needs no model of
    the curve at all.

    Below, a hinge of two arms opens. A field of the chosen degree shows a conformation,
    beside the truth. On the right are all images in two principal coordinates; the line
    is the field's curve. Degree 1 is a straight line: one component. Which degree does
    the range need?
    """)
    return


@app.function
def hinge(angles_degrees):
    """Return images of 24 x 24 pixels, one a row: the second arm is at an angle."""
    axis = np.arange(24.0) - 12.0
    x, y = axis[None, None, :], axis[None, :, None]
    turn = np.radians(np.asarray(angles_degrees, dtype=float))[:, None, None]
    images = np.zeros((len(turn), 24, 24))
    for along in (0.0, 3.0, 6.0, 9.0):
        images += np.exp(-((x + along) ** 2 + y**2) / 4.5)
        right, down = along * np.cos(turn), along * np.sin(turn)
        images += np.exp(-((x - right) ** 2 + (y - down) ** 2) / 4.5)
    return images.reshape(len(turn), -1)


@app.function
def curved_field(z, maps, degree):
    """Return the features of z, and the volumes of the field of least squares."""
    features = HermiteFeatures(1, degree)
    values = features.values(torch.from_numpy(np.asarray(z)[:, None])).numpy()
    return values, np.linalg.lstsq(values, maps, rcond=None)[0]


@app.cell
def _():
    def opened(range_degrees, degree, place):
        angle = np.linspace(-range_degrees, range_degrees, 121)
        maps = hinge(angle)
        # Of unit variance, as z is.
        values, volumes = curved_field(angle / angle.std(), maps, degree)
        field = values @ volumes
        mean, own, rows, z = components_of(maps)
        curve = (field - mean) @ rows.T
        at = round(60 + 60 * place)
        error = np.sum((field - maps) ** 2) / np.sum((maps - mean) ** 2)
        dots = Points(z[::5, 0], z[::5, 1], "images")
        line = Line(curve[:, 0], curve[:, 1], "field")
        now = Points(curve[[at], 0], curve[[at], 1], "shown")
        picture = Heat(field[at].reshape(24, 24), limits=(-0.3, 1.5))
        truth = Heat(maps[at].reshape(24, 24), limits=(-0.3, 1.5))
        return Plot(
            (
                Panel((picture,), "Field", equal=True),
                Panel((truth,), "Truth", equal=True),
                Panel((dots, line, now), "Coordinates", "first", "second"),
            ),
            says=f"One coordinate and {degree + 1} volumes leave {100 * error:.1f} % of the "
            f"variance; {degree} principal components and as many coordinates leave "
            f"{100 * (1 - own[:degree].sum() / own.sum()):.1f} %.",
        )

    explore(
        opened,
        range_degrees=Slider("range ± (degrees)", (10, 20, 40, 60), 40),
        degree=Slider("degree", (1, 2, 3, 4, 6), 2),
        place=Slider("place along the curve", (-1, -0.5, 0, 0.5, 1), 0.5),
    )
    return


@app.cell
def _():
    source(components_of, curved_field)
    return


@app.cell
def _():
    mo.md(r"""
    ## Shapes that mean nothing

    A curve says in which order maps follow each other. It does not say how far apart
    they are, for its coordinate may be stretched anywhere. Look again at the first figure
    with a wide range: the places are equally spaced, and yet the points of the first
    coordinate crowd at its ends. Two heaps of points need not be two states.
    """)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"Component 2 opens and closes at the same time."* It is the bend of component 1:
      the same motion, to second order. Look whether its coordinate is a parabola of
      the first.
    - *The movie along a component fades instead of moving.* Too large a motion for a
      straight line. Take maps along the curve, or of neighbours (*Maps of the
      neighbours*).
    - *Whole particles seem to shift or turn.* Wrong poses are a rigid motion of all, and
      make components as any other motion does: six of them to first order.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        r"A blob of width $\sigma$ = 4 Å moves evenly within ±2 Å. What is, to lowest "
        "order, the ratio of its second eigenvalue to the first?",
        0.1 * (2.0 / 4.0) ** 2,
        tolerance=0.001,
        hint=r"$\frac{1}{10} (a / \sigma)^2$.",
        explanation="0.025: nearly one component.",
    )
    return


@app.cell
def _():
    exercise(
        "How many components hold 95 % of the variance of a blob of width 2 pixels that moves "
        "within ±12 pixels? The first figure tells.",
        count_for(components_of(blob_maps(np.linspace(-12, 12, 201), 2.0))[1], 0.95),
        tolerance=0.5,
        hint="Set both sliders and read the line below the figure.",
        explanation="One motion, and as many components as it is wide in blobs.",
    )
    return


@app.cell
def _():
    choose(
        "The same motion is analysed to twice the resolution. What becomes of the number of "
        "components that hold 95 % of the variance, if it was large?",
        ("It stays: the motion is the same.", "It about doubles.", "It becomes one."),
        1,
        hint=r"What is $L / \sigma$ when $\sigma$ is halved?",
        explanation="The number is the way in units of the finest detail.",
    )
    return


@app.function
def test_small_motions():
    """The ratio of Taylor's series; its next order is a few (a / width)^2 of it."""
    _, values, _, _ = components_of(blob_maps(np.linspace(-0.5, 0.5, 4001), 3.0))
    assert abs(values[1] / values[0] / (0.1 * (0.5 / 3.0) ** 2) - 1.0) < 0.03


@app.function
def test_ring_has_sines_and_cosines():
    """Eigenvalues are pairs of the transform's power (to rounding), and so is the count."""
    at = (np.arange(64) + 32.0) % 64 - 32.0
    blob = np.exp(-(at**2) / 18.0)
    _, values, _, _ = components_of(np.stack([np.roll(blob, k) for k in range(64)]))
    power = np.exp(-4.0 * np.pi**2 * 9.0 * np.arange(1, 31) ** 2 / 64.0**2)
    pairs = values[:10].reshape(5, 2)
    assert np.allclose(pairs[:, 0], pairs[:, 1], rtol=1e-9)
    assert np.allclose(pairs[:, 0] / pairs[0, 0], power[:5] / power[0], rtol=1e-6)
    assert count_for(values, 0.95) == count_for(np.repeat(power, 2), 0.95)


@app.function
def test_curves_need_their_degree():
    """A parabola of z is exact in degree 2 (rounding), and is not in degree 1."""
    z = np.linspace(-2.0, 2.0, 41)
    maps = z[:, None] * [1.0, 0.0] + z[:, None] ** 2 * [0.0, 1.0]
    left = []
    for degree in (1, 2):
        values, volumes = curved_field(z, maps, degree)
        left.append(np.abs(values @ volumes - maps).max())
    assert left[1] < 1e-12 < 0.1 < left[0]


@app.cell
def _():
    closing(
        "manifolds",
        library=["cryoinfer.results.field.Field", "cryoinfer heterogeneity"],
        sources=[
            "P. Schwander, R. Fung and A. Ourmazd 2014, Conformations of macromolecules and "
            "their energetics from heterogeneous datasets, Phil. Trans. R. Soc. B 369.",
            "learn_cryoem_math (Woollard): the notebook on curves in latent space.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
