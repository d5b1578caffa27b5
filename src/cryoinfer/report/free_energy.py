"""Figures of motions: free energies, and how well amplitudes are known."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryoinfer.evaluation.free_energy import FreeEnergy, FreeEnergyPlane
from cryoinfer.report.landscape import PANEL, Curve, draw_curve, draw_plane
from cryoinfer.report.parts import columns, figure, section
from cryoinfer.report.style import BLUE, GREY, ORANGE, figure_style, to_svg

_HIGHEST_KT = 5.0  # of a landscape
_DRAWN = 3  # modes
_LINES = ((BLUE, "-"), (ORANGE, (0, (5, 2))), (GREY, (0, (1, 1))))


def free_energy_section(
    energies: Sequence[FreeEnergy],
    plane: FreeEnergyPlane | None,
    known_angstrom: NDArray[np.float64],
    centre_angstrom: NDArray[np.float64],
) -> str:
    """Return the free energy along the first modes, and of the first two.

    Parameters
    ----------
    energies : sequence of FreeEnergy
        One a mode; none where there are too few particles.
    plane : FreeEnergyPlane, optional
    known_angstrom : ndarray, shape (c,)
        Median standard deviation of the amplitudes' posteriors.
    centre_angstrom : ndarray, shape (m, c)
        Centres of clusters, drawn where there are several minima.
    """
    drawn = [
        figure(
            f"free-energy-{mode}",
            draw_curve(
                Curve(energy.at, energy.energy, energy.low, energy.high),
                (_amplitude(mode), "free energy (kT)"),
                (-0.3, _HIGHEST_KT),
            ),
            f"Free energy by amplitude of mode {mode}",
            _told_minima(energy, float(known_angstrom[mode - 1])),
            "narrow",
        )
        for mode, energy in enumerate(energies[:_DRAWN], 1)
    ]
    if not drawn:
        return section("Free energy", "There are too few particles for a density.")
    if plane is not None:
        several = any(len(one.minima) > 1 for one in energies)
        h = plane.bandwidth
        drawn.append(
            figure(
                "free-energy-plane",
                draw_plane(
                    plane,
                    (_amplitude(1), _amplitude(2)),
                    _HIGHEST_KT,
                    centre_angstrom[:, :2] if several else None,
                ),
                "Free energy by the amplitudes of modes 1 and 2",
                f"Of the first two modes, kernels of {h[0]:.2f} and {h[1]:.2f} Å. Its "
                "uncertainty is drawn along each mode only."
                + (" Crosses are centres of clusters, not minima." if several else ""),
                "narrow",
            )
        )
    return section(
        "Free energy",
        "Minus the logarithm of the particles' density, in units of kT. Each particle "
        "is spread out as its posterior, or as a kernel where that is wider, so that "
        "uncertainty blurs the curve. Grey: the band of 95 of 100 curves of resampled "
        "particles (bootstrap). Nothing is drawn where fewer than five "
        "particles lie under a kernel. `centres.cif` holds centres of clusters "
        "(k-means): conformations typical of the particles, not states.",
        columns(*drawn),
    )


def _told_minima(energy: FreeEnergy, known_angstrom: float) -> str:
    """Say which minima survive, and how wide the kernels are."""
    places = ", ".join(f"{one:.1f}" for one in sorted(energy.minima))
    count = len(energy.minima)
    said = {
        0: "Too few particles lie anywhere for a minimum.",
        1: "One minimum survives resampling.",
    }.get(count, f"{count} minima survive resampling: at {places} Å.")
    return (
        f"{said} Kernel {energy.bandwidth:.2f} Å; the median uncertainty of a "
        f"particle is {known_angstrom:.2f} Å."
    )


def _amplitude(mode: int) -> str:
    return f"amplitude of mode {mode} (Å RMSD)"


def draw_uncertainties(sd_angstrom: NDArray[np.float64]) -> str:
    """Draw how well each particle's amplitudes (n, c) are known, as SVG."""
    modes = sd_angstrom.shape[1]
    with figure_style():
        drawing = Figure(figsize=PANEL)
        axes = drawing.add_subplot()
        for mode, (colour, dashes) in zip(range(modes), _LINES, strict=False):
            axes.hist(
                sd_angstrom[:, mode],
                bins=40,
                histtype="step",
                color=colour,
                linestyle=dashes,
                label=f"mode {mode + 1}",
            )
        axes.set(xlabel="posterior sd of the amplitude (Å RMSD)", ylabel="particles")
        axes.legend(loc="upper right")
        return to_svg(drawing)
