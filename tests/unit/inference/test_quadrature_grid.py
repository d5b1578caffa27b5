"""Points, steps and shares of lattices about modes."""

import torch

from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.quadrature_grid import (
    Ellipsoid,
    ball,
    departure,
    log_share,
    moved,
)
from cryoinfer.records import Latents, Pose

DIMS = [0, 1, 2, 5, 3, 4]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def centre(seed: int = 1) -> Latents:
    shift = torch.randn(2, generator=seeded(seed), dtype=torch.float64)
    rotation = random_rotations(1, seeded(seed))[0]
    return Latents.rigid(
        Pose(rotation, shift), torch.tensor(100.0, dtype=torch.float64)
    )


def ellipsoid(seed: int = 1) -> Ellipsoid:
    root = torch.randn(6, 6, generator=seeded(seed), dtype=torch.float64).tril() * 0.02
    return Ellipsoid(centre(), root + 0.05 * torch.eye(6), DIMS)


def test_balls_hold_the_known_numbers_of_points() -> None:
    # Gauss's circle problem and its like: integer points within a radius of 5.
    assert [len(ball(d, 5.0)) for d in (0, 1, 2, 3, 4)] == [1, 11, 81, 515, 3121]
    points = ball(3, 2.0)
    assert (points.square().sum(1) <= 4).all()
    assert (points[1:, 0] >= points[:-1, 0]).all()


def test_steps_and_departures_are_inverse() -> None:
    one = ellipsoid()
    points = torch.randn(50, 6, generator=seeded(2), dtype=torch.float64)
    latents = moved(one.centre, one.step(points))
    # The logarithm of a rotation is good to about 1e-7 radian.
    torch.testing.assert_close(
        departure(latents, one.centre), one.step(points), rtol=0, atol=1e-6
    )
    torch.testing.assert_close(
        one.squared_distance(latents), points.square().sum(1), rtol=1e-4, atol=1e-4
    )


def test_shares_of_all_modes_sum_to_one() -> None:
    modes = [ellipsoid(seed) for seed in (1, 2, 3)]
    latents = moved(modes[0].centre, modes[0].step(ball(6, 2.0)))
    shares = torch.stack([log_share(modes, own, latents).exp() for own in range(3)])
    torch.testing.assert_close(shares.sum(0), torch.ones(len(latents)).double())
    assert not log_share(modes[:1], 0, latents).any()
