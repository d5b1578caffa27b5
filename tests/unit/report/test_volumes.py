import base64
import json
import re

import numpy as np
import pytest

from cryoinfer.report.style import THEME_COLOURS
from cryoinfer.report.volumes import MOST_TRIANGLES, AxisFrames, volumes_section


def growing(frames: int = 3, box: int = 24, name: str = "PC1") -> AxisFrames:
    """Return balls of radii from 4 to 8 voxels of 2 angstrom."""
    z, y, x = np.mgrid[:box, :box, :box] - box // 2
    away = np.sqrt(x**2 + y**2 + z**2)
    radii = np.linspace(4, 8, frames)
    return AxisFrames(
        name,
        np.linspace(-2, 2, frames),
        "sd",
        radii[:, None, None, None] - away,
        2.0,
        0,
    )


def test_the_page_says_at_which_levels() -> None:
    html = volumes_section([growing(), growing(name="PC<2>")])
    assert "0 for PC1, 0 for PC&lt;2&gt;" in html
    assert "whether or not particles are there" in html
    assert "http" not in html
    assert not any(colour in html for colour in THEME_COLOURS)


def test_frames_are_in_the_page_with_their_scale() -> None:
    html = volumes_section([growing()])

    def told(name: str) -> str:
        found = re.search(rf'id="volumes-{name}">([^<]*)</script>', html)
        assert found is not None
        return found[1]

    about = json.loads(told("about"))
    [axis] = about["axes"]
    assert axis["at"] == [-2, 0, 2]
    for frame, radius_angstrom in enumerate((8, 12, 16)):
        codes = np.frombuffer(base64.b64decode(told(f"corners-0-{frame}")), "<u2")
        scale = axis["frames"][frame]
        corners = (scale["least"] + scale["step"] * codes).reshape(-1, 3)
        # Nets lie inside of a sphere by up to a tenth of a voxel of 2 angstrom.
        away = np.linalg.norm(corners, axis=1)
        assert np.abs(away - radius_angstrom).max() < 0.25
        triangles = np.frombuffer(base64.b64decode(told(f"triangles-0-{frame}")), "<u2")
        assert 0 < len(triangles) // 3 <= MOST_TRIANGLES
        assert triangles.max() == len(corners) - 1
    assert about["reach"] == pytest.approx(16, abs=0.25)


def test_frames_are_maps_and_not_too_many() -> None:
    with pytest.raises(ValueError, match="frames"):
        growing(10, 8)
    axis = growing()
    with pytest.raises(ValueError, match="volumes"):
        AxisFrames("PC1", axis.at, "", axis.volumes[:2], 2.0, 0)
