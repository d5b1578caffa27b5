"""Structures of atoms, projected exactly.

Every atom scatters electrons with the factor of its element, a sum of five
Gaussians (International Tables for Crystallography C, table 4.3.2.2). Images and
maps are evaluated in Fourier space, where atoms are phases: no voxel grid, no
interpolation, no cut-off radius.

Units: a pixel of an image is the projected scattering length density in
1/angstrom, whatever the pixel size; times 47.88 V angstrom^2 it is the projected
potential in volt angstrom. A map sums to its image along z, so that its voxels
hold the density times the pixel size.
"""

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import gemmi
import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.physics.structures.waves import (
    cosine_sine_table,
    frequencies,
    images_of,
    map_of,
    products_of,
    turns_in_parts,
)
from cryoinfer.records import Pose


@dataclass(frozen=True)
class GaussianAtoms:
    """Atoms that scatter as sums of Gaussians.

    A :class:`cryoinfer.interfaces.Structure`, differentiable in the coordinates.

    Attributes
    ----------
    coordinates_angstrom : Tensor, shape (a, 3), or (n, a, 3)
        (x, y, z) from the image centre; the same for all images, or of each of n
        images its own. Their dtype is that of all results: float32 is exact to 1e-5
        of an image's largest value.
    element : Tensor of int64, shape (a,)
        Row of each atom in the tables.
    amplitudes_angstrom : Tensor, shape (e, 5)
        Scattering length of each Gaussian of an element.
    widths_angstrom2 : Tensor, shape (e, 5)
        The factor is ``sum(amplitude * exp(-width * s^2 / 4))`` at frequency s.
    b_factor_angstrom2 : float
        Added to all widths: a Gaussian blur of the whole structure.
    """

    coordinates_angstrom: Tensor
    element: Tensor
    amplitudes_angstrom: Tensor
    widths_angstrom2: Tensor
    b_factor_angstrom2: float = 0.0

    @classmethod
    def from_elements(
        cls,
        coordinates_angstrom: Tensor,
        elements: Sequence[str],
        b_factor_angstrom2: float = 0.0,
    ) -> "GaussianAtoms":
        """Look up the electron scattering factors of atoms.

        Parameters
        ----------
        coordinates_angstrom : Tensor, shape (a, 3)
        elements : sequence of str, length a
            Chemical symbols.
        b_factor_angstrom2 : float
            Of the whole structure, at least 0.

        Raises
        ------
        InputError
            If an element has no tabulated scattering factor.
        """
        if len(elements) != coordinates_angstrom.shape[0]:
            raise ValueError(
                f"{coordinates_angstrom.shape[0]} coordinates but "
                f"{len(elements)} elements"
            )
        names = sorted(set(elements))
        factors = [gemmi.Element(name).c4322 for name in names]
        unknown = [
            name for name, factor in zip(names, factors, strict=True) if factor is None
        ]
        if unknown:
            raise InputError(
                f"Electron scattering factors are known for elements, not for "
                f"{unknown}: correct or remove these atoms."
            )
        row = {name: i for i, name in enumerate(names)}
        table = coordinates_angstrom.new_tensor([[f.a, f.b] for f in factors])
        element = torch.tensor([row[name] for name in elements])
        return cls(
            coordinates_angstrom,
            element.to(coordinates_angstrom.device),
            table[:, 0],
            table[:, 1],
            b_factor_angstrom2,
        )

    def scaled(self, gain: float) -> "GaussianAtoms":
        """Return atoms that scatter as many times as strongly."""
        return replace(self, amplitudes_angstrom=self.amplitudes_angstrom * gain)

    def project(self, pose: Pose, box: int, pixel_size_angstrom: float) -> Tensor:
        """Return the images of the structure at the given poses, without CTF.

        ``F(k) = sum_e f_e(|k|) sum_a exp(-2 pi i k (R r_a + shift))``. The phase
        factorises over x and y, and only cosines and sines at k >= 0 are needed for
        all four signs of (kx, ky): an image costs one real matrix product of
        ``box x a x box``. The Nyquist row and column, whose sign is undefined in an
        even box, are left zero. What reaches beyond the box is wrapped around.

        Parameters
        ----------
        pose : Pose
            Of n particles.
        box : int
        pixel_size_angstrom : float

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
        """Return sums over atoms of cosines and sines along y and x.

        What images and their derivatives are made of (:mod:`waves`).

        Parameters
        ----------
        turns : Tensor, shape (n, 2, a)
            Where the atoms of each image lie, over the side of the image.
        weights : Tensor, shape (w, a), or (n, w, a)
            What each atom counts for in each of w sums.
        box : int
        pixel_size_angstrom : float

        Returns
        -------
        Tensor, shape (n, w, 2, k, 2, k)
            Frequencies from 0 to below Nyquist of the box.
        """
        frequency = frequencies(box, turns) / (box * pixel_size_angstrom)
        factors = self._factors(frequency[:, None] ** 2 + frequency**2)
        factors = factors / (box * pixel_size_angstrom**2)
        order, counts = self._atoms_by_element()
        tables = cosine_sine_table(turns[..., order], len(frequency)).flatten(2, 3)
        by_element = zip(
            factors,
            tables[:, 0].split(counts, -1),
            tables[:, 1].split(counts, -1),
            weights[..., order].split(counts, -1),
            strict=True,
        )
        return _total(
            products_of(y, x, weight) * factor[:, None]
            for factor, x, y, weight in by_element
        )

    def to_map(self, box: int, pixel_size_angstrom: float) -> Tensor:
        """Return the density on a grid, the band-limited twin of :meth:`project`.

        Of atoms that are the same in all images.

        Returns
        -------
        Tensor, shape (box, box, box)
            Axes (z, y, x); its sum over z is the image at the identity.
        """
        side = box * pixel_size_angstrom
        frequency = frequencies(box, self.coordinates_angstrom) / side
        squared = frequency**2
        factors = self._factors(squared[:, None, None] + squared[:, None] + squared) / (
            box * pixel_size_angstrom**2
        )
        order, counts = self._atoms_by_element()
        turns = self.coordinates_angstrom[order].T / side
        x, y, z = cosine_sine_table(turns[None], len(frequency))[0]
        slabs = []
        for k in range(len(frequency)):
            rows = z[:, k, None, None] * y
            by_element = zip(
                factors, x.split(counts, -1), rows.split(counts, -1), strict=True
            )
            slabs.append(
                _total(
                    torch.einsum("xla,zyka->zykxl", b, a) * f[k, :, None]
                    for f, b, a in by_element
                )
            )
        return map_of(slabs, box)

    def transform_at(self, frequency: Tensor) -> Tensor:
        """Return the transform at frequencies (f, 3) in 1/angstrom, complex, (f,).

        In angstrom; of atoms that are the same in all images.
        """
        turns = 2 * math.pi * frequency @ self.coordinates_angstrom.T
        factor = self._factors(frequency.square().sum(1))[self.element].T
        return torch.complex(
            (factor * turns.cos()).sum(1), -(factor * turns.sin()).sum(1)
        )

    def _atoms_by_element(self) -> tuple[Tensor, list[int]]:
        """Return the atoms' order by element and how many each element has."""
        counts = torch.bincount(self.element, minlength=len(self.amplitudes_angstrom))
        return torch.argsort(self.element, stable=True), counts.tolist()

    def _factors(self, squared_frequency: Tensor) -> Tensor:
        """Return the scattering factors of all elements, shape (e, ...)."""
        extra = squared_frequency.dim() * (None,)
        widths = self.widths_angstrom2 + self.b_factor_angstrom2
        return _total(
            a[(..., *extra)] * torch.exp(-b[(..., *extra)] / 4 * squared_frequency)
            for a, b in zip(self.amplitudes_angstrom.T, widths.T, strict=True)
        )


def _total(terms: Iterable[Tensor]) -> Tensor:
    """Add tensors up, one at a time."""
    return functools.reduce(torch.add, terms)
