"""What a run about conformations returns, once pose and z of particles are known."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.evaluation.conformation_checks import predicted_share, rigid_share
from cryoinfer.evaluation.rigid_search import resampled
from cryoinfer.inference.field_projector import FieldProjector
from cryoinfer.inference.outlier_score import (
    Fit,
    JudgedTogether,
    fit_at,
    judge_together,
)
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import GivenPoses
from cryoinfer.inference.projector import Projector
from cryoinfer.inference.subspace_projector import SubspaceProjector
from cryoinfer.interfaces import Monitor
from cryoinfer.results.heterogeneity import Contrast, HeldOutGain, Heterogeneity
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.final_maps import reconstruct_sums
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.particle_contrast import without_contrast
from cryoinfer.workflows.particle_pass import ImageSource, ParticlePass, run_pass
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.reconstruct import insert_all
from cryoinfer.workflows.subspace_update import Subspace


def judged_particles(
    problem: Problem,
    source: ImageSource,
    projector: Projector,
    posterior: ParticlePosterior,
    monitor: Monitor,
) -> JudgedTogether:
    """Tell which images are unlike those of their own conformation.

    Parameters
    ----------
    problem : Problem
    source : ImageSource
        To the projector's radius or farther.
    projector : Projector
        To the low radius of the test.
    posterior : ParticlePosterior
        Of all particles: the test is made at its first modes.
    monitor : Monitor
    """
    step = ParticlePass(
        "outlier scores",
        source,
        (projector, projector),
        problem.prior,
        GivenPoses(),
        lambda one: fit_at(one.projector, one.images, one.posterior.mode()),
    )
    zero = torch.zeros(len(problem.particles), dtype=torch.float64)
    found = run_pass(problem, step, posterior, Fit(zero, zero, zero, zero), monitor)
    return judge_together(found)


@dataclass(frozen=True)
class ConformationMaps:
    """Maps, and what is known of all particles in them.

    Attributes
    ----------
    maps : tuple of Tensor, each of shape (m, m, m)
        The mean and the components.
    low : Projector
        To the low radius that outliers are told at.
    posterior : ParticlePosterior
        Of pose and z.
    contrast : Contrast or None
        None where all particles are taken to be equally strong.
    """

    maps: tuple[Tensor, ...]
    low: SubspaceProjector | FieldProjector
    posterior: ParticlePosterior
    contrast: Contrast | None = None


def maps_of_subspace(
    subspace: Subspace,
    posterior: ParticlePosterior,
    low_radius: int,
    device: torch.device | str = "cpu",
) -> ConformationMaps:
    """Return the maps of a subspace, and posteriors of z without the contrast.

    Outliers are told at projections of usual contrast: an image of nothing would fit
    any map whose contrast is near to nothing.

    Parameters
    ----------
    subspace : Subspace
    posterior : ParticlePosterior
        Of all particles, in it.
    low_radius : int
        That outliers are told at.
    device : torch.device or str
    """
    contrast = None
    if subspace.contrast_sd:
        posterior, contrast = without_contrast(posterior, subspace.contrast_sd)
    low = replace(subspace, contrast_sd=0.0).projector(low_radius, device)
    return ConformationMaps(tuple(subspace.maps), low, posterior, contrast)


def found_conformations(
    problem: Problem,
    noise: tuple[Tensor, ...],
    found: ConformationMaps,
    gain: HeldOutGain,
    last_radius: int,
    monitor: Monitor,
) -> Heterogeneity:
    """Score particles, make the map of those that show it, and return all of a run.

    Parameters
    ----------
    problem : Problem
    noise : tuple of Tensor
        Noise power per optics group and ring.
    found : ConformationMaps
        Of its particles.
    gain : HeldOutGain
    last_radius : int
        That the maps reach.
    monitor : Monitor
    """
    low, posterior = found.low, found.posterior
    problem = problem.of_dims(len(found.maps) - 1)
    near = StrictImages(problem.grid, low.radius, noise)
    judged = judged_particles(problem, near, low, posterior, monitor)
    shows = torch.nonzero(~judged.outlier).squeeze(1)
    source = StrictImages(problem.grid, problem.grid.box // 2 - 1, noise)
    poses = posterior.mode()[shows]
    sums = insert_all(problem.of_rows(shows), source, poses, monitor)
    run = RunResult(
        reconstruct_sums(problem, sums),
        posterior,
        problem.half + 1,
        noise,
        iterations=(),
        outlier_score_nats=judged.outlier_score_nats,
        outlier=judged.outlier,
        unreadable=torch.zeros(len(problem.particles), dtype=torch.bool),
    )
    whole = conformation_result(problem.particles, run, found.maps, last_radius, gain)
    return replace(whole, contrast=found.contrast)


def conformation_result(
    particles: Particles,
    run: RunResult,
    maps: Sequence[Tensor],
    last_radius: int,
    gain: HeldOutGain,
) -> Heterogeneity:
    """Return a run with its maps, and what pose and z have to do with each other.

    Parameters
    ----------
    particles : Particles
    run : RunResult
        Of the same particles.
    maps : sequence of Tensor
        The mean and the components, on any voxels.
    last_radius : int
        That they reach.
    gain : HeldOutGain
    """
    poses, pose = run.latents, run.latents.pose
    optics, box = particles.optics, run.reconstruction.density.shape[-1]
    defocus = (optics.defocus_u_angstrom + optics.defocus_v_angstrom) / 2
    follows: tuple[float, ...] = ()
    rigid: tuple[float, ...] = ()
    if len(maps) > 1:
        follows = predicted_share(
            poses.conformation.double(),
            pose.rotation.double(),
            pose.shift_angstrom.double(),
            defocus,
        )
        rigid = rigid_share(torch.stack(list(maps)))
    shown = torch.stack([on_voxels(one, box) for one in maps])
    return Heterogeneity(run, shown, gain, follows, rigid, last_radius)


def on_voxels(density: Tensor, box: int) -> Tensor:
    """Return a map on the voxels of the particles.

    A Fourier coefficient that maps of another box hold is theirs times the square of
    the ratio of the boxes, by the convention of slices.
    """
    if density.shape[-1] == box:
        return density
    return (resampled(density, box) * (density.shape[-1] / box) ** 2).float()
