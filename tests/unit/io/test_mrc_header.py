"""Voxel sizes and bytes as the programs that write them mean them."""

from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pytest

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, VoxelSizeError
from cryoinfer.io.mrc import StackFile, read_map, read_mask, write_map

IMOD_STAMP, SIGNED, HALF_BYTES = 1146047817, 1, 16


def edit(path: Path, **values: Any) -> None:
    """Change fields of a header, and nothing else of the file."""
    content = bytearray(path.read_bytes())
    header = np.frombuffer(content, mrcfile.dtypes.HEADER_DTYPE, 1)
    for name, value in values.items():
        header[name] = value
    path.write_bytes(content)


def density(box: int = 32) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(box,) * 3).astype(np.float32)


@pytest.mark.parametrize(
    ("samples", "cell", "size"),
    [
        ((32, 32, 32), (64, 64, 64), 2.0),
        ((0, 0, 0), (64, 64, 64), 2.0),  # never set
        ((1, 1, 1), (64, 64, 64), 2.0),  # never set
        ((0, 0, 0), (3200, 3200, 3200), 100.0),
        ((1, 1, 1), (2, 2, 2), 2.0),  # one voxel: 2 / 32 is no voxel size
        ((32, 32, 1), (64, 64, 64), 2.0),  # a volume as a stack, the whole cell
        ((32, 32, 1), (64, 64, 2), 2.0),  # and one section of it
        ((64, 64, 64), (128, 128, 128), 2.0),  # cut out of a larger map
        ((32, 32, 32), (64, 64, 64.3), 2.0),  # rounded by half a percent
    ],
)
def test_the_voxel_size_that_is_meant(
    tmp_path: Path, samples: tuple, cell: tuple, size: float
) -> None:
    path = tmp_path / "a.mrc"
    write_map(path, density(), 1.0)
    mx, my, mz = samples
    edit(path, mx=mx, my=my, mz=mz, cella=cell)
    assert read_map(path).pixel_size_angstrom == pytest.approx(size)


@pytest.mark.parametrize(
    "header",
    [
        {"cella": (0, 0, 0)},
        {"cella": (-64, -64, -64)},
        {"cella": (np.nan, np.nan, np.nan)},
        {"cella": (np.inf, np.inf, np.inf)},
        {"cella": (64, 64, 128)},  # anisotropic
        {"cella": (64, 70, 64)},
        {"cella": (1e9, 1e9, 1e9)},
        {"cellb": (90, 90, 120)},  # voxels of a crystal
        # 8 A of one voxel, or 32 of 0.25 A; 10 A, or of 0.3125 A: both there are.
        {"cella": (10, 10, 10), "mx": 1, "my": 1, "mz": 1},
    ],
)
def test_what_says_no_voxel_size_needs_one(tmp_path: Path, header: dict) -> None:
    path = tmp_path / "a.mrc"
    write_map(path, density(), 1.0)
    edit(path, **header)
    with pytest.raises(VoxelSizeError, match="found a cell of"):
        read_map(path)
    assert read_map(path, 2.5).pixel_size_angstrom == 2.5
    for absurd in (0.0, -1.0, 1e9, float("nan")):
        with pytest.raises(InputError, match=r"voxel size between 0.1 and 100.0 A"):
            read_map(path, absurd)


@pytest.mark.parametrize(
    ("samples", "size"), [((8, 8), 1.5), ((0, 0), 1.5), ((1, 1), 1.5), ((16, 16), 0.75)]
)
def test_the_pixel_size_of_images_that_is_meant(
    tmp_path: Path, samples: tuple, size: float
) -> None:
    path = tmp_path / "a.mrcs"
    with mrcfile.new(path) as mrc:
        mrc.set_data(density(8)[:3])
        mrc.set_image_stack()
    edit(path, mx=samples[0], my=samples[1], cella=(12, 12, 3))
    assert StackFile.of(path).pixel_size_angstrom == pytest.approx(size)


def test_a_stack_of_one_volume_is_a_map_and_of_more_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.mrc"
    write_map(path, density(), 2.0)
    edit(path, ispg=401)
    assert np.array_equal(read_map(path).density, density())
    edit(path, mz=16)
    with pytest.raises(InputError, match="a stack of volumes, 16 of 32 sections"):
        read_map(path)


def imod_bytes(path: Path, stored: np.ndarray, flags: int, **header: Any) -> None:
    """Write bytes as IMOD does."""
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(stored.view(np.int8))
        mrc.voxel_size = 2.0
    low, high = float(stored.min()), float(stored.max())
    edit(path, **{"dmin": low, "dmax": high, **header})
    content = bytearray(path.read_bytes())
    order = ">" if content[212] == 0x11 else "<"
    content[152:160] = np.array([IMOD_STAMP, flags], order + "i4").tobytes()
    path.write_bytes(content)


def test_bytes_are_those_that_imod_means(tmp_path: Path) -> None:
    path = tmp_path / "a.mrcs"
    meant = np.random.default_rng(1).integers(0, 256, (5, 8, 8))
    rows = np.arange(5)
    imod_bytes(path, meant.astype(np.uint8), 0)
    assert np.array_equal(StackFile.of(path).read(rows), meant)
    imod_bytes(path, (meant - 128).astype(np.int8), SIGNED)
    assert np.array_equal(StackFile.of(path).read(rows), meant)
    assert np.array_equal(StackFile.of(path).read(np.array([3, 1])), meant[[3, 1]])
    # Another program has written signed bytes since, and left the stamp.
    imod_bytes(path, (meant - 128).astype(np.int8), 0)
    assert np.array_equal(StackFile.of(path).read(rows), meant - 128)
    imod_bytes(path, meant.astype(np.uint8), HALF_BYTES)
    with pytest.raises(InputError, match="IMOD's 4-bit values"):
        StackFile.of(path)
    # Particles are read by the same way.
    imod_bytes(path, meant.astype(np.uint8), 0)
    images = Particles.load(path).images(np_to_index(rows))
    assert np.array_equal(images.numpy(), meant)


def np_to_index(rows: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(rows)


def test_a_mask_in_signed_bytes_of_imod_is_0_and_1(tmp_path: Path) -> None:
    path = tmp_path / "mask.mrc"
    mask = (density(8) > 0).astype(int)
    imod_bytes(path, (mask - 128).astype(np.int8), SIGNED)
    assert np.array_equal(read_mask(path).density, mask)
    imod_bytes(path, (mask * 255).astype(np.uint8), 0)
    with pytest.raises(InputError, match="Divide it by 255"):
        read_mask(path)


def test_bytes_without_a_stamp_are_signed_unless_their_maximum_says_more(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.mrc"
    stored = np.random.default_rng(1).integers(0, 256, (8, 8, 8)).astype(np.uint8)
    with mrcfile.new(path) as mrc:
        mrc.set_data(stored.view(np.int8))
        mrc.voxel_size = 2.0
    assert np.array_equal(read_map(path).density, stored.view(np.int8))
    edit(path, dmin=0.0, dmax=255.0)
    assert np.array_equal(read_map(path).density, stored)


@pytest.mark.parametrize("stamp", [b"\x00\x00", b"\x44\x44", b"\x11\x11", b"zz"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_the_byte_order_is_the_one_that_makes_sense(
    tmp_path: Path, stamp: bytes, order: str
) -> None:
    path = tmp_path / "a.mrc"
    with mrcfile.new(path) as mrc:
        mrc.set_data(density(8).astype(order + "f4"))
        mrc.voxel_size = 2.0
    content = bytearray(path.read_bytes())
    content[212:214] = stamp
    path.write_bytes(content)
    found = read_map(path)
    assert np.array_equal(found.density, density(8))
    assert found.pixel_size_angstrom == 2.0
