"""The command about conformations: what it writes, keeps and refuses."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import cryoinfer as ci
from cryoinfer.cli.app import app
from cryoinfer.data.joining import join
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.mrc import StackWriter, read_map
from cryoinfer.records import Pose
from cryoinfer.results.flags import FLAG

EACH, LEFT = 150, 7  # particles of a state; the row that an earlier run has flagged


def two_states(folder: Path, second: str) -> Path:
    """Write particles of two structures, with their true poses; return their file."""
    parts, poses = [], []
    for number, name in enumerate(("adenylate-kinase-open", second)):
        config = SimulationConfig(
            name,
            n=EACH,
            box=24,
            pixel_size_angstrom=4.8,
            snr_db=5.0,
            defocus_range_angstrom=(5000.0, 15000.0),
            seed=number,
        )
        simulate(config, folder / str(number), SilentMonitor())
        parts.append(Particles.load(folder / str(number) / "particles.star"))
        pose = Particles.load(folder / str(number) / "truth.star").pose
        assert pose is not None
        poses.append(pose)
    flags = np.zeros(2 * EACH)
    flags[LEFT] = 1
    path = folder / "particles.star"
    both = join(parts).particles
    both.with_results(pose=Pose.joined(poses), columns={FLAG: flags}).save(path)
    return path


def run(*arguments: object) -> tuple[int, str]:
    """Return the exit code of a command, and what it says."""
    answer = CliRunner().invoke(app, [str(one) for one in arguments])
    return answer.exit_code, answer.output


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("states")
    return two_states(folder, "adenylate-kinase-closed")


@pytest.fixture(scope="module")
def finished(particles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    code, said = run("heterogeneity", particles, "--out", out, "--poses", "given")
    assert code == 0, said
    return out


def test_two_states_have_one_component(finished: Path) -> None:
    results = json.loads((finished / "run.json").read_text())["results"]
    assert results["components"] == 1
    assert results["verdict"].startswith("z carries information")
    latents = pd.read_parquet(finished / "latents.parquet")
    z = latents["z_1"].drop(index=LEFT).to_numpy()
    is_second = np.delete(np.arange(2 * EACH) >= EACH, LEFT)
    # At 5 dB and known poses the states are many standard deviations apart.
    found = z > np.median(z)
    wrong = min((found != is_second).sum(), (found == is_second).sum())
    assert wrong <= 2
    assert latents["z_1_sd"].drop(index=LEFT).between(1e-3, 0.5).all()


def test_what_was_flagged_is_kept_and_has_no_z(particles: Path, finished: Path) -> None:
    latents = pd.read_parquet(finished / "latents.parquet")
    assert len(latents) == 2 * EACH
    assert np.isnan(latents["z_1"][LEFT])
    before, after = (
        Particles.load(particles),
        Particles.load(finished / "particles.star"),
    )
    assert before.pose is not None
    assert after.pose is not None
    # Files have six decimals of a degree.
    torch.testing.assert_close(
        after.pose.rotation[LEFT], before.pose.rotation[LEFT], rtol=0, atol=1e-6
    )


def test_a_run_is_read_back(finished: Path) -> None:
    found = ci.load_run(finished)
    assert found.posterior.modes.conformation.shape == (2 * EACH, 1, 1)
    assert found.reconstruction is not None
    mean = read_map(finished / "mean.mrc")
    component = read_map(finished / "component_1.mrc")
    assert mean.density.shape == component.density.shape == (24, 24, 24)


def test_the_page_says_what_is_known(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "z carries information" in page
    assert "Volumes along each axis" in page
    assert "scatter-about" in page


def test_states_have_populations_with_errors(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "nonparametric maximum" in page
    assert "Free energy along z 1" in page
    results = json.loads((finished / "run.json").read_text())["results"]
    (axis,) = results["populations"]
    first, second = axis["states"]
    assert (first["from"], second["to"]) == (None, None)
    # z tells the states apart: 149 or 150 of 299, and as many by chance as flip a coin.
    assert first["share"] == pytest.approx(0.5, abs=0.02)
    assert first["standard_error"] == pytest.approx((0.25 / 299) ** 0.5, rel=0.4)
    rows = pd.read_csv(finished / "populations.csv")
    assert set(rows["axis"]) == {1}
    step = rows["z"][1] - rows["z"][0]
    assert rows["density"].sum() * step == pytest.approx(1, abs=0.01)
    assert rows["free_energy_kt"].min() == 0
    assert rows["free_energy_kt"].isna().any()


def test_other_commands_go_on_from_it(finished: Path, tmp_path: Path) -> None:
    code, said = run(
        *("select", finished, "--where", "z_1 > 0", "--out", tmp_path / "some.star")
    )
    assert code == 0, said
    assert len(Particles.load(tmp_path / "some.star")) in range(EACH - 3, EACH + 4)
    code, said = run("volumes", finished, "--kmeans", 2, "--out", tmp_path / "maps")
    assert code == 0, said
    assert (tmp_path / "maps" / "volume_002.mrc").exists()


@pytest.fixture(scope="module")
def unseen(
    finished: Path, particles: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a run that an encoder of a few steps, which knows nothing, has made."""
    folder = tmp_path_factory.mktemp("unseen")
    short = ("--steps", 20, "--side", 8, "--out", folder / "encoder")
    code, said = run("train", finished, *short)
    assert code == 0, said
    stack = particles.parent / "1" / "particles.star"
    code, said = run("infer", folder / "encoder", stack, "--out", folder / "out")
    assert code == 0, said
    assert "z 1" in said
    return folder / "out"


def test_an_encoder_infers_z_of_unseen_particles(unseen: Path) -> None:
    latents = pd.read_parquet(unseen / "latents.parquet")
    assert len(latents) == EACH
    assert latents["z_1"].notna().all()
    assert latents["z_1_sd"].between(1e-3, 2.0).all()
    found = ci.load_run(unseen)
    assert found.posterior.modes.conformation.shape == (EACH, 1, 1)
    results = json.loads((unseen / "run.json").read_text())["results"]
    assert results["encoder"]["verdict"].startswith("not converged")
    assert any("encoder" in one for one in results["cautions"])


def test_the_page_of_unseen_particles_says_whose_subspace_it_is(unseen: Path) -> None:
    page = (unseen / "report.html").read_text(encoding="utf-8")
    assert "learned from other particles" in page
    assert "as learned" in page


def test_commands_of_one_map_refuse_an_encoder_of_conformations(
    unseen: Path, tmp_path: Path
) -> None:
    encoder = unseen.parent / "encoder"
    watched = ("--watch", "--until-idle", 1, "--out", tmp_path / "out")
    code, said = run("infer", encoder, unseen.parent, *watched)
    assert code == 2
    assert "has learned conformations" in said.replace("\n", " ")


def test_without_an_encoder_unseen_particles_are_searched(
    finished: Path, particles: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    stack = particles.parent / "1" / "particles.star"
    code, said = run("infer", finished, stack, "--out", out)
    assert code == 0, said
    assert "searched" in said
    # The same particles as at given poses in the run that they are from.
    z = pd.read_parquet(out / "latents.parquet")["z_1"].to_numpy()
    before = pd.read_parquet(finished / "latents.parquet")["z_1"].to_numpy()[EACH:]
    # The states are many standard deviations apart; a pose may be lost.
    assert np.median(np.abs(z - before)) < 0.2 * np.abs(np.median(before))
    truth = Particles.load(particles.parent / "1" / "truth.star").pose
    found = Particles.load(out / "particles.star").pose
    assert truth is not None
    assert found is not None
    degrees = np.rad2deg(geodesic_angle(found.rotation, truth.rotation).numpy())
    # The frame is that of the run, whose poses were the true ones.
    assert np.median(degrees) < 3
    results = json.loads((out / "run.json").read_text())["results"]
    assert results["held_out_gain"]["mean_nats"][0] > 0
    assert "encoder" not in results


def test_what_is_of_encoders_is_refused_without_one(
    finished: Path, particles: Path, tmp_path: Path
) -> None:
    refused = {
        "--no-refinement is of encoders": ("--no-refinement",),
        "has learned conformations": ("--watch", "--until-idle", 1),
    }
    for why, options in refused.items():
        given = particles.parent if "--watch" in options else particles
        code, said = run("infer", finished, given, *options, "--out", tmp_path / "out")
        assert code == 2
        assert why in " ".join(said.split())


@pytest.mark.slow
def test_one_pass_finds_the_states_of_unseen_particles(
    particles: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--dims", 1, "--method", "semi-amortized", "--out", out)
    code, said = run("heterogeneity", particles, *options)
    assert code == 0, said
    assert (out / "encoder.pt").exists()
    z = pd.read_parquet(out / "latents.parquet")["z_1"].drop(index=LEFT).to_numpy()
    is_second = np.delete(np.arange(2 * EACH) >= EACH, LEFT)
    found = z > np.median(z)
    wrong = min((found != is_second).sum(), (found == is_second).sum())
    # As of a search: a few particles whose poses are lost have any z.
    assert wrong <= 0.05 * len(z)


def test_outliers_can_be_left_out(finished: Path, tmp_path: Path) -> None:
    latents = pd.read_parquet(finished / "latents.parquet")
    score = latents["outlier_score"].drop(index=LEFT)
    # Exponential with mean 1 for images of the maps, and less where spreads beyond that
    # of the noise, which are never below 0, have been measured on so few.
    assert 0.3 < score.mean() < 1.3
    code, said = run(
        *("select", finished, "--where", "outlier_score < 3"),
        *("--out", tmp_path / "usual.star"),
    )
    assert code == 0, said
    assert len(Particles.load(tmp_path / "usual.star")) == (score < 3).sum()


@pytest.mark.slow
def test_a_homogeneous_set_has_no_conformations(tmp_path: Path) -> None:
    particles = two_states(tmp_path, "adenylate-kinase-open")
    out = tmp_path / "out"
    code, said = run("heterogeneity", particles, "--out", out, "--poses", "given")
    assert code == 0, said
    assert "z carries nothing" in said
    assert not (out / "component_1.mrc").exists()
    code, said = run("evaluate", out, "--truth", tmp_path / "0")
    assert code == 2
    assert "z carries nothing" in said.replace("\n", " ")


@pytest.mark.slow
def test_poses_and_states_come_from_nothing(particles: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said = run("heterogeneity", particles, "--out", out, "--dims", 1)
    assert code == 0, said
    z = pd.read_parquet(out / "latents.parquet")["z_1"].drop(index=LEFT).to_numpy()
    is_second = np.delete(np.arange(2 * EACH) >= EACH, LEFT)
    found = z > np.median(z)
    wrong = min((found != is_second).sum(), (found == is_second).sum())
    # A few particles whose poses are lost have any z.
    assert wrong <= 0.05 * len(z)


@pytest.mark.slow
def test_noise_has_no_conformations(particles: Path, tmp_path: Path) -> None:
    random, noise = np.random.default_rng(0), tmp_path / "particles.mrcs"
    with StackWriter(noise, 2 * EACH, 24, 4.8) as stack:
        stack.write(torch.from_numpy(random.normal(size=(2 * EACH, 24, 24))).float())
    code, said = run("heterogeneity", noise, "--out", tmp_path / "out")
    assert code == 3, said
    assert "no structure was found" in said.replace("\n", " ")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--dims", 9), "450"),
        (("--dims", 0), "--dims"),
        (("--poses", "searched"), "--poses"),
        (("--resolution", -1), "--resolution"),
        (("--method", "amortized", "--poses", "given"), "infers poses"),
        (("--method", "encoder"), "--method"),
        (("--device", "cuda"), "found none"),
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


def test_given_poses_have_to_be_there(particles: Path, tmp_path: Path) -> None:
    stack = particles.parent / "0" / "particles.star"
    out = tmp_path / "out"
    code, said = run("heterogeneity", stack, "--out", out, "--poses", "given")
    assert code == 2
    assert "poses" in said


def test_mean_and_map_have_one_scale(finished: Path) -> None:
    mean = torch.tensor(read_map(finished / "mean.mrc").density).double()
    whole = torch.tensor(read_map(finished / "map.mrc").density).double()
    mask = torch.tensor(read_map(finished / "mask.mrc").density).double()
    mean, whole = mean * mask, whole * mask
    slope = float((mean * whole).sum() / whole.square().sum())
    # One is filtered by the FSC of all particles, the other as a part of a subspace.
    assert 0.7 < slope < 1.3
