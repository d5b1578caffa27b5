"""Centres of clusters of amplitudes."""

import torch

from cryoinfer.evaluation.clusters import cluster_centres


def test_centres_are_those_of_the_groups_largest_first() -> None:
    generator = torch.Generator().manual_seed(0)
    middle = torch.tensor([-8.0, -4.0, 0.0, 4.0, 8.0], dtype=torch.float64)
    count = torch.tensor([50, 40, 30, 20, 10])
    noise = torch.randn(150, 1, generator=generator, dtype=torch.float64)
    points = middle.repeat_interleave(count)[:, None] + 0.01 * noise
    # Means of at least ten points of a spread of 0.01.
    torch.testing.assert_close(
        cluster_centres(points), middle[:, None], rtol=0, atol=0.02
    )


def test_of_fewer_particles_there_are_fewer_centres() -> None:
    points = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    found = cluster_centres(points)
    assert sorted(found.tolist()) == sorted(points.tolist())
