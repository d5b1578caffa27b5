"""Fields of displacements, learned with the unknowns of particles eliminated."""

from dataclasses import replace

import torch
from torch import Tensor

from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.learned_motion import (
    FieldEquations,
    Fields,
    principal_motion,
)
from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.records import Latents, Optics, ParticleBatch, Pose

BOX, PIXEL_SIZE, IMAGES, POINTS, BASIS = 16, 4.0, 40, 8, 3
GAIN = 100.0  # of images whose noise is of unit power: next to none
GRID = ReferenceGrid(BOX, PIXEL_SIZE)
PRIOR = PosePrior(3.0, 0.0, (2.0,))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def moving() -> MovingAtoms:
    coordinates = 8 * normal(POINTS, 3, seed=1)
    atoms = GaussianAtoms.from_elements(coordinates.float(), ["C"] * POINTS, 120.0)
    return MovingAtoms(atoms, normal(1, POINTS, 3, seed=2).float()).scaled(GAIN)


def projector(beads: MovingAtoms) -> MovingProjector:
    return MovingProjector(beads, GRID, beads, BOX // 2)


def fields(sd: float) -> Fields:
    basis = normal(BASIS, POINTS, 3, seed=3)
    return Fields(moving(), basis, basis, torch.full((BASIS,), sd, dtype=torch.float64))


def latents() -> Latents:
    return Latents(
        Pose(random_rotations(IMAGES, seeded(4)), normal(IMAGES, 2, seed=5)),
        torch.zeros(IMAGES, dtype=torch.float64),
        2 * normal(IMAGES, 1, seed=6),
    )


def measured(beads: MovingAtoms, at: Latents) -> WhitenedImages:
    """Return images without noise."""
    clean = beads.at(at.conformation).project(at.pose, BOX, PIXEL_SIZE)
    optics = Optics.without_ctf(IMAGES, PIXEL_SIZE)
    batch = ParticleBatch(clean, optics, torch.arange(IMAGES))
    return whiten(batch, GRID, BOX // 2 - 1, torch.ones(BOX // 2 + 1))


def test_particles_stay_where_they_are_in_other_words() -> None:
    rest, displacement = normal(POINTS, 3, seed=7), normal(3, POINTS, 3, seed=8)
    amplitude = normal(50, 3, seed=9) * torch.tensor([1.0, 3.0, 0.5]) + 2.0
    motion = principal_motion(rest, displacement, amplitude)
    before = rest + torch.einsum("pk,knc->pnc", amplitude, displacement)
    per_unit = motion.direction * POINTS**0.5
    after = motion.rest + torch.einsum("pk,knc->pnc", motion.amplitude, per_unit)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-12)
    flat = motion.direction.flatten(1)
    torch.testing.assert_close(
        flat @ flat.mT, torch.eye(3).double(), atol=1e-12, rtol=0
    )
    second_moment = motion.amplitude.mT @ motion.amplitude / 50
    expected = torch.diag(motion.sd_angstrom.square())
    torch.testing.assert_close(second_moment, expected, rtol=0, atol=1e-10)
    assert bool((motion.sd_angstrom.diff() < 0).all())


def test_the_middle_is_one_of_the_places() -> None:
    # On half a circle: its mean is inside, where nothing is.
    angle = torch.linspace(0, torch.pi, 200, dtype=torch.float64)
    amplitude = torch.stack([angle.cos(), angle.sin()], 1)
    axes = torch.eye(2, 3 * POINTS, dtype=torch.float64).view(2, POINTS, 3)
    rest = torch.zeros(POINTS, 3, dtype=torch.float64)
    motion = principal_motion(rest, axes, amplitude)
    # A twentieth of 200 points spans nine degrees.
    assert abs(float(motion.rest.norm()) - 1) < 0.01


def test_elimination_is_the_whole_system_solved_at_once() -> None:
    true = moving()
    at = latents()
    images = measured(true, at)
    start = replace(
        at,
        pose=replace(at.pose, shift_angstrom=at.pose.shift_angstrom + 0.05),
        conformation=at.conformation + 0.1,
    )
    wide = fields(1e4)  # which says nothing
    equations = FieldEquations(wide, projector(moving()), PRIOR)
    equations.add(images, start)
    share = equations.solved()
    expected, steps = solved_at_once(wide, images, start)
    # Slopes are of single precision, summed in other orders, and priors say as little
    # as 1e-8 of what images do.
    torch.testing.assert_close(share, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(equations.steps(share), steps, rtol=0, atol=1e-4)


def solved_at_once(
    wide: Fields, images: WhitenedImages, start: Latents
) -> tuple[Tensor, Tensor]:
    """Return fields and steps of particles from one dense system."""
    own, k = 7, 2
    size = IMAGES * own + k * BASIS
    matrix = torch.zeros(size, size, dtype=torch.float64)
    right = torch.zeros(size, dtype=torch.float64)
    whole = projector(wide.joined)
    both = replace(PRIOR, conformation_sd_angstrom=(2.0, *[1.0] * BASIS))
    for row in range(IMAGES):
        one = start[[row]]
        none = torch.zeros(1, BASIS, dtype=torch.float64)
        amplitude = start.conformation[[row]]
        extended = replace(one, conformation=torch.cat([amplitude, none], 1))
        image = images.select(torch.tensor([row]))
        found = whole.normal_equations(image, extended, both)
        # From the unknowns of the system to those of the image.
        into = torch.zeros(own + BASIS, size, dtype=torch.float64)
        into[:own, row * own : (row + 1) * own] = torch.eye(own)
        for field, factor in enumerate([1.0, float(amplitude)]):
            begin = IMAGES * own + field * BASIS
            into[own:, begin : begin + BASIS] = factor * torch.eye(BASIS)
        matrix += into.mT @ found.information[0] @ into
        right += into.mT @ found.gradient[0]
        pull = 2 * PRIOR.precision.clamp(min=0)
        away = torch.cat([torch.zeros(3), one.offsets_angstrom[0]])
        mine = slice(row * own, (row + 1) * own)
        matrix[mine, mine] += torch.diag(pull)
        right[mine] -= pull * away
    # The defocus is held.
    held = matrix.diagonal() == 0
    solution = torch.linalg.solve(matrix + torch.diag(held.double()), right)
    split = IMAGES * own
    return solution[split:].view(k, BASIS), solution[:split].view(IMAGES, own)


def test_a_field_comes_back_and_what_is_not_there_does_not() -> None:
    known = fields(1.0)
    share = torch.tensor([0.3, -0.2, 0.1], dtype=torch.float64)
    shift = torch.einsum("m,mnc->nc", share, known.basis).float()
    beads = moving()
    atoms = beads.atoms
    true = replace(
        beads,
        atoms=replace(atoms, coordinates_angstrom=atoms.coordinates_angstrom + shift),
    )
    at = latents()
    equations = FieldEquations(known, projector(beads), PRIOR)
    equations.add(measured(true, at), at)
    found = equations.solved()
    # Slopes are those at the wrong place: of second order in displacements of 0.5 A in
    # 12 A of resolution.
    torch.testing.assert_close(found[0], share, rtol=0, atol=0.06)
    # The mode is as it was.
    assert float(found[1].abs().max()) < 0.02
