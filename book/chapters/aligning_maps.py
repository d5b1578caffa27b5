import marimo

__generated_with = "0.25.2"
app = marimo.App()

with app.setup:
    import marimo as mo
    import numpy as np
    import roma
    import torch

    from course import choose, closing, exercise, explore, opening, source
    from course.explore import Choice, Slider
    from course.plot import Heat, Line, Panel, Plot, Points
    from cryoinfer.data.examples import example_atoms
    from cryoinfer.evaluation import bayesian_rotations as bayesian
    from cryoinfer.evaluation.map_alignment import align_maps
    from cryoinfer.evaluation.transport import rigid_motion, sinkhorn_plan
    from cryoinfer.geometry.rotations import geodesic_angle


@app.cell
def _():
    opening("aligning_maps")
    return


@app.cell
def _():
    mo.md(r"""
    ## Two maps, two frames

    Two programs reconstruct one molecule. Each map lies as its random start left it, turned
    and shifted. Wanted is the rigid motion that lays one on the other, from nothing.

    The plain way tries rotations. A grid of 15 degrees has 4,608 of them, and for each the
    best shift comes out of one Fourier transform: on few voxels, seconds. Two ideas need
    fewer trials: walk on a landscape that is wide (transport), or decide cleverly where to
    try next (Bayesian optimisation).

    ## Walk: plan and rotation in turns

    Make each map a cloud of a few dozen or hundred points with masses, the centres of parcels
    of density. Then repeat: find the blurred plan $P$ between the clouds
    (*Sinkhorn and wavelets*), and the rotation and shift that are best for this plan. The second
    step is exact. With the means $\bar x = \sum P_{ij} x_i$ and $\bar y = \sum P_{ij} y_j$
    of the masses that are carried (total 1), the shift is $d = \bar y - R \bar x$ and

    $$M = \sum_{ij} P_{ij}\, (y_j - \bar y)(x_i - \bar x)^T = U S V^T , \qquad
    R = U \operatorname{diag}(1, 1, \det U V^T)\, V^T .$$

    For $\sum P_{ij} |y_j - R x_i - d|^2$ differs from $-2 \operatorname{tr}(R^T M)$ by what does not
    depend on $R$. AlignOT is this, with sampled plans. A start far from the truth may end in
    a wrong valley, so one takes several and believes the one that correlates best.

    The figure has 54 points of adenylate kinase. Choose how far from the truth the walk
    begins, with which blur, and follow it. From 80 degrees it still comes home. From 110
    degrees or more it ends in another valley, mostly half a turn away, whatever the blur.
    """)
    return


@app.function
def protein(partial=False):
    """Return 54 alpha carbons (n, 3) in angstrom, or those without the LID domain."""
    atoms = example_atoms("adenylate-kinase-open")
    chosen = np.array([name == "CA" for name in atoms.atom_names])
    place, residue = atoms.coordinates_angstrom[chosen], atoms.residue_index[chosen]
    kept = (residue < 121) | (residue > 158) if partial else residue >= 0
    return torch.tensor(place[kept & (residue % 4 == 0)])


@app.function
def about(axis, degrees):
    """Return a rotation matrix."""
    unit = torch.nn.functional.normalize(torch.tensor(axis).double(), dim=0)
    return roma.rotvec_to_rotmat(unit * np.radians(degrees))


@app.function
def walk(fixed, moving, rotation, blur, rounds, reach=None):
    """Return rotations and shifts, plan and motion in turns, from a start."""
    shift = moving.mean(0) - rotation @ fixed.mean(0)
    mass = [torch.ones(len(one)).double() / len(moving) for one in (fixed, moving)]
    mass[0] = mass[0] if reach else mass[0] / mass[0].sum()
    found = [(rotation, shift)]
    for _ in range(rounds):
        cost = torch.cdist(fixed @ rotation.T + shift, moving).square()
        plan = sinkhorn_plan(cost, *mass, blur, reach, 30)
        rotation, shift = rigid_motion(plan, fixed, moving)
        found.append((rotation, shift))
    return found


@app.function
def error_degrees(rotation, true):
    """Return the angle between two rotations."""
    return float(torch.rad2deg(geodesic_angle(rotation, true)))


@app.cell
def _():
    _fixed = protein()
    _true = about([1.0, 2.0, -1.0], 70.0)
    _moving = _fixed @ _true.T + torch.tensor([6.0, -3.0, 8.0]).double()

    def walking(start_degrees, blur, rounds):
        begin = about([2.0, -1.0, 1.0], start_degrees) @ _true
        steps = walk(_fixed, _moving, begin, blur, 16)
        errors = [error_degrees(rotation, _true) for rotation, _ in steps]
        rotation, shift = steps[rounds]
        there = (_fixed @ rotation.T + shift).numpy()
        near, box = _moving.numpy(), (-45.0, 45.0)
        spots = Points(*near.T[:2], "moving map"), Points(*there.T[:2], "reference")
        lines = Line(np.arange(17.0), errors), Points([rounds], [errors[rounds]])
        off = Panel(lines, "Angle to the truth", "round", "degrees", None, (0.0, 185.0))
        return Plot(
            (Panel(spots, "Seen along z", "x (Å)", "y (Å)", box, box, True), off),
            says=f"After {rounds} rounds the rotation is {errors[rounds]:.2f} degrees off; "
            f"after 16 it is {errors[-1]:.2f}.",
        )

    explore(
        walking,
        start_degrees=Slider("degrees off", (20, 50, 80, 110, 140, 170), 80),
        blur=Slider("blur ε (Å²)", (20, 50, 200), 50),
        rounds=Slider("rounds", (0, 1, 2, 4, 8, 16), 2),
    )
    return


@app.cell
def _():
    mo.md(r"""
    ## Decide: Bayesian optimisation

    Suppose that one comparison is dear. Then it pays to think before the next one. Describe what
    is known of the loss $L(R)$ by a **Gaussian process**: at any set of rotations the losses are
    believed to be jointly normal, and the closer two rotations, the more their losses are alike.
    How close is measured by the chord $|R - R'|_F = 2\sqrt2 \sin(\theta/2)$; with a kernel
    $k$ of that distance, losses $\ell$ at rotations tried so far give at a new one the mean and
    variance

    $$m = k^T K^{-1} \ell , \qquad s^2 = k(0) - k^T K^{-1} k .$$

    If the least loss so far is $\ell_{\min}$, a new trial gains
    $\max(0, \ell_{\min} - L)$. Its mean under the normal of mean $m$ and sd $s$ is the
    **expected improvement**

    $$(\ell_{\min} - m)\, \Phi(z) + s\, \varphi(z) , \qquad z = (\ell_{\min} - m) / s ,$$

    with the normal distribution $\Phi$ and its density $\varphi$. It is large where the
    mean is low, and where little is known. Try where it is largest, learn, and repeat. A
    smooth loss is needed for this to work, since the process fills in between trials. That is the
    part of transport: the wavelet distance has wide valleys. BOTalign is this pair.

    In the figure the molecule turns about one axis only. Add trials one by one.
    """)
    return


@app.function
def loss(degrees, blur=100.0):
    """Return how unlike the molecule and its turned copy are, root mean square, Å."""
    fixed = protein()
    fixed = fixed - fixed.mean(0)
    moved = fixed @ about([0.0, 0.0, 1.0], degrees).T
    mass = torch.ones(len(fixed)).double() / len(fixed)
    cost = torch.cdist(moved, fixed).square()
    return float((sinkhorn_plan(cost, mass, mass, blur, None, 60) * cost).sum().sqrt())


@app.cell
def _():
    _angles = np.arange(0.0, 360.0, 6.0)
    _turns = torch.stack([about([0.0, 0.0, 1.0], a) for a in _angles])
    _true = np.array([loss(a - 222.0) for a in _angles])

    def choosing(trials):
        tried = [10, 25, 45]
        while True:
            process = bayesian.GaussianProcess(_turns)
            for k in tried:
                process.add(_turns[k][None])
            value = torch.tensor(_true[tried])
            mean, sd = process.posterior(value)
            gain = bayesian.expected_improvement(mean, sd, float(value.min())).numpy()
            if len(tried) == trials:
                break
            tried.append(int(gain.argmax()))
        lines = (
            Line(_angles, _true, "loss (not known)", True),
            Line(_angles, mean, "mean"),
            Line(_angles, mean - 2.0 * sd, "mean - 2 sd"),
            Points(_angles[tried], _true[tried], "tried"),
        )
        angle, left = "angle about z (degrees)", (0.0, 360.0)
        return Plot(
            (
                Panel(lines, "What is believed", angle, "loss (Å)", left, (0.0, 22.0)),
                Panel((Line(_angles, gain),), "Expected improvement", angle, "Å", left),
            ),
            says=f"After {trials} trials the best is at "
            f"{_angles[tried][_true[tried].argmin()]:.0f} degrees (truth: 222); next "
            f"is {_angles[gain.argmax()]:.0f}.",
        )

    explore(choosing, trials=Slider("trials", range(3, 13), 5))
    return


@app.cell
def _():
    mo.md(r"""
    ## A map and a part of it

    Where one map lacks a domain, two things break. The centres of mass do not belong to each
    other any more. And a balanced plan must send the domain's mass somewhere, so that it pulls
    everything aside. Unbalanced transport may leave it behind, where ways are longer than the
    root of the reach $\rho$.

    There is also a way that needs no start. Distances inside a molecule do not change when it is
    turned. So compare pairs of points with pairs of points: with the distances $D_{ik}$ in one cloud
    and $D'_{jl}$ in the other, the **Gromov-Wasserstein** plan makes

    $$\sum_{ijkl} \big( D_{ik} - D'_{jl} \big)^2 P_{ij} P_{kl}$$

    small. There is no rotation in it; that comes afterwards, from the plan, in closed form.
    Multiplied out, all that depends on the plan beyond its sums is $-2 \sum P_{ij}\, (D P D')_{ij}$.
    So one takes $C = -2 D P D'$ as a cost, finds the blurred plan for it, and repeats.
    EMPOT does this unbalanced. The sum is not convex, so the walk can end in a poor plan.
    And distances are the same in a mirror image: the hand is decided later.

    The reference in the figure lacks the LID domain. Balanced, points and pairs end 26 to 29
    degrees off; a walk of points, unbalanced, that begins where pairs ended is 1.4 off.
    """)
    return


@app.function
def gromov_plan(first, second, blur, rounds=40):
    """Return the blurred Gromov-Wasserstein plan of two clouds of equal points."""
    inner = [torch.cdist(one, one) / 20.0 for one in (first, second)]
    mass = [torch.ones(len(one)).double() / len(one) for one in (first, second)]
    plan = mass[0][:, None] * mass[1]
    squared = [distance.square() @ m for distance, m in zip(inner, mass, strict=True)]
    for _ in range(rounds):
        cost = squared[0][:, None] + squared[1] - 2.0 * inner[0] @ plan @ inner[1]
        plan = sinkhorn_plan(cost - cost.min(), *mass, blur, None, 50)
    return plan


@app.cell
def _():
    _part, _whole = protein(partial=True), protein()
    _true = about([1.0, 2.0, -1.0], 70.0)
    _moving = _whole @ _true.T
    _pairs = rigid_motion(gromov_plan(_part, _moving, 0.02), _part, _moving)
    _both = walk(_part, _moving, _pairs[0], 20.0, 40, 30.0)[-1]
    _mass = [torch.ones(len(one)).double() / 54.0 for one in (_part, _moving)]

    def partly(start_degrees, method):
        begin = about([2.0, -1.0, 1.0], start_degrees) @ _true
        rotation, shift = _pairs if method == "pairs" else _both
        if "balanced" in method:
            reach = None if method == "balanced" else 30.0
            rotation, shift = walk(_part, _moving, begin, 20.0, 40, reach)[-1]
        there = (_part @ rotation.T + shift).numpy()
        box = (-45.0, 45.0)
        spots = Points(*_moving.numpy().T[:2], "whole"), Points(*there.T[:2], "part")
        cost = torch.cdist(torch.tensor(there), _moving).square()
        plan = sinkhorn_plan(cost, *_mass, 20.0, 30.0, 60)
        left = 54.0 * plan.sum(0).numpy()
        marks = (Heat(54.0 * plan.numpy(), limits=(0.0, 1.0)),)
        return Plot(
            (
                Panel(spots, "Seen along z", "x (Å)", "y (Å)", box, box, True),
                Panel(marks, "Unbalanced plan here", "point of whole", "point of part"),
            ),
            says=f"{error_degrees(rotation, _true):.1f} degrees off. In this frame "
            f"{np.sum(left < 0.3)} of 54 points of the whole have no partner.",
        )

    explore(
        partly,
        start_degrees=Slider("degrees off", (20, 50, 80, 110, 140), 50),
        method=Choice(
            "plan", ("balanced", "unbalanced", "pairs", "pairs, then points")
        ),
    )
    return


@app.cell
def _():
    source(align_maps, walk, gromov_plan)
    return


@app.cell
def _():
    mo.md(r"""
    ## What goes wrong in practice

    - *"It says that they are aligned, and they are not."* Every search ends somewhere. Compare
      the correlation with what other rotations reach, each at its best shift.
    - *"Each run gives another rotation."* A symmetric particle has several right answers, and a
      nearly symmetric one several that are nearly right. `cryoinfer align` names the best
      rotation that is far from the best of all.
    - *"The aligned map is blurred."* Each interpolation costs detail: resample once.

    ## Exercises
    """)
    return


@app.cell
def _():
    exercise(
        r"The loss at a rotation is believed to have mean 3 and sd 2. The least so far is "
        "3, too. What is the expected improvement?",
        float(bayesian.expected_improvement(*torch.tensor([[3.0], [2.0]]), 3.0)),
        tolerance=0.02,
        hint=r"$z = 0$, and $\varphi(0) = 1/\sqrt{2\pi} = 0.399$.",
        explanation="Only the second part is left: 2 times 0.399.",
    )
    return


@app.cell
def _():
    exercise(
        "How large is the chord $|R - R'|_F$ between two rotations that are 60 degrees apart?",
        float(torch.linalg.matrix_norm(about([0.0, 0.0, 1.0], 60.0) - torch.eye(3))),
        tolerance=0.02,
        hint=r"$2 \sqrt 2 \sin(\theta / 2)$.",
        explanation=r"$2 \sqrt 2 \cdot \frac12 = 1.41$.",
    )
    return


@app.cell
def _():
    choose(
        "Two maps are mirror images of each other. What does the Gromov-Wasserstein sum of their "
        "best plan say?",
        ("It is large.", "It is as small as for equal maps.", "It is undefined."),
        1,
        hint="Which of the numbers in it change in a mirror?",
        explanation="Distances do not change. The hand is lost, and must be decided by fit.",
    )
    return


@app.function
def test_known_numbers():
    """Chords and closed forms, to rounding; walks come home."""
    fixed, true = protein(), about([1.0, 2.0, -1.0], 70.0)
    moving = fixed @ true.T
    far = about([2.0, -1.0, 1.0], 50.0) @ true
    # Blur pulls to the middle but is symmetric: half a degree.
    assert error_degrees(walk(fixed, moving, far, 20.0, 20)[-1][0], true) < 0.5
    chord = torch.linalg.matrix_norm(about([0.0, 1.0, 0.0], 170.0) - torch.eye(3))
    assert abs(float(chord) - 8.0**0.5 * np.sin(np.radians(85.0))) < 1e-12


@app.function
def test_pairs_know_no_rotation_and_no_hand():
    """The plan is that of the turned and of the mirrored cloud, to rounding."""
    first = protein()[::3]
    plain = gromov_plan(first, first, 0.02)
    for turn in (about([1.0, 1.0, 0.0], 130.0), -torch.eye(3).double()):
        assert torch.allclose(
            gromov_plan(first, first @ turn.T, 0.02), plain, atol=1e-8
        )


@app.cell
def _():
    closing(
        "aligning_maps",
        library=[
            "cryoinfer.evaluation.map_alignment.align_maps",
            "cryoinfer.evaluation.bayesian_rotations.bayesian_rotations",
        ],
        sources=[
            "A. Riahi, G. Woollard, F. Poitevin, A. Condon and K. Dao Duc 2023, AlignOT: an "
            "optimal transport based algorithm for fast 3D alignment with applications to "
            "cryogenic electron microscopy density maps, IEEE/ACM TCBB 20.",
            "A. Singer and R. Yang 2024, Alignment of density maps in Wasserstein distance, "
            "Biological Imaging 4.",
            "A. Riahi et al. 2023, EMPOT: partial alignment of density maps and rigid "
            "body fitting using unbalanced Gromov-Wasserstein divergence, arXiv.",
        ],
    )
    return


if __name__ == "__main__":
    app.run()
