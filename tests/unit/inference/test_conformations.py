"""Densities and images of particles that move as well as turn."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cryoinfer.geometry.rotation_volume import LOG_VOLUME_OF_TURNS
from cryoinfer.geometry.rotations import (
    random_rotations,
    random_turns_in_plane,
    rotate_in_image_frame,
)
from cryoinfer.inference.amplitudes import amplitude_moments, amplitude_quantile
from cryoinfer.inference.encoder_inputs import EncoderInputs, feature_count
from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_network import PoseNetwork, PoseNetworkConfig
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.training_images import TrainingImages
from cryoinfer.inference.whitening import ReferenceGrid, whiten
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.records import Latents, Optics, ParticleBatch, Pose

# Of rotation, shift, defocus and two amplitudes.
SD = torch.tensor([0.6, 0.5, 0.55, 1.5, 1.8, 0.0, 2.0, 1.0], dtype=torch.float64)
PRIOR_VARIANCE = torch.tensor([4.0, 4.0, 1.0, 9.0, 2.25], dtype=torch.float64)
IN_PLANE_SD = torch.tensor([0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 1.5, 0.7]).double()

PRIORS = [
    PosePrior(0.0, 0.0, (2.0,), rotation_unknowns=1),
    PosePrior(3.0, 0.0, (2.0, 5.0), rotation_unknowns=1),
    PosePrior(3.0, 0.0, (2.0, 5.0), rotation_unknowns=3),
    PosePrior(0.0, 500.0, (0.0, 5.0), rotation_unknowns=3),
]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def mixture(background: float, sd: Tensor = SD) -> ParticlePosterior:
    """Return one particle of two modes, whose unknowns are correlated."""
    free = (sd > 0).double()
    mixed = torch.eye(8, dtype=torch.float64) + 0.15 * normal(1, 8, 8)
    spread = mixed @ mixed.T
    width = spread.diagonal().sqrt()
    covariance = spread / (width[:, None] * width) * sd[:, None] * sd
    first = random_rotations(1, seeded(2))
    if free[0]:
        rotation = torch.cat([first, random_rotations(1, seeded(3))])
    else:
        # Of the same view.
        turn = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.2]]).double()
        rotation = rotate_in_image_frame(first, turn)
    centre = 0.6 * normal(4, 2, 5) * free[3:]
    modes = Latents(Pose(rotation, centre[:, :2]), centre[:, 2], centre[:, 3:])
    return ParticlePosterior(
        modes=modes[None],
        weight=torch.tensor([[0.7, 0.3]], dtype=torch.float64) * (1 - background),
        covariance=covariance.expand(1, 2, 8, 8),
        log_likelihood=torch.full((1,), torch.nan, dtype=torch.float64),
        background=torch.tensor([background], dtype=torch.float64),
        prior_variance=PRIOR_VARIANCE,
    )


def displaced(posterior: ParticlePosterior, step: Tensor | float) -> ParticlePosterior:
    """Return the posterior with other conformations of its modes."""
    z = posterior.modes.conformation + step
    return replace(posterior, modes=replace(posterior.modes, conformation=z))


@pytest.mark.parametrize("sd", [SD, IN_PLANE_SD], ids=["all turns", "in plane"])
def test_draws_and_density_agree(sd: Tensor) -> None:
    posterior, other = mixture(0.3, sd), mixture(0.6, sd)
    drawn = posterior.sample(100_000, seeded(5))
    assert drawn.conformation.shape == (100_000, 1, 2)
    # The mean of q'/q over draws of q is one for any density q' that q covers.
    ratio = (other.log_prob(drawn) - posterior.log_prob(drawn)).exp()
    # Between 0.57 and 2: four standard errors of an sd of 0.7 at most.
    assert ratio.mean().item() == pytest.approx(1.0, abs=0.009), ratio.std()
    # A difference that the background cannot make: another place and another weight.
    moved = replace(displaced(posterior, 0.5), weight=posterior.weight.flip(1))
    ratio = (moved.log_prob(drawn) - posterior.log_prob(drawn)).exp()
    assert ratio.mean().item() == pytest.approx(1.0, abs=0.02), ratio.std()


@pytest.mark.parametrize("sd", [SD, IN_PLANE_SD], ids=["all turns", "in plane"])
def test_a_density_with_amplitudes_integrates_to_one(sd: Tensor) -> None:
    # Uniform rotations, and all else from a wider Gaussian: the mean ratio is the
    # integral.
    posterior, n = mixture(0.3, sd), 200_000
    turns, free = int((sd[:3] > 0).sum()), sd[3:] > 0
    wide = 1.2 * PRIOR_VARIANCE.sqrt()
    step = normal(6, n, 1, 5) * wide * free
    if turns == 3:
        rotation = random_rotations(n, seeded(7))[:, None]
    else:
        rotation = (
            random_turns_in_plane(n, seeded(7))[:, None]
            @ posterior.modes.pose.rotation[0, 0]
        )
    drawn = Latents(Pose(rotation, step[..., :2]), step[..., 2], step[..., 3:])
    spread = -0.5 * (step / wide) ** 2 - (wide * math.sqrt(2 * math.pi)).log()
    log_base = spread[..., free].sum(-1) - LOG_VOLUME_OF_TURNS[turns]
    ratio = (posterior.log_prob(drawn) - log_base).exp()
    # The ratio's sd is below 5, of 200,000: four standard errors.
    assert ratio.std() < 5
    assert ratio.mean().item() == pytest.approx(1.0, abs=0.045), ratio.std()


def test_draws_of_an_angle_keep_the_view() -> None:
    posterior = mixture(0.3, IN_PLANE_SD)
    drawn = posterior.sample(1000, seeded(8))
    # What lies along the optical axis: the last row of a rotation.
    view = drawn.pose.rotation[:, 0, 2]
    expected = posterior.modes.pose.rotation[0, 0, 2].expand_as(view)
    # Products of rotations in double precision.
    torch.testing.assert_close(view, expected, rtol=0, atol=1e-12)
    # Roots of eigenvalues that rounding keeps from zero.
    assert drawn.pose.shift_angstrom.abs().max() < 1e-7
    assert drawn.defocus_offset_angstrom.abs().max() < 1e-7


def test_draws_have_the_moments_of_the_parts() -> None:
    posterior, n = mixture(0.3), 100_000
    drawn = posterior.sample(n, seeded(9)).conformation
    weight = torch.cat([posterior.weight[0], posterior.background])
    mean = torch.cat([posterior.modes.conformation[0], torch.zeros(1, 2).double()])
    own = torch.diag_embed(torch.stack([SD[6:] ** 2] * 2 + [PRIOR_VARIANCE[3:]]))
    expected = weight @ mean
    variance = weight @ (own.diagonal(dim1=1, dim2=2) + mean**2) - expected**2
    # Five standard errors of means; variances of heavier tails than a Gaussian's.
    error = 5 * (variance / n).sqrt()
    assert ((drawn[:, 0].mean(0) - expected).abs() < error).all()
    torch.testing.assert_close(drawn[:, 0].var(0), variance, rtol=0.03, atol=0)


def test_quantiles_of_a_gaussian_amplitude_are_its_own() -> None:
    one = mixture(0.0)
    alone = replace(one, weight=torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    sd = SD[6:]
    mean, spread = amplitude_moments(alone)
    torch.testing.assert_close(mean, alone.modes.conformation[:, 0])
    torch.testing.assert_close(spread[0], sd)
    for level, away in ((0.05, -1.6448536), (0.5, 0.0), (0.95, 1.6448536)):
        found = amplitude_quantile(alone, level)[0]
        expected = alone.modes.conformation[0, 0] + away * sd
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_quantiles_of_a_mixture_are_those_of_its_draws() -> None:
    whole = mixture(0.2)
    count = 100_000
    drawn = whole.sample(count, seeded(11)).conformation
    mean, spread = amplitude_moments(whole)
    # Five standard errors of a mean of as many draws.
    assert bool(((drawn.mean(0) - mean).abs() < 5 * spread / count**0.5).all())
    torch.testing.assert_close(drawn.std(0), spread, rtol=0.02, atol=0)
    for level in (0.05, 0.5, 0.95):
        below = (drawn < amplitude_quantile(whole, level)).double().mean(0)
        # Five standard errors of a share.
        assert bool(
            ((below - level).abs() < 5 * (level * (1 - level) / count) ** 0.5).all()
        )


def test_the_entropy_of_parts_far_apart_is_the_mean_log_density() -> None:
    posterior = displaced(mixture(0.0), torch.tensor([[0.0], [40.0]]))
    posterior = replace(posterior, covariance=posterior.covariance * 0.04)
    drawn = posterior.sample(20_000, seeded(10))
    measured = -posterior.log_prob(drawn).mean(0)
    # The sd of the log density of 7 unknowns is 1.9, and that turns fill less volume
    # than their vectors is 0.005: four standard errors and that.
    torch.testing.assert_close(posterior.entropy(), measured, rtol=0, atol=0.06)


def network(prior: PosePrior) -> PoseNetwork:
    torch.manual_seed(3)
    return PoseNetwork(PoseNetworkConfig(side=16, components=3, width=8), prior)


def inputs(count: int) -> EncoderInputs:
    return EncoderInputs(
        torch.randn(count, 2, 16, 16, generator=seeded(11)),
        torch.randn(count, feature_count(16), generator=seeded(12)),
    )


@pytest.mark.parametrize("prior", PRIORS)
def test_both_forms_of_the_network_are_the_same_density(prior: PosePrior) -> None:
    made = network(prior)
    with torch.no_grad():
        parameters = made(inputs(5))
    count = prior.rotation_unknowns + int((prior.unknowns_sd_angstrom > 0).sum())
    assert made.unknowns == count
    assert parameters.factor.shape == (5, 3, count, count)
    assert parameters.offset.shape == (5, 3, count - prior.rotation_unknowns)
    posterior = made.posterior(parameters)
    z = posterior.modes.conformation
    assert z.shape == (5, 3, len(prior.conformation_sd_angstrom))
    latents = posterior.sample(7, seeded(13))
    offset = made.offset_of(latents).movedim(0, 1)
    rotation = latents.pose.rotation.float().movedim(0, 1)
    scaled = parameters.log_prob(rotation, offset).movedim(0, 1)
    # From units of the prior's sd to angstrom.
    volume = made.sd[made.open].log().sum()
    # Log densities of about ten nats in single precision.
    torch.testing.assert_close(
        posterior.log_prob(latents), scaled.double() - volume, rtol=0, atol=2e-3
    )


def test_a_network_of_angles_names_turns_in_the_plane() -> None:
    made = network(PRIORS[0])
    with torch.no_grad():
        parameters = made(inputs(5))
    axis = torch.tensor([0.0, 0.0, 1.0])
    # Sines and cosines in single precision.
    for found in (parameters.rotation[..., 2], parameters.rotation[..., 2, :]):
        torch.testing.assert_close(found, axis.expand_as(found), rtol=0, atol=1e-6)
    free = made.posterior(parameters).covariance.diagonal(dim1=2, dim2=3) > 0
    assert torch.equal(free[0, 0], torch.arange(7).remainder(4) == 2)


def test_a_network_of_angles_has_a_density_of_mass_one() -> None:
    made = network(PRIORS[0])
    with torch.no_grad():
        parameters = made(inputs(2))
    turns, reach = 200, 12.0
    angle = torch.arange(turns) * (2 * math.pi / turns)
    z = torch.linspace(-reach, reach, 241)
    angle, z = (one.flatten() for one in torch.meshgrid(angle, z, indexing="ij"))
    vector = torch.stack([0 * angle, 0 * angle, angle], -1)
    rotation = rotate_in_image_frame(torch.eye(3), vector).expand(2, -1, 3, 3)
    density = parameters.log_prob(rotation, z[:, None].expand(2, -1, 1)).double().exp()
    mass = density.sum(1) * (2 * math.pi / turns) * (2 * reach / 240)
    # Smooth densities of single precision; widths of two prior's sds end at six.
    torch.testing.assert_close(mass, torch.ones(2).double(), rtol=0, atol=1e-4)


BOX, PIXEL, RADIUS = 32, 3.0, 10
GRID = ReferenceGrid(BOX, PIXEL)


def source(prior: PosePrior) -> TrainingImages[MovingProjector]:
    """Return images of 30 atoms that move in two ways, with noise as bright as they."""
    place = (9 * normal(14, 30, 3)).float()
    direction = normal(15, 2, 30, 3)
    direction = direction / direction.square().sum(2).mean(1).sqrt()[:, None, None]
    atoms = GaussianAtoms.from_elements(place, ["C", "N", "O"] * 10, 100.0)
    moving = MovingAtoms(atoms, direction.float())
    pose = Pose(random_rotations(20, seeded(16)), torch.zeros(20, 2).double())
    clean = atoms.project(pose, BOX, PIXEL)
    defocus = torch.linspace(6000, 14000, 20, dtype=torch.float64)
    optics = replace(
        Optics.without_ctf(20, PIXEL),
        amplitude_contrast=torch.full_like(defocus, 0.1),
        defocus_u_angstrom=defocus,
        defocus_v_angstrom=defocus,
    )
    batch = ParticleBatch(clean, optics, torch.arange(20))
    noise_power = torch.full((BOX // 2,), float(clean.var()))
    templates = whiten(batch, GRID, RADIUS, noise_power)
    projector = MovingProjector(moving, GRID, moving, 0)
    return TrainingImages(projector, (templates,), prior)


@pytest.mark.parametrize(
    "prior",
    [
        PosePrior(0.0, 0.0, (2.0, 5.0), rotation_unknowns=1),
        PosePrior(3.0, 0.0, (2.0, 5.0), rotation_unknowns=3),
        PosePrior(3.0, 2000.0, (0.0, 5.0), rotation_unknowns=3),
    ],
)
def test_training_images_show_the_atoms_where_they_are_said_to_be(
    prior: PosePrior,
) -> None:
    count, made = 400, source(prior)
    images, latents = made.draw(count, seeded(17))
    z = latents.conformation
    sd = torch.tensor(prior.conformation_sd_angstrom, dtype=torch.float64)
    # Five standard errors of a mean and of an sd.
    assert (z.mean(0).abs() <= 5 * sd / count**0.5).all()
    assert ((z.std(0) - sd).abs() <= 5 * sd / (2 * count) ** 0.5).all()
    p = images.coefficients.shape[1]
    found = made.projector.log_likelihood(images, latents)
    # What is left is noise of unit power: exponential variables, p an image.
    error = 5 * (p / count) ** 0.5
    assert float(found.mean()) == pytest.approx(-p, abs=error)
    assert float(found.std()) == pytest.approx(p**0.5, rel=5 / (2 * count) ** 0.5 * 1.1)
    # Elsewhere it is more.
    rest = replace(latents, conformation=z.roll(1, 0))
    other = made.projector.log_likelihood(images, rest)
    assert float(other.mean()) < -p - 3 * error


def test_training_images_of_a_known_view_are_turned_in_the_plane() -> None:
    _, latents = source(PRIORS[1]).draw(400, seeded(18))
    rotation = latents.pose.rotation
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(rotation[:, 2], axis.expand(400, 3), rtol=0, atol=1e-12)
    # Angles of all the circle: five standard errors of a cosine's mean.
    assert rotation[:, 0, :2].mean(0).abs().max() < 5 / (2 * 400) ** 0.5
