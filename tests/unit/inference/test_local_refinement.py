"""Local refinement: a map's two ways to a mode, and modes that are known in advance."""

import itertools
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.geometry.rotations import geodesic_angle, random_rotations
from cryoinfer.inference.local_refinement import (
    FusedRefinement,
    refine_by_normal_equations,
    refine_locally,
)
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import NormalEquations
from cryoinfer.inference.quadrature_grid import departure, moved
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.operations import plain_only
from cryoinfer.records import Latents, Optics, Pose


def normal(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def widths(information: Tensor) -> Tensor:
    """Return the inverse sd of each unknown at fixed others, 1 where it is held."""
    diagonal = information.diagonal(dim1=1, dim2=2)
    return torch.where(diagonal > 0, diagonal, 1.0).sqrt()


def distance(found: Latents, other: Latents, information: Tensor) -> Tensor:
    """Return how far latents are apart in standard deviations, (n,)."""
    step = departure(found, other)
    return torch.einsum("ni,nij,nj->n", step, information, step).sqrt()


# A map: a compiled loop of its own beside the normal equations.


@pytest.mark.parametrize(
    ("pixel_size", "prior"),
    [
        (2.0, PosePrior(3.0, 0.0)),
        (2.5, PosePrior(3.0, 0.0)),
        (1.8, PosePrior(3.0, 0.0, rotation_unknowns=1)),
        (2.0, PosePrior(3.0, 3000.0)),
        (2.5, PosePrior(0.0, 3000.0)),
        (1.8, PosePrior(3.0, 3000.0)),
    ],
)
def test_the_fused_refinement_of_a_map_is_the_generic_one(
    scene, pixel_size: float, prior: PosePrior
) -> None:
    opened = prior.precision >= 0
    made = scene(24, 0.3, pixel_size, defocus_error_angstrom=200.0)
    step = torch.tensor([0.05, -0.05, 0.05, 1.0, -1.0, 300.0]).double() * opened
    start = moved(made.truth, step.expand(24, 6))
    both = [
        refine(made.projector, made.images, start, prior, 20, 0.1)
        for refine in (refine_locally, refine_by_normal_equations)
    ]
    fused, generic = both
    assert isinstance(made.projector, FusedRefinement)
    apart = distance(fused.latents, generic.latents, generic.information)
    # Slopes of trilinear interpolation jump, so that neither ends at the very mode: the
    # one where a step promises 0.1 nats, sqrt(0.2) = 0.45 sd away, the other where it
    # promises 0.01, sqrt(0.02) = 0.14 sd away. Most end much nearer.
    assert apart.max() < 0.6, apart
    assert apart.median() < 0.14, apart
    # The start was many sd off.
    assert (distance(start, generic.latents, generic.information) > 5).all()
    # Neither place is likelier than the other by more than what is left to gain.
    values = [
        prior.log_density(one.latents) - made.loss_of(one.latents) for one in both
    ]
    torch.testing.assert_close(*values, rtol=0, atol=0.1)
    # Half a sd off, other cells of the volume are read.
    width = widths(generic.information)
    scale = width[:, :, None] * width[:, None, :]
    difference = (fused.information - generic.information) / scale
    assert difference.abs().max() < 0.1
    for one in both:
        # Logarithms of rotations in double precision.
        assert (departure(one.latents, start)[:, ~opened].abs() < 1e-7).all()
        assert not one.information[:, ~opened].any()


@pytest.mark.parametrize("prior", [PosePrior(3.0, 0.0), PosePrior(3.0, 500.0)])
def test_without_a_step_both_refinements_say_the_same(scene, prior: PosePrior) -> None:
    made = scene(4, 0.3)
    fused, generic = (
        refine(made.projector, made.images, made.truth, prior, 0, 0.1)
        for refine in (refine_locally, refine_by_normal_equations)
    )
    # Shifts and defoci go to units of the kernel and back.
    torch.testing.assert_close(
        fused.latents.offsets_angstrom, made.truth.offsets_angstrom
    )
    for found in (fused, generic):
        assert torch.equal(found.pose.rotation, made.truth.pose.rotation)
    assert torch.equal(fused.information, generic.information)
    assert torch.equal(fused.log_likelihood, generic.log_likelihood)
    at = made.projector.normal_equations(made.images, made.truth, prior)
    of_prior = torch.diag(2 * prior.precision.clamp(min=0))
    assert torch.equal(generic.information, at.information + of_prior)
    assert torch.equal(generic.log_likelihood, at.log_likelihood)


def test_without_a_kernel_a_map_is_refined_by_its_plain_normal_equations(scene) -> None:
    made, prior = scene(12, 0.3, 2.5), PosePrior(3.0, 300.0)
    step = torch.tensor([0.05, -0.05, 0.05, 1.0, -1.0, 300.0]).double()
    given = made.images, moved(made.truth, step.expand(12, 6)), prior, 20, 0.1
    with plain_only():
        found = refine_locally(made.projector, *given)
        plain = refine_by_normal_equations(made.projector, *given)
    assert torch.equal(found.information, plain.information)
    compiled = refine_by_normal_equations(made.projector, *given)
    # The same steps, but for rounding and what a step less leaves: sqrt(0.02) sd.
    apart = distance(found.latents, compiled.latents, compiled.information)
    assert apart.max() < 0.15, apart
    values = found.log_likelihood, compiled.log_likelihood
    torch.testing.assert_close(*values, rtol=0, atol=0.02)


# A projector of one's own: log-likelihoods that are quadratic about known centres.

UNKNOWNS = 8
SD = torch.tensor([0.03, 0.04, 0.05, 0.5, 0.7, 90.0, 0.8, 1.2], dtype=torch.float64)
FLAT = PosePrior(1e6, 1e8, (1e6, 1e6))


def numbered(n: int) -> WhitenedImages:
    """Return images that show nothing but which of them they are."""
    disc = FourierDisc.of_box(8, 1)
    row = torch.arange(n)[:, None].expand(n, len(disc)).to(torch.complex64)
    one = torch.ones(n, len(disc))
    return WhitenedImages(disc, row, one, Optics.without_ctf(n, 1.0), one[0], 1.0)


@dataclass(frozen=True)
class Quadratic:
    """Minus half of a square of the departure from a centre, and a height."""

    centre: Latents
    information: Tensor
    height: Tensor
    asked: list[int] = field(default_factory=list)

    def _departure(self, images: WhitenedImages, at: Latents) -> tuple[Tensor, Tensor]:
        row = images.coefficients[:, 0].real.long()
        return row, departure(at, self.centre[row])

    def coefficients(self, latents: Latents, images: WhitenedImages) -> Tensor:
        raise AssertionError("a refinement needs normal equations alone")

    def log_likelihood(self, images: WhitenedImages, latents: Latents) -> Tensor:
        row, step = self._departure(images, latents)
        square = torch.einsum("ni,nij,nj->n", step, self.information[row], step)
        return self.height[row] - 0.5 * square

    def normal_equations(
        self, images: WhitenedImages, latents: Latents, prior: PosePrior
    ) -> NormalEquations:
        self.asked.append(len(latents))
        row, step = self._departure(images, latents)
        jacobian = torch.eye(UNKNOWNS, dtype=torch.float64).repeat(len(row), 1, 1)
        jacobian[:, :3, :3] = turned_on(step[:, :3])
        jacobian = jacobian * (prior.precision >= 0)
        uphill = -(self.information[row] @ step[..., None])
        return NormalEquations(
            self.log_likelihood(images, latents),
            (jacobian.mT @ uphill)[..., 0],
            jacobian.mT @ self.information[row] @ jacobian,
        )


def turned_on(vector: Tensor) -> Tensor:
    """Return how a rotation vector (n, 3) changes with a turn that follows it.

    The inverse of the left Jacobian of rotations (Chirikjian, Stochastic Models,
    Information Theory, and Lie Groups 2, 2012, section 10.3), (n, 3, 3).
    """
    skew = torch.zeros(len(vector), 3, 3, dtype=torch.float64)
    for axis, (a, b) in enumerate([(2, 1), (0, 2), (1, 0)]):
        skew[:, a, b], skew[:, b, a] = vector[:, axis], -vector[:, axis]
    angle = vector.norm(dim=1).clamp(min=1e-3)[:, None, None]
    second = 1 / angle**2 - (1 + angle.cos()) / (2 * angle * angle.sin())
    eye = torch.eye(3, dtype=torch.float64)
    return eye - 0.5 * skew + second * skew @ skew


def quadratic(n: int) -> Quadratic:
    """Return likelihoods of correlated unknowns, sharper in the rotation."""
    away = normal(6, n, UNKNOWNS - 3)
    pose = Pose(random_rotations(n, torch.Generator().manual_seed(5)), 2 * away[:, :2])
    centre = Latents(pose, 200 * away[:, 2], 2 * away[:, 3:])
    mixed = normal(7, n, UNKNOWNS, 2 * UNKNOWNS)
    information = mixed @ mixed.mT / (2 * UNKNOWNS) / (SD[:, None] * SD)
    return Quadratic(centre, information, 10 * normal(8, n))


def test_the_slopes_of_a_quadratic_are_its_own() -> None:
    # Of the test's own projector, which all below stands on.
    made, images = quadratic(5), numbered(5)
    at = moved(made.centre, 8 * SD * normal(9, 5, UNKNOWNS))
    found = made.normal_equations(images, at, FLAT)
    for unknown in range(UNKNOWNS):
        step = torch.zeros(5, UNKNOWNS, dtype=torch.float64)
        step[:, unknown] = 0.01 * SD[unknown]
        ahead, behind = (
            made.log_likelihood(images, moved(at, sign * step)) for sign in (1, -1)
        )
        slope = (ahead - behind) / (2 * 0.01)
        expected = found.gradient[:, unknown] * SD[unknown]
        # Slopes of 10 to 100 a width; quadratic, but for the turns' third derivatives.
        torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-3)


def test_a_projector_of_one_s_own_is_refined_to_its_mode() -> None:
    # More than are looked at together.
    n = 70
    made, images = quadratic(n), numbered(n)
    start = moved(made.centre, 8 * SD * normal(9, n, UNKNOWNS))
    found = refine_locally(made, images, start, FLAT, 20, 0.2)
    # A refinement ends where a step promises 0.01 nats, sqrt(0.02) = 0.14 sd away.
    apart = distance(found.latents, made.centre, made.information)
    assert apart.max() < 0.15
    assert (distance(start, made.centre, made.information) > 3).all()
    torch.testing.assert_close(found.log_likelihood, made.height, rtol=0, atol=0.011)
    # A hundredth of a radian off, the Jacobian is half of that from one.
    width = widths(made.information)
    scale = width[:, :, None] * width[:, None, :]
    assert ((found.information - made.information) / scale).abs().max() < 0.02
    assert max(made.asked) < n


def test_the_prior_of_all_but_the_rotation_pulls_as_far_as_it_should() -> None:
    n, prior = 6, PosePrior(1.0, 150.0, (1.0, 2.0), rotation_unknowns=0)
    made, images = quadratic(n), numbered(n)
    start = moved(made.centre, 8 * SD * normal(9, n, UNKNOWNS))
    start = replace(start, pose=replace(start.pose, rotation=made.centre.pose.rotation))
    found = refine_locally(made, images, start, prior, 30, 0.2)
    # The product of two Gaussians: linear, since rotations are held at the centre.
    own = made.information[:, 3:, 3:]
    whole = own + torch.diag(prior.unknowns_sd_angstrom**-2)
    centre = made.centre.offsets_angstrom[..., None]
    expected = torch.linalg.solve(whole, own @ centre)[..., 0]
    torch.testing.assert_close(found.information[:, 3:, 3:], whole)
    assert not found.information[:, :3].any()
    assert torch.equal(found.pose.rotation, start.pose.rotation)
    step = found.latents.offsets_angstrom - expected
    apart = torch.einsum("ni,nij,nj->n", step, whole, step).sqrt()
    # Where a step promises 0.01 nats.
    assert apart.max() < 0.15
    pulled = expected - made.centre.offsets_angstrom
    assert torch.einsum("ni,nij,nj->n", pulled, whole, pulled).min() > 0.3**2


@pytest.mark.parametrize(
    ("turns", "shift_sd", "defocus_sd", "amplitude_sd"),
    [(3, 0.0, 0.0, (1e6, 0.0)), (1, 1e6, 1e8, (0.0, 0.0)), (0, 0.0, 1e8, (1e6, 1e6))],
)
def test_what_is_held_stays(turns, shift_sd, defocus_sd, amplitude_sd) -> None:
    prior = PosePrior(shift_sd, defocus_sd, amplitude_sd, turns)
    held = prior.precision < 0
    made, images = quadratic(6), numbered(6)
    start = moved(made.centre, 3 * SD * normal(9, 6, UNKNOWNS))
    found = refine_locally(made, images, start, prior, 30, 0.2)
    step = departure(found.latents, start)
    # Logarithms of rotations in double precision.
    assert step[:, held].abs().max() < 1e-7
    assert (step[:, ~held].abs() / SD[~held]).amax(0).min() > 0.5
    assert not found.information[:, held].any()
    assert not found.covariance()[:, :, held].any()
    # And the rest is at the mode of what is left.
    at = made.normal_equations(images, found.latents, prior)
    free = torch.nonzero(~held).squeeze(1)
    matrix = at.information[:, free[:, None], free]
    newton = torch.linalg.solve(matrix, at.gradient[:, free, None])[..., 0]
    assert (0.5 * (newton * at.gradient[:, free]).sum(1) < 0.011).all()


def test_steps_are_not_longer_than_allowed() -> None:
    made, images = quadratic(6), numbered(6)
    far = moved(
        made.centre, torch.tensor([0.6, 0, 0, 0, 0, 0, 0, 0]).double().expand(6, 8)
    )
    once = refine_locally(made, images, far, FLAT, 1, 0.1)
    angle = geodesic_angle(once.pose.rotation, far.pose.rotation)
    # As long as it may be: what is promised lies farther off.
    torch.testing.assert_close(angle, torch.full_like(angle, 0.1), rtol=0, atol=1e-6)
    # Amplitudes move by a sd of their prior at most, here one of a single amplitude.
    prior = PosePrior(0.0, 0.0, (0.5, 0.0), rotation_unknowns=0)
    step = torch.tensor([0, 0, 0, 0, 0, 0, 8.0, 0]).double()
    far = moved(made.centre, step.expand(6, 8))
    once = refine_locally(made, images, far, prior, 1, 0.1)
    z = (once.latents.conformation - far.conformation)[:, 0].abs()
    assert z.max() == pytest.approx(0.5, abs=1e-9)


def test_no_step_lowers_the_posterior_and_more_steps_go_on() -> None:
    made, images = quadratic(6), numbered(6)
    start = moved(made.centre, 15 * SD * normal(9, 6, UNKNOWNS))
    values = [
        refine_locally(made, images, start, FLAT, steps, 0.1).log_likelihood
        for steps in range(12)
    ]
    for before, after in itertools.pairwise(values):
        assert (after >= before).all()
    assert torch.equal(values[0], made.log_likelihood(images, start))
    assert (values[-1] > values[0] + 10).all()


def test_a_fused_refinement_is_preferred_to_the_generic_one() -> None:
    made, images = quadratic(3), numbered(3)
    said = PosteriorModes.unknown(made.centre)

    class Fused(Quadratic):
        def refine_locally(self, *given: object) -> PosteriorModes:
            assert given == (images, made.centre, FLAT, 7, 0.1)
            return said

    fused = Fused(made.centre, made.information, made.height)
    assert refine_locally(fused, images, made.centre, FLAT, 7, 0.1) is said
    assert not fused.asked


def test_nothing_is_refined_to_nothing() -> None:
    made, none = quadratic(3), torch.arange(0)
    found = refine_locally(
        made, numbered(3).select(none), made.centre[none], FLAT, 5, 0.1
    )
    assert len(found) == 0
    assert found.information.shape == (0, UNKNOWNS, UNKNOWNS)
