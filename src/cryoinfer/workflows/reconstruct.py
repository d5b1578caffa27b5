"""Maps from particles whose poses are known."""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.fourier.slices import SliceAccumulator
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import GivenPoses
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.records import Latents
from cryoinfer.results.run_result import Reconstruction
from cryoinfer.workflows.evidence import structure_evidence
from cryoinfer.workflows.final_maps import reconstruct_sums
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.particle_pass import ImageSource, ParticlePass, run_pass
from cryoinfer.workflows.problem import Problem, define_problem, initial_noise
from cryoinfer.workflows.shared_monitor import SharedMonitor
from cryoinfer.workflows.structure_update import HalfMapSums
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
    mask : Tensor, shape (n, n, n), optional
        On the voxels of the particles; by default one is found in the maps.
    """

    symmetry: str = "C1"
    particle_diameter_angstrom: float | None = None
    seed: int = 0
    mask: Tensor | None = field(default=None, compare=False)


_DEFAULTS = ReconstructConfig()


def reconstruct(
    particles: Particles,
    config: ReconstructConfig = _DEFAULTS,
    monitor: Monitor = SILENT,
    world: World = ALONE,
    device: torch.device | str = "cpu",
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
    device : torch.device or str, optional
        Where images are added up. Operations without kernels of their own
        there run as plain PyTorch (:mod:`cryoinfer.operations`).

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
    )
    problem = problem.shared_by(world).on(device).within(config.mask)
    monitor = SharedMonitor(monitor, world)
    noise = initial_noise(problem)
    images = StrictImages(problem.grid, problem.grid.box // 2 - 1, noise)
    sums = insert_all(problem, images, poses, monitor)
    return replace(
        reconstruct_sums(problem, sums),
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
    problem: Problem, source: ImageSource, poses: Latents, monitor: Monitor
) -> tuple[SliceAccumulator, SliceAccumulator]:
    """Return the symmetrised sums of both halves at the given poses.

    Parameters
    ----------
    problem : Problem
    source : ImageSource
        To the last radius.
    poses : Latents
        Of all particles.
    monitor : Monitor
    """
    box = problem.grid.box
    sums = HalfMapSums.empty(box, box // 2 - 1, problem.device)
    step = ParticlePass(
        "reconstruction",
        source,
        (None, None),
        problem.prior,
        GivenPoses(),
        lambda one: one.posterior,
        (sums,),
    )
    known = ParticlePosterior.at(poses, 1)
    run_pass(problem, step, known, known, monitor)
    return sums.symmetrised(problem.symmetry_rotation)
