"""An encoder learns poses of a small molecule; local refinement makes them exact."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest
import torch

from cryoinfer.errors import InputError
from cryoinfer.evaluation.grid_posterior import grid_posterior, kl_divergence
from cryoinfer.fourier.slices import FourierVolume, extract_slices
from cryoinfer.geometry.rotation_volume import ALL_TURNS
from cryoinfer.geometry.rotations import geodesic_angle, random_rotations
from cryoinfer.geometry.symmetry import nearest_mates, symmetry_rotations
from cryoinfer.inference.amortized import PoseEncoder
from cryoinfer.inference.convergence import Check, in_vain, lost_degrees, verdict
from cryoinfer.inference.encoder_inputs import encoder_inputs
from cryoinfer.inference.importance import ImportanceSampling, SampledRefinement
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.mode_refinement import ModeRefinement
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import GivenPoses, PoseInference
from cryoinfer.inference.pose_network import PoseNetwork, PoseNetworkConfig
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.training import (
    Loss,
    Training,
    TrainingConfig,
    train,
)
from cryoinfer.inference.training_images import TrainingImages
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.records import Latents, Optics, ParticleBatch, Pose

BOX, PIXEL, SIDE = 32, 3.0, 16
PRIOR = PosePrior(shift_sd_angstrom=3.0, defocus_sd_angstrom=0.0)
GRID = ReferenceGrid(BOX, PIXEL)
C1 = symmetry_rotations("C1")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def molecule() -> GaussianAtoms:
    coordinates = torch.randn(60, 3, generator=seeded(), dtype=torch.float64) * 12
    return GaussianAtoms.from_elements(coordinates, ["C"] * 60, 200.0)


def particles(n: int, generator: torch.Generator) -> tuple[ParticleBatch, Pose, float]:
    shift = torch.randn(n, 2, generator=generator, dtype=torch.float64) * 3
    true = Pose(random_rotations(n, generator), shift)
    clean = molecule().project(true, BOX, PIXEL).float()
    sd = float(clean.std()) * 0.5
    images = clean + sd * torch.randn(clean.shape, generator=generator)
    batch = ParticleBatch(images, Optics.without_ctf(n, PIXEL), torch.arange(n))
    return batch, true, sd


def volume(radius: int = 15) -> FourierVolume:
    return FourierVolume.from_map(molecule().to_map(BOX, PIXEL).float(), radius)


def source() -> tuple[TrainingImages, torch.Tensor]:
    batch, _, sd = particles(50, seeded(1))
    noise = torch.full((BOX // 2,), sd**2)
    templates = whiten(batch, GRID, SIDE // 2 - 1, noise)
    return TrainingImages(MapProjector(volume()), (templates,), PRIOR), noise


def network() -> PoseNetwork:
    torch.manual_seed(0)
    return PoseNetwork(PoseNetworkConfig(SIDE, components=4, width=8), PRIOR)


class Keeper(SilentMonitor):
    """Keeps the first checkpoint, and offers it on request."""

    def __init__(self, resume: "Keeper | None" = None) -> None:
        self.kept: Mapping[str, object] | None = None
        self._offered = resume.kept if resume else None

    def save_checkpoint(self, state: Mapping[str, object]) -> None:
        if self.kept is None:
            torch.save(state, file := io.BytesIO())
            file.seek(0)
            self.kept = torch.load(file, weights_only=True)

    def load_checkpoint(self) -> Mapping[str, object] | None:
        return self._offered


def trained(monitor: SilentMonitor, steps: int, check_every: int) -> Training:
    images, _ = source()
    config = TrainingConfig(
        steps=steps, batch=32, warm_up=20, average_share=0.1, check_every=check_every
    )
    return train(
        network(), images, config, symmetry_rotations("C1"), seeded(2), monitor
    )


def test_simulated_images_are_those_of_the_molecule() -> None:
    images, _ = source()
    drawn, latents = images.draw(200, seeded(3))
    clean = molecule().project(latents.pose, BOX, PIXEL).float()
    batch = ParticleBatch(clean, Optics.without_ctf(200, PIXEL), torch.arange(200))
    sd2 = float(images.templates[0].weight[0]) ** -2
    expected = whiten(batch, GRID, SIDE // 2 - 1, torch.full((BOX // 2,), sd2))
    noise = drawn.coefficients - expected.coefficients
    # What is left is noise of unit power: 200 images of some 75 coefficients have a
    # standard error of 1 %; trilinear interpolation adds 1 %.
    assert noise.abs().square().mean().item() == pytest.approx(1.0, abs=0.05)


def test_an_encoder_is_shown_the_ctf_of_the_given_defocus() -> None:
    batch, _, sd = particles(10, seeded(1))
    optics = replace(
        batch.optics,
        amplitude_contrast=torch.full((10,), 0.1, dtype=torch.float64),
        defocus_u_angstrom=torch.full((10,), 9000.0, dtype=torch.float64),
        defocus_v_angstrom=torch.full((10,), 9000.0, dtype=torch.float64),
    )
    noise = torch.full((BOX // 2,), sd**2)
    templates = whiten(replace(batch, optics=optics), GRID, 7, noise)
    images = TrainingImages(
        MapProjector(volume()), (templates,), PosePrior(0.0, 2000.0)
    )
    drawn, latents = images.draw(300, seeded(2))
    torch.testing.assert_close(drawn.ctf, templates.ctf[:1].expand(300, -1))
    true, _ = drawn.with_defocus_offset(latents.defocus_offset_angstrom)
    slices = extract_slices(volume(), latents.pose.rotation, drawn.disc)

    def left(ctf: torch.Tensor) -> float:
        return float((drawn.coefficients - ctf * slices).abs().square().mean())

    # Noise of unit power is left by the true defocus alone; 300 images of some 75
    # coefficients have a standard error of 1 %.
    assert left(true.ctf) == pytest.approx(1.0, abs=0.05)
    assert left(drawn.ctf) > 1.2


def test_an_encoder_learns() -> None:
    done = trained(SilentMonitor(), steps=200, check_every=100)
    images, _ = source()
    drawn, latents = images.draw(300, seeded(4))
    with torch.no_grad():
        before = Loss(network(), C1)(encoder_inputs(drawn, SIDE), latents).mean()
        after = Loss(done.network, C1)(encoder_inputs(drawn, SIDE), latents).mean()
    # Ten seconds of learning: far from done, and better than chance beyond doubt.
    assert after < before - 1.0
    assert [check.step for check in done.checks] == [100, 200]
    assert done.checks[1].loss_nats < done.checks[0].loss_nats


@pytest.mark.slow
def test_images_held_back_are_of_several_optics_groups() -> None:
    images, _ = source()
    (first,) = images.templates
    # Half of one group is as good as another group that shows nothing.
    second = replace(first, ctf=torch.zeros_like(first.ctf))
    images = replace(images, templates=(first, second))
    groups = []

    class Counting(TrainingImages):
        def draw(self, *given):
            drawn, latents = super().draw(*given)
            groups.extend(drawn.ctf.any(1).tolist())
            return drawn, latents

    counting = Counting(**vars(images))
    config = TrainingConfig(steps=1, batch=1, check_every=1)
    train(network(), counting, config, C1, seeded(), SilentMonitor())
    # 20 draws of a group: less than 4 of either are three in a thousand.
    assert 100 <= sum(groups[:500]) <= 400


def test_a_batch_that_overflows_is_left_out() -> None:
    class Wild(TrainingImages):
        draws = 0

        def draw(self, *given):
            drawn, latents = super().draw(*given)
            Wild.draws += 1
            if Wild.draws == 25:  # after those held back
                far = replace(latents.pose, shift_angstrom=torch.full((8, 2), 1e30))
                latents = replace(latents, pose=far)
            return drawn, latents

    config = TrainingConfig(steps=10, batch=8, check_every=10)
    wild = Wild(**vars(source()[0]))
    said: list[str] = []
    monitor = SilentMonitor()
    monitor.message = said.append
    done = train(network(), wild, config, C1, seeded(), monitor)
    assert Wild.draws > 30
    assert "1 batch" in said[-1]
    assert all(weight.isfinite().all() for weight in done.network.parameters())
    assert math.isfinite(done.checks[-1].loss_nats)


def test_an_interrupted_training_ends_with_the_same_weights() -> None:
    first = Keeper()
    whole = trained(first, steps=20, check_every=10)
    resumed = trained(Keeper(first), steps=20, check_every=10)
    for one, other in zip(
        whole.network.parameters(), resumed.network.parameters(), strict=True
    ):
        # Bitwise but for the order of sums on several threads.
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    for one, other in zip(whole.checks, resumed.checks, strict=True):
        assert one.step == other.step
        assert one.loss_nats == pytest.approx(other.loss_nats, rel=1e-3)


def refinement(
    proposal: PoseInference[MapProjector], symmetry: torch.Tensor
) -> ModeRefinement[MapProjector]:
    return ModeRefinement(proposal, (7, 15), GRID.lever_angstrom, symmetry)


def test_local_refinement_makes_the_poses_of_an_encoder_exact() -> None:
    # An untrained network names poses far off: here it is the refinement that is
    # tested, from modes that lie near the truth.
    batch, true, sd = particles(20, seeded(5))
    noise = torch.full((BOX // 2,), sd**2)
    encoder = PoseEncoder(network(), GRID, (noise,), C1)
    semi = refinement(encoder, C1)
    images, projector = encoder.whitened(batch, 15), MapProjector(volume())
    near = ParticlePosterior.of_modes(
        centred(
            true.rotation[:, None]
            @ torch.linalg.matrix_exp(
                0.1 * torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 0]]).double()
            )
        ),
        torch.ones(20, 1, dtype=torch.float64),
        torch.eye(6, dtype=torch.float64).expand(20, 1, 6, 6),
    )
    found = semi.refine(images, projector, PRIOR, near)
    error = torch.rad2deg(geodesic_angle(found.mode().pose.rotation, true.rotation))
    # At this signal; the start is 5.7 degrees off.
    assert error.median() < 3.0
    whole = semi.infer(images, projector, PRIOR, None)
    assert whole.weight.shape == (20, 2)
    torch.testing.assert_close(whole.weight.sum(1), torch.ones(20).double())
    assert whole.covariance.isfinite().all()


def centred(rotation: torch.Tensor) -> Latents:
    """Return latents of rotations (n, m, 3, 3) and no shift."""
    zero = torch.zeros(*rotation.shape[:2], 2, dtype=torch.float64)
    return Latents.rigid(Pose(rotation, zero), zero[..., 0])


@dataclass(frozen=True)
class Told(PoseEncoder):
    """An encoder that has been told what to name."""

    named: ParticlePosterior

    def posterior(self, images: WhitenedImages) -> ParticlePosterior:
        return self.named


def test_draws_come_nearer_to_the_exact_posterior_than_refinements() -> None:
    batch, true, sd = particles(8, seeded(5))
    # Eight times as much as there is: posteriors are wide, and no Gaussians any more.
    noise = torch.full((BOX // 2,), (8 * sd) ** 2)
    wide = torch.tensor([0.3, 0.3, 0.3, 2.0, 2.0, 0.0], dtype=torch.float64)
    near = ParticlePosterior.of_modes(
        Latents.rigid(true, torch.zeros(8, dtype=torch.float64))[:, None],
        torch.ones(8, 1, dtype=torch.float64),
        wide.square().diag().expand(8, 1, 6, 6),
    )
    encoder = Told(network(), GRID, (noise,), C1, near)
    semi = refinement(encoder, C1)
    images, projector = encoder.whitened(batch, 15), MapProjector(volume())
    refined, sampled = (
        one.infer(images, projector, PRIOR, None)
        for one in (semi, SampledRefinement(semi, ImportanceSampling(C1)))
    )
    exact = grid_posterior(projector, images, PRIOR, refined)
    before, after = (kl_divergence(exact, one) for one in (refined, sampled))
    assert before.median() > 0.05, before
    assert after.median() < 0.5 * before.median(), (before, after)


def test_modes_that_an_image_cannot_tell_apart_are_both_kept() -> None:
    # A molecule beside its own copy turned by half a turn: C2, but nobody says so.
    half_turn = torch.diag(torch.tensor([-1.0, -1.0, 1.0])).double()
    one = molecule().coordinates_angstrom + 15.0
    both = torch.cat([one, one @ half_turn])
    pair = GaussianAtoms.from_elements(both, ["C"] * 120, 200.0)
    true = Pose(random_rotations(8, seeded(8)), torch.zeros(8, 2).double())
    images = pair.project(true, BOX, PIXEL).float()
    noise = torch.full((BOX // 2,), float(images.var()))
    batch = ParticleBatch(images, Optics.without_ctf(8, PIXEL), torch.arange(8))
    density = pair.to_map(BOX, PIXEL).float()
    projector = MapProjector(FourierVolume.from_map(density, 15))
    half = torch.full((8, 2), 0.5, dtype=torch.float64)
    near = ParticlePosterior.of_modes(
        centred(torch.stack([true.rotation, true.rotation @ half_turn], 1)),
        half,
        0.01 * torch.eye(6, dtype=torch.float64).expand(8, 2, 6, 6),
    )
    seen = whiten(batch, GRID, 15, noise)
    found = refinement(GivenPoses(), C1).infer(seen, projector, PRIOR, near)
    # The map is interpolated: mates differ by a quarter of a nat.
    torch.testing.assert_close(found.weight, half, rtol=0, atol=0.1)
    c2 = refinement(GivenPoses(), symmetry_rotations("C2"))
    # Told of the symmetry, one mode stands for both.
    torch.testing.assert_close(
        c2.infer(seen, projector, PRIOR, near).weight[:, 0], torch.ones(8).double()
    )


def test_images_of_another_area_are_refused() -> None:
    _, _, sd = particles(1, seeded(6))
    encoder = PoseEncoder(network(), GRID, (torch.full((BOX // 2,), sd**2),), C1)
    images = torch.randn(3, BOX, BOX, generator=seeded(7))
    other = ParticleBatch(images, Optics.without_ctf(3, 2.5), torch.arange(3))
    with pytest.raises(InputError, match=r"96\.0 A across, found 80\.0 A"):
        encoder.whitened(other, encoder.radius)


def test_a_training_that_finds_no_pose_takes_half_of_its_steps() -> None:
    images, _ = source()
    # Of a map that is empty, images show nothing.
    nothing = FourierVolume.from_map(torch.zeros(BOX, BOX, BOX), 15)
    images = replace(images, projector=MapProjector(nothing))
    # Half of the steps, 21, lies between two looks.
    config = TrainingConfig(steps=42, batch=100, warm_up=1, check_every=5)
    done = train(network(), images, config, C1, seeded(), SilentMonitor())
    assert [check.step for check in done.checks] == [5, 10, 15, 20, 25]
    assert done.verdict.startswith("not converged")


LOST = lost_degrees(ALL_TURNS, symmetry_rotations("C1"))


def checks(*values: tuple[float, float]) -> list[Check]:
    """Return looks of a loss and an error each, a hundred steps apart."""
    return [Check(100 * (i + 1), *value) for i, value in enumerate(values)]


def test_a_training_is_in_vain_if_neither_poses_nor_densities_are_learned() -> None:
    assert in_vain(checks((9.0, 130.0), (8.9, 128.0), (8.9, 131.0), (8.8, 126.0)), LOST)
    assert not in_vain(checks((9.0, 130.0), (8.9, 128.0), (8.9, 131.0)), LOST)
    # Two poses that look alike: the loss falls, while half of the errors are 180.
    assert not in_vain(
        checks((9.0, 130.0), (7.0, 90.0), (6.0, 90.0), (5.0, 89.0)), LOST
    )
    assert not in_vain(checks((9.0, 50.0), (8.9, 40.0), (8.9, 40.0), (8.9, 40.0)), LOST)


@pytest.mark.parametrize("name", ["C1", "D7", "T", "O", "I"])
def test_random_poses_are_lost_under_any_symmetry(name: str) -> None:
    group = symmetry_rotations(name)
    first, second = random_rotations(2000, seeded()).view(2, 1000, 3, 3)
    angle = geodesic_angle(first, nearest_mates(second, first, group))
    degrees = math.degrees(float(angle.median()))
    lost = lost_degrees(ALL_TURNS, group)
    # A median of 1,000 is known to a few per cent.
    assert lost == pytest.approx(0.45 * degrees, rel=0.1)
    at_random = checks(*[(9.0, degrees)] * 4)
    assert in_vain(at_random, lost)
    assert verdict(at_random, lost).startswith("not converged")


def test_verdicts_are_in_plain_words() -> None:
    lost = checks((9.0, 120.0), (9.0, 119.0), (9.0, 119.0), (9.0, 118.0))
    learning = checks((9.0, 80.0), (6.0, 50.0), (5.0, 30.0), (4.0, 12.0))
    done = checks((6.0, 50.0), (2.0, 3.0), (1.9, 2.6), (1.8, 2.5))
    assert verdict(lost, LOST).startswith(
        "not converged: the median error, 118 degrees"
    )
    assert "gained 2.0 nats" in verdict(learning, LOST)
    assert verdict(done[:3], LOST).startswith("too short to tell")
    assert "not finite" in verdict([*done, Check(300, float("nan"), 2.0)], LOST)
    assert verdict(done, LOST) == (
        "converged: median error 2.50 degrees on simulated images held back"
    )
