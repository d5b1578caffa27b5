"""Beads: a coarse structure of Gaussians, each with a weight and a width of its own.

A Gaussian factorises over the axes as its wave does, so that an image of beads is one
matrix product, band-limited whatever the width: narrow beads do not alias.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from cryoinfer.arithmetic import reproducible_mean
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.waves import (
    cosine_sine_table,
    frequencies,
    images_of,
    map_of,
    products_of,
    turns_in_parts,
)
from cryoinfer.records import Pose

_FITTED_FREQUENCIES = 4000
_ROUNDS = 200  # of the minimiser, at most
_LEAST_VARIANCE_ANGSTROM2 = 0.1
_RESTRAINT = 1e-3
"""Loss, over the power of the atoms, of weights and widths that are all wrong by their
own size: a low resolution does not tell neighbouring beads apart."""


@dataclass(frozen=True)
class GaussianBeads:
    """Gaussians of scattering density.

    A :class:`cryoinfer.interfaces.Structure`, differentiable in all of its numbers.

    Attributes
    ----------
    coordinates_angstrom : Tensor, shape (b, 3), or (n, b, 3)
        As those of :class:`GaussianAtoms`.
    weight_angstrom : Tensor, shape (b,)
        Scattering length.
    variance_angstrom2 : Tensor, shape (b,)
        Along each axis, positive.
    """

    coordinates_angstrom: Tensor
    weight_angstrom: Tensor
    variance_angstrom2: Tensor

    @classmethod
    def fitted(
        cls,
        atoms: GaussianAtoms,
        bead_of_atom: Tensor,
        resolution_angstrom: float,
        generator: torch.Generator,
    ) -> "GaussianBeads":
        """Return beads that look like atoms up to a resolution.

        A bead lies in the middle of its atoms; weights and widths are those with the
        least squared error of the transform, at random frequencies that are even in
        the ball of the resolution, and with a pull towards those of the atoms.

        Parameters
        ----------
        atoms : GaussianAtoms
            Of one conformation.
        bead_of_atom : Tensor of int64, shape (a,)
            0 to b - 1, each of them at least once.
        resolution_angstrom : float
        generator : torch.Generator
            Of the frequencies.
        """
        start = cls._lumped(atoms, bead_of_atom)
        like = start.coordinates_angstrom
        normal = torch.randn(_FITTED_FREQUENCIES, 3, generator=generator)
        radius = torch.rand(_FITTED_FREQUENCIES, 1, generator=generator) ** (1 / 3)
        at = (normal / normal.norm(dim=1, keepdim=True) * radius).to(like)
        at = at / resolution_angstrom
        goal = atoms.transform_at(at)
        # Where beads are does not change: their waves are computed once.
        turns = 2 * math.pi * at @ like.T
        cosine, sine = turns.cos(), turns.sin()
        scale = reproducible_mean(goal.abs().square())
        weight = start.weight_angstrom.clone().requires_grad_()
        first_log_variance = start.variance_angstrom2.log()
        log_variance = first_log_variance.clone().requires_grad_()
        minimiser = torch.optim.LBFGS(
            [weight, log_variance], max_iter=_ROUNDS, line_search_fn="strong_wolfe"
        )

        def beads() -> GaussianBeads:
            variance = log_variance.exp() + _LEAST_VARIANCE_ANGSTROM2
            return replace(start, weight_angstrom=weight, variance_angstrom2=variance)

        def loss() -> Tensor:
            minimiser.zero_grad()
            size = beads()._sizes_at(at)
            real = (size * cosine).sum(1) - goal.real
            imaginary = (size * sine).sum(1) + goal.imag
            value = reproducible_mean(real.square() + imaginary.square()) / scale
            departed = (weight / start.weight_angstrom - 1).square().mean()
            departed = departed + (log_variance - first_log_variance).square().mean()
            value = value + _RESTRAINT * departed
            value.backward()
            return value

        minimiser.step(loss)
        found = beads()
        return replace(
            found,
            weight_angstrom=found.weight_angstrom.detach(),
            variance_angstrom2=found.variance_angstrom2.detach(),
        )

    def in_the_middle_of(self, atoms: GaussianAtoms, bead_of_atom: Tensor) -> Self:
        """Return the beads where their atoms have come, which moved as rigid parts."""
        middle = self._lumped(atoms, bead_of_atom).coordinates_angstrom
        return replace(self, coordinates_angstrom=middle)

    @classmethod
    def _lumped(cls, atoms: GaussianAtoms, bead_of_atom: Tensor) -> "GaussianBeads":
        """Return beads with the weight, the middle and the spread of their atoms."""
        own = atoms.amplitudes_angstrom.sum(1)[atoms.element]
        count = int(bead_of_atom.max()) + 1

        def summed(values: Tensor) -> Tensor:
            shape = (count, *values.shape[1:])
            return values.new_zeros(shape).index_add_(0, bead_of_atom, values)

        weight = summed(own)
        coordinates = atoms.coordinates_angstrom
        middle = summed(own[:, None] * coordinates) / weight[:, None]
        apart = (coordinates - middle[bead_of_atom]).square().mean(1)
        # exp(-w s^2 / 4) is a Gaussian of variance w / (8 pi^2) along each axis.
        width = atoms.widths_angstrom2 + atoms.b_factor_angstrom2
        share = atoms.amplitudes_angstrom / atoms.amplitudes_angstrom.sum(1)[:, None]
        blur = (share * width).sum(1)[atoms.element] / (8 * math.pi**2)
        return cls(middle, weight, summed(own * (apart + blur)) / weight)

    def _sizes_at(self, frequency: Tensor) -> Tensor:
        """Return the size of each bead's wave at frequencies (f, 3), shape (f, b)."""
        squared = frequency.square().sum(1)[:, None]
        return self.weight_angstrom * torch.exp(
            -2 * math.pi**2 * self.variance_angstrom2 * squared
        )

    def scaled(self, gain: float) -> "GaussianBeads":
        """Return beads that scatter as many times as strongly."""
        return replace(self, weight_angstrom=self.weight_angstrom * gain)

    def project(self, pose: Pose, box: int, pixel_size_angstrom: float) -> Tensor:
        """Return images without CTF, as :meth:`GaussianAtoms.project` does.

        Returns
        -------
        Tensor, shape (n, box, box)
        """
        coordinates = self.coordinates_angstrom
        one = coordinates.new_ones(1, coordinates.shape[-2])
        images = [
            images_of(self.products(turns, one, box, pixel_size_angstrom)[:, 0], box)
            for turns in turns_in_parts(coordinates, pose, box, pixel_size_angstrom)
        ]
        return torch.cat(images) if images else one.new_zeros(0, box, box)

    def products(
        self, turns: Tensor, weights: Tensor, box: int, pixel_size_angstrom: float
    ) -> Tensor:
        """Return sums over beads, as :meth:`GaussianAtoms.products` does."""
        size = self._sizes(box, box * pixel_size_angstrom)
        table = cosine_sine_table(turns, len(size)) * size
        x, y = table.flatten(2, 3).unbind(1)
        own = self.weight_angstrom / (box * pixel_size_angstrom**2)
        return products_of(y, x, weights * own)

    def to_map(self, box: int, pixel_size_angstrom: float) -> Tensor:
        """Return the density on a grid, as :meth:`GaussianAtoms.to_map` does."""
        side = box * pixel_size_angstrom
        size = self._sizes(box, side)
        turns = self.coordinates_angstrom.T / side
        table = cosine_sine_table(turns[None], len(size))[0] * size
        x, y, z = table
        x = x * self.weight_angstrom / (box * pixel_size_angstrom**2)
        slabs = [
            torch.einsum("xla,zyka->zykxl", x, z[:, k, None, None] * y)
            for k in range(len(size))
        ]
        return map_of(slabs, box)

    def _sizes(self, box: int, side: float) -> Tensor:
        """Return each bead's factor along an axis, frequencies from 0 on, (k, b)."""
        squared = (frequencies(box, self.coordinates_angstrom) / side).square()
        return torch.exp(-2 * math.pi**2 * self.variance_angstrom2 * squared[:, None])
