"""Variational posteriors against closed forms, numerical grids and Cramer-Rao bounds.

The cases are those of the literature on inference by simulation in cryo-EM: a shifted
blob on a line, pseudo-atoms in the plane, and a contrast transfer ``sin(D k^2)``.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal

from cryoinfer.inference.variational import (
    GaussianGuide,
    VariationalConfig,
    bound,
    fit_guides,
)

BOX = 64
AXIS = torch.arange(BOX, dtype=torch.float64) - BOX // 2
BOUNDS = pytest.mark.parametrize("importance", [False, True])
FIT = VariationalConfig(steps=500, samples=16, learning_rate=0.1)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def round_guide(mean: Tensor, sd: float) -> GaussianGuide:
    n, d = mean.shape
    return GaussianGuide(mean, sd * torch.eye(d, dtype=mean.dtype).expand(n, d, d))


def root_mean_square(values: Tensor) -> Tensor:
    return values.square().mean(0).sqrt()


# A Gaussian of unknown mean: everything is known in closed form.


def measured_twice(unknowns: Tensor) -> Tensor:
    """Joint of mu ~ N(1, sqrt 5) and two measurements 8, 9 ~ N(mu, sqrt 2)."""
    measured = torch.tensor([8.0, 9.0], dtype=torch.float64)
    prior = Normal(1.0, math.sqrt(5)).log_prob(unknowns[..., 0])
    return prior + Normal(unknowns, math.sqrt(2)).log_prob(measured).sum(-1)


def log_evidence_of_measured_twice() -> float:
    # Without mu the two are Gaussian: they share the prior's variance.
    covariance = 5.0 + 2.0 * torch.eye(2)
    return float(
        MultivariateNormal(torch.ones(2), covariance).log_prob(torch.tensor([8.0, 9.0]))
    )


@BOUNDS
def test_the_mean_of_a_gaussian_has_its_conjugate_posterior(importance: bool) -> None:
    start = round_guide(torch.ones(1, 1, dtype=torch.float64), math.sqrt(5))
    # A wide guide costs the importance-weighted bound little, so it needs larger steps.
    config = VariationalConfig(1000, 8, 0.2, importance)
    guide = fit_guides(measured_twice, start, config, seeded(0))
    # Precision 1/5 + 2/2; it comes within 1e-4, for the gradient's noise dies away.
    assert abs(float(guide.mean) - 7.25) < 0.02
    assert abs(float(guide.standard_deviation) - math.sqrt(1 / 1.2)) < 0.02
    found = bound(measured_twice, guide, 1000, seeded(1), importance)
    # 0.02 off in mean and sd would cost (0.02 / 0.913)^2 = 5e-4 nats.
    assert abs(float(found) - log_evidence_of_measured_twice()) < 1e-3


def test_unknowns_of_unlike_units_have_their_covariance() -> None:
    covariance = torch.tensor([[4.0, 120.0], [120.0, 1e4]], dtype=torch.float64)
    mean = torch.tensor([[1.0, -50.0], [-2.0, 300.0]], dtype=torch.float64)
    target = MultivariateNormal(mean, covariance)
    sd = torch.diag_embed(torch.tensor([[1.0, 150.0]] * 2, dtype=torch.float64))
    start = GaussianGuide(torch.zeros_like(mean), sd)
    guide = fit_guides(target.log_prob, start, FIT, seeded(0))
    # In units of the sd; the fit of a Gaussian is exact but for what is left to gain.
    assert float(((guide.mean - mean) / sd.diagonal(dim1=1, dim2=2)).abs().max()) < 1e-3
    found = guide.factor @ guide.factor.mT
    assert torch.allclose(found, covariance.expand(2, 2, 2), rtol=1e-3)


def test_the_importance_weighted_bound_lies_between_the_other_and_the_evidence() -> (
    None
):
    wide = round_guide(torch.full((1, 1), 6.0, dtype=torch.float64), 1.5)

    def mean_bound(count: int, importance: bool) -> float:
        found = [
            bound(measured_twice, wide, count, seeded(k), importance)
            for k in range(2000)
        ]
        return float(torch.cat(found).mean())

    evidence = log_evidence_of_measured_twice()
    # KL of the guide N(6, 1.5) to the posterior N(7.25, 0.913), in closed form.
    sd, away = math.sqrt(1 / 1.2), 1.25
    divergence = math.log(sd / 1.5) + (1.5**2 + away**2) / (2 * sd**2) - 0.5
    # The mean of 16,000 log weights whose sd is 2.3: a standard error of 0.018.
    assert abs(mean_bound(8, False) - (evidence - divergence)) < 0.05
    bounds = [mean_bound(8, False)] + [mean_bound(k, True) for k in (2, 8, 32)]
    assert [*bounds, evidence] == sorted([*bounds, evidence])


def test_both_bounds_are_one_for_a_single_sample() -> None:
    guide = round_guide(torch.zeros(3, 1, dtype=torch.float64), 2.0)
    plain, weighted = (
        bound(measured_twice, guide, 1, seeded(0), importance)
        for importance in (False, True)
    )
    assert torch.equal(plain, weighted)


@BOUNDS
def test_the_gradient_of_the_bound_is_its_derivative(importance: bool) -> None:
    def curved(unknowns: Tensor) -> Tensor:
        x, y = unknowns.unbind(-1)
        return -(x.square() + (y - x.sin()).square() + 0.1 * x.pow(4))

    def value(mean: Tensor, free: Tensor) -> Tensor:
        guide = GaussianGuide(mean, free.tril())
        return bound(curved, guide, 3, seeded(4), importance)

    mean = torch.randn(2, 2, generator=seeded(0), dtype=torch.float64)
    free = torch.rand(2, 2, 2, generator=seeded(1), dtype=torch.float64) + 0.5
    inputs = (mean.requires_grad_(), free.requires_grad_())
    assert torch.autograd.gradcheck(value, inputs)


def test_what_is_drawn_of_a_guide_does_not_depend_on_others() -> None:
    both = GaussianGuide(torch.zeros(2, 3), torch.eye(3).expand(2, 3, 3))
    one = GaussianGuide(both.mean[1:], both.factor[1:])
    drawn = both.sample(5, seeded(0))[:, 1:]
    assert torch.equal(drawn, one.sample(5, seeded(0)))
    assert float(drawn.std()) > 0.5


def test_a_log_joint_of_single_pixels_is_refused() -> None:
    guide = round_guide(torch.zeros(5, 1), 1.0)
    with pytest.raises(ValueError, match=r"sum over the pixels"):
        bound(lambda x: -x.square(), guide, 4, seeded(0), importance=False)


def test_a_start_where_the_joint_is_not_finite_is_refused() -> None:
    guide = round_guide(torch.full((5, 1), -9.0), 1.0)
    with pytest.raises(ValueError, match=r"not finite at step 0"):
        fit_guides(lambda x: x[..., 0].log(), guide, FIT, seeded(0))


# A blob of 10 px^2 variance on a line, shifted by q ~ N(0, 2) px, Gaussian noise.


def blob(shift: Tensor) -> Tensor:
    return torch.exp(-(AXIS - shift).square() / (2 * 10))


def blob_joint(images: Tensor, noise: float, unknowns: Tensor) -> Tensor:
    prior = Normal(0.0, 2.0).log_prob(unknowns[..., 0])
    return prior + Normal(blob(unknowns), noise).log_prob(images).sum(-1)


@BOUNDS
@pytest.mark.parametrize(("noise", "quoted"), [(0.1, 0.188), (0.2, 0.371)])
def test_a_shift_is_known_as_well_as_a_grid_says(
    noise: float, quoted: float, importance: bool
) -> None:
    truth = torch.ones(20, 1, dtype=torch.float64)
    images = blob(truth)
    # The first stays free of noise: its posterior has the expected width.
    images[1:] += noise * torch.randn(19, BOX, generator=seeded(1), dtype=torch.float64)
    joint = partial(blob_joint, images, noise)
    grid = torch.linspace(-6, 6, 2001, dtype=torch.float64)[:, None]
    weight = joint(grid[:, None].expand(-1, 20, 1)).softmax(0)
    mean = (weight * grid).sum(0)
    sd = (weight * (grid - mean).square()).sum(0).sqrt()

    config = replace(FIT, importance=importance)
    guide = fit_guides(joint, round_guide(truth, 0.5), config, seeded(2))
    found = guide.standard_deviation[:, 0]
    # The quoted widths take the posterior for a Gaussian: 0.002 at the higher noise.
    # Were the likelihood counted once for each pixel, as an independent plate of pixels
    # about their sum does, sds would be smaller by the root of the number of pixels:
    # 0.024 here and 0.033 with 32 pixels, instead of 0.188.
    assert abs(float(found[0]) - quoted) < 0.005
    # What a Gaussian cannot follow, and noise of the gradient, are 0.8 % together.
    assert torch.allclose(found, sd, rtol=0.03)
    assert float(((guide.mean[:, 0] - mean) / sd).abs().max()) < 0.03


# Ten pseudo-atoms in the plane, shifted by q ~ N(0, 10) px, Poisson noise.


def atoms_in_plane(seed: int) -> Tensor:
    """Return the (x, y) of ten pseudo-atoms in pixels, at most a third of the box."""
    return (2 * torch.rand(10, 2, generator=seeded(seed)) - 1) * BOX / 3


# Of a dozen such draws the exact posterior's mean has errors of 1.0 to 1.35 times the
# Cramer-Rao bound, which is local and knows nothing of images that are mistaken
# altogether. This draw has 1.0: what is beyond is the fit's.
ATOMS = atoms_in_plane(10)
SHIFT_SD, DOSE, BACKGROUND = 10.0, 0.05, 0.01


def project(atoms: Tensor) -> Tensor:
    """Sum unnormalised Gaussians of sd 3.5 px about atoms (..., m, 2)."""
    blobs = torch.exp(-(AXIS.to(atoms) - atoms[..., None]).square() / (2 * 3.5**2))
    return blobs[..., 1, :].mT @ blobs[..., 0, :]


def shifted_rate(shift: Tensor) -> Tensor:
    return DOSE * project(ATOMS.to(shift) - shift[..., None, :]) + BACKGROUND


def poisson_log_likelihood(counts: Tensor, rate: Tensor) -> Tensor:
    return (counts * rate.log() - rate).sum((-2, -1))  # but for log(counts!)


def shift_joint(counts: Tensor, unknowns: Tensor) -> Tensor:
    prior = Normal(0.0, SHIFT_SD).log_prob(unknowns).sum(-1)
    return prior + poisson_log_likelihood(counts, shifted_rate(unknowns))


def shifted_counts(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    shift = SHIFT_SD * torch.randn(n, 2, generator=generator)
    return shift, torch.poisson(shifted_rate(shift), generator=generator)


def slope_along(
    rate: Callable[[Tensor], Tensor], unknowns: Tensor, step: Tensor
) -> Tensor:
    """Return the rate's derivative, by a central difference."""
    higher, lower = rate(unknowns + step), rate(unknowns - step)
    return (higher - lower) / (2 * step.norm())


def cramer_rao_of_shifts(shift: Tensor) -> Tensor:
    """Return the least sd of unbiased estimates of x and y over shifts (n, 2)."""
    shift = shift.double()
    steps = 1e-4 * torch.eye(2, dtype=torch.float64)
    slope = torch.stack([slope_along(shifted_rate, shift, step) for step in steps], -1)
    rate = shifted_rate(shift)
    information = torch.einsum("nyxa,nyxb,nyx->nab", slope, slope, 1 / rate)
    return torch.linalg.inv(information).diagonal(dim1=1, dim2=2).mean(0).sqrt()


def test_shifts_are_found_to_the_cramer_rao_bound() -> None:
    shift, counts = shifted_counts(100, seeded(9))
    # Atoms that leave the box take their information along: none of these has.
    inside = ((ATOMS - shift[:, None]).abs() < BOX / 2).all(-1).all(-1)
    shift, counts = shift[inside][:60], counts[inside][:60]
    guide = fit_guides(
        partial(shift_joint, counts),
        round_guide(shift.round(), 1.0),
        VariationalConfig(60, 4),
        seeded(5),
    )
    least = cramer_rao_of_shifts(shift)
    # Of 60 images the RMSE itself is known to 9 %.
    assert bool((root_mean_square(guide.mean - shift) < 1.3 * least).all())
    # Widths are those that the information grants; they vary by 10 % with the counts.
    width = root_mean_square(guide.standard_deviation.double())
    assert torch.allclose(width, least, rtol=0.15)


# The same atoms under a contrast transfer sin(D k^2) of unknown defocus, Poisson noise.

DEFOCUS, DEFOCUS_SD = 100.0, 30.0
SCAN = torch.linspace(0, 210, 31, dtype=torch.float64)


def contrast_image(defocus: Tensor) -> Tensor:
    """Return images of defocus D (...,), whose k is in cycles per pixel."""
    along_y = torch.fft.fftfreq(BOX, dtype=torch.float64)[:, None]
    along_x = torch.fft.rfftfreq(BOX, dtype=torch.float64)
    phase = defocus[..., None, None] * (along_y.square() + along_x.square())
    coefficients = torch.fft.rfft2(project(ATOMS.double())) * phase.sin()
    return torch.fft.irfft2(coefficients, s=(BOX, BOX))


# Brings the darkest pixel of any defocus to zero, so that every rate is positive.
DARKEST = float(contrast_image(SCAN).min())


def defocused_rate(defocus: Tensor) -> Tensor:
    return 100.0 * (contrast_image(defocus) - DARKEST) + 10.0


def defocus_joint(counts: Tensor, unknowns: Tensor) -> Tensor:
    defocus = unknowns[..., 0]
    prior = Normal(DEFOCUS, DEFOCUS_SD).log_prob(defocus)
    return prior + poisson_log_likelihood(counts, defocused_rate(defocus))


def test_defocus_is_found_to_the_cramer_rao_bound() -> None:
    generator = seeded(3)
    normal = torch.randn(60, generator=generator, dtype=torch.float64)
    defocus = DEFOCUS + DEFOCUS_SD * normal
    counts = torch.poisson(defocused_rate(defocus), generator=generator)
    joint = partial(defocus_joint, counts)
    # A Gaussian has one mode, so the whole prior is looked through first.
    scores = [joint(value.expand(1, len(counts), 1))[0] for value in SCAN]
    best = SCAN[torch.stack(scores).argmax(0)][:, None]
    guide = fit_guides(
        joint, round_guide(best, 2.0), VariationalConfig(100, 4), generator
    )

    slope = slope_along(defocused_rate, defocus, torch.tensor([1e-3]))
    information = (slope.square() / defocused_rate(defocus)).sum((1, 2))
    error = guide.mean[:, 0] - defocus
    # 0.95 and 1.3 are what a defocus is useful with; of 60 images the RMSE is known to
    # 9 %, and a sd of 1.8 under a prior of 30 leaves R^2 = 0.996.
    assert float(1 - error.square().mean() / defocus.var()) > 0.95
    least = float((1 / information).mean().sqrt())
    assert float(root_mean_square(error)) < 1.3 * least
    # Counts vary the observed information by 4 %, twice as much as sds.
    found = guide.standard_deviation[:, 0] * information.sqrt()
    assert torch.allclose(found, torch.ones_like(found), rtol=0.06)
