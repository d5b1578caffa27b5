"""The conformation in a curved field of maps, at poses that are known.

At a pose the log-likelihood is a parabola in the field's coordinates f(z), so that an
image is looked at once and every trial of z costs a few products of small matrices.
The posterior of z is not normal, and may have several maxima: the best of many trial
points is followed to its maximum (Levenberg and Marquardt), and the posterior's
moments and evidence are Gauss-Hermite sums about it (Liu and Pierce, Biometrika 81,
624, 1994).
"""

from dataclasses import dataclass, replace

import torch
from scipy.special import ndtri
from scipy.stats.qmc import Sobol
from torch import Tensor

from cryoinfer.inference.field_projector import FieldProjector
from cryoinfer.inference.hermite import HermiteFeatures, normal_nodes
from cryoinfer.inference.linear_conformation import (
    ConformationLikelihood,
    ConformationPosterior,
    over_modes,
)
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import PoseInference
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents

_TRIALS_EACH = 6
"""Binary logarithm of the trial points of one dimension; each further one doubles."""

_STEPS = 12
_FIRST_DAMPING, _DAMPED, _UNDAMPED = 1e-3, 8.0, 0.25
"""Of Levenberg and Marquardt: at first, and its factors after a step that was worse
or better."""

_NODES = (7, 5, 3, 3)
"""Points of the sums along each dimension, by the number of dimensions."""


@dataclass(frozen=True)
class FieldConformation:
    """Infers z at the pose modes that another inference gives.

    A :class:`cryoinfer.inference.pose_inference.PoseInference`.

    Attributes
    ----------
    poses : PoseInference
        Its conformations are not looked at.
    noise_inflation : float
        As of :class:`cryoinfer.inference.linear_conformation.LinearConformation`.
    """

    poses: PoseInference[FieldProjector]
    noise_inflation: float = 1.0

    def infer(
        self,
        images: WhitenedImages,
        projector: FieldProjector,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return the posteriors; pose and z are independent within a mode."""
        posed = self.poses.infer(images, projector, prior, start)

        def conditional(at: Latents) -> ConformationPosterior:
            return field_conformation_at(
                projector, images, at, prior, self.noise_inflation
            )

        whole = over_modes(posed, conditional)
        likelihood = projector.log_likelihood(images, whole.mode())
        return replace(whole, log_likelihood=likelihood)


def field_conformation_at(
    projector: FieldProjector,
    images: WhitenedImages,
    latents: Latents,
    prior: PosePrior,
    noise_inflation: float = 1.0,
) -> ConformationPosterior:
    """Return mean, covariance and evidence of z at given poses.

    Parameters
    ----------
    projector : FieldProjector
    images : WhitenedImages
        Of n particles.
    latents : Latents
        Their poses; the conformation is not looked at.
    prior : PosePrior
        Whose conformations have a spread.
    noise_inflation : float
        As of :class:`FieldConformation`.
    """
    likelihood = ConformationLikelihood.at(
        projector.subspace, images, latents, noise_inflation
    )
    sd = prior.unknowns_sd_angstrom[3:]
    return _Curved(likelihood, projector.features, sd).posterior()


@dataclass(frozen=True)
class _Curved:
    """The log posterior of n images by z, up to a constant.

    Attributes
    ----------
    likelihood : ConformationLikelihood
        By the coordinates f.
    features : HermiteFeatures
    sd : Tensor of float64, shape (q,)
        Of z before the images are seen.
    """

    likelihood: ConformationLikelihood
    features: HermiteFeatures
    sd: Tensor

    def value(self, z: Tensor) -> Tensor:
        """Return the log posterior at z (n, m, q): (n, m)."""
        shares = self.features.values(z)[..., 1:]
        bent = (shares @ self.likelihood.information * shares).sum(-1)
        along = (shares @ self.likelihood.slope[..., None])[..., 0]
        return along - 0.5 * bent - 0.5 * (z / self.sd).square().sum(-1)

    def equations(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return gradient (n, q) and Gauss-Newton information (n, q, q) at z (n, q)."""
        shares = self.features.values(z)[:, 1:]
        slopes = self.features.slopes(z)[:, 1:]
        left = self.likelihood.slope - self._times_information(shares)
        precision = self.sd**-2
        gradient = (left[:, None] @ slopes)[:, 0] - precision * z
        information = slopes.mT @ self.likelihood.information @ slopes
        return gradient, information + torch.diag(precision)

    def _times_information(self, shares: Tensor) -> Tensor:
        return (self.likelihood.information @ shares[..., None])[..., 0]

    def best_trial(self) -> Tensor:
        """Return the best of the trial points for each image, (n, q)."""
        trials = _trial_points(self.features.dims) * self.sd
        return trials[self.value(trials[None]).argmax(1)]

    def maximum(self) -> Tensor:
        """Return the maximum next to the best trial point, (n, q)."""
        z = self.best_trial()
        value = self.value(z[:, None])[:, 0]
        damping = torch.full_like(value, _FIRST_DAMPING)
        for _ in range(_STEPS):
            gradient, information = self.equations(z)
            diagonal = information.diagonal(dim1=1, dim2=2)
            damped = information + torch.diag_embed(damping[:, None] * diagonal)
            trial = z + torch.linalg.solve(damped, gradient)
            found = self.value(trial[:, None])[:, 0]
            better = found > value
            z = torch.where(better[:, None], trial, z)
            value = torch.where(better, found, value)
            damping = damping * torch.where(better, _UNDAMPED, _DAMPED)
        return z

    def posterior(self) -> ConformationPosterior:
        """Return moments and evidence about the maximum."""
        top = self.maximum()
        _, information = self.equations(top)
        # Columns of the root of the covariance.
        root = torch.linalg.inv(torch.linalg.cholesky(information)).mT
        points, weights = normal_nodes(self.features.dims, _nodes(self.features.dims))
        z = top[:, None] + points @ root.mT
        log_ratio = self.value(z) + 0.5 * points.square().sum(-1) + weights.log()
        share = log_ratio.softmax(1)
        mean = (share[..., None] * z).sum(1)
        apart = z - mean[:, None]
        covariance = (share[..., None] * apart).mT @ apart
        volume = root.diagonal(dim1=1, dim2=2).log().sum(1) - self.sd.log().sum()
        evidence = log_ratio.logsumexp(1) + volume - self.likelihood.power
        return ConformationPosterior(mean, covariance, evidence)


def _nodes(dims: int) -> int:
    return _NODES[min(dims, len(_NODES)) - 1]


def _trial_points(dims: int) -> Tensor:
    """Return points that are distributed as z before an image is seen, (m, dims).

    Of a Sobol sequence, which fills all dimensions evenly.
    """
    log_count = _TRIALS_EACH + dims - 1
    uniform = Sobol(dims, scramble=False).random_base2(log_count)
    # The sequence begins at 0, which no normal z has.
    return torch.from_numpy(ndtri(uniform + 0.5 ** (log_count + 1)))
