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
        Slider,
        choose,
        closing,
        exercise,
        explore,
        opening,
        source,
    )

    AXIS = np.arange(64.0) - 32.0
    EDGES, PLACE = (-32.5, 31.5, -32.5, 31.5), ("x (px)", "y (px)")


@app.cell
def _():
    opening("backprojection")
    return


@app.cell
def _():
    mo.md(r"""
    ## Smear it back

    Projections of a flat object are given, one for each angle $\theta$, and the object is wanted back. The projection is
    the **Radon transform** $p_\theta(s)$: the sum along the line whose normal has the angle $\theta$, at the signed distance $s$ from the centre. The first idea
    that comes to mind is to undo the sum by guessing that what was summed was uniformly distributed along the line: smear each projection back
    along its rays, and add up. That is **back-projection**,

    $$b(x, y) = \int_0^{\pi} p_\theta(x\cos\theta + y\sin\theta)\,\mathrm{d}\theta .$$

    The object in the figure is made of ovals. Begin with one view and add more, with the filter at "none". Something like
    the object appears, under a fog that never lifts, however many views there are. Then choose the ramp, a filter that is
    derived below. The smooth ramp is the same times $\cos^2 \pi k$, which bends it down to zero at Nyquist.
    """)
    return


@app.function
def ovals():
    """Return centre x, y, half axes a, b (px), angle (radian) and density of each."""
    return (
        (0.0, 0.0, 24.0, 18.0, 0.3, 1.0),
        (-8.0, 3.0, 6.0, 4.0, 1.0, -0.7),
        (9.0, -2.0, 5.0, 7.0, 0.0, 0.8),
        (0.0, -10.0, 3.0, 2.0, 0.5, 1.0),
    )


@app.function
def oval_projection(oval, angle, s):
    """Return the sums along lines at s (px) through an ellipse of even density."""
    x, y, a, b, turned, density = oval
    squared = (a * np.cos(angle - turned)) ** 2 + (b * np.sin(angle - turned)) ** 2
    away = s - x * np.cos(angle) - y * np.sin(angle)
    return 2.0 * density * a * b * np.sqrt(np.maximum(squared - away**2, 0)) / squared


@app.function
def oval_picture(oval):
    """Return the ellipse on the pixels (y, x), 1 inside."""
    x, y, a, b, turned, density = oval
    right, up = AXIS - x, (AXIS - y)[:, None]
    along = right * np.cos(turned) + up * np.sin(turned)
    across = up * np.cos(turned) - right * np.sin(turned)
    return density * ((along / a) ** 2 + (across / b) ** 2 <= 1.0)


@app.function
def ramp_filtered(projection, smooth=False):
    """Return projections (..., n) filtered by |k|, in a row of zeros four times as long."""
    long = 4 * projection.shape[-1]
    n = np.fft.fftfreq(long, 1.0 / long)
    odd = np.where(n % 2 == 0, np.inf, np.pi * n)
    ramp = np.fft.fft(np.where(n == 0, 0.25, -1.0 / odd**2)).real
    if smooth:
        ramp = ramp * np.cos(np.pi * np.fft.fftfreq(long)) ** 2
    found = np.fft.ifft(np.fft.fft(projection, long) * ramp).real
    return found[..., : projection.shape[-1]]


@app.function
def smeared(projections, angles):
    """Return the back-projection (y, x): the mean over the angles times pi."""
    image = np.zeros((64, 64))
    for one, angle in zip(projections, angles, strict=True):
        at = AXIS * np.cos(angle) + AXIS[:, None] * np.sin(angle)
        image += np.interp(at, AXIS, one)
    return image * np.pi / len(angles)


@app.cell
def _():
    _true = sum(oval_picture(one) for one in ovals())

    def views_and_filter(views, name):
        angles = np.pi * np.arange(views) / views
        projections = np.stack(
            [sum(oval_projection(o, angle, AXIS) for o in ovals()) for angle in angles]
        )
        if name != "none":
            projections = ramp_filtered(projections, smooth=name == "smooth ramp")
        found = smeared(projections, angles)
        scale, words = 1.0, ("x (px)", "density")
        if name == "none":
            scale, words = 1.0 / found.max(), ("x (px)", "over its largest value")
        profile = (
            Line(AXIS, _true[35], "object", dashed=True),
            Line(AXIS, found[35] * scale, "back-projection"),
        )
        before, after = (Heat(one[::-1], EDGES) for one in (_true, found))
        return Plot(
            (
                Panel((before,), "Object", *PLACE, equal=True),
                Panel((after,), "Back-projection", *PLACE, equal=True),
                Panel(profile, "Along y = 3 px", *words, y_range=(-0.8, 2.4)),
            ),
            f"{views} views, filter: {name}. Correlation with the object "
            f"{np.corrcoef(found.ravel(), _true.ravel())[0, 1]:.3f}.",
        )

    explore(
        views_and_filter,
        views=Slider("views over 180°", (1, 2, 4, 8, 16, 32, 64, 128), 16),
        name=Choice("filter", ("none", "ramp", "smooth ramp")),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## How much fog, exactly?

    Take a single point in the middle, a peak $\delta$ of area 1. Each projection is a peak at $s = 0$, each smear a line through the point. At the
    distance $r$ and the angle $\varphi$ the argument $x\cos\theta + y\sin\theta$ is $r \cos(\theta - \varphi)$; it passes through zero once, with
    the slope $r$. So the integral over the peak gives

    $$b = \int_0^{\pi} \delta(r\cos(\theta - \varphi))\,\mathrm{d}\theta = \frac{1}{r} .$$

    Back-projection convolves the object with $1/r$. That falls so slowly that a disc of radius $a$ shows
    $\int_0^a \frac{1}{r}\, 2\pi r\,\mathrm{d}r = 2\pi a$ at its middle: each spot is under the fog of all others.

    The slice theorem says the same in other words. A smear is constant along its rays, so its transform is zero but on one
    line through the origin, where it is $\hat p_\theta(k)$, that is $\hat f$. With all angles the lines fill the plane,
    densely in the middle and thinly outside: in polar coordinates an area is
    $\mathrm{d}k_x\,\mathrm{d}k_y = \lvert k\rvert\,\mathrm{d}k\,\mathrm{d}\theta$. What is laid out evenly in $k$ and
    $\theta$ has therefore the density $1/\lvert k\rvert$,

    $$\hat b(k) = \frac{\hat f(k)}{\lvert k\rvert} .$$

    The cure is to multiply by $\lvert k\rvert$, the **ramp filter**, each projection by itself before it is smeared:
    **filtered back-projection**. High frequencies of the signal are not amplified by it; they get back
    what they never received. Noise is another matter. That of different views is independent, so its powers add.
    After the ramp white noise has the power $k^2$ in each view; the lines have the density $1/\lvert k\rvert$; so its power
    in the image grows as $\lvert k\rvert$. This is why a smooth ramp bends down.

    Beware of the angles. Over a full turn each line comes twice, from the front and from the back, and $b$ is twice as
    large. A factor of 2 that nobody can explain is this one.

    In three dimensions, smear images along their beams, and average over all directions $u$ of the beam. Each fills the
    plane $u \cdot k = 0$. Over a sphere $u \cdot k / \lvert k\rvert$ is uniformly distributed between -1 and 1, a density
    of 1/2, hence

    $$\hat b(k) = \hat f(k)\,\langle \delta(u \cdot k)\rangle
    = \frac{\hat f(k)}{2\lvert k\rvert} ,$$

    a ramp again. In real space it is a convolution with $1 / 2\pi r^2$.

    The figure smears one point back in a plane. A few views make a star. With more it becomes the round fog; both curves
    come to lie on the formulas.
    """)
    return


@app.cell
def _():
    def point(views):
        angles = np.pi * (np.arange(views) + 0.5) / views
        peak = np.exp(-(AXIS**2) / 2.0) / np.sqrt(2.0 * np.pi)
        found = smeared([peak] * views, angles)
        ring = np.rint(np.hypot(AXIS, AXIS[:, None])).astype(int).ravel()
        mean = (np.bincount(ring, found.ravel()) / np.bincount(ring))[1:31]
        size = np.abs(np.fft.fftshift(np.fft.fft2(found))).ravel()
        size = (np.bincount(ring, size) / np.bincount(ring))[1:14]
        r, k = np.arange(1.0, 31.0), np.arange(1, 14) / 64.0
        size = size / np.exp(-2.0 * np.pi**2 * k**2)
        star = Heat(found[::-1], EDGES, limits=(0.0, 0.5))
        curves = Line(r, mean, "mean around a circle"), Line(r, 1.0 / r, "1 / r", True)
        slope = (
            Line(k, size, "back-projection / point"),
            Line(k, 1.0 / k, "1 / k", True),
        )
        return Plot(
            (
                Panel((star,), "A point, smeared", *PLACE, equal=True),
                Panel(curves, "In real space", "r (px)", "height"),
                Panel(slope, "In Fourier space", "k (1/px)", "ratio of transforms"),
            ),
            f"{views} views: 10 px from the point the fog is {mean[9]:.3f} on average; 1 / r is 0.1.",
        )

    explore(point, views=Slider("views over 180°", (2, 4, 8, 16, 32, 64), 8))
    return


@app.cell
def _():
    source(oval_projection, ramp_filtered, smeared)
    return


@app.cell
def _():
    mo.md(r"""
    ## A ramp with care

    A ramp seems one line of code: transform, times $\lvert k\rvert$, back. Two things are wrong with it. The transform of
    a row of $N$ samples wraps around, while the ramp's partner in real space,

    $$h(n) = \int_{-1/2}^{1/2} \lvert k\rvert \cos(2\pi k n)\,\mathrm{d}k
    = \frac14 \text{ at } n = 0,\quad \frac{-1}{\pi^2 n^2} \text{ at odd } n,\quad 0
    \text{ at even } n,$$

    reaches far: its tails come in again from the other side. And at $k = 0$ the ramp is zero, so that every filtered
    projection has the sum zero. Over an infinite line it should; but its negative tails reach beyond the row, so inside
    the row the mean must be positive, and a ramp of the row alone makes it zero. The remedies are zeros around the row, and a filter made from the samples
    $h(n)$.

    A disc shows it best, since all its projections are alike. Without zeros and with $\lvert k\rvert$ as it stands, the
    disc is too low. Pad, and watch it rise: at radius 22 from 0.791 to 0.995. At radius 6 it stops at 0.988, and so does
    the padded filter of samples. That is another error: a projection ends at the rim with a vertical slope, and samples 1
    px apart are too coarse for a small disc. (With half the step it is 0.996.)
    """)
    return


@app.function
def disc_profile(radius, padding, exact):
    """Return the reconstruction of a disc along x from its one projection."""
    long = 64 * padding
    axis = np.arange(long) - long // 2.0
    projection = oval_projection((0, 0, radius, radius, 0, 1.0), 0.0, axis)
    if exact:
        filtered = ramp_filtered(projection)
    else:
        ramp = np.abs(np.fft.fftfreq(long))
        filtered = np.fft.ifft(np.fft.fft(projection) * ramp).real
    angles = np.pi * (np.arange(256) + 0.5) / 256
    at = np.multiply.outer(AXIS, np.cos(angles))
    return np.pi * np.interp(at, axis, filtered).mean(1)


@app.cell
def _():
    def careless(radius, padding):
        naive = disc_profile(radius, padding, exact=False)
        lines = (
            Line(AXIS, disc_profile(radius, 1, exact=True), "samples of h, padded"),
            Line(AXIS, naive, "|k| as it stands"),
            Line(AXIS, 1.0 * (np.abs(AXIS) <= radius), "disc", dashed=True),
        )
        return Plot(
            (Panel(lines, "Along a diameter", "x (px)", "density"),),
            f"With |k| in a row of {64 * padding} samples the middle is {naive[32]:.3f} instead of 1.",
        )

    explore(
        careless,
        radius=Slider("radius of the disc (px)", (6, 10, 14, 18, 22, 26), 22),
        padding=Slider("length of the row / side of the box", (1, 2, 4, 8), 1),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *The map is a blurred ball with the right outline.* Slices were added up and never divided by how many fell on each
      voxel. In Fourier space that division is the ramp, for even views; for others it takes the ramp's place
      (*The most probable map*).
    - *Rays stick out of the particle.* Too few views: fewer than $\pi D / d$, Crowther's criterion, with $D$ the diameter of the
      particle and $d$ the resolution. In the first figure rays begin to show below about 64 views.
    - *The background is negative and the inside too low.* The ramp without zeros around.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "A disc of density 1 and radius 10 px is back-projected without a filter. How high "
        "is the result in the middle?",
        2.0 * np.pi * 10.0,
        tolerance=0.7,
        hint="Each projection is 20 px high at its middle. Integrate over the angles.",
        explanation="20 times π, or 2πa: 62.8 instead of 1.",
    )
    return


@app.cell
def _():
    exercise(
        "Two waves of equal strength, of 40 Å and 5 Å period, are back-projected without "
        "a filter, from all angles in a plane. How many times weaker than the coarse one is the fine one?",
        (1.0 / 5.0) / (1.0 / 40.0),
        tolerance=0.1,
        hint="Strengths are divided by the frequency.",
        explanation="Frequencies are 8 to 1.",
    )
    return


@app.cell
def _():
    choose(
        "Beams from all directions of space are smeared back into a volume. By which power "
        "of the frequency must the result be multiplied?",
        ("k", "k², as there is one more dimension", "none"),
        0,
        hint="How many planes through the origin pass near a point at the distance k?",
        explanation="A plane passes near a point with a probability of one over k, as does a line in the plane.",
    )
    return


@app.function
def test_the_projection_of_an_oval():
    """Sums over pixels of a fine picture, and its area."""
    oval, s = (3.0, -2.0, 12.0, 7.0, 0.7, 1.0), np.arange(-20, 21) * 1.0
    fine, (c, d) = np.arange(-20.0, 20.0, 0.05) + 0.025, (np.cos(0.5), np.sin(0.5))
    for one in (-5.0, 0.0, 4.0):
        x, y = one * c - fine * d - 3.0, one * d + fine * c + 2.0
        along = (x * np.cos(0.7) + y * np.sin(0.7)) / 12.0
        across = (y * np.cos(0.7) - x * np.sin(0.7)) / 7.0
        # Steps of 0.05 px at both ends.
        length = 0.05 * (along**2 + across**2 <= 1.0).sum()
        assert abs(oval_projection(oval, 0.5, one) - length) < 0.1
    # Pixels of 1 px: roots at the rim, below 1 % of the area pi a b.
    area = oval_projection(oval, 1.2, s).sum()
    assert abs(area / (np.pi * 12.0 * 7.0) - 1.0) < 0.01


@app.function
def test_known_numbers():
    """2 pi a without a filter, 1 with it, and twice as much over a full turn."""
    disc = (0.0, 0.0, 10.0, 10.0, 0.0, 1.0)
    for turn, factor in ((np.pi, 1.0), (2.0 * np.pi, 2.0)):
        angles = turn * np.arange(64) / 64
        flat = [oval_projection(disc, one, AXIS) for one in angles]
        middle = smeared(flat, angles)[32, 32] * turn / np.pi
        assert abs(middle - factor * 2.0 * np.pi * 10.0) < 1e-9
        sharp = smeared(ramp_filtered(np.array(flat)), angles)[32, 32] * turn / np.pi
        # Linear interpolation, and the rim's ringing: 3 %.
        assert abs(sharp / factor - 1.0) < 0.03
    # Padded eight times, and the samples of h: the numbers of the text.
    for radius, padding, middle in ((22, 1, 0.791), (22, 8, 0.995), (6, 8, 0.988)):
        assert abs(disc_profile(radius, padding, False)[32] - middle) < 1e-3
    assert abs(disc_profile(6, 1, True)[32] - 0.988) < 1e-3
    # The samples of the ramp's partner add up to the ramp at k = 1/2.
    n = np.arange(1, 20001, 2)
    assert abs(0.25 + 2.0 * np.sum(1.0 / (np.pi * n) ** 2) - 0.5) < 1e-5
    # <delta(u k)> = 1 / 2k at k = 3: about 1,667 of 100,000 directions, 2.4 %; 4 of that.
    u = np.random.default_rng(0).standard_normal((100000, 3))
    near = np.abs(3.0 * u[:, 0] / np.linalg.norm(u, axis=1)) < 0.05
    assert abs(near.mean() / 0.1 - 1.0 / 6.0) < 0.016


@app.cell
def _():
    closing(
        "backprojection",
        library=["cryoinfer.reconstruction.backproject.solve"],
        sources=[
            "J. Radon 1917, Über die Bestimmung von Funktionen durch ihre Integralwerte "
            "längs gewisser Mannigfaltigkeiten, Ber. Verh. Sächs. Akad. Wiss. Leipzig.",
            "G. N. Ramachandran and A. V. Lakshminarayanan 1971, Three-dimensional reconstruction from radiographs and electron micrographs, PNAS.",
            "A. C. Kak and M. Slaney 1988, Principles of Computerized Tomographic Imaging.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
