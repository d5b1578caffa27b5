import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch

    from course import (
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
    from cryoinfer.data.simulated_acquisition import draw_poses


@app.cell
def _():
    opening("missing_views")
    return


@app.cell
def _():
    mo.md(r"""
    ## Who sees a frequency?

    Proteins do not float in all directions. They stick to the surface of the water with one side and show the same face
    again and again: **preferred orientation**. What does it cost?

    An image seen along the direction $n$ is the plane of frequencies at a right angle to $n$. So a frequency in the
    direction $u$ is seen by the views with $n \cdot u = 0$: by a great circle of views, all those that look at it from
    the side. Let views be even within a cone of half-angle $\alpha$ about the axis z, with their opposites, which are the
    same slices. The points of the circle around $u$ reach the height $\sin\theta \cos\varphi$ above the equator, with
    $\theta$ the angle between $u$ and z and $\varphi$ running around. They lie in the cone, or in its opposite, where the
    size of this is more than $\cos\alpha$. The two have the share $1 - \cos\alpha$ of all directions, so, relative to
    even views, the frequency has the weight

    $$w(\theta) = \frac{1}{1 - \cos\alpha}\, \frac{2}{\pi}
    \arccos\frac{\cos\alpha}{\sin\theta} ,$$

    and none where $\sin\theta < \cos\alpha$. Frequencies near the axis are never seen: a **missing cone** of half-angle
    $90^\circ - \alpha$. It is not a matter of patience. Of all directions $u$ it takes the share
    $1 - \cos(90^\circ - \alpha) = 1 - \sin\alpha$: a half at $\alpha = 30^\circ$.

    Two remedies are in the figure. A few particles that lie otherwise give each frequency a little. And the stage can be
    tilted: the same faces are then seen from the side, at the angle of the tilt, turned by any angle about z. Look at the
    weight near 0 degrees, which is the axis. The noise's power falls as one over the weight: the line below says how many
    times more particles are needed for the same average noise.
    """)
    return


@app.function
def cone_weight(theta, alpha):
    """Return the weight of a frequency at theta, of views within alpha of z (radian)."""
    ratio = np.minimum(1.0, np.cos(alpha) / np.maximum(np.sin(theta), 1e-9))
    return 2.0 / np.pi * np.arccos(ratio) / (1.0 - np.cos(alpha))


@app.function
def tilted_weight(alpha, tilt, edges):
    """Return the weight between angles to z, of the views of a cone on a tilted stage."""
    steps, turns = (np.arange(200) + 0.5) / 200, (np.arange(24) + 0.5) / 24
    height = 1.0 - (1.0 - np.cos(alpha)) * steps[:, None]
    across = np.sqrt(1.0 - height**2) * np.cos(2.0 * np.pi * turns)
    view = np.abs(height * np.cos(tilt) + across * np.sin(tilt)).ravel()
    # Along the circle of a view cos(theta) is the sine of the view's angle times a cosine.
    sine = np.sqrt(np.maximum(1e-12, 1.0 - view**2))[:, None]
    below = 2.0 / np.pi * np.arcsin(np.minimum(1.0, np.cos(edges) / sine))
    return np.diff(below.mean(0)) / np.diff(np.cos(edges))


@app.cell
def _():
    _edges = np.radians(np.arange(0.0, 91.0, 3.0))
    _theta = (_edges[1:] + _edges[:-1]) / 2.0

    def weights(alpha_degrees, tilt_degrees, others):
        cone = tilted_weight(*np.radians([alpha_degrees, tilt_degrees]), _edges)
        found = (1.0 - others / 100.0) * cone + others / 100.0
        missing = 100.0 * -np.diff(np.cos(_edges))[found < 1e-9].sum()
        lines = (
            Line(np.degrees(_theta), found, "these views"),
            Line(np.degrees(_theta), 1.0 + 0.0 * _theta, "even views", dashed=True),
        )
        if missing > 0.5:
            says = f"{missing:.0f} % of all frequencies are never seen."
        else:
            more = np.sum(-np.diff(np.cos(_edges)) / np.maximum(found, 1e-3))
            says = f"Every frequency is seen; {more:.2g} times as many particles are "
            says += "needed for the average noise of even views."
        title, x = "Who is seen how often", "angle of the frequency to the axis (°)"
        return Plot((Panel(lines, title, x, "weight", y_range=(0.0, 8.0)),), says)

    explore(
        weights,
        alpha_degrees=Slider(
            "half-angle of the cone (°)", (10, 20, 30, 45, 60, 90), 20
        ),
        tilt_degrees=Slider("tilt of the stage (°)", (0, 15, 30, 45, 60), 0),
        others=Slider("particles that lie anyhow (%)", (0, 2, 10, 30), 0),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What a hole in Fourier space does to a map

    **Tomography** has a hole for another reason. One object is tilted about the axis y, and at more than about 60 degrees
    the ice becomes too thick to look through. All slices hold the axis y. With tilts up to $\pm\alpha$ they sweep out what
    lies, in the angle about y, within $\alpha$ of the untilted image, and a **missing wedge** of the share
    $1 - \alpha/90^\circ$ is left: a third at 60 degrees.

    Zeros in Fourier space are a convolution in real space, with the transform of the region that is known: the **point
    spread function**. Near its middle it is a parabola, and the curvature along x is $4\pi^2$ times the sum of $k_x^2$
    over all known frequencies. So its extents along z and x are as

    $$e = \sqrt{\frac{\langle k_x^2\rangle}{\langle k_z^2\rangle}} .$$

    For the wedge, with $k_x = k\cos t$ and $k_z = k \sin t$, integrate over $t$ from $-\alpha$ to $\alpha$ (in radian):

    $$e = \sqrt{\frac{\alpha + \sin\alpha\cos\alpha}{\alpha - \sin\alpha\cos\alpha}} .$$

    For the cone put $c = k_z / k$, which is even over a sphere. It runs from $-\sin\alpha$ to $\sin\alpha$, with
    $k_z^2 = k^2 c^2$ and, on average around z, $k_x^2 = k^2 (1 - c^2) / 2$:

    $$e = \sqrt{\frac{3 - \sin^2\alpha}{2 \sin^2\alpha}} .$$

    This **elongation** is 1.55 for a wedge at 60 degrees and 1.22 for a cone of the same angle. The figure cuts both out
    of the transform of a hollow ball with a bar and a plate in it, which is seen whole at 90 degrees. Go down from there.
    What is flat and lies across z disappears: its transform is a rod along z, in the middle of the hole.
    """)
    return


@app.function
def elongation(alpha, kind):
    """Return the extent along z over that along x, alpha in radian."""
    s, c = np.sin(alpha), np.cos(alpha)
    if kind == "wedge":
        return np.sqrt((alpha + s * c) / (alpha - s * c))
    return np.sqrt((3.0 - s**2) / (2.0 * s**2))


@app.function
def known_frequencies(box, alpha, kind):
    """Return which frequencies (z, y, x) are seen, as np.fft orders them."""
    k = np.fft.fftfreq(box)
    across = np.abs(k) if kind == "wedge" else np.hypot(k[:, None], k)
    across = np.broadcast_to(across, (box, box))
    return np.abs(k)[:, None, None] * np.cos(alpha) <= across * np.sin(alpha) + 1e-9


@app.function
def ball():
    """Return a hollow ball of 40 voxels (z, y, x) with a bar and a plate in it."""
    axis = np.arange(40.0) - 20.0
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    shell = np.abs(radius - 13.0) < 1.5
    bar = (np.abs(x + 4.0) < 1.5) & (np.abs(y) < 1.5) & (np.abs(z) < 7.0)
    plate = (np.abs(x - 4.0) < 4.5) & (np.abs(y) < 6.0) & (np.abs(z) < 1.5)
    k = np.fft.fftfreq(40)
    smooth = np.exp(-30.0 * (k[:, None, None] ** 2 + k[:, None] ** 2 + k**2))
    return np.fft.ifftn(np.fft.fftn(1.0 * (shell | bar | plate)) * smooth).real, smooth


@app.cell
def _():
    _map, _smooth = ball()

    def holes(alpha_degrees, kind):
        alpha = np.radians(alpha_degrees)
        known = known_frequencies(40, alpha, kind)
        found = np.fft.ifftn(np.fft.fftn(_map) * known).real[:, 20]
        spread = np.fft.fftshift(np.fft.ifftn(known * _smooth).real)[:, 20]
        place, most = np.arange(-12, 13), spread.max()
        lines = (
            Line(place, spread[20, 8:33] / most, "along x"),
            Line(place, spread[8:33, 20] / most, "along z"),
        )
        edges = (-20.5, 19.5, -20.5, 19.5)
        region = np.fft.fftshift(1.0 * known[:, 0])[::-1]
        after = Heat(found[::-1], edges, limits=(-0.3, 1.0))
        x, z, kx, kz = "x (px)", "z (px)", "kx (1 / box)", "kz (1 / box)"
        return Plot(
            (
                Panel((Heat(region, edges),), "Known (white)", kx, kz, equal=True),
                Panel((after,), "What is left, y = 0", x, z, equal=True),
                Panel(lines, "Spread of a point", "place (px)", "height"),
            ),
            f"A {kind} with views up to {alpha_degrees}°: "
            f"{100 * (1 - known.mean()):.0f} % of the frequencies in the cube are missing, "
            f"the elongation is {elongation(alpha, kind):.2f}.",
        )

    explore(
        holes,
        alpha_degrees=Slider("views up to (°)", (15, 30, 45, 60, 70, 80, 90), 45),
        kind=Choice("kind", ("cone", "wedge"), "wedge"),
    )
    return


@app.cell
def _():
    source(cone_weight, elongation, known_frequencies)
    return


@app.cell
def _():
    mo.md(r"""
    ## Gaps between tilts

    A tilt series has a second kind of hole: it takes steps. At the radius $k$ neighbouring slices are $k\,\Delta$ apart,
    with the step $\Delta$ in radian. An object of thickness $D$ lets no gap be seen while that is less than $1/D$, so to
    the resolution $d = D\,\Delta$, Crowther's criterion in other words. Coarse steps make rays; a short range makes a
    smear along z. Both are in the figure, a section at a right angle to the tilt axis. More steps at the same total dose
    are noisier each, and their sum is not.
    """)
    return


@app.cell
def _():
    _axis = np.arange(64.0) - 32.0
    _x, _z = np.meshgrid(_axis, _axis)
    _object = 1.0 * (np.abs(np.hypot(_x, _z) - 15) < 1.6)
    for _place in ((-6, 4), (5, 6), (2, -7)):
        _object += np.hypot(_x - _place[0], _z - _place[1]) < 2.5
    _k = np.fft.fftfreq(64) * 64
    _kz, _kx = np.meshgrid(_k, _k, indexing="ij")

    def series(range_degrees, step_degrees):
        tilts = np.radians(np.arange(-range_degrees, range_degrees + 0.1, step_degrees))
        known = np.zeros((64, 64), dtype=bool)
        for tilt in tilts:
            # A slice tells a band of half-width 1 / 2D, for D = 40 px.
            known |= np.abs(_kz * np.cos(tilt) - _kx * np.sin(tilt)) <= 0.5 * 64 / 40
        found = np.fft.ifft2(np.fft.fft2(_object) * known).real
        edges = (-32.5, 31.5, -32.5, 31.5)
        region = Heat(np.fft.fftshift(1.0 * known)[::-1], edges)
        section = Heat(found[::-1], edges, limits=(-0.3, 1.1))
        limit = 40.0 * np.radians(step_degrees)
        return Plot(
            (
                Panel((region,), "Known", "kx (1 / box)", "kz (1 / box)", equal=True),
                Panel((section,), "Section", "x (px)", "z (px)", equal=True),
            ),
            f"{len(tilts)} images. Steps of {step_degrees}° fill the plane to {limit:.1f} px for an object of 40 px.",
        )

    explore(
        series,
        range_degrees=Slider("tilts up to (°)", (30, 45, 60, 75, 90), 60),
        step_degrees=Slider("step (°)", (1, 3, 5, 10, 15), 3),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *The FSC says 3.5 Å, and from the side the map looks like pulled toffee.* The FSC averages over a shell of
      frequencies, and where nothing was seen both halves have nothing. Look at the FSC in cones, or at the weights.
    - *Membranes that lie flat are missing in the tomogram, those that stand are sharp.* The transform of a flat membrane
      is a rod along z: it lies in the wedge.
    - *After tilting the stage the map is complete and no sharper.* The holes are filled, but the tilted ice is thicker,
      the defocus varies over the image, and beam-induced motion has a part across the image.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "All particles lie with one axis exactly along the beam, turned about it by any angle. "
        "The stage is tilted by 45 degrees. Which share of the frequencies is never seen?",
        1.0 - np.sin(np.radians(45.0)),
        tolerance=0.01,
        hint="In the frame of the particle views lie on a cone of 45 degrees about the axis. "
        "How near to the axis does a plane at a right angle to such a view come?",
        explanation="To 45 degrees: the cone that is left has the share 1 - sin 45° = 0.29.",
    )
    return


@app.cell
def _():
    exercise(
        "By which factor is a tomogram elongated along z with tilts up to 45 degrees?",
        elongation(np.radians(45.0), "wedge"),
        tolerance=0.03,
        hint="45 degrees are 0.785, and sine times cosine is 0.5.",
        explanation="The root of 1.285 / 0.285 is 2.12.",
    )
    return


@app.cell
def _():
    choose(
        "Half of the particles show one face, the others any. What is missing?",
        ("a cone", "nothing: some frequencies are noisier", "every second frequency"),
        1,
        hint="First figure, at 30 % of particles that lie anyhow.",
        explanation="The weight on the axis is 1/2 instead of 1: noisier by the root of 2, and never zero.",
    )
    return


@app.function
def test_known_numbers():
    # Radermacher (1988): 1.55 for tilts to 60 degrees; no elongation without a hole.
    assert abs(elongation(np.pi / 3.0, "wedge") - 1.55) < 0.005
    for kind in ("wedge", "cone"):
        assert abs(elongation(np.pi / 2.0, kind) - 1.0) < 1e-12
        # Second moments of the known frequencies in a ball of radius 0.3, 80 voxels: the
        # rim of the hole is a voxel wide, 3 %.
        k = np.fft.fftfreq(80)
        inside = k[:, None, None] ** 2 + k[:, None] ** 2 + k**2 < 0.09
        known = known_frequencies(80, 1.0, kind) & inside
        moments = (known * k**2).sum(), (known * k[:, None, None] ** 2).sum()
        assert abs(np.sqrt(moments[0] / moments[1]) / elongation(1.0, kind) - 1) < 0.03
        # Wedge and cone: alpha / 90 and sin(alpha) are known.
        share = known.sum() / inside.sum()
        expected = {"wedge": 1.0 / (np.pi / 2.0), "cone": np.sin(1.0)}[kind]
        assert abs(share - expected) < 0.02


@app.function
def test_weights_of_views():
    edges = np.radians(np.arange(0.0, 91.0, 3.0))
    found = tilted_weight(np.radians(30.0), 0.0, edges)
    # (2 / pi)(pi / 6) / (1 - cos 30°) = 2.488 at the equator; 2 % for the steps of views.
    assert abs(found[-1] / 2.488 - 1.0) < 0.02
    assert abs(cone_weight(np.pi / 2.0, np.pi / 6.0) - 2.488) < 1e-3
    assert np.abs(found[:19]).max() < 1e-12
    assert cone_weight(np.radians(59.0), np.pi / 6.0) == 0.0
    # Every view is a whole circle: the weight is 1 on average.
    assert abs((found * -np.diff(np.cos(edges))).sum() - 1.0) < 1e-12


@app.function
def test_preferred_views_of_the_library():
    """Half within 30 degrees, half anyhow: weights 0.5 and 0.5 + 2.488 / 2."""
    generator = torch.Generator().manual_seed(0)
    views = draw_poses(40000, "preferred", 0.0, generator).rotation[:, 2].numpy()
    for axis, expected in ((2, 0.5), (0, 0.5 + 2.488 / 2.0)):
        near = (np.abs(views[:, axis]) < 0.05).mean() / 0.05
        # 1,000 and 3,500 views: 4 standard deviations.
        assert abs(near / expected - 1.0) < 4.0 / np.sqrt(40000 * 0.05 * expected)


@app.cell
def _():
    closing(
        "missing_views",
        library=[
            "cryoinfer.data.simulated_acquisition.draw_poses",
            "cryoinfer.reconstruction.backproject.solve",
        ],
        sources=[
            "M. Radermacher 1988, Three-dimensional reconstruction of single particles "
            "from random and nonrandom tilt series, J. Electron Microscopy Technique.",
            "Y. Z. Tan and others 2017, Addressing preferred specimen orientation in "
            "single-particle cryo-EM through tilting, Nature Methods.",
            "K. Naydenova and C. J. Russo 2017, Measuring the effects of particle "
            "orientation to improve the efficiency of electron cryomicroscopy, Nature Communications.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
