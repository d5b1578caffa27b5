"""Moments instead of curvatures: the modes of a refinement, made true to the image.

Laplace's Gaussian has the curvature of the top. Where an image says little, the
posterior is skew, or its tails are heavier than its top is round: the Gaussian that
loses the least against it has its mean and its covariance. They are sums over points
about every mode, a lattice of few unknowns and quasi-random normal numbers of many,
weighed by the exact posterior (importance sampling). The sum of the weights is the
evidence, which no other Gaussian could bound better from as many points (Burda et al.,
arXiv:1509.00519, 2015). Where modes are so near that their points overlap, each point
counts for every mode by a share, and nothing counts twice.
"""

import math
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from cryoinfer.geometry.rotation_volume import ALL_TURNS, log_exponential_volume
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import PoseInference
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import ImageLikelihood, Projector
from cryoinfer.inference.quadrature_grid import Ellipsoid, ball, log_share, moved
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents

_LATTICE_UNKNOWNS = 3  # at most; balls of more have too many points
_LATTICE_REACH, _LATTICE_STEP = 4.0, 1.25
"""Steps, and standard deviations a step: sums over a lattice are exact to 1e-5 for a
Gaussian of that sd, and posteriors at -20 dB are wider than their tops are round. With
three steps of one sd their spreads came out 8 % too small, so 1 %."""

_LEAST_WEIGHT = 0.01
"""Of a mode that is matched; what the others are like hardly matters."""

_LEAST_EFFECTIVE = 2.0
"""Effective points an unknown, below which moments are noise and Laplace's stay; one
unknown whose top tells its width has 2.8 on the lattice."""

P = TypeVar("P", bound=Projector, contravariant=True)


@dataclass(frozen=True)
class MomentMatching(Generic[P]):
    """Fits each mode to the moments of the posterior about it.

    A :class:`cryoinfer.inference.pose_inference.PoseInference`.

    Attributes
    ----------
    inference : PoseInference
        Of modes at maxima of the posterior.
    points : int
        About a mode of four unknowns or more; a lattice has its own number.
    seed : int
        Of the quasi-random numbers.
    """

    inference: PoseInference[P]
    points: int = 128
    seed: int = 0

    def infer(
        self,
        images: WhitenedImages,
        projector: P,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return mixtures with the posteriors' own moments."""
        found = self.inference.infer(images, projector, prior, start)
        return self.match(images, projector, prior, found)

    def match(
        self,
        images: WhitenedImages,
        likelihood: ImageLikelihood,
        prior: PosePrior,
        found: ParticlePosterior,
    ) -> ParticlePosterior:
        """Return a mixture with the posterior's own moments.

        Parameters
        ----------
        images : WhitenedImages
        likelihood : ImageLikelihood
        prior : PosePrior
        found : ParticlePosterior
            Of the same images, modes at maxima of the posterior.

        Returns
        -------
        ParticlePosterior
            Its modes in the order of their new weights.
        """
        free = found.covariance[0, 0].diagonal() > 0
        dims = torch.nonzero(free).squeeze(1)
        points, log_base, shrunk = self._points(len(dims))
        log_mass = torch.full_like(found.weight, -torch.inf)
        weighed = found.weight > _LEAST_WEIGHT
        # Of an image without such modes the best stands for all.
        weighed[:, 0] = True
        places: list[tuple[int, int]] = []
        means: list[Latents] = []
        spreads: list[Tensor] = []
        for row in range(len(found)):
            modes = torch.nonzero(weighed[row]).squeeze(1).tolist()
            near = [_ellipsoid(found, row, mode, dims) for mode in modes]
            image = images.select(torch.full((len(points),), row))
            for own, (mode, ellipsoid) in enumerate(zip(modes, near, strict=True)):
                step = ellipsoid.step(points)
                at = moved(ellipsoid.centre, step)
                score = likelihood.log_likelihood(image, at) - log_base
                score = score + prior.log_density(at)
                score = score + log_share(near, own, at)
                if prior.rotation_unknowns == ALL_TURNS:
                    score = score + log_exponential_volume(step[:, :3].norm(dim=1))
                log_volume = ellipsoid.root.diagonal().log().sum()
                log_mass[row, mode] = torch.logsumexp(score, 0) + log_volume
                share = score.softmax(0)
                if 1 / float(share.square().sum()) < _LEAST_EFFECTIVE * len(dims):
                    continue
                mean = share @ step
                apart = step - mean
                spread = (share[:, None] * apart).T @ apart / shrunk
                places.append((row, mode))
                means.append(moved(ellipsoid.centre, mean))
                spreads.append(spread)
        # What other modes and the background have stays theirs.
        mass = (found.weight * weighed).sum(1, keepdim=True)
        share = torch.where(weighed, mass * log_mass.softmax(1), found.weight)
        matched = replace(_replaced(found, places, means, spreads), weight=share)
        return matched.in_order(share.argsort(dim=1, descending=True, stable=True))

    def _points(self, unknowns: int) -> tuple[Tensor, Tensor, float]:
        """Return points in standard deviations, what they stand for, and a variance.

        Returns
        -------
        points : Tensor, shape (s, d)
        log_base : Tensor, shape (s,)
            Log density of the points, times their number.
        shrunk : float
            The variance that a unit Gaussian has on them.
        """
        if unknowns <= _LATTICE_UNKNOWNS:
            points = _LATTICE_STEP * ball(unknowns, _LATTICE_REACH)
            share = (-0.5 * points.square().sum(1)).softmax(0)
            shrunk = float(share @ points.square().mean(1))
            return points, torch.zeros(len(points), dtype=torch.float64), shrunk
        sobol = torch.quasirandom.SobolEngine(unknowns, scramble=True, seed=self.seed)
        uniform = sobol.draw(self.points, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
        points = 2**0.5 * torch.erfinv(2 * uniform - 1)
        log_normal = -0.5 * (points.square() + math.log(2 * math.pi)).sum(1)
        return points, log_normal + math.log(self.points), 1.0


def _ellipsoid(
    found: ParticlePosterior, row: int, mode: int, dims: Tensor
) -> Ellipsoid:
    """Return where a mode is, and the shape of its Gaussian."""
    covariance = found.covariance[row, mode][dims][:, dims]
    root = torch.linalg.cholesky(covariance)
    return Ellipsoid(found.modes[row, mode], root, dims.tolist())


def _replaced(
    found: ParticlePosterior,
    places: list[tuple[int, int]],
    means: list[Latents],
    covariances: list[Tensor],
) -> ParticlePosterior:
    """Return the posterior with other modes at some places (particle, mode)."""
    if not places:
        return found
    where = tuple(torch.tensor(places).unbind(1))
    return replace(
        found,
        modes=found.modes.with_rows(
            where, Latents.joined([one[None] for one in means])
        ),
        covariance=found.covariance.index_put(where, torch.stack(covariances)),
    )
