"""Posteriors of several origins in one have the density of their mixture."""

from dataclasses import replace

import pytest
import torch

from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.mode_ranking import posterior_of_modes
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.posterior_mixture import log_evidence, mixture_of
from cryoinfer.inference.prior import PosePrior
from cryoinfer.records import Latents, Pose

N = 4
SHARE = torch.tensor([[0.7, 0.3], [0.2, 0.8], [0.5, 0.5], [1.0, 0.0]]).double()


def of_gaussians(seed: int, modes: int, background: float) -> ParticlePosterior:
    """Return Gaussians of full covariance about random modes; defoci are held."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(N, *shape, generator=generator, dtype=torch.float64)

    rotation = random_rotations(N * modes, generator).unflatten(0, (N, modes))
    at = Latents.rigid(Pose(rotation, normal(modes, 2)), torch.zeros(N, modes).double())
    free = torch.tensor([0.3, 0.2, 0.4, 1.0, 2.0, 0.0], dtype=torch.float64)
    root = normal(modes, 6, 12) * free[:, None]
    weight = normal(modes).softmax(1).sort(dim=1, descending=True).values
    return replace(
        ParticlePosterior.of_modes(at, weight, root @ root.mT / 12, normal()),
        weight=weight * (1 - background),
        background=torch.full((N,), background, dtype=torch.float64),
    )


def with_wide_background(one: ParticlePosterior) -> ParticlePosterior:
    variance = torch.tensor([9.0, 9.0, 1e4], dtype=torch.float64)
    return replace(one, prior_variance=variance)


@pytest.mark.parametrize("background_first", [False, True])
@pytest.mark.parametrize("one_covariance", [True, False])
def test_the_density_is_that_of_the_mixture(
    background_first: bool, one_covariance: bool
) -> None:
    # One has a background, as an encoder's; the other none, as a refinement's.
    parts = [of_gaussians(1, 2, 0.0), with_wide_background(of_gaussians(2, 3, 0.25))]
    if one_covariance:
        parts[0] = parts[0].with_first_covariance()
    if background_first:
        parts.reverse()
    whole = mixture_of(parts, SHARE)
    drawn = Latents.joined(
        [
            one.sample(20, torch.Generator().manual_seed(k))
            for k, one in enumerate(parts)
        ]
    )
    each = [one.log_prob(drawn) + SHARE[:, k].log() for k, one in enumerate(parts)]
    torch.testing.assert_close(
        whole.log_prob(drawn), torch.logsumexp(torch.stack(each), 0)
    )
    torch.testing.assert_close(
        whole.weight.sum(1) + whole.background, torch.ones(N, dtype=torch.float64)
    )


def test_the_likeliest_mode_comes_first_with_the_likelihood_of_its_part() -> None:
    first, second = of_gaussians(1, 2, 0.0), of_gaussians(2, 3, 0.0)
    whole = mixture_of((first, second), SHARE)
    assert bool((whole.weight.diff(dim=1) <= 0).all())
    heaviest = torch.stack([one.weight[:, 0] for one in (first, second)], 1) * SHARE
    of_first = heaviest[:, 0] > heaviest[:, 1]
    assert 0 < int(of_first.sum()) < N
    expected = torch.where(of_first, first.log_likelihood, second.log_likelihood)
    assert torch.equal(whole.log_likelihood, expected)
    mode = torch.where(
        of_first[:, None],
        first.mode().pose.shift_angstrom,
        second.mode().pose.shift_angstrom,
    )
    assert torch.equal(whole.mode().pose.shift_angstrom, mode)


def test_the_evidence_is_the_sum_over_the_modes() -> None:
    prior = PosePrior(3.0, 0.0)
    generator = torch.Generator().manual_seed(3)
    count = 3 * N
    root = torch.randn(count, 6, 12, generator=generator, dtype=torch.float64)
    root[:, 5] = 0  # the defocus is held
    shift = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    at = Latents.rigid(Pose(random_rotations(count, generator), shift), shift[:, 0] * 0)
    likelihood = torch.randn(count, generator=generator, dtype=torch.float64)
    modes = PosteriorModes(at, root @ root.mT, likelihood)
    evidence = modes.log_evidence(prior)
    owner = torch.arange(N).repeat_interleave(3)
    order = evidence.argsort(descending=True)
    order = order[owner[order].argsort(stable=True)]
    posterior = posterior_of_modes(owner, modes[order], evidence[order], N, 3)
    torch.testing.assert_close(
        log_evidence(posterior, prior), evidence.view(N, 3).logsumexp(1)
    )
