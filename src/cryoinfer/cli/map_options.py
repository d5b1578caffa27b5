"""Options about maps: which they are, and their voxel size if no header says it."""

from pathlib import Path
from typing import Annotated

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

FirstMap = Annotated[
    Path,
    typer.Argument(
        help="A half-map, or any map.",
        callback=inputs.a_file("MRC file"),
        show_default=False,
    ),
]
SecondMap = Annotated[
    Path,
    typer.Argument(
        help="The other half-map, or any map of the same sampling.",
        callback=inputs.a_file("MRC file"),
        show_default=False,
    ),
]
MovingMap = Annotated[
    Path,
    typer.Argument(
        help="The map to be moved.",
        callback=inputs.a_file("MRC file"),
        show_default=False,
    ),
]
ReferenceMap = Annotated[
    Path,
    typer.Argument(
        help="The map that it is brought onto, of the same sampling.",
        callback=inputs.a_file("MRC file"),
        show_default=False,
    ),
]
Mask = Annotated[
    Path | None,
    typer.Option(
        help="Soft mask, 0 to 1.",
        callback=inputs.a_file("MRC file"),
        show_default=False,
    ),
]
