"""The frame of every page: head, navigation, style and script."""

from functools import cache
from html import escape
from pathlib import Path

_HERE = Path(__file__).parent
# The page has all scripts in itself: a browser opens no module from the disk.
_EXPORT = "export default {render};"


def page(title: str, body: str) -> str:
    """Return a page that needs nothing beside itself.

    Parameters
    ----------
    title : str
        In the tab of the browser.
    body : str
        HTML.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)} | The mathematics of cryo-EM</title>\n"
        f"<style>\n{_read('page.css')}\n{_read('figure.css')}</style>\n</head>\n<body>\n"
        '<nav><a href="index.html">Contents</a><a href="notation.html">Notation</a>'
        '<a href="glossary.html">Glossary</a><a href="terms.html">Index</a>'
        '<button type="button" data-do="theme" aria-label="light or dark page">'
        "Light or dark</button></nav>\n"
        f"<main>\n{body}\n</main>\n<script>\n{_scripts()}</script>\n</body>\n</html>\n"
    )


@cache
def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


@cache
def _scripts() -> str:
    own = ("figure.js", "exercise.js")
    # Each in a function of its own: both have a `render` for notebooks.
    wrapped = (
        f"const {name} = (() => {{\n{_read(file).replace(_EXPORT, '')}\n"
        f"return {what};\n}})();\n"
        for file, name, what in zip(
            own, ("FIGURE", "EXERCISE"), ("{figure, unpack}", "{ask}"), strict=True
        )
    )
    return "".join(wrapped) + _read("page.js")
