"""Metadata of images that were written anew, in another box and pixel size.

Everything else stays as it is: rows, columns, blocks and fields, shifts in angstrom,
and the CTF, which is a function of frequencies in 1/A. Shifts that are counted in
pixels are counted in the new ones.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cryoinfer.io.conventions.cryosparc import CryosparcParticles
from cryoinfer.io.conventions.relion import RelionParticles
from cryoinfer.io.conventions.relion_columns import IMAGE, PIXEL_SIZE
from cryoinfer.io.conventions.relion_poses import ORIGIN_PIXELS
from cryoinfer.io.conventions.relion_rows import RelionRows
from cryoinfer.io.conventions.table import ImageReferences
from cryoinfer.io.cryosparc import bytes_of_text, field_names, with_fields
from cryoinfer.io.star import StarBlock, text_column
from cryoinfer.io.star_text import STRING

ORIGINAL = "rlnImageOriginalName"
"""RELION's column for the image that another was made from."""

_BOX, _OLD_PIXEL_SIZE, _MAGNIFICATION = (
    "rlnImageSize",
    "rlnPixelSize",
    "rlnMagnification",
)
_ALIGNMENTS = ("alignments2D", "alignments3D")
_ORIGINAL_PATH, _ORIGINAL_INDEX = "cryoinfer/original_path", "cryoinfer/original_idx"


@dataclass(frozen=True)
class ResampledImages:
    """The images of n particles, written anew.

    Attributes
    ----------
    images : ImageReferences
        Where they are.
    box : array of int64, shape (n,)
    pixel_size_angstrom, old_pixel_size_angstrom : array, shape (n,)
    """

    images: ImageReferences
    box: NDArray[np.int64]
    pixel_size_angstrom: NDArray[np.float64]
    old_pixel_size_angstrom: NDArray[np.float64]


def resampled_in_relion(
    particles: RelionParticles, new: ResampledImages
) -> RelionParticles:
    """Return particles of a STAR file that name other images.

    The image that each was made from stays in ``rlnImageOriginalName``, unless the
    file has that column: an older original is not forgotten.
    """
    block, optics = particles.particles, particles.optics
    columns: dict[str, NDArray[Any]] = {IMAGE: relion_names(new.images)}
    if ORIGINAL not in block:
        columns[ORIGINAL] = block.columns[IMAGE]
    pixel_size = text_column(new.pixel_size_angstrom, "%.9g")
    told = {
        PIXEL_SIZE: pixel_size,
        _OLD_PIXEL_SIZE: pixel_size,
        _BOX: text_column(new.box, "%d"),
    }
    columns |= {label: words for label, words in told.items() if label in block}
    fewer = new.old_pixel_size_angstrom / new.pixel_size_angstrom
    for label in ORIGIN_PIXELS:
        if label in block:
            columns[label] = _scaled(block, label, fewer, "%.6f")
    if optics is None and _MAGNIFICATION in block:
        # As RELION up to 3.0 tells of images that it has rescaled.
        columns[_MAGNIFICATION] = _scaled(block, _MAGNIFICATION, fewer, "%.9g")
    star = particles.star.with_block(block, block.with_columns(columns))
    if optics is not None:
        row = RelionRows(block, optics).group_row()
        wanted = [x for x in told if x != _OLD_PIXEL_SIZE or x in optics]
        changed = {x: _by_group(optics, x, told[x], row) for x in wanted}
        star = star.with_block(optics, optics.with_columns(changed))
    return RelionParticles(star)


def resampled_in_cryosparc(
    particles: CryosparcParticles, new: ResampledImages
) -> CryosparcParticles:
    """Return particles of a ``.cs`` table that name other images.

    Where each came from stays in ``cryoinfer/original_path`` and ``original_idx``.
    """
    old, images = particles.fields, new.images
    fields: dict[str, NDArray[Any]] = {
        "blob/path": bytes_of_text(np.array(images.paths, STRING))[images.path_index],
        "blob/idx": images.row.astype(np.uint32),
        "blob/shape": np.stack([new.box, new.box], axis=1).astype(np.uint32),
        "blob/psize_A": new.pixel_size_angstrom.astype(np.float32),
    }
    if _ORIGINAL_PATH not in field_names(old):
        fields |= {_ORIGINAL_PATH: old["blob/path"], _ORIGINAL_INDEX: old["blob/idx"]}
    for group in _ALIGNMENTS:
        unit = f"{group}/psize_A"
        if f"{group}/shift" in field_names(old):
            given = old[unit] if unit in field_names(old) else np.zeros(len(old))
            # Without one of their own, shifts are counted in pixels of the images.
            known = np.where(given > 0, given, new.old_pixel_size_angstrom)
            fields[unit] = known.astype(np.float32)
    return CryosparcParticles(with_fields(old, fields), particles.remarks)


def relion_names(images: ImageReferences) -> NDArray[Any]:
    """Return the names of images as RELION spells them, shape (n,)."""
    pairs = zip((images.row + 1).tolist(), images.path_index.tolist(), strict=True)
    names = [f"{row:06d}@{images.paths[path]}" for row, path in pairs]
    return np.array(names, dtype=STRING)


def _scaled(
    block: StarBlock, label: str, factor: NDArray[np.float64], pattern: str
) -> NDArray[Any]:
    """Return a column times a factor a row; what is no number stays as it is."""
    values = block.numbers_or_nan(label)
    words = text_column(values * factor, pattern)
    return np.where(np.isfinite(values), words, block.columns[label])


def _by_group(
    optics: StarBlock, label: str, words: NDArray[Any], row: NDArray[np.int64]
) -> NDArray[Any]:
    """Return a column of the groups; those without particles keep what they have."""
    found = optics.columns[label].copy() if label in optics else None
    if found is None:
        found = np.full(len(optics), words[0], dtype=STRING)
    found[row] = words
    return found
