"""The posterior of every particle: a mixture of Gaussians about modes."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.geometry.rotation_volume import (
    ALL_TURNS,
    IN_PLANE,
    LOG_VOLUME_OF_TURNS,
    log_exponential_volume,
)
from cryoinfer.geometry.rotations import (
    random_rotations,
    random_turns_in_plane,
    rotate_in_image_frame,
    rotation_vector,
)
from cryoinfer.geometry.symmetry import nearest_mates
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.records import Indexable, Latents, Pose

_PER_PARTICLE = ("weight", "covariance", "log_likelihood", "background")
"""Tensors of one row a particle; the prior is one of all."""


@dataclass(frozen=True)
class ParticlePosterior(Indexable):
    """The posterior of each of n particles: Gaussians about m modes, and a background.

    A :class:`cryoinfer.interfaces.Posterior`. About each mode, (rotation vector in the
    image frame in radian, shift, defocus and conformation in angstrom) is Gaussian;
    the background knows nothing of the rotation, and of the rest only the prior. The
    density is per volume of rotations (radian cubed, 8 pi^2 in all; radian, 2 pi in
    all, where only the angle in the plane was inferred) times the others, over the
    unknowns that were inferred. It integrates to one but for the Gaussians' tails
    beyond half a turn: 5e-6 at a sd of 0.6 radian.

    Attributes
    ----------
    modes : Latents
        Leading dimensions (n, m), float64, the most probable mode first.
    weight : Tensor of float64, shape (n, m)
    covariance : Tensor of float64, shape (n, m, 6 + c, 6 + c)
        Zero rows and columns for unknowns that were held. Of shape (n, 1, ...) where
        all modes of a particle have that of the first, which saves most of the memory.
    log_likelihood : Tensor of float64, shape (n,)
        Minus the squared residual of the whitened image at the first mode; NaN where
        no structure was compared with the image.
    background : Tensor of float64, shape (n,)
        Weight of the background; 1 with those of the modes.
    prior_variance : Tensor of float64, shape (3 + c,)
        Of shift x, shift y, defocus and conformation in the background, in angstrom
        squared.
    """

    modes: Latents
    weight: Tensor
    covariance: Tensor
    log_likelihood: Tensor
    background: Tensor
    prior_variance: Tensor

    @classmethod
    def of_modes(
        cls,
        modes: Latents,
        weight: Tensor,
        covariance: Tensor,
        log_likelihood: Tensor | None = None,
    ) -> Self:
        """Return the posterior without a background."""
        none = weight.new_zeros(len(weight), dtype=torch.float64)
        if log_likelihood is None:
            log_likelihood = none + torch.nan
        return cls(
            modes,
            weight,
            covariance,
            log_likelihood,
            none,
            none.new_ones(3 + modes.conformation.shape[-1]),
        )

    @classmethod
    def at(cls, latents: Latents, count: int) -> Self:
        """Return ``count`` modes at the same latents, of which only the first counts.

        Nothing is known of their widths, and no image has been seen.
        """
        n, d = len(latents), 3 + latents.offsets_angstrom.shape[-1]
        latents = latents.double()
        weight = latents.pose.rotation.new_zeros(n, count)
        weight[:, 0] = 1
        repeated = latents[:, None][:, torch.zeros(count, dtype=torch.int64)]
        covariance = weight.new_zeros(n, 1, d, d)
        return cls.of_modes(repeated, weight, covariance)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the posteriors of several batches, of one prior, in one."""
        tensors = {
            name: torch.cat([getattr(part, name) for part in parts])
            for name in _PER_PARTICLE
        }
        modes = Latents.joined([part.modes for part in parts])
        return replace(parts[0], modes=modes, **tensors)

    def with_rows(self, index: Tensor | tuple[Tensor, ...], part: Self) -> Self:
        """Return a copy whose particles at ``index`` are those of a part."""
        places = index if isinstance(index, tuple) else (index,)
        tensors = {}
        for name in _PER_PARTICLE:
            own, new = getattr(self, name), getattr(part, name)
            tensors[name] = own.index_put(places, new.to(own))
        modes = self.modes.with_rows(places, part.modes)
        return replace(self, modes=modes, **tensors)

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
        order = self.log_prob(self.modes.transposed()).mT
        return self.in_order(order.argsort(dim=1, descending=True, stable=True))

    def _about_first(self, symmetry: Tensor) -> Self:
        rotation = self.modes.pose.rotation
        near = nearest_mates(rotation, rotation[:, :1].expand_as(rotation), symmetry)
        pose = replace(self.modes.pose, rotation=near)
        return replace(self, modes=replace(self.modes, pose=pose))

    def inflated(self, factor: Tensor) -> Self:
        """Return the posterior with standard deviations multiplied by (6 + c,)."""
        return replace(self, covariance=self.covariance * factor[:, None] * factor)

    def __len__(self) -> int:
        return self.weight.shape[0]

    def __getitem__(self, index: Any) -> Self:
        tensors = {name: getattr(self, name)[index] for name in _PER_PARTICLE}
        return replace(self, modes=self.modes[index], **tensors)

    def best(self, count: int) -> Self:
        """Return so many modes of each particle, their weights as they are.

        Where there are fewer the first repeats, with no weight.
        """
        own = torch.arange(count, device=self.weight.device)
        order = own.where(own < self.weight.shape[1], 0)
        known = (own < self.weight.shape[1]).to(self.weight)
        covariance = self.covariance
        return replace(
            self,
            modes=self.modes[:, order],
            weight=self.weight[:, order] * known,
            covariance=covariance if covariance.shape[1] == 1 else covariance[:, order],
        )

    def with_first_covariance(self) -> Self:
        """Return the posterior with the covariance of the first mode for all."""
        return replace(self, covariance=self.covariance[:, :1])

    def normalised(self) -> Self:
        """Return the posterior in float64, the weights of its modes adding up to one.

        What lies elsewhere is left out. Of a particle whose modes have no weight the
        first one counts.
        """
        found = self.double()
        total = found.weight.sum(1, keepdim=True)
        first = torch.zeros_like(found.weight[:1])
        first[:, 0] = 1
        weight = torch.where(total > 0, found.weight / total.clamp(min=1e-300), first)
        return replace(found, weight=weight, background=torch.zeros_like(weight[:, 0]))

    def with_mode(self, found: PosteriorModes) -> Self:
        """Return the posterior with another first mode, whose covariance all have."""
        return replace(
            self.with_first_mode(found.latents),
            covariance=found.covariance()[:, None],
            log_likelihood=found.log_likelihood,
        )

    def with_first_mode(self, latents: Latents) -> Self:
        """Return the posterior with its first modes at other latents."""
        rows = torch.arange(len(self), device=self.weight.device)
        first = torch.zeros_like(rows)
        return replace(self, modes=self.modes.with_rows((rows, first), latents))

    def double(self) -> Self:
        """Return the posterior in float64."""
        return replace(
            self,
            modes=self.modes.double(),
            weight=self.weight.double(),
            covariance=self.covariance.double(),
            log_likelihood=self.log_likelihood.double(),
        )

    def in_order(self, order: Tensor) -> Self:
        """Return the posterior with the modes of each particle in an order (n, m)."""
        rows = torch.arange(len(self), device=order.device)[:, None]
        return replace(
            self,
            modes=self.modes[rows, order],
            weight=self.weight[rows, order],
            covariance=self.covariances[rows, order],
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
        return self.modes[:, 0]

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
        root = root.expand(n, modes, -1, -1)
        shape = count, n, root.shape[-1]
        normal = torch.randn(shape, generator=generator, dtype=torch.float64)
        step = (root[rows, chosen] @ normal[..., None])[..., 0]
        centre = self.modes[rows, chosen]
        rotation = rotate_in_image_frame(centre.pose.rotation, step[..., :3])
        shift = centre.pose.shift_angstrom + step[..., 3:5]
        offset = centre.defocus_offset_angstrom + step[..., 5]
        conformation = centre.conformation + step[..., 6:]
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
        return Latents(Pose(rotation, shift), offset, conformation)

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
        centre = self.modes.pose.rotation
        turn = rotation_vector(latents.pose.rotation.unsqueeze(-3) @ centre.mT)
        away = latents.offsets_angstrom.unsqueeze(-2) - self.modes.offsets_angstrom
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

    @property
    def covariances(self) -> Tensor:
        """One of each mode, shape (n, m, 6 + c, 6 + c)."""
        return self.covariance.expand(-1, self.weight.shape[1], -1, -1)

    def _free(self) -> Tensor:
        """Tell which unknowns were inferred, shape (n, m, 6 + c), or (n, 1, 6 + c)."""
        return self.covariance.diagonal(dim1=-2, dim2=-1) > 0

    def _precision(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return inverse covariances, their log determinants, and what is free."""
        free = self._free()
        filled = self.covariance + torch.diag_embed((~free).double())
        inverse = torch.linalg.inv(filled) * (free[..., None] & free[..., None, :])
        return inverse, torch.linalg.slogdet(filled).logabsdet, free
