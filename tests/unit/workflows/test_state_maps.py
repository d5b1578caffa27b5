"""Maps of one state get one frame, whatever the consensus map looks like."""

import pytest
import torch
from torch import Tensor

from cryoinfer.data.simulate import Simulation, SimulationConfig
from cryoinfer.evaluation.volume_alignment import GlobalAlignment, transform_map
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.workflows.state_maps import turned_onto_likeliest

BOX, PIXEL_SIZE = 24, 4.8


def density_of(name: str) -> Tensor:
    config = SimulationConfig(name, n=1, box=BOX, pixel_size_angstrom=PIXEL_SIZE)
    return Simulation.of(config).density()


def correlation(first: Tensor, second: Tensor) -> float:
    pair = torch.stack((first.flatten(), second.flatten()))
    return float(torch.corrcoef(pair)[0, 1])


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_second_map_of_a_state_is_turned_onto_the_first(mirrored: bool) -> None:
    opened = density_of("adenylate-kinase-open")
    closed = density_of("adenylate-kinase-closed")
    length = BOX * PIXEL_SIZE
    # The first map of the closed state lies otherwise than the open one would have it.
    rotation = random_rotations(2, torch.Generator().manual_seed(1)).double()
    still = torch.zeros(3, dtype=torch.float64)
    first, second = (
        transform_map(closed, GlobalAlignment(one, hand, still), PIXEL_SIZE)
        for one, hand in zip(rotation, (False, mirrored), strict=True)
    )
    placed = turned_onto_likeliest(second, (opened, first), length)
    # Interpolated twice, on few voxels.
    assert correlation(placed, first) > 0.97
    alone = turned_onto_likeliest(second, (opened,), length)
    assert correlation(alone, first) < 0.9
    # As near as the two states come.
    assert correlation(alone, opened) > 0.6
