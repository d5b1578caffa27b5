"""Markdown with formulas as HTML that needs no script: formulas become MathML."""

import re
from xml.etree import ElementTree

import latex2mathml.converter
import marimo as mo

_FORMULA = re.compile(
    r"<marimo-tex[^>]*>\|\|(?P<kind>[(\[])(?P<tex>.*?)\|\|[)\]]</marimo-tex>", re.DOTALL
)
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"), ("&#39;", "'"))
# Commands of LaTeX that latex2mathml does not know.
_OTHERWISE = ((r"\arg", r"\operatorname{arg}"), (r"\AA", r"\text{Å}"))

_MATHML = "http://www.w3.org/1998/Math/MathML"
_ROWS = {f"{{{_MATHML}}}{name}" for name in ("math", "mrow", "mstyle", "mtd")}
_SPACE, _OPERATOR = f"{{{_MATHML}}}mspace", f"{{{_MATHML}}}mo"
_SCRIPTS = {f"{{{_MATHML}}}{name}" for name in ("msup", "msub", "msubsup")}
_OVER, _ROW = f"{{{_MATHML}}}mover", f"{{{_MATHML}}}mrow"
_BARS = {"\u00af", "\u2015", "\u203e"}
ElementTree.register_namespace("", _MATHML)


def html(markdown: str) -> str:
    """Return Markdown as HTML.

    Parameters
    ----------
    markdown : str
        As :func:`marimo.md` takes it: formulas between single or double dollars.

    Raises
    ------
    ValueError
        If a formula has a command that MathML does not know, or a dollar is left over.
    """
    return with_mathml(mo.md(markdown).text)


def with_mathml(text: str) -> str:
    """Return HTML of marimo with its formulas as MathML.

    Raises
    ------
    ValueError
        As :func:`html`.
    """
    found = _FORMULA.sub(_converted, text)
    left = re.sub(r"<(pre|code)\b.*?</\1>", "", found, flags=re.DOTALL)
    if "$" in left:
        place = left.index("$")
        near = left[max(place - 40, 0) : place + 40]
        raise ValueError(
            "a formula between $$ is a paragraph of its own, and one between $ has no "
            f"space inside these; a dollar is left in: {near}"
        )
    return found


def _converted(found: re.Match[str]) -> str:
    tex = found["tex"].strip()
    for entity, sign in _ENTITIES:
        tex = tex.replace(entity, sign)
    for command, known in _OTHERWISE:
        tex = re.sub(
            re.escape(command) + r"(?![A-Za-z])", known.replace("\\", r"\\"), tex
        )
    display = "block" if found["kind"] == "[" else "inline"
    formula = latex2mathml.converter.convert(tex, display=display)
    unknown = re.search(r"\\[A-Za-z]+", formula)
    if unknown:
        raise ValueError(f"no page can show {unknown[0]} in the formula {tex}")
    tree = ElementTree.fromstring(formula)
    _space_functions(tree)
    _draw_bars(tree)
    formula = ElementTree.tostring(tree, encoding="unicode")
    if display == "block":  # a wide one scrolls by itself on a phone
        return f'<span class="formula">{formula}</span>'
    return formula


def _space_functions(tree: ElementTree.Element) -> None:
    """Set a thin space around sin, log and others, which MathML alone does not."""
    for row in tree.iter():
        if row.tag not in _ROWS:
            continue
        parts = list(row)
        for number, part in enumerate(parts):
            if not _is_function(part):
                continue
            after = parts[number + 1] if number + 1 < len(parts) else None
            if after is not None and after.tag not in (_OPERATOR, _SPACE):
                row.insert(list(row).index(part) + 1, _thin_space())
            before = parts[number - 1] if number else None
            if before is not None and before.tag not in (_OPERATOR, _SPACE):
                row.insert(list(row).index(part), _thin_space())


def _is_function(part: ElementTree.Element) -> bool:
    while part.tag in _SCRIPTS:
        part = part[0]
    name = (part.text or "").strip()
    return part.tag == f"{{{_MATHML}}}mi" and len(name) > 1 and name.isalpha()


def _thin_space() -> ElementTree.Element:
    return ElementTree.Element(_SPACE, {"width": "0.167em"})


def _draw_bars(tree: ElementTree.Element) -> None:
    """Draw bars over more than one letter as a line: no font stretches them."""
    for over in tree.iter(_OVER):
        if over[0].tag == _ROW and (over[1].text or "") in _BARS:
            over.remove(over[1])
            over.tag = _ROW
            over.set("style", "border-top: 0.06em solid; padding-top: 0.1em")
