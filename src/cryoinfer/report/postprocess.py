"""The page about a map that was post-processed."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from matplotlib.figure import Figure

from cryoinfer.evaluation.postprocess import Postprocessed
from cryoinfer.report import figures
from cryoinfer.report.parts import (
    Finding,
    figure,
    page,
    repeat_section,
    section,
    tiles,
)
from cryoinfer.report.style import (
    BLUE,
    COLUMN_INCHES,
    GREY,
    MUTED,
    ORANGE,
    figure_style,
    label_resolution,
    to_svg,
)
from cryoinfer.wording import format_resolution

_DRAWN_TO = 1.2
"""Frequencies of the Guinier plot, over that of the resolution: what lies beyond is
noise, weighted to nothing."""

_LEAST_RATIO = 0.01
"""Of signal to noise, that is drawn."""


@dataclass(frozen=True)
class PostprocessContent:
    """All that the page shows.

    Attributes
    ----------
    title, created : str
    found : Postprocessed
    b_factor_words, mask_words : str
        Where both are from.
    warnings : sequence of str
    arguments, versions : mapping
    """

    title: str
    created: str
    found: Postprocessed
    b_factor_words: str
    mask_words: str
    warnings: Sequence[str] = ()
    arguments: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def render_postprocess_report(content: PostprocessContent) -> str:
    """Write what post-processing has found as a self-contained HTML page."""
    found = content.found
    box, voxel = found.mask.shape[-1], found.voxel_size_angstrom
    reached = format_resolution(found.resolution_angstrom, box, voxel)
    return page(
        title=content.title,
        subtitle=f"Post-processing · {content.created}",
        verdict=f"The half-maps agree to {reached}: FSC 0.143, corrected for the mask.",
        tiles=tiles(
            (
                "Resolution",
                f"{found.resolution_angstrom:.2f} A",
                "FSC 0.143, corrected",
            ),
            (
                "Without the mask",
                f"{found.unmasked_resolution_angstrom:.2f} A",
                "FSC 0.143",
            ),
            (
                "B-factor",
                f"{found.b_factor_angstrom2:.1f} A2",
                content.b_factor_words,
            ),
            ("Mask", f"{float(found.mask.double().mean()):.1%}", "of the box"),
            ("Pixel size", f"{voxel:.4g} A", f"Nyquist {2 * voxel:.2f} A"),
        ),
        findings=[Finding("caution", text) for text in content.warnings],
        sections=_sections(content),
    )


def _sections(content: PostprocessContent) -> Iterator[str]:
    found = content.found
    yield section(
        "The sharpened map",
        "Density is white. Mean of the half-maps, weighted by the FSC, with the "
        "B-factor applied, cut off at the resolution; here inside the mask.",
        figure(
            "map",
            figures.draw_map(
                (found.sharpened * found.mask).double().numpy(),
                found.voxel_size_angstrom,
            ),
            "Projections and central slices of the map, along z, y and x",
            shape="map",
        ),
    )
    curve = found.curve
    yield section(
        "Resolution",
        f"{content.mask_words} Of the half-maps with random phases, what correlates is "
        "the mask's own.",
        figure(
            "fsc",
            figures.draw_fsc(
                curve.corrected,
                curve.unmasked,
                found.voxel_size_angstrom,
                curve.masked,
                curve.randomised,
            ),
            "Fourier shell correlation of the half-maps",
        ),
    )
    yield section(
        "Signal and noise",
        "Power of the signal over that of the noise in the mean of both half-maps, "
        "within the mask: 2 FSC / (1 - FSC). The band is one standard error, of noise "
        "that is white in a shell. A Wiener filter weights by SSNR / (1 + SSNR): by a "
        "half at 1. Where the FSC is 0.143, the ratio is 1/3.",
        figure("ssnr", draw_ssnr(found), "Spectral signal-to-noise ratio of the map"),
    )
    yield section(
        "Guinier plot",
        "Logarithm of the mean amplitude of every shell of the masked map. Amplitudes "
        "that fall as exp(B/4d²) lie on a straight line.",
        figure("guinier", draw_guinier(found), "Guinier plot of the masked map"),
    )
    yield repeat_section(content.arguments, content.versions)


def draw_ssnr(found: Postprocessed) -> str:
    """Draw the spectral signal-to-noise ratio of the mean, with its standard error."""
    ratio = found.ssnr.ratio
    known = ratio.isfinite() & (ratio > _LEAST_RATIO)
    known[0] = False
    ratio, error = (
        torch.where(known, one, torch.nan) for one in (ratio, found.ssnr.standard_error)
    )
    low = (ratio - error).clamp(min=_LEAST_RATIO)
    nyquist_per_angstrom = 0.5 / found.voxel_size_angstrom
    frequency = np.linspace(0, nyquist_per_angstrom, len(ratio))
    with figure_style():
        drawn = Figure(figsize=(COLUMN_INCHES, 3.5))
        axes = drawn.add_subplot()
        axes.fill_between(
            frequency,
            low.numpy(),
            (ratio + error).numpy(),
            color=BLUE,
            alpha=0.25,
            linewidth=0,
        )
        axes.plot(frequency, ratio.numpy(), color=BLUE)
        axes.axhline(1.0, color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)))
        axes.set_yscale("log")
        axes.set(ylabel="SSNR")
        label_resolution(axes, nyquist_per_angstrom)
        return to_svg(drawn)


def draw_guinier(found: Postprocessed) -> str:
    """Draw the Guinier plot, and the line that was fitted to it, if one was."""
    plot, fit = found.guinier, found.fit
    square = plot.inverse_square.numpy()
    shown = (square > 0) & (square <= (_DRAWN_TO / found.resolution_angstrom) ** 2)
    with figure_style():
        drawn = Figure(figsize=(COLUMN_INCHES, 3.5))
        axes = drawn.add_subplot()
        for values, label, colour, dashes in (
            (plot.original, "as it is", GREY, "-"),
            (plot.weighted, "weighted by the FSC", BLUE, "-"),
            (plot.sharpened, "sharpened", ORANGE, (0, (5, 2))),
        ):
            known = values.numpy() > -99
            at = shown & known
            axes.plot(
                square[at],
                values.numpy()[at],
                color=colour,
                linestyle=dashes,
                label=label,
            )
        if fit is not None:
            ends = np.array([fit.from_angstrom, fit.to_angstrom]) ** -2.0
            line = fit.intercept + fit.b_factor_angstrom2 / 4 * ends
            axes.plot(ends, line, color=MUTED, linestyle=(0, (1, 1.3)), label="fit")
        finest = found.resolution_angstrom / _DRAWN_TO
        ticks = np.linspace(0, finest**-2.0, 7)[1:]
        axes.set_xlim(0, finest**-2.0)
        axes.set_xticks(ticks, [f"{tick**-0.5:.3g}" for tick in ticks])
        axes.set(xlabel="resolution d (Å), even in 1/d²", ylabel="ln amplitude")
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0.2)
        return to_svg(drawn)
