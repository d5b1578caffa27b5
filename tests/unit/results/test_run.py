"""A finished run is read back as the records that its workflow returned."""

import dataclasses
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.results import run_files
from cryoinfer.results.flags import LEFT_OUT
from cryoinfer.results.map_numbers import map_numbers
from cryoinfer.results.motions import Motions
from cryoinfer.results.posterior_files import write_posteriors
from cryoinfer.results.run import load_run
from cryoinfer.results.run_record import RunRecord
from cryoinfer.results.run_result import Evidence, RunResult

SINGLE = {"rtol": 2**-23, "atol": 0.0}
"""What is written in single precision."""


def written(
    folder: Path, simulated: Path, result: RunResult, workflow: str = "abinitio"
) -> Path:
    """Write the folder of a finished run."""
    particles = Particles.load(simulated / "particles.star")
    if workflow == "reconstruct":
        run_files.save_particles(folder / "particles.star", particles)
    else:
        run_files.write_inference(folder, particles, result)
    run_files.write_reconstruction(folder, result.reconstruction)
    tested = result.outlier_score_nats is not None
    record = replace(
        RunRecord.of_now(workflow, {}, {}, 0, 1),
        status="finished",
        results=map_numbers(result.reconstruction) | ({LEFT_OUT: {}} if tested else {}),
        iterations=[asdict(one) for one in result.iterations],
    )
    record.write(folder)
    return folder


def assert_same(found: object, expected: object) -> None:
    """Compare records, tensor by tensor, to single precision."""
    assert type(found) is type(expected)
    assert dataclasses.is_dataclass(expected)
    for field in dataclasses.fields(expected):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if dataclasses.is_dataclass(other):
            assert_same(one, other)
        elif isinstance(other, Tensor):
            assert one.shape == other.shape, field.name
            # Curves have six decimals; all else is written in single precision.
            rounded = 5e-7 if field.name.startswith("fsc") else 0.0
            expected_one = other.to(one.dtype)
            torch.testing.assert_close(
                one, expected_one, rtol=2**-23, atol=rounded, msg=field.name
            )
        elif field.name not in ("noise_power", "entropy_nats", "pixel_size_angstrom"):
            assert one == other, field.name


def with_evidence(result: RunResult) -> RunResult:
    evidence = Evidence(100, 2.0, 1.5, 0.1, 0.3)
    maps = replace(
        result.reconstruction, evidence=evidence, shared_resolution_angstrom=25.0
    )
    return replace(result, reconstruction=maps)


@pytest.mark.parametrize("workflow", ["abinitio", "refine", "infer"])
def test_a_run_comes_back(
    tmp_path: Path, simulated: Path, result: RunResult, workflow: str
) -> None:
    result = with_evidence(result)
    run = load_run(written(tmp_path, simulated, result, workflow))
    assert run.path == tmp_path
    assert run.record.workflow == workflow
    assert run.summary["symmetry"] == "C1"
    assert run.result is not None
    assert run.reconstruction is run.result.reconstruction
    assert run.motions is None
    assert_same(run.result, result)
    # The header holds the length of the cell in single precision.
    found = run.result.reconstruction.pixel_size_angstrom
    assert found == pytest.approx(result.reconstruction.pixel_size_angstrom, rel=1e-6)
    torch.testing.assert_close(run.result.entropy(), result.entropy(), **SINGLE)
    # Noise has seven digits.
    torch.testing.assert_close(
        run.noise_power[0], result.noise_power[0].double(), rtol=5e-7, atol=0
    )
    assert len(run.noise_power) == len(result.noise_power)


def test_posteriors_are_those_of_the_result(
    tmp_path: Path, simulated: Path, result: RunResult
) -> None:
    posterior = load_run(written(tmp_path, simulated, result)).posterior
    expected = result.posterior
    torch.testing.assert_close(posterior.weight, expected.weight, **SINGLE)
    torch.testing.assert_close(posterior.covariance, expected.covariance, **SINGLE)
    torch.testing.assert_close(
        posterior.mode().pose.shift_angstrom,
        expected.mode().pose.shift_angstrom,
        **SINGLE,
    )


# The second is what earlier versions called the column in their files.
@pytest.mark.parametrize("column", ["cryoinferOutlierScore", "cryoinferNovelty"])
def test_what_an_encoder_has_tested_comes_back(
    tmp_path: Path, simulated: Path, result: RunResult, column: str
) -> None:
    n = len(result.latents)
    score = torch.linspace(0.0, 9.0, n, dtype=torch.float64)
    score[3] = torch.inf
    unreadable = torch.zeros(n, dtype=torch.bool)
    unreadable[3] = True
    likelihood = result.inferred.log_likelihood.clone()
    likelihood[3] = -torch.inf
    tested = replace(
        result,
        outlier_score_nats=score,
        unreadable=unreadable,
        inferred=replace(result.inferred, log_likelihood=likelihood),
        prepared=torch.zeros(n, dtype=torch.bool),
    )
    folder = written(tmp_path, simulated, tested, "infer")
    star = folder / "particles.star"
    star.write_text(star.read_text().replace("cryoinferOutlierScore", column))
    found = load_run(folder).result
    assert found is not None
    assert found.unreadable is not None
    assert torch.equal(found.unreadable, unreadable)
    assert found.outlier_score_nats is not None
    torch.testing.assert_close(found.outlier_score_nats, score, rtol=1e-6, atol=1e-6)
    assert torch.equal(found.inferred.log_likelihood.isinf(), likelihood.isinf())
    assert found.prepared is None


def test_a_reconstruction_has_maps_and_no_posteriors(
    tmp_path: Path, simulated: Path, result: RunResult
) -> None:
    run = load_run(written(tmp_path, simulated, result, "reconstruct"))
    assert_same(run.reconstruction, result.reconstruction)
    assert run.result is None
    assert run.noise_power == ()
    with pytest.raises(InputError, match="found poses that were given"):
        _ = run.posterior


def test_where_no_resolution_is_told_the_curve_is_asked(
    tmp_path: Path, simulated: Path, result: RunResult
) -> None:
    weak = replace(result.reconstruction, evidence=Evidence(100, 0.0, 0.0, 0.1, 0.0))
    folder = written(tmp_path, simulated, replace(result, reconstruction=weak))
    run = load_run(folder)
    assert run.summary["resolution_angstrom"] is None
    assert run.summary["structure_found"] is False
    assert run.reconstruction is not None
    # The curve falls from 1 to 0 along a line, to Nyquist at shell 8.
    expected = 16 * 6.4 / (8 * (1 - 0.143))
    assert run.reconstruction.resolution_angstrom == pytest.approx(expected, rel=1e-5)


def test_motions_come_back(tmp_path: Path) -> None:
    motions = Motions.blank(5, 2)
    for number, values in enumerate(vars(motions).values()):
        values[1:] = number + 0.25
    arrays = {name: one.float().numpy() for name, one in vars(motions).items()}
    write_posteriors(tmp_path / "posteriors.npz", arrays | {"extent": np.ones(2)})
    record = RunRecord.of_now("dynamics", {}, {}, 0, 1)
    replace(record, status="finished", results={"particles": 5}).write(tmp_path)
    run = load_run(tmp_path)
    assert run.motions is not None
    assert run.motions.known.tolist() == [False, True, True, True, True]
    for name, one in vars(motions).items():
        torch.testing.assert_close(getattr(run.motions, name), one, equal_nan=True)
    with pytest.raises(InputError, match=r"cryoinfer dynamics.*found motions"):
        _ = run.posterior
    del arrays["weight"]
    write_posteriors(tmp_path / "posteriors.npz", arrays)
    with pytest.raises(InputError, match=r"posteriors.npz is damaged"):
        load_run(tmp_path)


def test_a_training_has_an_encoder_and_no_posteriors(tmp_path: Path) -> None:
    record = RunRecord.of_now("train", {}, {}, 0, 1)
    replace(record, status="finished").write(tmp_path)
    with pytest.raises(InputError, match=r"encoder.pt with cryoinfer.load_encoder"):
        load_run(tmp_path)


def test_what_is_no_finished_run_is_refused(
    tmp_path: Path, simulated: Path, result: RunResult
) -> None:
    with pytest.raises(InputError, match="not the folder of a run"):
        load_run(simulated)
    with pytest.raises(InputError, match="not the folder of a run"):
        load_run(tmp_path / "nothing")
    folder = written(tmp_path, simulated, result)
    replace(RunRecord.read(folder), status="interrupted").write(folder)
    with pytest.raises(InputError, match="is interrupted, not finished"):
        load_run(folder)


@pytest.mark.parametrize(
    "name",
    [
        "posteriors.npz",
        "map.mrc",
        "half2.mrc",
        "mask.mrc",
        "fsc.star",
        "particles.star",
        "noise.star",
        "run.json",
    ],
)
def test_a_file_that_is_cut_short_or_gone_is_named(
    tmp_path: Path, simulated: Path, result: RunResult, name: str
) -> None:
    folder = written(tmp_path, simulated, result)
    path = folder / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    with pytest.raises(InputError, match=name):
        load_run(folder)
    path.unlink()
    with pytest.raises(InputError, match=name):
        load_run(folder)


def test_posteriors_of_other_particles_are_refused(
    tmp_path: Path, simulated: Path, result: RunResult
) -> None:
    folder = written(tmp_path, simulated, result)
    particles = Particles.load(folder / "particles.star")
    run_files.save_particles(
        folder / "particles.star", particles.select(torch.arange(7))
    )
    with pytest.raises(InputError, match=r"expected 120 particles.*found 7"):
        load_run(folder)


def test_numbers_that_are_gone_are_told_of(
    tmp_path: Path, simulated: Path, result: RunResult
) -> None:
    folder = written(tmp_path, simulated, result)
    values = json.loads((folder / "run.json").read_text())
    del values["results"]["symmetry"]
    (folder / "run.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=r"run.json is damaged"):
        load_run(folder)
