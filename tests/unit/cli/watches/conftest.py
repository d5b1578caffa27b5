"""A folder that fills, with an inference that knows its answer at once."""

import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from cryoinfer.cli import watching
from cryoinfer.cli.particle_options import AS_WRITTEN, ParticleOptions
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.run_folder import RunFolder
from cryoinfer.cli.watching import Watch
from cryoinfer.data.particles import Particles
from cryoinfer.inference.prior import PosePrior
from cryoinfer.results.run_record import RunRecord
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.infer import InferConfig
from cryoinfer.workflows.inferred import Inferred, InferredParticles
from cryoinfer.workflows.structure_update import HalfMapSums

BOX = 16
OFFSET_ANGSTROM = 7.0

Start = Callable[..., tuple[Watch, io.StringIO]]


def deliver(source: Path, folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    shutil.copy(source / "particles.mrcs", folder / f"{name}.mrcs")
    text = (source / "particles.star").read_text()
    (folder / f"{name}.star").write_text(text.replace("particles.mrcs", f"{name}.mrcs"))


@pytest.fixture
def start(
    tmp_path: Path, result: RunResult, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Start]:
    """Yield a function that begins a watch, or goes on with it."""

    def infer(particles: Particles, *_: object) -> Inferred:
        n = len(particles)
        unseen = InferredParticles.unseen(n, PosePrior(1.0, 100.0))
        posterior = unseen.posterior
        offset = torch.full_like(posterior.weight, OFFSET_ANGSTROM)
        modes = replace(posterior.modes, defocus_offset_angstrom=offset)
        unseen = replace(
            unseen,
            posterior=replace(posterior, modes=modes),
            unreadable=torch.zeros(n, dtype=torch.bool),
        )
        noise, half = (torch.ones(BOX // 2 + 1),), torch.arange(n) % 2
        return Inferred(unseen, half, noise, HalfMapSums.empty(BOX, BOX // 2 - 1))

    def reconstruct(particles: Particles, found: Inferred, *_: object) -> RunResult:
        return replace(
            result,
            inferred=found.particles.posterior,
            random_subset=found.half + 1,
            entropy_nats=found.particles.entropy_nats,
            outlier_score_nats=found.particles.outlier_score_nats,
            unreadable=found.particles.unreadable,
        )

    monkeypatch.setattr(watching, "infer_particles", infer)
    monkeypatch.setattr(watching, "reconstruct_inferred", reconstruct)
    trained = SimpleNamespace(encoder=SimpleNamespace(grid=SimpleNamespace(box=BOX)))
    folders = []

    def begin(
        resume: bool, reading: ParticleOptions = AS_WRITTEN
    ) -> tuple[Watch, io.StringIO]:
        for folder in folders:
            folder.__exit__(None, None, None)  # gives the lock back
        record = RunRecord.of_now("infer", {}, {}, 0, 1)
        folder = RunFolder(tmp_path / "run", record, resume)
        folders[:] = [folder]
        screen = io.StringIO()
        console = Console(file=screen, width=200)
        monitor = RichMonitor(console, folder.log, folder.state("watch.pt"))
        told = {"verdict": "converged", "trials": {}}
        return Watch(folder, reading, trained, InferConfig(), monitor, told), screen

    yield begin
    for folder in folders:
        folder.__exit__(None, None, None)


@dataclass(frozen=True)
class Loading(ParticleOptions):
    """Reading whose answer a test gives."""

    answer: Callable[[Path], Particles] = Particles.load

    def load(self, path: Path) -> Particles:
        return self.answer(path)
