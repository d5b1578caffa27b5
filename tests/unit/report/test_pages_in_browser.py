"""What scripts of pages do, in a browser: with a mouse, with keys, on a phone."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from browser import Browser, browsing

from cryoinfer.report import scatter
from cryoinfer.report.parts import page
from cryoinfer.report.scatter import ScatterContent, scatter_section
from cryoinfer.report.volumes import AxisFrames, volumes_section

pytestmark = pytest.mark.slow

# Of the picture, as scatter.js has them: left, right, top, bottom.
LEFT, RIGHT, TOP, BOTTOM = 58, 10, 8, 42


@dataclass(frozen=True)
class Desk:
    """A browser, and the folder that it saves to."""

    browser: Browser
    folder: Path

    def open(self, section: str, wide: int = 1280, high: int = 1500) -> None:
        """Show a page of one section."""
        text = page(
            title="Run",
            subtitle="",
            verdict="",
            tiles="",
            findings=(),
            sections=[section],
        )
        path = self.folder / "page.html"
        path.write_text(text, encoding="utf-8")
        self.browser.show(path, wide, high)
        self.browser.settle()

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
    "(() => { const one = document.querySelector('#volumes canvas');"
    "const data = one.getContext('2d').getImageData(0, 0, one.width, one.height).data;"
    "let n = 0; for (let i = 3; i < data.length; i += 4) n += data[i] > 0;"
    "return n; })()"
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
    picture = "document.querySelector('#volumes canvas').toDataURL()"
    before = desk.browser.ask(picture)
    desk.browser.ask("document.querySelector('#volumes canvas').focus()")
    desk.browser.press("ArrowLeft")
    turned = desk.browser.ask(picture)
    assert turned != before
    desk.browser.ask("document.querySelector('#volumes button').click()")
    desk.browser.wait("document.querySelector('#volumes input').value !== '1'")
    assert desk.text("#volumes button") == "Stop"


@pytest.mark.parametrize("section", [FIVE, balls()], ids=["particles", "volumes"])
def test_a_phone_shows_all_without_scrolling_aside(desk: Desk, section: str) -> None:
    desk.open(section, wide=400)
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
