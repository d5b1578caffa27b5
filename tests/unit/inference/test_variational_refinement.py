"""Variational refinement: posteriors known in closed form, slopes, and refinements."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.geometry.rotations import left_jacobian, random_rotations
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.mode_refinement import ModeRefinement
from cryoinfer.inference.moment_matching import MomentMatching
from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import GivenPoses
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import NormalEquations, Projector
from cryoinfer.inference.quadrature_grid import departure, moved
from cryoinfer.inference.training_images import TrainingImages
from cryoinfer.inference.variational import VariationalConfig, bound, fit_guides
from cryoinfer.inference.variational_refinement import (
    JointDensity,
    VariationalRefinement,
)
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.records import Latents, Optics, Pose

GRID = ReferenceGrid(32, 2.0)
ALONE = symmetry_rotations("C1")
LEVER_ANGSTROM = 16.0


def normal(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def refinement(
    config: VariationalConfig, radii: tuple[int, ...], modes: int = 1
) -> VariationalRefinement[Projector]:
    return VariationalRefinement(
        GivenPoses(), radii, LEVER_ANGSTROM, ALONE, modes, config
    )


# Likelihoods that are Gaussians of departures: the posterior is known in closed form.

# Of rotation, shift, defocus and one amplitude: turns are so small that they add up as
# vectors do, to a thousandth of their width.
SD = torch.tensor([0.010, 0.020, 0.015, 0.3, 0.5, 80.0, 0.6], dtype=torch.float64)
PRIOR = PosePrior(1.0, 200.0, (1.0,))


@dataclass(frozen=True)
class Gaussians:
    """A sum of Gaussians (m) about centres, the same for every image; a Projector.

    Attributes
    ----------
    centre : Latents
        Of length m.
    precision : Tensor, shape (m, 7, 7)
    log_height : Tensor, shape (m,)
    known : float
        What normal equations know of the information, as those of Gauss and Newton do
        not know all of it.
    """

    centre: Latents
    precision: Tensor
    log_height: Tensor
    known: float

    def coefficients(self, latents: Latents, images: WhitenedImages) -> Tensor:
        raise NotImplementedError

    def log_likelihood(self, images: WhitenedImages, latents: Latents) -> Tensor:
        return torch.logsumexp(self._parts(latents)[0], 1)

    def normal_equations(
        self, images: WhitenedImages, latents: Latents, prior: PosePrior
    ) -> NormalEquations:
        parts, step = self._parts(latents)
        pull = -(self.precision @ step[..., None])[..., 0]
        # By a turn from where the particle is, not by the vector from the centre.
        turned = torch.linalg.inv(left_jacobian(step[..., :3])).mT
        turns = (turned @ pull[..., :3, None])[..., 0]
        share = parts.softmax(1)[..., None]
        slope = (share * torch.cat([turns, pull[..., 3:]], -1)).sum(1)
        information = self.known * (share[..., None] * self.precision).sum(1)
        return NormalEquations(torch.logsumexp(parts, 1), slope, information)

    def _parts(self, latents: Latents) -> tuple[Tensor, Tensor]:
        centres = [self.centre[k] for k in range(len(self.log_height))]
        step = torch.stack([departure(latents, centre) for centre in centres], 1)
        square = torch.einsum("nmi,mij,nmj->nm", step, self.precision, step)
        return self.log_height - 0.5 * square, step


def blank(n: int) -> WhitenedImages:
    """Return images that show nothing."""
    disc = FourierDisc.of_box(16, 4)
    one = torch.ones(n, len(disc))
    optics = Optics.without_ctf(n, 1.0)
    return WhitenedImages(disc, one.to(torch.complex64), one, optics, one[0], 1.0)


def precisions(modes: int) -> Tensor:
    """Return inverse covariances of the widths SD and any correlation."""
    mixed = normal(2, modes, 7, 14)
    spread = mixed @ mixed.mT
    width = spread.diagonal(dim1=1, dim2=2).sqrt()
    spread = spread / (width[:, :, None] * width[:, None])
    return torch.linalg.inv(spread * SD[:, None] * SD)


def centres(modes: int) -> Latents:
    generator = torch.Generator().manual_seed(1)
    pose = Pose(random_rotations(modes, generator), 0.5 * normal(3, modes, 2))
    return Latents(pose, 90 * normal(4, modes), 0.5 * normal(5, modes, 1))


def posterior_of(likelihood: Gaussians, prior: PosePrior) -> tuple[Latents, Tensor]:
    """Return means and covariances of the products with the prior, mode by mode."""
    covariance = torch.linalg.inv(likelihood.precision + prior.information)
    offset = likelihood.centre.offsets_angstrom
    at = torch.cat([torch.zeros(len(offset), 3).double(), offset], 1)
    pull = -(covariance @ prior.information @ at[..., None])[..., 0]
    return moved(likelihood.centre, pull), covariance


@pytest.mark.parametrize("importance", [False, True])
def test_the_posterior_of_a_gaussian_likelihood_is_found(importance: bool) -> None:
    # A quarter of the information is known: widths begin twice as large.
    likelihood = Gaussians(centres(1), precisions(1), torch.zeros(1).double(), 0.25)
    mean, covariance = posterior_of(likelihood, PRIOR)
    root = torch.linalg.cholesky(covariance)
    begun = moved(mean, (root @ torch.full((7, 1), 0.7).double())[..., 0])
    config = VariationalConfig(steps=400, samples=16, importance=importance)
    found = refinement(config, (4,)).infer(
        blank(1), likelihood, PRIOR, ParticlePosterior.at(begun, 1)
    )
    white = torch.linalg.inv(root)
    away = (white @ departure(found.mode(), mean)[..., None])[..., 0]
    spread = white @ found.covariance[:, 0] @ white.mT - torch.eye(7).double()
    # The gradient's noise dies away where the guide is the posterior. What is left is
    # that turns are no vectors, a thousandth, and what the importance-weighted bound
    # hardly sees: samples of seven unknowns are few.
    limit = 0.15 if importance else 0.005
    assert away.abs().max() < limit
    assert spread.abs().max() < 2 * limit
    torch.testing.assert_close(found.weight, torch.ones(1, 1).double())


def test_modes_weigh_what_their_evidence_is() -> None:
    precision = precisions(2) * torch.tensor([1.0, 1.3]).double()[:, None, None]
    height = torch.tensor([0.0, 1.0]).double()
    likelihood = Gaussians(centres(2), precision, height, 0.7)
    flat = PosePrior(1e5, 1e5, (1e5,))
    start = ParticlePosterior.of_modes(
        likelihood.centre[None],
        torch.full((1, 2), 0.5).double(),
        torch.eye(7).double().expand(1, 2, 7, 7),
    )
    found = refinement(VariationalConfig(steps=200, samples=8), (4,), 2).infer(
        blank(1), likelihood, flat, start
    )
    log_mass = height - 0.5 * torch.linalg.slogdet(precision).logabsdet
    expected = log_mass.softmax(0).sort(descending=True)
    # Draws of a guide that is the posterior all weigh alike, but for its last percent
    # of width in seven unknowns.
    torch.testing.assert_close(found.weight[0], expected.values, rtol=0, atol=0.03)
    first = likelihood.centre[expected.indices[:1]]
    assert departure(found.mode(), first).abs()[0, 3] < 0.1 * SD[3]


def test_an_image_that_says_nothing_leaves_the_prior() -> None:
    silent = Gaussians(
        centres(1), torch.zeros(1, 7, 7).double(), torch.zeros(1).double(), 1.0
    )
    start = ParticlePosterior.at(centres(1), 1)
    config = VariationalConfig(steps=300, samples=8)
    found = refinement(config, (4,)).infer(blank(1), silent, PRIOR, start)
    sd = found.covariance[0, 0].diagonal().sqrt()
    expected = PRIOR.unknowns_sd_angstrom
    # What is left of the noise of gradients, through the wall about the turns.
    torch.testing.assert_close(sd[3:], expected, rtol=0.1, atol=0)
    away = found.mode().offsets_angstrom[0].abs() / expected
    assert away.max() < 0.15
    # Of all rotations those within half a turn: their vectors' sd is 1.4 an axis.
    assert ((sd[:3] > 0.8) & (sd[:3] < 2.0)).all()


# Maps, and atoms that move: slopes and posteriors of what they show.


@dataclass(frozen=True)
class Drawn:
    """Noisy images of a structure, and their truth."""

    projector: Projector
    images: WhitenedImages
    truth: Latents


def moving(scene, n: int, dtype: torch.dtype, prior: PosePrior) -> Drawn:
    """Return images of 40 atoms that move along one mode."""
    direction = normal(2, 1, 40, 3)
    direction = direction / direction.square().sum(2).mean().sqrt()
    place = (6 * normal(1, 40, 3)).to(dtype)
    still = GaussianAtoms.from_elements(place, ["C", "O"] * 20, 60.0)
    atoms = MovingAtoms(still, direction.to(dtype)).scaled(0.3)
    template = scene(n)
    projector = MovingProjector(atoms, GRID, atoms, 0)
    source = TrainingImages(projector, (template.images,), prior)
    images, truth = source.draw(n, torch.Generator().manual_seed(3))
    return Drawn(projector, images, truth)


def slope_by_differences(
    value: Callable[[Tensor], Tensor], at: Tensor, step: Tensor
) -> Tensor:
    """Return central differences to the fourth order at (1, n, d), shape (n, d)."""
    found = torch.zeros_like(at[0])
    for unknown in range(at.shape[-1]):
        one = torch.zeros_like(at)
        one[..., unknown] = step[unknown]
        near, far = (value(at + k * one) - value(at - k * one) for k in (1, 2))
        found[:, unknown] = ((8 * near - far) / (12 * step[unknown]))[0]
    return found


@pytest.mark.parametrize(
    "prior",
    [
        PosePrior(2.0, 300.0, (2.0,)),
        PosePrior(2.0, 0.0, (2.0,)),
        PosePrior(0.0, 0.0, (2.0,), rotation_unknowns=1),
    ],
)
def test_slopes_of_the_joint_are_those_of_its_values(scene, prior: PosePrior) -> None:
    made = moving(scene, 3, torch.float64, prior)
    joint = JointDensity(made.projector, made.images, prior, made.truth)
    sd = joint.linearised().standard_deviation.mean(0)
    free = torch.nonzero(prior.precision >= 0).squeeze(1)
    # Far from the centre: turns of 0.6 radian and more are no vectors any more.
    at = 2 * sd * torch.ones(1, 3, len(free)).double()
    at[..., free < 3] = torch.tensor([0.4, -0.5, 0.6]).double()[
        -int(prior.rotation_unknowns) :
    ]
    guide = at.clone().requires_grad_()
    (slope,) = torch.autograd.grad(joint(guide).sum(), guide)
    differences = slope_by_differences(joint, at, 0.1 * sd)
    apart = (slope[0] - differences) * sd
    size = (slope[0] * sd).norm(dim=1, keepdim=True).clamp(min=1.0)
    assert size.max() > 5
    # Differences over a tenth of a sd, in double precision but for shifts and CTF.
    assert (apart / size).abs().max() < 2e-4
    # The values are the same with and without slopes.
    torch.testing.assert_close(joint(guide).detach(), joint(at), rtol=1e-6, atol=0)


def test_a_map_has_the_slopes_too(scene) -> None:
    made = scene(3, 0.2)
    prior = PosePrior(3.0, 0.0)
    joint = JointDensity(made.projector, made.images, prior, made.truth)
    sd = joint.linearised().standard_deviation.mean(0)
    at = 4 * sd * torch.tensor([1, -1, 1, 1, -1]).double() * torch.ones(1, 3, 5)
    guide = at.clone().requires_grad_()
    (slope,) = torch.autograd.grad(joint(guide).sum(), guide)

    def written_out(unknowns: Tensor) -> Tensor:
        step = torch.nn.functional.pad(unknowns[0], (0, 1))
        latents = moved(made.truth, step)
        return -made.loss_of(latents)[None] + prior.log_density(latents)

    differences = slope_by_differences(written_out, at, 0.01 * sd)
    size = (slope[0] * sd).norm(dim=1, keepdim=True)
    assert (size > 5).all()
    # Interpolation has kinks, of which differences find some; and the volume of turns,
    # which is not written out, has slopes of less than a thousandth.
    assert (((slope[0] - differences) * sd) / size).abs().max() < 0.02


def test_posteriors_and_evidence_are_those_of_sums_over_all_unknowns(scene) -> None:
    """An angle in the plane and an amplitude: two unknowns are summed on a grid."""
    prior = PosePrior(0.0, 0.0, (1.0,), rotation_unknowns=1)
    made = moving(scene, 4, torch.float64, prior)
    images = made.images.prefix(6)
    joint = JointDensity(made.projector, images, prior, made.truth)
    guide = fit_guides(
        joint, joint.linearised(), VariationalConfig(60, 8), torch.Generator()
    )
    # Four sd of the guide to either side, by halves: sums of anything as smooth as a
    # Gaussian are integrals then.
    axis = 0.5 * torch.arange(-8, 9).double()
    lattice = torch.cartesian_prod(axis, axis)[:, None, :, None]
    places = (guide.mean[..., None] + guide.factor @ lattice)[..., 0]
    step = torch.zeros(*places.shape[:2], 7).double()
    step[..., [2, 6]] = places
    log_density = torch.stack(
        [
            made.projector.log_likelihood(images, at) + prior.log_density(at)
            for at in (moved(made.truth, one) for one in step)
        ]
    )
    weight = log_density.softmax(0)[..., None]
    mean = (weight * places).sum(0)
    away = places - mean
    covariance = torch.einsum("kn,kni,knj->nij", weight[..., 0], away, away)
    sd = covariance.diagonal(dim1=1, dim2=2).sqrt()
    # Posteriors are Gaussians but for a percent, as noise of the last steps is.
    assert ((guide.mean - mean) / sd).abs().max() < 0.03
    assert (guide.standard_deviation / sd - 1).abs().max() < 0.03
    cell = (0.5**2) * guide.factor.diagonal(dim1=1, dim2=2).prod(1)
    evidence = log_density.logsumexp(0) + cell.log()
    found = bound(joint, guide, 64, torch.Generator(), importance=True)
    # The mean of 64 weights that differ by some hundredths.
    torch.testing.assert_close(found, evidence, rtol=0, atol=0.015)


POSED = PosePrior(1.0, 0.0, (1.5,))


def begun(truth: Latents) -> ParticlePosterior:
    """Return starts some widths off."""
    step = torch.tensor([0.02, -0.03, 0.02, 0.2, -0.2, 0.0, 0.3]).double()
    return ParticlePosterior.at(moved(truth, step.expand(len(truth), 7)), 1)


def test_posteriors_of_atoms_that_move_are_those_of_moments(scene) -> None:
    made = moving(scene, 6, torch.float32, POSED)
    start = begun(made.truth)
    config = VariationalConfig()
    found = refinement(config, (6, 9, 12)).infer(
        made.images, made.projector, POSED, start
    )
    refined = ModeRefinement(GivenPoses(), (6, 9, 12), LEVER_ANGSTROM, ALONE, 1)
    expected = MomentMatching(refined, points=1024).infer(
        made.images, made.projector, POSED, start
    )
    free = POSED.precision >= 0
    true, own = (
        one.covariance[:, 0].diagonal(dim1=1, dim2=2).sqrt()[:, free]
        for one in (expected, found)
    )
    away = departure(found.mode(), expected.mode())[:, free] / true
    # Of 160 draws, and moments of as many effective points: of 36 numbers the largest.
    assert away.abs().max() < 0.3
    assert (own / true - 1).abs().max() < 0.25
    assert (own / true - 1).abs().mean() < 0.08
    assert not found.covariance[:, 0, 5].any()
    # Starts were farther off than that, and truths are where they should be.
    far = departure(start.mode(), expected.mode())[:, free] / true
    assert far.abs().max() > 1.0
    error = departure(made.truth, found.mode())[:, free]
    precision = torch.linalg.inv(found.covariance[:, 0][:, free][:, :, free])
    square = torch.einsum("ni,nij,nj->n", error, precision, error)
    # Chi square of six unknowns: one of six exceeds 25 once in 500 times.
    assert square.max() < 25


def test_an_image_has_the_same_posterior_whichever_are_beside_it(scene) -> None:
    made = moving(scene, 4, torch.float32, POSED)
    start = begun(made.truth)
    inference = refinement(VariationalConfig(steps=10), (6, 12))
    together = inference.infer(made.images, made.projector, POSED, start)
    row = torch.tensor([2])
    alone = inference.infer(made.images.select(row), made.projector, POSED, start[row])
    sd = together.covariance[row, 0].diagonal(dim1=1, dim2=2).sqrt().clamp(min=1e-9)
    away = departure(alone.mode(), together[row].mode()) / sd
    # Products of other sizes round otherwise, in single precision.
    assert away.abs().max() < 1e-2
    torch.testing.assert_close(
        alone.covariance, together[row].covariance, rtol=1e-2, atol=1e-7
    )
    other = replace(inference, seed=1).infer(made.images, made.projector, POSED, start)
    assert not torch.equal(other.covariance, together.covariance)
