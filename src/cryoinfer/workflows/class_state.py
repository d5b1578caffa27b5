"""What is known of particles in classes, and the sums that make maps of them."""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.errors import state_of_this_version
from cryoinfer.inference.class_maps import ClassMaps, class_of
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.posterior_mixture import log_evidence
from cryoinfer.inference.prior import PosePrior
from cryoinfer.records import Indexable, Latents
from cryoinfer.results.classes import maximum_populations, responsibilities
from cryoinfer.workflows.iteration import unknown_posterior
from cryoinfer.workflows.particle_pass import InferredBatch
from cryoinfer.workflows.structure_update import HalfMapSums, insert_images

_NO_SHARE = 1e-3
"""Responsibility below which an image is not inserted into the map of a class."""

_HOPELESS_NATS = 700.0
"""Behind the best class, beyond which a weight is 0 in float64."""


@dataclass(frozen=True)
class ClassRecord(Indexable):
    """What is kept of n particles: the best mode in each of K classes.

    Attributes
    ----------
    modes : Latents
        Leading dimensions (n, K), float64, without a conformation.
    covariance : Tensor of float64, shape (n, 6, 6)
        Of the mode of the likeliest class.
    log_likelihood : Tensor of float64, shape (n,)
        Of the same one.
    log_evidence : Tensor of float64, shape (n, K)
        Of every class, over all its modes, without its population.
    """

    modes: Latents
    covariance: Tensor
    log_likelihood: Tensor
    log_evidence: Tensor

    @classmethod
    def unknown(cls, n: int, classes: int) -> Self:
        """Return the record of particles of which no image has been seen."""
        modes = unknown_posterior(n).mode()
        return cls.at(modes, torch.zeros(n, classes, dtype=torch.float64))

    @classmethod
    def at(cls, poses: Latents, log_evidence: Tensor) -> Self:
        """Return particles at known poses, the same in every class."""
        n, classes = log_evidence.shape
        each = poses.double()[:, None][:, torch.zeros(classes, dtype=torch.int64)]
        zero = torch.zeros(n, 6, 6, dtype=torch.float64)
        return cls(each, zero, zero[:, 0, 0] + torch.nan, log_evidence)

    @classmethod
    def of(cls, one: InferredBatch[ClassMaps], prior: PosePrior) -> Self:
        """Return what was inferred in every class."""
        found, shown = one.posterior, one.projector
        log_weight = found.weight.log().clamp(min=-_HOPELESS_NATS)
        device = log_weight.device
        numbers = torch.arange(len(shown.maps), device=device)[:, None]
        own = class_of(found.modes)[:, None] == numbers
        each = log_weight[:, None].where(own, -torch.inf)
        rows, best = torch.arange(len(found), device=device)[:, None], each.argmax(2)
        total = log_evidence(found, prior)
        return cls(
            found.modes.without_conformation()[rows, best],
            found.covariances[:, 0, :6, :6],
            found.log_likelihood,
            each.logsumexp(2) + total[:, None] - shown.population.log().to(total),
        )

    def posterior(self, population: Tensor) -> ParticlePosterior:
        """Return the mixture of the best modes, numbered by class."""
        weight = responsibilities(self.log_evidence, population)
        numbers = torch.arange(weight.shape[1], dtype=torch.float64)
        numbers = numbers.expand_as(weight)[..., None]
        modes = replace(self.modes, conformation=numbers)
        covariance = torch.nn.functional.pad(self.covariance, (0, 1, 0, 1))
        whole = ParticlePosterior.of_modes(
            modes, weight, covariance[:, None], self.log_likelihood
        )
        order = weight.argsort(dim=1, descending=True, stable=True)
        return whole.in_order(order).with_first_covariance()

    def without(self, number: int) -> Self:
        """Return the record of all classes but one."""
        kept = torch.arange(self.log_evidence.shape[1]) != number
        return replace(
            self, modes=self.modes[:, kept], log_evidence=self.log_evidence[:, kept]
        )

    def in_order(self, order: Tensor) -> Self:
        """Return the record with its classes in another order."""
        return replace(
            self, modes=self.modes[:, order], log_evidence=self.log_evidence[:, order]
        )


@dataclass(frozen=True)
class ClassSums:
    """Sums of slices of both half-sets for each class; an :class:`Accumulator`.

    Attributes
    ----------
    of_class : tuple of HalfMapSums
    """

    of_class: tuple[HalfMapSums, ...]

    @classmethod
    def empty(
        cls, classes: int, box: int, radius: int, device: torch.device | str = "cpu"
    ) -> Self:
        """Return the sums of no particle, on the device of the images to come."""
        each = (HalfMapSums.empty(box, radius, device) for _ in range(classes))
        return cls(tuple(each))

    def add(self, one: InferredBatch[object]) -> None:
        """Insert every image into the maps of all classes that it may be of."""
        posterior, half = one.placed, one.half
        number = class_of(posterior.modes)
        rows = torch.arange(len(posterior), device=number.device)
        for k, sums in enumerate(self.of_class):
            place = (number == k).byte().argmax(1)
            share = posterior.weight[rows, place]
            own = torch.nonzero(share > _NO_SHARE).squeeze(1)
            at = posterior.modes[own, place[own]]
            images = one.images.select(own)
            insert_images(sums.second if half else sums.first, images, at, share[own])

    @property
    def tensors(self) -> list[Tensor]:
        """The sums."""
        return [tensor for sums in self.of_class for tensor in sums.tensors]


@dataclass(frozen=True)
class ClassState:
    """What one iteration hands to the next.

    Attributes
    ----------
    maps : Tensor, shape (2, K, m, m, m)
        Of the half-sets, filtered and masked.
    population : Tensor of float64, shape (K,)
    record : ClassRecord
        Of all particles.
    noise : tuple of Tensor
        Noise power per optics group and ring.
    changed : float
        Share of the particles that are of another class than before.
    """

    maps: Tensor
    population: Tensor
    record: ClassRecord
    noise: tuple[Tensor, ...]
    changed: float = 1.0

    @property
    def count(self) -> int:
        """Number of classes."""
        return len(self.population)

    def log_evidence(self) -> Tensor:
        """Return the evidence of every particle in the mixture, nats, (n,)."""
        return (self.record.log_evidence + self.population.log()).logsumexp(1)

    def without(self, number: int) -> Self:
        """Return the state of all classes but one, whose maps are as they were."""
        kept = torch.arange(self.count) != number
        record = self.record.without(number)
        share = maximum_populations(record.log_evidence).share
        return replace(self, maps=self.maps[:, kept], population=share, record=record)

    def to_state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "maps": self.maps,
            "population": self.population,
            "record": self.record.to_state(),
            "noise": list(self.noise),
        }

    @classmethod
    def of_state(cls, state: Any) -> Self:
        """Invert :meth:`to_state`."""
        with state_of_this_version():
            return cls(
                state["maps"],
                state["population"],
                ClassRecord.of_state(state["record"]),
                tuple(state["noise"]),
            )


def reseeded(record: ClassRecord, population: Tensor) -> ClassRecord:
    """Return the record whose emptiest class has taken the worst half of the largest.

    Parameters
    ----------
    record : ClassRecord
    population : Tensor of float64, shape (K,)
    """
    largest, empty = int(population.argmax()), int(population.argmin())
    own = (record.log_evidence + population.log()).argmax(1) == largest
    explained = record.log_evidence[:, largest]
    worst = own & (explained <= explained[own].median())
    # The class takes their poses, and leaves all else alone.
    rotation = record.modes.pose.rotation.clone()
    shift = record.modes.pose.shift_angstrom.clone()
    rotation[:, empty], shift[:, empty] = rotation[:, largest], shift[:, largest]
    evidence = record.log_evidence.clone()
    evidence[:, empty] = evidence[:, largest] - _HOPELESS_NATS
    evidence[worst, empty] = evidence[worst, largest] + _HOPELESS_NATS
    pose = replace(record.modes.pose, rotation=rotation, shift_angstrom=shift)
    modes = replace(record.modes, pose=pose)
    return replace(record, modes=modes, log_evidence=evidence)
