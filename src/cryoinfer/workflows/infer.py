"""Unseen particles through an encoder: a posterior each, and a map of them all."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.fourier.slices import FourierVolume, SliceAccumulator
from cryoinfer.inference.amortized import SAME_AREA
from cryoinfer.inference.encoder_inputs import picture_radius
from cryoinfer.inference.posteriors import PoseMixture
from cryoinfer.inference.refine import LocalPoses
from cryoinfer.inference.whitening import whiten
from cryoinfer.interfaces import Inference, Monitor
from cryoinfer.reconstruction.backproject import solve
from cryoinfer.reconstruction.symmetrise import symmetrise
from cryoinfer.records import Latents, ParticleBatch, Pose
from cryoinfer.workflows.finish import reconstruct_halves
from cryoinfer.workflows.marching import PADDING, find_mask
from cryoinfer.workflows.passes import MODES, insert_images, residual
from cryoinfer.workflows.problem import Problem, define_problem
from cryoinfer.workflows.result import RunResult
from cryoinfer.workflows.train import TrainedEncoder


@dataclass(frozen=True)
class InferConfig:
    """What may be chosen.

    Attributes
    ----------
    climb : bool
        Whether Gauss-Newton takes the encoder's poses to the top of their posteriors.
    symmetry : str, optional
        Of the map that is made; by default that of the map that was learned.
    seed : int
        Of the halves, where the particles name none.
    """

    climb: bool = True
    symmetry: str | None = None
    seed: int = 0


def infer(
    particles: Particles, trained: TrainedEncoder, config: InferConfig, monitor: Monitor
) -> RunResult:
    """Infer every particle once, and reconstruct from the poses found.

    The halves of the map are as independent as the encoder allows: it has learned one
    map to the radius of its picture, and with a climb, to the last one.

    Parameters
    ----------
    particles : Particles
    trained : TrainedEncoder
    config : InferConfig
    monitor : Monitor

    Returns
    -------
    RunResult

    Raises
    ------
    InputError
        If the particles are not like those that the encoder has learned.
    """
    require_alike(particles, trained)
    problem = define_problem(
        particles,
        config.symmetry or trained.symmetry,
        particle_diameter_angstrom=None,
        max_shift_angstrom=None,
        defocus_sd_angstrom=trained.prior.defocus_sd_angstrom,
        generator=torch.Generator().manual_seed(config.seed),
    )
    inference = trained.semi_amortized() if config.climb else trained.encoder
    run = _Inferring(problem, trained, inference)
    monitor.stage("inference", len(particles))
    for batch in problem.batches(torch.arange(len(particles))):
        run.take(batch)
        monitor.advance(len(batch))
    monitor.stage("maps and FSC", 1)
    result = run.result()
    monitor.advance()
    return result


def require_alike(particles: Particles, trained: TrainedEncoder) -> None:
    """Refuse particles whose images the encoder could not have seen.

    Raises
    ------
    InputError
    """
    grid, noise = trained.encoder.grid, trained.encoder.noise_power
    sizes = particles.optics.pixel_size_angstrom * particles.boxes
    off = (sizes / grid.length_angstrom - 1).abs() > SAME_AREA
    off |= particles.boxes != grid.box
    if bool(off.any()):
        raise InputError(
            f"the encoder learned images of {grid.box} pixels, "
            f"{grid.length_angstrom:.1f} A across; found "
            f"{int(particles.boxes[off][0])} pixels, {float(sizes[off][0]):.1f} A. "
            "Rescale the particles, or train on these."
        )
    groups = int(particles.optics.group.max()) + 1
    if groups > len(noise):
        raise InputError(
            f"the encoder knows the noise of {len(noise)} optics groups, found "
            f"{groups} in the particles: train on particles of all of them"
        )


class _Inferring:
    """The growing results of one pass over all particles."""

    def __init__(
        self, problem: Problem, trained: TrainedEncoder, inference: Inference
    ) -> None:
        n, box = len(problem.particles), problem.grid.box
        self._problem, self._trained, self._inference = problem, trained, inference
        self._radius = box // 2 - 1
        self._seen = picture_radius(trained.encoder.network.config.side)
        self._volume = FourierVolume.from_map(trained.density, self._seen)
        self._sums = tuple(
            SliceAccumulator.empty(box, self._radius, PADDING) for _ in range(2)
        )
        eye = torch.eye(3, dtype=torch.float64)
        self._rotation = eye.repeat(n, MODES, 1, 1)
        self._shift = torch.zeros(n, MODES, 2, dtype=torch.float64)
        self._weight = torch.zeros(n, MODES, dtype=torch.float64)
        self._defocus = torch.zeros(n, dtype=torch.float64)
        self._covariance = torch.zeros(n, 6, 6, dtype=torch.float64)
        self._entropy = torch.zeros(n, dtype=torch.float64)
        self._log_likelihood = torch.zeros(n, dtype=torch.float64)

    def take(self, batch: ParticleBatch) -> None:
        """Infer and insert a batch of one optics group and half."""
        group, half = (
            int(batch.optics.group[0]),
            int(self._problem.half[batch.index[0]]),
        )
        posterior = self._inference.infer(batch)
        assert isinstance(posterior, PoseMixture)
        noise = self._trained.encoder.noise_power[group]
        images = whiten(batch, self._problem.grid, self._radius, noise)
        mode = posterior.mode()
        poses = LocalPoses.at(
            mode.pose.rotation,
            mode.pose.shift_angstrom,
            mode.defocus_offset_angstrom,
        )
        insert_images(self._sums[half], images, poses, self._radius)
        self._keep(batch.index, posterior)
        near = images.prefix(self._seen)
        left = residual(self._volume, near, poses)
        self._log_likelihood[batch.index] = -left.abs().square().sum(1).double()

    def _keep(self, index: Tensor, posterior: PoseMixture) -> None:
        count = min(MODES, posterior.weight.shape[1])
        self._rotation[index, :count] = posterior.rotation[:, :count]
        self._shift[index, :count] = posterior.shift_angstrom[:, :count]
        self._weight[index, :count] = posterior.weight[:, :count]
        self._entropy[index] = posterior.entropy()
        self._defocus[index] = posterior.defocus_offset_angstrom[:, 0]
        self._covariance[index] = posterior.covariance[:, 0]

    def result(self) -> RunResult:
        """Divide the sums, and return all."""
        problem, box = self._problem, self._problem.grid.box
        first, second = (
            symmetrise(sums, problem.symmetry_rotation) for sums in self._sums
        )
        halves = [solve(sums, None, box, box) for sums in (first, second)]
        mask = find_mask(problem, halves[0] + halves[1], box // 8)
        return RunResult(
            reconstruction=reconstruct_halves(problem, (first, second), mask),
            latents=Latents(
                Pose(self._rotation[:, 0], self._shift[:, 0]), self._defocus
            ),
            covariance=self._covariance,
            log_likelihood=self._log_likelihood,
            mode_pose=Pose(self._rotation, self._shift),
            mode_weight=self._weight,
            random_subset=problem.half + 1,
            noise_power=self._trained.encoder.noise_power,
            iterations=(),
            entropy_nats=self._entropy,
        )
