"""Pose and z of particles that a subspace was not learned from, by search.

The maps of a finished run stay as they are, so that z means what it means there; what
is measured of the new particles is their noise.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.inference.amortized import SAME_AREA
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.results.calibration_trial import SEARCHED
from cryoinfer.results.heterogeneity import HeldOutGain, Heterogeneity
from cryoinfer.workflows.conformation_calibration import calibrate_search
from cryoinfer.workflows.conformation_result import (
    found_conformations,
    maps_of_subspace,
)
from cryoinfer.workflows.consensus import LAST_FINER
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.iteration import noise_of_residuals
from cryoinfer.workflows.problem import define_problem, initial_noise
from cryoinfer.workflows.shared_monitor import SharedMonitor
from cryoinfer.workflows.subspace_evidence import gain_of_unseen, judging_rows
from cryoinfer.workflows.subspace_loop import SubspaceConfig, SubspaceLoop
from cryoinfer.workflows.subspace_update import Subspace
from cryoinfer.world import ALONE, World

_NOISE_ROUNDS = 2
"""Noise is first taken to be all that images hold, which leaves the signal in it; what
maps leave of them then lacks it, at poses that a second search hardly changes."""


@dataclass(frozen=True)
class LearnedMaps:
    """A subspace as a finished run has left it.

    Attributes
    ----------
    maps : tuple of Tensor, each of shape (n, n, n)
        The mean, then components, whose z have unit spread.
    pixel_size_angstrom : float
        Of their voxels.
    last_radius : int
        Fourier radius that they reach.
    contrast_sd : float
        Spread of the contrast of their particles; 0 where it was not modelled.
    """

    maps: tuple[Tensor, ...]
    pixel_size_angstrom: float
    last_radius: int
    contrast_sd: float = 0.0

    @property
    def dims(self) -> int:
        """Number of components."""
        return len(self.maps) - 1

    @property
    def search_radius(self) -> int:
        """Fourier radius that poses are searched at."""
        return round(self.last_radius * LAST_FINER)

    def require_area(self, particles: Particles) -> None:
        """Refuse particles that cover another area than the maps.

        Raises
        ------
        InputError
        """
        length = self.maps[0].shape[-1] * self.pixel_size_angstrom
        sizes = particles.optics.pixel_size_angstrom * particles.boxes
        off = (sizes / length - 1).abs() > SAME_AREA
        if bool(off.any()):
            group = int(particles.optics.group[off][0]) + 1
            raise InputError(
                f"expected images {length:.1f} A across, as the maps of the run are, "
                f"found {float(sizes[off][0]):.1f} A in optics group {group}: crop or "
                "pad the particles to that size"
            )


def search_conformations(
    particles: Particles,
    learned: LearnedMaps,
    seed: int = 0,
    monitor: Monitor = SILENT,
    world: World = ALONE,
) -> Heterogeneity:
    """Search pose and z of every particle in the subspace of another run.

    Parameters
    ----------
    particles : Particles
        Of the area of the run's particles, in angstrom, and of the same strength.
    learned : LearnedMaps
    seed : int
        Of the halves, where the particles name none.
    monitor : Monitor, optional
    world : World
        The processes that share the particles, each of which calls this.

    Raises
    ------
    InputError
        If the particles cover another area, or an image holds NaN.
    """
    generator = torch.Generator().manual_seed(seed)
    learned.require_area(particles)
    problem = define_problem(particles, "C1", None, None, 0.0, generator)
    problem = problem.shared_by(world)
    monitor = SharedMonitor(monitor, world)
    radius = learned.search_radius
    varies = learned.contrast_sd > 0
    config = SubspaceConfig(learned.dims, radius, learned.last_radius, seed, varies)
    stacked = torch.stack(list(learned.maps))
    agreed = stacked.new_ones(len(stacked), learned.last_radius + 1)
    subspace = Subspace(stacked, agreed, learned.contrast_sd)
    noise = initial_noise(problem)
    measured = problem.of_rows(torch.nonzero(problem.noise_rows).squeeze(1))
    for number in range(1, _NOISE_ROUNDS + 1):
        loop = SubspaceLoop.of(measured, noise, config)
        noise = _residual_noise(loop, subspace, f"noise, round {number}", monitor)
    loop = SubspaceLoop.of(problem, noise, config)
    state = loop.found_in(subspace, "search", monitor)
    sd = float(state.posterior.mode().pose.shift_angstrom.square().mean().sqrt())
    calibrated = world.of_first(calibrate_search(loop, subspace, sd, monitor))
    posterior = state.posterior.inflated(calibrated.inflation)
    nothing = HeldOutGain.of_nothing(learned.dims)
    projector = subspace.projector(radius)
    maps = maps_of_subspace(subspace, posterior, radius)
    last = learned.last_radius
    found = found_conformations(problem, noise, maps, nothing, last, monitor)
    found = replace(found, trials={SEARCHED: calibrated.trial})
    assert found.run.outlier_score_nats is not None
    rows = judging_rows(found.run.outlier_score_nats, generator)
    if not len(rows):
        return found
    judged = loop.problem.of_rows(rows)
    source = StrictImages(problem.grid, radius, noise)
    poses = state.posterior[rows].mode()
    gain = gain_of_unseen(judged, source, projector, poses, monitor, int(varies))
    return replace(found, gain=gain)


def _residual_noise(
    loop: SubspaceLoop, subspace: Subspace, name: str, monitor: Monitor
) -> tuple[Tensor, ...]:
    """Return the noise of particles by what a subspace leaves of them."""
    problem, radius = loop.problem, loop.config.map_radius
    state = loop.found_in(subspace, name, monitor)
    shown = subspace.projector(radius)
    # Maps of another run have learned nothing of the noise.
    return noise_of_residuals(
        problem, loop.noise, (shown, shown), state.posterior, radius, monitor
    )
