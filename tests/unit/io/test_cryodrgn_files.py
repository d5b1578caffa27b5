"""cryoDRGN's files: what NumPy pickled comes back, and nothing else is ever run."""

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cryoinfer.errors import InputError, MissingFileError
from cryoinfer.io.conventions.cryodrgn import pose_of, with_ctf
from cryoinfer.io.conventions.poses import euler_degrees_to_rotation
from cryoinfer.io.conventions.table import ImageReferences, ParticleTable
from cryoinfer.io.cryodrgn import (
    CryodrgnPoses,
    read_ctf,
    read_indices,
    read_latents,
    read_pickles,
    read_poses,
)
from cryoinfer.physics.ctf import evaluate_ctf
from cryoinfer.records import Optics

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
Z = np.arange(10, dtype=np.float32).reshape(5, 2)


def pickled(path: Path, *values: Any, protocol: int = 4) -> Path:
    path.write_bytes(b"".join(pickle.dumps(one, protocol) for one in values))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "z.pkl"


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [Z, Z.astype(">f8"), np.asfortranarray(Z), Z[::2], Z.astype(np.int16), Z > 3],
    ids=["f4", "f8 big-endian", "by columns", "strided", "i2", "bool"],
)
def test_arrays_of_every_kind_come_back(
    path: Path, array: NDArray[Any], protocol: int
) -> None:
    (found,) = read_pickles(pickled(path, array, protocol=protocol))
    assert found.dtype == array.dtype
    assert np.array_equal(found, array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_z_and_its_spread_stand_one_after_the_other(path: Path, protocol: int) -> None:
    found = read_latents(pickled(path, Z, np.log(Z + 1), protocol=protocol))
    assert found.sd is not None
    assert np.array_equal(found.mean, Z)
    assert np.allclose(found.sd, np.sqrt(Z + 1), rtol=1e-6)  # logs of float32
    assert read_latents(pickled(path, Z, protocol=protocol)).sd is None


def test_names_of_numpy_1_and_2_are_one(path: Path) -> None:
    data = pickle.dumps(Z, 2)
    one, other = b"cnumpy.core.multiarray\n", b"cnumpy._core.multiarray\n"
    assert (one in data) != (other in data)
    for name in (one, other):
        path.write_bytes(data.replace(one, name).replace(other, name))
        assert np.array_equal(read_latents(path).mean, Z)


@pytest.mark.parametrize("indices", [np.array([3, 0, 7]), [3, 0, 7]])
def test_indices(path: Path, indices: Any) -> None:
    assert read_indices(pickled(path, indices)).tolist() == [3, 0, 7]


class Malicious:
    """What runs a command when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_in_a_file_is_run(path: Path, tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "mark"
    pickled(path, (Z, Malicious(mark)), protocol=protocol)
    with pytest.raises(InputError, match=r"asks for (posix|nt)\.system.*nothing in it"):
        read_latents(path)
    assert not mark.exists()
    # The canary: what is tested here does run when pickle reads it.
    pickle.loads(path.read_bytes())
    assert mark.exists()


CALL = b"cbuiltins\neval\n(S'1'\ntR."
ATTRIBUTE = b"cnumpy\nndarray.tofile\n."
CLASS = b"\x80\x04cnumpy\nndarray\n)\x81."
STATE = b"cnumpy\nndarray\n}S'a'\nI1\nsb."
PERSISTENT = b"Pname\n."
EXTENSION = b"\x80\x02\x82\x01."


@pytest.mark.parametrize(
    "data", [CALL, ATTRIBUTE, CLASS, STATE, PERSISTENT, EXTENSION], ids=repr
)
def test_what_no_array_needs_is_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(InputError, match=str(path)):
        read_pickles(path)


@pytest.mark.parametrize(
    "array",
    [
        np.array([None, 1]),
        np.array([("a", 1)], dtype=[("x", "U1"), ("y", "i4")]),
        np.array(["a", "b"]),
        np.array([1 + 1j]),
        np.datetime64("2020-01-01"),
    ],
    ids=["objects", "records", "text", "complex", "date"],
)
def test_arrays_of_other_things_are_refused(path: Path, array: Any) -> None:
    with pytest.raises(InputError, match=str(path)):
        read_latents(pickled(path, array))


def test_every_end_before_the_last_byte_is_refused(path: Path) -> None:
    data = pickle.dumps(Z, 4)
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(InputError, match=str(path)):
            read_latents(path)


def test_a_size_that_the_file_does_not_have_takes_no_memory(path: Path) -> None:
    shape = pickle.dumps(Z, 2).replace(b"K\x05K\x02\x86", b"K\xffJ\xff\xff\xff\x7f\x86")
    many = struct.pack("<Q", 2**40)
    for data in (
        shape,
        b"\x80\x05\x96" + many + b".",  # a bytearray
        b"\x80\x04\x8e" + many + b".",  # bytes
        b"\x80\x04\x95" + many + b".",  # a frame
        b"\x80\x02Nr\xff\xff\xff\x7f.",  # a place in the memo
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=str(path)):
            read_pickles(path)


def test_damage_never_comes_through_as_another_error(path: Path) -> None:
    random = np.random.default_rng(0)
    whole = pickle.dumps((Z, Z), 4)
    for _ in range(500):
        data = bytearray(whole)
        for place in random.integers(len(data), size=3):
            data[place] = random.integers(256)
        path.write_bytes(data)
        try:
            read_pickles(path)
        except InputError:
            continue


def rotations(n: int) -> NDArray[np.float64]:
    angles = torch.rand(n, 3, generator=torch.Generator().manual_seed(1)) * 170
    return np.asarray(euler_degrees_to_rotation(angles.double()).numpy())


def test_poses_of_all_three_forms(path: Path) -> None:
    rotation, shift = rotations(4), np.full((4, 2), 0.25)
    both = read_poses(pickled(path, (rotation, shift)))
    assert np.array_equal(both.rotation, rotation)
    assert np.array_equal(both.translation, shift)
    for alone in ((rotation,), rotation):
        found = read_poses(pickled(path, alone))
        assert np.array_equal(found.rotation, rotation)
        assert not found.translation.any()


@pytest.mark.parametrize(
    ("poses", "said"),
    [
        ((rotations(4), np.zeros((3, 2))), "4 rotations and 3 translations"),
        ((rotations(4) * 2, np.zeros((4, 2))), "row 1 holds no rotation matrix"),
        ((-rotations(4), np.zeros((4, 2))), "no rotation matrix"),
        ((rotations(4), np.full((4, 2), 3.0)), "beyond the box"),
        ((rotations(4) * np.nan, np.zeros((4, 2))), "no number"),
        ((rotations(4)[:, :2], np.zeros((4, 2))), "expected 3 x 3 numbers"),
        ((rotations(4), None), "no poses"),
        ((rotations(0), np.zeros((0, 2))), "no rotations"),
        ({"rotation": 1}, "asks for"),
    ],
)
def test_poses_that_are_none_are_refused(path: Path, poses: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_poses(pickled(path, poses))


def test_other_files_that_are_none(path: Path) -> None:
    with pytest.raises(MissingFileError):
        read_poses(path)
    path.touch()
    with pytest.raises(InputError, match="is empty"):
        read_poses(path)
    with pytest.raises(InputError, match="expected 9 numbers per particle"):
        read_ctf(pickled(path, Z))
    with pytest.raises(InputError, match="2 pickles, expected one"):
        read_ctf(pickled(path, Z, Z))
    with pytest.raises(InputError, match="of the shape"):
        read_latents(pickled(path, Z, Z[:, :1]))
    with pytest.raises(InputError, match="no numbers of particles"):
        read_indices(pickled(path, Z))


def test_a_translation_moves_the_image_and_not_the_particle() -> None:
    poses = CryodrgnPoses(rotations(1), np.array([[0.25, -0.125]]))
    pose = pose_of(poses, np.array([80.0]))
    # To move the image by +20 A along x, the particle was found at -20 A.
    assert pose.shift_angstrom.tolist() == [[-20.0, 10.0]]
    assert np.array_equal(pose.rotation.numpy(), poses.rotation)


def theirs(s: float, row: NDArray[np.float64], azimuth: float) -> float:
    """Return the CTF as cryoDRGN defines it, at one frequency in 1/A."""
    defocus_u, defocus_v, angle, kv, cs, w, phase = row[2:]
    volt = kv * 1e3
    wavelength = 12.2639 / np.sqrt(volt + 0.97845e-6 * volt**2)
    mean, half = (defocus_u + defocus_v) / 2, (defocus_u - defocus_v) / 2
    defocus = mean + half * np.cos(2 * (azimuth - np.deg2rad(angle)))
    gamma = 2 * np.pi * (
        -0.5 * defocus * wavelength * s**2 + 0.25 * cs * 1e7 * wavelength**3 * s**4
    ) - np.deg2rad(phase)
    return float(np.sqrt(1 - w**2) * np.sin(gamma) - w * np.cos(gamma))


def test_the_ctf_is_minus_theirs_in_pixels_of_the_image() -> None:
    row = np.array([64, 1.5, 15000.0, 12000, 30, 300, 2.7, 0.1, 20])
    table = ParticleTable(
        images=ImageReferences(("a.mrcs",), np.zeros(1, int), np.zeros(1, int)),
        sign=torch.ones(1),
        box=torch.tensor([32]),  # half of what the parameters were made for
        optics=Optics.without_ctf(1, 1.0),
        has_ctf=False,
    )
    optics = with_ctf(table, row[None]).optics
    assert optics.pixel_size_angstrom.tolist() == [3.0]
    for s, azimuth in ((0.0, 0.0), (0.05, 0.2), (0.1, 1.0), (0.16, 2.5)):
        x, y = (torch.tensor([s * f(azimuth)]) for f in (np.cos, np.sin))
        ours = float(evaluate_ctf(optics, x, y))
        # Wavelengths differ by 3.5e-5 of them, phases of 12 radian by twice that.
        assert ours == pytest.approx(-theirs(s, row, azimuth), abs=2e-3)
    with pytest.raises(InputError, match="above 0"):
        with_ctf(table, 0 * row[None])
