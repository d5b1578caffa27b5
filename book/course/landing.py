"""The pages around the chapters: contents, notation, glossary, index, subjects."""

import re
from html import escape
from pathlib import Path

import marimo as mo

from course.contents import BOOK, Chapter, Contents, contents
from course.page import page
from course.text import html, with_mathml

_TERM = re.compile(r"<strong>(.*?)</strong>", re.DOTALL)
_WIDE, _HIGH, _LEFT, _TOP, _ROW = 108, 40, 136, 10, 66


def write_landing(folder: Path, bodies: dict[str, str]) -> None:
    """Write all pages that are not chapters.

    Parameters
    ----------
    folder : Path
        Of the site.
    bodies : dict
        HTML of every chapter that was built, by slug.
    """
    texts = {
        "index": ("Contents", _contents(contents())),
        "notation": ("Notation", html(_read(BOOK / "notation.md"))),
        "glossary": ("Glossary", html(_read(BOOK.parent / "docs" / "glossary.md"))),
        "terms": ("Index", _terms(contents(), bodies)),
        "topics": ("Subjects", _topics(contents())),
    }
    for name, (title, body) in texts.items():
        (folder / f"{name}.html").write_text(page(title, body), encoding="utf-8")


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _contents(book: Contents) -> str:
    about = with_mathml(mo.md(_read(BOOK / "landing.md")).text)
    tours = "".join(
        f"<h3>{escape(tour.title)}</h3><ol>"
        + "".join(f"<li>{_link(book.chapter(slug))}</li>" for slug in tour.chapters)
        + f"</ol>{html('It ends in ' + tour.ends + '.')}"
        for tour in book.tours
    )
    parts = "".join(
        f'<section><h2>{number}. {escape(part)}</h2><ol class="chapters">'
        + "".join(
            f'<li>{_link(one)}<span class="asks">{escape(one.question)}</span></li>'
            for one in chapters
        )
        + "</ol></section>"
        for number, (part, chapters) in enumerate(book.parts().items(), start=1)
    )
    return (
        f"{about}<h2>What builds on what</h2>"
        "<p>A chapter is a box, and opens on a click; point at it to see what it "
        "builds on and what builds on it.</p>"
        f"{_graph(book)}<h2>Two guided tours</h2>{tours}"
        f'<div class="parts">{parts}</div>'
        '<p><a href="topics.html">Every subject, and the chapter that has it</a></p>'
    )


def _link(one: Chapter) -> str:
    return f'<a href="{one.slug}.html">{escape(one.title)}</a>'


def _graph(book: Contents) -> str:
    """Return the chapters as boxes, a row a part, joined to what they build on."""
    places = {
        one.slug: (_LEFT + column * (_WIDE + 12), _TOP + row * _ROW)
        for row, chapters in enumerate(book.parts().values())
        for column, one in enumerate(chapters)
    }
    lines, boxes = [], []
    for one in book.chapters:
        x, y = places[one.slug]
        for name in one.requires:
            lines.append(_edge(places[name], (x, y), f"{name} {one.slug}"))
        of = " ".join([one.slug, *one.requires, *_builders(book, one.slug)])
        boxes.append(
            f'<a href="{one.slug}.html" data-slug="{one.slug}" data-of="{of}">'
            f"<title>{escape(one.question)}</title>"
            f'<rect x="{x}" y="{y}" width="{_WIDE}" height="{_HIGH}" rx="6"/>'
            f"{_words(one.title, x + _WIDE / 2, y + _HIGH / 2)}</a>"
        )
    names = "".join(
        _words(part, 4, _TOP + row * _ROW + _HIGH / 2, "part")
        for row, part in enumerate(book.parts())
    )
    wide = max(x for x, _ in places.values()) + _WIDE + 6
    high = max(y for _, y in places.values()) + _HIGH + 10
    return (
        f'<div class="graph"><svg viewBox="0 0 {wide} {high}" '
        'aria-label="chapters and what they build on">'
        f"{''.join(lines)}{names}{''.join(boxes)}</svg></div>"
    )


def _builders(book: Contents, slug: str) -> list[str]:
    return [one.slug for one in book.chapters if slug in one.requires]


def _edge(begin: tuple[int, int], end: tuple[int, int], of: str) -> str:
    (x0, y0), (x1, y1) = begin, end
    x0, x1 = x0 + _WIDE // 2, x1 + _WIDE // 2
    if y0 == y1:  # an arc above the row, so that it passes no box
        path = f"M{x0} {y0}C{x0} {y0 - 16} {x1} {y0 - 16} {x1} {y0}"
    else:
        down = y1 > y0
        y0, y1 = (y0 + _HIGH, y1) if down else (y0, y1 + _HIGH)
        middle = (y0 + y1) // 2
        path = f"M{x0} {y0}C{x0} {middle} {x1} {middle} {x1} {y1}"
    return f'<path d="{path}" data-of="{of}"/>'


def _words(text: str, x: float, y: float, kind: str = "") -> str:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) > 17:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    first = y - 6.5 * (len(lines) - 1) + 4
    anchor = "start" if kind else "middle"
    spans = "".join(
        f'<tspan x="{x}" y="{first + 13 * number}">{escape(line)}</tspan>'
        for number, line in enumerate(lines)
    )
    return f'<text class="{kind}" text-anchor="{anchor}">{spans}</text>'


def _terms(book: Contents, bodies: dict[str, str]) -> str:
    """Return the index: words in bold, which is where a chapter explains them."""
    found: dict[str, list[str]] = {}
    for one in book.chapters:
        for term in _TERM.findall(bodies.get(one.slug, "")):
            chapters = found.setdefault(term.strip(" .,:;"), [])
            if one.slug not in chapters:
                chapters.append(one.slug)
    entries = "".join(
        f"<li>{term}: "
        + ", ".join(_link(book.chapter(one)) for one in found[term])
        + "</li>"
        for term in sorted(found, key=lambda term: re.sub("<.*?>", "", term).lower())
    )
    return f'<h1>Index</h1><ul class="terms">{entries}</ul>'


def _topics(book: Contents) -> str:
    rows = "".join(
        f"<tr><td>{escape(what)}</td><td>"
        + ", ".join(_link(one) for one in book.chapters if name in one.covers)
        + "</td></tr>"
        for name, what in book.topics.items()
    )
    return (
        "<h1>Every subject, and where it is</h1><p>The subjects are those of the "
        "notebooks and the bibliography of learn_cryoem_math by G. Woollard and "
        "others, which this book follows in scope.</p><table><thead><tr>"
        f"<th>subject</th><th>chapter</th></tr></thead><tbody>{rows}</tbody></table>"
    )
