"""Several maps, of each of which some particles are images: a mixture.

Poses are inferred in every map; by Bayes' rule the share of a map in the posterior of a
particle, its responsibility, is its population times its evidence over that of all.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import PoseInference, required
from cryoinfer.inference.posterior_mixture import log_evidence, mixture_of
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import NormalEquations
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents


def class_of(latents: Latents) -> Tensor:
    """Return the class of latents of a mixture, int64, from 0."""
    return latents.conformation[..., 0].long()


@dataclass(frozen=True)
class ClassMaps:
    """K maps as one structure; the conformation of a particle is its class, from 0.

    A :class:`cryoinfer.inference.projector.Projector`.

    Attributes
    ----------
    maps : tuple of MapProjector
        That poses are inferred in.
    population : Tensor of float64, shape (K,)
        Share of the particles that each is of, above 0.
    judges : tuple of MapProjector, optional
        That evidence is taken from, at the poses found in ``maps``; by default these.
        A map that holds an image's own noise would keep the image.
    """

    maps: tuple[MapProjector, ...]
    population: Tensor
    judges: tuple[MapProjector, ...] | None = None

    def coefficients(self, latents: Latents, images: WhitenedImages) -> Tensor:
        """Return the slice of each particle's own map."""
        rigid = latents.without_conformation()
        each = torch.stack([one.coefficients(rigid, images) for one in self.maps])
        return each[class_of(latents), torch.arange(len(latents))]

    def log_likelihood(self, images: WhitenedImages, latents: Latents) -> Tensor:
        """Return the likelihood of each image by its own map."""
        rigid = latents.without_conformation()
        each = torch.stack([one.log_likelihood(images, rigid) for one in self.maps])
        return each[class_of(latents), torch.arange(len(latents))]

    def normal_equations(
        self, images: WhitenedImages, latents: Latents, prior: PosePrior
    ) -> NormalEquations:
        """Return those of each particle's own map, which is held."""
        rigid, n = latents.without_conformation(), len(latents)
        each = [one.normal_equations(images, rigid, prior.rigid) for one in self.maps]
        number = class_of(latents)
        rows = torch.arange(n, device=number.device)
        own = NormalEquations.joined(each)[number * n + rows]
        return NormalEquations(
            own.log_likelihood,
            torch.nn.functional.pad(own.gradient, (0, 1)),
            torch.nn.functional.pad(own.information, (0, 1, 0, 1)),
        )


@dataclass(frozen=True)
class ScoredPoses:
    """Takes the best pose that is known, with its likelihood; a :class:`PoseInference`.

    Poses are held: their posterior has no width.
    """

    def infer(
        self,
        images: WhitenedImages,
        projector: MapProjector,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return the start with the likelihood of its first mode."""
        known = required(start)
        likelihood = projector.log_likelihood(images, known.mode())
        covariance = torch.zeros_like(known.covariance)
        return replace(known, log_likelihood=likelihood, covariance=covariance)


@dataclass(frozen=True)
class InEveryClass:
    """Infers poses in each of several maps; a :class:`PoseInference`.

    Attributes
    ----------
    inferences : sequence of PoseInference
        One for each map: a search keeps the slices of its own.
    """

    inferences: Sequence[PoseInference[MapProjector]]

    def infer(
        self,
        images: WhitenedImages,
        projector: ClassMaps,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return the modes of all classes, weighed by evidence and population."""
        parts, evidence = [], []
        every = zip(projector.maps, self.inferences, strict=True)
        for number, (one, inference) in enumerate(every):
            known = None if start is None else _in_class(start, number)
            found = inference.infer(images, one, prior.rigid, known)
            if projector.judges is not None:
                judge = projector.judges[number]
                likelihood = judge.log_likelihood(images, found.mode())
                found = replace(found, log_likelihood=likelihood)
            evidence.append(log_evidence(found, prior.rigid))
            parts.append(_numbered(found, number))
        stacked = torch.stack(evidence, 1)
        weighed = stacked + projector.population.log().to(stacked)
        return mixture_of(parts, weighed.softmax(1))


def _in_class(start: ParticlePosterior, number: int) -> ParticlePosterior:
    """Return the best mode in a class; of a particle without one, the best of all."""
    place = (class_of(start.modes) == number).byte().argmax(1)
    best = start.mode_alone(place)
    return replace(
        best,
        modes=best.modes.without_conformation(),
        covariance=best.covariance[..., :6, :6],
        prior_variance=best.prior_variance[:3],
    )


def _numbered(found: ParticlePosterior, number: int) -> ParticlePosterior:
    """Return rigid posteriors as those of a class."""
    offset = found.modes.defocus_offset_angstrom
    numbers = torch.full_like(offset, number)[..., None]
    variance = found.prior_variance
    return replace(
        found,
        modes=replace(found.modes, conformation=numbers),
        covariance=torch.nn.functional.pad(found.covariance, (0, 1, 0, 1)),
        prior_variance=torch.cat([variance, torch.ones_like(variance[:1])]),
    )
