"""The frames of the two halves: nothing but convention holds them together.

Each half is refined against itself alone, so that its map may turn and drift as a
whole without any image noticing. What has crept in is measured on some images whose
poses are inferred from both references, and taken out of the second half. The halves
exchange six numbers and no density.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.geometry.rotations import nearest_rotation
from cryoinfer.inference.local_refinement import refine_locally
from cryoinfer.inference.projector import Projector
from cryoinfer.inference.whitening import whiten
from cryoinfer.records import Latents, Pose
from cryoinfer.workflows.problem import Problem

_IMAGES = 300  # a group; the frame is known 17 times better than a pose
_STEPS = 2


@dataclass(frozen=True)
class HalfSetAlignment:
    """The second half's frame in terms of the first one's.

    Attributes
    ----------
    rotation : Tensor of float64, shape (3, 3)
        A particle at R in the first frame is at ``R @ rotation`` in the second.
    origin_angstrom : Tensor of float64, shape (3,)
        A particle at the shift s in the first is at ``s + (R @ origin)[:2]``.
    """

    rotation: Tensor
    origin_angstrom: Tensor

    def to_first(self, latents: Latents) -> Latents:
        """Return latents that were found in the second frame, in the first."""
        if self is SAME_FRAME:
            return latents
        here = latents.pose.rotation
        rotation = here @ self.rotation.to(here).mT
        moved = (rotation @ self.origin_angstrom.to(here))[..., :2]
        pose = Pose(rotation, latents.pose.shift_angstrom - moved)
        return replace(latents, pose=pose)


SAME_FRAME = HalfSetAlignment(
    torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
)
"""Of halves whose structures agree."""


def align_half_sets(
    problem: Problem,
    references: tuple[Projector, Projector],
    noise: tuple[Tensor, ...],
    latents: Latents,
    radius: int,
) -> HalfSetAlignment:
    """Measure the frame of the second reference against the first.

    Parameters
    ----------
    problem : Problem
    references : tuple of two Projector
    noise : tuple of Tensor
    latents : Latents
        Of all particles, near their modes.
    radius : int
        Fourier radius that poses are compared at.

    Returns
    -------
    HalfSetAlignment
    """
    turns, moves, views = [], [], []
    groups = problem.particles.optics.group
    for group in groups.unique().tolist():
        rows = torch.nonzero(problem.noise_rows & (groups == group)).squeeze(1)
        for batch in problem.batches(rows[:_IMAGES]):
            images = whiten(batch, problem.grid, radius, noise[group])
            known = batch.rows_of(latents)
            first, second = (
                refine_locally(one, images, known, problem.prior, _STEPS, 1 / radius)
                for one in references
            )
            before, after = first.pose.to("cpu"), second.pose.to("cpu")
            turns.append(before.rotation.mT @ after.rotation)
            moves.append(after.shift_angstrom - before.shift_angstrom)
            views.append(before.rotation[:, :2])
    turn, move, view = torch.cat(turns), torch.cat(moves), torch.cat(views)
    # Images that two references send to different modes say nothing of the frame.
    near = torch.linalg.matrix_norm(turn - turn.median(0).values) < 0.5 / radius**0.5
    rotation = nearest_rotation(turn[near].sum(0))
    if problem.prior.shift_sd_angstrom <= 0:
        return HalfSetAlignment(rotation, torch.zeros(3, dtype=torch.float64))
    # Summed in one order, unlike a least-squares routine: resumed runs are bitwise
    # the same. The ridge matters only where all views coincide.
    design, target = view[near].reshape(-1, 3), move[near].reshape(-1, 1)
    normal = (design[:, :, None] * design[:, None, :]).sum(0)
    normal = normal + 1e-9 * len(design) * torch.eye(3, dtype=torch.float64)
    origin = torch.linalg.solve(normal, (design * target).sum(0))
    return HalfSetAlignment(rotation, origin)
