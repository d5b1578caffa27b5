"""Builds the site: a page a chapter, whose sliders move without Python.

``python -m course.site dist/book`` (or ``make book``). Needs no network, and neither do
the pages, which open from the disk.
"""

import argparse
import importlib.util
import json
import sys
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

import marimo as mo

from course.contents import BOOK, Chapter, contents
from course.exercise import Exercise
from course.explore import Explorer
from course.landing import write_landing
from course.page import page
from course.text import with_mathml

MAX_PAGE_BYTES = 5_000_000
"""Of all that a chapter's page carries: what a phone loads in a few seconds."""


class ChapterError(Exception):
    """A chapter that cannot become a page; says which, and why."""


@dataclass(frozen=True)
class Built:
    """A chapter that became a page.

    Parameters
    ----------
    slug : str
        Its file.
    body : str
        HTML of all cells.
    seconds : float
        That the notebook and all states of its figures took.
    """

    slug: str
    body: str
    seconds: float


def notebook(path: Path) -> ModuleType:
    """Import a notebook without running its cells."""
    name = f"chapter_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # `inspect` and marimo look a notebook up by its name.
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def cells(path: Path) -> list[Any]:
    """Run a notebook and return what its cells show, in order.

    Raises
    ------
    Exception
        Whatever a cell raises.
    """
    outputs, _ = notebook(path).app.run()
    return [one for one in outputs if one is not None]


def built(chapter: Chapter) -> Built:
    """Run a chapter and return its page.

    Raises
    ------
    ChapterError
        If a cell fails or shows what a page cannot carry, or the page is too large.
    """
    started = time.perf_counter()
    try:
        body = body_of(cells(chapter.path))
    except Exception as error:
        raise ChapterError(
            f"{chapter.slug}: {type(error).__name__}: {error}"
        ) from error
    size = len(body.encode())
    if size > MAX_PAGE_BYTES:
        raise ChapterError(
            f"{chapter.slug}: its page has {size / 1e6:.1f} MB, at most "
            f"{MAX_PAGE_BYTES / 1e6:.0f} are meant: leave out values of sliders, or "
            "points of lines"
        )
    return Built(chapter.slug, body, time.perf_counter() - started)


def body_of(shown: list[Any]) -> str:
    """Return what cells show as HTML.

    Raises
    ------
    TypeError
        If a page cannot carry it.
    """
    return "\n".join(_shown(one) for one in shown)


def _shown(output: Any) -> str:
    if isinstance(output, Explorer):
        return _carried("figure", output.page_data())
    if isinstance(output, Exercise):
        return _carried("exercise", output.data)
    if isinstance(output, mo.Html):
        return with_mathml(output.text)
    raise TypeError(
        f"a cell shows a {type(output).__name__}; a page carries text (mo.md), "
        "explore(...), exercise(...) and choose(...)"
    )


def _carried(kind: str, data: dict[str, Any]) -> str:
    text = json.dumps(data, separators=(",", ":")).replace("</", "<\\/")
    return (
        f'<div data-show="{kind}"><script type="application/json">{text}</script></div>'
    )


def build(folder: Path, slugs: tuple[str, ...] = ()) -> list[Built]:
    """Write the site, or only these chapters of it.

    Parameters
    ----------
    folder : Path
        Where the pages go; made if it is not there.
    slugs : tuple of str
        All chapters, if there are none.

    Returns
    -------
    list of Built

    Raises
    ------
    ChapterError
        If a chapter cannot become a page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [one for one in contents().chapters if not slugs or one.slug in slugs]
    done = []
    with get_context("spawn").Pool() as pool:
        for number, one in enumerate(pool.imap(built, wanted), start=1):
            text = page(contents().chapter(one.slug).title, one.body)
            (folder / f"{one.slug}.html").write_text(text, encoding="utf-8")
            done.append(one)
            size = len(text.encode()) / 1e6
            print(
                f"{number} of {len(wanted)}: {one.slug}, {one.seconds:.1f} s, "
                f"{size:.2f} MB",
                flush=True,
            )
    if not slugs:
        write_landing(folder, {one.slug: one.body for one in done})
    return done


def main() -> None:
    """Build what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pages go")
    parser.add_argument(
        "chapters", nargs="*", help="by default all, and the landing page"
    )
    options = parser.parse_args()
    known = {one.slug for one in contents().chapters}
    unknown = set(options.chapters) - known
    if unknown:
        parser.error(f"there is no chapter {', '.join(sorted(unknown))} in {BOOK.name}")
    try:
        build(options.folder, tuple(options.chapters))
    except ChapterError as error:
        sys.exit(f"The book was not built. {error}")


if __name__ == "__main__":
    main()
