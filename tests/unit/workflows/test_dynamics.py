"""Motions from particles: known amplitudes come back, and what cannot be is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cryoinfer.data.examples import named_atoms
from cryoinfer.data.motions import Motion
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import Simulation, SimulationConfig, simulate
from cryoinfer.errors import InputError
from cryoinfer.geometry.rotation_volume import IN_PLANE
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.inference.pose_network import PoseNetworkConfig
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.inference.variational import VariationalConfig
from cryoinfer.inference.whitening import ReferenceGrid
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.records import ParticleBatch
from cryoinfer.results.calibration_trial import ENCODER, VARIATIONAL
from cryoinfer.workflows import motion_calibration
from cryoinfer.workflows.dynamics import Dynamics, infer_dynamics
from cryoinfer.workflows.motion_problem import DynamicsConfig, MotionProblem
from cryoinfer.workflows.noise_and_scale import initial_estimate

SETTINGS = SimulationConfig(
    n=60,
    box=32,
    pixel_size_angstrom=4.0,
    snr_db=5.0,
    views="one",
    motions=(Motion(1, "normal", 0.0, 2.0),),
)
CONFIG = DynamicsConfig(
    poses="in-plane",
    shift_sd_angstrom=0.0,
    network=PoseNetworkConfig(side=16, components=2, width=8),
    training=TrainingConfig(steps=40, check_every=20, warm_up=5),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("moving") / "set"
    simulate(SETTINGS, path, SilentMonitor())
    return path


@pytest.fixture(scope="module")
def model() -> MovingModel:
    return MovingModel.of(named_atoms(SETTINGS.structure), 1, 2.0)


@pytest.fixture(scope="module")
def truth() -> torch.Tensor:
    conformation = Simulation.of(SETTINGS).latents.conformation
    return conformation[:, 0]


@pytest.fixture(scope="module")
def found(folder: Path, model: MovingModel) -> Dynamics:
    particles = Particles.load(folder / "particles.star")
    return infer_dynamics(particles, model, CONFIG, SilentMonitor())


def test_known_amplitudes_come_back(found: Dynamics, truth: torch.Tensor) -> None:
    motions = found.motions
    error = motions.mean[:, 0] - truth
    # What is known to 0.2 A of 2 A explains 99 %; an encoder of 40 steps may lead
    # a refinement astray once.
    assert 1 - float(error.square().mean() / truth.var()) > 0.95
    # Of 60 Gaussians, three standard errors of the median of |error| / sd.
    ratio = (error.abs() / motions.sd[:, 0]).median() / 0.6745
    assert 0.6 < float(ratio) < 1.5
    assert bool((motions.low < motions.mean).all())
    assert bool((motions.mean < motions.high).all())


def test_the_gain_and_the_noise_are_found(found: Dynamics) -> None:
    # 60 images of 700 coefficients tell both to a percent or two.
    assert found.inference.measured.gain == pytest.approx(1.0, abs=0.03)
    true = Simulation.of(SETTINGS).model.noise
    spectrum = found.inference.measured.noise_power[0][4:15] / true.spectrum[4:15]
    assert float(spectrum.mean()) == pytest.approx(1.0, abs=0.03)
    assert found.inference.measured.unexplained is not None
    assert found.inference.measured.unexplained < 0.05


def test_images_in_other_units_have_another_gain(
    folder: Path, model: MovingModel
) -> None:
    particles = Particles.load(folder / "particles.star")
    way = _grid(particles)
    before = initial_estimate(particles, model, *way, torch.Generator().manual_seed(0))

    class Brighter:
        """The same particles, seven times as bright."""

        optics, boxes = particles.optics, particles.boxes

        def batch(self, rows: torch.Tensor) -> object:
            batch = particles.batch(rows)
            return replace(batch, images=7 * batch.images)

    brighter: Particles = Brighter()  # type: ignore[assignment]
    after = initial_estimate(brighter, model, *way, torch.Generator().manual_seed(0))
    # Exact but for the rounding of single precision.
    assert after.gain == pytest.approx(7 * before.gain, rel=1e-4)


def _grid(particles: Particles) -> tuple[ReferenceGrid, PosePrior]:
    grid = ReferenceGrid(particles.box, particles.pixel_size_angstrom)
    return grid, PosePrior(0.0, 0.0, (2.0,), IN_PLANE)


def test_given_poses_need_no_encoder(
    folder: Path, model: MovingModel, truth: torch.Tensor
) -> None:
    particles = Particles.load(folder / "truth.star")
    config = replace(CONFIG, poses="given", shift_sd_angstrom=1.0)
    found = infer_dynamics(particles, model, config, SilentMonitor())
    assert found.verdict == ""
    assert found.trials == {}
    error = found.motions.mean[:, 0] - truth
    assert 1 - float(error.square().mean() / truth.var()) > 0.95
    assert particles.pose is not None
    angle = geodesic_angle(found.motions.rotation, particles.pose.rotation)
    # The view is inferred as well: a few degrees at 8 A and 5 dB.
    assert float(torch.rad2deg(angle).median()) < 4.0


def test_posteriors_are_fitted_by_variational_inference(
    folder: Path,
    model: MovingModel,
    truth: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A trial of fewer images than a user's.
    monkeypatch.setattr(motion_calibration, "_FEWEST_TRIED", 20)
    particles = Particles.load(folder / "particles.star").select(torch.arange(20))
    config = replace(
        CONFIG, inference="variational", variational=VariationalConfig(steps=10)
    )
    found = infer_dynamics(particles, model, config, SilentMonitor())
    assert set(found.trials) == {ENCODER, VARIATIONAL}
    assert torch.equal(found.inference.covariance_inflation, torch.ones(7).double())
    motions = found.motions
    error = motions.mean[:, 0] - truth[:20]
    # As of a refinement: an encoder of 40 steps may lead one of twenty astray.
    assert float(error.abs().median()) < 0.3
    # Of 20 Gaussians, three standard errors of the median of |error| / sd.
    ratio = (error.abs() / motions.sd[:, 0]).median() / 0.6745
    assert 0.4 < float(ratio) < 1.9


def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    folder: Path, model: MovingModel, found: Dynamics, kept: Callable[..., Any]
) -> None:
    particles = Particles.load(folder / "particles.star")
    stopped = kept(at=1)
    with pytest.raises(KeyboardInterrupt):
        infer_dynamics(particles, model, CONFIG, stopped)
    again = infer_dynamics(particles, model, CONFIG, kept(stopped.state))
    torch.testing.assert_close(again.motions.mean, found.motions.mean)


@pytest.mark.parametrize(
    ("box", "pixel_size_angstrom", "message"),
    [
        (16, 4.0, "the structure reaches .* larger box"),
        (32, 40.0, "pixels or more across it. Check the pixel size"),
    ],
)
def test_images_that_do_not_go_with_the_structure_are_refused(
    model: MovingModel, box: int, pixel_size_angstrom: float, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        model.require_imaged(box, pixel_size_angstrom)


def test_particles_of_several_pixel_sizes_are_inferred_together(
    model: MovingModel, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, optics_groups=2)
    folder = tmp_path / "two"
    simulate(settings, folder, SilentMonitor())
    particles = Particles.load(folder / "truth.star")
    sizes = particles.optics.pixel_size_angstrom
    assert sizes.unique().tolist() == pytest.approx([4.0, 4.4])
    config = replace(CONFIG, poses="given", shift_sd_angstrom=1.0)
    found = infer_dynamics(particles, model, config, SilentMonitor())
    assert bool(found.motions.known.all())
    truth = Simulation.of(settings).latents.conformation[:, 0]
    for group in (0, 1):
        rows = particles.optics.group == group
        error = found.motions.mean[rows, 0] - truth[rows]
        # As of one pixel size; the larger pixels end at 8.8 instead of 8 A.
        assert 1 - float(error.square().mean() / truth.var()) > 0.9
    measured = found.inference.measured
    # 60 images tell the gain to a percent or two, those of the other group the same.
    assert measured.gain == pytest.approx(1.0, abs=0.05)
    assert found.reconstruction.density.shape == (32, 32, 32)


def test_a_symmetry_that_the_model_has_not_is_refused(
    folder: Path, model: MovingModel
) -> None:
    particles = Particles.load(folder / "particles.star")
    with pytest.raises(InputError, match="point group C2"):
        MotionProblem.of(particles, model, replace(CONFIG, symmetry="c2"))


def test_half_maps_of_what_was_found_agree(found: Dynamics) -> None:
    made = found.reconstruction
    # 30 images each, of one view: the planes that they show, to 8 A.
    assert made.half1.isfinite().all()
    assert not torch.equal(made.half1, made.half2)
    assert float(made.fsc_unmasked[2:5].min()) > 0.5


@pytest.mark.parametrize("bright", [1e9, 1e25, 3e37])
def test_images_that_cannot_be_read_spoil_no_other(
    folder: Path, model: MovingModel, bright: float
) -> None:
    particles = Particles.load(folder / "particles.star")

    class Spoiled:
        """The same particles: one has a NaN, and one is far too bright."""

        optics, boxes = particles.optics, particles.boxes

        def batch(self, rows: torch.Tensor) -> ParticleBatch:
            batch = particles.batch(rows)
            images = batch.images.clone()
            images[rows == 3, 5, 5] = torch.nan
            images[rows == 7] *= bright / images.nan_to_num().abs().amax()
            return replace(batch, images=images)

    spoiled: Particles = Spoiled()  # type: ignore[assignment]
    way = _grid(particles)
    before = initial_estimate(particles, model, *way, torch.Generator().manual_seed(0))
    after = initial_estimate(spoiled, model, *way, torch.Generator().manual_seed(0))
    assert set(range(60)) - set(after.rows[0].tolist()) == {3, 7}
    # Two images of 60 fewer: their share of the power.
    assert after.gain == pytest.approx(before.gain, rel=0.05)
    assert after.noise_power[0] == pytest.approx(before.noise_power[0], rel=0.2)
    problem = MotionProblem.of(particles, model, CONFIG)
    source = problem.images(after, problem.last_radius)
    seen = source.prepare(spoiled.batch(torch.arange(60)))
    assert seen is not None
    # Ten pixels in a thousand of 1e9 are within single precision, as for `infer`.
    left_out = {3} if bright < 1e10 else {3, 7}
    assert set(range(60)) - set(seen.batch.index.tolist()) == left_out
    assert len(seen.images) == len(seen.batch)
    assert source.prepare(spoiled.batch(torch.tensor([3]))) is None


def test_poses_are_asked_for_where_they_are_to_be_given(
    folder: Path, model: MovingModel
) -> None:
    particles = Particles.load(folder / "particles.star")
    config = replace(CONFIG, poses="given")
    with pytest.raises(InputError, match="found none"):
        infer_dynamics(particles, model, config, SilentMonitor())
