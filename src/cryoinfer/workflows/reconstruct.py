"""Maps from particles whose poses are known."""

from dataclasses import dataclass, replace

import torch

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.fourier.slices import SliceAccumulator
from cryoinfer.inference.whitening import whiten
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.reconstruction.backproject import solve
from cryoinfer.reconstruction.symmetrise import symmetrise
from cryoinfer.records import Latents
from cryoinfer.results.run_result import Reconstruction
from cryoinfer.workflows.evidence import structure_evidence
from cryoinfer.workflows.iteration import insert_images
from cryoinfer.workflows.postprocess import reconstruct_halves
from cryoinfer.workflows.problem import Problem, define_problem, initial_noise
from cryoinfer.workflows.resolution_schedule import PADDING, find_mask
from cryoinfer.workflows.shared_monitor import SharedMonitor
from cryoinfer.world import ALONE, World


@dataclass(frozen=True)
class ReconstructConfig:
    """What may be chosen.

    Attributes
    ----------
    symmetry : str
    particle_diameter_angstrom : float, optional
        By default three quarters of the box.
    seed : int
        Divides the particles into halves where the file does not.
    """

    symmetry: str = "C1"
    particle_diameter_angstrom: float | None = None
    seed: int = 0


_DEFAULTS = ReconstructConfig()


def reconstruct(
    particles: Particles,
    config: ReconstructConfig = _DEFAULTS,
    monitor: Monitor = SILENT,
    world: World = ALONE,
) -> Reconstruction:
    """Reconstruct both halves and the whole from the particles' own poses.

    Parameters
    ----------
    particles : Particles
        With poses.
    config : ReconstructConfig, optional
    monitor : Monitor, optional
    world : World
        The processes that share the particles, each of which calls this.

    Returns
    -------
    Reconstruction

    Raises
    ------
    InputError
        If the particles have no poses.
    """
    poses = given_poses(particles)
    generator = torch.Generator().manual_seed(config.seed)
    problem = define_problem(
        particles,
        config.symmetry,
        config.particle_diameter_angstrom,
        max_shift_angstrom=None,
        defocus_sd_angstrom=0.0,
        generator=generator,
    ).shared_by(world)
    monitor = SharedMonitor(monitor, world)
    noise = initial_noise(problem)
    sums = insert_all(problem, noise, poses, monitor)
    halves = [solve(s, None, problem.grid.box, problem.grid.box) for s in sums]
    radius = problem.grid.box // 8
    mask = find_mask(problem, halves[0] + halves[1], radius)
    return replace(
        reconstruct_halves(problem, sums, mask),
        evidence=structure_evidence(problem, noise, sums),
    )


def given_poses(particles: Particles) -> Latents:
    """Return the poses in the particles' file.

    Raises
    ------
    InputError
        If it has none.
    """
    if particles.pose is None:
        raise InputError(
            "expected particles with poses (rlnAngleRot, rlnAngleTilt, rlnAnglePsi or "
            "alignments3D/pose), found none; run `cryoinfer abinitio`, or `cryoinfer "
            "refine --map` with a map of the molecule"
        )
    return Latents.rigid(particles.pose, torch.zeros(len(particles))).double()


def insert_all(
    problem: Problem,
    noise: tuple[torch.Tensor, ...],
    poses: Latents,
    monitor: Monitor,
) -> tuple[SliceAccumulator, SliceAccumulator]:
    """Return the symmetrised sums of both halves at the given poses."""
    radius = problem.grid.box // 2 - 1
    first, second = (
        SliceAccumulator.empty(problem.grid.box, radius, PADDING) for _ in range(2)
    )
    monitor.stage("reconstruction", problem.own_count)
    for batch in problem.own_batches():
        group = int(batch.optics.group[0])
        images = whiten(batch, problem.grid, radius, noise[group])
        sums = second if problem.half[batch.index[0]] else first
        insert_images(sums, images, poses[batch.index], radius)
        monitor.advance(len(batch))
    problem.world.add_up(first.sums, second.sums)
    group_rotations = problem.symmetry_rotation
    return symmetrise(first, group_rotations), symmetrise(second, group_rotations)
