"""Maps along the axes of a subspace, as surfaces that a slider moves."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoinfer.report.packing import encode, pack
from cryoinfer.report.parts import packaged, section
from cryoinfer.report.surface import Surface, surfaces
from cryoinfer.report.surface_view import surface_figure, surface_script

MOST_TRIANGLES = 6000
"""Of a surface on a page: a thousand are 12 kB of text."""

MOST_FRAMES = 9
"""Of an axis on a page."""

_KEYS = "Each slider moves along one axis."


@dataclass(frozen=True)
class AxisFrames:
    """Maps along one axis.

    Attributes
    ----------
    name : str
        Of the axis.
    at : ndarray, shape (frames,)
        Where the maps are, from one end to the other.
    unit : str
        Of ``at``; may be empty.
    volumes : ndarray, shape (frames, m, m, m)
        Axes z, y, x.
    voxel_size_angstrom : float
    level : float
        Density of the surface, one for all maps of the axis: see
        :func:`cryoinfer.report.surface.surface_level`.
    """

    name: str
    at: NDArray[np.float64]
    unit: str
    volumes: NDArray[Any]
    voxel_size_angstrom: float
    level: float

    def __post_init__(self) -> None:
        """Refuse what a page has no room for."""
        if not 1 <= len(self.at) <= MOST_FRAMES:
            raise ValueError(f"at: 1 to {MOST_FRAMES} frames, not {len(self.at)}")
        if self.volumes.ndim != 4 or len(self.volumes) != len(self.at):
            raise ValueError(f"volumes: a map a frame, not {self.volumes.shape}")


def volumes_section(axes: Sequence[AxisFrames]) -> str:
    """Return the picture with its heading, and with what is to be known of it.

    Parameters
    ----------
    axes : sequence of AxisFrames
        At least one.

    Returns
    -------
    str
        HTML; once on a page.
    """
    levels = ", ".join(f"{one.level:.3g} for {one.name}" for one in axes)
    return section(
        "Volumes along each axis",
        "Maps of the subspace at the values of z beside the sliders. One density level "
        f"for each axis: {levels}. Surfaces are simplified for the page.",
        '<p class="aside">'
        "The subspace gives a map for every z, whether or not particles are there: see "
        "the particles above. What grows or fades at one density level may have become "
        "more or less occupied, or have moved.</p>",
        volumes_view(axes),
    )


def volumes_view(axes: Sequence[AxisFrames]) -> str:
    """Return the picture alone; see :func:`volumes_section`."""
    about: dict[str, Any] = {"axes": []}
    data: list[str] = []
    reach = 0.0
    for number, axis in enumerate(axes):
        frames = surfaces(
            axis.volumes, axis.voxel_size_angstrom, axis.level, MOST_TRIANGLES
        )
        told = []
        for at, frame in enumerate(frames):
            scale, text = _frame(f"{number}-{at}", frame)
            told.append(scale)
            data.append(text)
            if len(frame.corners):
                reach = max(reach, float(np.linalg.norm(frame.corners, axis=1).max()))
        places = [float(f"{one:.3g}") for one in axis.at.tolist()]
        about["axes"].append({"at": places, "unit": axis.unit, "frames": told})
    about["reach"] = reach or 1.0
    # No text in the data can end the element.
    text = json.dumps(about, separators=(",", ":")).replace("<", "\\u003c")
    return "\n".join(
        (
            _figure(axes),
            f'<script type="application/json" id="volumes-about">{text}</script>',
            *data,
            surface_script(),
            f"<script>\n{packaged('volumes.js')}</script>",
        )
    )


def _frame(name: str, surface: Surface) -> tuple[dict[str, float], str]:
    """Return how corners are scaled, and the elements with corners and triangles."""
    corners = pack(surface.corners)
    # Corners are fewer than 65,536, as triangles are.
    triangles = surface.triangles.astype(np.uint16)
    elements = "\n".join(
        f'<script type="application/octet-stream" id="volumes-{kind}-{name}">'
        f"{encode(array)}</script>"
        for kind, array in (("corners", corners.codes), ("triangles", triangles))
    )
    return {"least": corners.least, "step": corners.step}, elements


def _figure(axes: Sequence[AxisFrames]) -> str:
    sliders = "\n".join(
        f'<label class="axis"><span>{escape(one.name)}</span> <input type="range" '
        f'min="0" max="{len(one.at) - 1}" step="1" value="{len(one.at) // 2}">'
        "<output></output></label>"
        for one in axes
    )
    play = '<button type="button" class="play">Play this axis</button>'
    return surface_figure("volumes", sliders, play, _KEYS)
