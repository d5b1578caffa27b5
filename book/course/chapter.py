"""What every chapter begins and ends with."""

import inspect
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import marimo as mo

from course.contents import Chapter, contents


def opening(slug: str) -> mo.Html:
    """Return title and question of a chapter, and what it builds on.

    Parameters
    ----------
    slug : str
        Name of the chapter's file, without ``.py``.
    """
    one = contents().chapter(slug)
    before = ", ".join(_link(contents().chapter(name)) for name in one.requires)
    needs = f'<p class="needs">Builds on {before}.</p>' if before else ""
    return mo.Html(
        f'<header class="opening"><p class="part">{escape(one.part)}</p>'
        # The style is for notebooks, which have none of their own for it.
        f'<h1 style="font-size: 1.9rem; font-weight: 700">{escape(one.title)}</h1>'
        f'<p class="question">{escape(one.question)}</p>{needs}</header>'
    )


def closing(slug: str, *, library: Sequence[str], sources: Sequence[str]) -> mo.Html:
    """Return where the program does it for real, what to read, and what comes next.

    Parameters
    ----------
    slug : str
        Name of the chapter's file, without ``.py``.
    library : sequence of str
        Dotted names in the library, such as ``"cryoinfer.physics.ctf.Ctf"``, or
        commands, such as ``"cryoinfer abinitio"``; a test looks each up.
    sources : sequence of str
        What the chapter was written from: authors, year, title, journal.
    """
    names = "".join(f"<li><code>{escape(one)}</code></li>" for one in library)
    read = "".join(f"<li>{escape(one)}</li>" for one in sources)
    after = contents().after(slug)
    onward = f"<p>Next: {_link(after)}.</p>" if after else ""
    return mo.Html(
        '<footer class="closing"><h2>In the program</h2>'
        f'<ul class="library">{names}</ul><h2>Sources</h2>'
        f'<ul class="sources">{read}</ul>{onward}</footer>'
    )


def source(*functions: Callable[..., Any]) -> mo.Html:
    """Return functions of the chapter, or of the library, as they are written."""
    name = ", ".join(one.__name__ for one in functions)
    text = "\n\n".join(inspect.getsource(one).strip() for one in functions)
    return mo.Html(
        f'<details class="source"><summary>The code: {escape(name)}</summary>'
        f"<pre><code>{escape(text)}</code></pre></details>"
    )


def _link(one: Chapter) -> str:
    # `make book-serve` names chapters by their files.
    live = mo.running_in_notebook()
    where = f"?file={one.slug}.py" if live else f"{one.slug}.html"
    return f'<a href="{where}">{escape(one.title)}</a>'
