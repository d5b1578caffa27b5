"""Arrays in the text of a page: 16 bits a value or 8, with the error this makes."""

import base64
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Codes: TypeAlias = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.uint32]

MISSING = 65535
"""The code of what has no value, the highest of 16 bits."""

MISSING_OF_8_BITS = 255


@dataclass(frozen=True)
class Packed:
    """Values as steps above the least of them.

    Attributes
    ----------
    codes : ndarray of uint16 or uint8
        The highest of their kind where there is no value.
    least, step : float
        A value is ``least + step * code``.
    exact : bool
        Whether no value was rounded.
    """

    codes: NDArray[np.uint8] | NDArray[np.uint16]
    least: float
    step: float
    exact: bool

    @property
    def worst_error(self) -> float:
        """By how much a value may be off, roundings of float64 aside."""
        return 0.0 if self.exact else self.step / 2

    def values(self) -> NDArray[np.float64]:
        """Return the values, NaN where there is none."""
        values = self.least + self.step * self.codes.astype(np.float64)
        missing = np.iinfo(self.codes.dtype).max
        return np.where(self.codes == missing, np.nan, values)


def pack(values: NDArray[Any], missing: int = MISSING) -> Packed:
    """Pack numbers into 16 bits each, or 8.

    Whole numbers that span no more than 65,534 keep their value exactly. Others are
    rounded to 65,534 equal steps between the least and the greatest, by half of a step
    at most: 7.7e-6 of their range. Of 8 bits it is 254, and 0.2 %.

    Parameters
    ----------
    values : ndarray of real numbers or booleans
        NaN and infinities have no value. The range is one that float64 can hold.
    missing : {MISSING, MISSING_OF_8_BITS}
        Which bits.

    Returns
    -------
    Packed
        Of the same shape.
    """
    values = np.asarray(values, dtype=np.float64)
    highest = missing - 1
    kind = np.uint16 if missing == MISSING else np.uint8
    codes = np.full(values.shape, missing, dtype=kind)
    known = np.isfinite(values)
    some = values[known]
    if len(some) == 0:
        return Packed(codes, 0.0, 1.0, True)
    least, span = float(some.min()), float(np.ptp(some))
    whole = bool((some == np.rint(some)).all())
    exact = span == 0 or (whole and span <= highest)
    step = 1.0 if exact else span / highest
    codes[known] = np.rint((some - least) / step).astype(kind)
    return Packed(codes, least, step, exact)


def encode(array: Codes) -> str:
    """Return the bytes of an array as base64, least byte first."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return base64.b64encode(little.tobytes()).decode("ascii")
