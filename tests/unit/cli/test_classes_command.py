"""The command about discrete classes: what it finds, writes, keeps and refuses."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import cryoinfer as ci
from cryoinfer.cli.app import app
from cryoinfer.data.examples import example_atoms
from cryoinfer.data.joining import join
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.ensembles import write_ensemble
from cryoinfer.io.mrc import read_map
from cryoinfer.records import Pose
from cryoinfer.results.flags import FLAG

FIRST, SECOND, LEFT = 180, 120, 7  # particles of a class; the row that is flagged
LID = range(122, 160)  # residues of the domain that the second class lacks
CLASS = "rlnClassNumber"


def lidless(path: Path) -> str:
    """Write adenylate kinase without a domain; return the name of the file."""
    atoms = example_atoms("adenylate-kinase-open")
    left = [row for row, at in enumerate(atoms.residue_numbers) if at not in LID]
    write_ensemble(path, "lidless", [atoms.select(np.array(left))])
    return str(path)


def two_molecules(folder: Path, second: str) -> Path:
    """Write particles of two structures with their true poses; return their file."""
    parts, poses = [], []
    every = zip(("adenylate-kinase-open", second), (FIRST, SECOND), strict=True)
    for number, (name, count) in enumerate(every):
        config = SimulationConfig(
            name,
            n=count,
            box=24,
            pixel_size_angstrom=4.8,
            snr_db=0.0,
            defocus_range_angstrom=(5000.0, 15000.0),
            seed=number,
        )
        simulate(config, folder / str(number), SilentMonitor())
        parts.append(Particles.load(folder / str(number) / "particles.star"))
        pose = Particles.load(folder / str(number) / "truth.star").pose
        assert pose is not None
        poses.append(pose)
    flags = np.zeros(FIRST + SECOND)
    flags[LEFT] = 1
    both = join(parts).particles
    posed = both.with_results(pose=Pose.joined(poses), columns={FLAG: flags})
    posed.save(folder / "particles.star")
    truth = {CLASS: 1 + (np.arange(FIRST + SECOND) >= FIRST)}
    posed.with_results(columns=truth).save(folder / "truth.star")
    return folder / "particles.star"


def run(*arguments: object) -> tuple[int, str]:
    """Return the exit code of a command, and what it says on one line."""
    answer = CliRunner().invoke(app, [str(one) for one in arguments])
    return answer.exit_code, " ".join(answer.output.split())


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("molecules")
    return two_molecules(folder, lidless(folder / "lidless.cif"))


@pytest.fixture(scope="module")
def finished(particles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    code, said = run(
        *("heterogeneity", particles, "--out", out, "--model", "classes"),
        *("--poses", "given", "--resolution", 14),
    )
    assert code == 0, said
    assert "There are 2 classes" in said
    return out


def test_parts_that_are_missing_make_a_class(finished: Path) -> None:
    latents = pd.read_parquet(finished / "latents.parquet").drop(index=LEFT)
    is_second = np.delete(np.arange(FIRST + SECOND) >= FIRST, LEFT)
    # At 0 dB and known poses a sixth of the molecule is worth tens of nats.
    assert ((latents["class"] == 2) == is_second).mean() > 0.99
    assert latents["class_probability"].median() > 0.99
    shares = latents[["class_1_probability", "class_2_probability"]].sum(axis=1)
    np.testing.assert_allclose(shares, 1, atol=1e-6)  # single precision
    results = json.loads((finished / "run.json").read_text())["results"]
    assert results["classes"] == 2
    found = results["class_maps"][1]
    true = SECOND / (FIRST + SECOND - 1)
    assert abs(found["population"] - true) < 0.01
    # The error is that of a count, where every particle is told.
    counted = (true * (1 - true) / (FIRST + SECOND - 1)) ** 0.5
    assert found["population_se"] == pytest.approx(counted, rel=0.05)


def test_each_class_has_maps_of_its_own(finished: Path) -> None:
    maps = [read_map(finished / f"class_{k}.mrc").density for k in (1, 2)]
    mass = [one.clip(0, None).sum() for one in maps]
    assert mass[1] < 0.95 * mass[0]
    for kind in ("half1", "half2", "mask"):
        assert read_map(finished / f"class_2_{kind}.mrc").density.shape == (24, 24, 24)
    assert not (finished / "class_3.mrc").exists()
    assert "fsc" in (finished / "class_1_fsc.star").read_text()


def test_what_was_flagged_is_in_no_class(finished: Path) -> None:
    latents = pd.read_parquet(finished / "latents.parquet")
    assert len(latents) == FIRST + SECOND
    assert np.isnan(latents["class"][LEFT])
    names = read_column(finished / "particles.star")
    assert names[LEFT] == 0
    assert set(np.delete(names, LEFT)) == {1, 2}


def read_column(path: Path) -> np.ndarray:
    block = Particles.load(path).source.particles  # type: ignore[union-attr]
    return np.asarray(block.numbers(CLASS)).astype(int)


def test_other_commands_go_on_from_it(finished: Path, tmp_path: Path) -> None:
    code, said = run(
        "select", finished, "--class", 2, "--out", tmp_path / "second.star"
    )
    assert code == 0, said
    chosen = Particles.load(tmp_path / "second.star")
    assert abs(len(chosen) - SECOND) <= 2
    loaded = ci.load_run(finished)
    assert len(loaded.posterior.weight) == FIRST + SECOND
    code, said = run("volumes", finished, "--kmeans", 2, "--out", tmp_path / "maps")
    assert code == 2
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "There are 2 classes" in page
    code, said = run("report", finished)
    assert code == 0, said


def test_classes_are_judged_by_the_truth(finished: Path, particles: Path) -> None:
    code, said = run("evaluate", finished, "--truth", particles.parent)
    assert code == 0, said
    found = json.loads((finished / "evaluation.json").read_text())
    agreement = found["conformations"][0]
    assert agreement["truth"] == CLASS
    assert agreement["classes"] == "of the run"
    assert agreement["hungarian_accuracy"] > 0.99
    assert agreement["adjusted_rand_index"] > 0.95


@pytest.mark.slow
def test_a_homogeneous_set_has_one_class(tmp_path: Path) -> None:
    particles = two_molecules(tmp_path, "adenylate-kinase-open")
    out = tmp_path / "out"
    code, said = run(
        *("heterogeneity", particles, "--out", out, "--model", "classes"),
        *("--poses", "given", "--resolution", 14),
    )
    assert code == 0, said
    assert "There is one class" in said
    assert not (out / "class_2.mrc").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--model", "classes", "--classes", 12), "600 for 12"),
        (("--model", "classes", "--classes", 0), "--classes"),
        (("--model", "classes", "--dims", 2), "--dims"),
        (("--classes", 2), "--classes"),
        (("--model", "classes", "--classes", 2, "--device", "cuda"), "found none"),
        (("--model", "atoms"), "--model"),
        (("--model", "field", "--classes", 2), "--classes"),
        (("--model", "field", "--method", "amortized"), "--method"),
        (("--model", "field", "--dims", 4, "--poses", "given"), "1 to 3"),
    ],
)
def test_wrong_options_are_refused_with_one_message(
    particles: Path, tmp_path: Path, options: tuple[object, ...], word: str
) -> None:
    code, said = run("heterogeneity", particles, "--out", tmp_path / "out", *options)
    assert code == 2
    assert word in said
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_what_it_takes_is_told_beforehand(particles: Path, tmp_path: Path) -> None:
    code, said = run(
        *("heterogeneity", particles, "--out", tmp_path / "out", "--dry-run"),
        *("--model", "classes", "--classes", 3),
    )
    assert code == 0, said
    assert "3 classes" in said
    assert not (tmp_path / "out").exists()
