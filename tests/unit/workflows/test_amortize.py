"""A search of some, an encoder taught their map, and all particles inferred by it."""

import io
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import pytest
import torch

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.fourier.transform import map_to_fourier
from cryoinfer.inference.pose_network import PoseNetworkConfig
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.interfaces import Monitor, SilentMonitor
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows import infer as infer_workflow
from cryoinfer.workflows import particle_pass
from cryoinfer.workflows.amortize import (
    AmortizeConfig,
    Amortized,
    amortize,
    require_teachable,
)
from cryoinfer.workflows.particle_pass import ParticlePass
from cryoinfer.workflows.refine import RefineConfig, refine
from cryoinfer.workflows.train import EncoderConfig

BOX, PIXEL_SIZE, COUNT, SUBSET = 32, 3.2, 300, 160
ENCODER = EncoderConfig(
    network=PoseNetworkConfig(side=16, components=3, width=8),
    training=TrainingConfig(steps=6, batch=16, check_every=2),
)
CONFIG = AmortizeConfig(local_refinement=True, subset=SUBSET, encoder=ENCODER)


class Interrupted(Exception):  # noqa: N818  # it is no error
    """What a test stops a run with."""


class FileMonitor(SilentMonitor):
    """Sends checkpoints through a file, stops after some, and notes the stages."""

    def __init__(self, kept: bytes | None = None, stop_after: int | None = None):
        self.kept, self.stages = kept, []
        self._left = stop_after

    def stage(self, name: str, total: int) -> None:
        self.stages.append(name)

    def save_checkpoint(self, state: Mapping[str, object]) -> None:
        file = io.BytesIO()
        torch.save(dict(state), file)
        self.kept = file.getvalue()
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                raise Interrupted

    def load_checkpoint(self) -> Mapping[str, object] | None:
        if self.kept is None:
            return None
        # As on the command line: tensors, numbers and strings, no code.
        state: dict[str, object] = torch.load(io.BytesIO(self.kept), weights_only=True)
        return state


class Search:
    """A refinement from the poses of the particles, which notes what it was given."""

    def __init__(self) -> None:
        self.given: list[Particles] = []
        self.found: list[RunResult] = []

    def __call__(self, particles: Particles, monitor: Monitor) -> RunResult:
        self.given.append(particles)
        self.found.append(refine(particles, None, RefineConfig(), monitor))
        return self.found[-1]


def tensors(found: Amortized) -> dict[str, torch.Tensor]:
    result = found.result
    return {
        "density": result.reconstruction.density,
        "half1": result.reconstruction.half1,
        "rotation": result.latents.pose.rotation,
        "covariance": result.inferred.covariance[:, 0],
        "mode_weight": result.inferred.weight,
        "random_subset": result.random_subset,
        "noise": result.noise_power[0],
        "learned": found.trained.density,
    }


def rows_of(subset: Particles, particles: Particles) -> torch.Tensor:
    """Return the numbers of a stack's particles among all of it."""
    rows = torch.from_numpy(particles.table.images.row)
    picked = torch.from_numpy(subset.table.images.row)
    return torch.searchsorted(rows, picked)


def with_groups(particles: Particles, group: torch.Tensor) -> Particles:
    table = particles.table
    optics = replace(table.optics, group=group)
    return replace(particles, table=replace(table, optics=optics))


@pytest.fixture(scope="module")
def particles(simulated) -> Particles:
    made = simulated(COUNT, box=BOX, pixel_size_angstrom=PIXEL_SIZE)
    return made.with_poses()


@pytest.fixture(scope="module")
def search() -> Search:
    return Search()


@pytest.fixture(scope="module")
def whole(particles, search) -> tuple[Amortized, FileMonitor]:
    monitor = FileMonitor()
    return amortize(particles, search, CONFIG, monitor), monitor


def test_a_part_is_searched_and_all_are_inferred(whole, search, particles) -> None:
    found, monitor = whole
    assert [len(given) for given in search.given] == [SUBSET]
    assert found.searched.particles == SUBSET
    assert found.result.latents.pose.rotation.shape == (COUNT, 3, 3)
    assert found.result.reconstruction.density.shape == (BOX,) * 3
    assert found.result.inferred.log_likelihood.isfinite().all()
    # The progress says in which part it is.
    parts = [name.partition(": ")[0] for name in monitor.stages]
    assert list(dict.fromkeys(parts)) == ["subset", "encoder", "all particles"]
    # What the search has told of itself stays.
    run = search.found[0]
    assert found.searched.resolution_angstrom == run.reconstruction.resolution_angstrom
    names = [f"subset: {one.name}" for one in run.iterations]
    assert [one.name for one in found.result.iterations] == names


def test_halves_of_the_search_are_halves_of_the_map(whole, search, particles) -> None:
    found, _ = whole
    index = rows_of(search.given[0], particles)
    assert torch.equal(found.result.random_subset[index], search.found[0].random_subset)
    for part in (found.result.random_subset, search.found[0].random_subset):
        # Drawn by halves, so that each is one half to a particle.
        assert int((part == 1).sum()) == pytest.approx(len(part) / 2, abs=1)


def test_halves_that_particles_have_are_kept(particles) -> None:
    own = (torch.arange(COUNT) % 3 == 0).long() + 1
    search = Search()
    found = amortize(
        particles.with_results(random_subset=own), search, CONFIG, SilentMonitor()
    )
    assert torch.equal(found.result.random_subset, own)
    index = rows_of(search.given[0], particles)
    assert torch.equal(search.found[0].random_subset, own[index])


def test_an_encoder_alone_leaves_its_poses_as_they_are(whole, particles) -> None:
    # From the end of the training: neither search nor training is repeated.
    _, monitor = whole
    again = FileMonitor(monitor.kept)
    alone = amortize(particles, _never, replace(CONFIG, local_refinement=False), again)
    assert len(alone.result.latents.pose) == COUNT
    # The background of the encoder has some of every particle.
    assert (alone.result.inferred.weight.sum(1) < 1 - 1e-6).all()
    assert not any(name.startswith("subset") for name in again.stages)


def test_a_run_without_more_particles_searches_all(particles) -> None:
    given = []

    def look(subset: Particles, monitor: Monitor) -> RunResult:
        given.append(subset)
        raise Interrupted

    for size in (COUNT, 10 * COUNT):
        with pytest.raises(Interrupted):
            amortize(particles, look, replace(CONFIG, subset=size), SilentMonitor())
    assert [len(subset) for subset in given] == [COUNT, COUNT]


def test_every_optics_group_is_in_the_subset(particles) -> None:
    group = torch.zeros(COUNT, dtype=torch.int64)
    group[-4:] = 1
    group[100:200] = 2
    given = []

    def look(subset: Particles, monitor: Monitor) -> RunResult:
        given.append(subset)
        raise Interrupted

    grouped = with_groups(particles, group)
    for seed in (0, 0, 1):
        chosen = replace(CONFIG, subset=60, seed=seed)
        with pytest.raises(Interrupted):
            amortize(grouped, look, chosen, SilentMonitor())
    count = torch.bincount(given[0].optics.group)
    # Shares alone would give the small group one particle.
    assert count[1] == 4
    assert 60 <= len(given[0]) <= 70
    # The map takes its box and pixel size from the first particle.
    assert int(rows_of(given[0], particles)[0]) == 0
    first, same, other = (rows_of(subset, particles).tolist() for subset in given)
    assert first == same
    assert first != other


# The search of this set takes some passes; 6 steps of training keep a state thrice.
@pytest.mark.parametrize(
    "part",
    [
        "search",
        "training",
        *(
            pytest.param(part, marks=pytest.mark.slow)
            for part in ("training begins", "ends")
        ),
    ],
)
def test_a_resumed_run_is_bitwise_the_uninterrupted_one(whole, particles, part) -> None:
    complete, _ = whole
    passes = len(complete.searched.iterations)
    # The search keeps its beginning and all passes but the last, then its result.
    after = {
        "search": 1,
        "training begins": passes + 1,
        "training": passes + 3,
        "ends": passes + 4,
    }[part]
    stopped = FileMonitor(stop_after=after)
    with pytest.raises(Interrupted):
        amortize(particles, Search(), CONFIG, stopped)
    resumed = FileMonitor(stopped.kept)
    search = Search() if part == "search" else _never
    again = amortize(particles, search, CONFIG, resumed)
    expected = tensors(complete)
    for name, value in tensors(again).items():
        assert torch.equal(value, expected[name]), name
    assert again.trained.checks == complete.trained.checks
    assert again.trained.verdict == complete.trained.verdict
    names = [
        [one.name for one in found.result.iterations] for found in (again, complete)
    ]
    assert names[0] == names[1]


def test_a_pass_over_all_particles_goes_on_where_it_stopped(
    whole, particles, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, monitor = whole
    few = partial(ParticlePass, batch_size=32)
    monkeypatch.setattr(infer_workflow, "ParticlePass", few)
    # All but the pass is over: sums of other batches would be rounded otherwise.
    complete = amortize(particles, _never, CONFIG, FileMonitor(monitor.kept))
    # Batches of another size are added up in another order.
    complete = amortize(particles, _never, CONFIG, FileMonitor(monitor.kept))
    monkeypatch.setattr(particle_pass, "KEEP_SECONDS", 0.0)
    # Four batches of ten, of two halves of 150.
    stopped = FileMonitor(monitor.kept, stop_after=1)
    with pytest.raises(Interrupted):
        amortize(particles, _never, CONFIG, stopped)
    kept = torch.load(io.BytesIO(stopped.kept), weights_only=True)
    assert 0 < int(kept["all particles"]["done"].sum()) < COUNT
    again = amortize(particles, _never, CONFIG, FileMonitor(stopped.kept))
    expected = tensors(complete)
    for name, value in tensors(again).items():
        assert torch.equal(value, expected[name]), name


def test_poses_see_no_further_than_they_are_told(whole, particles) -> None:
    _, monitor = whole
    limit = 12.8
    chosen = replace(CONFIG, resolution_angstrom=limit)
    # Where the search is over, and the training has yet to begin.
    kept = torch.load(io.BytesIO(monitor.kept), weights_only=True)
    file = io.BytesIO()
    torch.save({"searched": kept["searched"]}, file)
    found = amortize(particles, _never, chosen, FileMonitor(file.getvalue()))
    coefficients = map_to_fourier(found.trained.density).abs()
    radius, line = torch.arange(BOX // 2), coefficients[0, 0, : BOX // 2]
    last = BOX * PIXEL_SIZE / limit
    # Rounding of single precision, against zero.
    assert float(line[radius > last].max()) < 1e-5 * float(line.max())
    assert float(line[radius <= last].min()) > 1e-3 * float(line.max())


def test_what_no_encoder_can_learn_is_refused_before_the_search(simulated) -> None:
    mixed = simulated(optics_groups=2).particles
    with pytest.raises(InputError, match=r"in optics group 2: .* --method search"):
        amortize(mixed, _never, CONFIG, SilentMonitor())
    small = simulated().particles
    with pytest.raises(InputError, match="at most the 24 of the box, found 32"):
        require_teachable(small, EncoderConfig())


def _never(subset: Particles, monitor: Monitor) -> RunResult:
    raise AssertionError("nothing is left to search")
