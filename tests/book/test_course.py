"""What chapters are made of: figures as data, formulas, exercises, pages."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest

from course import (
    Bars,
    Choice,
    Heat,
    Line,
    Panel,
    Plot,
    Points,
    Slider,
    choose,
    exercise,
    explore,
)
from course.contents import contents
from course.encode import LEVELS_8, LEVELS_16, ArrayTable, encoded, packed
from course.landing import write_landing
from course.page import page
from course.plot import arrays_of, settings_of
from course.site import ChapterError, build, built
from course.text import html

EXAMPLE = "electron_wave"


def unpacked(one: dict) -> np.ndarray:
    """Return the numbers of an array as the page reads them."""
    kind = "<u2" if one["missing"] > 255 else "u1"
    codes = np.frombuffer(base64.b64decode(one["data"]), dtype=kind).astype(float)
    values = one["least"] + one["step"] * codes
    return np.where(codes == one["missing"], np.nan, values)


def wave(frequency: float, kind: str = "sine") -> Plot:
    x = np.linspace(0.0, 1.0, 7)
    y = np.sin(frequency * x) if kind == "sine" else np.cos(frequency * x)
    return Plot((Panel((Line(x, y, "wave"),), x="x", y="y"),), says=f"{frequency}")


@pytest.mark.parametrize("levels", [LEVELS_8, LEVELS_16])
def test_an_array_comes_back_to_half_a_step(levels: int) -> None:
    values = np.random.default_rng(0).normal(size=501)
    values[[3, 100]] = np.nan
    again = unpacked(packed(values, levels))
    np.testing.assert_array_equal(np.isnan(again), np.isnan(values))
    span = np.nanmax(values) - np.nanmin(values)
    # Rounding to the nearest step, and a float's own rounding.
    assert np.nanmax(np.abs(again - values)) <= 0.5001 * span / levels


@pytest.mark.parametrize("value", [0.0, -3.5])
def test_an_array_of_one_value_is_exact(value: float) -> None:
    np.testing.assert_array_equal(
        unpacked(packed(np.full(4, value), LEVELS_16)), np.full(4, value)
    )


def test_an_array_without_a_number_stays_without() -> None:
    assert np.isnan(unpacked(packed(np.full(3, np.nan), LEVELS_16))).all()


def test_infinite_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="infinite"):
        packed(np.array([1.0, np.inf]), LEVELS_16)


def test_every_different_array_is_kept_once() -> None:
    table = ArrayTable()
    for frequency in (1.0, 2.0, 2.0):
        encoded(wave(frequency), table)
    assert len(table.packed) == 3  # x, and two different y


def test_small_values_on_a_logarithmic_axis_are_as_exact_as_large_ones() -> None:
    y = np.array([1e-9, 1e-3, 1.0, 0.0])
    line = Line([1.0, 2.0, 3.0, 4.0], y)
    table = ArrayTable()
    state = encoded(Plot((Panel((line,), log_y=True),)), table)
    found = 10 ** unpacked(table.packed[state["panels"][0]["marks"][0]["y"]])
    # Half a step of nine powers of ten in 65,534.
    np.testing.assert_allclose(found[:3], y[:3], rtol=2e-4)
    assert np.isnan(found[3])


def test_functions_stand_apart_and_bars_are_whole() -> None:
    text = html(r"$i \sin\chi + \sin^2 x$ and $\overline{w(x)}$")
    assert text.count("<mspace") == 3
    assert "border-top" in text


def test_marks_of_unequal_arrays_are_refused() -> None:
    for mark in (Line([1, 2], [1]), Points([1], [1, 2]), Bars([[1]], [[1]])):
        with pytest.raises(ValueError, match="shape"):
            arrays_of(mark)
    with pytest.raises(ValueError, match="axes"):
        arrays_of(Heat([1.0, 2.0]))


def test_a_signed_image_has_zero_in_the_middle() -> None:
    said = settings_of(Heat([[-1.0, 0.5], [0.0, 0.2]], signed=True))
    assert said["limits"] == [-1.0, 1.0]
    assert said["extent"] == [-0.5, 1.5, 1.5, -0.5]


def test_a_page_has_every_position_of_the_controls() -> None:
    figure = explore(
        wave,
        frequency=Slider("frequency", (1.0, 2.0, 3.0)),
        kind=Choice("kind", ("sine", "cosine"), "cosine"),
    )
    data = figure.page_data()
    assert len(data["plots"]) == 6
    assert data["chosen"] == [1, 1]
    assert data["plots"]["2,0"]["says"] == "3.0"
    line = data["plots"]["2,0"]["panels"][0]["marks"][0]
    found = unpacked(data["arrays"][line["y"]])
    # Steps of two bytes over a range of about 1.
    np.testing.assert_allclose(found, np.sin(3 * np.linspace(0, 1, 7)), atol=2e-5)


def test_a_live_figure_follows_its_controls() -> None:
    figure = explore(wave, frequency=Slider("frequency", (1.0, 2.0, 3.0)))
    assert figure.state["plot"]["says"] == "2.0"
    figure.chosen = [0]
    assert figure.state["plot"]["says"] == "1.0"


def test_values_are_shown_without_the_errors_of_binary_numbers() -> None:
    figure = explore(wave, frequency=Slider("frequency", (0.1 + 0.2, 1.0)))
    assert figure.controls[0]["values"] == [0.3, 1]


def test_a_figure_without_a_choice_or_with_too_many_is_refused() -> None:
    with pytest.raises(ValueError, match="two values"):
        explore(wave)
    with pytest.raises(ValueError, match="two values"):
        explore(wave, frequency=Slider("frequency", (1.0,)))
    with pytest.raises(ValueError, match="10,000 positions"):
        explore(wave, a=Slider("a", range(100)), b=Slider("b", range(100)))


def test_an_exercise_knows_its_answer() -> None:
    one = exercise("?", 2.0, tolerance=0.1, hint="", explanation="")
    assert one.is_right(2.09)
    assert not one.is_right(2.11)
    assert not one.is_right(float("nan"))
    other = choose("?", ("a", "b"), 1, hint="", explanation="")
    assert other.is_right(1)
    assert not other.is_right(0)
    with pytest.raises(ValueError, match="more than 0"):
        exercise("?", 2.0, tolerance=0.0, hint="", explanation="")
    with pytest.raises(ValueError, match="right one"):
        choose("?", ("a", "b"), 2, hint="", explanation="")


def test_formulas_become_mathml() -> None:
    text = html("For $a < b$:\n\n" r"$$\lVert R \rVert = \arg\min_x \sqrt{x} \,\AA$$")
    assert text.count("<math") == 2
    assert "marimo-tex" not in text
    assert 'display="block"' in text
    assert "<msqrt>" in text


def test_a_displayed_formula_in_a_paragraph_is_refused() -> None:
    with pytest.raises(ValueError, match="paragraph of its own"):
        html("For $a < b$: $$a$$")


def test_a_formula_that_no_page_can_show_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\\nosuchcommand"):
        html(r"$\nosuchcommand x$")


def test_every_subject_has_a_chapter_and_every_chapter_is_known() -> None:
    book = contents()
    slugs = [one.slug for one in book.chapters]
    assert len(slugs) == len(set(slugs)) >= 45
    covered = {name for one in book.chapters for name in one.covers}
    assert covered == set(book.topics)
    for one in book.chapters:
        assert set(one.requires) <= set(slugs), one.slug
        assert one.slug not in one.requires
    for tour in book.tours:
        assert set(tour.chapters) <= set(slugs)


def test_no_chapter_requires_itself_through_others() -> None:
    requires = {one.slug: set(one.requires) for one in contents().chapters}
    ready: set[str] = set()
    while len(ready) < len(requires):
        more = {one for one, needs in requires.items() if needs <= ready} - ready
        assert more, f"these wait for each other: {sorted(set(requires) - ready)}"
        ready |= more


def test_every_notebook_is_in_the_contents() -> None:
    files = {one.stem for one in contents().chapters[0].path.parent.glob("*.py")}
    assert files <= {one.slug for one in contents().chapters}


def test_a_built_page_needs_nothing_beside_itself(tmp_path: Path) -> None:
    build(tmp_path, (EXAMPLE,))
    text = (tmp_path / f"{EXAMPLE}.html").read_text(encoding="utf-8")
    fetched = re.findall(r"""(?:src|href)\s*=\s*["'](?!data:|#)([^"']+)""", text)
    assert all(re.fullmatch(r"[a-z_0-9]+\.html", one) for one in fetched), fetched
    assert "import(" not in text
    for data in re.findall(r'<script type="application/json">(.*?)</script>', text):
        json.loads(data.replace("<\\/", "</"))


def test_a_chapter_that_fails_is_told_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = contents().chapter(EXAMPLE)
    path = tmp_path / f"{EXAMPLE}.py"
    path.write_text(
        "import marimo\n\napp = marimo.App()\n\n\n"
        "@app.cell\ndef _():\n    1 / 0\n    return\n"
    )
    monkeypatch.setattr(type(one), "path", path)
    with pytest.raises(ChapterError, match=EXAMPLE):
        built(one)


def test_the_pages_around_the_chapters(tmp_path: Path) -> None:
    write_landing(tmp_path, {EXAMPLE: "<p>the <strong>wavelength</strong></p>"})
    assert {one.stem for one in tmp_path.iterdir()} == {
        "index",
        "notation",
        "glossary",
        "terms",
        "topics",
    }
    terms = (tmp_path / "terms.html").read_text(encoding="utf-8")
    assert f'wavelength: <a href="{EXAMPLE}.html">' in terms
    index = (tmp_path / "index.html").read_text(encoding="utf-8")
    for one in contents().chapters:
        assert f'href="{one.slug}.html"' in index


def test_a_title_is_text() -> None:
    assert "<title>a &lt; b" in page("a < b", "")
