"""Open and closed adenylate kinase in one set, and how well they were told apart."""

import argparse
from dataclasses import dataclass
from typing import Self

import torch
from measure import simulated
from noisy_sets import noisy_images
from rows import Row
from torch import Tensor

from cryoinfer.data.joining import join
from cryoinfer.data.particles import Particles
from cryoinfer.evaluation.conformation import confusion_error
from cryoinfer.evaluation.pose_error import align_poses, pose_errors
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.records import Indexable, Pose

OPEN, CLOSED = "adenylate-kinase-open", "adenylate-kinase-closed"
LOST_DEGREES = 10.0


@dataclass(frozen=True)
class TrueStates(Indexable):
    """The pose of each of n particles, and whether it is of the second set, (n,)."""

    pose: Pose
    is_second: Tensor

    @classmethod
    def of(cls, first: Pose, second: Pose) -> Self:
        """Return what is true of two sets of particles, one after the other."""
        rotation = torch.cat([first.rotation, second.rotation])
        shift = torch.cat([first.shift_angstrom, second.shift_angstrom])
        is_second = torch.arange(len(rotation)) >= len(first.rotation)
        return cls(Pose(rotation.double(), shift.double()), is_second)


def simulated_states(
    options: argparse.Namespace, count: int, seed: int, homogeneous: bool = False
) -> tuple[Particles, TrueStates]:
    """Return particles of both states, half each, and what is true of them.

    Those of a homogeneous set are of the open state, in two sets.
    """
    parts, poses = [], []
    for number, name in enumerate((OPEN, OPEN if homogeneous else CLOSED)):
        box = options.box or 64
        config = noisy_images(name, count // 2, seed + number, options.snr_db, box)
        folder = simulated(config)
        parts.append(Particles.load(folder / "particles.star"))
        pose = Particles.load(folder / "truth.star").pose
        assert pose is not None
        poses.append(pose)
    return join(parts).particles, TrueStates.of(*poses)


def judged_poses(pose: Pose, true: TrueStates) -> Row:
    """Compare poses with the true ones, each set in a frame of its own."""
    row: Row = {}
    for name, own in (("first", ~true.is_second), ("second", true.is_second)):
        here, there = pose[own], true.pose[own]
        frame = align_poses(here, there, torch.Generator().manual_seed(0))
        errors = pose_errors(here, there, frame)
        row[f"view_{name}"] = float(errors.view_degrees.median())
        far = errors.view_degrees > LOST_DEGREES
        row[f"lost_{name}"] = float(far.double().mean())
    return row


def judged_states(found: ParticlePosterior, true: TrueStates) -> Row:
    """Compare states by the mean z of each particle with the true ones."""
    z = (found.weight[..., None] * found.modes.conformation).sum(1)
    generator = torch.Generator().manual_seed(0)
    return {"confusion": confusion_error(z, true.is_second, generator)}
