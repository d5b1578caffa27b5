import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy.ndimage import map_coordinates
    from scipy.spatial.transform import Rotation
    from scipy.special import erf

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
    from cryoinfer.physics.structures.beads import GaussianBeads
    from cryoinfer.records import Pose


@app.cell
def _():
    opening("gaussian_projection")
    return


@app.cell
def _():
    mo.md(r"""
    ## Turn the voxels, or turn the atoms

    A molecule is a list of places. An image of it in the pose $R$ is wanted: the density after the turn, summed along the
    beam. There are two ways. The first makes a map of voxels once, and turns the map. A voxel of the turned map lies
    between voxels of the old one, so its value is **interpolated**: here from the eight corners around it, each the more
    the nearer it is. The second way turns the places, three numbers an atom, and draws anew.

    The figure does both with the same forty atoms. Look at the difference when atoms become narrow, and when turns follow
    each other: every interpolation blurs, and blurs add up. At an angle of 0 nothing is between voxels, and there is no
    difference.
    """)
    return


@app.function
def random_rotation(seed):
    return Rotation.random(rng=np.random.default_rng(seed)).as_matrix()


@app.function
def atoms(seed=None):
    """Return 40 places (40, 3) in pixels along a helix, turned at random by a seed."""
    turn, along = np.linspace(0.0, 6.0 * np.pi, 40), np.linspace(-6.0, 6.0, 40)
    places = np.stack([3.5 * np.cos(turn), 3.5 * np.sin(turn), along], 1)
    return places @ random_rotation(seed).T if seed is not None else places


@app.function
def profiles(centres, sigma, box):
    """Return one-dimensional Gaussians of area 1, a row for each centre, in pixels."""
    away = np.arange(box) - box // 2 - centres[:, None]
    return np.exp(-(away**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)


@app.function
def gaussian_image(places, sigma, box):
    """Return the projection along z of Gaussians, sampled at the pixels (y, x)."""
    return profiles(places[:, 1], sigma, box).T @ profiles(places[:, 0], sigma, box)


@app.function
def gaussian_map(places, sigma, box):
    """Return the Gaussians sampled at the voxels (z, y, x)."""
    x, y, z = (profiles(along, sigma, box) for along in places.T)
    return np.einsum("az,ay,ax->zyx", z, y, x)


@app.function
def turned_voxels(density, rotation):
    """Return the density at R^T r for each voxel r, read by trilinear interpolation."""
    axis = np.arange(len(density)) - len(density) // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    at = np.stack([x, y, z], -1) @ rotation + len(density) // 2
    return map_coordinates(density, np.moveaxis(at[..., ::-1], -1, 0), order=1)


@app.function
def picture(image, title, **how):
    return Panel((Heat(image, **how),), title, "x (px)", "y (px)", equal=True)


@app.cell
def _():
    def voxels_or_atoms(angle_degrees, turns, sigma):
        places, axis = atoms(), np.array([1.0, 2.0, 2.0]) / 3.0
        once = Rotation.from_rotvec(np.radians(angle_degrees) * axis).as_matrix()
        density = gaussian_map(places, sigma, 24)
        for _ in range(turns):
            density = turned_voxels(density, once)
        whole = np.linalg.matrix_power(once, turns)
        exact, found = gaussian_image(places @ whole.T, sigma, 24), density.sum(0)
        most, off = exact.max(), found - exact
        error = 100 * np.linalg.norm(off) / np.linalg.norm(exact)
        return Plot(
            (
                picture(found, "Voxels turned", limits=(0.0, most)),
                picture(exact, "Atoms turned", limits=(0.0, most)),
                picture(off, "Difference", signed=True, limits=(-most / 3, most / 3)),
            ),
            says=f"After {turns} turn(s) of {angle_degrees} degrees, atoms of {sigma} px: turned voxels are off by {error:.1f} %.",
        )

    explore(
        voxels_or_atoms,
        angle_degrees=Slider("angle of a turn (degrees)", (0, 10, 20, 30, 45), 20),
        turns=Slider("turns", (1, 2, 4, 8), 1),
        sigma=Slider("width sigma of an atom (px)", (0.75, 1, 1.5, 2), 1),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## A Gaussian keeps its shape

    Why can atoms be drawn anew so cheaply? Take one of weight $w$ at the place $r_j$,

    $$f_j(r) = \frac{w}{(2\pi\sigma^2)^{3/2}}\, e^{-\lvert r - r_j\rvert^2 / 2\sigma^2} .$$

    Turned by $R$, its value at $r$ is what was at $R^{T} r$. A rotation keeps lengths, so
    $\lvert R^{T} r - r_j \rvert = \lvert r - R r_j \rvert$: a round Gaussian is the same Gaussian at another place. Its
    exponent is a sum over axes, so it is a product $g(x - x_j)\, g(y - y_j)\, g(z - z_j)$ of one-dimensional Gaussians
    $g$ of area 1, with $(x_j, y_j, z_j) = R r_j$. The **projection** is the integral of the density along z, and the last
    factor has the integral 1:

    $$I(x, y) = \sum_j w_j\, g(y - y_j)\, g(x - x_j) .$$

    On a grid of pixels this is a product of two matrices: a row of $g$ for each atom along y, and one along x. For $a$
    atoms and $N^2$ pixels it takes $2 N a$ exponentials and $N^2 a$ multiplications.

    A map that is summed voxel by voxel gives the same image if a sum of samples is as good as the integral. For a
    Gaussian it nearly always is: by Poisson's summation formula the sum of $g$ over integers differs from 1 by at most
    about $2 e^{-2\pi^2\sigma^2}$, with $\sigma$ in pixels. That is $5 \times 10^{-9}$ at $\sigma = 1$, and 1.4 % at
    $\sigma = 0.5$.
    """)
    return


@app.cell
def _():
    mo.md(r"""
    ## Draw an atom where it matters

    Most of these multiplications are by nothing: far from an atom its Gaussian is zero for all purposes. **Sparse
    rasterization** draws each atom into a small patch about it and leaves the other pixels alone. What a cut at the
    distance $c\,\sigma$ loses is the mass outside a circle, an integral in polar coordinates:

    $$\int_{c\sigma}^{\infty} \frac{e^{-r^2/2\sigma^2}}{2\pi\sigma^2}\, 2\pi r\,
    \mathrm{d}r = e^{-c^2/2} .$$

    In the figure a small $c$ shows as discs with a rim, and as missing mass. The price, pixels touched for each atom, is
    the area of the circle and grows with $c^2$. Four sigma lose 3 parts in 10,000.
    """)
    return


@app.function
def cut_image(places, sigma, box, cut):
    """Return the image with every Gaussian set to zero beyond ``cut`` sigmas."""
    axis, image = np.arange(box) - box // 2, np.zeros((box, box))
    for x, y, _ in places:
        squared = (axis - x) ** 2 + (axis[:, None] - y) ** 2
        near = squared <= (cut * sigma) ** 2
        image[near] += np.exp(-squared[near] / (2 * sigma**2)) / (2 * np.pi * sigma**2)
    return image


@app.cell
def _():
    def cutting(cut, sigma):
        places, cuts = 1.8 * atoms(), np.linspace(1.0, 6.0, 60)
        image = cut_image(places, sigma, 48, cut)
        lost = 1.0 - image.sum() / gaussian_image(places, sigma, 48).sum()
        marks = (
            Line(cuts, -(cuts**2) / 2 / np.log(10), "the integral"),
            Points([cut], [np.log10(lost)], "this image"),
        )
        words = "Mass that is lost", "cut (sigma)", "log10 of the share lost"
        area = np.pi * (cut * sigma) ** 2
        return Plot(
            (picture(image, "Cut image"), Panel(marks, *words)),
            f"A cut at {cut} sigma loses {lost:.2g} of the mass and touches about {area:.0f} of 2,304 pixels an atom.",
        )

    explore(
        cutting,
        cut=Slider("cut (sigma)", (1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5), 2),
        sigma=Slider("width sigma of an atom (px)", (1, 1.5, 2), 1.5),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## When is a sampled Gaussian the right image?

    Pixels carry frequencies up to Nyquist, half a cycle per pixel. The transform of $g$ is $e^{-2\pi^2\sigma^2 k^2}$,
    which has no end. What it holds beyond Nyquist does not vanish when the Gaussian is sampled: it is folded back
    (*Sampling and aliasing*). The other way to make an image has no such part. It adds waves,

    $$\hat I(k) = e^{-2\pi^2\sigma^2 \lvert k\rvert^2} \sum_j w_j\,
    e^{-2\pi i (k_x x_j + k_y y_j)} ,$$

    at the frequencies of the grid alone, and transforms back: the **band-limited** image. It is a slice of the atoms'
    transform, exactly (*The slice theorem* says why). How far can the two differ? The share of $g$'s transform beyond
    Nyquist is

    $$\int_{\lvert k\rvert > 1/2} e^{-2\pi^2\sigma^2k^2}\,\mathrm{d}k \Big/
    \int e^{-2\pi^2\sigma^2k^2}\,\mathrm{d}k
    = 1 - \operatorname{erf}\left(\frac{\pi\sigma}{\sqrt 2}\right) .$$

    A single atom in the middle of a pixel has the share of both axes, $1 - \operatorname{erf}^2(\pi\sigma/\sqrt2)$,
    missing from its peak: the curve on the right. The dot is the largest error among forty atoms that are turned at
    random, over the image's largest value; another seed moves it by a factor of two or so. Move $\sigma$: between 0.5 and
    2 pixels the error falls from a fifth by nearly nine orders of magnitude.
    """)
    return


@app.function
def band_limited_image(places, sigma, box):
    """Return the image whose transform is that of the Gaussians, up to Nyquist."""
    k = np.fft.fftfreq(box)
    waves = [np.exp(-2j * np.pi * k * centre[:, None]) for centre in places.T[:2]]
    decay = np.exp(-2 * np.pi**2 * sigma**2 * (k[:, None] ** 2 + k**2))
    transform = decay * (waves[1].T @ waves[0])
    # At exactly Nyquist a wave and its mirror image are one sample: left out.
    transform[box // 2], transform[:, box // 2] = 0.0, 0.0
    return np.fft.fftshift(np.fft.ifft2(transform).real)


@app.function
def sampling_error(sigma, seed):
    """Return the largest difference of both images over the largest value."""
    turned = 2.0 * atoms(seed)
    exact = band_limited_image(turned, sigma, 64)
    return np.abs(gaussian_image(turned, sigma, 64) - exact).max() / exact.max()


@app.function
def beyond_nyquist(sigma):
    return 1.0 - erf(np.pi * sigma / np.sqrt(2.0)) ** 2


@app.cell
def _():
    def aliasing(sigma, seed):
        places = 2.0 * atoms(seed)
        error, sigmas = sampling_error(sigma, seed), np.linspace(0.4, 2.0, 60)
        errors = (
            Line(sigmas, np.log10(beyond_nyquist(sigmas)), "beyond Nyquist"),
            Points([sigma], [np.log10(error)], "largest error"),
        )
        words = "Sampled against band-limited", "sigma (px)", "log10 of the error"
        return Plot(
            (
                picture(gaussian_image(places, sigma, 36), "Sampled image"),
                picture(band_limited_image(places, sigma, 36), "Band-limited image"),
                Panel(errors, *words),
            ),
            says=f"The largest error is {error:.2g} of the largest value.",
        )

    explore(
        aliasing,
        sigma=Slider("width sigma (px)", (0.5, 0.75, 1, 1.25, 1.5, 1.75, 2), 0.75),
        seed=Slider("seed of the rotation", range(5), 0),
    )
    return


@app.cell
def _():
    source(profiles, gaussian_image, turned_voxels, cut_image, band_limited_image)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *The sum of the simulated map along z is not the simulated image.* Somebody used the factor $1/2\pi\sigma^2$ of two
      dimensions for the map as well; it needs $(2\pi\sigma^2)^{-3/2}$. Their ratio is $\sqrt{2\pi}\,\sigma$: one number
      for all atoms of one width, and another for each element.
    - *A simulation at 2 Å a pixel has too much fine detail.* Carbon's density has a root mean square width of 0.46 Å
      along an axis, without thermal motion: 0.23 px. Sampled, its spectrum is folded. The library adds waves, so that
      narrow atoms do not alias.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        r"1,000 atoms of $\sigma$ = 1.5 px, 128 by 128 pixels: how many times fewer pixels are touched with a cut at 4 sigma?",
        128**2 / (np.pi * (4 * 1.5) ** 2),
        tolerance=15.0,
        hint=r"An atom touches a circle of radius $4\sigma$. Their number drops out.",
        explanation="The circle has 113 pixels, the image 16,384: 145 times fewer.",
    )
    return


@app.cell
def _():
    exercise(
        r"One atom on a pixel has $\sigma$ = 0.5 px. By which share of its true, band-limited height is the sampled one too high?",
        1.0 / erf(np.pi * 0.5 / np.sqrt(2.0)) ** 2 - 1.0,
        tolerance=0.01,
        hint=r"The band-limited height lacks the share beyond Nyquist. $\operatorname{erf}(1.1107) = 0.8838$.",
        explanation="1 / 0.8838² is 1.28: 28 % too high.",
    )
    return


@app.cell
def _():
    choose(
        "A molecule has 100,000 atoms, the box 64³ voxels. Which way to one image in a new pose takes the fewest multiplications?",
        ("the matrix product", "patches of 100 pixels an atom", "turning the voxels"),
        2,
        hint="A turned voxel is a sum over eight corners.",
        explanation="410 million, 10 million, 2.1 million: voxels do not mind how many atoms are in them.",
    )
    return


@app.function
def test_known_numbers():
    # Measured by others, on their atoms. Worst places differ by less than 2.5; widths by 8 to 10,000.
    known = {0.5: 0.18, 0.75: 2.3e-2, 1.0: 1.7e-3, 1.5: 2.8e-6, 2.0: 3e-10}
    for sigma, expected in known.items():
        found = [sampling_error(sigma, seed) for seed in range(5)]
        assert expected / 2.5 < np.mean(found) < 2.5 * expected
    # One atom on a pixel lacks its tail. In a box of 256 the sum over frequencies is the integral to 1e-3.
    one, at = np.zeros((1, 3)), (0.75, 256)
    share = band_limited_image(one, *at).max() / gaussian_image(one, *at).max()
    assert abs(1.0 - share - beyond_nyquist(0.75)) < 1e-3


@app.function
def test_the_map_sums_to_the_image_and_a_cut_loses_its_integral():
    image = gaussian_image(atoms(), 1.0, 32)
    off = np.abs(gaussian_map(atoms(), 1.0, 32).sum(0) - image).max()
    assert off < 6e-9 * image.max()  # 2 exp(-2 pi^2) = 5.4e-9 at sigma 1.
    places = np.random.default_rng(0).uniform(-20, 20, (200, 3))
    lost = 1.0 - cut_image(places, 3.0, 96, 2.0).sum() / 200
    # Pixels on the rim count by their centres: 5 %.
    assert abs(lost / np.exp(-2.0) - 1.0) < 0.05


@app.function
def test_beads_of_the_library_are_the_band_limited_image():
    sigma, pixel = 0.8, 1.3
    places, ones = torch.tensor(atoms()) * pixel, torch.ones(40, dtype=torch.float64)
    beads = GaussianBeads(places, ones, ones * (sigma * pixel) ** 2)
    turns = torch.tensor(np.stack([random_rotation(0), np.eye(3)]))
    images = beads.project(Pose(turns, turns.new_zeros(2, 2)), 32, pixel)
    here = band_limited_image(atoms(0), sigma, 32)
    assert np.abs(images[0].numpy() * pixel**2 - here).max() < 1e-12  # rounding
    assert (beads.to_map(32, pixel).sum(0) - images[1]).abs().max() < 1e-12


@app.cell
def _():
    closing(
        "gaussian_projection",
        library=["cryoinfer.physics.structures.atoms.GaussianAtoms.project"],
        sources=["International Tables for Crystallography C, table 4.3.2.2."],
    )
    return


if __name__ == "__main__":
    app.run()
