import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import roma
    import torch
    from numpy.testing import assert_allclose

    from course import (
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
    from cryoinfer.geometry.rotations import rotate_in_image_frame, rotation_vector
    from cryoinfer.io.conventions.poses import (
        euler_degrees_to_rotation,
        rotation_to_axis_angle,
        rotation_to_euler_degrees,
    )


@app.cell
def _():
    opening("rotations")
    return


@app.cell
def _():
    mo.md(r"""
    ## Nine numbers that behave

    A particle lies in the ice in some orientation. Say it with a matrix $R$: a point at $r$ in the map's frame
    is at $Rr$ in the image's frame, and the beam looks along z. Lengths and angles stay, so $R^T R = I$; right
    hands stay right hands, so $\det R = 1$. Such matrices are the **rotations**, and all of them together are
    called SO(3).

    Nine numbers under six conditions leave three that are free. A matrix is the safest way to hold a rotation:
    two are combined by a product, one is undone by the transpose. Its third row is the direction of the beam in
    the frame of the map, $R^T e_z$: from where the particle is seen.

    But nine numbers are too many to write down, to search, or to learn. This chapter is about the ways to make
    them fewer, and about what each costs.

    ## Three angles

    Turn about z, then about y, then about z again. These are the **Euler angles** of the field, *rot*
    $\varphi$, *tilt* $\theta$ and *psi* $\psi$:

    $$R = R_z(\psi)\, R_y(\theta)\, R_z(\varphi), \qquad
    R_z(\varphi) = \begin{pmatrix} \cos\varphi & \sin\varphi & 0 \\ -\sin\varphi & \cos\varphi & 0 \\ 0 & 0 & 1 \end{pmatrix} ,$$

    where each factor turns the *axes* (points turn the other way), and $R_y$ has $-\sin\theta$ in the upper
    right. Multiply out the third row: $(\cos\varphi \sin\theta, \sin\varphi \sin\theta, \cos\theta)$. So rot
    and tilt are longitude and angle from the pole of the view, and psi turns the image in its plane.

    At tilt 0 the view is the pole. Then rot and psi turn about the same axis, and only their sum counts: one
    rotation, many triples. This is **gimbal lock**. It does harm nearby too. In the figure a rotation is tilted
    further by one degree, about the x axis of the image, over and over. The view moves evenly, but see what rot
    and psi do when the way passes close to the pole.
    """)
    return


@app.function
def tilted_path(least_tilt_degrees, steps=81):
    """Return rotations, a degree of tilt about the image's x from one to the next."""
    turn = torch.deg2rad(torch.arange(steps, dtype=torch.float64) - steps // 2)
    zero = torch.zeros_like(turn)
    # Around the great circle whose nearest point to the pole has that tilt.
    nearest = torch.tensor([0, least_tilt_degrees, 0], dtype=torch.float64)
    start = euler_degrees_to_rotation(nearest)
    return rotate_in_image_frame(start, torch.stack([turn, zero, zero], -1))


@app.cell
def _():
    def past_the_pole(least):
        rotation = tilted_path(least)
        x = np.arange(len(rotation)) - len(rotation) // 2
        euler = rotation_to_euler_degrees(rotation).numpy()
        rot, tilt, psi = np.unwrap(euler, period=360, axis=0).T
        angles = (Line(x, rot, "rot"), Line(x, tilt, "tilt"), Line(x, psi, "psi"))
        beam = rotation[:, 2].numpy()
        turn = np.linspace(0, 2 * np.pi, 91)
        ways = (
            Line(beam[:, 0], beam[:, 1], "views"),
            Line(0.5 * np.cos(turn), 0.5 * np.sin(turn), "tilt 30", dashed=True),
            Points([0.0], [0.0], "pole"),
        )
        most, two_sides = np.abs(np.diff(rot)).max(), ((-0.8, 0.8), (-0.8, 0.8))
        return Plot(
            (
                Panel(ways, "Views, from above", "beam x", "beam y", *two_sides, True),
                Panel(angles, "Euler angles", "step (degrees)", "degrees"),
            ),
            says=f"Passing at {least:g} degrees from the pole, rot jumps by {most:.1f} degrees in a step of 1 degree.",
        )

    explore(
        past_the_pole,
        least=Slider("least tilt (degrees)", (0.5, 1, 2, 4, 8, 15, 25, 40), 4),
    )
    return


@app.cell
def _():
    source(euler_degrees_to_rotation, rotation_to_euler_degrees)
    return


@app.cell
def _():
    mo.md(r"""
    ## Axis and angle: the exponential

    Each rotation leaves one axis $n$ as it is, and turns by an angle $\omega$ about it. Write the **rotation
    vector** $v = \omega n$. How does a matrix follow from it? Turn a point $r$ slowly: it moves with the
    velocity $v \times r = [v]_\times r$, where

    $$[v]_\times = \begin{pmatrix} 0 & -v_3 & v_2 \\ v_3 & 0 & -v_1 \\ -v_2 & v_1 & 0 \end{pmatrix} .$$

    After the time 1 it is at $\exp([v]_\times)\, r$: the **exponential map**. For a unit vector $n$,
    $[n]_\times^3 = -[n]_\times$, so in the series all odd powers are $\pm [n]_\times$ and all even ones
    $\pm [n]_\times^2$. They sum up to

    $$R = I + \sin\omega\, [n]_\times + (1 - \cos\omega)\, [n]_\times^2 ,$$

    **Rodrigues' formula**. Backwards, the trace gives the angle, $\operatorname{tr} R = 1 + 2\cos\omega$, and
    $R - R^T = 2 \sin\omega\, [n]_\times$ the axis: this is the **logarithm**. Every rotation has a vector in
    the ball $|v| \le \pi$, and on its surface $v$ and $-v$ are one rotation. So even here there is a seam.
    Small steps from a known rotation, $R' = \exp([v]_\times) R$, never meet it. That is how the program refines
    poses, and states their errors.

    ## Four numbers: the quaternion

    Take half the angle: $q = (\cos\frac\omega2,\; n \sin\frac\omega2)$, four numbers with $|q| = 1$. This is a
    **unit quaternion**. It has no pole and no seam, but $q$ and $-q$ (an angle larger by $2\pi$) are one
    rotation. Its matrix is quadratic in it, and products of quaternions are products of rotations, for 16
    multiplications instead of 27.

    ## Three numbers without a sine: Cayley

    Divide the vector part by the scalar part: $g = n \tan\frac\omega2$. These are the **Rodrigues parameters**.
    In them the matrix is a fraction,

    $$R = (I + [g]_\times)(I - [g]_\times)^{-1} ,$$

    the **Cayley transform**. No sine and no root, but half turns are at infinity.

    In the figure the axis is fixed, and the angle goes round. Look for the place at which each kind of
    coordinates breaks.
    """)
    return


@app.function
def skew(v):
    """Return the matrix of the cross product with a vector."""
    x, y, z = v
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


@app.function
def rodrigues(v):
    """Return the exponential of a rotation vector, radians."""
    angle = np.linalg.norm(v)
    n = skew(v) / angle if angle > 0 else skew(v)
    return np.eye(3) + np.sin(angle) * n + (1 - np.cos(angle)) * n @ n


@app.function
def cayley(g):
    """Return the rotation of Rodrigues parameters."""
    return (np.eye(3) + skew(g)) @ np.linalg.inv(np.eye(3) - skew(g))


@app.cell
def _():
    def around(angle, axis_tilt):
        tilt = np.radians(axis_tilt)
        axis = np.array([np.sin(tilt), 0.0, np.cos(tilt)])
        at = np.radians(np.arange(0, 361, 3))
        matrices = np.stack([rodrigues(one * axis) for one in at])
        vector = rotation_vector(torch.from_numpy(matrices)).numpy() @ axis
        vector[np.abs(at - np.pi) < 0.06] = np.nan
        half = np.where(np.abs(at - np.pi) < 0.3, np.nan, np.tan(at / 2))
        degrees, here = np.degrees(at), Line([angle, angle], [-4, 4], dashed=True)
        marks = (
            Line(degrees, vector, "rotation vector, along n"),
            Line(degrees, np.cos(at / 2), "quaternion, scalar"),
            Line(degrees, np.sin(at / 2), "quaternion, along n"),
            Line(degrees, half, "Rodrigues, along n"),
            here,
        )
        now = rodrigues(np.radians(angle) * axis)
        row, x = matrices[:, 2].T, "angle (degrees)"
        columns = tuple(Line(degrees, row[j], f"R 3{j + 1}") for j in range(3))
        euler = rotation_to_euler_degrees(torch.from_numpy(now)).numpy()
        return Plot(
            (
                Panel(marks, "Coordinates", x, "value", (0, 360), (-4, 4)),
                Panel((*columns, here), "Third row", x, "value", (0, 360), (-1.1, 1.1)),
            ),
            says=f"At {angle} degrees: rot {euler[0]:.0f}, tilt {euler[1]:.0f}, psi {euler[2]:.0f} "
            f"degrees; trace {np.trace(now):.2f}.",
        )

    explore(
        around,
        angle=Slider("angle (degrees)", range(0, 361, 30), 90),
        axis_tilt=Slider("tilt of the axis from z (degrees)", (0, 30, 60, 90), 60),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Six numbers for a network

    A network should give a rotation, and similar images similar numbers. All coordinates of three or four
    numbers have somewhere a jump: it can be proved that fewer than five cannot be without one. Six can. Take
    any two vectors $a$ and $b$ that are not parallel, and make them perpendicular:

    $$e_1 = \frac{a}{|a|}, \qquad e_2 = \frac{b - (e_1 \cdot b)\, e_1}{|b - (e_1 \cdot b)\, e_1|}, \qquad e_3 = e_1 \times e_2 .$$

    They are the columns of a rotation (Gram and Schmidt). These are the **six-dimensional coordinates**; the
    program's encoder ends in them.
    """)
    return


@app.function
def from_six(a, b):
    """Return the rotation whose first columns are two vectors made perpendicular."""
    first = a / np.linalg.norm(a)
    second = b - (first @ b) * first
    second = second / np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)], 1)


@app.cell
def _():
    source(rodrigues, cayley, from_six)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"I imported the poses and the map is noise."* One program writes angles of the map's turn, another of the
      image's: the matrix of one is the transpose of the other's. RELION's angles and cryoSPARC's rotation
      vectors differ by just that. Transpose, and try again.
    - *"The shifts have the wrong sign."* RELION writes how the image must be moved, not where the particle is:
      its origin is the negative of the shift.
    - *"Rot is all over the place, but the maps are fine."* Tilt is near 0 or 180 degrees, where only rot + psi
      (or their difference) is defined. Compare matrices, never angles.
    - *"My network never learns some poses."* It gives angles or a quaternion, and the poses lie at the jump.

    ## Exercises
    """)
    return


@app.cell
def _():
    _matrix = euler_degrees_to_rotation(
        torch.tensor([30.0, 60.0, 0.0], dtype=torch.float64)
    )
    exercise(
        "Rot is 30 degrees and tilt is 60. What is the z component of the view, the last entry of the third row?",
        float(_matrix[2, 2]),
        tolerance=0.01,
        hint="The third row is written out above.",
        explanation="The cosine of the tilt: 0.5.",
    )
    return


@app.cell
def _():
    exercise(
        "A rotation matrix has the trace 2. By how many degrees does it turn?",
        np.degrees(np.arccos((2 - 1) / 2)),
        tolerance=0.5,
        unit="degrees",
        hint=r"$\operatorname{tr} R = 1 + 2\cos\omega$.",
        explanation="The cosine is 1/2, the angle 60 degrees.",
    )
    return


@app.cell
def _():
    choose(
        "Two quaternions are (0.5, 0.5, 0.5, 0.5) and (-0.5, -0.5, -0.5, -0.5). How far are their rotations apart?",
        ("Not at all.", "By 120 degrees.", "By 180 degrees."),
        0,
        hint="The matrix is quadratic in q.",
        explanation="q and -q are one rotation. Whoever averages quaternions must remember it.",
    )
    return


@app.function
def test_known_rotations():
    """A quarter turn about z, by hand; 120 degrees about (1, 1, 1) exchanges the axes."""
    quarter = rodrigues(np.array([0.0, 0.0, np.pi / 2]))
    assert_allclose(quarter, [[0, -1, 0], [1, 0, 0], [0, 0, 1]], atol=1e-12)
    cyclic = rodrigues(np.ones(3) / np.sqrt(3) * 2 * np.pi / 3)
    assert_allclose(cyclic @ [1, 2, 3], [3, 1, 2], atol=1e-12)
    assert_allclose(
        cayley(np.ones(3) * np.tan(np.pi / 3) / np.sqrt(3)), cyclic, atol=1e-12
    )


@app.function
def test_euler_angles_and_their_inverse():
    """The third row written out; there and back; RELION's and cryoSPARC's transpose."""
    angles = torch.tensor(
        [[20.0, 50.0, -70.0], [-150.0, 120.0, 10.0]], dtype=torch.float64
    )
    rotation = euler_degrees_to_rotation(angles)
    rot, tilt, _ = np.radians(angles.numpy()).T
    row = [np.cos(rot) * np.sin(tilt), np.sin(rot) * np.sin(tilt), np.cos(tilt)]
    assert_allclose(rotation[:, 2], np.transpose(row), atol=1e-12)
    assert_allclose(rotation_to_euler_degrees(rotation), angles, atol=1e-9)
    for one, vector in zip(
        rotation.numpy(), rotation_to_axis_angle(rotation).numpy(), strict=True
    ):
        assert_allclose(rodrigues(vector), one.T, atol=1e-9)


@app.function
def test_exponential_and_six_numbers_against_roma():
    """Rodrigues, trace and logarithm; Gram and Schmidt as the encoder has it (rounding)."""
    v = np.array([0.4, -1.1, 0.7])
    assert_allclose(
        rodrigues(v), roma.rotvec_to_rotmat(torch.from_numpy(v)), atol=1e-12
    )
    assert abs(np.trace(rodrigues(v)) - 1 - 2 * np.cos(np.linalg.norm(v))) < 1e-12
    assert_allclose(rotation_vector(torch.from_numpy(rodrigues(v))), v, atol=1e-9)
    two = np.random.default_rng(0).normal(size=(3, 2))
    mine = from_six(two[:, 0], two[:, 1])
    assert_allclose(mine, roma.special_gramschmidt(torch.from_numpy(two)), atol=1e-12)
    assert abs(np.linalg.det(mine) - 1) < 1e-12


@app.cell
def _():
    closing(
        "rotations",
        library=[
            "cryoinfer.io.conventions.poses.euler_degrees_to_rotation",
            "cryoinfer.io.conventions.poses.rotation_to_euler_degrees",
            "cryoinfer.geometry.rotations.rotate_in_image_frame",
        ],
        sources=[
            "J. B. Heymann, M. Chagoyen and D. M. Belnap 2005, Common conventions for interchange and archiving of three-dimensional electron microscopy information, Journal of Structural Biology 151.",
            "Y. Zhou, C. Barnes, J. Lu, J. Yang and H. Li 2019, On the continuity of rotation representations in neural networks, CVPR.",
            "G. S. Chirikjian 2012, Stochastic Models, Information Theory, and Lie Groups 2.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
