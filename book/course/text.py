"""Markdown with formulas as HTML that needs no script: formulas become MathML."""

import re

import latex2mathml.converter
import marimo as mo

_FORMULA = re.compile(
    r"<marimo-tex[^>]*>\|\|(?P<kind>[(\[])(?P<tex>.*?)\|\|[)\]]</marimo-tex>", re.DOTALL
)
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"), ("&#39;", "'"))
# Commands of LaTeX that latex2mathml does not know.
_OTHERWISE = ((r"\arg", r"\operatorname{arg}"), (r"\AA", r"\text{Å}"))


def html(markdown: str) -> str:
    """Return Markdown as HTML.

    Parameters
    ----------
    markdown : str
        As :func:`marimo.md` takes it: formulas between single or double dollars.

    Raises
    ------
    ValueError
        If a formula has a command that MathML does not know.
    """
    return with_mathml(mo.md(markdown).text)


def with_mathml(text: str) -> str:
    """Return HTML of marimo with its formulas as MathML.

    Raises
    ------
    ValueError
        As :func:`html`, and if a displayed formula stands within a paragraph.
    """
    found = _FORMULA.sub(_converted, text)
    if "$<math" in found or "</math>$" in found:
        raise ValueError("a formula between $$ is a paragraph of its own")
    return found


def _converted(found: re.Match[str]) -> str:
    tex = found["tex"].strip()
    for entity, sign in _ENTITIES:
        tex = tex.replace(entity, sign)
    for command, known in _OTHERWISE:
        tex = re.sub(re.escape(command) + r"(?![A-Za-z])", lambda _: known, tex)  # noqa: B023
    display = "block" if found["kind"] == "[" else "inline"
    formula = latex2mathml.converter.convert(tex, display=display)
    unknown = re.search(r"\\[A-Za-z]+", formula)
    if unknown:
        raise ValueError(f"no page can show {unknown[0]} in the formula {tex}")
    return formula
