"""Pseudo-atoms of a map, written as an atomic model."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from cryoinfer.cli.map_inputs import PIXEL_OPTION, read_named_map
from cryoinfer.cli.nothing_found import inherited
from cryoinfer.cli.outputs import require_free_file, write_file
from cryoinfer.cli.terminal import say, say_rows
from cryoinfer.data.bead_model import beads_of_map
from cryoinfer.data.map_mass import mass_kilodalton
from cryoinfer.errors import OutputError
from cryoinfer.io.ensembles import write_ensemble


@dataclass(frozen=True)
class BeadsOptions:
    """What a user asks of pseudo-atoms.

    Attributes
    ----------
    density, out : Path
    count : int
    level : float or None
        Density that is the molecule's; None for a share of the highest.
    pixel_size : float or None
        In angstrom, in the place of the header's.
    seed : int
    overwrite : bool
    """

    density: Path
    out: Path
    count: int
    level: float | None
    pixel_size: float | None
    seed: int
    overwrite: bool


def write_beads(options: BeadsOptions, console: Console) -> None:
    """Write pseudo-atoms of a map, and say what of it they stand for.

    Raises
    ------
    InputError
        If the map cannot be used.
    OutputError
        If the file exists, is no ``.cif`` or cannot be written.
    """
    if options.out.suffix != ".cif":
        raise OutputError(f"expected --out to end in .cif, found {options.out}")
    require_free_file(options.out, options.density, overwrite=options.overwrite)
    density = read_named_map(options.density, options.pixel_size, PIXEL_OPTION)
    found = beads_of_map(
        torch.tensor(density.density),
        density.pixel_size_angstrom,
        options.count,
        options.level,
        torch.Generator().manual_seed(options.seed),
    )

    # Where viewers show the map, which may have an origin of its own.
    places = found.model.coordinates_angstrom + density.origin_angstrom
    model = replace(found.model, coordinates_angstrom=places)
    write_file(
        options.out, lambda part: write_ensemble(part, options.density.stem, [model])
    )
    for text in inherited(options.density):
        say(console, f"Caution: {text}")
    mass = mass_kilodalton(torch.tensor(density.density), density.pixel_size_angstrom)
    volume, spread = found.volume_angstrom3, found.spread_angstrom
    say_rows(
        console,
        {
            "Mass": "no molecule stands out, or its pixels are too coarse to tell"
            if mass is None
            else f"about {mass:.3g} kDa, if protein: of its volume at a resolution of "
            "10 A, right to a tenth or so, a quarter too much for coarser maps",
            "Level": f"{found.level:.4g}, above which lie {volume:,.0f} A3",
            "Pseudo-atoms": f"{options.count}, with the mass {spread:.1f} A about them",
            "Written": str(options.out),
        },
    )
