"""One pass over particles: each recorded once, in sums that add up, however it goes.

Run as a script, this file is one of two processes that share a pass.
"""

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import GivenPoses
from cryoinfer.interfaces import SILENT, Monitor, SilentMonitor
from cryoinfer.records import Indexable, Latents, ParticleBatch
from cryoinfer.workflows import particle_pass
from cryoinfer.workflows.half_set_alignment import HalfSetAlignment
from cryoinfer.workflows.image_sources import ReadableImages
from cryoinfer.workflows.particle_pass import (
    Accumulator,
    InferredBatch,
    ParticlePass,
    PreparedBatch,
    run_pass,
)
from cryoinfer.workflows.problem import Problem, define_problem, initial_noise
from cryoinfer.workflows.structure_update import HalfMapSums
from cryoinfer.world import World

N, RADIUS = 40, 8
UNREADABLE = (3, 20, 21)
MATES: tuple[Any, Any] = ("first", "second")
"""In the place of projectors, which given poses do not ask."""


@dataclass(frozen=True)
class Seen(Indexable):
    """What is recorded of a particle here: its row, its shift, and its brightness."""

    row: Tensor
    shift_angstrom: Tensor
    brightness: Tensor

    @classmethod
    def of(cls, one: InferredBatch[Any]) -> "Seen":
        shift = one.placed.mode().pose.shift_angstrom
        power = one.images.coefficients.abs().square().sum(1)
        return cls(one.batch.index, shift, power)

    @classmethod
    def blank(cls, n: int) -> "Seen":
        return cls(torch.full((n,), -1), torch.full((n, 2), -7.0), torch.zeros(n))


@dataclass(frozen=True)
class Spoilt:
    """A source of images, some of which hold a pixel that is no number."""

    source: ReadableImages
    rows: tuple[int, ...]

    def prepare(self, batch: ParticleBatch) -> PreparedBatch | None:
        batch.images[torch.isin(batch.index, torch.tensor(self.rows)), 5, 5] = torch.nan
        return self.source.prepare(batch)


@dataclass(frozen=True)
class Counts:
    """Counts how often each particle was added, and notes the batches."""

    count: Tensor = field(default_factory=lambda: torch.zeros(N))
    batches: list[InferredBatch[Any]] = field(default_factory=list)

    def add(self, one: InferredBatch[Any]) -> None:
        self.count[one.batch.index] += 1
        self.batches.append(one)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (self.count,)


@dataclass(frozen=True)
class Task:
    """A problem, poses, and a pass over it."""

    problem: Problem
    known: ParticlePosterior
    noise: tuple[Tensor, ...]

    @classmethod
    def of(cls, particles: Particles) -> "Task":
        seed = torch.Generator().manual_seed(0)
        problem = define_problem(particles, "C1", None, None, 0.0, seed)
        assert particles.pose is not None
        at = Latents.rigid(particles.pose, torch.zeros(len(particles)).double())
        known = ParticlePosterior.at(at, 1)
        return cls(problem, known, initial_noise(problem))

    def sums(self) -> HalfMapSums:
        return HalfMapSums.empty(self.problem.grid.box, RADIUS)

    def step(self, *accumulators: Accumulator[Any], **changes: Any) -> ParticlePass:
        source = ReadableImages(self.problem.grid, RADIUS, self.noise)
        usual = {
            "name": "a pass",
            "source": Spoilt(source, UNREADABLE),
            "projectors": MATES,
            "prior": self.problem.prior,
            "inference": GivenPoses(),
            "record": Seen.of,
            "accumulators": accumulators,
        }
        return ParticlePass(**{**usual, **changes})

    def run(
        self,
        step: ParticlePass,
        monitor: Monitor = SILENT,
        checkpoints: Monitor | None = None,
    ) -> Seen:
        blank = Seen.blank(len(self.problem.particles))
        return run_pass(self.problem, step, self.known, blank, monitor, checkpoints)


@pytest.fixture(scope="module")
def particles(simulated: Callable[..., Any]) -> Particles:
    """Return 40 particles of two optics groups, of different pixels."""
    return simulated(n=N, optics_groups=2).with_poses()


@pytest.fixture
def task(particles: Particles) -> Task:
    return Task.of(particles)


READABLE = torch.tensor([row not in UNREADABLE for row in range(N)])


@pytest.mark.parametrize("size", [1, 7, 13, 40, 500])
def test_every_readable_particle_is_recorded_once_and_in_order(
    task: Task, size: int
) -> None:
    counts = Counts()
    found = task.run(task.step(counts, batch_size=size))
    rows = torch.arange(N)
    assert torch.equal(found.row[READABLE], rows[READABLE])
    shift = task.known.mode().pose.shift_angstrom
    torch.testing.assert_close(found.shift_angstrom[READABLE], shift[READABLE].float())
    # Those that cannot be read keep the blank.
    blank = Seen.blank(N)[~READABLE]
    torch.testing.assert_close(found[~READABLE].to_state(), blank.to_state())
    assert torch.equal(counts.count, READABLE.float())


def test_records_and_sums_do_not_depend_on_the_size_of_batches(task: Task) -> None:
    sums = [task.sums() for _ in range(2)]
    one, other = (
        task.run(task.step(each, batch_size=size))
        for each, size in zip(sums, (3, 40), strict=True)
    )
    # Single precision, in other orders.
    torch.testing.assert_close(one.to_state(), other.to_state())
    for first, second in zip(sums[0].tensors, sums[1].tensors, strict=True):
        assert bool(first.any())
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-3)


def test_a_batch_is_of_one_optics_group_and_half_with_its_projector(
    task: Task,
) -> None:
    counts = Counts()
    task.run(task.step(counts, batch_size=6))
    problem = task.problem
    groups = problem.particles.optics.group
    kinds = set()
    for one in counts.batches:
        index = one.batch.index
        assert 0 < len(index) <= 6
        assert groups[index].unique().tolist() == [one.group]
        assert problem.half[index].unique().tolist() == [one.half]
        assert one.projector == MATES[one.half]
        assert torch.equal(one.known.weight, task.known[index].weight)
        kinds.add((one.group, one.half))
    assert len(kinds) == 4


def test_what_is_not_used_is_recorded_and_not_summed(task: Task) -> None:
    counts, sums = Counts(), task.sums()
    wanted = READABLE & (torch.arange(N) % 3 > 0)
    step = task.step(counts, sums, used=lambda seen: seen.row % 3 > 0, batch_size=7)
    found = task.run(step)
    assert torch.equal(found.row[READABLE], torch.arange(N)[READABLE])
    assert torch.equal(counts.count, wanted.float())
    alone, rows = task.sums(), torch.nonzero(wanted).squeeze(1)
    part = Task(task.problem.of_rows(rows), task.known[rows], task.noise)
    part.run(
        part.step(alone, source=ReadableImages(part.problem.grid, RADIUS, part.noise))
    )
    for one, other in zip(sums.tensors, alone.tensors, strict=True):
        assert bool(one.any())
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)


def test_where_nothing_can_be_read_all_is_blank(task: Task) -> None:
    source = ReadableImages(task.problem.grid, RADIUS, task.noise)
    counts = Counts()
    found = task.run(task.step(counts, source=Spoilt(source, tuple(range(N)))))
    torch.testing.assert_close(found.to_state(), Seen.blank(N).to_state())
    assert not bool(counts.count.any())


@dataclass
class Radii:
    """Notes how far the images go that it is shown."""

    shown: list[int]

    def infer(self, images: Any, *given: Any) -> ParticlePosterior:
        self.shown.append(int(images.disc.ring.max()))
        return given[-1]


def test_poses_are_inferred_at_a_radius_and_summed_to_another(task: Task) -> None:
    radii, counts = Radii([]), Counts()
    step = task.step(counts, inference=radii, radius=4)
    task.run(step)
    reach = {int(one.images.disc.ring.max()) for one in counts.batches}
    # In the pixels of each group's images, that are of different size.
    assert max(radii.shown) <= 5
    assert min(reach) >= 7


def test_the_second_half_is_placed_in_the_frame_of_the_first(task: Task) -> None:
    turned = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    origin = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    alignment, counts = HalfSetAlignment(turned, origin), Counts()
    task.run(task.step(counts, alignment=alignment))
    for one in counts.batches:
        own, placed = one.posterior.modes, one.placed.modes
        expected = alignment.to_first(own) if one.half else own
        torch.testing.assert_close(placed.to_state(), expected.to_state())
        away = (placed.pose.rotation - own.pose.rotation).abs().amax()
        assert bool(away > 0.1) == bool(one.half)


def test_an_interrupted_pass_goes_on_bitwise(
    task: Task,
    kept: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    whole = task.sums()
    expected = task.run(task.step(whole, batch_size=2))
    monkeypatch.setattr(particle_pass, "KEEP_SECONDS", 0.0)
    stopped = kept(at=2)
    with pytest.raises(KeyboardInterrupt):
        task.run(task.step(task.sums(), batch_size=2), SILENT, stopped)
    done = stopped.state["done"]
    # Some are done, and some are not.
    assert 0 < int(done.sum()) < N
    torch.save(stopped.state, tmp_path / "state.pt")
    again, told = task.sums(), Listener()
    last = kept(torch.load(tmp_path / "state.pt", weights_only=True))
    found = task.run(task.step(again, batch_size=2), told, last)
    torch.testing.assert_close(found.to_state(), expected.to_state(), rtol=0, atol=0)
    for one, other in zip(again.tensors, whole.tensors, strict=True):
        assert torch.equal(one, other)
    assert bool(last.state["done"].all())
    assert told.steps == [N - int(done.sum())]
    # What has come to its end is only read.
    finished = kept(last.state)
    once_more = task.run(task.step(task.sums(), batch_size=2), SILENT, finished)
    torch.testing.assert_close(
        once_more.to_state(), expected.to_state(), rtol=0, atol=0
    )


class Listener(SilentMonitor):
    """Notes how many steps a stage is said to have."""

    def __init__(self) -> None:
        self.steps: list[int] = []

    def stage(self, name: str, total: int) -> None:
        assert name == "a pass"
        self.steps.append(total)


def test_short_passes_keep_nothing_and_none_is_continued_unasked(
    task: Task, kept: Callable[..., Any]
) -> None:
    checkpoints = kept()
    expected = task.run(task.step(batch_size=2), SILENT, checkpoints)
    assert checkpoints.state is None
    # The checkpoint of whatever the pass is a part of is not the pass's.
    foreign = kept({"iterations": 3})
    found = task.run(task.step(batch_size=2), foreign)
    torch.testing.assert_close(found.to_state(), expected.to_state())


def state_of(task: Task, kept: Callable[..., Any]) -> Mapping[str, Any]:
    checkpoints = kept()
    task.run(task.step(task.sums(), batch_size=2), SILENT, checkpoints)
    return checkpoints.state


def test_states_of_other_passes_are_refused(
    task: Task, kept: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(particle_pass, "KEEP_SECONDS", 0.0)
    state = dict(state_of(task, kept))
    rows = torch.arange(30)
    part = Task(task.problem.of_rows(rows), task.known[rows], task.noise)
    records = {name: value for name, value in state["records"].items() if name != "row"}
    larger = [torch.zeros(2, 2, 2, 4), torch.zeros(2, 2, 2, 4)]
    for other, wrong in (
        (part, state),
        (task, state | {"sums": state["sums"][:1]}),
        (task, state | {"sums": larger}),
        (task, state | {"records": records}),
        (task, {"taken": state["done"]}),
    ):
        with pytest.raises(InputError, match="another version"):
            other.run(other.step(other.sums()), SILENT, kept(wrong))


def shared_pass(star: Path, out: Path) -> None:
    """Do one of two processes' part of a pass, and keep what both have found."""
    distributed.init_process_group("gloo")
    world = World.current()
    particle_pass.KEEP_SECONDS = 0.0
    task = Task.of(Particles.load(star))
    task = replace(task, problem=task.problem.shared_by(world))
    checkpoints = Kept()
    sums = task.sums()
    found = task.run(task.step(sums, batch_size=2), SILENT, checkpoints)
    result = {
        "found": found.to_state(),
        "sums": list(sums.tensors),
        "states": checkpoints.states,
    }
    torch.save(result, out / f"{world.rank}.pt")
    distributed.destroy_process_group()


class Kept(SilentMonitor):
    """Keeps all checkpoints, as they were."""

    def __init__(self) -> None:
        self.states: list[dict[str, Any]] = []

    def save_checkpoint(self, state: Mapping[str, Any]) -> None:
        sums = [one.clone() for one in state["sums"]]
        self.states.append({**state, "done": state["done"].clone(), "sums": sums})


def test_two_processes_find_what_one_finds_which_goes_on_from_theirs(
    simulated: Callable[..., Any],
    task: Task,
    kept: Callable[..., Any],
    tmp_path: Path,
) -> None:
    whole = task.sums()
    expected = task.run(task.step(whole, batch_size=2))
    stack = task.problem.particles.stacks[0]
    star = stack.path.with_name("truth.star")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", __file__, str(star), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))

    def require_same(found: Mapping[str, Any], sums: list[Tensor]) -> None:
        torch.testing.assert_close(found, expected.to_state())
        for one, other in zip(sums, whole.tensors, strict=True):
            # Single precision, in other orders.
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-3)

    for one in (first, second):
        require_same(one["found"], one["sums"])
    # Both know what both have done.
    half_way = first["states"][0]
    assert torch.equal(half_way["done"], second["states"][0]["done"])
    assert 8 < int(half_way["done"].sum()) < N
    sums = task.sums()
    found = task.run(task.step(sums, batch_size=2), SILENT, kept(half_way))
    require_same(found.to_state(), list(sums.tensors))


if __name__ == "__main__":
    shared_pass(Path(sys.argv[1]), Path(sys.argv[2]))
