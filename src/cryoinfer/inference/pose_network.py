"""The encoder: one pass from a picture to a mixture of poses and all else unknown.

Convolutions that halve the picture, two beside the identity at the lowest resolution,
modulated by the CTF and the noise, then components that each name a rotation (two
vectors, made orthonormal: s2s2), an offset and the factor of their precision. What it
returns is a density on the group, whose log-probability of the true pose is what it
learns from.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Self

import roma
import torch
from torch import Tensor, nn

from cryoinfer.geometry.rotation_volume import (
    ALL_TURNS,
    IN_PLANE,
    LOG_VOLUME_OF_TURNS,
    log_exponential_volume,
)
from cryoinfer.geometry.rotations import rotation_vector, turns_in_plane
from cryoinfer.inference.encoder_inputs import EncoderInputs, feature_count
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.prior import PosePrior
from cryoinfer.records import Latents, Pose

_WIDEST_TURN_RADIAN = 0.6
"""Largest sd of a component in any direction: wider ones reach round the group."""

_WIDEST_OFFSET = 2.0  # of a component's shift or defocus, over the prior's sd

_DEEPEST = 1
"""Halvings after which layers get no wider."""

_LAST_SIDE = 4
_HIDDEN = 512
_CONDITION = 64


@dataclass(frozen=True)
class PoseNetworkConfig:
    """Size of the network and what it infers.

    Attributes
    ----------
    side : int
        Of the picture: 4 times a power of two.
    components : int
    width : int
        Channels at half the picture's resolution, a multiple of 8.
    """

    side: int = 32
    components: int = 8
    width: int = 64


@dataclass(frozen=True)
class MixtureParameters:
    """What the network says of b images, with k components and d unknowns.

    The unknowns are those of the rotation vector (all three, the angle in the plane,
    or none), t in number, then those of shift, defocus and conformation that the
    prior leaves open, over the prior's sd.

    Attributes
    ----------
    log_weight : Tensor, shape (b, k + 1)
        Normalised; the last is that of the background.
    rotation : Tensor, shape (b, k, 3, 3)
    offset : Tensor, shape (b, k, d - t)
    factor : Tensor, shape (b, k, d, d)
        Lower triangle L of the precision L L^T.
    """

    log_weight: Tensor
    rotation: Tensor
    offset: Tensor
    factor: Tensor

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return those of several batches as of one."""
        names = (field.name for field in fields(cls))
        return cls(*(torch.cat([getattr(p, name) for p in parts]) for name in names))

    def log_prob(self, rotation: Tensor, offset: Tensor) -> Tensor:
        """Return the log density, shape (b, ...), of poses (b, ..., 3, 3).

        ``offset`` is (b, ..., d - t), over the prior's sd. The density is that of a
        :class:`~cryoinfer.inference.particle_posterior.ParticlePosterior` in these
        units.
        """
        extra = rotation.dim() - 3
        k, d = self.factor.shape[1], self.factor.shape[-1]
        turns = d - self.offset.shape[-1]

        def beside(values: Tensor) -> Tensor:
            return values.view(len(values), *(1,) * extra, *values.shape[1:])

        turn = rotation_vector(rotation.unsqueeze(-3) @ beside(self.rotation).mT)
        away = offset.unsqueeze(-2) - beside(self.offset)
        step = torch.cat([turn[..., 3 - turns :], away], -1)
        white = (beside(self.factor).mT @ step[..., None])[..., 0]
        log_volume = beside(self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1))
        gaussian = log_volume - 0.5 * white.square().sum(-1)
        gaussian = gaussian - 0.5 * d * math.log(2 * math.pi)
        weight = beside(self.log_weight)
        near = weight[..., :k] + gaussian
        if turns == ALL_TURNS:
            near = near - log_exponential_volume(turn.norm(dim=-1))
        normal = 0.5 * (d - turns) * math.log(2 * math.pi)
        spread = 0.5 * offset.square().sum(-1) + normal
        far = weight[..., k] - spread - LOG_VOLUME_OF_TURNS[turns]
        return torch.logsumexp(torch.cat([near, far[..., None]], -1), -1)

    def log_prob_of_orbit(
        self, rotation: Tensor, offset: Tensor, symmetry: Tensor
    ) -> Tensor:
        """Return the log density of rotations that a symmetry does not tell apart.

        The sum over the mates is a density on the rotations modulo the symmetry: to
        learn it, a mixture need not name every mate.

        Parameters
        ----------
        rotation : Tensor, shape (b, 3, 3)
        offset : Tensor, shape (b, d - t)
            Over the prior's sd.
        symmetry : Tensor, shape (m, 3, 3)
            Rotations that leave the map as it is, the identity among them.

        Returns
        -------
        Tensor, shape (b,)
        """
        mates = rotation[:, None] @ symmetry.to(rotation)
        beside = offset[:, None].expand(-1, len(symmetry), -1)
        return torch.logsumexp(self.log_prob(mates, beside), 1)


class _Residual(nn.Module):
    """Two convolutions beside the identity, scaled and moved by the condition."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(_CONDITION, 2 * channels)

    def forward(self, values: Tensor, condition: Tensor) -> Tensor:
        """Return values of the same shape (b, c, h, w)."""
        scale, move = self.modulation(condition)[..., None, None].chunk(2, dim=1)
        modulated = self.norm(values) * (1 + scale) + move
        inner = nn.functional.silu(self.first(nn.functional.silu(modulated)))
        return values + self.second(inner)


class PoseNetwork(nn.Module):
    """Maps :class:`EncoderInputs` to :class:`MixtureParameters`.

    Parameters
    ----------
    config : PoseNetworkConfig
    prior : PosePrior
        An unknown whose sd is 0 is not inferred.
    """

    narrowing: Tensor

    ends = ("stem.", "head.", "last.")
    """Names of the layers that numbers come in and go out by, and of the large dense
    ones: to make those orthogonal took a quarter of a step and gained nothing."""

    def __init__(self, config: PoseNetworkConfig, prior: PosePrior) -> None:
        super().__init__()
        self.config, self.prior = config, prior
        # Which of shift x, shift y, defocus and amplitudes are inferred.
        self.sd = prior.unknowns_sd_angstrom
        self.open = self.sd > 0
        self.unknowns = prior.rotation_unknowns + int(self.open.sum())
        halvings = round(math.log2(config.side / _LAST_SIDE)) - 1
        if _LAST_SIDE * 2 ** (halvings + 1) != config.side or halvings < 0:
            raise ValueError(f"side must be 8, 16, 32, .., got {config.side}")
        widths = [config.width * 2 ** min(i, _DEEPEST) for i in range(halvings + 1)]
        self.condition = nn.Sequential(
            nn.Linear(feature_count(config.side), _CONDITION),
            nn.SiLU(),
            nn.Linear(_CONDITION, _CONDITION),
            nn.SiLU(),
        )
        # Pictures are smooth: convolutions that do not halve them took more than half
        # of the time, and learned less in it than more steps do.
        self.stem = nn.Conv2d(2, widths[0], 4, stride=2, padding=1)
        self.halvings = nn.ModuleList(
            nn.Conv2d(a, b, 2, stride=2) for a, b in itertools.pairwise(widths)
        )
        self.block = _Residual(widths[-1])
        corner = len(torch.tril_indices(self.unknowns, self.unknowns)[0])
        self.per_component = 6 + 1 + int(self.open.sum()) + corner
        self.head = nn.Sequential(
            nn.SiLU(),
            nn.Linear(widths[-1] * _LAST_SIDE**2, _HIDDEN),
            nn.SiLU(),
            nn.Linear(_HIDDEN, _HIDDEN),
            nn.SiLU(),
        )
        self.last = nn.Linear(_HIDDEN, config.components * self.per_component + 1)
        # What widths are divided by; fitted when all else has been learned.
        self.register_buffer("narrowing", torch.ones(self.unknowns))

    def forward(self, inputs: EncoderInputs) -> MixtureParameters:
        """Return the mixture of every image, in single precision."""
        condition = self.condition(inputs.features)
        picture = inputs.picture.contiguous(memory_format=torch.channels_last)
        values = self.stem(picture)
        for halving in self.halvings:
            values = halving(nn.functional.silu(values))
        values = self.block(values, condition)
        return self._mixture(self.last(self.head(values.flatten(1))))

    def _mixture(self, raw: Tensor) -> MixtureParameters:
        k, d, turns = (
            self.config.components,
            self.unknowns,
            self.prior.rotation_unknowns,
        )
        parts = raw[:, :-1].unflatten(1, (k, self.per_component))
        log_weight = torch.cat([parts[..., 6], raw[:, -1:]], 1).log_softmax(1)
        rows, columns = torch.tril_indices(d, d)
        entries = parts[..., 7 + d - turns :]
        least = [1 / _WIDEST_TURN_RADIAN] * turns + [1 / _WIDEST_OFFSET] * (d - turns)
        positive = nn.functional.softplus(entries)
        free = raw.new_zeros(len(raw), k, d, d, dtype=torch.float64)
        entries = torch.where(rows == columns, positive, entries)
        free[..., rows, columns] = entries.double()
        # A precision that is added bounds the sd in every direction. In double
        # precision: sharp posteriors are a million times the floor.
        floor = torch.tensor(least, device=raw.device, dtype=torch.float64).square()
        factor = torch.linalg.cholesky(free @ free.mT + torch.diag(floor)).float()
        factor = self.narrowing[:, None] * factor
        rotation = self._rotation(parts[..., :6])
        return MixtureParameters(
            log_weight, rotation, parts[..., 7 : 7 + d - turns], factor
        )

    def _rotation(self, numbers: Tensor) -> Tensor:
        """Return rotations of six numbers each, shape (..., 3, 3)."""
        if self.prior.rotation_unknowns == IN_PLANE:
            # The first two numbers are the cosine and the sine, but for their length.
            return turns_in_plane(torch.atan2(numbers[..., 1], numbers[..., 0]))
        return roma.special_gramschmidt(numbers.unflatten(-1, (3, 2)))

    def offset_of(self, latents: Latents) -> Tensor:
        """Return all but the rotation over the prior's sd, what is inferred of it."""
        values = latents.offsets_angstrom
        return (values[..., self.open] / self.sd[self.open]).float()

    def posterior(self, parameters: MixtureParameters) -> ParticlePosterior:
        """Return the mixture in angstrom, the densest component first."""
        own = parameters.log_prob(parameters.rotation, parameters.offset)
        order = own.argsort(1, descending=True)
        rows = torch.arange(len(order))[:, None]
        rotation = parameters.rotation[rows, order].double()
        scaled = parameters.offset[rows, order].double()
        factor = parameters.factor[rows, order].double()
        weight = parameters.log_weight[:, :-1].gather(1, order).double().exp()
        others = len(self.sd)
        offset = torch.zeros(*order.shape, others, dtype=torch.float64)
        offset[..., self.open] = scaled * self.sd[self.open]
        turned = torch.arange(3) >= 3 - self.prior.rotation_unknowns
        free = torch.nonzero(torch.cat([turned, self.open])).squeeze(1)
        unit = torch.cat([torch.ones(3, dtype=torch.float64), self.sd])[free]
        inverse = torch.linalg.inv(factor)
        shape = (*order.shape, 3 + others, 3 + others)
        covariance = torch.zeros(shape, dtype=torch.float64)
        small = inverse.mT @ inverse * unit[:, None] * unit
        covariance[..., free[:, None], free] = small
        total = weight.sum(1)
        return ParticlePosterior(
            # Single precision leaves rotations orthonormal to 1e-7 only.
            Latents(
                Pose(roma.special_procrustes(rotation), offset[..., :2]),
                offset[..., 2],
                offset[..., 3:],
            ),
            weight,
            covariance,
            torch.full_like(total, torch.nan),
            (1 - total).clamp(min=0.0),
            torch.where(self.open, self.sd**2, 1.0),
        )
