"""cryoPoseNet as published: what poses and map learn together, and how it goes on."""

import io
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from three_blobs import BOX, blobs, particles, seeded

from cryoinfer.errors import InputError
from cryoinfer.inference.published_encoder import (
    FreePoses,
    KnownPoses,
    PoseChoice,
    PoseSource,
    PublishedEncoder,
    pose_source,
)
from cryoinfer.inference.published_training import (
    PublishedConfig,
    PublishedRun,
    train_published,
)
from cryoinfer.interfaces import Monitor, SilentMonitor
from cryoinfer.records import ParticleBatch


def learn(
    images: ParticleBatch, poses: PoseSource, config: PublishedConfig, seed: int = 0
) -> PublishedRun:
    return train_published(images, poses, config, seeded(seed), SilentMonitor())


@pytest.mark.parametrize(
    ("with_ctf", "steps", "likeness", "left"),
    # Voxels fluctuate by the learning rate. With a CTF the lowest frequencies, a
    # tenth of whose contrast is left, come last.
    [(False, 80, 0.97, 0.02), (True, 120, 0.9, 0.15)],
)
def test_known_poses_recover_the_map(
    with_ctf: bool, steps: int, likeness: float, left: float
) -> None:
    images, rotation = particles(200, with_ctf)
    run = learn(images, KnownPoses(rotation), PublishedConfig(steps=steps))
    truth, found = blobs(), run.model.density
    pair = torch.stack([truth.flatten(), found.flatten()]).double()
    assert float(torch.corrcoef(pair)[0, 1]) > likeness
    assert run.losses.shape == (steps,)
    assert float(run.losses[-10:].mean()) < left * float(run.losses[0])
    if not with_ctf:
        # In the units of the images: the density's own.
        assert float(found.sum()) == pytest.approx(float(truth.sum()), rel=0.02)


@pytest.mark.parametrize("choice", ["s2s2", "free"])
def test_seeds_reproduce(choice: PoseChoice) -> None:
    images, _ = particles(40)
    config = PublishedConfig(steps=4, batch=16)

    def once(seed: int) -> PublishedRun:
        poses = pose_source(choice, 40, BOX, None, seeded(seed))
        return learn(images, poses, config, seed)

    before = torch.random.get_rng_state()
    first, second, other = once(0), once(0), once(1)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.losses, second.losses)
    assert torch.equal(first.model.density, second.model.density)
    assert not torch.equal(first.losses, other.losses)


def test_the_scale_of_the_images_does_not_matter() -> None:
    images, rotation = particles(40)
    config = PublishedConfig(steps=5)
    plain = learn(images, KnownPoses(rotation), config)
    loud = learn(
        replace(images, images=64 * images.images), KnownPoses(rotation), config
    )
    # A power of two: only exponents change.
    torch.testing.assert_close(loud.losses, plain.losses)
    torch.testing.assert_close(loud.model.density, 64 * plain.model.density)


def test_poses_of_images_that_are_seen_move() -> None:
    images, _ = particles(40)
    poses = FreePoses(40, seeded(15))
    before = poses.numbers.detach().clone()
    learn(images, poses, PublishedConfig(steps=1, batch=16))
    moved = (poses.numbers != before).any(1)
    assert int(moved.sum()) == 16


def test_an_encoder_learns_to_name_poses() -> None:
    images, _ = particles(64)
    encoder = PublishedEncoder(BOX, "s2s2", seeded(16))
    run = learn(images, encoder, PublishedConfig(steps=25))
    untrained = float(run.losses[0])
    assert float(run.losses[-5:].mean()) < 0.5 * untrained
    found = run.model.named_rotations(images)
    assert found.shape == (64, 3, 3)
    # Of single precision, in sums whose order depends on how many images there are.
    few = run.model.named_rotations(images[60:])
    torch.testing.assert_close(found[60:], few, rtol=0, atol=1e-4)


class Kept(SilentMonitor):
    """Keeps a checkpoint in a file's bytes, and stops at the first."""

    state: io.BytesIO | None = None

    def save_checkpoint(self, state: Mapping[str, object]) -> None:
        self.state = io.BytesIO()
        torch.save(state, self.state)
        raise KeyboardInterrupt


@pytest.mark.parametrize("choice", ["s2s2", "free", "known"])
def test_a_training_that_was_interrupted_ends_as_if_it_had_not_been(
    choice: PoseChoice,
) -> None:
    images, rotation = particles(40)
    # Two batches an epoch: the third step is amid one.
    config = PublishedConfig(steps=6, batch=16, check_every=3)

    def once(monitor: Monitor, seed: int = 0) -> PublishedRun:
        poses = pose_source(choice, 40, BOX, rotation, seeded(seed))
        return train_published(images, poses, config, seeded(seed), monitor)

    whole, kept = once(SilentMonitor()), Kept()
    with pytest.raises(KeyboardInterrupt):
        once(kept)
    assert kept.state is not None
    kept.state.seek(0)
    saved = torch.load(kept.state, weights_only=True)
    assert saved["step"] == 3
    resumed = SilentMonitor()
    resumed.load_checkpoint = lambda: saved  # type: ignore[method-assign]
    # All that matters is in the state: not even the seed does.
    again = once(resumed, seed=1)
    assert torch.equal(again.losses, whole.losses)
    assert torch.equal(again.model.density, whole.model.density)
    assert torch.equal(
        again.model.named_rotations(images), whole.model.named_rotations(images)
    )
    del saved["order"]
    with pytest.raises(InputError, match="another version"):
        once(resumed)


def test_every_step_is_watched() -> None:
    images, rotation = particles(40)
    seen: list[int] = []
    train_published(
        images,
        KnownPoses(rotation),
        PublishedConfig(steps=3),
        seeded(),
        SilentMonitor(),
        lambda step, model: seen.append(step),
    )
    assert seen == [1, 2, 3]


def test_bad_images_and_few_are_refused() -> None:
    images, rotation = particles(40)
    with pytest.raises(ValueError, match="do not fill a batch of 64"):
        learn(images, KnownPoses(rotation), PublishedConfig(batch=64))
    images.images[3, 0, 0] = torch.nan
    with pytest.raises(InputError, match="particle 4"):
        learn(images, KnownPoses(rotation), PublishedConfig())


@pytest.mark.gpu
def test_a_gpu_learns_the_same() -> None:
    images, rotation = particles(64)
    config = PublishedConfig(steps=20)
    host = learn(images, KnownPoses(rotation), config)
    device = learn(images.to("cuda"), KnownPoses(rotation), config)
    # Sums in another order, twenty steps of it.
    torch.testing.assert_close(device.losses, host.losses, rtol=1e-3, atol=1e-5)
