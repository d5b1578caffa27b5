"""Lattices fitted to densities of known moments."""

import math

import torch

from cryoinfer.evaluation.grid_patch import FITTED_REACH, GridPatch, refitted
from cryoinfer.inference.quadrature_grid import Ellipsoid, ball, moved
from cryoinfer.records import Latents, Pose


def mode() -> Ellipsoid:
    """Return one about a shift, in steps of an angstrom."""
    shift = torch.tensor([0.7, -0.3], dtype=torch.float64)
    rotation = torch.eye(3, dtype=torch.float64)
    centre = Latents.rigid(Pose(rotation, shift), shift.new_zeros(()))
    return Ellipsoid(centre, torch.eye(2, dtype=torch.float64), [3, 4])


def test_fits_find_a_gaussian() -> None:
    # In two dimensions, sd 2.5 and 0.6 steps, 4 steps off: beyond one fit's reach.
    mean = mode().centre.pose.shift_angstrom + torch.tensor([4.0, -0.5]).double()
    sd = torch.tensor([2.5, 0.6], dtype=torch.float64)
    modes, fits, settled = [mode()], 0, False
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
    points = ball(2, FITTED_REACH)
    latents = moved(mode().centre, mode().step(points))
    log_mass = -0.5 * points.square().sum(1)
    sheets = [
        GridPatch(points, latents, log_mass, log_mass),
        GridPatch(points, latents, log_mass - 20, log_mass - 20),
    ]
    modes, settled = refitted([mode(), mode()], sheets)
    assert len(modes) == 1
    assert settled
