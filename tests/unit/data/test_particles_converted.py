from pathlib import Path

import mrcfile
import numpy as np
import pytest
import roma
import torch
from numpy.lib import recfunctions

from cryoinfer.data.check import check
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, MissingFileError, UnsupportedError
from cryoinfer.io.cryosparc import read_cs, write_cs
from cryoinfer.io.star import read_star
from cryoinfer.records import Pose

REAL_FILES = Path(__file__).parents[4] / "shared/data/stacks"


def edit(path, old, new):
    path.write_text(path.read_text().replace(old, new))
    return path


def rows(*values):
    return torch.tensor(values)


def close(found, wanted, **tolerance):
    wanted = torch.as_tensor(wanted, dtype=torch.float64)
    tolerance = tolerance or {"atol": 1e-9, "rtol": 0}
    torch.testing.assert_close(found.double(), wanted, **tolerance)


# What float32, in which cryoSPARC stores everything, does to each quantity.
FLOAT32 = {
    "pixel_size_angstrom": 2e-7,
    "voltage_kv": 1e-5,
    "cs_mm": 1e-6,
    "amplitude_contrast": 1e-7,
    "defocus_u_angstrom": 1e-3,
    "defocus_v_angstrom": 1e-3,
    "defocus_angle_radian": 1e-7,
    "phase_shift_radian": 1e-7,
    "bfactor_angstrom2": 1e-6,
    "scale": 1e-6,
}


def assert_same_particles(found, wanted):
    for name, tolerance in FLOAT32.items():
        values = getattr(wanted.optics, name)
        close(getattr(found.optics, name), values, atol=tolerance, rtol=0)
    # A float32 rotation vector of length up to pi, then angles with six decimals.
    close(found.pose.rotation, wanted.pose.rotation, atol=5e-7, rtol=0)
    close(found.pose.shift_angstrom, wanted.pose.shift_angstrom, atol=2e-6, rtol=0)
    assert torch.equal(found.random_subset, wanted.random_subset)
    assert torch.equal(found.table.class_number, wanted.table.class_number)
    for box in wanted.boxes.unique():
        index = torch.nonzero(wanted.boxes == box).squeeze(1)
        assert torch.equal(found.images(index), wanted.images(index))
    # Groups may be numbered anew, but the same particles share one.
    pairs = {
        (a, b)
        for a, b in zip(
            found.optics.group.tolist(), wanted.optics.group.tolist(), strict=True
        )
    }
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def test_from_relion_to_cryosparc_and_back(project):
    particles = Particles.load(project / "new.star").with_results(
        columns={"cryoinferRotationSdDegrees": np.array([0.5, 1.0, 2.0])}
    )
    particles.save(project / "a.cs")
    between = Particles.load(project / "a.cs")
    assert_same_particles(between, particles)
    between.save(project / "back.star")
    again = Particles.load(project / "back.star")
    assert_same_particles(again, particles)
    results = read_star(project / "back.star").get("particles")
    assert results.numbers("cryoinferRotationSdDegrees").tolist() == [0.5, 1.0, 2.0]


def test_cryosparc_fields_have_cryosparcs_conventions(project):
    Particles.load(project / "new.star").save(project / "a.cs")
    table = read_cs(project / "a.cs")
    assert len(np.unique(table["uid"])) == 3
    assert table["blob/path"].tolist() == [b"a.mrcs", b"a.mrcs", b"b.mrcs"]
    assert table["blob/idx"].tolist() == [0, 2, 1]  # from 0
    assert table["blob/shape"].tolist() == [[8, 8], [8, 8], [6, 6]]
    assert table["blob/sign"].tolist() == [1, 1, 1]
    # RELION's sign, in pixels.
    np.testing.assert_allclose(
        table["alignments3D/shift"], [[1, -2.5 / 1.5], [0, 0], [-1.5, 2]], atol=1e-6
    )
    assert table["alignments3D/split"].tolist() == [0, 1, 0]
    assert table["alignments3D/class"].tolist() == [1, 0, 0]
    # The rotation of the stored vector is the transpose of RELION's matrix.
    vector = torch.from_numpy(table["alignments3D/pose"].astype(np.float64))
    wanted = Particles.load(project / "new.star").pose.rotation.mT
    close(roma.rotvec_to_rotmat(vector), wanted, atol=5e-7, rtol=0)


def test_cryosparc_is_translated(sparc):
    particles = Particles.load(sparc / "J1" / "particles.cs")
    with mrcfile.open(sparc / "J1" / "extract" / "a.mrcs") as mrc:
        # Particles black on white, as the sign says, are inverted.
        wanted = -torch.from_numpy(mrc.data[[0, 3, 2]].copy())
    assert torch.equal(particles.images(torch.arange(3)), wanted)
    # Shifts count pixels of the box that was aligned, here twice as large.
    close(particles.pose.shift_angstrom, [[-6, 12], [0, 0], [-3, -3]])
    assert particles.random_subset.tolist() == [1, 2, 2]
    assert particles.optics.group.tolist() == [0, 0, 1]
    vector = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
    close(particles.pose.rotation[0], roma.rotvec_to_rotmat(vector)[0].mT)


def test_from_cryosparc_to_relion_and_back(sparc):
    particles = Particles.load(sparc / "J1" / "particles.cs")
    particles.save(sparc / "a.star")
    # RELION has no sign of the images: the scale of the CTF tells it.
    between = Particles.load(sparc / "a.star")
    assert between.optics.scale.tolist() == [-1, -1, -1]
    assert torch.equal(between.images(rows(0)), -particles.images(rows(0)))
    table = read_star(sparc / "a.star").get("particles")
    assert table.columns["rlnMicrographName"].tolist() == ["m1.mrc", "m1.mrc", "m2.mrc"]
    assert table.columns["rlnClassNumber"].tolist() == ["1", "1", "3"]
    between.save(sparc / "back.cs")
    assert_same_particles(Particles.load(sparc / "back.cs"), particles)
    assert read_cs(sparc / "back.cs")["blob/sign"].tolist() == [-1, -1, -1]


def test_results_are_written_in_cryosparcs_terms(sparc):
    particles = Particles.load(sparc / "J1" / "particles.cs")
    generator = torch.Generator().manual_seed(0)
    rotation = roma.special_gramschmidt(
        torch.randn(3, 3, 3, dtype=torch.float64, generator=generator)
    )
    pose = Pose(rotation, torch.tensor([[1.5, 0.0], [0.0, 3.0], [1.0, 1.0]]))
    found = particles.with_results(
        pose=pose,
        defocus_offset_angstrom=torch.tensor([10.0, 0.0, 0.0]),
        random_subset=torch.tensor([2, 2, 1]),
        columns={"cryoinferRotationSdDegrees": np.array([1.0, 2.0, 3.0])},
    )
    found.save(sparc / "out.cs")
    table = read_cs(sparc / "out.cs")
    assert table["uid"].tolist() == [7, 5, 9]
    assert table["alignments3D/split"].tolist() == [1, 1, 0]
    assert table["alignments3D/shift"][0].tolist() == [-1.0, 0.0]
    assert table["ctf/df1_A"].tolist() == [16422, 16000, 9000]
    column = table["cryoinfer/cryoinferRotationSdDegrees"]
    assert column.tolist() == [1.0, 2.0, 3.0]
    again = Particles.load(sparc / "out.cs")
    close(again.pose.rotation, pose.rotation, atol=5e-7, rtol=0)
    close(again.pose.shift_angstrom, pose.shift_angstrom, atol=1e-6, rtol=0)


def test_a_cs_file_keeps_all_fields(sparc):
    Particles.load(sparc / "J1" / "particles.cs").save(sparc / "J1" / "out.cs")
    before = read_cs(sparc / "J1" / "particles.cs")
    after = read_cs(sparc / "J1" / "out.cs")
    assert after.dtype == before.dtype
    assert np.array_equal(after, before)


def test_metadata_in_passthrough_tables(sparc, cryosparc_table):
    whole = cryosparc_table()
    mine = [name for name in whole.dtype.names if not name.startswith("blob")]
    rest = ["uid", *(name for name in whole.dtype.names if name.startswith("blob"))]
    path = sparc / "J1" / "particles.cs"
    write_cs(path, whole[mine])
    write_cs(sparc / "other.cs", whole[rest][[2, 0, 1]])
    with pytest.raises(InputError, match=r"lacks blob/path, blob/idx.*passthrough"):
        Particles.load(path)
    particles = Particles.load(path, passthrough=[sparc / "other.cs"])
    assert particles.table.images.row.tolist() == [0, 3, 2]
    (sparc / "other.cs").rename(sparc / "J1" / "J1_passthrough_particles.cs")
    assert Particles.load(path).table.images.row.tolist() == [0, 3, 2]


def test_a_ctf_in_a_table_that_is_not_used_is_told(sparc, cryosparc_table):
    whole = cryosparc_table()
    rest = ["uid", *(name for name in whole.dtype.names if name.startswith("ctf"))]
    path, beside = sparc / "J1" / "p.cs", sparc / "J1" / "J1_passthrough_particles.cs"
    write_cs(path, whole[[name for name in whole.dtype.names if name not in rest[1:]]])
    write_cs(beside, whole[rest])
    particles = Particles.load(path)
    assert particles.has_ctf
    assert particles.remarks == ()
    write_cs(beside, whole[rest][:2])
    particles = Particles.load(path)
    assert not particles.has_ctf
    (remark,) = particles.remarks
    assert "J1_passthrough_particles.cs in its folder" in remark
    assert remark in [f.message for f in check(path) if f.severity == "warning"]
    with pytest.raises(InputError, match="does not hold every particle"):
        Particles.load(path, passthrough=[beside])


def test_aberrations_without_a_ctf_are_refused(sparc, cryosparc_table):
    path = sparc / "J1" / "particles.cs"
    for field, size in {"ctf/trefoil_A": 2, "ctf/tetra_A": 4, "ctf/tilt_A": 2}.items():
        table = cryosparc_table(**{field: np.full((3, size), 0.1, dtype="f4")})
        write_cs(path, table)
        assert len(Particles.load(path)) == 3
        write_cs(path, recfunctions.drop_fields(table, "ctf/df1_A"))
        with pytest.raises(UnsupportedError, match=f"aberrations.*{field}"):
            Particles.load(path)
        assert len(Particles.load(path, ignore=["aberrations"])) == 3


def test_a_cryosparc_stack_called_mrc_is_marked_for_relion(sparc, cryosparc_table):
    folder = sparc / "J1"
    (folder / "extract" / "a.mrcs").rename(folder / "extract" / "a.mrc")
    path = np.array([b"J1/extract/a.mrc"] * 3)
    write_cs(folder / "particles.cs", cryosparc_table(**{"blob/path": path}))
    particles = Particles.load(folder / "particles.cs")
    particles.save(sparc / "a.star")
    names = read_star(sparc / "a.star").get("particles").columns["rlnImageName"]
    assert names[1] == "000004@J1/extract/a.mrc:mrcs"
    Particles.load(sparc / "a.star").save(sparc / "b.cs")
    assert read_cs(sparc / "b.cs")["blob/path"][0] == b"J1/extract/a.mrc"
    assert_same_particles(Particles.load(sparc / "b.cs"), particles)


def test_the_same_image_twice_has_two_uids(project):
    edit(project / "new.star", "000003@a.mrcs", "000001@a.mrcs")
    Particles.load(project / "new.star").save(project / "a.cs")
    assert len(np.unique(read_cs(project / "a.cs")["uid"])) == 3


@pytest.mark.skipif(
    not REAL_FILES.is_dir(),
    reason=f"the files of other programs are not at {REAL_FILES}",
)
class TestRealFiles:
    @pytest.mark.parametrize(
        ("name", "n", "box"),
        [
            ("cryodrgn/relion31.star", 5, 256),
            ("cryodrgn/relion31.v2.star", 5, 256),
            ("cryodrgn/toy.star", 1000, 30),
            ("cryodrgn/toy_projections.star", 1000, 30),
            ("cryodrgn/toy_projections.txt", 1000, 30),
            ("cryodrgn/hand.mrcs", 100, 64),
            ("aspire/rln_proj_64_centered.star", 4, 64),
            ("aspire/rln_proj_64_shifted.star", 4, 64),
        ],
    )
    def test_particles_load_and_survive_both_formats(self, tmp_path, name, n, box):
        particles = Particles.load(REAL_FILES / name)
        assert (len(particles), particles.box) == (n, box)
        index = torch.arange(min(n, 10))
        for output in ("a.star", "a.cs"):
            particles.save(tmp_path / output)
            again = Particles.load(tmp_path / output)
            assert torch.equal(again.images(index), particles.images(index))
            # float32 of ten thousand angstrom.
            close(
                again.optics.defocus_u_angstrom,
                particles.optics.defocus_u_angstrom,
                atol=1e-3,
                rtol=0,
            )

    @pytest.mark.parametrize(
        ("name", "error", "message"),
        [
            ("cryodrgn/relion5.star", MissingFileError, "stacks"),
            ("cryodrgn/toy_projections_13.star", InputError, "300 pixels"),
            ("cryodrgn/cryosparc_J2_particles_exported.cs", MissingFileError, "1 of 1"),
            ("cryosparc/cryosparc_P9_J209_000_volume_map.cs", InputError, "blob/path"),
            ("star/iospi_test.star", MissingFileError, "6 of 6 stacks"),
            ("star/one_loop.star", UnsupportedError, "subtomograms"),
            ("star/two_basic_blocks.star", InputError, "rlnImageName"),
            ("star/cryojax_000000.mrcs", InputError, "--pixel-size"),
            ("aspire/rln_proj_64.star", InputError, "--pixel-size"),
            ("xmipp/smallStack.stk", InputError, "expected particles as"),
        ],
    )
    def test_what_cannot_be_used_is_refused(self, name, error, message):
        with pytest.raises(error, match=message):
            Particles.load(REAL_FILES / name)


@pytest.mark.parametrize("sign", [1, -1])
def test_particles_without_a_ctf_get_none(sparc, cryosparc_table, sign):
    particles = Particles.load(sparc / "J1" / "extract" / "a.mrcs")
    particles.save(sparc / "J1" / "bare.cs")
    again = Particles.load(sparc / "J1" / "bare.cs")
    assert not again.has_ctf
    assert not [x for x in read_cs(sparc / "J1" / "bare.cs").dtype.names if "df1" in x]
    assert torch.equal(again.images(rows(0, 1)), particles.images(rows(0, 1)))
    # Nor do those of cryoSPARC that went through RELION's format.
    whole = cryosparc_table(**{"blob/sign": np.full(3, sign, dtype="f4")})
    kept = [name for name in whole.dtype.names if not name.startswith("ctf/")]
    write_cs(sparc / "J1" / "none.cs", whole[kept])
    Particles.load(sparc / "J1" / "none.cs").save(sparc / "J1" / "a.star")
    between = Particles.load(sparc / "J1" / "a.star")
    between.save(sparc / "J1" / "b.cs")
    found = Particles.load(sparc / "J1" / "b.cs")
    assert found.has_ctf == between.has_ctf == (sign < 0)
    wanted = Particles.load(sparc / "J1" / "none.cs").images(rows(0, 1))
    assert torch.equal(found.images(rows(0, 1)), wanted)


def test_a_damaged_table_beside_particles_is_passed_over_and_told(sparc):
    path, beside = sparc / "J1" / "p.cs", sparc / "J1" / "J1_passthrough_particles.cs"
    (sparc / "J1" / "particles.cs").rename(path)
    beside.write_bytes(b"no table")
    particles = Particles.load(path)
    assert len(particles) == 3
    (remark,) = particles.remarks
    assert "J1_passthrough_particles.cs is not a cryoSPARC .cs table" in remark
    assert "is in the folder of p.cs, and is skipped" in remark
    assert remark in [f.message for f in check(path) if f.severity == "warning"]
    assert particles.select(rows(0)).remarks == (remark,)
    # One that the user names must be whole.
    with pytest.raises(InputError, match="is not a cryoSPARC"):
        Particles.load(path, passthrough=[beside])
