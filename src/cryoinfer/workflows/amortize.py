"""A search of some particles, an encoder taught their map, and one pass over all."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, state_of_this_version
from cryoinfer.fourier.transform import fourier_to_map, map_to_fourier
from cryoinfer.inference.amortized import SAME_AREA
from cryoinfer.inference.pose_network import PoseNetworkConfig
from cryoinfer.inference.whitening import ReferenceGrid
from cryoinfer.interfaces import Monitor
from cryoinfer.results.calibration_trial import CalibrationTrial
from cryoinfer.results.run_result import Evidence, Iteration, RunResult
from cryoinfer.workflows.encoder_calibration import calibrate_encoder
from cryoinfer.workflows.infer import InferConfig, infer
from cryoinfer.workflows.stage_checkpoints import StageCheckpoints
from cryoinfer.workflows.train import (
    EncoderConfig,
    TrainingData,
    require_picture,
    train_encoder,
)
from cryoinfer.workflows.trained_encoder import TrainedEncoder

Search = Callable[[Particles, Monitor], RunResult]
"""A workflow that finds poses and map of the particles that it is given."""

SUBSET = 8000
"""Particles that are searched: at 128 pixels a matter of a minute on two cores, a ninth
of what the training takes after it at -10 dB (benchmarks/README.md, section 9)."""

_FEWEST = 50
"""Of a half of an optics group in the subset, so that its noise can be measured."""

_SUBSET_PART, _ENCODER_PART, _ALL_PART = "subset", "encoder", "all particles"
_SEARCHED = "searched"


@dataclass(frozen=True)
class AmortizeConfig:
    """What may be chosen.

    Attributes
    ----------
    local_refinement : bool
        Whether Gauss-Newton takes the encoder's poses to the top of their posteriors
        (semi-amortized), or they stay as the encoder gives them (amortized).
    resolution_angstrom : float, optional
        Finest resolution that poses are inferred at, here as in the search.
    particle_diameter_angstrom : float, optional
        Of the sphere that the mask lies in, here as in the search.
    subset : int
        Particles that are searched, about; all if there are no more.
    encoder : EncoderConfig
    seed : int
        Of the halves, where the particles name none, and of the subset.
    """

    local_refinement: bool
    resolution_angstrom: float | None = None
    particle_diameter_angstrom: float | None = None
    subset: int = SUBSET
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    seed: int = 0


@dataclass(frozen=True)
class Searched:
    """What the search of the subset leaves to the parts after it.

    Attributes
    ----------
    training_data : TrainingData
    particles : int
        That were searched.
    resolution_angstrom : float
        Of their halves, which were refined against maps of their own.
    iterations : tuple of Iteration
    evidence : Evidence or None
        Whether they show a structure.
    """

    training_data: TrainingData
    particles: int
    resolution_angstrom: float
    iterations: tuple[Iteration, ...]
    evidence: Evidence | None

    @classmethod
    def of(cls, run: RunResult) -> Self:
        """Return what is left of a finished search."""
        named = tuple(
            replace(one, name=f"{_SUBSET_PART}: {one.name}") for one in run.iterations
        )
        maps = run.reconstruction
        return cls(
            TrainingData.of_run(run),
            len(run.inferred),
            maps.resolution_angstrom,
            named,
            maps.evidence,
        )

    def to_dict(self) -> dict[str, object]:
        """Return tensors, numbers and strings, for a checkpoint."""
        training_data = dict(vars(self.training_data))
        training_data["noise_power"] = list(self.training_data.noise_power)
        iterations = [dict(vars(iteration)) for iteration in self.iterations]
        evidence = None if self.evidence is None else dict(vars(self.evidence))
        return {
            **vars(self),
            "training_data": training_data,
            "iterations": iterations,
            "evidence": evidence,
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Self:
        """Invert :meth:`to_dict`."""
        training_data = dict(saved["training_data"])
        training_data["noise_power"] = tuple(training_data["noise_power"])
        evidence = saved.get("evidence")
        return cls(
            TrainingData(**training_data),
            saved["particles"],
            saved["resolution_angstrom"],
            tuple(Iteration(**one) for one in saved["iterations"]),
            None if evidence is None else Evidence(**evidence),
        )


@dataclass(frozen=True)
class Amortized:
    """Poses and map of all particles, and what they were inferred with.

    Attributes
    ----------
    result : RunResult
        Of all particles. Its iterations are those of the search of the subset.
    trained : TrainedEncoder
    trials : mapping of str to CalibrationTrial
        Of the encoder's posteriors, on simulated images of the subset.
    searched : Searched
    """

    result: RunResult
    trained: TrainedEncoder
    trials: Mapping[str, CalibrationTrial]
    searched: Searched


def amortize(
    particles: Particles, search: Search, config: AmortizeConfig, monitor: Monitor
) -> Amortized:
    """Search a subset, teach an encoder its map, and infer every particle with it.

    The subset is inferred again with all the others, so that every posterior is of
    one kind. Its halves stay what they were in the search, and the others join them.

    The halves of the final map are *not* independent: encoder and refinement pose both
    against the one map of the subset, whose noise is in both. Their FSC may say too
    much wherever that map was mostly noise. The halves of the search were refined
    apart; ``searched.resolution_angstrom`` is their resolution, and the one to quote
    where the final map's goes beyond it.

    Parameters
    ----------
    particles : Particles
        Of one area of image, in angstrom.
    search : function of particles and monitor
        Such as :func:`cryoinfer.workflows.abinitio.abinitio` with its config.
    config : AmortizeConfig
    monitor : Monitor
        Its checkpoint, if it has one, is continued, in whichever part it was left.

    Returns
    -------
    Amortized

    Raises
    ------
    InputError
        If the particles, or what was chosen, cannot be used.
    """
    require_teachable(particles, config.encoder)
    generator = torch.Generator().manual_seed(config.seed)
    particles = _with_halves(particles, generator)
    subset = particles.select(_draw_subset(particles, config.subset, generator))
    parts = _SearchedParts(monitor)
    searched = parts.searched()
    if searched is None:
        monitor.message(
            f"{len(subset):,} of {len(particles):,} particles are searched, then an "
            "encoder that learns their map infers all of them."
        )
        searched = Searched.of(search(subset, parts.monitor(_SUBSET_PART)))
        parts.end_search(searched)
    if searched.evidence is not None and not searched.evidence.is_structure:
        monitor.message(
            "Caution: the search found no structure. An encoder that learns its map "
            "learns noise; Ctrl-C ends the run."
        )
    training_data = _limited(searched.training_data, config.resolution_angstrom)
    trained = train_encoder(
        subset, training_data, config.encoder, parts.monitor(_ENCODER_PART)
    )
    monitor.message(f"The training of the encoder: {trained.verdict}")
    trials = calibrate_encoder(
        trained, subset, config.seed + 1, parts.monitor(_ENCODER_PART)
    )
    result = infer(
        particles,
        trained,
        InferConfig(
            local_refinement=config.local_refinement,
            particle_diameter_angstrom=config.particle_diameter_angstrom,
            seed=config.seed,
        ),
        parts.monitor(_ALL_PART),
    )
    maps = replace(result.reconstruction, evidence=searched.evidence)
    result = replace(result, reconstruction=maps, iterations=searched.iterations)
    return Amortized(result, trained, trials, searched)


def fitting_encoder(box: int) -> EncoderConfig:
    """Return the default encoder, its picture no larger than a box in pixels."""
    side = min(PoseNetworkConfig().side, 2 ** (box.bit_length() - 1))
    return EncoderConfig(network=PoseNetworkConfig(side=side))


def require_teachable(particles: Particles, config: EncoderConfig) -> None:
    """Refuse particles that no one encoder can learn, before they are searched.

    Raises
    ------
    InputError
        If images of different optics groups cover different areas, or are smaller
        than the encoder's picture.
    """
    require_picture(config.network.side, particles.box)
    sizes = particles.optics.pixel_size_angstrom * particles.boxes
    off = (sizes / sizes[0] - 1).abs() > SAME_AREA
    if bool(off.any()):
        group = int(particles.optics.group[off][0]) + 1
        raise InputError(
            f"an encoder needs images of one area, found {float(sizes[0]):.1f} A "
            f"across, and {float(sizes[off][0]):.1f} A in optics group {group}: "
            "rescale the particles to one pixel size, or use --method search"
        )


def _with_halves(particles: Particles, generator: torch.Generator) -> Particles:
    """Return the particles with half-sets: their own, or random ones."""
    if particles.random_subset is not None:
        return particles
    order = torch.randperm(len(particles), generator=generator)
    return particles.with_results(random_subset=order % 2 + 1)


def _draw_subset(particles: Particles, size: int, generator: torch.Generator) -> Tensor:
    """Draw about ``size`` particles: of each half of each optics group its share.

    The first particle, which the map takes its box and pixel size from, is among them.

    Returns
    -------
    Tensor of int64, ascending
    """
    n = len(particles)
    if n <= size:
        return torch.arange(n)
    assert particles.random_subset is not None
    stratum = particles.optics.group * 2 + particles.random_subset - 1
    strata = stratum.unique().tolist()
    fewest = min(_FEWEST, size // len(strata))
    place = torch.randperm(n, generator=generator)
    place[0] = -1
    chosen = torch.zeros(n, dtype=torch.bool)
    for number in strata:
        members = torch.nonzero(stratum == number).squeeze(1)
        count = max(fewest, round(size * len(members) / n), 1)
        chosen[members[place[members].argsort()[:count]]] = True
    return torch.nonzero(chosen).squeeze(1)


def _limited(
    training_data: TrainingData, resolution_angstrom: float | None
) -> TrainingData:
    """Return training data of a map that ends at a resolution, as far as poses see."""
    if resolution_angstrom is None:
        return training_data
    box = training_data.density.shape[-1]
    radius = ReferenceGrid(box, training_data.pixel_size_angstrom).radius_at(
        resolution_angstrom
    )
    whole, half = torch.fft.fftfreq(box, 1 / box), torch.arange(box // 2 + 1)
    # In any order of x, y and z, for the cut is a ball.
    squared = whole[:, None, None] ** 2 + whole[:, None] ** 2 + half**2
    coefficients = map_to_fourier(training_data.density) * (squared <= radius**2)
    return replace(training_data, density=fourier_to_map(coefficients, box))


class _SearchedParts(StageCheckpoints):
    """The parts of a run that begins with a search."""

    def searched(self) -> Searched | None:
        """Return what the search has left, if it is over."""
        saved: Mapping[str, Any] | None = self.kept(_SEARCHED)
        with state_of_this_version():
            return None if saved is None else Searched.from_dict(saved)

    def end_search(self, searched: Searched) -> None:
        """Keep what the search has left in place of its own checkpoint."""
        self.drop(_SUBSET_PART)
        self.keep(_SEARCHED, searched.to_dict())
