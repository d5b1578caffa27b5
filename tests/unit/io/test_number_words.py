"""What is a number in a file: what other programs read as the same one."""

import numpy as np
import pytest

from cryoinfer.errors import InputError
from cryoinfer.io.atoms import read_atoms
from cryoinfer.io.number_words import are_whole, integer_of, number_of, numbers_or_nan
from cryoinfer.io.star import StarBlock
from cryoinfer.io.star_text import STRING

ODD = ["1_000", "1_0.5", "\uff11\uff12", "\u0663", "x", "", "0x1", "1 2", "1d3"]


@pytest.mark.parametrize("word", ODD)
def test_words_that_no_other_program_takes_for_numbers(word):
    assert number_of(word) is None
    assert integer_of(word) is None
    for dtype in (STRING, np.str_):
        words = np.array(["7", word, "-1e3"], dtype=dtype)
        np.testing.assert_array_equal(numbers_or_nan(words), [7, np.nan, -1000])
    block = StarBlock("a", {"b": np.array(["7", word], dtype=STRING)})
    with pytest.raises(InputError, match="b must hold numbers, but row 2"):
        block.numbers("b")


def test_numbers_of_any_spelling():
    words = np.array(["1", "-.5", "+3.e2", " 2 ", "1E-3", "inf", "nan"])
    wanted = [1, -0.5, 300, 2, 0.001, np.inf, np.nan]
    np.testing.assert_array_equal(numbers_or_nan(words), wanted)
    assert integer_of("-12") == -12
    assert integer_of("12.0") is None


def test_whole_numbers_are_exact():
    values = np.array([3.0, -2.0, 0.5, 2.0**53, 2.0**54, np.nan, np.inf])
    assert are_whole(values).tolist() == [True, True, False, True, False, False, False]


ATOM = "ATOM      1  CA  GLY A{number:>4}    {x:>8}   2.000   3.000  1.00 10.00\n"


def test_coordinates_of_pdb_files_with_underscores_are_refused(tmp_path):
    path = tmp_path / "a.pdb"
    path.write_text(ATOM.format(number=1, x="1_0.5") + "END\n")
    with pytest.raises(InputError, match="atom 1 has no coordinates that are numbers"):
        read_atoms(path)
    path.write_text(ATOM.format(number="1_0", x="1.5") + "END\n")
    assert read_atoms(path).residue_numbers == (0,)
