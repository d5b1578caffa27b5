import base64
import json
import re
from typing import Any

import numpy as np
import pytest

from cryoinfer.report import scatter
from cryoinfer.report.scatter import ScatterContent, scatter_section
from cryoinfer.report.style import THEME_COLOURS


def content_of(count: int = 5) -> ScatterContent:
    rows = np.arange(count)
    return ScatterContent(
        "a run",
        {
            "z_1": np.where(rows == 0, np.nan, rows / 8),
            "z_1_sd": np.full(count, 0.25),
            "z_2": -rows,
        },
        {"z_1": "Å", "z_1_sd": "Å"},
    )


def told(html: str, name: str) -> str:
    found = re.search(rf'id="scatter-{name}">([^<]*)</script>', html)
    assert found is not None
    return found[1]


def about(html: str) -> dict[str, Any]:
    return dict(json.loads(told(html, "about")))


def array(html: str, name: str, kind: str) -> list[int]:
    return np.frombuffer(base64.b64decode(told(html, name)), kind).tolist()


def drawn(content: ScatterContent) -> str:
    return scatter_section(content, np.random.default_rng(0))


def test_columns_are_in_the_page_with_their_scale() -> None:
    html = drawn(content_of())
    first, sd, second = about(html)["columns"]
    codes = array(html, "column-0", "<u2")
    assert codes[0] == 65535
    assert first["least"] + first["step"] * codes[3] == pytest.approx(3 / 8, abs=1e-5)
    assert array(html, "column-2", "<u2") == [4, 3, 2, 1, 0]
    assert (first["sd"], sd["sd"], second["sd"]) == (1, None, None)


def test_the_first_two_that_are_no_sd_are_shown_first() -> None:
    html = drawn(content_of())
    across, up = re.findall(r'<select class="[xy]">(.*?)</select>', html)
    assert '<option value="0" selected>z_1</option>' in across
    assert '<option value="2" selected>z_2</option>' in up


def test_the_page_says_what_the_points_are_not() -> None:
    html = drawn(content_of())
    assert "Points are posterior means" in html
    assert "narrower than the population" in html
    assert "drawn at random" not in html
    # Nothing from elsewhere, and colours that the page can exchange.
    assert "http" not in html
    assert "src=" not in html
    assert not any(colour in html for colour in THEME_COLOURS)


def test_of_too_many_a_part_is_shown_and_that_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scatter, "MOST_SHOWN", 20)
    html = drawn(content_of(100))
    assert "20 drawn at random from 100" in html
    assert about(html)["total"] == 100
    rows = array(html, "rows", "<u4")
    assert len(rows) == 20
    assert rows == sorted(set(rows))
    z_2 = about(html)["columns"][2]
    values = [z_2["least"] + code for code in array(html, "column-2", "<u2")]
    assert values == [-row for row in rows]


def test_names_cannot_end_an_element() -> None:
    bad = "</script><b>"
    html = drawn(ScatterContent(bad, {bad: np.arange(3), "z": np.arange(3)}))
    assert bad not in html
    assert about(html)["run"] == about(html)["columns"][0]["name"] == bad


def test_columns_must_be_two_and_alike() -> None:
    with pytest.raises(ValueError, match="columns"):
        ScatterContent("", {"z": np.zeros(3), "z_sd": np.zeros(3)})
    with pytest.raises(ValueError, match="columns"):
        ScatterContent("", {"z": np.zeros(3), "y": np.zeros(4)})
