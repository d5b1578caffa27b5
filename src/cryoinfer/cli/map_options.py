"""Options about maps: which they are, and their voxel size if no header says it."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cryoinfer.cli import inputs, numbers

VoxelSize = Annotated[
    float | None,
    typer.Option(
        "--pixel-size",
        help="Voxel size of the map in A, instead of its header's.",
        metavar="A",
        callback=numbers.pixel_size(),
        show_default=False,
    ),
]
MapPixelSize = Annotated[
    float | None,
    typer.Option(
        help="Voxel size of the map in A, instead of its header's.",
        metavar="A",
        callback=numbers.pixel_size(),
        rich_help_panel="Input",
        show_default=False,
    ),
]


def _map(help_text: str) -> Any:
    """Return the declaration of a map that is given by its place."""
    return typer.Argument(
        help=help_text, callback=inputs.a_file("MRC file"), show_default=False
    )


FirstMap = Annotated[Path, _map("A half-map, or any map.")]
SecondMap = Annotated[
    Path, _map("The other half-map, or any map of the same sampling.")
]
MapToMask = Annotated[Path, _map("The map, the particle bright.")]
MovingMap = Annotated[Path, _map("The map to be moved.")]
ReferenceMap = Annotated[
    Path, _map("The map that it is brought onto, of the same sampling.")
]
Mask = Annotated[
    Path | None,
    typer.Option(
        help="Soft mask, 0 to 1.",
        callback=inputs.a_file("MRC file"),
        show_default=False,
    ),
]

ParticleMask = Annotated[
    Path | None,
    typer.Option(
        "--mask",
        help="Soft mask, 0 to 1, on the voxels of the particles and in the frame of "
        "the map, in place of the one that is found.",
        callback=inputs.a_file("MRC file"),
        rich_help_panel="Particle",
        show_default=False,
    ),
]


def _half(name: str, help_text: str) -> Any:
    """Return the declaration of a half-map in place of a run's."""
    return typer.Option(
        name, help=help_text, callback=inputs.a_file("MRC file"), show_default=False
    )


FirstHalf = Annotated[
    Path | None,
    _half("--half1", "A half-map, unfiltered and not masked, without a run."),
]
SecondHalf = Annotated[Path | None, _half("--half2", "The other half-map.")]
FinishedRun = Annotated[
    Path | None,
    typer.Argument(
        help="The folder of a finished run, whose half-maps and mask are used.",
        callback=inputs.finished_run,
        show_default=False,
    ),
]
