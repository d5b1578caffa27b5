"""Hot pixels, ramps and units that differ; and what is left alone."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from cryoinfer.data.check import check
from cryoinfer.data.image_repair import levels_of, repaired
from cryoinfer.data.particles import Particles
from cryoinfer.io.mrc import StackWriter

N, BOX = 40, 48


def noise(box: int = BOX, n: int = N) -> Tensor:
    return torch.randn(n, box, box, generator=torch.Generator().manual_seed(0))


def blob(sd: float, box: int = BOX) -> Tensor:
    axis = torch.arange(box) - box // 2 + 0.0
    line = torch.exp(-(axis**2) / (2 * sd**2))
    return line[:, None] * line


@pytest.mark.parametrize(
    "images",
    [
        noise(),
        noise(47),
        10 * noise() + 30 * blob(6.0),
        # Without noise, as sharp as pixels can show, and far from the middle.
        torch.stack([blob(1.0), blob(5.0), blob(4.0).roll((9, -12), (0, 1))]),
        torch.zeros(2, 16, 16),
        torch.ones(2, 16, 16),
    ],
)
def test_images_as_most_are_stay_to_the_last_bit(images: Tensor) -> None:
    found = repaired(images, levels_of(images))
    assert found.images is images
    assert not found.hot.any()
    assert not found.tilted.any()
    assert bool((found.factor == 1).all())


def test_a_pixel_that_is_no_number_stays(tmp_path: Path) -> None:
    images = noise()
    images[3, 5, 5], images[4, 6, 6] = torch.nan, torch.inf
    found = repaired(images, levels_of(noise()))
    assert found.images[3].isnan().sum() == 1
    assert torch.equal(found.images[5:], images[5:])


@pytest.mark.parametrize("value", [9.0, -30.0, 1e4, 1e8])
def test_hot_pixels_become_the_mean_of_their_neighbours(value: float) -> None:
    images = noise()
    clean = images.clone()
    images[7, 10, 20] = value
    images[7, 0, 0] = images[7, 1, 0] = 5 * value  # two side by side, in the corner
    found = repaired(images)
    assert found.hot.tolist() == [0] * 7 + [3] + [0] * (N - 8)
    around = clean[7, 9:12, 19:22].sum() - clean[7, 10, 20]
    # Through single precision.
    assert float(found.images[7, 10, 20]) == pytest.approx(float(around) / 8, abs=1e-6)
    assert float(found.images[7].abs().max()) < 5
    changed = torch.nonzero(found.images != clean)
    assert changed.tolist() == [[7, 0, 0], [7, 1, 0], [7, 10, 20]]


def test_a_ramp_is_what_is_subtracted() -> None:
    clean = noise() + 2 * blob(6.0)
    x = torch.arange(BOX) - BOX // 2
    images = clean.clone()
    images[5] += 0.02 * x
    images[6] += -0.02 * x[:, None] + 0.015 * x + 20
    found = repaired(images)
    assert torch.nonzero(found.tilted).flatten().tolist() == [5, 6]
    # A slope over the box has an error of sqrt(12 / 1300 pixels around) = 0.1, and a
    # mean one of 0.03: within the box the planes differ by less than 3 sd of both.
    assert float((found.images - clean).abs().max()) < 0.25


@pytest.mark.parametrize("factor", [0.02, 0.5, 2.5, 1e3])
def test_other_units_become_the_usual_ones(factor: float) -> None:
    clean = noise() + blob(6.0)
    images = clean.clone()
    images[11] = factor * images[11]
    found = repaired(images, levels_of(clean).usual(N))
    assert torch.nonzero(found.factor != 1).flatten().tolist() == [11]
    # The deviation of 1,300 pixels is known to 1 / sqrt(2 n) = 2 %, that is 3 sd.
    torch.testing.assert_close(found.images[11], clean[11], rtol=0.06, atol=1e-6)


def test_the_edge_of_a_film_is_no_ramp() -> None:
    # As strong as the noise on one side: without its ramp it would be like a particle.
    images = noise()
    images[:, :, : BOX // 3] += 2
    assert repaired(images).images is images


def test_a_neighbour_is_no_ramp() -> None:
    # As bright as the noise in the middle of the rim, 20 pixels from the centre.
    images = noise() + blob(4.0).roll((0, 20), (0, 1))
    assert repaired(images).images is images


def test_strong_images_keep_their_units_where_no_noise_is_seen() -> None:
    images = torch.stack([blob(5.0)] * 30)
    images[4] *= 3
    assert repaired(images, levels_of(images).usual(30)).images is images


@pytest.fixture(name="stack")
def stack_fixture(tmp_path: Path) -> Path:
    images = noise() + blob(6.0)
    images[2, 4, 4] = 100.0
    images[3] += 0.02 * torch.arange(BOX)
    images[4] *= 4
    with StackWriter(tmp_path / "a.mrcs", N, BOX, 2.0) as writer:
        writer.write(images)
    return tmp_path / "a.mrcs"


def test_check_says_what_is_repaired(stack: Path) -> None:
    found = {one.message: one.severity for one in check(stack)}
    for what in (
        "1 of 40 images (rows 3) have hot pixels, 1 in all",
        "1 of 40 images (rows 4) have a background that slopes",
        "1 of 40 images (rows 5) are in other units than most",
    ):
        (severity,) = (found[text] for text in found if text.startswith(what))
        assert severity == "note"


def test_particles_are_read_repaired_whoever_asks_first(stack: Path) -> None:
    particles, again = Particles.load(stack), Particles.load(stack)
    every = particles.images(torch.arange(N))
    assert torch.equal(again.images(torch.tensor([4, 2]))[0], every[4])
    assert float(every.abs().max()) < 6
    assert not torch.equal(particles.stored_images(torch.arange(N)), every)
    clean = torch.tensor([i for i in range(N) if i not in (2, 3, 4)])
    assert torch.equal(particles.stored_images(clean), every[clean])
    # Of one image alone nobody knows what is usual.
    one = particles.select(torch.tensor([4]))
    assert float(one.images(torch.tensor([0])).std()) > 3


def test_images_read_again_are_the_same_bits(stack: Path) -> None:
    """Of a batch that is read again only those that were repaired are looked at."""
    particles = Particles.load(stack)
    rows = torch.arange(N)
    first = particles.repaired_images(rows)
    looked_at = particles.usual_levels.doubtful(rows, N)
    assert looked_at.tolist() == [2, 3, 4]
    again = particles.repaired_images(rows)
    for name in ("images", "hot", "tilted", "factor"):
        assert torch.equal(getattr(again, name), getattr(first, name)), name
