"""What the pages of reports are made of: HTML that needs nothing but itself."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from string import Template
from typing import Literal

from cryoinfer.report import figures
from cryoinfer.report.style import THEME_COLOURS
from cryoinfer.wording import format_duration, spell_angstrom

_FEW_COLUMNS = 3
"""As many fit on a phone."""


@dataclass(frozen=True)
class Finding:
    """One thing that a reader of a report should know.

    Attributes
    ----------
    level : {"good", "caution"}
    text : str
    """

    level: Literal["good", "caution"]
    text: str


def cautions(findings: Iterable[Finding]) -> list[str]:
    """Return the texts of what asks for caution, for the screen and the record."""
    return [finding.text for finding in findings if finding.level == "caution"]


def page(
    *,
    title: str,
    subtitle: str,
    verdict: str,
    tiles: str,
    findings: Iterable[Finding],
    sections: Iterable[str],
) -> str:
    """Return a whole page; tiles and sections are HTML already."""
    return Template(packaged("page.html")).substitute(
        title=escape(title),
        subtitle=escape(subtitle),
        verdict=prose(verdict),
        tiles=tiles,
        findings=_list(findings),
        sections="\n".join(sections),
    )


def packaged(name: str) -> str:
    """Return the text of a file that lies beside this one: a page, style or script."""
    file = resources.files("cryoinfer.report").joinpath(name)
    return file.read_text(encoding="utf-8")


def tiles(*values: tuple[str, str, str]) -> str:
    """Return tiles of a name, a value and a note each."""
    return "\n".join(
        f'<div class="tile"><dt>{name}</dt><dd>{prose(value)}'
        f"<small>{prose(note)}</small></dd></div>"
        for name, value, note in values
    )


def _list(findings: Iterable[Finding]) -> str:
    # A sign beside the colour, for those who cannot tell the colours apart.
    signs = {"good": ("\N{CHECK MARK}", "Good"), "caution": ("!", "Caution")}
    rows = []
    for finding in findings:
        sign, label = signs[finding.level]
        rows.append(
            f'<li class="{finding.level}"><span class="sign" role="img" '
            f'aria-label="{label}">{sign}</span>'
            f"<span>{prose(finding.text)}</span></li>"
        )
    return "\n".join(rows)


def time_tile(stage_seconds: Mapping[str, float]) -> tuple[str, str, str]:
    """Return the tile of how long a run took."""
    return "Time", format_duration(sum(stage_seconds.values())), "all stages"


def last_sections(
    stage_seconds: Mapping[str, float],
    remarks: Iterable[str],
    arguments: Mapping[str, str],
    versions: Mapping[str, str],
) -> Iterator[str]:
    """Yield what ends a report: times, remarks, and how to repeat the run."""
    yield section("Course of the run", "", *times(stage_seconds))
    yield remarks_section(remarks)
    yield repeat_section(arguments, versions)


def repeat_section(arguments: Mapping[str, str], versions: Mapping[str, str]) -> str:
    """Return how to repeat a run; nothing if nothing of it is known."""
    tables = [
        table(heads, [[code(name), code(value)] for name, value in rows.items()])
        for heads, rows in (
            (("Argument", "Value"), arguments),
            (("Software", "Version"), versions),
        )
        if rows
    ]
    return section("How to repeat this run", "", columns(*tables)) if tables else ""


def remarks_section(remarks: Iterable[str]) -> str:
    """Return what was said of what was read; nothing if nothing was."""
    rows = "".join(f"<li>{prose(text)}</li>" for text in remarks)
    return section("What was read", "", f"<ul>{rows}</ul>") if rows else ""


def times(stage_seconds: Mapping[str, float]) -> list[str]:
    """Return figure and table of the time of every stage, if any is known."""
    if not stage_seconds:
        return []
    total = max(sum(stage_seconds.values()), 1e-9)
    rows = [
        [prose(name), format_duration(seconds), f"{seconds / total:.0%}"]
        for name, seconds in stage_seconds.items()
    ]
    return [
        figure(
            "times",
            figures.draw_times(stage_seconds),
            "Time of every stage",
            "By the clock: other work on the same machine is in it.",
            shape="middle",
        ),
        table(("Stage", "Time", "Share"), rows),
    ]


def section(heading: str, lead: str, *parts: str) -> str:
    """Return a section; the parts are HTML already, the lead is text."""
    lead = f"<p>{prose(lead)}</p>" if lead else ""
    body = "\n".join(parts)
    return f"<section>\n<h2>{heading}</h2>\n{lead}\n{body}\n</section>"


Shape = Literal["middle", "narrow", "panels", "map"]
"""Of a figure: drawn for the width of a column or of half a column, in drawings that
lie side by side where there is room, or as the pictures of a map."""


def figure(
    name: str,
    svg: str | Sequence[str],
    description: str,
    caption: str = "",
    shape: Shape = "middle",
) -> str:
    """Return a figure with its caption.

    Parameters
    ----------
    name : str
        Its alone on the page.
    svg : str or sequence of str
        A drawing, or several. All fit on a phone, 22 rem wide: they are drawn no wider
        than 5 inches.
    description : str
        For those who do not see it.
    caption : str
    shape : Shape
    """
    caption = f"<figcaption>{prose(caption)}</figcaption>" if caption else ""
    if isinstance(svg, str):
        drawn = _inline_svg(svg, name, description)
    else:
        drawn = "\n".join(
            _inline_svg(one, f"{name}-{number}", f"{description}, {number}")
            for number, one in enumerate(svg, start=1)
        )
    return (
        f'<figure class="{shape}">\n<div class="drawing">\n{drawn}\n</div>\n'
        f"{caption}</figure>"
    )


def _inline_svg(svg: str, name: str, description: str) -> str:
    """Make a figure part of the page: own ids, the page's colours, fluid width."""
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    for colour, variable in THEME_COLOURS.items():
        svg = svg.replace(colour, f"var({variable})")
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{escape(description)}">{rest}'


def columns(*parts: str) -> str:
    """Return parts side by side, where there is room."""
    return '<div class="columns">' + "\n".join(parts) + "</div>"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table; the cells are HTML already."""
    names = [escape(spell_angstrom(text)) for text in heads]
    head = "".join(f"<th>{name}</th>" for name in names)
    many = len(names) > _FEW_COLUMNS  # on a phone each cell says what it is
    opening = [f'<td data-name="{name}">' if many else "<td>" for name in names]
    body = "\n".join(
        "<tr>"
        + "".join(f"{td}{cell}</td>" for td, cell in zip(opening, row, strict=True))
        + "</tr>"
        for row in rows
    )
    kind = ' class="many"' if many else ""
    return (
        f'<div class="scroll"><table{kind}>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def code(text: str) -> str:
    """Return a text set as code."""
    return f"<code>{escape(text)}</code>"


def prose(text: str) -> str:
    """Escape a text, and set what stands in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(spell_angstrom(text)))
