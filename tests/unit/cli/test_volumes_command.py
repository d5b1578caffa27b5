"""`cryoinfer volumes` on a run whose posteriors of z were made by hand."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cryoinfer.cli.app import app
from cryoinfer.data.particles import Particles
from cryoinfer.io.mrc import read_map
from cryoinfer.io.star import read_star
from cryoinfer.results import layout
from cryoinfer.results.motions import Motions
from cryoinfer.results.posterior_files import write_posteriors
from cryoinfer.results.run_record import RunRecord

MAPS = ("", "_half1", "_half2", "_mask")


@pytest.fixture(scope="module")
def run(simulated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with z of two numbers, which of the last particle are unknown."""
    folder = tmp_path_factory.mktemp("run")
    particles = Particles.load(simulated / "particles.star")
    pose = Particles.load(simulated / "truth.star").pose
    assert pose is not None
    n = len(particles)
    subset = torch.arange(n) % 2 + 1
    particles.with_results(pose=pose, random_subset=subset).save(
        folder / layout.PARTICLES
    )
    generator = torch.Generator().manual_seed(2)
    found = Motions.blank(n, 2)
    mean = torch.randn(n, 2, generator=generator)
    mean[-1] = torch.nan
    arrays = {
        "mean": mean.numpy(),
        "covariance": torch.eye(8).expand(n, 8, 8).mul(0.1).contiguous().numpy(),
        "weight": found.weight.float().numpy(),
    }
    write_posteriors(folder / layout.POSTERIORS, arrays)
    record(folder, "heterogeneity")
    return folder


def record(folder: Path, workflow: str) -> None:
    made = RunRecord.of_now(workflow, {"particle-diameter": 70.0}, {}, 0, 1)
    replace(made, status="finished", results={"symmetry": "C1"}).write(folder)


def asked(run: Path, out: Path, *words: str) -> tuple[int, str]:
    given = ["volumes", str(run), "--out", str(out), "--threads", "1", *words]
    answer = CliRunner().invoke(app, given, env={"COLUMNS": "500"})
    return answer.exit_code, answer.output


def test_maps_tables_and_script_are_written(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said = asked(run, out, "--z", "0.5,-1", "--z", "-1,0")
    assert code == 0, said
    assert "particles are read 1 time" in said
    for number in (1, 2):
        for kind in MAPS:
            found = read_map(out / f"volume_00{number}{kind}.mrc")
            assert found.density.shape == (16, 16, 16)
        assert read_star(out / f"volume_00{number}_fsc.star").get("fsc") is not None
    told = json.loads((out / "volumes.json").read_text())
    assert told["particles"] == 119
    assert told["arguments"]["z"] == ["0.5,-1", "-1,0"]
    first = told["volumes"][0]
    assert first["z"] == [0.5, -1.0]
    assert first["map"] == "volume_001.mrc"
    assert 50 <= first["effective_particles"] <= 119
    table = read_star(out / "volumes.star").get("volumes")
    assert table is not None
    assert table.numbers("cryoinferZ2").tolist() == [-1.0, 0.0]
    script = (out / "volumes.cxc").read_text()
    assert "open volume_001.mrc volume_002.mrc vseries true" in script


def test_fewer_maps_leave_none_of_before(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert asked(run, out, "--along", "1", "--count", "2")[0] == 0
    (out / "mine.mrc").write_bytes(b"")
    code, said = asked(run, out, "--kmeans", "1")
    assert code == 2
    assert "--overwrite" in said
    code, said = asked(run, out, "--kmeans", "1", "--overwrite")
    assert code == 0, said
    assert sorted(path.name for path in out.glob("*.mrc")) == [
        "mine.mrc",
        "volume_001.mrc",
        "volume_001_half1.mrc",
        "volume_001_half2.mrc",
        "volume_001_mask.mrc",
    ]
    # One map is no series.
    assert "vseries" not in (out / "volumes.cxc").read_text()


def test_few_particles_are_a_caution(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said = asked(run, out, "--path", "2.5,0", "2.5,0.1", "--count", "1")
    assert code == 0, said
    assert "Caution: volume_001.mrc: few particles are near z = 2.5,0.05" in said
    told = json.loads((out / "volumes.json").read_text())
    assert len(told["cautions"]) == 1
    assert 0 < told["volumes"][0]["near_particles"] < 50


@pytest.mark.slow
def test_two_processes_make_the_maps_of_one(run: Path, tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    assert asked(run, alone, "--z", "0.5,-1")[0] == 0
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
    words = ("volumes", str(run), "--out", str(shared), "--threads", "1")
    call = [sys.executable, *launcher, "-m", "cryoinfer", *words, "--z", "0.5,-1"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("effective particles") == 1
    first, second = (
        read_map(out / "volume_001_half1.mrc").density for out in (alone, shared)
    )
    # Sums are added in another order, in single precision (6e-8 each time).
    np.testing.assert_allclose(second, first, rtol=0, atol=1e-5 * np.abs(first).max())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "expected one of --z, --along, --path and --kmeans"),
        (("--z", "0,0", "--along", "1"), "found --z and --along"),
        (("--z", "0,0", "--count", "3"), "--count goes with --along or --path"),
        (("--z", "0.5"), "expected z of 2 numbers, as the run has, found 1"),
        (("--z", "0,0", "--z", "1,2,3"), "expected z of 2 numbers, as the run has"),
        (("--z", "0.5,x"), "expected a z as numbers separated by commas"),
        (("--z", "nan,0"), "expected a z as numbers separated by commas"),
        (("--along", "3"), "expected an axis of z, 1 to 2, found 3"),
        (("--path", "0,0", "1"), "expected two z of as many numbers, found 2 and 1"),
        (("--z", "50,0"), "no particle is near z = 50,0"),
    ],
)
def test_what_is_wrong_is_one_message(
    run: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    code, said = asked(run, tmp_path / "out", *words)
    assert code == 2
    assert message in said
    assert not (tmp_path / "out").exists()


def test_a_run_without_conformations_is_refused(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    other.mkdir()
    record(other, "abinitio")
    arrays = {"rotation": np.zeros((2, 3, 3), dtype=np.float32)}
    write_posteriors(other / layout.POSTERIORS, arrays)
    code, said = asked(other, tmp_path / "out", "--along", "1")
    assert code == 2
    assert "is a run of `cryoinfer abinitio`, which infers no conformations" in said
    code, said = asked(run, run, "--along", "1")
    assert code == 2
    assert "holds what is read" in said


def test_posteriors_of_other_particles_are_refused(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    other.mkdir()
    record(other, "dynamics")
    (other / layout.PARTICLES).write_bytes((run / layout.PARTICLES).read_bytes())
    covariance = np.ones((3, 7, 7), dtype=np.float32)
    arrays = {"mean": np.zeros((3, 1), dtype=np.float32), "covariance": covariance}
    write_posteriors(other / layout.POSTERIORS, arrays)
    reading = ("--datadir", str(run))
    code, said = asked(other, tmp_path / "out", "--along", "1", *reading)
    assert code == 2
    assert "expected 3 particles, found 120" in said
    arrays["covariance"] = covariance[:, :6, :6]
    write_posteriors(other / layout.POSTERIORS, arrays)
    code, said = asked(other, tmp_path / "out", "--along", "1", *reading)
    assert code == 2
    assert "is damaged" in said
