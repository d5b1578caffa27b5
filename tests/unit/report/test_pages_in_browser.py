"""What scripts of pages do, in a browser: with a mouse, with keys, on a phone."""

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from browser import Browser, browsing
from scipy import ndimage

from cryoinfer.report import scatter
from cryoinfer.report.isosurface import Chain, Isosurface, isosurface_view
from cryoinfer.report.parts import page, section
from cryoinfer.report.scatter import ScatterContent, scatter_section
from cryoinfer.report.surface import surfaces
from cryoinfer.report.volumes import AxisFrames, volumes_section

pytestmark = pytest.mark.slow

# Of the picture, as scatter.js has them: left, right, top, bottom.
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 8, 42


@dataclass(frozen=True)
class Desk:
    """A browser, and the folder that it saves to."""

    browser: Browser
    folder: Path

    def open(self, body: str, wide: int = 1280, high: int = 1500) -> None:
        """Show a page of one section."""
        text = page(
            title="Run",
            subtitle="",
            verdict="",
            tiles="",
            findings=(),
            sections=[body],
        )
        path = self.folder / "page.html"
        path.write_text(text, encoding="utf-8")
        self.browser.show(path, wide, high)
        self.browser.settle()

    @property
    def picture(self) -> str:
        """What the canvas of a surface shows."""
        return str(
            self.browser.ask("document.querySelector('.surface canvas').toDataURL()")
        )

    def saved(self) -> dict:
        """Return the selection that is being saved."""
        path = self.folder / "selection.json"
        end = time.monotonic() + 20
        while not path.exists():
            assert time.monotonic() < end, "nothing was saved"
            time.sleep(0.02)
        return json.loads(path.read_text())

    def text(self, selector: str) -> str:
        return str(self.browser.ask(f"document.querySelector('{selector}').innerText"))

    def click(self, do: str) -> None:
        self.browser.ask(f"""document.querySelector('[data-do="{do}"]').click()""")
        self.browser.settle()

    def choose(self, selector: str, value: object) -> None:
        self.browser.ask(
            f"(() => {{ const one = document.querySelector('{selector}');"
            f"one.value = {json.dumps(value)};"
            "for (const kind of ['input', 'change'])"
            "one.dispatchEvent(new Event(kind)); })()"
        )
        self.browser.settle()

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a share of the picture, from its lower left, lies."""
        left, top, wide, high = self.browser.ask(
            "(() => { const at = document.querySelector('.points')"
            ".getBoundingClientRect();"
            "return [at.left, at.top, at.width, at.height]; })()"
        )
        return (
            left + LEFT + x * (wide - LEFT - RIGHT),
            top + TOP + (1 - y) * (high - TOP - BOTTOM),
        )

    def particle(self, x: float, y: float) -> tuple[float, float]:
        """Return where a particle of FIVE is: there is 1.5 of room about 0 to 10."""
        return self.place((x + 1.5) / 13, (y + 1.5) / 13)

    def colour(self, x: float, y: float) -> list[int]:
        """Return red, green, blue and opacity of a point of the window."""
        return list(
            self.browser.ask(
                "(() => { const one = document.querySelector('.points');"
                "const at = one.getBoundingClientRect();"
                f"return [...one.getContext('2d').getImageData({x} - at.left, "
                f"{y} - at.top, 1, 1).data]; }})()"
            )
        )


@pytest.fixture(scope="module")
def browser_and_folder(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Browser, Path]]:
    folder = tmp_path_factory.mktemp("pages")
    with browsing(folder) as browser:
        yield browser, folder


@pytest.fixture
def desk(browser_and_folder: tuple[Browser, Path]) -> Desk:
    browser, folder = browser_and_folder
    (folder / "selection.json").unlink(missing_ok=True)
    browser.prefer("light")
    return Desk(browser, folder)


# Corners and middle of a square, after a particle that is nowhere.
X = np.array([np.nan, 0, 10, 5, 0, 10])
Y = np.array([np.nan, 0, 0, 5, 10, 10])
VALUE = np.array([np.nan, -1.5, 0.2, 0.25, 0.1, 2.5])
FIVE = scatter_section(
    ScatterContent(
        "a run",
        {
            "z_1": X,
            "z_2": Y,
            "z_1_sd": np.full(6, 0.125),
            "value": VALUE,
            "place": np.where(X == 5, np.nan, X),
        },
        {"z_1": "Å"},
    ),
    np.random.default_rng(0),
)


def test_a_particle_is_read_where_it_is(desk: Desk) -> None:
    desk.open(FIVE)
    assert desk.text(".count") == "5 in view of 6 · 0 selected"
    desk.browser.mouse("mouseMoved", *desk.particle(5, 5))
    desk.browser.settle()
    told = desk.text(".particle").replace("\n", " ")
    assert told.startswith("Row 3")
    for part in ("z_1 5 ± 0.125 Å", "z_2 5", "value 0.25", "place none"):
        assert part in told
    assert "z_1_sd" not in told
    desk.browser.mouse("mouseMoved", *desk.particle(7.5, 5))
    desk.browser.settle()
    assert desk.text(".particle").startswith("Point at a particle")
    # A value starts at each of the three places that a byte has in base64.
    for row in (1, 2, 4, 5):
        desk.browser.mouse("mouseMoved", *desk.particle(X[row], Y[row]))
        desk.browser.settle()
        assert f"value {VALUE[row]:g}" in desk.text(".particle").replace("\n", " ")


def test_a_lasso_selects_what_is_inside_and_it_is_saved(desk: Desk) -> None:
    desk.open(FIVE)
    desk.click("lasso")
    # About three corners: the fourth and the middle stay outside.
    corners = [(-1, -1), (11, -1), (11, 11), (9, 11), (9, 1), (-1, 1)]
    desk.browser.drag([desk.particle(*corner) for corner in corners])
    assert desk.text(".count").endswith("3 selected")
    desk.click("save")
    assert desk.saved() == {"run": "a run", "count": 3, "rows": [1, 2, 5]}
    desk.click("clear")
    assert desk.text(".count").endswith("0 selected")


def test_what_is_dragged_moves_and_selects_nothing(desk: Desk) -> None:
    desk.open(FIVE)
    desk.browser.drag([desk.particle(5, 5), desk.particle(7, 5), desk.particle(9, 5)])
    assert desk.text(".count") == "3 in view of 6 · 0 selected"
    desk.browser.mouse("mouseMoved", *desk.particle(9, 5))
    desk.browser.settle()
    assert desk.text(".particle").startswith("Row 3")


@pytest.mark.parametrize(
    ("scheme", "ends"), [("light", (0.0, 0.9)), ("dark", (0.18, 1.0))]
)
def test_colours_are_those_of_the_bar(
    desk: Desk, scheme: str, ends: tuple[float, float]
) -> None:
    desk.browser.prefer(scheme)
    desk.open(FIVE)
    desk.choose(".colour", "3")
    low, high = (
        float(desk.browser.ask(f"document.querySelector('{one}').value"))
        for one in (".low", ".high")
    )
    # The quantiles of so few are the least and the greatest.
    assert (low, high) == (-1.5, 2.5)
    wanted = [255 * np.array(mpl.colormaps["viridis"](one)[:3]) for one in ends]
    # The table of colours is off by a level or two, opacity rounds by one more.
    assert desk.colour(*desk.particle(0, 0))[:3] == pytest.approx(wanted[0], abs=4)
    assert desk.colour(*desk.particle(10, 10))[:3] == pytest.approx(wanted[1], abs=4)
    assert desk.colour(*desk.particle(7.5, 5))[3] == 0
    middle = desk.colour(*desk.particle(5, 5))[:3]
    assert middle != pytest.approx(wanted[1], abs=30)
    desk.choose(".high", "0.25")
    for beyond in ((5, 5), (10, 10)):
        shown = desk.colour(*desk.particle(*beyond))[:3]
        assert shown == pytest.approx(wanted[1], abs=4)


def test_what_has_no_value_is_grey(desk: Desk) -> None:
    desk.open(FIVE)
    desk.choose(".colour", "4")
    red, green, blue, opacity = desk.colour(*desk.particle(5, 5))
    assert opacity > 0
    # --grey of the page, #8a97a3; opacity 0.34 rounds by 3 levels.
    assert (red, green, blue) == pytest.approx((0x8A, 0x97, 0xA3), abs=4)


def test_keys_do_all_that_a_mouse_does(desk: Desk) -> None:
    desk.open(FIVE)
    desk.browser.ask("document.querySelector('.points').focus()")
    for _ in range(3):
        desk.browser.press("+")
    assert desk.text(".count").startswith("1 in view")
    desk.browser.press("ArrowRight", shift=True)
    desk.browser.press("ArrowLeft", shift=True)
    assert desk.text(".particle").startswith("Row 3")
    desk.click("view")
    assert desk.text(".count") == "1 in view of 6 · 1 selected"
    desk.browser.press("0")
    assert desk.text(".count") == "5 in view of 6 · 1 selected"
    # From -0.5 to 10.5, and on by six tenths.
    for _ in range(6):
        desk.browser.press("ArrowRight")
    assert desk.text(".count").startswith("2 in view")


def test_another_column_moves_the_particles(desk: Desk) -> None:
    desk.open(FIVE)
    desk.choose(".x", "3")
    # From -1.5 to 2.5, with 15 % of room.
    desk.browser.mouse("mouseMoved", *desk.place((2.5 + 2.1) / 5.2, 11.5 / 13))
    desk.browser.settle()
    assert desk.text(".particle").startswith("Row 5")
    # The code of what has no value is next to that of the greatest.
    desk.choose(".y", "3")
    desk.click("view")
    assert desk.text(".count") == "5 in view of 6 · 5 selected"


def test_rows_of_a_subset_are_those_of_the_file(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scatter, "MOST_SHOWN", 50)
    rows = np.arange(400)
    content = ScatterContent("part", {"z_1": rows, "z_2": rows % 7})
    desk.open(scatter_section(content, np.random.default_rng(1)))
    assert desk.text(".count").startswith("50 in view of 50 shown, of 400")
    desk.click("view")
    desk.click("save")
    saved = desk.saved()
    drawn = np.random.default_rng(1).choice(400, 50, replace=False, shuffle=False)
    assert saved["rows"] == sorted(drawn.tolist())
    assert saved["count"] == 50
    desk.click("clear")
    least, some, most = saved["rows"][0], saved["rows"][20], saved["rows"][-1]
    x = (0.15 + (some - least) / (most - least)) / 1.3
    desk.browser.mouse("mouseMoved", *desk.place(x, (0.15 + some % 7 / 6) / 1.3))
    desk.browser.settle()
    assert desk.text(".particle").split()[:4] == ["Row", str(some), "z_1", str(some)]


def balls() -> str:
    """Return two axes of balls, of radii from 4 to 8 voxels, and of 8 alone."""
    z, y, x = np.mgrid[:24, :24, :24] - 12
    away = np.sqrt(x**2 + y**2 + z**2)
    axes = [
        AxisFrames(
            name,
            np.array([-1.5, 0, 1.5]),
            "sd",
            np.array(radii)[:, None, None, None] - away,
            2.0,
            0.0,
        )
        for name, radii in (("PC1", (4.0, 6.0, 8.0)), ("PC2", (8.0, 8.0, 8.0)))
    ]
    return volumes_section(axes)


COVERED = (
    "(() => { const one = document.querySelector('.surface canvas');"
    "const data = one.getContext('2d').getImageData(0, 0, one.width, one.height).data;"
    "let n = 0; for (let i = 3; i < data.length; i += 4) n += data[i] > 0;"
    "return n; })()"
)


MIDDLE = (
    "(() => { const one = document.querySelector('.surface canvas');"
    "return [...one.getContext('2d').getImageData("
    "one.width / 2, one.height / 2, 1, 1).data].slice(0, 3); })()"
)


def test_a_slider_moves_along_its_axis(desk: Desk) -> None:
    desk.open(balls())
    assert desk.text("#volumes output") == "0 sd"
    covered = [desk.browser.ask(COVERED)]
    for _ in range(2):
        desk.choose("#volumes input", "2")
        covered.append(desk.browser.ask(COVERED))
    desk.choose("#volumes input", "0")
    covered.append(desk.browser.ask(COVERED))
    assert desk.text("#volumes output") == "-1.5 sd"
    middle, large, again, small = covered
    # Discs are as the squares of radii; nets lie inside by 0.1 of 4 voxels at most.
    assert large / middle == pytest.approx((8 / 6) ** 2, rel=0.05)
    assert small / middle == pytest.approx((4 / 6) ** 2, rel=0.05)
    assert again == large
    # The other axis, by keys, is shown as soon as its slider has the focus.
    desk.browser.ask("document.querySelectorAll('#volumes input')[1].focus()")
    desk.browser.settle()
    assert desk.browser.ask(COVERED) == pytest.approx(large, rel=1e-3)
    assert desk.text("#volumes label.shown span") == "PC2"


def test_a_volume_turns_and_its_axis_plays(desk: Desk) -> None:
    desk.open(balls())
    before = desk.picture
    desk.browser.ask("document.querySelector('#volumes canvas').focus()")
    desk.browser.press("ArrowLeft")
    assert desk.picture != before
    desk.browser.ask("document.querySelector('#volumes .play').click()")
    desk.browser.wait("document.querySelector('#volumes input').value !== '1'")
    assert desk.text("#volumes .play") == "Stop"


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


@pytest.mark.parametrize(
    "body", [FIVE, balls(), solid()], ids=["particles", "volumes", "map"]
)
def test_a_phone_shows_all_without_scrolling_aside(desk: Desk, body: str) -> None:
    desk.open(body, wide=400)
    assert desk.browser.ask("document.documentElement.scrollWidth") == 400
    size = desk.browser.ask(
        "(() => { const at = document.querySelector('canvas:not(.bar)')"
        ".getBoundingClientRect(); return [at.width, at.height]; })()"
    )
    assert size[0] > 300
    assert size[1] > 240


def test_without_a_decoder_of_its_own_a_browser_reads_the_same(desk: Desk) -> None:
    """Not all browsers have Uint8Array.fromBase64; bytes are then read one by one."""
    without = "<script>delete Uint8Array.fromBase64;</script>"
    desk.open(without + FIVE)
    assert desk.text(".count") == "5 in view of 6 · 0 selected"
