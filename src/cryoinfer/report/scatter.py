"""The particles of a run as a picture to look into: where they are, and which."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from numpy.typing import NDArray

from cryoinfer.report.packing import Codes, Packed, encode, pack
from cryoinfer.report.parts import packaged, prose, section

MOST_SHOWN = 1_000_000
"""Particles on a page; 2.7 MB a column."""

_STOPS = 33  # of the colour map: between them, straight lines are within a level of it
_SD = "_sd"  # ends the name of the column with another's posterior sd

_COUNT = "particles in a dot (log)"

_CAUTION = (
    "Points are posterior means, not the particles' true conformations. The prior "
    "makes their cloud narrower than the population, and noise makes it wider. Compare "
    "it with the median sd: gaps and clumps smaller than that mean nothing."
)
_KEYS = (
    "Drag to move the picture, or to draw a lasso (also with Shift held). After a "
    "click the wheel zooms. Keys: arrows move, + and - zoom, 0 shows all, Shift and "
    "arrows move a cross to the particles. A new selection replaces the last. Colours "
    "begin and end at the 0.5 and 99.5 percent points of a column until they are "
    "changed; particles beyond have the colour of the end, those without a value are "
    "grey. The ellipse of a particle is its posterior's sd along both axes, without "
    "their correlation."
)


@dataclass(frozen=True)
class ScatterContent:
    """What the picture shows, of n particles.

    Attributes
    ----------
    run : str
        Name of the run; goes into the file of a selection.
    columns : mapping of str to ndarray, shape (n,)
        Numbers by the name that they are chosen by, in the order of particles.star; NaN
        where a particle has none. ``z_1_sd`` is the posterior's standard deviation of
        ``z_1``, and so on. The first two that are no such deviation are shown first.
    units : mapping of str to str
        Of columns that have one.
    """

    run: str
    columns: Mapping[str, NDArray[Any]]
    units: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if len(self.positions) < 2:
            raise ValueError(f"columns: two to be drawn by, not {list(self.columns)}")
        shapes = {column.shape for column in self.columns.values()}
        if len(shapes) > 1 or len(next(iter(shapes))) != 1:
            raise ValueError(f"columns: all of one length, not of shapes {shapes}")

    @property
    def count(self) -> int:
        """Return how many particles there are."""
        return len(next(iter(self.columns.values())))

    @property
    def positions(self) -> list[str]:
        """Return the columns that are no standard deviation of another."""
        return [
            name
            for name in self.columns
            if not (name.endswith(_SD) and name.removesuffix(_SD) in self.columns)
        ]


def scatter_section(content: ScatterContent, random: np.random.Generator) -> str:
    """Return the picture with its heading, and with what it does not show.

    Parameters
    ----------
    content : ScatterContent
    random : numpy.random.Generator
        Draws the particles that are shown where there are more than ``MOST_SHOWN``.

    Returns
    -------
    str
        HTML; once on a page.
    """
    count = content.count
    lead = "A point a particle."
    if count > MOST_SHOWN:
        lead = (
            f"One point per particle, {MOST_SHOWN:,} drawn at random from {count:,}: "
            "the others are neither shown nor selected."
        )
    return section(
        "Particles",
        f"{lead} Selections are saved as rows of `particles.star`, counted from 0: "
        "`cryoinfer select RUN --rows FILE` takes them.",
        f'<p class="aside">{prose(_CAUTION)}</p>',
        scatter_view(content, random),
    )


def scatter_view(content: ScatterContent, random: np.random.Generator) -> str:
    """Return the picture alone; see :func:`scatter_section`."""
    rows = _shown_rows(content.count, random)
    columns = {
        name: pack(values if rows is None else values[rows])
        for name, values in content.columns.items()
    }
    about = _about(content, columns, rows is not None)
    # No text in the data can end the element.
    text = json.dumps(about, separators=(",", ":")).replace("<", "\\u003c")
    data = [_data(f"column-{k}", one.codes) for k, one in enumerate(columns.values())]
    if rows is not None:
        data.append(_data("rows", rows))
    return "\n".join(
        (
            f"<style>\n{packaged('scatter.css')}</style>",
            _figure(content.positions, list(content.columns)),
            f'<script type="application/json" id="scatter-about">{text}</script>',
            *data,
            f"<script>\n{packaged('scatter.js')}</script>",
        )
    )


def _shown_rows(count: int, random: np.random.Generator) -> NDArray[np.uint32] | None:
    """Return the rows that are shown, in order; None if all are."""
    if count <= MOST_SHOWN:
        return None
    drawn = random.choice(count, MOST_SHOWN, replace=False, shuffle=False)
    return np.sort(drawn).astype(np.uint32)


def _about(
    content: ScatterContent, columns: Mapping[str, Packed], subset: bool
) -> dict[str, Any]:
    """Return what the script has to know beside the codes."""
    names = list(columns)
    stops = mpl.colormaps["viridis"](np.linspace(0, 1, _STOPS))[:, :3]
    return {
        "run": content.run,
        "total": content.count,
        "shown": len(columns[names[0]].codes),
        "subset": subset,
        "columns": [
            {
                "name": name,
                "unit": content.units.get(name, ""),
                "least": one.least,
                "step": one.step,
                "exact": one.exact,
                "sd": names.index(name + _SD) if name + _SD in columns else None,
            }
            for name, one in columns.items()
        ],
        "map": np.rint(255 * stops).astype(int).tolist(),
    }


def _data(name: str, array: Codes) -> str:
    return (
        f'<script type="application/octet-stream" id="scatter-{name}">'
        f"{encode(array)}</script>"
    )


def _figure(positions: Sequence[str], names: Sequence[str]) -> str:
    """Return picture and controls."""
    across, up = (_options(names, names.index(positions[k])) for k in (0, 1))
    colour = f'<option value="-1">{_COUNT}</option>' + _options(names, None)
    modes = _buttons({"pan": "Move", "lasso": "Lasso"}, ' aria-pressed="false"')
    zooms = _buttons({"closer": "+", "farther": "\N{MINUS SIGN}", "all": "Show all"})
    picks = _buttons(
        {"view": "Select what is in view", "clear": "Clear", "save": "Save selection"}
    )
    return f"""<figure id="scatter">
<div class="controls">
<label>Across <select class="x">{across}</select></label>
<label>Up <select class="y">{up}</select></label>
<label>Colour <select class="colour">{colour}</select></label>
</div>
<div class="range"><span>Colours from</span>
<input class="low" type="number" step="any" aria-label="Colours begin at">
<canvas class="bar" role="img" aria-label="Colours from low to high"></canvas>
<input class="high" type="number" step="any" aria-label="Colours end at"></div>
<div class="buttons">{modes}{zooms}</div>
<div class="picture">
<canvas class="points" tabindex="0" role="img" aria-label="Particles by the columns \
chosen; arrow keys move, plus and minus zoom, Shift and arrows move a cross"></canvas>
<canvas class="marks" aria-hidden="true"></canvas>
</div>
<output class="count"></output>
<div class="buttons">{picks}</div>
<div class="particle" aria-live="polite">Point at a particle to read its values, with \
the standard deviation of its posterior where there is one.</div>
<figcaption>{prose(_KEYS)}</figcaption>
<noscript><p>The picture is drawn by a script, which this browser does not run.</p>\
</noscript>
</figure>"""


def _options(names: Sequence[str], chosen: int | None) -> str:
    marks = [" selected" if k == chosen else "" for k in range(len(names))]
    return "".join(
        f'<option value="{k}"{mark}>{escape(name)}</option>'
        for k, (name, mark) in enumerate(zip(names, marks, strict=True))
    )


_LABELS = {"+": "Zoom in", "\N{MINUS SIGN}": "Zoom out"}


def _buttons(texts: Mapping[str, str], state: str = "") -> str:
    return "\n".join(
        f'<button type="button" data-do="{do}"{state}'
        + (f' aria-label="{_LABELS[text]}"' if text in _LABELS else "")
        + f">{text}</button>"
        for do, text in texts.items()
    )
