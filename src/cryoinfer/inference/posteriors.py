"""The posterior of search and encoder alike: a mixture of Gaussians about modes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from cryoinfer.geometry.rotations import (
    random_rotations,
    random_turns_in_plane,
    rotate_in_image_frame,
    rotation_vector,
)
from cryoinfer.geometry.symmetry import nearest_mates
from cryoinfer.records import Latents, Pose

ALL_TURNS, IN_PLANE = 3, 1
"""How many directions of rotation are unknown: all, or that about the optical axis."""

LOG_VOLUME_OF_ROTATIONS = math.log(8 * math.pi**2)
"""Of all rotations, in cubic radians about any one of them."""

LOG_VOLUME_OF_TURNS = {
    ALL_TURNS: LOG_VOLUME_OF_ROTATIONS,
    IN_PLANE: math.log(2 * math.pi),
    0: 0.0,
}
"""Of what can be turned to in as many directions."""


def log_exponential_volume(angle: Tensor) -> Tensor:
    """Return the log of how the exponential map scales volumes at an angle.

    ``2 (1 - cos angle) / angle^2``, 1 at zero and 4 / pi^2 at half a turn: a density of
    rotation vectors divided by it is one of rotations (Chirikjian, Stochastic Models,
    Information Theory, and Lie Groups 2, 2012, section 10.3).

    Parameters
    ----------
    angle : Tensor
        Radians, 0 to pi.
    """
    return 2 * torch.sinc(angle / (2 * math.pi)).log()


_FARTHEST_SD, _HALVINGS = 9.0, 30  # of quantiles: beyond 1e-18
_LEAST_SD = 1e-12  # of an amplitude that was held


@dataclass(frozen=True)
class PoseMixture:
    """Gaussians about several modes of n particles, over a background.

    A :class:`cryoinfer.interfaces.Posterior`. About each mode, (rotation vector in the
    image frame in radian, shift, defocus and conformation in angstrom) is Gaussian;
    the background knows nothing of the rotation, and of the rest only the prior. The
    density is per volume of rotations (radian cubed, 8 pi^2 in all; radian, 2 pi in
    all, where only the angle in the plane was inferred) times the others, over the
    unknowns that were inferred. It integrates to one but for the Gaussians' tails
    beyond half a turn: 5e-6 at a sd of 0.6 radian.

    Attributes
    ----------
    rotation : Tensor of float64, shape (n, m, 3, 3)
        Best mode first.
    shift_angstrom : Tensor of float64, shape (n, m, 2)
    defocus_offset_angstrom : Tensor of float64, shape (n, m)
    weight : Tensor of float64, shape (n, m)
    covariance : Tensor of float64, shape (n, m, 6 + c, 6 + c)
        Zero rows and columns for unknowns that were held.
    background : Tensor of float64, shape (n,)
        Weight of the background; 1 with those of the modes.
    prior_variance : Tensor of float64, shape (3 + c,)
        Of shift x, shift y, defocus and conformation in the background, in angstrom
        squared.
    conformation : Tensor of float64, shape (n, m, c)
        In angstrom; of a rigid structure c is 0.
    """

    rotation: Tensor
    shift_angstrom: Tensor
    defocus_offset_angstrom: Tensor
    weight: Tensor
    covariance: Tensor
    background: Tensor
    prior_variance: Tensor
    conformation: Tensor

    @classmethod
    def of_modes(
        cls,
        rotation: Tensor,
        shift_angstrom: Tensor,
        defocus_offset_angstrom: Tensor,
        weight: Tensor,
        covariance: Tensor,
        conformation: Tensor | None = None,
    ) -> Self:
        """Return the mixture without a background."""
        if conformation is None:
            conformation = shift_angstrom.new_zeros(*weight.shape, 0)
        return cls(
            rotation,
            shift_angstrom,
            defocus_offset_angstrom,
            weight,
            covariance,
            torch.zeros(len(weight), dtype=torch.float64),
            torch.ones(3 + conformation.shape[-1], dtype=torch.float64),
            conformation,
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the mixtures of several, of one prior, in one."""
        names = [one.name for one in fields(cls) if one.name != "prior_variance"]
        whole = {name: torch.cat([getattr(p, name) for p in parts]) for name in names}
        return cls(**whole, prior_variance=parts[0].prior_variance)

    def folded(self, symmetry: Tensor) -> Self:
        """Return every mode at its mate nearest to the first, the densest first.

        A peak whose mates are modes of their own has the density of all of them.

        Parameters
        ----------
        symmetry : Tensor, shape (m, 3, 3)
            Rotations that leave the map as it is, the identity among them.
        """
        if len(symmetry) == 1:
            return self
        return self._about_first(symmetry).densest_first()._about_first(symmetry)

    def densest_first(self) -> Self:
        """Return the modes in the order of the density at their centres."""
        pose = Pose(self.rotation.movedim(1, 0), self.shift_angstrom.movedim(1, 0))
        offset, conformation = self.defocus_offset_angstrom, self.conformation
        at = Latents(pose, offset.mT, self._given(conformation.movedim(1, 0)))
        order = self.log_prob(at).mT.argsort(dim=1, descending=True, stable=True)
        return self.in_order(order)

    def _about_first(self, symmetry: Tensor) -> Self:
        first = self.rotation[:, :1].expand_as(self.rotation)
        return replace(self, rotation=nearest_mates(self.rotation, first, symmetry))

    def widened(self, factor: Tensor) -> Self:
        """Return the mixture with standard deviations multiplied by (6 + c,)."""
        return replace(self, covariance=self.covariance * factor[:, None] * factor)

    def __len__(self) -> int:
        return self.weight.shape[0]

    def __getitem__(self, index: Tensor | slice) -> Self:
        return type(self)(
            self.rotation[index],
            self.shift_angstrom[index],
            self.defocus_offset_angstrom[index],
            self.weight[index],
            self.covariance[index],
            self.background[index],
            self.prior_variance,
            self.conformation[index],
        )

    def in_order(self, order: Tensor) -> Self:
        """Return the mixture with the modes of each particle in an order (n, m)."""
        rows = torch.arange(len(self))[:, None]
        return replace(
            self,
            rotation=self.rotation[rows, order],
            shift_angstrom=self.shift_angstrom[rows, order],
            defocus_offset_angstrom=self.defocus_offset_angstrom[rows, order],
            weight=self.weight[rows, order],
            covariance=self.covariance[rows, order],
            conformation=self.conformation[rows, order],
        )

    def mode_alone(self, place: Tensor) -> Self:
        """Return one mode of each particle, at ``place`` (n,), as all there is."""
        alone = self.in_order(place[:, None])
        return replace(
            alone,
            weight=torch.ones_like(alone.weight),
            background=torch.zeros_like(self.background),
        )

    def mode(self) -> Latents:
        """Return the most probable mode of each particle, length n."""
        return Latents(
            Pose(self.rotation[:, 0], self.shift_angstrom[:, 0]),
            self.defocus_offset_angstrom[:, 0],
            self._given(self.conformation[:, 0]),
        )

    def sample(self, count: int, generator: torch.Generator) -> Latents:
        """Draw latents, leading dimensions (count, n)."""
        n, modes = self.weight.shape
        parts = torch.cat([self.weight, self.background[:, None]], 1)
        chosen = torch.multinomial(
            parts, count, replacement=True, generator=generator
        ).T
        astray = chosen == modes
        chosen = chosen.clamp(max=modes - 1)
        rows = torch.arange(n).expand(count, n)
        # The square root of a covariance may be singular where unknowns are held.
        values, vectors = torch.linalg.eigh(self.covariance)
        root = vectors * values.clamp(min=0).sqrt()[..., None, :]
        shape = count, n, root.shape[-1]
        normal = torch.randn(shape, generator=generator, dtype=torch.float64)
        step = (root[rows, chosen] @ normal[..., None])[..., 0]
        rotation = rotate_in_image_frame(self.rotation[rows, chosen], step[..., :3])
        shift = self.shift_angstrom[rows, chosen] + step[..., 3:5]
        offset = self.defocus_offset_angstrom[rows, chosen] + step[..., 5]
        conformation = self.conformation[rows, chosen] + step[..., 6:]
        if bool(astray.any()):
            wide = (
                normal[..., 3:] * (self._free()[:, 0, 3:] * self.prior_variance).sqrt()
            )
            lost = int(astray.sum())
            if self._turns() == ALL_TURNS:
                rotation[astray] = random_rotations(lost, generator)
            elif self._turns() == IN_PLANE:
                turned = random_turns_in_plane(lost, generator)
                rotation[astray] = turned @ rotation[astray]
            shift[astray] = wide[astray][:, :2]
            offset[astray] = wide[astray][:, 2]
            conformation[astray] = wide[astray][:, 3:]
        return Latents(Pose(rotation, shift), offset, self._given(conformation))

    def log_prob(self, latents: Latents) -> Tensor:
        """Return the log density, shape (..., n).

        Parameters
        ----------
        latents : Latents
            Leading dimensions (..., n). Unknowns that were held are not looked at.
        """
        parts = self.log_parts(latents, self.departures(latents))
        return torch.logsumexp(parts, dim=-1)

    def departures(self, latents: Latents) -> Tensor:
        """Return how far latents (..., n) are from each mode, (..., n, m, 6 + c).

        Rotation vectors in the image frame in radian, all else in angstrom.
        """
        turn = rotation_vector(latents.pose.rotation.unsqueeze(-3) @ self.rotation.mT)
        away = latents.offsets_angstrom.unsqueeze(-2) - self._others_of_modes()
        return torch.cat([turn, away], dim=-1)

    def log_parts(self, latents: Latents, departures: Tensor) -> Tensor:
        """Return the log density of each mode and the background, (..., n, m + 1).

        Each times its weight. ``departures`` are those of the latents.
        """
        precision, log_volume, free = self._precision()
        square = torch.einsum("...i,...ij,...j->...", departures, precision, departures)
        constant = 0.5 * (free.sum(-1) * math.log(2 * math.pi) + log_volume)
        near = self.weight.log() - 0.5 * square - constant
        if self._turns() == ALL_TURNS:
            near = near - log_exponential_volume(departures[..., :3].norm(dim=-1))
        far = self.background.log() + self._log_background(latents)
        return torch.cat([near, far[..., None]], -1)

    def _others_of_modes(self) -> Tensor:
        offset = self.defocus_offset_angstrom[..., None]
        return torch.cat([self.shift_angstrom, offset, self.conformation], -1)

    def _given(self, conformation: Tensor) -> Tensor | None:
        """Return a conformation, nothing of a rigid structure."""
        return conformation if conformation.shape[-1] else None

    def _turns(self) -> int:
        """Return how many directions of rotation were inferred: 3, 1 or 0."""
        return int(self._free()[..., :3].flatten(0, -2).any(0).sum())

    def _log_background(self, latents: Latents) -> Tensor:
        """Return the log density of the background, shape (..., n)."""
        step = latents.offsets_angstrom
        spread = 2 * math.pi * self.prior_variance
        terms = -0.5 * (step.square() / self.prior_variance + spread.log())
        of_turns = LOG_VOLUME_OF_TURNS[self._turns()]
        return (terms * self._free()[:, 0, 3:]).sum(-1) - of_turns

    def log_prob_of_orbit(self, latents: Latents, symmetry: Tensor) -> Tensor:
        """Return the log density of poses and all their mates together, (..., n).

        Parameters
        ----------
        latents : Latents
            Leading dimensions (..., n).
        symmetry : Tensor, shape (m, 3, 3)
            Rotations that leave the map as it is, the identity among them.
        """
        pose = latents.pose
        turned = (replace(pose, rotation=pose.rotation @ mate) for mate in symmetry)
        each = [self.log_prob(replace(latents, pose=mate)) for mate in turned]
        return torch.logsumexp(torch.stack(each), 0)

    def credible_level(
        self,
        latents: Latents,
        count: int,
        generator: torch.Generator,
        symmetry: Tensor,
    ) -> Tensor:
        """Return the mass of the smallest credible set that holds given latents.

        Estimated from ``count`` draws: the share of them that are likelier. Sets are
        of poses modulo the group: which mate is given, or drawn, does not matter.

        Parameters
        ----------
        latents : Latents
            Of n particles.
        count : int
        generator : torch.Generator
        symmetry : Tensor, shape (m, 3, 3)
            Rotations that leave the map as it is, the identity among them.

        Returns
        -------
        Tensor of float64, shape (n,)
        """
        drawn = self.log_prob_of_orbit(self.sample(count, generator), symmetry)
        own = self.log_prob_of_orbit(latents, symmetry)
        return (drawn > own).double().mean(0)

    def amplitude_moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of each amplitude, (n, c) both."""
        weight, place, sd = self._amplitudes()
        mean = (weight * place).sum(1)
        square = (weight * (sd.square() + (place - mean[:, None]).square())).sum(1)
        return mean, square.sqrt()

    def amplitude_quantile(self, level: float) -> Tensor:
        """Return what each amplitude is below with a probability, shape (n, c).

        By halving an interval that holds it, to 1e-9 of its width.

        Parameters
        ----------
        level : float
            Between 0 and 1, ends excluded.
        """
        weight, place, sd = self._amplitudes()
        low = (place - _FARTHEST_SD * sd).amin(1)
        high = (place + _FARTHEST_SD * sd).amax(1)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            away = (middle[:, None] - place) / sd
            below = (weight * torch.special.ndtr(away)).sum(1) < level
            low = torch.where(below, middle, low)
            high = torch.where(below, high, middle)
        return (low + high) / 2

    def _amplitudes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return weight (n, p, 1), place and sd (n, p, c) of parts, background last."""
        variance = self.covariance.diagonal(dim1=-2, dim2=-1)[..., 6:]
        n, _, c = variance.shape
        wide = self.prior_variance[3:].expand(n, 1, c)
        weight = torch.cat([self.weight, self.background[:, None]], 1)
        place = torch.cat([self.conformation, torch.zeros_like(wide)], 1)
        # The background of a mixture without one has no weight and any width.
        sd = torch.cat([variance, wide], 1).sqrt()
        return weight[..., None], place, sd.clamp(min=_LEAST_SD)

    def entropy(self) -> Tensor:
        """Return the entropy in nats, shape (n,), of parts that do not overlap.

        Where they do, it is an upper bound; that turns fill less volume than their
        vectors is left out, 0.1 nat at a sd of 0.6 radian.
        """
        _, log_volume, free = self._precision()
        gaussian = 0.5 * (free.sum(-1) * math.log(2 * math.pi * math.e) + log_volume)
        discrete = -torch.xlogy(self.weight, self.weight)
        spread = (2 * math.pi * math.e * self.prior_variance).log()
        wide = 0.5 * (self._free()[:, 0, 3:] * spread).sum(-1)
        wide = wide + LOG_VOLUME_OF_TURNS[self._turns()]
        apart = self.background * wide - torch.xlogy(self.background, self.background)
        return (self.weight * gaussian + discrete).sum(-1) + apart

    def _free(self) -> Tensor:
        """Tell which unknowns were inferred, shape (n, m, 6 + c)."""
        return self.covariance.diagonal(dim1=-2, dim2=-1) > 0

    def _precision(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return inverse covariances, their log determinants, and what is free."""
        free = self._free()
        filled = self.covariance + torch.diag_embed((~free).double())
        inverse = torch.linalg.inv(filled) * (free[..., None] & free[..., None, :])
        return inverse, torch.linalg.slogdet(filled).logabsdet, free
