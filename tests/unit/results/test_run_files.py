from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.io.star import read_star
from cryoinfer.results import run_files
from cryoinfer.results.flags import FLAG
from cryoinfer.results.posterior_files import PosedParticles, Posteriors
from cryoinfer.results.run_result import Reconstruction, RunResult


def test_posteriors_come_back(tmp_path: Path, result: RunResult) -> None:
    lower = torch.randn(len(result.latents), 6, 6, dtype=torch.float64)
    covariance = lower @ lower.mT
    posterior = replace(result.inferred, covariance=covariance[:, None])
    result = replace(result, inferred=posterior)
    Posteriors.of(result).write(tmp_path)
    found = Posteriors.read(tmp_path)
    assert found is not None
    # float32 keeps 24 bits.
    torch.testing.assert_close(found.covariance(), covariance, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(found.mode_weight.sum(1), 1.0)
    assert found.mode_rotation.shape == (len(result.latents), 2, 3, 3)
    assert {array.dtype for array in vars(found).values()} == {np.dtype("float32")}


def test_the_layout_of_posteriors_has_a_version(
    tmp_path: Path, result: RunResult
) -> None:
    Posteriors.of(result).write(tmp_path)
    path = tmp_path / "posteriors.npz"
    with np.load(path) as file:
        arrays = dict(file)
    assert int(arrays.pop("version")) == 1
    assert arrays.keys() == vars(Posteriors.of(result)).keys()
    np.savez(path, **arrays)  # as before versions were kept
    found = Posteriors.read(tmp_path)
    assert found is not None
    np.testing.assert_array_equal(found.mode_weight, arrays["mode_weight"])
    np.savez(path, **arrays, version=np.int64(2))
    for kind in (Posteriors, PosedParticles):
        with pytest.raises(InputError, match="version 2, expected version 1"):
            kind.read(tmp_path)


def test_no_posteriors_no_answer(tmp_path: Path) -> None:
    assert Posteriors.read(tmp_path) is None
    assert run_files.read_noise(tmp_path) is None


def test_particles_say_what_was_found(simulated: Path, result: RunResult) -> None:
    particles = Particles.load(simulated / "particles.star")
    found = run_files.with_posteriors(particles, result)
    columns = found.table.results
    np.testing.assert_allclose(
        columns["cryoinferRotationSdDegrees"], np.rad2deg(0.05), rtol=1e-6
    )
    np.testing.assert_allclose(columns["cryoinferShiftSdAngst"], 0.6, rtol=1e-6)
    assert found.pose is not None
    assert torch.equal(found.pose.rotation, result.latents.pose.rotation)
    # The defocus was not inferred: it stays as it was to the last digit.
    before = particles.optics.defocus_u_angstrom
    assert torch.equal(found.optics.defocus_u_angstrom, before)
    moved = replace(
        result.latents,
        defocus_offset_angstrom=torch.full((len(particles),), 7.0).double(),
    )
    wide = torch.eye(6).double().expand(len(particles), 1, 6, 6)
    posterior = replace(result.inferred.with_first_mode(moved), covariance=wide)
    inferred = replace(result, inferred=posterior)
    after = run_files.with_posteriors(particles, inferred).optics.defocus_u_angstrom
    torch.testing.assert_close(after, before + 7.0)


def test_flags_tell_what_is_strange_from_what_is_unreadable(
    tmp_path: Path, simulated: Path, result: RunResult
) -> None:
    particles = Particles.load(simulated / "particles.star")
    score = torch.zeros(len(particles))
    score[:4] = torch.tensor([5.0, torch.inf, torch.nan, torch.inf])
    unreadable = torch.zeros(len(particles), dtype=torch.bool)
    unreadable[3] = True
    flagged = replace(result, outlier_score_nats=score, unreadable=unreadable)
    found = run_files.with_posteriors(particles, flagged).table.results
    assert found[FLAG][:5].tolist() == [1, 1, 1, 2, 0]
    # Other programs read neither infinities nor NaN.
    assert found[run_files.OUTLIER_SCORE][:5].tolist() == [5.0, 1e9, 1e9, 1e9, 0.0]


def test_images_resolve_from_the_run_folder(
    tmp_path: Path, simulated: Path, result: RunResult
) -> None:
    particles = Particles.load(simulated / "particles.star")
    run_files.write_inference(tmp_path, particles, result)
    again = Particles.load(tmp_path / "particles.star")
    first = torch.arange(3)
    assert torch.equal(again.images(first), particles.images(first))
    assert again.random_subset is not None
    assert torch.equal(again.random_subset, result.random_subset)


def test_what_a_report_shows_is_what_was_written(
    tmp_path: Path, simulated: Path, result: RunResult
) -> None:
    particles = Particles.load(simulated / "particles.star")
    run_files.write_inference(tmp_path, particles, result)
    found = PosedParticles.read(tmp_path)
    for estimated, true in (
        (found.pose.rotation, result.latents.pose.rotation),
        (found.pose.shift_angstrom, result.latents.pose.shift_angstrom),
        (found.variance, result.inferred.covariance[:, 0].diagonal(dim1=1, dim2=2)),
    ):
        assert torch.equal(estimated, true.float())
    spread = run_files.read_numbers(tmp_path, "cryoinferShiftSdAngst")
    expected = found.variance[:, 3:5].double().mean(1).sqrt()
    # Both means are of numbers in single precision.
    assert spread is not None
    np.testing.assert_allclose(spread, expected, rtol=1e-6)
    assert run_files.read_numbers(tmp_path, "cryoinferFlag") is None
    # A reconstruction has poses that were given, and has inferred nothing.
    (tmp_path / "posteriors.npz").unlink()
    given = PosedParticles.read(tmp_path)
    assert not bool(given.variance.any())
    # Angles are written with six decimals, 2e-8 radian each.
    torch.testing.assert_close(
        given.pose.rotation, result.latents.pose.rotation.double(), rtol=0, atol=1e-7
    )
    particles.save(tmp_path / "particles.star")
    with pytest.raises(InputError, match="has no poses"):
        PosedParticles.read(tmp_path)


@pytest.mark.parametrize("left", [0, 100, 5000])
def test_posteriors_that_are_cut_short_are_told_of(
    tmp_path: Path, result: RunResult, left: int
) -> None:
    Posteriors.of(result).write(tmp_path)
    path = tmp_path / "posteriors.npz"
    path.write_bytes(path.read_bytes()[:left])
    for kind in (Posteriors, PosedParticles):
        with pytest.raises(InputError, match=r"posteriors\.npz is damaged"):
            kind.read(tmp_path)


def test_posteriors_of_another_version_are_told_of(tmp_path: Path) -> None:
    np.savez(tmp_path / "posteriors.npz", turns=np.zeros(3))
    for kind in (Posteriors, PosedParticles):
        with pytest.raises(InputError, match="another version"):
            kind.read(tmp_path)


def test_fsc_is_written_as_relion_does(
    tmp_path: Path, reconstruction: Reconstruction
) -> None:
    run_files.write_reconstruction(tmp_path, reconstruction)
    block = read_star(tmp_path / "fsc.star").get("fsc")
    assert block is not None
    # Shell 4 of a box of 16 x 6.4 A lies at 102.4 A / 4.
    assert block.numbers("rlnAngstromResolution")[4] == pytest.approx(25.6)
    assert block.numbers("rlnAngstromResolution")[0] == 999.0
    assert block.numbers("rlnResolution")[4] == pytest.approx(1 / 25.6, abs=1e-6)
    curves = run_files.read_fsc(tmp_path)
    # Written with six decimals.
    torch.testing.assert_close(
        curves[run_files.CORRECTED], reconstruction.fsc, rtol=0, atol=1e-6
    )
    assert set(curves) == {
        run_files.CORRECTED,
        run_files.UNMASKED,
        run_files.MASKED,
        run_files.RANDOMISED,
    }


def test_noise_comes_back(tmp_path: Path, simulated: Path, result: RunResult) -> None:
    particles = Particles.load(simulated / "particles.star")
    spectra = (torch.rand(8), torch.rand(8), torch.rand(5))
    run_files.write_inference(tmp_path, particles, replace(result, noise_power=spectra))
    found = run_files.read_noise(tmp_path)
    assert found is not None
    # Written with seven digits; the group of another box is left out.
    torch.testing.assert_close(
        found, torch.stack(spectra[:2]).double(), rtol=1e-6, atol=0
    )


def test_fingerprints_notice_changes(tmp_path: Path, simulated: Path) -> None:
    star = tmp_path / "particles.star"
    particles = Particles.load(simulated / "particles.star")
    particles.save(star)
    before = run_files.fingerprint(particles, star, None)
    assert run_files.fingerprint(particles, star, None) == before
    star.write_text(star.read_text() + "\n")
    after = run_files.fingerprint(particles, star, star)
    assert after["particles"] != before["particles"]
    assert after["stacks"] == before["stacks"]
    assert "map" in after
    stack = simulated / "particles.mrcs"
    bare = run_files.fingerprint(Particles.load(stack), stack, None)
    assert set(bare) == {"stacks"}
