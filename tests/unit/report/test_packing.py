import base64

import numpy as np
import pytest

from cryoinfer.report.packing import MISSING, encode, pack


def test_codes_of_known_values() -> None:
    packed = pack(np.array([-1.0, 0.0, 1.0, np.nan, np.inf]) / 2)
    assert packed.codes.tolist() == [0, 32767, 65534, MISSING, MISSING]
    assert packed.least == -0.5
    assert packed.step == pytest.approx(1 / 65534)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_no_value_is_off_by_more_than_is_said(scale: float) -> None:
    values = scale * np.random.default_rng(0).standard_t(2, 20_000)
    packed = pack(values)
    off = np.abs(packed.values() - values).max()
    # Roundings of float64 are 1e-16 of the greatest value, a step is 1.5e-5 of it.
    assert off <= packed.worst_error * (1 + 1e-6)
    # And it is that much somewhere: a bound that says something.
    assert off > 0.99 * packed.worst_error
    assert packed.worst_error == pytest.approx(7.63e-6 * np.ptp(values), rel=1e-3)


def test_whole_numbers_stay_what_they_are() -> None:
    values = np.array([-3, 65531, 7, 0])
    packed = pack(values)
    assert packed.values().tolist() == values.tolist()
    assert packed.worst_error == 0
    assert pack(np.array([True, False])).values().tolist() == [1, 0]


def test_numbers_that_only_step_by_one_are_rounded() -> None:
    packed = pack(np.array([0, 0.4, 65534]))
    assert packed.values().tolist() == [0, 0, 65534]
    assert packed.worst_error == 0.5


def test_one_value_and_none() -> None:
    assert pack(np.full(3, 0.1)).values().tolist() == [0.1, 0.1, 0.1]
    assert np.isnan(pack(np.full(2, np.nan)).values()).all()
    assert pack(np.zeros(0)).codes.shape == (0,)


def test_the_least_byte_comes_first() -> None:
    text = encode(np.array([1, 256], dtype=np.uint16))
    assert base64.b64decode(text) == b"\x01\x00\x00\x01"
    wide = np.array([1], dtype=">u4")
    assert base64.b64decode(encode(wide)) == b"\x01\x00\x00\x00"
