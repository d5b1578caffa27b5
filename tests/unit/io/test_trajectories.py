"""Frames of trajectories."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
from mdtraj.formats import DCDTrajectoryFile, XTCTrajectoryFile
from numpy.typing import NDArray

from cryoinfer.errors import InputError, MissingFileError
from cryoinfer.io import trajectory_child
from cryoinfer.io.atoms import KeptAtoms, read_structure
from cryoinfer.io.trajectories import read_frames

REAL = Path(__file__).parents[4] / "shared/data"
FRAMES, ATOMS = 205, 12  # more than two chunks
KEPT = KeptAtoms(np.array([0, 3, 4, 11]), ATOMS)
XTC_ANGSTROM = 0.006  # half of its precision of a picometre, and rounding


@pytest.fixture(scope="module")
def coordinates() -> NDArray[np.float32]:
    drawn = np.random.default_rng(0).normal(scale=20, size=(FRAMES, ATOMS, 3))
    return drawn.astype(np.float32)


@pytest.fixture
def dcd(coordinates: NDArray[np.float32], tmp_path: Path) -> Path:
    path = tmp_path / "a.dcd"
    with DCDTrajectoryFile(str(path), "w") as file:
        file.write(coordinates)
    return path


@pytest.fixture
def xtc(coordinates: NDArray[np.float32], tmp_path: Path) -> Path:
    path = tmp_path / "a.xtc"
    with XTCTrajectoryFile(str(path), "w") as file:
        file.write(coordinates / 10)
    return path


def models(coordinates: NDArray[np.float32]) -> str:
    lines = []
    for number, frame in enumerate(coordinates, 1):
        lines.append(f"MODEL     {number:4d}")
        for atom, (x, y, z) in enumerate(frame, 1):
            lines.append(
                f"ATOM  {atom:5d}  CA  GLY A{atom:4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
                "  1.00 10.00           C"
            )
        lines.append("ENDMDL")
    return "\n".join([*lines, "END", ""])


def test_dcd_in_angstrom(dcd: Path, coordinates: NDArray[np.float32]) -> None:
    found = read_frames(dcd, KEPT).coordinates_angstrom
    assert found.dtype == np.float32
    assert np.array_equal(found, coordinates[:, KEPT.rows])


def test_xtc_is_converted_from_nanometres(
    xtc: Path, coordinates: NDArray[np.float32]
) -> None:
    found = read_frames(xtc, KEPT).coordinates_angstrom
    assert found == pytest.approx(coordinates[:, KEPT.rows], abs=XTC_ANGSTROM)


@pytest.mark.parametrize("name", ["a.pdb", "a.pdb.gz"])
def test_models_are_frames(
    name: str, coordinates: NDArray[np.float32], tmp_path: Path
) -> None:
    text = models(coordinates[:3]).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    found = read_frames(path, KEPT).coordinates_angstrom
    # The format has three decimals.
    assert found == pytest.approx(coordinates[:3][:, KEPT.rows], abs=6e-4)


def test_nothing_is_printed_by_the_reader(
    dcd: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    read_frames(dcd, KEPT)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["dcd", "xtc"])
def test_another_number_of_atoms_is_refused(
    name: str, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(name)
    with pytest.raises(InputError, match="12 atoms a frame, the structure 13"):
        read_frames(path, KeptAtoms(KEPT.rows, 13))


def test_models_of_different_atoms_are_refused(
    coordinates: NDArray[np.float32], tmp_path: Path
) -> None:
    path = tmp_path / "a.pdb"
    lines = models(coordinates[:2]).splitlines()
    path.write_text("\n".join(lines[:-3] + lines[-2:]))
    with pytest.raises(InputError, match=r"model 2 of .* has 11 atoms, the first 12"):
        read_frames(path, KEPT)


def test_a_header_that_promises_more_frames_is_refused(dcd: Path) -> None:
    whole = dcd.read_bytes()
    dcd.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="promises 205 frames, the file holds 10"):
        read_frames(dcd, KEPT)


@pytest.mark.parametrize("name", ["dcd", "xtc"])
@pytest.mark.parametrize("size", [0, 10, 100, 300])
def test_heads_alone_are_refused(
    name: str, size: int, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(name)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match="cut short"):
        read_frames(path, KEPT)


def test_an_xtc_file_cut_short_is_refused(xtc: Path) -> None:
    whole = xtc.read_bytes()
    xtc.write_bytes(whole[: len(whole) - 50])
    with pytest.raises(InputError, match="cut short"):
        read_frames(xtc, KEPT)


@pytest.mark.parametrize("name", ["a.dcd", "a.xtc"])
def test_what_is_no_trajectory_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"not a trajectory" * 100)
    with pytest.raises(InputError, match="cannot be read as a"):
        read_frames(tmp_path / name, KEPT)


@pytest.mark.parametrize("name", ["a.trr", "a.nc", "a.h5", "a"])
def test_other_formats_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x00\x00\x07\xc9" * 100)
    found = name[1:] or "no ending"
    message = rf"trajectory as \.dcd or \.xtc, .* found {found} .*\. Convert it"
    with pytest.raises(InputError, match=message):
        read_frames(tmp_path / name, KEPT)


def test_models_under_any_name_are_frames(
    coordinates: NDArray[np.float32], tmp_path: Path
) -> None:
    (tmp_path / "a.pdb1").write_text(models(coordinates))
    assert len(read_frames(tmp_path / "a.pdb1", KEPT)) == FRAMES
    (tmp_path / "a.pdb").write_text("nothing")
    with pytest.raises(InputError, match="is not an mmCIF or PDB model"):
        read_frames(tmp_path / "a.pdb", KEPT)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_time_step_of_x_plor_is_no_cell(
    order: str, coordinates: NDArray[np.float32], tmp_path: Path
) -> None:
    # X-PLOR has a step of eight bytes where CHARMM has one of four and the cells' mark.
    counts, rest = [FRAMES, 1, 1, *[0] * 6], [0] * 9
    head = struct.pack(f"{order}4s9id9i", b"CORD", *counts, 0.123, *rest)
    assert struct.unpack_from(order + "i", head, 4 + 4 * 10)[0] != 0
    title = struct.pack(order + "i80s", 1, b"X-PLOR")
    records = [head, title, struct.pack(order + "i", ATOMS)]
    for frame in coordinates:
        records += [axis.astype(order + "f4").tobytes() for axis in frame.T]
    path = tmp_path / "a.dcd"
    length = struct.Struct(order + "i")
    path.write_bytes(
        b"".join(length.pack(len(r)) + r + length.pack(len(r)) for r in records)
    )
    found = read_frames(path, KEPT)
    assert np.array_equal(found.coordinates_angstrom, coordinates[:, KEPT.rows])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=f"promises {FRAMES} frames, the file holds"):
        read_frames(path, KEPT)


@pytest.mark.parametrize("name", ["a.dcd", "a.xtc"])
def test_a_trajectory_that_the_system_cannot_read_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(b"x")

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(InputError, match=f"Cannot read .*{name}: Permission denied"):
        read_frames(tmp_path / name, KEPT)


def test_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="No such trajectory"):
        read_frames(tmp_path / "none.dcd", KEPT)


def test_infinite_coordinates_are_refused(
    coordinates: NDArray[np.float32], tmp_path: Path
) -> None:
    broken = coordinates.copy()
    broken[7, 3, 1] = np.nan
    with DCDTrajectoryFile(str(tmp_path / "a.dcd"), "w") as file:
        file.write(broken)
    with pytest.raises(InputError, match=r"frame 8 of .* not finite"):
        read_frames(tmp_path / "a.dcd", KEPT)


@pytest.mark.skipif(not REAL.is_dir(), reason="wants the real trajectory of shared")
def test_adenylate_kinase_goes_from_the_closed_to_the_open_state() -> None:
    closed, opened = (
        REAL / "models" / f"adk_{name}_charmm.pdb"
        for name in ("1ake_closed", "4ake_open")
    )
    kept = read_structure(opened).kept
    assert kept.of == 3341
    frames = read_frames(REAL / "traj/adk_dims2.dcd", kept)
    assert frames.coordinates_angstrom.shape == (102, 1656, 3)
    assert read_structure(closed).kept.rows.tolist() == kept.rows.tolist()


@pytest.mark.parametrize("name", ["dcd", "xtc"])
def test_no_file_cut_within_a_frame_is_read_as_shorter(
    name: str, coordinates: NDArray[np.float32], tmp_path: Path
) -> None:
    """Also where the header promises nothing, as while a simulation still runs."""
    path = tmp_path / f"a.{name}"
    reader = DCDTrajectoryFile if name == "dcd" else XTCTrajectoryFile
    with reader(str(path), "w") as file:
        file.write(coordinates[:3])
    whole = bytearray(path.read_bytes())
    if name == "dcd":
        whole[8:12] = bytes(4)
        last = 3 * (4 * ATOMS + 8)  # x, y and z of a frame, each between its lengths
    else:
        with reader(str(path), "w") as file:
            file.write(coordinates[:2])
        last = len(whole) - path.stat().st_size
    path.write_bytes(whole[: len(whole) - last])
    assert len(read_frames(path, KEPT)) == 2
    for missing in range(1, last):
        path.write_bytes(whole[: len(whole) - missing])
        with pytest.raises(InputError, match="cut short"):
            read_frames(path, KEPT)


def test_a_reader_that_dies_is_a_damaged_file(
    dcd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the C code does of an XTC file with flipped bits, after any of its frames."""
    script = tmp_path / "child.py"
    script.write_text(
        "import os, struct\n"
        "os.write(1, struct.pack('<iii', 3, 12, 0) + bytes(100))\n"
        "os.abort()\n"
    )
    monkeypatch.setattr(trajectory_child, "__file__", str(script))
    with pytest.raises(InputError, match="damaged: its reader broke off"):
        read_frames(dcd, KEPT)


def test_xtc_heads_that_cannot_be_true_are_refused(
    coordinates: NDArray[np.float32], tmp_path: Path
) -> None:
    path = tmp_path / "a.xtc"
    with XTCTrajectoryFile(str(path), "w") as file:
        file.write(coordinates[:2] / 10)
    whole = path.read_bytes()
    # Number of atoms, precision, largest x, row of the decoder's table, bytes.
    for at in (52, 56, 72, 84, 88):
        path.write_bytes(whole[:at] + b"\x80\xff\xff\xff" + whole[at + 4 :])
        with pytest.raises(InputError, match="damaged, in frame 1; 0 are whole"):
            read_frames(path, KEPT)
