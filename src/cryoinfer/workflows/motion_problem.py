"""Particles and a model that moves: what an inference of motions is given."""

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, Self

import torch
from torch import Tensor

from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.geometry.rotation_volume import ALL_TURNS, IN_PLANE
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.mode_refinement import ModeRefinement
from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.pose_inference import PoseInference
from cryoinfer.inference.pose_network import PoseNetworkConfig
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.start_refinement import StartRefinement
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.inference.variational import VariationalConfig
from cryoinfer.inference.variational_refinement import VariationalRefinement
from cryoinfer.inference.whitening import ReferenceGrid
from cryoinfer.records import Pose
from cryoinfer.workflows.image_sources import ReadableImages
from cryoinfer.workflows.noise_and_scale import NoiseAndScale
from cryoinfer.workflows.problem import Problem, define_problem
from cryoinfer.world import ALONE, World

Poses = Literal["unknown", "in-plane", "given", "searched"]
"""What is known of the poses: nothing, and they are to be searched, or an encoder is to
learn them (unknown); the view but not the angle in its plane; or where to begin."""

MotionInferenceName = Literal["refinement", "variational"]
"""How posteriors are inferred: by Laplace's approximation about refined modes, their
widths corrected; or as Gaussians that stochastic variational inference fits."""

GIVEN_RADIUS = 12
"""Of the first refinement from given poses, in Fourier pixels."""

_SHIFT_OF_BOX = 0.05  # sd of shifts, where nobody tells
_MARCH = 1.35  # of radii of refinements, from one to the next
_COARSE_SHARE = 0.8  # of the last radius, up to which beads stand for atoms
_SHIFT_SD = 3.0  # that are searched

BATCH = 250
"""Images at a time: each takes a thousand times as long as one of a map."""

FEWEST_PARTICLES = 2
"""One has no spread along a mode."""


@dataclass(frozen=True)
class DynamicsConfig:
    """What may be chosen about an inference of motions.

    Attributes
    ----------
    poses : {"unknown", "in-plane", "given", "searched"}
    inference : {"refinement", "variational"}
    shift_sd_angstrom : float, optional
        By default 5 % of the box; 0 takes particles as centred.
    defocus_sd_angstrom : float
        Of the error of the given defoci; 0 takes them as known.
    network : PoseNetworkConfig
    training : TrainingConfig
    variational : VariationalConfig
        Of the fits, where inference is variational.
    draws : int
        Further starts of refinements, about what was found at a lower radius.
    symmetry : str
        Point group that the model at rest has, about the axes of its file. Poses are
        searched in one asymmetric unit; motions need not keep the symmetry.
    learning_rounds : int
        In which the model at rest and its modes are learned; 0 keeps them as given.
    seed : int
    """

    poses: Poses = "searched"
    inference: MotionInferenceName = "refinement"
    shift_sd_angstrom: float | None = None
    defocus_sd_angstrom: float = 0.0
    network: PoseNetworkConfig = field(default_factory=PoseNetworkConfig)
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(steps=3000))
    variational: VariationalConfig = field(default_factory=VariationalConfig)
    draws: int = 0
    symmetry: str = "C1"
    learning_rounds: int = 0
    seed: int = 0

    @property
    def by_encoder(self) -> bool:
        """Whether an encoder is taught the poses."""
        return self.poses in ("unknown", "in-plane")

    @property
    def by_variation(self) -> bool:
        """Whether posteriors are fitted by stochastic variational inference."""
        return self.inference == "variational"


@dataclass(frozen=True)
class MotionProblem:
    """Particles, a model, and what stays the same while motions are inferred.

    Attributes
    ----------
    problem : Problem
        The particles and what is believed about them, amplitudes included.
    model : MovingModel
    config : DynamicsConfig
    """

    problem: Problem
    model: MovingModel
    config: DynamicsConfig

    @classmethod
    def of(
        cls,
        particles: Particles,
        model: MovingModel,
        config: DynamicsConfig,
        world: World = ALONE,
    ) -> Self:
        """Bring particles and model together.

        Raises
        ------
        InputError
            If they cannot be used together, or there are fewer than two particles.
        """
        if config.poses == "given" and particles.pose is None:
            raise InputError(
                "--poses given expects particles with poses, found none: use the "
                "particles.star of a run, or leave --poses out. "
                f"{particles.pose_problem}"
            )
        if config.draws and config.by_variation:
            raise InputError(
                "--draws expects --inference refinement, found variational: leave "
                "--draws out, or --inference"
            )
        require_several(len(particles))
        shift_sd = config.shift_sd_angstrom
        length = particles.box * particles.pixel_size_angstrom
        if shift_sd is None:
            shift_sd = _SHIFT_OF_BOX * length
        problem = define_problem(
            particles,
            config.symmetry,
            min(2 * model.reach_angstrom, length),
            max_shift_angstrom=_SHIFT_SD * shift_sd,
            defocus_sd_angstrom=config.defocus_sd_angstrom,
            generator=torch.Generator().manual_seed(config.seed),
        ).shared_by(world)
        grid = problem.grid
        model.require_imaged(grid.box, grid.pixel_size_angstrom)
        model.require_symmetric(problem.symmetry, problem.symmetry_rotation)
        turns = IN_PLANE if config.poses == "in-plane" else ALL_TURNS
        prior = PosePrior(
            shift_sd, config.defocus_sd_angstrom, model.amplitude_sd_angstrom, turns
        )
        return cls(replace(problem, prior=prior), model, config)

    @property
    def particles(self) -> Particles:
        """All of them."""
        return self.problem.particles

    @property
    def grid(self) -> ReferenceGrid:
        """In whose units the model is projected."""
        return self.problem.grid

    @property
    def prior(self) -> PosePrior:
        """Of shifts, defoci and amplitudes."""
        return self.problem.prior

    @property
    def last_radius(self) -> int:
        """Of the images: the last below Nyquist."""
        return self.grid.box // 2 - 1

    def radii(self, first: int, last: int) -> tuple[int, ...]:
        """Return the Fourier radii of refinements, from a first one to a last."""
        steps = max(1, math.ceil(math.log(last / first) / math.log(_MARCH)))
        ratio = (last / first) ** (1 / steps)
        return tuple(sorted({round(first * ratio**k) for k in range(steps + 1)}))

    def with_model(self, model: MovingModel) -> Self:
        """Return the problem with another model and its spreads of amplitudes."""
        sd = model.amplitude_sd_angstrom
        prior = replace(self.prior, conformation_sd_angstrom=sd)
        return replace(self, problem=replace(self.problem, prior=prior), model=model)

    def with_poses(self, pose: Pose) -> Self:
        """Return the problem of the same particles at other poses."""
        particles = self.particles.with_results(pose=pose)
        return replace(self, problem=replace(self.problem, particles=particles))

    def of_rows(self, rows: Tensor) -> Self:
        """Return the problem of some of the particles."""
        return replace(self, problem=self.problem.of_rows(rows))

    def by_refinement(self) -> Self:
        """Return the problem of which only modes are wanted, not whole posteriors."""
        return replace(self, config=replace(self.config, inference="refinement"))

    def refinement(
        self,
        proposal: PoseInference[MovingProjector],
        first: int,
        last: int,
        modes: int,
    ) -> PoseInference[MovingProjector]:
        """Return the inference of ``modes`` modes, from a first radius to a last."""
        radii = self.radii(first, last)
        variational = self.config.by_variation
        refinement = ModeRefinement(
            proposal,
            # Variational fits take few steps: they are to begin at modes.
            radii[:1] if variational else radii,
            self.grid.lever_angstrom,
            symmetry_rotations("C1"),
            modes,
            self.config.draws,
        )
        if variational:
            return self._variational(refinement, radii, modes)
        return refinement

    def start_refinement(self) -> PoseInference[MovingProjector]:
        """Return the inference from given poses, to the last radius."""
        last = self.last_radius
        radii = self.radii(min(GIVEN_RADIUS, last), last)
        if self.config.by_variation:
            return self._variational(StartRefinement(radii[:1]), radii, 1)
        return StartRefinement(radii)

    def _variational(
        self,
        proposal: PoseInference[MovingProjector],
        radii: tuple[int, ...],
        modes: int,
    ) -> VariationalRefinement[MovingProjector]:
        return VariationalRefinement(
            proposal,
            radii,
            self.grid.lever_angstrom,
            symmetry_rotations("C1"),
            modes,
            self.config.variational,
            self.config.seed,
        )

    @property
    def coarse_radius(self) -> int:
        """Up to which beads stand for atoms."""
        return int(_COARSE_SHARE * self.last_radius)

    def projector(self, measured: NoiseAndScale) -> MovingProjector:
        """Return the model in the units of the images."""
        gain = measured.gain
        return replace(
            self._projector,
            moving=self._projector.moving.scaled(gain),
            coarse=self._projector.coarse.scaled(gain),
        )

    @cached_property
    def _projector(self) -> MovingProjector:
        # Beads take seconds to fit, and are asked for whenever the gain changes.
        coarse = self.model.beads(self.grid.resolution_at(self.coarse_radius))
        finest = self.model.finest(2 * self.grid.pixel_size_angstrom)
        return MovingProjector(finest, self.grid, coarse, self.coarse_radius)

    def images(self, measured: NoiseAndScale, radius: int) -> ReadableImages:
        """Return the source of images that show as much of the model as was found."""
        noise, sigma_a = measured.noise_power, measured.sigma_a
        return ReadableImages(self.grid, radius, noise, sigma_a)


def require_several(readable: int) -> None:
    """Refuse particles too few to have spreads of motions.

    Raises
    ------
    InputError
    """
    if readable < FEWEST_PARTICLES:
        raise InputError(
            f"motions need at least {FEWEST_PARTICLES} particles that can be used, "
            f"found {readable}: one has no spread along a mode"
        )
