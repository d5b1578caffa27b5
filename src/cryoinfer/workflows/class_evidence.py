"""How many classes there are, by images that their maps were not made of.

Every image is compared with maps of the half-set that it is not in, so that its
evidence in the mixture is held out. Classes are given up one by one, each time the one
that images miss least, and the maps of the others made anew: one class in place of two
that are alike has twice as many particles, less noise, and makes images likelier.
"""

import torch
from torch import Tensor

from cryoinfer.interfaces import Monitor
from cryoinfer.results.classes import ClassGain, maximum_populations
from cryoinfer.workflows.class_loop import ClassLoop
from cryoinfer.workflows.class_state import ClassState

_ITERATIONS = 2  # after a class is given up


def by_held_out_gain(
    loop: ClassLoop, state: ClassState, chosen: int | None, monitor: Monitor
) -> tuple[ClassState, ClassGain]:
    """Return the state of as many classes as say something, and what each says.

    Parameters
    ----------
    loop : ClassLoop
    state : ClassState
        Of classes that may be too many.
    chosen : int or None
        Classes that are kept, as far as there are so many, whatever they say.
    monitor : Monitor
    """
    classes: list[int] = []
    steps: list[float] = []
    errors: list[float] = []
    world = loop.problem.world
    while state.count > 1:
        fewer = loop.settled(
            state.without(world.of_first(least_missed(state.record.log_evidence))),
            f"{state.count - 1} classes",
            _ITERATIONS,
            monitor,
        )
        gain = state.log_evidence() - fewer.log_evidence()
        error = float(gain.std()) / len(gain) ** 0.5
        step, error = world.of_first((float(gain.mean()), error))
        classes.append(state.count)
        steps.append(step)
        errors.append(error)
        monitor.message(
            f"held-out images gain {step:+.2f} ({error:.2f}) nats a particle (se) by "
            f"{state.count} classes over {fewer.count}"
        )
        if state.count == chosen:
            break
        if chosen is None and step > ClassGain.SIGNIFICANT_SE * error:
            break
        state = fewer
    return state, ClassGain(tuple(classes), tuple(steps), tuple(errors))


def least_missed(log_evidence: Tensor) -> int:
    """Return the class without which images are least unlikely.

    Parameters
    ----------
    log_evidence : Tensor of float64, shape (n, K)
        K of 2 or more.
    """
    count = log_evidence.shape[1]
    left = []
    for number in range(count):
        others = log_evidence[:, torch.arange(count) != number]
        share = maximum_populations(others).share
        left.append((others + share.log()).logsumexp(1).mean())
    return int(torch.stack(left).argmax())
