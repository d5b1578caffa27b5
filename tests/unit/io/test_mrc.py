import gzip
import pickle

import mrcfile
import numpy as np
import pytest
import torch

from cryoinfer.errors import InputError, MissingFileError, OutputError
from cryoinfer.io.mrc import StackFile, StackWriter, open_stack, read_map, write_map


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
    with pytest.raises(InputError, match="not an MRC map"):
        read_map(tmp_path / "a.mrc")
    write_map(tmp_path / "b.mrc", random((4, 6, 6)), 1.0)
    with pytest.raises(InputError, match="expected a cubic map"):
        read_map(tmp_path / "b.mrc")
    write_map(tmp_path / "c.mrc", random((4, 4, 4)), 0.0)
    with pytest.raises(InputError, match="Give --pixel-size"):
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
    assert np.array_equal(stack.view(), images)
    assert np.array_equal(open_stack(tmp_path / "a.mrcs"), images)
    again = pickle.loads(pickle.dumps(stack))
    assert np.array_equal(again.view()[1], images[1])


def test_an_extended_header_is_skipped(tmp_path):
    images = random((2, 4, 4))
    write_stack(tmp_path / "a.mrcs", images)
    with mrcfile.open(tmp_path / "a.mrcs", mode="r+") as mrc:
        mrc.set_extended_header(np.zeros(160, dtype="V1"))
    stack = StackFile.of(tmp_path / "a.mrcs")
    assert stack.offset_bytes == 1024 + 160
    assert np.array_equal(stack.view(), images)


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
    assert np.array_equal(stack.view(), images.numpy())
    assert stack.pixel_size_angstrom == pytest.approx(1.1, rel=1e-6)  # float32
    with mrcfile.open(tmp_path / "a.mrcs") as mrc:
        assert mrc.is_image_stack()
        assert np.array_equal(mrc.data, images.numpy())
        assert float(mrc.voxel_size.x) == pytest.approx(1.1, rel=1e-6)


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
