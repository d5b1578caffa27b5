"""The page about motions."""

import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from cryoinfer.evaluation.identifiability import Identifiability
from cryoinfer.report import DynamicsContent, render_dynamics_report
from cryoinfer.report.dynamics import HalfMaps, assess_dynamics
from cryoinfer.report.style import THEME_COLOURS
from cryoinfer.results.calibration_trial import BINS, LEVELS, SEARCHED, CalibrationTrial

EVEN = CalibrationTrial(
    images=1000,
    median_degrees=1.0,
    coverage=LEVELS,
    calibration_error=0.01,
    ranks={"rotation": (50,) * BINS},
    p_values={"rotation": 0.5},
)
CENTRES = np.array([[0.0, 0.0], [3.0, 1.0]])


def content_of(first: np.ndarray) -> DynamicsContent:
    n = len(first)
    random = np.random.default_rng(1)
    return DynamicsContent(
        title="run <1>",
        created="2024-05-02",
        mean=np.stack([first, random.normal(0, 1, n)], 1),
        sd=np.full((n, 2), 0.1),
        prior_sd_angstrom=np.array([5.0, 3.0]),
        centre_angstrom=CENTRES,
        rotation_sd_degrees=np.full(n, 2.0),
        node_coordinates_angstrom=random.normal(0, 10, (12, 3)),
        node_chain=np.zeros(12, dtype=np.int64),
        node_displacement=random.normal(0, 1, (2, 12, 3)),
        extent_angstrom=np.array([4.0, 2.0]),
        identifiability=Identifiability((1.1, 1.2), ((1.0, 0.1), (0.1, 1.0))),
        learned_angstrom=0.0,
        unexplained=0.02,
        unexplained_sd=0.01,
        unreadable=0,
        verdict="",
        trials={},
        stage_seconds={"inference": 61.0},
    )


@pytest.fixture
def one() -> DynamicsContent:
    return content_of(np.random.default_rng(0).normal(0, 2, 500))


@pytest.fixture
def two() -> DynamicsContent:
    random = np.random.default_rng(0)
    side = np.where(random.random(500) < 0.5, -4.0, 4.0)
    return content_of(side + random.normal(0, 1, 500))


def test_a_gaussian_has_one_minimum_and_no_crosses(one: DynamicsContent) -> None:
    page = render_dynamics_report(one)
    assert "One minimum survives resampling." in page
    assert "minima survive" not in page
    assert "Crosses" not in page
    _, body = page.split("</style>", 1)
    assert not any(colour in body for colour in THEME_COLOURS)


def test_centres_are_called_what_they_are(two: DynamicsContent) -> None:
    page = render_dynamics_report(two)
    assert "2 minima survive resampling: at -" in page
    assert "Crosses are centres of clusters, not minima." in page


def test_few_particles_have_no_free_energy(one: DynamicsContent) -> None:
    few = replace(one, mean=one.mean[:9], sd=one.sd[:9])
    page = render_dynamics_report(few)
    assert "too few particles for a density" in page


def test_lengths_are_in_angstrom_signs_and_axes_say_what_they_are(
    one: DynamicsContent,
) -> None:
    page = render_dynamics_report(one)
    assert " A " not in page
    assert " A<" not in page
    assert "nodes" not in page.split("<script", 1)[0]


def test_what_is_wrong_asks_for_caution(one: DynamicsContent) -> None:
    wrong = replace(one, unexplained=0.4, verdict="still learning: more steps")
    texts = [f.text for f in assess_dynamics(wrong) if f.level == "caution"]
    assert any(
        "40% (sd 1%) of the images' signal unexplained" in text for text in texts
    )
    assert any("still learning" in text for text in texts)


def test_a_wrong_model_has_no_green_but_what_does_not_hang_on_it(
    one: DynamicsContent,
) -> None:
    tried = replace(one, trials={SEARCHED: EVEN})
    good = [f.text for f in assess_dynamics(tried) if f.level == "good"]
    assert len(good) == 2
    page = html.unescape(render_dynamics_report(tried))
    assert "leaves 2% of the particles' signal unexplained" in page
    wrong = assess_dynamics(replace(tried, unexplained=0.4))
    assert {finding.level for finding in wrong} == {"caution"}
    assert any("simulated from the model, which leaves 40%" in f.text for f in wrong)


def test_what_was_not_tried_is_said(one: DynamicsContent) -> None:
    assert any("were not tested" in f.text for f in assess_dynamics(one))


def test_images_that_are_too_noisy_to_tell_are_said_to_be(
    one: DynamicsContent,
) -> None:
    # 2 % with a standard error of 5 % may be 12 %, above the tenth that is too much.
    vague = assess_dynamics(replace(one, unexplained_sd=0.05))
    assert any("too noisy to show" in f.text for f in vague if f.level == "caution")


def test_half_maps_have_a_section_where_there_are_any(one: DynamicsContent) -> None:
    heading = "The map and the model at rest</h2>"
    assert heading not in render_dynamics_report(one)
    curve = torch.linspace(1, 0, 17)
    density = np.random.default_rng(4).normal(size=(32, 32, 32))
    halves = HalfMaps(density, curve, curve**2, 4.0, "14.2 A, of one map")
    page = render_dynamics_report(replace(one, half_maps=halves))
    assert heading in page
    # The backbone is told from the middle of the box, 16 voxels of 4 A from its first.
    about = json.loads(re.search(r'id="isosurface-about">(.*?)</script>', page)[1])
    told = np.array(about["chain"]["at"]) + 64.0
    np.testing.assert_allclose(told, one.node_coordinates_angstrom, atol=0.01)
    # Angstrom are written as such on the page.
    assert "14.2" in page
    assert "Fourier shell correlation of the half-maps" in page
    assert "moving parts" in page
