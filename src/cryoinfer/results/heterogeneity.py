"""What was found of conformations: a subspace of maps, and z of every particle."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.results.calibration_trial import CalibrationTrial
from cryoinfer.results.field import Field, FieldGain
from cryoinfer.results.run_result import Reconstruction, RunResult

ENCODER_NUMBERS = "encoder"
COMPONENTS, LAST_RADIUS = "components", "last_radius"
CONTRAST_SD = "contrast_sd"
"""Keys of a run's record: the encoder that has inferred its particles; the number of
components; the Fourier radius that the maps reach; and the spread of the contrast of
particles, where that was inferred."""


@dataclass(frozen=True)
class HeldOutGain:
    """How much likelier images of one half are in the subspace of the other.

    Attributes
    ----------
    mean_nats : tuple of float
        A particle, of the first k components over none, for k = 1 to q.
    se_nats : tuple of float
        Standard errors.
    step_nats, step_se_nats : tuple of float
        The same of the k-th component over those before it.
    """

    mean_nats: tuple[float, ...]
    se_nats: tuple[float, ...]
    step_nats: tuple[float, ...]
    step_se_nats: tuple[float, ...]

    @classmethod
    def of_nothing(cls, components: int) -> Self:
        """Return that of no particle."""
        nothing = (0.0,) * components
        return cls(nothing, nothing, nothing, nothing)

    SIGNIFICANT_SE = 3.0
    """Standard errors of a mean gain that count as a gain."""

    @property
    def significant(self) -> int:
        """How many components, the widest first, each say more than those before."""
        steps = zip(self.step_nats, self.step_se_nats, strict=True)
        for number, (step, error) in enumerate(steps):
            if not step > self.SIGNIFICANT_SE * error:  # NaN is no gain
                return number
        return len(self.step_nats)


@dataclass(frozen=True)
class Contrast:
    """How strong each particle is, 1 on average.

    Attributes
    ----------
    spread : float
        Standard deviation over particles, without the error of each.
    mean, sd : Tensor of float64, shape (n,)
        Posterior mean and standard deviation of each.
    """

    spread: float
    mean: Tensor
    sd: Tensor


@dataclass(frozen=True)
class Heterogeneity:
    """A linear subspace of maps, and the posterior of every particle in it.

    Attributes
    ----------
    run : RunResult
        Posteriors of n particles, whose conformation is z, q numbers of about unit
        spread; and the map of all that show it, whatever their conformation.
    maps : Tensor, shape (1 + q, m, m, m)
        The mean and the components, on the voxels of the particles.
    gain : HeldOutGain
    pose_r2 : tuple of float
        Share of the variance of each z that the pose and the defocus predict, of
        particles that the prediction was not fitted to.
    rigid_share : tuple of float
        Share of each component that a rigid motion of the mean would make.
    last_radius : int
        Fourier radius that the maps reach.
    field_gain : FieldGain or None
        Of curved fields over the subspace; None where none was tried.
    field : Field or None
        On the voxels of the particles. z is then of the field, and the components are
        its maps of z itself.
    contrast : Contrast or None
        None where particles were taken to be equally strong.
    trials : mapping of str to CalibrationTrial
        Of its posteriors, on simulated images; none where poses were given.
    """

    run: RunResult
    maps: Tensor
    gain: HeldOutGain
    pose_r2: tuple[float, ...]
    rigid_share: tuple[float, ...]
    last_radius: int
    field_gain: FieldGain | None = None
    field: Field | None = None
    contrast: Contrast | None = None
    trials: Mapping[str, CalibrationTrial] = dataclasses.field(default_factory=dict)

    @property
    def dims(self) -> int:
        """Number of components, which may be 0."""
        return len(self.maps) - 1

    @property
    def reconstruction(self) -> Reconstruction:
        """The map of all particles, whatever their conformation."""
        return self.run.reconstruction

    @cached_property
    def posterior(self) -> ParticlePosterior:
        """The posteriors of pose and z, the weights of their modes adding up to one."""
        return self.run.posterior

    @cached_property
    def z(self) -> Tensor:
        """Posterior means over all modes, float64, shape (n, q)."""
        weight = self.posterior.weight[..., None]
        return (weight * self.posterior.modes.conformation).sum(1)

    @cached_property
    def z_sd(self) -> Tensor:
        """Posterior standard deviations over all modes, float64, shape (n, q)."""
        found = self.posterior
        within = found.covariances[:, :, 6:, 6:].diagonal(dim1=-2, dim2=-1)
        away = found.modes.conformation - self.z[:, None]
        variance = (found.weight[..., None] * (within + away.square())).sum(1)
        return torch.sqrt(variance)
