import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy.spatial.transform import Rotation
    from scipy.special import j0, j1

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
    from cryoinfer.fourier.transform import image_to_fourier, map_to_fourier
    from cryoinfer.physics.structures.beads import GaussianBeads
    from cryoinfer.records import Pose


@app.cell
def _():
    opening("slice_theorem")
    return


@app.cell
def _():
    mo.md(r"""
    ## Shadows

    An image in cryo-EM is a sum along the beam. All depth seems lost in it. Begin one dimension lower: a flat object
    $f(x, y)$, and its shadow on a line that makes the angle $\theta$ with the x axis. A point $(x, y)$ falls on the place
    $s = x\cos\theta + y\sin\theta$ of that line. The shadows at all angles, one row each, are a **sinogram**: every point
    of the object draws a sine wave in it.

    Move the angle. The second panel is the size of the object's two-dimensional transform, with a line through its middle
    at the same angle. In the third panel the curves are the transform of the shadow, and the dots are values of the
    two-dimensional transform along that line. They agree, at every angle.
    """)
    return


@app.function
def blobs():
    """Return places (6, 2) in pixels and weights (6,) of Gaussians of sigma 2."""
    places = np.array([[9, 3], [-8, 6], [-3, -10], [4, -6], [0, 9], [-10, -3.0]])
    return places, np.array([1.0, 0.8, 1.2, 0.6, 0.9, 0.5])


@app.function
def gaussian(away):
    """Return a Gaussian of area 1 and sigma 2 px."""
    return np.exp(-(away**2) / 8.0) / np.sqrt(8.0 * np.pi)


@app.function
def flat_object(axis):
    """Return the object sampled at y (rows) and x (columns)."""
    (x, y), weights = blobs()[0].T, blobs()[1]
    return (gaussian(axis[:, None] - y) * weights) @ gaussian(axis - x[:, None])


@app.function
def shadow(axis, angle_degrees):
    """Return the integrals across a line at an angle, sampled along it."""
    places, weights = blobs()
    angle = np.radians(angle_degrees)
    at = places @ [np.cos(angle), np.sin(angle)]
    return gaussian(axis[:, None] - at) @ weights


@app.function
def transform_1d(values, axis, k):
    return np.exp(-2j * np.pi * np.multiply.outer(k, axis)) @ values


@app.function
def transform_2d(image, axis, kx, ky):
    """Return sums over all pixels at any frequencies (cycles per pixel), shape (k,)."""
    along_x = np.exp(-2j * np.pi * np.multiply.outer(kx, axis))
    along_y = np.exp(-2j * np.pi * np.multiply.outer(ky, axis))
    return np.einsum("kx,ky,yx->k", along_x, along_y, image)


@app.cell
def _():
    _axis, _k = np.arange(-24.0, 24.0), np.linspace(-0.2, 0.2, 81)
    _image, _angles = flat_object(_axis), np.arange(0, 180, 5)
    _sinogram = np.stack([shadow(_axis, one) for one in _angles])
    _whole = np.array([transform_2d(_image, _axis, _k, one + 0 * _k) for one in _k])

    def shadows(angle_degrees):
        c, s = np.cos(np.radians(angle_degrees)), np.sin(np.radians(angle_degrees))
        found = transform_1d(shadow(_axis, angle_degrees), _axis, _k)
        along = transform_2d(_image, _axis, _k * c, _k * s)
        off = np.abs(found - along).max() / np.abs(along).max()
        flat = Heat(_sinogram[::-1], (-24.5, 23.5, -2.5, 177.5))
        plane = Heat(np.abs(_whole)[::-1], (-0.2, 0.2, -0.2, 0.2))
        here = Line([-24, 24], [angle_degrees] * 2)
        line = Line([-0.2 * c, 0.2 * c], [-0.2 * s, 0.2 * s])
        curves = (
            Line(_k, found.real, "shadow: real part"),
            Line(_k, found.imag, "imaginary part"),
            Points(_k[::4], along.real[::4], "slice: real part"),
            Points(_k[::4], along.imag[::4], "imaginary part"),
        )
        k = "frequency (1/px)"
        return Plot(
            (
                Panel((flat, here), "Sinogram", "place on the line (px)", "angle (°)"),
                Panel((plane, line), "Transform of the object", k, k, equal=True),
                Panel(curves, "Along the line", k, "transform"),
            ),
            f"At {angle_degrees} degrees the curves differ by {off:.1g} of their largest value: by rounding.",
        )

    explore(shadows, angle_degrees=Slider("angle (degrees)", range(0, 176, 5), 30))
    return


@app.cell
def _():
    mo.md(r"""
    ## Why

    Write down the transform of a volume at a frequency that has no part along z:

    $$\hat f(k_x, k_y, 0) = \iiint f(x, y, z)\, e^{-2\pi i (k_x x + k_y y)}\,
    \mathrm{d}x\,\mathrm{d}y\,\mathrm{d}z .$$

    The wave does not depend on z, so z can be integrated first, and $\int f\,\mathrm{d}z$ is the image. What remains is
    the image's transform. So the image seen along z is the plane $k_z = 0$ of the volume's transform.

    Now turn the particle by $R$ before it is seen. What is at $r$ after the turn was at $R^{T} r$ before: the image is
    $I(x, y) = P_R f(x, y) = \int f(R^{T}(x, y, z))\,\mathrm{d}z$. Put $q = R^{T} r$ into the integral of its transform. A
    rotation changes neither volumes nor inner products, and $k \cdot r = (R^{T} k) \cdot q$. Hence the **slice theorem**,

    $$\hat I(k_x, k_y) = \hat f\left(R^{T} (k_x, k_y, 0)\right) .$$

    An image is a **central slice**, a plane through the origin, at a right angle to the direction of the beam in the
    frame of the map. A shift $t$ of the particle in the image is a factor $e^{-2\pi i k\cdot t}$, and the CTF another
    one. Depth is not lost but spread over images: those from other directions are other planes.

    Three things follow at once. The value at $k = 0$, the sum of all pixels, is the same in all images. Two slices always
    meet in a line (*Common lines*). And a view from the back is the mirror image of the view from the front, the same
    slice turned over.

    In the figure a chain of atoms is tilted and turned. The third panel is read off the three-dimensional transform on
    the tilted plane, without any projection. A turn in the plane only turns image and transform; a tilt brings values
    that were not there.
    """)
    return


@app.function
def turn_and_tilt(tilt_degrees, turn_degrees):
    """Return R: a tilt about y, then a turn about the beam."""
    return Rotation.from_euler("yz", [tilt_degrees, turn_degrees], True).as_matrix()


@app.function
def chain():
    """Return places (30, 3) in pixels along a helix that is thicker at one end."""
    turn, wide = np.linspace(0.0, 5.0 * np.pi, 30), np.linspace(2.0, 6.0, 30)
    return np.stack([wide * np.cos(turn), wide * np.sin(turn), turn - 8.0], 1)


@app.function
def atoms_image(places, axis):
    return gaussian(axis[:, None] - places[:, 1]) @ gaussian(axis - places[:, :1])


@app.function
def slice_of_atoms(rotation, k):
    """Return the transform of the chain on the plane R^T (kx, ky, 0), shape (ky, kx)."""
    plane = k[None, :, None] * rotation[0] + k[:, None, None] * rotation[1]
    size = np.exp(-8.0 * np.pi**2 * (plane**2).sum(-1))
    return size * np.exp(-2j * np.pi * plane @ chain().T).sum(-1)


@app.cell
def _():
    _axis = np.arange(-16.0, 16.0)
    _k = np.linspace(-0.15, 0.15, 31)

    def slices(tilt_degrees, turn_degrees):
        rotation = turn_and_tilt(tilt_degrees, turn_degrees)
        image = atoms_image(chain() @ rotation.T, _axis)
        waves = np.exp(-2j * np.pi * np.outer(_k, _axis))
        found, plane = waves @ image @ waves.T, slice_of_atoms(rotation, _k)
        edges, k = (-0.155, 0.155, -0.155, 0.155), "frequency (1/px)"
        how = {"limits": (-1.5, 1.5), "extent": edges}
        sizes = [Heat(np.log10(abs(one[::-1]) + 0.01), **how) for one in (found, plane)]
        image = Heat(image[::-1], (-16.5, 15.5, -16.5, 15.5))
        off = np.abs(found - plane).max() / 30.0
        return Plot(
            (
                Panel((image,), "Image", "x (px)", "y (px)", equal=True),
                Panel(sizes[:1], "Its transform (log10)", k, k, equal=True),
                Panel(sizes[1:], "Slice of the volume (log10)", k, k, equal=True),
            ),
            f"The two differ by {off:.1g} of the value at the origin: 30, the number of atoms, in every pose.",
        )

    explore(
        slices,
        tilt_degrees=Slider("tilt (degrees)", range(0, 181, 15), 30),
        turn_degrees=Slider("turn in the plane (degrees)", (0, 30, 60, 90), 0),
    )
    return


@app.cell
def _():
    source(shadow, transform_2d, turn_and_tilt, slice_of_atoms)
    return


@app.cell
def _():
    mo.md(r"""
    ## How many views fill the plane?

    An object of diameter $D$ has a transform that is smooth: it cannot change much over less than $1/D$ (*Sampling and
    aliasing*, with the parts exchanged). So a slice tells about a band of width $1/D$ around it. Take $n$ views about one
    axis, evenly over 180 degrees. At the radius $k$ neighbouring slices are $\pi k / n$ apart. They leave no gap where
    that is less than $1/D$, hence up to the resolution $d = 1/k$ with

    $$n = \frac{\pi D}{d} .$$

    This is **Crowther's criterion**. In the figure the circle is where it ends: more views push it out, a larger object
    pulls it in. Between slices beyond the circle nobody knows anything.
    """)
    return


@app.function
def views_needed(diameter, resolution):
    return np.pi * diameter / resolution


@app.cell
def _():
    def coverage(views, diameter):
        angle = np.pi * np.arange(views) / views
        gaps = np.full(views, np.nan)
        x, y = (
            np.stack([-0.5 * turned, 0.5 * turned, gaps], 1).ravel()
            for turned in (np.cos(angle), np.sin(angle))
        )
        limit = views / (np.pi * diameter)
        around = np.linspace(0.0, 2.0 * np.pi, 100)
        circle = Line(limit * np.cos(around), limit * np.sin(around), "filled")
        k = np.linspace(0.005, 0.5, 100)
        known = Line(k, np.minimum(1.0, limit / k), f"diameter {diameter} px")
        axes, box = ("frequency (1/px)", "frequency (1/px)"), (-0.5, 0.5)
        return Plot(
            (
                Panel((Line(x, y, "slices"), circle), "", *axes, box, box, equal=True),
                Panel((known,), "", axes[0], "share of a circle", y_range=(0, 1.05)),
            ),
            f"{views} views of an object of {diameter} px are complete to {1.0 / limit:.1f} px.",
        )

    explore(
        coverage,
        views=Slider("views", (3, 5, 8, 12, 20, 32, 50, 80), 12),
        diameter=Slider("diameter of the object (px)", (8, 16, 24, 32, 48), 24),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *The map is a featureless blob, though another program was content with these poses.* Its matrix is the transpose:
      it turns the map's frame where the formula wants it turned back. Every image goes into a wrong plane, and values
      that have nothing in common are averaged.
    - *Everything is right, but sharp detail is gone.* Rotation and transform have different centres, $(N-1)/2$ and $N/2$.
      Half a pixel along x and y is a shift of 0.71 px that points elsewhere in the map for every turn in the plane.
      Averaged over turns, a wave keeps the share $J_0(2\pi k \cdot 0.71)$, which is 10 % at Nyquist.
    - *The helices are left-handed.* Mirror the map in the plane of z. The projection along z is unchanged, and in the
      pose $R$ it is what the first map shows in the pose $M R M$, with $M = \operatorname{diag}(1, 1, -1)$. Both maps
      have the same images, and no flat slice can tell them apart (*What images can tell*).

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "How many evenly spread views over 180 degrees does an object of 300 Å diameter need for a resolution of 10 Å?",
        views_needed(300.0, 10.0),
        tolerance=1.0,
        hint="Crowther's criterion.",
        explanation="300 π / 10 is 94.",
    )
    return


@app.cell
def _():
    exercise(
        "Two atoms are 20 Å apart. The line between them makes an angle of 60 degrees with "
        "the plane of the image. At which frequency is the image's transform zero first?",
        1.0 / (2.0 * 20.0 * np.cos(np.radians(60.0))),
        tolerance=0.001,
        unit="1/Å",
        hint="How far apart do they appear? Waves cancel half a period apart.",
        explanation="They appear 10 Å apart; half a period is 10 Å at 1/20 Å.",
    )
    return


@app.cell
def _():
    choose(
        "A particle is seen from one direction, turned in the plane by every angle. How much of its transform is known?",
        ("all of it", "one plane", "half of it"),
        1,
        hint="In the second figure, move the turn and leave the tilt.",
        explanation="They are all the same plane, turned in itself.",
    )
    return


@app.function
def test_slices_are_shadows():
    # The transform of a disc's shadow, 2 sqrt(r^2 - s^2), is that of the disc, known as
    # r J1(2 pi k r) / k. Sums of 20,000 steps miss the root's edge by 1e-5 of the area.
    s, k = (np.arange(20000) + 0.5) / 10000 - 1.0, np.array([0.1, 0.37, 1.3])
    found = transform_1d(2.0 * np.sqrt(1.0 - s**2), s, k).real * 1e-4
    assert np.abs(found - j1(2 * np.pi * k) / k).max() < 3e-5
    # Gaussians of 2 px are sampled to exp(-2 pi^2 sigma^2 (1 - k)^2), 1e-15 here.
    axis, k = np.arange(-24.0, 24.0), np.linspace(-0.2, 0.2, 9)
    angle = np.radians(35.0)
    along = transform_2d(flat_object(axis), axis, k * np.cos(angle), k * np.sin(angle))
    assert np.abs(transform_1d(shadow(axis, 35.0), axis, k) - along).max() < 1e-9


@app.function
def test_known_numbers():
    assert abs(views_needed(200.0, 20.0) - 31.416) < 1e-3
    # A table of Bessel functions: J0(2.2) = 0.1104, falling by 0.556 a unit.
    assert abs(j0(2.0 * np.pi * 0.5 * np.sqrt(0.5)) - (0.1104 - 0.556 * 0.0214)) < 1e-3
    mirror, turn = np.diag([1.0, 1.0, -1.0]), turn_and_tilt(40.0, 70.0)
    axis = np.arange(-16.0, 16.0)
    other = atoms_image(chain() @ mirror @ (mirror @ turn @ mirror).T, axis)
    # Rounding: a mirrored map in the mirrored pose is the same image.
    assert np.abs(other - atoms_image(chain() @ turn.T, axis)).max() < 1e-12


@app.function
def test_it_is_the_convention_of_the_library():
    places, rotation = torch.tensor(chain()), torch.tensor(turn_and_tilt(40.0, 70.0))
    one = torch.ones(30, dtype=torch.float64)
    beads = GaussianBeads(places, one, 4.0 * one)
    pose = Pose(rotation[None], torch.zeros(1, 2, dtype=torch.float64))
    found = image_to_fourier(beads.project(pose, 64, 1.0))[0] * 64
    k = np.fft.fftfreq(64)
    here = slice_of_atoms(rotation.numpy(), k)[:9, :9]
    # The box cuts nothing off and images are band-limited: rounding.
    assert np.abs(found[:9, :9].numpy() - here).max() < 1e-9
    density = beads.to_map(64, 1.0)
    straight = image_to_fourier(density.sum(0)) - map_to_fourier(density)[0]
    assert straight.abs().max() < 1e-10


@app.cell
def _():
    closing(
        "slice_theorem",
        library=["cryoinfer.fourier.slices.extract_slices", "cryoinfer.records.Pose"],
        sources=[
            "R. N. Bracewell 1956, Strip integration in radio astronomy, Australian Journal of Physics.",
            "D. J. DeRosier and A. Klug 1968, Reconstruction of three dimensional structures from electron micrographs, Nature.",
            "R. A. Crowther, D. J. DeRosier and A. Klug 1970, The reconstruction of a three-dimensional structure from projections and its application to electron microscopy, Proc. R. Soc. London A.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
