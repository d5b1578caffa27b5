"""The model at rest and its modes, learned from some of the particles.

In rounds: particles climb to the tops of their posteriors, fields of displacements are
solved for, chains are mended, and the network of what has come out lends the next round
its basis. The radius grows from round to round: at a low one, steps of many angstrom
are nearly linear.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from cryoinfer.data.moving_model import MovingModel, averaged
from cryoinfer.inference.lattice import moved
from cryoinfer.inference.learned_motion import (
    FieldEquations,
    Fields,
    Motion,
    principal_motion,
)
from cryoinfer.inference.moving_subject import MovingSubject
from cryoinfer.inference.refine import LocalPoses
from cryoinfer.inference.whitening import WhitenedImages, is_finite
from cryoinfer.interfaces import Monitor
from cryoinfer.physics.structures.deformation import mended
from cryoinfer.physics.structures.elastic import (
    RIGID_MOTIONS,
    ElasticNetwork,
)
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.workflows.motion_inference import MotionInference
from cryoinfer.workflows.motion_problem import MotionProblem

_PARTICLES = 2000  # that are learned from, at most
_BASIS = 100  # modes that a field is a sum of, at most
_FIRST_SD_ANGSTROM = 0.5
"""Of the softest of them in one round. Wider ones lead to shapes that explain images at
a low resolution and are none of a chain: what is far off is to be reached in steps."""

_BASIS_CUTOFF_ANGSTROM = 10.0  # of their network: what is apart moves apart easily
_FIRST_ANGSTROM, _LAST_ANGSTROM = 12.0, 6.0  # of the rounds
_STEPS = 6
_LEAST_SD = 0.05  # of an amplitude, over that of the widest


@dataclass(frozen=True)
class _Seen:
    """Images of some particles of one optics group, and what is known of them."""

    images: WhitenedImages
    poses: LocalPoses


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
    problem = inference.problem
    model = problem.model
    saved: Any = monitor.load_checkpoint()
    done = 0
    if saved is not None:
        done, model = saved["done"], _restored(model, saved)
    if done >= rounds:
        return model
    seen = _seen(inference, None if saved is None else saved["poses"])
    monitor.stage("learning the motion", rounds)
    monitor.advance(done)
    beads = problem.model.beads(_LAST_ANGSTROM)
    for number in range(done, rounds):
        radius = _radius(problem, number, rounds)
        beads = model.with_beads_of(beads)
        model, seen, told = _round(inference, model, beads, seen, radius)
        monitor.message(f"round {number + 1} of learning: {told}")
        monitor.save_checkpoint(_state(model, seen, number + 1))
        monitor.advance()
    return model


def _radius(problem: MotionProblem, number: int, rounds: int) -> int:
    """Return the Fourier radius of a round."""
    share = number / max(rounds - 1, 1)
    angstrom = _FIRST_ANGSTROM * (_LAST_ANGSTROM / _FIRST_ANGSTROM) ** share
    return min(int(problem.grid.length_angstrom / angstrom), problem.coarse_radius)


def _seen(
    inference: MotionInference, kept: Sequence[Mapping[str, Tensor]] | None
) -> list[_Seen]:
    """Return some particles, where they were kept or as the inference finds them."""
    problem = inference.problem
    chunks = problem.chunks()
    generator = torch.Generator().manual_seed(problem.config.seed + 3)
    order = torch.randperm(len(chunks), generator=generator).tolist()
    seen: list[_Seen] = []
    for chunk in order:
        batch = problem.particles.batch(chunks[chunk])
        batch = batch[is_finite(batch.images)]
        if len(batch):
            images = problem.whitened(batch, inference.imaged)
            if kept is None:
                poses = inference.finder.begin(images, batch.index)
            else:
                poses = LocalPoses(**kept[len(seen)])
            seen.append(_Seen(images.prefix(problem.coarse_radius), poses))
        if sum(len(one.poses) for one in seen) >= _PARTICLES:
            break
    return seen


def _round(
    inference: MotionInference,
    model: MovingModel,
    beads: MovingAtoms,
    seen: list[_Seen],
    radius: int,
) -> tuple[MovingModel, list[_Seen], str]:
    """Climb, learn, and return what has come out, with the particles there."""
    problem = inference.problem
    resolution = problem.grid.resolution_at(radius)
    beads = beads.scaled(inference.imaged.gain)
    subject = MovingSubject(beads, problem.grid, beads, problem.coarse_radius)
    prior = replace(problem.prior, conformation_sd_angstrom=model.amplitude_sd_angstrom)
    fields = _fields(model, beads)
    equations = FieldEquations(fields, subject, prior)
    climbed = []
    for one in seen:
        near = one.images.prefix(radius)
        poses = subject.climb(near, one.poses, prior, _STEPS, 2 / radius)
        equations.add(near, poses.latents)
        climbed.append(_Seen(one.images, poses))
    share = equations.solved()
    climbed = _stepped(climbed, equations.steps(share))
    motion = _moved(model, fields, share, climbed)
    sd = motion.sd_angstrom.clamp(min=_LEAST_SD * float(motion.sd_angstrom[0]))
    rest = mended(model.chain, motion.rest)
    found = model.learned(rest, motion.direction, tuple(sd.tolist()))
    whole = found.departure_angstrom(problem.model)
    told = (
        f"at {resolution:.1f} A the model at rest moved by "
        f"{found.departure_angstrom(model):.2f} A, "
        f"{whole:.2f} A in all; amplitudes spread over "
        + ", ".join(f"{one:.2f}" for one in motion.sd_angstrom[:3].tolist())
        + " A"
    )
    return found, _replaced(climbed, motion), told


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
    model: MovingModel, fields: Fields, share: Tensor, climbed: list[_Seen]
) -> Motion:
    """Return what the particles show with fields added to the model."""
    field = torch.einsum("km,mnc->knc", share, fields.of_nodes)
    return principal_motion(
        model.node_coordinates_angstrom + field[0],
        model.modes.per_angstrom() + field[1:],
        torch.cat([one.poses.conformation for one in climbed]),
    )


def _stepped(climbed: list[_Seen], step: Tensor) -> list[_Seen]:
    """Return particles that have moved with the fields."""
    sizes = [len(one.poses) for one in climbed]
    return [
        replace(one, poses=LocalPoses.of(moved(one.poses.latents, own)))
        for one, own in zip(climbed, step.split(sizes), strict=True)
    ]


def _replaced(climbed: list[_Seen], motion: Motion) -> list[_Seen]:
    """Return particles where they were, in amplitudes of the learned modes."""
    sizes = [len(one.poses) for one in climbed]
    return [
        replace(one, poses=replace(one.poses, conformation=amplitude))
        for one, amplitude in zip(climbed, motion.amplitude.split(sizes), strict=True)
    ]


def _state(model: MovingModel, seen: list[_Seen], done: int) -> Mapping[str, object]:
    return {
        "done": done,
        "rest": torch.from_numpy(model.model.coordinates_angstrom),
        "direction": model.modes.direction,
        "sd": torch.tensor(model.amplitude_sd_angstrom, dtype=torch.float64),
        "poses": [dict(vars(one.poses)) for one in seen],
    }


def _restored(given: MovingModel, saved: Mapping[str, Any]) -> MovingModel:
    atoms = replace(given.model, coordinates_angstrom=saved["rest"].numpy())
    model = replace(given, model=atoms)
    return model.learned(
        model.node_coordinates_angstrom, saved["direction"], tuple(saved["sd"].tolist())
    )
