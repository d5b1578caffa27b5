"""Refinements that begin on either side of a mode, and ones that a search corrects."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.geometry.rotations import (
    geodesic_angle,
    random_rotations,
    rotate_in_image_frame,
)
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.local_refinement import reach_radian, refine_locally
from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.start_refinement import LikelierMode, StartRefinement
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.records import Latents, Optics, ParticleBatch, Pose

BOX, PIXEL, N, SD_ANGSTROM = 32, 3.0, 18, 12.0
GRID = ReferenceGrid(BOX, PIXEL)
PRIOR = PosePrior(2.0, 0.0, (SD_ANGSTROM,))
RADII = (5, 8, 15)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Made:
    """Two lumps, one of which moves, in images whose truth is known."""

    projector: MovingProjector
    images: WhitenedImages
    truth: Latents


def make(amplitude: Tensor) -> Made:
    place = 7 * torch.randn(120, 3, generator=seeded(1))
    place[60:] += torch.tensor([18.0, 4.0, 0.0])
    direction = torch.zeros(1, 120, 3)
    direction[0, 60:] = torch.tensor([0.0, 0.8, 1.2])
    atoms = GaussianAtoms.from_elements(place - place.mean(0), ["C"] * 120, 60.0)
    moving = MovingAtoms(atoms, direction)
    n = len(amplitude)
    pose = Pose(
        random_rotations(n, seeded(2)), torch.randn(n, 2, generator=seeded(3)).double()
    )
    clean = moving.at(amplitude[:, None]).project(pose, BOX, PIXEL)
    sd = float(clean.std()) / 3
    images = clean + sd * torch.randn(clean.shape, generator=seeded(5))
    batch = ParticleBatch(images, Optics.without_ctf(n, PIXEL), torch.arange(n))
    whitened = whiten(batch, GRID, RADII[-1], torch.full((BOX // 2 + 1,), sd**2))
    truth = Latents(pose, torch.zeros(n).double(), amplitude[:, None])
    return Made(MovingProjector(moving, GRID, moving, RADII[-1]), whitened, truth)


def begun_at_rest(truth: Latents) -> ParticlePosterior:
    """Return one mode each, 3 degrees off, at an amplitude of 0."""
    step = torch.tensor([0.03, -0.03, 0.03], dtype=torch.float64)
    rotation = rotate_in_image_frame(truth.pose.rotation, step)
    pose = replace(truth.pose, rotation=rotation)
    rest = torch.zeros_like(truth.conformation)
    return ParticlePosterior.at(replace(truth, pose=pose, conformation=rest), 1)


def test_particles_that_have_moved_far_are_reached_from_the_middle() -> None:
    far = SD_ANGSTROM * torch.tensor([-1.8, 0.0, 1.8]).double().repeat(N // 3)
    made = make(far)
    start = begun_at_rest(made.truth)
    found = StartRefinement(RADII).infer(made.images, made.projector, PRIOR, start)
    alone = start.mode()
    for radius in RADII:
        near, longest = made.images.prefix(radius), reach_radian(radius)
        modes = refine_locally(made.projector, near, alone, PRIOR, 6, longest)
        alone = modes.latents
    wrong, wrong_alone = (
        (at.conformation - made.truth.conformation).abs()[:, 0]
        for at in (found.mode(), alone)
    )
    # Amplitudes are known to about 0.1 A; from the middle alone two of three particles
    # are out of reach, and end some ten angstrom off.
    assert wrong.max() < 1.0
    assert (wrong_alone > 5.0).sum() > N // 3
    angle = geodesic_angle(found.mode().pose.rotation, made.truth.pose.rotation)
    assert angle.rad2deg().max() < 2.0
    # One mode each, with the width and the likelihood that it has at the last radius.
    again = refine_locally(made.projector, made.images, found.mode(), PRIOR, 0, 0.1)
    assert torch.equal(found.weight, torch.ones(N, 1, dtype=torch.float64))
    torch.testing.assert_close(found.log_likelihood, again.log_likelihood)
    torch.testing.assert_close(found.covariance[:, 0], again.covariance())


@dataclass
class Names:
    """A search that has been told what to find; it must not be told where to begin."""

    posterior: ParticlePosterior

    def infer(
        self,
        images: WhitenedImages,
        projector: object,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        assert start is None
        return self.posterior


def two_modes(first: Latents, second: Latents) -> ParticlePosterior:
    """Return modes of which the first weighs more, and no image has been seen."""
    n = len(first)
    at = Latents.joined([first[None], second[None]]).transposed()
    weight = torch.tensor([0.9, 0.1], dtype=torch.float64).expand(n, 2)
    return ParticlePosterior.of_modes(at, weight, torch.zeros(n, 1, 7, 7).double())


def test_the_likelier_of_the_known_and_the_searched_mode_is_kept() -> None:
    made = make(5 * torch.randn(N, generator=seeded(4)).double())
    truth = made.truth
    transposed = replace(truth.pose, rotation=truth.pose.rotation.mT)
    astray = replace(truth, pose=transposed)
    even = torch.arange(0, N, 2)
    known = two_modes(astray.with_rows(even, truth[even]), astray)
    searched = two_modes(truth.with_rows(even, astray[even]), astray)
    found = LikelierMode(Names(searched), RADII[-1]).infer(
        made.images, made.projector, PRIOR, known
    )
    angle = geodesic_angle(found.mode().pose.rotation, truth.pose.rotation)
    assert angle.rad2deg().max() < 2.0
    again = refine_locally(made.projector, made.images, found.mode(), PRIOR, 0, 0.1)
    torch.testing.assert_close(found.log_likelihood, again.log_likelihood)
    torch.testing.assert_close(found.covariance[:, 0], again.covariance())
    # What else was known stays.
    assert torch.equal(found.weight, known.weight)
    torch.testing.assert_close(
        found.modes[:, 1].to_state(), known.modes[:, 1].to_state(), rtol=0, atol=0
    )


def test_a_mode_that_is_as_likely_is_not_taken() -> None:
    made = make(5 * torch.randn(N, generator=seeded(4)).double())
    # Beside its own mates the moving lump is a trimer: their images are the same.
    moving = made.projector.moving
    mates = [mate.float() for mate in symmetry_rotations("C3")]
    trimer = MovingAtoms(
        GaussianAtoms.from_elements(
            torch.cat([moving.coordinates @ mate.T for mate in mates]),
            ["C"] * (3 * len(moving.coordinates)),
            60.0,
        ),
        torch.cat([moving.direction @ mate.T for mate in mates], 1),
    )
    projector = replace(made.projector, moving=trimer, coarse=trimer)
    truth = made.truth
    shown = projector.coefficients(truth, made.images)
    # Without noise: what rounding leaves is far less than the nat that is asked for.
    images = replace(made.images, coefficients=made.images.ctf * shown)
    centred = replace(
        truth,
        pose=replace(
            truth.pose, shift_angstrom=torch.zeros_like(truth.pose.shift_angstrom)
        ),
    )
    turned = truth.pose.rotation @ symmetry_rotations("C3")[1]
    mate = replace(centred, pose=replace(centred.pose, rotation=turned))
    known, searched = (ParticlePosterior.at(at, 1) for at in (centred, mate))
    found = LikelierMode(Names(searched), RADII[-1]).infer(
        images, projector, PRIOR, known
    )
    angle = geodesic_angle(found.mode().pose.rotation, truth.pose.rotation)
    assert angle.rad2deg().max() < 1.0
