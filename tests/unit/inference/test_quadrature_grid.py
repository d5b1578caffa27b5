"""Points, steps and shares of lattices about modes."""

import math

import torch

from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.inference.quadrature_grid import (
    FITTED_REACH,
    Ellipsoid,
    GridPatch,
    ball,
    departure,
    log_share,
    moved,
    refitted,
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


def test_fits_find_a_gaussian() -> None:
    # In two dimensions, sd 2.5 and 0.6 steps, 4 steps off: beyond one fit's reach.
    mode = Ellipsoid(centre(), torch.eye(2, dtype=torch.float64), [3, 4])
    mean = centre().pose.shift_angstrom + torch.tensor([4.0, -0.5]).double()
    sd = torch.tensor([2.5, 0.6], dtype=torch.float64)
    modes, fits, settled = [mode], 0, False
    while not settled and fits < 10:
        points = ball(2, FITTED_REACH)
        latents = moved(modes[0].centre, modes[0].step(points))
        white = (latents.pose.shift_angstrom - mean) / sd
        log_mass = -0.5 * white.square().sum(1)
        modes, settled = refitted(
            modes, [GridPatch(points, latents, log_mass, log_mass)]
        )
        fits += 1
    assert settled
    # A settled fit was within 30 % of the variance; that after it is nearer.
    found = modes[0].root @ modes[0].root.T
    torch.testing.assert_close(found.diagonal().sqrt(), sd, rtol=0.05, atol=0)
    assert (modes[0].centre.pose.shift_angstrom - mean).abs().max() < 0.1 * math.sqrt(2)


def test_modes_without_mass_are_dropped() -> None:
    mode = Ellipsoid(centre(), torch.eye(2, dtype=torch.float64), [3, 4])
    points = ball(2, FITTED_REACH)
    latents = moved(mode.centre, mode.step(points))
    log_mass = -0.5 * points.square().sum(1)
    sheets = [
        GridPatch(points, latents, log_mass, log_mass),
        GridPatch(points, latents, log_mass - 20, log_mass - 20),
    ]
    modes, settled = refitted([mode, mode], sheets)
    assert len(modes) == 1
    assert settled
