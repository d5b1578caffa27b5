"""RELION's optics groups and particles as one table of a row a particle."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.io.conventions.relion_aberrations import (
    BEAM_TILT,
    EVEN,
    MAGNIFICATION,
    NEUTRAL,
    ODD,
    aberration_columns,
    coefficient_lists,
    without_coma,
)
from cryoinfer.io.conventions.relion_columns import (
    GROUP,
    PHASE_FLIPPED,
    PIXEL_SIZE,
    PREMULTIPLIED,
)
from cryoinfer.io.conventions.table import (
    MICROSCOPE_OPTIONS,
    group_numbers,
    require_same,
)
from cryoinfer.io.star import StarBlock, text_column
from cryoinfer.io.star_text import STRING
from cryoinfer.records import Optics

MICROSCOPE = {
    "voltage_kv": "rlnVoltage",
    "cs_mm": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
}
DEFOCUS = "rlnDefocusU"


@dataclass(frozen=True)
class RelionRows:
    """What is known of n particles, from their own block or that of their groups.

    Attributes
    ----------
    particles : StarBlock
        Of n rows.
    optics : StarBlock or None
        None up to version 3.0.
    """

    particles: StarBlock
    optics: StarBlock | None

    def __len__(self) -> int:
        return len(self.particles)

    def __contains__(self, label: str) -> bool:
        in_optics = self.optics is not None and label in self.optics
        return in_optics or label in self.particles

    def numbers(self, label: str, default: float | None = None) -> NDArray[np.float64]:
        """Return one number a particle, of its optics group where that has it.

        Raises
        ------
        InputError
            If there is neither a column nor a default, or it holds no numbers.
        """
        optics = self.optics
        if optics is not None and label in optics:
            return optics.numbers(label)[self.group_row()]
        if label in self.particles:
            return self.particles.numbers(label)
        if default is None:
            option = next(
                MICROSCOPE_OPTIONS[name] for name, x in MICROSCOPE.items() if x == label
            )
            raise InputError(
                f"The STAR file has a defocus but no {label}, without which the CTF "
                f"is unknown. Add the column, or give {option}."
            )
        return np.full(len(self), default)

    def numbers_or_nan(self, label: str) -> NDArray[np.float64]:
        """Return a column as :meth:`numbers` does, NaN where a value is none."""
        if self.optics is not None and label in self.optics:
            return self.optics.numbers_or_nan(label)[self.group_row()]
        return self.particles.numbers_or_nan(label)

    def group_row(self) -> NDArray[np.int64]:
        """Return the row of ``optics`` that describes each particle, shape (n,).

        Raises
        ------
        InputError
            If there is none for a particle.
        """
        optics = self.optics
        assert optics is not None
        if GROUP not in optics:
            raise InputError(f"data_optics has no column {GROUP}. Number the groups.")
        if GROUP not in self.particles:
            if len(optics) == 1:
                return np.zeros(len(self), dtype=np.int64)
            raise InputError(
                f"There are {len(optics)} optics groups, but the particles have no "
                f"column {GROUP} that says which is theirs"
            )
        known, wanted = optics.integers(GROUP), self.particles.integers(GROUP)
        if len(known) == 0:
            raise InputError(
                "data_optics has no rows: expected one for each optics group"
            )
        numbers, count = np.unique(known, return_counts=True)
        if (count > 1).any():
            raise InputError(
                f"data_optics describes group {numbers[count > 1][0]} more than once. "
                f"Give every group a number of its own in {GROUP}."
            )
        order = np.argsort(known, kind="stable")
        place = np.searchsorted(known, wanted, sorter=order)
        row = order[np.minimum(place, len(order) - 1)]
        bad = np.flatnonzero(known[row] != wanted)
        if len(bad):
            raise InputError(
                f"Row {bad[0] + 1} belongs to optics group {wanted[bad[0]]}, but "
                f"data_optics describes only {known.tolist()} ({len(bad)} such rows). "
                "Add the group to data_optics."
            )
        return row

    def pixel_size_angstrom(self) -> NDArray[np.float64]:
        """Return the pixel size of each particle, NaN where the file has none."""
        for label in (PIXEL_SIZE, "rlnPixelSize"):
            if label in self:
                return self.numbers(label)
        if "rlnDetectorPixelSize" in self and "rlnMagnification" in self:
            magnification = self.numbers("rlnMagnification")
            bad = np.flatnonzero(magnification <= 0)
            if len(bad):
                raise InputError(
                    f"rlnMagnification must be above 0, but row {bad[0] + 1} of the "
                    f"particles has {magnification[bad[0]]:g} ({len(bad)} such rows). "
                    "Correct these rows, or remove the column and give --pixel-size."
                )
            return self.numbers("rlnDetectorPixelSize") * 1e4 / magnification
        return np.full(len(self), np.nan)

    def has_microscope(self, name: str, value: float) -> bool:
        """Tell whether the file has a value of the microscope, which must be this.

        Raises
        ------
        InputError
            If it is another one, or there is no CTF that it would belong to.
        """
        if DEFOCUS not in self.particles:
            raise InputError(
                f"{MICROSCOPE_OPTIONS[name]} is given, but the particles have no "
                f"{DEFOCUS}, and so no CTF. Leave the option out."
            )
        label = MICROSCOPE[name]
        if label not in self:
            return False
        require_same(name, self.numbers(label), value)
        return True

    def optics_record(self, box: NDArray[np.int64]) -> Optics:
        """Return the optics of all particles, whose image size is ``box``."""
        optics = Optics.without_ctf(len(self), 1.0)
        if DEFOCUS in self.particles:
            optics = self._with_ctf(optics)
        pixel_size = self.pixel_size_angstrom()
        optics = replace(
            optics,
            pixel_size_angstrom=as_tensor(pixel_size),
            magnification=self.magnification(),
        )
        one_of_group: dict[str, NDArray[Any]] = {
            PIXEL_SIZE: pixel_size,
            "rlnImageSize": box,
            **{MICROSCOPE[name]: getattr(optics, name).numpy() for name in MICROSCOPE},
            PHASE_FLIPPED: optics.phase_flipped.numpy(),
            PREMULTIPLIED: optics.ctf_premultiplied.numpy(),
            **self._aberrations_of_groups(),
        }
        if self.optics is not None:
            self.require_uniform_groups(one_of_group)
            return replace(optics, group=torch.from_numpy(self.group_row()))
        declared = self.numbers(GROUP, default=0.0)
        return replace(optics, group=group_numbers(declared, *one_of_group.values()))

    def magnification(self) -> Tensor:
        """Return the matrix of each particle, shape (n, 2, 2).

        Raises
        ------
        InputError
            If a column holds no numbers.
        """
        identity = (1.0, 0.0, 0.0, 1.0)
        elements = [
            as_tensor(self.numbers(label, default))
            for label, default in zip(MAGNIFICATION, identity, strict=True)
        ]
        return torch.stack(elements, 1).unflatten(1, (2, 2))

    def refined_columns(
        self, optics: Optics
    ) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
        """Return columns of refined optics: of the groups, and of the particles.

        Up to version 3.0 both are of the particles.

        Parameters
        ----------
        optics : Optics
            Of all n particles, alike within a group.
        """
        own = {}
        if DEFOCUS in self.particles:
            angle = torch.rad2deg(optics.defocus_angle_radian)
            own["rlnDefocusAngle"] = text_column(angle.numpy(), "%.6f")
        block = self.optics
        if block is None:
            return aberration_columns(optics), own
        group, first = np.unique(self.group_row(), return_index=True)
        columns = {}
        for label, new in aberration_columns(optics[torch.from_numpy(first)]).items():
            # A group without particles stays as it is.
            words = np.full(len(block), NEUTRAL.get(label, "0"), dtype=STRING)
            columns[label] = block.columns[label].copy() if label in block else words
            columns[label][group] = new
        return columns, own

    def _aberrations_of_groups(self) -> dict[str, NDArray[Any]]:
        """Return by label the aberrations of each particle that the file tells of."""
        labels = [x for x in (*BEAM_TILT, *MAGNIFICATION) if x in self]
        columns = {label: self.numbers(label) for label in labels}
        for label in (ODD, EVEN):
            if label in self:
                _, number = np.unique(self._words(label), return_inverse=True)
                columns[label] = number.reshape(-1).astype(np.float64)
        return columns

    def _words(self, label: str) -> NDArray[Any]:
        """Return one word a particle, of its optics group where that has it."""
        if self.optics is not None and label in self.optics:
            return self.optics.columns[label][self.group_row()]
        return self.particles.columns[label]

    def _with_aberrations(self, optics: Optics) -> Optics:
        tilt = [as_tensor(self.numbers(label, 0.0)) for label in BEAM_TILT]
        odd, even = (
            coefficient_lists(label, self._words(label))
            if label in self
            else torch.zeros(len(self), 0, dtype=torch.float64)
            for label in (ODD, EVEN)
        )
        if any(label in self for label in BEAM_TILT):
            odd = without_coma(odd)
        return replace(
            optics,
            beam_tilt_mrad=torch.stack(tilt, 1),
            odd_zernike_radian=odd,
            even_zernike_radian=even,
        )

    def require_uniform_groups(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Refuse optics groups whose particles differ in what a group has one of.

        Parameters
        ----------
        columns : mapping of str to array, shape (n,)
            By RELION's label.

        Raises
        ------
        InputError
        """
        optics = self.optics
        assert optics is not None
        row = self.group_row()
        _, first, group = np.unique(row, return_index=True, return_inverse=True)
        alike = first[group.reshape(-1)]
        for label, values in columns.items():
            bad = np.flatnonzero(values != values[alike])
            if not len(bad):
                continue
            one, other = alike[bad[0]], bad[0]
            number = optics.columns[GROUP][row[one]]
            raise InputError(
                f"Optics group {number} must have one {label}, but that of row "
                f"{one + 1} is {values[one]:g} and that of row {other + 1} is "
                f"{values[other]:g} ({len(bad)} such rows). Give these particles an "
                f"optics group of their own in data_optics and {GROUP}."
            )

    def _with_ctf(self, optics: Optics) -> Optics:
        defocus_v = "rlnDefocusV" if "rlnDefocusV" in self.particles else DEFOCUS
        values: dict[str, Any] = {
            name: as_tensor(self.numbers(label)) for name, label in MICROSCOPE.items()
        }
        optics = self._with_aberrations(optics)
        return replace(
            optics,
            **values,
            defocus_u_angstrom=as_tensor(self.particles.numbers(DEFOCUS)),
            defocus_v_angstrom=as_tensor(self.particles.numbers(defocus_v)),
            defocus_angle_radian=self._radians("rlnDefocusAngle"),
            phase_shift_radian=self._radians("rlnPhaseShift"),
            bfactor_angstrom2=as_tensor(self.numbers("rlnCtfBfactor", 0.0)),
            scale=as_tensor(self.numbers("rlnCtfScalefactor", 1.0)),
            phase_flipped=as_tensor(self.numbers(PHASE_FLIPPED, 0.0)) != 0,
            ctf_premultiplied=as_tensor(self.numbers(PREMULTIPLIED, 0.0)) != 0,
        )

    def _radians(self, label: str) -> Tensor:
        return torch.deg2rad(as_tensor(self.numbers(label, default=0.0)))


def as_tensor(values: NDArray[np.float64]) -> Tensor:
    """Return a tensor of numbers, whose rows may be those of another array."""
    return torch.from_numpy(np.ascontiguousarray(values))
