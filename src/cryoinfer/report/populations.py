"""Figures of where particles are along z: densities and free energies with bands."""

import math
from collections.abc import Sequence

from cryoinfer.evaluation.population_plane import PlanePopulation
from cryoinfer.evaluation.populations import AxisPopulation, Share
from cryoinfer.report.landscape import Curve, draw_curve, draw_plane
from cryoinfer.report.parts import columns, figure, section, table

_HIGHEST_KT = 6.0
_DRAWN = 3  # axes


def populations_section(
    populations: Sequence[AxisPopulation], plane: PlanePopulation | None
) -> str:
    """Return the density and the free energy along the first axes, and their states.

    Parameters
    ----------
    populations : sequence of AxisPopulation
        One an axis that says something; empty where none does.
    plane : PlanePopulation or None
        Of the first two axes.
    """
    if not populations:
        return section(
            "Populations",
            "No component says anything of held-out images, or there are too few "
            "particles: no density is shown.",
        )
    drawn = [
        one_drawn
        for axis, one in enumerate(populations[:_DRAWN], 1)
        for one_drawn in _of_axis(axis, one)
    ]
    if plane is not None:
        drawn.append(
            figure(
                "free-energy-plane",
                draw_plane(plane, ("z 1", "z 2"), _HIGHEST_KT),
                "Free energy of z 1 and z 2",
                "Smoothed as along either axis, from at most 2,000 particles. How well "
                "it is known is drawn along each axis only.",
                "narrow",
            )
        )
    return section(
        "Populations",
        "The density of z that makes all images likeliest (nonparametric maximum "
        "likelihood, the prior divided out of every posterior): what is not known of "
        "a particle neither blurs it nor pulls it in, as it does a histogram of means. "
        "Grey, a band that holds 90 of 100 densities of particles drawn anew "
        "(bootstrap), place by place. Nothing is drawn where fewer than five particles "
        "lie within a width, nor along components that say nothing of held-out images. "
        "It takes the subspace and the widths of the posteriors as "
        "true, which the band does not know; and distances along z are in no unit, so "
        "that heights of wells compare along an axis, not between axes.",
        columns(*drawn),
        _basin_table(populations),
    )


def _of_axis(axis: int, one: AxisPopulation) -> tuple[str, str]:
    """Return the figures of one axis: its density and its free energy."""
    density = figure(
        f"density-{axis}",
        draw_curve(
            Curve(one.at, one.density, one.low, one.high),
            (f"z {axis}", "density of particles"),
            (0.0, None),
        ),
        f"Density of particles along z {axis}",
        f"Smoothed by {one.width:.2f} (sd): what is narrower is shown as wide "
        f"as that. Images tell z {axis} of a particle to "
        f"{one.likelihood_sd:.2f} (median).",
        "narrow",
    )
    energy = figure(
        f"free-energy-{axis}",
        draw_curve(
            Curve(one.at, one.energy, one.energy_low, one.energy_high),
            (f"z {axis}", "free energy (kT)"),
            (-0.5, _HIGHEST_KT),
            (float(one.at[0]), float(one.at[-1])),
        ),
        f"Free energy along z {axis}",
        "Minus the logarithm of the density, above its least.",
        "narrow",
    )
    return density, energy


def _basin_table(populations: Sequence[AxisPopulation]) -> str:
    cells = [
        [
            f"z {axis}",
            _ends(basin),
            f"{basin.share:.1%} ± {basin.standard_error:.1%}",
            f"{basin.share_low:.1%} to {basin.share_high:.1%}",
        ]
        for axis, one in enumerate(populations, 1)
        if len(one.basins) > 1
        for basin in one.basins
    ]
    if not cells:
        return (
            "<p>Along no axis a barrier survives resampling: the density does not show "
            "several states. They may be nearer together than z is known.</p>"
        )
    heads = ("", "Between barriers", "Particles", "90 % interval")
    return table(heads, cells)


def _ends(basin: Share) -> str:
    if math.isinf(basin.low):
        return f"below {basin.high:.2f}"
    if math.isinf(basin.high):
        return f"above {basin.low:.2f}"
    return f"{basin.low:.2f} to {basin.high:.2f}"
