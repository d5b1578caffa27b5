import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy.special import j1

    from course import (
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
    from cryoinfer.physics.structures.atoms import GaussianAtoms


@app.cell
def _():
    opening("analytic_transforms")
    return


@app.cell
def _():
    mo.md(r"""
    ## Four rules

    A handful of transforms can be known by heart. Most others are made from them by rules, and the rules follow
    from the definition, $\hat f(k) = \int f(x)\, e^{-2\pi i k x}\, \mathrm{d}x$, by a change of the variable or
    by parts:

    - moved, $f(x - a)$ becomes $e^{-2\pi i k a} \hat f(k)$;
    - stretched, $f(x/a)$ becomes $|a|\, \hat f(ak)$: what gets wider gets narrower there;
    - the slope $f'(x)$ becomes $2\pi i k\, \hat f(k)$, and $x f(x)$ becomes $\frac{i}{2\pi} \hat f'(k)$;
    - turned by $R$, $f(R^{-1} x)$ becomes $\hat f(R^{-1} k)$: the transform turns along.

    ## The Gaussian

    Let $f(x) = e^{-x^2/2\sigma^2}$. Its slope is $f' = -x f/\sigma^2$. Transform both sides by the third rule:
    $2\pi i k \hat f = -\frac{i}{2\pi\sigma^2} \hat f'$, or $\hat f' = -4\pi^2\sigma^2 k\, \hat f$. This is the
    same equation with another width. So the transform of a Gaussian is a Gaussian, and its value at $k = 0$ is
    the area under $f$:

    $$\hat f(k) = \sigma\sqrt{2\pi}\; e^{-2\pi^2\sigma^2 k^2} .$$

    Its standard deviation is $1/2\pi\sigma$. In three dimensions it is a product of three. Atoms are drawn as
    Gaussians of a **B-factor** $B$, by which amplitudes fall as $e^{-B s^2/4}$. Compare exponents:
    $B = 8\pi^2\sigma^2$. A $B$ of 100 Å$^2$ is a Gaussian of only 1.13 Å.

    Widen the Gaussian, then move it off the origin. The dots are the discrete transform of its samples, one an ångström. They lie on the formula until it is narrower than a pixel.
    """)
    return


@app.function
def gaussian_transform(sigma, k):
    """Return the transform of exp(-x^2 / 2 sigma^2)."""
    return (
        sigma * np.sqrt(2 * np.pi) * np.exp(-2 * (np.pi * sigma * np.asarray(k)) ** 2)
    )


@app.function
def sigma_of_b_factor(b_factor_angstrom2):
    """Return the standard deviation in angstrom, along each axis, of a B-factor."""
    return np.sqrt(b_factor_angstrom2 / (8 * np.pi**2))


@app.cell
def _():
    def gaussians(sigma, place):
        x, k = np.arange(64) - 32, np.linspace(-0.5, 0.5, 401)
        row = np.exp(-(((x - place) / sigma) ** 2) / 2)
        true = gaussian_transform(sigma, k) * np.exp(-2j * np.pi * k * place)
        found = np.fft.fftshift(np.fft.fft(np.fft.ifftshift(row)))
        marks = (
            *(Line(k, true.real, "real"), Line(k, true.imag, "imaginary")),
            Points(x / 64, found.real, "real, discrete"),
        )
        right = Panel(marks, "Transform", "frequency (1/Å)", "transform (Å)")
        return Plot(
            (Panel((Line(x, row),), "Gaussian", "place (Å)", "value"), right),
            says=f"sigma: {sigma:g} Å there, {1 / (2 * np.pi * sigma):.3f} per Å here; B = {8 * np.pi**2 * sigma**2:.0f} Å².",
        )

    explore(
        gaussians,
        sigma=Slider("sigma (Å)", (0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4), 2),
        place=Slider("place (Å)", (0, 1, 2, 4, 8, 12), 0),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## The point and the wave

    Make a Gaussian of area 1 narrower and narrower. In the limit nothing is left but a point of weight 1. This
    is the **delta function** $\delta(x)$, and all one may do with it is integrate:
    $\int \delta(x - a)\, f(x)\, \mathrm{d}x = f(a)$. Put in the wave for $f$: the transform of a point at $a$
    is $e^{-2\pi i k a}$. A point holds all frequencies equally, and its place is in the phases.

    Read it backwards. The wave $e^{2\pi i s x}$ has the transform $\delta(k - s)$: one frequency, with no
    width. With $\cos = (e^{+} + e^{-})/2$ and $\sin = (e^{+} - e^{-})/2i$,

    $$\cos 2\pi s x \to \tfrac12 \delta(k - s) + \tfrac12 \delta(k + s), \qquad
    \sin 2\pi s x \to \tfrac{1}{2i} \delta(k - s) - \tfrac{1}{2i} \delta(k + s) .$$

    Real waves end. Of a wave that is seen over a length $L$ the integral is

    $$\int_{-L/2}^{L/2} e^{2\pi i (s - k) x}\, \mathrm{d}x = L \operatorname{sinc}\big(L (k - s)\big) :$$

    the point has got a width of $1/L$ and side lobes. Two waves are told apart when they differ by more than
    that. Make $L$ short, and the two peaks of a slow wave melt.
    """)
    return


@app.function
def cut_cosine_transform(s, length, k):
    """Return the transform of cos(2 pi s x) seen from -length / 2 to length / 2."""
    return length / 2 * (np.sinc(length * (k - s)) + np.sinc(length * (k + s)))


@app.cell
def _():
    def waves(length, period):
        x, k = np.linspace(-60, 60, 601), np.linspace(-0.25, 0.25, 501)
        wave = np.where(np.abs(x) <= length / 2, np.cos(2 * np.pi * x / period), 0)
        seen = cut_cosine_transform(1 / period, length, k) / length
        right = Panel((Line(k, seen),), "Transform over L", "frequency (1/Å)", "value")
        return Plot(
            (Panel((Line(x, wave),), "A wave with ends", "place (Å)", "value"), right),
            says=f"Peaks at {1 / period:.3f} and -{1 / period:.3f} per Å, each of width {1 / length:.3f}.",
        )

    explore(
        waves,
        length=Slider("length L (Å)", (5, 10, 20, 40, 60, 80, 120), 40),
        period=Slider("period (Å)", (5, 8, 10, 16, 20, 40), 10),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Shell, ball and disc

    A thin shell of radius $R$ has its points on all sides. Average the wave over it, with $c$ the cosine of the
    angle between $k$ and the point, which is spread evenly from -1 to 1. With $u = 2\pi k R$,

    $$\frac12 \int_{-1}^{1} e^{-i u c}\, \mathrm{d}c = \frac{\sin u}{u} .$$

    A ball is made of shells. Integrate $3 (r/R)^2 \sin(ur/R)/(ur/R)$ over $r/R$ from 0 to 1, by parts:
    $3 (\sin u - u \cos u)/u^3$. A disc in a plane gives, in the same way, $2 J_1(u)/u$ with a Bessel function
    (*Polar and spherical waves*). All are 1 at $k = 0$, oscillate, and cross zero: the first time at
    $k = 0.5/R$, $0.715/R$ and $0.610/R$. Sharp edges make the transform fall slowly, as $1/u$ for the shell, as
    $1/u^2$ for the ball.
    """)
    return


@app.function
def shape_transform(shape, radius, k):
    """Return the transform of a shape over that at zero."""
    u = 2 * np.pi * radius * np.maximum(np.abs(k), 1e-4 / radius)
    if shape == "shell":
        return np.sin(u) / u
    if shape == "ball":
        return 3 * (np.sin(u) - u * np.cos(u)) / u**3
    return 2 * j1(u) / u


@app.function
def first_zero(shape, radius):
    """Return the first frequency at which a shape's transform changes sign."""
    k = np.linspace(0.01, 1.0, 100001) / radius
    return k[np.argmax(shape_transform(shape, radius, k) < 0)]


@app.cell
def _():
    def shapes(radius):
        k, names = np.linspace(0, 0.03, 501), ("shell", "disc", "ball")
        curves = tuple(Line(k, shape_transform(one, radius, k), one) for one in names)
        zeros = ", ".join(
            f"{1 / first_zero(one, radius):.0f} Å ({one})" for one in names
        )
        return Plot(
            (Panel(curves, "Transform", "frequency (1/Å)", "over that at zero"),),
            says=f"The first zeros are at periods of {zeros}.",
        )

    explore(shapes, radius=Slider("radius (Å)", range(25, 201, 25), 50))
    return


@app.cell
def _():
    source(gaussian_transform, cut_cosine_transform, shape_transform)
    return


@app.cell
def _():
    mo.md(r"""
    ## The lattice

    Points at all multiples of $a$ make a **comb**, $\sum_n \delta(x - na)$. It repeats after $a$, so it is a
    sum of the waves $e^{2\pi i m x/a}$. Each has the weight
    $\frac1a \int_{-a/2}^{a/2} \delta(x)\, e^{-2\pi i m x/a}\, \mathrm{d}x = \frac1a$, and each is a point in
    Fourier space:

    $$\sum_n \delta(x - na) \;\to\; \frac1a \sum_m \delta\Big(k - \frac{m}{a}\Big) .$$

    The transform of a lattice is a lattice. In a plane, put the two steps of the lattice into the columns of a
    matrix $A$; its points are $An$ with whole $n$. All of them are in phase for those $k$ for which
    $k \cdot An$ is whole for every $n$: for $k = A^{-T} m$. These are the points of the **reciprocal lattice**.
    The one nearest to the origin in a direction lies perpendicular to rows of the lattice, at one over their
    distance.

    A crystal is a lattice with an atom at each point, and it ends somewhere. So its transform is the reciprocal
    lattice, multiplied by the transform of the atom, and each point widened by the transform of the outline.
    Change the angle: the steps between the spots (dots: $A^{-T} m$) enclose 180 degrees less that angle. Make
    the crystal small: the spots get wide, and stay where they are.
    """)
    return


@app.function
def reciprocal_points(step, angle_degrees, reach):
    """Return the reciprocal lattice, shape (2, n), of two equal steps at an angle."""
    angle = np.radians(angle_degrees)
    steps = step * np.array([[1, np.cos(angle)], [0, np.sin(angle)]])
    whole = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    return np.linalg.inv(steps).T @ whole


@app.function
def crystal(step, angle_degrees, radius, n=64):
    """Return an image of round atoms on a lattice, within a radius, in pixels."""
    angle = np.radians(angle_degrees)
    i, j = np.mgrid[-12:13, -12:13].reshape(2, -1)
    place = step * np.array([i + j * np.cos(angle), j * np.sin(angle)])
    place = place[:, np.hypot(*place) <= radius]
    x = np.arange(n) - n // 2
    along = np.exp(-((x[:, None, None] - place[None]) ** 2) / 2 / 1.2**2)
    return np.einsum("yn,xn->yx", along[:, 1], along[:, 0])


@app.cell
def _():
    def lattices(angle, step, radius):
        image = crystal(step, angle, radius)
        size = np.abs(np.fft.fftshift(np.fft.fft2(image)))
        spots = 64 * reciprocal_points(step, angle, 2)
        edge = (-32.5, 31.5, -32.5, 31.5)  # y upwards: rows are turned round
        left, near = (Heat(image[::-1], edge),), ((-20, 20), (-20, 20))
        marks = (Heat(size[::-1] / size.max(), edge, limits=(0, 0.6)), Points(*spots))
        return Plot(
            (
                Panel(left, "Crystal", "x (Å)", "y (Å)", equal=True),
                Panel(
                    marks, "Modulus", "kx (per box)", "ky (per box)", *near, equal=True
                ),
            ),
            says=f"Rows are {step * np.sin(np.radians(angle)):.2f} Å apart.",
        )

    explore(
        lattices,
        angle=Slider("angle of the steps (degrees)", range(60, 121, 15), 60),
        step=Slider("step (Å)", (6, 8, 10), 8),
        radius=Slider("radius of the crystal (Å)", (9, 17, 26), 26),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"My model's map is blurred more than its B-factors say."* In $e^{-Bs^2/4}$ amplitudes fall; powers fall
      as $e^{-Bs^2/2}$. Taking one for the other is a factor of two in $B$.
    - *"The FSC of my empty capsid dips and rises again, at even steps."* A shell's transform is small around
      its zeros, which are $1/2R$ apart in frequency. There is no signal there to agree on. It is no fault of
      the map.
    - *"There are six sharp spots in the power spectra of all micrographs."* A film of graphene, 2.13 Å.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "An atom has a B-factor of 80 Å². What is the standard deviation of its Gaussian, along one axis?",
        sigma_of_b_factor(80.0),
        tolerance=0.01,
        unit="Å",
        hint=r"$B = 8\pi^2\sigma^2$, and $8\pi^2$ is 79.",
        explanation="The root of 80 / 78.96 is 1.007 Å. One ångström is a B of 79.",
    )
    return


@app.cell
def _():
    exercise(
        "At what period does the transform of a ball with a radius of 100 Å first vanish?",
        1 / first_zero("ball", 100.0),
        tolerance=1.5,
        unit="Å",
        hint="Read it off the third figure.",
        explanation="The frequency is 0.715 / 100 Å; the period 139.8 Å.",
    )
    return


@app.cell
def _():
    choose(
        "The step of a lattice is doubled in both directions. What happens to the spots?",
        ("They move apart.", "They lie half as far apart.", "They get twice as wide."),
        1,
        hint=r"What is $A^{-T}$ of $2A$?",
        explanation="The stretching rule: four times as many spots in the same area.",
    )
    return


@app.function
def test_gaussian_against_the_program():
    """The library's atoms with one Gaussian of B = 8 pi^2 sigma^2 each (double rounding)."""
    width = torch.tensor([[8 * np.pi**2 * 1.3**2]], dtype=torch.float64)
    at = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64)
    one = GaussianAtoms(at, torch.tensor([0]), torch.ones(1, 1), width)
    k = np.random.default_rng(0).normal(scale=0.1, size=(20, 3))
    mine = np.prod(gaussian_transform(1.3, k) / gaussian_transform(1.3, 0), 1)
    mine = mine * np.exp(-2j * np.pi * k @ at[0].numpy())
    np.testing.assert_allclose(one.transform_at(torch.from_numpy(k)), mine, atol=1e-12)
    assert abs(sigma_of_b_factor(100.0) - 1.12540) < 1e-5


@app.function
def test_zeros_of_shapes():
    """Roots of tan u = u, of J1 and of sin (tables) over 2 pi; steps are 1e-5."""
    for shape, u in (("shell", np.pi), ("ball", 4.493409), ("disc", 3.831706)):
        assert abs(first_zero(shape, 7.0) * 7.0 - u / (2 * np.pi)) < 2e-5


@app.function
def test_transforms_by_summation():
    """The cut wave by the midpoint rule; error h^2 times slopes over 24, below 1e-3."""
    x, k = (np.arange(4000) + 0.5) / 100 - 20, np.linspace(-0.2, 0.2, 9)
    summed = np.exp(-2j * np.pi * np.outer(k, x)) @ np.cos(2 * np.pi * x / 10) / 100
    np.testing.assert_allclose(cut_cosine_transform(0.1, 40.0, k), summed, atol=1e-3)


@app.function
def test_lattices():
    """Graphene, 2.46 Å at 60 degrees, has rows of 2.1304 Å; atoms weaken wave 64 / 8."""
    points = reciprocal_points(2.46, 60, 1)
    assert abs(1 / np.sort(np.hypot(*points))[1] - 2.1304) < 1e-4
    size = np.abs(np.fft.fft2(crystal(8, 90, 26)))
    atom = gaussian_transform(1.2, 8 / 64) / gaussian_transform(1.2, 0)
    assert abs(size[0, 8] / size[0, 0] - atom) < 1e-3


@app.cell
def _():
    closing(
        "analytic_transforms",
        library=["cryoinfer.physics.structures.atoms.GaussianAtoms"],
        sources=[
            "R. N. Bracewell 2000, The Fourier Transform and Its Applications, third edition.",
            "learn_cryoem_math (Woollard).",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
