"""A soft mask drawn around the particle in a map."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console

from cryoinfer.cli.map_inputs import PIXEL_OPTION, read_named_map
from cryoinfer.cli.nothing_found import inherited
from cryoinfer.cli.outputs import require_free_file, write_file
from cryoinfer.cli.terminal import say, say_rows
from cryoinfer.errors import InputError
from cryoinfer.io.mrc import write_map
from cryoinfer.reconstruction.mask import MaskShape, ThresholdMask, threshold_mask

_FEWEST_EDGE_VOXELS = 3.0
"""An edge that is narrower correlates half-maps as a hard one does."""

_LARGE_PART = 0.1
"""Of what is above the threshold: what is left out then may belong to the particle."""


@dataclass(frozen=True)
class MaskOptions:
    """What a user asks of a mask.

    Attributes
    ----------
    density, out : Path
    shape : MaskShape
    pixel_size : float or None
        In angstrom, in the place of the header's.
    overwrite : bool
    """

    density: Path
    out: Path
    shape: MaskShape
    pixel_size: float | None = None
    overwrite: bool = False


def write_mask(options: MaskOptions, console: Console) -> None:
    """Write the mask of a map, and say what it is drawn around.

    Raises
    ------
    InputError
        If the map cannot be used, or nothing of it is above the threshold.
    OutputError
        If the mask cannot be written where it is to be.
    """
    require_free_file(options.out, options.density, overwrite=options.overwrite)
    density = read_named_map(options.density, options.pixel_size, PIXEL_OPTION)
    voxel = density.pixel_size_angstrom
    try:
        found = threshold_mask(torch.tensor(density.density), voxel, options.shape)
    except InputError as error:
        raise InputError(
            f"{options.density}: {error}. Give another --threshold"
        ) from None
    if bool((found.mask == 1).all()):
        raise InputError(
            f"{options.density}: the mask fills the box and would mask nothing. "
            "Give a higher --threshold, or a smaller --extend"
        )
    say_rows(console, _rows(options.shape, found))
    for caution in (*inherited(options.density), *_cautions(options, found, voxel)):
        say(console, f"Caution: {caution}")
    write_file(options.out, partial(_write, found, voxel))
    say(console, f"Written to {options.out}")


def _write(found: ThresholdMask, voxel_angstrom: float, path: Path) -> None:
    write_map(path, found.mask, voxel_angstrom)


def _rows(shape: MaskShape, found: ThresholdMask) -> dict[str, str]:
    outline = shape.outline_angstrom
    of_map = "the map as it is" if outline is None else f"the map at {outline:g} A"
    source = "given" if shape.threshold is not None else "found"
    share = float(found.mask.double().mean())
    parts = {0: "", 1: "; one smaller part was left out"}.get(
        found.other_parts, f"; {found.other_parts:,} smaller parts were left out"
    )
    return {
        "Threshold": f"{found.threshold:.4g}, {source}, of {of_map}",
        "Above it": f"{found.volume_angstrom3:,.0f} A3 in one part{parts}",
        "Mask": f"{share:.1%} of the box: {shape.extend_angstrom:g} A around that, and "
        f"a soft edge of {shape.soft_edge_angstrom:g} A",
    }


def _cautions(
    options: MaskOptions, found: ThresholdMask, voxel_angstrom: float
) -> list[str]:
    said = []
    if found.other_share > _LARGE_PART:
        said.append(
            f"the parts that were left out hold {found.other_share:.0%} of what is "
            "above the threshold: where they belong to the particle, a lower "
            "--threshold or --low-pass joins them."
        )
    if found.reaches_edge:
        said.append("the mask reaches the edge of the box, where it is cut off.")
    if options.shape.soft_edge_angstrom < _FEWEST_EDGE_VOXELS * voxel_angstrom:
        said.append(
            f"a soft edge of {options.shape.soft_edge_angstrom:g} A is less than three "
            "voxels: a sharp edge makes half-maps of noise correlate. Give a wider "
            "--soft-edge."
        )
    return said
