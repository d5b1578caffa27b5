"""Classes that are empty, alike or missed: what becomes of their particles."""

import torch

from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.records import Latents, Pose
from cryoinfer.results.classes import maximum_populations
from cryoinfer.workflows.class_evidence import least_missed
from cryoinfer.workflows.class_state import ClassRecord, reseeded

N = 40


def record(classes: int) -> ClassRecord:
    """Return particles of class 0, ever worse explained, at poses of their own."""
    generator = torch.Generator().manual_seed(0)
    shape = N, classes
    rotation = random_rotations(N * classes, generator).view(*shape, 3, 3)
    shift = torch.randn(*shape, 2, generator=generator).double()
    offset = torch.zeros(shape, dtype=torch.float64)
    evidence = torch.full(shape, -300.0, dtype=torch.float64)
    evidence[:, 0] = -torch.arange(N)
    nothing = torch.zeros(N, 6, 6, dtype=torch.float64)
    modes = Latents.rigid(Pose(rotation, shift), offset)
    return ClassRecord(modes, nothing, nothing[:, 0, 0], evidence)


def test_an_empty_class_takes_what_the_largest_explains_worst() -> None:
    before = record(3)
    share = maximum_populations(before.log_evidence).share
    after = reseeded(before, share)
    empty = int(share.argmin())
    found = maximum_populations(after.log_evidence).share
    # To a thousandth of a particle.
    assert abs(float(found[empty]) * N - N / 2) < 1e-3
    taken = (after.log_evidence + found.log()).argmax(1) == empty
    assert taken.nonzero().flatten().tolist() == list(range(N // 2, N))
    # They go where the largest class has seen them.
    assert torch.equal(
        after.modes.pose.rotation[:, empty], before.modes.pose.rotation[:, 0]
    )


def test_the_class_that_is_missed_least_is_the_twin() -> None:
    evidence = torch.full((90, 4), -50.0, dtype=torch.float64)
    evidence[:40, 0] = 0.0
    evidence[40:70, 1] = 0.0
    evidence[70:, 2] = 0.0
    evidence[40:70, 3] = -0.5  # nearly as good as class 1, and of no one else
    assert least_missed(evidence) == 3


def test_a_record_without_a_class_keeps_the_others() -> None:
    whole = record(3)
    part = whole.without(1)
    assert torch.equal(part.log_evidence, whole.log_evidence[:, [0, 2]])
    assert torch.equal(part.modes.pose.rotation, whole.modes.pose.rotation[:, [0, 2]])
    again = ClassRecord.of_state(whole.to_state())
    assert torch.equal(again.log_evidence, whole.log_evidence)


def test_modes_are_numbered_by_class_best_first() -> None:
    whole = record(3)
    share = torch.tensor([1e-140, 0.6, 0.4], dtype=torch.float64)
    found = whole.posterior(share / share.sum())
    number = found.modes.conformation[..., 0]
    assert bool((found.weight[:, :-1] >= found.weight[:, 1:]).all())
    rows = torch.arange(N)[:, None]
    assert torch.equal(
        found.modes.pose.rotation, whole.modes.pose.rotation[rows, number.long()]
    )
