import io
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from cryoinfer.cli import map_files
from cryoinfer.cli.map_files import FlipOptions, flip
from cryoinfer.cli.particle_options import ParticleOptions
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, OutputError
from cryoinfer.geometry.hand import mirror_density
from cryoinfer.geometry.rotations import random_rotations, rotate_in_image_frame
from cryoinfer.io.mrc import read_map, write_map
from cryoinfer.physics.structures.volume import VoxelVolume
from cryoinfer.records import Pose
from cryoinfer.results.posterior_files import Posteriors
from cryoinfer.results.run_record import RunRecord
from cryoinfer.results.run_result import RunResult


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_mirrored_map_and_poses_give_the_same_images(
    tmp_path: Path, simulated: Path
) -> None:
    density = torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(2))
    density[0] = 0  # this slice has no partner on the other side of the centre
    write_map(tmp_path / "map.mrc", density, 6.4)
    flip(
        FlipOptions(tmp_path / "map.mrc", tmp_path / "out", simulated / "truth.star"),
        console(),
    )
    images = []
    for map_path, star in (
        (tmp_path / "map.mrc", simulated / "truth.star"),
        (tmp_path / "out" / "map.mrc", tmp_path / "out" / "particles.star"),
    ):
        pose = Particles.load(star).pose
        assert pose is not None
        volume = VoxelVolume(torch.tensor(read_map(map_path).density), 6.4)
        images.append(volume.project(pose[:20], 16, 6.4))
    # Angles are written with six decimals; slices are float32.
    error = images[1] - images[0]
    assert float(error.abs().max()) < 1e-4 * float(images[0].std())


def test_mirrored_posteriors_describe_the_mirrored_poses(result: RunResult) -> None:
    n = 5
    generator = torch.Generator().manual_seed(1)
    rotation = random_rotations(n, generator)
    vector = 0.1 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    pose = Pose(rotation, torch.zeros(n, 2).double())
    # A covariance of one direction, but for the 1e-9 that makes it one: its own
    # mirror image must follow the pose's.
    full = torch.zeros(n, 6, 6).double()
    full[:, :3, :3] = vector[:, :, None] * vector[:, None]
    full[:, :3, :3] += 1e-9 * torch.eye(3).double()
    first = replace(result.latents[:n], pose=pose)
    few = replace(result.inferred[:n].with_first_mode(first), covariance=full[:, None])
    mirrored = map_files._mirror_posteriors(
        Posteriors.of(replace(result, inferred=few))
    )
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0])).double()
    moved = mirror @ rotate_in_image_frame(rotation, vector) @ mirror
    signed = vector * torch.tensor([-1.0, -1.0, 1.0])
    expected = rotate_in_image_frame(mirror @ rotation @ mirror, signed)
    torch.testing.assert_close(moved, expected)
    torch.testing.assert_close(
        mirrored.covariance()[:, :3, :3],
        signed[:, :, None] * signed[:, None],
        rtol=1e-6,  # float32
        atol=1e-8,
    )


def test_a_map_alone_goes_to_a_file(tmp_path: Path, simulated: Path) -> None:
    target = tmp_path / "absent" / "folder" / "flipped.mrc"
    flip(FlipOptions(simulated / "truth.mrc", target), console())
    found, source = read_map(target), read_map(simulated / "truth.mrc")
    assert found.pixel_size_angstrom == pytest.approx(source.pixel_size_angstrom)
    mirrored = mirror_density(torch.tensor(source.density))
    assert torch.equal(torch.tensor(found.density), mirrored)
    with pytest.raises(OutputError, match="exists"):
        flip(FlipOptions(simulated / "truth.mrc", target), console())


def test_what_cannot_be_flipped_is_refused(tmp_path: Path, simulated: Path) -> None:
    truth, particles = simulated / "truth.mrc", simulated / "particles.star"
    with pytest.raises(InputError, match="no poses"):
        flip(FlipOptions(truth, tmp_path / "a", particles), console())
    with pytest.raises(OutputError, match="give a folder"):
        flip(FlipOptions(truth, tmp_path / "a.mrc", particles), console())
    with pytest.raises(InputError, match="not the folder of a run"):
        flip(FlipOptions(simulated, tmp_path / "b"), console())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("link", ["same", "symbolic", "hard"])
def test_no_flip_writes_over_what_it_reads(
    tmp_path: Path, simulated: Path, link: str
) -> None:
    source, out = tmp_path / "map.mrc", tmp_path / "out.mrc"
    shutil.copyfile(simulated / "truth.mrc", source)
    shutil.copyfile(simulated / "truth.star", tmp_path / "particles.star")
    shutil.copyfile(simulated / "particles.mrcs", tmp_path / "particles.mrcs")
    if link == "same":
        out = source
    elif link == "symbolic":
        out.symlink_to(source)
    else:
        out.hardlink_to(source)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputError, match="is what is read"):
        flip(FlipOptions(source, out, overwrite=True), console())
    # A folder whose map or particles are the input.
    for map_path in (source, simulated / "truth.mrc"):
        options = FlipOptions(
            map_path, tmp_path, tmp_path / "particles.star", overwrite=True
        )
        with pytest.raises(OutputError, match="is what is read"):
            flip(options, console())
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_that_cannot_be_read_leaves_the_folder_as_it_is(
    tmp_path: Path, simulated: Path
) -> None:
    source, out = tmp_path / "run", tmp_path / "out"
    for folder in (source, out):
        folder.mkdir()
        record = RunRecord.of_now("refine", {}, {}, 0, 1)
        replace(record, status="finished").write(folder)
        shutil.copyfile(simulated / "truth.mrc", folder / "map.mrc")
    shutil.copyfile(simulated / "truth.star", source / "particles.star")
    shutil.copyfile(simulated / "particles.mrcs", source / "particles.mrcs")
    before = {path: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(InputError, match=r"half1\.mrc"):
        flip(FlipOptions(source, out, overwrite=True), console())
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    with pytest.raises(OutputError, match="is the run itself"):
        flip(FlipOptions(source, source, overwrite=True), console())
    with pytest.raises(OutputError, match="already holds a run") as caught:
        flip(FlipOptions(source, out), console())
    assert "--resume" not in str(caught.value)


def test_a_map_without_a_voxel_size_gets_one(tmp_path: Path, simulated: Path) -> None:
    source, out = tmp_path / "map.mrc", tmp_path / "out.mrc"
    write_map(source, read_map(simulated / "truth.mrc").density, 0.0)
    with pytest.raises(InputError, match=r"Give --map-pixel-size\."):
        flip(FlipOptions(source, out), console())
    flip(FlipOptions(source, out, map_pixel_size=2.5), console())
    assert read_map(out).pixel_size_angstrom == 2.5
    of_particles = ParticleOptions(pixel_size=1.5)
    flip(FlipOptions(source, out, overwrite=True, reading=of_particles), console())
    assert read_map(out).pixel_size_angstrom == 1.5


def test_options_that_say_nothing_of_the_source_are_refused(
    tmp_path: Path, finished: Path, simulated: Path
) -> None:
    truth, out = simulated / "truth.mrc", tmp_path / "out"
    with pytest.raises(InputError, match="--map-pixel-size goes with a map"):
        flip(FlipOptions(finished, out, map_pixel_size=2.0), console())
    tables = ParticleOptions(passthrough=(tmp_path / "a.cs",))
    with pytest.raises(InputError, match=r"--passthrough goes with a \.cs file"):
        flip(FlipOptions(finished, out, reading=tables), console())
    with pytest.raises(InputError, match="options about particles are given"):
        flip(FlipOptions(truth, out, reading=tables), console())
    assert not out.exists()
    flip(FlipOptions(truth, out, map_pixel_size=2.0), console())
