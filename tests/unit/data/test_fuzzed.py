"""Whatever a file of particles holds: it is read, or refused in words."""

import os

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cryoinfer.data.check import check
from cryoinfer.data.particles import Particles
from cryoinfer.errors import CryoinferError, InputError
from cryoinfer.io.cryosparc import with_fields, write_cs

FEW = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
MANY = settings(FEW, max_examples=500)

WORDS = st.sampled_from(
    "nan inf -inf <NA> None 0 -1 1 2 7 1e23 1e308 -1e308 1e-320 1.5 0x10 1_000 True é "
    "' \" # _x data_ data_x loop_ ? . ; [1,2] 1@a.mrcs 5@a.mrcs 000001@b.mrcs "
    "1@gone.mrcs 1@ @ 1@. 1@/ rlnImageName _rlnImageName".split(" ")
) | st.sampled_from(["", " ", "\t", "\0", "\r", "\n", "\xa0", "9" * 30, "x" * 5000])
BYTES = st.sampled_from([0, 1, 2, 3, 4, 6, 12, 127, 128, 255]) | st.integers(0, 255)


@st.composite
def edits(draw) -> list[tuple[float, str, str]]:
    """Draw changes of a text: where, of what kind and to which word."""
    place = st.floats(0, 1, exclude_max=True)
    kind = st.sampled_from(["word", "word", "word", "letter", "drop", "repeat", "cut"])
    return draw(st.lists(st.tuples(place, kind, WORDS), min_size=1, max_size=3))


def edited(text: str, changes: list[tuple[float, str, str]]) -> str:
    for place, kind, word in changes:
        lines = text.split("\n")
        number = int(place * len(lines))
        words = lines[number].split(" ")
        if kind == "word":
            words[int(place * 997) % len(words)] = word
            lines[number] = " ".join(words)
        elif kind == "letter":
            at = int(place * 991) % (len(lines[number]) + 1)
            lines[number] = lines[number][:at] + word + lines[number][at + 1 :]
        elif kind == "repeat":
            lines.insert(number, lines[(number + 7) % len(lines)])
        else:
            del lines[number : number + 1 if kind == "drop" else None]
        text = "\n".join(lines) if lines else ""
    return text


def is_told_or_survives(path, folder) -> None:
    """Load and check; what can be loaded can be written, and read to be the same."""
    findings = check(path)
    assert all(len(finding.message) < 3000 for finding in findings)
    particles, refusal = None, ""
    try:
        particles = Particles.load(path)
    except CryoinferError as error:
        refusal = str(error)
    assert len(refusal) < 3000
    errors = [finding for finding in findings if finding.severity == "error"]
    if particles is None:
        assert errors
        return
    # Pixels are read by whoever needs them.
    assert all(" images (rows " in finding.message for finding in errors)
    images = particles.images(torch.tensor([0]))
    for name in ("out.star", "out.cs"):
        try:
            particles.save(folder / name)
        except CryoinferError:  # phases that were flipped in a .cs table
            continue
        again = Particles.load(folder / name)
        assert len(again) == len(particles)
        # RELION has the contrast in the scale of the CTF.
        assert torch.equal(again.images(torch.tensor([0])).abs(), images.abs())


def star_survives(project, version, changes) -> None:
    text = edited((project / f"{version}.star").read_text(), changes)
    (project / "p.star").write_text(text, newline="")
    is_told_or_survives(project / "p.star", project)


@given(st.sampled_from(["new", "old"]), edits())
@FEW
def test_edited_star_files(project, version, changes):
    star_survives(project, version, changes)


@pytest.mark.slow
@given(st.sampled_from(["new", "old"]), edits())
@MANY
def test_many_edited_star_files(project, version, changes):
    star_survives(project, version, changes)


FIELDS = (
    *(np.full(3, x, dtype="f4") for x in (0, -1, 0.5, 7, np.nan, np.inf, 1e30)),
    *(np.full(3, x) for x in (-1, 7, 2**63 - 1, 1e300)),
    *(np.zeros((3, *shape)) for shape in ((0,), (1,), (2,), (3,), (2, 2))),
    *(np.zeros(3, dtype=kind) for kind in ("u8", "?", ">f8", "c16", "M8[s]", "m8[s]")),
    np.full(3, 2**64 - 1, dtype="u8"),
    np.zeros(3, dtype="V3"),
    np.zeros(3, dtype=[("a", "f4")]),
    np.array([b"J1/extract/a.mrcs", b">J1/extract/a.mrcs", b"x" * 5000]),
    np.array([b"\xff", b"", b"x"]),
    np.array(["é\ud800", "", "\0x"]),
)


def table_survives(sparc, table, name, values, changes) -> None:
    path = sparc / "J1" / "p.cs"
    write_cs(path, with_fields(table, {name: values}))
    is_told_or_survives(path, sparc / "J1")
    raw = bytearray(path.read_bytes())
    for place, byte in changes:
        raw[int(place * len(raw))] = byte
    path.write_bytes(raw)
    is_told_or_survives(path, sparc / "J1")


CHANGES = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), BYTES), min_size=1, max_size=4
)
PLACES = st.integers(0, 10**6)


@given(PLACES, st.sampled_from(FIELDS), CHANGES)
@FEW
def test_edited_tables(sparc, cryosparc_table, place, values, changes):
    table = cryosparc_table()
    name = table.dtype.names[place % len(table.dtype.names)]
    table_survives(sparc, table, name, values, changes)


@pytest.mark.slow
@given(PLACES, st.sampled_from(FIELDS), CHANGES)
@MANY
def test_many_edited_tables(sparc, cryosparc_table, place, values, changes):
    table = cryosparc_table()
    name = table.dtype.names[place % len(table.dtype.names)]
    table_survives(sparc, table, name, values, changes)


def stack_survives(project, changes, length) -> None:
    raw = bytearray((project / "b.mrcs").read_bytes())
    for place, byte in changes:
        raw[int(place * 1024)] = byte
    path = project / "z.mrcs"
    path.write_bytes(raw[: int(length * len(raw))])
    is_told_or_survives(path, project)
    (project / "list.txt").write_text("a.mrcs\nz.mrcs\n")
    is_told_or_survives(project / "list.txt", project)


@given(CHANGES, st.sampled_from([1.0, 1.0, 0.9, 0.5, 0.0]))
@FEW
def test_edited_stacks(project, changes, length):
    stack_survives(project, changes, length)


@pytest.mark.slow
@given(CHANGES, st.sampled_from([1.0, 1.0, 0.9, 0.5, 0.0]))
@MANY
def test_many_edited_stacks(project, changes, length):
    stack_survives(project, changes, length)


@pytest.mark.parametrize("ending", [".star", ".cs", ".mrcs", ".mrc", ".txt"])
@pytest.mark.parametrize(
    "kind", ["absent", "folder", "pipe", "loop", "empty", "noise", "long", "zip"]
)
def test_what_is_no_file_of_particles(tmp_path, ending, kind):
    path = tmp_path / f"p{ending}"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif kind == "long":
        path = tmp_path / ("x" * 5000 + ending)
    elif kind == "zip":
        with path.open("wb") as file:
            np.savez(file, a=np.zeros(3))
    with pytest.raises(InputError) as error:
        Particles.load(path)
    assert len(str(error.value)) < 1000
    (finding,) = check(path)
    assert finding.severity == "error"
    expected = {"folder": "is a folder", "pipe": "is a pipe", "absent": "No such"}
    assert expected.get(kind, "") in str(error.value)
