"""Two maps compared, shell by shell."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from cryoinfer.cli.alignment import (
    alignment_cautions,
    spelled_motion,
    turn_degrees,
)
from cryoinfer.cli.map_inputs import (
    PIXEL_OPTION,
    imposed_rotations,
    read_mask_of,
    read_named_map,
    require_same_sampling,
)
from cryoinfer.cli.nothing_found import inherited
from cryoinfer.cli.outputs import require_free_file, write_file
from cryoinfer.cli.ssnr_words import ssnr_words
from cryoinfer.cli.terminal import say, say_rows
from cryoinfer.evaluation.directional_fsc import directional_fsc
from cryoinfer.evaluation.frames_apart import best_frame
from cryoinfer.evaluation.fsc import (
    fourier_shell_correlation,
    masked_fsc,
    resolution_at,
)
from cryoinfer.evaluation.map_alignment import MapAlignment, align_maps, moved_map
from cryoinfer.evaluation.rigid_search import MapPair
from cryoinfer.evaluation.ssnr import independent_numbers, ssnr_from_fsc
from cryoinfer.io.mrc import MapFile
from cryoinfer.results.run_files import (
    CORRECTED,
    MASKED,
    RANDOMISED,
    UNMASKED,
    ssnr_columns,
    write_fsc,
)
from cryoinfer.wording import agree_nowhere, format_resolution

_THRESHOLDS = (0.143, 0.5)
_UNEVEN = 1.3
"""Worst resolution over the median, beyond what chance makes of cones: of maps that are
alike in all directions it was below 1.2."""

_FEWEST_SHELLS = 5
"""In which any two round particles agree at 0.5, or nearly, whichever way they lie."""

_NAMES = {
    CORRECTED: "masked, corrected",
    MASKED: "masked, uncorrected",
    UNMASKED: "unmasked",
}


@dataclass(frozen=True)
class CompareOptions:
    """What a user asks to be compared.

    Attributes
    ----------
    first, second : Path
    mask, out : Path or None
    pixel_size : float or None
        In angstrom, instead of the headers'.
    overwrite : bool
    align : bool
        Whether the second map is brought onto the first one before.
    directional : bool
        Whether the resolution in cones is told, too.
    """

    first: Path
    second: Path
    mask: Path | None = None
    out: Path | None = None
    pixel_size: float | None = None
    overwrite: bool = False
    align: bool = False
    directional: bool = False


def compare(options: CompareOptions, console: Console) -> None:
    """Print the resolution at which two half-maps agree, and write the curves.

    Raises
    ------
    InputError
        If the maps cannot be used or are sampled differently.
    OutputError
        If the curves cannot be written where they are to be.
    """
    first, second, mask_path = options.first, options.second, options.mask
    if options.out is not None:
        inputs = (first, second, *([] if mask_path is None else [mask_path]))
        require_free_file(options.out, *inputs, overwrite=options.overwrite)
    half1, half2 = (
        read_named_map(path, options.pixel_size, PIXEL_OPTION)
        for path in (first, second)
    )
    require_same_sampling(first, half1, second, half2)
    mask = None
    if mask_path is not None:
        found = read_mask_of(mask_path, half1, first, options.pixel_size)
        mask = torch.tensor(found.density)
    cautions = list(_cautions(options, half1, half2, mask))
    if options.align:
        half2, motion = _aligned(half1, half2, mask)
        cautions += alignment_cautions(motion)
        say(console, f"The second map is {spelled_motion(motion.alignment)}")
    maps = torch.tensor(half1.density), torch.tensor(half2.density)
    curves = _curves(*maps, mask)
    box, pixel_size = len(half1.density), half1.pixel_size_angstrom
    rows = _resolutions(curves, box, pixel_size)
    if not options.align:  # half-maps lie in one frame
        curve = curves[UNMASKED if mask is None else CORRECTED]
        reached = resolution_at(curve, _THRESHOLDS[0], box, pixel_size)
        numbers = independent_numbers(box, mask, imposed_rotations(first))
        ssnr = ssnr_from_fsc(curve, numbers)
        rows["SSNR of the mean"] = ssnr_words(ssnr, reached, box * pixel_size)
        curves |= ssnr_columns(ssnr)
    if options.directional:
        by_direction = _by_direction(*maps, mask, pixel_size)
        rows |= by_direction.rows
        cautions += by_direction.cautions
    say_rows(console, rows)
    for caution in cautions:
        say(console, f"Caution: {caution}")
    if options.out is not None:
        write_file(options.out, lambda part: write_fsc(part, curves, pixel_size))
        say(console, f"Curves written to {options.out}")


def _resolutions(
    curves: dict[str, Tensor], box: int, pixel_size: float
) -> dict[str, str]:
    """Return what is printed of curves: where they fall below the thresholds."""
    rows = {}
    for label in _NAMES.keys() & curves.keys():
        for threshold in _THRESHOLDS:
            reached = resolution_at(curves[label], threshold, box, pixel_size)
            rows[f"FSC {threshold}, {_NAMES[label]}"] = (
                f"none: below {threshold} from the first shell on"
                if agree_nowhere(reached, box, pixel_size)
                else format_resolution(reached, box, pixel_size)
            )
    return dict(sorted(rows.items()))


def _aligned(
    half1: MapFile, half2: MapFile, mask: Tensor | None
) -> tuple[MapFile, MapAlignment]:
    """Return the second map in the frame of the first, and the motion."""
    first, second = torch.tensor(half1.density), torch.tensor(half2.density)
    length = len(first) * half1.pixel_size_angstrom
    found = align_maps(MapPair(first, second, mask, length))
    moved = moved_map(second, found.alignment, half1.pixel_size_angstrom)
    return replace(half2, density=moved.numpy()), found


@dataclass(frozen=True)
class _ByDirection:
    """What is said of the resolution by direction."""

    rows: dict[str, str]
    cautions: list[str]


def _by_direction(
    half1: Tensor, half2: Tensor, mask: Tensor | None, pixel_size: float
) -> _ByDirection:
    """Compare two maps within cones."""
    weight = 1.0 if mask is None else mask
    found = directional_fsc(half1 * weight, half2 * weight, pixel_size)
    reached, box = found.resolution_angstrom, len(half1)
    median, best, worst = (
        format_resolution(float(one), box, pixel_size)
        for one in (reached.median(), reached.min(), reached.max())
    )
    x, y, z = found.direction[int(reached.argmax())].tolist()
    name = "unmasked" if mask is None else "masked, uncorrected"
    rows = {
        f"by direction, FSC 0.143, {name}": f"median {median}, best {best}",
        "worst direction": f"{worst}, along {x:.2f}, {y:.2f}, {z:.2f} (x, y, z)",
    }
    if float(reached.max()) < _UNEVEN * float(reached.median()):
        return _ByDirection(rows, [])
    text = (
        "the maps agree much less far in some directions than in most: views may be "
        "missing, and the resolution of whole shells is not that of these directions."
    )
    return _ByDirection(rows, [text])


def _curves(half1: Tensor, half2: Tensor, mask: Tensor | None) -> dict[str, Tensor]:
    if mask is None:
        return {UNMASKED: fourier_shell_correlation(half1, half2)}
    curve = masked_fsc(half1, half2, mask, torch.Generator().manual_seed(0))
    return {
        CORRECTED: curve.corrected,
        UNMASKED: curve.unmasked,
        MASKED: curve.masked,
        RANDOMISED: curve.randomised,
    }


def _cautions(
    options: CompareOptions, half1: MapFile, half2: MapFile, mask: Tensor | None
) -> Iterator[str]:
    """Yield what makes the numbers mean something else than they seem to."""
    yield from inherited(options.first, options.second)
    if torch.equal(torch.tensor(half1.density), torch.tensor(half2.density)):
        yield (
            f"{options.first} and {options.second} are the same map, which agrees with "
            "itself: their FSC is no resolution."
        )
    if mask is not None and bool((mask == 1).all()):
        yield f"{options.mask} is 1 everywhere, so that it masks nothing."
    if options.align:
        return
    yield from _motion(half1, half2, mask)
    apart = np.subtract(half2.origin_angstrom, half1.origin_angstrom)
    if np.abs(apart).max() > half1.pixel_size_angstrom / 100:
        x, y, z = apart.tolist()
        yield (
            f"their headers put the second map {x:.4g}, {y:.4g}, {z:.4g} A (x, y, z) "
            "from the first. They are compared voxel by voxel, wherever that is."
        )


def _motion(half1: MapFile, half2: MapFile, mask: Tensor | None) -> Iterator[str]:
    """Yield what maps in different frames, or of opposite hands, would agree to."""
    length = len(half1.density) * half1.pixel_size_angstrom
    maps = (torch.tensor(half1.density), torch.tensor(half2.density))
    pair = MapPair(*maps, mask, length)
    found = best_frame(pair)
    if found is None:
        yield from _apart(pair)
        return
    angle = turn_degrees(found.alignment.rotation)
    shift = float(found.alignment.origin_angstrom.norm())
    is_mirrored = found.alignment.mirrored
    lie = "are of opposite hands" if is_mirrored else "lie apart"
    first = "the mirror image of the second one (cryoinfer flip), " * is_mirrored
    fsc = ", masked and corrected" if mask is not None else ""
    box = 2 * (len(found.fsc) - 1)
    coarse = f", as far as voxels of {length / box:.2f} A tell"
    coarse *= box < len(half1.density) // 2 * 2
    yield (
        f"the maps {lie}: after {first}a turn by {angle:.1f} degrees and a shift by "
        f"{shift:.1f} A they agree to {found.resolution(0.143):.2f} A (FSC 0.143"
        f"{fsc}), {found.resolution(0.5):.2f} A (FSC 0.5){coarse}. The numbers above "
        "are of the maps as they lie, not aligned"
        + (": --align compares them in that frame." if not is_mirrored else ".")
    )


def _apart(pair: MapPair) -> Iterator[str]:
    """Yield that maps hardly agree, where no motion was found that explains it."""
    box = pair.fixed.shape[-1]
    reached = resolution_at(pair.fsc(), 0.5, box, pair.length_angstrom / box)
    if pair.length_angstrom / reached < _FEWEST_SHELLS:
        yield (
            f"as they lie, the maps agree in fewer than {_FEWEST_SHELLS} shells (FSC "
            "0.5), and a quick search found no rigid motion after which they agree "
            "farther. They show different structures or next to nothing; or they are "
            "not aligned: --align searches longer."
        )
