from pathlib import Path

import numpy as np
import pytest

from cryoinfer.errors import InputError, MissingFileError
from cryoinfer.io.star import StarBlock, StarFile, read_star, write_star
from cryoinfer.io.star_text import STRING

REAL_FILES = Path(__file__).parents[4] / "shared/data/stacks"

TEXT = """
# version 50001

data_general

_rlnTomoSubTomosAre2DStacks 0
_rlnComment                 "two words"

data_particles

loop_
_rlnImageName #1
_rlnDefocusU #2
_userCode #3
_rlnMicrographName #4
000001@a.mrcs 1.2345678901e+04 007 'my mic.mrc'
 2@a.mrcs      nan             1.0 data_2019/it's.mrc

# version 50001
data_empty
loop_
_one
_two
"""


@pytest.fixture
def star_path(tmp_path):
    path = tmp_path / "in.star"
    path.write_text(TEXT)
    return path


def same(first: StarFile, second: StarFile) -> bool:
    return first.version == second.version and all(
        a.name == b.name
        and a.is_loop == b.is_loop
        and list(a.columns) == list(b.columns)
        and all(np.array_equal(a.columns[k], b.columns[k]) for k in a.columns)
        for a, b in zip(first.blocks, second.blocks, strict=True)
    )


def test_values_are_the_words_that_were_written(star_path):
    star = read_star(star_path)
    assert star.version == 50001
    assert [block.name for block in star.blocks] == ["general", "particles", "empty"]
    general, particles, empty = star.blocks
    assert not general.is_loop
    assert general.columns["rlnComment"].tolist() == ["two words"]
    assert particles.columns["userCode"].tolist() == ["007", "1.0"]
    assert particles.columns["rlnDefocusU"].tolist() == ["1.2345678901e+04", "nan"]
    mics = particles.columns["rlnMicrographName"].tolist()
    assert mics == ["my mic.mrc", "data_2019/it's.mrc"]
    assert len(empty) == 0
    assert list(empty.columns) == ["one", "two"]


def test_nothing_is_lost_by_writing(star_path, tmp_path):
    star = read_star(star_path)
    write_star(tmp_path / "out.star", star)
    assert same(star, read_star(tmp_path / "out.star"))


@pytest.mark.parametrize("at_once", [1, 3, 5, 10, 11])
def test_words_that_need_quotes_survive(at_once, tmp_path, monkeypatch):
    for module in ("star", "star_text"):
        monkeypatch.setattr(f"cryoinfer.io.{module}.ROWS_AT_ONCE", at_once)
    words = ["", "_x", "a b", '"', "#5", "it's", "'", 'say "hi" now', "data_x", "[1,2]"]
    words += ["Data_2019/a.mrc", "data_2019/a.mrc", "save_", "LOOP_1", "global_x", "_"]
    column = np.array(words, dtype=STRING)
    # Beside another column, in one alone, and in pairs.
    blocks = [
        StarBlock("x", {"n": column[::-1].copy(), "word": column}),
        StarBlock("y", {"word": column}),
        *(
            StarBlock(f"z{i}", {"word": column[i : i + 1]}, is_loop=False)
            for i in range(len(column))
        ),
    ]
    star = StarFile(tuple(blocks))
    write_star(tmp_path / "x.star", star)
    assert same(star, read_star(tmp_path / "x.star"))


@pytest.mark.parametrize("at_once", [1, 2, 100])
def test_rows_are_read_in_pieces(at_once, tmp_path, monkeypatch):
    for module in ("star", "star_text"):
        monkeypatch.setattr(f"cryoinfer.io.{module}.ROWS_AT_ONCE", at_once)
    path = tmp_path / "x.star"
    path.write_text(
        "data_x\nloop_\n_a #1\n_b\n1 'one two'\n\n2 two # a word\n# three\n3 \"\"\n"
        "_c 4\n\nloop_\n_d\n5\n6\n"
    )
    loop, pair, last = read_star(path).blocks
    assert loop.columns["a"].tolist() == ["1", "2", "3"]
    assert loop.columns["b"].tolist() == ["one two", "two", ""]
    assert {name: values.tolist() for name, values in pair.columns.items()} == {
        "c": ["4"]
    }
    assert last.columns["d"].tolist() == ["5", "6"]
    path.write_text("data_x\nloop_\n_a\n_b\n1 2\n# none\n3 4\n\n5 6\n7 'a\"\n")
    with pytest.raises(InputError, match="line 10: "):
        read_star(path)


def test_columns_that_are_not_asked_for_are_left_out(star_path):
    whole, part = read_star(star_path), read_star(star_path, only=["rlnImageName"])
    assert [block.name for block in part.blocks] == [b.name for b in whole.blocks]
    for all_columns, some in zip(whole.blocks, part.blocks, strict=True):
        expected = all_columns.columns
        if all_columns.is_loop:
            wanted = set(expected) & {"rlnImageName"}
            expected = {label: expected[label] for label in wanted}
        assert some.columns.keys() == expected.keys()
        for label, values in expected.items():
            assert some.columns[label].tolist() == values.tolist()


def test_many_rows_without_a_version_line_are_read_in_one_go(tmp_path):
    # As RELION 3.0 writes them. A search for the version that went over all rows from
    # every row took two minutes here.
    rows = "".join(f"{number} {number}@stack.mrcs\n" for number in range(300_000))
    path = tmp_path / "old.star"
    path.write_text(f"data_\nloop_\n_rlnAngleRot #1\n_rlnImageName #2\n{rows}")
    star = read_star(path)
    assert star.version is None
    assert len(star.blocks[0].columns["rlnAngleRot"]) == 300_000


def test_what_is_no_row_ends_a_table(tmp_path):
    path = tmp_path / "x.star"
    path.write_text(
        "DATA_x # one\nloop_ # _no\n_a _b # _c\n_d\n1 2 3\n\ndata_y # another\n"
        "loop_\n_a\nx/a.mrc\ndata_2019/a.mrc\nData_z\nloop_\n_e\n_f\n"
    )
    first, second, third = read_star(path).blocks
    assert [block.name for block in (first, second, third)] == ["x", "y", "z"]
    values = {name: column.tolist() for name, column in first.columns.items()}
    assert values == {"a": ["1"], "b": ["2"], "d": ["3"]}
    assert second.columns["a"].tolist() == ["x/a.mrc", "data_2019/a.mrc"]
    assert list(third.columns) == ["e", "f"]
    assert len(third) == 0


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_line_ends_of_either_kind(tmp_path, ending):
    path = tmp_path / "x.star"
    path.write_bytes(ending.join(["data_", "loop_", "_a", "_b", "1 2", ""]).encode())
    assert read_star(path).blocks[0].columns["b"].tolist() == ["2"]


def test_an_independent_reader_agrees(star_path, tmp_path):
    starfile = pytest.importorskip("starfile")
    write_star(tmp_path / "out.star", read_star(star_path))
    table = starfile.read(tmp_path / "out.star", read_n_blocks=2)["particles"]
    assert table["rlnImageName"].tolist() == ["000001@a.mrcs", "2@a.mrcs"]
    assert table["rlnDefocusU"][0] == 1.2345678901e4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data_x\nloop_\n_a\n_b\n1 2\n3\n4 5\n", "line 6: expected 2 values.*found 1"),
        # The total fits the number of columns, only the rows do not.
        ("data_x\nloop_\n_a\n_b\n1 2 3\n4\n", "line 5: expected 2 values.*found 3"),
        ("hello", "is not a STAR file"),
        ("", "is empty"),
        ("data_x\nloop_\n_a\n_b\n1 #2\n", "line 5: expected 2 values.*found 1"),
        ("data_x\nloop_\n_a\n_a\n1 2\n", "duplicate"),
        ("data_x\n_a 1\ndata_x\n_b 2\n", "read: duplicate"),
        ("data_x\nloop_ _a\n_b 1 2\n", "line 2: expected every row"),
        ("data_x\nloop_ _a\n_b 1 2\n3 4\n", "line 2: expected every row.*own"),
        ("data_x\n loop_\n_a\n'1\n", "line 4: "),
    ],
)
def test_a_broken_file_is_refused_with_its_line(tmp_path, text, message):
    path = tmp_path / "x.star"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_star(path)


def test_binary_and_absent_files_are_refused(tmp_path):
    with pytest.raises(MissingFileError, match="No such STAR file"):
        read_star(tmp_path / "none.star")
    (tmp_path / "x.star").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not text"):
        read_star(tmp_path / "x.star")


@pytest.mark.parametrize("word", ["nan", "inf", "None", "1,5"])
def test_numbers_must_be_finite_numbers(word):
    block = StarBlock("particles", {"a": np.array(["1", word], dtype=STRING)})
    with pytest.raises(InputError, match=rf"row 2 of data_particles holds '{word}'"):
        block.numbers("a")


@pytest.mark.skipif(
    not REAL_FILES.is_dir(),
    reason=f"the files of other programs are not at {REAL_FILES}",
)
def test_files_of_other_programs_survive(tmp_path):
    paths = sorted(REAL_FILES.glob("*/*.star"))
    assert paths
    for path in paths:
        star = read_star(path)
        write_star(tmp_path / "x.star", star)
        assert same(star, read_star(tmp_path / "x.star")), path
