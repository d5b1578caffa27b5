"""Runs about a curved field go on where they were interrupted, and refuse too much."""

from pathlib import Path

import pytest
import torch
from tests.unit.workflows.test_heterogeneity import Recorder, StoppedError

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.data.turns import Turn
from cryoinfer.errors import InputError
from cryoinfer.interfaces import SILENT
from cryoinfer.results.field import FieldGain
from cryoinfer.workflows.field_heterogeneity import field_heterogeneity, gain_words
from cryoinfer.workflows.heterogeneity_config import HeterogeneityConfig


def turning(folder: Path) -> Particles:
    config = SimulationConfig(
        "adenylate-kinase-open",
        n=400,
        box=24,
        pixel_size_angstrom=4.8,
        snr_db=8.0,
        turn=Turn.parse("A:122-159 about A:118 A:163 by 150"),
    )
    simulate(config, folder, SILENT)
    return Particles.load(folder / "truth.star")


@pytest.mark.slow
def test_an_interrupted_run_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    particles = turning(tmp_path)
    config = HeterogeneityConfig(dims=2, poses="given")
    whole = field_heterogeneity(particles, config, SILENT)
    assert whole.field is not None
    assert whole.dims == 2
    kept = None
    for stop in ("field of degree 3", "conformations in the field"):
        recorder = Recorder(stop, kept)
        with pytest.raises(StoppedError):
            field_heterogeneity(particles, config, recorder)
        kept = recorder.kept
    again = field_heterogeneity(particles, config, Recorder(None, kept))
    assert again.field is not None
    assert torch.equal(again.field.maps, whole.field.maps)
    assert torch.equal(again.z, whole.z)
    assert again.field_gain == whole.field_gain


def test_more_dimensions_than_fields_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 to 3 dimensions, found 4"):
        field_heterogeneity(turning(tmp_path), HeterogeneityConfig(dims=4))


def test_a_field_is_kept_by_what_it_gains() -> None:
    gain = FieldGain((1, 2), (3, 3), (0.4, 0.6), (0.1, 0.15))
    assert gain.best == 1
    assert "in 2 dimensions raises" in gain.verdict
    assert "+0.60 (0.15) by one of degree 3 in z of 2: that of 2 is kept" in gain_words(
        gain
    )
    # Three standard errors are asked for, and no number is no gain.
    for mean in (0.3, float("nan")):
        none = FieldGain((1,), (3,), (mean,), (0.15,))
        assert none.best is None
        assert "No curved field" in none.verdict
        assert "the subspace, which is kept" in gain_words(none)
