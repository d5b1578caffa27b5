"""What the metadata of any program say about particles, in the library's terms."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.errors import InputError, UnsupportedError
from cryoinfer.records import Optics, Pose

RESULT_COLUMNS = ("rlnLogLikeliContribution", "rlnMaxValueProbDistribution")
RESULT_PREFIX = "cryoinfer"
"""Columns of results, which a conversion between programs carries along."""


def is_result(label: str) -> bool:
    """Tell whether a column is one of results."""
    return label in RESULT_COLUMNS or label.startswith(RESULT_PREFIX)


@dataclass(frozen=True)
class ImageReferences:
    """Which image of which file each particle is.

    Attributes
    ----------
    paths : tuple of str
        The distinct files, as the metadata spell them.
    path_index : array of int64, shape (n,)
        Into ``paths``.
    row : array of int64, shape (n,)
        Image in that file, counted from 0.
    """

    paths: tuple[str, ...]
    path_index: NDArray[np.int64]
    row: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.row)

    @classmethod
    def of(cls, names: NDArray[Any], row: NDArray[np.int64]) -> Self:
        """Collect the distinct files, in order of appearance, of one name a row."""
        _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
        rank = np.argsort(np.argsort(first))
        paths = tuple(str(names[i]) for i in np.sort(first))
        return cls(paths, rank[inverse.reshape(-1)], row)

    def select(self, index: NDArray[Any]) -> Self:
        """Return some rows; ``paths`` stays, whether or not a row names them."""
        return replace(self, path_index=self.path_index[index], row=self.row[index])


@dataclass(frozen=True)
class ParticleTable:
    """The metadata of n particles.

    Attributes
    ----------
    images : ImageReferences
    sign : Tensor of float32, shape (n,)
        The stored image times it shows particles white on black.
    box : Tensor of int64, shape (n,)
        Image size that the metadata claim; 0 where they do not say.
    optics : Optics
        Of length n; without a CTF, such that the CTF is 1.
    has_ctf : bool
    pose : Pose or None
    pose_problem : str
        Why there is none, where the metadata have one that cannot be used.
    random_subset : Tensor of int64, shape (n,), or None
        Half-set, 1 or 2; both have particles.
    class_number : Tensor of int64, shape (n,), or None
        Counted from 1.
    micrograph : array of text, shape (n,), or None
    results : dict of str to array, shape (n,)
        Further columns that this program wrote; NaN where a value is no number.
    remarks : tuple of str
        What of the metadata was not used, and why.
    """

    images: ImageReferences
    sign: Tensor
    box: Tensor
    optics: Optics
    has_ctf: bool
    pose: Pose | None = None
    pose_problem: str = ""
    random_subset: Tensor | None = None
    class_number: Tensor | None = None
    micrograph: NDArray[Any] | None = None
    results: dict[str, NDArray[Any]] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def select(self, index: Tensor) -> Self:
        """Return some rows; optics groups keep their numbers."""
        rows = index.numpy()
        subset, number = self.random_subset, self.class_number
        return replace(
            self,
            images=self.images.select(rows),
            sign=self.sign[index],
            box=self.box[index],
            optics=self.optics[index],
            pose=None if self.pose is None else self.pose[index],
            random_subset=None if subset is None else subset[index],
            class_number=None if number is None else number[index],
            micrograph=None if self.micrograph is None else self.micrograph[rows],
            results={name: values[rows] for name, values in self.results.items()},
        )


@dataclass(frozen=True)
class Microscope:
    """What a user knows of the microscope and old files lack; None is not known.

    Attributes
    ----------
    voltage_kv, cs_mm : float or None
    amplitude_contrast : float or None
        Fraction in [0, 1].
    """

    voltage_kv: float | None = None
    cs_mm: float | None = None
    amplitude_contrast: float | None = None

    def known(self) -> dict[str, float]:
        """Return what is known, by name."""
        return {name: x for name, x in vars(self).items() if x is not None}


MICROSCOPE_OPTIONS = {
    "voltage_kv": "--voltage",
    "cs_mm": "--cs",
    "amplitude_contrast": "--amplitude-contrast",
}
"""What gives a value that metadata lack."""

_ROUNDING = 1e-3
"""Relative difference of values that files have rounded."""


def require_same(name: str, values: NDArray[np.float64], given: float) -> None:
    """Refuse a value of the user that contradicts the metadata.

    Raises
    ------
    InputError
    """
    other = np.abs(values - given) > _ROUNDING * abs(given)
    if other.any():
        option = MICROSCOPE_OPTIONS[name]
        raise InputError(
            f"The metadata have {name} = {values[other][0]:g}, but {option} says "
            f"{given:g}. Correct the metadata, or leave the option out."
        )


def require_within(label: str, values: NDArray[np.float64], limit: float) -> None:
    """Refuse numbers that are none of the quantity, however finite.

    Parameters
    ----------
    label : str
    values : array, shape (n, ...)
    limit : float
        Largest absolute value.

    Raises
    ------
    InputError
    """
    bad = np.flatnonzero((np.abs(values) > limit).reshape(len(values), -1).any(axis=1))
    if len(bad):
        raise InputError(
            f"{label} must lie within {limit:g} of 0, but row {bad[0] + 1} holds "
            f"{values[bad[0]]} ({len(bad)} such rows). Remove or correct these rows."
        )


_LARGEST_BOX = 2**31
"""Headers of stacks count pixels in 32 bits."""


def declared_boxes(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the image sizes that metadata declare, shape (n,), as whole numbers.

    NaN, 0 and less, which programs write where they do not know, become 0.
    """
    known = np.where(values > 0, values, 0.0)
    return np.ceil(np.minimum(known, _LARGEST_BOX)).astype(np.int64)


LARGEST_SHIFT_ANGSTROM = 1e5
"""No box is as large."""

_SMALLEST_HALF = 0.25
"""Share of the particles, below which a half says little about the whole map."""


@dataclass(frozen=True)
class Halves:
    """What metadata say about the halves of the data.

    Attributes
    ----------
    subset : Tensor of int64, shape (n,), or None
        1 or 2, both of them; None where the metadata name no two halves.
    remark : str
        Why they do not, if they seem to, or what is odd about them.
    """

    subset: Tensor | None = None
    remark: str = ""

    @classmethod
    def of(cls, label: str, values: NDArray[np.float64], first: int) -> Self:
        """Take halves from a column of two numbers, of which ``first`` is the lower."""
        known = (values == first) | (values == first + 1)
        bad = np.flatnonzero(~known)
        if not len(bad) and values.min() < values.max():
            subset = torch.from_numpy(values.astype(np.int64) - first + 1)
            return cls(subset, _lopsided(label, subset))
        found = f"is {values[0]:g} for all {len(values)} particles"
        if len(bad):
            value = values[bad[0]]
            what = "no number" if np.isnan(value) else f"{value:g}"
            found = f"holds {what} in row {bad[0] + 1} ({len(bad)} such rows)"
        return cls(
            remark=f"{label} does not divide the data into two halves: expected "
            f"{first} and {first + 1}, it {found}. Halves are drawn at random instead."
        )


def _lopsided(label: str, subset: Tensor) -> str:
    n, second = len(subset), int((subset == 2).sum())
    if min(second, n - second) >= _SMALLEST_HALF * n:
        return ""
    return (
        f"{label} puts {n - second} particles into one half and {second} into the "
        "other: the agreement of the half-maps tells of the smaller half, not of the "
        f"map. Remove {label} to have halves drawn at random."
    )


@dataclass(frozen=True)
class Changes:
    """What an inference has found out; None leaves a column as it is.

    Attributes
    ----------
    pose : Pose or None
    defocus_u_angstrom, defocus_v_angstrom : Tensor, shape (n,), or None
    random_subset : Tensor of int64, shape (n,), or None
        Half-set, 1 or 2.
    pixel_size_angstrom : Tensor, shape (n,)
        Of each image; programs that count shifts in pixels need it.
    results : dict of str to array, shape (n,)
        Columns to add under their names.
    """

    pose: Pose | None
    defocus_u_angstrom: Tensor | None
    defocus_v_angstrom: Tensor | None
    random_subset: Tensor | None
    pixel_size_angstrom: Tensor
    results: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Feature:
    """Physics that the metadata ask for and the program does not model.

    Attributes
    ----------
    name : str
        What the user passes to go on without it.
    message : str
    cure : str
        What to do where it cannot be ignored.
    """

    name: str
    message: str
    cure: str = ""

    @property
    def ignorable(self) -> bool:
        """Whether a user may go on without it."""
        return not self.cure


FEATURES = {
    "aberrations": "aberrations that cannot be modelled",
    "ctf-premultiplied": "images multiplied by a CTF that it does not have",
    "subtomograms": "subtomograms or tilt series, not single particles",
}
"""Name and meaning of all that is recognised and not modelled."""

_CURES = {
    "ctf-premultiplied": "Add the CTF that they were multiplied by.",
    "subtomograms": "Such data cannot be used.",
}
"""Of what cannot be ignored, since results would be wrong rather than less sharp."""


def feature(name: str, where: str) -> Feature:
    """Return a feature of :data:`FEATURES` found at ``where``."""
    message = f"{name}: the file has {FEATURES[name]} ({where})"
    return Feature(name, message, cure=_CURES.get(name, ""))


def require_ignorable(ignore: Collection[str]) -> None:
    """Raise :class:`InputError` if a name is of nothing that can be ignored."""
    ignorable = [name for name in FEATURES if name not in _CURES]
    unknown = sorted(set(ignore) - set(ignorable))
    if unknown:
        raise InputError(
            f"Cannot ignore {', '.join(unknown) or repr('')}: --ignore takes some "
            f"of {', '.join(ignorable)}"
        )


def refuse_features(features: Iterable[Feature], ignore: Collection[str]) -> None:
    """Raise for the features that the user has not chosen to ignore.

    Raises
    ------
    UnsupportedError
        One message that names them all.
    """
    left = [f for f in features if not (f.ignorable and f.name in ignore)]
    if not left:
        return
    lines = "\n".join(f"- {f.message}" for f in left)
    names = " ".join(f"--ignore {f.name}" for f in left if f.ignorable)
    cure = " ".join(f.cure for f in left if f.cure)
    if not cure:
        cure = f"Ignore it with {names}, or correct the images first."
    raise UnsupportedError(
        f"The particles require physics that is not modelled:\n{lines}\n{cure}"
    )


def group_numbers(*columns: NDArray[Any]) -> Tensor:
    """Return the number, from 0, of each row's combination of values, shape (n,)."""
    stacked = np.stack([np.asarray(c, dtype=np.float64) for c in columns], axis=1)
    _, inverse = np.unique(stacked, axis=0, return_inverse=True)
    return torch.from_numpy(inverse.reshape(-1).astype(np.int64))
