import numpy as np
import pytest
import roma
import torch

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, OutputError
from cryoinfer.io.star import read_star
from cryoinfer.records import Pose


def rows(*values):
    return torch.tensor(values)


def close(found, wanted, **tolerance):
    wanted = torch.as_tensor(wanted, dtype=torch.float64)
    tolerance = tolerance or {"atol": 1e-9, "rtol": 0}
    torch.testing.assert_close(found.double(), wanted, **tolerance)


def test_a_star_file_keeps_what_is_not_understood(project):
    Particles.load(project / "new.star").save(project / "out.star")
    before, after = read_star(project / "new.star"), read_star(project / "out.star")
    # RELION's own order: optics first.
    assert [block.name for block in after.blocks] == ["optics", "particles", "extra"]
    assert after.version == 30001
    for block in before.blocks:
        found = after.get(block.name)
        assert list(found.columns) == list(block.columns)
        for label, values in block.columns.items():
            assert found.columns[label].tolist() == values.tolist()


def test_tables_of_one_name_stay_together(project):
    # Without its head the last pair belongs to the optics, which go to the front.
    path = project / "new.star"
    path.write_text(path.read_text().replace("data_extra\n", ""))
    Particles.load(path).save(project / "out.star")
    after = read_star(project / "out.star")
    assert [block.name for block in after.blocks] == ["optics", "optics", "particles"]
    assert after.blocks[1].columns["kept"].tolist() == ["yes"]
    assert len(Particles.load(project / "out.star")) == 3


def test_results_are_written_in_relions_terms(project):
    particles = Particles.load(project / "new.star")
    generator = torch.Generator().manual_seed(0)
    rotation = roma.special_gramschmidt(
        torch.randn(3, 3, 3, dtype=torch.float64, generator=generator)
    )
    pose = Pose(rotation, torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
    found = particles.with_results(
        pose=pose,
        defocus_offset_angstrom=torch.tensor([100.0, 0.0, -50.0]),
        random_subset=torch.tensor([2, 1, 2]),
        columns={
            "rlnLogLikeliContribution": torch.tensor([1.25, 2.5, 3.75]),
            "cryoinferRotationSdDegrees": np.array([1e-7, 1.0, 2.0]),
            "cryoinferModes": np.array([1, 2, 3]),
        },
    )
    # Immutable: the first object still has what was read.
    assert particles.optics.defocus_u_angstrom[0] == 10000
    close(found.optics.defocus_v_angstrom, [9100, 9500, 9850])
    found.save(project / "out.star")
    table = read_star(project / "out.star").get("particles")
    close(torch.from_numpy(table.numbers("rlnOriginXAngst")), [-1, -3, -5])
    assert table.columns["rlnRandomSubset"].tolist() == ["2", "1", "2"]
    assert table.columns["cryoinferModes"].tolist() == ["1", "2", "3"]
    assert table.numbers("cryoinferRotationSdDegrees").tolist() == [1e-7, 1.0, 2.0]
    assert table.columns["userCode"].tolist() == ["007", "008", "009"]
    again = Particles.load(project / "out.star")
    # Angles are written with six decimals: half of 1e-6 degrees is 9e-9 radians,
    # and three angles add up.
    close(again.pose.rotation, pose.rotation, atol=3e-8, rtol=0)
    close(again.pose.shift_angstrom, pose.shift_angstrom.double(), atol=1e-6, rtol=0)
    close(again.optics.defocus_u_angstrom, [10100, 11000, 11950])


def test_results_of_old_files_stay_in_pixels(project):
    particles = Particles.load(project / "old.star")
    pose = Pose(particles.pose.rotation, torch.tensor([[3.0, -1.5], [0.0, 0.0]]))
    particles.with_results(pose=pose).save(project / "out.star")
    table = read_star(project / "out.star").blocks[0]
    assert table.numbers("rlnOriginX").tolist() == [-2.0, 0.0]
    assert table.numbers("rlnOriginY").tolist() == [1.0, 0.0]
    assert "rlnOriginXAngst" not in table


def test_results_of_another_length_are_refused(project):
    particles = Particles.load(project / "new.star")
    with pytest.raises(ValueError, match="expected 3 values, got 2"):
        particles.with_results(random_subset=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="column x: expected shape"):
        particles.with_results(columns={"x": np.zeros(2)})


def test_particles_are_selected_by_number_and_by_mask(project):
    particles = Particles.load(project / "new.star")
    images = particles.images(rows(2))
    for index in (rows(2, 1), torch.tensor([False, True, True])):
        part = particles.select(index)
        where = index.tolist().index(2) if index.dtype != torch.bool else 1
        assert len(part) == 2
        assert torch.equal(part.images(rows(where)), images)
        part.save(project / "part.star")
        again = Particles.load(project / "part.star")
        assert torch.equal(again.images(rows(where)), images)
        assert again.optics.voltage_kv[where] == 200
        # The block of the optics stays whole.
        assert len(read_star(project / "part.star").get("optics")) == 2


def test_stacks_are_found_from_wherever_the_file_is_written(project, tmp_path_factory):
    particles = Particles.load(project / "new.star")
    inside, outside = project / "out", tmp_path_factory.mktemp("outside")
    inside.mkdir()
    particles.save(inside / "p.star")
    particles.save(outside / "p.star")
    # Below the project's root names stay; RELION resolves them from that root.
    names = read_star(inside / "p.star").get("particles").columns["rlnImageName"]
    assert names[0] == "000001@a.mrcs"
    names = read_star(outside / "p.star").get("particles").columns["rlnImageName"]
    assert names[0].startswith("000001@../")
    for folder in (inside, outside):
        again = Particles.load(folder / "p.star")
        assert torch.equal(again.images(rows(0, 1)), particles.images(rows(0, 1)))
    with pytest.raises(OutputError, match="Cannot write"):
        particles.save(project / "none" / "p.star")
    with pytest.raises(InputError, match=r"expected \.star or \.cs"):
        particles.save(project / "p.txt")


@pytest.mark.parametrize("kept", ["X", "Y"])
@pytest.mark.parametrize("unit", ["Angst", ""])
@pytest.mark.parametrize("name", ["old.star", "new.star"])
def test_shifts_are_read_back_where_a_file_has_origins_of_one_axis(
    project, name, unit, kept
):
    text = (project / name).read_text()
    for axis in "XY":
        for old in ("Angst", ""):
            label = f"rlnOrigin{axis}{unit}" if axis == kept else f"other{axis}"
            text = text.replace(f"_rlnOrigin{axis}{old} ", f"_{label} ")
    (project / name).write_text(text)
    particles = Particles.load(project / name)
    assert bool((particles.pose.shift_angstrom[:, "XY".index(kept)] != 0).any())
    shift = torch.arange(2.0 * len(particles)).reshape(-1, 2).double() + 0.5
    pose = Pose(particles.pose.rotation, shift)
    particles.with_results(pose=pose).save(project / "out.star")
    found = Particles.load(project / "out.star").pose.shift_angstrom
    torch.testing.assert_close(found, shift, atol=2e-6, rtol=0)
