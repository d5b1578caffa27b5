"""The amplitude of a map over the square of the frequency, as SVG text."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from cryoinfer.evaluation.fsc import resolution_at, shell_means
from cryoinfer.fourier.transform import map_to_fourier
from cryoinfer.report.style import BLUE, COLUMN_INCHES, MUTED, figure_style, to_svg

GUINIER_CAPTION = (
    "Amplitude of the map in each shell. The map is weighted by its FSC and not "
    "sharpened: the slope is that of the molecule, of all that blurs it, and of the "
    "weights. A B-factor is fitted beyond 10 Å "
    "and before the dashed line, where the FSC falls below 0.143; beyond it is noise."
)

_ROUND_ANGSTROM = (40, 30, 20, 15, 12, 10, 8, 7, 6, 5, 4.5, 4, 3.5, 3, 2.7, 2.4, 2.2, 2)
_LEAST_SPACE = 0.13  # of an axis, that a resolution on it takes
_LEAST_AMPLITUDE = 1e-6  # of the largest, below which there are but roundings


def draw_guinier(density: Tensor, pixel_size_angstrom: float, fsc: Tensor) -> str:
    """Draw the logarithm of a map's amplitude over the square of the frequency.

    Parameters
    ----------
    density : Tensor, shape (n, n, n)
        Not the same everywhere.
    pixel_size_angstrom : float
    fsc : Tensor, shape (n // 2 + 1,)
        Of its halves.

    Returns
    -------
    str
    """
    box = density.shape[-1]
    power = map_to_fourier(density.double().cpu()).abs().square()
    amplitude = shell_means(power, box).sqrt().numpy()[1:]
    squared = (np.arange(1, box // 2 + 1) / (box * pixel_size_angstrom)) ** 2
    seen = amplitude > _LEAST_AMPLITUDE * amplitude.max()
    reached = resolution_at(fsc, 0.143, box, pixel_size_angstrom)
    with figure_style():
        figure = Figure(figsize=(COLUMN_INCHES, 3.1))
        axes = figure.add_subplot()
        shown = np.log(np.where(seen, amplitude, np.nan))
        axes.plot(squared, shown, color=BLUE, marker="o", markersize=3)
        if float(fsc[1]) >= 0.143:
            axes.axvline(reached**-2, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set(xlabel="1/d² (1/Å²)", ylabel="ln amplitude", xlim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        above = axes.secondary_xaxis("top", functions=(lambda v: v, lambda v: v))
        shown_angstrom = _spaced_resolutions(float(squared[-1]))
        above.set_xticks(
            [one**-2 for one in shown_angstrom],
            [f"{one:g} Å" for one in shown_angstrom],
        )
        return to_svg(figure)


def _spaced_resolutions(last: float) -> list[float]:
    """Return round resolutions in angstrom whose 1/d² have room below the last one."""
    found: list[float] = []
    for angstrom in _ROUND_ANGSTROM:
        place = angstrom**-2 / last
        before = found[-1] ** -2 / last if found else 0.0
        if place <= 1 and place - before >= _LEAST_SPACE:
            found.append(angstrom)
    return found
