"""Half-maps made into the map that people look at."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from cryoinfer.cli.arguments import recorded_path, spelled_arguments
from cryoinfer.cli.map_inputs import (
    PIXEL_OPTION,
    imposed_rotations,
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
from cryoinfer.cli.ssnr_words import ssnr_words
from cryoinfer.cli.terminal import say, say_rows
from cryoinfer.errors import InputError, OutputError
from cryoinfer.evaluation.postprocess import (
    Postprocessed,
    find_solvent_mask,
    postprocess,
)
from cryoinfer.evaluation.sharpening import STEADY_FIT_ANGSTROM
from cryoinfer.io.mrc import MapFile
from cryoinfer.report.postprocess import PostprocessContent, render_postprocess_report
from cryoinfer.results import layout
from cryoinfer.results.postprocess_files import FILES, write_postprocessed
from cryoinfer.results.run_record import local_time, software_versions
from cryoinfer.wording import agree_at_nyquist, format_resolution

_MASK_HARMS = 1.02
"""Resolution with the mask over that without, from which on a mask is no help."""


@dataclass(frozen=True)
class PostprocessOptions:
    """What a user asks of post-processing.

    Attributes
    ----------
    run : Path or None
        Folder of a finished run, with half-maps and mask.
    half1, half2 : Path or None
        In its place.
    out : Path
        A folder.
    mask : Path or None
        In place of that of the run, or of one that is found.
    bfactor : float or None
        In angstrom squared; a negative one sharpens. None to fit it.
    pixel_size : float or None
        In angstrom, instead of the headers'.
    overwrite : bool
    """

    run: Path | None
    half1: Path | None
    half2: Path | None
    out: Path
    mask: Path | None = None
    bfactor: float | None = None
    pixel_size: float | None = None
    overwrite: bool = False

    def halves(self) -> tuple[Path, Path]:
        """Return where the half-maps are.

        Raises
        ------
        InputError
            If neither a run nor both of them, or too much, is given; or a run has none.
        """
        given = [one for one in (self.half1, self.half2) if one is not None]
        if self.run is not None and given:
            raise InputError(
                f"expected a run or half-maps, found both: {self.run} has its own. "
                "Leave out --half1 and --half2, or the run"
            )
        if self.run is None and len(given) < 2:
            raise InputError(
                "expected the folder of a run, or two half-maps: give --half1 and "
                "--half2"
            )
        if self.run is None:
            return given[0], given[1]
        first, second = self.run / layout.HALF1, self.run / layout.HALF2
        for path in (first, second):
            if not path.is_file():
                raise InputError(
                    f"{self.run} has no {path.name}: it is no run with one map. Give "
                    "--half1 and --half2 instead, such as class_1_half1.mrc of a class"
                )
        return first, second

    def mask_file(self) -> Path | None:
        """Return where the mask is, None where it is to be found."""
        if self.mask is not None or self.run is None:
            return self.mask
        path = self.run / layout.MASK
        return path if path.is_file() else None

    def arguments(self) -> dict[str, Any]:
        """Return what decides the result, by option."""
        found: dict[str, Any] = {
            name: None if path is None else recorded_path(path)
            for name, path in (
                ("run", self.run),
                ("half1", self.half1),
                ("half2", self.half2),
                ("mask", self.mask),
            )
        }
        return {**found, "bfactor": self.bfactor, "pixel-size": self.pixel_size}


def postprocess_halves(options: PostprocessOptions, console: Console) -> None:
    """Write the sharpened map of two half-maps, and what it was told by.

    Raises
    ------
    InputError
        If the maps or the mask cannot be used, or are sampled differently.
    OutputError
        If the folder holds such files already, or cannot be written.
    NothingFoundError
        If the halves agree nowhere.
    """
    first, second = options.halves()
    mask_path = options.mask_file()
    inputs = (first, second, *([] if mask_path is None else [mask_path]))
    if (options.out / layout.RECORD).exists():
        raise OutputError(
            f"{options.out} is the folder of a run, whose mask and report would be "
            "replaced: give another folder."
        )
    require_free_folder(options.out, FILES, options.overwrite)
    for name in FILES:
        require_free_file(options.out / name, *inputs, overwrite=options.overwrite)
    half1, half2 = (
        read_named_map(path, options.pixel_size, PIXEL_OPTION)
        for path in (first, second)
    )
    require_same_sampling(first, half1, second, half2)
    halves = torch.tensor(half1.density), torch.tensor(half2.density)
    mask = _mask(options, half1, halves)
    voxel, rotations = half1.pixel_size_angstrom, imposed_rotations(first)
    found = postprocess(*halves, mask, voxel, options.bfactor, rotations)
    cautions = [*inherited(first, second)]
    if torch.equal(*halves):
        cautions.append(
            f"{first} and {second} are the same map, which agrees with itself: their "
            "FSC is no resolution."
        )
    cautions += _cautions(options, found)
    make_folder(options.out)
    about = {
        "arguments": options.arguments(),
        "mask": _mask_words(options),
        "cautions": cautions,
        "versions": software_versions(),
    }
    content = PostprocessContent(
        title=options.out.absolute().name,
        created=local_time(),
        found=found,
        b_factor_words=_b_factor_words(options, found),
        mask_words=f"{_mask_words(options)}.",
        warnings=cautions,
        arguments=spelled_arguments(options.arguments()),
        versions=software_versions(),
    )
    text = render_postprocess_report(content)
    write_file(
        options.out / layout.REPORT,
        lambda part: part.write_text(text, "utf-8", "replace"),
    )
    write_postprocessed(options.out, found, about)
    say_rows(console, _rows(options, found))
    for caution in cautions:
        say(console, f"Caution: {caution}")
    say(console, f"Written to {options.out}: {', '.join(FILES)}")


def _mask(
    options: PostprocessOptions, half1: MapFile, halves: tuple[Tensor, Tensor]
) -> Tensor:
    path = options.mask_file()
    if path is None:
        return find_solvent_mask(*halves, half1.pixel_size_angstrom)
    name = options.halves()[0]
    return torch.tensor(read_mask_of(path, half1, name, options.pixel_size).density)


def _mask_words(options: PostprocessOptions) -> str:
    """Say where the mask is from."""
    if options.mask is not None:
        return f"The mask is {options.mask}"
    if options.mask_file() is not None:
        return "The mask is that of the run"
    return "The mask was found in the mean of the half-maps"


def _b_factor_words(options: PostprocessOptions, found: Postprocessed) -> str:
    """Say where the B-factor is from."""
    if options.bfactor is not None:
        return "given"
    if found.fit is None:
        return "not fitted"
    fit = found.fit
    return (
        f"fitted from {fit.from_angstrom:.1f} to {fit.to_angstrom:.1f} A, +- "
        f"{fit.standard_error_angstrom2:.1f}"
    )


def _rows(options: PostprocessOptions, found: Postprocessed) -> dict[str, str]:
    box, voxel = found.mask.shape[-1], found.voxel_size_angstrom
    length = box * voxel
    rows = {
        "FSC 0.143, masked, corrected": format_resolution(
            found.resolution_angstrom, box, voxel
        ),
        "FSC 0.143, unmasked": format_resolution(
            found.unmasked_resolution_angstrom, box, voxel
        ),
        "SSNR of the mean": ssnr_words(found.ssnr, found.resolution_angstrom, length),
        "Mask": f"{float(found.mask.double().mean()):.1%} of the box. "
        f"{_mask_words(options)}",
        "B-factor": f"{found.b_factor_angstrom2:.1f} A2, "
        f"{_b_factor_words(options, found)}",
    }
    if found.whole_box_fit is not None and options.bfactor is None:
        rows["of the whole box"] = (
            f"{found.whole_box_fit.b_factor_angstrom2:.1f} A2, the solvent's noise "
            "included, as RELION fits it; not applied"
        )
    return rows


def _cautions(options: PostprocessOptions, found: Postprocessed) -> Iterator[str]:
    """Yield what makes the numbers mean something else than they seem to."""
    box, voxel = found.mask.shape[-1], found.voxel_size_angstrom
    if bool((found.mask == 1).all()):
        yield (
            "the mask is 1 everywhere, so that it masks nothing."
            if options.mask_file() is not None
            else "nothing stands out from the mean of the half-maps, and no mask was "
            "found: give --mask."
        )
    if agree_at_nyquist(found.resolution_angstrom, box, voxel):
        yield (
            "the half-maps agree up to Nyquist: the resolution is limited by the "
            "pixels, and finer ones may show more."
        )
    if found.resolution_angstrom > _MASK_HARMS * found.unmasked_resolution_angstrom:
        yield (
            "with the mask the half-maps agree less far than without: it may cut off "
            "a part of the particle, or be too sharp at its edge."
        )
    tight = found.mask_correlation
    if tight > 0.1:
        yield (
            f"at the resolution, maps of random phases correlate by {tight:.2f} under "
            "the mask: it is tight. The corrected FSC takes that out, but not where "
            "the mask was drawn along the noise."
        )
    yield from _about_b_factor(options, found)


def _about_b_factor(options: PostprocessOptions, found: Postprocessed) -> Iterator[str]:
    if options.bfactor is not None:
        if options.bfactor > 0:
            yield (
                "a positive B-factor blurs the map: a negative one sharpens, as in "
                "RELION."
            )
    elif found.fit is None:
        yield (
            f"no B-factor was fitted: {found.why_no_fit}. The map is weighted by the "
            "FSC and not sharpened; --bfactor sharpens it by hand."
        )
    elif found.fit.b_factor_angstrom2 >= 0:
        yield (
            "the amplitudes do not fall with the resolution, and the map was not "
            "sharpened. Are the half-maps sharpened already?"
        )
    elif found.resolution_angstrom > STEADY_FIT_ANGSTROM:
        yield (
            f"between 10 A and {found.resolution_angstrom:.1f} A amplitudes follow the "
            "fold of the molecule as well as its blur, and the B-factor may be off by "
            "many tens of A2: compare with one that is given by --bfactor."
        )
