"""What a pass leaves: added up, and kept on the way."""

from pathlib import Path

import pytest
import torch

from cryoinfer.errors import InputError
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.workflows import infer as infer_workflow
from cryoinfer.workflows import problem
from cryoinfer.workflows.infer import InferConfig, infer, infer_particles
from cryoinfer.workflows.inferred import Inferred
from cryoinfer.workflows.train import TrainedEncoder

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
    joined = Inferred.of_state(loaded, BOX).add(second)
    assert len(joined) == len(whole)
    assert torch.equal(joined.half, whole.half)
    near = geodesic_angle(joined.rotation[:, 0], whole.rotation[:, 0]) < 1e-3
    # bfloat16 products may depend on the size of a batch.
    assert float(near.double().mean()) > 0.95
    with pytest.raises(InputError, match="another box"):
        Inferred.of_state(loaded, BOX + 4)
    double = {
        name: value.double() if torch.is_floating_point(value) else value
        for name, value in loaded.items()
        if isinstance(value, torch.Tensor)
    }
    again = Inferred.of_state(loaded | double, BOX)
    assert torch.equal(again.covariance, first.covariance)
    assert again.covariance.dtype == again.entropy_nats.dtype == torch.float32
    for wrong in (
        {"covariance": loaded["covariance"][:, :5, :5]},
        {"outlier_score_nats": loaded["outlier_score_nats"][1:]},
        {"sums": [loaded["sums"][0], None]},
        {"half": 3},
    ):
        with pytest.raises(InputError, match="another version"):
            Inferred.of_state(loaded | wrong, BOX)
    del loaded["prepared"]
    with pytest.raises(InputError, match="another version"):
        Inferred.of_state(loaded, BOX)


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
    monkeypatch.setattr(problem, "CHUNK", 25)
    monkeypatch.setattr(infer_workflow, "_KEEP_SECONDS", 0.0)
    complete = infer(smaller, trained, config, SilentMonitor())
    stopped = kept(at=3)
    with pytest.raises(KeyboardInterrupt):
        infer(smaller, trained, config, stopped)
    assert int(stopped.state["taken"].sum()) == 3 * 25
    last = kept(stopped.state)
    again = infer(smaller, trained, config, last)
    assert bool(last.state["taken"].all())
    pose, expected = again.latents.pose, complete.latents.pose
    assert pose.rotation.isfinite().all()
    assert torch.equal(pose.rotation, expected.rotation)
    assert torch.equal(pose.shift_angstrom, expected.shift_angstrom)
    assert torch.equal(again.inferred.covariance, complete.inferred.covariance)
    assert torch.equal(again.outlier_score_nats, complete.outlier_score_nats)
    assert torch.equal(again.reconstruction.half1, complete.reconstruction.half1)
