"""How far a global search goes: its radii follow from particle and symmetry."""

import pytest
import torch

from cryoinfer.workflows.problem import define_problem, start_radius
from cryoinfer.workflows.search_plan import global_search_plan


def problem_of(particles, symmetry="C1", max_shift=None):
    seeded = torch.Generator().manual_seed(0)
    return define_problem(particles, symmetry, None, max_shift, 0.0, seeded)


def test_the_exhaustive_grid_goes_past_the_first_map(simulated) -> None:
    problem = problem_of(simulated().particles)
    plan = global_search_plan(problem, 11)
    assert plan.coarse_radius == round(1.25 * start_radius(problem))
    assert plan.radius == 11
    resolution = problem.grid.resolution_at(plan.coarse_radius)
    assert plan.shift_step_angstrom == pytest.approx(resolution / 3)
    # Not where the map ends before.
    assert global_search_plan(problem, 5).coarse_radius == 5


def test_the_grid_of_a_polyhedron_goes_as_far_as_its_first_map(simulated) -> None:
    problem = problem_of(simulated().particles, "O")
    plan = global_search_plan(problem, 11)
    assert plan.coarse_radius == min(11, start_radius(problem))
    assert plan.symmetry.shape == (24, 3, 3)


def test_shifts_that_are_held_are_not_searched(simulated) -> None:
    problem = problem_of(simulated().particles, max_shift=0.0)
    assert global_search_plan(problem, 8).shift_step_angstrom == 0
