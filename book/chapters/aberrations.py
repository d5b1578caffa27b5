import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    from dataclasses import replace
    from math import factorial

    import marimo as mo
    import numpy as np
    import torch
    from scipy.special import j0

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
    from cryoinfer.physics.ctf import electron_wavelength_angstrom, evaluate_ctf
    from cryoinfer.records import Optics

    WAVE_ANGSTROM = float(electron_wavelength_angstrom(torch.tensor(300.0).double()))


@app.cell
def _():
    opening("aberrations")
    return


@app.cell
def _():
    mo.md(r"""
    ## Even and odd

    Two data sets have the same rings in their power spectra. One gives a map of 2.5 Å, the other stops at 4. The
    second has an error that no power spectrum shows. Here is why such errors exist.

    Let a lens turn the scattered wave by *any* phase $\chi(k)$ on the plane of frequencies. Behind the lens the
    scattered wave has the transform $i \hat\varphi\, e^{i\chi}$, and the linear part of the intensity is this wave
    plus its complex conjugate. In Fourier space the conjugate of a function at $k$ is the conjugate of its transform
    at $-k$, and $\overline{\hat\varphi(-k)} = \hat\varphi(k)$ as $\varphi$ is real. So

    $$\hat I(k) = i \hat\varphi(k) \left( e^{i\chi(k)} - e^{-i\chi(-k)} \right) .$$

    Split the phase into an even and an odd part, $\chi = \chi_e + \chi_o$ with $\chi_e(-k) = \chi_e(k)$ and
    $\chi_o(-k) = -\chi_o(k)$. Then $e^{i\chi_o}$ comes out of both terms:

    $$\hat I(k) = -2 \sin \chi_e(k)\; e^{i\chi_o(k)}\; \hat\varphi(k) .$$

    The even part makes the CTF. The odd part moves details without making them weaker. It has modulus 1, so the power
    spectrum knows nothing of it.

    ## A language for phases on a disc

    Write the radius as $\rho$, from 0 to 1 at the edge of the aperture, and the direction as $\theta$. The **Zernike
    polynomials** are products of a polynomial in $\rho$ and a wave around the circle,

    $$Z_n^m = R_n^m(\rho) \cos m\theta , \quad Z_n^{-m} = R_n^m(\rho) \sin m\theta , \qquad
      R_n^m = \sum_{j=0}^{(n-m)/2} \frac{(-1)^j (n-j)!}{j!\, (\tfrac{n+m}{2} - j)!\, (\tfrac{n-m}{2} - j)!}\, \rho^{n-2j} ,$$

    with $n - m$ even. They are polynomials in $k_x$ and $k_y$, and any two of them are orthogonal on the disc. Even
    $n$ is even, odd $n$ is odd. The first ones have names:

    | | name | polynomial |
    |---|---|---|
    | $Z_1^1$ | tilt (a shift of the image) | $\rho \cos\theta$ |
    | $Z_2^0$ | defocus | $2\rho^2 - 1$ |
    | $Z_2^2$ | two-fold astigmatism | $\rho^2 \cos 2\theta$ |
    | $Z_3^1$ | coma | $(3\rho^3 - 2\rho) \cos\theta$ |
    | $Z_3^3$ | three-fold astigmatism, trefoil | $\rho^3 \cos 3\theta$ |
    | $Z_4^0$ | spherical | $6\rho^4 - 6\rho^2 + 1$ |
    | $Z_4^4$ | four-fold astigmatism, tetrafoil | $\rho^4 \cos 4\theta$ |

    In the figure each of them is added to a plain defocus of 0.5 µm. Left is the polynomial, in the middle the power
    of the CTF, on the right the image of a point. Look for those that leave the middle panel alone.
    """)
    return


@app.function
def radial(n, m, radius):
    """Return R_n^m of the radius, m >= 0."""
    total = np.zeros_like(radius)
    for j in range((n - m) // 2 + 1):
        below = factorial(j) * factorial((n + m) // 2 - j) * factorial((n - m) // 2 - j)
        total = total + (-1) ** j * factorial(n - j) / below * radius ** (n - 2 * j)
    return total


@app.function
def zernike(n, m, radius, angle):
    """Return Z_n^m; with m < 0 the sine."""
    wave = np.cos(m * angle) if m >= 0 else np.sin(-m * angle)
    return radial(n, abs(m), radius) * wave


@app.function
def transfer(phase):
    """Return what multiplies the transform of a weak phase object, over -2.

    Parameters: chi on a centred grid of an odd number of frequencies.
    """
    behind = phase[::-1, ::-1]
    return (np.exp(1j * phase) - np.exp(-1j * behind)) / 2j


@app.cell
def _():
    names = {
        "tilt Z(1, 1)": (1, 1),
        "two-fold astigmatism Z(2, 2)": (2, 2),
        "the same, sine Z(2, -2)": (2, -2),
        "coma Z(3, 1)": (3, 1),
        "trefoil Z(3, 3)": (3, 3),
        "spherical Z(4, 0)": (4, 0),
        "tetrafoil Z(4, 4)": (4, 4),
    }
    edge = 0.3
    axis = np.linspace(-edge, edge, 65)
    squared = axis[:, None] ** 2 + axis**2
    radius, angle = np.sqrt(squared) / edge, np.arctan2(axis[:, None], axis[None, :])
    inside = radius <= 1.0

    def aberrated(name, size):
        shape = np.where(inside, zernike(*names[name], radius, angle), np.nan)
        plain = np.pi * WAVE_ANGSTROM * 5000.0 * squared
        passed = transfer(plain + size * np.nan_to_num(shape)) * inside
        point = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(passed)).real)
        across, reach = (-edge, edge, edge, -edge), 16.5 / (65 * (axis[1] - axis[0]))
        heats = (
            Heat(shape, across, True, (-1.0, 1.0)),
            Heat(np.where(inside, np.abs(passed) ** 2, np.nan), across, limits=(0, 1)),
            Heat(point[16:49, 16:49], (-reach, reach, reach, -reach), True),
        )
        words = (
            ("Phase, over its size", "k_x (1/Å)", "k_y (1/Å)"),
            ("Power of the CTF", "k_x (1/Å)", "k_y (1/Å)"),
            ("Image of a point", "x (Å)", "y (Å)"),
        )
        pairs = zip(heats, words, strict=True)
        panels = tuple(Panel((heat,), *text, equal=True) for heat, text in pairs)
        kind = "odd: no change of power" if names[name][0] % 2 else "even"
        return Plot(panels, f"{name}, {size} radian at the edge of 3.3 Å; {kind}.")

    sizes = Slider("size (radian)", (0, 1, 2, 4, 8), 4)
    explore(aberrated, name=Choice("added", tuple(names), "coma Z(3, 1)"), size=sizes)
    return


@app.cell
def _():
    mo.md(r"""
    Tables with misprints go round. $Z_2^2$ is the cosine and $Z_2^{-2}$ the sine, and the radial part of coma is
    $3\rho^3 - 2\rho$: with a square in place of the cube it is not even orthogonal to tilt.

    ## A tilted beam

    Let the beam come in at a small angle $\tau$ to the axis of the lens (two components, in radian). The wave of
    frequency $k$ then passes the lens at the angle $\lambda k + \tau$, and the phase of the spherical aberration, of
    fourth order in the angle, is $\tfrac{\pi}{2} C_s \lambda^3 \lvert k + \tau/\lambda \rvert^4$. Multiply out

    $$\left(s^2 + 2\, k \cdot \tau / \lambda + \tau^2 / \lambda^2\right)^2$$

    and look for what is odd in $k$. The term $4 s^2\, k \cdot \tau / \lambda$ gives the **axial coma**

    $$\chi_{\text{coma}} = 2\pi C_s \lambda^2 s^2\, (k \cdot \tau) ,$$

    up to its sign, which depends on what is called positive tilt. The other odd term is linear in $k$: a shift of the
    whole image, which alignment takes out. Coma grows with the cube of the frequency. With $C_s = 2.7$ mm and 1 mrad
    it is 2.4 radian at 3 Å.

    What does it do to a map? Particles lie in all in-plane angles $\alpha$, so a given detail is moved forwards in
    one image and backwards in another. The mean of $e^{i \chi}$ over angles is that of $\cos(c \cos\alpha)$ with
    $c = 2\pi C_s\lambda^2 s^3 \lvert\tau\rvert$: the Bessel function $J_0(c)$. It is an envelope. Move the tilt:
    where $J_0$ is negative, details are added upside down. If the tilt is known, nothing is lost: multiply each
    transform by $e^{-i\chi_{\text{coma}}}$.

    Image shift, used to take many holes without moving the stage, tilts the beam unless it is compensated. So each
    group of holes has a coma of its own, and programs fit one for each.
    """)
    return


@app.function
def coma_radian(frequency, tilt_mrad, cs_mm):
    """Return the largest phase of axial coma over directions, at 300 kV."""
    length = 1e7 * cs_mm * WAVE_ANGSTROM**2
    return 2 * np.pi * length * frequency**3 * 1e-3 * tilt_mrad


@app.cell
def _():
    def tilted(tilt_mrad, cs_mm):
        s = np.linspace(0.0, 0.5, 300)
        phase = coma_radian(s, tilt_mrad, cs_mm)
        words = "Coma, largest", "spatial frequency (1/Å)", "phase (radian)"
        first = Panel((Line(s, phase),), *words, (0.0, 0.5), (0.0, 10.0))
        marks = (Line(s, j0(phase)), Line(s, 0 * s, dashed=True))
        words = "What is left in a map", "spatial frequency (1/Å)", "J0"
        second = Panel(marks, *words, (0.0, 0.5), (-0.45, 1.05))
        half = (1.5211 / coma_radian(1.0, tilt_mrad, cs_mm)) ** (1 / 3)
        return Plot((first, second), f"Half is lost at {1 / half:.2f} Å.")

    tilts = Slider("beam tilt (mrad)", (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 2.0), 0.5)
    explore(tilted, tilt_mrad=tilts, cs_mm=Slider("C_s (mm)", (0.01, 1.2, 2.7), 2.7))
    return


@app.cell
def _():
    mo.md(r"""
    ## Phase plates

    Defocus turns the scattered wave by an angle that is nearly zero at low frequency: large features, and the
    particle as a whole, are hardly seen. A **phase plate** turns all of it by the same angle $\phi$, by acting on the
    unscattered beam alone, in the back focal plane:

    $$C(s) = \sin\left(\chi + \phi + \arcsin A\right) .$$

    With $\phi$ = 90 degrees and in focus $C = \cos(\arcsin A)$ or so, at every frequency until $C_s$ makes itself
    felt. Move the phase shift from 0 to 90 degrees at 0.5 µm and watch the left end. Then go on to 150: low
    frequencies are lost again. In a *Volta phase plate*, a warm carbon film that the beam itself charges, the shift
    grows during a session, so it must be fitted image by image, along with the defocus. The two are confused easily:
    near one ring $\phi$ and $\pi\lambda\Delta z s^2$ add up to the same. Several rings tell them apart.
    """)
    return


@app.function
def ctf_with_plate(frequency, defocus_angstrom, plate_radian, amplitude_contrast=0.1):
    """Return the CTF at 300 kV and 2.7 mm with a phase plate."""
    chi = np.pi * WAVE_ANGSTROM * defocus_angstrom * frequency**2
    chi = chi - 0.5 * np.pi * 2.7e7 * WAVE_ANGSTROM**3 * frequency**4
    return np.sin(chi + plate_radian + np.arcsin(amplitude_contrast))


@app.cell
def _():
    def plate(shift_degrees, defocus_um):
        s = np.linspace(0.0, 0.3, 300)
        value = ctf_with_plate(s, 1e4 * defocus_um, np.radians(shift_degrees))
        without = ctf_with_plate(s, 1e4 * defocus_um, 0.0)
        marks = (Line(s, value, "with"), Line(s, without, "without", dashed=True))
        words = "CTF with a phase plate", "spatial frequency (1/Å)", "C(s)"
        low = np.mean(value[s < 0.02] ** 2)
        says = f"Mean power of C below 1 / 50 Å: {low:.2f}."
        return Plot((Panel(marks, *words, (0.0, 0.3), (-1.05, 1.05)),), says)

    shifts = Slider("phase shift (degrees)", (0, 30, 60, 75, 90, 105, 120, 150), 90)
    defoci = Slider("defocus (µm)", (0, 0.1, 0.3, 0.5, 1.0), 0.5)
    explore(plate, shift_degrees=shifts, defocus_um=defoci)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"Defocus fits are perfect, and resolution stops at 3.5 Å."* Odd aberrations do not show in power spectra. They
      are fitted to particles of known pose: the phase of image over projection, averaged over particles, is a picture
      of $\chi_o$.
    - *"The program warns that it ignores beam tilt."* cryoinfer recognises the columns of beam tilt and of Zernike
      coefficients and does not model them. By the second figure this matters only at the resolution where $J_0$ has
      fallen.
    - *"With the phase plate particles are splendid, and the map is worse."* The shift was not fitted, or the phase
      shift in the file is in radian where degrees are expected.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        r"The beam is tilted by 0.5 mrad; $C_s = 2.7$ mm and $\lambda = 0.0197$ Å. What is the largest phase of coma at 3 Å?",
        coma_radian(1 / 3, 0.5, 2.7),
        tolerance=0.03,
        unit="radian",
        hint=r"$2\pi C_s\lambda^2 s^3 \tau$ with $C_s = 2.7 \times 10^7$ Å and $\tau = 5 \times 10^{-4}$.",
        explanation="1.22 radian. Of such details 0.66 is left in the map, unless they are corrected.",
    )
    return


@app.cell
def _():
    exercise(
        "How many times larger is coma at 2 Å than at 3 Å?",
        coma_radian(1 / 2, 0.5, 2.7) / coma_radian(1 / 3, 0.5, 2.7),
        tolerance=0.05,
        hint="It goes with the cube of the frequency.",
        explanation=r"$(3/2)^3 = 3.4$. Of the even aberrations, defocus grows by 2.25 and $C_s$ by 5.1.",
    )
    return


@app.cell
def _():
    choose(
        "Which of these cannot be found from Thon rings?",
        ("Two-fold astigmatism", "Trefoil", "The shift of a phase plate", "Tetrafoil"),
        1,
        hint="Which polynomial has an odd order?",
        explanation=r"$Z_3^3$ is odd in $k$: it turns phases and leaves the power as it was.",
    )
    return


@app.function
def test_zernike_polynomials():
    """The radial parts of textbooks, and orthogonality: the integral of (Z_n^m)^2 over the
    disc is pi / (2n + 2), twice that for m = 0. Sums over 10^6 points are good to 1e-3."""
    r = np.linspace(0, 1, 7)
    assert np.allclose(radial(3, 1, r), 3 * r**3 - 2 * r, atol=1e-14)
    assert np.allclose(radial(4, 0, r), 6 * r**4 - 6 * r**2 + 1, atol=1e-14)
    x = (np.arange(1000) + 0.5) / 500 - 1
    radius, angle = np.hypot(x[:, None], x), np.arctan2(x[:, None], x[None, :])
    orders = [(1, 1), (2, 0), (2, 2), (2, -2), (3, 1), (3, -3), (4, 0), (4, 2)]
    values = [zernike(n, m, radius, angle)[radius <= 1] for n, m in orders]
    table = np.array([[a @ b for b in values] for a in values]) * 4e-6
    norms = [np.pi / (2 * n + 2) * (2 if m == 0 else 1) for n, m in orders]
    assert np.abs(table - np.diag(norms)).max() < 2e-3


@app.function
def test_even_makes_the_ctf_and_odd_turns_phases():
    """The sum of both side bands against sine and phase factor: rounding alone differs."""
    k = np.linspace(-1, 1, 41)
    even = 9.0 * (k[:, None] ** 2 + k**2) + 2.0 * k[:, None] * k
    odd = 3.0 * k**3 + 2.0 * k[:, None] ** 2 * k
    expected = np.sin(even) * np.exp(1j * odd)
    assert np.abs(transfer(even + odd) - expected).max() < 1e-12


@app.function
def test_coma_is_the_odd_part_of_a_tilted_lens():
    """2.43 radian at 3 A, 1 mrad, 2.7 mm. And the fourth power of the tilted angle, less what
    is linear in k; multiplied out they are equal, up to rounding of some 1,000 radian."""
    assert abs(coma_radian(1 / 3, 1.0, 2.7) - 2.4354) < 1e-3
    tilt, s = 1e-3, 1 / 3
    lens = 0.5 * np.pi * 2.7e7 * WAVE_ANGSTROM**3
    odd = lens / 2 * ((s + tilt / WAVE_ANGSTROM) ** 4 - (s - tilt / WAVE_ANGSTROM) ** 4)
    linear = lens * 4 * s * (tilt / WAVE_ANGSTROM) ** 3
    assert abs(odd - linear - coma_radian(s, 1.0, 2.7)) < 1e-9
    around = 2 * np.pi * np.arange(200) / 200
    assert abs(np.cos(2.0 * np.cos(around)).mean() - j0(2.0)) < 1e-12
    assert abs(j0(1.5211) - 0.5) < 1e-4


@app.function
def test_chapter_and_library_agree():
    """One formula twice, in float64."""
    s = np.linspace(0.0, 0.3, 50)
    given = {"cs_mm": 2.7, "amplitude_contrast": 0.1, "phase_shift_radian": 1.1}
    given |= {"defocus_u_angstrom": 5e3, "defocus_v_angstrom": 5e3}
    fields = {name: torch.tensor([x], dtype=torch.float64) for name, x in given.items()}
    optics = replace(Optics.without_ctf(1, 1.0), **fields)
    there = evaluate_ctf(optics, torch.as_tensor(s), torch.zeros(50).double())[0]
    assert np.abs(ctf_with_plate(s, 5e3, 1.1) - there.numpy()).max() < 1e-9


@app.cell
def _():
    source(radial, zernike, transfer, coma_radian)
    return


@app.cell
def _():
    closing(
        "aberrations",
        library=["cryoinfer.physics.ctf.evaluate_ctf", "cryoinfer.records.Optics"],
        sources=[
            "M. Born and E. Wolf 1999, Principles of Optics, chapter 9 (Zernike polynomials).",
            "J. Zivanov, T. Nakane and S. H. W. Scheres 2020, Estimation of high-order aberrations and anisotropic magnification from cryo-EM data sets in RELION-3.1, IUCrJ.",
            "R. Danev, B. Buijsse, M. Khoshouei, J. M. Plitzko and W. Baumeister 2014, Volta potential phase plate for in-focus phase contrast transmission electron microscopy, PNAS.",
            "learn_cryoem_math (Woollard), notebook zernike_polynomials.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
