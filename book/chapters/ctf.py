import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    from dataclasses import replace

    import marimo as mo
    import numpy as np
    import torch

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
    from cryoinfer.physics.ctf import electron_wavelength_angstrom, evaluate_ctf
    from cryoinfer.records import Optics

    WAVE_ANGSTROM = float(electron_wavelength_angstrom(torch.tensor(300.0).double()))


@app.cell
def _():
    opening("ctf")
    return


@app.cell
def _():
    mo.md(r"""
    ## What the lens adds to the phase

    Transform a micrograph and look at the power: bright and dark rings. Details of some sizes are in the picture,
    details of other sizes are missing, and of every second ring light and dark are exchanged. All of it follows from
    one angle.

    In *Weak phase objects* the scattered wave had to be turned by an angle $\chi$ to be seen, and the image was
    linear: $\hat I = \delta - 2 \sin\,\chi\;\hat\varphi$. What turns it is the lens. A wave of frequency $s$ goes
    through it at the angle $\alpha = \lambda s$ to the axis. Let $W(\alpha)$ be the extra length of its path. A slope
    of $W$ bends rays: seen from the object, a ray seems to come from a point that is off by
    $\mathrm{d}W/\mathrm{d}\alpha$.

    - Out of focus by $\Delta z$, it is off by $\Delta z\, \alpha$, so $W = \Delta z\, \alpha^2 / 2$.
    - A round lens is too strong at its rim; Scherzer proved that no round lens of steady fields can avoid it. The ray
      is off by $C_s \alpha^3$, so $W = C_s \alpha^4 / 4$. $C_s$ is the **spherical aberration**, in length about the
      focal length: 1 to 3 mm. Underfocus and $C_s$ act against each other.

    Phases are $2\pi W / \lambda$. Together, positive for underfocus,

    $$\chi(s) = \pi \lambda\, \Delta z\, s^2 - \tfrac{\pi}{2} C_s \lambda^3 s^4 .$$

    ## Some electrons are lost

    A few of the scattered electrons never arrive: they hit an aperture, or lost energy and a filter took them out.
    The wave behind the object is then not $1 + i\varphi$, but $1 + i\varphi - \mu$, a little shorter where there is
    matter. Turn the scattered part by $\chi$ and square:

    $$\lvert 1 + (i\varphi - \mu)\, e^{i\chi}\rvert^2 \approx 1 - 2 \left(\varphi \sin\,\chi + \mu \cos\,\chi \right) .$$

    Both $\varphi$ and $\mu$ come from the same atoms, so take them as proportional:
    $\mu : \varphi = A : \sqrt{1 - A^2}$. The number $A$ is the **amplitude contrast**, 0.07 to 0.1 for proteins in
    ice. What multiplies the transform of the particle is the **contrast transfer function** (CTF),

    $$C(s) = \sqrt{1 - A^2}\, \sin\,\chi + A \cos\,\chi = \sin\left(\chi + \arcsin A\right) .$$

    The program leaves out the factor $-2$: particles are white. Move the defocus and watch the first zero. Then set
    the amplitude contrast to 0 and look at the left end: what is lost is the little that shows the particle as a
    whole. $C_s$ hardly matters until 0.15 / Å.
    """)
    return


@app.function
def ctf_phase(frequency, defocus_angstrom, cs_mm):
    """Return chi in radian at frequencies in 1/angstrom."""
    bent = 0.5 * np.pi * (1e7 * cs_mm) * WAVE_ANGSTROM**3 * frequency**4
    return np.pi * WAVE_ANGSTROM * defocus_angstrom * frequency**2 - bent


@app.function
def ctf(frequency, defocus_angstrom, cs_mm, amplitude_contrast):
    """Return sin(chi + arcsin A)."""
    phase = ctf_phase(frequency, defocus_angstrom, cs_mm)
    return np.sin(phase + np.arcsin(amplitude_contrast))


@app.function
def zeros(count, defocus_angstrom, cs_mm, amplitude_contrast):
    """Return the first zeros, chi = m pi - arcsin A: a quadratic equation for s^2."""
    turns = np.arange(1, count + 1) - np.arcsin(amplitude_contrast) / np.pi
    linear = WAVE_ANGSTROM * defocus_angstrom
    root = np.sqrt(linear**2 - 2e7 * cs_mm * WAVE_ANGSTROM**3 * turns)
    return np.sqrt(2 * turns / (linear + root))


@app.cell
def _():
    def curves(defocus_um, cs_mm, amplitude_contrast):
        s = np.linspace(0.0, 0.35, 400)
        value = ctf(s, 1e4 * defocus_um, cs_mm, amplitude_contrast)
        first = zeros(3, 1e4 * defocus_um, cs_mm, amplitude_contrast)
        marks = (Line(s, value), Points(first, 0 * first, "first zeros"))
        words = "Contrast transfer at 300 kV", "spatial frequency (1/Å)", "C(s)"
        panel = Panel(marks, *words, (0.0, 0.35), (-1.05, 1.05))
        return Plot(
            (panel,), f"First zero at {1 / first[0]:.1f} Å; C(0) = {value[0]:.2f}."
        )

    defoci = Slider("defocus (µm)", (0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0), 1.0)
    aberrations = Slider("spherical aberration (mm)", (0, 1.2, 2.0, 2.7), 2.7)
    contrasts = Slider("amplitude contrast", (0, 0.07, 0.1, 0.2), 0.1)
    explore(curves, defocus_um=defoci, cs_mm=aberrations, amplitude_contrast=contrasts)
    return


@app.cell
def _():
    mo.md(r"""
    ## A lens that is not round

    A lens is never quite round, so the defocus depends on the direction $\alpha$ in the image. To the first order it
    does so as a wave with two crests around the circle:

    $$\Delta z(\alpha) = \tfrac12 (u + v) + \tfrac12 (u - v) \cos 2(\alpha - \alpha_0) .$$

    $u$ is the defocus along the direction $\alpha_0$, and $v$ that across it; their difference is the
    **astigmatism**. Rings become ellipses: where the defocus is larger, rings are closer. A few hundred ångström are
    harmless if they are known. If they are not, the rings of the model and those of the image part company where
    $\pi\lambda (u - v) s^2 / 2$ reaches a radian or so. Find that frequency in the figure, for 1,000 Å.
    """)
    return


@app.function
def particle_ctf(box, pixel_size_angstrom, u_angstrom, v_angstrom, angle_radian):
    """Return the library's CTF (2.7 mm, A = 0.1) on a centred grid, rows along y."""
    names = "cs_mm", "amplitude_contrast", "defocus_u_angstrom", "defocus_v_angstrom"
    names = *names, "defocus_angle_radian"
    values = np.array([2.7, 0.1, u_angstrom, v_angstrom, angle_radian])
    fields = dict(zip(names, torch.from_numpy(values)[:, None], strict=True))
    optics = replace(Optics.without_ctf(1, pixel_size_angstrom), **fields)
    k = torch.as_tensor(np.fft.fftshift(np.fft.fftfreq(box, pixel_size_angstrom)))
    y, x = torch.meshgrid(k, k, indexing="ij")
    values = evaluate_ctf(optics, x.flatten(), y.flatten())
    return values.reshape(box, box).numpy()


@app.cell
def _():
    def rings(mean_um, difference, angle):
        u, v = 1e4 * mean_um + difference / 2, 1e4 * mean_um - difference / 2
        image = particle_ctf(64, 2.5, u, v, np.radians(angle))
        heat = Heat(image, (-0.2, 0.2, 0.2, -0.2), True, (-1.0, 1.0))
        words = "C(k) to 5 Å", "k_x (1/Å)", "k_y (1/Å)"
        lost = np.sqrt(np.pi * WAVE_ANGSTROM * max(difference, 1) / 2)
        says = f"u {u:.0f} Å, v {v:.0f} Å; the mean alone is off by a radian at {lost:.1f} Å."
        return Plot((Panel((heat,), *words, equal=True),), says)

    means = Slider("mean defocus (µm)", (0.5, 0.8, 1.2), 0.8)
    differences = Slider("astigmatism u - v (Å)", (0, 500, 1000, 2000, 4000), 1000)
    angles = Slider("direction of u (degrees)", (0, 30, 60, 90, 135), 30)
    explore(rings, mean_um=means, difference=differences, angle=angles)
    return


@app.cell
def _():
    mo.md(r"""
    ## Envelopes

    Rings do not go on for ever. Electrons come with slightly different energies and directions, each makes its own
    image, and the detector adds the images up. An oscillation averaged over its phase fades: for a phase that is off
    by $\epsilon$, normally distributed, the mean of $e^{i (\chi + \epsilon)}$ is
    $e^{-\langle \epsilon^2 \rangle / 2}\, e^{i\chi}$. So each kind of spread multiplies the CTF by an **envelope**.

    - Energies. A lens focuses slow electrons more strongly: the defocus of each electron is off, by $\delta$ in the
      rms, which is about $C_c$ (2 to 3 mm) times the relative spread of energies. From
      $\epsilon = \pi \lambda s^2\, \delta z$ comes $E_t = \exp\left(-\tfrac12 (\pi \lambda \delta s^2)^2\right)$.
    - Directions. An electron that comes in at the angle $\theta$ makes a shifted image: a factor $e^{i\epsilon}$ with
      $\epsilon = \chi'(s)\, \theta / \lambda$. If the rms of $\theta$ along $k$ is $\theta_0$, then
      $E_s = \exp\left(-2\pi^2 \theta_0^2 (\Delta z\, s - C_s \lambda^2 s^3)^2\right)$.
    - All the rest, such as motion and damage, is often put together as a Gaussian $e^{-B s^2/4}$, which the program
      has as the B-factor of a particle.

    Which envelope depends on the defocus? That is why defocus costs resolution, and costs less with a field emission
    gun, whose beam is nearly parallel.
    """)
    return


@app.function
def envelope(s, spread_angstrom, angle_mrad, defocus_angstrom):
    """Return the factor for rms spreads of the defocus and of directions, Cs 2.7 mm."""
    energies = np.pi * WAVE_ANGSTROM * spread_angstrom * s**2
    blur = defocus_angstrom * s - 2.7e7 * WAVE_ANGSTROM**2 * s**3
    directions = 2 * np.pi * 1e-3 * angle_mrad * blur
    return np.exp(-0.5 * (energies**2 + directions**2))


@app.cell
def _():
    def fading(defocus_um, spread_angstrom, angle_mrad):
        s = np.linspace(0.0, 0.6, 500)
        energy = envelope(s, spread_angstrom, 0.0, 1e4 * defocus_um)
        directions = envelope(s, 0.0, angle_mrad, 1e4 * defocus_um)
        both = energy * directions
        marks = (
            Line(s, ctf(s, 1e4 * defocus_um, 2.7, 0.1) * both, "CTF"),
            Line(s, energy, "energies", dashed=True),
            Line(s, directions, "directions", dashed=True),
        )
        words = "With envelopes", "spatial frequency (1/Å)", "C(s)"
        panel = Panel(marks, *words, (0.0, 0.6), (-1.05, 1.05))
        return Plot((panel,), f"At 2 Å they leave {np.interp(0.5, s, both):.2f}.")

    spreads = Slider("spread of defocus, rms (Å)", (0, 20, 40, 80), 40)
    tilts = Slider("spread of directions, rms (mrad)", (0, 0.01, 0.03, 0.1), 0.01)
    depths = Slider("defocus (µm)", (0.5, 1.0, 2.0), 1.0)
    explore(fading, defocus_um=depths, spread_angstrom=spreads, angle_mrad=tilts)
    return


@app.cell
def _():
    mo.md(r"""
    ## A CTF learned from images

    Suppose that the formula were not known, but the particle were: pairs of a projection $f_i$ and its image $y_i$
    with noise. Then the CTF can be learned, frequency by frequency. In a ring
    $\hat y_i = C\, \hat f_i + \text{noise}$ is a straight line through the origin, and its slope by least squares is

    $$\hat C(s) = \frac{\sum \operatorname{Re}\, \hat y_i\, \overline{\hat f_i}}{\sum \lvert \hat f_i\rvert^2} ,
      \qquad \text{error } \frac{\sigma}{\sqrt{\textstyle\sum \lvert \hat f_i \rvert^2}} ,$$

    summed over images and the ring, with $\sigma^2$ the noise power of a coefficient. (Only half of it is in the real
    part, but each coefficient stands in the ring twice, the second time as its conjugate.) Move the number of images:
    the points scatter less, by the square root. They scatter most at high frequency, where particles have little to
    show.
    """)
    return


@app.function
def learned_ctf(images, noise, box=64, pixel_size_angstrom=1.5):
    """Return frequencies of rings, and the CTF learned there, at 0.5 um."""
    random = np.random.default_rng(5)
    k = np.fft.fftfreq(box, pixel_size_angstrom)
    s = np.hypot(k[:, None], k)
    fall = np.exp(-25.0 * s**2)  # amplitudes of a particle fall with frequency
    true = ctf(s, 5000.0, 2.7, 0.1)
    ring = np.rint(s * box * pixel_size_angstrom).astype(int)
    upper, lower = np.zeros(box), np.zeros(box)
    for _ in range(images):
        f = np.fft.fft2(random.standard_normal((box, box))) * fall
        y = true * f + noise * np.fft.fft2(random.standard_normal((box, box)))
        upper += np.bincount(ring.ravel(), (y * f.conj()).real.ravel(), box)
        lower += np.bincount(ring.ravel(), (np.abs(f) ** 2).ravel(), box)
    rings = np.arange(1, box // 2)
    return rings / (box * pixel_size_angstrom), upper[rings] / lower[rings]


@app.cell
def _():
    def learning(images, noise):
        s, found = learned_ctf(images, noise)
        fine = np.linspace(0.0, 0.33, 200)
        true = ctf(fine, 5000.0, 2.7, 0.1)
        marks = (Line(fine, true, "the formula"), Points(s, found, "learned"))
        words = "Learned at 0.5 µm", "spatial frequency (1/Å)", "C(s)"
        off = np.std(found - np.interp(s, fine, true))
        panel = Panel(marks, *words, y_range=(-2.0, 2.0))
        return Plot((panel,), f"The points are off by {off:.3f} rms.")

    counts = Slider("images", (1, 3, 10, 30, 100), 10)
    noises = Slider("noise over signal at frequency 0", (0.3, 1.0, 3.0), 1.0)
    explore(learning, images=counts, noise=noises)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"The rings of my simulation have the wrong spacing."* Frequencies are $k / (N p)$: divided by the pixel size.
      Multiplied by it, as has happened in published code, they are off by $p^2$, which nobody notices at $p = 1$ Å.
    - *"The map is hollow or inverted."* Two conventions live side by side: $+A$ or $-A$ at frequency zero. Convert
      the sign of the CTF and of the image together, never one alone.
    - *"Sharp images, no high resolution."* Changing signs where $C < 0$ is **phase flipping**. It puts details in
      place, but zeros stay zeros, and a model of such images must use $\lvert C \rvert$.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        r"At 300 kV ($\lambda = 0.0197$ Å), 1 µm of defocus, and without amplitude contrast or spherical aberration: what period has the first zero?",
        1 / zeros(1, 1e4, 0.0, 0.0)[0],
        tolerance=0.2,
        unit="Å",
        hint=r"The first zero is where $\lambda \Delta z s^2 = 1$.",
        explanation=r"$\sqrt{0.0197 \times 10000} = 14.0$ Å. It scales with the root of the defocus.",
    )
    return


@app.cell
def _():
    exercise(
        "The defocus spreads by 40 Å rms because of the energies. What is left at 2 Å, 300 kV?",
        envelope(0.5, 40.0, 0.0, 1e4),
        tolerance=0.02,
        hint=r"Compute $\pi \lambda \delta s^2$ first; it is 0.62 radian.",
        explanation=r"$e^{-0.62^2/2} = 0.83$, at any defocus: this envelope does not depend on it.",
    )
    return


@app.cell
def _():
    choose(
        "Images are taken at many defoci instead of one. What is that good for?",
        (
            "Each frequency that is zero in one image is seen in others.",
            "Noise is lower at high defocus.",
        ),
        0,
        hint="Where are the zeros of 1.0 µm and of 1.5 µm in the first figure?",
        explanation="Zeros move with the defocus. Weighted by their CTF, the images fill in for each other.",
    )
    return


@app.function
def test_known_zeros():
    """1.5 um, Cs 2 mm, A 0.1, 300 kV: five digits are given, so half of the last one."""
    found = zeros(5, 15000.0, 2.0, 0.1)
    known = [0.05728, 0.08171, 0.10038, 0.11612, 0.12999]
    assert np.abs(found - known).max() < 6e-6
    assert np.abs(ctf(found, 15000.0, 2.0, 0.1)).max() < 1e-12


@app.function
def test_chapter_and_library_agree():
    """The same formula twice, in float64: rounding alone differs, of some 100 radian."""
    k = np.fft.fftshift(np.fft.fftfreq(32, 1.5))
    there = particle_ctf(32, 1.5, 2e4, 1.8e4, 0.4)
    around = np.arctan2(k[:, None], k[None, :])
    defocus = 1.9e4 + 1e3 * np.cos(2 * (around - 0.4))
    here = ctf(np.hypot(k[:, None], k), defocus, 2.7, 0.1)
    assert np.abs(here - there).max() < 1e-9


@app.function
def test_envelopes_are_means():
    """Means over a normal distribution by Gauss-Hermite sums: exact to 1e-9 here."""
    node, weight = np.polynomial.hermite_e.hermegauss(40)
    weight, s, tilt = weight / weight.sum(), 0.35, 2e-5
    mean = weight @ ctf(s, 1e4 + 60.0 * node, 2.7, 0.1)
    assert abs(mean - ctf(s, 1e4, 2.7, 0.1) * envelope(s, 60.0, 0.0, 1e4)) < 1e-9
    step = 1e-5  # a difference for chi', whose error is of the order of step^2
    slope = (ctf_phase(s + step, 1e4, 2.7) - ctf_phase(s - step, 1e4, 2.7)) / (2 * step)
    phase = ctf_phase(s, 1e4, 2.7) + slope * tilt / WAVE_ANGSTROM * node
    expected = np.sin(phase.mean()) * envelope(s, 0.0, 1e3 * tilt, 1e4)
    assert abs(weight @ np.sin(phase) - expected) < 1e-6


@app.cell
def _():
    source(ctf_phase, ctf, zeros, particle_ctf, envelope, learned_ctf)
    return


@app.cell
def _():
    closing(
        "ctf",
        library=["cryoinfer.physics.ctf.evaluate_ctf", "cryoinfer.records.Optics"],
        sources=[
            "O. Scherzer 1936, Über einige Fehler von Elektronenlinsen, Zeitschrift für Physik.",
            "learn_cryoem_math (Woollard), notebook learn_the_ctf.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
