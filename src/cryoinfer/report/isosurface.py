"""A map as its surface at a level of density, which a slider moves."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from cryoinfer.data.map_mass import DALTON_PER_ANGSTROM3, mass_kilodalton
from cryoinfer.report.packing import encode, pack
from cryoinfer.report.parts import packaged
from cryoinfer.report.surface import surface_level
from cryoinfer.report.surface_view import surface_figure, surface_script

MOST_VOXELS = 64
"""Along the longest edge of the shown density: 0.7 MB of a page."""

_LOWEST, _HIGHEST = 0.35, 0.8
"""Ends of the slider: of the first level, and of the way from it to the maximum."""

_SPARE_ANGSTROM = 4.0  # about what the lowest level encloses
_ROOM = 1.1  # about what the first level encloses, on the canvas
_TABLE = 201  # levels whose volume is known


@dataclass(frozen=True)
class Chain:
    """A backbone in the frame of a map.

    Attributes
    ----------
    coordinates_angstrom : ndarray, shape (n, 3)
        x, y, z from the middle of the box.
    number : ndarray of int64, shape (n,)
        Neighbours of one number are joined by a line.
    """

    coordinates_angstrom: NDArray[np.float64]
    number: NDArray[np.int64]


@dataclass(frozen=True)
class ShownMap:
    """The part of a map that a page shows, on voxels of its own.

    Attributes
    ----------
    values : ndarray, shape (l, m, n)
        Axes z, y, x.
    origin, spacing : ndarray, shape (3,)
        Of x, y, z: the first voxel from the middle of the map, and voxels, in angstrom.
    """

    values: NDArray[np.float64]
    origin: NDArray[np.float64]
    spacing: NDArray[np.float64]

    @classmethod
    def of(cls, density: NDArray[Any], voxel_angstrom: float, level: float) -> Self:
        """Return what has density above a level, with some space about it.

        Parameters
        ----------
        density : ndarray, shape (m, m, m)
        voxel_angstrom : float
        level : float
            That some of it exceeds.
        """
        spare = int(np.ceil(_SPARE_ANGSTROM / voxel_angstrom))
        above = _largest_piece(density > level)
        ends = [
            (max(0, int(at.min()) - spare), int(at.max()) + 1 + spare)
            for at in np.nonzero(above)
        ]
        part = np.asarray(density[tuple(slice(*one) for one in ends)], dtype=float)
        factor = max(part.shape) / MOST_VOXELS
        if factor > 1:  # smoothed, so that none of it is skipped
            part = ndimage.gaussian_filter(part, factor / 2)
        voxels = np.maximum(np.rint(np.array(part.shape) / factor), 2)
        shown = ndimage.zoom(part, voxels / part.shape, order=1 if factor > 1 else 3)
        # Grids share their outermost voxel centres.
        spacing = (np.array(part.shape) - 1) / (np.array(shown.shape) - 1)
        first = np.array([low for low, _ in ends]) - len(density) // 2
        return cls(shown, first[::-1] * voxel_angstrom, spacing[::-1] * voxel_angstrom)


@dataclass(frozen=True)
class Isosurface:
    """What is needed to show a map as a surface.

    Attributes
    ----------
    density : ndarray, shape (m, m, m)
        Axes z, y, x; not the same everywhere.
    voxel_angstrom : float
    chain : Chain, optional
        Shown within the surface.
    """

    density: NDArray[Any]
    voxel_angstrom: float
    chain: Chain | None = None

    @cached_property
    def level(self) -> float:
        """The level that is shown first, as density.

        As much of the map is above it as a molecule of its mass takes, where that can
        be told. A threshold between two kinds of voxels is often far lower: a map is 0
        where it was masked, and all else is then of the other kind.
        """
        if self.mass_kilodalton is None:
            return surface_level(self.density)
        volume = 1000 * self.mass_kilodalton / DALTON_PER_ANGSTROM3
        voxels = round(volume / self.voxel_angstrom**3)
        return float(np.sort(self.density, axis=None)[-max(2, voxels)])

    @cached_property
    def mass_kilodalton(self) -> float | None:
        """Of a protein as large as what the map shows, where that can be told."""
        density = torch.from_numpy(np.ascontiguousarray(self.density))
        return mass_kilodalton(density, self.voxel_angstrom)

    @cached_property
    def mean(self) -> float:
        """Mean of all voxels."""
        return float(self.density.mean(dtype=float))

    @cached_property
    def sigma(self) -> float:
        """Standard deviation of all voxels."""
        return float(self.density.std(dtype=float))

    def in_sigma(self, level: float) -> float:
        """Return a density as standard deviations above the mean."""
        return (level - self.mean) / self.sigma

    def enclosed_angstrom3(self, levels: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the volume of the map's voxels above each level."""
        values = np.sort(self.density, axis=None)
        above = len(values) - np.searchsorted(values, levels, side="right")
        return np.asarray(above * self.voxel_angstrom**3)


def has_surface(density: NDArray[Any]) -> bool:
    """Tell whether there is a level that a map has values above and below."""
    return bool(np.isfinite(density).all() and np.ptp(density) > 0)


def isosurface_view(found: Isosurface) -> str:
    """Return the figure with its data and scripts.

    Parameters
    ----------
    found : Isosurface

    Returns
    -------
    str
        HTML; once on a page.
    """
    top = float(found.density.max())
    low = found.mean + _LOWEST * (found.level - found.mean)
    high = found.level + _HIGHEST * (top - found.level)
    shown = ShownMap.of(found.density, found.voxel_angstrom, low)
    packed = pack(shown.values)
    least, first, most = (found.in_sigma(one) for one in (low, found.level, high))
    table = np.linspace(low, high, _TABLE)
    about: dict[str, Any] = {
        "shape": shown.values.shape,
        "origin": _rounded(shown.origin),
        "spacing": [float(f"{one:.6g}") for one in shown.spacing],
        "least": packed.least,
        "step": packed.step,
        "mean": found.mean,
        "sigma": found.sigma,
        "level": round(first, 2),
        "enclosed": {
            "from": least,
            "to": most,
            "volumes": _rounded(found.enclosed_angstrom3(table)),
        },
        "dalton": DALTON_PER_ANGSTROM3,
        "reach": _reach(found, shown),
        "chain": _told_chain(found.chain),
    }
    slider = (
        '<label><span>Level</span> <input type="range" class="level" '
        f'min="{least:.2f}" max="{most:.2f}" step="0.05" value="{first:.2f}">'
        '<output></output></label>\n<p class="reading"></p>'
    )
    text = json.dumps(about, separators=(",", ":"))
    return "\n".join(
        (
            surface_figure("isosurface", slider, "", _caption(found, shown)),
            f'<script type="application/json" id="isosurface-about">{text}</script>',
            '<script type="application/octet-stream" id="isosurface-density">'
            f"{encode(packed.codes)}</script>",
            surface_script(),
            f"<script>\n{packaged('isosurface.js')}</script>",
        )
    )


def _caption(found: Isosurface, shown: ShownMap) -> str:
    sides = shown.spacing * (np.array(shown.values.shape[::-1]) - 1)
    across = " \N{MULTIPLICATION SIGN} ".join(f"{one:.0f}" for one in sides)
    voxel = float(shown.spacing.mean())
    how = "coarser than" if voxel > 1.02 * found.voxel_angstrom else "interpolated from"
    first = (
        "divides the voxels best into two kinds (Otsu)"
        if found.mass_kilodalton is None
        else f"encloses the volume of {found.mass_kilodalton:.3g} kDa of protein, the "
        "mass that the map seems to have"
    )
    said = (
        "Levels are in standard deviations \N{GREEK SMALL LETTER SIGMA} of all voxels "
        f"of the map, above their mean. The first one {first}: a choice, no "
        "measurement. Whatever the level, noise of that height is drawn as well. "
        "Masses are of protein alone (1.35 "
        f"g/cm³). Shown are {across} Å of the map, on voxels of {voxel:.2g} Å, {how} "
        f"those of its file ({found.voxel_angstrom:.3g} Å): measure in the file."
    )
    if found.chain is not None:
        said += (
            " The backbone, blue at its beginning, lies where the run has placed it."
        )
    return said


def _reach(found: Isosurface, shown: ShownMap) -> float:
    """Return how far from the middle of the map the picture goes, in angstrom."""
    z, y, x = np.nonzero(_largest_piece(shown.values > found.level))
    away = shown.origin + shown.spacing * np.stack((x, y, z), -1)
    reach = float(np.linalg.norm(away, axis=1).max())
    if found.chain is not None:
        chain = np.linalg.norm(found.chain.coordinates_angstrom, axis=1)
        reach = max(reach, float(chain.max()))
    return round(_ROOM * reach, 2)


def _told_chain(chain: Chain | None) -> dict[str, Any] | None:
    if chain is None:
        return None
    return {
        "at": [_rounded(one) for one in chain.coordinates_angstrom],
        "number": chain.number.tolist(),
        "radius": 0.8,
    }


def _largest_piece(above: NDArray[np.bool_]) -> NDArray[np.bool_]:
    label, count = ndimage.label(above)
    if count == 0:
        return np.ones_like(above)
    return np.asarray(label == 1 + np.argmax(np.bincount(label.ravel())[1:]))


def _rounded(values: NDArray[np.float64]) -> list[float]:
    return [round(one, 2) for one in values.tolist()]
