"""Particles of fewer, larger pixels, written as a stack and its metadata."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cryoinfer.cli.outputs import require_free_file, write_file
from cryoinfer.cli.particle_options import ParticleOptions
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.terminal import say
from cryoinfer.cli.threads import use_threads
from cryoinfer.data.downsampling import plan_downsampling, write_downsampled
from cryoinfer.errors import InputError
from cryoinfer.io.cryosparc import tables_beside


@dataclass(frozen=True)
class DownsampleOptions:
    """What a user asks for.

    Attributes
    ----------
    particles, out : Path
    box : int or None
    new_pixel_size : float or None
        In angstrom.
    reading : ParticleOptions
    threads : int or None
    overwrite : bool
    """

    particles: Path
    out: Path
    box: int | None
    new_pixel_size: float | None
    reading: ParticleOptions
    threads: int | None
    overwrite: bool


def downsample_particles(options: DownsampleOptions, console: Console) -> None:
    """Write the stacks, then the metadata that name them.

    Raises
    ------
    InputError
        If particles or options cannot be used.
    OutputError
        If a file exists and must not be replaced, or is what is read.
    """
    out, source, overwrite = options.out, options.particles, options.overwrite
    if out.suffix not in (".star", ".cs"):
        raise InputError(
            f"Cannot write particles as {out.name}: expected .star or .cs."
        )
    if (options.box is None) == (options.new_pixel_size is None):
        raise InputError("Give either --box or --new-pixel-size.")
    tables = [*options.reading.passthrough]
    if source.suffix == ".cs":
        tables += tables_beside(source)
    require_free_file(out, source, *tables, overwrite=overwrite)
    particles = options.reading.load(source)
    planned = plan_downsampling(
        particles, options.box, options.new_pixel_size, out.stem
    )
    stacks = [stack.path for stack in particles.stacks]
    for path in (out, *(out.with_name(one.name) for one in planned)):
        require_free_file(path, source, *tables, *stacks, overwrite=overwrite)
    use_threads(options.threads)
    for remark in particles.remarks:
        say(console, remark)
    out.parent.mkdir(parents=True, exist_ok=True)
    with RichMonitor(console) as monitor:
        made = write_downsampled(particles, planned, out.parent, monitor)
    write_file(out, made.save)
    for one in planned:
        crop = one.crop
        say(
            console,
            f"Wrote {len(one.rows):,} images of {crop.box} pixels of "
            f"{crop.pixel_size_angstrom:.6g} A, before {crop.old_box} of "
            f"{crop.old_pixel_size_angstrom:.6g} A, to {out.with_name(one.name)}",
        )
    say(console, f"Wrote {len(particles):,} particles to {out}")
