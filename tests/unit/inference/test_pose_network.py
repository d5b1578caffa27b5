"""The network's mixture is a density, and the same one in either form."""

import math

import pytest
import torch

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.geometry.rotation_volume import LOG_VOLUME_OF_ROTATIONS
from cryoinfer.geometry.rotations import random_rotations, rotate_in_image_frame
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.encoder_inputs import EncoderInputs, feature_count
from cryoinfer.inference.pose_network import (
    MixtureParameters,
    PoseNetwork,
    PoseNetworkConfig,
)
from cryoinfer.inference.prior import PosePrior

SMALL = PoseNetworkConfig(side=16, components=3, width=8)
PRIORS = [PosePrior(0.0, 0.0), PosePrior(3.0, 0.0), PosePrior(3.0, 500.0)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(count: int = 5, side: int = 16) -> EncoderInputs:
    return EncoderInputs(
        torch.randn(count, 2, side, side, generator=seeded(1)),
        torch.randn(count, feature_count(side), generator=seeded(2)),
    )


def network(prior: PosePrior, config: PoseNetworkConfig = SMALL) -> PoseNetwork:
    torch.manual_seed(3)
    return PoseNetwork(config, prior)


@pytest.mark.parametrize("prior", PRIORS)
def test_parameters_have_the_shapes_they_promise(prior: PosePrior) -> None:
    made = network(prior)
    found = made(inputs())
    d = made.unknowns
    assert d == 3 + 2 * (prior.shift_sd_angstrom > 0) + (prior.defocus_sd_angstrom > 0)
    assert found.log_weight.shape == (5, 4)
    assert found.rotation.shape == (5, 3, 3, 3)
    assert found.offset.shape == (5, 3, d - 3)
    assert found.factor.shape == (5, 3, d, d)
    one = found.log_weight.exp().sum(1)
    torch.testing.assert_close(one, torch.ones(5))
    product = found.rotation @ found.rotation.mT
    # Gram and Schmidt in single precision.
    torch.testing.assert_close(
        product, torch.eye(3).expand_as(product), rtol=0, atol=1e-5
    )
    assert (torch.linalg.det(found.rotation) > 0).all()


@pytest.mark.parametrize("prior", PRIORS)
def test_both_forms_are_the_same_density(prior: PosePrior) -> None:
    made = network(prior)
    with torch.no_grad():
        parameters = made(inputs())
    posterior = made.posterior(parameters)
    latents = posterior.sample(7, seeded(4))
    offset = made.offset_of(latents)
    rotation = latents.pose.rotation.float().movedim(0, 1)
    scaled = parameters.log_prob(rotation, offset.movedim(0, 1)).movedim(0, 1)
    # From units of the prior's sd to angstrom.
    volume = made.sd[made.open].log().sum()
    # Log densities of about ten nats in single precision.
    torch.testing.assert_close(
        posterior.log_prob(latents), scaled.double() - volume, rtol=0, atol=2e-3
    )


def test_mates_are_worth_the_same_and_their_orbit_has_all_the_mass() -> None:
    made, symmetry = network(PosePrior(0.0, 0.0)), symmetry_rotations("D2")
    with torch.no_grad():
        parameters = made(inputs(1))
    count = 20_000
    rotation = random_rotations(count, seeded(6)).float()
    beside = MixtureParameters(
        *(value.expand(count, *value.shape[1:]) for value in vars(parameters).values())
    )
    none = torch.zeros(count, 0)
    found = beside.log_prob_of_orbit(rotation, none, symmetry)
    mates = rotation @ symmetry[2].float()
    again = beside.log_prob_of_orbit(mates, none, symmetry)
    # Rotations and log densities in single precision.
    torch.testing.assert_close(again, found, rtol=0, atol=1e-4)
    alone = beside.log_prob_of_orbit(rotation, none, symmetry[:1])
    torch.testing.assert_close(alone, beside.log_prob(rotation, none))
    # Over rotations modulo the four; an untrained density is nearly even.
    mass = found.double().exp().mean() * math.exp(LOG_VOLUME_OF_ROTATIONS) / 4
    assert float(mass) == pytest.approx(1.0, abs=0.02)


def test_components_come_in_the_order_of_their_density() -> None:
    made = network(PosePrior(3.0, 0.0))
    with torch.no_grad():
        posterior = made.posterior(made(inputs()))
    at = torch.stack([posterior.log_prob(posterior.modes[:, k]) for k in range(3)])
    assert (at.diff(dim=0) < 1e-3).all()
    total = posterior.weight.sum(1) + posterior.background
    torch.testing.assert_close(total, torch.ones(5, dtype=torch.float64))


def test_no_component_is_wider_than_its_bounds() -> None:
    made = network(PosePrior(3.0, 0.0))
    with torch.no_grad():
        made.last.weight *= 1000
        factor = made(inputs()).factor.double()
    turn = torch.linalg.inv(factor @ factor.mT)[..., :3, :3]
    widest = torch.linalg.eigvalsh(turn)[..., -1].sqrt()
    # Whatever the correlations; rounding of single precision.
    assert widest.max() < 0.6 * (1 + 1e-3)


def parameters_of(values: tuple[torch.Tensor, ...]) -> MixtureParameters:
    weight, turn, offset, factor = values
    base = random_rotations(2, seeded(5))[None]
    lower = factor.tril(-1) + torch.diag_embed(
        factor.diagonal(dim1=-2, dim2=-1).exp() + 1.0
    )
    return MixtureParameters(
        weight.log_softmax(1), rotate_in_image_frame(base, turn), offset, lower
    )


def test_gradients_of_the_density() -> None:
    def random(*shape: int, seed: int) -> torch.Tensor:
        drawn = torch.randn(shape, generator=seeded(seed), dtype=torch.float64)
        return drawn.requires_grad_()

    values = (
        random(1, 3, seed=6),
        random(1, 2, 3, seed=7),
        random(1, 2, 3, seed=8),
        random(1, 2, 6, 6, seed=9),
    )
    truth = random_rotations(1, seeded(10))
    offset = torch.randn(1, 3, generator=seeded(11), dtype=torch.float64)

    def log_prob(*given: torch.Tensor) -> torch.Tensor:
        return parameters_of(given).log_prob(truth, offset)

    assert torch.autograd.gradcheck(log_prob, values)


def test_gradients_are_finite_where_a_component_is_the_truth() -> None:
    truth = random_rotations(1, seeded(12)).float()
    rotation = truth[:, None].clone().requires_grad_()
    parameters = MixtureParameters(
        torch.tensor([[0.5, 0.5]]).log(),
        rotation,
        torch.zeros(1, 1, 0),
        torch.eye(3)[None, None],
    )
    parameters.log_prob(truth, torch.zeros(1, 0)).sum().backward()
    assert rotation.grad is not None
    assert rotation.grad.isfinite().all()


def test_the_density_integrates_to_one() -> None:
    made = network(PosePrior(0.0, 0.0))
    with torch.no_grad():
        parameters = made(inputs(1))
    drawn = random_rotations(100_000, seeded(13)).float()[None]
    values = parameters.log_prob(drawn, torch.zeros(1, 100_000, 0))
    mean = float(values.double().exp().mean()) * 8 * math.pi**2
    # The density varies by its own size over components of half a radian: 1 %.
    assert mean == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("side", [12, 4, 20])
def test_a_side_that_cannot_be_halved_to_four_is_refused(side: int) -> None:
    with pytest.raises(ValueError, match="side must be"):
        network(PRIORS[0], PoseNetworkConfig(side=side))


def test_pictures_show_the_same_coefficients_at_any_box() -> None:
    small, large = FourierDisc.of_box(32, 15), FourierDisc.of_box(128, 40)
    p = len(small)
    assert torch.equal(small.kx, large.kx[:p])
    assert torch.equal(small.ky, large.ky[:p])
