"""Conditions: what they mean, and that nothing else is ever evaluated."""

import numpy as np
import pytest

from cryoinfer.errors import InputError
from cryoinfer.results.conditions import Condition

NAN = float("nan")
COLUMNS = {
    "z_1": np.array([0.0, 1.0, 2.0, NAN]),
    "class": np.array([1.0, 2.0, 2.0, 1.0]),
    "ctf/df1_A": np.array([5.0, 6.0, 7.0, 8.0]),
    "blob/class": np.array([0.0, 0.0, 1.0, 1.0]),
}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("z_1 > 0.5", [1, 2]),
        ("0.5 < z_1", [1, 2]),
        ("z_1 >= 1 and z_1 <= 1", [1]),
        ("0 < z_1 < 2", [1]),
        ("z_1 == 0 or z_1 == 2", [0, 2]),
        ("z_1 != 1", [0, 2]),
        ("not z_1 > 0.5", [0]),
        ("not (z_1 > 0.5 and ctf/df1_A > 6.5)", [0, 1]),
        ("z_1 > -1e0", [0, 1, 2]),
        ("z_1 > +1", [2]),
        ("class == 2 and z_1 > 1", [2]),
        ("blob/class == 1", [2, 3]),
        ("ctf/df1_A > z_1", [0, 1, 2]),
        # `and` binds more tightly than `or`.
        ("ctf/df1_A == 5 or ctf/df1_A > 5 and ctf/df1_A < 7", [0, 1]),
        # A number that is missing is no answer, even where it would not decide.
        ("z_1 > 0 or ctf/df1_A > 0", [0, 1, 2]),
        ("  z_1\t> 1 ", [2]),
        ("not " * 300 + "z_1 > 1", [2]),
    ],
)
def test_rows_are_those_that_satisfy_it(text: str, rows: list[int]) -> None:
    assert np.flatnonzero(Condition.of(text).rows(COLUMNS)).tolist() == rows


def test_names_are_noted_once_and_missing_numbers_counted() -> None:
    condition = Condition.of("z_1 > 0 and ctf/df1_A < 7 or z_1 == class")
    assert condition.names == ("z_1", "ctf/df1_A", "class")
    assert condition.known(COLUMNS).tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    "text",
    [
        *("", "z_1", "1 < 2", "z_1 > True", "z_1 > 'a'", "z_1 > 1j", "z_1 > 1e999"),
        *(
            "z_1 >",
            "(z_1 > 1",
            "z_1 > 1)",
            "z_1 > 1\0",
            "z_1 = 1",
            "z_1 & 1",
            "z_1 is 1",
        ),
        *("z_1 in (1, 2)", "z_1 > 1 if z_1 else 2", "[x for x in z_1]", "lambda: 1"),
        *("__import__('os').system('x')", "z_1.real > 1", "z_1[0] > 1", "f(z_1) > 1"),
        *("(z_1 := 2) > 1", "z_1 > 2 ** 9", "z_1 + 1 > 2", "10 ** 10 ** 10 > z_1"),
        *(
            "z_1 > 1; z_1",
            "z_1\n> 1",
            "f'{z_1}' > 1",
            "await z_1",
            "z_1 > " + "9" * 400,
        ),
        *("(" * 300 + "z_1 > 1" + ")" * 300, "z_1 > 1 or " * 300 + "z_1 > 1"),
        *("-" * 1900 + "z_1 > 1", "z_1 > " + "-" * 1900 + "1", "1 > 'a\\d'"),
    ],
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="condition"):
        Condition.of(text)
