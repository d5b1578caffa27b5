"""Particles prepared into a folder, which every command takes in their place."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from cryoinfer.cli.arguments import recorded_path
from cryoinfer.cli.outputs import make_folder, require_free_folder
from cryoinfer.cli.particle_options import AS_WRITTEN, ParticleOptions
from cryoinfer.cli.plan import free_bytes
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.run_folder import require_elsewhere, require_folder_or_nothing
from cryoinfer.cli.terminal import say, say_rows
from cryoinfer.cli.threads import use_threads
from cryoinfer.data import shards
from cryoinfer.data.particles import Particles
from cryoinfer.data.shard_plan import PlannedShard, PreparationConfig, plan_shards
from cryoinfer.data.shard_writing import write_shards
from cryoinfer.data.shards import INDEX, ShardIndex
from cryoinfer.errors import InputError, OutputError
from cryoinfer.io.conventions.cryosparc import CryosparcParticles
from cryoinfer.io.replacing import clear_partials
from cryoinfer.results.layout import RECORD
from cryoinfer.results.run_files import fingerprint
from cryoinfer.wording import format_bytes

_FILES = (shards.PARTICLES, shards.CRYOSPARC_PARTICLES)
_METADATA_BYTES = 300
"""A particle takes in a STAR file, about."""

_SHOWN = 5


@dataclass(frozen=True)
class PrepareOptions:
    """What a user asks of a preparation.

    Attributes
    ----------
    particles, out : Path
        Where the particles are, and the folder to write.
    box : int or None
    resolution, particle_diameter : float or None
        In angstrom.
    memory : float
        For images, in GB.
    reading : ParticleOptions
    threads : int or None
    resume, overwrite, dry_run : bool
    """

    particles: Path
    out: Path
    box: int | None = None
    resolution: float | None = None
    particle_diameter: float | None = None
    memory: float = 0.25
    reading: ParticleOptions = AS_WRITTEN
    threads: int | None = None
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    def config(self) -> PreparationConfig:
        """Return what is asked of the images.

        Raises
        ------
        InputError
            If options contradict each other.
        """
        if self.box is not None and self.resolution is not None:
            raise InputError("--box and --resolution both say how to crop: give one")
        return PreparationConfig(
            box=self.box,
            resolution_angstrom=self.resolution,
            particle_diameter_angstrom=self.particle_diameter,
            memory_bytes=int(self.memory * 1e9),
        )


def prepare_particles(options: PrepareOptions, console: Console) -> None:
    """Write a folder of prepared particles, or say what it would take.

    Raises
    ------
    InputError
        If particles or options cannot be used.
    OutputError
        If the folder is taken or cannot be written.
    """
    config = options.config()
    out = options.out
    # By one name, however it was spelled: those of its stacks are compared later.
    path = Path(recorded_path(options.particles))
    particles = options.reading.load(path)
    require_elsewhere(out, path, *(stack.path for stack in particles.stacks))
    planned = plan_shards(particles, config)
    index = _new_index(options, config, particles)
    earlier = _earlier(options, index, [one.name for one in planned])
    if earlier is not None and earlier.finished:
        say(console, f"The particles in {out} are prepared: there is nothing to do.")
        return
    index = earlier or index
    needed = _bytes(planned[len(index.shards) :]) + _METADATA_BYTES * len(particles)
    if options.dry_run:
        _print_plan(options, particles, planned, needed, console)
        return
    if free_bytes(out) < needed:
        raise OutputError(
            f"The prepared particles need about {format_bytes(needed)} in {out}, where "
            f"{format_bytes(free_bytes(out))} are free. Free some space, give another "
            "folder, or crop to a smaller --box."
        )
    use_threads(options.threads)
    for remark in particles.remarks:
        say(console, remark)
    with _folder(options, index, console):
        with RichMonitor(console) as monitor:
            index = write_shards(
                particles, planned, out, index, config.memory_bytes, monitor
            )
    _print_result(options, particles, planned, index, console)


def _new_index(
    options: PrepareOptions, config: PreparationConfig, particles: Particles
) -> ShardIndex:
    path = Path(recorded_path(options.particles))
    is_cryosparc = isinstance(particles.source, CryosparcParticles)
    return ShardIndex(
        source={
            "path": str(path),
            "reading": options.reading.arguments(),
            **fingerprint(particles, path, None),
        },
        settings=config.settings(),
        particles=shards.CRYOSPARC_PARTICLES if is_cryosparc else shards.PARTICLES,
        count=len(particles),
    )


def _earlier(
    options: PrepareOptions, index: ShardIndex, names: Sequence[str]
) -> ShardIndex | None:
    """Return what the folder holds of the same preparation, if it is to be resumed.

    Raises
    ------
    OutputError
        If it holds something that must not be replaced.
    """
    out = options.out
    if options.resume and options.overwrite:
        raise OutputError("--resume and --overwrite contradict each other: give one.")
    require_folder_or_nothing(out)
    if (out / RECORD).exists():
        raise OutputError(f"{out} holds a run: give another folder.")
    if options.overwrite or not (out / INDEX).exists():
        require_free_folder(out, (*_FILES, *names), options.overwrite)
        return None
    if not options.resume:
        raise OutputError(
            f"{out} already holds prepared particles. Give another folder, --resume to "
            "go on with them, or --overwrite to replace them."
        )
    earlier = ShardIndex.read(out)
    for name, before, now in (
        ("other options", earlier.settings, index.settings),
        ("other particles, or they have changed since", earlier.source, index.source),
    ):
        if before != now:
            raise OutputError(
                f"The preparation in {out} was started with {name}. Resume it as it "
                "was started, or give --overwrite to start again."
            )
    whole = 0
    while whole < len(earlier.shards) and earlier.is_whole(earlier.shards[whole], out):
        whole += 1
    kept = earlier.shards[:whole]
    return replace(
        earlier, shards=kept, finished=earlier.finished and whole == len(earlier.shards)
    )


@contextmanager
def _folder(
    options: PrepareOptions, index: ShardIndex, console: Console
) -> Iterator[None]:
    """Make the folder ready, and say how to go on where the work is interrupted."""
    out = options.out
    make_folder(out)
    clear_partials(out)
    if not options.resume:
        own = [*_FILES, *_earlier_shards(out)]
        # The index first: without it nothing here is taken for prepared particles.
        for name in (INDEX, *own):
            (out / name).unlink(missing_ok=True)
    index.write(out)
    try:
        yield
    except KeyboardInterrupt:
        say(
            console,
            "Interrupted. The same command with --resume goes on from the last shard "
            "that was finished.",
        )
        raise


def _earlier_shards(out: Path) -> list[str]:
    """Return what an index lists, which may be damaged: other stacks are not ours."""
    try:
        return [Path(shard.name).name for shard in ShardIndex.read(out).shards]
    except InputError:
        return []


def _bytes(planned: Sequence[PlannedShard]) -> int:
    return sum(one.bytes for one in planned)


def _print_plan(
    options: PrepareOptions,
    particles: Particles,
    planned: Sequence[PlannedShard],
    needed: int,
    console: Console,
) -> None:
    rows = {
        "Would write": f"{len(particles):,} particles into {options.out}",
        "Images": "; ".join(_kinds(planned)),
        "Shards": f"{len(planned)}",
        "Disk": f"about {format_bytes(needed)} (free: "
        f"{format_bytes(free_bytes(options.out))}; the images take "
        f"{format_bytes(_raw_bytes(particles))} as they are)",
    }
    say_rows(console, rows)
    say(console, "Nothing was written.")


def _kinds(planned: Sequence[PlannedShard]) -> list[str]:
    """Say of each kind of images what it was and what it becomes."""
    kinds = dict.fromkeys(one.crop for one in planned)
    return [
        f"{crop.old_box} px of {crop.old_pixel_size_angstrom:.4g} A to {crop.box} px "
        f"of {crop.pixel_size_angstrom:.4g} A"
        for crop in kinds
    ]


def _raw_bytes(particles: Particles) -> int:
    """Return what the particles' stacks take on the disk."""
    return sum(os.stat(stack.path).st_size for stack in particles.stacks)


def _print_result(
    options: PrepareOptions,
    particles: Particles,
    planned: Sequence[PlannedShard],
    index: ShardIndex,
    console: Console,
) -> None:
    for name, what in (
        (
            "unreadable",
            "hold values that are no number; they stay so, and every command leaves "
            "them out",
        ),
        ("flat", "are constant around the particle, and were not scaled"),
        ("clipped", "hold pixels beyond float16, which were set to 65504"),
    ):
        rows = [row for shard in index.shards for row in getattr(shard, name)]
        if rows:
            shown = ", ".join(str(row + 1) for row in rows[:_SHOWN])
            more = ", ..." if len(rows) > _SHOWN else ""
            say(
                console,
                f"Caution: {len(rows):,} of {index.count:,} images (rows "
                f"{shown}{more}) {what}. All are listed in {options.out / INDEX}.",
            )
    say(
        console,
        f"Wrote {index.count:,} particles, {'; '.join(_kinds(planned))}, to "
        f"{options.out}: {format_bytes(_bytes(planned))} of images, which take "
        f"{format_bytes(_raw_bytes(particles))} as they are",
    )
