"""Unseen particles: their posteriors, those left out, and images of other kinds."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.inference.local_refinement import refine_locally
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.mode_refinement import ModeRefinement
from cryoinfer.inference.outlier_score import fit, is_outlier, outlier_score
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.star import read_star, write_star
from cryoinfer.physics.noise import estimate_background_spectrum
from cryoinfer.records import Latents
from cryoinfer.workflows import final_maps, preparation
from cryoinfer.workflows.infer import (
    InferConfig,
    infer,
    infer_particles,
    reconstruct_inferred,
)
from cryoinfer.workflows.inferred import Inferred, InferredParticles
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.structure_update import HalfMapSums
from cryoinfer.workflows.trained_encoder import TrainedEncoder

BOX, PIXEL_SIZE, RADIUS = 36, 2.8, 7
COMMON = 12  # within the reach of all pixel sizes here
SET = {"box": BOX, "pixel_size_angstrom": PIXEL_SIZE, "max_shift_angstrom": 2.0}


class Listener(SilentMonitor):
    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


def noise_variance(particles: Particles) -> float:
    """Return the variance of white noise at 0 dB: half of all."""
    return float(particles.images(torch.arange(len(particles))).var()) / 2


def background(particles: Particles) -> torch.Tensor:
    """Return the noise spectrum around the particles."""
    images = particles.images(torch.arange(len(particles)))
    return estimate_background_spectrum(images, 13.0)


@pytest.fixture(scope="module")
def made(simulated):
    return simulated(snr_db=0.0, **SET)


@pytest.fixture(scope="module")
def trained(made, taught) -> TrainedEncoder:
    return taught(made, torch.full((BOX // 2 + 1,), noise_variance(made.particles)))


@pytest.mark.parametrize("refines", [True, False])
def test_unseen_particles_come_back_with_poses_and_a_map(
    trained, made, refines: bool
) -> None:
    config = InferConfig(local_refinement=refines)
    found = infer(made.particles, trained, config, SilentMonitor())
    n = len(made.particles)
    assert found.reconstruction.density.shape == (BOX,) * 3
    assert found.latents.pose.rotation.shape == (n, 3, 3)
    assert found.inferred.log_likelihood.isfinite().all()
    total = found.inferred.weight.sum(1)
    # An encoder's background has some of it.
    assert (total <= 1 + 1e-9).all()
    assert bool((total < 1 - 1e-6).all()) is not refines
    assert found.entropy().isfinite().all()


def test_local_refinement_explains_the_images_better(trained, made) -> None:
    configs = (InferConfig(local_refinement=refines) for refines in (False, True))
    found = (infer(made.particles, trained, one, SilentMonitor()) for one in configs)
    alone, refined = (one.inferred.log_likelihood for one in found)
    assert refined.median() > alone.median()


def rewritten(particles: Particles, images: torch.Tensor, folder: Path) -> Particles:
    """Return the particles with other images of the same size."""
    folder.mkdir()
    stack = particles.stacks[0]
    header = stack.path.read_bytes()[: stack.offset_bytes]
    content = images.numpy().astype(stack.dtype).tobytes()
    (folder / "particles.mrcs").write_bytes(header + content)
    star = read_star(stack.path.with_name("particles.star"))
    write_star(folder / "particles.star", star)
    return Particles.load(folder / "particles.star")


def test_images_that_are_not_finite_change_nothing_for_the_others(
    trained, made, tmp_path: Path
) -> None:
    images = made.particles.images(torch.arange(len(made.particles)))
    images[3, 5, 5] = torch.nan
    images[77] = torch.inf
    images[80, 2:5, 2:5] = 1e25  # whose square is infinite; one would be a hot pixel
    broken = rewritten(made.particles, images, tmp_path / "broken")
    good = torch.ones(len(images), dtype=torch.bool)
    good[[3, 77, 80]] = False
    config = InferConfig(seed=1)
    whole = infer(made.particles, trained, config, SilentMonitor())
    found = infer(broken, trained, config, SilentMonitor())
    # Rounding of the network in bfloat16 may depend on the batch, but refinements end
    # at the same modes.
    same = geodesic_angle(
        found.latents.pose.rotation[good], whole.latents.pose.rotation[good]
    )
    assert float((same < 1e-3).double().mean()) > 0.95
    assert torch.equal(found.random_subset, whole.random_subset)
    # No image, no pose: nothing is claimed to be known.
    assert torch.equal(~found.unreadable, good)
    assert torch.equal(~found.outlier_score_nats.isinf(), good)
    assert torch.equal(found.inferred.log_likelihood.isinf(), ~good)
    assert torch.equal(found.inferred.weight[~good], torch.zeros(3, 3).double())
    eye = torch.eye(3).double()
    assert torch.equal(found.latents.pose.rotation[~good], eye.expand(3, 3, 3))
    sd = torch.rad2deg(found.inferred.covariance[3, 0].diagonal()[:3].sqrt())
    assert sd.tolist() == pytest.approx([76.1] * 3, abs=0.1)
    uniform = math.log(8 * math.pi**2)
    spread = 2 * math.log(trained.prior.shift_sd_angstrom * math.sqrt(2 * math.pi)) + 1
    assert float(found.entropy()[3]) == pytest.approx(uniform + spread, rel=1e-6)
    # And they are not in the map.
    without = broken.select(good).with_results(random_subset=found.random_subset[good])
    alone = infer(without, trained, config, SilentMonitor())
    fit_density = found.reconstruction.half1, alone.reconstruction.half1
    torch.testing.assert_close(*fit_density, atol=1e-3, rtol=1e-3)


def test_too_bright_an_image_ends_no_inference(trained, made, tmp_path: Path) -> None:
    # Finite, as is its square; over noise of a thousandth its square is not.
    images = 1e-3 * made.particles.images(torch.arange(len(made.particles)))
    images[80, 2:5, 2:5] = 1e18
    bright = rewritten(made.particles, images, tmp_path / "bright")
    found = infer(bright, trained, InferConfig(), SilentMonitor())
    assert torch.nonzero(found.unreadable).squeeze(1).tolist() == [80]
    assert torch.equal(found.inferred.log_likelihood.isfinite(), ~found.unreadable)
    assert found.reconstruction.density.isfinite().all()


def test_noise_is_flagged_and_not_in_the_map(trained, made, tmp_path: Path) -> None:
    images = made.particles.images(torch.arange(len(made.particles)))
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((50, BOX, BOX), generator=generator)
    images[:50] = noise * math.sqrt(noise_variance(made.particles))
    junk = rewritten(made.particles, images, tmp_path / "junk")
    found = infer(junk, trained, InferConfig(), SilentMonitor())
    flagged = is_outlier(found.outlier_score_nats)
    assert float(flagged[:50].double().mean()) > 0.9
    inferred = infer_particles(junk, trained, InferConfig(), SilentMonitor())
    empty = reconstruct_inferred(
        junk.select(flagged),
        infer_particles(junk.select(flagged), trained, InferConfig(), SilentMonitor()),
        trained,
        InferConfig(),
    )
    assert not bool(empty.reconstruction.density.any())
    weight = total_weight(inferred)
    kept = junk.select(~flagged)
    same = infer_particles(kept, trained, InferConfig(), SilentMonitor())
    assert weight == pytest.approx(total_weight(same), rel=1e-3)


def total_weight(inferred: Inferred) -> float:
    return sum(float(sums[..., 2].sum()) for sums in inferred.sums.tensors)


def poses_near_the_truth(trained, made) -> tuple[float, float, float]:
    """Return the medians of view and shift over the noise, and the share of flags.

    Local refinement of the true poses, on images prepared as an inference prepares
    them; in units of the noise's amplitude per area, which the sets do not quite share.
    """
    prepared = preparation.prepare(made.particles, trained, 0, SilentMonitor())
    batch = made.particles.batch(torch.arange(len(made.particles)))
    readable = prepared.prepare(batch)
    assert readable is not None
    images = readable.images
    zero = torch.zeros(len(batch)).double()
    at = Latents.rigid(made.true_pose, zero)
    projector = MapProjector(FourierVolume.from_map(trained.density, COMMON))
    near = images.prefix(COMMON)
    found = refine_locally(projector, near, at, trained.prior, 8, 0.2).pose
    angle = geodesic_angle(found.rotation, made.true_pose.rotation)
    moved = (found.shift_angstrom - made.true_pose.shift_angstrom).norm(dim=1)
    low = MapProjector(FourierVolume.from_map(trained.density, RADIUS))
    fitted = fit(low, images.prefix(RADIUS), at, trained.prior)
    strange = is_outlier(outlier_score(fitted, trained.inliers))
    flagged = float(strange.double().mean())
    rim = batch.images[:, 0].std() * float(batch.optics.pixel_size_angstrom[0])
    return float(angle.median() / rim), float(moved.median() / rim), flagged


# A smaller and a larger box, finer pixels in a box of no whole number of them, coarser
# ones; of images of the same microscope, particle and noise.
@pytest.mark.parametrize(
    ("box", "pixel_size", "noise"),
    [
        pytest.param(32, 2.8, "white", marks=pytest.mark.slow),
        pytest.param(56, 2.1, "white", marks=pytest.mark.slow),
        (34, 3.3, "white"),
        (48, 2.8, "coloured"),
    ],
)
def test_stacks_of_another_kind_are_inferred_as_well(
    simulated, taught, box: int, pixel_size: float, noise: str
) -> None:
    same = simulated(n=600, snr_db=-5.0, noise=noise, **SET)
    # Signal over noise is of all pixels; this gives the same noise per area.
    wider, coarser = box * pixel_size / (BOX * PIXEL_SIZE), pixel_size / PIXEL_SIZE
    snr_db = -5.0 + 20 * math.log10(coarser / wider)
    other = simulated(
        n=600,
        snr_db=snr_db,
        noise=noise,
        **{**SET, "box": box, "pixel_size_angstrom": pixel_size},
    )
    trained = taught(same, background(same.particles))
    angle, shift, flagged = poses_near_the_truth(trained, same)
    again = poses_near_the_truth(trained, other)
    # Of 600 images a median is known to 5 %, and of a difference to 7 %.
    assert again[0] == pytest.approx(angle, rel=0.1)
    assert again[1] == pytest.approx(shift, rel=0.1)
    assert again[2] <= flagged + 0.02


@pytest.mark.parametrize("factor", [1.0, 0.3])
def test_other_units_of_the_images_are_found_out(
    simulated, taught, tmp_path: Path, factor: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Signal and noise scaled together, as where images were normalised anew; or the
    # noise alone, which is 1.2 times less as signal over noise is of all pixels.
    same = simulated(n=400, snr_db=0.0, **SET)
    other = simulated(n=400, snr_db=0.0, **{**SET, "box": 46})
    trained = taught(same, background(same.particles))
    images = other.particles.images(torch.arange(400)) * factor
    particles = rewritten(other.particles, images, tmp_path / "scaled")
    # In place of an encoder that has learned something.
    at = Latents.rigid(other.true_pose, torch.zeros(400).double())

    def know(self, images, *given) -> ParticlePosterior:
        angles = images.optics.defocus_angle_radian.tolist()
        rows = torch.tensor([rows_of[angle] for angle in angles])
        one = torch.ones(len(rows), 1).double()
        return ParticlePosterior.of_modes(
            at[rows, None],
            one,
            torch.eye(6).double().expand(len(rows), 1, 6, 6),
        )

    # Without a CTF, the angle of its defocus is free to say which image it is.
    numbers = torch.arange(400).double() / 100
    rows_of = {float(number): row for row, number in enumerate(numbers)}
    optics = replace(particles.optics, defocus_angle_radian=numbers)
    particles = replace(particles, table=replace(particles.table, optics=optics))
    monkeypatch.setattr(ModeRefinement, "infer", know)
    found = preparation.prepare(particles, trained, 0, SilentMonitor())
    amplitude = found.by_kind[0, 46].amplitude
    # The noise of normalised images is taken to be that learned: 1.2 times too much.
    assert amplitude == pytest.approx(1.0 if factor == 1.0 else 0.3 / 1.2, rel=0.1)


def test_pixels_too_coarse_and_images_too_small_are_refused(simulated, trained) -> None:
    coarse = simulated(n=20, box=20, pixel_size_angstrom=6.4).particles
    with pytest.raises(InputError, match=r"takes pixels of 6\.3 A or less"):
        infer(coarse, trained, InferConfig(), SilentMonitor())
    huge = replace(trained, density=torch.ones_like(trained.density))
    small = simulated(n=20, box=32, pixel_size_angstrom=PIXEL_SIZE).particles
    with pytest.raises(InputError, match="no smaller image holds"):
        infer(small, huge, InferConfig(), SilentMonitor())


def test_learned_noise_is_resampled_with_its_images(made, trained) -> None:
    # Pixels 0.05 % larger than those that were learned cost the last ring of 36
    # pixels; 34 of the same area have (2.8014 / 2.9647)^2 of the noise.
    optics = made.particles.optics
    size = optics.pixel_size_angstrom * 1.0005
    table = replace(
        made.particles.table, optics=replace(optics, pixel_size_angstrom=size)
    )
    particles = replace(made.particles, table=table)
    found = preparation.prepare(particles, trained, 0, SilentMonitor())
    one = found.by_kind[0, BOX]
    assert one.resampling is not None
    assert one.resampling.box == 34
    learned = trained.encoder.noise_power[0]
    torch.testing.assert_close(
        one.noise_power, learned[:18] * (2.8014 / 2.96471) ** 2, rtol=2e-3, atol=0
    )


def test_only_the_default_diameter_goes_with_the_box(
    trained, simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = simulated(n=20, box=46, pixel_size_angstrom=PIXEL_SIZE).particles
    seen = []

    def find_mask(problem: Problem, density: torch.Tensor, _: int) -> torch.Tensor:
        seen.append(problem.particle_radius_angstrom)
        return torch.ones_like(density)

    monkeypatch.setattr(final_maps, "find_mask", find_mask)
    unseen = InferredParticles.unseen(20, trained.prior)
    sums = HalfMapSums.empty(BOX, BOX // 2 - 1)
    blank = Inferred(unseen, torch.arange(20) % 2, (), sums)
    for diameter in (None, 60.0):
        config = InferConfig(particle_diameter_angstrom=diameter)
        reconstruct_inferred(larger, blank, trained, config)
    assert seen == pytest.approx([0.375 * BOX * PIXEL_SIZE, 30.0])


def test_the_noise_of_groups_that_were_not_learned_is_measured(made, trained) -> None:
    particles = made.particles
    optics = particles.optics
    group = torch.arange(len(particles)) % 3
    table = replace(particles.table, optics=replace(optics, group=group))
    listener = Listener()
    found = infer(replace(particles, table=table), trained, InferConfig(), listener)
    assert len(found.noise_power) == 3
    told = " ".join(listener.said)
    assert [f"group {n}" in told for n in (1, 2, 3)] == [False, True, True]
    learned = found.noise_power[0][1:RADIUS].mean()
    for spectrum in found.noise_power[1:]:
        # Of 67 images, 2 % a ring; the mask's loss at ring 1 is left out.
        assert float(spectrum[2:RADIUS].mean() / learned) == pytest.approx(1, abs=0.1)


def test_one_hot_pixel_does_not_make_noise_of_a_group(
    trained, made, tmp_path: Path
) -> None:
    images = made.particles.images(torch.arange(len(made.particles)))
    images[7, 0, 0] = 1e4 * images.std()
    hot = rewritten(made.particles, images, tmp_path / "hot")
    listener = Listener()
    infer(hot, trained, InferConfig(), listener)
    assert listener.said == []
    # Nor of one that is measured, as it was not learned.
    group = torch.ones(len(hot), dtype=torch.int64)
    table = replace(hot.table, optics=replace(hot.optics, group=group))
    found = infer(replace(hot, table=table), trained, InferConfig(), listener)
    assert "group 2" in " ".join(listener.said)
    learned = trained.encoder.noise_power[0][2:RADIUS].mean()
    # Of 200 images, 1 % a ring; what the map leaves is a few percent more or less.
    ratio = float(found.noise_power[1][2:RADIUS].mean() / learned)
    assert ratio == pytest.approx(1, abs=0.1)


def test_a_group_of_another_data_set_is_not_taken_for_the_one_that_was_learned(
    trained, made, tmp_path: Path
) -> None:
    images = made.particles.images(torch.arange(len(made.particles)))
    dark = rewritten(made.particles, 0.3 * images, tmp_path / "dark")
    listener = Listener()
    found = infer(dark, trained, InferConfig(), listener)
    assert "group 1, 36 pixels of 2.8 A, noise 0.3 times" in " ".join(listener.said)
    learned = trained.encoder.noise_power[0][2:RADIUS].mean()
    # Of 200 images, 1 % a ring; what the map leaves is a few percent more or less.
    ratio = float(found.noise_power[0][2:RADIUS].mean() / learned)
    assert ratio == pytest.approx(0.09, rel=0.1)
    optics = made.particles.optics
    lower = replace(optics, voltage_kv=torch.full_like(optics.voltage_kv, 200))
    table = replace(made.particles.table, optics=lower)
    listener = Listener()
    infer(replace(made.particles, table=table), trained, InferConfig(), listener)
    assert "200 kV in the place of 300 kV" in " ".join(listener.said)
    listener = Listener()
    stated = replace(made.particles.table, has_ctf=not made.particles.has_ctf)
    infer(replace(made.particles, table=stated), trained, InferConfig(), listener)
    assert "a CTF in the place of no CTF" in " ".join(listener.said)


def test_a_group_without_a_readable_image_does_not_end_an_inference(
    trained, made, tmp_path: Path
) -> None:
    images = made.particles.images(torch.arange(len(made.particles)))
    images[::2, 5, 5] = torch.nan
    broken = rewritten(made.particles, images, tmp_path / "broken")
    # Of a group that the encoder has not learned, whose noise would be measured.
    group = (torch.arange(len(images)) % 2 == 0).long()
    table = replace(broken.table, optics=replace(broken.optics, group=group))
    found = infer(replace(broken, table=table), trained, InferConfig(), SilentMonitor())
    assert torch.equal(found.unreadable, group.bool())
    assert found.inferred.log_likelihood[group == 0].isfinite().all()
    assert float(found.reconstruction.density.abs().max()) > 0
