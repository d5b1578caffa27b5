"""First poses by a model that may be wrong: those of a refinement from its map."""

from dataclasses import replace

import torch

from cryoinfer.errors import state_of_this_version
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.records import Pose
from cryoinfer.workflows.motion_problem import MotionProblem
from cryoinfer.workflows.refine import RefineConfig, StartingMap, refine
from cryoinfer.workflows.stage_checkpoints import StageCheckpoints

_LARGEST_SHIFT_SD = 3.0
_REFINEMENT, _POSES = "refinement", "refined poses"


def refined(problem: MotionProblem, parts: StageCheckpoints) -> MotionProblem:
    """Return the problem with the poses of a refinement from the model's map.

    All particles together become one map, a blurred one: poses are a few degrees off
    for particles that have moved far, within reach of refinements at a low radius.

    Parameters
    ----------
    problem : MotionProblem
    parts : StageCheckpoints
        Of the run: an interrupted refinement goes on, and what is kept of one that is
        over are the poses.
    """
    kept = parts.kept(_POSES)
    if kept is not None:
        with state_of_this_version():
            pose = Pose(kept["rotation"], kept["shift_angstrom"])
        return problem.with_poses(pose)
    atoms, grid = problem.model.moving.atoms, problem.grid
    assert isinstance(atoms, GaussianAtoms)
    density = atoms.to_map(grid.box, grid.pixel_size_angstrom)
    config = RefineConfig(
        max_shift_angstrom=_LARGEST_SHIFT_SD * problem.prior.shift_sd_angstrom or None,
        symmetry=problem.problem.symmetry,
        seed=problem.config.seed,
    )
    start = StartingMap(density, grid.pixel_size_angstrom)
    monitor = parts.monitor(_REFINEMENT)
    found = refine(problem.particles, start, config, monitor, problem.problem.world)
    pose = found.latents.pose
    if not problem.prior.shift_sd_angstrom:
        # Particles are centred: no refinement would take a shift back.
        pose = replace(pose, shift_angstrom=torch.zeros_like(pose.shift_angstrom))
    parts.drop(_REFINEMENT)
    parts.keep(_POSES, dict(vars(pose)))
    return problem.with_poses(pose)
