"""Global search: scores by brute force, poses from nothing, weights of modes."""

import math
from dataclasses import replace

import pytest
import torch

from cryoinfer.geometry.rotations import geodesic_angle, rotate_in_image_frame
from cryoinfer.geometry.so3_grid import grid_step_radian, rotation_grid
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.coarse import GridSlices, PoseGrid, shift_grid
from cryoinfer.inference.mode_ranking import ranked_posterior
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.search import (
    Candidates,
    SearchPlan,
    Subdivision,
    divided,
    exhaustive_cells,
    global_search,
    nested_search,
    pose_score,
    refine_candidates,
)
from cryoinfer.records import Latents, Pose

ORDER = 2
PLAN = SearchPlan(
    coarse_radius=6,
    radius=12,
    cells=6,
    modes=4,
    steps=20,
    cell_radian=grid_step_radian(ORDER),
    shift_step_angstrom=3.0,
    symmetry=symmetry_rotations("C1"),
)
PRIOR = PosePrior(1e3, 0.0)


def slices_of(made) -> GridSlices:
    grid = PoseGrid(rotation_grid(ORDER), shift_grid(5.5, PLAN.shift_step_angstrom))
    near = made.images.prefix(PLAN.coarse_radius)
    return GridSlices.of(made.volume, grid, near.disc, near.scale)


def cells_of(made, count: int = PLAN.cells) -> Candidates:
    near = made.images.prefix(PLAN.coarse_radius)
    return exhaustive_cells(slices_of(made), near, count)


def refined(made, start: Candidates, plan: SearchPlan = PLAN) -> ParticlePosterior:
    """Return the posterior of candidates that were refined and ranked."""
    found = refine_candidates(made.projector, made.images, start, PRIOR, plan)
    count = start.rotation.shape[1]
    return ranked_posterior(found, count, PRIOR, plan.cell_radian / 4, plan.symmetry)


def score(made, rotation, shift):
    """Return the naive log-likelihood of one pose an image, (n,)."""
    zero = torch.zeros(len(rotation), dtype=torch.float64)
    return made.power() - made.loss(rotation, shift, zero)


def test_exhaustive_cells_are_the_best_by_brute_force(scene) -> None:
    made = scene(2, noise_sd=0.3)
    near = replace(made, images=made.images.prefix(5))
    grid = PoseGrid(rotation_grid(0), shift_grid(3.0, 3.0))
    slices = GridSlices.of(made.volume, grid, near.images.disc, near.images.scale)
    found = exhaustive_cells(slices, near.images, 3)
    scores = torch.stack(
        [
            torch.stack(
                [score(near, r.expand(2, 3, 3), s.expand(2, 2)) for r in grid.rotation]
            )
            for s in grid.shift_angstrom.double()
        ]
    )
    best, cell = scores.max(0).values.topk(3, dim=0)
    # Real and imaginary parts of a product and a square a coefficient, which together
    # are no more than three times the image's power: rounded to 2^-24 in every sum.
    terms = 2 * len(near.images.disc.kx)
    tolerance = terms * 2**-24 * 3 * float(near.power().max())
    torch.testing.assert_close(
        found.log_likelihood.double(), best.T, rtol=0, atol=tolerance
    )
    torch.testing.assert_close(found.rotation, grid.rotation[cell.T])
    move = scores.max(0).indices.gather(0, cell).T
    torch.testing.assert_close(found.shift_angstrom, grid.shift_angstrom[move].double())


@pytest.mark.parametrize("pixel_size", [2.0, 2.5])
def test_scores_of_children_agree_with_brute_force(scene, pixel_size) -> None:
    made = scene(3, noise_sd=0.3, pixel_size_angstrom=pixel_size)
    cells = cells_of(made, 2)
    level = PLAN.subdivisions[0]
    near = replace(made, images=made.images.prefix(level.radius))
    found = divided(pose_score(made.projector), near.images, cells, level)
    assert found.log_likelihood.shape == (3, 16)
    assert found.rotation.shape == (3, 16, 3, 3)
    assert (found.log_likelihood.diff(dim=1) <= 0).all()
    around = shift_grid(1.5, 1.5).double()
    for m in range(16):
        rotation = found.rotation[:, m]
        here = score(near, rotation, found.shift_angstrom[:, m])
        # Single precision of sums as large as the image's power.
        tolerance = 1e-5 * float(near.power().max())
        torch.testing.assert_close(
            found.log_likelihood[:, m].double(), here, rtol=0, atol=tolerance
        )
        # No neighbour of the best cell's shift is better.
        for step in around:
            shift = cells.shift_angstrom[:, 0] + step
            assert (score(near, rotation, shift) <= here + tolerance).all()
    # A child's centre is a quarter of the cell's diagonal from its parent's.
    angle = geodesic_angle(found.rotation[:, :, None], cells.rotation[:, None])
    expected = math.sqrt(3) * PLAN.cell_radian / 4
    of_parent = (angle - expected).abs() < 1e-9
    assert (of_parent.sum(1) == 8).all()


def test_without_shift_step_children_keep_the_shift(scene) -> None:
    made = scene(2)
    cells = cells_of(made, 1)
    level = replace(PLAN.subdivisions[0], shift_step_angstrom=0.0)
    near = made.images.prefix(level.radius)
    found = divided(pose_score(made.projector), near, cells, level)
    expected = cells.shift_angstrom.expand(2, 8, 2)
    torch.testing.assert_close(found.shift_angstrom, expected)


def test_grids_get_finer_and_go_higher() -> None:
    first, second = PLAN.subdivisions
    assert (first.cells, first.radius) == (PLAN.cells, 8)
    assert (second.cells, second.radius) == (PLAN.cells, 11)
    assert first.cell_radian == PLAN.cell_radian == 2 * second.cell_radian
    assert first.shift_step_angstrom == 3.0
    assert second.shift_step_angstrom == 1.5
    assert PLAN.finest_cell_radian == PLAN.cell_radian / 4
    # Never past the radius of the search; fewer cells, but for a fewest.
    low = replace(PLAN, radius=6, cells=2)
    assert [one.radius for one in low.subdivisions] == [6, 6]
    assert [one.cells for one in low.subdivisions] == [2, 2]
    many = replace(PLAN, cells=96)
    assert [one.cells for one in many.subdivisions] == [96, 24]


def _some_cells(gap: torch.Tensor) -> Candidates:
    """Return 12 cells an image, each ``gap`` nats below the one before."""
    rotation = rotation_grid(ORDER)[:12].expand(len(gap), 12, 3, 3)
    shift = torch.zeros(len(gap), 12, 2, dtype=torch.float64)
    return Candidates(rotation, shift, -gap[:, None] * torch.arange(12.0))


def _last_is_best(images, rotation, shift) -> tuple[torch.Tensor, torch.Tensor]:
    """Score children of later cells higher, whether these count or not."""
    value = torch.arange(float(rotation.shape[1])).expand(len(images), -1)
    return value, torch.zeros_like(value, dtype=torch.long)


def _cells_divided(made, gap: torch.Tensor) -> list[int]:
    level = Subdivision(10, 6, PLAN.cell_radian, 0.0, 8)
    found = divided(_last_is_best, made.images, _some_cells(gap), level)
    assert found.log_likelihood.shape == (len(gap), 48)
    return (found.log_likelihood[:, 0].long() // 8 + 1).tolist()


def test_images_that_tell_little_have_more_cells_divided(scene) -> None:
    # All lie within 20 nats of the best, all but two, and the best alone: no more than
    # the most are divided, and no fewer than the fewest.
    assert _cells_divided(scene(3), torch.tensor([0.1, 2.5, 30.0])) == [10, 9, 6]


def test_cells_of_an_image_do_not_depend_on_the_others(scene) -> None:
    # Of several blocks, in an order that is not that of their cells.
    gap = torch.linspace(0.1, 8.0, 150).roll(70)
    found = _cells_divided(scene(150), gap)
    expected = (torch.floor(20 / gap) + 1).clamp(6, 10).long()
    assert found == expected.tolist()


@pytest.mark.parametrize("pixel_size", [2.0, 2.5])
def test_noiseless_poses_are_found_from_nothing(scene, pixel_size) -> None:
    made = scene(16, pixel_size_angstrom=pixel_size)
    found = global_search(
        made.projector, slices_of(made), made.images, None, PRIOR, PLAN
    )
    mode = found.mode().pose
    angle = geodesic_angle(mode.rotation, made.truth.pose.rotation)
    # As local refinement from near the truth.
    assert math.degrees(float(angle.max())) < 0.02
    error = mode.shift_angstrom - made.truth.pose.shift_angstrom
    assert error.abs().max() < 0.005
    # At so little noise every other mode is impossible.
    assert (found.weight[:, 0] > 0.999).all()
    torch.testing.assert_close(found.weight.sum(1), torch.ones(16, dtype=torch.float64))
    # It is the best of the nested grids, refined and ranked.
    score_of = pose_score(made.projector)
    parts = refined(made, nested_search(score_of, made.images, cells_of(made), PLAN))
    assert torch.equal(parts.modes.pose.rotation, found.modes.pose.rotation)
    assert torch.equal(parts.modes.pose.shift_angstrom, found.modes.pose.shift_angstrom)
    assert torch.equal(parts.weight, found.weight)
    assert torch.equal(parts.log_likelihood, found.log_likelihood)


def test_a_known_pose_is_one_more_candidate(scene) -> None:
    made = scene(6, noise_sd=0.3)
    # Of a grid that holds a single rotation, far from those of the images.
    grid = PoseGrid(rotation_grid(ORDER)[:1], shift_grid(5.5, 3.0))
    near = made.images.prefix(PLAN.coarse_radius)
    slices = GridSlices.of(made.volume, grid, near.disc, near.scale)
    plan = replace(PLAN, cells=1, modes=2)
    truth = made.truth.pose
    lost, found = (
        global_search(made.projector, slices, made.images, known, PRIOR, plan)
        for known in (None, truth)
    )
    # The best child of the only cell, and the known pose.
    assert found.weight.shape == (6, 2)
    before, after = (
        geodesic_angle(one.mode().pose.rotation, truth.rotation)
        for one in (lost, found)
    )
    assert before.min() > math.radians(10)
    # Noise moves modes by a degree.
    assert after.max() < math.radians(5)
    assert (found.weight[:, 0] > 0.999).all()
    assert (found.log_likelihood > lost.log_likelihood + 10).all()


def test_mates_of_a_symmetric_map_are_equally_probable(scene) -> None:
    made = scene(6, noise_sd=0.2, symmetric=True)
    half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0])).double()
    truth = made.truth.pose.rotation
    wrong = rotate_in_image_frame(truth, torch.tensor([0.0, 1.3, 0.0]).double())
    start = Candidates(
        torch.stack([truth, wrong, truth @ half_turn], 1),
        made.truth.pose.shift_angstrom[:, None].repeat(1, 3, 1),
        torch.zeros(6, 3),
    )
    weight = refined(made, start).weight
    assert (weight.diff(dim=1) <= 0).all()
    # Both refinements end within a tenth of a nat of their modes.
    half = torch.full((6, 2), 0.5, dtype=torch.float64)
    torch.testing.assert_close(weight[:, :2], half, rtol=0, atol=0.05)
    assert weight[:, 2].max() < 1e-3
    # Whoever knows of the group takes them for one.
    pair = torch.stack([torch.eye(3, dtype=torch.float64), half_turn])
    plan = replace(PLAN, symmetry=pair)
    weight = refined(made, start, plan).weight
    assert (weight[:, 0] > 0.998).all()


def test_a_mode_counts_once(scene) -> None:
    made = scene(6, noise_sd=0.3)
    truth, shift = made.truth.pose.rotation, made.truth.pose.shift_angstrom
    close = rotate_in_image_frame(truth, torch.tensor([0.03, 0.0, 0.03]).double())
    start = Candidates(
        torch.stack([truth, close], 1),
        torch.stack([shift, shift], 1),
        torch.zeros(6, 2),
    )
    expected = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(6, 2)
    torch.testing.assert_close(refined(made, start).weight, expected)


def test_laplace_evidence_of_a_gaussian_is_exact() -> None:
    information = torch.diag(torch.tensor([4.0, 9.0, 16.0, 1.0, 1.0, 0.0])).double()
    pose = Pose(torch.eye(3).double()[None], torch.tensor([[2.0, 0.0]]).double())
    modes = PosteriorModes(
        Latents.rigid(pose, torch.zeros(1, dtype=torch.float64)),
        information[None],
        torch.tensor([-7.0]).double(),
    )
    # -7, half a square of the prior, and log of the product of standard deviations.
    expected = -7.0 - 0.5 - math.log(2 * 3 * 4)
    found = modes.log_evidence(PosePrior(2.0, 0.0))
    assert found.item() == pytest.approx(expected)


def test_evidence_agrees_with_the_numerical_integral(scene) -> None:
    made = scene(1, noise_sd=0.3)
    prior = PosePrior(50.0, 0.0)
    start = Candidates(
        made.truth.pose.rotation[:, None],
        made.truth.pose.shift_angstrom[:, None],
        torch.zeros(1, 1),
    )
    best = refine_candidates(made.projector, made.images, start, prior, PLAN).latents
    half_width = 4.0
    axis = torch.linspace(-half_width, half_width, 17, dtype=torch.float64)
    # Shifts alone, at the mode's rotation; their conditional Gaussian.
    found = made.projector.normal_equations(made.images, best, prior).information
    whole = found + torch.diag(2 * prior.precision.clamp(min=0))
    precision = whole[0, 3:5, 3:5]
    root = torch.linalg.inv(torch.linalg.cholesky(precision)).mT
    grid = torch.cartesian_prod(axis, axis) @ root.mT
    shift = best.pose.shift_angstrom[0] + grid
    losses = torch.stack(
        [
            made.loss(best.pose.rotation, s[None], torch.zeros(1).double())[0]
            + 0.5 * (s / 50.0).square().sum()
            for s in shift
        ]
    )
    cell = float(torch.det(root)) * (2 * half_width / 16) ** 2
    integral = math.log(float(torch.exp(losses.min() - losses).sum()) * cell)
    at_mode = float(losses[len(losses) // 2] - losses.min())
    gaussian = math.log(2 * math.pi) - 0.5 * float(torch.logdet(precision)) - at_mode
    # The model is not quite linear in the shift.
    assert integral == pytest.approx(gaussian, abs=0.1)


def test_best_of_each_keeps_some_of_every_cell() -> None:
    value = torch.tensor([[1.0, 4.0, 3.0, 2.0, 0.0, 5.0]])
    rotation = torch.arange(6.0)[None, :, None, None].expand(1, 6, 3, 3).double()
    some = Candidates(rotation, rotation[..., 0, :2], value)
    one, two = some.best_of_each(3, 1), some.best_of_each(3, 2)
    assert one.log_likelihood.tolist() == [[4.0, 5.0]]
    assert one.rotation[0, :, 0, 0].tolist() == [1.0, 5.0]
    assert one.shift_angstrom[0, :, 0].tolist() == [1.0, 5.0]
    assert two.log_likelihood.tolist() == [[4.0, 3.0, 5.0, 2.0]]


def test_best_sorts_and_joined_keeps_both() -> None:
    value = torch.tensor([[1.0, 3.0, 2.0]])
    rotation = torch.arange(3.0)[None, :, None, None].expand(1, 3, 3, 3).double()
    some = Candidates(rotation, rotation[..., 0, :2], value)
    best = some.best(2)
    assert best.log_likelihood.tolist() == [[3.0, 2.0]]
    assert best.rotation[0, :, 0, 0].tolist() == [1.0, 2.0]
    assert best.shift_angstrom[0, :, 0].tolist() == [1.0, 2.0]
    assert some.best(9).log_likelihood.shape == (1, 3)
    assert some.joined(best).log_likelihood.tolist() == [[1.0, 3.0, 2.0, 3.0, 2.0]]
