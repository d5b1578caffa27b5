"""The page about the normal modes of a structure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryoinfer.io.atoms import AtomicModel
from cryoinfer.report.parts import (
    Finding,
    figure,
    page,
    repeat_section,
    section,
    table,
    tiles,
)
from cryoinfer.report.style import (
    BLUE,
    COLUMN_INCHES,
    GREY,
    INK,
    ORANGE,
    figure_style,
    to_svg,
)

_DRAWN = 3  # modes
_MODE_INCHES = (2.7, 2.2)
_LONGEST_ARROW = 0.2  # over the extent of the structure
_FEWEST_B_FACTORS = 10
_GOOD_CORRELATION = 0.4
_CHAINS_WITH_NUMBERS = 4  # above which there is no room for residues' numbers
_TICKS = 9  # for both, at most
_ROUND = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)

MODE_HEADS = ("mode", "stiffness", "amplitude", "collectivity", "moves most")
"""What :func:`mode_rows` returns of each mode."""


@dataclass(frozen=True)
class ModesContent:
    """All that the page shows.

    Attributes
    ----------
    title, created : str
    nodes : AtomicModel
        Of n atoms.
    springs : int
    direction : ndarray, shape (k, n, 3)
    stiffness, amplitude, collectivity : ndarray, shape (k,)
        Amplitudes are thermal, over that of the first.
    fluctuation : ndarray, shape (n,)
        Mean square displacement of each node, in any units.
    fluctuation_modes : int
        How many modes it is the sum over.
    notes : sequence of str
        What is left out of the structure, and what else to know of it.
    arguments, versions : mapping
    """

    title: str
    created: str
    nodes: AtomicModel
    springs: int
    direction: NDArray[np.float64]
    stiffness: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    collectivity: NDArray[np.float64]
    fluctuation: NDArray[np.float64]
    fluctuation_modes: int
    notes: Sequence[str] = ()
    arguments: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def correlation(self) -> float | None:
        """Correlation of fluctuations and B-factors; None where these say nothing."""
        b_factors = self.nodes.b_factors_angstrom2
        if len(b_factors) < _FEWEST_B_FACTORS or np.ptp(b_factors) == 0:
            return None
        return float(np.corrcoef(self.fluctuation, b_factors)[0, 1])


def render_modes_report(content: ModesContent) -> str:
    """Write the normal modes of a structure as a self-contained HTML page."""
    n, k = len(content.nodes), len(content.stiffness)
    correlation = content.correlation
    chains = len(set(content.nodes.chain_names))
    ratio = content.stiffness[1] / content.stiffness[0] if k > 1 else np.nan
    return page(
        title=content.title,
        subtitle=f"Normal modes of an elastic network · {content.created}",
        verdict=f"{n:,} nodes and {content.springs:,} springs. The softest mode moves "
        f"{content.collectivity[0]:.0%} of the structure, and the second is "
        f"{ratio:.1f} times as stiff."
        if k > 1
        else f"{n:,} nodes and {content.springs:,} springs.",
        tiles=tiles(
            ("Nodes", f"{n:,}", f"{chains} chain{'s' if chains > 1 else ''}"),
            (
                "Springs",
                f"{content.springs:,}",
                f"{2 * content.springs / n:.0f} per node",
            ),
            ("Modes", f"{k}", "the softest"),
            (
                "B-factors",
                "none" if correlation is None else f"{correlation:.2f}",
                "correlation with fluctuations",
            ),
        ),
        findings=assess_modes(content),
        sections=_sections(content),
    )


def mode_rows(content: ModesContent) -> list[list[str]]:
    """Return a row a mode: :data:`MODE_HEADS`."""
    most = np.linalg.norm(content.direction, axis=2).argmax(1)
    values = zip(
        content.stiffness, content.amplitude, content.collectivity, most, strict=True
    )
    return [
        [
            str(number),
            f"{stiffness:.4g}",
            f"{amplitude:.2f}",
            f"{share:.0%}",
            content.nodes.residue_label(int(row)),
        ]
        for number, (stiffness, amplitude, share, row) in enumerate(values, 1)
    ]


def assess_modes(content: ModesContent) -> list[Finding]:
    """Return what a user of the modes should know."""
    findings = []
    if content.collectivity[0] < 0.1:
        findings.append(
            Finding(
                "caution",
                f"The softest mode moves {content.collectivity[0]:.0%} of the "
                "structure: it is a loose end, not a motion of domains. Remove the "
                "end, or raise the cutoff.",
            )
        )
    correlation = content.correlation
    if correlation is not None and correlation < _GOOD_CORRELATION:
        findings.append(
            Finding(
                "caution",
                f"Fluctuations and B-factors are correlated by {correlation:.2f} only: "
                "the B-factors may reflect the crystal or the fit, or the network "
                "of another state.",
            )
        )
    elif correlation is not None:
        findings.append(
            Finding(
                "good",
                f"Fluctuations and B-factors are correlated by {correlation:.2f}.",
            )
        )
    return findings


def _sections(content: ModesContent) -> Iterator[str]:
    yield section(
        "The softest modes",
        "The backbone, seen along the axis that it extends least along, and where the "
        "nodes move; arrows are to one scale within a mode.",
        figure(
            "modes",
            draw_modes(content),
            "Displacements of the softest modes",
            shape="panels",
        ),
    )
    yield section(
        "Stiffness",
        "In units of one spring. The thermal amplitude of a mode goes with the inverse "
        "root of its stiffness. The residue that moves most is given with its chain.",
        table([head.capitalize() for head in MODE_HEADS], mode_rows(content)),
    )
    yield section(
        "Fluctuations",
        f"Mean square displacements of the residues' nodes in the "
        f"{content.fluctuation_modes} softest modes, and the B-factors of the "
        "structure, both over their mean.",
        figure(
            "fluctuations",
            draw_fluctuations(content),
            "Fluctuations by residue",
            shape="middle",
        ),
    )
    if content.notes:
        yield section("The structure", ". ".join(content.notes) + ".")
    yield repeat_section(content.arguments, content.versions)


def draw_modes(content: ModesContent) -> list[str]:
    """Draw the backbone and the displacements of the first modes, an SVG each."""
    places, names = content.nodes.coordinates_angstrom, content.nodes.chain_names
    centred = places - places.mean(0)
    _, _, axes_of = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes_of[:2].T
    extent = float(np.ptp(flat, axis=0).max())
    drawn = []
    for number, direction in enumerate(content.direction[:_DRAWN], start=1):
        moved = direction @ axes_of[:2].T
        longest = float(np.linalg.norm(direction, axis=1).max())
        moved = moved * (_LONGEST_ARROW * extent / longest)
        with figure_style():
            drawing = Figure(figsize=_MODE_INCHES)
            axes = drawing.add_subplot()
            for chain in dict.fromkeys(names):
                own = [name == chain for name in names]
                axes.plot(*flat[own].T, color=GREY, linewidth=0.7)
            _arrows(axes, flat, moved)
            axes.set(xticks=[], yticks=[], aspect="equal", title=f"Mode {number}")
            axes.grid(False)
            axes.spines[:].set_visible(False)
            drawn.append(to_svg(drawing))
    return drawn


def _arrows(axes: Axes, at: NDArray[np.float64], moved: NDArray[np.float64]) -> None:
    some = slice(None, None, max(1, len(at) // 400))
    axes.quiver(
        *at[some].T,
        *moved[some].T,
        color=BLUE,
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.004,
    )
    # Arrows do not count as drawn, and would be cut off.
    axes.update_datalim(at[some] + moved[some])
    axes.autoscale_view()


def draw_fluctuations(content: ModesContent) -> str:
    """Draw fluctuations and B-factors by residue, as SVG."""
    with figure_style():
        drawing = Figure(figsize=(COLUMN_INCHES, 2.8))
        axes = drawing.add_subplot()
        number = np.arange(1, len(content.fluctuation) + 1)
        if content.correlation is not None:
            b_factors = content.nodes.b_factors_angstrom2
            axes.plot(
                number,
                b_factors / b_factors.mean(),
                color=ORANGE,
                linewidth=1.2,
                linestyle=(0, (5, 2)),
                label="B-factors",
            )
        fluctuation = content.fluctuation / content.fluctuation.mean()
        axes.plot(number, fluctuation, color=BLUE, linewidth=1.2, label="modes")
        axes.set(ylabel="over the mean", xlim=(1, max(2, len(number))))
        axes.set_ylim(bottom=0)
        _label_residues(axes, content.nodes)
        drawing.legend(loc="outside upper right", ncols=2)
        return to_svg(drawing)


def _label_residues(axes: Axes, nodes: AtomicModel) -> None:
    """Name places along an axis of nodes, from 1, by residue and chain."""
    names, numbers = np.array(nodes.chain_names), np.array(nodes.residue_numbers)
    begins = np.concatenate([[0], np.flatnonzero(names[1:] != names[:-1]) + 1])
    ends = np.append(begins[1:], len(names))
    for begin in begins[1:]:
        axes.axvline(begin + 0.5, color=INK, linewidth=0.6, alpha=0.4)
    middles = (begins + ends + 1) / 2
    if len(begins) > _CHAINS_WITH_NUMBERS:
        some = slice(None, None, -(-len(begins) // _TICKS))
        axes.set_xticks(middles[some], names[begins][some])
        axes.set_xlabel("chain")
        return
    step = next((one for one in _ROUND if len(names) / one <= _TICKS), _ROUND[-1])
    # Of residues with one number and several insertion codes the first.
    round_ones = (numbers % step == 0) & np.append(True, numbers[1:] != numbers[:-1])
    axes.set_xticks(np.flatnonzero(round_ones) + 1, numbers[round_ones])
    if len(begins) == 1:
        axes.set_xlabel(f"residue of chain {names[0]}")
        return
    axes.set_xlabel("residue")
    for middle, begin in zip(middles, begins, strict=True):
        axes.text(
            middle,
            1.01,
            f"chain {names[begin]}",
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
        )
