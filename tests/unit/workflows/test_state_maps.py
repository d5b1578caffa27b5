"""Maps of states get one frame, whatever the consensus map looks like."""

import pytest
import torch
from torch import Tensor

from cryoinfer.data.simulate import Simulation, SimulationConfig
from cryoinfer.evaluation.volume_alignment import GlobalAlignment, transform_map
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.workflows.state_maps import in_common_frames, turned_onto_likeliest

BOX, PIXEL_SIZE = 24, 4.8


def density_of(name: str) -> Tensor:
    config = SimulationConfig(name, n=1, box=BOX, pixel_size_angstrom=PIXEL_SIZE)
    return Simulation.of(config).density()


def correlation(first: Tensor, second: Tensor) -> float:
    pair = torch.stack((first.flatten(), second.flatten()))
    return float(torch.corrcoef(pair)[0, 1])


@pytest.mark.parametrize(
    "mirrored", [False, pytest.param(True, marks=pytest.mark.slow)]
)
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


@pytest.mark.parametrize(
    "mirrored", [False, pytest.param(True, marks=pytest.mark.slow)]
)
def test_states_in_a_far_frame_are_brought_into_the_nearest(mirrored: bool) -> None:
    opened = density_of("adenylate-kinase-open")
    closed = density_of("adenylate-kinase-closed")
    length = BOX * PIXEL_SIZE
    near = turned_onto_likeliest(closed, (opened,), length)
    rotation = random_rotations(1, torch.Generator().manual_seed(2))[0].double()
    still = torch.zeros(3, dtype=torch.float64)
    frame = GlobalAlignment(rotation, mirrored, still)
    far = transform_map(near, frame, PIXEL_SIZE)
    # Means of clusters, of which each has some particles of the other state.
    maps = (opened, 0.95 * opened + 0.05 * far, far, 0.95 * far + 0.05 * opened)
    placed = in_common_frames(maps, length)
    assert placed is not None
    assert correlation(placed[0], opened) == pytest.approx(1.0)
    # Interpolated twice, and a twentieth of another map in it.
    assert correlation(placed[1], opened) > 0.97
    for one in placed[2:]:
        assert correlation(one, near) > 0.96


@pytest.mark.slow
def test_states_in_the_nearest_frame_stay() -> None:
    opened = density_of("adenylate-kinase-open")
    near = turned_onto_likeliest(
        density_of("adenylate-kinase-closed"), (opened,), BOX * PIXEL_SIZE
    )
    maps = (opened, 0.9 * opened + 0.1 * near, 0.1 * opened + 0.9 * near, near)
    assert in_common_frames(maps, BOX * PIXEL_SIZE) is None
