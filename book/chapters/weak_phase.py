import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy import constants
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
    from cryoinfer.data.examples import example_atoms
    from cryoinfer.physics.ctf import electron_wavelength_angstrom
    from cryoinfer.physics.structures.atoms import GaussianAtoms
    from cryoinfer.records import Pose


@app.cell
def _():
    opening("weak_phase")
    return


@app.cell
def _():
    mo.md(r"""
    ## What an atom does to the wave

    Put a protein in ice into a microscope and focus as sharply as you can: the particles vanish. Turn the focus knob
    by a micrometre, and they are there, blurred and dark. To see why, follow the wave.

    Inside matter the electrostatic potential $V$ is a few volts above that of the vacuum: nuclei are positive, and
    their electrons do not shield them entirely. An electron that enters gains the energy $eV$, so it moves with a
    little more momentum and has a slightly shorter wave. By how much? Energy and momentum are tied by
    $E^2 = (pc)^2 + (mc^2)^2$. Differentiate: $E\,\mathrm{d}E = p\,c^2\,\mathrm{d}p$. Since $p c^2 / E$ is the speed
    $v$, a small gain of energy $eV$ gives $\mathrm{d}p = eV/v$.

    A wave of momentum $p$ turns its phase by $p/\hbar$ per unit of length. The phase gained over that in vacuum,
    along the path $z$, is therefore

    $$\varphi(x, y) = \sigma \int V(x, y, z)\, \mathrm{d}z ,
      \qquad \sigma = \frac{e}{\hbar v} .$$

    $\sigma$ is the **interaction constant**: 0.653 mrad per volt and ångström at 300 kV. Independent atoms packed as
    in protein give a mean potential of 7.9 V, and as in ice 4.5 V (*From atoms to a potential*). A protein of 100 Å
    turns the wave by $0.653 \times 10^{-3} \times 3.4 \times 100 = 0.22$ radian more than the ice that it replaces.
    Nothing is absorbed. The wave is turned by a thirtieth of a circle.
    """)
    return


@app.function
def interaction_constant(voltage_kv):
    """Return sigma = e / (hbar v), in radian per volt and angstrom."""
    rest_kv = constants.m_e * constants.c**2 / constants.e / 1000.0
    gamma = 1.0 + np.asarray(voltage_kv) / rest_kv
    speed = constants.c * np.sqrt(1.0 - 1.0 / gamma**2)
    return constants.e / (constants.hbar * speed) * 1e-10


@app.cell
def _():
    mo.md(r"""
    ## Two arrows

    A **phase object** changes only the phase: behind it the wave is $\psi = e^{i\varphi}$. A detector counts
    electrons, that is $\lvert\psi\rvert^2$, and $\lvert e^{i\varphi}\rvert^2 = 1$. Everywhere. A perfect microscope
    in focus shows nothing.

    Write the wave as a sum of two arrows in the complex plane: what passed, 1, and what was scattered,
    $e^{i\varphi} - 1$. In a **weak phase object** $\varphi$ is small, and

    $$\psi \approx 1 + i\varphi .$$

    The scattered arrow is at a right angle to the other. Adding it turns the sum and hardly makes it longer:
    $\lvert 1 + i\varphi\rvert^2 = 1 + \varphi^2$. Now suppose that something turns the scattered arrow by a further
    angle $\chi$. Then

    $$\lvert 1 + i\varphi\, e^{i\chi} \rvert^2
      = 1 - 2\varphi \sin\,\chi + \varphi^2 \approx 1 - 2 \varphi \sin\,\chi ,$$

    and the image is linear in the potential. At $\chi = 90$ degrees the arrows are opposite: the intensity
    falls by $2\varphi$, the most that can be had.

    In the figure, look at the length of the sum. At 0 degrees it stays on the circle whatever $\varphi$ is. At 90
    degrees compare the exact intensity with the straight line: where do they part?
    """)
    return


@app.cell
def _():
    def arrows(phase, turn_degrees):
        turn = np.exp(1j * np.radians(turn_degrees))
        total = 1.0 + (np.exp(1j * phase) - 1.0) * turn
        around = np.linspace(-1.2, 1.2, 80)
        many = np.linspace(0.0, 1.0, 60)
        exact = np.abs(1.0 + (np.exp(1j * many) - 1.0) * turn) ** 2
        waves = (
            Line([0, 1], [0, 0], "passed"),
            Line([1, total.real], [0, total.imag], "scattered, turned"),
            Line([0, total.real], [0, total.imag], "sum"),
            Line(np.cos(around), np.sin(around), "length 1", dashed=True),
        )
        counts = (
            Line(many, exact, "exact"),
            Line(many, 1.0 - 2.0 * many * turn.imag, "weak phase"),
            Points([phase], [abs(total) ** 2], "this phase"),
        )
        words = "The wave as arrows", "real part", "imaginary part"
        left = Panel(waves, *words, (-0.1, 2.1), (-0.95, 0.95), equal=True)
        words = "What is counted", "phase of the object (radian)", "intensity"
        right = Panel(counts, *words, y_range=(-1.1, 3.1))
        weak = 1.0 - 2.0 * phase * turn.imag
        says = f"Intensity {abs(total) ** 2:.3f}; the weak phase approximation: {weak:.3f}."
        return Plot((left, right), says)

    phases = Slider("phase of the object (radian)", (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1))
    turns = Slider("further turn (degrees)", range(-90, 91, 15), 0)
    explore(arrows, phase=phases, turn_degrees=turns)
    return


@app.cell
def _():
    mo.md(r"""
    ## Defocus turns the arrow

    What turns the scattered wave against the other? Going out of focus does. A wave of period $d = 1/s$ in the plane
    travels at the angle $\lambda s$ to the axis. Over a distance $\Delta z$ along the axis it gains less phase than
    the wave that goes straight: its wave vector along $z$ is
    $\sqrt{1/\lambda^2 - s^2} \approx 1/\lambda - \lambda s^2 / 2$ turns per ångström. The difference over $\Delta z$
    is $\pi \lambda \Delta z\, s^2$ radian. An underfocused lens looks at a plane *before* the object's exit side, so
    that it takes this phase back, and

    $$\chi(s) = \pi \lambda\, \Delta z\, s^2 , \qquad
      \hat I(k) = \delta(k) - 2 \sin\,\chi(k)\, \hat\varphi(k) .$$

    A product in Fourier space is a convolution in the image: every weak particle is blurred by the same point-spread
    function. The factor is the contrast transfer function of a perfect lens, and the next chapter adds what real
    lenses do. Our sign: the program leaves out the $-2$, so that particles are bright in underfocus.

    Below is a real protein, adenylate kinase of 24 kDa, at 300 kV, in vacuum. Left its phase; middle the exact image,
    $\lvert\psi\rvert^2 - 1$; right what weak phase leaves out, on the same scale. Move the defocus from 0 upwards:
    the image comes out of nothing, and is dark. Then make the potential three times stronger, which is nearly gold, and
    ten and thirty times, which is thicker than that. Contrast grows first in proportion, then the right panel fills up.
    """)
    return


@app.function
def defocus_phase(box, pixel_size_angstrom, defocus_angstrom, wavelength_angstrom):
    """Return chi = pi lambda dz s^2 on the grid of numpy's transform."""
    k = np.fft.fftfreq(box, pixel_size_angstrom)
    return np.pi * wavelength_angstrom * defocus_angstrom * (k[:, None] ** 2 + k**2)


@app.function
def exact_image(phase, chi):
    """Return the counts of a phase object behind a lens, 1 where there is nothing."""
    wave = np.fft.fft2(np.exp(1j * phase))
    return np.abs(np.fft.ifft2(wave * np.exp(1j * chi))) ** 2


@app.function
def weak_image(phase, chi):
    """Return 1 - 2 phase * F^-1[sin chi], the image linear in the phase."""
    return 1.0 - 2.0 * np.fft.ifft2(np.fft.fft2(phase) * np.sin(chi)).real


@app.function
def protein_phase(box, pixel_size_angstrom):
    """Return the phase, in radian at 300 kV, of adenylate kinase in vacuum."""
    model = example_atoms("adenylate-kinase-open")
    where = torch.as_tensor(model.coordinates_angstrom)
    atoms = GaussianAtoms.from_elements(where, model.elements, 40.0)
    pose = Pose(torch.eye(3).double()[None], torch.zeros(1, 2).double())
    scattering_length = atoms.project(pose, box, pixel_size_angstrom)[0].numpy()
    volt_angstrom2 = constants.h**2 / (2 * np.pi * constants.m_e * constants.e) * 1e20
    return interaction_constant(300.0) * volt_angstrom2 * scattering_length


@app.cell
def _():
    box, pixel = 128, 1.5
    protein = protein_phase(box, pixel)
    wavelength = float(electron_wavelength_angstrom(torch.tensor(300.0).double()))

    def seen(defocus_um, strength):
        phase = strength * protein
        chi = defocus_phase(box, pixel, 1e4 * defocus_um, wavelength)
        exact, weak = exact_image(phase, chi), weak_image(phase, chi)
        extent, most = (-48.0, 48.0, 48.0, -48.0), max(1e-6, np.abs(exact - 1).max())
        contrast, left_out = (exact - 1).std(), (exact - weak).std()
        share = 100 * left_out / contrast if defocus_um else 0.0

        def panel(title, image, limits):
            heat = Heat(image[32:96, 32:96], extent, limits is not None, limits)
            return Panel((heat,), title, "x (Å)", "y (Å)", equal=True)

        shown = (
            panel("Phase of the object", phase, None),
            panel("Exact image - 1", exact - 1, (-most, most)),
            panel("Exact - weak phase", exact - weak, (-most, most)),
        )
        says = f"Largest phase {phase.max():.2f} radian, contrast {100 * contrast:.2f} % rms"
        return Plot(shown, f"{says}; weak phase leaves out {share:.0f} % of it.")

    defoci = Slider("defocus (µm)", (0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0), 0.4)
    strengths = Slider("potential, times that of protein", (1, 3, 10, 30), 1)
    explore(seen, defocus_um=defoci, strength=strengths)
    return


@app.cell
def _():
    mo.md(r"""
    ## Why the potential may be added up along z

    The integral over $z$ took a straight path: what the atom at the top did to the wave is said to stay at its $x$
    and $y$ until the bottom. That is the **projection approximation**. The wave spreads, though. Over a thickness $T$
    a detail of period $d$ moves sideways by $T \lambda / d$, and that must be small against $d$. So the rule of thumb
    is $T \ll d^2 / \lambda$: 457 Å for 3 Å at 300 kV.

    More exactly, for a weak object: a layer at the height $h$ has its own defocus $\Delta z + h$. Take the mean of
    the CTF over layers from $-T/2$ to $T/2$:

    $$\frac{1}{T} \int_{-T/2}^{T/2} \sin\!\left(\pi\lambda(\Delta z + h) s^2\right)
      \mathrm{d}h = \sin(\pi \lambda \Delta z\, s^2)\;
      \frac{\sin\,u}{u}, \qquad u = \tfrac{1}{2}\pi \lambda\, T s^2 .$$

    (Write the sine of the sum as two products; the part odd in $h$ drops out.) The factor $\sin\,u / u$ is what a
    detail spread evenly over all heights loses in an image whose CTF is taken at the middle. It is one half at
    $u = 1.895$. See where that is for your particle: 100 to 200 Å cost little at 3 Å; of a virus of 700 Å a quarter
    is left. A lower voltage makes it worse, for the wave is longer.
    """)
    return


@app.function
def thickness_factor(frequency, thickness_angstrom, wavelength_angstrom):
    """Return sin(u) / u with u = pi lambda T s^2 / 2."""
    return np.sinc(wavelength_angstrom * thickness_angstrom * frequency**2 / 2.0)


@app.cell
def _():
    def layers(thickness_angstrom, voltage_kv):
        kv = torch.tensor(voltage_kv).double()
        wavelength = float(electron_wavelength_angstrom(kv))
        s = np.linspace(0.0, 0.6, 200)
        half = np.sqrt(np.pi * wavelength * thickness_angstrom / 2 / 1.895494)
        factor = thickness_factor(s, thickness_angstrom, wavelength)
        marks = (Line(s, factor), Points([1 / half], [0.5], "half is left"))
        words = "What is left", "spatial frequency (1/Å)", "factor"
        says = (
            f"{thickness_angstrom} Å at {voltage_kv} kV: half is left at {half:.2f} Å"
        )
        return Plot((Panel(marks, *words, (0.0, 0.6), (-0.3, 1.05)),), says)

    thicknesses = Slider("thickness (Å)", (50, 100, 200, 300, 500, 700, 1000), 200)
    voltages = Slider("voltage (kV)", (100, 200, 300), 300)
    explore(layers, thickness_angstrom=thicknesses, voltage_kv=voltages)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"Particles are invisible although the focus is perfect."* Because it is. A single particle needs defocus, or a
      phase plate that turns the arrow instead (*Aberrations and phase plates*).
    - *"My particles are bright, those of others are dark."* Overfocus, or an image that was multiplied by -1. Both
      change the sign of $\sin\,\chi$ at low frequency. Programs turn the sign once, at extraction, so that particles
      are white; done twice, the map is inverted.
    - *"Around gold beads the model is wrong."* Heavy or thick things are no weak phase objects: their phase exceeds a
      radian, and what is quadratic in it makes contrast of its own. A fit that uses such pixels is biased.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "A membrane protein is 60 Å thick and on average 3.4 V above ice. At 100 kV, by how much does it turn the wave? The interaction constant is 0.924 mrad per volt and Å.",
        interaction_constant(100.0) * 3.4 * 60.0,
        tolerance=0.003,
        unit="radian",
        hint="Multiply the three numbers, and mind the milli.",
        explanation="0.19 radian, against 0.13 at 300 kV: slow electrons have more time to be turned. Contrast is what low voltages are good for.",
    )
    return


@app.cell
def _():
    exercise(
        r"A particle fills its thickness evenly. What thickness loses half of the detail of 3 Å at 300 kV ($\lambda = 0.0197$ Å)?",
        1.895494 * 2.0 / np.pi * 3.0**2 / 0.0196875,
        tolerance=8.0,
        unit="Å",
        hint=r"Solve $\tfrac12 \pi \lambda T s^2 = 1.895$ for $T$, with $s = 1/3$.",
        explanation="552 Å. The rule of thumb gave 457 Å: it has the right size and no more.",
    )
    return


@app.cell
def _():
    choose(
        "The defocus is set from +1 µm to -1 µm, all else the same. How does the image of a weak phase object change?",
        (
            "It vanishes.",
            "Every pixel's difference from the background changes its sign.",
            "It stays the same, for only the square of the wave is counted.",
        ),
        1,
        hint=r"What becomes of $\sin\,\chi$ when $\chi$ becomes $-\chi$?",
        explanation=r"The sine is odd: $1 - 2\varphi\sin\,\chi$ becomes $1 + 2\varphi\sin\,\chi$.",
    )
    return


@app.function
def test_interaction_constant():
    """Kirkland's table, four digits; 2 pi m e lambda / h^2, whose lambda is good to 1e-5."""
    for kv, milli in ((100.0, 0.9244), (200.0, 0.7288), (300.0, 0.6526)):
        sigma = interaction_constant(kv)
        assert abs(1e3 * sigma - milli) < 6e-5
        gamma = 1.0 + kv * 1e3 * constants.e / (constants.m_e * constants.c**2)
        metre = 1e-10 * float(electron_wavelength_angstrom(torch.tensor(kv).double()))
        other = 2 * np.pi * gamma * constants.m_e * constants.e * metre / constants.h**2
        assert abs(1e-10 * other / sigma - 1.0) < 1e-5


@app.function
def test_images_of_a_phase_grating():
    """First harmonic of exp(i e cos): -2 J1(2 e sin chi), but for rounding (Guigay 1977)."""
    box, side, wavelength, defocus = 64, 16.0, 0.02, 3000.0
    wave = np.tile(np.cos(2 * np.pi * np.arange(box) / box), (box, 1))
    chi = defocus_phase(box, side / box, defocus, wavelength)
    sine = np.sin(np.pi * wavelength * defocus / side**2)
    for strength in (0.02, 0.5, 2.0):
        harmonic = 2 * (exact_image(strength * wave, chi) * wave).mean()
        assert abs(harmonic + 2 * j1(2 * strength * sine)) < 1e-12
        linear = 2 * (weak_image(strength * wave, chi) * wave).mean()
        assert abs(linear + 2 * strength * sine) < 1e-12
        assert np.abs(exact_image(strength * wave, 0 * chi) - 1).max() < 1e-12


@app.function
def test_thickness_factor_is_a_mean_over_layers():
    """A mean over 2,000 layers (midpoint rule: better than 1e-6 here)."""
    s, wavelength, thickness, defocus = 0.31, 0.02, 600.0, 4000.0
    height = (np.arange(2000) + 0.5) / 2000 * thickness - thickness / 2
    mean = np.sin(np.pi * wavelength * (defocus + height) * s**2).mean()
    factor = thickness_factor(s, thickness, wavelength)
    assert abs(mean - factor * np.sin(np.pi * wavelength * defocus * s**2)) < 1e-6
    assert abs(np.sinc(1.895494 / np.pi) - 0.5) < 1e-6


@app.cell
def _():
    source(interaction_constant, exact_image, weak_image, protein_phase)
    return


@app.cell
def _():
    closing(
        "weak_phase",
        library=["cryoinfer.physics.structures.atoms.GaussianAtoms.project"],
        sources=[
            "E. J. Kirkland 2010, Advanced Computing in Electron Microscopy, chapters 2 to 5.",
            "J. P. Guigay 1977, Fourier transform analysis of Fresnel diffraction patterns and in-line holograms, Optik 49.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
