"""The figures of cryoPoseNet's publication, drawn from the rows of runs."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rows import Row

from cryoinfer.report.style import BLUE, GREEN, GREY, INK, ORANGE, figure_style

METHODS = ("s2s2", "quaternion", "euler", "tomo", "ad")
COLOURS = dict(zip(METHODS, (BLUE, GREEN, ORANGE, INK, GREY), strict=True))


def best_of(rows: Sequence[Row]) -> Row:
    """Return the run with the least median error."""
    return min(rows, key=lambda row: row["median_degrees"])


def draw(rows: Sequence[Row], folder: Path) -> None:
    """Draw both figures of the runs with the largest box and the most steps."""
    largest = max(((row["box"], row["steps"]) for row in rows), default=None)
    drawn = [row for row in rows if (row["box"], row["steps"]) == largest]
    if not drawn:
        return
    with figure_style():
        for number, figure in ((2, figure_2(drawn)), (3, figure_3(drawn))):
            figure.savefig(folder / f"cryoposenet-figure-{number}.png", dpi=150)


def figure_2(rows: Sequence[Row]) -> Figure:
    """Draw loss and pose error by step on set A: mean and sd over seeds."""
    figure = Figure(figsize=(6.4, 6.4))
    upper, lower = figure.subplots(2, 1, sharex=True)
    for method in METHODS:
        own = [row for row in rows if row["set"] == "A" and row["method"] == method]
        if not own:
            continue
        share = sum(row["converged"] for row in own)
        outcome = f"{share} of {len(own)} converge"
        label = f"{method} ({'poses known' if method == 'tomo' else outcome})"
        spread(upper, own, "loss", COLOURS[method], label)
        if method != "tomo":
            spread(lower, own, "median_degrees", COLOURS[method], label)
    upper.set(xscale="log", yscale="log", ylabel="loss over the images' variance")
    upper.set_title("Set A: mean and standard deviation over seeds")
    lower.set(xlabel="step", ylabel="median pose error (degrees)", ylim=(0, 140))
    upper.legend()
    return figure


def spread(axes: Axes, rows: Sequence[Row], name: str, colour: str, label: str) -> None:
    steps = [point["step"] for point in rows[0]["curve"]]
    values = np.array([[point[name] for point in row["curve"]] for row in rows])
    mean, sd = values.mean(0), values.std(0)
    axes.plot(steps, mean, color=colour, label=label)
    # A band that reached below every run would leave a logarithmic axis.
    low = np.maximum(mean - sd, values.min(0))
    axes.fill_between(steps, low, mean + sd, color=colour, alpha=0.2, linewidth=0)


def figure_3(rows: Sequence[Row]) -> Figure:
    """Draw FSC curves: by step (A), by noise (B to F), and with a CTF (D and G)."""
    own = [row for row in rows if row["method"] == "s2s2"]
    best = {
        letter: best_of([row for row in own if row["set"] == letter])
        for letter in sorted({row["set"] for row in own})
    }
    figure = Figure(figsize=(10.5, 3.4))
    by_step, by_noise, with_ctf = figure.subplots(1, 3, sharex=True, sharey=True)
    if "A" in best:
        curve = best["A"]["curve"]
        for number, point in enumerate(curve):
            shade = mpl.colormaps["viridis"](number / len(curve))
            label = f"step {point['step']}" if number % 5 == 4 else None
            shells(by_step, best["A"], point["fsc"], shade, label)
    for number, letter in enumerate("BCDEF"):
        if letter in best:
            shade = mpl.colormaps["viridis"](number / 5)
            shells(by_noise, best[letter], best[letter]["fsc"], shade, letter)
    for letter, colour in (("D", BLUE), ("G", ORANGE)):
        if letter in best:
            shells(with_ctf, best[letter], best[letter]["fsc"], colour, letter)
    titles = ("A, by step", "B to F: 10 to -10 dB", "0 dB without (D), with CTF (G)")
    for axes, title in zip((by_step, by_noise, with_ctf), titles, strict=True):
        axes.axhline(0.143, color=GREY, linewidth=1, linestyle=":")
        axes.set(xlabel="spatial frequency (1/A)", ylim=(-0.1, 1.02), title=title)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)
    by_step.set_ylabel("FSC to the true map, best seed")
    return figure


def shells(
    axes: Axes, row: Row, fsc: Sequence[float], colour: object, label: str | None
) -> None:
    # The outermost shell holds next to nothing of the map.
    frequency = np.arange(len(fsc)) / row["length_angstrom"]
    axes.plot(frequency[1:-1], fsc[1:-1], color=colour, label=label, linewidth=1.3)
