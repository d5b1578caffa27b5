"""`heterogeneity --model field`: what it writes, and when it keeps the subspace."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests.unit.cli.test_heterogeneity_command import run, two_states

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.data.turns import Turn
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.interfaces import SILENT
from cryoinfer.io.mrc import read_map
from cryoinfer.results.field import read_field

# A subspace and three fields of each half-set take half a minute.
pytestmark = pytest.mark.slow

TURN = "A:122-159 about A:118 A:163 by 150"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("turning")
    config = SimulationConfig(
        "adenylate-kinase-open",
        n=500,
        box=24,
        pixel_size_angstrom=4.8,
        snr_db=8.0,
        turn=Turn.parse(TURN),
    )
    simulate(config, folder, SILENT)
    code, said = run(
        *("heterogeneity", folder / "truth.star", "--out", folder / "out"),
        *("--poses", "given", "--model", "field", "--dims", 2, "--threads", 1),
    )
    assert code == 0, said
    assert "A curved field" in " ".join(said.split())
    return folder / "out"


def test_a_turn_is_a_curved_field(finished: Path) -> None:
    results = json.loads((finished / "run.json").read_text())["results"]
    gain = results["field"]
    kept = gain["kept"]
    assert gain["mean_nats"][kept] > 3 * gain["se_nats"][kept]
    field, pixel_size = read_field(finished / "field.pt")
    assert (field.features.dims, field.features.degree) == (
        gain["dims"][kept],
        gain["degrees"][kept],
    )
    assert pixel_size == 4.8
    assert results["components"] == field.features.dims
    # What is written as mean and components is the field to first order.
    mean = read_map(finished / "mean.mrc").density
    agreement = fourier_shell_correlation(torch.as_tensor(mean), field.maps[0])
    assert float(agreement[1:8].min()) > 0.999
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "A curved field of degree" in page


def test_z_of_the_field_is_read_by_other_commands(finished: Path) -> None:
    latents = pd.read_parquet(finished / "latents.parquet")
    assert latents["z_1"].notna().all()
    middle = ",".join(
        f"{latents[f'z_{number}'].median():.3f}"
        for number in range(1, 4)
        if f"z_{number}" in latents
    )
    out = finished.parent / "volumes"
    code, said = run("volumes", finished, "--z", middle, "--out", out)
    assert code == 0, said
    assert list(out.glob("*.mrc"))


def test_z_follows_the_turn(finished: Path) -> None:
    text = (finished.parent / "truth.star").read_text().splitlines()
    angle = np.array([float(one.split()[-1]) for one in text if ".mrcs" in one])
    assert len(Particles.load(finished / "particles.star")) == len(angle)
    latents = pd.read_parquet(finished / "latents.parquet")
    names = [name for name in latents if name[:2] == "z_" and name[-3:] != "_sd"]
    z = latents[names].to_numpy()
    # A curve in z: cubes of it tell the angle.
    powers = np.concatenate([z, z**2, z**3, np.ones((len(z), 1))], 1)
    fitted = powers @ np.linalg.lstsq(powers, angle, rcond=None)[0]
    assert np.corrcoef(fitted, angle)[0, 1] > 0.9


def test_an_encoder_of_a_field_is_refused(finished: Path) -> None:
    code, said = run("train", finished, "--out", finished.parent / "encoder.pt")
    assert code == 2
    assert "curved field" in " ".join(said.split())
    assert not (finished.parent / "encoder.pt").exists()


def test_of_two_states_the_subspace_is_kept(tmp_path: Path) -> None:
    particles = two_states(tmp_path, "adenylate-kinase-closed")
    out = tmp_path / "out"
    code, said = run(
        *("heterogeneity", particles, "--out", out),
        *("--poses", "given", "--model", "field", "--threads", 1),
    )
    assert code == 0, said
    results = json.loads((out / "run.json").read_text())["results"]
    assert results["field"]["kept"] is None
    assert not (out / "field.pt").exists()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "No curved field says more" in page
