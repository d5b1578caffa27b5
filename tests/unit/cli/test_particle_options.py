"""Every command that reads particles takes the options that its messages name."""

import re
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from cryoinfer.cli.app import app
from cryoinfer.cli.particle_options import ParticleOptions
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.io.cryosparc import read_cs, write_cs
from cryoinfer.io.star import read_star

NAMES = {
    "--datadir",
    "--pixel-size",
    "--ignore",
    "--passthrough",
    "--amplitude-contrast",
    "--voltage",
    "--cs",
}
READERS = ("check", "abinitio", "refine", "reconstruct", "train", "infer", "dynamics")
READERS += ("evaluate", "convert", "flip", "downsample")


@pytest.mark.parametrize("command", READERS)
def test_every_command_that_reads_particles_takes_the_options(command: str) -> None:
    group = typer.main.get_command(app)
    parameters = group.commands[command].params  # type: ignore[attr-defined]
    assert {name for p in parameters for name in p.opts} >= NAMES


def without(path: Path, target: Path, *labels: str) -> Path:
    """Write a STAR file anew without some columns, its stack beside it."""
    text = path.read_text()
    for label in labels:
        text = text.replace(f"_{label} ", f"_was{label} ")
    target.write_text(text)
    return target


@pytest.mark.parametrize(
    ("label", "option", "name", "value"),
    [
        ("rlnAmplitudeContrast", "--amplitude-contrast", "amplitude_contrast", 0.1),
        ("rlnVoltage", "--voltage", "voltage_kv", 200.0),
        ("rlnSphericalAberration", "--cs", "cs_mm", 2.0),
    ],
)
def test_what_old_files_lack_is_given(
    simulated: Path, tmp_path: Path, label: str, option: str, name: str, value: float
) -> None:
    source = without(simulated / "truth.star", tmp_path / "old.star", label)
    target = tmp_path / "new.star"
    words = ["convert", str(source), str(target), "--datadir", str(simulated)]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 2
    assert label in answer.stderr
    assert option in answer.stderr
    answer = CliRunner().invoke(app, [*words, option, str(value)])
    assert answer.exit_code == 0, answer.stderr
    # What was given stays with the particles.
    found = getattr(Particles.load(target, datadir=simulated).optics, name)
    assert found.unique().tolist() == [value]
    assert read_star(target).get("optics").columns[label].tolist() == [f"{value:g}"]


def test_a_value_of_the_file_is_never_overridden(simulated: Path) -> None:
    same = ParticleOptions(voltage=300.0, cs=2.7, amplitude_contrast=0.1)
    assert len(same.load(simulated / "truth.star")) > 0
    for other in ({"voltage": 200.0}, {"cs": 2.0}, {"amplitude_contrast": 0.07}):
        with pytest.raises(InputError, match=r"The metadata have .* leave the option"):
            ParticleOptions(**other).load(simulated / "truth.star")
    for path, other in (("particles.mrcs", {"voltage": 300.0}),):
        with pytest.raises(InputError, match=r"no metadata.*Leave the option out"):
            ParticleOptions(**other).load(simulated / path)


def test_particles_that_a_run_has_written_itself_have_what_it_was_told() -> None:
    told = ParticleOptions(
        Path("stacks"), 1.1, ("aberrations",), (Path("rest.cs"),), 0.1, 300.0, 2.7
    )
    own = ParticleOptions(datadir=Path("stacks"), ignore=("aberrations",))
    assert told.of_own() == own


def test_a_passthrough_of_another_name_is_given(
    simulated: Path, tmp_path: Path
) -> None:
    Particles.load(simulated / "truth.star").save(tmp_path / "whole.cs")
    table = read_cs(tmp_path / "whole.cs")
    names = [name for name in table.dtype.names if not name.startswith("blob/")]
    write_cs(tmp_path / "a.cs", table[names])
    rest = ["uid", *(name for name in table.dtype.names if name not in names)]
    order = np.random.default_rng(0).permutation(len(table))
    write_cs(tmp_path / "elsewhere.cs", table[rest][order])
    words = ["check", str(tmp_path / "a.cs")]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 2
    assert "--passthrough" in " ".join(answer.stdout.split())
    words += ["--passthrough", str(tmp_path / "elsewhere.cs")]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.stdout
    words[1] = str(simulated / "truth.star")
    answer = CliRunner().invoke(app, words)
    assert "which alone has such tables" in " ".join(answer.stdout.split())


def test_options_that_messages_about_particles_name_are_in_every_command() -> None:
    group = typer.main.get_command(app)
    commands = group.commands  # type: ignore[attr-defined]
    taken = [{name for p in commands[c].params for name in p.opts} for c in READERS]
    source = Path(__file__).parents[3] / "src" / "cryoinfer"
    of_reading = ("loading", "stack_paths", "particles", "check", "optics_checks")
    files = [source / "data" / f"{name}.py" for name in of_reading]
    files += [source / "io" / f"{name}.py" for name in ("star", "cryosparc")]
    files += (source / "io" / "conventions").glob("*.py")
    named = {o for f in files for o in re.findall(r"--[a-z][a-z-]+", f.read_text())}
    assert named <= set.intersection(*taken)
    # The search finds what is there.
    assert {"--datadir", "--passthrough", "--ignore", "--pixel-size"} <= named
