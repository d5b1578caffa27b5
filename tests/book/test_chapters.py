"""Every chapter runs, is what a chapter should be, and works in a browser."""

import importlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import marimo as mo
import pytest
from browser import Browser, browsing

from course.contents import Chapter, contents
from course.exercise import Exercise
from course.explore import Explorer
from course.page import page
from course.site import MAX_PAGE_BYTES, body_of, cells

pytestmark = pytest.mark.book

MOST_SECONDS = 60.0
_WRITTEN = [one for one in contents().chapters if one.path.exists()]


@dataclass(frozen=True)
class Run:
    """A chapter that was run once."""

    shown: list[Any]
    seconds: float


@cache
def run_of(slug: str) -> Run:
    # Of the processor, so that other work does not count.
    started = time.process_time()
    shown = cells(contents().chapter(slug).path)
    return Run(shown, time.process_time() - started)


@pytest.fixture(
    params=[
        # One worker runs all tests of a chapter.
        pytest.param(one, id=one.slug, marks=pytest.mark.xdist_group(one.slug))
        for one in _WRITTEN
    ]
)
def chapter(request: pytest.FixtureRequest) -> Chapter:
    one: Chapter = request.param
    return one


def test_a_chapter_becomes_a_page(chapter: Chapter) -> None:
    run = run_of(chapter.slug)
    started = time.process_time()
    body = body_of(run.shown)
    assert len(body.encode()) < MAX_PAGE_BYTES
    assert body.count('class="opening"') == 1
    assert body.count('class="closing"') == 1
    assert "goes wrong in practice" in body
    assert run.seconds + time.process_time() - started < MOST_SECONDS


def test_a_chapter_has_figures_and_exercises(chapter: Chapter) -> None:
    shown = run_of(chapter.slug).shown
    assert isinstance(shown[0], mo.Html)
    assert 'class="opening"' in shown[0].text
    assert 'class="closing"' in shown[-1].text
    assert sum(isinstance(one, Explorer) for one in shown) >= 2
    exercises = [one for one in shown if isinstance(one, Exercise)]
    assert len(exercises) == 3
    for one in exercises:
        right = float(one.data["answer"])
        assert one.is_right(right)
        assert not one.is_right(right + 2.0 * float(one.data["tolerance"]) + 1.0)
        assert one.data["hint"]
        assert one.data["explanation"]


def test_what_a_chapter_names_is_in_the_program(chapter: Chapter) -> None:
    for name in names_of_library(chapter):
        if name.startswith("cryoinfer "):
            assert name.split()[1] in commands(), name
        else:
            assert exists(name), name


def names_of_library(chapter: Chapter) -> list[str]:
    closing = run_of(chapter.slug).shown[-1].text
    found = closing.split('<ul class="library">')[1].split("</ul>")[0]
    names: list[str] = [part.split("</code>")[0] for part in found.split("<code>")[1:]]
    assert names, "a chapter says where the program does it"
    return names


_CATCH = "window.errors = []; addEventListener('error', e => errors.push(e.message));"

# Every control is moved to each of its ends: is there a state that looks otherwise?
_MOVE = """
(() => {
  const look = figure => figure.querySelector(".panels").innerHTML
    .replace(/clip[a-z0-9]+/g, "") + figure.querySelector(".says").textContent;
  const bad = [];
  document.querySelectorAll(".explore").forEach((figure, number) => {
    figure.querySelectorAll("input[type=range], select").forEach((one, place) => {
      const before = look(figure), old = one.value;
      const menu = one.tagName === "SELECT";
      const last = menu ? one.options.length - 1 : Number(one.max);
      const changed = [0, last].some(value => {
        one.value = value;
        one.dispatchEvent(new Event(menu ? "change" : "input"));
        return look(figure) !== before;
      });
      one.value = old;
      one.dispatchEvent(new Event(menu ? "change" : "input"));
      if (!changed) bad.push(`control ${place} of figure ${number} changes nothing`);
      if (look(figure) !== before) bad.push(`figure ${number} does not come back`);
    });
  });
  return bad;
})()
"""

_ANSWER = """
(number, wrong, right) => {
  const here = document.querySelectorAll(".exercise")[number];
  return [wrong, right].map(value => {
    const field = here.querySelector("input[type=text]");
    if (field) field.value = value;
    else here.querySelectorAll("input[type=radio]")[value].checked = true;
    here.querySelector("button").click();
    return here.querySelector(".verdict").className;
  });
}
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("downloads")) as one:
        one.send("Page.addScriptToEvaluateOnNewDocument", source=_CATCH)
        yield one


def test_a_page_works_in_a_browser(
    chapter: Chapter, browser: Browser, tmp_path: Path
) -> None:
    shown = run_of(chapter.slug).shown
    path = tmp_path / "page.html"
    path.write_text(page(chapter.title, body_of(shown)), encoding="utf-8")
    for scheme, wide in (("light", 1280), ("dark", 400)):
        browser.prefer(scheme)
        browser.show(path, wide)
        browser.settle()
        assert browser.ask("errors") == []
        assert browser.ask("document.documentElement.scrollWidth") == wide
        assert browser.ask(_MOVE) == []
    exercises = [one for one in shown if isinstance(one, Exercise)]
    for number, one in enumerate(exercises):
        right = one.data["answer"]
        wrong = right + 3.0 * one.data["tolerance"]
        if one.data["choices"]:
            wrong = (right + 1) % len(one.data["choices"])
        values = f"{number}, {json.dumps(wrong)}, {json.dumps(right)}"
        found = browser.ask(f"({_ANSWER})({values})")
        assert found == ["verdict wrong", "verdict right"], number
    assert browser.ask("errors") == []


def exists(name: str) -> bool:
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            here = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(here, part):
                return False
            here = getattr(here, part)
        return True
    return False


def commands() -> set[str]:
    from typer.main import get_command

    from cryoinfer.cli.app import app

    return set(get_command(app).commands)  # type: ignore[attr-defined]
