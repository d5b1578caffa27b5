"""Trials of posteriors on images whose truth is known."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.records import Latents, Pose
from cryoinfer.results.calibration_trial import BINS, CalibrationTrial

COUNT = 1000
C1 = symmetry_rotations("C1")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def posteriors(defocus_sd: float = 0.0) -> ParticlePosterior:
    generator = seeded(0)
    sd = torch.tensor([0.02, 0.05, 0.03, 0.4, 0.3, defocus_sd], dtype=torch.float64)
    return ParticlePosterior.of_modes(
        Latents.rigid(
            Pose(
                random_rotations(COUNT, generator)[:, None],
                torch.randn(COUNT, 1, 2, generator=generator, dtype=torch.float64),
            ),
            torch.zeros(COUNT, 1, dtype=torch.float64),
        ),
        torch.ones(COUNT, 1, dtype=torch.float64),
        torch.diag(sd**2).expand(COUNT, 1, 6, 6),
    )


def truths_of(exact: ParticlePosterior) -> Latents:
    return exact.sample(1, seeded(1))[0]


def tried(stated: ParticlePosterior, truth: Latents) -> CalibrationTrial:
    half = [slice(0, COUNT // 2), slice(COUNT // 2, COUNT)]
    parts = [stated[one] for one in half], [truth[one] for one in half]
    return CalibrationTrial.of(*parts, C1, seeded(2))


def test_exact_posteriors_pass() -> None:
    exact = posteriors(defocus_sd=50.0)
    trial = tried(exact, truths_of(exact))
    assert trial.images == COUNT
    # Four standard deviations of a share of 1,000, at most 6.3 points.
    for level in (0.5, 0.9, 0.95):
        spread = 4 * (level * (1 - level) / COUNT) ** 0.5
        assert abs(trial.share_in(level) - level) < spread
    assert trial.p_values.keys() == {"rotation", "shift x", "shift y", "defocus"}
    assert min(trial.p_values.values()) > 1e-3
    # About 0.31 / sqrt(1,000) = 0.01 is expected.
    assert trial.calibration_error < 0.03
    assert all(sum(counts) == COUNT for counts in trial.ranks.values())
    assert all(len(counts) == BINS for counts in trial.ranks.values())


@pytest.mark.parametrize("wider", [0.25, 4.0])
def test_wrong_widths_are_seen(wider: float) -> None:
    exact = posteriors()
    wrong = replace(exact, covariance=exact.covariance * wider)
    trial = tried(wrong, truths_of(exact))
    assert (trial.share_in(0.5) > 0.8) == (wider > 1)
    assert (trial.share_in(0.5) < 0.2) == (wider < 1)
    assert max(trial.p_values.values()) < 1e-6
    assert "defocus" not in trial.p_values


def test_a_trial_survives_the_record_of_a_run() -> None:
    exact = posteriors()
    trial = tried(exact, truths_of(exact))
    assert CalibrationTrial.of_record(json.loads(json.dumps(asdict(trial)))) == trial


def test_a_trial_of_another_version_is_told_at_once() -> None:
    exact = posteriors()
    kept = asdict(tried(exact, truths_of(exact)))
    for other in (
        {"images": 0},
        {"median_degrees": None},
        {"coverage": kept["coverage"][1:]},
        {"ranks": {"rotation": (1, 2)}, "p_values": {"rotation": 0.5}},
        {"p_values": {}},
        {"ranks": []},
    ):
        with pytest.raises((TypeError, ValueError, AttributeError)):
            CalibrationTrial.of_record(kept | other)
    with pytest.raises(LookupError):
        CalibrationTrial.of_record({"images": 1})


def test_mates_of_a_symmetric_map_are_one_pose() -> None:
    symmetry = symmetry_rotations("C2")
    exact = posteriors()
    # The same posterior, as an encoder may state it: each of two mates in part.
    pair = exact.modes[:, torch.tensor([0, 0])]
    turned = replace(pair.pose, rotation=pair.pose.rotation @ symmetry)
    split = ParticlePosterior.of_modes(
        replace(pair, pose=turned),
        torch.tensor([0.6, 0.4], dtype=torch.float64).expand(COUNT, 2),
        exact.covariance.expand(-1, 2, 6, 6),
    ).folded(symmetry)
    truth = truths_of(exact)
    other = truth.pose.rotation @ symmetry[torch.arange(COUNT) % 2]
    truth = replace(truth, pose=replace(truth.pose, rotation=other))
    trial = CalibrationTrial.of([split], [truth], symmetry, seeded(2))
    assert trial.median_degrees < 5
    assert abs(trial.share_in(0.5) - 0.5) < 4 * 0.5 / COUNT**0.5
    assert min(trial.p_values.values()) > 1e-3


@pytest.mark.parametrize(
    ("name", "sd"),
    [("C4", 0.3), ("C7", 0.1), pytest.param("I", 0.1, marks=pytest.mark.slow)],
)
def test_two_modes_of_a_symmetric_map_are_as_credible_as_stated(
    name: str, sd: float
) -> None:
    """Where truths lie near another mate of one of several modes."""
    group, generator = symmetry_rotations(name), seeded(3)
    wide = torch.tensor([sd] * 3 + [0.4, 0.3, 0.0], dtype=torch.float64)
    exact = ParticlePosterior.of_modes(
        Latents.rigid(
            Pose(
                random_rotations(2 * COUNT, generator).unflatten(0, (COUNT, 2)),
                torch.zeros(COUNT, 2, 2, dtype=torch.float64),
            ),
            torch.zeros(COUNT, 2, dtype=torch.float64),
        ),
        torch.tensor([0.6, 0.4], dtype=torch.float64).expand(COUNT, 2),
        torch.diag(wide**2).expand(COUNT, 2, 6, 6),
    ).folded(group)
    truth = truths_of(exact)
    number = torch.randint(len(group), (COUNT,), generator=generator)
    turned = truth.pose.rotation @ group[number]
    truth = replace(truth, pose=replace(truth.pose, rotation=turned))
    trial = CalibrationTrial.of([exact], [truth], group, seeded(4))
    for level in (0.5, 0.9, 0.95):
        # Three standard deviations of a share of 1,000.
        spread = 3 * (level * (1 - level) / COUNT) ** 0.5
        assert abs(trial.share_in(level) - level) < spread
