import mrcfile
import numpy as np
import pytest

from cryoinfer.data.check import check
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, MissingFileError, UnsupportedError
from cryoinfer.io.cryosparc import write_cs


def edit(path, old, new):
    path.write_text(path.read_text().replace(old, new))
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("000003@a.mrcs", "000005@a.mrcs", "Row 2 .* image 5 .*a.mrcs.* only 4 images"),
        ("000003@a.mrcs", "a.mrcs", "row 2 holds 'a.mrcs'"),
        ("000003@a.mrcs", "000000@a.mrcs", "counts images from 1, but row 2"),
        ("b.mrcs 9", "b.mrcs 8", r"Row 3 belongs to optics group 8.*only \[9, 7\]"),
        ("12000", "twelve", "rlnDefocusU must hold numbers, but row 3"),
        ("12000", "nan", "rlnDefocusU must hold numbers, but row 3"),
        ("_rlnVoltage", "_other", "has a defocus but no rlnVoltage"),
        ("1.5 8 2", "1.5 16 2", "images have 16 pixels, but those of row 1 have 8"),
        ("1.5 8 2", "0.0 8 2", "pixel size between 0.1 and 100"),
        ("_rlnImageName", "_other", "expected a block with the column rlnImageName"),
    ],
)
def test_metadata_that_cannot_be_used_are_refused(project, old, new, message):
    path = edit(project / "new.star", old, new)
    with pytest.raises(InputError, match=message):
        Particles.load(path)


def test_unusable_files_are_refused(project):
    with pytest.raises(MissingFileError, match="No such STAR file"):
        Particles.load(project / "none.star")
    with pytest.raises(MissingFileError, match="No such MRC file"):
        Particles.load(project / "none.mrcs")
    with pytest.raises(InputError, match=r"expected particles as \.star"):
        Particles.load(project / "a.pdf")
    header = (project / "old.star").read_text().split("000001@")[0]
    (project / "old.star").write_text(header)
    with pytest.raises(InputError, match="holds no particles"):
        Particles.load(project / "old.star")
    (project / "list.txt").write_text("\n")
    with pytest.raises(InputError, match="lists no stacks"):
        Particles.load(project / "list.txt")


def test_oblong_images_and_single_pixels_are_refused(tmp_path, stack):
    stack(tmp_path / "a.mrcs", 2, 1)
    with pytest.raises(InputError, match="2 pixels or more, found 1"):
        Particles.load(tmp_path / "a.mrcs")
    with mrcfile.new(tmp_path / "b.mrcs") as mrc:
        mrc.set_data(np.zeros((2, 4, 6), dtype=np.float32))
    with pytest.raises(InputError, match="square images, found 6 x 4"):
        Particles.load(tmp_path / "b.mrcs")


def test_a_contradicting_pixel_size_is_refused(project):
    with pytest.raises(InputError, match=r"1\.5 A, but --pixel-size says 2 A"):
        Particles.load(project / "new.star", pixel_size_angstrom=2.0)


@pytest.mark.parametrize("gap", [0, -1])
def test_pixel_sizes_that_are_known_are_checked_beside_gaps(
    sparc, cryosparc_table, gap
):
    path = sparc / "J1" / "particles.cs"
    sizes = np.array([1.5, gap, 1.5], dtype="f4")
    write_cs(path, cryosparc_table(**{"blob/psize_A": sizes}))
    assert Particles.load(path).optics.pixel_size_angstrom.tolist() == [1.5] * 3
    with pytest.raises(InputError, match=r"1\.5 A, but --pixel-size says 2 A"):
        Particles.load(path, pixel_size_angstrom=2.0)
    sizes[0] = 1e6
    write_cs(path, cryosparc_table(**{"blob/psize_A": sizes}))
    with pytest.raises(InputError, match=r"found 1e\+06 A in the metadata"):
        Particles.load(path)
    (found,) = [f for f in check(path) if f.severity == "error"]
    assert "found 1e+06 A in the metadata" in found.message


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((1.5, 1.5009), None),  # of a header with four digits
        ((1.5, 1.503), "there is several"),
        ((1.5, 0.0), "there is several"),
        ((0.0, 0.0), "none that can be used"),
    ],
)
def test_headers_share_a_pixel_size_but_for_rounding(tmp_path, stack, sizes, message):
    for name, size in zip("ab", sizes, strict=True):
        stack(tmp_path / f"{name}.mrcs", 2, 8, size)
    (tmp_path / "list.txt").write_text("a.mrcs\nb.mrcs\n")
    if message is None:
        assert len(Particles.load(tmp_path / "list.txt")) == 4
    else:
        with pytest.raises(InputError, match=message):
            Particles.load(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("rlnBeamTiltX", "0.1"),
        ("rlnOddZernike", "[0,0.5,0]"),
        ("rlnEvenZernike", "[1]"),
    ],
)
def test_aberrations_without_a_ctf_are_refused_unless_ignored(project, column, value):
    path = edit(project / "new.star", "_userCode", f"_{column}")
    edit(path, "_rlnDefocusU", "_userDefocus")
    for code in ("007", "008", "009"):
        edit(path, f" {code}\n", f" {value}\n")
    with pytest.raises(UnsupportedError, match=f"aberrations.*{column}"):
        Particles.load(path)
    assert len(Particles.load(path, ignore=["aberrations"])) == 3
    for _ in range(3):
        edit(path, f" {value}\n", " 0\n")
    assert len(Particles.load(path)) == 3


@pytest.mark.parametrize("value", ["[0,x]", "[nan]", "[0.1;2]"])
def test_lists_of_coefficients_have_to_be_lists(project, value):
    path = edit(project / "new.star", "_userCode", "_rlnOddZernike")
    for code in ("007", "008", "009"):
        edit(path, f" {code}\n", f" {value}\n")
    with pytest.raises(InputError, match="rlnOddZernike must hold a list"):
        Particles.load(path)


def test_subtomograms_are_refused_whatever_is_ignored(project):
    path = edit(project / "new.star", "1.5 8 2", "1.5 8 3")
    with pytest.raises(UnsupportedError, match="Such data cannot be used"):
        Particles.load(path)
    with pytest.raises(InputError, match="Cannot ignore subtomograms"):
        Particles.load(path, ignore=["subtomograms"])
    with pytest.raises(
        InputError, match="Cannot ignore nonsense: --ignore takes some of"
    ):
        Particles.load(project / "old.star", ignore=["nonsense"])
    with pytest.raises(InputError, match="Cannot ignore nonsense"):
        Particles.load(project / "a.mrcs", ignore=["nonsense"])
    (finding,) = check(project / "old.star", ignore=["nonsense"])
    assert "Cannot ignore nonsense" in finding.message
