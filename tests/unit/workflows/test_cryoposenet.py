"""cryoPoseNet on particles: what it names, how sure it is, and what it refuses."""

from dataclasses import asdict, replace

import pytest
import torch
from elsewhere import DEVICE, Elsewhere, is_elsewhere
from torch.utils._pytree import tree_leaves

from cryoinfer.errors import InputError
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference.local_refinement import refine_locally
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.published_training import PublishedConfig
from cryoinfer.inference.quadrature_grid import departure
from cryoinfer.inference.whitening import whiten
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.operations import plain_only
from cryoinfer.records import Latents, Pose
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.cryoposenet import (
    CryoPoseNetConfig,
    cryoposenet,
    require_modelled,
)
from cryoinfer.workflows.problem import define_problem

NOTHING_DB = -80.0
LONG = PublishedConfig(steps=150)


@pytest.fixture(scope="module")
def known(simulated) -> RunResult:
    config = CryoPoseNetConfig(head="known", training=LONG)
    return cryoposenet(simulated().with_poses(), config)


def test_known_poses_give_the_true_map(simulated, known: RunResult) -> None:
    made, maps = simulated(), known.reconstruction
    found = known.latents.pose
    # Of single precision, which encoders name poses in.
    torch.testing.assert_close(
        found.rotation, made.true_pose.rotation, rtol=0, atol=1e-6
    )
    assert not found.shift_angstrom.any()
    curve = fourier_shell_correlation(maps.density * maps.mask, made.density)
    # The last shell is cut by the disc.
    assert curve[1:10].min() > 0.95
    # Nyquist.
    assert maps.resolution_angstrom < 2 * 3.8 * 1.15
    assert maps.evidence is not None
    assert maps.evidence.is_structure
    # At 10 dB no other pose is as good.
    assert maps.evidence.astray_share == pytest.approx(0.0, abs=0.02)
    assert known.random_subset.unique().tolist() == [1, 2]


def test_widths_are_how_far_tops_lie_from_true_poses(simulated, known) -> None:
    made = simulated()
    problem = define_problem(
        made.particles, "C1", None, 0.0, 0.0, torch.Generator().manual_seed(0)
    )
    batch = made.particles.batch(torch.arange(200))
    images = whiten(batch, problem.grid, 11, known.noise_power[0])
    projector = MapProjector(FourierVolume.from_map(made.density, 11))
    true = Latents.rigid(made.true_pose, torch.zeros(200).double())
    top = refine_locally(projector, images, true, problem.prior, 10, 0.1).latents
    turn = departure(true, top)[:, :3]
    covariance = known.inferred.covariance[:, 0]
    assert not covariance[:, 3:].any()
    inverse = torch.linalg.inv(covariance[:, :3, :3])
    square = torch.einsum("ni, nij, nj -> n", turn, inverse, turn) / 3
    # The mean of 600 squares, with an sd of sqrt(2 / 600) = 0.06; that of widths by the
    # trained map, whose noise nothing filters, is 2.
    assert float(square.mean()) == pytest.approx(1.0, abs=0.25)


def test_poses_that_are_learned_by_themselves_are_told_as_astray(simulated) -> None:
    config = CryoPoseNetConfig(head="free", training=LONG)
    evidence = cryoposenet(simulated().particles, config).reconstruction.evidence
    assert evidence is not None
    # Their map explains more than half of the images' power, from wrong sides.
    assert evidence.is_seen
    assert evidence.astray_share > 0.7
    assert not evidence.is_structure


def test_noise_has_no_structure(simulated) -> None:
    made = simulated(120, box=16, pixel_size_angstrom=6.0, snr_db=NOTHING_DB)
    training = PublishedConfig(steps=50)
    config = CryoPoseNetConfig(head="free", training=training)
    evidence = cryoposenet(made.particles, config).reconstruction.evidence
    assert evidence is not None
    assert not evidence.is_seen
    assert not evidence.is_structure


def test_a_run_goes_on_where_it_was_interrupted(simulated, kept) -> None:
    particles = simulated().particles.select(torch.arange(100))
    training = PublishedConfig(steps=4, batch=16, check_every=2)
    config = CryoPoseNetConfig(head="quaternion", training=training, seed=2)
    whole = cryoposenet(particles, config, SilentMonitor())
    monitor = kept(at=1)
    with pytest.raises(KeyboardInterrupt):
        cryoposenet(particles, config, monitor)
    assert monitor.state is not None
    assert monitor.state["step"] == 2
    resumed = cryoposenet(particles, config, kept(monitor.state))
    # The bits of a run that nobody has interrupted.
    rotation = whole.latents.pose.rotation
    assert torch.equal(resumed.latents.pose.rotation, rotation)
    assert torch.equal(resumed.reconstruction.density, whole.reconstruction.density)
    assert torch.equal(resumed.inferred.covariance, whole.inferred.covariance)
    assert resumed.reconstruction.evidence == whole.reconstruction.evidence


# --- What is refused ----------------------------------------------------------------


def test_images_of_several_sizes_are_refused(simulated) -> None:
    made = simulated(optics_groups=2)
    with pytest.raises(InputError, match=r"one box and pixel size.* optics group 2"):
        cryoposenet(made.particles)


def test_boxes_that_no_encoder_takes_are_refused(simulated) -> None:
    made = simulated(100, box=20)
    with pytest.raises(InputError, match="multiple of 8 pixels, found 20"):
        cryoposenet(made.particles)
    require_modelled(made.particles, "free")


def test_poses_that_are_not_there_are_not_known(simulated) -> None:
    config = CryoPoseNetConfig(head="known")
    with pytest.raises(InputError, match="The particles have no poses"):
        cryoposenet(simulated().particles, config)


@pytest.mark.parametrize("head", ["s2s2", "known", "free"])
def test_particles_off_centre_are_refused(simulated, head) -> None:
    made = simulated()
    shift = made.true_pose.shift_angstrom.clone()
    shift[7, 1] = 0.5 * 3.8  # as far as extraction at whole pixels leaves them
    particles = made.particles.with_results(
        pose=replace(made.true_pose, shift_angstrom=shift)
    )
    require_modelled(particles, head)
    shift[7, 1] = -5.7
    pose = Pose(made.true_pose.rotation, shift)
    particles = made.particles.with_results(pose=pose)
    with pytest.raises(InputError, match=r"shifts of up to 1\.5 pixels"):
        cryoposenet(particles, CryoPoseNetConfig(head=head))


def test_few_particles_are_refused(simulated) -> None:
    few = simulated().particles.select(torch.arange(99))
    with pytest.raises(InputError, match="at least 100 particles, found 99"):
        cryoposenet(few)


# --- Other devices ------------------------------------------------------------------


def test_what_follows_a_training_runs_on_the_device(simulated, monkeypatch) -> None:
    made = simulated(100)
    # The played device takes no nn.Module, which the trained map is.
    monkeypatch.setattr(
        "cryoinfer.workflows.cryoposenet._learned_rotations",
        lambda *_: made.true_pose.rotation,
    )
    config = CryoPoseNetConfig(head="known")
    with plain_only():
        here = cryoposenet(made.with_poses(), config)
    with Elsewhere():
        there = cryoposenet(made.with_poses(), config, device=DEVICE)
        assert not any(map(is_elsewhere, tree_leaves(asdict(there))))
    # The same sums, but for the library of the Fourier transforms: rounding.
    for name in ("density", "mask"):
        one, other = (getattr(run.reconstruction, name) for run in (here, there))
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(one.max()))
    torch.testing.assert_close(
        here.inferred.covariance, there.inferred.covariance, rtol=1e-3, atol=1e-6
    )
    assert there.reconstruction.evidence is not None
    assert there.reconstruction.evidence.is_structure


@pytest.mark.gpu
def test_a_gpu_finds_the_map_of_known_poses(simulated, known) -> None:
    config = CryoPoseNetConfig(head="known", training=LONG)
    there = cryoposenet(simulated().with_poses(), config, device="cuda")
    # The training leaves the poses as they are; maps are the CPU's but for rounding.
    curve = fourier_shell_correlation(
        there.reconstruction.density, known.reconstruction.density
    )
    assert curve[1:10].min() > 0.999
    assert there.reconstruction.evidence.is_structure
