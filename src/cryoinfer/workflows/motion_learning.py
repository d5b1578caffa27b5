"""The model at rest and its modes, learned from some of the particles.

In rounds: particles are refined to the modes of their posteriors, fields of
displacements are solved for, chains are restrained, and the network of what has come
out lends the next round its basis. The radius grows from round to round: at a low one,
steps of many angstrom are nearly linear. What images show of the model, and their
noise, are measured anew in every round; and particles that began at a wrong pose are
found by a search with the model that half of the rounds have learned.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cryoinfer.data.moving_model import MovingModel, averaged
from cryoinfer.errors import state_of_this_version
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.inference.learned_motion import (
    FieldEquations,
    Fields,
    Motion,
    principal_motion,
)
from cryoinfer.inference.local_refinement import reach_radian
from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import (
    GivenPoses,
    LocalRefinement,
    PoseInference,
)
from cryoinfer.inference.quadrature_grid import moved
from cryoinfer.inference.start_refinement import LikelierMode
from cryoinfer.interfaces import Monitor
from cryoinfer.physics.structures.deformation import restrained
from cryoinfer.physics.structures.elastic import RIGID_MOTIONS, ElasticNetwork
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.records import Indexable
from cryoinfer.workflows.motion_inference import (
    MotionInference,
    searched_refinement,
    unposed,
)
from cryoinfer.workflows.motion_problem import BATCH, MotionProblem
from cryoinfer.workflows.noise_and_scale import (
    NoiseAndScale,
    Projected,
    projected,
    residual_estimate,
)
from cryoinfer.workflows.particle_pass import InferredBatch, ParticlePass, run_pass
from cryoinfer.world import World

_PARTICLES = 2000  # that are learned from, at most
_BASIS = 100  # modes that a field is a sum of, at most
_FIRST_SD_ANGSTROM = 0.5
"""Of the softest of them in one round. Wider ones lead to shapes that explain images at
a low resolution and are none of a chain: what is far off is to be reached in steps."""

_BASIS_CUTOFF_ANGSTROM = 10.0  # of their network: what is apart moves apart easily
_FIRST_ANGSTROM, _LAST_ANGSTROM = 12.0, 6.0  # of the rounds
_MARCHING = 0.7  # of the rounds; the others are at the last resolution
_STEPS = 6
_RESTRAINT = 1.0
"""Towards what images say, over the stiffness of a chain: closes torn bonds, and moves
frames of a simulated transition by 0.4 A; at 0.01 it moved them by 1 A, which then was
the error of the model at rest."""

_OF_ALL_POSES = ("unknown", "searched")  # that may have begun at a wrong one
_LOOKED_AT = 500  # particles of a group, for noise and gain
_LEAST_SD = 0.05  # of an amplitude, over that of the widest


@dataclass(frozen=True)
class _Found(Indexable):
    """Where some particles are, and whether their images can be read."""

    posterior: ParticlePosterior
    is_readable: Tensor


@dataclass(frozen=True)
class _State:
    """What is known between two rounds.

    Attributes
    ----------
    model : MovingModel
    measured : NoiseAndScale
    rows : Tensor of int64, shape (p,)
        Of the particles that are learned from, whose images can all be read.
    posterior : ParticlePosterior
        Of those, a mode each.
    """

    model: MovingModel
    measured: NoiseAndScale
    rows: Tensor
    posterior: ParticlePosterior


def learned_model(
    inference: MotionInference, rounds: int, monitor: Monitor
) -> MovingModel:
    """Return a model whose structure at rest and modes are what the particles show.

    Parameters
    ----------
    inference : MotionInference
        By the model as it is given.
    rounds : int
    monitor : Monitor
        Its checkpoint, if it has one, is continued.

    Returns
    -------
    MovingModel
        With as many modes, the widest motion first; spreads of amplitudes are those
        that were found.
    """
    given = inference.problem
    saved: Any = monitor.load_checkpoint()
    with state_of_this_version():
        done = 0 if saved is None else saved["done"]
        kept = None if saved is None else _restored(given.model, saved)
    state = kept or _begun(inference, monitor)
    if done >= rounds:
        return state.model
    part = given.of_rows(state.rows)
    beads = given.model.beads(_LAST_ANGSTROM)
    for number in range(done, rounds):
        name = f"learning the motion, round {number + 1}"
        radius = _radius(given, number, rounds)
        beads = state.model.with_beads_of(beads)
        state = _with_residual_noise(part, state, beads, radius)
        if number == rounds // 2 and given.config.poses in _OF_ALL_POSES:
            state, text = _searched_again(part, state, beads, radius, monitor)
            monitor.message(text)
        learning = _Round(part.with_model(state.model), state, beads, radius)
        state, text = learning.run(name, given.model, monitor)
        monitor.message(f"round {number + 1} of learning: {text}")
        monitor.save_checkpoint(_saved(state, number + 1))
    return state.model


def _radius(problem: MotionProblem, number: int, rounds: int) -> int:
    """Return the Fourier radius of a round."""
    share = min(number / max(_MARCHING * rounds - 1, 1), 1.0)
    angstrom = _FIRST_ANGSTROM * (_LAST_ANGSTROM / _FIRST_ANGSTROM) ** share
    return min(int(problem.grid.length_angstrom / angstrom), problem.coarse_radius)


def _begun(inference: MotionInference, monitor: Monitor) -> _State:
    """Return some particles as the inference finds them."""
    problem = inference.problem
    n = len(problem.particles)
    generator = torch.Generator().manual_seed(problem.config.seed + 3)
    rows = torch.randperm(n, generator=generator)[:_PARTICLES].sort().values
    known = unposed(n, len(problem.model.modes))
    first: PoseInference[MovingProjector] = inference.inference
    if inference.starts is not None:
        known, first = inference.starts, GivenPoses()
    step = ParticlePass(
        "particles to learn from",
        inference.images,
        (inference.projector, inference.projector),
        problem.prior,
        first,
        _recorded,
        batch_size=BATCH,
    )
    known = known[rows]
    blank = _Found(known, torch.zeros(len(rows), dtype=torch.bool))
    found = run_pass(problem.of_rows(rows).problem, step, known, blank, monitor)
    good = found.is_readable
    return _State(problem.model, inference.measured, rows[good], found.posterior[good])


def _recorded(one: InferredBatch[MovingProjector]) -> _Found:
    best = one.posterior.best(1).with_first_covariance()
    return _Found(best, torch.ones(len(best), dtype=torch.bool))


def _projector(
    problem: MotionProblem, measured: NoiseAndScale, beads: MovingAtoms
) -> MovingProjector:
    """Return beads in the units of the images; rounds are of no higher resolution."""
    beads = beads.scaled(measured.gain)
    return MovingProjector(beads, problem.grid, beads, problem.coarse_radius)


def _with_residual_noise(
    part: MotionProblem, state: _State, beads: MovingAtoms, radius: int
) -> _State:
    """Measure noise and gain with the model as it is now."""
    projector = _projector(part, state.measured, beads)
    source = part.images(state.measured, radius)
    groups = part.particles.optics.group

    def calibration_subset() -> Iterator[Projected]:
        for group in groups.unique().tolist():
            rows = torch.nonzero(groups == group).squeeze(1)[:_LOOKED_AT]
            for batch in part.particles.batches(BATCH, rows):
                images = source.whitened(batch)
                yield projected(projector, images, state.posterior.mode()[batch.index])

    measured = residual_estimate(calibration_subset(), state.measured)
    return replace(state, measured=measured)


def _searched_again(
    part: MotionProblem,
    state: _State,
    beads: MovingAtoms,
    radius: int,
    monitor: Monitor,
) -> tuple[_State, str]:
    """Search all poses with the model as it is now, and keep the likelier ones."""
    current = part.with_model(state.model)
    projector = _projector(part, state.measured, beads)
    search = searched_refinement(current, projector, radius)
    step = ParticlePass(
        "search with what has been learned",
        part.images(state.measured, radius),
        (projector, projector),
        current.prior,
        LikelierMode(search, radius),
        _recorded,
        batch_size=BATCH,
    )
    found = run_pass(part.problem, step, state.posterior, _blank(state), monitor)
    before, after = (
        one.mode().pose.rotation for one in (state.posterior, found.posterior)
    )
    others = int((geodesic_angle(before, after) > reach_radian(radius)).sum())
    return replace(state, posterior=found.posterior), (
        f"a search with the learned model found more likely poses of {others:,} of "
        f"{len(state.rows):,} particles"
    )


def _blank(state: _State) -> _Found:
    return _Found(state.posterior, torch.zeros(len(state.rows), dtype=torch.bool))


class _FieldSums:
    """Sums the equations of fields; an accumulator of a pass."""

    def __init__(self, equations: FieldEquations) -> None:
        self._equations = equations
        self._rows: list[Tensor] = []

    def add(self, one: InferredBatch[MovingProjector]) -> None:
        """Add particles at their modes."""
        self._equations.add(one.images, one.posterior.mode())
        self._rows.append(one.batch.index)

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The sums."""
        return self._equations.tensors

    def steps(
        self, share: Tensor, posterior: ParticlePosterior, world: World
    ) -> Tensor:
        """Return how far the unknowns of all particles move with the fields."""
        step = torch.zeros(len(posterior), posterior.covariance.shape[-1]).double()
        if self._rows:
            step[torch.cat(self._rows)] = self._equations.steps(share)
        world.add_up(step)
        return step


@dataclass(frozen=True)
class _Round:
    """One round: particles to their modes, and the model to what they show.

    Attributes
    ----------
    part : MotionProblem
        Of the particles that are learned from, with the model as it is now.
    state : _State
    beads : MovingAtoms
    radius : int
    """

    part: MotionProblem
    state: _State
    beads: MovingAtoms
    radius: int

    def run(
        self, name: str, given: MovingModel, monitor: Monitor
    ) -> tuple[_State, str]:
        """Return what has come out, and say it."""
        part, state, model = self.part, self.state, self.state.model
        projector = _projector(part, state.measured, self.beads)
        fields = _fields(model, projector.moving)
        equations = FieldEquations(fields, projector, part.prior)
        sums = _FieldSums(equations)
        step = ParticlePass(
            name,
            part.images(state.measured, self.radius),
            (projector, projector),
            part.prior,
            LocalRefinement(_STEPS, reach_radian(self.radius)),
            _recorded,
            (sums,),
            batch_size=BATCH,
        )
        known = state.posterior
        at_modes = run_pass(part.problem, step, known, _blank(state), monitor).posterior
        share = equations.solved()
        steps = sums.steps(share, at_modes, part.problem.world)
        latents = moved(at_modes.mode(), steps)
        motion = _moved(fields, share, model, latents.conformation)
        sd = motion.sd_angstrom.clamp(min=_LEAST_SD * float(motion.sd_angstrom[0]))
        rest = restrained(model.chain, motion.rest, _RESTRAINT)
        found = model.learned(rest, motion.direction, tuple(sd.tolist()))
        text = (
            f"at {part.grid.resolution_at(self.radius):.1f} A the model at rest moved "
            f"by {found.departure_angstrom(model):.2f} A, "
            f"{found.departure_angstrom(given):.2f} A in all; amplitudes spread over "
            + ", ".join(f"{one:.2f}" for one in motion.sd_angstrom[:3].tolist())
            + " A"
        )
        latents = replace(latents, conformation=motion.amplitude)
        posterior = at_modes.with_first_mode(latents)
        return replace(state, model=found, posterior=posterior), text


def _fields(model: MovingModel, beads: MovingAtoms) -> Fields:
    """Return fields of the softest modes of the model as it is now.

    What they have of the model's own modes is taken out: particles make up for it by
    their amplitudes, all the more willingly the less it is held by anything.
    """
    places = model.node_coordinates_angstrom.numpy()
    network = ElasticNetwork.between(places, _BASIS_CUTOFF_ANGSTROM)
    modes = network.normal_modes(min(_BASIS, 3 * len(network) - RIGID_MOTIONS))
    own = model.modes
    common = modes.direction.flatten(1) @ own.direction.flatten(1).mT
    basis = modes.per_angstrom()
    of_atom = torch.from_numpy(model.nodes.of_atom)
    of_beads = averaged(model.nodes.extended(basis, model.model), of_atom)
    return Fields(
        beads,
        of_beads - torch.einsum("mk,kbc->mbc", common, beads.direction.double()),
        basis - torch.einsum("mk,knc->mnc", common, own.per_angstrom()),
        modes.amplitude_sd_angstrom(_FIRST_SD_ANGSTROM),
    )


def _moved(
    fields: Fields, share: Tensor, model: MovingModel, conformation: Tensor
) -> Motion:
    """Return what the particles show with fields added to the model."""
    field = torch.einsum("km,mnc->knc", share, fields.of_nodes)
    return principal_motion(
        model.node_coordinates_angstrom + field[0],
        model.modes.per_angstrom() + field[1:],
        conformation,
    )


def _saved(state: _State, done: int) -> Mapping[str, object]:
    model = state.model
    return {
        "done": done,
        "rest": torch.from_numpy(model.model.coordinates_angstrom),
        "direction": model.modes.direction,
        "sd": torch.tensor(model.amplitude_sd_angstrom, dtype=torch.float64),
        "measured": dict(vars(state.measured)),
        "rows": state.rows,
        "posterior": state.posterior.to_state(),
    }


def _restored(given: MovingModel, saved: Mapping[str, Any]) -> _State:
    atoms = replace(given.model, coordinates_angstrom=saved["rest"].numpy())
    model = replace(given, model=atoms)
    model = model.learned(
        model.node_coordinates_angstrom, saved["direction"], tuple(saved["sd"].tolist())
    )
    posterior = ParticlePosterior.of_state(saved["posterior"])
    return _State(model, NoiseAndScale(**saved["measured"]), saved["rows"], posterior)
