import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import gemmi
    import marimo as mo
    import numpy as np
    import torch
    from scipy import constants, ndimage

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
    from cryoinfer.data.examples import example_atoms
    from cryoinfer.physics.structures.atoms import GaussianAtoms

    BOHR_ANGSTROM = constants.physical_constants["Bohr radius"][0] * 1e10
    VOLT_ANGSTROM2 = constants.h**2 / (2e-20 * np.pi * constants.m_e * constants.e)


@app.cell
def _():
    opening("potential")
    return


@app.cell
def _():
    mo.md(r"""
    ## What deflects an electron

    X-rays see the electrons of an atom. A fast electron sees the electric potential: that of the nucleus, which
    attracts it, and that of the atom's electrons, which repel it. From afar the two cancel. So an atom looks larger
    and softer to electrons than to X-rays, and ions look very different.

    Poisson's equation says how charge makes potential: $\nabla^2 V = -\rho/\varepsilon_0$. In Fourier space
    $\nabla^2$ is $-4\pi^2 s^2$. The charge of an atom of number $Z$ is a point $Z e$ and a cloud whose transform is
    $-e f_x(s)$. $f_x$ is the factor known from X-rays; $f_x(0) = Z$. Hence

    $$\hat V(s) = \frac{e}{4\pi^2 \varepsilon_0} \cdot \frac{Z - f_x(s)}{s^2} .$$

    It is usual to give not $\hat V$ but a length, the **electron scattering factor**
    $f_e = \frac{2\pi m e}{h^2}\, \hat V$. With the Bohr radius $a_0 = \varepsilon_0 h^2 / (\pi m e^2) = 0.529$ Å the
    constants become simple:

    $$f_e(s) = \frac{Z - f_x(s)}{2\pi^2 a_0 s^2} , \qquad \hat V = 47.88\ \text{V Å}^2 \cdot f_e .$$

    This is the **Mott-Bethe formula**. At high frequency, $f_x$ is gone and $f_e$ falls as $Z/s^2$: the bare nucleus.
    At low frequency numerator and denominator vanish together. As
    $f_x = Z (1 - \tfrac23 \pi^2 s^2 \langle r^2\rangle)$ there, with $\langle r^2 \rangle$ the mean square radius of
    the cloud, $f_e(0) = Z \langle r^2\rangle / (3 a_0)$. So a *fluffy* atom scatters strongly. For hydrogen
    $\langle r^2\rangle = 3a_0^2$ exactly, and $f_e(0)$ is one Bohr radius. Carbon, with 2.51 Å, has more than oxygen,
    with 1.98 Å.

    ## Sums of Gaussians

    Tables give $f_e$ as a sum of five Gaussians, which are easy in both spaces:

    $$f_e = \sum_j a_j\, e^{-b_j s^2/4} , \quad
      V(r) = 47.88 \sum_j a_j \left(\frac{4\pi}{b_j}\right)^{3/2} e^{-4\pi^2 r^2/b_j} , \quad
      \int V \mathrm{d}z = 47.88 \sum_j a_j\, \frac{4\pi}{b_j}\, e^{-4\pi^2 r^2 / b_j} .$$

    Mind the powers: 3/2 in space and 1 in projection. Peng and others fitted Gaussians. Kirkland added functions that
    fall as $1/s^2$, as nuclei do; Lobato and Van Dyck use such functions only. Below 1 / Å, where cryo-EM is, all agree
    to a percent.

    Atoms also move, and maps are blurred. Both multiply $f_e$ by $e^{-B s^2/4}$, so that $B$ is added to all $b_j$; a
    displacement of $u$ rms along each axis makes $B = 8\pi^2 u^2$. Raise $B$ in the figure: the sharp nucleus is gone
    at once, and elements look alike but for their size. That is why maps at 3 Å hardly tell carbon from oxygen.
    """)
    return


@app.function
def gaussians(element, b_factor_angstrom2=0.0):
    """Return amplitudes (angstrom) and widths (angstrom^2) of an element, table 4.3.2.2."""
    table = gemmi.Element(element).c4322
    return np.array(table.a), np.array(table.b) + b_factor_angstrom2


@app.function
def scattering_factor(element, s, b_factor_angstrom2=0.0):
    """Return f_e in angstrom."""
    a, b = gaussians(element, b_factor_angstrom2)
    return np.exp(-np.multiply.outer(np.square(s), b) / 4) @ a


@app.function
def mott_bethe(element, s):
    """Return f_e from the X-ray factor that gemmi has (table of 1992), s > 0."""
    atom = gemmi.Element(element)
    x_ray = np.exp(-np.multiply.outer(np.square(s), np.array(atom.it92.b)) / 4)
    missing = atom.atomic_number - x_ray @ np.array(atom.it92.a) - atom.it92.c
    return missing / (2 * np.pi**2 * BOHR_ANGSTROM * np.square(s))


@app.function
def potential_volt(element, radius, b_factor_angstrom2=0.0):
    """Return V(r), in volt."""
    a, b = gaussians(element, b_factor_angstrom2)
    shape = np.exp(-4 * np.pi**2 * np.multiply.outer(np.square(radius), 1 / b))
    return VOLT_ANGSTROM2 * shape @ (a * (4 * np.pi / b) ** 1.5)


@app.function
def projected_volt_angstrom(element, radius, b_factor_angstrom2=0.0):
    """Return the integral of V over z at a distance from the axis, in volt angstrom."""
    a, b = gaussians(element, b_factor_angstrom2)
    shape = np.exp(-4 * np.pi**2 * np.multiply.outer(np.square(radius), 1 / b))
    return VOLT_ANGSTROM2 * shape @ (a * 4 * np.pi / b)


@app.cell
def _():
    def atom(element, b_factor):
        s, r = np.linspace(0.06, 1.5, 150), np.linspace(0.0, 2.5, 120)
        left = (
            Line(s, scattering_factor(element, s, b_factor), "Gaussians, with B"),
            Line(s, mott_bethe(element, s), "Mott-Bethe, B = 0", dashed=True),
        )
        right = (Line(r, projected_volt_angstrom(element, r, b_factor), element),)
        if element != "C":
            carbon = projected_volt_angstrom("C", r, b_factor)
            right += (Line(r, carbon, "carbon", dashed=True),)
        words = "Scattering factor", "spatial frequency (1/Å)", "f (Å)"
        first = Panel(left, *words, (0.0, 1.5), (0.0, 5.6))
        words = "Projected potential", "distance (Å)", "potential (V Å)"
        second = Panel(right, *words, (0.0, 2.5))
        a, _ = gaussians(element)
        top = projected_volt_angstrom(element, 0.0, b_factor)
        return Plot(
            (first, second), f"f(0) = {a.sum():.2f} Å; {top:.0f} V Å at the centre."
        )

    elements = Choice("element", ("C", "N", "O", "P", "S"), "O")
    factors = Slider("B (Å²)", (0, 5, 10, 20, 50, 100, 200), 0)
    explore(atom, element=elements, b_factor=factors)
    return


@app.cell
def _():
    mo.md(r"""
    ## Mean potentials, and ice

    The mean potential of a material is $\hat V(0)$ of its atoms times their number per volume,

    $$V_0 = 47.88\ \text{V Å}^2 \sum_{\text{elements}} n\, f_e(0) .$$

    Amorphous ice of 0.93 g/cm$^3$ has 4.5 V. The mean residue of proteins,
    $\mathrm{C}_{4.94} \mathrm{H}_{7.76} \mathrm{N}_{1.36} \mathrm{O}_{1.48} \mathrm{S}_{0.04}$, at 1.35 g/cm$^3$, has
    7.9 V. (Bonds pull the clouds together, so true values are lower, by a tenth or two.) What one sees of a protein
    in ice, at low resolution, is the difference: 43 % of what the same protein would show in vacuum. Hydrogens, which
    many files leave out, make up 18 % of the 7.9 V.

    A **flat solvent** model puts it in figures: ice everywhere except where the protein is,

    $$V = V_{\text{protein}} - V_{\text{ice}} \cdot m ,$$

    with $m$ 1 in the protein and 0 outside, its edge blurred. Water is not a smooth body; its molecules make noise,
    and a first shell that is more ordered than the rest. Those are left out. In Fourier space $m$ is confined to low
    frequencies, and so is its effect.

    Below is adenylate kinase, with one hydrogen for each heavy atom, which is what its composition has. Left is its
    projected potential. Right, shell by shell, the amplitude in ice over that in vacuum. Lower the potential of the
    solvent to 0 and raise it to 4.5 V again: the image fades, but its detail does not. Where is the border? Blur the
    edge of $m$, and see which frequencies follow.
    """)
    return


@app.function
def mean_potential_volt(formula, grams_per_cm3):
    """Return V_0 of a composition, {element: number}, from neutral separate atoms."""
    mass = sum(count * gemmi.Element(name).weight for name, count in formula.items())
    per_angstrom3 = grams_per_cm3 * constants.N_A * 1e-24 / mass
    length = sum(n * gaussians(name)[0].sum() for name, n in formula.items())
    return VOLT_ANGSTROM2 * per_angstrom3 * length


@app.function
def compositions():
    """Return formula and density of ice and of the mean residue."""
    residue = {"C": 4.94, "H": 7.76, "N": 1.36, "O": 1.48, "S": 0.04}
    return {"ice": ({"H": 2, "O": 1}, 0.93), "protein": (residue, 1.35)}


@app.function
def protein_volt(box, pixel_size_angstrom):
    """Return the potential of adenylate kinase on a grid, with a hydrogen an atom."""
    model = example_atoms("adenylate-kinase-open")
    at = np.asarray(model.coordinates_angstrom)
    random = np.random.default_rng(0)
    direction = random.standard_normal(at.shape)
    hydrogen = at + direction / np.linalg.norm(direction, axis=1, keepdims=True)
    names = [*model.elements, *("H" * len(at))]
    both = torch.as_tensor(np.concatenate((at, hydrogen))).double()
    atoms = GaussianAtoms.from_elements(both, names, 30.0)
    density = atoms.to_map(box, pixel_size_angstrom).numpy()
    return VOLT_ANGSTROM2 * density / pixel_size_angstrom


@app.function
def protein_mask(volt, pixel_size_angstrom, blur_angstrom):
    """Return the m of the text: the brightest 24 kDa / 0.81 Da per A^3, its edge blurred."""
    even = ndimage.gaussian_filter(volt, 2.0 / pixel_size_angstrom, mode="wrap")
    voxels = round(23_600 / 0.81 / pixel_size_angstrom**3)
    level = np.sort(even.ravel())[-voxels]
    inside = (even >= level).astype(float)
    return ndimage.gaussian_filter(
        inside, blur_angstrom / pixel_size_angstrom, mode="wrap"
    )


@app.function
def shell_amplitudes(volt):
    """Return the rms amplitude of each shell of the transform, to the Nyquist frequency."""
    box = len(volt)
    k = np.fft.fftfreq(box) * box
    shell = np.rint(np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)).astype(int)
    power = np.abs(np.fft.fftn(volt)) ** 2
    sums = np.bincount(shell.ravel(), power.ravel()) / np.bincount(shell.ravel())
    return np.sqrt(sums[: box // 2])


@app.cell
def _():
    box, pixel = 48, 2.0
    vacuum = protein_volt(box, pixel)
    alone = shell_amplitudes(vacuum)
    shell_s = np.arange(box // 2) / (box * pixel)
    masks = {blur: protein_mask(vacuum, pixel, blur) for blur in (1, 2, 4)}

    def in_ice(ice_volt, blur_angstrom):
        volt = vacuum - ice_volt * masks[blur_angstrom]
        projected = volt.sum(0) * pixel
        ratio = shell_amplitudes(volt) / alone
        side = box * pixel / 2
        heat = Heat(projected, (-side, side, side, -side), limits=(-50.0, 400.0))
        left = Panel((heat,), "Projected potential", "x (Å)", "y (Å)", equal=True)
        marks = (Line(shell_s, ratio), Line(shell_s, np.ones(len(ratio)), dashed=True))
        words = (
            "Amplitude in ice over that in vacuum",
            "spatial frequency (1/Å)",
            "ratio",
        )
        right = Panel(marks, *words, (0.0, 0.25), (0.0, 1.6))
        says = f"At frequency 0 {100 * ratio[0]:.0f} % is left, at 10 Å {100 * np.interp(0.1, shell_s, ratio):.0f} %."
        return Plot((left, right), says)

    potentials = Slider("potential of the solvent (V)", (0, 1.5, 3, 4.5), 4.5)
    blurs = Slider("blur of the edge, rms (Å)", (1, 2, 4), 2)
    explore(in_ice, ice_volt=potentials, blur_angstrom=blurs)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"The simulated particles have too much contrast."* They were simulated in vacuum. At low frequency a protein in
      ice has less than half of that, and it is low frequency that is seen by eye.
    - *"Glutamates are missing from my map."* An ion has $f_x(0) \neq Z$, and its $f_e$ goes as charge over $s^2$ at
      low frequency. For a negative oxygen it is negative at low resolution. Damage takes carboxyl groups away as well
      (*Damage and motion*).
    - *"The projection of my map is not my image."* Two dimensions have $4\pi/b$, three have $(4\pi/b)^{3/2}$. Code
      that uses one for both makes narrow Gaussians too weak against wide ones.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "A map has B = 100 Å². If all of it came from motion, how far would an atom move, rms along one axis?",
        np.sqrt(100.0 / (8 * np.pi**2)),
        tolerance=0.02,
        unit="Å",
        hint=r"$B = 8\pi^2 u^2$.",
        explanation=r"$\sqrt{100 / 78.96} = 1.13$ Å.",
    )
    return


@app.cell
def _():
    exercise(
        "Amorphous carbon has 2.0 g/cm³: 0.1003 atoms in each Å³. What is its mean potential? For carbon f(0) is 2.51 Å.",
        mean_potential_volt({"C": 1}, 2.0),
        tolerance=0.15,
        unit="V",
        hint="47.88 times the density of atoms times f(0).",
        explanation="12.0 V: more than protein. A film of carbon of even thickness only turns the whole wave, but its grain is as strong as that of a particle as thick, and hides it.",
    )
    return


@app.cell
def _():
    choose(
        "Two atoms have the same nucleus; the cloud of one is wider. Which has the larger scattering factor at frequency 0?",
        (
            "The one with the wider cloud.",
            "The one with the narrower cloud.",
            "Both have the same, for the charge is the same.",
        ),
        0,
        hint=r"$f_e(0) = Z \langle r^2\rangle / (3 a_0)$.",
        explanation="A wide cloud shields the nucleus worse: its field reaches further.",
    )
    return


@app.function
def test_hydrogen_is_known_exactly():
    """f_x = 1 / (1 + pi^2 a_0^2 s^2)^2 of the ground state; the table was fitted to it,
    and follows it to 1.1 thousandths of f(0) = a_0."""
    s = np.linspace(0.02, 1.0, 50)
    x_ray = 1 / (1 + (np.pi * BOHR_ANGSTROM * s) ** 2) ** 2
    exact = (1 - x_ray) / (2 * np.pi**2 * BOHR_ANGSTROM * s**2)
    assert np.abs(scattering_factor("H", s) - exact).max() < 2e-3 * BOHR_ANGSTROM
    assert abs(scattering_factor("H", 0.0) / BOHR_ANGSTROM - 1) < 1e-3


@app.function
def test_two_tables_agree_by_mott_bethe():
    """X-ray and electron factors were tabulated separately, each fitted to 1 % or so."""
    s = np.linspace(0.1, 2.0, 60)
    for element in ("C", "N", "O", "S"):
        ratio = mott_bethe(element, s) / scattering_factor(element, s)
        assert np.abs(ratio - 1).max() < 0.015


@app.function
def test_projection_and_library():
    """Summed along z, V is the projection (a fine sum of Gaussians is exact). And the
    transform is the library's."""
    z = np.arange(-8, 8, 0.01)
    summed = potential_volt("N", np.hypot(0.7, z), 10.0).sum() * 0.01
    assert abs(summed / projected_volt_angstrom("N", 0.7, 10.0) - 1) < 1e-9
    one = GaussianAtoms.from_elements(torch.zeros(1, 3).double(), ["S"], 20.0)
    there = one.transform_at(torch.tensor([[0.3, 0.0, 0.4]]).double()).real.item()
    assert abs(there / scattering_factor("S", 0.5, 20.0) - 1) < 1e-6  # 0.3 in float32


@app.function
def test_mean_potentials():
    """4.5 V of ice, 7.9 V of protein, by hand from f(0) of 0.529, 2.509, 2.214, 1.983 A."""
    ice, protein = (mean_potential_volt(*one) for one in compositions().values())
    assert abs(ice - 47.878 * 0.93 * 0.602214 / 18.015 * (2 * 0.5288 + 1.9834)) < 2e-3
    assert abs(protein - 7.93) < 0.01
    assert abs(1 - ice / protein - 0.43) < 0.005
    volt = protein_volt(24, 4.0)
    atoms = example_atoms("adenylate-kinase-open").elements
    total = sum(gaussians(name)[0].sum() for name in atoms) + len(atoms) * 0.5288
    assert abs(volt.sum() * 64 / (VOLT_ANGSTROM2 * total) - 1) < 1e-6


@app.cell
def _():
    source(scattering_factor, mott_bethe, mean_potential_volt, protein_mask)
    return


@app.cell
def _():
    closing(
        "potential",
        library=[
            "cryoinfer.physics.structures.atoms.GaussianAtoms.to_map",
            "cryoinfer.physics.structures.atoms.GaussianAtoms.project",
        ],
        sources=[
            "L.-M. Peng, G. Ren, S. L. Dudarev and M. J. Whelan 1996, Robust parameterization of elastic and absorptive electron atomic scattering factors, Acta Crystallographica A.",
            "International Tables for Crystallography, volume C, table 4.3.2.2.",
            "E. J. Kirkland 2010, Advanced Computing in Electron Microscopy, chapter 5.",
            "I. Lobato and D. Van Dyck 2014, An accurate parameterization for scattering factors, electron densities and electrostatic potentials for neutral atoms that obey all physical constraints, Acta Crystallographica A.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
