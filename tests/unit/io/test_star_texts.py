"""Text of any kind goes through a STAR file as it came, or is refused clearly."""

import re
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryoinfer.errors import InputError, OutputError
from cryoinfer.io.raw_text import decode, encode, file_name, text_of_name
from cryoinfer.io.star import StarBlock, StarFile, read_star, write_star
from cryoinfer.io.star_text import STRING

PLAIN = b"data_x\nloop_\n_a\n_b\n1 2\n"
FEW = settings(max_examples=100, deadline=None)
MANY = settings(max_examples=1000, deadline=None)
IN_FOLDER = (HealthCheck.function_scoped_fixture,)


@given(st.binary(max_size=40))
@FEW
def test_bytes_are_text_and_bytes_again(raw: bytes) -> None:
    text = decode(raw)
    assert encode(text) == raw
    assert np.array([text], dtype=STRING)[0] == text
    if b"\0" not in raw:
        assert text_of_name(file_name(text)) == text


def test_characters_that_stand_for_bytes_are_not_confused_with_them() -> None:
    own = chr(0xF7FC)
    assert decode(b"\xfc") == own
    assert decode(own.encode()) != own
    assert encode(decode(own.encode())) == own.encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"\xef\xbb\xbf" + PLAIN,
        PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.replace(b"\n", b"\r"),
        PLAIN.replace(b" ", b"\t"),
        PLAIN.replace(b"_a", b"  _a"),
    ],
)
def test_marks_and_line_ends_of_other_systems(tmp_path, raw) -> None:
    path = tmp_path / "x.star"
    path.write_bytes(raw)
    (block,) = read_star(path).blocks
    assert (block.name, list(block.columns)) == ("x", ["a", "b"])
    assert block.columns["b"].tolist() == ["2"]


@pytest.mark.parametrize("name", ["Müller".encode(), b"M\xfcller", "穆勒 x".encode()])
def test_other_alphabets_are_read_and_written(tmp_path, name) -> None:
    path = tmp_path / "x.star"
    quoted = b'"' + name + b'"'
    path.write_bytes(
        b"data_" + name.split()[0] + b"\n_single " + quoted + b"\n\n"
        b"data_p\nloop_\n_a\n_b\n1@" + name.split()[0] + b"/a.mrcs " + quoted + b"\n"
    )
    star = read_star(path)
    assert encode(star.blocks[0].name) == name.split()[0]
    assert encode(star.blocks[0].columns["single"][0]) == name
    assert encode(star.blocks[1].columns["b"][0]) == name
    write_star(tmp_path / "y.star", star)
    written = (tmp_path / "y.star").read_bytes()
    assert written.count(name) == 2 if b" " in name else 4
    again = read_star(tmp_path / "y.star")
    for one, other in zip(star.blocks, again.blocks, strict=True):
        assert one.name == other.name
        for label, values in one.columns.items():
            assert other.columns[label].tolist() == values.tolist()


def test_other_encodings_are_no_text(tmp_path) -> None:
    path = tmp_path / "x.star"
    path.write_bytes(PLAIN.decode().encode("utf-16"))
    with pytest.raises(InputError, match="is not text"):
        read_star(path)


# Quotes, blanks, comments, labels and reserved words more often than by chance.
SIGNS = st.sampled_from([*" \t\"'#_;$[]?.~@/", "data_", "loop_", "save_", "\u2028"])
STAND_INS = "".join(map(chr, range(0xF780, 0xF800)))  # for bytes
LETTERS = st.characters(codec="utf-8", exclude_characters=f"\r\n\0{STAND_INS}")
WORDS = st.lists(SIGNS | LETTERS, max_size=8).map("".join)
BROKEN = st.lists(SIGNS | st.sampled_from("\n\r\0") | LETTERS, max_size=8).map("".join)


NO_FILE_HOLDS = re.compile("(?s)[\r\n\0]|\"([ \t].*'|.*'[ \t])|'([ \t].*\"|.*\"[ \t])")


def survives(folder, blocks) -> None:
    star = StarFile(tuple(blocks))
    words = [w for b in blocks for c in b.columns.values() for w in c.tolist()]
    unwritable = any(map(NO_FILE_HOLDS.search, words))
    if unwritable:
        with suppress(OutputError):  # some words of several lines can be
            write_star(folder / "x.star", star)
        return
    write_star(folder / "x.star", star)
    again = read_star(folder / "x.star")
    assert len(again.blocks) == len(star.blocks)
    for one, other in zip(star.blocks, again.blocks, strict=True):
        assert (one.name, one.is_loop) == (other.name, other.is_loop)
        assert list(one.columns) == list(other.columns)
        for label, values in one.columns.items():
            assert other.columns[label].tolist() == values.tolist()


def table(name, words, width) -> StarBlock:
    rows = max(1, len(words) // width)
    words = (words + [""] * width)[: rows * width]
    columns = {
        f"c{i}": np.array(words[i * rows : (i + 1) * rows], dtype=STRING)
        for i in range(width)
    }
    return StarBlock(name, columns)


def blocks_of(words, width) -> list[StarBlock]:
    single = {f"s{i}": np.array([w], dtype=STRING) for i, w in enumerate(words[:3])}
    found = [table("loop", words, width)]
    return [StarBlock("pairs", single, is_loop=False), *found] if single else found


@given(st.lists(WORDS, max_size=9), st.integers(1, 3))
@settings(FEW, suppress_health_check=IN_FOLDER)
def test_random_text_is_read_as_it_was_written(tmp_path, words, width) -> None:
    survives(tmp_path, blocks_of(words, width))


@given(st.lists(BROKEN, min_size=1, max_size=4), st.integers(1, 2))
@settings(FEW, suppress_health_check=IN_FOLDER)
def test_text_that_no_file_can_hold_is_refused(tmp_path, words, width) -> None:
    survives(tmp_path, blocks_of(words, width))


@pytest.mark.slow
@given(st.lists(WORDS | BROKEN, max_size=9), st.integers(1, 3))
@settings(MANY, suppress_health_check=IN_FOLDER)
def test_much_random_text_is_read_as_it_was_written(tmp_path, words, width) -> None:
    survives(tmp_path, blocks_of(words, width))


@pytest.mark.parametrize("word", ["\"#'", "'#\"", "\"a'", "'a\"", "#'\"", 'a "#b'])
def test_quotes_before_a_number_sign_are_read_as_written(tmp_path, word) -> None:
    # Readers take a quote before # for the end of a text, as before a blank.
    survives(tmp_path, [table("loop", [word], 2)])


@pytest.mark.parametrize("word", ["a\nb", "a\rb", "\0", "a' b\" c"])
def test_the_column_is_named_whose_text_no_file_can_hold(tmp_path, word) -> None:
    columns = {
        x: np.array(["1", w], dtype=STRING) for x, w in {"a": "2", "b": word}.items()
    }
    with pytest.raises(OutputError, match=r"Cannot write .*: b, from row 1 on, text"):
        write_star(tmp_path / "x.star", StarFile((StarBlock("x", columns),)))


def test_a_value_of_several_lines_stays_one(tmp_path) -> None:
    path = tmp_path / "x.star"
    path.write_text("data_x\n_note\n;one\ntwo\n;\n_b 1\n")
    star = read_star(path)
    write_star(path, star)
    (block,) = read_star(path).blocks
    assert block.columns["note"].tolist() == ["one\ntwo"]
    assert block.columns["b"].tolist() == ["1"]


@given(st.binary(max_size=200))
@settings(FEW, suppress_health_check=IN_FOLDER)
def test_random_bytes_are_refused_or_read(tmp_path, raw) -> None:
    (tmp_path / "x.star").write_bytes(b"data_x\nloop_\n_a\n_b\n" + raw)
    try:
        star = read_star(tmp_path / "x.star")
    except InputError:
        return
    try:
        write_star(tmp_path / "y.star", star)
    except OutputError:
        return
    read_star(tmp_path / "y.star")


def test_a_block_that_no_reader_would_find_is_not_written(tmp_path) -> None:
    path = tmp_path / "odd.star"
    path.write_text("data_a/b\n\nloop_\n_x\n1\n")
    star = read_star(path)
    with pytest.raises(OutputError, match=r"data_a/b holds '/'; rename it"):
        write_star(tmp_path / "again.star", star)
