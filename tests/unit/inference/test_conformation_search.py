"""Searches with maps of several conformations, and the modes that they name."""

from dataclasses import replace

import torch
from torch import Tensor

from cryoinfer.fourier.slices import extract_slices
from cryoinfer.geometry.rotations import geodesic_angle, random_rotations
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.conformation_search import ConformationSearch
from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.records import Latents, Optics, ParticleBatch, Pose

BOX, PIXEL, IMAGES, SD_ANGSTROM = 32, 3.0, 60, 8.0
GRID = ReferenceGrid(BOX, PIXEL)
PRIOR = PosePrior(2.0, 0.0, (SD_ANGSTROM,))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


ALONE, C2 = symmetry_rotations("C1"), symmetry_rotations("C2")


def projector() -> MovingProjector:
    """Return two lumps of 60 atoms each, of which one moves against the other."""
    place = 7 * torch.randn(120, 3, generator=seeded(1))
    place[60:] += torch.tensor([18.0, 4.0, 0.0])
    direction = torch.zeros(1, 120, 3)
    direction[0, 60:] = torch.tensor([0.0, 0.8, 1.2])
    atoms = GaussianAtoms.from_elements(place - place.mean(0), ["C"] * 120, 60.0)
    moving = MovingAtoms(atoms, direction)
    return MovingProjector(moving, GRID, moving, BOX // 2 - 1)


def dimer() -> MovingProjector:
    """Return the lumps beside their mates by half a turn; both move outwards."""
    one = projector()
    place = one.moving.coordinates + torch.tensor([16.0, 0.0, 0.0])
    both = torch.cat([place @ mate.float().T for mate in C2])
    direction = torch.cat([one.moving.direction @ mate.float().T for mate in C2], 1)
    atoms = GaussianAtoms.from_elements(both, ["C"] * len(both), 60.0)
    moving = MovingAtoms(atoms, direction)
    return replace(one, moving=moving, coarse=moving)


def particles(
    shown: MovingProjector | None = None, box: int = BOX, pixel: float = PIXEL
) -> tuple[WhitenedImages, Latents]:
    """Return images with noise a third as strong as their signal."""
    pose = Pose(
        random_rotations(IMAGES, seeded(2)),
        torch.randn(IMAGES, 2, generator=seeded(3)).double(),
    )
    amplitude = SD_ANGSTROM * torch.randn(IMAGES, 1, generator=seeded(4)).double()
    moving = (shown or projector()).moving
    clean = moving.at(amplitude).project(pose, box, pixel)
    sd = float(clean.std()) / 3
    images = clean + sd * torch.randn(clean.shape, generator=seeded(5))
    optics = Optics.without_ctf(IMAGES, pixel)
    batch = ParticleBatch(images, optics, torch.arange(IMAGES))
    noise = torch.full((box // 2 + 1,), sd**2)
    truth = Latents(pose, torch.zeros(IMAGES).double(), amplitude)
    return whiten(batch, GRID, BOX // 2 - 1, noise), truth


def searching(
    conformations: int, modes: int, last_radius: int = BOX // 2 - 1
) -> ConformationSearch:
    return ConformationSearch.of(
        projector(), PRIOR, ALONE, conformations, modes, last_radius
    )


def found_by(search: ConformationSearch, images: WhitenedImages) -> ParticlePosterior:
    return search.infer(images, projector(), PRIOR, None)


def near(rotation: Tensor, truth: Latents, degrees: float) -> Tensor:
    """Tell of every mode whether it is as near the truth."""
    angle = geodesic_angle(rotation, truth.pose.rotation[:, None])
    return torch.rad2deg(angle) < degrees


def test_maps_show_what_the_atoms_show() -> None:
    moving = projector()
    search = searching(3, 2)
    images, _ = particles()
    images = images.prefix(search.plan.radius)
    rotation = random_rotations(IMAGES, seeded(6))
    still = Pose(rotation, torch.zeros(IMAGES, 2).double())
    for conformation, volume in zip(search._conformation, search._volumes, strict=True):
        here = conformation.expand(IMAGES, -1)
        latents = Latents(still, torch.zeros(IMAGES).double(), here)
        exact = moving.coefficients(latents, images)
        shown = extract_slices(volume, rotation, images.disc, images.scale)
        # Trilinear interpolation of a transform that is padded twice.
        assert float((shown - exact).norm() / exact.norm()) < 0.02


def test_maps_of_several_conformations_lose_fewer_particles_than_one() -> None:
    images, truth = particles()
    several = searching(5, 4)
    one = searching(1, 4)
    found, alone = (found_by(each, images) for each in (several, one))
    # Half a cell of the grid off, at most, and what the nearest map is wrong by.
    share = near(found.modes.pose.rotation, truth, 10.0).any(1).double().mean()
    before = near(alone.modes.pose.rotation, truth, 10.0).any(1).double().mean()
    # 57 of 60: the three are lost with all cells of the grid divided, too.
    assert share >= 0.95
    assert share > before + 0.1


def test_modes_are_apart_and_weigh_the_same() -> None:
    images, _ = particles()
    search = searching(3, 4)
    found = found_by(search, images)
    weighed = found.weight > 0
    assert bool(weighed[:, 0].all())
    torch.testing.assert_close(found.weight.sum(1), torch.ones(IMAGES).double())
    rotation = found.modes.pose.rotation
    angle = geodesic_angle(rotation[:, :, None], rotation[:, None])
    other = ~torch.eye(4, dtype=torch.bool) & weighed[:, :, None] & weighed[:, None]
    assert bool((angle[other] >= search.plan.cell_radian / 4).all())
    z = found.modes.conformation
    assert z.shape == (IMAGES, 4, 1)
    assert bool(torch.isin(z[..., 0], search._conformation).all())


def test_the_images_are_not_looked_at_beyond_the_radius() -> None:
    images, _ = particles()
    search = searching(2, 2)
    noisy = images.coefficients.clone()
    noisy[:, len(images.prefix(search.plan.radius).disc) :] = 1e3
    found = found_by(search, images)
    other = found_by(search, replace(images, coefficients=noisy))
    torch.testing.assert_close(found.modes.pose.rotation, other.modes.pose.rotation)


def test_a_search_of_images_to_a_low_radius_ends_there() -> None:
    images, _ = particles()
    search = searching(2, 2, last_radius=5)
    assert search.plan.coarse_radius <= search.plan.radius == 5
    found = found_by(search, images.prefix(5))
    assert bool(found.modes.pose.rotation.isfinite().all())


def test_images_of_another_kind_are_searched_with_slices_of_their_own() -> None:
    search = searching(5, 4)
    found_by(search, particles()[0])
    # 40 pixels of 2.5 angstrom, 100 across where the maps are 96.
    others, truth = particles(box=40, pixel=2.5)
    found = found_by(search, others)
    fresh = found_by(searching(5, 4), others)
    torch.testing.assert_close(
        found.to_state(), fresh.to_state(), rtol=0, atol=0, equal_nan=True
    )
    # Five maps lose as few of them as of the maps' own box.
    share = near(found.modes.pose.rotation, truth, 10.0).any(1).double().mean()
    assert share > 0.9


def test_mates_of_a_symmetric_model_are_one_pose() -> None:
    shown = dimer()
    images, truth = particles(shown)
    search = ConformationSearch.of(shown, PRIOR, C2, 5, 4, BOX // 2 - 1)
    found = search.infer(images, shown, PRIOR, None)
    rotation = found.modes.pose.rotation
    mates = (rotation, rotation @ C2[1])
    hit = torch.stack([near(one, truth, 10.0).any(1) for one in mates])
    # The grid holds one asymmetric unit: only poses near its edge, about one in twenty,
    # are found beyond it as well.
    assert hit.any(0).double().mean() > 0.95
    assert hit.all(0).double().mean() < 0.1
    apart = geodesic_angle(rotation[:, :, None], rotation[:, None] @ C2[1])
    weighed = found.weight > 0
    both = weighed[:, :, None] & weighed[:, None] & ~torch.eye(4, dtype=torch.bool)
    assert bool((apart[both] >= search.plan.cell_radian / 4).all())
