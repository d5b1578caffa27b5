"""Maps that share their images, from images whose shares are known."""

import pytest
import torch
from tests.scenes import BOX, RADIUS, blob_map

from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import FourierVolume, SliceAccumulator, extract_slices
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.reconstruction.backproject import solve
from cryoinfer.reconstruction.coupled import CoupledSlices, CoupledSums, solve_coupled

IMAGES = 800


def slices_of(maps: list[torch.Tensor], mean: torch.Tensor) -> CoupledSlices:
    """Return noiseless slices of mixtures of maps, of random views."""
    generator = torch.Generator().manual_seed(0)
    rotation = random_rotations(len(mean), generator)
    disc = FourierDisc.of_box(BOX, RADIUS)
    each = torch.stack(
        [
            extract_slices(FourierVolume.from_map(one, RADIUS), rotation, disc)
            for one in maps
        ],
        1,
    )
    values = (mean[..., None].to(each) * each).sum(1)
    ones = torch.ones(values.shape)
    second = mean[:, :, None] * mean[:, None]
    return CoupledSlices(rotation, disc, values, ones, mean, second)


def test_one_map_is_solved_for_as_by_itself() -> None:
    slices = slices_of([blob_map()], torch.ones(IMAGES, 1))
    sums = CoupledSums.empty(1, BOX, RADIUS, 2.0)
    sums.insert(slices, 1.0)
    snr = torch.full((1, RADIUS + 1), 50.0)
    (found,) = solve_coupled(sums, snr, BOX, BOX)
    expected = solve(sums.own[0], snr[0], BOX, BOX)
    # Floors are of whole shells here and go linearly between shells there; and what
    # is divided once more has a floor of a thousandth.
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-3 * scale)


@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_maps_come_back_from_images_of_known_mixtures(spread: float) -> None:
    one = blob_map()
    maps = [one, one.flip(0), one.transpose(0, 1)]
    generator = torch.Generator().manual_seed(1)
    mean = torch.cat(
        [torch.ones(IMAGES, 1), spread * torch.randn(IMAGES, 2, generator=generator)], 1
    )
    sums = CoupledSums.empty(3, BOX, RADIUS, 2.0)
    sums.insert(slices_of(maps, mean), 1.0)
    found = solve_coupled(sums, torch.full((3, RADIUS + 1), 1e3), BOX, BOX)
    for own, true in zip(found, maps, strict=True):
        fsc = fourier_shell_correlation(own, true)
        # Noiseless: what is left is interpolation, and a floor of a thousandth.
        assert float(fsc[1:RADIUS].min()) > 0.99


def test_sums_of_two_halves_are_those_of_all() -> None:
    mean = torch.randn(60, 2, generator=torch.Generator().manual_seed(2))
    slices = slices_of([blob_map(), blob_map().flip(0)], mean)

    def inserted(rows: slice) -> CoupledSums:
        sums = CoupledSums.empty(2, BOX, RADIUS, 2.0)
        part = CoupledSlices(
            slices.rotation[rows],
            slices.disc,
            slices.values[rows],
            slices.weights[rows],
            slices.mean[rows],
            slices.second[rows],
        )
        sums.insert(part, 1.0)
        return sums

    both = inserted(slice(0, 30)).plus(inserted(slice(30, 60)))
    for own, whole in zip(both.tensors, inserted(slice(0, 60)).tensors, strict=True):
        scale = float(whole.abs().max())
        # Single precision, added up in another order.
        torch.testing.assert_close(own, whole, rtol=0, atol=1e-5 * scale)
    assert isinstance(both.own[0], SliceAccumulator)
