"""Results judged by what particles were made of."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cryoinfer.data.resampling import cropped_map
from cryoinfer.errors import InputError, MissingFileError
from cryoinfer.evaluation.against_truth import NOMINAL
from cryoinfer.geometry.hand import flip_hand, mirror_density
from cryoinfer.io.mrc import read_map
from cryoinfer.results.run_result import RunResult
from cryoinfer.results.truth import evaluate, paired


def test_the_truth_with_known_errors_is_judged_as_such(
    simulated: Path, result: RunResult
) -> None:
    found = evaluate(result, simulated)
    assert found.best.hand == "same"
    assert found.particles == len(result.latents)
    # Of three normal angles of 0.05 radian: the median of their length is 1.538 sd.
    degrees = float(found.best.errors.geodesic_degrees.median())
    # 120 particles: 5 % is the standard error of their median.
    assert degrees == pytest.approx(1.538 * 0.05 * 57.296, rel=0.15)
    for nominal, observed in zip(NOMINAL, found.coverage["pose"], strict=True):
        # Three standard deviations of a share of 120.
        assert abs(observed - nominal) < 3 * (nominal * (1 - nominal) / 120) ** 0.5
    assert found.best.resolution_angstrom[0.5] is not None
    assert not found.comparison().mirrored


def test_a_mirror_image_is_known_as_one(simulated: Path, result: RunResult) -> None:
    maps = result.reconstruction
    flipped = replace(
        result,
        reconstruction=replace(maps, density=mirror_density(maps.density)),
        inferred=result.inferred.with_first_mode(
            replace(result.latents, pose=flip_hand(result.latents.pose))
        ),
    )
    found, mirrored = evaluate(result, simulated), evaluate(flipped, simulated)
    assert mirrored.best.hand == "opposite"
    torch.testing.assert_close(
        mirrored.best.errors.geodesic_degrees, found.best.errors.geodesic_degrees
    )


def test_truths_of_other_particles_are_refused(
    tmp_path: Path, simulated: Path, result: RunResult
) -> None:
    with pytest.raises(MissingFileError, match=r"truth.star"):
        evaluate(result, tmp_path)
    fewer = replace(result, inferred=result.inferred[:7])
    with pytest.raises(InputError, match="poses of 7 particles, found 120"):
        evaluate(fewer, simulated)
    finer = replace(result.reconstruction, pixel_size_angstrom=3.0)
    with pytest.raises(InputError, match=r"truth.mrc has 16 voxels"):
        evaluate(replace(result, reconstruction=finer), simulated)


def test_the_truth_is_cropped_to_images_that_were(simulated: Path) -> None:
    path = simulated / "truth.mrc"
    true = read_map(path)
    small = cropped_map(torch.tensor(true.density), 12)
    pair = paired(small, torch.ones(12, 12, 12), 6.4 * 16 / 12, true, path)
    assert torch.equal(pair.estimated, pair.true)
    # Of another area, though of fewer voxels.
    with pytest.raises(InputError, match=r"truth.mrc has 16 voxels"):
        paired(small, torch.ones(12, 12, 12), 6.4, true, path)
