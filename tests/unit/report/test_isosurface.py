import base64
import json
import re
from typing import Any

import numpy as np
import pytest

from cryoinfer.report.isosurface import (
    MOST_VOXELS,
    Chain,
    Isosurface,
    ShownMap,
    has_surface,
    isosurface_view,
)
from cryoinfer.report.style import THEME_COLOURS

PIXEL = 2.0


def ball(box: int, radius: float, centre: tuple[float, float, float]) -> np.ndarray:
    """Return a ball about a place z, y, x from the middle, with a soft edge."""
    axes = np.mgrid[:box, :box, :box] - box // 2
    away = np.sqrt(sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)))
    return (1 / (1 + np.exp(3 * (away - radius)))).astype(np.float32)


def told(page: str) -> dict[str, Any]:
    found = re.search(r'id="isosurface-about">(.*?)</script>', page)
    assert found is not None
    return dict(json.loads(found[1]))


@pytest.mark.parametrize("box", [31, 32, 96])
def test_what_is_shown_lies_where_the_map_has_it(box: int) -> None:
    centre = np.array([2.0, -3.0, 1.0])
    density = ball(box, 6.0, tuple(centre))
    shown = ShownMap.of(density, PIXEL, 0.2)
    assert max(shown.values.shape) == MOST_VOXELS
    weight = shown.values.clip(0.1) - 0.1
    z, y, x = np.mgrid[tuple(slice(n) for n in weight.shape)]
    mean = [(weight * one).sum() / weight.sum() for one in (x, y, z)]
    # The centre of mass of a soft ball on voxels of its own: to a tenth of a voxel.
    found = shown.origin + shown.spacing * mean
    np.testing.assert_allclose(found, PIXEL * centre[::-1], atol=0.1 * PIXEL)
    # Six voxels to either side, the edge, and 4 A of space: no more.
    across = shown.spacing * (np.array(shown.values.shape[::-1]) - 1)
    assert (across >= 2 * 6 * PIXEL).all()
    assert (across <= 2 * (7.5 * PIXEL + 4.0)).all()


def test_a_large_map_is_made_coarser() -> None:
    density = ball(100, 40.0, (0, 0, 0))
    shown = ShownMap.of(density, PIXEL, 0.2)
    assert max(shown.values.shape) == MOST_VOXELS
    assert (shown.spacing > 1.2 * PIXEL).all()
    # As much of it as of the map is above its half: smoothing moves no plane.
    volume = (shown.values > 0.5).sum() * shown.spacing.prod()
    assert volume == pytest.approx((density > 0.5).sum() * PIXEL**3, rel=0.02)


def test_levels_are_told_with_what_they_enclose() -> None:
    density = ball(48, 9.0, (0, 0, 0))
    found = Isosurface(density, PIXEL)
    assert found.in_sigma(found.mean) == 0
    assert found.in_sigma(found.mean + 2 * found.sigma) == pytest.approx(2)
    volume = 4 / 3 * np.pi * (9.0 * PIXEL) ** 3
    # Counted in voxels: their number in a ball of radius 9 is right to 1 %, with those
    # that lie on it.
    assert found.enclosed_angstrom3(np.array([0.49])) == pytest.approx(volume, rel=0.01)
    about = told(isosurface_view(found))
    table, ends = about["enclosed"]["volumes"], about["enclosed"]
    assert ends["from"] < about["level"] < ends["to"]
    assert (np.diff(table) <= 0).all()
    share = (about["level"] - ends["from"]) / (ends["to"] - ends["from"])
    at = np.interp(share * (len(table) - 1), np.arange(len(table)), table)
    assert at * 0.81e-3 == pytest.approx(found.mass_kilodalton, rel=0.03)
    # Masses are told at 0.6 of the density within, blurred by 3 A: of an even ball that
    # is 0.8 A of its radius of 18 A too little, 13 % of the volume.
    assert 0.8 * volume < at < volume


def test_the_first_level_is_no_blob_where_a_map_was_masked() -> None:
    """Noise within a mask, 0 outside, and a molecule of a tenth of the mask."""
    random = np.random.default_rng(0)
    mask = ball(48, 20.0, (0, 0, 0))
    density = ball(48, 9.0, (0, 0, 0)) * 4 + random.normal(-0.3, 0.3, (48,) * 3)
    found = Isosurface(density * mask, PIXEL)
    volume = 4 / 3 * np.pi * (9.0 * PIXEL) ** 3
    enclosed = float(found.enclosed_angstrom3(np.array([found.level]))[0])
    # 13 % too little for an even ball, and the noise; the mask holds ten times as much.
    assert 0.75 * volume < enclosed < 1.1 * volume


def test_a_map_of_coarse_pixels_has_a_level_too() -> None:
    page = isosurface_view(Isosurface(ball(16, 4.0, (0, 0, 0)), 8.0))
    assert "Otsu" in page
    assert told(page)["level"] > 0


def test_the_density_in_the_page_is_that_of_the_map() -> None:
    found = Isosurface(ball(24, 5.0, (0, 0, 0)), PIXEL)
    page = isosurface_view(found)
    about = told(page)
    text = re.search(r'id="isosurface-density">([^<]*)</script>', page)
    assert text is not None
    codes = np.frombuffer(base64.b64decode(text[1]), "<u2")
    values = (about["least"] + about["step"] * codes).reshape(about["shape"])
    low = found.mean + 0.35 * (found.level - found.mean)
    shown = ShownMap.of(found.density, PIXEL, low)
    np.testing.assert_allclose(values, shown.values, atol=about["step"])
    assert about["chain"] is None
    assert "http" not in page
    assert not any(colour in page for colour in THEME_COLOURS)


def test_a_backbone_stays_within_the_picture() -> None:
    line = np.array([[0.0, 0.0, 0.0], [0.0, 90.0, 0.0]])
    chain = Chain(line, np.array([0, 0]))
    page = isosurface_view(Isosurface(ball(24, 5.0, (0, 0, 0)), PIXEL, chain))
    assert told(page)["reach"] == pytest.approx(99.0)
    assert told(page)["chain"]["at"] == line.tolist()
    assert "backbone" in page


@pytest.mark.parametrize(
    ("values", "shown"), [((0.0, 0.0), False), ((0.0, 1.0), True), ((0, np.nan), False)]
)
def test_what_is_even_or_unknown_has_no_surface(values: tuple, shown: bool) -> None:
    density = np.full((8, 8, 8), float(values[0]))
    density[4, 4, 4] = values[1]
    assert has_surface(density) is shown
