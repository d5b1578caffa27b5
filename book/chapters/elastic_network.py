import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import torch

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
    from cryoinfer.physics.structures.elastic import ElasticNetwork


@app.cell
def _():
    opening("elastic_network")
    return


@app.cell
def _():
    mo.md(r"""
    ## Put springs between neighbours

    Many molecules give way at one place: two domains fold towards each other about a hinge,
    and hardly anything else moves. What matters for that is less the chemistry than where
    there is mass and what touches what. So forget chemistry. Put a node at every
    residue, and a spring of stiffness $\gamma$ between any two that are nearer than a cutoff,
    at rest as the molecule is. This is an **elastic network**. It needs one structure and
    no other data, and it answers which motions are cheap.

    A spring between nodes $i$ and $j$ has the length $\ell$ and the direction $e$ (a unit
    vector). Move the nodes by $u_i$ and $u_j$, and write $u = u_i - u_j$. The new length is

    $$\sqrt{(\ell + e \cdot u)^2 + \lVert u_\perp \rVert^2}
    = \ell + e \cdot u + \frac{\lVert u_\perp \rVert^2}{2 \ell} + \dots$$

    The part along the spring counts in first order and the part across it, $u_\perp$, in
    second. The energy is half the stiffness times the square of the change, so to second
    order only the former is left:

    $$E = \frac{\gamma}{2} \left( e \cdot (u_i - u_j) \right)^2 .$$

    Below, one end of a spring of 5 Å is moved. Turn the direction to 90 degrees: the energy
    of the network says that this is free. A real spring starts to notice after an
    ångström.
    """)
    return


@app.function
def spring_energy(length_angstrom, moved_angstrom, angle_degrees):
    """Return the energy of one spring of stiffness 1, and its second order."""
    turn = np.radians(angle_degrees)
    end = length_angstrom + np.asarray(moved_angstrom) * np.cos(turn)
    across = np.asarray(moved_angstrom) * np.sin(turn)
    whole = 0.5 * (np.hypot(end, across) - length_angstrom) ** 2
    return whole, 0.5 * (np.asarray(moved_angstrom) * np.cos(turn)) ** 2


@app.cell
def _():
    def one_spring(angle_degrees, length_angstrom):
        moved = np.linspace(-2.0, 2.0, 81)
        whole, second = spring_energy(length_angstrom, moved, angle_degrees)
        marks = (Line(moved, whole, "spring"), Line(moved, second, "second order"))
        at_one = spring_energy(length_angstrom, 1.0, angle_degrees)
        return Plot(
            (
                Panel(
                    marks,
                    "Energy",
                    "moved by (Å)",
                    "energy (stiffness, Å²)",
                    None,
                    (0.0, 2.0),
                ),
            ),
            says=f"At 1 Å the energy is {at_one[0]:.4f}, to second order {at_one[1]:.4f}.",
        )

    explore(
        one_spring,
        angle_degrees=Slider("angle to the spring (degrees)", range(0, 91, 15), 30),
        length_angstrom=Slider("length (Å)", (3.8, 5, 10, 15), 5),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## The matrix, and what it leaves free

    The sum over all springs is a quadratic form of the $3n$ numbers $u$,
    $E = \tfrac12 u^\mathsf{T} H u$. Multiply out: the spring of $i$ and $j$ adds
    $\gamma\, e e^\mathsf{T}$ to the two $3 \times 3$ blocks $H_{ii}$ and $H_{jj}$, and
    takes it from $H_{ij}$ and $H_{ji}$. This $H$ is the **Hessian** of the anisotropic
    network model (ANM). Its eigenvectors are the **normal modes**, its eigenvalues
    $\lambda$ their stiffness: a displacement of unit length along a mode costs
    $\lambda / 2$.

    Shift all nodes alike, and no spring changes: three eigenvalues are zero. Turn all by a
    small angle $\omega$, $u_i = \omega \times x_i$: then
    $e \cdot (\omega \times (x_i - x_j)) = 0$, for the cross product is normal to the spring.
    Three more are zero. If nodes hang by enough springs, these six are all. A further
    zero means that the network has come apart, or that a node dangles.

    At a temperature $T$ each mode has the mean energy $k_B T / 2$, so that its amplitude
    has the variance $k_B T / \lambda$. Soft modes move most. As a prior of conformations,
    this says: $z_k$ is normal, of a spread that goes with $1 / \sqrt{\lambda_k}$.

    How long is a displacement? Eigenvectors have unit length over all nodes. The
    program multiplies them by $\sqrt n$, and then the amplitude $z$ of a mode is in ångström:
    it is the root mean square displacement (RMSD) of the nodes,

    $$\text{RMSD}^2 = \frac1n \sum_i \lVert z \sqrt n\, v_i \rVert^2 = z^2 .$$

    Below are two domains joined by a bridge, 72 nodes in three dimensions, looked at from
    two sides. Choose a mode and move its amplitude. Which modes fold the domains like a
    hinge, which twist them? Watch the worst spring: straight paths stretch what a real
    hinge would turn.
    """)
    return


@app.function
def two_domains():
    """Return nodes of two balls and a bridge, in angstrom, shape (72, 3)."""
    step = 5.5
    axis = np.arange(-2, 3) * step
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    ball = grid[np.linalg.norm(grid, axis=1) < 11.5]
    far = np.array([19.0, 0.0, 0.0])
    bridge = np.array([[x, y, 0.0] for x in (-4.0, 0.0, 4.0) for y in (-2.5, 2.5)])
    nodes = np.concatenate([ball - far, bridge, ball + far + [0.0, 0.0, 2.0]])
    uneven = np.random.default_rng(0).normal(0.0, 0.7, nodes.shape)
    return nodes + uneven


@app.function
def longest_change_angstrom(network, moved_angstrom):
    """Return how much the spring changes that changes most."""

    def lengths(nodes):
        return np.linalg.norm(nodes[network.first] - nodes[network.second], axis=1)

    return np.abs(lengths(moved_angstrom) - lengths(network.coordinates_angstrom)).max()


@app.cell
def _():
    source(ElasticNetwork.hessian, longest_change_angstrom)
    return


@app.cell
def _():
    _nodes = two_domains()
    _network = ElasticNetwork.between(_nodes, 12.0)
    _modes = _network.normal_modes(8)
    _along = _modes.per_angstrom().numpy()

    def moving(mode, amplitude_angstrom):
        now = _nodes + amplitude_angstrom * _along[mode - 1]
        rmsd = np.sqrt(np.mean(np.sum((now - _nodes) ** 2, axis=1)))
        stiff = _modes.stiffness.log10().numpy()
        panels = []
        for title, axis in (("From above", 1), ("From the front", 2)):
            rest = Points(_nodes[:, 0], _nodes[:, axis], "at rest")
            moved = Points(now[:, 0], now[:, axis], "moved")
            wide, unit = (-40, 40), f"{'xyz'[axis]} (Å)"
            panels.append(
                Panel((rest, moved), title, "x (Å)", unit, wide, (-30, 30), equal=True)
            )
        marks = (
            Points(np.arange(1, 9), stiff),
            Points([mode], [stiff[mode - 1]], "chosen"),
        )
        spread = Panel(marks, "Stiffness", "mode", "log10 of eigenvalue")
        worst = longest_change_angstrom(_network, now)
        share = float(_modes.collectivity()[mode - 1])
        return Plot(
            (*panels, spread),
            says=f"RMSD {rmsd:.2f} Å; one spring changes by {worst:.1f} Å. "
            f"{100 * share:.0f} % of the nodes take part.",
        )

    explore(
        moving,
        mode=Slider("mode", range(1, 9), 1),
        amplitude_angstrom=Slider("amplitude z (Å)", range(-8, 9, 2), 4),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## The one number to choose

    The cutoff decides what touches. For alpha carbons 15 Å is usual. Below it is varied
    for the two domains. Too short, and more than six eigenvalues are zero: pieces and
    dangling nodes float. Too long, and everything is tied to everything: from 12 Å to 30 Å
    the softest mode becomes 770 times as stiff. Shapes of soft modes mind it less. On the
    right is how much of the opening, each domain turning as a rigid body about the middle
    of the bridge, lies in the first modes: in two, whose order may change.
    """)
    return


@app.function
def overlaps(network, motion, count):
    """Return the cosines between a motion (n, 3) and the softest modes."""
    modes = network.normal_modes(count).direction.numpy()
    return np.abs(np.einsum("knc,nc->k", modes, motion)) / np.linalg.norm(motion)


@app.function
def opening_motion(nodes):
    """Return displacements of two domains that fold up about the y axis."""
    side = np.sign(nodes[:, 0])
    return np.stack([-side * nodes[:, 2], np.zeros(len(nodes)), np.abs(nodes[:, 0])], 1)


@app.function
def without_rigid_motion(nodes, motion):
    """Return a motion less its shift and turn of all nodes, by least squares."""
    axes = np.eye(3)
    rigid = [np.broadcast_to(one, nodes.shape) for one in axes]
    rigid += [np.cross(one, nodes) for one in axes]
    basis = np.stack(rigid).reshape(6, -1).T
    flat = motion.reshape(-1)
    return (flat - basis @ np.linalg.lstsq(basis, flat, rcond=None)[0]).reshape(-1, 3)


@app.cell
def _():
    _nodes = two_domains()
    _motion = without_rigid_motion(_nodes, opening_motion(_nodes))

    def cutoffs(cutoff_angstrom):
        network = ElasticNetwork.between(_nodes, cutoff_angstrom)
        values = np.linalg.eigvalsh(network.hessian().toarray())
        free = int((values < 1e-8 * values.mean()).sum())
        told, each = "the network is not rigid", np.zeros(6)
        if free == 6:
            each = overlaps(network, _motion, 6)
            told = (
                f"{100 * np.sum(each[:3] ** 2):.0f} % of the opening is in three modes"
            )
        soft = Points(np.arange(1, 21), np.log10(np.maximum(values[:20], 1e-18)))
        unit = "log10 of eigenvalue"
        near = Points(np.arange(1, 7), each)
        panels = (
            Panel((soft,), "Softest eigenvalues", "number", unit, None, (-19, 2)),
            Panel((near,), "Overlap", "mode", "|cosine| with opening", None, (0, 1)),
        )
        return Plot(
            panels,
            says=f"{len(network.first)} springs, {free} zero eigenvalues; {told}.",
        )

    explore(
        cutoffs,
        cutoff_angstrom=Slider("cutoff (Å)", (5, 6, 7, 8, 10, 12, 15, 20, 30), 12),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## From modes to images

    A particle then shows the structure $x + \sum_k z_k d_k$ with few amplitudes, which are
    unknowns of a particle as its pose is. No map is learned. A motion that modes do not
    span cannot be shown by any $z$; so the program can also learn from the images by
    which displacements the modes should differ.

    ## What goes wrong in practice

    - *"The ends flap about."* A tail that hangs by few springs is soft. Few nodes take part.
    - *There are more than six zeros.* Chains do not touch at this cutoff.
    - *Bonds are torn at large amplitudes.* A mode is a straight path, a turn is not.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        "A network of 72 nodes is rigid. How many normal modes has it that are no rigid "
        "motion?",
        3 * len(two_domains()) - 6,
        tolerance=0.5,
        hint="Three coordinates a node, and six motions of the whole.",
        explanation="210.",
    )
    return


@app.cell
def _():
    exercise(
        "The first mode has the eigenvalue 0.02 and the thermal spread 3 Å. What is the "
        "spread of a mode with the eigenvalue 0.18?",
        3.0 * np.sqrt(0.02 / 0.18),
        tolerance=0.02,
        unit="Å",
        hint=r"The spread goes with $1 / \sqrt \lambda$.",
        explanation="1 Å.",
    )
    return


@app.cell
def _():
    choose(
        "All springs are made ten times as stiff. What becomes of the normal modes?",
        (
            "They become other motions.",
            "They stay; eigenvalues are ten times as large.",
            "The six rigid motions are no longer free.",
        ),
        1,
        hint=r"$H$ is multiplied by 10.",
        explanation="The stiffness is a unit.",
    )
    return


@app.function
def test_six_motions_are_free():
    """Exactly six eigenvalues vanish (1e-8 of the mean stiffness), and RMSD is |z|."""
    network = ElasticNetwork.between(two_domains(), 12.0)
    hessian = network.hessian().toarray()
    values = np.linalg.eigvalsh(hessian)
    assert np.abs(values[:6]).max() < 1e-8 * hessian.diagonal().mean() < values[6]
    modes = network.normal_modes(3)
    for z in (-4.0, 0.5, 8.0):
        amplitude = torch.tensor([0.0, z, 0.0], dtype=torch.float64)
        moved = modes.displacement_angstrom(amplitude).numpy()
        assert abs(np.sqrt((moved**2).sum(1).mean()) / abs(z) - 1.0) < 1e-12


@app.function
def test_tetrahedron():
    """Vibrations of four equal atoms (as of P4): 1 twice, 2 three times and 4 once."""
    nodes = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    values = np.linalg.eigvalsh(ElasticNetwork.between(nodes).hessian().toarray())
    assert np.allclose(values, [0] * 6 + [1, 1, 2, 2, 2, 4], atol=1e-12)


@app.function
def test_hessian_is_the_energys():
    """Energy of small motions over the quadratic form: 1, to the next order in 1e-4."""
    network = ElasticNetwork.between(two_domains(), 12.0)
    u = np.random.default_rng(1).standard_normal((72, 3)) * 1e-4
    energy = float(network.energy(torch.from_numpy(two_domains() + u)))
    form = 0.5 * u.reshape(-1) @ (network.hessian() @ u.reshape(-1))
    assert abs(energy / form - 1.0) < 1e-3
    assert abs(spring_energy(5.0, 1e-4, 30.0)[0] / (0.375e-8) - 1.0) < 1e-4


@app.cell
def _():
    closing(
        "elastic_network",
        library=[
            "cryoinfer.physics.structures.elastic.ElasticNetwork",
            "cryoinfer modes",
            "cryoinfer dynamics",
        ],
        sources=[
            "M. M. Tirion 1996, Physical Review Letters 77, 1905.",
            "A. R. Atilgan et al. 2001, Biophysical Journal 80, 505.",
            "learn_cryoem_math (Woollard): the notebook on the elastic network.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
