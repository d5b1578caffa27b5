"""The commands about structures; app.py registers them."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from cryoinfer.cli import options as opt


def modes(
    structure: Annotated[
        str,
        typer.Argument(
            help="A built-in structure (such as adenylate-kinase-open), or an mmCIF "
            "or PDB file.",
            show_default=False,
        ),
    ],
    count: Annotated[
        int, typer.Option("--modes", min=1, help="How many, the softest first.")
    ] = 10,
    cutoff: Annotated[
        float, typer.Option(min=1.0, help="Length of the longest spring, in angstrom.")
    ] = 15.0,
    springs: Annotated[
        Literal["constant", "inverse-square"],
        typer.Option(help="Whether short springs are stiffer than long ones."),
    ] = "constant",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder for modes.nmd (NMWiz, ProDy) and a report.",
            show_default=False,
        ),
    ] = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Show in which ways a structure moves most easily (elastic network)."""
    from cryoinfer.cli.modes import ModesOptions, show_modes

    show_modes(
        ModesOptions(structure, count, cutoff, springs, out, overwrite), Console()
    )
