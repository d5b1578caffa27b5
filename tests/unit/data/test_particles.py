import pickle

import mrcfile
import pytest
import roma
import torch

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, MissingFileError


def edit(path, old, new):
    path.write_text(path.read_text().replace(old, new))
    return path


def rows(*values):
    return torch.tensor(values)


def close(found, wanted, **tolerance):
    wanted = torch.as_tensor(wanted, dtype=torch.float64)
    tolerance = tolerance or {"atol": 1e-9, "rtol": 0}
    torch.testing.assert_close(found.double(), wanted, **tolerance)


def angles_of(pose):
    matrices = roma.rotmat_to_euler("ZYZ", pose.rotation.mT, degrees=True)
    return torch.as_tensor(matrices)


def test_relion_31_is_translated(project):
    particles = Particles.load(project / "new.star")
    optics, pose = particles.optics, particles.pose
    assert len(particles) == 3
    assert particles.has_ctf
    assert (particles.box, particles.boxes.tolist()) == (8, [8, 8, 6])
    assert particles.pixel_size_angstrom == 1.5
    close(optics.pixel_size_angstrom, [1.5, 1.5, 2.0])
    close(optics.voltage_kv, [300, 300, 200])
    close(optics.cs_mm, [2.7, 2.7, 1.4])
    close(optics.amplitude_contrast, [0.1, 0.1, 0.07])
    close(optics.defocus_u_angstrom, [10000, 11000, 12000])
    close(optics.defocus_v_angstrom, [9000, 9500, 9900])
    close(torch.rad2deg(optics.defocus_angle_radian), [30, 40, 50])
    close(torch.rad2deg(optics.phase_shift_radian), [0, 0, 90])
    close(optics.bfactor_angstrom2, [0, 5, 0])
    close(optics.scale, [1, 0.9, 1])
    assert optics.group.tolist() == [1, 1, 0]
    close(angles_of(pose), [[10, 20, 30], [40, 50, 60], [70, 80, 90]])
    # The particle is displaced by the negative of RELION's origin.
    close(pose.shift_angstrom, [[-1.5, 2.5], [0, 0], [3, -4]])
    assert particles.random_subset.tolist() == [1, 2, 1]


def test_relion_30_is_translated(project):
    particles = Particles.load(project / "old.star")
    # 6 micrometres of the detector, magnified 40000 times.
    close(particles.optics.pixel_size_angstrom, [1.5, 1.5])
    # Origins in pixels.
    close(particles.pose.shift_angstrom, [[-1.5, 3.0], [-0.75, 0.0]])
    assert particles.optics.group.tolist() == [0, 0]
    assert particles.random_subset is None


def test_images_are_the_rows_that_the_names_say(project):
    particles = Particles.load(project / "new.star")
    with mrcfile.open(project / "a.mrcs") as mrc:
        wanted = torch.from_numpy(mrc.data[[2, 0]].copy())
    assert torch.equal(particles.images(rows(1, 0)), wanted)
    batch = particles.batch(rows(2))
    assert batch.images.shape == (1, 6, 6)
    assert batch.optics.voltage_kv.tolist() == [200]
    assert batch.index.tolist() == [2]


def test_images_of_one_box_at_a_time(project):
    particles = Particles.load(project / "new.star")
    with pytest.raises(InputError, match=r"\[6, 8\] pixels cannot be read together"):
        particles.images(rows(0, 2))
    batches = list(particles.batches(1))
    assert [batch.index.tolist() for batch in batches] == [[2], [0], [1]]


def test_images_spread_over_stacks_keep_their_order(tmp_path, stack):
    first = stack(tmp_path / "a.mrcs", 5, 8, seed=1)
    second = stack(tmp_path / "b.mrcs", 5, 8, seed=2)
    (tmp_path / "list.txt").write_text("b.mrcs\n\na.mrcs\n")
    particles = Particles.load(tmp_path / "list.txt")
    assert not particles.has_ctf
    assert particles.pose is None
    index = rows(7, 1, 9, 0, 5)
    wanted = torch.stack([first[2], second[1], first[4], second[0], first[0]])
    assert torch.equal(particles.images(index), wanted)


def test_a_bare_stack_needs_only_a_pixel_size(tmp_path, stack):
    images = stack(tmp_path / "a.mrcs", 3, 8, 1.25)
    particles = Particles.load(tmp_path / "a.mrcs")
    assert particles.pixel_size_angstrom == 1.25
    assert torch.equal(particles.images(torch.arange(3)), images)
    close(particles.optics.amplitude_contrast, [1, 1, 1])
    stack(tmp_path / "a.mrcs", 3, 8, 0.0)
    with pytest.raises(InputError, match="Give --pixel-size"):
        Particles.load(tmp_path / "a.mrcs")
    particles = Particles.load(tmp_path / "a.mrcs", pixel_size_angstrom=2.0)
    particles.save(tmp_path / "a.star")
    assert Particles.load(tmp_path / "a.star").pixel_size_angstrom == 2.0


def test_a_pixel_size_given_for_old_files_is_written(project):
    edit(project / "old.star", "_rlnDetectorPixelSize", "_other")
    assert Particles.load(project / "old.star").pixel_size_angstrom == 1.5  # header
    particles = Particles.load(project / "old.star", pixel_size_angstrom=3.0)
    close(particles.pose.shift_angstrom[0], [-3.0, 6.0])
    particles.save(project / "out.star")
    assert Particles.load(project / "out.star").pixel_size_angstrom == 3.0


def test_stacks_are_found_from_the_folders_above_and_datadir(project):
    folder = project / "Refine3D" / "job1"
    folder.mkdir(parents=True)
    (folder / "run.star").write_bytes((project / "new.star").read_bytes())
    assert len(Particles.load(folder / "run.star")) == 3
    elsewhere = project / "elsewhere"
    elsewhere.mkdir()
    (project / "a.mrcs").rename(elsewhere / "a.mrcs")
    with pytest.raises(MissingFileError, match=r"1 of 2 stacks.*'a.mrcs'.*--datadir"):
        Particles.load(folder / "run.star")
    assert len(Particles.load(folder / "run.star", datadir=elsewhere)) == 3


def test_particles_travel_to_other_processes(project):
    particles = pickle.loads(pickle.dumps(Particles.load(project / "new.star")))
    assert particles.images(rows(0)).shape == (1, 8, 8)


def test_without_a_defocus_there_is_no_ctf(project):
    path = edit(project / "new.star", "_rlnDefocusU", "_other")
    particles = Particles.load(path)
    assert not particles.has_ctf
    close(particles.optics.amplitude_contrast, [1, 1, 1])
    close(particles.optics.pixel_size_angstrom, [1.5, 1.5, 2.0])
    particles.save(project / "out.star")
    assert "300" in (project / "out.star").read_text()
    assert not Particles.load(project / "out.star").has_ctf
