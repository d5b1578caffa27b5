"""What can be simulated, known before anything is drawn or written."""

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from cryoinfer.errors import InputError, OutputError, ResourceError
from cryoinfer.io.pixel_sizes import PIXEL_SIZE_RANGE_ANGSTROM

_MOST_IMAGES = 1_000_000_000
_LARGEST_BOX = 4096
_LARGEST_DEFOCUS_ANGSTROM = 5e5
_LARGEST_ANGSTROM = 1e6
_LARGEST_SEED = 2**63 - 1
_DECIBELS = 100.0
_SHARES_ERROR = 1e-6
_LARGEST_CONTRAST_SD = 1.0
_LARGEST_DOSE = 1e4

_BYTES_OF_AN_IMAGE = 400
"""Of memory, for poses, optics and the table, whatever the box."""

_MAPS_IN_MEMORY = 4
_SPARE_DISK = 1.02


def require_simulable(settings: Mapping[str, Any]) -> None:
    """Refuse settings of a simulation that are impossible, alone or together.

    Parameters
    ----------
    settings : mapping
        The fields of :class:`cryoinfer.data.simulate.SimulationConfig`.

    Raises
    ------
    InputError
        Naming the setting or option, what it must be and what it is.
    """
    _require_possible(settings)
    _require_one_kind(settings)
    _require_waves(settings)
    _require_counts(settings)


def _require_possible(settings: Mapping[str, Any]) -> None:
    """Refuse settings of a simulation that say nothing, or what no file can hold."""
    n, box, snr_db = settings["n"], settings["box"], settings["snr_db"]
    pixel_size, groups = settings["pixel_size_angstrom"], settings["optics_groups"]
    low, high = settings["defocus_range_angstrom"] or (1.0, 1.0)
    least, most = PIXEL_SIZE_RANGE_ANGSTROM
    coarsest = pixel_size * (1 + 0.1 * (groups - 1))
    rules = {
        f"n must be 1 to {_MOST_IMAGES:,}": 1 <= n <= _MOST_IMAGES,
        f"box must be 8 to {_LARGEST_BOX}": 8 <= box <= _LARGEST_BOX,
        f"pixel_size_angstrom must be {least} to {most}": least <= pixel_size <= most,
        f"snr_db must be -{_DECIBELS:g} to {_DECIBELS:g}": snr_db is None
        or abs(snr_db) <= _DECIBELS,
        "defocus_range_angstrom must ascend, above 0 and up to "
        f"{_LARGEST_DEFOCUS_ANGSTROM:g}": 0 < low <= high <= _LARGEST_DEFOCUS_ANGSTROM,
        "noise must be white or coloured": settings["noise"] in ("white", "coloured"),
        "views must be uniform, preferred or one": settings["views"]
        in ("uniform", "preferred", "one"),
        "optics_groups must be 1 to the number of images: lower --optics-groups or "
        f"raise --n ({n:,})": 1 <= groups <= n,
        "optics_groups must leave the last one, whose pixels are a tenth larger for "
        f"each, with up to {most} A: lower --optics-groups or --pixel-size (it would "
        f"have {coarsest:,.0f} A)": coarsest <= most,
        f"contrast_sd must be 0 to {_LARGEST_CONTRAST_SD:g}": 0
        <= settings["contrast_sd"]
        <= _LARGEST_CONTRAST_SD,
        f"seed must be 0 to {_LARGEST_SEED}": 0 <= settings["seed"] <= _LARGEST_SEED,
    }
    for name in ("max_shift_angstrom", "b_factor_angstrom2", "defocus_error_angstrom"):
        value = settings[name]
        rules[f"{name} must be 0 to {_LARGEST_ANGSTROM:g}"] = (
            math.isfinite(value) and 0 <= value <= _LARGEST_ANGSTROM
        )
    for rule, kept in rules.items():
        if not kept:
            raise InputError(f"{rule}, found {settings[rule.split()[0]]!r}.")


def _require_one_kind(settings: Mapping[str, Any]) -> None:
    """Refuse ways to differ that exclude each other, and shares that are none."""
    composition = settings["composition"]
    ways = {
        "--modes": bool(settings["motions"]),
        "--trajectory": settings["trajectory"] is not None,
        "--to": settings["to"] is not None,
        "--turn": settings["turn"] is not None,
        "--also or --without": bool(composition.also or composition.without),
    }
    found = [name for name, given in ways.items() if given]
    if len(found) > 1:
        raise InputError(
            "expected one way in which particles differ (modes or a trajectory, a way "
            "to another structure, a turn, or several molecules), found both "
            f"{' and '.join(found)}"
        )
    along, turn = settings["along"], settings["turn"]
    if along is not None and not (
        found and found[0] in ("--trajectory", "--to", "--turn")
    ):
        raise InputError("--along goes with --trajectory, --to or --turn: along what?")
    if along is not None and turn is not None and turn.conformations is not None:
        raise InputError(
            "--along says where between its ends a turn is: leave out its number of "
            f"conformations (in {turn.conformations})"
        )
    _require_shares(composition)


def _require_waves(settings: Mapping[str, Any]) -> None:
    """Refuse multislice where there is no wave to be seen, or no one set of atoms."""
    known = ("weak-phase", "multislice")
    if settings["scattering"] not in known:
        raise InputError(
            f"scattering must be {' or '.join(known)}, found "
            f"{settings['scattering']!r}."
        )
    if settings["scattering"] == "weak-phase":
        return
    if settings["defocus_range_angstrom"] is None:
        raise InputError(
            "--model multislice needs a CTF, found none: images without one are "
            "projections, and a microscope shows waves. Give --defocus."
        )
    composition = settings["composition"]
    others = {
        "--also": composition.also,
        "--without": composition.without,
        "--junk": composition.junk,
    }
    found = " and ".join(name for name, given in others.items() if given)
    if found:
        raise InputError(
            f"--model multislice does not go with {found}: waves go through the atoms "
            "of one structure, still, along modes or along a path, and support films "
            "have no atoms. Leave one of them out."
        )


def _require_counts(settings: Mapping[str, Any]) -> None:
    """Refuse a detector that counts nothing, or two kinds of noise."""
    detector = settings["detector"]
    if detector is None:
        return
    dose, mtf = detector.dose_per_square_angstrom, detector.mtf_at_nyquist
    if not 0 < dose <= _LARGEST_DOSE:
        raise InputError(
            f"a dose is above 0 and at most {_LARGEST_DOSE:g} electrons a square A, "
            f"found {dose!r}"
        )
    if not 0 < mtf <= 1:
        raise InputError(f"an MTF at Nyquist is above 0 and at most 1, found {mtf!r}")
    if settings["defocus_range_angstrom"] is None:
        raise InputError(
            "--detector counting needs a CTF, found none: what is counted is the "
            "intensity behind a microscope. Give --defocus."
        )
    if settings["snr_db"] is not None:
        raise InputError(
            "--detector counting does not go with --snr-db: the noise is that of the "
            "counts, and follows from the dose. Leave one of them out."
        )
    if settings["noise"] != "white":
        raise InputError(
            f"--detector counting does not go with --noise {settings['noise']}: counts "
            "have white noise. Leave one of them out."
        )


def _require_shares(composition: Any) -> None:
    """Refuse populations that do not add up, and sets of nothing but junk."""
    shares = composition.population
    if shares and not (composition.also or composition.without):
        raise InputError("--population goes with --also or --without: of what?")
    if shares and not (min(shares) > 0 and abs(sum(shares) - 1) < _SHARES_ERROR):
        raise InputError(
            "populations are above 0 and add up to 1, found "
            f"{', '.join(f'{one:g}' for one in shares)}"
        )
    junk = sum(one.share for one in composition.junk)
    if junk >= 1:
        raise InputError(
            f"--junk must leave particles: its shares add up to {junk:g} of all images"
        )


def require_room(n: int, box: int, folder: Path) -> None:
    """Refuse a set that fits neither on the disk nor into the memory.

    Parameters
    ----------
    n, box : int
        Images, and pixels along their edge.
    folder : Path
        To write to; need not exist.

    Raises
    ------
    OutputError, ResourceError
    """
    above = [folder.absolute(), *folder.absolute().parents]
    free = shutil.disk_usage(next(f for f in above if f.exists())).free
    disk = _SPARE_DISK * 4 * (n * box**2 + box**3)
    if disk > free:
        raise OutputError(
            f"{n:,} images of {box} pixels take {disk / 1e9:,.1f} GB in {folder}, "
            f"where {free / 1e9:,.1f} GB are free: simulate fewer or smaller ones."
        )
    available = psutil.virtual_memory().available
    memory = n * _BYTES_OF_AN_IMAGE + _MAPS_IN_MEMORY * 4 * box**3
    if memory > available:
        raise ResourceError(
            f"{n:,} images of {box} pixels take about {memory / 1e9:,.1f} GB of "
            f"memory, of which {available / 1e9:,.1f} GB are free: simulate fewer or "
            "smaller ones."
        )
