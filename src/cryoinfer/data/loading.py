"""The steps from a path to metadata and stacks, each with its own error.

:meth:`~cryoinfer.data.particles.Particles.load` takes them in turn and stops at the
first error; :func:`~cryoinfer.data.check.check` collects them all.
"""

import codecs
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cryoinfer.data.stack_paths import Place
from cryoinfer.errors import InputError
from cryoinfer.io.conventions.cryosparc import CryosparcParticles
from cryoinfer.io.conventions.relion import RelionParticles, table_to_relion
from cryoinfer.io.conventions.table import (
    MICROSCOPE_OPTIONS,
    ImageReferences,
    Microscope,
    ParticleTable,
    group_numbers,
)
from cryoinfer.io.cryosparc import tables_beside
from cryoinfer.io.files import read_bytes
from cryoinfer.io.mrc import StackFile
from cryoinfer.io.pixel_sizes import (
    PIXEL_SIZE_RANGE_ANGSTROM,
    is_plausible_pixel_size,
    same_pixel_size,
)
from cryoinfer.io.raw_text import decode, text_of_name
from cryoinfer.records import Optics

Source = RelionParticles | CryosparcParticles
"""Metadata in the terms of the program that wrote them."""

UNKNOWN = Microscope()

_STACKS = (".mrcs", ".mrc")
_LIST = ".txt"
_SMALLEST = 2


def read_source(
    path: Path,
    passthrough: Sequence[Path | str] = (),
    microscope: Microscope = UNKNOWN,
) -> Source:
    """Read the metadata of a ``.star`` or ``.cs`` file, completed by what is known.

    Raises
    ------
    MissingFileError, InputError
    """
    if path.suffix == ".star":
        require_no_passthrough(path, passthrough)
        return RelionParticles.read(path).with_microscope(microscope)
    if path.suffix == ".cs":
        read = CryosparcParticles.read(path, passthrough)
        return read.with_microscope(microscope)
    raise InputError(
        f"{path}: expected particles as .star, .cs, .mrcs, .mrc or .txt, "
        f"found {path.suffix or 'no ending'}"
    )


def tables_not_used(
    path: Path, passthrough: Sequence[Path | str], source: Source
) -> tuple[str, ...]:
    """Return what to tell where a table beside particles without CTF is left out."""
    if passthrough or not isinstance(source, CryosparcParticles) or source.has_ctf:
        return ()
    names = [table.name for table in tables_beside(path)]
    if not names:
        return ()
    return (
        f"{path} has no CTF, and {', '.join(names)} in its folder has none either, or "
        "does not hold all of its particles: the images are taken to have no CTF at "
        "all. Give the table that has it with --passthrough.",
    )


def require_no_passthrough(path: Path, passthrough: Sequence[Path | str]) -> None:
    """Raise :class:`InputError` where a table is given to particles that have none."""
    if passthrough:
        raise InputError(
            f"--passthrough {passthrough[0]} is given, but {path} is no .cs file, "
            "which alone has such tables. Leave the option out."
        )


def require_no_microscope(path: Path, microscope: Microscope) -> None:
    """Raise :class:`InputError` where a microscope is given to images without CTF."""
    for name in microscope.known():
        raise InputError(
            f"{MICROSCOPE_OPTIONS[name]} is given, but {path} has no metadata, and so "
            "no defocus that it would belong to. Leave the option out."
        )


def is_bare(path: Path) -> bool:
    """Return whether a file is a stack, or a list of stacks, without metadata."""
    return path.suffix in (*_STACKS, _LIST)


def is_list(path: Path) -> bool:
    """Return whether a file is a list of stacks."""
    return path.suffix == _LIST


def listed_stacks(path: Path) -> tuple[str, ...]:
    """Return the stacks that a list names, relative to its folder.

    Raises
    ------
    MissingFileError, InputError
    """
    raw = read_bytes(path)
    if b"\0" in raw:
        raise InputError(f"{path} is not a list of stacks: it is not text")
    lines = decode(raw.removeprefix(codecs.BOM_UTF8)).splitlines()
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise InputError(f"{path} lists no stacks: expected one path a line")
    odd = next((n for n in names if n.endswith((_LIST, ".star", ".cs"))), None)
    if odd is not None:
        raise InputError(
            f"{path} is not a list of stacks: expected one .mrcs or .mrc file a line, "
            f"found {odd[:200]!r}"
        )
    repeated = next((name for name, n in Counter(names).items() if n > 1), None)
    if repeated is not None:
        raise InputError(
            f"{path} lists {repeated!r} more than once: the same images in both "
            "halves of the data make them dependent. Remove the repeated lines."
        )
    return names


def source_of_stacks(
    names: Sequence[str], stacks: Sequence[StackFile], pixel_size_angstrom: float | None
) -> Source:
    """Make metadata, without CTF and poses, for all images of some stacks."""
    counts = [len(stack) for stack in stacks]
    path_index = np.repeat(np.arange(len(stacks)), counts)
    row = np.concatenate([np.arange(count) for count in counts])
    n = len(row)
    if pixel_size_angstrom is None:
        pixel_size_angstrom = header_pixel_size(stacks)
    require_plausible(pixel_size_angstrom, "--pixel-size or the header")
    box = np.array([stack.shape[1] for stack in stacks])[path_index]
    optics = Optics.without_ctf(n, pixel_size_angstrom)
    table = ParticleTable(
        images=ImageReferences(tuple(names), path_index, row),
        sign=torch.ones(n),
        box=torch.from_numpy(box),
        optics=replace(optics, group=group_numbers(box)),
        has_ctf=False,
    )
    return table_to_relion(table)


def open_stacks(names: Sequence[str], place: Place) -> tuple[StackFile, ...]:
    """Read the headers of stacks.

    Raises
    ------
    MissingFileError
        Naming the first that is absent and how many are.
    InputError
        If one cannot be used.
    """
    paths = place.find_all(names)
    missing = [name for name, path in zip(names, paths, strict=True) if path is None]
    if missing:
        raise place.missing(missing, len(names))
    return tuple(open_stack(path) for path in paths if path is not None)


def open_bare(
    path: Path, place: Place
) -> tuple[tuple[str, ...], tuple[StackFile, ...]]:
    """Return the names and headers of a stack, or of those that a list names.

    Raises
    ------
    MissingFileError, InputError
    """
    if is_list(path):
        names = listed_stacks(path)
        return names, open_stacks(names, place)
    return (text_of_name(path.name),), (open_stack(path),)


def open_stack(path: Path) -> StackFile:
    """Read the header of a stack of square images."""
    stack = StackFile.of(path)
    _, height, width = stack.shape
    if height != width:
        raise InputError(
            f"{path}: expected square images, found {width} x {height} pixels. "
            "Is it a micrograph?"
        )
    if width < _SMALLEST:
        raise InputError(
            f"{path}: expected images of {_SMALLEST} pixels or more, found {width}"
        )
    return stack


def odd_boxes(boxes: NDArray[np.int64], optics: Optics) -> tuple[str, ...]:
    """Return what to tell of images that are read in another size than they have.

    Parameters
    ----------
    boxes : array, shape (n,)
        Of the stacks of the particles.
    optics : Optics
        Of the same particles.
    """
    said = []
    for box in np.unique(boxes[boxes % 2 == 1]).tolist():
        first = int(np.flatnonzero(boxes == box)[0])
        size = float(optics.pixel_size_angstrom[first])
        said.append(
            f"Images of {box} pixels of {size:.4g} A are read in {box - 1} pixels of "
            f"{size * box / (box - 1):.4g} A, as maps are made, cropped in Fourier "
            "space: sizes must be even. What is written of the particles goes with "
            "the images as they are."
        )
    return tuple(said)


def require_rows(images: ImageReferences, stacks: Sequence[StackFile | None]) -> None:
    """Raise :class:`InputError` if a particle is an image that its stack lacks.

    Particles of a stack that is None are passed over.
    """
    lengths = [np.iinfo(np.int64).max if s is None else len(s) for s in stacks]
    counts = np.array(lengths)[images.path_index]
    bad = np.flatnonzero(images.row >= counts)
    if len(bad):
        stack = stacks[images.path_index[bad[0]]]
        assert stack is not None
        raise InputError(
            f"Row {bad[0] + 1} of the particles is image {images.row[bad[0]] + 1} of "
            f"{stack.path}, which holds only {len(stack)} images ({len(bad)} such "
            "rows). Is it the stack that the metadata were made for?"
        )


def stack_boxes(
    images: ImageReferences, stacks: Sequence[StackFile]
) -> NDArray[np.int64]:
    """Return the image size, shape (n,), of each particle's stack."""
    boxes = np.array([stack.shape[1] for stack in stacks], dtype=np.int64)
    return boxes[images.path_index]


def require_declared_boxes(
    declared: NDArray[np.int64], found: NDArray[np.int64]
) -> None:
    """Raise :class:`InputError` where metadata claim another image size."""
    bad = np.flatnonzero((declared > 0) & (declared != found))
    if len(bad):
        raise InputError(
            f"The metadata say that images have {declared[bad[0]]} pixels, but those "
            f"of row {bad[0] + 1} have {found[bad[0]]} ({len(bad)} such rows). If the "
            "stack was resampled, the pixel size in the metadata is wrong too."
        )


def with_boxes(
    source: Source, table: ParticleTable, boxes: NDArray[np.int64]
) -> ParticleTable:
    """Return the table with the image sizes of the stacks, one an optics group.

    Parameters
    ----------
    source : Source
    table : ParticleTable
        Of the source.
    boxes : array, shape (n,)
        Of the stacks of its particles.

    Raises
    ------
    InputError
        If the metadata say otherwise, or a group that they describe has several sizes.
    """
    require_declared_boxes(table.box.numpy(), boxes)
    optics = replace(table.optics, group=source.groups(table, boxes))
    return replace(table, optics=optics, box=torch.from_numpy(boxes))


def with_pixel_size(
    source: Source, stacks: Sequence[StackFile], pixel_size_angstrom: float | None
) -> Source:
    """Return metadata that have a pixel size, from the user or the stacks if need be.

    Raises
    ------
    InputError
        If there is none or it is absurd, or the user contradicts the metadata.
    """
    declared = source.pixel_size_angstrom()
    is_known = ~np.isnan(declared)
    for value in np.unique(declared[is_known]).tolist():
        require_plausible(value, "the metadata")
        if pixel_size_angstrom and not same_pixel_size(value, pixel_size_angstrom):
            raise InputError(
                f"The metadata have a pixel size of {value:.5g} A, but --pixel-size "
                f"says {pixel_size_angstrom:.5g} A. Correct the metadata, or leave "
                "the option out."
            )
    if is_known.all():
        return source
    if pixel_size_angstrom is None:
        pixel_size_angstrom = header_pixel_size(stacks)
    require_plausible(pixel_size_angstrom, "--pixel-size or the header")
    return source.with_pixel_size(pixel_size_angstrom)


def header_pixel_size(stacks: Sequence[StackFile]) -> float:
    """Return the pixel size that the headers of all stacks share."""
    sizes = [stack.pixel_size_angstrom for stack in stacks]
    known = [size for size in sizes if size is not None]
    if len(known) < len(sizes) or not same_pixel_size(min(known), max(known)):
        found = "several" if known else "none that can be used"
        raise InputError(
            "The metadata have no pixel size, and of the headers of the stacks "
            f"(such as {stacks[0].path}) there is {found}. Give --pixel-size."
        )
    return known[0]


def require_plausible(pixel_size_angstrom: float, origin: str) -> None:
    """Raise :class:`InputError` if no microscope has such a pixel size."""
    if not is_plausible_pixel_size(pixel_size_angstrom):
        low, high = PIXEL_SIZE_RANGE_ANGSTROM
        raise InputError(
            f"Expected a pixel size between {low} and {high} A, found "
            f"{pixel_size_angstrom:.5g} A in {origin}. Correct it, or give "
            "--pixel-size if the file has none."
        )
