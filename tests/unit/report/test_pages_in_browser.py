"""What scripts of pages do, in a browser: with a mouse, with keys, on a phone."""

import matplotlib as mpl
import numpy as np
import pytest
from desk import (
    COVERED,
    Desk,
)

from cryoinfer.report import scatter
from cryoinfer.report.scatter import ScatterContent, scatter_section
from cryoinfer.report.volumes import AxisFrames, volumes_section

pytestmark = pytest.mark.slow

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


@pytest.mark.parametrize("body", [FIVE, balls()], ids=["particles", "volumes"])
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
