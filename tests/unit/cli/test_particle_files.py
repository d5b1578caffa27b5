import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cryoinfer.cli import particle_files
from cryoinfer.cli.particle_options import AS_WRITTEN, ParticleOptions
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, OutputError


def check(path: Path, diameter: float | None = None) -> tuple[int, str]:
    screen = Console(file=io.StringIO(), width=200)
    code = particle_files.check(
        path, screen, reading=AS_WRITTEN, particle_diameter=diameter
    )
    assert isinstance(screen.file, io.StringIO)
    return code, screen.file.getvalue()


def test_good_particles_pass(simulated: Path) -> None:
    code, text = check(simulated / "particles.star", 60.0)
    assert code == 0
    assert "120 particles, 16 px of 6.4 A" in text
    assert "error" not in text


@pytest.mark.parametrize(
    ("diameter", "code", "severity"), [(95.0, 0, "warning"), (110.0, 1, "error")]
)
def test_the_box_must_hold_the_particle(
    simulated: Path, diameter: float, code: int, severity: str
) -> None:
    found, text = check(simulated / "particles.star", diameter)
    assert found == code
    assert f"{severity:<8} box:" in text


def test_missing_images_are_errors_and_missing_files_unusable(
    tmp_path: Path, simulated: Path
) -> None:
    star = tmp_path / "particles.star"
    star.write_text((simulated / "particles.star").read_text())
    assert check(star)[0] == 1
    assert check(tmp_path / "nothing.star")[0] == 2


def convert(source: Path, target: Path, overwrite: bool = False) -> None:
    particle_files.convert(
        source,
        target,
        Console(file=io.StringIO()),
        reading=AS_WRITTEN,
        overwrite=overwrite,
    )


def test_converting_there_and_back(tmp_path: Path, simulated: Path) -> None:
    convert(simulated / "truth.star", tmp_path / "a.cs")
    convert(tmp_path / "a.cs", tmp_path / "a.star")
    before, after = (
        Particles.load(path) for path in (simulated / "truth.star", tmp_path / "a.star")
    )
    assert before.pose is not None
    assert after.pose is not None
    # .cs holds float32, .star six decimals of a degree.
    assert float((after.pose.rotation - before.pose.rotation).abs().max()) < 1e-5
    with pytest.raises(OutputError, match="exists"):
        convert(simulated / "truth.star", tmp_path / "a.cs")
    convert(simulated / "truth.star", tmp_path / "a.cs", overwrite=True)
    with pytest.raises(InputError, match=r"expected \.star or \.cs"):
        convert(simulated / "truth.star", tmp_path / "a.csv")


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


@pytest.mark.parametrize("name", ["itself", "symlink", "hard link", "dots"])
@pytest.mark.parametrize("ending", [".star", ".cs"])
def test_converting_never_writes_over_what_is_read(
    tmp_path: Path, simulated: Path, ending: str, name: str
) -> None:
    source = tmp_path / f"a{ending}"
    Particles.load(simulated / "truth.star").save(source)
    target = tmp_path / f"b{ending}"
    if name == "itself":
        target = source
    elif name == "symlink":
        target.symlink_to(source)
    elif name == "hard link":
        target.hardlink_to(source)
    else:
        (tmp_path / "below").mkdir()
        target = tmp_path / "below" / ".." / source.name
    before = content(tmp_path)
    with pytest.raises(OutputError, match="is what is read"):
        convert(source, target, overwrite=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize("link", [True, False])
def test_converting_never_writes_over_a_stack_or_a_table(
    tmp_path: Path, simulated: Path, link: bool
) -> None:
    for name in ("particles.mrcs", "truth.star"):
        (tmp_path / name).write_bytes((simulated / name).read_bytes())
    make = Path.symlink_to if link else Path.hardlink_to
    make(tmp_path / "out.star", tmp_path / "particles.mrcs")
    Particles.load(tmp_path / "truth.star").save(tmp_path / "J1_particles.cs")
    table = tmp_path / "J1_passthrough_particles.cs"
    table.write_bytes((tmp_path / "J1_particles.cs").read_bytes())
    before = content(tmp_path)
    for source, target in (
        ("truth.star", tmp_path / "out.star"),
        ("particles.mrcs", tmp_path / "out.star"),
        ("J1_particles.cs", table),
    ):
        with pytest.raises(OutputError, match="is what is read"):
            convert(tmp_path / source, target, overwrite=True)
    assert content(tmp_path) == before


def test_folders_are_made_and_other_things_are_not_replaced(
    tmp_path: Path, simulated: Path
) -> None:
    source = simulated / "truth.star"
    convert(source, tmp_path / "absent" / "deep" / "a.star")
    assert len(Particles.load(tmp_path / "absent" / "deep" / "a.star")) == 120
    (tmp_path / "folder.star").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        convert(source, tmp_path / "folder.star", overwrite=True)
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="is not a folder"):
        convert(source, tmp_path / "file" / "a.star")
    assert (tmp_path / "file").read_text() == "kept"


def rotations_of(particles: Particles) -> np.ndarray:
    assert particles.pose is not None
    return particles.pose.rotation.numpy()


def test_files_of_cryodrgn_give_a_stack_poses_and_ctfs(
    tmp_path: Path, simulated: Path
) -> None:
    truth = Particles.load(simulated / "truth.star")
    assert truth.pose is not None
    side = truth.box * truth.pixel_size_angstrom
    translation = -truth.pose.shift_angstrom.numpy() / side
    optics = truth.optics
    columns = [
        np.full(len(truth), 2.0 * truth.box),  # they were made for twice the box
        np.full(len(truth), truth.pixel_size_angstrom / 2),
        optics.defocus_u_angstrom.numpy(),
        optics.defocus_v_angstrom.numpy(),
        np.rad2deg(optics.defocus_angle_radian.numpy()),
        *(x.numpy() for x in (optics.voltage_kv, optics.cs_mm)),
        optics.amplitude_contrast.numpy(),
        np.zeros(len(truth)),
    ]
    poses, ctf = tmp_path / "poses.pkl", tmp_path / "ctf.pkl"
    poses.write_bytes(pickle.dumps((rotations_of(truth), translation)))
    ctf.write_bytes(pickle.dumps(np.stack(columns, axis=1)))
    stack, out = simulated / "particles.mrcs", tmp_path / "out.star"
    options = {"reading": AS_WRITTEN, "overwrite": True}
    screen = Console(file=io.StringIO())
    files = particle_files.CryodrgnFiles(poses, ctf)
    particle_files.convert(stack, out, screen, cryodrgn=files, **options)
    found = Particles.load(out)
    # Six decimals of a degree and of an angstrom.
    assert np.abs(rotations_of(found) - rotations_of(truth)).max() < 1e-7
    assert found.pose is not None
    error = (found.pose.shift_angstrom - truth.pose.shift_angstrom).abs().max()
    assert float(error) < 1e-6
    for name in ("pixel_size_angstrom", "defocus_u_angstrom", "voltage_kv", "cs_mm"):
        one, other = getattr(found.optics, name), getattr(optics, name)
        assert one.numpy() == pytest.approx(other.numpy(), rel=1e-8)
    star = simulated / "truth.star"
    with pytest.raises(InputError, match="--ctf goes with a stack"):
        particle_files.convert(star, out, screen, cryodrgn=files, **options)
    sized = options | {"reading": ParticleOptions(pixel_size=6.4)}
    with pytest.raises(InputError, match="leave --pixel-size out"):
        particle_files.convert(stack, out, screen, cryodrgn=files, **sized)
    poses.write_bytes(pickle.dumps(rotations_of(truth)[1:]))
    with pytest.raises(InputError, match="of 119 particles, and there are 120"):
        particle_files.convert(stack, out, screen, cryodrgn=files, **options)
    with pytest.raises(OutputError, match="is what is read"):
        particle_files.convert(
            stack,
            poses.rename(tmp_path / "p.star"),
            screen,
            cryodrgn=particle_files.CryodrgnFiles(tmp_path / "p.star"),
            **options,
        )
