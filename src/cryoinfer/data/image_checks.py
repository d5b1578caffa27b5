"""Whether the pixels can be those of particles, in one pass over all images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.data.finding import Finding, Severity
from cryoinfer.data.image_repair import HOT
from cryoinfer.data.particles import Particles

_CERTAIN = 5.0
"""Standard errors of the mean contrast at which its sign counts as known."""


@dataclass(frozen=True)
class _Statistics:
    """Of each image, shape (n,); mean, deviation and contrast where it is finite."""

    is_finite: Tensor
    mean: Tensor
    deviation: Tensor
    contrast: Tensor
    hot: Tensor
    tilted: Tensor
    is_scaled: Tensor


def check_images(particles: Particles, row: Tensor) -> list[Finding]:
    """Return what is suspicious about the images.

    Parameters
    ----------
    particles : Particles
    row : Tensor of int64, shape (n,)
        Number of each particle, from 0, in the user's file, for the messages.
    """
    statistics = _measure(particles)
    flat = statistics.is_finite & (statistics.deviation == 0)
    found = _rows(~statistics.is_finite, row, "error", "hold values that are no number")
    good = statistics.is_finite & ~flat
    # A run goes on with some, and stops where there is nothing else.
    severity: Severity = "warning" if bool(good.any()) else "error"
    what = "are constant: they show nothing and dim a map. Remove them"
    found += _rows(flat, row, severity, what)
    if not bool(good.any()):
        return found
    found += _check_normalisation(statistics, good, row)
    found += _check_repairs(statistics, good, row)
    inverted = particles.optics.scale < 0
    # In units of the image's own deviation, so that no single image decides.
    contrast = statistics.contrast / statistics.deviation
    contrast = torch.where(inverted, -contrast, contrast)
    return [*found, *_check_contrast(contrast[good])]


def _measure(particles: Particles) -> _Statistics:
    n = len(particles)
    is_finite = torch.zeros(n, dtype=torch.bool)
    tilted, is_scaled = torch.zeros_like(is_finite), torch.zeros_like(is_finite)
    mean, deviation, contrast = (torch.zeros(n) for _ in range(3))
    hot = torch.zeros(n, dtype=torch.int64)
    for rows in particles.chunks(n, torch.arange(n)):
        stored = particles.stored_images(rows)
        images = stored.flatten(1)
        finite = images.isfinite().all(dim=1)
        images = torch.where(finite[:, None], images, 0.0)
        inside, corners = _masks(stored.shape[-1])
        is_finite[rows] = finite
        mean[rows] = images.mean(dim=1)
        deviation[rows] = images.std(dim=1)
        centre_mean, corner_mean = images @ inside, images @ corners
        contrast[rows] = centre_mean - corner_mean
        made = particles.repaired_images(rows)
        hot[rows], tilted[rows] = made.hot, made.tilted
        is_scaled[rows] = made.factor != 1
    return _Statistics(is_finite, mean, deviation, contrast, hot, tilted, is_scaled)


def _masks(box: int) -> tuple[Tensor, Tensor]:
    """Return the weights, shape (box * box,), of the means of centre and corners.

    A mean over half the box is a low-pass filter: noise and everything finer than
    the particle drop out of it.
    """
    axis = torch.arange(box) - box // 2
    radius = torch.hypot(*torch.meshgrid(axis.float(), axis.float(), indexing="ij"))
    inside = (radius < box / 4).float().flatten()
    corners = (radius > 0.48 * box).float().flatten()
    return inside / inside.sum(), corners / corners.sum()


def _check_contrast(contrast: Tensor) -> list[Finding]:
    n = len(contrast)
    error = contrast.std() / n**0.5 if n > 1 else contrast.abs()
    sigmas = float(contrast.mean() / error.clamp_min(1e-30))
    if sigmas < -_CERTAIN:
        text = (
            "Expected particles brighter than the background, found them darker: "
            f"the centre less the corners is {sigmas:.0f} standard errors. Invert the "
            "images, or reprocess them with white particles."
        )
        return [Finding("warning", "contrast", text)]
    if sigmas < _CERTAIN:
        text = (
            "Whether particles are white on black does not show: the centre less the "
            f"corners is {sigmas:.1f} standard errors."
        )
        return [Finding("note", "contrast", text)]
    return []


def _check_normalisation(
    statistics: _Statistics, good: Tensor, row: Tensor
) -> list[Finding]:
    typical = statistics.deviation[good].median()
    ratio = statistics.deviation / typical
    odd = good & ~statistics.is_scaled & ((ratio > 5) | (ratio < 0.2))
    what = (
        f"have a standard deviation five times above or below the median {typical:.4g}."
        " Normalise the images, or remove these"
    )
    return _rows(odd, row, "warning", what)


def _check_repairs(statistics: _Statistics, good: Tensor, row: Tensor) -> list[Finding]:
    """Say what every command does to images before it looks at them."""
    pixels = int(statistics.hot[good].sum())
    found = _rows(
        good & (statistics.hot > 0),
        row,
        "note",
        f"have hot pixels, {pixels:,} in all, beyond {HOT:g} standard deviations and "
        "alone: they are replaced by the mean of their neighbours",
    )
    what = (
        "have a background that slopes, or a mean far from 0: the plane is subtracted "
        "that fits it"
    )
    found += _rows(good & statistics.tilted, row, "note", what)
    what = (
        "are in other units than most: they are divided by what brings their "
        "background to that of the others"
    )
    return found + _rows(good & statistics.is_scaled, row, "note", what)


def _rows(bad: Tensor, row: Tensor, severity: Severity, what: str) -> list[Finding]:
    """Return one finding, if any image is bad, that names the first rows."""
    if not bool(bad.any()):
        return []
    rows = row[bad]
    shown = ", ".join(str(int(r) + 1) for r in rows[:5])
    more = ", ..." if len(rows) > 5 else ""
    text = f"{len(rows)} of {len(bad)} images (rows {shown}{more}) {what}."
    return [Finding(severity, "images", text)]
