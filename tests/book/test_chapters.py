"""Every chapter runs to its end, and is what a chapter should be."""

import importlib
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import marimo as mo
import pytest

from course.contents import Chapter, contents
from course.exercise import Exercise
from course.explore import Explorer
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
