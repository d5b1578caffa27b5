"""Moments of posteriors that are known in closed form, found from a wrong start."""

import copy
import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.amplitudes import amplitude_moments
from cryoinfer.inference.moment_matching import MomentMatching
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import GivenPoses
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.quadrature_grid import departure, moved
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents, Optics, Pose

FLAT = 1e6
"""Sd of a prior that does not matter, in angstrom."""

# Of rotation, shift, defocus and two amplitudes: turns are small enough for vectors to
# add up to a thousandth of their width.
SD = torch.tensor([0.01, 0.02, 0.015, 0.3, 0.5, 80.0, 0.6, 1.0], dtype=torch.float64)
IN_PLANE_AND_ONE = [2, 6]
MANY = [0, 1, 2, 3, 4, 6]

MATCHING = MomentMatching(GivenPoses())


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int) -> WhitenedImages:
    """Return images that show nothing but which of them they are."""
    disc = FourierDisc.of_box(8, 1)
    row = torch.arange(n)[:, None].expand(n, len(disc))
    one = torch.ones(n, len(disc))
    optics = Optics.without_ctf(n, 1.0)
    return WhitenedImages(disc, row.to(torch.complex64), one, optics, one[0], 1.0)


@dataclass(frozen=True)
class Gaussians:
    """A sum of Gaussians about centres (n, m), with heights and precisions."""

    centre: Latents
    precision: Tensor
    log_height: Tensor

    def log_likelihood(self, images: WhitenedImages, latents: Latents) -> Tensor:
        row = images.coefficients[:, 0].real.long()
        values = []
        for mode in range(self.log_height.shape[1]):
            step = departure(latents, self.centre[row, mode])
            precision = self.precision[row, mode]
            square = torch.einsum("si,sij,sj->s", step, precision, step)
            values.append(self.log_height[row, mode] - 0.5 * square)
        return torch.logsumexp(torch.stack(values), 0)


def centres(n: int, modes: int) -> Latents:
    generator = seeded(1)
    rotation = random_rotations(n * modes, generator).unflatten(0, (n, modes))
    shape = n, modes, 5
    away = 5 * torch.randn(shape, generator=generator, dtype=torch.float64)
    return Latents(Pose(rotation, away[..., :2]), away[..., 2] * 20, away[..., 3:])


def covariances(unknowns: list[int], n: int, modes: int) -> Tensor:
    """Return covariances with the given widths and any correlation, zero if held."""
    size = len(unknowns)
    shape = n, modes, size, 2 * size
    mixed = torch.randn(shape, generator=seeded(2), dtype=torch.float64)
    spread = mixed @ mixed.mT
    width = spread.diagonal(dim1=-2, dim2=-1).sqrt()
    spread = spread / (width[..., :, None] * width[..., None, :])
    sd = SD[unknowns]
    wide = torch.zeros(n, modes, 8, 8, dtype=torch.float64)
    index = torch.tensor(unknowns)
    wide[..., index[:, None], index] = spread * sd[:, None] * sd
    return wide


def inverse(covariance: Tensor, unknowns: list[int]) -> Tensor:
    index = torch.tensor(unknowns)
    small = covariance[..., index[:, None], index]
    whole = torch.zeros_like(covariance)
    whole[..., index[:, None], index] = torch.linalg.inv(small)
    return whole


def mixture(centre: Latents, covariance: Tensor) -> ParticlePosterior:
    weight = torch.full(
        covariance.shape[:2], 1 / covariance.shape[1], dtype=torch.float64
    )
    return ParticlePosterior.of_modes(centre, weight, covariance)


@dataclass(frozen=True)
class Problem:
    """A posterior of one Gaussian, and the prior that is part of it."""

    unknowns: list[int]
    prior: PosePrior
    likelihood: Gaussians
    truth: ParticlePosterior

    def start(self, displaced_sd: float, inflated: float) -> ParticlePosterior:
        """Return a Gaussian off its place in every direction, and of other size."""
        covariance = self.truth.covariance
        index = torch.tensor(self.unknowns)
        root = torch.linalg.cholesky(covariance[..., index[:, None], index])
        direction = torch.ones(len(index), dtype=torch.float64) / len(index) ** 0.5
        step = torch.zeros(*covariance.shape[:2], 8, dtype=torch.float64)
        step[..., index] = displaced_sd * root @ direction
        centre = moved(self.truth.modes, step)
        return mixture(centre, covariance * inflated)

    def matched(
        self,
        start: ParticlePosterior,
        matching: MomentMatching = MATCHING,
    ) -> ParticlePosterior:
        """Return what matching makes of a start."""
        n = len(start)
        return matching.match(images(n), self.likelihood, self.prior, start)

    def errors(self, found: ParticlePosterior) -> tuple[Tensor, Tensor]:
        """Return errors of means and covariances, where the true one is the unit."""
        index = torch.tensor(self.unknowns)
        away = departure(found.modes, self.truth.modes)
        true, own = (
            one.covariance[..., index[:, None], index] for one in (self.truth, found)
        )
        white = torch.linalg.inv(torch.linalg.cholesky(true))
        mean = (white @ away[..., index, None])[..., 0]
        return mean, white @ own @ white.mT - torch.eye(len(index)).double()


def problem(unknowns: list[int], n: int = 2) -> Problem:
    """Return it with a prior a few times as wide as the likelihood."""
    opened = [k in unknowns for k in range(8)]
    prior = PosePrior(
        3 * float(SD[4]) if opened[3] else 0.0,
        3 * float(SD[5]) if opened[5] else 0.0,
        (2 * float(SD[6]) * opened[6], 2 * float(SD[7]) * opened[7]),
        rotation_unknowns=sum(opened[:3]),
    )
    likeliest = centres(n, 1)
    precision = inverse(covariances(unknowns, n, 1), unknowns)
    # The product of Gaussians, about the mode of the likelihood.
    of_prior = torch.diag(2 * prior.precision.clamp(min=0))
    covariance = inverse(precision + of_prior, unknowns)
    at = torch.cat(
        [
            torch.zeros(n, 1, 3, dtype=torch.float64),
            likeliest.pose.shift_angstrom,
            likeliest.defocus_offset_angstrom[..., None],
            likeliest.conformation,
        ],
        -1,
    )
    pull = -(covariance @ of_prior @ at[..., None])[..., 0]
    truth = mixture(moved(likeliest, pull), covariance)
    likelihood = Gaussians(likeliest, precision, torch.zeros(n, 1, dtype=torch.float64))
    return Problem(unknowns, prior, likelihood, truth)


@pytest.mark.parametrize("unknowns", [[2], [6], [2, 6], [6, 7], [2, 6, 7], [3, 4]])
def test_a_lattice_leaves_a_gaussian_as_it_is(unknowns: list[int]) -> None:
    made = problem(unknowns)
    found = made.matched(made.truth)
    mean, spread = made.errors(found)
    # What the ball cuts off is even, and made up for. Double precision, but for
    # logarithms of rotations.
    assert mean.abs().max() < 1e-6
    assert spread.abs().max() < 1e-6


@pytest.mark.parametrize("inflated", [0.7, 1.0, 1.3])
def test_a_lattice_finds_the_moments_of_two_unknowns(inflated: float) -> None:
    made = problem(IN_PLANE_AND_ONE)
    start = made.start(0.5, inflated)
    mean, spread = made.errors(made.matched(start))
    # A ball of 3 widths, off by half of one and too small by 16 %: it ends at 2.0, and
    # beyond that lie 2 % of a Gaussian, a twentieth of its mean square.
    assert mean.abs().max() < 0.1
    assert spread.abs().max() < 0.2
    again = start
    for _ in range(5):
        again = made.matched(again)
    mean, spread = made.errors(again)
    # Each of five rounds leaves a fifth of the error at most.
    assert mean.abs().max() < 0.1 / 5**4
    assert spread.abs().max() < 0.2 / 5**4


@pytest.mark.parametrize("unknowns", [[2, 3, 4, 6, 7], MANY, [0, 1, 2, 3, 4, 5, 6, 7]])
@pytest.mark.parametrize("inflated", [0.7, 1.3])
def test_quasi_random_points_find_the_moments_of_many_unknowns(
    unknowns: list[int], inflated: float
) -> None:
    made = problem(unknowns)
    start = made.start(0.5, inflated)
    matching = MomentMatching(GivenPoses(), points=4096)
    mean, spread = made.errors(made.matched(start, matching))
    # Narrow starts leave a fifth of the points where weights are even: of 800 random
    # ones standard errors would be 0.035 and 0.05; quasi-random ones do no worse at the
    # largest among 16 means and 72 covariances.
    assert mean.abs().max() < 0.05
    assert spread.abs().max() < 0.1
    off, wide = made.errors(start)
    assert mean.norm() < 0.3 * off.norm()
    assert spread.norm() < wide.norm()


def test_few_points_are_worth_it_already() -> None:
    made = problem(MANY, n=8)
    start = made.start(0.5, 1.3)
    mean, _ = made.errors(made.matched(start))
    off, _ = made.errors(start)
    # Of 60 effective points, were they random, 0.13; quasi-random ones leave a third,
    # of 0.2 before.
    assert mean.square().mean().sqrt() < 0.06
    assert off.square().mean().sqrt() > 0.2


def test_held_unknowns_and_the_given_mixture_stay() -> None:
    made = problem(IN_PLANE_AND_ONE)
    start = made.start(0.5, 1.3)
    before = copy.deepcopy(start.to_state())
    found = made.matched(start)
    torch.testing.assert_close(start.to_state(), before, rtol=0, atol=0, equal_nan=True)
    step = departure(found.modes, start.modes)
    held = [k for k in range(8) if k not in IN_PLANE_AND_ONE]
    # Logarithms of rotations in double precision.
    assert (step[..., held].abs() < 1e-7).all()
    assert not found.covariance[..., held].any()
    assert not found.covariance[..., held, :].any()


@pytest.mark.parametrize(("unknowns", "error"), [([2, 6], 1e-6), (MANY, 0.01)])
def test_weights_follow_the_evidence(unknowns: list[int], error: float) -> None:
    n, height = 3, torch.tensor([[0.0, 0.5], [0.0, -1.0], [1.0, 0.0]]).double()
    centre, covariance = centres(n, 2), covariances(unknowns, n, 2)
    covariance[:, 1] *= 1.7
    likelihood = Gaussians(centre, inverse(covariance, unknowns), height)
    opened = [k in unknowns for k in range(8)]
    prior = PosePrior(
        FLAT * opened[3],
        0.0,
        (FLAT, FLAT * opened[7]),
        rotation_unknowns=sum(opened[:3]),
    )
    found = MomentMatching(GivenPoses(), points=1024).match(
        images(n), likelihood, prior, mixture(centre, covariance)
    )
    index = torch.tensor(unknowns)
    small = covariance[..., index[:, None], index]
    expected = (height + 0.5 * torch.linalg.slogdet(small).logabsdet).softmax(1)
    expected, order = expected.sort(dim=1, descending=True)
    assert (order[:, 0] == 1).any()
    # A lattice cuts both alike. Of quasi-random points that are where the mass is, all
    # weigh alike, but for the turns, whose vectors add up nearly.
    torch.testing.assert_close(found.weight, expected, rtol=0, atol=error)
    assert not found.background.any()
    # The heaviest comes first, whatever came first before.
    first = centre[torch.arange(n), order[:, 0]]
    away = departure(found.mode(), first)
    sd = covariance.diagonal(dim1=-2, dim2=-1)[torch.arange(n), order[:, 0]].sqrt()
    assert (away.abs() < 0.1 * sd + 1e-9).all()


@pytest.mark.parametrize(("share", "apart_sd"), [(0.02, 5.0), (0.1, 6.0), (0.3, 3.0)])
def test_what_two_modes_share_counts_once(share: float, apart_sd: float) -> None:
    """Points about the lesser mode lie in the greater one: its mass is not theirs."""
    covariance = covariances([6], 1, 2)
    sd = float(SD[6])
    start = centres(1, 1)
    step = torch.zeros(1, 2, 8, dtype=torch.float64)
    step[0, 1, 6] = apart_sd * sd
    centre = moved(start[:, [0, 0]], step)
    height = torch.tensor([[1 - share, share]], dtype=torch.float64).log()
    likelihood = Gaussians(centre, inverse(covariance, [6]), height)
    prior = PosePrior(0.0, 0.0, (FLAT, 0.0), rotation_unknowns=0)
    found = MATCHING.match(images(1), likelihood, prior, mixture(centre, covariance))
    mean, spread = amplitude_moments(found)
    expected = share * apart_sd * sd
    variance = 1 + share * (1 - share) * apart_sd**2
    away = float(mean[0, 0] - centre.conformation[0, 0, 0])
    # Of modes that are no Gaussians any more once a neighbour has taken its share.
    assert away == pytest.approx(expected, abs=0.02 * sd)
    assert float(spread[0, 0]) == pytest.approx(variance**0.5 * sd, rel=0.02)


def test_wide_turns_fill_less_than_their_vectors() -> None:
    width = torch.tensor([0.3, 0.5, 0.6], dtype=torch.float64)
    covariance = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    covariance[0, 0, range(3), range(3)] = width.square()
    centre = centres(1, 1)
    # Of the density of rotations, which a Gaussian of vectors is divided by this for.
    exact = mixture(centre, covariance)
    prior = PosePrior(0.0, 0.0, (0.0, 0.0))
    found = MATCHING.match(images(1), OfMixture(exact), prior, exact)
    got = found.covariance[0, 0].diagonal()[:3].sqrt()
    # The lattice ends at five widths, of which one is half a turn.
    torch.testing.assert_close(got, width, rtol=0.005, atol=0)


@dataclass(frozen=True)
class OfMixture:
    """A likelihood that is a mixture's density, whichever image is shown."""

    mixture: ParticlePosterior

    def log_likelihood(self, images: WhitenedImages, latents: Latents) -> Tensor:
        rows = [latents[k : k + 1] for k in range(len(latents))]
        return torch.cat([self.mixture.log_prob(one) for one in rows])


@dataclass(frozen=True)
class Skew:
    """The logarithm of a gamma variable, in units of an amplitude."""

    shape: float
    scale: float

    def log_likelihood(self, images: WhitenedImages, latents: Latents) -> Tensor:
        z = latents.conformation[:, 0] / self.scale
        return self.shape * z - z.exp()


def test_a_skew_mode_moves_to_its_mean() -> None:
    likelihood, prior = (
        Skew(2.0, 1.5),
        PosePrior(0.0, 0.0, (4.0, 0.0), rotation_unknowns=0),
    )
    z = torch.linspace(-25, 12, 20_001, dtype=torch.float64)
    pose = Pose(torch.eye(3).double().expand(len(z), 3, 3), torch.zeros(len(z), 2))
    at = Latents(pose, torch.zeros(len(z)), torch.stack([z, 0 * z], 1))
    score = likelihood.log_likelihood(images(1), at) - 0.5 * (z / 4.0) ** 2
    mass = score.softmax(0)
    mean = float(mass @ z)
    variance = float(mass @ (z - mean) ** 2)
    # The mode, and the curvature there.
    mode = float(z[score.argmax()])
    curvature = math.exp(mode / 1.5) / 1.5**2 + 1 / 4.0**2
    covariance = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    covariance[..., 6, 6] = 1 / curvature
    zero = torch.zeros(1, 1, 2, dtype=torch.float64)
    centre = Latents(
        Pose(torch.eye(3).double()[None, None], zero),
        zero[..., 0],
        torch.tensor([[[mode, 0.0]]], dtype=torch.float64),
    )
    start = mixture(centre, covariance)
    sd = variance**0.5
    assert mean < mode - 0.1 * sd
    assert variance > 1.05 / curvature
    found = MATCHING.match(images(1), likelihood, prior, start)
    # Laplace's ball ends at 3 of its widths, and cuts the longer tail.
    z = found.modes.conformation[0, 0]
    assert float(z[0]) == pytest.approx(mean, abs=0.05 * sd)
    assert float(found.covariance[0, 0, 6, 6]) == pytest.approx(variance, rel=0.1)
    assert not z[1].any()


def test_laplace_stays_where_hardly_a_point_counts() -> None:
    made = problem([6, 7])
    # A lattice of steps of ten widths has one point in the Gaussian.
    start = made.start(0.0, 100.0)
    found = made.matched(start)
    assert torch.equal(found.covariance, start.covariance)
    assert torch.equal(found.modes.conformation, start.modes.conformation)
    assert torch.equal(found.weight, start.weight)


def test_other_seeds_are_other_points() -> None:
    made = problem(MANY)
    start = made.start(0.5, 1.3)
    first, again, other = (
        made.matched(start, one)
        for one in (MATCHING, MATCHING, replace(MATCHING, seed=1))
    )
    assert torch.equal(first.covariance, again.covariance)
    assert not torch.equal(first.covariance, other.covariance)
