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
    opening("ctf_aliasing")
    return


@app.cell
def _():
    mo.md(r"""
    ## The CTF has a local period

    Cut particles out at a large defocus and in a tight box, and the reconstruction stops at 4 Å, however many there
    are. Nothing looks wrong. The box is too small for the CTF, and that can be computed before the first particle is
    picked.

    The phase of the CTF, $\chi(s) = \pi\lambda\Delta z\, s^2 - \tfrac{\pi}{2} C_s \lambda^3 s^4$, runs ever faster.
    Near a frequency $s$ the CTF looks like a wave in $s$. How many turns does it make per unit of $s$? As many as the
    slope of its phase over $2\pi$:

    $$r(s) = \frac{\chi'(s)}{2\pi} = \lambda\, \Delta z\, s - C_s \lambda^3 s^3 .$$

    Its **local period** is $1 / \lvert r \rvert$, in 1/Å; and $r$ itself is in ångström. An image of $N$ pixels of
    the size $p$ has frequencies $1 / (N p)$ apart. A wave needs two samples in a period (*Sampling and aliasing*). So
    the sampled CTF is right as long as

    $$\lvert r(s) \rvert \le \frac{N p}{2} .$$

    Where the two are equal is the **onset of aliasing**. For 256 pixels of 1.5 Å, 4 µm, $C_s = 2$ mm and 300 kV it is
    at 0.247 / Å, or 4.05 Å, well inside the Nyquist frequency 0.333 / Å.

    Below, the dots are what a box of $N$ pixels knows of the CTF. Make the box smaller and watch the frequencies
    where dots, joined, no longer follow the wave: they make a wave of their own, slower, and later faster again in
    the wrong direction.
    """)
    return


@app.function
def displacement_angstrom(frequency, defocus_angstrom, cs_mm=2.7):
    """Return r(s), the slope of the phase over 2 pi."""
    bent = 1e7 * cs_mm * WAVE_ANGSTROM**3 * frequency**3
    return WAVE_ANGSTROM * defocus_angstrom * frequency - bent


@app.function
def onset(box, pixel_size_angstrom, defocus_angstrom, cs_mm=2.7):
    """Return the lowest frequency at which |r| passes half the box, or infinity."""
    s = np.linspace(0.0, 1.0, 100_001)
    rate = np.abs(displacement_angstrom(s, defocus_angstrom, cs_mm))
    over = rate > box * pixel_size_angstrom / 2
    return s[over.argmax()] if over.any() else np.inf


@app.function
def needed_box_angstrom(
    diameter_angstrom, period_angstrom, defocus_angstrom, cs_mm=2.7
):
    """Return diameter + 2 max |r| over all frequencies up to 1 / period."""
    s = np.linspace(0.0, 1.0 / period_angstrom, 500)
    farthest = np.abs(displacement_angstrom(s, defocus_angstrom, cs_mm)).max()
    return diameter_angstrom + 2.0 * farthest


@app.function
def library_ctf(frequency_x, frequency_y, defocus_angstrom, cs_mm=2.7):
    """Return the library's CTF, A = 0.1, of arrays of any shape."""
    given = {
        "cs_mm": cs_mm,
        "amplitude_contrast": 0.1,
        "defocus_u_angstrom": defocus_angstrom,
        "defocus_v_angstrom": defocus_angstrom,
    }
    fields = {name: torch.tensor([x], dtype=torch.float64) for name, x in given.items()}
    optics = replace(Optics.without_ctf(1, 1.0), **fields)
    x, y = np.broadcast_arrays(frequency_x, frequency_y)
    flat = [torch.as_tensor(one.ravel().copy()).double() for one in (x, y)]
    return evaluate_ctf(optics, *flat).numpy().reshape(x.shape)


@app.cell
def _():
    def sampled(box, defocus_um):
        pixel, low, high = 1.5, 0.18, 0.3
        fine = np.linspace(low, high, 700)
        step = 1 / (box * pixel)
        dots = np.arange(np.ceil(low / step), high / step) * step
        values = library_ctf(dots, 0.0, 1e4 * defocus_um)
        start = onset(box, pixel, 1e4 * defocus_um)
        marks = (
            Line(fine, library_ctf(fine, 0.0, 1e4 * defocus_um), "CTF"),
            Line(dots, values, "samples, joined", dashed=True),
            Points(dots, values),
            Line([min(start, 9), min(start, 9)], [-1.05, 1.05], "onset", dashed=True),
        )
        words = "The CTF and its samples", "spatial frequency (1/Å)", "C(s)"
        panel = Panel(marks, *words, (low, high), (-1.05, 1.05))
        return Plot((panel,), f"Aliasing begins at {start:.3f} / Å, {1 / start:.2f} Å.")

    boxes = Slider("box (pixels of 1.5 Å)", (96, 128, 192, 256, 384), 256)
    defoci = Slider("defocus (µm)", (1, 1.5, 2, 3, 4), 4)
    explore(sampled, box=boxes, defocus_um=defoci)
    return


@app.cell
def _():
    mo.md(r"""
    ## The same in the image: where details go

    $r(s)$ is a length, and it is one that can be seen. Multiply an image by a wave in Fourier space,
    $e^{2\pi i r k}$, and the image moves by $r$ (*Convolution and correlation*). The CTF is a sine, half of
    $e^{i\chi}$ and half of $e^{-i\chi}$, and near a frequency $s$ each of them is such a wave. So details of the
    frequency $s$ move apart by $r(s)$, outwards along their own direction, to both sides. This is **delocalisation**.
    At 1 µm details of 3 Å are 66 Å from where they belong (58 Å with a $C_s$ of 2.7 mm).

    Hence a second reading of the rule. A detail that is displaced by more than half a box is cut off from a particle
    in the middle. If the image is computed in the box, it is not cut off, but comes in again at the other side, for
    the discrete transform is periodic. Either way the model and the image disagree beyond the onset.

    Left is the CTF in a small box, right the image of a single point: the transform of the CTF. With more defocus the
    rings of the point grow until they reach the edge, and at the same moment false centres appear at the rim of the
    left panel. They are the moiré of rings and grid.
    """)
    return


@app.cell
def _():
    def both_spaces(box, defocus_um):
        pixel = 1.5
        k = np.fft.fftfreq(box, pixel)
        values = library_ctf(k[None, :], k[:, None], 1e4 * defocus_um)
        point = np.fft.fftshift(np.fft.ifft2(values).real)
        edge, side = 0.5 / pixel, box * pixel / 2
        across = (-edge, edge, edge, -edge)
        left = Heat(np.fft.fftshift(values), across, True, (-1.0, 1.0))
        most = np.sort(np.abs(point).ravel())[-box // 4]
        right = Heat(point, (-side, side, side, -side), True, (-most, most))
        farthest = np.abs(displacement_angstrom(edge, 1e4 * defocus_um))
        says = f"At the Nyquist frequency details move by {farthest:.0f} Å; half the box is {side:.0f} Å."
        first = Panel((left,), "CTF", "k_x (1/Å)", "k_y (1/Å)", equal=True)
        second = Panel((right,), "A point", "x (Å)", "y (Å)", equal=True)
        return Plot((first, second), says)

    small_boxes = Slider("box (pixels of 1.5 Å)", (48, 64, 96), 64)
    depths = Slider("defocus (µm)", (0.2, 0.4, 0.6, 0.8, 1.2, 1.6, 2.4), 0.4)
    explore(both_spaces, box=small_boxes, defocus_um=depths)
    return


@app.cell
def _():
    mo.md(r"""
    ## How large a box

    A particle of diameter $D$ reaches to $D / 2$, and its details go on from there. All of it is in the box if

    $$N p \ge D + 2 \max_{s \le 1/d} \lvert r(s) \rvert$$

    for the finest period $d$ that is hoped for. The common advice of 1.5 times the diameter is this rule for one
    defocus and one resolution. The maximum is there because $C_s$ bends $r$ back at high frequency, which helps a
    little.

    See in the figure how the needed box grows towards fine details, and that a small particle at high defocus may
    need several times its diameter. Half of what is displaced goes to either side, so that a box that is too small
    loses details gradually, first those of the rim.

    If storage is dear: a large box may be cut out, multiplied by its CTF, which moves most details back, and then
    cropped. Cropping the transform, to larger pixels, keeps $N p$: the onset stays where it is, and the Nyquist
    frequency comes down to meet it.
    """)
    return


@app.cell
def _():
    def boxes_needed(defocus_um, diameter_angstrom):
        period = np.linspace(1.5, 10.0, 120)
        side = [
            needed_box_angstrom(diameter_angstrom, d, 1e4 * defocus_um) for d in period
        ]
        usual = np.full_like(period, 1.5 * diameter_angstrom)
        marks = (
            Line(period, side, "needed"),
            Line(period, usual, "1.5 diameters", dashed=True),
        )
        at_three = needed_box_angstrom(diameter_angstrom, 3.0, 1e4 * defocus_um)
        words = "Side of the box", "finest period (Å)", "N p (Å)"
        says = f"For 3 Å the box is {at_three:.0f} Å wide, {at_three / diameter_angstrom:.1f} diameters."
        return Plot((Panel(marks, *words, (1.5, 10.0), (0, 900)),), says)

    deep = Slider("defocus (µm)", (0.5, 1.0, 1.5, 2.0, 3.0), 1.5)
    sizes = Slider("diameter (Å)", (60, 100, 150, 250), 100)
    explore(boxes_needed, defocus_um=deep, diameter_angstrom=sizes)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"Low-defocus particles give a better map, though there are fewer."* Often not because of envelopes but of the
      box: at 3 µm, details of 3 Å are 190 Å away. Extract again with a larger box before throwing images away.
    - *"There are strange circles in the corners of my CTF image."* Moiré, as above. The numbers there are wrong, not
      merely the picture.
    - *"I padded the images and gained nothing."* Padding after extraction brings no detail back: what was cut off is
      not in the file. Extract anew.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        r"By how much are details of 3 Å displaced at 2 µm and 300 kV ($\lambda = 0.0197$ Å), spherical aberration apart?",
        displacement_angstrom(1 / 3, 2e4, 0.0),
        tolerance=2.0,
        unit="Å",
        hint=r"$r = \lambda\, \Delta z\, s$ with all lengths in Å.",
        explanation=r"$0.0197 \times 20000 / 3 = 131$ Å, more than the radius of a ribosome.",
    )
    return


@app.cell
def _():
    exercise(
        "A particle of 120 Å is to be solved to 3 Å at 2 µm. How many pixels of 1 Å has its box at least, spherical aberration apart?",
        needed_box_angstrom(120.0, 3.0, 2e4, 0.0),
        tolerance=4.0,
        unit="pixels",
        hint="The diameter, and twice the answer before.",
        explanation=r"$120 + 2 \times 131 = 383$ pixels, 3.2 diameters.",
    )
    return


@app.cell
def _():
    choose(
        "At 4 µm a box of 256 pixels of 1.5 Å has its onset at 0.247 / Å. Its transform is cropped to 128 pixels of 3 Å. What now?",
        (
            "The onset moves to 0.123 / Å.",
            "The onset stays at 0.247 / Å, beyond the new Nyquist frequency: nothing aliases.",
            "The onset stays, and half of the frequencies alias.",
        ),
        1,
        hint=r"What is $N p$ before and after? And $1 / (2p)$?",
        explanation=r"$N p = 384$ Å both times. The Nyquist frequency is now 0.167 / Å, lower than the onset.",
    )
    return


@app.function
def test_known_onset():
    """0.247 +- 0.005 1/A for N = 256, 1.5 A, 4 um, Cs 2 mm (published, by the period)."""
    assert abs(onset(256, 1.5, 4e4, 2.0) - 0.247) < 0.005


@app.function
def test_onset_is_where_zeros_are_a_sample_apart():
    """Zeros come from a quadratic equation, not from a slope: the two differ by about
    one distance of zeros, 1 / (N p) = 0.0026."""
    turns = np.arange(1, 60)
    linear, quadratic = WAVE_ANGSTROM * 4e4, 0.5 * 2e7 * WAVE_ANGSTROM**3
    zeros = np.sqrt(2 * turns / (linear + np.sqrt(linear**2 - 4 * quadratic * turns)))
    apart = np.diff(zeros) < 1 / (256 * 1.5)
    assert abs(zeros[apart.argmax()] - onset(256, 1.5, 4e4, 2.0)) < 0.003


@app.function
def test_a_detail_is_displaced_by_r():
    """A wave packet of 4 A behind a defocus of 1 um: its centre of mass to 1 A, a hundredth
    of the packet's length of 100 A. The transform is numpy's, the CTF the library's."""
    n, pixel, s = 1024, 1.0, 0.25
    x = (np.arange(n) - n // 2) * pixel
    packet = np.exp(-0.5 * (x / 50.0) ** 2 + 2j * np.pi * s * x)
    k = np.fft.fftfreq(n, pixel)
    phase = np.arcsin(np.clip(library_ctf(np.array([s]), 0.0, 1e4)[0], -1, 1))
    turn = (
        np.pi * WAVE_ANGSTROM * 1e4 * k**2
        - 0.5e7 * 2.7 * np.pi * WAVE_ANGSTROM**3 * k**4
    )
    moved = np.abs(np.fft.ifft(np.fft.fft(packet) * np.exp(1j * turn))) ** 2
    centre = (moved * x).sum() / moved.sum()
    assert abs(abs(centre) - displacement_angstrom(s, 1e4)) < 1.0
    there = (
        np.pi * WAVE_ANGSTROM * 1e4 * s**2
        - 0.5e7 * 2.7 * np.pi * WAVE_ANGSTROM**3 * s**4
    )
    assert abs(np.sin(phase) - np.sin(there + np.arcsin(0.1))) < 1e-9


@app.cell
def _():
    source(displacement_angstrom, onset, needed_box_angstrom)
    return


@app.cell
def _():
    closing(
        "ctf_aliasing",
        library=["cryoinfer.physics.ctf.evaluate_ctf"],
        sources=[
            "P. B. Rosenthal and R. Henderson 2003, Optimal determination of particle orientation, absolute hand, and contrast loss in single-particle electron cryomicroscopy, Journal of Molecular Biology.",
            "learn_cryoem_math (Woollard), notebook ctf_aliasing.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
