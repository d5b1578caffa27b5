"""cryoPoseNet as published, on particles of a user's: for comparison.

One encoder and one voxel map are trained together on all particles
(:mod:`cryoinfer.inference.published_training`). What comes after is that of the other
workflows: half-maps, their FSC and the evidence, made of the poses that were named, and
the widths that images have about them in that map. (The trained map is no good for
widths: nothing filters its noise, whose slopes make every pose look sharp.)

Poses are named from whole images, as in the training. Whitened ones, which passes
infer from, lack their mean and the corners of their transforms, so the poses come to a
pass as what is known from before.

Whether a run has converged nobody can see from its loss: that of known poses, which it
should end at, is not known. Nor do images that fit the map tell, as any blob fits them
somewhat. So all poses of the map are searched for some of them: of a run that has
converged few fit better from elsewhere than from near the pose that was named.
"""

from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.fourier.distortion import is_distorted
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.geometry.so3_grid import grid_step_radian
from cryoinfer.inference.coarse import GRID_ORDER
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import (
    GivenPoses,
    LocalRefinement,
    PoseInference,
)
from cryoinfer.inference.pose_search import GlobalSearch
from cryoinfer.inference.proposed_poses import ProposedPoses
from cryoinfer.inference.published_encoder import PoseChoice, pose_source
from cryoinfer.inference.published_training import PublishedConfig, train_published
from cryoinfer.interfaces import SILENT, Monitor
from cryoinfer.physics.aberrations import has_odd_aberrations
from cryoinfer.records import Latents, Pose
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.evidence import structure_evidence
from cryoinfer.workflows.final_maps import reconstruct_sums
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.iteration import (
    MODES,
    ResidualPower,
    kept_modes,
)
from cryoinfer.workflows.particle_pass import Accumulator, ParticlePass, run_pass
from cryoinfer.workflows.problem import (
    Problem,
    define_problem,
    initial_noise,
    start_radius,
)
from cryoinfer.workflows.random_start import require_many
from cryoinfer.workflows.reconstruct import insert_all
from cryoinfer.workflows.residual_noise import measured_noise
from cryoinfer.workflows.search_plan import global_search_plan
from cryoinfer.workflows.structure_update import MapUpdate

_ENCODER_BOX = 8  # boxes of encoders are multiples of it
_CENTRED_PIXELS = 0.501
"""Along either axis: what is left of shifts where particles were extracted at whole
pixels, and the rounding of what files hold."""

_SAME_PIXEL_SIZE = 1e-3  # relative

_CONFIRMED = 2
"""Radius that poses are confirmed at, over that of a start: right and wrong ones are
farther apart than at that of a start (by hand; benchmarks, section 17)."""

_REFINEMENT_STEPS = 10


@dataclass(frozen=True)
class CryoPoseNetConfig:
    """What may be chosen.

    Attributes
    ----------
    head : PoseChoice
        What names rotations: an encoder with the head ``s2s2``, ``quaternion`` or
        ``euler``; ``known``, the poses of the particles; or ``free``, numbers of every
        particle that are learned like the map.
    training : PublishedConfig
    particle_diameter_angstrom : float, optional
        Of the sphere that the mask lies in; by default three quarters of the box.
    seed : int
    """

    head: PoseChoice = "s2s2"
    training: PublishedConfig = field(default_factory=PublishedConfig)
    particle_diameter_angstrom: float | None = None
    seed: int = 0


_DEFAULTS = CryoPoseNetConfig()


def cryoposenet(
    particles: Particles,
    config: CryoPoseNetConfig = _DEFAULTS,
    monitor: Monitor = SILENT,
    device: torch.device | str = "cpu",
) -> RunResult:
    """Train cryoPoseNet on particles, and make maps of the poses that it names.

    The halves of the map are not independent: encoder and map have learned from both.

    Parameters
    ----------
    particles : Particles
        At least 100, centred, of one box and pixel size; all are in memory at once.
    config : CryoPoseNetConfig, optional
    monitor : Monitor, optional
        Its checkpoint, if it has one, is continued.
    device : torch.device or str, optional
        Where encoder and map are trained, and images compared with the map after it.

    Returns
    -------
    RunResult
        Posteriors are Laplace's at the pose that was named: how sharply the image
        tells it from its neighbours, not how far the encoder errs. The evidence of a
        run that has not converged is that of no structure.

    Raises
    ------
    InputError
        If the particles are not such as the published model describes.
    """
    require_modelled(particles, config.head)
    generator = torch.Generator().manual_seed(config.seed)
    diameter = config.particle_diameter_angstrom
    problem = define_problem(particles, "C1", diameter, 0.0, 0.0, generator)
    problem = problem.on(device)
    noise = initial_noise(problem)
    rotation = _learned_rotations(problem, config, generator, monitor)
    zero = torch.zeros(len(rotation), 2, dtype=torch.float64)
    named = Latents.rigid(Pose(rotation, zero), zero[:, 0])
    whole = StrictImages(problem.grid, problem.grid.box // 2 - 1, noise)
    sums = insert_all(problem, whole, named, monitor)
    maps = reconstruct_sums(problem, sums)
    density = maps.density * maps.mask
    projector = MapUpdate(problem).projector(density, whole.radius)
    posed = _Posed(problem, named, projector, noise).with_noise_left(monitor)
    astray = posed.astray_share(monitor)
    posterior = posed.infer("widths", whole.radius, ProposedPoses(), monitor)
    evidence = structure_evidence(problem, posed.noise, sums)
    if evidence is not None:  # most images may be none to ask
        evidence = replace(evidence, astray_share=astray)
    return RunResult(
        reconstruction=replace(maps, evidence=evidence),
        inferred=posterior,
        random_subset=problem.half + 1,
        noise_power=posed.noise,
        iterations=(),
    )


def require_modelled(particles: Particles, head: PoseChoice) -> None:
    """Refuse particles that the published model does not describe.

    Raises
    ------
    InputError
    """
    require_many(len(particles))
    sizes = particles.optics.pixel_size_angstrom
    same = (sizes / sizes[0] - 1).abs() < _SAME_PIXEL_SIZE
    same &= particles.boxes == particles.box
    if not bool(same.all()):
        group = int(particles.optics.group[~same][0]) + 1
        raise InputError(
            "cryoPoseNet models images of one box and pixel size, found others in "
            f"optics group {group}: rescale the particles to one, or search them"
        )
    if head not in ("known", "free") and particles.box % _ENCODER_BOX:
        raise InputError(
            f"an encoder of cryoPoseNet takes boxes of a multiple of {_ENCODER_BOX} "
            f"pixels, found {particles.box}; crop or pad the particles, for example "
            "with relion_image_handler --new_box"
        )
    optics = particles.optics
    if has_odd_aberrations(optics) or is_distorted(optics.magnification):
        raise InputError(
            "cryoPoseNet compares whole images with a map, and models neither beam "
            "tilt, nor other odd aberrations, nor anisotropic magnification, which "
            "these particles have: search them"
        )
    pose = particles.pose
    if pose is None:
        if head == "known":
            raise InputError(
                f"{particles.pose_problem or 'The particles have no poses.'} "
                "cryoPoseNet with poses that are known takes those of the file: give "
                "the particles of a run, or let an encoder name them"
            )
        return
    pixels = float(pose.shift_angstrom.abs().max()) / float(sizes[0])
    if pixels > _CENTRED_PIXELS:
        raise InputError(
            f"cryoPoseNet models particles in the middle of their images, found shifts "
            f"of up to {pixels:.1f} pixels: extract the particles again, centred on "
            "these shifts, or search them"
        )


def _learned_rotations(
    problem: Problem,
    config: CryoPoseNetConfig,
    generator: torch.Generator,
    monitor: Monitor,
) -> Tensor:
    """Return the rotations of all particles that were learned, shape (n, 3, 3)."""
    particles = problem.particles
    pose = particles.pose
    poses = pose_source(
        config.head,
        len(particles),
        particles.box,
        None if pose is None else pose.rotation,
        generator,
    )
    images = problem.batch(torch.arange(len(particles)))
    model = train_published(images, poses, config.training, generator, monitor).model
    return model.named_rotations(images)


@dataclass(frozen=True)
class _Posed:
    """Particles with the poses that were named, and the map that was made of them."""

    problem: Problem
    named: Latents
    projector: MapProjector
    noise: tuple[Tensor, ...]

    def with_noise_left(self, monitor: Monitor) -> Self:
        """Return the same with the noise that the map leaves of some images."""
        some, last = self.some(), self.problem.grid.box // 2 - 1
        left = ResidualPower(some.problem, self.noise, last)
        some.infer("noise", last, GivenPoses(), monitor, left)
        # Of its own noise each image is missing what is in the map: next to nothing.
        noise = measured_noise(self.noise, left.mean(), torch.ones(1))
        return replace(self, noise=noise)

    def some(self) -> Self:
        """Return those particles that the noise is measured on."""
        rows = torch.nonzero(self.problem.noise_rows).squeeze(1)
        return replace(self, problem=self.problem.of_rows(rows), named=self.named[rows])

    def infer(
        self,
        name: str,
        radius: int,
        inference: PoseInference[MapProjector],
        monitor: Monitor,
        *accumulators: Accumulator[MapProjector],
    ) -> ParticlePosterior:
        """Infer all particles once, at a radius, with the poses named as a start."""
        step = ParticlePass(
            name,
            StrictImages(self.problem.grid, radius, self.noise),
            (self.projector, self.projector),
            self.problem.prior,
            inference,
            lambda one: kept_modes(one.posterior),
            accumulators,
        )
        start = ParticlePosterior.at(self.named, MODES)
        return run_pass(self.problem, step, start, start, monitor)

    def astray_share(self, monitor: Monitor) -> float:
        """Return the share of some images that fit the map better from elsewhere.

        That is from another cell of the exhaustive grid than from the top nearest to
        the pose that was named, which is not far where it fits alike, as from the mates
        of a symmetric particle.
        """
        some, start = self.some(), start_radius(self.problem)
        radius = min(_CONFIRMED * start, self.problem.grid.box // 2 - 1)
        refinement = LocalRefinement(_REFINEMENT_STEPS, 1 / radius)
        near = some.infer("modes near the poses", radius, refinement, monitor)
        plan = global_search_plan(self.problem, radius)
        search = GlobalSearch(replace(plan, shift_step_angstrom=0.0), 0.0)
        best = some.infer("all poses", radius, search, monitor)
        turn = geodesic_angle(best.mode().pose.rotation, some.named.pose.rotation)
        better = best.log_likelihood > near.log_likelihood
        astray = better & (turn > grid_step_radian(GRID_ORDER))
        return float(astray.double().mean())
