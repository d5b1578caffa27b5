"""What a pass leaves: added up, and kept on the way."""

from functools import partial
from pathlib import Path

import pytest
import torch

from cryoinfer.errors import InputError
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.workflows import infer as infer_workflow
from cryoinfer.workflows import particle_pass
from cryoinfer.workflows.infer import InferConfig, infer, infer_particles
from cryoinfer.workflows.inferred import Inferred
from cryoinfer.workflows.particle_pass import ParticlePass
from cryoinfer.workflows.trained_encoder import TrainedEncoder

BOX = 36
SET = {"pixel_size_angstrom": 2.8, "max_shift_angstrom": 2.0, "snr_db": 0.0}


@pytest.fixture(scope="module")
def made(simulated):
    return simulated(box=BOX, **SET)


@pytest.fixture(scope="module")
def trained(made, taught) -> TrainedEncoder:
    images = made.particles.images(torch.arange(len(made.particles)))
    # At 0 dB half of the variance is noise, which is white.
    return taught(made, torch.full((BOX // 2 + 1,), float(images.var()) / 2))


def test_parts_add_up_to_the_whole(trained, made, tmp_path: Path) -> None:
    config = InferConfig()
    halves = torch.arange(len(made.particles)) % 2 + 1
    particles = made.particles.with_results(random_subset=halves)
    whole = infer_particles(particles, trained, config, SilentMonitor())
    first, second = (
        infer_particles(particles.select(rows), trained, config, SilentMonitor())
        for rows in torch.arange(len(particles)).split(120)
    )
    state = first.to_state()
    torch.save(state, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    joined = Inferred.of_state(loaded, BOX).joined_with(second)
    assert len(joined) == len(whole)
    assert torch.equal(joined.half, whole.half)
    rotation, expected = (
        one.particles.posterior.mode().pose.rotation for one in (joined, whole)
    )
    near = geodesic_angle(rotation, expected) < 1e-3
    # bfloat16 products may depend on the size of a batch.
    assert float(near.double().mean()) > 0.95
    for one, other in zip(joined.sums.tensors, whole.sums.tensors, strict=True):
        assert float(one.sum()) == pytest.approx(float(other.sum()), rel=0.01)


def test_a_state_gives_back_what_was_inferred_in_single_precision(
    trained, made
) -> None:
    found = infer_particles(made.particles, trained, InferConfig(), SilentMonitor())
    again = Inferred.of_state(found.to_state(), BOX)
    torch.testing.assert_close(again.to_state(), found.to_state(), rtol=0, atol=0)
    # The sums are its own: those of a state are not added to.
    again.joined_with(found)
    assert not torch.equal(again.sums.first.sums, found.sums.first.sums)
    posterior = found.particles.posterior
    for tensor in (
        posterior.covariance,
        posterior.weight,
        posterior.modes.pose.rotation,
    ):
        assert tensor.dtype == torch.float32


def test_states_of_another_kind_are_refused(trained, made) -> None:
    particles = made.particles.select(torch.arange(20))
    state = infer_particles(particles, trained, InferConfig(), SilentMonitor())
    state = state.to_state()
    with pytest.raises(InputError, match="another box"):
        Inferred.of_state(state, BOX + 4)
    of_particles = state["particles"]
    posterior = of_particles["posterior"]
    smaller = posterior | {"covariance": posterior["covariance"][..., :5, :5]}
    without = {name: of_particles[name] for name in of_particles if name != "prepared"}
    fewer = of_particles["outlier_score_nats"][1:]
    for wrong in (
        {"particles": of_particles | {"posterior": smaller}},
        {"particles": of_particles | {"outlier_score_nats": fewer}},
        {"particles": without},
        # As the version before kept it.
        of_particles | {"covariance": posterior["covariance"], "particles": None},
        {"sums": [state["sums"][0], None]},
        {"half": 3},
    ):
        with pytest.raises(InputError, match="another version"):
            Inferred.of_state(state | wrong, BOX)


def test_what_is_inferred_is_a_posterior(trained, made) -> None:
    result = infer(made.particles, trained, InferConfig(), SilentMonitor())
    posterior = result.posterior
    drawn = posterior.sample(3, torch.Generator().manual_seed(1))
    assert drawn.pose.rotation.isfinite().all()
    assert posterior.log_prob(drawn).isfinite().all()


def test_a_resumed_inference_is_bitwise_the_uninterrupted_one(
    trained, simulated, kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Images of a smaller area, so that random noise fills what they lack.
    smaller = simulated(box=BOX - 4, **SET).particles
    config = InferConfig(seed=1)
    few = partial(ParticlePass, batch_size=8)
    monkeypatch.setattr(infer_workflow, "ParticlePass", few)
    monkeypatch.setattr(particle_pass, "KEEP_SECONDS", 0.0)
    complete = infer(smaller, trained, config, SilentMonitor())
    stopped = kept(at=3)
    with pytest.raises(KeyboardInterrupt):
        infer(smaller, trained, config, stopped)
    # Two halves of 100, in batches of 8: three times four of them.
    assert int(stopped.state["done"].sum()) == 96
    last = kept(stopped.state)
    again = infer(smaller, trained, config, last)
    assert bool(last.state["done"].all())
    pose, expected = again.latents.pose, complete.latents.pose
    assert pose.rotation.isfinite().all()
    assert torch.equal(pose.rotation, expected.rotation)
    assert torch.equal(pose.shift_angstrom, expected.shift_angstrom)
    assert torch.equal(again.inferred.covariance, complete.inferred.covariance)
    assert torch.equal(again.outlier_score_nats, complete.outlier_score_nats)
    assert torch.equal(again.reconstruction.half1, complete.reconstruction.half1)
