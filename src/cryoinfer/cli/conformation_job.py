"""What commands about conformations share: options, particles, and the run's course."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from rich.console import Console
from torch import Tensor

from cryoinfer.cli.arguments import recorded_path
from cryoinfer.cli.device import chosen_device, device_words
from cryoinfer.cli.estimate import HeterogeneityWork, estimate_heterogeneity
from cryoinfer.cli.nothing_found import INHERITED, inherited
from cryoinfer.cli.options import DeviceName
from cryoinfer.cli.particle_options import ParticleOptions
from cryoinfer.cli.plan import Plan
from cryoinfer.cli.processes import is_bidden, leading
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.rejected_particles import (
    chosen_particles,
    flag_words,
    used_particles,
)
from cryoinfer.cli.run_folder import RunFolder, require_elsewhere
from cryoinfer.cli.runs import explained_interruption, is_done
from cryoinfer.cli.terminal import say
from cryoinfer.cli.threads import use_threads
from cryoinfer.data.particles import Particles
from cryoinfer.errors import NothingFoundError
from cryoinfer.interfaces import Monitor, SilentMonitor
from cryoinfer.io.files import content_sha256
from cryoinfer.results import run_files
from cryoinfer.results.run_record import REMARKS, RunRecord
from cryoinfer.world import World

WORKFLOW = "heterogeneity"
F = TypeVar("F")


@dataclass(frozen=True, kw_only=True)
class ConformationOptions:
    """What a user asks of both, a subspace and classes.

    Attributes
    ----------
    particles, out : Path
    poses : {"unknown", "given"}
    resolution : float
        That conformations, or classes, are inferred at, in angstrom.
    particle_diameter, max_shift : float or None
        In angstrom.
    learn : int
        Most particles that are learned from.
    reading : ParticleOptions
    seed : int
    threads : int or None
    device : {"auto", "cpu", "cuda"}
    resume, overwrite, dry_run : bool
    """

    particles: Path
    out: Path
    poses: Literal["unknown", "given"]
    resolution: float
    particle_diameter: float | None
    max_shift: float | None
    learn: int
    reading: ParticleOptions
    seed: int
    threads: int | None
    device: DeviceName
    resume: bool
    overwrite: bool
    dry_run: bool = False

    def own_arguments(self) -> dict[str, Any]:
        """Return what decides the result of one model alone."""
        return {}

    def own_inputs(self) -> dict[str, Path]:
        """Return the files of one model beside the particles, by what they are."""
        return {}

    def own_remarks(self) -> list[str]:
        """Return what is to be known of the result of one model."""
        return []

    def arguments(self) -> dict[str, Any]:
        """Return what decides the result, by option, in values that JSON knows."""
        return {
            "particles": recorded_path(self.particles),
            **self.own_arguments(),
            "poses": self.poses,
            "resolution": self.resolution,
            "particle-diameter": self.particle_diameter,
            "max-shift": self.max_shift,
            "learn": self.learn,
            **self.reading.arguments(),
            "seed": self.seed,
        }

    def shared_choices(self) -> dict[str, Any]:
        """Return the attributes of a `ConformationConfig`."""
        return {
            "poses": self.poses,
            "resolution_angstrom": self.resolution,
            "particle_diameter_angstrom": self.particle_diameter,
            "max_shift_angstrom": self.max_shift,
            "learning_particles": self.learn,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class ConformationJob:
    """Options, and what was read on their behalf.

    Attributes
    ----------
    options : ConformationOptions
    particles : Particles
        All of the file.
    used : Tensor of bool, shape (n,)
        Which no earlier run has flagged.
    chosen : Particles
        Those.
    world : World
        The processes that share them.
    device : torch.device
    """

    options: ConformationOptions
    particles: Particles
    used: Tensor
    chosen: Particles
    world: World
    device: torch.device

    @classmethod
    def read(cls, options: ConformationOptions, world: World) -> "ConformationJob":
        """Read the particles; refuse a folder of theirs."""
        require_elsewhere(
            options.out, options.particles, *options.own_inputs().values()
        )
        particles = options.reading.load(options.particles)
        used = used_particles(WORKFLOW, particles)
        chosen = chosen_particles(particles, used)
        device = chosen_device(options.device)
        return cls(options, particles, used, chosen, world, device)

    @property
    def remarks(self) -> list[str]:
        """What is to be said of the particles, and of the model."""
        own, particles = self.options.own_remarks(), self.particles
        return [*flag_words(WORKFLOW, particles), *particles.remarks, *own]

    @property
    def inherited(self) -> list[str]:
        """What is to be known of the run whose poses are taken."""
        posed = self.options.poses == "given"
        return inherited(self.options.particles if posed else None)

    def record(self) -> RunRecord:
        """Return the record of the run that would begin now."""
        options = self.options
        inputs = run_files.fingerprint(self.particles, options.particles, None)
        for name, path in options.own_inputs().items():
            inputs[name] = {"sha256": content_sha256(path)}
        return RunRecord.of_now(
            WORKFLOW,
            options.arguments(),
            inputs,
            options.seed,
            use_threads(options.threads),
            str(self.device),
        )

    def plan(self, sought: str, tried: int, steps: int, threads: int) -> Plan:
        """Return what would be done and what it will take.

        Parameters
        ----------
        sought : str
            In words.
        tried : int
            Components, or classes.
        steps : int
            Of the training of an encoder; 0 for none.
        threads : int
        """
        options, n = self.options, len(self.chosen)
        length = self.chosen.box * self.chosen.pixel_size_angstrom
        work = HeterogeneityWork(
            min(n, options.learn),
            length / options.resolution,
            tried,
            options.poses == "unknown",
            steps,
        )
        estimate = estimate_heterogeneity(work, n, self.chosen.box, threads)
        said = f"{WORKFLOW}, {sought}, poses {options.poses}"
        return Plan(said, self.particles, options.out, threads, estimate)


@dataclass(frozen=True)
class ConformationModel(Generic[F]):
    """What differs between a subspace and classes.

    Attributes
    ----------
    plan : callable
        Returns the plan for a number of threads.
    infer : callable
        Returns what is found.
    finish : callable
        Writes it, with numbers for the record, and returns what is to be said.
    """

    plan: Callable[[int], Plan]
    infer: Callable[[Monitor], F]
    finish: Callable[[RunFolder, F, dict[str, Any]], Sequence[str]]


def run_job(
    job: ConformationJob, model: ConformationModel[F], console: Console
) -> None:
    """Infer what is asked, and write a run folder; or say what it would take.

    Of several processes the first does all that users see.

    Parameters
    ----------
    job : ConformationJob
        That has been found to work.
    model : ConformationModel
    console : Console

    Raises
    ------
    OutputError
        If the folder is taken or cannot be written.
    """
    if job.world.is_first:
        with leading(job.world) as begin:
            _lead(job, model, begin, console)
    elif is_bidden(job.world):
        use_threads(job.options.threads)
        with suppress(NothingFoundError):  # the first one tells
            model.infer(SilentMonitor())


def _lead(
    job: ConformationJob,
    model: ConformationModel[F],
    begin: Callable[[], None],
    console: Console,
) -> None:
    """Do all that users see; ``begin`` as soon as nothing is in the way."""
    options, record = job.options, job.record()
    if is_done(options.out, record, options.resume, options.overwrite, console):
        return
    plan = model.plan(record.machine["threads"])
    if options.dry_run:
        for text in (*device_words(job.device), *job.remarks):
            say(console, text)
        plan.print(console)
        return
    plan.require_disk()
    with RunFolder(options.out, record, options.resume, options.overwrite) as folder:
        begin()  # the folder is ours
        folder.log(f"cryoinfer {WORKFLOW}, {options.arguments()}")
        monitor = RichMonitor(console, folder.log, folder.state())
        for text in (*device_words(job.device), *job.remarks):
            monitor.message(text)
        for text in job.inherited:
            monitor.message(f"Caution: {text}")
        try:
            with explained_interruption(folder, console), monitor:
                found = model.infer(monitor)
        finally:
            folder.add_times(monitor.stage_seconds)
        numbers = {REMARKS: job.remarks, INHERITED: job.inherited}
        for line in model.finish(folder, found, numbers):
            monitor.message(line)
