"""Posteriors of pose and z are tried on images of the maps that they are found in."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import Simulation, SimulationConfig, simulate
from cryoinfer.evaluation.rigid_search import MapPair, likeliest_frame
from cryoinfer.evaluation.volume_alignment import transform_map
from cryoinfer.interfaces import SILENT
from cryoinfer.workflows.conformation_calibration import (
    CalibratedSearch,
    calibrate_search,
)
from cryoinfer.workflows.problem import define_problem, initial_noise
from cryoinfer.workflows.subspace_loop import SubspaceConfig, SubspaceLoop
from cryoinfer.workflows.subspace_update import Subspace

BOX, PIXEL_SIZE, RADIUS, SHIFT_SD = 32, 3.6, 11, 1.5
IMAGES = 600


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> SubspaceLoop:
    """Return a loop on particles that lend their CTFs and noise."""
    config = SimulationConfig(
        "adenylate-kinase-open",
        n=300,
        box=BOX,
        pixel_size_angstrom=PIXEL_SIZE,
        snr_db=0.0,
        defocus_range_angstrom=(5000.0, 15000.0),
    )
    folder: Path = tmp_path_factory.mktemp("lent")
    particles = Particles.load(simulate(config, folder, SILENT))
    generator = torch.Generator().manual_seed(0)
    problem = define_problem(particles, "C1", None, 6.0, 0.0, generator).of_dims(1)
    found = SubspaceConfig(1, RADIUS, RADIUS)
    return SubspaceLoop.of(problem, initial_noise(problem), found)


@pytest.fixture(scope="module")
def subspace() -> Subspace:
    """Return one on which open and closed adenylate kinase lie at -1 and 1."""
    opened, closed = (
        Simulation.of(
            SimulationConfig(
                f"adenylate-kinase-{name}",
                n=1,
                box=BOX,
                pixel_size_angstrom=PIXEL_SIZE,
            )
        ).density()
        for name in ("open", "closed")
    )
    frame = likeliest_frame(MapPair(opened, closed, None, BOX * PIXEL_SIZE))
    closed = transform_map(closed, frame.alignment, PIXEL_SIZE)
    maps = torch.stack([(opened + closed) / 2, (closed - opened) / 2])
    return Subspace(maps, maps.new_ones(2, BOX // 2 + 1))


def calibrated(loop: SubspaceLoop, subspace: Subspace) -> CalibratedSearch:
    return calibrate_search(loop, subspace, SHIFT_SD, SILENT, IMAGES)


def test_sets_hold_as_many_truths_as_they_say(
    loop: SubspaceLoop, subspace: Subspace
) -> None:
    found = calibrated(loop, subspace)
    assert found.trial.images == IMAGES // 2
    assert found.trial.median_degrees < 4.0
    # Widths are measured on as many images again; 300 tell a share of a half to 2.9
    # points, of nine tenths to 1.7 (standard deviations).
    assert found.trial.share_in(0.5) == pytest.approx(0.5, abs=0.12)
    assert found.trial.share_in(0.9) == pytest.approx(0.9, abs=0.07)
    assert 1.0 <= float(found.inflation[0]) < 1.4
    assert 1.0 <= float(found.inflation[6]) < 1.4
    assert set(found.trial.ranks) >= {"rotation", "shift x", "conformation 1"}


def test_contrast_is_no_conformation_of_the_trial(
    loop: SubspaceLoop, subspace: Subspace
) -> None:
    config = replace(loop.config, contrast=True)
    uneven = replace(loop, config=config, problem=loop.problem.of_dims(2))
    found = calibrated(uneven, replace(subspace, contrast_sd=0.15))
    assert "conformation 1" in found.trial.ranks
    assert "conformation 2" not in found.trial.ranks
    assert found.trial.share_in(0.9) == pytest.approx(0.9, abs=0.07)


def test_posteriors_of_weak_images_are_not_widened_without_end(
    loop: SubspaceLoop, subspace: Subspace
) -> None:
    weak = replace(subspace, maps=0.05 * subspace.maps)
    found = calibrated(loop, weak)
    # Truths beyond six standard deviations belong to other modes, and 80 % within 6 are
    # within 1.28 of as many times 4.7.
    assert 1.0 <= float(found.inflation.max()) <= 4.7
