"""Refinement from a map, or from poses, that exist."""

from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import FourierVolume, extract_slices
from cryoinfer.fourier.transform import image_to_fourier
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.whitening import whiten
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.physics.noise import radial_power
from cryoinfer.physics.premultiplied import background_spectrum, noise_weight
from cryoinfer.reconstruction.backproject import signal_to_noise, solve
from cryoinfer.reconstruction.mask import soft_sphere
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.acquisition import is_usual
from cryoinfer.workflows.final_maps import alternate_to_result
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.iteration import MODES, unknown_posterior
from cryoinfer.workflows.particle_quality import ParticleQuality
from cryoinfer.workflows.problem import (
    NO_TERMS,
    OpticsTerms,
    Problem,
    define_problem,
    initial_noise,
    start_radius,
)
from cryoinfer.workflows.reconstruct import given_poses, insert_all
from cryoinfer.workflows.resolution_schedule import agreement_radius
from cryoinfer.workflows.schedule_state import ScheduleState
from cryoinfer.workflows.shared_monitor import SharedMonitor
from cryoinfer.workflows.structure_update import find_mask
from cryoinfer.world import ALONE, World


@dataclass(frozen=True)
class RefineConfig:
    """What may be chosen; None leaves the choice to the program.

    Attributes
    ----------
    symmetry : str
    particle_diameter_angstrom : float, optional
    resolution_angstrom : float, optional
    max_shift_angstrom : float, optional
        As in :class:`cryoinfer.workflows.abinitio.AbinitioConfig`.
    refine_defocus : bool
    defocus_sd_angstrom : float
    optics_terms : OpticsTerms
        What of the optics of each group is refined between iterations.
    seed : int
    mask : Tensor, shape (n, n, n), optional
        Of references and half-maps, on the voxels of the particles and in the frame of
        the starting map or of the given poses; by default one is found in the maps.
    """

    symmetry: str = "C1"
    particle_diameter_angstrom: float | None = None
    resolution_angstrom: float | None = None
    max_shift_angstrom: float | None = None
    refine_defocus: bool = False
    defocus_sd_angstrom: float = 300.0
    optics_terms: OpticsTerms = NO_TERMS
    seed: int = 0
    mask: Tensor | None = field(default=None, compare=False)


@dataclass(frozen=True)
class StartingMap:
    """A map to begin with.

    Attributes
    ----------
    density : Tensor, shape (n, n, n)
        Axes (z, y, x), the particle bright, its centre at ``n // 2``.
    pixel_size_angstrom : float
    """

    density: Tensor
    pixel_size_angstrom: float


_DEFAULTS = RefineConfig()


def refine(
    particles: Particles,
    starting_map: StartingMap | None = None,
    config: RefineConfig = _DEFAULTS,
    monitor: Monitor = SILENT,
    world: World = ALONE,
    device: torch.device | str = "cpu",
) -> RunResult:
    """Refine poses and maps, in two independent halves.

    With a map, all poses are searched against its low-passed copy, whatever poses
    the particles have. Without one, the particles' own poses are the start, and
    each half begins with its own reconstruction from them.

    Parameters
    ----------
    particles : Particles
    starting_map : StartingMap, optional
        Low-passed before use, so that its details cannot come back as resolution.
    config : RefineConfig, optional
    monitor : Monitor, optional
        Its checkpoint, if it has one, is continued.
    world : World
        The processes that share the particles, each of which calls this.
    device : torch.device or str, optional
        Where images are compared with maps. Operations without kernels of their own
        there run as plain PyTorch (:mod:`cryoinfer.operations`).

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        If there is neither a map nor a pose.
    """
    generator = torch.Generator().manual_seed(config.seed)
    problem = define_problem(
        particles,
        config.symmetry,
        config.particle_diameter_angstrom,
        config.max_shift_angstrom,
        config.defocus_sd_angstrom if config.refine_defocus else 0.0,
        generator,
    )
    problem = problem.shared_by(world).on(device).within(config.mask)
    problem = problem.refining(config.optics_terms)
    monitor = SharedMonitor(monitor, world)

    def begin() -> ScheduleState:
        noise = initial_noise(problem)
        if starting_map is not None:
            return _from_map(problem, noise, starting_map, generator)
        return _from_poses(problem, noise, monitor)

    return alternate_to_result(problem, begin, config.resolution_angstrom, monitor)


def _from_poses(
    problem: Problem, noise: tuple[Tensor, ...], monitor: Monitor
) -> ScheduleState:
    poses = given_poses(problem.particles)
    box = problem.grid.box
    images = StrictImages(problem.grid, box // 2 - 1, noise)
    sums = insert_all(problem, images, poses, monitor)
    halves = [solve(s, None, box, box) for s in sums]
    mask = find_mask(problem, halves[0] + halves[1], box // 8)
    fsc = fourier_shell_correlation(halves[0] * mask, halves[1] * mask).float()
    full = box // 2 - 1
    radius = max(agreement_radius(fsc[: full + 1]), start_radius(problem))
    snr = signal_to_noise(fsc, joined=False)
    first, second = (solve(s, snr, box, box) * mask for s in sums)
    return ScheduleState(
        posterior=ParticlePosterior.at(poses, MODES),
        noise=noise,
        maps=(first, second),
        map_radius=full,
        radius=radius,
        start_radius=start_radius(problem),
        shared_radius=0,
        done=0,
        searching=False,
        settled=False,
        stayed=0,
        iterations=(),
        quality=ParticleQuality.unknown(len(problem.particles)),
    )


def _from_map(
    problem: Problem,
    noise: tuple[Tensor, ...],
    starting_map: StartingMap,
    generator: torch.Generator,
) -> ScheduleState:
    radius = start_radius(problem)
    reference = map_at_start(problem, starting_map, noise, generator)
    unknown = unknown_posterior(len(problem.particles))
    maps = reference, reference
    return ScheduleState.searching_from(unknown, noise, maps, radius)


def map_at_start(
    problem: Problem,
    starting_map: StartingMap,
    noise: tuple[Tensor, ...],
    generator: torch.Generator,
) -> Tensor:
    """Return a given map as a search begins with it, shape (m, m, m).

    Low-passed to coarse voxels, and scaled so that it explains the images' power.

    Parameters
    ----------
    problem : Problem
    starting_map : StartingMap
    noise : tuple of Tensor
        Noise power per optics group and ring.
    generator : torch.Generator
    """
    radius = start_radius(problem)
    density = _resampled(problem, starting_map, problem.map_box(radius))
    return density * _scale_to_images(problem, density, radius, noise, generator)


def _resampled(problem: Problem, starting: StartingMap, map_box: int) -> Tensor:
    """Return the map on coarse voxels of the particles' box, low-passed by them."""
    density = starting.density.double().numpy()
    if density.ndim != 3 or len(set(density.shape)) != 1:
        raise InputError(f"expected a cubic map, found {density.shape} voxels")
    voxel = problem.grid.length_angstrom / map_box
    ratio = voxel / starting.pixel_size_angstrom
    # Half the coarse voxel, so that nothing beyond its Nyquist folds back.
    smooth = ndimage.gaussian_filter(density, 0.5 * ratio) if ratio > 1 else density
    axis = (np.arange(map_box) - map_box // 2) * ratio + density.shape[0] // 2
    points = np.meshgrid(axis, axis, axis, indexing="ij")
    coarse = ndimage.map_coordinates(smooth, points, order=3, mode="constant")
    radius = problem.particle_radius_angstrom / voxel
    return torch.from_numpy(coarse).float() * soft_sphere(map_box, radius, 1.5)


def _scale_to_images(
    problem: Problem,
    density: Tensor,
    radius: int,
    noise: tuple[Tensor, ...],
    generator: torch.Generator,
) -> float:
    """Return the factor that gives the map's projections the power of the images."""
    sample = torch.nonzero(problem.noise_rows).squeeze(1)[:500]
    sample = sample[problem.particles.optics.group[sample] == 0]
    batch = problem.particles.batch(sample)
    batch = batch[is_usual(batch.images)]
    box = batch.images.shape[-1]
    images = whiten(batch, problem.grid, radius, torch.ones_like(noise[0]))
    disc = FourierDisc.of_box(box, radius)
    counted = noise_weight(images.optics, images.ctf)
    total = radial_power(disc.gather(image_to_fourier(batch.images)), disc, counted)
    pixel_size = images.pixel_size_angstrom
    background = background_spectrum(
        batch.images, batch.optics, problem.particle_radius_angstrom / pixel_size
    ).to(total)
    excess = (total - background[: len(total)]).clamp(min=0.0)
    volume = FourierVolume.from_map(density, radius)
    rotations = random_rotations(len(batch), generator)
    slices = extract_slices(volume, rotations, images.disc, images.scale)
    expected = radial_power(slices * images.ctf, images.disc, counted)
    return float((excess[1:].sum() / expected[1:].sum().clamp(min=1e-30)).sqrt())
