"""Particles simulated into a folder."""

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from cryoinfer.cli.outputs import make_folder, require_free_folder
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.structures import told_structure
from cryoinfer.cli.terminal import say
from cryoinfer.data.junk import EDGE, ICE, parse_junk
from cryoinfer.data.model_parts import ModelParts
from cryoinfer.data.motions import Motion
from cryoinfer.data.path_density import PathDensity
from cryoinfer.data.simulate import TRUE_MAP, SimulationConfig
from cryoinfer.data.simulate import simulate as write_simulation
from cryoinfer.data.simulated_set import Composition
from cryoinfer.data.simulation_presets import simulation_preset
from cryoinfer.data.simulation_record import FORMATION
from cryoinfer.data.structure_names import PRESET_NAMES
from cryoinfer.data.turns import Turn
from cryoinfer.errors import InputError
from cryoinfer.io.replacing import named_as
from cryoinfer.physics.detector import CountingDetector

_FILES = (
    *("particles.mrcs", "truth.mrc", "truth.cif", FORMATION),
    *("truth.star", "particles.star"),
)
_MAPS = TRUE_MAP.format("*")
_PART = ".partial-simulation"
_ANGSTROM = 1e4  # in a micrometre


def configure(structure: str, changes: dict[str, Any]) -> SimulationConfig:
    """Return a preset, or the standard settings for a structure, with changes.

    Parameters
    ----------
    structure : str
        Name of a preset, or what :class:`SimulationConfig` takes.
    changes : dict
        Fields of :class:`SimulationConfig`.
    """
    start = (
        simulation_preset(structure)
        if structure in PRESET_NAMES
        else SimulationConfig(structure=structure)
    )
    return replace(start, **changes)


def read_composition(
    also: Sequence[str],
    without: Sequence[str],
    population: str | None,
    junk: Sequence[str],
) -> Composition:
    """Read what a set holds besides one structure.

    Raises
    ------
    InputError
        If something cannot be read.
    """
    try:
        shares = (
            tuple(float(one) for one in population.split(",")) if population else ()
        )
    except ValueError as error:
        raise InputError(
            f"expected populations such as 0.7,0.3, found {population!r}"
        ) from error
    kinds = tuple(one for text in junk for one in parse_junk(text))
    parts = tuple(ModelParts.parse(text) for text in without)
    return Composition(tuple(also), parts, shares, kinds)


def read_path(
    motions: Sequence[str] | None,
    trajectory: Path | None,
    turn: str | None,
    along: str | None,
) -> dict[str, Any]:
    """Read how particles move: motions such as ``1:N(0,2)``, a trajectory or a turn.

    And how they are distributed along a path.

    Raises
    ------
    InputError
        If one cannot be read.
    """
    return {
        "motions": tuple(Motion.parse(text) for text in motions or ()),
        "trajectory": None if trajectory is None else str(trajectory),
        "turn": None if turn is None else Turn.parse(turn),
        "along": None if along is None else PathDensity.parse(along),
    }


def read_defocus(
    defocus_micrometre: tuple[float, float] | None,
) -> tuple[float, float] | None:
    """Return the lowest and highest defocus in angstrom, if they were given."""
    if defocus_micrometre is None:
        return None
    low, high = defocus_micrometre
    return low * _ANGSTROM, high * _ANGSTROM


def read_noise(
    snr_db: float | None,
    counting: bool,
    dose_per_square_angstrom: float | None,
    mtf_at_nyquist: float | None,
) -> dict[str, Any]:
    """Return the noise that is asked for: none, of a given strength, or of counts.

    Raises
    ------
    InputError
        If options do not go together.
    """
    given = {"snr_db": None if snr_db == math.inf else snr_db}
    if not counting:
        for name, value in (
            ("--dose-per-square-angstrom", dose_per_square_angstrom),
            ("--mtf", mtf_at_nyquist),
        ):
            if value is not None:
                raise InputError(f"{name} goes with --detector counting")
        return {} if snr_db is None else given
    if dose_per_square_angstrom is None:
        raise InputError(
            "--detector counting needs --dose-per-square-angstrom: how many electrons "
            "are there to count?"
        )
    mtf = 1.0 if mtf_at_nyquist is None else mtf_at_nyquist
    return given | {"detector": CountingDetector(dose_per_square_angstrom, mtf)}


def simulate(
    config: SimulationConfig, out: Path, overwrite: bool, console: Console
) -> Path:
    """Write simulated particles and their truth; nothing stays of half a set.

    Raises
    ------
    OutputError
        If the folder holds particles that must not be replaced.
    """
    require_free_folder(out, _FILES, overwrite)
    told_structure(config.structure, console, moving=bool(config.motions))
    composition = config.composition
    others = [one.kind for one in composition.junk if one.kind not in (ICE, EDGE)]
    for name in (*composition.also, *([config.to] if config.to else ()), *others):
        told_structure(name, console, moving=False)
    new = not out.exists()
    make_folder(out)
    # Aside: an earlier set stays until this one is whole.
    part = out / _PART
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    try:
        with named_as(out, part), RichMonitor(console) as monitor:
            path = out / write_simulation(config, part, monitor).name
        maps = {path.name for folder in (part, out) for path in folder.glob(_MAPS)}
        for name in (*sorted(maps), *_FILES):
            if (part / name).exists():
                os.replace(part / name, out / name)
            else:
                (out / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if new and out.exists() and not any(out.iterdir()):
            out.rmdir()
    say(console, f"{config.n:,} particles are in {path}")
    return path
