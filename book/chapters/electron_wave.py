import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy import constants

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
    opening("electron_wave")
    return


@app.cell
def _():
    mo.md(r"""
    ## A wave with an energy

    An electron, of mass $m$ and charge $e$, that falls through a voltage $V$ gains the
    energy $eV$. Relativity ties that energy to a momentum $p$, and de Broglie ties a
    momentum to a wavelength, $\lambda = h/p$, with Planck's constant $h$. (Elsewhere $V$ is
    a map and $p$ a pixel size.) With the speed of light $c$, the total energy is the energy at rest plus what was gained:

    $$(m c^2 + eV)^2 = (p c)^2 + (m c^2)^2 .$$

    Multiply out and divide by $c^2$: $p^2 = 2 m e V + (eV/c)^2$. Hence the
    **de Broglie wavelength** of a fast electron,

    $$\lambda = \frac{h}{\sqrt{2 m e V \left(1 + \frac{eV}{2 m c^2}\right)}} .$$

    The bracket is relativity's part. At 300 kV the electron has gained
    $eV / m c^2 = 0.587$ of its rest energy, the bracket is 1.29, and the wave
    is 12 % shorter than Newton would have it. That is far more than any CTF forgives
    (*The contrast transfer function*).

    With $\gamma = 1 + eV / m c^2$, which is 1.587 at 300 kV, the speed is
    $v = c \sqrt{1 - 1/\gamma^2}$.
    """)
    return


@app.function
def wavelength_angstrom(voltage_kv):
    """Return the wavelength as the program computes it."""
    kv = torch.as_tensor(np.asarray(voltage_kv, dtype=float))
    return electron_wavelength_angstrom(kv).numpy()


@app.function
def speed_over_c(voltage_kv):
    """Return an electron's speed over that of light.

    The energy is gamma m c^2 with gamma = 1 / sqrt(1 - v^2 / c^2).
    """
    rest_kv = constants.m_e * constants.c**2 / constants.e / 1000.0
    gamma = 1.0 + np.asarray(voltage_kv) / rest_kv
    return np.sqrt(1.0 - 1.0 / gamma**2)


@app.function
def newtonian_wavelength_angstrom(voltage_kv):
    """Return the wavelength without relativity, h / sqrt(2 m e V)."""
    volts = np.asarray(voltage_kv) * 1000.0
    momentum = np.sqrt(2.0 * constants.m_e * constants.e * volts)
    return constants.h / momentum * 1e10


@app.cell
def _():
    def waves(voltage_kv):
        kv = np.linspace(20.0, 400.0, 120)
        here = wavelength_angstrom(voltage_kv)
        left = Panel(
            (
                Line(kv, wavelength_angstrom(kv), "relativity"),
                Line(kv, newtonian_wavelength_angstrom(kv), "Newton"),
                Line([voltage_kv, voltage_kv], [0.0, here], dashed=True),
            ),
            title="Wavelength",
            x="voltage (kV)",
            y="wavelength (Å)",
            y_range=(0.0, 0.09),
        )
        right = Panel(
            (
                Line(kv, speed_over_c(kv), "relativity"),
                Line(kv, np.sqrt(2.0 * kv / 510.999), "Newton"),
                Line(
                    [voltage_kv, voltage_kv],
                    [0.0, speed_over_c(voltage_kv)],
                    dashed=True,
                ),
            ),
            title="Speed",
            x="voltage (kV)",
            y="speed / speed of light",
            y_range=(0.0, 1.3),
        )
        return Plot(
            (left, right),
            says=f"At {voltage_kv:.0f} kV the wavelength is {here:.5f} Å and the speed "
            f"{speed_over_c(voltage_kv):.4f} c; Newton would say "
            f"{newtonian_wavelength_angstrom(voltage_kv):.5f} Å.",
        )

    explore(waves, voltage_kv=Slider("voltage (kV)", range(20, 401, 10), start=300))
    return


@app.cell
def _():
    source(electron_wavelength_angstrom, speed_over_c)
    return


@app.cell
def _():
    mo.md(r"""
    ## Short, but not the limit

    A wave of 0.02 Å could show things a hundred times smaller than an atom. It does not,
    because lenses for electrons are poor: only rays within about 0.01 radian of the axis
    are brought together well. A detail of period $d$ sends electrons off by the angle
    $\theta \approx \lambda / d$. A lens of half-angle $\alpha$ passes periods down to
    $\lambda / \alpha$, here 2 Å. What the short wave buys is another thing: scattering
    angles are small, 0.4 degrees for 3 Å. The slice of Fourier space that an image shows
    (*The slice theorem*) is therefore nearly flat (*The Ewald sphere* asks how nearly).

    ## How lonely an electron is

    Interference is what a microscope works by. Yet electrons hardly meet each other in it.
    A beam of $j$ electrons per second and Å$^2$ over a lit area $a$ is a current of
    $j a$ electrons per second. At the speed $v$ they follow each other at the mean distance
    $v / (j a)$. Move the sliders: with 10 electrons per second and pixel of 1 Å$^2$, and
    a lit disc of 1 µm diameter, there are 29.6 cm between one electron and the next. How
    long is the wave of one? With energies that spread by $\Delta E$ it is a train of the
    length $v h / \Delta E$, and 0.7 eV, a common value, make 1.4 µm. Electrons come at
    random times, but even at a mean distance of 1 cm only one train in 7,000 overlaps the
    one before. So each electron interferes with itself alone: an image is the sum of many single
    experiments, which is why *Counting electrons* may treat them as independent.
    """)
    return


@app.function
def mean_distance_m(voltage_kv, dose_rate, diameter_um):
    """Return how far apart electrons follow each other, in metres.

    Parameters: kV; electrons per second and square angstrom; diameter of the lit disc.
    """
    area_square_angstrom = np.pi * (diameter_um * 1e4 / 2.0) ** 2
    per_second = dose_rate * area_square_angstrom
    return speed_over_c(voltage_kv) * constants.c / per_second


@app.cell
def _():
    def column(dose_rate, diameter_um):
        kv = np.linspace(60.0, 300.0, 60)
        apart_cm = 100.0 * mean_distance_m(kv, dose_rate, diameter_um)
        now = 100.0 * mean_distance_m(300.0, dose_rate, diameter_um)
        return Plot(
            (
                Panel(
                    (
                        Line(kv, apart_cm, "mean distance"),
                        Line(
                            kv, np.full_like(kv, 200.0), "a column of 2 m", dashed=True
                        ),
                    ),
                    title="From one electron to the next",
                    x="voltage (kV)",
                    y="distance (cm)",
                    y_range=(1e-3, 1e4),
                    log_y=True,
                ),
            ),
            says=f"At 300 kV one electron is {now:.3g} cm behind the other: on average "
            f"{200.0 / now:.3g} of them are in a column of 2 m.",
        )

    explore(
        column,
        dose_rate=Slider("electrons per second and Å²", (0.1, 0.3, 1, 3, 10, 30), 10),
        diameter_um=Slider("diameter of the lit disc (µm)", (0.3, 0.5, 1, 2, 3), 1),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"My CTF fit is off by a constant factor in defocus."* The phase of the CTF has
      $\lambda \Delta z\, s^2$ in it. With a voltage of 200 kV in the file of a 300 kV
      microscope, $\lambda$ is 27 % too long, and every fitted defocus 21 % too small. The
      fit looks perfect near the centre and drifts apart at high frequency, where
      the spherical aberration, with its $\lambda^3$, no longer follows.
    - *The square of* $\gamma$ *is forgotten.* Written $v = c\sqrt{1 - 1/\gamma}$ the speed at 300 kV
      would be 0.608 $c$; it is 0.777 $c$. It has been seen in teaching
      material.
    - *Units.* $e$, $h$ and $m$ in SI give metres; one ångström is $10^{-10}$ m. Programs
      write $\lambda = 12.2639 / \sqrt{V + 0.97845 \times 10^{-6}\, V^2}$ in Å with $V$ in
      volts: the same formula with its constants multiplied out.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "Voltages of 100, 200 and 300 kV are common. How many times longer is the wave at "
        "100 kV than at 300 kV?",
        wavelength_angstrom(100.0) / wavelength_angstrom(300.0),
        tolerance=0.02,
        hint=r"Without relativity it would be $\sqrt 3 = 1.73$. Read both off the first "
        "figure.",
        explanation="0.0370 Å over 0.0197 Å: more than the square root of 3, since "
        "relativity shortens the faster one more.",
    )
    return


@app.cell
def _():
    exercise(
        "By how many degrees is a 300 kV electron deflected by a detail of 2 Å period?",
        np.degrees(wavelength_angstrom(300.0) / 2.0),
        tolerance=0.02,
        unit="degrees",
        hint=r"The angle is $\lambda / d$ in radians.",
        explanation="0.0197 / 2 is 9.8 milliradians, or 0.56 degrees: nearly straight on.",
    )
    return


@app.cell
def _():
    choose(
        "The lit disc is made twice as wide, at the same dose rate. What becomes of the mean "
        "distance between electrons?",
        (
            "It is halved.",
            "It is a quarter.",
            "It stays, for the dose rate is the same.",
        ),
        1,
        hint="How many more electrons a second cross the larger disc?",
        explanation="The area, and so the current, is four times larger.",
    )
    return


@app.function
def test_known_numbers():
    """Wavelengths and speed from CODATA constants (relative 1e-5: the digits given)."""
    # The length of a train at 0.7 eV, to the two digits of the text.
    speed = speed_over_c(300.0) * constants.c
    assert abs(speed * constants.h / (0.7 * constants.e) - 1.4e-6) < 0.05e-6
    for kv, wavelength in ((100.0, 0.0370144), (200.0, 0.0250793), (300.0, 0.0196875)):
        assert abs(wavelength_angstrom(kv) / wavelength - 1.0) < 1e-5
    assert abs(speed_over_c(300.0) - 0.7765) < 5e-5
    # Newton and relativity agree where the electron is slow: 1 kV is 1/511 of m c^2, and
    # the bracket's root half of half of that.
    slow = wavelength_angstrom(1.0) / newtonian_wavelength_angstrom(1.0)
    assert abs(slow - 1.0 + 1.0 / 511.0 / 4.0) < 1e-5


@app.cell
def _():
    closing(
        "electron_wave",
        library=["cryoinfer.physics.ctf.electron_wavelength_angstrom"],
        sources=[
            "L. de Broglie 1925, Recherches sur la théorie des quanta, Annales de Physique.",
            "E. J. Kirkland 2010, Advanced Computing in Electron Microscopy, chapter 2.",
            "CODATA 2018 constants, as scipy.constants has them.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
