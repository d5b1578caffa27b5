"""What a refinement has found of the optics of each group, beside poses and map."""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.physics.aberrations import with_tilt
from cryoinfer.physics.ctf import of_magnification
from cryoinfer.records import Indexable, Optics


@dataclass(frozen=True)
class RefinedOptics(Indexable):
    """The optics of g groups; NaN where a number was left as the file has it.

    Attributes
    ----------
    beam_tilt_mrad, beam_tilt_sd_mrad : Tensor of float64, shape (g, 2)
    magnification : Tensor of float64, shape (g, 2, 2)
    stretch_sd : Tensor of float64, shape (g, 2)
        Sd of half the difference of the magnification along x and y, and of its
        elements beside the diagonal. Sds are Cramer-Rao bounds at given poses.
    """

    beam_tilt_mrad: Tensor
    beam_tilt_sd_mrad: Tensor
    magnification: Tensor
    stretch_sd: Tensor

    def __len__(self) -> int:
        return len(self.beam_tilt_mrad)

    @classmethod
    def unknown(cls, groups: int) -> Self:
        """Return what is known before anything was refined."""
        pair = torch.full((groups, 2), torch.nan, dtype=torch.float64)
        matrix = torch.full((groups, 2, 2), torch.nan, dtype=torch.float64)
        return cls(pair, pair.clone(), matrix, pair.clone())

    def applied(self, optics: Optics) -> Optics:
        """Return the optics of particles with what was found of their groups.

        Parameters
        ----------
        optics : Optics
            Of n particles, as their file has it.
        """
        tilt = self.beam_tilt_mrad[optics.group]
        found = ~tilt.isnan().any(1)
        if bool(found.any()):
            own = optics.beam_tilt_mrad
            optics = with_tilt(optics, torch.where(found[:, None], tilt, own), found)
        matrix, own = self.magnification[optics.group], optics.magnification
        known = ~matrix.isnan().flatten(1).any(1)
        if bool(known.any()):
            new = torch.where(known[:, None, None], matrix, own)
            optics = of_magnification(optics, new)
        return optics

    def numbers(self) -> list[dict[str, Any]]:
        """Return what the record of a run holds, one entry a group."""
        entries = []
        for group in range(len(self)):
            entry: dict[str, Any] = {"optics_group": group + 1}
            if not bool(self.beam_tilt_mrad[group].isnan().any()):
                entry["beam_tilt_mrad"] = self.beam_tilt_mrad[group].tolist()
                entry["beam_tilt_sd_mrad"] = self.beam_tilt_sd_mrad[group].tolist()
            if not bool(self.magnification[group].isnan().any()):
                entry["magnification"] = self.magnification[group].tolist()
                entry["stretch_sd"] = self.stretch_sd[group].tolist()
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
