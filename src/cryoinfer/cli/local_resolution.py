"""How good a map is, place by place."""

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from cryoinfer.cli.map_inputs import (
    PIXEL_OPTION,
    read_mask_of,
    read_named_map,
    require_same_sampling,
)
from cryoinfer.cli.nothing_found import inherited
from cryoinfer.cli.outputs import (
    make_folder,
    require_free_file,
    require_free_folder,
    write_file,
)
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.terminal import say, say_rows
from cryoinfer.evaluation.local_resolution import ResolutionShares, local_resolution
from cryoinfer.results.run_files import save_map

RESOLUTION, FILTERED = "local_resolution.mrc", "locally_filtered.mrc"
SCRIPT = "local_resolution.cxc"
_FILES = (RESOLUTION, FILTERED, SCRIPT)

_MANY_BY_CHANCE = 0.05
"""Of the voxels outside the mask: windows reach out by two periods, and a mask that is
too tight leaves some of the particle there."""


@dataclass(frozen=True)
class LocalOptions:
    """What a user asks for.

    Attributes
    ----------
    first, second : Path
        Half-maps.
    out : Path
        A folder.
    mask : Path or None
    pixel_size : float or None
        In angstrom, instead of the headers'.
    overwrite : bool
    """

    first: Path
    second: Path
    out: Path
    mask: Path | None = None
    pixel_size: float | None = None
    overwrite: bool = False


def find_local_resolution(options: LocalOptions, console: Console) -> None:
    """Write the local resolution of two half-maps, and their locally filtered mean.

    Raises
    ------
    InputError
        If the maps cannot be used or are sampled differently.
    OutputError
        If the folder holds such files already, or cannot be written.
    """
    first, second = options.first, options.second
    require_free_folder(options.out, _FILES, options.overwrite)
    inputs = (first, second, *([] if options.mask is None else [options.mask]))
    for name in _FILES:
        require_free_file(options.out / name, *inputs, overwrite=options.overwrite)
    half1, half2 = (
        read_named_map(path, options.pixel_size, PIXEL_OPTION)
        for path in (first, second)
    )
    require_same_sampling(first, half1, second, half2)
    mask = None
    if options.mask is not None:
        read = read_mask_of(options.mask, half1, first, options.pixel_size)
        mask = torch.tensor(read.density)
    maps = torch.tensor(half1.density), torch.tensor(half2.density)
    voxel = half1.pixel_size_angstrom
    with RichMonitor(console) as monitor:
        found = local_resolution(*maps, voxel, monitor)
    shares = ResolutionShares.of(found.angstrom, mask)
    make_folder(options.out)
    save_map(options.out / RESOLUTION, found.angstrom, voxel)
    save_map(options.out / FILTERED, found.filtered, voxel)
    script = _script(shares)
    write_file(options.out / SCRIPT, lambda part: part.write_text(script))
    where = "in the box" if mask is None else "in the mask"
    say_rows(console, {f"{name}, {where}": value for name, value in shares.rows()})
    for caution in inherited(first, second):
        say(console, f"Caution: {caution}")
    if torch.equal(*maps):
        say(
            console,
            f"Caution: {first} and {second} are the same map, which agrees with "
            "itself.",
        )
    if mask is None:
        say(
            console,
            "Caution: without --mask the solvent is counted as well; the median is "
            "of the box, not of the particle.",
        )
    elif shares.by_chance is not None and shares.by_chance > _MANY_BY_CHANCE:
        say(
            console,
            f"Caution: {shares.by_chance:.0%} of the voxels outside the mask are as "
            "good as the median inside: the mask is tight, or the halves share noise.",
        )
    say(console, f"Written to {options.out}: {', '.join(_FILES)}")


def _script(shares: ResolutionShares) -> str:
    """Return commands of ChimeraX that colour the map by its resolution."""
    low, middle, high = (shares.quantiles[one] for one in (0.05, 0.5, 0.95))
    return (
        f"open {FILTERED}\nopen {RESOLUTION}\nvolume #2 hide\n"
        f"color sample #1 map #2 palette {low:.2f},blue:{middle:.2f},white:"
        f"{high:.2f},red\n"
    )
