import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np

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
    opening("auto_decoder")
    return


@app.cell
def _():
    mo.md(r"""
    ## A row of numbers for every image

    An encoder guesses $z$ from the image. One can do without: keep a table with a row $z_i$
    for each image, and let the rows be unknowns as the weights of the decoder are. All are
    moved down the slope of one sum,

    $$\sum_i \left( \frac{1}{2 \sigma^2} \left\lVert y_i - C_i P_i V(z_i) \right\rVert^2 +
    \tfrac12 \lVert z_i \rVert^2 \right) .$$

    This is an **auto-decoder**. DRGN-AI and 3DFlex work so. Nothing stands between an image and
    its coordinates: no network that is too coarse to tell two images apart, or that has
    not learned a rare one. In return each row is learned only when its image is looked at,
    a new image has no row and must be searched for, and rows can fit noise.

    ## What free numbers take

    How much noise? Let the decoder be known and linear, with $q$ independent columns, and
    the image be of $d$ numbers. Least squares takes out of the image its part along the
    columns. Noise has the power $\sigma^2$ along each of $d$ directions, and loses it in
    $q$ of them: what is left has the mean power

    $$\sigma^2 \left(1 - \frac{q}{d}\right)$$

    however many images there are (Neyman and Scott). Each image brings its own unknowns, so
    that more images do not help. And the coordinates scatter by more than the particles do,
    by the noise in them. For an image of $d = 5{,}000$ coefficients and $q = 8$ this is
    little. At a low resolution $d$ is some hundred, and if poses, shifts and defocus are
    free as well it counts. A posterior, or a prior at least, is the cure.
    """)
    return


@app.function
def free_rows(count, pixels, rows, noise, seed):
    """Return residual power, true z and found z of images with free coordinates."""
    rng = np.random.default_rng(seed)
    columns = np.linalg.qr(rng.standard_normal((pixels, rows)))[0]
    z = rng.standard_normal((count, rows))
    images = z @ columns.T + noise * rng.standard_normal((count, pixels))
    found = images @ columns
    return float(np.mean((images - found @ columns.T) ** 2)), z, found


@app.cell
def _():
    def taken(rows, pixels, noise):
        several = np.arange(1, 17)
        law = noise**2 * (1.0 - several / pixels)
        left, z, found = free_rows(400, pixels, rows, noise, seed=0)
        power = (
            Line(several, law / noise**2, "formula"),
            Points([rows], [left / noise**2], "measured"),
        )
        dots = (Points(z[:, 0], found[:, 0]), Line([-3, 3], [-3, 3], dashed=True))
        high, unit = (0.0, 1.1), "share of the noise's power"
        return Plot(
            (
                Panel(power, "What is left", "free numbers an image", unit, None, high),
                Panel(dots, "Coordinates", "true z", "found z", (-4, 4), (-6, 6)),
            ),
            says=f"{100 * left / noise**2:.0f} % of the noise's power is left over. The "
            f"variance of z is {found.var():.2f}; true is 1.",
        )

    explore(
        taken,
        rows=Slider("free numbers an image", (1, 2, 4, 8, 16), 4),
        pixels=Slider("numbers an image has", (20, 50, 200), 20),
        noise=Slider("noise (standard deviation)", (0.3, 1, 2), 1),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## A row must find its place

    A row follows the slope. Is there one? Let the decoder move a blob of width $w$, from its
    place at $t$ to a place at $z$. The squared difference of two Gaussians is, in units of the
    blob's power,

    $$2 \left( 1 - e^{-(z - t)^2 / 4 w^2} \right) .$$

    Near the truth it is a bowl. It is curved upwards as far as $\lvert z - t \rvert =
    \sqrt 2\, w$; beyond, it levels off, and a row that starts there hardly moves. With many
    blobs there are bowls around wrong places as well. This is why auto-decoders search a
    grid first, or march: compare coarse images before fine ones. A low-pass filter
    makes blobs wide, and bowls too. Below the molecule has two blobs, and the image shows
    it moved. A row starts at 0 and walks downhill. Move the truth away until it is
    lost; then raise the blur.
    """)
    return


@app.function
def two_blobs(places_angstrom, moved_angstrom, blur_angstrom):
    """Return a profile of two blobs of 1.5 and 2 angstrom that is moved, and its slope."""
    value, slope = 0.0, 0.0
    for at, width in ((-8.0, 1.5), (0.0, 2.0)):
        wide = width**2 + blur_angstrom**2
        away = np.asarray(places_angstrom) - at - moved_angstrom
        bell = width / np.sqrt(wide) * np.exp(-(away**2) / (2.0 * wide))
        value, slope = value + bell, slope + bell * away / wide
    return value, slope


@app.function
def walk(true_angstrom, blur_angstrom, start_angstrom=0.0, steps=400):
    """Return where z comes from a start, by steps of 0.05 angstrom at most."""
    places = np.arange(-40.0, 40.0, 0.5)
    image, _ = two_blobs(places, true_angstrom, blur_angstrom)
    z = start_angstrom
    for _ in range(steps):
        model, slope = two_blobs(places, z, blur_angstrom)
        z += np.clip(np.sum((image - model) * slope) / np.sum(slope**2), -0.05, 0.05)
    return z


@app.cell
def _():
    _blurs = (0, 2, 4, 8)
    _ends = {(t, b): walk(t, b) for t in range(0, 15, 2) for b in _blurs}

    def landscape(true_angstrom, blur_angstrom):
        places, z = np.arange(-40.0, 40.0, 0.5), np.linspace(-16.0, 18.0, 137)
        image, _ = two_blobs(places, true_angstrom, blur_angstrom)
        each = np.array([two_blobs(places, one, blur_angstrom)[0] for one in z])
        loss = np.sum((each - image) ** 2, axis=1) / np.sum(image**2)
        end = _ends[true_angstrom, blur_angstrom]
        at_end = np.interp([0.0, end], z, loss)
        marks = (
            Line(z, loss, "loss"),
            Points([0.0], at_end[:1], "start"),
            Points([end], at_end[1:], "end"),
        )
        model, _ = two_blobs(places, end, blur_angstrom)
        curves = Line(places, image, "image"), Line(places, model, "decoded")
        wide = (-24.0, 24.0)
        return Plot(
            (
                Panel(marks, "Loss", "z (Å)", "share of the power", None, (0.0, 2.2)),
                Panel(curves, "Image", "place (Å)", "density", wide, (0.0, 1.2)),
            ),
            says=f"From 0 the row comes to {end:.1f} Å; the truth is {true_angstrom} Å.",
        )

    explore(
        landscape,
        true_angstrom=Slider("true z (Å)", range(0, 15, 2), 6),
        blur_angstrom=Slider("blur (Å)", _blurs, 0),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## A decoder that moves matter

    What should the decoder be? A sum of volumes fades one thing in and another out. Molecules
    do not: their parts stay and move. A **deformation** decoder has one map and a field of
    displacements $u$ that depends on $z$,

    $$V(x; z) = V_0\left( x - u(x, z) \right) .$$

    One coordinate then moves a domain as far as it likes, all particles add to the detail
    of the one map $V_0$, and the number of components of *Curves in the space of maps* does
    not come up. What it cannot do is make a part appear. (And if matter is squeezed, density
    must rise, by the factor $1 - u'$, which this formula leaves out. Atoms that move need
    no such care.)

    But images say where density comes to, and say nothing of the displacement where there is
    none, or where it is even. Something must be added: that near places move alike. In one
    dimension ask for the least

    $$\frac{1}{2 \sigma^2} \sum_x \left( y(x) - V_0(x - u(x)) \right)^2 +
    \frac{\rho}{2} \sum_x \left( u(x + 1) - u(x) \right)^2 .$$

    Between two domains the first sum is silent, and the second is least for a straight line:
    the field there is an assumption. Below the left of two domains stays and the right one
    moves. Raise the stiffness $\rho$: at first noise and wrong matches go out of the field,
    and in the end both domains move as one.
    """)
    return


@app.function
def two_parts(places_angstrom):
    """Return the density of two domains, and its slope."""
    value, slope = 0.0, 0.0
    for at in (-15.0, -10.0, 10.0, 15.0):
        away = np.asarray(places_angstrom) - at
        bell = np.exp(-(away**2) / 8.0)
        value, slope = value + bell, slope - bell * away / 4.0
    return value, slope


@app.function
def flow(image, noise, stiffness, steps=60):
    """Return the field of displacements at -30, -29 .. 30 angstrom, by Gauss and Newton."""
    places = np.arange(-30.0, 31.0)
    apart = np.diff(np.eye(61), axis=0)
    rigid = stiffness * apart.T @ apart
    u = np.zeros(61)
    for _ in range(steps):
        model, slope = two_parts(places - u)
        down = slope * (model - image) / noise**2 - rigid @ u
        curved = np.diag(slope**2 / noise**2) + rigid + 1e-6 * np.eye(61)
        u = u + np.clip(np.linalg.solve(curved, down), -0.5, 0.5)
    return u


@app.cell
def _():
    source(flow)
    return


@app.cell
def _():
    def fields(power, moved, noise):
        places = np.arange(-30.0, 31.0)
        right = places > 0.0
        truth = np.where(right, moved, 0.0)
        clean = two_parts(places - truth)[0]
        image = clean + noise * np.random.default_rng(0).standard_normal(61)
        u = flow(image, noise, 10.0**power)
        found = (
            Line(places[:26], truth[:26], "truth"),
            Line(places[35:], truth[35:]),
            Line(places, u, "found"),
        )
        model = two_parts(places - u)[0]
        curves = (
            Points(places, image, "image"),
            Line(places, model, "deformed map"),
            Line(places, two_parts(places)[0], "map", dashed=True),
        )
        heavy = two_parts(places - truth)[0] > 0.3
        error = np.sqrt(np.mean((u - truth)[heavy] ** 2))
        return Plot(
            (
                Panel(found, "Displacement", "place (Å)", "Å", None, (-4.0, 8.0)),
                Panel(curves, "Density", "place (Å)", "", None, (-0.5, 1.8)),
            ),
            says=f"Error of the displacement, root mean square where there is density: "
            f"{error:.2f} Å.",
        )

    explore(
        fields,
        power=Slider("stiffness (power of ten, 1/Å²)", (-2, -1, 0, 1, 2, 3, 4, 5), 1),
        moved=Slider("right domain moves by (Å)", (0, 1, 2, 3, 4), 3),
        noise=Slider("noise (standard deviation)", (0.05, 0.1, 0.2), 0.1),
    )
    return


@app.cell
def _():
    mo.md(r"""
    3DFlex lays a mesh of tetrahedra over the molecule and asks each to keep its shape. An
    elastic network is the same thought with springs. This program moves atoms or
    beads along modes, and learns from all images what the modes should have been.

    ## What goes wrong in practice

    - *The map of a flexible run sharpens where nothing moves.* A flexible field also fits
      noise, and the half-sets agree on it if they share the field. Each half needs its own.
    - *After training a rare state is missing.* Its rows are in a wrong bowl. Search anew
      with the final decoder.
    - *A domain that is absent in some particles moves into the solvent.* A deformation can
      only move. Sort by classes first.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "At a low resolution an image has 64 coefficients; 8 numbers of it are free. Noise has "
        "the power 1. Which power has what is left after the fit?",
        1.0 - 8.0 / 64.0,
        tolerance=0.005,
        hint=r"$\sigma^2 (1 - q/d)$.",
        explanation="0.875. Who takes that for the noise thinks too well of the data.",
    )
    return


@app.cell
def _():
    exercise(
        "A blob has the width 4 Å. From how far away does the loss still curve upwards?",
        np.sqrt(2.0) * 4.0,
        tolerance=0.05,
        unit="Å",
        hint=r"$\sqrt 2\, w$.",
        explanation="5.7 Å. Blurred to 8 Å it is 11.3 Å.",
    )
    return


@app.cell
def _():
    choose(
        "A model has been trained. Tomorrow 10,000 new images come. Which can give their "
        "coordinates at once?",
        ("The auto-decoder.", "The encoder of a VAE.", "Both."),
        1,
        hint="Where are the coordinates of an image that nobody has seen?",
        explanation="The table has no row for it; one has to be searched for.",
    )
    return


@app.function
def test_free_numbers_take_noise():
    """Neyman and Scott: 1 - q/d, to 0.02, three standard errors of 2,000 images."""
    left, _, found = free_rows(2000, 20, 4, 1.0, seed=1)
    assert abs(left - 0.8) < 0.02
    assert abs(found.var() - 2.0) < 0.1


@app.function
def test_bowl_ends_at_its_formula():
    """The loss of a single blob by sums (1e-6), and where its curvature changes sign."""
    x, z = np.arange(-60.0, 60.0, 0.1), np.linspace(0.0, 12.0, 1201)
    blob = np.exp(-(x**2) / (2.0 * 3.0**2))
    moved = np.exp(-((x - z[:, None]) ** 2) / (2.0 * 3.0**2))
    loss = np.sum((moved - blob) ** 2, axis=1) / np.sum(blob**2)
    assert np.allclose(loss, 2.0 * (1.0 - np.exp(-(z**2) / 36.0)), atol=1e-6)
    turn = z[1:-1][np.diff(loss, 2) < 0][0]
    assert abs(turn - np.sqrt(2.0) * 3.0) < 0.02


@app.function
def test_field_is_straight_in_the_gap():
    """Where there is no density u is a line, to 2 % of the motion; domains are found."""
    places = np.arange(-30.0, 31.0)
    image = two_parts(places - np.where(places > 0, 3.0, 0.0))[0]
    u = flow(image, 0.1, 3.0)
    gap = slice(28, 36)
    line = np.polyval(np.polyfit(places[gap], u[gap], 1), places[gap])
    assert np.abs(u[gap] - line).max() < 0.06
    assert abs(u[15:21].mean()) < 0.1
    assert abs(u[43:48].mean() - 3.0) < 0.1


@app.cell
def _():
    closing(
        "auto_decoder",
        library=["cryoinfer.inference.learned_motion.Fields", "cryoinfer dynamics"],
        sources=[
            "J. Neyman and E. L. Scott 1948, Econometrica 16, 1.",
            "A. Punjani and D. J. Fleet 2023, 3DFlex, Nature Methods 20, 860.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
