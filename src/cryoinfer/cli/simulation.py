"""Particles simulated into a folder."""

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
from cryoinfer.data.motions import Motion
from cryoinfer.data.simulate import (
    SimulationConfig,
    simulation_preset,
)
from cryoinfer.data.simulate import simulate as write_simulation
from cryoinfer.data.structure_names import PRESET_NAMES
from cryoinfer.io.replacing import named_as

_FILES = ("particles.mrcs", "truth.mrc", "truth.cif", "truth.star", "particles.star")
_PART = ".partial-simulation"


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


def read_motions(texts: Sequence[str]) -> tuple[Motion, ...]:
    """Read motions such as ``1:N(0,2)``.

    Raises
    ------
    InputError
        If one cannot be read.
    """
    return tuple(Motion.parse(text) for text in texts)


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
    new = not out.exists()
    make_folder(out)
    # Aside: an earlier set stays until this one is whole.
    part = out / _PART
    shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
    try:
        with named_as(out, part), RichMonitor(console) as monitor:
            path = out / write_simulation(config, part, monitor).name
        for name in _FILES:
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
