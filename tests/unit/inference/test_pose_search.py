"""A search of all poses finds known ones, and keeps slices of the map it was shown."""

from dataclasses import dataclass, replace

import pytest
import torch

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.geometry.rotations import geodesic_angle, random_rotations
from cryoinfer.geometry.so3_grid import grid_step_radian
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference import pose_search
from cryoinfer.inference.coarse import GRID_ORDER
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_search import GlobalSearch, grid_slices
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.search import SearchPlan
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.records import Latents, Optics, ParticleBatch, Pose

BOX, PIXEL, N = 32, 3.0, 12
PRIOR = PosePrior(shift_sd_angstrom=8.0, defocus_sd_angstrom=0.0)
PLAN = SearchPlan(
    coarse_radius=6,
    radius=12,
    cells=8,
    modes=3,
    steps=8,
    cell_radian=grid_step_radian(GRID_ORDER),
    shift_step_angstrom=4.0,
    symmetry=symmetry_rotations("C1"),
)


@dataclass(frozen=True)
class Molecule:
    """Some atoms, their map, and images at known poses."""

    projector: MapProjector
    images: WhitenedImages
    true: Pose


def molecule(seed: int = 0, box: int = BOX, pixel: float = PIXEL) -> Molecule:
    generator = torch.Generator().manual_seed(seed)
    coordinates = torch.randn(60, 3, generator=generator, dtype=torch.float64) * 12
    atoms = GaussianAtoms.from_elements(coordinates, ["C"] * 60, 200.0)
    shift = (torch.rand(N, 2, generator=generator, dtype=torch.float64) - 0.5) * 8
    true = Pose(random_rotations(N, generator), shift)
    clean = atoms.project(true, box, pixel).float()
    sd = float(clean.std()) * 0.5
    images = clean + sd * torch.randn(clean.shape, generator=generator)
    batch = ParticleBatch(images, Optics.without_ctf(N, pixel), torch.arange(N))
    noise = torch.full((box // 2,), sd**2)
    whitened = whiten(batch, ReferenceGrid(BOX, PIXEL), BOX // 2 - 1, noise)
    density = atoms.to_map(BOX, PIXEL).float()
    projector = MapProjector(FourierVolume.from_map(density, PLAN.radius))
    return Molecule(projector, whitened, true)


def search() -> GlobalSearch:
    return GlobalSearch(PLAN, max_shift_angstrom=6.0)


def require_same(one: ParticlePosterior, other: ParticlePosterior) -> None:
    torch.testing.assert_close(
        one.to_state(), other.to_state(), rtol=0, atol=0, equal_nan=True
    )


def test_a_search_returns_posteriors_about_the_true_poses() -> None:
    made = molecule()
    posterior = search().infer(made.images, made.projector, PRIOR, None)
    found = posterior.mode()
    angle = torch.rad2deg(geodesic_angle(found.pose.rotation, made.true.rotation))
    # A blob of a few atoms at 6 dB is known to about a degree; a wrong mode would be
    # tens of degrees off.
    assert angle.median() < 3.0
    sd_degrees = torch.rad2deg(
        posterior.covariance[:, 0].diagonal(dim1=1, dim2=2)[:, :3].mean(1).sqrt()
    )
    assert (angle < 6 * sd_degrees).double().mean() > 0.8
    torch.testing.assert_close(
        posterior.weight.sum(1), torch.ones(N, dtype=torch.float64)
    )


def test_images_are_not_looked_at_beyond_the_radius_of_the_plan() -> None:
    made = molecule()
    noisy = made.images.coefficients.clone()
    noisy[:, len(made.images.prefix(PLAN.radius).disc) :] = 1e3
    other = replace(made.images, coefficients=noisy)
    require_same(
        search().infer(made.images, made.projector, PRIOR, None),
        search().infer(other, made.projector, PRIOR, None),
    )


def test_slices_are_made_once_a_map_and_kind_of_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, other = molecule(), molecule(seed=1)
    # 36 pixels of 2.5 angstrom: of another box, and another length.
    smaller = molecule(box=36, pixel=2.5)
    calls = []

    def counted(*given: object) -> object:
        calls.append(given)
        return grid_slices(*given)

    monkeypatch.setattr(pose_search, "grid_slices", counted)
    kept = search()
    asked = [
        (made.images, made.projector, 1),
        (made.images.select(torch.arange(3)), made.projector, 1),
        # The same map in another projector is the same map.
        (made.images, MapProjector(made.projector.volume), 1),
        (other.images, other.projector, 2),
        (made.images, made.projector, 3),
        (smaller.images, made.projector, 4),
    ]
    for images, projector, made_so_far in asked:
        found = kept.infer(images, projector, PRIOR, None)
        assert len(calls) == made_so_far
        require_same(found, search().infer(images, projector, PRIOR, None))
        calls.pop()  # of the fresh one


def test_a_known_pose_is_tried_as_well() -> None:
    made = molecule()
    # At two Fourier pixels the best cell lies anywhere.
    blind = replace(PLAN, coarse_radius=2, cells=1, modes=1)
    true = Latents.rigid(made.true, torch.zeros(N, dtype=torch.float64))
    known = replace(
        ParticlePosterior.at(true, 1),
        log_likelihood=made.projector.log_likelihood(made.images.prefix(12), true),
    )
    without, told = (
        GlobalSearch(blind, 6.0).infer(made.images, made.projector, PRIOR, start)
        for start in (None, known)
    )
    before, after = (
        geodesic_angle(one.mode().pose.rotation, made.true.rotation).rad2deg()
        for one in (without, told)
    )
    # Of the truth there is but the noise: a degree or a few.
    assert (before > 20.0).sum() > 3
    assert after.max() < 10.0


def test_poses_that_have_seen_no_image_are_not_tried() -> None:
    made = molecule()
    true = Latents.rigid(made.true, torch.zeros(N, dtype=torch.float64))
    start = ParticlePosterior.at(true, 1)
    assert not bool(start.log_likelihood.isfinite().any())
    require_same(
        search().infer(made.images, made.projector, PRIOR, start),
        search().infer(made.images, made.projector, PRIOR, None),
    )
