"""What one pass of an encoder leaves of every particle, and of their map."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, state_of_this_version
from cryoinfer.fourier.slices import SliceAccumulator
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.prior import PosePrior
from cryoinfer.records import Latents, Pose
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.iteration import MODES
from cryoinfer.workflows.resolution_schedule import PADDING

_SHIFT_SD_OF_BOX = 0.1  # of a particle of which nothing is known

_VARIANCE_OF_ANY_TURN = (math.pi**2 / 3 + 2) / 3
"""About one axis, in radian squared, of the rotation vectors of random rotations."""


@dataclass(frozen=True)
class Inferred:
    """Posteriors of n particles, and the sums of slices of those that show the map.

    In single precision, which is what files hold: these are the bytes that grow with
    the particles of a pass.

    Attributes
    ----------
    half : Tensor of int64, shape (n,)
        0 or 1.
    rotation, shift_angstrom, weight : Tensor, (n, m, 3, 3), (n, m, 2), (n, m)
        The best modes, best first.
    defocus_offset_angstrom : Tensor, shape (n,)
    covariance : Tensor, shape (n, 6, 6)
        Of the best mode.
    entropy_nats, log_likelihood : Tensor, shape (n,)
        Minus infinity is the likelihood of an image that is not finite.
    outlier_score_nats : Tensor, shape (n,)
        See :func:`cryoinfer.inference.outlier_score.outlier_score`; infinite where the
        image is not finite.
    unreadable : Tensor of bool, shape (n,)
        Which images hold NaN or infinite pixels.
    prepared : Tensor of bool, shape (n,)
        Which were resampled, or taken to be of another strength, to be like those that
        the encoder has learned.
    noise_power : tuple of Tensor, each shape (rings,)
        Per optics group.
    sums : tuple of two SliceAccumulator
        Of each half.
    """

    half: Tensor
    rotation: Tensor
    shift_angstrom: Tensor
    weight: Tensor
    defocus_offset_angstrom: Tensor
    covariance: Tensor
    entropy_nats: Tensor
    log_likelihood: Tensor
    outlier_score_nats: Tensor
    unreadable: Tensor
    prepared: Tensor
    noise_power: tuple[Tensor, ...]
    sums: tuple[SliceAccumulator, SliceAccumulator]

    def __len__(self) -> int:
        return len(self.half)

    @classmethod
    def blank(cls, half: Tensor, box: int, prior: PosePrior) -> Self:
        """Return what is known of particles before, or without, looking at an image.

        Any rotation, and of the rest the prior: no mode has any weight.
        """
        n = len(half)
        variance = [_VARIANCE_OF_ANY_TURN] * 3 + [prior.shift_sd_angstrom**2] * 2
        variance.append(prior.defocus_sd_angstrom**2)
        covariance = torch.diag(torch.tensor(variance, dtype=torch.float64))
        nothing = ParticlePosterior(
            Latents.rigid(
                Pose(
                    torch.eye(3, dtype=torch.float64).expand(1, 1, 3, 3),
                    torch.zeros(1, 1, 2, dtype=torch.float64),
                ),
                torch.zeros(1, 1, dtype=torch.float64),
            ),
            torch.zeros(1, 1, dtype=torch.float64),
            covariance.expand(1, 1, 6, 6),
            torch.full((1,), torch.nan, dtype=torch.float64),
            torch.ones(1, dtype=torch.float64),
            covariance.diagonal()[3:].clamp(min=1e-30),
        )
        zeros = torch.zeros(n)
        first, second = (
            SliceAccumulator.empty(box, box // 2 - 1, PADDING) for _ in range(2)
        )
        return cls(
            half,
            torch.eye(3).repeat(n, MODES, 1, 1),
            torch.zeros(n, MODES, 2),
            torch.zeros(n, MODES),
            zeros,
            covariance.float().repeat(n, 1, 1),
            nothing.entropy().float().repeat(n),
            zeros - torch.inf,
            zeros + torch.inf,
            torch.zeros(n, dtype=torch.bool),
            torch.zeros(n, dtype=torch.bool),
            (),
            (first, second),
        )

    def put(self, index: Tensor, posterior: ParticlePosterior) -> None:
        """Overwrite the posteriors of some particles."""
        count = min(MODES, posterior.weight.shape[1])
        modes = posterior.modes[:, :count]
        self.rotation[index, :count] = modes.pose.rotation.float()
        shift = modes.pose.shift_angstrom
        self.shift_angstrom[index, :count] = shift.float()
        self.weight[index, :count] = posterior.weight[:, :count].float()
        self.entropy_nats[index] = posterior.entropy().float()
        offset = modes.defocus_offset_angstrom[:, 0]
        self.defocus_offset_angstrom[index] = offset.float()
        self.covariance[index] = posterior.covariance[:, 0].float()

    def modes(self) -> ParticlePosterior:
        """Return the best modes of all particles, in single precision."""
        pose = Pose(self.rotation, self.shift_angstrom)
        offset = self.defocus_offset_angstrom[:, None].expand_as(self.weight)
        return ParticlePosterior.of_modes(
            Latents.rigid(pose, offset),
            self.weight,
            self.covariance[:, None],
            self.log_likelihood,
        )

    def add(self, later: "Inferred") -> "Inferred":
        """Return these particles and later ones, with the noise of these.

        The sums are added in place.
        """
        for own, other in zip(self.sums, later.sums, strict=True):
            own.sums.add_(other.sums)
        joined = {
            name: torch.cat([getattr(self, name), getattr(later, name)])
            for name in _PER_PARTICLE
        }
        return type(self)(**joined, noise_power=self.noise_power, sums=self.sums)

    def to_state(self) -> dict[str, object]:
        """Return all of it in tensors, for a checkpoint."""
        return {name: getattr(self, name) for name in _PER_PARTICLE} | {
            "noise_power": list(self.noise_power),
            "sums": [one.sums for one in self.sums],
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any], box: int) -> Self:
        """Return what a checkpoint holds.

        Raises
        ------
        InputError
            If it is of maps of another box, or of another version of the program.
        """
        first, second = (
            SliceAccumulator.empty(box, box // 2 - 1, PADDING) for _ in range(2)
        )
        with state_of_this_version():
            one, other = state["sums"]
            if {one.shape, other.shape} != {first.sums.shape}:
                raise InputError(
                    f"the state is of maps of another box than the encoder's {box}: "
                    "begin anew with --overwrite"
                )
            found = cls(
                **{name: _single(state[name]) for name in _PER_PARTICLE},
                noise_power=tuple(state["noise_power"]),
                sums=(replace(first, sums=one), replace(second, sums=other)),
            )
            found._require_shapes()
        return found

    def _require_shapes(self) -> None:
        """Raise ValueError unless there is as much as there should be of all."""
        blank = type(self).blank(torch.zeros(1), 4, PosePrior(1.0, 0.0))
        for name in _PER_PARTICLE:
            expected = (len(self), *getattr(blank, name).shape[1:])
            if getattr(self, name).shape != expected:
                raise ValueError(f"{name} is not of shape {expected}")


def with_left_out(
    result: RunResult, used: Tensor, particles: Particles, unreadable: Tensor
) -> RunResult:
    """Return the result of some particles among all of a file.

    Those that were left out keep the pose and half-set that they had, and nothing is
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
    blank = Inferred.blank(torch.zeros(len(rest)).long(), 4, PosePrior(reach, 0.0))
    subset = rest.random_subset
    put = partial(_among, used)
    tested = {
        "outlier_score_nats": blank.outlier_score_nats,
        "unreadable": unreadable[~used],
        "prepared": blank.prepared,
    }
    changes: dict[str, Any] = {
        name: put(getattr(result, name), other)
        for name, other in tested.items()
        if getattr(result, name) is not None
    }
    own = result.inferred
    unknown = blank.modes().best(own.weight.shape[1])
    if own.weight.dtype == torch.float64:
        unknown = unknown.double()  # before the poses, which would be rounded
    if rest.pose is not None:
        kept = Latents.rigid(rest.pose, blank.defocus_offset_angstrom)
        unknown = unknown.with_first_mode(kept)
    rows = torch.cat([torch.nonzero(used), torch.nonzero(~used)]).squeeze(1)
    return replace(
        result,
        inferred=ParticlePosterior.joined([own, unknown])[rows.argsort()],
        random_subset=put(
            result.random_subset, blank.half + 1 if subset is None else subset
        ),
        entropy_nats=put(result.entropy(), blank.entropy_nats),
        **changes,
    )


def _among(used: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Return values of the particles that were used, and of the others, in order."""
    among = own.new_zeros((len(used), *own.shape[1:]))
    among[used], among[~used] = own, other.to(own.dtype)
    return among


def _single(values: Tensor) -> Tensor:
    """Return numbers in single precision, flags and halves as they are."""
    return values.float() if values.is_floating_point() else values


_PER_PARTICLE = (
    *("half", "rotation", "shift_angstrom", "weight", "defocus_offset_angstrom"),
    *(
        "covariance",
        "entropy_nats",
        "log_likelihood",
        "outlier_score_nats",
        "unreadable",
    ),
    "prepared",
)
