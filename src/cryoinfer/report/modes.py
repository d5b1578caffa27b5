"""The page about the normal modes of a structure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryoinfer.report.parts import (
    Finding,
    figure,
    page,
    repeat_section,
    section,
    table,
    tiles,
)
from cryoinfer.report.style import BLUE, GREY, INK, ORANGE, figure_style, to_svg

_DRAWN = 3  # modes
_LONGEST_ARROW = 0.2  # over the extent of the structure
_FEWEST_B_FACTORS = 10
_GOOD_CORRELATION = 0.4


@dataclass(frozen=True)
class ModesContent:
    """All that the page shows.

    Attributes
    ----------
    title, created : str
    chain_names : sequence of str, length n
        Of the nodes, in their order.
    springs : int
    coordinates_angstrom : ndarray, shape (n, 3)
    direction : ndarray, shape (k, n, 3)
    stiffness, amplitude, collectivity : ndarray, shape (k,)
        Amplitudes are thermal, over that of the first.
    fluctuation : ndarray, shape (n,)
        Mean square displacement of each node, in any units.
    fluctuation_modes : int
        How many modes it is the sum over.
    b_factors_angstrom2 : ndarray, shape (n,)
    arguments, versions : mapping
    """

    title: str
    created: str
    chain_names: Sequence[str]
    springs: int
    coordinates_angstrom: NDArray[np.float64]
    direction: NDArray[np.float64]
    stiffness: NDArray[np.float64]
    amplitude: NDArray[np.float64]
    collectivity: NDArray[np.float64]
    fluctuation: NDArray[np.float64]
    fluctuation_modes: int
    b_factors_angstrom2: NDArray[np.float64]
    arguments: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def correlation(self) -> float | None:
        """Correlation of fluctuations and B-factors; None where these say nothing."""
        b_factors = self.b_factors_angstrom2
        if len(b_factors) < _FEWEST_B_FACTORS or np.ptp(b_factors) == 0:
            return None
        return float(np.corrcoef(self.fluctuation, b_factors)[0, 1])


def render_modes_report(content: ModesContent) -> str:
    """Write the normal modes of a structure as a self-contained HTML page."""
    n, k = len(content.coordinates_angstrom), len(content.stiffness)
    correlation = content.correlation
    chains = len(set(content.chain_names))
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
                f"{2 * content.springs / n:.0f} a node",
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
    """Return a row a mode: number, stiffness, amplitude, collectivity."""
    values = zip(
        content.stiffness, content.amplitude, content.collectivity, strict=True
    )
    return [
        [str(number), f"{stiffness:.4g}", f"{amplitude:.2f}", f"{share:.0%}"]
        for number, (stiffness, amplitude, share) in enumerate(values, 1)
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
                "the B-factors may tell of the crystal or of the fit, or the network "
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
        figure("modes", draw_modes(content), "Displacements of the softest modes"),
    )
    yield section(
        "Stiffness",
        "In units of one spring. The thermal amplitude of a mode goes with the inverse "
        "root of its stiffness.",
        table(
            ("Mode", "Stiffness", "Amplitude", "Collectivity"),
            mode_rows(content),
        ),
    )
    yield section(
        "Fluctuations",
        f"Mean square displacements of the nodes in the {content.fluctuation_modes} "
        "softest modes, and the B-factors of the structure, both over their mean.",
        figure("fluctuations", draw_fluctuations(content), "Fluctuations by node"),
    )
    yield repeat_section(content.arguments, content.versions)


def draw_modes(content: ModesContent) -> str:
    """Draw the backbone and the displacements of the first modes, as SVG."""
    centred = content.coordinates_angstrom - content.coordinates_angstrom.mean(0)
    _, _, axes_of = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes_of[:2].T
    extent = float(np.ptp(flat, axis=0).max())
    shown = min(_DRAWN, len(content.direction))
    with figure_style():
        drawing = Figure(figsize=(7.2, 2.9))
        row = drawing.subplots(1, shown, squeeze=False, sharex=True, sharey=True)[0]
        for number, axes in enumerate(row):
            moved = content.direction[number] @ axes_of[:2].T
            longest = float(np.linalg.norm(content.direction[number], axis=1).max())
            moved = moved * (_LONGEST_ARROW * extent / longest)
            for chain in dict.fromkeys(content.chain_names):
                own = [name == chain for name in content.chain_names]
                axes.plot(*flat[own].T, color=GREY, linewidth=0.7)
            _arrows(axes, flat, moved)
            axes.set(xticks=[], yticks=[], aspect="equal", title=f"Mode {number + 1}")
            axes.grid(False)
            axes.spines[:].set_visible(False)
        return to_svg(drawing)


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


def draw_fluctuations(content: ModesContent) -> str:
    """Draw fluctuations and B-factors by node, as SVG."""
    with figure_style():
        drawing = Figure(figsize=(7.2, 3.0))
        axes = drawing.add_subplot()
        number = np.arange(1, len(content.fluctuation) + 1)
        if content.correlation is not None:
            b_factors = content.b_factors_angstrom2
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
        names = np.array(content.chain_names)
        for begin in np.flatnonzero(names[1:] != names[:-1]) + 1.5:
            axes.axvline(begin, color=INK, linewidth=0.6, alpha=0.4)
        axes.set(xlabel="node", ylabel="over the mean", xlim=(1, len(number)))
        axes.set_ylim(bottom=0)
        axes.legend(loc="upper right")
        return to_svg(drawing)
