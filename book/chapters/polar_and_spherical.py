import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy.linalg import expm
    from scipy.special import eval_legendre, jv, sph_harm_y, spherical_jn

    from course import (
        Bars,
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
    from cryoinfer.io.conventions.poses import euler_degrees_to_rotation


@app.cell
def _():
    opening("polar_and_spherical")
    return


@app.cell
def _():
    mo.md(r"""
    ## Waves around a circle

    A shift multiplies plane waves by phases. Is there something that a rotation does as simply? Read an image
    along a circle of radius $r$. What one gets is a row that closes on itself, so it is a sum of waves which
    fit around the circle:

    $$f(r, \varphi) = \sum_m f_m(r)\, e^{i m \varphi}, \qquad
    f_m(r) = \frac{1}{2\pi} \int_0^{2\pi} f(r, \varphi)\, e^{-i m \varphi}\, \mathrm{d}\varphi .$$

    This is the **angular expansion**. Turn the image by $\alpha$: the value at $\varphi$ is now what was at
    $\varphi - \alpha$, and

    $$f_m(r) \to e^{-i m \alpha} f_m(r) .$$

    Moduli stay, on every circle. So $|f_m|$ says what an image is like without knowing how it is turned: an
    image with a three-fold axis has nothing but $m = 0, \pm 3, \pm 6, \dots$ And the angle between two images
    is found as a shift is found, with one transform along the circles (*Convolution and correlation*):

    $$c(\alpha) = \sum_m e^{i m \alpha} \sum_r r\, \overline{f_m(r)}\, g_m(r) .$$

    The image below is three-fold, up to one missing feature. Turn it: the bars do not move. Take more of the
    feature away, and watch which bars come up.
    """)
    return


@app.function
def value_at(x, y, missing):
    """Return an image of three features, of which one lacks a share, at places."""
    total = np.exp(-(x**2 + y**2) / 18.0)
    for number in range(3):
        angle = 2 * np.pi * number / 3
        a, b = x - 11 * np.cos(angle), y - 11 * np.sin(angle)
        total = total + (1 - missing * (number == 0)) * np.exp(-(a**2 + b**2) / 12.0)
    return total


@app.function
def turned(angle_degrees, missing, radii, count=64):
    """Return the image, turned, on circles: shape (radii, count)."""
    phi = 2 * np.pi * np.arange(count) / count - np.radians(angle_degrees)
    r = np.asarray(radii)[:, None]
    return value_at(r * np.cos(phi), r * np.sin(phi), missing)


@app.function
def best_angle_degrees(first, second):
    """Return by how much the second of two images on circles 1, 2, ... is turned."""
    weight = np.arange(1, len(first) + 1)[:, None]
    product = np.conj(np.fft.fft(first)) * np.fft.fft(second) * weight
    found = np.fft.ifft(product.sum(0)).real
    return 360.0 * found.argmax() / len(found)


@app.cell
def _():
    def circles(angle, missing):
        y, x = (np.mgrid[:48, :48] - 24)[:, ::-1]
        back = np.radians(angle)
        u, v = x * np.cos(back) + y * np.sin(back), y * np.cos(back) - x * np.sin(back)
        picture = (
            Heat(value_at(u, v, missing), (-24.5, 23.5, -24.5, 23.5), False, (0, 1)),
        )
        here = np.fft.fft(turned(angle, missing, [11])[0]) / 64
        bars = (Bars(np.arange(13), np.abs(here[:13])),)
        there = turned(angle, missing, range(1, 20))
        found = best_angle_degrees(turned(0, missing, range(1, 20)), there)
        return Plot(
            (
                Panel(picture, "Image", "x (pixel)", "y (pixel)", equal=True),
                Panel(bars, "Circle of 11 pixels", "m", "modulus"),
            ),
            says=f"Wave 3 has the phase {np.degrees(np.angle(here[3])):.0f} degrees. Found by "
            f"correlation, in steps of 5.6: turned by {found:.1f} degrees.",
        )

    explore(
        circles,
        angle=Slider("turned by (degrees)", range(0, 181, 15), 30),
        missing=Slider("missing of one feature", (0, 0.1, 0.3, 0.6, 1), 0.3),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Where an angular wave lives

    How many $m$ are needed? Ask a plane wave. With $u = 2\pi k r$ it is, along a circle, $e^{i u \cos\varphi}$.
    Its coefficients are the **Bessel functions** $J_m$:

    $$e^{i u \cos \varphi} = \sum_m i^m J_m(u)\, e^{i m \varphi}, \qquad
    J_m(u) = \frac{1}{2\pi i^m} \int_0^{2\pi} e^{i u \cos \varphi - i m \varphi}\, \mathrm{d}\varphi .$$

    Put this into the transform of an image, in polar coordinates $(k, \psi)$ of Fourier space. The integral
    over $\varphi$ leaves one $m$:

    $$\hat f(k, \psi) = \sum_m (-i)^m e^{i m \psi} \; 2\pi \int_0^\infty f_m(r)\, J_m(2\pi k r)\, r\, \mathrm{d}r .$$

    This is the **Fourier-Bessel transform**: an angular wave stays what it is, and its radial part is
    transformed with $J_m$. So Fourier space is turned with the image, each $m$ by its own phase.

    Now look at $J_m(u)$. It is nearly nothing until $u$ is about $m$. A feature at radius $r$ that is seen to
    the frequency $k$ therefore has no angular waves beyond $m \approx 2\pi k r$. For a particle of radius 50 Å
    at 3 Å that is 105: it must be turned in steps of about $360/(2 \times 105) = 1.7$ degrees, and views must
    be as dense. The number of views around one axis, $\pi D/d$ for a diameter $D$ and a resolution $d$, is the
    same 105.
    """)
    return


@app.function
def highest_wave(radius_angstrom, resolution_angstrom):
    """Return the angular wave at which a radius, seen to a resolution, ends."""
    return 2 * np.pi * radius_angstrom / resolution_angstrom


@app.cell
def _():
    def bessel(m, radius, resolution):
        u, waves = np.linspace(0, 80, 401), np.arange(0, 121)
        curve = (Line(u, jv(m, u)), Line([m, m], [-0.4, 0.6], "u = m", dashed=True))
        last = highest_wave(radius, resolution)
        size = np.abs(jv(waves, last))
        needed = (
            Bars(waves, size),
            Line([last, last], [0, 0.3], "2 pi r / d", dashed=True),
        )
        return Plot(
            (
                Panel(curve, f"The Bessel function of m = {m}", "u", "J"),
                Panel(
                    needed, "A wave of period d on the circle r", "m", "modulus of J"
                ),
            ),
            says=f"On a circle of {radius} Å a period of {resolution} Å reaches to m = {last:.0f}; "
            f"half a turn of that wave is {180 / last:.1f} degrees.",
        )

    explore(
        bessel,
        m=Slider("m", (0, 1, 2, 5, 10, 20, 40), 10),
        radius=Slider("radius r (Å)", (10, 25, 50), 25),
        resolution=Slider("period d (Å)", (3, 6, 12), 6),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Waves on a sphere

    A map is turned in three dimensions, and is read on spheres. The waves are the **spherical harmonics**
    $Y_{lm}(\theta, \varphi)$, with $l = 0, 1, 2, \dots$ and $m = -l, \dots, l$. They carry $e^{im\varphi}$
    around the z axis and vanish along $l$ circles in all. A turn about z is a phase, as before. A turn about
    another axis mixes the $2l + 1$ harmonics of the same $l$, and never two $l$:

    $$Y_{ln}(R^{-1} x) = \sum_m D^l_{mn}(R)\, Y_{lm}(x) .$$

    Radial parts are transformed with spherical Bessel functions, to
    $4\pi (-i)^l \int f_{lm}(r)\, j_l(2\pi k r)\, r^2\, \mathrm{d}r$. The numbers are **Wigner's D matrices**.
    With $R = R_z(\alpha) R_y(\beta) R_z(\gamma)$ the two turns about z are phases,

    $$D^l_{mn} = e^{-i m \alpha}\, d^l_{mn}(\beta)\, e^{-i n \gamma}, \qquad d^l(\beta) = e^{-i \beta J_y} ,$$

    where $J_y$ is the matrix of angular momentum: it couples $m$ to $m \pm 1$ by
    $\sqrt{l(l+1) - m(m \pm 1)}/2i$, up to the sign. $D$ is unitary. So the power $\sum_m |a_{lm}|^2$ of each
    $l$ stays under all rotations: the three-dimensional $|f_m|$. And the overlap of a map with a turned one,
    for *all* rotations, is $\sum_{lmn} \overline{a_{lm}} D^l_{mn} b_{ln}$, a Fourier series in $\alpha$ and
    $\gamma$: this is the fast rotation function. For $l$ up to $L$ it has $(L+1)(2L+1)(2L+3)/3$ numbers. With
    $d^l$ written as a Fourier series too, it is one in all three angles, fast rotational matching.

    Tilt the function. The bars of its $m$ change places, and their sum of squares does not.
    """)
    return


@app.function
def wigner_d(degree, beta):
    """Return d of a turn about y for l = degree, rows and columns m = -l to l."""
    m = np.arange(-degree, degree)
    raising = np.diag(np.sqrt(degree * (degree + 1) - m * (m + 1)), -1)
    return expm(-beta * (raising - raising.T) / 2)


@app.function
def wigner_matrix(degree, alpha, beta, gamma):
    """Return D of a turn about z by gamma, about y by beta, about z by alpha."""
    m = np.arange(-degree, degree + 1)
    left, right = np.exp(-1j * alpha * m), np.exp(-1j * gamma * m)
    return left[:, None] * wigner_d(degree, beta) * right


@app.cell
def _():
    def sphere(tilt, degree, order):
        n, m = min(order, degree), np.arange(-degree, degree + 1)
        theta = np.radians(np.arange(2.5, 180, 5))[:, None]
        phi = np.radians(np.arange(2.5, 360, 7.5))
        mixed = wigner_d(degree, np.radians(tilt))[:, degree + n]
        waves = [sph_harm_y(degree, one, theta, phi).real for one in m]
        seen = np.tensordot(mixed, waves, 1)
        picture = (Heat(seen, (0, 360, 180, 0), True, (-0.9, 0.9)),)
        bars = (Bars(m, np.abs(mixed)),)
        return Plot(
            (
                Panel(
                    picture, "Turned", "longitude (degrees)", "from the pole (degrees)"
                ),
                Panel(bars, "Share of each m", "m", "modulus", (-6.5, 6.5), (0, 1)),
            ),
            says=f"The harmonic of l = {degree}, m = {n}, tilted by {tilt} degrees (its real "
            f"part). Sum of the squares of the bars: {np.sum(mixed**2):.3f}.",
        )

    explore(
        sphere,
        tilt=Slider("tilt about y (degrees)", range(0, 181, 15), 30),
        degree=Slider("l", (1, 2, 4, 6), 4),
        order=Slider("m, at most l", (0, 2, 6), 2),
    )
    return


@app.cell
def _():
    source(turned, best_angle_degrees, wigner_d, wigner_matrix)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"My rotational alignment finds angles that are off by 120 degrees."* On a particle that is nearly
      three-fold the waves $m = 3, 6$ carry the correlation, and they cannot tell. Only the small other ones
      can.
    - *"The angle is right, and the score is not."* The image was turned about a point that is not its centre. A
      shift mixes all $m$. Find the shift first, or both together.
    - *"Two programs' D matrices do not agree."* There are several phases of $Y_{lm}$ in use, orders of the
      angles, and turns of the points or of the axes. Compare $d^1(\beta)$, written out, before anything else:
      its corner is $(1 + \cos\beta)/2$.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "A ribosome has a radius of about 130 Å. To which angular wave m does its rim reach at 4 Å?",
        highest_wave(130.0, 4.0),
        tolerance=3,
        hint=r"$m \approx 2\pi k r$ with $k = 1/4$ per Å.",
        explanation="204: about as many views lie around one axis.",
    )
    return


@app.cell
def _():
    exercise(
        "An image with a six-fold axis is turned by 20 degrees. By how many degrees does the phase of its wave m = 6 change (as a positive number)?",
        6 * 20,
        tolerance=0.5,
        unit="degrees",
        hint="The phase is m times the angle.",
        explanation="120 degrees. Turned by 60 it would be a whole turn: nothing is seen to change.",
    )
    return


@app.cell
def _():
    choose(
        "Which of these stays when a map is turned in three dimensions?",
        (
            r"each $|a_{lm}|$",
            r"$\sum_m |a_{lm}|^2$ for each $l$",
            r"$\sum_l |a_{lm}|^2$ for each $m$",
        ),
        1,
        hint="Which harmonics does a rotation mix?",
        explanation=r"$D^l$ is unitary and mixes the $m$ of one $l$ only.",
    )
    return


@app.function
def test_rotation_is_a_phase():
    """Angle found on a multiple of the step; phases m alpha; the three-fold has no others."""
    first, second = (turned(angle, 0.4, range(1, 20)) for angle in (0, 45))
    assert best_angle_degrees(first, second) == 45.0
    ratio = np.fft.fft(second)[10, 1:7] / np.fft.fft(first)[10, 1:7]
    np.testing.assert_allclose(
        ratio, np.exp(-1j * np.pi / 4 * np.arange(1, 7)), atol=1e-9
    )
    pure = np.abs(np.fft.fft(turned(10, 0, [11])[0]))
    assert pure[[1, 2, 4, 5]].max() < 1e-12 * pure[0]


@app.function
def test_jacobi_anger_and_the_bessel_transform():
    """A plane wave by its series; a Gaussian times e^{2 i phi}, by the integral over r."""
    phi = np.linspace(0, 2 * np.pi, 7)
    series = sum(1j**m * jv(m, 3.0) * np.exp(1j * m * phi) for m in range(-30, 31))
    np.testing.assert_allclose(series, np.exp(3j * np.cos(phi)), atol=1e-12)
    # (x + i y)^2 e^{-r^2 / 2}: the slope rule gives -(2 pi k)^2 2 pi e^{-2 pi^2 k^2} e^{2 i psi}.
    r, k = np.linspace(0, 12, 4001), 0.2
    u, bell = 2 * np.pi * k * r, r**3 * np.exp(-(r**2) / 2)
    radial = 2 * np.pi * np.trapezoid(bell * jv(2, u), r)
    expected = (2 * np.pi * k) ** 2 * 2 * np.pi * np.exp(-2 * (np.pi * k) ** 2)
    assert abs((-1j) ** 2 * radial + expected) < 1e-5  # the step of r, squared
    # z e^{-r^2 / 2} has l = 1, and by the same rule -2 pi i k_z (2 pi)^1.5 e^{-2 pi^2 k^2}.
    radial = 4 * np.pi * np.trapezoid(bell * spherical_jn(1, u), r)
    expected = 2 * np.pi * k * (2 * np.pi) ** 1.5 * np.exp(-2 * (np.pi * k) ** 2)
    assert abs(radial - expected) < 1e-5


@app.function
def test_wigner_matrices():
    """d of l = 1 written out; Legendre; turned harmonics against the program's rotation."""
    c, s = np.cos(0.7), np.sin(0.7) / np.sqrt(2)
    big, small = (1 + c) / 2, (1 - c) / 2
    written = [[big, s, small], [-s, c, s], [small, -s, big]]
    np.testing.assert_allclose(wigner_d(1, 0.7), written, atol=1e-12)
    assert abs(wigner_d(5, 0.7)[5, 5] - eval_legendre(5, c)) < 1e-12
    alpha, beta, gamma = 0.4, 1.1, -0.9
    # The program's A(rot, tilt, psi) is the transpose of the turn Rz(rot) Ry(tilt) Rz(psi).
    angles = torch.rad2deg(torch.tensor([alpha, beta, gamma], dtype=torch.float64))
    x = np.array([0.3, -0.5, np.sqrt(1 - 0.34)])
    back = euler_degrees_to_rotation(angles).numpy() @ x
    here, there = ((np.arccos(v[2]), np.arctan2(v[1], v[0])) for v in (x, back))
    harmonics = [sph_harm_y(3, m, *here) for m in range(-3, 4)]
    turned_ones = [sph_harm_y(3, n, *there) for n in range(-3, 4)]
    by_matrix = np.array(harmonics) @ wigner_matrix(3, alpha, beta, gamma)
    np.testing.assert_allclose(by_matrix, turned_ones, atol=1e-10)


@app.cell
def _():
    closing(
        "polar_and_spherical",
        library=["cryoinfer.io.conventions.poses.euler_degrees_to_rotation"],
        sources=[
            "G. N. Watson 1944, A Treatise on the Theory of Bessel Functions, second edition.",
            "G. S. Chirikjian and A. B. Kyatkin 2001, Engineering Applications of Noncommutative Harmonic Analysis.",
            "R. A. Crowther, D. J. DeRosier and A. Klug 1970, Proceedings of the Royal Society A 317, 319-340.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
