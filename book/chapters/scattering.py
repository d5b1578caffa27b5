import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy import constants, stats

    from course import (
        Bars,
        Choice,
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

    # Z and number per cm^3 of scattering atoms (of ice: the oxygen); electrons per cm^3
    # over Avogadro's number; mean energy of excitation (keV).
    MATERIALS = {
        "ice": (8, 0.93 * constants.N_A / 18.015, 0.93 * 10 / 18.015, 0.075),
        "silicon": (14, 2.33 * constants.N_A / 28.086, 2.33 * 14 / 28.086, 0.1721),
        "gold": (79, 19.3 * constants.N_A / 196.97, 19.3 * 79 / 196.97, 0.7965),
    }
    # scipy has it in another scale than Landau's own, by pi / 2.
    LANDAU = stats.landau(loc=np.log(np.pi / 2.0), scale=np.pi / 2.0)


@app.cell
def _():
    opening("scattering")
    return


@app.cell
def _():
    mo.md(r"""
    ## One deflection

    An electron flies straight until it comes near a nucleus, is deflected, and flies on. Two things must be known:
    how far it flies, and by how much it turns.

    A bare nucleus deflects as Rutherford found, with a chance that falls as $1/\sin^4(\theta/2)$. Electrons of the
    atom screen it from afar, so small angles are rarer than that. With a screening parameter $\alpha$ the chance of
    an angle is proportional to

    $$\frac{1}{\left( \sin^2 (\theta/2) + \alpha \right)^2} , \qquad \alpha = 3.4 \times 10^{-3}\, \frac{Z^{0.67}}{E} ,$$

    with the energy $E$ in keV. Write $c = \cos\theta$, so that $\sin^2(\theta/2) = (1 - c)/2$. Integrate from $c$ to
    1, divide by the whole, set that equal to a random number $R$ between 0 and 1, and solve:

    $$\cos\theta = 1 - \frac{2 \alpha R}{1 + \alpha - R} .$$

    Half of all angles have $R < 1/2$, so the median is about $2\sqrt\alpha$. For oxygen and 300 keV this is 13
    milliradians: most deflections are tiny. (It is $\lambda / 2\pi a$, with the wavelength $\lambda$ and the radius
    $a = 0.23$ Å of the atom's screen.)

    The integral is also the **cross-section** $\sigma$ of the atom, the area in which a hit counts. In cm$^2$, with
    relativity,

    $$\sigma = 5.21 \times 10^{-21}\, \frac{Z^2}{E^2}\, \frac{4\pi}{\alpha (1 + \alpha)} \left( \frac{E + 511}{E + 1022} \right)^2 .$$

    With $n$ atoms per volume, a path of length $x$ is free with the chance $e^{-n \sigma x}$. Its mean is the **mean
    free path** $1 / n\sigma$, and a random one is $-\ln R / n \sigma$.

    ## The whole way

    Between deflections the electron loses energy to the electrons of the material, a little in each of many
    collisions. Bethe's formula, as Joy and Luo extended it, gives the mean loss per way, in keV/cm,

    $$\frac{\mathrm{d}E}{\mathrm{d}x} = -78{,}500\, \frac{\rho Z}{A\, E} \ln \frac{1.166\, (E + 0.85 J)}{J} ,$$

    with the density $\rho$ in g/cm$^3$, the mass $A$ in g/mol and the mean energy of excitation $J$. Fly, lose, turn,
    and repeat until the electron leaves or has less than 1 keV. This is the **single-scattering Monte Carlo** of Joy.

    The figure shows it for thick blocks. In ice electrons go in deep and stay. In gold more than half come back. The
    support behind a sensor does the same: it sends electrons back, far from where they came in, and sensors are
    thinned to have less of it.
    """)
    return


@app.function
def screening(material, kev):
    """Return alpha."""
    return 3.4e-3 * MATERIALS[material][0] ** 0.67 / kev


@app.function
def mean_free_path_cm(material, kev):
    """Return the mean way between two elastic deflections."""
    z, per_cm3 = MATERIALS[material][:2]
    alpha, relativity = screening(material, kev), (kev + 511.0) / (kev + 1022.0)
    area = 5.21e-21 * (z / kev) ** 2 * 4.0 * np.pi / (alpha * (1.0 + alpha))
    return 1.0 / (per_cm3 * area * relativity**2)


@app.function
def turned(direction, cosine, azimuth):
    """Return unit vectors, shape (n, 3), turned by an angle about themselves."""
    other = np.where(abs(direction[:, :1]) < 0.5, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    first = np.cross(direction, other)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second, sine = np.cross(direction, first), np.sqrt(1.0 - cosine**2)
    across = first * np.cos(azimuth)[:, None] + second * np.sin(azimuth)[:, None]
    return direction * cosine[:, None] + across * sine[:, None]


@app.function
def flights(material, kev, electrons, thickness_cm=np.inf, followed=0):
    """Return fates (-1 back, 0 stopped, 1 through), deflections, and ways of the first."""
    rng, number = np.random.default_rng(71), np.arange(electrons)
    place, energy = np.zeros((electrons, 3)), np.full(electrons, float(kev))
    direction = np.tile([0.0, 0.0, 1.0], (electrons, 1))
    fate, hits, (z_per_a, j) = 0 * number, 0 * number, MATERIALS[material][2:]
    ways = [[np.zeros(3)] for _ in range(followed)]
    while len(number):
        free = mean_free_path_cm(material, energy)
        step = -free * np.log(rng.uniform(size=len(number)))
        place = place + step[:, None] * direction
        bethe = 78_500.0 * z_per_a / energy * np.log(1.166 * (energy + 0.85 * j) / j)
        energy = energy - step * bethe
        back, through = place[:, 2] < 0.0, place[:, 2] > thickness_cm
        fate[number[back]], fate[number[through]] = -1, 1
        for n in np.nonzero(number < followed)[0]:
            ways[number[n]].append(place[n])
        keep = ~(back | through) & (energy > 1.0)
        place, energy, number = place[keep], energy[keep], number[keep]
        r, alpha = rng.uniform(size=len(number)), screening(material, energy)
        cosine = 1.0 - 2.0 * alpha * r / (1.0 + alpha - r)
        azimuth = rng.uniform(0.0, 2.0 * np.pi, len(number))
        direction = turned(direction[keep], cosine, azimuth)
        hits[number] += 1
    return fate, hits, [np.array(way) for way in ways]


@app.cell
def _():
    def blocks(material, kev):
        fate, hits, ways = flights(material, kev, 300, followed=12)
        few = [1e4 * way[:: max(1, len(way) // 150)] for way in ways]
        marks = tuple(Line(way[:, 0], -way[:, 2]) for way in few)
        deep = 1e4 * np.mean([way[:, 2].max() for way in ways])
        size = max(abs(way).max() for way in few)
        shares = [(fate == one).mean() for one in (0, -1)]
        words = (f"12 electrons in {material}", "x (µm)", "height (µm)")
        view = ((-0.8 * size, 0.8 * size), (-1.05 * size, 0.1 * size))
        more = ("Fate", "1: stopped, 2: came back", "share", (0.4, 2.6), (0.0, 1.0))
        left = Panel(marks, *words, *view, equal=True)
        return Plot(
            (left, Panel((Bars([1, 2], shares),), *more)),
            f"{100 * shares[1]:.0f} % of 300 come back. Mean free path "
            f"{mean_free_path_cm(material, kev) * 1e7:.0f} nm, greatest depth on average "
            f"{deep:.1f} µm, {hits.mean():.0f} deflections.",
        )

    _kev = Slider("energy (keV)", (20, 50, 100), 100)
    explore(blocks, material=Choice("block of", tuple(MATERIALS)), kev=_kev)
    return


@app.cell
def _():
    source(flights, turned, mean_free_path_cm)
    return


@app.cell
def _():
    mo.md(r"""
    With 4,000 electrons of 100 keV this model sends 0.54 back from gold and 0.18 from silicon, give or take 0.01.
    Joy's program is quoted with 0.52 and 0.21; it differs in details, such as where one stops.

    ## A film, not a block

    A specimen is thin. The number of deflections in a film of thickness $t$ is Poisson with the mean $t / \lambda_f$,
    where $\lambda_f$ is the mean free path: each short piece of the way deflects with a small chance, whatever
    happened before (*Counting electrons*). So

    $$p_0 = e^{-t / \lambda_f} , \qquad p_1 = \frac{t}{\lambda_f}\, e^{-t / \lambda_f} .$$

    An image as *Weak phase objects* has it is made of $p_0$ and $p_1$. What is deflected twice carries the product of
    two patterns. The figure compares the formula with the Monte Carlo. At 300 keV, 30 nm of ice leave 96 % alone, and
    300 nm of ice 70 %. (Losses of energy, not in $\lambda_f$ here, take out more.)
    """)
    return


@app.cell
def _():
    def films(material, thickness_nm):
        fate, hits, _ = flights(material, 300, 1500, thickness_nm * 1e-7)
        k = np.arange(13)
        seen = [((hits == n) & (fate == 1)).mean() for n in k]
        mean = thickness_nm * 1e-7 / mean_free_path_cm(material, 300.0)
        words = ("How often deflected", "deflections", "share of electrons")
        law = Line(k, stats.poisson.pmf(k, mean), "Poisson")
        marks = (Bars(k, seen, "Monte Carlo"), law)
        return Plot(
            (Panel(marks, *words, (-0.5, 12.5), (0.0, 1.0)),),
            f"{thickness_nm} nm at 300 keV are {mean:.2f} mean free paths: "
            f"{100 * np.exp(-mean):.0f} % undeflected, {100 * mean * np.exp(-mean):.0f} % "
            "deflected once.",
        )

    _nm = Slider("thickness (nm)", (10, 30, 50, 100, 200, 300, 500), 100)
    explore(films, material=Choice("film of", tuple(MATERIALS)), thickness_nm=_nm)
    return


@app.cell
def _():
    mo.md(r"""
    ## The energy that one electron leaves

    A thin sensor takes a small part of the energy, in a random number of collisions. Their losses $\epsilon$ have
    chances that fall as $1/\epsilon^2$: most are small, a few are huge. Let collisions with more than $\epsilon_0$
    come at a rate such that there are $m$ on average. Their sum $\Delta$ is dominated by the largest few and does not
    become normal. With $\xi = m \epsilon_0$,

    $$\lambda = \frac{\Delta}{\xi} - \ln m - 1 + \gamma , \qquad \gamma = 0.577 ,$$

    has for large $m$ the **Landau distribution**, whatever $m$: losses between $\epsilon_0$ and $m \epsilon_0$ add
    $\int \xi\, \mathrm{d}\epsilon / \epsilon = \xi \ln m$ on average, and what is beyond comes once or not at all.
    The peak is at $\lambda = -0.22$, the width at half height 4.02, and the mean infinite. This is the spread $s_r$
    of a detector that sums energy, and counting gets rid of it (*MTF, noise power and DQE*).

    ## Why all this needs a vacuum

    A pump can only remove what flies into it. At $10^{-5}$ Pa molecules fly 700 m before one meets another, so they
    fly from wall to wall. Take a box of side $a$ with smooth walls. The velocity along each axis only changes its
    sign at walls, so a molecule that flies at the angle $\theta$ to the wall with the pump comes back to that wall
    after the way $2 a / \sin\theta$, whatever it does sideways. With $a = 2$ it is $4 / \sin\theta$. An opening that
    is a share $f$ of the wall is met by one visit in $1/f$, in the long run. Flat paths visit seldom, and some nearly
    repeat themselves beside it: they make the end of pumping slow.
    """)
    return


@app.function
def landau_variable(collisions, electrons=20_000):
    """Return lambda of sums of losses, each with a chance that falls as 1 / eps^2."""
    rng = np.random.default_rng(72)
    count = rng.poisson(collisions, size=electrons)
    # The chance of a loss of more than eps is eps0 / eps.
    single = 1.0 / rng.uniform(size=count.sum())
    total = np.bincount(np.repeat(np.arange(electrons), count), single, electrons)
    return total / collisions - np.log(collisions) - 1.0 + np.euler_gamma


@app.function
def way_to_the_pump(degrees, share):
    """Return ways (in sides) of 2,000 molecules to the opening in the wall of a square."""
    rng, angle = np.random.default_rng(73), np.radians(degrees)
    # Mirrors unfold the path into a line; along the wall it repeats after 2 sides.
    x = rng.uniform(0.0, 2.0, (2000, 1)) + 2.0 * np.arange(1, 4000) / np.tan(angle)
    met = np.minimum(x % 2.0, -x % 2.0) < share
    return 2.0 * (met.argmax(axis=1) + 1) / np.sin(angle)


@app.cell
def _():
    def tails(collisions, degrees):
        found = landau_variable(collisions)
        edges, x = np.linspace(-5.0, 15.0, 51), np.linspace(-5.0, 15.0, 201)
        share = np.histogram(found, edges)[0] / len(found) / 0.4
        bars, law = (
            Bars(edges[:-1] + 0.2, share, "sums"),
            Line(x, LANDAU.pdf(x), "Landau"),
        )
        way = way_to_the_pump(degrees, 0.1)
        grid = np.linspace(0.0, 200.0, 101)
        left = (Line(grid, (way[:, None] > grid).mean(axis=0)),)
        words = ("Energy left in a film", "λ", "density", (-5.0, 15.0), (0.0, 0.27))
        more = ("Molecules still in the box", "way (sides)", "share", (0, 200), (0, 1))
        return Plot(
            (Panel((bars, law), *words), Panel(left, *more)),
            f"{100 * (found > 10).mean():.1f} % of sums beyond λ = 10. Molecules at "
            f"{degrees} degrees return after {2 / np.sin(np.radians(degrees)):.2f} sides "
            f"and need {way.mean():.0f} to find an opening of 10 %.",
        )

    _m = Slider("collisions m", (1, 3, 10, 30, 100), 10)
    _angle = Slider("angle (degrees)", (5, 10, 20, 37, 53, 71), 37)
    explore(tails, collisions=_m, degrees=_angle)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"Thick ice gives no high resolution, at any dose."* Beyond one mean free path most electrons are deflected more
      than once or have lost energy, and no averaging turns them into signal.
    - *"My simulated sensor counts too well."* The mean loss was used for each electron, without Landau's tail.
    - *"Backscatter comes out near 1."* Angles were drawn about the block's axes, not about the flight.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "Which share of 300 keV electrons crosses 200 nm of ice without being deflected, if the mean free path is 840 nm?",
        np.exp(-200.0 / 840.0),
        tolerance=0.01,
        hint=r"$p_0 = e^{-t / \lambda_f}$.",
        explanation=r"$e^{-0.238} = 0.79$.",
    )
    return


@app.cell
def _():
    exercise(
        r"What is $\cos\theta$ for $R = 0.99$ and $\alpha = 0.001$?",
        1.0 - 2.0 * 0.001 * 0.99 / (1.001 - 0.99),
        tolerance=0.005,
        hint=r"Put both into $1 - 2\alpha R / (1 + \alpha - R)$.",
        explanation=r"$1 - 0.00198 / 0.011 = 0.82$, or 35 degrees: one deflection in a hundred is as large as that or larger.",
    )
    return


@app.cell
def _():
    choose(
        "A film is made twice as thick, and is still thin. By how much does the most probable loss of energy grow?",
        ("To less than double.", "To exactly double.", "To more than double."),
        2,
        hint=r"$m$ and $\xi$ double. The peak is at $\Delta = \xi\, (\ln m + 1 - \gamma - 0.22)$.",
        explanation=r"$\xi$ doubles and $\ln m$ grows besides: in more collisions a rare large one becomes likely.",
    )
    return


@app.function
def test_backscatter():
    """Joy's values at 100 keV. Chance: 0.011; another program, with other limits: the rest."""
    for material, quoted in (("gold", 0.52), ("silicon", 0.21)):
        assert abs((flights(material, 100, 2000)[0] == -1).mean() - quoted) < 0.05


@app.function
def test_screening_and_free_paths():
    """The screening is that of an atom, and deflections in a film are Poisson."""
    # Thomas and Fermi's radius 0.885 Bohr / Z^(1/3): the fit keeps to it within 15 %.
    for material, kev in (("ice", 300.0), ("silicon", 100.0), ("gold", 100.0)):
        wave = electron_wavelength_angstrom(torch.tensor(kev)).item()
        radius = wave / (4.0 * np.pi * np.sqrt(screening(material, kev)))
        assert abs(radius / (0.468 / MATERIALS[material][0] ** (1 / 3)) - 1.0) < 0.15
    hits = flights("ice", 300, 4000, 200e-7)[1]
    mean = 200e-7 / mean_free_path_cm("ice", 300.0)
    # Four standard errors; slant makes ways longer by less than 1e-3.
    assert abs(hits.mean() - mean) < 4.0 * np.sqrt(mean / 4000)


@app.function
def test_landau_and_billiard():
    """Peak and width of the density; sums of 100 (0.0115 by chance, as much by finite m)."""
    x = np.linspace(-4.0, 10.0, 14_001)
    density = LANDAU.pdf(x)
    assert abs(x[density.argmax()] + 0.2228) < 2e-3
    wide = x[density > density.max() / 2.0]
    assert abs(wide[-1] - wide[0] - 4.018) < 5e-3
    assert stats.kstest(landau_variable(100), LANDAU.cdf).statistic < 0.025
    # The billiard: an open wall is met after 2 / sin(theta) sides; of length 2, 4 / sin.
    assert np.allclose(2.0 * way_to_the_pump(53.0, 1.0), 4.0 / np.sin(np.radians(53.0)))


@app.cell
def _():
    closing(
        "scattering",
        library=["cryoinfer.physics.ctf.electron_wavelength_angstrom"],
        sources=[
            "D. C. Joy 1995, Monte Carlo Modeling for Electron Microscopy and Microanalysis, Oxford University Press.",
            "D. C. Joy, S. Luo 1989, An empirical stopping power relationship for low-energy electrons, Scanning.",
            "L. Landau 1944, On the energy loss of fast particles by ionization, Journal of Physics (USSR).",
            "learn_cryoem_math (Woollard), notebooks scattering_monte_carlo and vacuum.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
