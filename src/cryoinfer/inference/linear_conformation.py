"""The conformation in a linear subspace, in closed form, at poses that are known.

At a pose a whitened image is ``y = A_0 + A z + noise`` with the slices A of the
principal volumes through its CTF. With a normal z before the image is seen, the
posterior of z is normal too, and its evidence weighs the modes of the pose
(probabilistic PCA: Tipping and Bishop, J. R. Stat. Soc. B 61, 611, 1999).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import PoseInference
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.subspace_projector import SubspaceProjector
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents


@dataclass(frozen=True)
class LinearConformation:
    """Infers z at the pose modes that another inference gives.

    A :class:`cryoinfer.inference.pose_inference.PoseInference`.

    Attributes
    ----------
    poses : PoseInference
        Its conformations are not looked at.
    noise_inflation : float
        What the variance of the noise is multiplied by: above 1 posteriors of z stay
        wide, so that a subspace that is not found yet does not freeze.
    """

    poses: PoseInference[SubspaceProjector]
    noise_inflation: float = 1.0

    def infer(
        self,
        images: WhitenedImages,
        projector: SubspaceProjector,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return the posteriors; pose and z are independent within a mode."""
        posed = self.poses.infer(images, projector, prior, start)

        def conditional(at: Latents) -> ConformationPosterior:
            return conformation_at(projector, images, at, prior, self.noise_inflation)

        whole = over_modes(posed, conditional)
        likelihood = projector.log_likelihood(images, whole.mode())
        return replace(whole, log_likelihood=likelihood)


def over_modes(
    posed: ParticlePosterior,
    conditional: Callable[[Latents], "ConformationPosterior"],
) -> ParticlePosterior:
    """Return posteriors of pose and z, independent within a mode, best modes first.

    Parameters
    ----------
    posed : ParticlePosterior
        Of the poses of n particles.
    conditional : callable
        Returns the posterior of z at one pose each; its evidence weighs the modes.
    """
    # Modes without weight in all particles need not be looked at.
    weighs = torch.nonzero((posed.weight > 0).any(0))
    posed = posed.best(int(weighs.max()) + 1 if len(weighs) else 1)
    n, count = posed.weight.shape
    modes, spreads, evidence = [], [], []
    for place in range(count):
        at = posed.modes[:, place]
        found = conditional(at)
        modes.append(replace(at, conformation=found.mean))
        spreads.append(found.covariance)
        evidence.append(found.log_evidence)
    weight = _weighed(posed.weight, torch.stack(evidence, 1))
    q = spreads[0].shape[-1]
    covariance = posed.weight.new_zeros(n, count, 6 + q, 6 + q)
    covariance[..., :6, :6] = posed.covariances[..., :6, :6]
    covariance[..., 6:, 6:] = torch.stack(spreads, 1)
    order = weight.argsort(dim=1, descending=True, stable=True)
    latents = Latents.joined([one[None] for one in modes]).transposed()
    return ParticlePosterior.of_modes(latents, weight, covariance).in_order(order)


def _weighed(before: Tensor, evidence: Tensor) -> Tensor:
    """Return the weights of modes by their evidence; those without any have none."""
    return evidence.masked_fill(before <= 0, -torch.inf).softmax(1)


@dataclass(frozen=True)
class ConformationPosterior:
    """Normal posteriors of z of n particles at one pose each.

    Attributes
    ----------
    mean : Tensor of float64, shape (n, q)
    covariance : Tensor of float64, shape (n, q, q)
    log_evidence : Tensor of float64, shape (n,)
        Up to a constant of the image.
    """

    mean: Tensor
    covariance: Tensor
    log_evidence: Tensor


def conformation_at(
    projector: SubspaceProjector,
    images: WhitenedImages,
    latents: Latents,
    prior: PosePrior,
    noise_inflation: float = 1.0,
) -> ConformationPosterior:
    """Return the posterior of z at given poses.

    Parameters
    ----------
    projector : SubspaceProjector
    images : WhitenedImages
        Of n particles.
    latents : Latents
        Their poses; the conformation is not looked at.
    prior : PosePrior
        Whose conformations have a spread.
    noise_inflation : float
        As of :class:`LinearConformation`.
    """
    likelihood = ConformationLikelihood.at(projector, images, latents, noise_inflation)
    sd = prior.unknowns_sd_angstrom[3:].to(likelihood.slope)
    return likelihood.posterior(sd)


def evidence_of_first_components(
    projector: SubspaceProjector,
    images: WhitenedImages,
    latents: Latents,
    prior: PosePrior,
    always: int = 0,
) -> Tensor:
    """Return the log evidence of images with none, one, .., all q of the components.

    Parameters
    ----------
    projector, images, latents, prior
        As for :func:`conformation_at`.
    always : int
        Components before these that are in all of them.

    Returns
    -------
    Tensor of float64, shape (n, 1 + q)
        Up to a constant of the image.
    """
    likelihood = ConformationLikelihood.at(projector, images, latents, 1.0)
    sd = prior.unknowns_sd_angstrom[3:].to(likelihood.slope)
    counts = range(always, 1 + len(projector.components))
    each = [likelihood.of_first(one).posterior(sd[:one]) for one in counts]
    return torch.stack([one.log_evidence for one in each], 1)


@dataclass(frozen=True)
class ConformationLikelihood:
    """The log-likelihood of n images as a parabola in z.

    Attributes
    ----------
    information : Tensor of float64, shape (n, q, q)
    slope : Tensor of float64, shape (n, q)
        At z of 0.
    power : Tensor of float64, shape (n,)
        Squared residual there.
    """

    information: Tensor
    slope: Tensor
    power: Tensor

    @classmethod
    def at(
        cls,
        projector: SubspaceProjector,
        images: WhitenedImages,
        latents: Latents,
        noise_inflation: float,
    ) -> "ConformationLikelihood":
        """Return that of images at given poses; as :func:`conformation_at`."""
        images = images.at_defocus_offset(latents.defocus_offset_angstrom)
        slices = projector.slices(latents.pose.rotation, images)
        shown = torch.view_as_real(images.ctf[:, None] * slices).flatten(2)
        moved = images.moved_back(latents.pose.shift_angstrom)
        seen = torch.view_as_real(moved).flatten(1)
        left, along = seen - shown[:, 0], shown[:, 1:]
        information = 2 * (along @ along.mT).double() / noise_inflation
        slope = 2 * (along @ left[..., None]).double()[..., 0] / noise_inflation
        power = left.square().sum(1).double() / noise_inflation
        return cls(information, slope, power)

    def of_first(self, count: int) -> "ConformationLikelihood":
        """Return that of the first components alone."""
        information = self.information[:, :count, :count]
        return ConformationLikelihood(information, self.slope[:, :count], self.power)

    def posterior(self, sd: Tensor) -> ConformationPosterior:
        """Return the posterior under a normal prior of widths (q,)."""
        precision = self.information + torch.diag(sd**-2)
        root = torch.linalg.cholesky(precision)
        covariance = torch.cholesky_inverse(root)
        mean = (covariance @ self.slope[..., None])[..., 0]
        log_volume = root.diagonal(dim1=1, dim2=2).log().sum(1) + sd.log().sum()
        evidence = 0.5 * (self.slope * mean).sum(1) - self.power - log_volume
        return ConformationPosterior(mean, covariance, evidence)
