"""The commands about maps; app.py registers them."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cryoinfer.cli import inputs
from cryoinfer.cli import options as opt
from cryoinfer.cli.map_options import (
    FirstMap,
    MapPixelSize,
    Mask,
    SecondMap,
    VoxelSize,
)
from cryoinfer.cli.particle_options import AS_WRITTEN, ParticleOptions, reads_particles


def fsc(
    half1: FirstMap,
    half2: SecondMap,
    mask: Mask = None,
    pixel_size: VoxelSize = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="STAR file of curves.", show_default=False),
    ] = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Compute the FSC of two maps, and the resolution to which they agree."""
    from cryoinfer.cli.half_maps import CompareOptions, compare

    options = CompareOptions(half1, half2, mask, out, pixel_size, overwrite)
    compare(options, Console())


def local_resolution(
    half1: FirstMap,
    half2: SecondMap,
    out: opt.Out,
    mask: Mask = None,
    pixel_size: VoxelSize = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Find the resolution of every place of a map, and filter the map accordingly."""
    from cryoinfer.cli.local_resolution import LocalOptions, find_local_resolution

    options = LocalOptions(half1, half2, out, mask, pixel_size, overwrite)
    find_local_resolution(options, Console())


@reads_particles
def flip(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run, or a map.",
            callback=inputs.map_or_run,
            show_default=False,
        ),
    ],
    out: opt.Out,
    particles: Annotated[
        Path | None,
        typer.Argument(
            help="Particles that go with the map.",
            callback=inputs.particle_file,
            show_default=False,
        ),
    ] = None,
    map_pixel_size: MapPixelSize = None,
    reading: ParticleOptions = AS_WRITTEN,
    overwrite: opt.Overwrite = False,
) -> None:
    """Mirror map and poses together, to change the hand."""
    from cryoinfer.cli import map_files

    map_files.flip(
        map_files.FlipOptions(
            source, out, particles, map_pixel_size, overwrite, reading
        ),
        Console(),
    )
