"""The frozen records that travel between floors.

All tensors share their leading dimensions. Inside the library angles are
radians, lengths angstrom, voltages kilovolt and Cs millimetre; files speak
degrees and are translated in :mod:`cryoinfer.io.conventions` alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self, TypeVar, get_type_hints

import torch
from torch import Tensor

R = TypeVar("R", bound="Indexable")

COMA = (3, 4)
"""Places in ``odd_zernike_radian`` of what a beam tilt makes, along y and x (m = -1 and
1 of n = 3)."""


@dataclass(frozen=True)
class Indexable:
    """Takes apart and joins records of tensors along the leading dimension."""

    def __getitem__(self, index: object) -> Self:
        values = {}
        for field in fields(self):
            values[field.name] = getattr(self, field.name)[index]
        return replace(self, **values)

    def with_rows(self, index: Tensor | tuple[Tensor, ...], part: Self) -> Self:
        """Return a copy whose rows at ``index`` are those of a part."""
        places = index if isinstance(index, tuple) else (index,)
        values: dict[str, Any] = {}
        for field in fields(self):
            own, new = getattr(self, field.name), getattr(part, field.name)
            if isinstance(own, Indexable):
                values[field.name] = own.with_rows(places, new)
            else:
                values[field.name] = own.index_put(places, new.to(own))
        return replace(self, **values)

    def to(self, device: torch.device | str) -> Self:
        """Return the record with all its tensors on a device."""
        values: dict[str, Any] = {}
        for field in fields(self):
            values[field.name] = getattr(self, field.name).to(device)
        return replace(self, **values)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the records of several along the leading dimension."""
        values: dict[str, Any] = {}
        for field in fields(cls):
            own = [getattr(part, field.name) for part in parts]
            if isinstance(own[0], Indexable):
                values[field.name] = type(own[0]).joined(own)
            else:
                values[field.name] = torch.cat(own)
        return replace(parts[0], **values)

    def to_state(self) -> dict[str, Any]:
        """Return the tensors by name, for a checkpoint; of records, dicts of them."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value.to_state() if isinstance(value, Indexable) else value
            for name, value in values.items()
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """Invert :meth:`to_state`.

        Raises
        ------
        KeyError
            If a tensor is missing.
        """
        kinds = get_type_hints(cls)
        values = {field.name: state[field.name] for field in fields(cls)}
        return cls(
            **{
                name: kinds[name].of_state(value)
                if isinstance(value, Mapping)
                else value
                for name, value in values.items()
            }
        )


@dataclass(frozen=True)
class Pose(Indexable):
    """Where a particle sits in its image.

    The image shows the reference density at ``rotation @ r``, projected along z,
    moved by ``shift_angstrom``: a blob at ``r`` appears at
    ``(rotation @ r)[:2] + shift_angstrom`` relative to the image centre.

    Attributes
    ----------
    rotation : Tensor, shape (..., 3, 3)
        Rotation matrix, reference to image; RELION's Euler matrix A(rot, tilt, psi).
    shift_angstrom : Tensor, shape (..., 2)
        Displacement (x, y) of the particle from the image centre; the negative of
        RELION's ``rlnOriginXAngst``, ``rlnOriginYAngst``.
    """

    rotation: Tensor
    shift_angstrom: Tensor

    def __len__(self) -> int:
        return self.rotation.shape[0]


@dataclass(frozen=True)
class Optics(Indexable):
    """What the microscope did to each particle, one value a particle.

    Attributes
    ----------
    pixel_size_angstrom : Tensor, shape (n,)
    voltage_kv : Tensor, shape (n,)
    cs_mm : Tensor, shape (n,)
        Spherical aberration.
    amplitude_contrast : Tensor, shape (n,)
        Fraction in [0, 1].
    defocus_u_angstrom, defocus_v_angstrom : Tensor, shape (n,)
        Defocus along and across ``defocus_angle_radian``; underfocus is positive.
    defocus_angle_radian : Tensor, shape (n,)
        Angle from the x axis to the direction of ``defocus_u_angstrom``.
    phase_shift_radian : Tensor, shape (n,)
        Of a phase plate.
    bfactor_angstrom2 : Tensor, shape (n,)
        The CTF is multiplied by ``exp(-bfactor * s**2 / 4)``.
    scale : Tensor, shape (n,)
        The CTF is multiplied by it.
    group : Tensor of int64, shape (n,)
        Optics group, counted from 0; the noise spectrum is shared inside a group.
    phase_flipped : Tensor of bool, shape (n,)
        Whether the image has been multiplied by the sign of its CTF, up to that of
        ``scale``: it then shows the CTF's modulus, in the same noise.
    ctf_premultiplied : Tensor of bool, shape (n,)
        Whether the image has been multiplied by its CTF; it is divided by it where it
        is read (:mod:`cryoinfer.physics.premultiplied`).
    beam_tilt_mrad : Tensor, shape (n, 2)
        Along x and y; coma, which turns phases
        (:mod:`cryoinfer.physics.aberrations`).
    odd_zernike_radian : Tensor, shape (n, a)
        Further antisymmetric aberrations, such as trefoil, in RELION's order; a is 0
        where there are none.
    even_zernike_radian : Tensor, shape (n, b)
        Symmetric aberrations beyond defocus and Cs, such as tetrafoil.
    magnification : Tensor, shape (n, 2, 2)
        The image's coefficient at the frequency k is that of an image without
        distortion at ``magnification @ k``
        (:mod:`cryoinfer.fourier.distortion`). All else, and poses, is told of the
        image without.
    """

    pixel_size_angstrom: Tensor
    voltage_kv: Tensor
    cs_mm: Tensor
    amplitude_contrast: Tensor
    defocus_u_angstrom: Tensor
    defocus_v_angstrom: Tensor
    defocus_angle_radian: Tensor
    phase_shift_radian: Tensor
    bfactor_angstrom2: Tensor
    scale: Tensor
    group: Tensor
    phase_flipped: Tensor
    ctf_premultiplied: Tensor
    beam_tilt_mrad: Tensor
    odd_zernike_radian: Tensor
    even_zernike_radian: Tensor
    magnification: Tensor

    def __len__(self) -> int:
        return self.group.shape[0]

    def with_pixel_size(self, pixel_size_angstrom: float) -> Self:
        """Return the optics of the same particles in images of other pixels."""
        size = torch.full_like(self.pixel_size_angstrom, pixel_size_angstrom)
        return replace(self, pixel_size_angstrom=size)

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Return the records of several; coefficients that some lack are 0."""
        for name in ("odd_zernike_radian", "even_zernike_radian"):
            own = [getattr(part, name) for part in parts]
            width = max(one.shape[1] for one in own)
            wide = [torch.nn.functional.pad(x, (0, width - x.shape[1])) for x in own]
            parts = [
                replace(part, **{name: one})
                for part, one in zip(parts, wide, strict=True)
            ]
        return super().joined(parts)

    @classmethod
    def without_ctf(cls, n: int, pixel_size_angstrom: float) -> Self:
        """Return optics of ``n`` particles whose CTF is 1 at every frequency.

        An amplitude contrast of 1 with no defocus and no aberration gives
        ``cos(0) = 1``, so that no code downstream needs a special case.
        """
        zero = torch.zeros(n, dtype=torch.float64)
        one = torch.ones(n, dtype=torch.float64)
        return cls(
            pixel_size_angstrom=one * pixel_size_angstrom,
            voltage_kv=one * 300.0,
            cs_mm=zero,
            amplitude_contrast=one,
            defocus_u_angstrom=zero,
            defocus_v_angstrom=zero,
            defocus_angle_radian=zero,
            phase_shift_radian=zero,
            bfactor_angstrom2=zero,
            scale=one,
            group=torch.zeros(n, dtype=torch.int64),
            phase_flipped=torch.zeros(n, dtype=torch.bool),
            ctf_premultiplied=torch.zeros(n, dtype=torch.bool),
            beam_tilt_mrad=torch.zeros(n, 2, dtype=torch.float64),
            odd_zernike_radian=torch.zeros(n, 0, dtype=torch.float64),
            even_zernike_radian=torch.zeros(n, 0, dtype=torch.float64),
            magnification=torch.eye(2, dtype=torch.float64).repeat(n, 1, 1),
        )


@dataclass(frozen=True)
class Latents(Indexable):
    """What is unknown about each particle.

    Attributes
    ----------
    pose : Pose
    defocus_offset_angstrom : Tensor, shape (...,)
        Added to both ``defocus_u_angstrom`` and ``defocus_v_angstrom``.
    conformation : Tensor, shape (..., c)
        Of a rigid structure c is 0.
    """

    pose: Pose
    defocus_offset_angstrom: Tensor
    conformation: Tensor

    @classmethod
    def rigid(cls, pose: Pose, defocus_offset_angstrom: Tensor) -> Self:
        """Return latents of a structure that has no conformations."""
        offset = defocus_offset_angstrom
        return cls(pose, offset, offset.new_zeros(*offset.shape, 0))

    def __len__(self) -> int:
        return len(self.pose)

    def transposed(self) -> Self:
        """Return latents of leading dimensions (n, m) with those of (m, n)."""
        pose = self.pose
        return type(self)(
            Pose(pose.rotation.movedim(1, 0), pose.shift_angstrom.movedim(1, 0)),
            self.defocus_offset_angstrom.movedim(1, 0),
            self.conformation.movedim(1, 0),
        )

    def without_conformation(self) -> Self:
        """Return the latents of a structure that has no conformations."""
        return self.rigid(self.pose, self.defocus_offset_angstrom)

    def double(self) -> Self:
        """Return the same numbers in float64."""
        pose = Pose(self.pose.rotation.double(), self.pose.shift_angstrom.double())
        offset = self.defocus_offset_angstrom.double()
        return replace(
            self,
            pose=pose,
            defocus_offset_angstrom=offset,
            conformation=self.conformation.double(),
        )

    @property
    def offsets_angstrom(self) -> Tensor:
        """All but the rotation: shift, defocus and conformation, shape (..., 3 + d)."""
        offset = self.defocus_offset_angstrom[..., None]
        return torch.cat([self.pose.shift_angstrom, offset, self.conformation], -1)


@dataclass(frozen=True)
class ParticleBatch(Indexable):
    """Some particles with all that is known about them.

    Attributes
    ----------
    images : Tensor of float32, shape (b, box, box)
        Axes (y, x); the centre is the pixel ``box // 2``.
    optics : Optics
        Of length b.
    index : Tensor of int64, shape (b,)
        Row of each particle in the data set.
    """

    images: Tensor
    optics: Optics
    index: Tensor

    def __len__(self) -> int:
        return self.images.shape[0]

    def rows_of(self, records: R) -> R:
        """Return what records of the whole data set hold of these particles.

        Parameters
        ----------
        records : Indexable
            Of all particles, on the CPU.

        Returns
        -------
        Indexable
            Of length b, on the device of the images.
        """
        return records[self.index.cpu()].to(self.images.device)
