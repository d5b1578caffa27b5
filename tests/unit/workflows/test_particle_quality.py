"""How particles fit the map, and which are left out of it."""

import math

import pytest
import torch

from cryoinfer.data.junk import EDGE, ICE, Junk
from cryoinfer.data.simulated_set import Composition
from cryoinfer.evaluation.junk import compare_junk
from cryoinfer.inference.outlier_score import (
    FALSE_DISCOVERIES,
    USUAL_THRESHOLD_NATS,
    Fit,
    discovery_threshold,
    fit_at,
    is_outlier,
)
from cryoinfer.records import Latents
from cryoinfer.workflows.image_sources import StrictImages
from cryoinfer.workflows.particle_quality import ParticleQuality
from cryoinfer.workflows.problem import Problem, define_problem
from cryoinfer.workflows.refine import RefineConfig, StartingMap, refine
from cryoinfer.workflows.structure_update import MapUpdate


def naive_threshold(score: torch.Tensor) -> float:
    """Try every score, the lowest first, as Benjamini and Hochberg state it."""
    for value in score.sort().values.tolist():
        expected = len(score) * math.exp(-value)
        if expected <= FALSE_DISCOVERIES * int((score >= value).sum()):
            return max(value, USUAL_THRESHOLD_NATS)
    return math.inf


@pytest.mark.parametrize("junk", [0, 1, 50, 400])
def test_few_of_the_flagged_show_the_map(junk: int) -> None:
    generator = torch.Generator().manual_seed(junk)
    good = -torch.rand(2000, generator=generator, dtype=torch.float64).log()
    bad = 12 + 5 * torch.rand(junk, generator=generator, dtype=torch.float64)
    score = torch.cat([good, bad])
    flagged = is_outlier(score, discovery_threshold(score))
    assert bool(flagged[2000:].all())
    # Expected are 5 % of the flagged; four standard deviations of that count, or one
    # particle where nothing is there to be found.
    expected = FALSE_DISCOVERIES * int(flagged.sum())
    assert int(flagged[:2000].sum()) <= expected + 4 * math.sqrt(expected) + 1
    assert torch.equal(flagged, score >= naive_threshold(score))


def test_one_flagged_image_of_all_is_found() -> None:
    score = torch.ones(100, dtype=torch.float64).index_fill(0, torch.tensor(3), 1e3)
    assert is_outlier(score, discovery_threshold(score)).nonzero().tolist() == [[3]]


def test_what_is_no_number_is_flagged() -> None:
    score = torch.ones(100, dtype=torch.float64)
    score[5] = torch.nan
    assert is_outlier(score, discovery_threshold(score)).nonzero().tolist() == [[5]]


def test_contrast_is_relative_to_most() -> None:
    generator = torch.Generator().manual_seed(0)
    contrast = 0.7 * (1 + 0.2 * torch.randn(1000, generator=generator).double())
    one = torch.ones(1000, dtype=torch.float64)
    found = ParticleQuality.of(
        Fit(contrast, 0.01 * one, one, 0.1 * one), torch.ones(1000, dtype=torch.bool)
    )
    torch.testing.assert_close(found.contrast, contrast / contrast.median())
    assert not bool(found.left_out.any())


def test_contrast_is_believed_as_far_as_images_tell_it() -> None:
    """Twice the prior's width from 1, with no error, its own error, and a vast one."""
    generator = torch.Generator().manual_seed(0)
    spread, n = 0.2, 4000
    contrast = 1 + spread * torch.randn(n, generator=generator).double()
    one = torch.ones(n, dtype=torch.float64)

    def believed(sd: float, own: float) -> float:
        noise = sd * torch.randn(n, generator=generator).double()
        seen = contrast + noise
        seen[0], power = own, 1 + 0.1 * torch.randn(n, generator=generator).double()
        power[0] = 1.0
        fit = Fit(seen, sd * one, power, 0.1 * one)
        found = ParticleQuality.of(fit, one > 0)
        assert not bool(found.flagged[0])
        return float(found.believed_contrast[0])

    # The spread is known to a few percent, and so is what is left of 0.4.
    assert believed(1e-6, 1.4) == pytest.approx(1.4, abs=0.02)
    assert believed(0.2, 1.4) == pytest.approx(1.2, abs=0.03)
    assert believed(0.2, 0.6) == pytest.approx(0.8, abs=0.03)
    # Of a spread that nobody sees a chance part may be believed.
    assert believed(5.0, 1.4) == pytest.approx(1.0, abs=0.05)


def test_even_images_are_believed_to_be_even() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.ones(4000, dtype=torch.float64)
    contrast = 1 + 0.1 * torch.randn(4000, generator=generator).double()
    found = ParticleQuality.of(Fit(contrast, 0.1 * one, one, 0.1 * one), one > 0)
    # Of a spread of 0.1 the median deviation is known to 1.8 %, its square to 4 %.
    assert float((found.believed_contrast - 1).std()) < 0.1 * 0.12


def test_flagged_images_are_taken_as_usual() -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.ones(1000, dtype=torch.float64)
    contrast = 1 + 0.2 * torch.randn(1000, generator=generator).double()
    contrast[0] = -20.0
    found = ParticleQuality.of(Fit(contrast, 0.01 * one, one, 0.1 * one), one > 0)
    assert bool(found.flagged[0])
    assert float(found.believed_contrast[0]) == 1.0
    low, high = found.believed_contrast.aminmax()
    assert 0.2 <= float(low) < float(high) <= 3.0


def test_a_fit_does_not_depend_on_the_contrast_that_images_were_given(
    simulated,
) -> None:
    made = simulated(40, snr_db=0.0)
    known = torch.linspace(0.5, 1.5, 40, dtype=torch.float64)
    noise = (made.simulation.model.noise.spectrum.float(),)
    seed = torch.Generator().manual_seed(0)
    plain = define_problem(made.particles, "C1", None, None, 0.0, seed)
    projector = MapUpdate(plain).projector(made.density, 6)
    latents = Latents.rigid(made.true_pose, torch.zeros(40, dtype=torch.float64))

    def fitted(problem: Problem) -> Fit:
        batch = problem.batch(torch.arange(40))
        images = StrictImages(problem.grid, 6, noise).prepare(batch).images
        return fit_at(projector, images, latents)

    first, again = fitted(plain), fitted(plain.of_contrast(known)).of_contrast(known)
    for one, other in zip(vars(first).values(), vars(again).values(), strict=True):
        # The weights of the power hold the contrast: they change it a little.
        tolerance = 0.05 if one is first.power or one is first.power_sd else 1e-5
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_junk_is_left_out_and_contrast_found(simulated) -> None:
    composition = Composition(junk=(Junk(ICE, 0.1), Junk(EDGE, 0.1)))
    made = simulated(
        400, box=32, pixel_size_angstrom=2.8, snr_db=0.0,
        composition=composition, contrast_sd=0.2,
    )  # fmt: skip
    start = StartingMap(made.density, made.particles.pixel_size_angstrom)
    found = refine(made.particles, start, RefineConfig(resolution_angstrom=8.0))
    junk = made.simulation.drawn.junk > 0
    compared = compare_junk(junk, found.outlier_score_nats, found.outlier)
    assert compared.auc > 0.98
    # Edges of the film lose their ramp when they are read, and some then look like ice
    # that fits a little: 75 of 81 were flagged.
    assert compared.flagged_junk > 0.9
    assert compared.flagged_particles < 0.02
    true, own = made.simulation.contrast[~junk].double(), found.contrast[~junk]
    correlation = torch.corrcoef(torch.stack([true, own]))[0, 1]
    # The noise adds some 0.06 to a spread of 0.2.
    assert float(correlation) > 0.9
