import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch
    from scipy.spatial.transform import Rotation
    from scipy.special import i0e
    from scipy.stats import matrix_normal, multivariate_normal

    from course import (
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
    from cryoinfer.evaluation.identifiability import amplitude_identifiability
    from cryoinfer.geometry.hand import flip_hand
    from cryoinfer.records import Pose

    SIDE, WIDTH = 33, 1.5  # pixels of an image, and width of an atom in them


@app.cell
def _():
    opening("identifiability")
    return


@app.cell
def _():
    mo.md(r"""
    ## Two worlds, the same images

    An image tells about the world by its probability, $p(y \mid \text{world})$. If two worlds give every image the same probability, then no number of images tells them apart, and no
    program does. A quantity is **identifiable** if two worlds that differ in it differ in the probability of some image.

    Take the hand of a molecule. A projection adds up the map along the beam,

    $$(P_R V)(x, y) = \int V\!\left(R^{-1} (x, y, z)\right) \mathrm{d}z .$$

    Let $S$ turn $z$ into $-z$, and let $V'(r) = V(S r)$ be the mirrored molecule. Look at it from $R' = S R S$. Since $S S = 1$, we have $S R'^{-1} = R^{-1} S$, and

    $$(P_{R'} V')(x, y) = \int V\!\left(S R'^{-1} (x, y, z)\right) \mathrm{d}z =
    \int V\!\left(R^{-1} (x, y, -z)\right) \mathrm{d}z = (P_R V)(x, y),$$

    for the integral does not mind the sign of $z$. Every image of the molecule is an image of its mirror image, in another pose. If all poses are equally likely, both worlds give every
    image the same probability. The hand is not identifiable from such images: it is chosen afterwards, by a helix in the map that must be right-handed.

    Below is a helix of twelve atoms. Turn it as you like. The mirror image in the pose $R$ looks different; in the pose $S R S$ it looks the same, to the last digit.
    """)
    return


@app.function
def helix():
    """Return twelve atoms (12, 3) on a right-handed helix, in pixels."""
    turn = np.arange(12) * 0.9
    return np.stack([7 * np.cos(turn), 7 * np.sin(turn), 1.6 * np.arange(12) - 8.8], 1)


@app.function
def mirrored_pose(rotation):
    """Return S R S, as the program does."""
    one = Pose(torch.as_tensor(rotation)[None], torch.zeros(1, 2))
    return flip_hand(one).rotation[0].numpy()


@app.function
def projected(atoms):
    """Return the image of atoms (n, 2 or 3), Gaussians seen along z."""
    axis = np.arange(SIDE) - SIDE // 2
    along = np.exp(-0.5 * ((axis - atoms[:, :2, None]) / WIDTH) ** 2)
    return np.einsum("nx,ny->yx", along[:, 0], along[:, 1])


@app.function
def picture(image, title, limits=None):
    """Return a panel with an image."""
    return Panel((Heat(image, limits=limits),), title, equal=True)


@app.cell
def _():
    _mirror = np.array([1.0, 1.0, -1.0])

    def hands(turn, tilt):
        rotation = Rotation.from_euler("zx", (turn, tilt), True).as_matrix()
        atoms = helix()
        seen = projected(atoms @ rotation.T)
        same = projected((atoms * _mirror) @ mirrored_pose(rotation).T)
        other = projected((atoms * _mirror) @ rotation.T)
        return Plot(
            (
                picture(seen, "The helix, pose R", (0, 3)),
                picture(other, "its mirror image, pose R", (0, 3)),
                picture(same, "its mirror image, pose S R S", (0, 3)),
            ),
            f"Largest difference of a pixel: first and second {abs(seen - other).max():.2f}, first and third {abs(seen - same).max():.2f}.",
        )

    explore(
        hands,
        turn=Slider("turn (degrees)", range(0, 360, 45), 45),
        tilt=Slider("tilt (degrees)", range(0, 181, 20), 60),
    )
    return


@app.cell
def _():
    mo.md(r"""
    Such a freedom is called a **gauge**. There are more. Turn the map and all poses with it: nothing changes, so the frame of a map is a convention. Double the map and halve the contrast of
    all images: nothing changes. Let a conformation have the coordinate $z$, or $-z$, or $z^3$: it is the same conformation. Before a result is compared with a truth, its gauge must be
    fixed.

    ## The mean is not all

    One atom, at the distance $\rho$ from the axis of the beam, turned about it by an unknown angle. The mean of all images is a ring. Its profile is a Gaussian averaged over a circle, which
    is a Bessel function,

    $$m(s) = e^{-(s^2 + \rho^2) / 2 w^2}\, I_0\!\left(\frac{s \rho}{w^2}\right),$$

    with $w$ the width of the atom and $s$ the distance from the centre. The mean tells $\rho$. It does not tell the height of the atom along the beam, which no projection about this axis
    shows. And it does not tell an atom that turns from a ring that stands still: both have the mean $m$. Each image tells, if it is not too noisy. What differs are second moments, the mean
    products of two pixels: two places of the ring are never bright together if there is one atom.

    Raise the noise. The mean of the images of both worlds is the same all the while; what is lost is the difference. The likelihood ratio of one image of the atom sums over all its angles.
    At noise 0.3 one image gives 31 nats. At noise 3 it takes 250 images to reach 3 nats. At high noise the information of an image falls as $1/\sigma^4$ where second moments are the first
    to differ, as $1/\sigma^6$ where only third ones do: moving in unknown ways is dear.
    """)
    return


@app.function
def ring(radius):
    """Return the mean image of an atom that turns (i0e is I_0 without overflow)."""
    far = np.hypot(*(np.mgrid[:SIDE, :SIDE] - SIDE // 2))
    return np.exp(-0.5 * ((far - radius) / WIDTH) ** 2) * i0e(far * radius / WIDTH**2)


@app.function
def gain(radius, noise, images=2000, seed=0):
    """Return log p(y | atom) - log p(y | ring) of images of the atom, in nats."""
    rng = np.random.default_rng(seed)
    angle = np.linspace(0.0, 2.0 * np.pi, 48, endpoint=False)
    at = radius * np.stack([np.cos(angle), np.sin(angle)], 1)[:, None]
    atom, still = np.reshape([*map(projected, at)], (48, -1)), ring(radius).ravel()
    true = atom[rng.integers(0, 48, images)]
    data = true + rng.normal(0.0, noise, true.shape)
    turning = (data @ atom.T - 0.5 * (atom**2).sum(1)) / noise**2
    standing = (data @ still - 0.5 * (still**2).sum()) / noise**2
    most = turning.max(1)
    return most + np.log(np.exp(turning - most[:, None]).mean(1)) - standing


@app.cell
def _():
    def worlds(radius, noise):
        grain = np.random.default_rng(4).normal(0.0, noise, (2, SIDE, SIDE))
        at = radius * np.array([[np.cos(0.7), np.sin(0.7)]])
        limits, each = (-2.0 * noise, 1.0 + 2.0 * noise), gain(radius, noise)
        return Plot(
            (
                picture(projected(at) + grain[0], "An atom that turns", limits),
                picture(ring(radius) + grain[1], "A ring that stands", limits),
                picture(ring(radius), "The mean of both"),
            ),
            f"An image of the atom speaks against the ring with {each.mean():.3g} ± {each.std() / len(each) ** 0.5:.1g} nats, on average.",
        )

    explore(
        worlds,
        radius=Slider("distance from the axis (pixel)", (2, 4, 6, 8, 10), 8),
        noise=Slider("noise, standard deviation", (0.1, 0.3, 0.5, 1.0, 2.0, 3.0), 0.3),
    )
    return


@app.cell
def _():
    source(projected, ring, gain)
    return


@app.cell
def _():
    mo.md(r"""
    ## Nearly the same

    Between "tells" and "never tells" lies "hardly tells". A molecule has a body and an arm. The arm swings by the angle $z$ about the centre; the whole is turned in the plane by $\theta$.
    Both are unknown. If the body is round, turning the whole moves the arm as swinging does: only $\theta + z$ shows. If the body is long, it shows $\theta$ by itself.

    Near the best fit an image changes by $J_\theta\, \mathrm{d}\theta + J_z\, \mathrm{d}z$, the log-likelihood is a parabola, and its curvatures are the **Fisher information**

    $$F = \frac{1}{\sigma^2} \begin{pmatrix} J_\theta \cdot J_\theta & J_\theta \cdot J_z \\
    J_\theta \cdot J_z & J_z \cdot J_z \end{pmatrix} .$$

    Were $\theta$ known, $z$ had the variance $1 / F_{zz}$. As it is not, the variance is $(F^{-1})_{zz}$. The ratio of the standard deviations is $1/\sqrt{1 - c^2}$, where $c$ is the
    correlation of the two in $F^{-1}$. Make the body round and see the ellipse turn into a valley without end.
    """)
    return


@app.function
def swinging(theta, z, length):
    """Return the image of a body of a given length, and its arm; angles in radians."""
    body, arm = [[length / 2, 0.0], [-length / 2, 0.0]], [[0.0, 6.0], [0.0, 9.0]]
    parts = []
    for atoms, angle in ((body, theta), (arm, theta + z)):
        cos, sin = np.cos(angle), np.sin(angle)
        parts.append(atoms @ np.array([[cos, -sin], [sin, cos]]).T)
    return projected(np.concatenate(parts))


@app.function
def information(length, noise):
    """Return the Fisher information of theta and z, in 1 / radian^2."""
    slopes = [
        (swinging(a, b, length) - swinging(-a, -b, length)).ravel() / 2e-4
        for a, b in ((1e-4, 0.0), (0.0, 1e-4))
    ]
    return np.array([[one @ other for other in slopes] for one in slopes]) / noise**2


@app.function
def widened(length):
    """Return the program's "widened by pose" of z, and its correlation with theta."""
    covariance = np.linalg.inv(information(length, 0.5))
    correlation = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
    every = torch.zeros(1, 7, 7, dtype=torch.float64)
    every[0, [[2], [6]], [2, 6]] = torch.as_tensor(covariance)
    return amplitude_identifiability(every).widened_by_pose[0], correlation


@app.cell
def _():
    def valley(length, noise):
        degrees, truth = np.linspace(-30.0, 30.0, 31), swinging(0.0, 0.0, length)
        there = np.radians(degrees)
        every = [swinging(a, b, length) for a in there for b in there]
        log = -0.5 * ((np.array(every) - truth) ** 2).sum((1, 2)).reshape(31, 31)
        mass = np.exp(log / noise**2)
        factor, correlation = widened(length)
        surface = (Heat(mass[::-1], extent=(-31.0, 31.0, -31.0, 31.0)),)
        swing, turn = "swing z (degrees)", "turn θ (degrees)"
        return Plot(
            (
                picture(truth, "The particle"),
                Panel(surface, "Posterior", swing, turn),
                Panel(
                    (Line(degrees, mass.sum(0) / mass.sum()),),
                    "Of the swing alone",
                    swing,
                    "mass",
                ),
            ),
            f"z is {factor:.2f} times less certain than if θ were known; their correlation is {correlation:.3f}.",
        )

    explore(
        valley,
        length=Slider("length of the body (pixel)", (0.5, 1, 2, 4, 6, 9), 6),
        noise=Slider("noise, standard deviation", (0.25, 0.5, 1.0), 0.5),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Noise with a freedom of its own

    A detector that is read row by row has noise whose rows resemble each other, and whose columns do, each by a covariance of its own. In the **matrix normal distribution**

    $$\operatorname{cov}(Y_{ij}, Y_{kl}) = U_{ik} V_{jl} ,$$

    with $U$ for rows and $V$ for columns. An image of $m \times n$ pixels has $m(m+1)/2 + n(n+1)/2$ such numbers instead of $mn(mn+1)/2$: they can be measured. But $2U$ and $V/2$ give the
    same products. Neither scale is identifiable; fix one, say by $\operatorname{tr} U = m$.

    ## What goes wrong in practice

    - *"My map is left-handed."* Half of all runs from nothing are. Flip the map, and replace all poses by $S R S$. To flip the map alone makes all poses wrong.
    - *"The latent coordinate follows the viewing angle."* Pose errors and motion move pixels in the same way. Ask how much the coordinate widens if poses are unknown.
    - *"The coordinate came out with the other sign, and scaled."* So it may. Compare ranks, not values.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "In the posterior of an image, a rotation and an amplitude have a correlation of 0.8. How many times wider is the amplitude than if the rotation were known?",
        1.0 / np.sqrt(1.0 - 0.8**2),
        tolerance=0.02,
        hint="The ratio is given above the last figure.",
        explanation=r"$1/\sqrt{1 - 0.64} = 1/0.6 = 1.67$.",
    )
    return


@app.cell
def _():
    exercise(
        r"Rows have $U = \begin{pmatrix} 2 & 1 \\ 1 & 2 \end{pmatrix}$, columns $V = \begin{pmatrix} 1 & 0.5 \\ 0.5 & 1 \end{pmatrix}$. What is the covariance of "
        "the first pixel of the first row with the second pixel of the second row?",
        1.0 * 0.5,
        tolerance=0.01,
        hint="$i = j = 1$ and $k = l = 2$.",
        explanation=r"$U_{12} V_{12} = 1 \times 0.5$.",
    )
    return


@app.cell
def _():
    choose(
        "A program reports the hand of a map from flat projections of single particles alone, with a confidence of 99 %. What is it worth?",
        (
            "It is right 99 times of 100.",
            "Nothing.",
            "It depends on the number of images.",
        ),
        1,
        hint="How probable is each image in the mirrored world?",
        explanation="As probable as in the other. Only something else can tell: a prior (helices are right-handed), a tilted pair of images, or the curvature of the Ewald sphere.",
    )
    return


@app.function
def test_mirror_and_ring():
    """The mirrored molecule, to rounding; Bessel's ring and 360 atoms (converges to 1e-10)."""
    angle = np.radians(np.arange(360))
    atoms = 6.0 * np.stack([np.cos(angle), np.sin(angle)], 1)
    assert np.allclose(projected(atoms) / 360.0, ring(6.0), atol=1e-10)
    for turn, tilt in ((45, 60), (200, 110)):
        rotation = Rotation.from_euler("zx", (turn, tilt), True).as_matrix()
        atoms = helix()
        mirror = atoms * np.array([1.0, 1.0, -1.0])
        same = projected(mirror @ mirrored_pose(rotation).T)
        assert np.allclose(same, projected(atoms @ rotation.T), atol=1e-12)
        assert abs(projected(mirror @ rotation.T) - same).max() > 0.3


@app.function
def test_information_falls_with_the_fourth_power():
    """Twice the noise leaves a sixteenth; 20,000 gains, of deviations sqrt(2 gain): 40 %."""
    strong, weak = (gain(8.0, noise, 20_000).mean() for noise in (1.5, 3.0))
    assert 16.0 * 0.6 < strong / weak < 16.0 * 1.4
    assert abs(gain(8.0, 0.3).mean() - 31.0) < 1.0
    assert abs(3.0 / weak - 250.0) < 60.0


@app.function
def test_widening_and_matrix_normal():
    """1 / sqrt(1 - c^2) in closed form, and scipy's density with another scale."""
    for length in (1.0, 6.0):
        factor, correlation = widened(length)
        assert abs(factor * np.sqrt(1.0 - correlation**2) - 1.0) < 1e-9
    assert widened(0.5)[0] > 100.0 > 3.0 > widened(9.0)[0]
    rows, columns = np.array([[2.0, 1], [1, 2]]), np.array([[1.0, 0.5], [0.5, 1]])
    image = np.array([[0.3, -1.0], [0.8, 0.1]])
    one = matrix_normal.logpdf(image, rowcov=rows, colcov=columns)
    other = matrix_normal.logpdf(image, rowcov=2 * rows, colcov=columns / 2)
    direct = multivariate_normal(cov=np.kron(rows, columns)).logpdf(image.ravel())
    assert max(abs(one - direct), abs(one - other)) < 1e-12


@app.cell
def _():
    closing(
        "identifiability",
        library=[
            "cryoinfer.geometry.hand.flip_hand",
            "cryoinfer.evaluation.identifiability.amplitude_identifiability",
        ],
        sources=[
            "A. Perry, J. Weed, A. S. Bandeira, P. Rigollet and A. Singer 2019, The sample complexity of multireference alignment, SIAM J. Math. Data Sci.",
            "A. P. Dawid 1981, Some matrix-variate distribution theory, Biometrika.",
            "learn_cryoem_math (Woollard), stat547c_project and matrix_normal_dist.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
