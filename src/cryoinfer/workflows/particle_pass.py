"""One pass over particles: a posterior of each, and whatever adds up on the way.

The only loop over the images of a run. It goes batch by batch, each of one optics group
and half-set; processes share the particles, and a long pass keeps checkpoints.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from cryoinfer.errors import state_of_this_version
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import PoseInference
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.interfaces import Monitor
from cryoinfer.records import Indexable, ParticleBatch
from cryoinfer.workflows.half_set_alignment import SAME_FRAME, HalfSetAlignment
from cryoinfer.workflows.problem import CHUNK, Problem

KEEP_SECONDS = 120.0
"""Of a pass after which a checkpoint is written."""

_SEGMENT = 4
"""Batches between two questions whether a checkpoint is due: all processes ask."""

P = TypeVar("P")
P_co = TypeVar("P_co", covariant=True)
P_contra = TypeVar("P_contra", contravariant=True)
R = TypeVar("R", bound=Indexable)


@dataclass(frozen=True)
class PreparedBatch:
    """Those particles of a batch whose images can be read, ready for inference.

    Attributes
    ----------
    batch : ParticleBatch
    images : WhitenedImages
        Of the same particles.
    """

    batch: ParticleBatch
    images: WhitenedImages


class ImageSource(Protocol):
    """Makes images ready for inference."""

    def prepare(self, batch: ParticleBatch) -> PreparedBatch | None:
        """Return the particles of a batch that can be read; None if there is none.

        Parameters
        ----------
        batch : ParticleBatch
            Of one optics group, box and half-set.
        """
        ...


@dataclass(frozen=True)
class InferredBatch(Generic[P_co]):
    """Particles of one optics group and half-set, and what was inferred of them.

    Attributes
    ----------
    batch : ParticleBatch
    images : WhitenedImages
        To the largest radius of the pass.
    half : int
        0 or 1.
    projector : Projector
        Of that half.
    known : ParticlePosterior
        From before the pass.
    posterior : ParticlePosterior
        In the frame of that half's projector.
    placed : ParticlePosterior
        The same in the frame that both halves share.
    """

    batch: ParticleBatch
    images: WhitenedImages
    half: int
    projector: P_co
    known: ParticlePosterior
    posterior: ParticlePosterior
    placed: ParticlePosterior

    @property
    def group(self) -> int:
        """The optics group."""
        return int(self.batch.optics.group[0])

    def select(self, rows: Tensor) -> "InferredBatch[P_co]":
        """Return some of the particles."""
        return InferredBatch(
            self.batch[rows],
            self.images.select(rows),
            self.half,
            self.projector,
            self.known[rows],
            self.posterior[rows],
            self.placed[rows],
        )


class Accumulator(Protocol[P_contra]):
    """Sums over particles: sufficient statistics of a structure, or of the noise."""

    def add(self, one: InferredBatch[P_contra]) -> None:
        """Add some particles."""
        ...

    @property
    def tensors(self) -> Sequence[Tensor]:
        """The sums, which add up over batches and processes; changed in place."""
        ...


@dataclass(frozen=True)
class ParticlePass(Generic[P, R]):
    """What is done with every batch.

    Attributes
    ----------
    name : str
        Of the stage.
    source : ImageSource
    projectors : tuple of two
        Of the half-sets.
    prior : PosePrior
    inference : PoseInference
    record : callable
        Returns what is kept of the particles of a batch, one row each.
    accumulators : sequence of Accumulator
        Of the particles that :attr:`used` lets through.
    used : callable, optional
        Tells which particles of a batch add to the sums, by their record; by default
        all do.
    radius : int, optional
        Fourier radius that poses are inferred at, where images go farther.
    alignment : HalfSetAlignment
        Of the second half.
    batch_size : int
    """

    name: str
    source: ImageSource
    projectors: tuple[P, P]
    prior: PosePrior
    inference: PoseInference[P]
    record: Callable[[InferredBatch[P]], R]
    accumulators: Sequence[Accumulator[P]] = ()
    used: Callable[[R], Tensor] | None = None
    radius: int | None = None
    alignment: HalfSetAlignment = SAME_FRAME
    batch_size: int = CHUNK

    def infer(
        self, prepared: PreparedBatch, half: int, known: ParticlePosterior
    ) -> InferredBatch[P]:
        """Infer the posteriors of a batch."""
        images, projector = prepared.images, self.projectors[half]
        near = images if self.radius is None else images.prefix(self.radius)
        found = self.inference.infer(near, projector, self.prior, known)
        placed = found
        if half == 1:
            placed = replace(found, modes=self.alignment.to_first(found.modes))
        return InferredBatch(
            prepared.batch, images, half, projector, known, found, placed
        )


@dataclass(frozen=True)
class Recorded(Generic[R]):
    """What was recorded of some particles.

    Attributes
    ----------
    rows : Tensor of int64, shape (k,)
        Ascending.
    records : Indexable
        Of length k.
    """

    rows: Tensor
    records: R


def run_pass(
    problem: Problem,
    step: ParticlePass[P, R],
    known: ParticlePosterior,
    blank: R,
    monitor: Monitor,
    checkpoints: Monitor | None = None,
) -> R:
    """Infer all particles once.

    Parameters
    ----------
    problem : Problem
    step : ParticlePass
        Its accumulators hold the sums of all processes in the end.
    known : ParticlePosterior
        Of all particles, from before.
    blank : Indexable
        Records of all particles, for those that cannot be read.
    monitor : Monitor
    checkpoints : Monitor, optional
        Keeps the state of a long pass, and continues one; without it none is kept.

    Returns
    -------
    Indexable
        Records of all particles.
    """
    run = _Pass(problem, step, blank)
    if checkpoints is not None:
        run.load(checkpoints.load_checkpoint())
    chunks = run.chunks()
    monitor.stage(step.name, sum(len(rows) for rows in chunks))
    begun = kept = time.monotonic()
    segments = max(problem.world.gathered(-(-len(chunks) // _SEGMENT)))
    for number in range(segments):
        for rows in chunks[number * _SEGMENT : (number + 1) * _SEGMENT]:
            run.take(rows, known)
            monitor.advance(len(rows))
        if checkpoints is None:
            continue
        since = begun if number == segments - 1 else kept
        if problem.world.of_first(time.monotonic() - since >= KEEP_SECONDS):
            checkpoints.save_checkpoint(run.state())
            kept = time.monotonic()
    found = run.joined()
    return blank.with_rows(found.rows, found.records) if found else blank


class _Pass(Generic[P, R]):
    """The growing results of a pass."""

    def __init__(self, problem: Problem, step: ParticlePass[P, R], blank: R) -> None:
        self._problem, self._step, self._blank = problem, step, blank
        self._rows: list[Tensor] = []
        self._records: list[R] = []
        self._done = torch.zeros(len(problem.particles), dtype=torch.bool)

    def chunks(self) -> list[Tensor]:
        """Return the rows that are left for this process, batch by batch."""
        left = torch.nonzero(~self._done).squeeze(1)
        return self._problem.own_chunks(left, self._step.batch_size)

    def take(self, rows: Tensor, known: ParticlePosterior) -> None:
        """Read a batch, infer and record it, and add it to the sums."""
        step, problem = self._step, self._problem
        self._done[rows] = True
        half = int(problem.half[rows[0]])
        prepared = step.source.prepare(problem.batch(rows))
        if prepared is None:
            return
        one = step.infer(prepared, half, prepared.batch.rows_of(known))
        record = step.record(one)
        self._rows.append(prepared.batch.index.cpu())
        self._records.append(record.to("cpu"))
        if step.used is not None:
            used = step.used(record)
            if not bool(used.all()):
                one = one.select(torch.nonzero(used).squeeze(1))
        if len(one.batch):
            for accumulator in step.accumulators:
                accumulator.add(one)

    def joined(self) -> Recorded[R] | None:
        """Return what all processes have found, whose sums are added up."""
        self._problem.world.add_up(*self._tensors())
        return self._gathered()

    def state(self) -> dict[str, object]:
        """Return what all processes have found so far."""
        world = self._problem.world
        tensors = [one.cpu() for one in self._tensors()]
        if world.size > 1:
            tensors = [one.clone() for one in tensors]
            done = self._done.long()
            world.add_up(*tensors, done)
            done = done > 0
        else:
            done = self._done
        found = self._gathered()
        state: dict[str, object] = {"done": done, "sums": tensors}
        if found is not None:
            state |= {"rows": found.rows, "records": found.records.to_state()}
        return state

    def load(self, state: Mapping[str, Any] | None) -> None:
        """Go on from a state, perhaps of another number of processes."""
        if state is None:
            return
        with state_of_this_version():
            if len(state["done"]) != len(self._done):
                raise ValueError("the state is of other particles")
            self._done = state["done"].clone()
            if not self._problem.world.is_first:
                return  # what was found counts once
            if "rows" in state:
                kind = type(self._blank)
                self._rows = [state["rows"]]
                self._records = [kind.of_state(state["records"])]
            for own, kept in zip(self._tensors(), state["sums"], strict=True):
                own.copy_(kept)

    def _gathered(self) -> Recorded[R] | None:
        """Return what all processes have found; one alone then keeps it in one piece.

        Batches are let go before records are put in order: of many particles, records
        are most of the memory.
        """
        world, kind = self._problem.world, type(self._blank)
        rows = list(itertools.chain.from_iterable(world.gathered(self._rows)))
        if not rows:
            return None
        records = list(itertools.chain.from_iterable(world.gathered(self._records)))
        joined = kind.joined(records)
        if world.size == 1:
            self._records = []
        del records
        order = torch.cat(rows).argsort()
        found = Recorded(torch.cat(rows)[order], joined[order])
        if world.size == 1:
            self._rows, self._records = [found.rows], [found.records]
        return found

    def _tensors(self) -> list[Tensor]:
        return [one for each in self._step.accumulators for one in each.tensors]
