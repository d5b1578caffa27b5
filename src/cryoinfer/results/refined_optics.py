"""What a refinement has found of the optics of each group, beside poses and map."""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.io.conventions.table import ParticleTable
from cryoinfer.physics.aberrations import (
    EVEN_TERMS,
    TREFOIL,
    with_coefficients,
    with_tilt,
)
from cryoinfer.physics.ctf import of_magnification, with_astigmatism
from cryoinfer.records import Optics

_TERMS = (
    ("beam_tilt_mrad", "beam_tilt_sd_mrad"),
    ("trefoil_radian", "trefoil_sd_radian"),
    ("even_radian", "even_sd_radian"),
    ("magnification", "stretch_sd"),
)
"""Of optics groups, each with its sd."""


@dataclass(frozen=True)
class RefinedOptics:
    """The optics of g groups; NaN where a number was left as the file has it.

    And the astigmatism of m micrographs, none where it was not refined.

    Attributes
    ----------
    beam_tilt_mrad, beam_tilt_sd_mrad : Tensor of float64, shape (g, 2)
    magnification : Tensor of float64, shape (g, 2, 2)
    trefoil_radian, trefoil_sd_radian : Tensor of float64, shape (g, 2)
        Odd coefficients at ``TREFOIL``.
    even_radian, even_sd_radian : Tensor of float64, shape (g, EVEN_TERMS)
        Even coefficients up to the fourth order.
    stretch_sd : Tensor of float64, shape (g, 2)
        Sd of half the difference of the magnification along x and y, and of its
        elements beside the diagonal. Sds are Cramer-Rao bounds at given poses.
    micrographs : tuple of str, length m
    astigmatism_angstrom, astigmatism_sd_angstrom : Tensor of float64, shape (m, 2)
        Added to ``(dU - dV) / 2`` times the cosine and sine of twice its angle.
    """

    beam_tilt_mrad: Tensor
    beam_tilt_sd_mrad: Tensor
    magnification: Tensor
    stretch_sd: Tensor
    trefoil_radian: Tensor
    trefoil_sd_radian: Tensor
    even_radian: Tensor
    even_sd_radian: Tensor
    micrographs: tuple[str, ...]
    astigmatism_angstrom: Tensor
    astigmatism_sd_angstrom: Tensor

    def __len__(self) -> int:
        return len(self.beam_tilt_mrad)

    @classmethod
    def unknown(cls, groups: int, micrographs: tuple[str, ...] = ()) -> Self:
        """Return what is known before anything was refined."""

        def of_groups(*shape: int) -> Tensor:
            return torch.full((groups, *shape), torch.nan, dtype=torch.float64)

        zero = torch.zeros(len(micrographs), 2, dtype=torch.float64)
        return cls(
            beam_tilt_mrad=of_groups(2),
            beam_tilt_sd_mrad=of_groups(2),
            magnification=of_groups(2, 2),
            stretch_sd=of_groups(2),
            trefoil_radian=of_groups(2),
            trefoil_sd_radian=of_groups(2),
            even_radian=of_groups(EVEN_TERMS),
            even_sd_radian=of_groups(EVEN_TERMS),
            micrographs=micrographs,
            astigmatism_angstrom=zero,
            astigmatism_sd_angstrom=torch.full_like(zero, torch.inf),
        )

    def applied(self, table: ParticleTable) -> Optics:
        """Return the optics of particles with what was found of their groups.

        Parameters
        ----------
        table : ParticleTable
            Of n particles, as their file has it.
        """
        optics = table.optics
        tilt = self.beam_tilt_mrad[optics.group]
        found = ~tilt.isnan().any(1)
        if bool(found.any()):
            own = optics.beam_tilt_mrad
            optics = with_tilt(optics, torch.where(found[:, None], tilt, own), found)
        odd = torch.full((len(optics), TREFOIL[1] + 1), torch.nan, dtype=torch.float64)
        odd[:, TREFOIL] = self.trefoil_radian[optics.group]
        optics = with_coefficients(optics, odd, self.even_radian[optics.group])
        matrix, own = self.magnification[optics.group], optics.magnification
        known = ~matrix.isnan().flatten(1).any(1)
        if bool(known.any()):
            new = torch.where(known[:, None, None], matrix, own)
            optics = of_magnification(optics, new)
        if self.micrographs:
            place = micrograph_index(table, self.micrographs)
            offset = self.astigmatism_angstrom[place] * (place >= 0)[:, None]
            optics = with_astigmatism(optics, offset)
        return optics

    def to_state(self) -> dict[str, Any]:
        """Return tensors and strings by name, for a checkpoint."""
        return {**vars(self), "micrographs": list(self.micrographs)}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Self:
        """Invert :meth:`to_state`."""
        return cls(**{**state, "micrographs": tuple(state["micrographs"])})

    def numbers(self) -> dict[str, Any]:
        """Return what the record of a run holds."""
        found: dict[str, Any] = {"groups": self._of_groups()}
        if self.micrographs:
            found["astigmatism"] = {
                "micrographs": len(self.micrographs),
                "change_rms_angstrom": float(_rms(self.astigmatism_angstrom)),
                "sd_median_angstrom": float(self.astigmatism_sd_angstrom.median()),
            }
        return found

    def _of_groups(self) -> list[dict[str, Any]]:
        entries = []
        for group in range(len(self)):
            entry: dict[str, Any] = {"optics_group": group + 1}
            for term, sd in _TERMS:
                value, width = getattr(self, term)[group], getattr(self, sd)[group]
                if not bool(value.isnan().any()):
                    entry |= {term: value.tolist(), sd: width.tolist()}
            entries.append(entry)
        return entries

    def with_group(self, group: int, **values: Tensor) -> Self:
        """Return the same with other numbers of one group."""
        changed = {}
        for name, value in values.items():
            whole = getattr(self, name).clone()
            whole[group] = value
            changed[name] = whole
        return replace(self, **changed)


def micrograph_names(table: ParticleTable) -> list[str]:
    """Return the micrograph of each particle, where it has none its optics group."""
    if table.micrograph is not None:
        return [str(name) for name in table.micrograph]
    return [f"optics group {number + 1}" for number in table.optics.group.tolist()]


def micrograph_index(table: ParticleTable, micrographs: tuple[str, ...]) -> Tensor:
    """Return the place of each particle's micrograph, -1 where it is none of them."""
    place = {name: number for number, name in enumerate(micrographs)}
    return torch.tensor([place.get(name, -1) for name in micrograph_names(table)])


def _rms(values: Tensor) -> Tensor:
    return values.square().mean().sqrt()
