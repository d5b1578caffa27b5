"""The voxel size of maps, where their headers have none or a wrong one."""

from typing import Annotated

import typer

from cryoinfer.cli import numbers

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
