"""The discrete classes of particles."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from rich.console import Console
from torch import Tensor

from cryoinfer.cli.arguments import recorded_path
from cryoinfer.cli.class_page import HALVES, read_classes
from cryoinfer.cli.estimate import HeterogeneityWork, estimate_heterogeneity
from cryoinfer.cli.nothing_found import INHERITED, inherited, resolution_words
from cryoinfer.cli.particle_options import ParticleOptions
from cryoinfer.cli.plan import Plan
from cryoinfer.cli.processes import joined_processes, require_alone
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.rejected_particles import (
    chosen_particles,
    flag_words,
    used_particles,
)
from cryoinfer.cli.report_page import write_report
from cryoinfer.cli.run_folder import RunFolder, require_elsewhere
from cryoinfer.cli.runs import explained_interruption, is_done
from cryoinfer.cli.terminal import aligned, say
from cryoinfer.cli.threads import use_threads
from cryoinfer.data.particles import Particles
from cryoinfer.report.classes import assess_classes, class_verdict
from cryoinfer.report.parts import cautions
from cryoinfer.results import layout, run_files
from cryoinfer.results.class_files import write_classes
from cryoinfer.results.classes import Classes
from cryoinfer.results.flags import OBEYED
from cryoinfer.results.map_numbers import map_numbers
from cryoinfer.results.run_record import REMARKS, RunRecord
from cryoinfer.workflows.class_config import ClassConfig, require_enough_for_classes
from cryoinfer.workflows.class_maps import classes
from cryoinfer.workflows.reconstruct import given_poses


@dataclass(frozen=True)
class ClassOptions:
    """What a user asks of an inference of classes.

    Attributes
    ----------
    particles, out : Path
    classes : int or None
        None for as many as held-out images ask for.
    poses : {"unknown", "given"}
    resolution : float
        That classes are inferred at, in angstrom.
    particle_diameter, max_shift : float or None
        In angstrom.
    learn : int
        Most particles that the classes are learned from.
    reading : ParticleOptions
    seed : int
    threads : int or None
    resume, overwrite, dry_run : bool
    """

    particles: Path
    out: Path
    classes: int | None
    poses: Literal["unknown", "given"]
    resolution: float
    particle_diameter: float | None
    max_shift: float | None
    learn: int
    reading: ParticleOptions
    seed: int
    threads: int | None
    resume: bool
    overwrite: bool
    dry_run: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return what decides the result, by option, in values that JSON knows."""
        return {
            "particles": recorded_path(self.particles),
            "model": "classes",
            "classes": self.classes,
            "poses": self.poses,
            "resolution": self.resolution,
            "particle-diameter": self.particle_diameter,
            "max-shift": self.max_shift,
            "learn": self.learn,
            **self.reading.arguments(),
            "seed": self.seed,
        }

    def config(self) -> ClassConfig:
        """Return what the workflow is told."""
        return ClassConfig(
            classes=self.classes,
            poses=self.poses,
            resolution_angstrom=self.resolution,
            particle_diameter_angstrom=self.particle_diameter,
            max_shift_angstrom=self.max_shift,
            learning_particles=self.learn,
            seed=self.seed,
        )


def find_classes(options: ClassOptions, console: Console) -> None:
    """Infer the class of every particle, and write a run folder.

    Everything that can be known to be wrong is refused before anything is written.

    Raises
    ------
    InputError
        If particles or options cannot be used, or show no structure.
    OutputError
        If the folder is taken or cannot be written.
    """
    with joined_processes() as world:
        require_alone(world, "heterogeneity")
    job = _Job.prepare(options)
    record = job.record()
    if is_done(options.out, record, options.resume, options.overwrite, console):
        return
    plan = job.plan(record.machine["threads"])
    if options.dry_run:
        for text in job.remarks:
            say(console, text)
        plan.print(console)
        return
    plan.require_disk()
    with RunFolder(options.out, record, options.resume, options.overwrite) as folder:
        folder.log(f"cryoinfer heterogeneity, {options.arguments()}")
        monitor = RichMonitor(console, folder.log, folder.state())
        for text in job.remarks:
            monitor.message(text)
        for text in job.inherited:
            monitor.message(f"Caution: {text}")
        try:
            with explained_interruption(folder, console), monitor:
                found = classes(job.chosen, options.config(), monitor)
        finally:
            folder.add_times(monitor.stage_seconds)
        write_classes(options.out, job.particles, job.used, found)
        for line in _finish(folder, job, found):
            monitor.message(line)


@dataclass(frozen=True)
class _Job:
    """Options, and what was read on their behalf."""

    options: ClassOptions
    particles: Particles
    used: Tensor
    chosen: Particles

    @classmethod
    def prepare(cls, options: ClassOptions) -> Self:
        """Read the inputs and refuse what cannot work."""
        require_elsewhere(options.out, options.particles)
        particles = options.reading.load(options.particles)
        used = used_particles("heterogeneity", particles)
        chosen = chosen_particles(particles, used)
        require_enough_for_classes(len(chosen), options.config())
        if options.poses == "given":
            given_poses(chosen)
        return cls(options, particles, used, chosen)

    @property
    def remarks(self) -> list[str]:
        """What is to be said of the particles."""
        said = flag_words("heterogeneity", self.particles)
        return [*said, *self.particles.remarks]

    @property
    def inherited(self) -> list[str]:
        """What is to be known of the run whose poses are taken."""
        posed = self.options.poses == "given"
        return inherited(self.options.particles if posed else None)

    def record(self) -> RunRecord:
        """Return the record of the run that would begin now."""
        options = self.options
        return RunRecord.of_now(
            "heterogeneity",
            options.arguments(),
            run_files.fingerprint(self.particles, options.particles, None),
            options.seed,
            use_threads(options.threads),
        )

    def plan(self, threads: int) -> Plan:
        """Return what would be done and what it will take."""
        options, n = self.options, len(self.chosen)
        length = self.chosen.box * self.chosen.pixel_size_angstrom
        work = HeterogeneityWork(
            min(n, options.learn),
            length / options.resolution,
            options.config().begun_with(n),
            options.poses == "unknown",
            steps=0,
        )
        estimate = estimate_heterogeneity(work, n, self.chosen.box, threads)
        count = options.classes
        asked = "as many classes as say something"
        if count is not None:
            asked = f"{count} class{'es' if count > 1 else ''}"
        told = f"heterogeneity, {asked}, poses {options.poses}"
        return Plan(told, self.particles, options.out, threads, estimate)


def _finish(folder: RunFolder, job: _Job, found: Classes) -> list[str]:
    """Write record and report of a run, and return what is to be said of it."""
    numbers = _numbers(job, found)
    folder.describe(numbers, [])
    content = read_classes(folder.path)
    numbers["cautions"] = warned = cautions(assess_classes(content))
    folder.describe(numbers, [])
    write_report(folder.path)
    folder.finish()
    return [*_summary(folder, found), *(f"Caution: {text}" for text in warned)]


def _numbers(job: _Job, found: Classes) -> dict[str, Any]:
    """Return what the record of the run holds."""
    left = len(job.particles) - len(job.chosen)
    shares = zip(
        found.population.share.tolist(), found.population.se.tolist(), strict=True
    )
    each = [
        {"population": share, "population_se": error, **map_numbers(maps)}
        for (share, error), maps in zip(shares, found.reconstructions, strict=True)
    ]
    return {
        "particles": len(job.chosen),
        REMARKS: job.remarks,
        INHERITED: job.inherited,
        **({OBEYED: left} if left else {}),
        "classes": found.count,
        "symmetry": found.reconstructions[0].symmetry,
        "verdict": class_verdict(found.gain, found.count),
        "held_out_gain": asdict(found.gain),
        "class_maps": each,
    }


def _summary(folder: RunFolder, found: Classes) -> list[str]:
    """Return what a finished run has led to."""
    rows = {"Classes": class_verdict(found.gain, found.count)}
    for number, maps in enumerate(found.reconstructions):
        share, error = found.population.share[number], found.population.se[number]
        told = resolution_words(map_numbers(maps), HALVES)
        rows[f"Class {number + 1}"] = (
            f"{float(share):.1%} ± {float(error):.1%} of the particles, {told}"
        )
    rows["Results"] = str(folder.path)
    rows["Report"] = str(folder.path / layout.REPORT)
    return aligned(rows)
