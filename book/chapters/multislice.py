import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import gemmi
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
    from cryoinfer.physics.ctf import electron_wavelength_angstrom
    from cryoinfer.physics.multislice import (
        VOLT_ANGSTROM2,
        Slice,
        WaveGrid,
        exit_wave,
        interaction_constant,
    )
    from cryoinfer.physics.structures.atoms import GaussianAtoms
    from cryoinfer.records import Pose

    BOX = 64


@app.cell
def _():
    opening("multislice")
    return


@app.cell
def _():
    mo.md(r"""
    ## Four models of one experiment

    Two things happen to an electron wave in matter. It gains phase where there are atoms, and it spreads between
    them. Each can be treated simply or properly, which makes four models:

    | | rays go straight | the wave spreads |
    |---|---|---|
    | scattered once at most | weak phase object, a flat slice | single scattering, the Ewald sphere |
    | scattered any number of times | phase object, $e^{i\varphi}$ | **multislice** |

    This chapter computes the lower right corner, and measures what the others lack.

    ## The equation

    Write the wave as a fast plane wave times $\psi(x, y, z)$, which changes slowly. Two facts are known already. In
    vacuum, a component of frequency $s$ loses the phase $\pi\lambda s^2$ per unit of length. Without spreading, the
    phase grows by $\sigma V$ per unit of length. In small steps both hold, and add up:

    $$\frac{\partial \psi}{\partial z} = \frac{i \lambda}{4\pi} \nabla^2 \psi + i \sigma V \psi ,$$

    where $\nabla^2$ acts on $x$ and $y$ and is $-4\pi^2 s^2$ in Fourier space. It is Schrödinger's equation in two
    dimensions with $z$ as the time. The first term is simple in Fourier space, the second in real space. So cut the
    specimen into slices of thickness $h$, and do in turn what is simple:

    1. **transmission** through slice $j$: $\psi \leftarrow \psi\, e^{i \sigma v_j}$, with $v_j$ the potential of the
       slice, integrated over its thickness;
    2. **propagation** to the next: $\hat\psi \leftarrow \hat\psi\, e^{-i \pi \lambda h s^2}$.

    A product of two band-limited functions has twice the band, so both the wave and $e^{i\sigma v}$ lose their
    frequencies above 2/3 of the Nyquist frequency: what the product folds back then falls where it is deleted.

    In the figure a plane wave runs along a column of atoms, one every 4 Å, blurred by B = 2 Å$^2$, so that pixels of
    0.125 Å resolve them. Each atom is a weak lens, and lens stands behind lens, so the wave gathers on the column. Iron
    has its focus after 120 Å at 300 kV, and sooner, after 92 Å, at 100 kV. Carbon would need more than the 240 Å shown.
    Gold shows what happens then: the wave passes its focus at 48 Å, spreads, and comes back to others, at 136 and 224 Å.
    A phase object would have the intensity 1 everywhere.
    """)
    return


@app.function
def wave_and_sigma(voltage_kv):
    """Return lambda (angstrom) and sigma = 2 pi m e lambda / h^2 (1 / (V angstrom))."""
    voltage = torch.tensor(float(voltage_kv)).double()
    both = electron_wavelength_angstrom(voltage), interaction_constant(voltage)
    return tuple(float(one) for one in both)


@app.function
def frequencies(side_x, side_y):
    """Return k_x (a row), k_y (a column) and s^2 on the grid of numpy's transform."""
    k_x, k_y = (np.fft.fftfreq(BOX, side / BOX) for side in (side_x, side_y))
    return k_x, k_y[:, None], k_y[:, None] ** 2 + k_x**2


@app.function
def slice_potential(x, y, element, sides, b_factor=0.0):
    """Return the potential of atoms integrated over z (V angstrom), periodic, (BOX, BOX)."""
    k_x, k_y, squared = frequencies(*sides)
    table = gemmi.Element(element).c4322
    pairs = zip(table.a, table.b, strict=True)
    factor = VOLT_ANGSTROM2 * sum(
        a * np.exp(-(b + b_factor) / 4 * squared) for a, b in pairs
    )
    columns = np.exp(-2j * np.pi * k_x[:, None] * np.asarray(x))
    phases = np.exp(-2j * np.pi * k_y * np.asarray(y)) @ columns.T
    return np.fft.ifft2(factor * phases).real * BOX**2 / np.prod(sides)


@app.function
def multislice(slices, step, sides, voltage_kv, start=1.0):
    """Yield the transform of the wave behind each slice, a step (angstrom) further on."""
    wave, sigma = wave_and_sigma(voltage_kv)
    squared = frequencies(*sides)[2]
    band = squared <= (BOX / 3 / max(sides)) ** 2
    propagator = np.exp(-1j * np.pi * wave * step * squared) * band
    psi = start * np.ones((BOX, BOX), complex)
    for potential in slices:
        phases = np.fft.fft2(np.exp(1j * sigma * potential))
        through = np.fft.ifft2(phases * band)
        transform = propagator * np.fft.fft2(psi * through)
        psi = np.fft.ifft2(transform)
        yield transform


@app.function
def along_a_column(element, voltage_kv, side=8.0):
    """Return the intensity (depth, x) along 60 atoms, one every 4 A, in mid cell."""
    sides = side, side
    atom = slice_potential([side / 2], [side / 2], element, sides, 2.0)
    behind = multislice([atom] * 60, 4.0, sides, voltage_kv)
    return np.array([np.abs(np.fft.ifft2(one)[BOX // 2]) ** 2 for one in behind])


@app.cell
def _():
    def column(element, voltage_kv):
        image = along_a_column(element, voltage_kv)
        heat = Heat(image, (-4.0, 4.0, 240.0, 0.0), limits=(0.0, max(2.0, image.max())))
        words = "Intensity along a column", "x (Å)", "depth (Å)"
        return Plot(
            (Panel((heat,), *words),), f"The largest intensity is {image.max():.1f}."
        )

    elements = Choice("column of", ("C", "P", "Fe", "Au"), "Fe")
    voltages = Slider("voltage (kV)", (100, 200, 300), 300)
    explore(column, element=elements, voltage_kv=voltages)
    return (voltages,)


@app.cell
def _():
    mo.md(r"""
    ## How thick may a protein be?

    Now a slab as dense as protein: carbon atoms at random places, 0.06 in each Å$^3$, cut into slices of 10 Å, in a
    periodic cell of 32 Å. The mean potential only turns the wave as a whole; it is subtracted, which helps the simple
    models. The waves of all four models are compared in the plane of the middle of the slab, where the flat ones are
    at their best. The error of a model, at a frequency, is the rms of its difference from multislice over the rms of
    the multislice wave. The unscattered beam is left out.

    An error of 0.2 is a correlation of 0.98 with the truth. Look first at 100 Å and 3 Å: all models are about as good
    as that, or better. Make the slab thicker. Straight rays go wrong at high frequency, where $\lambda T s^2$ is no
    longer small; that they may scatter twice helps them little. Single scattering errs at nearly all frequencies
    alike, as its phase is not small. For protein the spreading counts first: at 200 Å and 3 Å the flat models are off
    by 0.4, single scattering by 0.1.
    """)
    return


@app.function
def protein_slices(thickness, side=32.0):
    """Return potentials of slices of 10 A of a random slab, mean subtracted."""
    random = np.random.default_rng(2)
    places = random.uniform(0, side, (thickness // 10, 2, round(0.6 * side**2)))
    slices = [slice_potential(x, y, "C", (side, side)) for x, y in places]
    return [one - one.mean() for one in slices]


@app.function
def model_errors(slices, step, voltage_kv, side=32.0):
    """Return frequencies of rings and, by model, errors in the plane of the middle."""
    wave, sigma = wave_and_sigma(voltage_kv)
    squared, middle = frequencies(side, side)[2], len(slices) * step / 2
    *_, last = multislice(slices, step, (side, side), voltage_kv)
    true = last * np.exp(1j * np.pi * wave * middle * squared)
    projected = sigma * np.sum(slices, axis=0)
    once = np.fft.fft2(np.ones((BOX, BOX)))
    for number, potential in enumerate(slices):
        turn = np.exp(1j * np.pi * wave * (number * step - middle) * squared)
        once = once + 1j * sigma * np.fft.fft2(potential) * turn
    models = {
        "weak phase": np.fft.fft2(1 + 1j * projected),
        "phase object": np.fft.fft2(np.exp(1j * projected)),
        "single scattering": once,
    }
    ring = np.rint(np.sqrt(squared) * side).astype(int).ravel()
    rings = np.arange(1, BOX // 3)  # within the band of multislice

    def rms(wave):
        return np.sqrt(np.bincount(ring, (np.abs(wave) ** 2).ravel())[rings])

    return rings / side, {name: rms(models[name] - true) / rms(true) for name in models}


@app.cell
def _(voltages):
    slab = protein_slices(800)

    def thickness_limits(thickness, voltage_kv):
        s, errors = model_errors(slab[: thickness // 10], 10.0, voltage_kv)
        marks = tuple(Line(s, error, name) for name, error in errors.items())
        words = "Error against multislice", "spatial frequency (1/Å)", "relative error"
        panel = Panel(marks, *words, (0.0, 0.65), (0.0, 1.5))
        near = (f"{name} {np.interp(1 / 3, s, errors[name]):.2f}" for name in errors)
        return Plot((panel,), f"At 3 Å: {', '.join(near)}.")

    thicknesses = Slider("thickness (Å)", (20, 50, 100, 200, 300, 500, 800), 200)
    explore(thickness_limits, thickness=thicknesses, voltage_kv=voltages)
    return


@app.cell
def _():
    mo.md(r"""
    ## Layers that are all alike

    In a crystal, slices repeat, and what each scatters adds up in phase. Take two beams only, the straight one and
    one of frequency $g$, with the beam tilted so that both travel at the same angle to the axis. Let $V_g$ be the
    Fourier coefficient of the potential. Each beam feeds the other:

    $$\psi_0' = i \sigma V_g \psi_g , \quad \psi_g' = i\sigma V_g \psi_0 \quad\Longrightarrow\quad
      \lvert\psi_g\rvert^2 = \sin^2 (\sigma V_g T) .$$

    Single scattering would have $(\sigma V_g T)^2$, more than there is. At $T = \pi / (2\sigma V_g)$ all of the
    intensity is in the diffracted beam, and at twice that, the **extinction distance**, all is back.

    The figure stacks sheets of graphene, all alike, 3.35 Å apart, with the beam straight on, and shows one of the six
    spots at 2.13 Å. Flat weak phase grows with the square of the number of layers, without end. Single scattering
    swings, for the spot lies off the Ewald sphere, by $\lambda s^2/2$: after $2 / (\lambda s^2)$ = 461 Å, or 138
    layers, it is back at zero. Multislice turns round earlier, at about 3/4 of that intensity. (The atoms are blurred by
    B = 2 Å$^2$ again.) Then put oxygen atoms above carbon atoms at random, as in graphene oxide. On average they belong
    to the lattice and strengthen the spot; only their disorder scatters elsewhere.
    """)
    return


@app.function
def graphene_layer(random, oxygen_share, sides):
    """Return the potential of 6 x 4 cells of four atoms, some with an oxygen on top."""
    i, j = (one.ravel() for one in np.meshgrid(np.arange(6), np.arange(4)))
    x = np.concatenate([i + shift for shift in (0, 0.5, 0.5, 0)]) * sides[0] / 6
    y = np.concatenate([j + shift for shift in (0, 1 / 6, 1 / 2, 2 / 3)]) * sides[1] / 4
    on_top = random.random(len(x)) < oxygen_share
    total = slice_potential(x, y, "C", sides, 2.0)
    total = total + slice_potential(x[on_top], y[on_top], "O", sides, 2.0)
    return total - total.mean()


@app.cell
def _(voltages):
    sides, random = (6 * 2.46, 4 * 2.46 * np.sqrt(3)), np.random.default_rng(1)
    stacks = {
        share: [graphene_layer(random, share, sides) for _ in range(200)]
        for share in (0, 0.2, 0.4)
    }

    def stacked(voltage_kv, oxygen_share):
        layers = stacks[oxygen_share]
        wave, sigma = wave_and_sigma(voltage_kv)
        spot = 8, 0  # 8 waves along y: 8 / 17.0 = 1 / 2.13 per angstrom
        behind = multislice(layers, 3.35, sides, voltage_kv)
        full = np.array([100 * np.abs(one[spot] / BOX**2) ** 2 for one in behind])
        each = [1j * sigma * np.fft.fft2(one)[spot] / BOX**2 for one in layers]
        count = np.arange(1, len(layers) + 1)
        turn = np.exp(1j * np.pi * wave * 3.35 * count * (8 / sides[1]) ** 2)
        once, flat = (100 * np.abs(np.cumsum(a)) ** 2 for a in (each * turn, each))
        first = Line(count, full, "multislice")
        second = Line(count, once, "single scattering")
        marks = first, second, Line(count, flat, "weak phase, flat", dashed=True)
        words = "A spot at 2.13 Å", "layers", "intensity (% of the beam)"
        panel = Panel(marks, *words, (0, 200), (0, 18))
        return Plot((panel,), f"Multislice has at most {full.max():.1f} %.")

    shares = Slider("oxygen atoms per carbon", tuple(stacks), 0)
    explore(stacked, voltage_kv=voltages, oxygen_share=shares)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"The simulated intensity is more than the beam."* Single scattering does not conserve electrons:
      $\lvert 1 + i\varphi\rvert^2 > 1$. Multislice does, but for what its band limit takes away.
    - *"The simulation changes with the thickness of slices."* They are too thick. Within a slice rays go straight, so
      $\pi\lambda h s^2$ has to be small: 0.15 radian for 10 Å and details of 2 Å.
    - *"A large box takes days."* Time goes with the number of slices times pixels. For a particle of 100 Å at 3 Å,
      the flat model is as good as what is known of the ice around it.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "A crystal has $V_g$ = 5 V; at 300 kV the interaction constant is 0.653 mrad per volt and Å. At what thickness has all intensity gone over into the diffracted beam?",
        np.pi / 2 / (wave_and_sigma(300.0)[1] * 5.0),
        tolerance=5.0,
        unit="Å",
        hint=r"$\sigma V_g T$ is a quarter of a turn.",
        explanation=r"$1.571 / (0.000653 \times 5) = 481$ Å. Single scattering claims 2.5 times the beam there.",
    )
    return


@app.cell
def _():
    exercise(
        r"How much phase does the propagator of a slice of 5 Å have at a period of 1 Å and 300 kV ($\lambda$ = 0.0197 Å)?",
        np.pi * wave_and_sigma(300.0)[0] * 5.0,
        tolerance=0.01,
        unit="radian",
        hint=r"$\pi\lambda h s^2$ with $s$ = 1.",
        explanation="0.31 radian: for details of 1 Å thinner slices would be better.",
    )
    return


@app.cell
def _():
    choose(
        "The thickness of a particle is doubled. Which error of a flat weak phase model grows most at the finest details?",
        (
            "That of leaving out the spreading of the wave.",
            "That of leaving out what is scattered by carbon.",
        ),
        0,
        hint="Move the thickness in the second figure from 200 to 300 Å and look at the right end.",
        explanation=r"The phase that is left out, $\pi\lambda z s^2$, is largest at high frequency, and doubles.",
    )
    return


@app.function
def test_two_beams():
    """Howie and Whelan. Other beams couple by sigma V_g / (2 pi lambda g^2) = 0.02: 1 %."""
    side, g, volts, step, sigma = 16.0, 0.5, 1.0, 5.0, wave_and_sigma(300.0)[1]
    x = np.arange(BOX) * side / BOX
    potential = np.tile(2 * volts * np.cos(2 * np.pi * g * x) * step, (BOX, 1))
    start = np.tile(np.exp(-1j * np.pi * g * x), (BOX, 1))
    steps = round(np.pi / 2 / (sigma * volts) / step)
    waves = multislice([potential] * steps, step, (side, side), 300.0, start)
    powers = [np.abs(one[0, [-4, 4]] / BOX**2) ** 2 for one in waves]
    assert powers[-1][1] > 0.99
    expected = np.sin(sigma * volts * step * (steps // 2)) ** 2
    assert abs(powers[steps // 2 - 1][1] - expected) < 0.01


@app.function
def test_foci_do_not_depend_on_the_grid():
    """Depths of the text, and finer pixels in a smaller cell: a step, and 5 %."""
    for element, voltage, focus in (("Fe", 300, 120), ("Fe", 100, 92), ("Au", 300, 48)):
        until = round(focus / 4) + 5
        here, finer = (
            along_a_column(element, voltage, side)[:until, BOX // 2]
            for side in (8.0, 5.0)
        )
        assert 4 * (np.argmax(here) + 1) == focus
        assert abs(4 * (np.argmax(finer) + 1) - focus) <= 4
        assert abs(finer.max() / here.max() - 1) < 0.05


@app.function
def test_models_meet_where_they_should():
    """Weak atoms: single scattering, to a thousandth. All in one plane: a phase object."""
    weak = [0.001 * one for one in protein_slices(100)]
    _, errors = model_errors(weak, 10.0, 300.0)
    assert errors["single scattering"].max() < 1e-3 < errors["weak phase"].max()
    soft = np.exp(-20.0 * frequencies(32.0, 32.0)[2])  # no product beyond the band
    smooth = [np.fft.ifft2(soft * np.fft.fft2(one)).real for one in protein_slices(100)]
    _, errors = model_errors(smooth, 1e-9, 300.0)
    assert errors["phase object"].max() < 0.01 < errors["weak phase"].max()
    assert abs(wave_and_sigma(300.0)[1] - 6.526e-4) < 1e-7  # Kirkland's table


@app.function
def test_potential_is_the_library_s():
    """The same table twice, below the Nyquist frequency of 1 / A."""
    at = np.array([[3.0, -4.0, 0.0], [-7.5, 2.0, 0.0]])
    atoms = GaussianAtoms.from_elements(torch.as_tensor(at), ["C", "C"], 0.0)
    pose = Pose(torch.eye(3).double()[None], torch.zeros(1, 2).double())
    there = VOLT_ANGSTROM2 * atoms.project(pose, BOX, 0.5)[0].numpy()
    here = slice_potential(at[:, 0] + 16.0, at[:, 1] + 16.0, "C", (32.0, 32.0))
    off = np.abs(np.fft.fft2(here - there))[frequencies(32.0, 32.0)[2] < 0.9]
    assert off.max() < 1e-6 * np.abs(np.fft.fft2(here)).max()


@app.function
def test_waves_are_the_library_s():
    """Soft slices: 1e-10 of them is where the round band here and the square one differ."""
    squared = frequencies(32.0, 32.0)[2]
    soft = np.exp(-60.0 * squared)
    slices = [np.fft.ifft2(soft * np.fft.fft2(v)).real for v in protein_slices(100)]
    *_, last = multislice(slices, 10.0, (32.0, 32.0), 300.0)
    # The library's is as the plane of the first slice would have sent it out.
    turned = last * np.exp(1j * np.pi * wave_and_sigma(300.0)[0] * 100.0 * squared)
    centred = [torch.from_numpy(np.fft.fftshift(one)) for one in slices]
    placed = [Slice(10.0 * number, one) for number, one in enumerate(centred)]
    library = exit_wave(placed, WaveGrid(BOX, 32.0 / BOX), 300.0).numpy()
    assert np.abs(turned / BOX**2 - library).max() < 1e-9
    # The beam has lost 4.5e-4 of itself, the second order of the potential.
    assert np.abs(last[0, 0]) / BOX**2 < 1 - 1e-4


@app.cell
def _():
    source(slice_potential, multislice, model_errors)
    return


@app.cell
def _():
    closing(
        "multislice",
        library=["cryoinfer.physics.multislice.exit_wave", "cryoinfer simulate"],
        sources=[
            "J. M. Cowley and A. F. Moodie 1957, The scattering of electrons by atoms and crystals. I. A new theoretical approach, Acta Crystallographica.",
            "E. J. Kirkland 2010, Advanced Computing in Electron Microscopy, chapter 6.",
            "J. Madsen and T. Susi 2021, The abTEM code: transmission electron microscopy from first principles, Open Research Europe.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
