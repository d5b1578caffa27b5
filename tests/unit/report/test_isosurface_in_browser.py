"""A map at any level, in a browser: what its script makes, and shows."""

import re

import numpy as np
import pytest
from desk import COVERED, MIDDLE, Desk
from scipy import ndimage

from cryoinfer.report.isosurface import Chain, Isosurface, isosurface_view
from cryoinfer.report.parts import section
from cryoinfer.report.surface import surfaces

pytestmark = pytest.mark.slow

BALL_PIXEL = 3.0


def ball(box: int = 32, radius: float = 9.0) -> np.ndarray:
    """Return a ball in the middle of a box: a density that falls from its middle."""
    z, y, x = np.mgrid[:box, :box, :box] - box // 2
    away = np.sqrt(x**2 + y**2 + z**2)
    return 1 / (1 + np.exp(2 * (away - radius)))


def solid(chain: Chain | None = None) -> str:
    """Return a section with the ball."""
    return section(
        "The map", "", isosurface_view(Isosurface(ball(), BALL_PIXEL, chain))
    )


def level_of(desk: Desk) -> tuple[float, float, float]:
    """Return lowest, shown and highest level in standard deviations."""
    found = desk.browser.ask(
        "(() => { const one = document.querySelector('.level');"
        "return [+one.min, +one.value, +one.max]; })()"
    )
    return found[0], found[1], found[2]


def test_the_script_makes_the_net_that_python_makes(desk: Desk) -> None:
    """Of one map on one grid: the same corners, in the same triangles."""
    rough = np.random.default_rng(2).normal(size=(9, 9, 9))
    values = ndimage.gaussian_filter(rough, 1.0)
    desk.open(solid())
    found = desk.browser.ask(
        f"(() => {{ const one = isosurface.net({values.ravel().tolist()}, [9, 9, 9], "
        "0.05); return [[...one.corners], [...one.triangles]]; })()"
    )
    [twin] = surfaces(values[None], 1.0, 0.05, 10**6)
    corners = np.array(found[0]).reshape(-1, 3) - 4
    triangles = np.array(found[1]).reshape(-1, 3)
    assert len(corners) == len(twin.corners) > 100
    assert len(triangles) == len(twin.triangles)

    def in_order(corners: np.ndarray, triangles: np.ndarray) -> np.ndarray:
        """Return the corners of every triangle, from any of the three, sorted."""
        rows = corners[triangles]
        turned = np.stack([np.roll(rows, k, axis=1) for k in range(3)])
        first = np.lexsort(turned[:, :, 0].transpose(2, 0, 1), axis=0)[0]
        rows = turned[first, np.arange(len(rows))].reshape(-1, 9).round(4)
        return rows[np.lexsort(rows.T)]

    # Densities are single in the page: shares of an edge are right to 1e-6.
    np.testing.assert_allclose(
        in_order(corners, triangles),
        in_order(twin.corners, twin.triangles),
        atol=2e-4,
    )


def test_the_level_of_a_map_is_moved(desk: Desk) -> None:
    desk.open(solid())
    low, first, high = level_of(desk)
    assert low < first < high
    assert (
        desk.text("#isosurface output") == f"{first:.1f} \N{GREEK SMALL LETTER SIGMA}"
    )
    values = ball()
    # At half height the radius is 9 voxels of 3 angstrom; the picture ends at 1.1 of
    # the farthest density above the first level, and is 0.48 of the height of it.
    size = []
    for level in (low, first, high):
        desk.choose(".level", level)
        size.append(desk.browser.ask(COVERED))
        told = desk.text(".reading").replace(",", "")
        density = values.mean() + level_of(desk)[1] * values.std()
        volume = (values > density).sum() * BALL_PIXEL**3
        found = float(re.search(r"([\d.]+) Å³ of the map", told)[1])
        # Three digits, of a table with 200 steps: a shell of voxels comes at once.
        assert found == pytest.approx(volume, rel=0.03)
        mass = float(re.search(r"([\d.]+) kDa", told)[1])
        assert mass == pytest.approx(0.81e-3 * found, rel=0.01)
    assert size[0] > size[1] > size[2] > 0
    # Discs are as the squares of the radii at which the ball has these levels.
    radii = []
    for level in (low, high):
        height = values.mean() + level * values.std()
        radii.append(9.0 + np.log(1 / height - 1) / 2)
    assert size[0] / size[2] == pytest.approx((radii[0] / radii[1]) ** 2, rel=0.05)
    assert desk.browser.errors == []


def test_a_cut_lays_the_inside_bare_and_is_reset(desk: Desk) -> None:
    desk.open(solid())
    whole, size = desk.picture, desk.browser.ask(COVERED)
    assert desk.text(".pair label:last-child output") == "none"
    desk.choose(".cut", 0)
    assert desk.text(".pair label:last-child output") == "0 Å"
    assert desk.picture != whole
    # Half a ball covers what the whole one does, and its middle is the colour of a cut.
    assert desk.browser.ask(COVERED) == pytest.approx(size, rel=0.02)
    assert desk.browser.ask(MIDDLE) == [round(0.85 * c) for c in (0xD5, 0x5E, 0x00)]
    desk.choose(".cut", -0.99)
    assert desk.browser.ask(COVERED) == 0
    desk.choose(".zoom", 1)
    desk.choose(".level", level_of(desk)[0])
    desk.browser.ask("document.querySelector('.upright').click()")
    desk.browser.settle()
    assert desk.picture == whole


def test_a_map_is_turned_and_zoomed_by_mouse_and_keys(desk: Desk) -> None:
    z, y, x = np.mgrid[:32, :32, :32] - 16
    long = 1 / (1 + np.exp(np.sqrt(x**2 / 4 + y**2 + z**2) - 5))
    desk.open(section("The map", "", isosurface_view(Isosurface(long, 2.0))))
    side, size = desk.picture, desk.browser.ask(COVERED)
    at = desk.browser.ask(
        "(() => { const at = document.querySelector('.surface canvas')"
        ".getBoundingClientRect(); return [at.left + 200, at.top + 150]; })()"
    )
    # A quarter turn: 150 pixels a radian. The long axis points to the viewer then.
    quarter = 150 * np.pi / 2
    desk.browser.drag([tuple(at), (at[0] + quarter, at[1])])
    assert desk.picture != side
    assert desk.browser.ask(COVERED) == pytest.approx(size / 2, rel=0.08)
    desk.browser.ask("document.querySelector('.surface canvas').focus()")
    turned = desk.browser.ask(COVERED)
    desk.browser.press("+")
    assert desk.text(".pair output") == "\N{MULTIPLICATION SIGN}1.2"
    # 0.3 of a doubling.
    assert desk.browser.ask(COVERED) == pytest.approx(turned * 4**0.3, rel=0.02)


def test_a_backbone_is_seen_through_the_map_that_it_lies_in(desk: Desk) -> None:
    along = np.linspace(-40, 40, 21)
    line = np.stack([along, 0 * along, 0 * along], 1)
    desk.open(solid(Chain(line, np.zeros(21, dtype=np.int64))))
    middle = desk.browser.ask(MIDDLE)
    desk.open(
        solid(Chain(line + np.array([0.0, 60.0, 0.0]), np.zeros(21, dtype=np.int64)))
    )
    aside = desk.browser.ask(MIDDLE)
    # The middle of a chain is green; the surface before it is grey glass.
    assert middle[1] > middle[0] + 20
    assert middle[1] > middle[2] + 20
    assert max(aside) - min(aside) < 40
    assert desk.browser.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("wide", [400, 1280])
def test_a_map_is_shown_on_every_screen(desk: Desk, wide: int, scheme: str) -> None:
    desk.browser.prefer(scheme)
    desk.open(solid(), wide=wide)
    assert desk.browser.ask("document.documentElement.scrollWidth") == wide
    assert desk.browser.ask(COVERED) > 5000
    for one in ("label", ".reading", "button", "figcaption"):
        assert desk.browser.ask(
            f"[...document.querySelectorAll('.surface {one}')].every((e) => "
            "e.scrollWidth <= e.clientWidth + 1 && e.clientHeight > 10)"
        ), one
    blue = {"light": (0x00, 0x72, 0xB2), "dark": (0x56, 0xB4, 0xE9)}[scheme]
    red, green, bluish = desk.browser.ask(MIDDLE)
    assert red < green < bluish
    assert abs(bluish - blue[2]) < 90
    assert desk.browser.errors == []
