"""The commands about maps; app.py registers them."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from cryoinfer.cli import inputs, numbers
from cryoinfer.cli import options as opt
from cryoinfer.cli.map_options import (
    FinishedRun,
    FirstHalf,
    FirstMap,
    MapPixelSize,
    MapToMask,
    Mask,
    MovingMap,
    ReferenceMap,
    SecondHalf,
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
    align: Annotated[
        bool,
        typer.Option("--align", help="Bring the second map onto the first one before."),
    ] = False,
    directional: Annotated[
        bool,
        typer.Option(
            "--directional",
            help="Tell the resolution by direction, in cones of 20 degrees, too.",
        ),
    ] = False,
    overwrite: opt.Overwrite = False,
) -> None:
    """Compute the FSC of two maps, and the resolution to which they agree."""
    from cryoinfer.cli.half_maps import CompareOptions, compare

    options = CompareOptions(
        half1, half2, mask, out, pixel_size, overwrite, align, directional
    )
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


def postprocess(
    run: FinishedRun = None,
    *,
    out: opt.Out,
    half1: FirstHalf = None,
    half2: SecondHalf = None,
    mask: Mask = None,
    bfactor: Annotated[
        float | None,
        typer.Option(
            metavar="A2",
            help="B-factor to apply, in A2; negative to sharpen, as in RELION. By "
            "default it is fitted.",
            callback=numbers.between(-10_000.0, 10_000.0),
            show_default=False,
        ),
    ] = None,
    pixel_size: VoxelSize = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Sharpen the map of two half-maps: mask, FSC, B-factor."""
    from cryoinfer.cli.postprocess import PostprocessOptions, postprocess_halves

    options = PostprocessOptions(
        run, half1, half2, out, mask, bfactor, pixel_size, overwrite
    )
    postprocess_halves(options, Console())


def mask(
    density: MapToMask,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Mask to write.", show_default=False
        ),
    ],
    threshold: Annotated[
        float | None,
        typer.Option(
            metavar="DENSITY",
            help="Density that the particle is above; by default it is found.",
            callback=numbers.finite(),
            show_default=False,
        ),
    ] = None,
    low_pass: Annotated[
        float | None,
        typer.Option(
            metavar="A",
            help="Resolution of the map that the threshold is of, in A; by default 15 "
            "where a threshold is found, and the map as it is where one is given.",
            callback=numbers.length(),
            show_default=False,
        ),
    ] = None,
    extend: Annotated[
        float,
        typer.Option(
            metavar="A",
            help="How far the mask goes beyond the threshold, in A.",
            callback=numbers.distance(),
        ),
    ] = 4.0,
    soft_edge: Annotated[
        float,
        typer.Option(
            metavar="A",
            help="Width of the edge over which it falls from 1 to 0, in A.",
            callback=numbers.distance(),
        ),
    ] = 8.0,
    pixel_size: VoxelSize = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Draw a soft mask around the particle in a map."""
    from cryoinfer.cli.mask import MaskOptions, write_mask
    from cryoinfer.reconstruction.mask import MaskShape

    shape = MaskShape(extend, soft_edge, threshold, low_pass)
    write_mask(MaskOptions(density, out, shape, pixel_size, overwrite), Console())


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


def align(
    moving: MovingMap,
    reference: ReferenceMap,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Map to write.", show_default=False
        ),
    ],
    also: Annotated[
        list[Path] | None,
        typer.Option(
            help="A map to be moved along, such as a half-map; may be repeated.",
            callback=inputs.files("MRC file"),
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        Literal["transport", "bayesian", "search"],
        typer.Option(
            help="What names the first rotations: optimal transport of point clouds, "
            "Bayesian optimisation, or every one of a grid."
        ),
    ] = "transport",
    partial: Annotated[
        bool,
        typer.Option("--partial", help="One map may lack a part of the other."),
    ] = False,
    hand: Annotated[
        Literal["same", "both"],
        typer.Option(help="Whether the mirror image of the moving map is tried, too."),
    ] = "same",
    pixel_size: VoxelSize = None,
    overwrite: opt.Overwrite = False,
    threads: opt.Threads = None,
) -> None:
    """Bring a map onto another, from any rotation."""
    from cryoinfer.cli import alignment
    from cryoinfer.cli.threads import use_threads

    use_threads(threads)
    options = alignment.AlignOptions(
        moving,
        reference,
        out,
        tuple(also or ()),
        method,
        hand,
        partial,
        pixel_size,
        overwrite,
    )
    alignment.align(options, Console())
