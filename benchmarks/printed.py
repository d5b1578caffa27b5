"""Tables of rows in Markdown, as scripts print them and README.md shows them.

A table names the day of every row, marks those that are from before a known change, and
says beneath what changed and on which machines the rows were measured.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from rows import Row


@dataclass(frozen=True)
class Column:
    """A column of a printed table.

    Attributes
    ----------
    heading : str
    name : str
        Of the value in the row.
    style : str
        How the value is formatted.
    """

    heading: str
    name: str
    style: str = ""


@dataclass(frozen=True)
class Caution:
    """A change since when measured again a row would say something else.

    Attributes
    ----------
    mark : str
        Beside the day of the rows that it concerns.
    before : str
        The day of the change; it concerns rows of earlier days.
    text : str
        What they would say otherwise, and why.
    concerns : Callable
        Tells whether it concerns a row at all.
    """

    mark: str
    before: str
    text: str
    concerns: Callable[[Row], bool] = lambda row: True

    def of(self, concerns: Callable[[Row], bool]) -> "Caution":
        """Return the same caution for some rows of a table only."""
        return replace(self, concerns=concerns)

    def is_for(self, row: Row) -> bool:
        """Tell whether a row, or one that was merged into it, is from before."""
        # A row without a day is older than days are.
        return min(_all(row.get("date", ""))) < self.before and self.concerns(row)


NOISE = Caution(
    "n",
    "2026-11-28",
    "the noise that a run measured was up to 13 % too high, and 4.5 times too low in "
    "the outermost ring.",
)
KERNELS = Caution(
    "k",
    "2026-11-28",
    "kernels did not ask for voxels ahead: seconds would be fewer now.",
)
PRODUCTS = Caution(
    "b",
    "2026-11-30",
    "products were rounded to bfloat16 on processors with matrix units, and sums taken "
    "in another order.",
)
HALF_PRECISION = Caution(
    "h",
    "2026-11-30",
    "the encoder learned and inferred in half precision, which is gone: roundings were "
    "others, and a training in float32 takes longer.",
)


def table(
    rows: Iterable[Row], columns: Sequence[Column], cautions: Sequence[Caution] = ()
) -> str:
    """Return rows as a table in Markdown; what a row lacks stays empty."""
    rows = list(rows)
    machines = list(dict.fromkeys(_machine(row) for row in rows))
    shown = [[*map(str, _cells(row, columns)), _day(row, cautions)] for row in rows]
    headings = [*(column.heading for column in columns), "measured"]
    if len(machines) > 1:
        headings.append("machine")
        for cells, row in zip(shown, rows, strict=True):
            cells.append(_machine(row))
    lines = [headings, ["---"] * len(headings), *shown]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    if len(machines) == 1:
        text += f"\n\nMachine: {machines[0]}."
    notes = [
        f"- {caution.mark}: before {caution.before} {caution.text}"
        for caution in cautions
        if any(caution.is_for(row) for row in rows)
    ]
    text = "\n".join([text, *([""] if notes else []), *notes])
    return re.sub(r"(?<=\d)%", " %", text)


def merged(rows: Iterable[Row], key: Callable[[Row], Any]) -> list[Row]:
    """Return a row for each value of a key: what its rows share, and lists of the rest.

    A table shows a list as its least and its largest value. ``runs`` are the rows that
    were merged into one, and ``count`` is their number.
    """
    together = []
    for _, own in groupby(sorted(rows, key=key), key):
        group = list(own)
        row: Row = {"runs": group, "count": len(group)}
        for name in group[0]:
            values = [one.get(name) for one in group]
            same = all(value == values[0] for value in values)
            row[name] = values[0] if same else values
        together.append(row)
    return together


def cell(value: object, style: str) -> str:
    """Return a value as tables show it; a list as "least to largest"."""
    if isinstance(value, list):
        least, largest = cell(min(value), style), cell(max(value), style)
        if least == largest:
            return least
        return f"{least.removesuffix('%')} to {largest}"
    if value is None or isinstance(value, bool):
        return {None: "", True: "yes", False: "no"}[value]
    return format(value, style)


def _cells(row: Row, columns: Sequence[Column]) -> list[str]:
    return [cell(row.get(column.name), column.style) for column in columns]


def _day(row: Row, cautions: Sequence[Caution]) -> str:
    marks = ", ".join(c.mark for c in cautions if c.is_for(row))
    return f"{cell(row.get('date'), '')} {marks}".strip()


def _machine(row: Row) -> str:
    """Return the processor, its instructions where they were recorded, and threads."""
    texts = []
    for machine in _all(row["machine"]):
        parts = [machine["processor"], machine.get("instructions")]
        threads = machine["threads"]
        parts.append(f"{threads} thread" + "s" * (threads > 1))
        texts.append(", ".join(part for part in parts if part))
    return "; ".join(dict.fromkeys(texts))


def _all(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
