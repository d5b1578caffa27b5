"""From particles with no poses to a map, half-maps and posteriors."""

from dataclasses import dataclass

import torch

from cryoinfer.data.particles import Particles
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.annealed_expectation import RandomStartConfig
from cryoinfer.workflows.centre import centred
from cryoinfer.workflows.final_maps import alternate_to_result
from cryoinfer.workflows.iteration import InferenceChoice, unknown_posterior
from cryoinfer.workflows.problem import (
    Problem,
    define_problem,
    initial_noise,
)
from cryoinfer.workflows.random_start import random_start
from cryoinfer.workflows.schedule_state import ScheduleState
from cryoinfer.workflows.shared_monitor import SharedMonitor
from cryoinfer.world import ALONE, World


@dataclass(frozen=True)
class AbinitioConfig:
    """What may be chosen; None leaves the choice to the program.

    Attributes
    ----------
    symmetry : str
        Point group, such as C1, C4, D2, T, O or I.
    particle_diameter_angstrom : float, optional
        By default three quarters of the box.
    resolution_angstrom : float, optional
        Finest resolution that poses are inferred at; by default what the halves
        allow, up to Nyquist.
    max_shift_angstrom : float, optional
        Largest displacement from the centre that is searched; by default 7 % of
        the box; 0 takes the particles as centred.
    starts : int
        Random starts; six times as many for the point group of a polyhedron.
    refine_defocus : bool
        Whether the defocus of every particle is inferred too.
    defocus_sd_angstrom : float
        Expected error of the given defoci, where they are inferred.
    seed : int
    """

    symmetry: str = "C1"
    particle_diameter_angstrom: float | None = None
    resolution_angstrom: float | None = None
    max_shift_angstrom: float | None = None
    starts: int = 2
    refine_defocus: bool = False
    defocus_sd_angstrom: float = 300.0
    seed: int = 0


_DEFAULTS = AbinitioConfig()


def abinitio(
    particles: Particles,
    config: AbinitioConfig = _DEFAULTS,
    monitor: Monitor = SILENT,
    world: World = ALONE,
    device: torch.device | str = "cpu",
    inference: InferenceChoice[MapProjector] | None = None,
) -> RunResult:
    """Infer poses and maps from a random start.

    Parameters
    ----------
    particles : Particles
        At least 100.
    config : AbinitioConfig, optional
    monitor : Monitor, optional
        Its checkpoint, if it has one, is continued.
    world : World
        The processes that share the particles, each of which calls this.
    device : torch.device or str, optional
        Where images are compared with maps. Operations without kernels of their own
        there run as plain PyTorch (:mod:`cryoinfer.operations`).
    inference : callable, optional
        Chooses the inference of an iteration by its plan
        (:class:`cryoinfer.workflows.iteration.SearchOrRefinement`, which is the
        default). Random starts have a search of their own.

    Returns
    -------
    RunResult
        The hand of the map is arbitrary: images cannot tell it. The map lies where
        shifts are least.

    Raises
    ------
    InputError
        If the particles, or what was chosen, cannot be used.
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
    problem = problem.shared_by(world).on(device)
    monitor = SharedMonitor(monitor, world)
    return centred(
        alternate_to_result(
            problem,
            lambda: _begin(problem, config, generator, monitor),
            config.resolution_angstrom,
            monitor,
            inference,
        )
    )


def _begin(
    problem: Problem,
    config: AbinitioConfig,
    generator: torch.Generator,
    monitor: Monitor,
) -> ScheduleState:
    noise = initial_noise(problem)
    start_config = RandomStartConfig.of_particle(problem, config.starts)
    radius = start_config.radius
    start = random_start(problem, noise, start_config, generator, monitor)
    for spectrum in noise:  # farther out the map explains nothing
        spectrum[: radius + 1] *= start.noise_ratio
    unknown = unknown_posterior(len(problem.particles))
    maps = start.density, start.density
    return ScheduleState.searching_from(unknown, noise, maps, radius)
