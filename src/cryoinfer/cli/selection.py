"""Some particles of a run, or of a file, written as a file of their own."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from cryoinfer.cli.arguments import recorded_path
from cryoinfer.cli.nothing_found import inherited
from cryoinfer.cli.outputs import require_free_file, write_file
from cryoinfer.cli.particle_options import AS_WRITTEN, ParticleOptions
from cryoinfer.cli.terminal import say
from cryoinfer.data.original_particles import Origin, with_results_of
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, MissingFileError
from cryoinfer.io.cryosparc import tables_beside
from cryoinfer.io.files import content_sha256
from cryoinfer.io.number_words import number_of
from cryoinfer.results import layout
from cryoinfer.results.conditions import Condition
from cryoinfer.results.particle_numbers import ParticleNumbers
from cryoinfer.results.run_files import fingerprint
from cryoinfer.results.run_record import RunRecord, require_finished
from cryoinfer.results.selection import Neighbours, Selected, Selection, select

_ENDINGS = (".star", ".cs")


@dataclass(frozen=True)
class SelectOptions:
    """What a user asks of a selection.

    Attributes
    ----------
    source : Path
        Folder of a finished run, or particles.
    out : Path
    where, near : str or None
        A condition; numbers with commas or blanks between them.
    count, class_number : int or None
    rows, latents, on : Path or None
        A file of particles; z of cryoDRGN; what prepared particles were made from.
    invert, overwrite : bool
    reading : ParticleOptions
    """

    source: Path
    out: Path
    where: str | None = None
    near: str | None = None
    count: int | None = None
    class_number: int | None = None
    rows: Path | None = None
    latents: Path | None = None
    on: Path | None = None
    invert: bool = False
    overwrite: bool = False
    reading: ParticleOptions = AS_WRITTEN

    def selection(self) -> Selection:
        """Return what is asked for.

        Raises
        ------
        InputError
            If nothing is, or options contradict each other.
        """
        asked = (self.where, self.near, self.class_number, self.rows, self.on)
        if all(one is None for one in asked):
            raise InputError(
                "No condition is given: expected --where, --near, --class or --rows"
            )
        if (self.near is None) != (self.count is None):
            raise InputError(
                "--near and --count go together: a point in z, and how many particles "
                "about it"
            )
        if self.out.suffix not in _ENDINGS:
            raise InputError(
                f"Cannot write particles as {self.out.name}: expected .star or .cs"
            )
        near = None
        if self.near is not None and self.count is not None:
            near = Neighbours(_point(self.near), self.count)
        where = None if self.where is None else Condition.of(self.where)
        return Selection(where, self.class_number, self.rows, near, self.invert)


def select_particles(options: SelectOptions, console: Console) -> None:
    """Write those particles that are asked for, and say how many there are.

    Parameters
    ----------
    options : SelectOptions
    console : Console

    Raises
    ------
    InputError
        If the particles, or what is asked of them, cannot be used, or none is selected.
    OutputError
        If the target exists and must not be replaced, or is what is read.
    """
    asked, source = options.selection(), options.source
    folder = source if source.is_dir() else None
    record = None if folder is None else require_finished(folder)
    path = source if folder is None else folder / layout.PARTICLES
    given = (path, options.rows, options.latents, options.on)
    read = [one for one in given if one is not None]
    tables = [*options.reading.passthrough]
    for one in read:
        tables += tables_beside(one) if one.suffix == ".cs" else []
    require_free_file(options.out, *read, *tables, overwrite=options.overwrite)
    # Other options are about the particles that results are put on.
    reading = options.reading if options.on is None else options.reading.of_own()
    particles = (reading if record is None else reading.of_run(record)).load(path)
    stacks = [stack.path for stack in particles.stacks]
    require_free_file(options.out, *stacks, overwrite=options.overwrite)
    for remark in particles.remarks:
        say(console, remark)
    if options.latents is not None:
        numbers = ParticleNumbers.with_cryodrgn(particles, options.latents)
    else:
        numbers = ParticleNumbers.of_run(particles, _latents_of(path))
    found = select(numbers, asked)
    _require_some(found)
    if record is not None and options.out.suffix == ".cs" and options.on is None:
        particles = _as_it_came(record, particles, options, console)
    chosen = particles.select(torch.from_numpy(found.mask))
    if options.on is not None:
        chosen = _on_original(chosen, options.on, options.reading)
        stacks = [stack.path for stack in chosen.stacks]
        require_free_file(options.out, *stacks, overwrite=options.overwrite)
    write_file(options.out, chosen.save)
    for text in inherited(source):
        say(console, f"Caution: {text}")
    say(console, f"Wrote {_words(found)} to {options.out}")


def _latents_of(path: Path) -> Path | None:
    """Return where latents of particles are, None where these are of no run."""
    of_run = path.name == layout.PARTICLES and (path.parent / layout.RECORD).is_file()
    latents = path.parent / layout.LATENTS
    return latents if of_run and latents.exists() else None


def _point(text: str) -> tuple[float, ...]:
    numbers = [number_of(word) for word in text.replace(",", " ").split()]
    point = tuple(x for x in numbers if x is not None and math.isfinite(x))
    if len(point) < len(numbers) or not point:
        raise InputError(
            f"--near expects numbers with commas between them, such as 0.5,-1.2, found "
            f"{text[:100]!r}"
        )
    return point


def _require_some(found: Selected) -> None:
    if not found.mask.any():
        raise InputError(
            f"None of {len(found.mask):,} particles is selected{_unknown(found)}: "
            "nothing was written. Relax the conditions"
        )


def _words(found: Selected) -> str:
    kept, n = int(found.mask.sum()), len(found.mask)
    return f"{kept:,} of {n:,} particles ({kept / n:.1%}{_unknown(found)})"


def _unknown(found: Selected) -> str:
    if not found.unknown:
        return ""
    return f"; {found.unknown:,} lack a number that is asked for, and are left out"


def _as_it_came(
    record: RunRecord, particles: Particles, options: SelectOptions, console: Console
) -> Particles:
    """Return the particles of a run in the table that it began with, if that was a .cs.

    That has more fields than the run's own file can have, the uid of cryoSPARC first.
    """
    given = Path(str(record.arguments.get("particles", "")))
    if given.suffix != ".cs":
        return particles
    try:
        original = _unchanged(record, given, options, len(particles))
    except InputError as error:
        say(
            console,
            f"Caution: the input particles of the run cannot be used ({error}): fields "
            "that only they have, such as uid, are left out.",
        )
        return particles
    return with_results_of(original, particles)


def _on_original(found: Particles, path: Path, reading: ParticleOptions) -> Particles:
    """Return the particles that prepared ones were made from, with their results.

    Raises
    ------
    InputError
        If these were not made from those, or not from what the file holds now.
    """
    origin = Origin.of(found)
    path = Path(recorded_path(path))
    original = reading.load(path)
    source, now = origin.index.source, fingerprint(original, path, None)
    kind = "particles" if "particles" in source else "stacks"
    if now.get(kind) != source.get(kind) or len(original) != origin.index.count:
        raise InputError(
            f"The shards were not made from {path} as it is now ({len(original):,} "
            f"particles), but from {source.get('path')} ({origin.index.count:,}): give "
            "that to --on, or restore it."
        )
    return with_results_of(original.select(origin.rows), found)


def _unchanged(
    record: RunRecord, given: Path, options: SelectOptions, n: int
) -> Particles:
    """Read what a run began with.

    Raises
    ------
    InputError
        If it is not there, or is not what it was.
    """
    if not given.is_file():
        raise MissingFileError(f"there is no {given}")
    then = record.inputs.get("particles")
    if not isinstance(then, dict) or then.get("sha256") != content_sha256(given):
        raise InputError(f"{given} has changed since")
    reading = ParticleOptions.of_arguments(record.arguments)
    if options.reading.datadir is not None:
        reading = replace(reading, datadir=options.reading.datadir)
    original = reading.load(given)
    if len(original) != n:
        raise InputError(f"{given} holds {len(original):,} particles, the run {n:,}")
    return original
