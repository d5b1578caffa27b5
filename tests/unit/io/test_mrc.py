import gzip
import pickle
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryoinfer.errors import (
    InputError,
    MissingFileError,
    OutputError,
    VoxelSizeError,
)
from cryoinfer.io.mrc import StackFile, StackWriter, read_map, read_mask, write_map


def random(shape, dtype="f4"):
    values = np.random.default_rng(0).uniform(0, 100, shape)
    return values.astype(dtype)


def write_stack(path, images, pixel_size=1.5):
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(images)
        mrc.set_image_stack()
        mrc.voxel_size = pixel_size


def edit_header(path, **values):
    with mrcfile.open(path, mode="r+", permissive=True) as mrc:
        for name, value in values.items():
            mrc.header[name] = value


def test_a_written_map_is_what_other_programs_expect(tmp_path):
    density = random((6, 6, 6))
    write_map(tmp_path / "a.mrc", torch.from_numpy(density), 1.25)
    with mrcfile.open(tmp_path / "a.mrc") as mrc:
        header = mrc.header
        assert np.array_equal(mrc.data, density)
        assert (int(header.mode), int(header.ispg)) == (2, 1)
        assert (int(header.mapc), int(header.mapr), int(header.maps)) == (1, 2, 3)
        assert int(header.nxstart) == int(header.nystart) == int(header.nzstart) == 0
        assert header.origin.tolist() == (0, 0, 0)
        assert mrc.voxel_size.tolist() == (1.25, 1.25, 1.25)
    assert mrcfile.validate(str(tmp_path / "a.mrc"))


def test_maps_are_read_back(tmp_path):
    density = random((6, 6, 6))
    write_map(tmp_path / "a.mrc", density, 1.25)
    (tmp_path / "b.map.gz").write_bytes(
        gzip.compress((tmp_path / "a.mrc").read_bytes())
    )
    for name in ("a.mrc", "b.map.gz"):
        found = read_map(tmp_path / name)
        assert np.array_equal(found.density, density)
        assert found.pixel_size_angstrom == 1.25
    assert read_map(tmp_path / "a.mrc", 2.0).pixel_size_angstrom == 2.0


@pytest.mark.parametrize(
    "axes", [(1, 2, 3), (2, 1, 3), (3, 2, 1), (3, 1, 2), (2, 3, 1)]
)
def test_the_axis_order_of_a_map_is_honoured(tmp_path, axes):
    # One bright voxel at x, y, z = 1, 2, 3; column, row and section run along axes.
    position = {1: 1, 2: 2, 3: 3}
    stored = np.zeros((6, 6, 6), dtype=np.float32)
    stored[position[axes[2]], position[axes[1]], position[axes[0]]] = 1.0
    write_map(tmp_path / "a.mrc", stored, 1.0)
    edit_header(tmp_path / "a.mrc", mapc=axes[0], mapr=axes[1], maps=axes[2])
    assert np.argwhere(read_map(tmp_path / "a.mrc").density).tolist() == [[3, 2, 1]]


def test_unusable_maps_are_refused(tmp_path):
    with pytest.raises(MissingFileError):
        read_map(tmp_path / "none.mrc")
    (tmp_path / "a.mrc").write_text("no map")
    with pytest.raises(InputError, match="not an MRC file"):
        read_map(tmp_path / "a.mrc")
    write_map(tmp_path / "b.mrc", random((4, 6, 6)), 1.0)
    with pytest.raises(InputError, match="expected a cubic map"):
        read_map(tmp_path / "b.mrc")
    write_map(tmp_path / "c.mrc", random((4, 4, 4)), 0.0)
    with pytest.raises(VoxelSizeError, match="found a cell of 0, 0, 0 A with 4, 4, 4"):
        read_map(tmp_path / "c.mrc")
    with pytest.raises(OutputError):
        write_map(tmp_path / "no" / "folder.mrc", random((4, 4, 4)), 1.0)


@pytest.mark.parametrize("dtype", ["i1", "i2", "f4", "u2", "f2"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_mode_and_byte_order_of_stacks(tmp_path, dtype, order):
    images = random((3, 4, 4), dtype).astype(np.dtype(dtype).newbyteorder(order))
    write_stack(tmp_path / "a.mrcs", images)
    stack = StackFile.of(tmp_path / "a.mrcs")
    assert stack.shape == (3, 4, 4)
    assert stack.pixel_size_angstrom == 1.5
    assert np.array_equal(stack.read(np.arange(len(stack))), images)
    for rows in ([0, 1, 2], [2, 0], [1]):
        found = stack.read(np.array(rows))
        assert found.dtype == np.float32
        assert np.array_equal(found, images[rows].astype("f4"))
    again = pickle.loads(pickle.dumps(stack))
    assert np.array_equal(again.read(np.array([1]))[0], images[1])


def test_an_extended_header_is_skipped(tmp_path):
    images = random((2, 4, 4))
    write_stack(tmp_path / "a.mrcs", images)
    with mrcfile.open(tmp_path / "a.mrcs", mode="r+") as mrc:
        mrc.set_extended_header(np.zeros(160, dtype="V1"))
    stack = StackFile.of(tmp_path / "a.mrcs")
    assert stack.offset_bytes == 1024 + 160
    assert np.array_equal(stack.read(np.arange(len(stack))), images)


def test_a_stack_that_is_cut_off_is_refused(tmp_path):
    write_stack(tmp_path / "a.mrcs", random((3, 4, 4)))
    content = (tmp_path / "a.mrcs").read_bytes()
    (tmp_path / "a.mrcs").write_bytes(content[:-1])
    with pytest.raises(InputError, match="cut off: its header promises 3 images"):
        StackFile.of(tmp_path / "a.mrcs")


def test_files_that_are_no_stacks_are_refused(tmp_path):
    path = tmp_path / "a.mrcs"
    with pytest.raises(MissingFileError):
        StackFile.of(path)
    path.write_text("short")
    with pytest.raises(InputError, match="not an MRC file"):
        StackFile.of(path)
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(InputError, match="is not an MRC"):
        StackFile.of(path)
    write_stack(path, random((2, 4, 4)).astype(np.complex64))
    with pytest.raises(InputError, match="found mode 4"):
        StackFile.of(path)


@pytest.mark.parametrize("pixel_size", [0.0, 0.01, 1000.0, (1.0, 2.0, 1.0)])
def test_an_absurd_pixel_size_is_none(tmp_path, pixel_size):
    write_stack(tmp_path / "a.mrcs", random((2, 4, 4)), pixel_size)
    assert StackFile.of(tmp_path / "a.mrcs").pixel_size_angstrom is None


def test_a_stack_is_written_piece_by_piece(tmp_path):
    images = torch.from_numpy(random((5, 8, 8)))
    with StackWriter(tmp_path / "a.mrcs", 5, 8, 1.1) as writer:
        writer.write(images[:2])
        writer.write(images[2:])
    stack = StackFile.of(tmp_path / "a.mrcs")
    assert np.array_equal(stack.read(np.arange(len(stack))), images.numpy())
    assert stack.pixel_size_angstrom == pytest.approx(1.1, rel=1e-6)  # float32
    with mrcfile.open(tmp_path / "a.mrcs") as mrc:
        assert mrc.is_image_stack()
        assert np.array_equal(mrc.data, images.numpy())
        assert float(mrc.voxel_size.x) == pytest.approx(1.1, rel=1e-6)


def test_a_stack_of_float16_is_mode_12(tmp_path):
    images = torch.from_numpy(random((5, 8, 8)))
    path = tmp_path / "a.mrcs"
    half = torch.float16
    with StackWriter(path, 5, 8, 1.1, dtype=half, label="of a test") as writer:
        writer.write(images[:2])
        writer.write(images[2:].half())
    assert path.stat().st_size == 1024 + 5 * 8 * 8 * 2
    with mrcfile.open(path) as mrc:
        assert (int(mrc.header.mode), int(mrc.header.nlabl)) == (12, 2)
        assert mrc.header.label[1] == b"of a test"
        assert mrc.is_image_stack()
        assert np.array_equal(mrc.data, images.numpy().astype("f2"))
    assert mrcfile.validate(str(path))
    # What NumPy makes of them, in one piece or not.
    stack = StackFile.of(path)
    for rows in ([0, 1, 2, 3, 4], [4, 0], [3]):
        found = stack.read(np.array(rows))
        assert found.dtype == np.float32
        assert np.array_equal(found, images.numpy().astype("f2")[rows].astype("f4"))


def test_a_stack_that_is_cut_off_while_it_is_used(tmp_path):
    path = tmp_path / "a.mrcs"
    write_stack(path, random((5, 8, 8)))
    stack = StackFile.of(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert len(stack.read(np.arange(4))) == 4
    with pytest.raises(InputError, match="image 5 is not there any more"):
        stack.read(np.arange(2, 5))
    with pytest.raises(InputError, match="image 5 is not there any more"):
        stack.read(np.array([4, 0, 2]))


def test_every_float16_is_read_as_numpy_reads_it(tmp_path):
    stored = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(16, 64, 64)
    with StackWriter(tmp_path / "a.mrcs", 16, 64, 1.0, dtype=torch.float16) as writer:
        writer.write(torch.from_numpy(stored))
    found = StackFile.of(tmp_path / "a.mrcs").read(np.arange(16))
    assert np.array_equal(found, stored.astype("f4"), equal_nan=True)


def test_a_stack_must_get_the_images_it_was_made_for(tmp_path):
    with (
        pytest.raises(ValueError, match=r"2 images .* are missing"),
        StackWriter(tmp_path / "a.mrcs", 2, 8, 1.0),
    ):
        pass
    with (
        pytest.raises(ValueError, match="expected at most 2 images"),
        StackWriter(tmp_path / "a.mrcs", 2, 8, 1.0) as writer,
    ):
        writer.write(torch.zeros(3, 8, 8))
    with pytest.raises(OutputError):
        StackWriter(tmp_path / "no" / "a.mrcs", 1, 8, 1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("read", [read_map, read_mask])
def test_voxels_that_are_no_number_are_counted(tmp_path, value, read):
    density = random((6, 6, 6)) / 100
    write_map(tmp_path / "a.mrc", density, 1.0)
    density[1, 2, 3] = density[4, 4, 4] = value
    header = (tmp_path / "a.mrc").read_bytes()[:1024]
    (tmp_path / "a.mrc").write_bytes(header + density.tobytes())
    with pytest.raises(InputError, match="found 2 of 216 voxels that are NaN or inf"):
        read(tmp_path / "a.mrc")


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5])
def test_a_map_without_contrast_is_refused(tmp_path, value):
    write_map(tmp_path / "a.mrc", np.full((4, 4, 4), value), 1.0)
    with pytest.raises(InputError, match=f"found {value:g} in all 64 voxels"):
        read_map(tmp_path / "a.mrc")


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0, 100, "found values from 0 to 100. Divide it by 100"),
        (0, 255, "Divide it by 255"),
        (0, 1.01, "found values from 0 to 1.01"),
        (-0.5, 1, "found values from -0.5 to 1. Is it a map"),
        (0, 0, "found 0 in all 216 voxels"),
        (0.5, 0.5, "found 0.5 in all 216 voxels"),
    ],
)
def test_what_is_no_mask_is_refused(tmp_path, low, high, said):
    mask = np.full((6, 6, 6), low, dtype=np.float32)
    mask[2:4] = high
    write_map(tmp_path / "a.mrc", mask, 1.0)
    with pytest.raises(InputError, match=said):
        read_mask(tmp_path / "a.mrc")


def test_masks_may_be_hard_soft_rounded_or_1_throughout(tmp_path):
    soft = np.linspace(0, 1, 216).reshape(6, 6, 6)
    for mask in (
        soft,
        soft > 0.5,
        soft.astype(np.float16) * 1.0004,
        np.ones_like(soft),
    ):
        write_map(tmp_path / "a.mrc", np.asarray(mask, dtype=np.float32), 1.0)
        assert np.array_equal(read_mask(tmp_path / "a.mrc").density, mask.astype("f4"))


def test_a_map_must_be_as_long_as_its_header_says(tmp_path):
    path = tmp_path / "a.mrc"
    density = random((16, 16, 16))
    write_map(path, density, 1.0)
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    with pytest.raises(InputError, match="found 4 bytes less"):
        read_map(path)
    path.write_bytes(whole + bytes(512))  # a block filled up
    assert np.array_equal(read_map(path).density, density)
    path.write_bytes(whole)
    edit_header(path, nx=8, ny=8, nz=8)  # or 7 of 8 voxels would be left out
    with pytest.raises(InputError, match="1,025 bytes more and on"):
        read_map(path)
    path.write_bytes(gzip.compress(whole[:-4]))
    with pytest.raises(InputError, match="found 4 bytes less"):
        read_map(path)
    path.write_bytes(gzip.compress(whole)[:-9])
    with pytest.raises(InputError, match="not an MRC map that can be read"):
        read_map(path)


@pytest.mark.parametrize(
    "sizes",
    [
        {"nx": 2**31 - 1, "ny": 2**31 - 1, "nz": 2**31 - 1},
        {"nsymbt": 2**31 - 1},
        {"nsymbt": -5},
        {"nz": 0},
        {"nx": -4},
        {"mode": 3},
        {"mode": 101},
        {"mode": 99},
        {"mapc": 1, "mapr": 1, "maps": 3},
        {"mapc": -1},
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_headers_that_lie_are_refused(tmp_path, sizes, packed):
    path = tmp_path / "a.mrc"
    write_map(path, random((4, 4, 4)), 1.0)
    content = bytearray(path.read_bytes())
    header = np.frombuffer(content, mrcfile.dtypes.HEADER_DTYPE, 1)
    for name, value in sizes.items():
        header[name] = value
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(InputError):
        read_map(path)
    if not packed:
        with pytest.raises(InputError):
            StackFile.of(path)


def test_where_a_map_lies_is_told_by_origin_or_start(tmp_path):
    path = tmp_path / "a.mrc"
    write_map(path, random((4, 4, 4)), 1.5)
    assert read_map(path).origin_angstrom == (0, 0, 0)
    edit_header(path, nxstart=-2, nystart=0, nzstart=4)
    assert read_map(path).origin_angstrom == (-3, 0, 6)
    with mrcfile.open(path, mode="r+") as mrc:
        mrc.header.origin = (1.0, 2.0, 3.0)
    assert read_map(path).origin_angstrom == (1, 2, 3)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ({"origin": (np.nan, 0, 0)}, r"\(nan, 0, 0\)"),
        ({"origin": (0, 0, np.inf)}, r"\(0, 0, inf\)"),
        ({"origin": (0, 3e9, 0)}, r"\(0, 3e\+09, 0\)"),
        ({"nxstart": -(2**31)}, r"\(-3.22123e\+09, 0, 0\)"),
    ],
)
def test_a_map_that_lies_nowhere_is_refused(tmp_path, header, found):
    path = tmp_path / "a.mrc"
    write_map(path, random((4, 4, 4)), 1.5)
    edit_header(path, **header)
    with pytest.raises(InputError, match=f"within 100000 A of 0, found it at {found}"):
        read_map(path)


def test_a_stack_that_the_system_cannot_read_is_refused(tmp_path, monkeypatch):
    write_stack(tmp_path / "a.mrcs", random((2, 4, 4)))

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(InputError, match=r"Cannot read .*a\.mrcs: Permission denied"):
        StackFile.of(tmp_path / "a.mrcs")
