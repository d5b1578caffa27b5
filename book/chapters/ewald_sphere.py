import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch

    from course import (
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
    from cryoinfer.physics.ctf import electron_wavelength_angstrom


@app.cell
def _():
    opening("ewald_sphere")
    return


@app.cell
def _():
    mo.md(r"""
    ## Every atom has its own defocus

    *The slice theorem* says that an image is a flat slice through the transform of the map. It takes for granted that
    all heights are in focus together. They are not. A virus is 700 Å thick, and its front and its back differ by 700
    Å in defocus, which every fitting program would notice.

    Let $z$ be the height along the beam, in the direction of flight, with 0 in the middle of the particle. The plane
    in focus lies $\Delta z$ before the middle, so an atom at $z$ has the defocus $\Delta z + z$. For a weak object,
    images of atoms add up. With the transform $f$ of an atom, and $\chi$ the phase of the CTF without amplitude
    contrast,

    $$\hat I(k) = -2\sigma \sum_j f(s)\, e^{-2\pi i k \cdot x_j} \sin\left(\chi(s) + \pi \lambda z_j s^2\right) .$$

    Nothing more is needed. But write the sine as two exponentials, and look at one of them:

    $$\sum_j f\, e^{-2\pi i k \cdot x_j}\, e^{i \pi \lambda z_j s^2}
      = \sum_j f\, e^{-2\pi i (k \cdot x_j + q_z z_j)} = \hat V(k, q_z) , \qquad q_z = -\tfrac12 \lambda s^2 .$$

    It is the transform of the map, not on the plane $q_z = 0$, but on a bowl below it. The other exponential has it
    on the same bowl turned over:

    $$\hat I(k) = i\sigma \left[ e^{i\chi}\, \hat V(k, -\tfrac12\lambda s^2) - e^{-i\chi}\, \hat V(k, +\tfrac12\lambda s^2) \right] .$$

    Each of the two terms is a **side band**. Where both bowls may be taken for the plane they are equal, and the sum
    is $-2\sigma \sin\,\chi\, \hat V$ again.

    ## Why a sphere

    An electron scattered elastically keeps its wavelength. Its wave vector before is $(0, 0, 1/\lambda)$; after, it
    is some vector of the same length. Their difference $(k, q_z)$ is what the map has to provide, and it lies on a
    sphere of the radius $1/\lambda$ through the origin, the **Ewald sphere**:
    $q_z = \sqrt{1/\lambda^2 - s^2} - 1/\lambda \approx -\lambda s^2 / 2$. Our bowl is the part of it near the origin.
    At 300 kV the radius is 51 / Å, and data end at 0.5 / Å: the sphere is flat to about half a degree.

    What counts is whether $\hat V$ changes between the plane and the bowl. A particle of diameter $D$ has a transform
    that varies over lengths of $1/D$. So the bowl may be called flat as long as $\lambda s^2 / 2$ is well below
    $1/(2D)$, that is for periods well above $\sqrt{\lambda D}$. The left panel shows the bowls and the band of
    $\pm 1/(2D)$.

    The right one has the loss if one ignores all this: the mean of $\cos(\pi\lambda z s^2)$ over a ball. Its heights
    are distributed as $1 - (2z/D)^2$, and the integral gives $3 (\sin x - x \cos x) / x^3$ with
    $x = \pi\lambda s^2 D / 2$. It is one half at $x = 2.498$. Which particles need to care?
    """)
    return


@app.function
def wavelength_angstrom(voltage_kv):
    """Return the electron's wavelength, from the library."""
    return float(electron_wavelength_angstrom(torch.tensor(float(voltage_kv)).double()))


@app.function
def depth(frequency, wave_angstrom):
    """Return how far the Ewald sphere is from the plane, exactly, in 1/angstrom."""
    return 1.0 / wave_angstrom - np.sqrt(1.0 / wave_angstrom**2 - frequency**2)


@app.function
def ball_factor(frequency, diameter_angstrom, wave_angstrom):
    """Return the mean of cos(pi lambda z s^2) over a ball."""
    x = np.pi * wave_angstrom * np.asarray(frequency) ** 2 * diameter_angstrom / 2
    x = np.maximum(x, 1e-3)
    return 3 * (np.sin(x) - x * np.cos(x)) / x**3


@app.cell
def _():
    def sphere(diameter_angstrom, voltage_kv):
        wave = wavelength_angstrom(voltage_kv)
        s = np.linspace(-0.5, 0.5, 201)
        half = np.full_like(s, 0.5 / diameter_angstrom)
        bowls = (
            Line(s, -depth(s, wave), "one side band"),
            Line(s, depth(s, wave), "the other"),
            Line(s, half, "1 / (2D)", dashed=True),
            Line(s, -half, dashed=True),
        )
        words = "Bowls, drawn much too deep", "k_x (1/Å)", "q_z (1/Å)"
        left = Panel(bowls, *words, (-0.5, 0.5), (-0.006, 0.006))
        positive = s[s >= 0]
        factor = Line(positive, ball_factor(positive, diameter_angstrom, wave))
        words = "Left of the amplitude", "spatial frequency (1/Å)", "factor"
        right = Panel((factor,), *words, (0.0, 0.5), (-0.15, 1.05))
        period = np.sqrt(np.pi * wave * diameter_angstrom / 2 / 2.4983)
        says = f"Bowl and band cross at {np.sqrt(wave * diameter_angstrom):.2f} Å; half of the amplitude is lost at {period:.2f} Å."
        return Plot((left, right), says)

    sizes = Slider("diameter (Å)", (100, 150, 200, 300, 500, 700, 1000), 300)
    voltages = Slider("voltage (kV)", (100, 200, 300), 300)
    explore(sphere, diameter_angstrom=sizes, voltage_kv=voltages)
    return


@app.cell
def _():
    mo.md(r"""
    ## What images know of the hand

    Mirror a map, $z \to -z$. All its projections along $z$ stay the same: a flat slice cannot tell a left hand
    from a right hand, and with unknown poses no number of images can. The bowl can. Mirroring the map exchanges
    the two side bands, and they have different phases.

    Write $\sin(\chi + \epsilon_j)$ with $\epsilon_j = \pi\lambda z_j s^2$ as
    $\sin\,\chi \cos\,\epsilon_j + \cos\,\chi \sin\,\epsilon_j$. A flat model has the first part alone, without its
    cosine; a map of the wrong hand has the second part with the wrong sign. Over images of many defoci $\chi$ takes
    all values, and the two parts count alike.

    The figure takes a ball of 300 atoms at random places, and correlates its true images, ring by ring and over all
    $\chi$, with both wrong models. Small ball, high voltage: all agree. Make it large, and the flat model is lost
    where the curve above says so; the wrong hand is lost sooner, for its phases are off by twice as much.
    """)
    return


@app.function
def ball_of_atoms(diameter_angstrom, atoms=300, seed=4):
    """Return places (atoms, 3) at random in a ball."""
    random = np.random.default_rng(seed)
    direction = random.standard_normal((atoms, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return direction * diameter_angstrom / 2 * random.random((atoms, 1)) ** (1 / 3)


@app.function
def cosine_and_sine_parts(places, k_x, k_y, wave_angstrom):
    """Return sums over atoms of phases times cos and sin of pi lambda z s^2."""
    cosine, sine = np.zeros(k_x.shape, complex), np.zeros(k_x.shape, complex)
    for x, y, z in places:
        phase = np.exp(-2j * np.pi * (k_x * x + k_y * y))
        own = np.pi * wave_angstrom * z * (k_x**2 + k_y**2)
        cosine, sine = cosine + phase * np.cos(own), sine + phase * np.sin(own)
    return cosine, sine


@app.cell
def _():
    spokes = np.pi * (np.arange(60) + 0.5) / 60
    radii = np.linspace(0.02, 0.5, 60)
    k_x, k_y = radii[:, None] * np.cos(spokes), radii[:, None] * np.sin(spokes)

    def hands(diameter_angstrom, voltage_kv):
        wave = wavelength_angstrom(voltage_kv)
        places = ball_of_atoms(diameter_angstrom)
        cosine, sine = cosine_and_sine_parts(places, k_x, k_y, wave)
        flat, _ = cosine_and_sine_parts(places * [1, 1, 0], k_x, k_y, wave)
        even, odd = ((np.abs(one) ** 2).sum(1) for one in (cosine, sine))
        shared = (cosine * flat.conj()).real.sum(1)
        agreement = shared / np.sqrt((even + odd) * (np.abs(flat) ** 2).sum(1))
        mirrored = (even - odd) / (even + odd)
        marks = (Line(radii, agreement, "flat"), Line(radii, mirrored, "wrong hand"))
        words = "Agreement with true images", "spatial frequency (1/Å)", "correlation"
        panel = Panel(marks, *words, (0.0, 0.5), (-0.6, 1.1))
        at = [np.interp(1 / 3, radii, one) for one in (agreement, mirrored)]
        return Plot((panel,), f"At 3 Å: flat {at[0]:.2f}, wrong hand {at[1]:.2f}.")

    balls = Slider("diameter (Å)", (100, 200, 400, 800), 400)
    kilovolts = Slider("voltage (kV)", (100, 200, 300), 300)
    explore(hands, diameter_angstrom=balls, voltage_kv=kilovolts)
    return


@app.cell
def _():
    mo.md(r"""
    ## Taking the side bands apart

    If every atom has its own defocus, how is a map made from such images? Put $\hat I$ into *both* bowls, each with
    its own phase. Multiply it by $e^{-i\chi}$:

    $$e^{-i\chi}\, \hat I = i\sigma \left[ \hat V(k, -\tfrac12\lambda s^2) - e^{-2i\chi}\, \hat V(k, +\tfrac12\lambda s^2) \right] .$$

    The first term is now in focus, free of zeros. The second is out of focus by $2\Delta z$: its details are
    displaced by twice the distance of *When the CTF outruns the pixels*, away from the particle. Cut out the particle
    with a mask, and most of the second term is gone. What is left goes onto the first bowl. The same with
    $e^{+i\chi}$ is for the second.

    See it in one dimension: five atoms, in the range of $\pm$ 60 Å, the transform falling as a Gaussian, to $1/e$ at
    1.4 Å. With a low defocus the second term lies on top of the particle. With more defocus it spreads thinly, and the
    mask keeps less of it. Averaging over particles in all poses takes out most of the rest.
    """)
    return


@app.function
def refocused(defocus_angstrom, wave_angstrom, span=2048, pixel=0.5):
    """Return x, the first side band and the second, in one dimension, after exp(-i chi)."""
    where = np.array([-50.0, -22.0, 3.0, 28.0, 55.0])
    height = np.array([40.0, -30.0, 0.0, 25.0, -45.0])
    k = np.fft.fftfreq(span, pixel)
    chi = np.pi * wave_angstrom * defocus_angstrom * k**2
    phases = np.exp(-2j * np.pi * k[:, None] * where) * np.exp(-2.0 * k[:, None] ** 2)
    bent = np.exp(1j * np.pi * wave_angstrom * height * k[:, None] ** 2)
    first = (phases * bent).sum(1)
    second = -np.exp(-2j * chi) * (phases * bent.conj()).sum(1)
    x = (np.arange(span) - span // 2) * pixel
    bands = [np.fft.fftshift(np.fft.ifft(band)) / pixel for band in (first, second)]
    return x, *bands


@app.cell
def _():
    def separated(defocus_um):
        x, first, second = refocused(1e4 * defocus_um, wavelength_angstrom(300.0))
        shown = np.abs(x) < 160
        marks = (
            Line(x[shown], np.abs(first)[shown], "first side band"),
            Line(x[shown], np.abs(second)[shown], "second side band"),
            Line(
                [-60, -60, np.nan, 60, 60],
                [0, 1.3, np.nan, 1.3, 0],
                "mask",
                dashed=True,
            ),
        )
        words = "After multiplying by exp(-iχ)", "x (Å)", "modulus"
        kept = np.abs(x) < 60
        power = (np.abs(second[kept]) ** 2).sum() / (np.abs(second) ** 2).sum()
        says = f"The mask keeps {100 * power:.0f} % of the second side band's power."
        return Plot((Panel(marks, *words, (-160, 160), (0, 1.35)),), says)

    explore(
        separated, defocus_um=Slider("defocus (µm)", (0.1, 0.2, 0.5, 1, 1.5, 2, 3), 0.5)
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"Correcting the Ewald sphere made my map worse."* The sign of the curvature depends on the convention for $z$,
      on the hand of the map and on how micrographs were read. With the wrong one the phases are off by twice as much
      as without correction. Try both: with data beyond $\sqrt{\lambda D}$, one is better and the other worse.
    - *"My virus stops at 3.5 Å, its capsomers do not."* Seen from the middle of the virus, each block has its own
      defocus. Extracting blocks with the defocus of their height removes most of the curvature.
    - *"The map has the wrong hand."* Up to the resolution where the curvature is felt, images cannot tell. Look at
      helices, or take tilted pairs.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "How far is the Ewald sphere from the plane at a period of 2 Å, at 300 kV (0.0197 Å)?",
        1000 * depth(0.5, wavelength_angstrom(300.0)),
        tolerance=0.05,
        unit="/ 1000 Å",
        hint=r"$\lambda s^2 / 2$ with $s = 0.5$; give it in thousandths of 1/Å.",
        explanation="2.46 / 1000 Å: the transform of a particle of 200 Å changes over twice that.",
    )
    return


@app.cell
def _():
    exercise(
        r"At 100 kV ($\lambda = 0.0370$ Å), at what period does the bowl leave the band of $\pm 1/(2D)$ of a ribosome, $D$ = 250 Å?",
        np.sqrt(wavelength_angstrom(100.0) * 250.0),
        tolerance=0.05,
        unit="Å",
        hint=r"$\lambda s^2 / 2 = 1/(2D)$.",
        explanation=r"$\sqrt{0.0370 \times 250} = 3.04$ Å, against 2.22 Å at 300 kV.",
    )
    return


@app.cell
def _():
    choose(
        "A particle of 100 Å was reconstructed to 4 Å at 300 kV. Can the images alone tell its hand?",
        (
            "Yes, from the curvature of the Ewald sphere.",
            "No: both bowls are as good as flat for it.",
            "Yes, for the CTF differs between the hands.",
        ),
        1,
        hint=r"Compare 4 Å with $\sqrt{\lambda D}$.",
        explanation=r"$\sqrt{0.0197 \times 100} = 1.4$ Å. At 4 Å the phases of the two hands differ by 10 degrees rms.",
    )
    return


@app.function
def test_atoms_with_their_own_defocus_are_two_side_bands():
    """The bracket of the second formula, the map's transform taken on both bowls."""
    wave, places = wavelength_angstrom(300.0), ball_of_atoms(300.0, atoms=20)
    k_x, k_y = np.meshgrid(np.linspace(-0.4, 0.4, 9), np.linspace(-0.4, 0.4, 7))
    squared = k_x**2 + k_y**2
    bands = []
    for sign in (-1, 1):
        q = np.stack((k_x, k_y, sign * wave * squared / 2), -1)
        bands.append(np.exp(-2j * np.pi * q @ places.T).sum(-1))
    turn = np.exp(1j * np.pi * wave * 8e3 * squared)
    two_bands = 1j * (turn * bands[0] - turn.conj() * bands[1])
    cosine, sine = cosine_and_sine_parts(places, k_x, k_y, wave)
    image = -2 * (turn.imag * cosine + turn.real * sine)
    assert np.abs(two_bands - image).max() < 1e-9  # rounding of phases of 100 radian


@app.function
def test_ball_and_bowl():
    """The mean over a ball by 20,000 slabs (to 1e-6), its half, and the parabola, which
    the sphere follows to (lambda s)^2 / 4 of itself: 2.4e-5 at 2 A."""
    wave, s, diameter = wavelength_angstrom(300.0), 0.4, 500.0
    z = ((np.arange(20000) + 0.5) / 20000 - 0.5) * diameter
    weight = 1 - (2 * z / diameter) ** 2
    mean = (weight * np.cos(np.pi * wave * z * s**2)).sum() / weight.sum()
    assert abs(mean - ball_factor(s, diameter, wave)) < 1e-6
    half = np.sqrt(2.4983 * 2 / (np.pi * wave * diameter))
    assert abs(ball_factor(half, diameter, wave) - 0.5) < 1e-4
    assert abs(depth(0.5, wave) / (wave * 0.125) - 1 - 2.42e-5) < 1e-6
    assert abs(1000 * depth(0.5, wave) - 2.461) < 1e-3


@app.cell
def _():
    source(depth, ball_factor, cosine_and_sine_parts, refocused)
    return


@app.cell
def _():
    closing(
        "ewald_sphere",
        library=[
            "cryoinfer.physics.ctf.electron_wavelength_angstrom",
            "cryoinfer.fourier.slices.extract_slices",
        ],
        sources=[
            "D. J. DeRosier 2000, Correction of high-resolution data for curvature of the Ewald sphere, Ultramicroscopy.",
            "M. Wolf, D. J. DeRosier and N. Grigorieff 2006, Ewald sphere correction for single-particle electron microscopy, Ultramicroscopy.",
            "C. J. Russo and R. Henderson 2018, Ewald sphere correction using a single side-band image processing algorithm, Ultramicroscopy.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
