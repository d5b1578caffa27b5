"""RELION's dialect: column names, units and signs of its particle STAR files.

Versions up to 3.0 have one block, shifts in pixels and the pixel size as
magnification and detector pixel; from 3.1 on there is a block of optics groups and
shifts are in angstrom. RELION's origins shift the image onto the reference, so the
particle is displaced by their negative.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.fourier.distortion import distorted_points, undistorted_points
from cryoinfer.io.conventions.relion_columns import (
    GROUP,
    IMAGE,
    PIXEL_SIZE,
    optics_columns,
    particle_columns,
    result_columns,
)
from cryoinfer.io.conventions.relion_features import unsupported_in_relion
from cryoinfer.io.conventions.relion_poses import RelionPoses
from cryoinfer.io.conventions.relion_rows import (
    DEFOCUS,
    MICROSCOPE,
    RelionRows,
)
from cryoinfer.io.conventions.table import (
    Changes,
    Feature,
    Halves,
    ImageReferences,
    Microscope,
    ParticleTable,
    declared_boxes,
    group_numbers,
    is_result,
)
from cryoinfer.io.star import (
    StarBlock,
    StarFile,
    read_star,
    text_column,
    write_star,
)
from cryoinfer.io.star_text import STRING
from cryoinfer.records import Optics, Pose

_LONGEST_NUMBER = 10
"""Digits of an image: stacks count theirs in 32 bits."""

_BOX = "rlnImageSize"
_SUBSET, _CLASS = "rlnRandomSubset", "rlnClassNumber"


@dataclass(frozen=True)
class RelionParticles:
    """Particles as a STAR file holds them.

    Attributes
    ----------
    star : StarFile
    """

    star: StarFile

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read a particle STAR file of RELION 2 to 5.

        Raises
        ------
        MissingFileError, InputError
            If it is absent, no STAR file, or holds no particles.
        """
        particles = cls(read_star(path))
        found = [f"data_{block.name}" for block in particles.star.blocks]
        if not any(IMAGE in block for block in particles.star.blocks):
            raise InputError(
                f"{path} is not a particle STAR file: expected a block with the "
                f"column {IMAGE}, found {', '.join(found)}"
            )
        if len(particles) == 0:
            raise InputError(f"{path} holds no particles: its table is empty")
        return particles

    @property
    def particles(self) -> StarBlock:
        """The block of the particles."""
        candidates = [block for block in self.star.blocks if IMAGE in block]
        named = [block for block in candidates if block.name == "particles"]
        return (named or candidates)[0]

    @property
    def optics(self) -> StarBlock | None:
        """The block of the optics groups, or None up to version 3.0."""
        return self.star.get("optics")

    def __len__(self) -> int:
        return len(self.particles)

    def images(self) -> ImageReferences:
        """Return which image of which stack each particle is.

        Raises
        ------
        InputError
            If a name is not ``number@stack`` with a number from 1.
        """
        names = self.particles.columns[IMAGE]
        number, _, paths = np.strings.partition(names, np.array("@", dtype=STRING))
        digits = np.strings.str_len(number)
        good = np.strings.isdecimal(number) & (digits <= _LONGEST_NUMBER)
        row = np.where(good, number, "0").astype(np.int64) - 1
        for bad, expected in (
            (~good | (paths == ""), "must look like 000001@stack.mrcs"),
            (row < 0, "counts images from 1"),
        ):
            if bad.any():
                first = int(bad.argmax())
                raise InputError(
                    f"{IMAGE} {expected}, but row {first + 1} holds "
                    f"{str(names[first])[:100]!r} ({bad.sum()} such rows)"
                )
        return ImageReferences.of(paths, row)

    def pixel_size_angstrom(self) -> NDArray[np.float64]:
        """Return the pixel size of each particle, NaN where the file has none."""
        return self._rows.pixel_size_angstrom()

    def with_pixel_size(self, pixel_size_angstrom: float) -> Self:
        """Return the particles with a pixel size that the file did not have."""
        optics = self.optics
        if optics is not None:
            return self._with_block(
                optics, {PIXEL_SIZE: _repeat(f"{pixel_size_angstrom:.9g}", optics)}
            )
        # RELION up to 3.0 divides the detector's pixel by the magnification.
        block = self.particles
        columns = {
            "rlnMagnification": _repeat("10000", block),
            "rlnDetectorPixelSize": _repeat(f"{pixel_size_angstrom:.9g}", block),
        }
        return self._with_block(block, columns)

    def with_microscope(self, microscope: Microscope) -> Self:
        """Return the particles with what the file does not say of the microscope.

        Raises
        ------
        InputError
            If the file says otherwise, or has no CTF that it would belong to.
        """
        particles = self
        for name, value in microscope.known().items():
            if self._rows.has_microscope(name, value):
                continue
            block = particles.optics or particles.particles
            column = {MICROSCOPE[name]: _repeat(f"{value:.9g}", block)}
            particles = particles._with_block(block, column)
        return particles

    def unsupported(self) -> list[Feature]:
        """Return what the file asks for and the program does not model."""
        blocks = [b for b in (self.optics, self.particles) if b is not None]
        return unsupported_in_relion(blocks, has_ctf=DEFOCUS in self.particles)

    def table(self) -> ParticleTable:
        """Translate to the library's terms.

        Raises
        ------
        InputError
            If a column that is needed is absent or holds no numbers, or a particle
            belongs to an optics group that is not described.
        """
        pixel_size = self.pixel_size_angstrom()
        box = self._declared_box()
        halves = Halves()
        if _SUBSET in self.particles:
            values = self.particles.numbers_or_nan(_SUBSET)
            halves = Halves.of(_SUBSET, values, first=1)
        pose, problem = self._pose_or_problem(pixel_size)
        return ParticleTable(
            images=self.images(),
            sign=torch.ones(len(self)),
            box=torch.from_numpy(box),
            optics=self._rows.optics_record(box),
            has_ctf=DEFOCUS in self.particles,
            pose=pose,
            pose_problem=problem,
            random_subset=halves.subset,
            class_number=self._class_number(),
            micrograph=self.particles.columns.get("rlnMicrographName"),
            results={
                label: self.particles.numbers_or_nan(label)
                for label in self.particles.columns
                if is_result(label)
            },
            remarks=tuple(remark for remark in (problem, halves.remark) if remark),
        )

    def groups(self, table: ParticleTable, box: NDArray[np.int64]) -> Tensor:
        """Return the optics groups of particles whose image sizes are known.

        Those of ``data_optics`` stay; files without it are divided by size.

        Parameters
        ----------
        table : ParticleTable
            Of these particles.
        box : array, shape (n,)

        Returns
        -------
        Tensor of int64, shape (n,)

        Raises
        ------
        InputError
            If images of several sizes share a group of ``data_optics``.
        """
        if self.optics is None:
            return group_numbers(table.optics.group.numpy(), box)
        self._rows.require_uniform_groups({_BOX: box})
        return table.optics.group

    def select(self, index: NDArray[Any]) -> Self:
        """Return some particles; all optics groups and other blocks stay."""
        block = self.particles
        return type(self)(self.star.with_block(block, block.select(index)))

    def with_changes(self, changes: Changes) -> Self:
        """Return the particles with the columns of what was found out set."""
        columns: dict[str, NDArray[Any]] = {}
        if changes.pose is not None:
            pixel_size = changes.pixel_size_angstrom
            pose, magnification = changes.pose, self._rows.magnification()
            shift = distorted_points(pose.shift_angstrom, magnification)
            pose = replace(pose, shift_angstrom=shift)
            columns |= self._poses.columns(pose, pixel_size)
        for label, values, pattern in (
            ("rlnDefocusU", changes.defocus_u_angstrom, "%.6f"),
            ("rlnDefocusV", changes.defocus_v_angstrom, "%.6f"),
            (_SUBSET, changes.random_subset, "%d"),
        ):
            if values is not None:
                columns[label] = text_column(values.numpy(), pattern)
        return self._with_block(
            self.particles, columns | result_columns(changes.results)
        )

    def with_optics(self, optics: Optics) -> Self:
        """Return the particles with refined optics, (n,), alike within a group."""
        of_groups, own = self._rows.refined_columns(optics)
        block = self.optics or self.particles
        changed = self._with_block(block, of_groups)
        return changed._with_block(changed.particles, own)

    def with_paths(self, paths: Mapping[str, str]) -> Self:
        """Return the particles with stacks of :meth:`images` called otherwise."""
        images = self.images()
        changed = np.array([paths.get(path, path) != path for path in images.paths])
        names = self.particles.columns[IMAGE].copy()
        for i in np.flatnonzero(changed[images.path_index]).tolist():
            number = str(names[i]).partition("@")[0]
            names[i] = f"{number}@{paths[images.paths[images.path_index[i]]]}"
        return self._with_block(self.particles, {IMAGE: names})

    def with_image_size(self, box: NDArray[np.int64]) -> Self:
        """Return the particles with the optics columns that RELION 3.1 demands."""
        optics = self.optics
        if optics is None:
            return self
        names = np.strings.add("opticsGroup", optics.columns[GROUP])
        group_box = np.full(len(optics), box[0])
        group_box[self._rows.group_row()] = box
        wanted = {
            "rlnOpticsGroupName": names,
            _BOX: text_column(group_box, "%d"),
            "rlnImageDimensionality": _repeat("2", optics),
        }
        new = {label: v for label, v in wanted.items() if label not in optics}
        if _BOX in optics:
            is_known = declared_boxes(optics.numbers_or_nan(_BOX)) > 0
            new[_BOX] = np.where(is_known, optics.columns[_BOX], wanted[_BOX])
        return self._with_block(optics, new)

    def write(self, path: Path | str) -> None:
        """Write the STAR file, the optics groups before the particles.

        RELION counts groups from 1, and warns of others.
        """
        self._counted_from_1()._write(path)

    def _counted_from_1(self) -> Self:
        """Return the particles with optics groups from 1, if some are below."""
        optics = self.optics
        if optics is None or GROUP not in optics or GROUP not in self.particles:
            return self
        lowest = int(optics.integers(GROUP).min())
        particles = self
        for name in ("optics", "particles") if lowest < 1 else ():
            block: StarBlock = getattr(particles, name)
            numbers = text_column(block.integers(GROUP) + 1 - lowest, "%d")
            particles = particles._with_block(block, {GROUP: numbers})
        return particles

    def _write(self, path: Path | str) -> None:
        blocks = list(self.star.blocks)
        optics = self.optics
        if optics is not None:
            blocks = [block for block in blocks if block is not optics]
            place = next(i for i, b in enumerate(blocks) if b is self.particles)
            blocks.insert(place, optics)
        write_star(path, StarFile(tuple(blocks), self.star.version))

    @property
    def _rows(self) -> RelionRows:
        return RelionRows(self.particles, self.optics)

    @property
    def _poses(self) -> RelionPoses:
        return RelionPoses(self.particles, self.optics is not None)

    def _declared_box(self) -> NDArray[np.int64]:
        """Return the image size of each particle, 0 where the file does not say it."""
        if _BOX not in self._rows:
            return np.zeros(len(self), dtype=np.int64)
        return declared_boxes(self._rows.numbers_or_nan(_BOX))

    def _class_number(self) -> Tensor | None:
        """Return the classes, None where they cannot be understood."""
        try:
            number = self.particles.integers(_CLASS)
        except (KeyError, InputError):
            return None
        return torch.from_numpy(number) if number.min() >= 1 else None

    def _pose_or_problem(
        self, pixel_size: NDArray[np.float64]
    ) -> tuple[Pose | None, str]:
        """Return the poses, or why those of the file cannot be used."""
        try:
            pose = self._poses.read(pixel_size)
        except InputError as error:
            return None, f"The poses of the particles cannot be used: {error}"
        if pose is None:
            return None, ""
        shift = undistorted_points(pose.shift_angstrom, self._rows.magnification())
        return replace(pose, shift_angstrom=shift), ""

    def _with_block(self, block: StarBlock, columns: dict[str, NDArray[Any]]) -> Self:
        return type(self)(self.star.with_block(block, block.with_columns(columns)))


def table_to_relion(table: ParticleTable) -> RelionParticles:
    """Write a table in RELION 3.1's terms.

    RELION has no column for the contrast of the images; where they show particles
    black on white the CTF's scale is made negative, which says the same.
    """
    blocks = (
        StarBlock("optics", optics_columns(table)),
        StarBlock("particles", particle_columns(table)),
    )
    return RelionParticles(StarFile(blocks, version=30001)).with_changes(
        Changes(
            pose=table.pose,
            defocus_u_angstrom=None,
            defocus_v_angstrom=None,
            random_subset=table.random_subset,
            pixel_size_angstrom=table.optics.pixel_size_angstrom,
            results=table.results,
        )
    )


def _repeat(word: str, block: StarBlock) -> NDArray[Any]:
    return np.full(len(block), word, dtype=STRING)
