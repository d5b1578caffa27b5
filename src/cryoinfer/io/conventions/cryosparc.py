"""cryoSPARC's dialect: field names, units and signs of its ``.cs`` tables.

Indices, classes and half-sets count from 0, shifts are in pixels of the images as
they were aligned and have RELION's sign, angles are radians.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.fourier.distortion import distorted_points, undistorted_points
from cryoinfer.io.conventions.cryosparc_aberrations import (
    aberration_fields,
    aberrations_told,
    group_columns,
    magnification_of,
    require_storable,
    with_aberrations_of,
)
from cryoinfer.io.conventions.cryosparc_fields import (
    CLASS,
    RESULT_GROUP,
    SPLIT,
    class_numbers,
    result_fields,
    split_halves,
    storable,
    understood,
)
from cryoinfer.io.conventions.poses import (
    axis_angle_to_rotation,
    rotation_to_axis_angle,
)
from cryoinfer.io.conventions.table import (
    LARGEST_SHIFT_ANGSTROM,
    MICROSCOPE_OPTIONS,
    Changes,
    Feature,
    ImageReferences,
    Microscope,
    ParticleTable,
    declared_boxes,
    feature,
    group_numbers,
    require_same,
    require_within,
)
from cryoinfer.io.cryosparc import (
    bytes_of_text,
    field_names,
    integer_field,
    make_uids,
    number_field,
    read_with_tables,
    text_field,
    with_fields,
    write_cs,
)
from cryoinfer.io.raw_text import encode
from cryoinfer.physics.aberrations import with_named_terms
from cryoinfer.records import Optics, Pose

_PATH, _INDEX, _SHAPE = "blob/path", "blob/idx", "blob/shape"
_PIXEL_SIZE, _SIGN = "blob/psize_A", "blob/sign"
_POSE, _SHIFT = "alignments3D/pose", "alignments3D/shift"
_ALIGNED_PIXEL_SIZE = "alignments3D/psize_A"
_MICROGRAPH = "location/micrograph_path"
_EXPOSURE_GROUP = "ctf/exp_group_id"
_OPTICS = {
    "voltage_kv": "ctf/accel_kv",
    "cs_mm": "ctf/cs_mm",
    "amplitude_contrast": "ctf/amp_contrast",
    "defocus_u_angstrom": "ctf/df1_A",
    "defocus_v_angstrom": "ctf/df2_A",
    "defocus_angle_radian": "ctf/df_angle_rad",
    "phase_shift_radian": "ctf/phase_shift_rad",
    "bfactor_angstrom2": "ctf/bfactor",
    "scale": "ctf/scale",
}
_LARGEST_RADIAN = 1e3
_REQUIRED_OPTICS = tuple(_OPTICS)[:5]


@dataclass(frozen=True)
class CryosparcParticles:
    """Particles as a ``.cs`` table holds them.

    Attributes
    ----------
    fields : structured array, shape (n,)
    remarks : tuple of str
        What to tell of the files that it was read from.
    """

    fields: NDArray[Any]
    remarks: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path | str, passthrough: Sequence[Path | str] = ()) -> Self:
        """Read a ``.cs`` table with its passthrough tables.

        Raises
        ------
        MissingFileError, InputError
            If it is absent, no ``.cs`` table, or does not say where images are.
        """
        particles = cls(*read_with_tables(Path(path), passthrough))
        missing = [x for x in (_PATH, _INDEX) if not particles._has(x)]
        if missing:
            raise InputError(
                f"{path} does not say which images its particles are: it lacks "
                f"{', '.join(missing)}. Give the passthrough file of the same job "
                "that has them with --passthrough."
            )
        if len(particles) == 0:
            raise InputError(f"{path} holds no particles: its table is empty")
        return particles

    def __len__(self) -> int:
        return len(self.fields)

    def images(self) -> ImageReferences:
        """Return which image of which stack each particle is."""
        # An exported path begins with a mark that is no part of its name.
        names = np.strings.lstrip(text_field(self.fields, _PATH), ">")
        row = integer_field(self.fields, _INDEX)
        for bad, what in ((row < 0, "an index below 0"), (names == "", "no path")):
            if bad.any():
                raise InputError(
                    f"Row {bad.argmax() + 1} of the particles has {what} "
                    f"({bad.sum()} such rows). Remove or correct these rows."
                )
        return ImageReferences.of(names, row)

    def pixel_size_angstrom(self) -> NDArray[np.float64]:
        """Return the pixel size of each particle, NaN where the table has none."""
        if not self._has(_PIXEL_SIZE):
            return np.full(len(self), np.nan)
        pixel_size = self._numbers(_PIXEL_SIZE)
        return np.where(pixel_size > 0, pixel_size, np.nan)

    def with_pixel_size(self, pixel_size_angstrom: float) -> Self:
        """Return the particles with a pixel size where the table did not have any."""
        values = np.nan_to_num(self.pixel_size_angstrom(), nan=pixel_size_angstrom)
        fields = {_PIXEL_SIZE: values.astype(np.float32)}
        return self._with_fields(fields)

    def with_microscope(self, microscope: Microscope) -> Self:
        """Return the particles with what the table does not say of the microscope.

        Raises
        ------
        InputError
            If the table says otherwise, or has no CTF that it would belong to.
        """
        fields = {}
        for name, value in microscope.known().items():
            if not self.has_ctf:
                raise InputError(
                    f"{MICROSCOPE_OPTIONS[name]} is given, but the particles have no "
                    f"{_OPTICS['defocus_u_angstrom']}, and so no CTF. Leave the option "
                    "out, or give the passthrough file that has it with --passthrough."
                )
            if self._has(_OPTICS[name]):
                require_same(name, self._numbers(_OPTICS[name]), value)
            else:
                fields[_OPTICS[name]] = np.full(len(self), value, dtype=np.float32)
        return self._with_fields(fields)

    @property
    def has_ctf(self) -> bool:
        """Whether there is a defocus."""
        return self._has(_OPTICS["defocus_u_angstrom"])

    def unsupported(self) -> list[Feature]:
        """Return what the table asks for and the program does not model."""
        told = [] if self.has_ctf else aberrations_told(self.fields)
        cause = f"{', '.join(told)} without {_OPTICS['defocus_u_angstrom']}"
        return [feature("aberrations", cause)] if told else []

    def table(self) -> ParticleTable:
        """Translate to the library's terms.

        Raises
        ------
        InputError
            If a field that is needed is absent or holds values that are not finite.
        """
        n = len(self)
        box = self._declared_box()
        sign = self._numbers(_SIGN) if self._has(_SIGN) else np.ones(n)
        sign = np.where(sign < 0, -1.0, 1.0).astype(np.float32)
        halves = split_halves(self.fields)
        pose, problem = self._pose_or_problem()
        return ParticleTable(
            images=self.images(),
            sign=torch.from_numpy(sign),
            box=torch.from_numpy(box),
            optics=self._optics_record(box),
            has_ctf=self.has_ctf,
            pose=pose,
            pose_problem=problem,
            random_subset=halves.subset,
            class_number=class_numbers(self.fields),
            micrograph=understood(text_field, self.fields, _MICROGRAPH),
            results=result_fields(self.fields),
            remarks=(*self.remarks, *filter(None, (problem, halves.remark))),
        )

    def groups(self, table: ParticleTable, box: NDArray[np.int64]) -> Tensor:
        """Return the optics groups, shape (n,), divided by image sizes, shape (n,)."""
        return group_numbers(table.optics.group.numpy(), box)

    def select(self, index: NDArray[Any]) -> Self:
        """Return some particles."""
        return replace(self, fields=self.fields[index])

    def with_changes(self, changes: Changes) -> Self:
        """Return the particles with the fields of what was found out set."""
        fields: dict[str, NDArray[Any]] = {}
        if changes.pose is not None:
            pixel_size = changes.pixel_size_angstrom
            magnification = magnification_of(self.fields)
            seen = distorted_points(changes.pose.shift_angstrom, magnification)
            shift = 0.0 - seen / pixel_size[:, None]
            axis_angle = rotation_to_axis_angle(changes.pose.rotation)
            fields |= {
                _POSE: axis_angle.numpy().astype(np.float32),
                _SHIFT: shift.numpy().astype(np.float32),
                _ALIGNED_PIXEL_SIZE: pixel_size.numpy().astype(np.float32),
            }
        for name in ("defocus_u_angstrom", "defocus_v_angstrom"):
            values: Tensor | None = getattr(changes, name)
            if values is not None:
                fields[_OPTICS[name]] = values.numpy().astype(np.float32)
        if changes.random_subset is not None:
            fields[SPLIT] = (changes.random_subset - 1).numpy().astype(np.uint32)
        for name, column in changes.results.items():
            fields[RESULT_GROUP + name] = storable(column)
        return self._with_fields(fields)

    def with_paths(self, paths: Mapping[str, str]) -> Self:
        """Return the particles with stacks of :meth:`images` called otherwise."""
        images = self.images()
        changed = np.array([paths.get(path, path) != path for path in images.paths])
        new = np.array([encode(paths.get(path, path)) for path in images.paths])
        names = np.where(
            changed[images.path_index],
            new[images.path_index],
            bytes_of_text(text_field(self.fields, _PATH)),
        )
        return self._with_fields({_PATH: names})

    def with_image_size(self, box: NDArray[np.int64]) -> Self:
        """Return the particles with their image size, where the table lacks it."""
        if self._has(_SHAPE) and (self._declared_box() > 0).all():
            return self
        shape = np.stack([box, box], axis=1).astype(np.uint32)
        return self._with_fields({_SHAPE: shape})

    def write(self, path: Path | str) -> None:
        """Write the ``.cs`` table."""
        write_cs(path, self.fields)

    def _with_fields(self, fields: Mapping[str, NDArray[Any]]) -> Self:
        return replace(self, fields=with_fields(self.fields, fields))

    def _has(self, field: str) -> bool:
        return field in field_names(self.fields)

    def _numbers(self, field: str, shape: tuple[int, ...] = ()) -> NDArray[np.float64]:
        return number_field(self.fields, field, shape)

    def _declared_box(self) -> NDArray[np.int64]:
        if not self._has(_SHAPE):
            return np.zeros(len(self), dtype=np.int64)
        return declared_boxes(self._numbers(_SHAPE, (2,)).max(axis=1))

    def _optics_record(self, box: NDArray[np.int64]) -> Optics:
        optics = Optics.without_ctf(len(self), 1.0)
        if self.has_ctf:
            missing = [
                _OPTICS[x] for x in _REQUIRED_OPTICS if not self._has(_OPTICS[x])
            ]
            if missing:
                raise InputError(
                    "The table has a defocus but lacks "
                    f"{', '.join(missing)}, without which the CTF is unknown. Give the "
                    "passthrough file that has them with --passthrough, or "
                    f"{', '.join(MICROSCOPE_OPTIONS.values())}."
                )
            values = {
                name: torch.from_numpy(self._numbers(field))
                for name, field in _OPTICS.items()
                if self._has(field)
            }
            optics = with_aberrations_of(self.fields, replace(optics, **values))
        pixel_size = self.pixel_size_angstrom()
        declared = np.zeros(len(self))
        if self._has(_EXPOSURE_GROUP):
            declared = self._numbers(_EXPOSURE_GROUP)
        group = group_numbers(
            declared,
            pixel_size,
            box,
            optics.voltage_kv.numpy(),
            optics.cs_mm.numpy(),
            optics.amplitude_contrast.numpy(),
            *group_columns(self.fields),
        )
        return replace(
            optics,
            pixel_size_angstrom=torch.from_numpy(pixel_size),
            group=group,
            magnification=magnification_of(self.fields),
        )

    def _pose_or_problem(self) -> tuple[Pose | None, str]:
        """Return the poses, or why those of the table cannot be used."""
        if not self._has(_POSE):
            return None, ""
        try:
            return self._pose(), ""
        except InputError as error:
            return None, f"The poses of the particles cannot be used: {error}"

    def _pose(self) -> Pose:
        pixel_size = self.pixel_size_angstrom()
        if self._has(_ALIGNED_PIXEL_SIZE):
            aligned = self._numbers(_ALIGNED_PIXEL_SIZE)
            pixel_size = np.where(aligned > 0, aligned, pixel_size)
        shift = np.zeros((len(self), 2))
        if self._has(_SHIFT):
            shift = 0.0 - self._numbers(_SHIFT, (2,)) * pixel_size[:, None]
        require_within(_SHIFT, shift, LARGEST_SHIFT_ANGSTROM)
        axis_angle = self._numbers(_POSE, (3,))
        require_within(_POSE, axis_angle, _LARGEST_RADIAN)
        rotation = axis_angle_to_rotation(torch.from_numpy(axis_angle))
        seen = torch.from_numpy(shift)
        return Pose(rotation, undistorted_points(seen, magnification_of(self.fields)))


def table_to_cryosparc(table: ParticleTable) -> CryosparcParticles:
    """Write a table in cryoSPARC's terms.

    A negative scale of the CTF, as an image black on white has in RELION's terms,
    becomes cryoSPARC's sign. The uids are made from the names of the images.

    Raises
    ------
    InputError
        If phases were flipped or images multiplied by their CTF, or aberrations are
        some that a table cannot tell of.
    """
    require_storable(table.optics)
    optics = with_named_terms(table.optics)
    images, n = table.images, len(table)
    sign = torch.where(optics.scale < 0, -table.sign.double(), table.sign.double())
    optics = replace(optics, scale=optics.scale.abs())
    box = table.box.numpy()
    # RELION's mark of a stack that is called .mrc.
    paths = [encode(path.removesuffix(":mrcs")) for path in images.paths]
    fields: dict[str, NDArray[Any]] = {
        "uid": make_uids(images.paths, images.path_index, images.row),
        _PATH: np.array(paths)[images.path_index],
        _INDEX: images.row.astype(np.uint32),
        _SHAPE: np.stack([box, box], axis=1).astype(np.uint32),
        _PIXEL_SIZE: optics.pixel_size_angstrom.numpy().astype(np.float32),
        _SIGN: sign.numpy().astype(np.float32),
        _EXPOSURE_GROUP: optics.group.numpy().astype(np.uint32),
    }
    if table.has_ctf:
        fields["ctf/type"] = np.full(n, b"imported")
        for name, field in _OPTICS.items():
            fields[field] = getattr(optics, name).numpy().astype(np.float32)
    fields |= aberration_fields(optics)
    if table.micrograph is not None:
        fields[_MICROGRAPH] = bytes_of_text(table.micrograph)
    if table.pose is not None:
        number = torch.ones(n) if table.class_number is None else table.class_number
        fields[CLASS] = (number - 1).numpy().astype(np.uint32)
        fields[SPLIT] = np.zeros(n, dtype=np.uint32)
    particles = CryosparcParticles(with_fields(np.empty(n, dtype=[]), fields))
    return particles.with_changes(
        Changes(
            pose=table.pose,
            defocus_u_angstrom=None,
            defocus_v_angstrom=None,
            random_subset=table.random_subset,
            pixel_size_angstrom=optics.pixel_size_angstrom,
            results=table.results,
        )
    )
