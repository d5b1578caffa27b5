"""The M-step: sums of half-sets, and the maps and the mask that come out of them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from cryoinfer.errors import InputError
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.fourier.slices import SliceAccumulator
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import GivenPoses
from cryoinfer.inference.whitening import WhitenedImages, whiten
from cryoinfer.interfaces import SILENT
from cryoinfer.reconstruction.mask import soft_sphere
from cryoinfer.records import Latents
from cryoinfer.workflows.half_set_alignment import HalfSetAlignment
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.particle_pass import ParticlePass, run_pass
from cryoinfer.workflows.problem import Problem, define_problem, initial_noise
from cryoinfer.workflows.structure_update import (
    HalfMapSums,
    MapUpdate,
    find_mask,
    insert_images,
    padding_at,
)

BOX, RADIUS = 24, 10


def problem_of(made: Any, symmetry: str = "C1") -> Problem:
    seed = torch.Generator().manual_seed(0)
    return define_problem(made.particles, symmetry, 80.0, None, 0.0, seed)


@dataclass(frozen=True)
class Images:
    """Some whitened images at their poses."""

    images: WhitenedImages
    truth: Latents

    def inserted(self, share: torch.Tensor | None = None) -> SliceAccumulator:
        sums = SliceAccumulator.empty(BOX, RADIUS, 2.0)
        insert_images(sums, self.images, self.truth, share)
        return sums

    def select(self, rows: torch.Tensor) -> "Images":
        return Images(self.images.select(rows), self.truth[rows])


@pytest.fixture(scope="module")
def some(simulated: Callable[..., Any]) -> Images:
    made = simulated()
    rows = torch.arange(20)
    problem = problem_of(made)
    images = whiten(
        made.particles.batch(rows), problem.grid, RADIUS + 1, torch.ones(13)
    )
    zero = torch.zeros(20, dtype=torch.float64)
    return Images(images, Latents.rigid(made.true_pose[rows], zero))


def test_images_count_for_their_share(some: Images) -> None:
    share = torch.linspace(0.0, 1.0, 20, dtype=torch.float64)
    found = some.inserted(share).sums
    expected = torch.zeros_like(found, dtype=torch.float64)
    for row in range(20):
        one = some.select(torch.tensor([row])).inserted().sums
        expected += float(share[row]) * one
    # Sums of single precision.
    torch.testing.assert_close(
        found.double(), expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())
    )
    assert bool(found.any())


def test_images_that_count_fully_are_as_inserted_without_a_share(some: Images) -> None:
    ones = torch.ones(20, dtype=torch.float64)
    assert torch.equal(some.inserted(ones).sums, some.inserted().sums)


def test_no_images_leave_the_sums_as_they_are(some: Images) -> None:
    nothing = some.select(torch.zeros(0, dtype=torch.int64))
    assert not bool(nothing.inserted().sums.any())


def summed(
    made: Any, problem: Problem, update: MapUpdate, alignment: HalfSetAlignment | None
) -> HalfMapSums:
    """Return the sums of all particles at their true poses."""
    sums = update.empty(RADIUS)
    zero = torch.zeros(len(made.true_pose), dtype=torch.float64)
    known = ParticlePosterior.at(Latents.rigid(made.true_pose, zero), 1)
    step: ParticlePass = ParticlePass(
        "sums",
        StrictImages(problem.grid, BOX // 2 - 1, initial_noise(problem)),
        (None, None),
        problem.prior,
        GivenPoses(),
        lambda one: one.placed,
        (sums,),
    )
    if alignment is not None:
        step = replace(step, alignment=alignment)
    run_pass(problem, step, known, known, SILENT)
    return sums


def test_true_poses_give_the_true_map_in_both_halves(
    simulated: Callable[..., Any],
) -> None:
    made = simulated()
    problem = problem_of(made)
    update = MapUpdate(problem)
    found = update.solve(summed(made, problem, update, None), 6)
    truth = made.density * found.mask
    for half in found.maps:
        curve = fourier_shell_correlation(half, truth)
        # 100 images at 10 dB; the outermost shells hold next to nothing.
        assert curve[1:8].min() > 0.95
    assert found.fsc[1:8].min() > 0.9
    assert found.fsc.shape == (RADIUS + 1,)
    assert found.overfitting.shape == (BOX // 2 + 1,)
    assert bool((found.overfitting >= 1).all())
    # References are filtered by how far the halves agree.
    assert not torch.equal(*found.maps)
    projector = update.projector(found.maps[0], 6)
    assert projector.volume.radius == 6


def test_the_second_half_is_inserted_where_it_is_placed(
    simulated: Callable[..., Any],
) -> None:
    made = simulated()
    problem = problem_of(made)
    update = MapUpdate(problem)
    # A quarter of a turn about z: x goes to y.
    turn = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    alignment = HalfSetAlignment(turn, torch.zeros(3, dtype=torch.float64))
    apart = update.solve(summed(made, problem, update, alignment), 6).fsc
    same = update.solve(summed(made, problem, update, None), 6).fsc
    assert same[3:8].min() > 0.9
    assert apart[3:8].max() < 0.6


def test_sums_are_of_all_mates_of_the_particles(simulated: Callable[..., Any]) -> None:
    made = simulated()
    problem = problem_of(made, "C2")
    update = MapUpdate(problem)
    found = update.solve(summed(made, problem, update, None), 6)
    first = found.maps[0]
    # By half a turn about z; the first row of an even box has no mate.
    turned = first.flip(1, 2).roll((1, 1), (1, 2))
    inner = first[1:, 1:, 1:]
    torch.testing.assert_close(
        turned[1:, 1:, 1:], inner, rtol=0, atol=1e-3 * float(inner.abs().max())
    )


@pytest.mark.parametrize("map_box", [BOX, 16])
def test_a_mask_of_the_user_takes_the_place_of_one_that_is_found(
    simulated: Callable[..., Any], map_box: int
) -> None:
    made = simulated()
    given = soft_sphere(BOX, 4.0, 7.0)
    problem = problem_of(made).within(given)
    mask = find_mask(problem, torch.zeros(map_box, map_box, map_box), 6)
    if map_box == BOX:
        assert torch.equal(mask, given)
    # The same sphere drawn on coarse voxels, without what these cannot hold of it.
    coarse = soft_sphere(map_box, 4.0 * map_box / BOX, 7.0 * map_box / BOX)
    torch.testing.assert_close(mask, coarse, atol=0.02, rtol=0)
    assert float(mask.min()) >= 0.0
    assert float(mask.max()) <= 1.0


def test_masks_that_do_not_fit_are_refused(simulated: Callable[..., Any]) -> None:
    problem = problem_of(simulated())
    assert problem.within(None) is problem
    for mask, message in (
        (torch.ones(16, 16, 16), "24 voxels along every edge"),
        (2 * torch.ones(BOX, BOX, BOX), "from 0 to 1, found 2 to 2"),
        (torch.zeros(BOX, BOX, BOX), "from 0 to 1, found 0 to 0"),
    ):
        with pytest.raises(InputError, match=message):
            problem.within(mask)


def test_the_mask_lies_within_the_particle(simulated) -> None:
    made = simulated()
    problem = define_problem(
        made.particles, "C1", 80.0, None, 0.0, torch.Generator().manual_seed(0)
    )
    mask = find_mask(problem, made.density, 6)
    axis = (torch.arange(24) - 12) * 3.8
    distance = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    # Radius 40 and an edge of two voxels.
    assert (mask[distance > 40 + 2 * 3.8] < 1e-6).all()
    # All that is bright is inside: atoms reach 36 angstrom.
    bright = made.density > 0.5 * made.density.max()
    assert (mask[bright] > 0.99).all()
    assert mask.min() >= 0
    assert mask.max() <= 1


@pytest.mark.parametrize(("box", "most_gb"), [(256, 3.5), (384, 11.2), (512, 11.2)])
def test_volumes_and_sums_of_large_boxes_fit_into_memory(
    box: int, most_gb: float
) -> None:
    radius = box // 2 - 1
    sums = HalfMapSums.empty(box, radius, "meta")
    assert sums.first.padding == padding_at(radius)
    # A volume holds two numbers where sums hold four.
    assert 1.5 * sum(one.nbytes for one in sums.tensors) < most_gb * 1e9
