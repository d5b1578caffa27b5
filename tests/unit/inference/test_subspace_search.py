"""Search in a linear subspace: evidence in closed form, poses and z from nothing."""

from dataclasses import dataclass, replace

import pytest
import torch
from tests.scenes import RADIUS, Scene, blob_map
from torch import Tensor

from cryoinfer.geometry.rotations import geodesic_angle, random_rotations
from cryoinfer.geometry.so3_grid import grid_step_radian, rotation_grid
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.coarse import PoseGrid, shift_grid
from cryoinfer.inference.linear_conformation import conformation_at
from cryoinfer.inference.pose_search import GlobalSearch
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.search import SearchPlan
from cryoinfer.inference.subspace_projector import SubspaceProjector
from cryoinfer.inference.subspace_scores import (
    SliceProducts,
    StackedVolumes,
    marginal_scores,
    slice_products,
)
from cryoinfer.inference.subspace_search import (
    SubspaceGridSlices,
    SubspaceSearch,
    exhaustive_evidence,
)
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents, Pose

ORDER = 2
PLAN = SearchPlan(
    coarse_radius=6,
    radius=12,
    cells=8,
    modes=4,
    steps=20,
    cell_radian=grid_step_radian(ORDER),
    shift_step_angstrom=3.0,
    symmetry=symmetry_rotations("C1"),
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prior_of(components: int) -> PosePrior:
    return PosePrior(1e3, 0.0, (1.0,) * components)


def subspace_of(components: int, strength: float = 0.5) -> SubspaceProjector:
    one = blob_map()
    others = (one.flip(0), one.transpose(0, 2), one.flip(1))
    weak = [strength * other for other in others[:components]]
    return SubspaceProjector.of_maps([one, *weak], RADIUS)


def stacked(shown: SubspaceProjector) -> StackedVolumes:
    values = [one.values for one in (shown.mean, *shown.components)]
    return StackedVolumes(shown.mean, torch.stack(values))


@dataclass(frozen=True)
class Asked:
    """Poses that images are scored at."""

    rotation: Tensor
    shift: Tensor

    @classmethod
    def drawn(cls, n: int, m: int, s: int) -> "Asked":
        rotation = random_rotations(n * m, seeded(5)).view(n, m, 3, 3)
        return cls(rotation, 2 * torch.randn(n, s, 2, generator=seeded(6)).double())


def at_z(made: Scene, shown: SubspaceProjector) -> tuple[WhitenedImages, Tensor]:
    """Return the scene's images with z of a normal density in place of none."""
    n = len(made.images)
    z = torch.randn(n, len(shown.components), generator=seeded(7)).double()
    latents = replace(made.truth, conformation=z)
    rigid = made.truth
    images = made.images.at_defocus_offset(rigid.defocus_offset_angstrom)
    back = -rigid.pose.shift_angstrom
    difference = shown.coefficients(latents, images) - shown.coefficients(
        replace(latents, conformation=0 * z), images
    )
    moved = replace(images, coefficients=images.ctf * difference).moved_back(back)
    return replace(images, coefficients=images.coefficients + moved), z


@pytest.mark.parametrize("components", [0, 1, 3])
@pytest.mark.parametrize(("m", "s"), [(1, 1), (5, 7), (131, 2)])
def test_compiled_scores_are_the_plain_ones(scene, components, m, s) -> None:
    made, shown = scene(3, noise_sd=0.3), subspace_of(components)
    asked = Asked.drawn(3, m, s)
    given = stacked(shown), made.images, asked.rotation, asked.shift
    found, expected = slice_products(*given), slice_products.plain(*given)
    # Sums of some four hundred products of single precision, in another order.
    for one, other in ((found.seen, expected.seen), (found.shown, expected.shown)):
        scale = float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * scale)
    sd = torch.linspace(0.5, 2.0, components).double()
    best, where = marginal_scores(expected, sd)
    other, there = marginal_scores.plain(expected, sd)
    # Differences of numbers of some hundred nats.
    torch.testing.assert_close(best, other, rtol=1e-5, atol=1e-3)
    assert torch.equal(where, there)


@pytest.mark.parametrize("components", [0, 1, 3])
def test_scores_are_the_evidence_in_closed_form(scene, components: int) -> None:
    made, shown = scene(4, noise_sd=0.3), subspace_of(components)
    asked, prior = Asked.drawn(4, 6, 3), prior_of(components)
    products = slice_products(stacked(shown), made.images, asked.rotation, asked.shift)
    best, where = marginal_scores(products, prior.unknowns_sd_angstrom[3:])
    each = torch.empty(4, 6, 3).double()
    for j in range(6):
        for k in range(3):
            pose = Pose(asked.rotation[:, j].double(), asked.shift[:, k])
            latents = Latents.rigid(pose, torch.zeros(4).double())
            found = conformation_at(shown, made.images, latents, prior)
            each[:, j, k] = found.log_evidence + made.power()
    # Of images of a power of some hundreds, in single precision.
    torch.testing.assert_close(
        best.double(), each.amax(2), rtol=0, atol=1e-5 * float(made.power().max())
    )
    assert torch.equal(where, each.argmax(2))


def test_a_component_that_is_nothing_costs_nothing() -> None:
    # Its z is what the prior says, whatever the image.
    products = SliceProducts(
        torch.tensor([3.0, 0.0]).view(1, 1, 2, 1),
        torch.tensor([2.0, 0.0, 0.0]).view(1, 3, 1),
    )
    best, _ = marginal_scores(products, torch.tensor([0.7]).double())
    torch.testing.assert_close(best, torch.tensor([[4.0]]))


def test_the_best_cells_of_the_grid_are_those_by_brute_force(scene) -> None:
    made, shown = scene(2, noise_sd=0.3), subspace_of(2)
    near, prior = made.images.prefix(5), prior_of(2)
    grid = PoseGrid(rotation_grid(0), shift_grid(3.0, 3.0))
    slices = SubspaceGridSlices.of(stacked(shown), grid, near.disc, near.scale)
    sd = prior.unknowns_sd_angstrom[3:]
    found = exhaustive_evidence(slices, near, sd, 3)
    every = grid.rotation.expand(2, -1, 3, 3)
    shifts = grid.shift_angstrom.double().expand(2, -1, 2)
    best, where = marginal_scores(
        slice_products(stacked(shown), near, every, shifts), sd
    )
    value, cell = best.topk(3, 1)
    # The same sums in another order.
    torch.testing.assert_close(found.log_likelihood, value, rtol=1e-4, atol=1e-3)
    assert torch.equal(found.rotation, grid.rotation[cell])
    expected = grid.shift_angstrom[where.gather(1, cell)].double()
    assert torch.equal(found.shift_angstrom, expected)


def test_slices_lie_in_memory_as_products_want_them(scene) -> None:
    near = scene(2, noise_sd=0.3).images.prefix(5)
    grid = PoseGrid(rotation_grid(0), shift_grid(3.0, 3.0))
    slices = SubspaceGridSlices.of(stacked(subspace_of(2)), grid, near.disc, near.scale)
    # Of strided views, such as the real part of complex numbers, every product makes
    # a copy first: that took most of a search.
    assert slices.values.is_contiguous()
    assert slices.power.is_contiguous()


def test_poses_and_z_are_found_from_nothing(scene) -> None:
    made, shown = scene(40, noise_sd=0.3), subspace_of(2)
    images, z = at_z(made, shown)
    prior = prior_of(2)
    found = SubspaceSearch(PLAN, 6.0).infer(images, shown, prior, None)
    mode = found.mode()
    error = geodesic_angle(mode.pose.rotation, made.truth.pose.rotation)
    lost = error > 0.1
    # Eight cells of a coarse grid miss one particle or none of forty.
    assert int(lost.sum()) <= 1
    sd = found.covariances[:, 0].diagonal(dim1=1, dim2=2).sqrt()
    away = (mode.conformation - z) / sd[:, 6:]
    # Of 80 normal numbers: 1 within 3.5 standard errors of their mean square.
    assert float(away[~lost].square().mean()) == pytest.approx(1.0, abs=0.55)
    assert bool((sd[:, 6:] < 0.5).all())


def test_one_map_misses_what_the_subspace_finds(scene) -> None:
    made, shown = scene(40, noise_sd=0.3), subspace_of(1, strength=1.5)
    images, _ = at_z(made, shown)
    of_mean = GlobalSearch(PLAN, 6.0).infer(
        images, shown.at(torch.zeros(1)), PosePrior(1e3, 0.0), None
    )
    of_all = SubspaceSearch(PLAN, 6.0).infer(images, shown, prior_of(1), None)

    def lost(found) -> int:
        rotation = found.mode().pose.rotation
        return int((geodesic_angle(rotation, made.truth.pose.rotation) > 0.1).sum())

    assert lost(of_all) <= 2
    assert lost(of_mean) > lost(of_all) + 5


def test_no_component_is_the_search_of_a_map(scene) -> None:
    made = scene(10, noise_sd=0.3)
    shown = SubspaceProjector(made.volume, ())
    prior = PosePrior(1e3, 0.0)
    found = SubspaceSearch(PLAN, 6.0).infer(made.images, shown, prior, None)
    other = GlobalSearch(PLAN, 6.0).infer(made.images, made.projector, prior, None)
    apart = geodesic_angle(found.mode().pose.rotation, other.mode().pose.rotation)
    # Both end where a step promises less than 0.1 nats.
    assert float(apart.max()) < 0.01
    torch.testing.assert_close(found.weight, other.weight, rtol=0, atol=0.05)
