"""Whether the CTF parameters can be those of a microscope."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.data.finding import Finding, Severity
from cryoinfer.errors import InputError
from cryoinfer.io.conventions.table import ParticleTable
from cryoinfer.records import Optics

_TURNS = 1000.0
"""Radians, beyond which an angle is none: it says how often it goes round."""


@dataclass(frozen=True)
class _Rule:
    """A range of one quantity, with what a value outside it probably is."""

    name: str
    low: float
    high: float
    unit: str
    severity: Severity
    hint: str


_MENDED = "Remove or correct these rows."

# Generous ranges: what lies outside has another unit or is a slip.
_RULES = (
    _Rule("voltage_kv", 60, 400, "kV", "error", "Is it in volts?"),
    _Rule("cs_mm", -0.1, 10, "mm", "error", "Is it in micrometres?"),
    _Rule("amplitude_contrast", 0, 1, "", "error", "Is it in percent?"),
    _Rule("amplitude_contrast", 0.005, 0.4, "", "warning", "0.07 to 0.1 are usual."),
    _Rule("defocus_u_angstrom", -1e6, 1e6, "A", "error", "Is it in nanometres?"),
    _Rule("defocus_v_angstrom", -1e6, 1e6, "A", "error", "Is it in nanometres?"),
    _Rule("defocus_u_angstrom", 0, 1e5, "A", "warning", "Underfocus is positive."),
    _Rule("defocus_v_angstrom", 0, 1e5, "A", "warning", "Underfocus is positive."),
    _Rule("defocus_angle_radian", -_TURNS, _TURNS, "radian", "error", _MENDED),
    _Rule("phase_shift_radian", -_TURNS, _TURNS, "radian", "error", _MENDED),
    _Rule("bfactor_angstrom2", -1e4, 1e4, "A^2", "error", _MENDED),
    _Rule("bfactor_angstrom2", 0, 1000, "A^2", "warning", "Negative ones sharpen."),
    _Rule("scale", -1e3, 1e3, "", "error", _MENDED),
    _Rule("beam_tilt_mrad", -50, 50, "mrad", "error", "Is it in degrees?"),
)
_LARGEST_STRETCH = 0.25
"""Of a magnification, along any direction: those of microscopes are below 0.05."""
_SMALLEST_SCALE = 1e-3
_SMALLEST_DEFOCUS_ANGSTROM = 100.0
_LARGEST_ASTIGMATISM_ANGSTROM = 5000.0


def require_usable(table: ParticleTable) -> None:
    """Refuse particles of which :func:`check_optics` has an error to tell.

    Raises
    ------
    InputError
    """
    errors = [f.message for f in check_optics(table) if f.severity == "error"]
    if errors:
        raise InputError(" ".join(errors))


def check_optics(table: ParticleTable) -> list[Finding]:
    """Return what is suspicious about units, ranges and signs of the CTF."""
    found = _magnification(table.optics)
    if not table.has_ctf:
        text = "There is no defocus; the images are taken to have no CTF at all."
        return [*found, Finding("note", "ctf", text)]
    found += [f for rule in _RULES for f in _outside(table, rule)]
    found += _count(
        table.optics.phase_flipped,
        "note",
        "flipped phases: the modulus of the CTF is modelled",
    )
    found += _count(
        table.optics.ctf_premultiplied,
        "note",
        "been multiplied by their CTF: they are divided by it",
    )
    found += _count(
        table.optics.ctf_premultiplied & table.optics.phase_flipped,
        "error",
        "flipped phases and a multiplication by their CTF at once, which is not "
        "possible. Correct one of the two columns",
    )
    optics = table.optics
    largest = float(
        torch.maximum(optics.defocus_u_angstrom, optics.defocus_v_angstrom).abs().max()
    )
    if 0 < largest < _SMALLEST_DEFOCUS_ANGSTROM:
        text = (
            f"Expected a defocus in angstrom, found at most {largest:.4g}. "
            "Is it in micrometres? Multiply it by 10000."
        )
        found.append(Finding("error", "ctf", text))
    astigmatism = (optics.defocus_u_angstrom - optics.defocus_v_angstrom).abs()
    found += _count(
        astigmatism > _LARGEST_ASTIGMATISM_ANGSTROM,
        "warning",
        f"an astigmatism above {_LARGEST_ASTIGMATISM_ANGSTROM:.0f} A; their CTF fits "
        "probably failed",
    )
    phase_degrees = float(torch.rad2deg(optics.phase_shift_radian.abs().max()))
    if 0 < phase_degrees < torch.pi:
        text = (
            f"The largest phase shift is {phase_degrees:.3g} degrees. "
            "Is the column in radians?"
        )
        found.append(Finding("warning", "ctf", text))
    found += _count(
        optics.scale.abs() < _SMALLEST_SCALE,
        "error",
        "a CTF scale of 0, or nearly, and show nothing. Remove them",
    )
    found += _count(
        optics.scale < 0,
        "note",
        "a negative CTF scale: they are taken to be black on white",
    )
    return found


def _magnification(optics: Optics) -> list[Finding]:
    """Return the error of matrices that are none of a lens."""
    away = optics.magnification - torch.eye(2, dtype=torch.float64)
    wrong = ~(torch.linalg.matrix_norm(away) <= _LARGEST_STRETCH)  # NaN is bad as well
    if not bool(wrong.any()):
        return []
    worst = optics.magnification[wrong][0].tolist()
    text = (
        f"Expected an anisotropic magnification near [[1, 0], [0, 1]], found {worst} "
        f"({int(wrong.sum())} particles, the first in row {int(wrong.nonzero()[0]) + 1}"
        f"). {_MENDED}"
    )
    return [Finding("error", "ctf", text)]


def check_shifts(table: ParticleTable, row: Tensor) -> list[Finding]:
    """Return whether particles lie outside of their images.

    Parameters
    ----------
    table : ParticleTable
    row : Tensor of int64, shape (n,)
        Number of each particle, from 0, in the user's file, for the message.
    """
    if table.pose is None:
        return []
    half = (table.box * table.optics.pixel_size_angstrom / 2)[:, None]
    outside = (table.pose.shift_angstrom.abs() > half).any(dim=1)
    if not bool(outside.any()):
        return []
    text = (
        f"{int(outside.sum())} particles, the first in row {int(row[outside][0]) + 1}, "
        "have a shift of more than half the box: they are not in their images."
    )
    return [Finding("warning", "poses", text)]


def _outside(table: ParticleTable, rule: _Rule) -> list[Finding]:
    values: Tensor = getattr(table.optics, rule.name)
    if values.ndim > 1:  # several a particle: the largest stands for them
        values = values.flatten(1)
        values = values.gather(1, values.abs().argmax(1, keepdim=True))[:, 0]
    bad = ~((values >= rule.low) & (values <= rule.high))  # NaN is bad as well
    if not bool(bad.any()):
        return []
    if rule.severity == "warning":  # of what is an error nothing more is to be told
        errors = [r for r in _RULES if r.name == rule.name and r.severity == "error"]
        if any(_outside(table, worse) for worse in errors):
            return []
    worst = values[bad][0]
    quantity = rule.name.rsplit("_", 1)[0].replace("_", " ") if rule.unit else rule.name
    text = (
        f"Expected {quantity.replace('_', ' ')} between {rule.low:g} and "
        f"{rule.high:g} {rule.unit}".rstrip()
        + f", found {worst:.5g} ({int(bad.sum())} particles, the first in row "
        f"{int(bad.nonzero()[0]) + 1}). {rule.hint}"
    )
    return [Finding(rule.severity, "ctf", text)]


def _count(bad: Tensor, severity: Severity, what: str) -> list[Finding]:
    if not bool(bad.any()):
        return []
    row = int(bad.nonzero()[0]) + 1
    text = f"{int(bad.sum())} particles, the first in row {row}, have {what}."
    return [Finding(severity, "ctf", text)]
