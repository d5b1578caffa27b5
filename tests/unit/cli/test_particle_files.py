import io
from pathlib import Path

import pytest
from rich.console import Console

from cryoinfer.cli import particle_files
from cryoinfer.cli.particle_options import AS_WRITTEN
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
