"""What one pass of an encoder leaves of every particle, and of their map."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, state_of_this_version
from cryoinfer.geometry.rotation_volume import VARIANCE_OF_ANY_TURN
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.prior import PosePrior
from cryoinfer.records import Indexable, Latents, Pose
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.iteration import MODES
from cryoinfer.workflows.structure_update import HalfMapSums

_SHIFT_SD_OF_BOX = 0.1  # of a particle of which nothing is known


@dataclass(frozen=True)
class InferredParticles(Indexable):
    """What was found about n particles.

    In single precision, which is what files hold: these are the bytes that grow with
    the particles.

    Attributes
    ----------
    posterior : ParticlePosterior
        The best modes, with the covariance of the first. Minus infinity is the
        likelihood of an image that is not finite.
    entropy_nats : Tensor of float32, shape (n,)
        Of the whole posterior.
    outlier_score_nats : Tensor of float32, shape (n,)
        See :func:`cryoinfer.inference.outlier_score.outlier_score`; infinite where the
        image is not finite.
    unreadable : Tensor of bool, shape (n,)
        Which images hold NaN or infinite pixels.
    prepared : Tensor of bool, shape (n,)
        Which were resampled, or taken to be of another strength, to be like those that
        the encoder has learned.
    """

    posterior: ParticlePosterior
    entropy_nats: Tensor
    outlier_score_nats: Tensor
    unreadable: Tensor
    prepared: Tensor

    def __len__(self) -> int:
        return len(self.entropy_nats)

    @classmethod
    def unseen(cls, n: int, prior: PosePrior) -> Self:
        """Return what is known of particles before, or without, looking at an image.

        Any rotation, and of the rest the prior: no mode has any weight.
        """
        variance = [VARIANCE_OF_ANY_TURN] * 3 + [prior.shift_sd_angstrom**2] * 2
        variance.append(prior.defocus_sd_angstrom**2)
        variance += [sd**2 for sd in prior.conformation_sd_angstrom]
        covariance = torch.diag(torch.tensor(variance, dtype=torch.float64))
        zero = torch.zeros(1, MODES, 2, dtype=torch.float64)
        eye = torch.eye(3, dtype=torch.float64).expand(1, MODES, 3, 3)
        z = zero.new_zeros(1, MODES, len(prior.conformation_sd_angstrom))
        modes = Latents(Pose(eye, zero), zero[..., 0], z)
        nothing = ParticlePosterior(
            modes,
            zero[..., 0],
            covariance[None, None],
            torch.full((1,), -torch.inf, dtype=torch.float64),
            torch.ones(1, dtype=torch.float64),
            covariance.diagonal()[3:].clamp(min=1e-30),
        )
        flag = torch.ones(1, dtype=torch.bool)
        one = cls(
            single_precision(nothing),
            nothing.entropy().float(),
            torch.full((1,), torch.inf),
            flag,
            ~flag,
        )
        return one[torch.zeros(n, dtype=torch.int64)]


def single_precision(posterior: ParticlePosterior) -> ParticlePosterior:
    """Return what is kept of posteriors: the best modes, in single precision."""
    best = posterior.best(MODES).with_first_covariance()
    pose = best.modes.pose
    return ParticlePosterior.of_modes(
        Latents(
            Pose(pose.rotation.float(), pose.shift_angstrom.float()),
            best.modes.defocus_offset_angstrom.float(),
            best.modes.conformation.float(),
        ),
        best.weight.float(),
        best.covariance.float(),
        best.log_likelihood.float(),
    )


@dataclass(frozen=True)
class Inferred:
    """Posteriors of n particles, and the sums of slices of those that show the map.

    Attributes
    ----------
    particles : InferredParticles
    half : Tensor of int64, shape (n,)
        0 or 1.
    noise_power : tuple of Tensor, each shape (rings,)
        Per optics group.
    sums : HalfMapSums
        Of each half.
    """

    particles: InferredParticles
    half: Tensor
    noise_power: tuple[Tensor, ...]
    sums: HalfMapSums

    def __len__(self) -> int:
        return len(self.half)

    def joined_with(self, later: "Inferred") -> "Inferred":
        """Return these particles and later ones, with the noise of these.

        The sums are added in place.
        """
        for own, other in zip(self.sums.tensors, later.sums.tensors, strict=True):
            own.add_(other)
        return replace(
            self,
            particles=InferredParticles.joined([self.particles, later.particles]),
            half=torch.cat([self.half, later.half]),
        )

    def to_state(self) -> dict[str, object]:
        """Return all of it in tensors, for a checkpoint."""
        return {
            "particles": self.particles.to_state(),
            "half": self.half,
            "noise_power": list(self.noise_power),
            "sums": list(self.sums.tensors),
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any], box: int) -> Self:
        """Return what a checkpoint holds.

        Raises
        ------
        InputError
            If it is of maps of another box, or of another version of the program.
        """
        sums = HalfMapSums.empty(box, box // 2 - 1)
        with state_of_this_version():
            kept = state["sums"]
            if any(one.shape != sums.first.sums.shape for one in kept):
                raise InputError(
                    f"the state is of maps of another box than the encoder's {box}: "
                    "start again with --overwrite"
                )
            for own, one in zip(sums.tensors, kept, strict=True):
                own.copy_(one)
            half = state["half"]
            particles = InferredParticles.of_state(state["particles"])
            _require_shapes(particles.to_state(), len(half))
        return cls(particles, half, tuple(state["noise_power"]), sums)


def _require_shapes(state: Mapping[str, Any], n: int) -> None:
    """Raise ValueError unless there is as much as there should be of all."""
    expected = InferredParticles.unseen(n, PosePrior(1.0, 0.0)).to_state()

    def compare(own: Mapping[str, Any], other: Mapping[str, Any]) -> None:
        for name, value in other.items():
            if isinstance(value, Mapping):
                compare(own[name], value)
            elif own[name].shape != value.shape:
                raise ValueError(f"{name} is not of shape {tuple(value.shape)}")

    compare(state, expected)


def with_rejected(
    result: RunResult, used: Tensor, particles: Particles, unreadable: Tensor
) -> RunResult:
    """Return the result of some particles among all of a file.

    Those that were rejected keep the pose and half-set that they had, and nothing is
    known of it: their posteriors are as wide as a prior, and no mode has any weight.

    Parameters
    ----------
    result : RunResult
        Of the particles that were used, in their order.
    used : Tensor of bool, shape (n,)
    particles : Particles
        All of them.
    unreadable : Tensor of bool, shape (n,)
        Which are known to hold NaN or infinite pixels.
    """
    rest = particles.select(~used)
    reach = particles.box * particles.pixel_size_angstrom * _SHIFT_SD_OF_BOX
    blank = InferredParticles.unseen(len(rest), PosePrior(reach, 0.0))
    tested = {
        "outlier_score_nats": blank.outlier_score_nats,
        "outlier": torch.ones(len(rest), dtype=torch.bool),
        "contrast": torch.ones(len(rest)),
        "unreadable": unreadable[~used],
        "prepared": blank.prepared,
    }
    changes: dict[str, Any] = {
        name: _among(used, getattr(result, name), other)
        for name, other in tested.items()
        if getattr(result, name) is not None
    }
    own = result.inferred
    unknown = blank.posterior.best(own.weight.shape[1])
    if own.weight.dtype == torch.float64:
        unknown = unknown.double()  # before the poses, which would be rounded
    if rest.pose is not None:
        offset = torch.zeros(len(rest))
        unknown = unknown.with_first_mode(Latents.rigid(rest.pose, offset))
    rows = torch.cat([torch.nonzero(used), torch.nonzero(~used)]).squeeze(1)
    half = torch.ones(len(rest), dtype=torch.int64)
    subset = half if rest.random_subset is None else rest.random_subset
    return replace(
        result,
        inferred=ParticlePosterior.joined([own, unknown])[rows.argsort()],
        random_subset=_among(used, result.random_subset, subset),
        entropy_nats=_among(used, result.entropy(), blank.entropy_nats),
        **changes,
    )


def _among(used: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Return values of the particles that were used, and of the others, in order."""
    among = own.new_zeros((len(used), *own.shape[1:]))
    among[used], among[~used] = own, other.to(own.dtype)
    return among
