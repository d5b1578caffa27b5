"""The discrete classes of particles."""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from rich.console import Console

from cryoinfer.cli.class_page import HALVES, read_classes
from cryoinfer.cli.conformation_job import (
    ConformationJob,
    ConformationModel,
    ConformationOptions,
    run_job,
)
from cryoinfer.cli.nothing_found import resolution_words
from cryoinfer.cli.plan import Plan
from cryoinfer.cli.processes import joined_processes
from cryoinfer.cli.report_page import write_report
from cryoinfer.cli.run_folder import RunFolder
from cryoinfer.cli.terminal import aligned
from cryoinfer.interfaces import Monitor
from cryoinfer.report.classes import assess_classes, class_verdict
from cryoinfer.report.parts import cautions
from cryoinfer.results import layout
from cryoinfer.results.class_files import write_classes
from cryoinfer.results.classes import Classes
from cryoinfer.results.flags import OBEYED
from cryoinfer.results.map_numbers import map_numbers
from cryoinfer.workflows.class_config import ClassConfig, require_enough_for_classes
from cryoinfer.workflows.class_maps import classes
from cryoinfer.workflows.reconstruct import given_poses


@dataclass(frozen=True, kw_only=True)
class ClassOptions(ConformationOptions):
    """What a user asks of an inference of classes.

    Attributes
    ----------
    classes : int or None
        None for as many as held-out images ask for.
    """

    classes: int | None

    def own_arguments(self) -> dict[str, Any]:
        """Return what decides the result of classes alone."""
        return {"model": "classes", "classes": self.classes}

    def config(self) -> ClassConfig:
        """Return what the workflow is given."""
        return ClassConfig(classes=self.classes, **self.shared_choices())


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
        job = ConformationJob.read(options, world)
        require_enough_for_classes(len(job.chosen), options.config())
        if options.poses == "given":
            given_poses(job.chosen)
        run_job(job, _model(job, options), console)


def _model(job: ConformationJob, options: ClassOptions) -> ConformationModel[Classes]:
    """Return what is particular to classes."""
    config = options.config()

    def plan(threads: int) -> Plan:
        count = options.classes
        sought = "as many classes as say something"
        if count is not None:
            sought = f"{count} class{'es' if count > 1 else ''}"
        return job.plan(sought, config.begun_with(len(job.chosen)), 0, threads)

    def infer(monitor: Monitor) -> Classes:
        return classes(job.chosen, config, monitor, job.world, job.device)

    return ConformationModel(plan, infer, partial(_finish, job))


def _finish(
    job: ConformationJob, folder: RunFolder, found: Classes, numbers: dict[str, Any]
) -> list[str]:
    """Write all files of a run, and return what is to be said of it."""
    write_classes(folder.path, job.particles, job.used, found)
    numbers = {**numbers, **_numbers(job, found)}
    folder.describe(numbers, [])
    content = read_classes(folder.path)
    numbers["cautions"] = warned = cautions(assess_classes(content))
    folder.describe(numbers, [])
    write_report(folder.path)
    folder.finish()
    return [*_summary(folder, found), *(f"Caution: {text}" for text in warned)]


def _numbers(job: ConformationJob, found: Classes) -> dict[str, Any]:
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
