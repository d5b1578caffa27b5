"""The model at rest and its modes, learned from some of the particles.

In rounds: particles are refined to the modes of their posteriors, fields of
displacements are solved for, chains are restrained, and the network of what has come
out lends the next round its basis. The radius grows from round to round: at a low one,
steps of many angstrom are nearly linear. What images show of the model, and their
noise, are measured anew in every round; and particles that began at a wrong pose are
found by a search with the model that half of the rounds have learned.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cryoinfer.data.moving_model import MovingModel, averaged
from cryoinfer.errors import state_of_this_version
from cryoinfer.inference.learned_motion import (
    FieldEquations,
    Fields,
    Motion,
    principal_motion,
)
from cryoinfer.inference.local_refinement import reach_radian, refine_locally
from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.quadrature_grid import moved
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.interfaces import Monitor
from cryoinfer.physics.structures.deformation import restrained
from cryoinfer.physics.structures.elastic import (
    RIGID_MOTIONS,
    ElasticNetwork,
)
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.records import Latents
from cryoinfer.workflows.motion_inference import FromSearch, MotionInference
from cryoinfer.workflows.motion_problem import MotionProblem
from cryoinfer.workflows.noise_and_scale import (
    NoiseAndScale,
    Projected,
    projected,
    residual_estimate,
)

_PARTICLES = 2000  # that are learned from, at most
_BASIS = 100  # modes that a field is a sum of, at most
_FIRST_SD_ANGSTROM = 0.5
"""Of the softest of them in one round. Wider ones lead to shapes that explain images at
a low resolution and are none of a chain: what is far off is to be reached in steps."""

_BASIS_CUTOFF_ANGSTROM = 10.0  # of their network: what is apart moves apart easily
_FIRST_ANGSTROM, _LAST_ANGSTROM = 12.0, 6.0  # of the rounds
_MARCHING = 0.7  # of the rounds; the others are at the last resolution
_WORTH_NATS = 1.0  # that another pose is to be likelier by
_STEPS = 6
_RESTRAINT = 1.0
"""Towards what images say, over the stiffness of a chain: closes torn bonds, and moves
frames of a simulated transition by 0.4 A; at 0.01 it moved them by 1 A, which then was
the error of the model at rest."""

_OF_ALL_POSES = ("unknown", "searched")  # that may have begun at a wrong one
_LOOKED_AT = 500  # particles of a group, for noise and gain
_LEAST_SD = 0.05  # of an amplitude, over that of the widest


@dataclass(frozen=True)
class _Seen:
    """Some particles of one optics group, and where they are."""

    index: Tensor
    latents: Latents


@dataclass(frozen=True)
class _State:
    """What is known between two rounds."""

    model: MovingModel
    measured: NoiseAndScale
    seen: list[_Seen]

    @property
    def conformation(self) -> Tensor:
        """Of all particles, shape (p, k)."""
        return torch.cat([one.latents.conformation for one in self.seen])


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
    state = kept or _begun(inference)
    if done >= rounds:
        return state.model
    monitor.stage("learning the motion", rounds - done)
    beads = given.model.beads(_LAST_ANGSTROM)
    for number in range(done, rounds):
        radius = _radius(given, number, rounds)
        beads = state.model.with_beads_of(beads)
        state = _looked(given, state, beads, radius)
        if number == rounds // 2 and given.config.poses in _OF_ALL_POSES:
            state, told = _found_again(given, state, beads, radius)
            monitor.message(told)
        state, told = _round(given, state, beads, radius)
        monitor.message(f"round {number + 1} of learning: {told}")
        monitor.save_checkpoint(_saved(state, number + 1))
        monitor.advance()
    return state.model


def _radius(problem: MotionProblem, number: int, rounds: int) -> int:
    """Return the Fourier radius of a round."""
    share = min(number / max(_MARCHING * rounds - 1, 1), 1.0)
    angstrom = _FIRST_ANGSTROM * (_LAST_ANGSTROM / _FIRST_ANGSTROM) ** share
    return min(int(problem.grid.length_angstrom / angstrom), problem.coarse_radius)


def _begun(inference: MotionInference) -> _State:
    """Return some particles as the inference finds them."""
    problem = inference.problem
    chunks = problem.chunks()
    generator = torch.Generator().manual_seed(problem.config.seed + 3)
    seen: list[_Seen] = []
    for chunk in torch.randperm(len(chunks), generator=generator).tolist():
        batch = problem.particles.batch(chunks[chunk])
        good = problem.readable(batch, inference.measured)
        if good is not None:
            latents = inference.finder.begin(good.images, good.index)
            seen.append(_Seen(good.index, latents))
        if sum(len(one.latents) for one in seen) >= _PARTICLES:
            break
    return _State(problem.model, inference.measured, seen)


def _whitened(
    problem: MotionProblem, measured: NoiseAndScale, one: _Seen, radius: int
) -> WhitenedImages:
    """Return the images of particles, which are not kept in memory."""
    batch = problem.particles.batch(one.index)
    return problem.whitened(batch, measured).prefix(radius)


def _projector(
    problem: MotionProblem, state: _State, beads: MovingAtoms
) -> MovingProjector:
    """Return beads in the units of the images; rounds are of no higher resolution."""
    beads = beads.scaled(state.measured.gain)
    return MovingProjector(beads, problem.grid, beads, problem.coarse_radius)


def _looked(
    problem: MotionProblem, state: _State, beads: MovingAtoms, radius: int
) -> _State:
    """Measure noise and gain with the model as it is now."""
    projector = _projector(problem, state, beads)

    def calibration_subset() -> Iterator[Projected]:
        looked: Counter[int] = Counter()
        for one in state.seen:
            group = int(problem.particles.optics.group[one.index[0]])
            if looked[group] < _LOOKED_AT:
                images = _whitened(problem, state.measured, one, radius)
                yield projected(projector, images, one.latents)
                looked[group] += len(images)

    return replace(
        state, measured=residual_estimate(calibration_subset(), state.measured)
    )


def _found_again(
    problem: MotionProblem, state: _State, beads: MovingAtoms, radius: int
) -> tuple[_State, str]:
    """Search all poses with the model as it is now, and keep the likelier ones."""
    current = problem.with_model(state.model)
    prior = current.prior
    projector = _projector(problem, state, beads)
    finder = FromSearch.of(current, projector, radius)
    others, seen = 0, []
    for one in state.seen:
        images = _whitened(problem, state.measured, one, radius)
        starts = one.latents, finder.begin(images, one.index)
        longest = reach_radian(radius)
        modes = [
            refine_locally(projector, images, at, prior, _STEPS, longest)
            for at in starts
        ]
        known, found = (mode.log_evidence(prior) for mode in modes)
        better = found > known + _WORTH_NATS
        others += int(better.sum())
        n = len(images)
        both = Latents.joined([mode.latents for mode in modes])
        kept = both[torch.arange(n) + better * n]
        seen.append(replace(one, latents=kept))
    total = sum(len(one.latents) for one in seen)
    return replace(state, seen=seen), (
        f"a search with what has been learned found likelier poses of {others:,} of "
        f"{total:,} particles"
    )


def _round(
    problem: MotionProblem, state: _State, beads: MovingAtoms, radius: int
) -> tuple[_State, str]:
    """Climb, learn, and return what has come out, with the particles there."""
    model = state.model
    resolution = problem.grid.resolution_at(radius)
    projector = _projector(problem, state, beads)
    prior = problem.with_model(model).prior
    fields = _fields(model, projector.moving)
    equations = FieldEquations(fields, projector, prior)
    at_modes = []
    for one in state.seen:
        images = _whitened(problem, state.measured, one, radius)
        refined = refine_locally(
            projector, images, one.latents, prior, _STEPS, reach_radian(radius)
        ).latents
        equations.add(images, refined)
        at_modes.append(replace(one, latents=refined))
    share = equations.solved()
    at_modes = _stepped(at_modes, equations.steps(share))
    state = replace(state, seen=at_modes)
    motion = _moved(fields, share, state)
    sd = motion.sd_angstrom.clamp(min=_LEAST_SD * float(motion.sd_angstrom[0]))
    rest = restrained(model.chain, motion.rest, _RESTRAINT)
    found = model.learned(rest, motion.direction, tuple(sd.tolist()))
    whole = found.departure_angstrom(problem.model)
    told = (
        f"at {resolution:.1f} A the model at rest moved by "
        f"{found.departure_angstrom(model):.2f} A, "
        f"{whole:.2f} A in all; amplitudes spread over "
        + ", ".join(f"{one:.2f}" for one in motion.sd_angstrom[:3].tolist())
        + " A"
    )
    seen = _replaced(at_modes, motion)
    return replace(state, model=found, seen=seen), told


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


def _moved(fields: Fields, share: Tensor, state: _State) -> Motion:
    """Return what the particles show with fields added to the model."""
    model = state.model
    field = torch.einsum("km,mnc->knc", share, fields.of_nodes)
    return principal_motion(
        model.node_coordinates_angstrom + field[0],
        model.modes.per_angstrom() + field[1:],
        state.conformation,
    )


def _stepped(at_modes: list[_Seen], step: Tensor) -> list[_Seen]:
    """Return particles that have moved with the fields."""
    sizes = [len(one.latents) for one in at_modes]
    return [
        replace(one, latents=moved(one.latents, own))
        for one, own in zip(at_modes, step.split(sizes), strict=True)
    ]


def _replaced(at_modes: list[_Seen], motion: Motion) -> list[_Seen]:
    """Return particles where they were, in amplitudes of the learned modes."""
    sizes = [len(one.latents) for one in at_modes]
    return [
        replace(one, latents=replace(one.latents, conformation=amplitude))
        for one, amplitude in zip(at_modes, motion.amplitude.split(sizes), strict=True)
    ]


def _saved(state: _State, done: int) -> Mapping[str, object]:
    model = state.model
    return {
        "done": done,
        "rest": torch.from_numpy(model.model.coordinates_angstrom),
        "direction": model.modes.direction,
        "sd": torch.tensor(model.amplitude_sd_angstrom, dtype=torch.float64),
        "measured": dict(vars(state.measured)),
        "index": [one.index for one in state.seen],
        "latents": [one.latents.to_state() for one in state.seen],
    }


def _restored(given: MovingModel, saved: Mapping[str, Any]) -> _State:
    atoms = replace(given.model, coordinates_angstrom=saved["rest"].numpy())
    model = replace(given, model=atoms)
    model = model.learned(
        model.node_coordinates_angstrom, saved["direction"], tuple(saved["sd"].tolist())
    )
    rows = zip(saved["index"], saved["latents"], strict=True)
    seen = [_Seen(index, Latents.of_state(latents)) for index, latents in rows]
    return _State(model, NoiseAndScale(**saved["measured"]), seen)
