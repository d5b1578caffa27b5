"""The factor by which noise in the reference sharpens posteriors falsely."""

from dataclasses import replace

import pytest
import torch

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.whitening import whiten
from cryoinfer.records import Latents
from cryoinfer.workflows import calibrate
from cryoinfer.workflows.calibrate import variance_inflation
from cryoinfer.workflows.problem import define_problem, initial_noise


def at_the_truth(made) -> ParticlePosterior:
    """Return the true poses of 200 particles, of no known width."""
    return ParticlePosterior.at(Latents.rigid(made.true_pose, torch.zeros(200)), 1)


def inflation(simulated, noises, max_shift=4.0, defocus_sd=0.0, **changes):
    """Return the factor for references that are the truth and some noise."""
    made = simulated(**changes)
    generator = torch.Generator().manual_seed(0)
    problem = define_problem(
        made.particles, "C1", 80.0, max_shift, defocus_sd, generator
    )
    known = at_the_truth(made)
    noise = torch.randn(2, 24, 24, 24, generator=generator) * made.density.std()
    filtered, unfiltered = (
        tuple(made.density + level * noise[half] for half in (0, 1)) for level in noises
    )
    return variance_inflation(
        problem, initial_noise(problem), known, filtered, unfiltered, 10
    )


def test_a_perfect_reference_needs_no_factor(simulated) -> None:
    factor = inflation(simulated, (0.0, 0.0))
    assert factor.shape == (6,)
    # Single precision, of which the differences of normal equations keep less.
    torch.testing.assert_close(factor, torch.ones(6).double(), rtol=0, atol=0.01)


@pytest.mark.parametrize("snr_db", [-10.0, -25.0])
@pytest.mark.parametrize("defocus_sd", [30.0, 300.0])
def test_a_prior_is_not_taken_for_noise_of_the_reference(
    simulated, snr_db: float, defocus_sd: float
) -> None:
    """Where the prior says more than the image, its half was once left out."""
    ctf = {"defocus_range_angstrom": (8000.0, 16000.0), "snr_db": snr_db}
    factor = inflation(simulated, (0.0, 0.0), 4.0, defocus_sd, **ctf)
    torch.testing.assert_close(factor, torch.ones(6).double(), rtol=0, atol=0.01)


@pytest.mark.parametrize("level", [0.0, 0.15])
def test_the_sandwich_is_that_of_the_true_slopes(simulated, level: float) -> None:
    made = simulated()
    generator = torch.Generator().manual_seed(0)
    problem = define_problem(made.particles, "C1", 80.0, 4.0, 0.0, generator)
    (noise,) = initial_noise(problem)
    images = whiten(made.particles.batch(torch.arange(200)), problem.grid, 10, noise)
    known = at_the_truth(made)

    def volume(level: float) -> FourierVolume:
        drawn = torch.randn(24, 24, 24, generator=generator) * made.density.std()
        return FourierVolume.from_map(made.density + level * drawn, 10, 1.5)

    filtered, other, clean = volume(level), volume(level), volume(0.0)
    both = replace(filtered, values=filtered.values + other.values)
    found = calibrate._ratio(problem, images, known, (filtered, other, both))
    of_prior = torch.diag(2 * problem.prior.precision.clamp(min=0))
    equations = (
        MapProjector(one).normal_equations(images, known.mode(), problem.prior)
        for one in (filtered, clean)
    )
    naive, true = ((one.information + of_prior)[:, :5, :5] for one in equations)
    bread = torch.linalg.inv(true)
    parts = (
        (bread @ naive @ bread).diagonal(dim1=1, dim2=2),
        torch.linalg.inv(naive).diagonal(dim1=1, dim2=2),
    )
    for column, unknown in enumerate((slice(0, 3), slice(3, 5))):
        top, bottom = (part[:, unknown].sum(1) for part in parts)
        expected = (top / bottom).median()
        # Products of two noises have no sign, and average out over a median of 200.
        assert float(found[:, column].median() / expected) == pytest.approx(1, abs=0.03)


def test_noise_in_the_reference_widens_posteriors(simulated) -> None:
    little, much = (inflation(simulated, (level, level)) for level in (0.3, 1.0))
    assert (little[:3] > 1).all()
    assert (much[:3] > little[:3]).all()
    assert (much[3:5] >= little[3:5]).all()
    # The defocus was held.
    assert little[5] == much[5] == 1


def test_independent_noise_of_the_other_half_averages_out(simulated) -> None:
    # Only the unfiltered reference is noisy: its cross terms have no sign, and the
    # median over particles stays near one.
    factor = inflation(simulated, (0.0, 0.3))
    assert (factor < 1.2).all()


def test_held_shifts_have_no_factor(simulated) -> None:
    factor = inflation(simulated, (0.5, 0.5), max_shift=0.0)
    assert factor[3] == factor[4] == 1
    assert factor[0] > 1
