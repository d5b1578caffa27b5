"""How far a global search of a problem goes."""

from torch import Tensor

from cryoinfer.geometry.so3_grid import grid_step_radian
from cryoinfer.geometry.symmetry import is_polyhedral
from cryoinfer.inference.coarse import GRID_ORDER
from cryoinfer.inference.search import SearchPlan
from cryoinfer.workflows.iteration import MODES
from cryoinfer.workflows.problem import Problem, start_radius

_CELLS = 96
"""Most cells of the exhaustive grid that are divided, of an image that tells little."""

_COARSE = 1.25
"""Radius of the exhaustive grid over that of the first map, where the map has it. A
polyhedron's first map goes as far as the grid does already."""

_STEPS = 5  # of local refinement


def global_search_plan(problem: Problem, radius: int) -> SearchPlan:
    """Return a search of all poses to a Fourier radius."""
    start = start_radius(problem)
    if not is_polyhedral(problem.symmetry_rotation):
        start = round(_COARSE * start)
    coarse = min(radius, start)
    step = problem.grid.resolution_at(coarse) / 3
    shift_step = step if problem.max_shift_angstrom > 0 else 0.0
    return search_plan(coarse, radius, shift_step, problem.symmetry_rotation)


def search_plan(
    coarse_radius: int, radius: int, shift_step_angstrom: float, symmetry: Tensor
) -> SearchPlan:
    """Return a search with a radius of the exhaustive grid, and one of refinement."""
    return SearchPlan(
        coarse_radius=coarse_radius,
        radius=radius,
        cells=_CELLS,
        modes=MODES,
        steps=_STEPS,
        cell_radian=grid_step_radian(GRID_ORDER),
        shift_step_angstrom=shift_step_angstrom,
        symmetry=symmetry,
    )
