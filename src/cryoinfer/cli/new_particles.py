"""Particles that nothing was learned from: a file of them, or a folder as it fills."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cryoinfer.cli.arguments import recorded_path
from cryoinfer.cli.conformation_run import finish_conformations
from cryoinfer.cli.inference_sources import (
    EncoderSource,
    InferenceSource,
    RunSource,
)
from cryoinfer.cli.inputs import inference_path
from cryoinfer.cli.nothing_found import (
    INHERITED,
    ONE_MAP,
    OWN_CAUTIONS,
    inherited,
    resolution_words,
)
from cryoinfer.cli.particle_options import ParticleOptions
from cryoinfer.cli.plan import Plan
from cryoinfer.cli.processes import (
    is_bidden,
    joined_processes,
    leading,
    require_alone,
)
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.rejected_particles import LeftOut
from cryoinfer.cli.results import CAUTIONS, write_results
from cryoinfer.cli.run_folder import RunFolder, require_elsewhere
from cryoinfer.cli.runs import explained_interruption, is_done
from cryoinfer.cli.terminal import aligned
from cryoinfer.cli.threads import use_threads
from cryoinfer.cli.watching import Watch
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.interfaces import Monitor, SilentMonitor
from cryoinfer.io.files import content_sha256
from cryoinfer.results import layout, run_files
from cryoinfer.results.calibration_trial import CalibrationTrial
from cryoinfer.results.heterogeneity import Heterogeneity
from cryoinfer.results.run_record import REMARKS, RunRecord
from cryoinfer.results.run_result import RunResult
from cryoinfer.wording import format_duration
from cryoinfer.workflows.infer import INFERENCE, InferConfig
from cryoinfer.world import World


@dataclass(frozen=True)
class InferOptions:
    """What a user asks of an inference.

    Attributes
    ----------
    encoder : Path
        Folder of an encoder, or its file; or folder of a run about conformations.
    particles, out : Path
        A file, or with ``watch`` a folder of files; and the folder of the run.
    local_refinement : bool
    watch : bool
    until_idle : float or None
        Seconds without a new file after which watching ends; more than 0.
    symmetry : str or None
        None for that of the map that was learned.
    reading : ParticleOptions
    seed : int
    threads : int or None
    resume, overwrite, dry_run : bool
    """

    encoder: Path
    particles: Path
    out: Path
    local_refinement: bool
    watch: bool
    until_idle: float | None
    symmetry: str | None
    reading: ParticleOptions
    seed: int
    threads: int | None
    resume: bool
    overwrite: bool
    dry_run: bool = False

    def arguments(self, symmetry: str) -> dict[str, Any]:
        """Return what decides the result, by option, in values that JSON knows."""
        return {
            "encoder": recorded_path(inference_path(self.encoder)),
            "particles": recorded_path(self.particles),
            "watch": self.watch,
            "no-refinement": not self.local_refinement,
            "symmetry": symmetry,
            **self.reading.arguments(),
            "seed": self.seed,
        }


def infer_unseen(options: InferOptions, console: Console) -> None:
    """Infer particles with an encoder or in the maps of a run, and write a run folder.

    Options that contradict each other have been refused before (``require_unseen``).

    Raises
    ------
    InputError
        If encoder or particles cannot be used.
    OutputError
        If the folder is taken or cannot be written.
    """
    with joined_processes() as world:
        source = read_source(options.encoder)
        symmetry = options.symmetry or source.symmetry
        symmetry_rotations(symmetry)
        config = InferConfig(
            local_refinement=options.local_refinement,
            symmetry=symmetry,
            seed=options.seed,
        )
        if options.watch:
            require_alone(world, "--watch")
            _watch(options, _of_one_map(source), config, console)
            return
        particles = options.reading.load(options.particles)
        require_elsewhere(options.out, source.path, options.particles)
        source.require_alike(particles)
        known, doubts = source.known(options.local_refinement)
        job = _Job(options, particles, source, config, world, known, doubts)
        if world.is_first:
            with leading(world) as begin:
                _lead(job, begin, console)
        elif is_bidden(world):
            use_threads(options.threads)
            job.infer(SilentMonitor())


def read_source(path: Path) -> InferenceSource:
    """Read an encoder, or the maps of a run that has none.

    Raises
    ------
    InputError
        If there is neither.
    """
    found = inference_path(path)
    return RunSource.read(found) if found.is_dir() else EncoderSource.read(found)


def _of_one_map(source: InferenceSource) -> EncoderSource:
    """Refuse to watch with what has learned conformations.

    Raises
    ------
    InputError
    """
    if isinstance(source, EncoderSource) and not source.trained.components:
        return source
    raise InputError(
        f"--watch knows one map, and {source.path} has learned conformations: infer a "
        "file of particles at a time"
    )


@dataclass(frozen=True)
class _Job:
    """Options, and what was read on their behalf."""

    options: InferOptions
    particles: Particles
    source: InferenceSource
    config: InferConfig
    world: World
    known: dict[str, Any]
    doubts: list[str]

    def infer(self, monitor: Monitor) -> RunResult | Heterogeneity:
        """Do this process's share."""
        return self.source.infer(self.particles, self.config, monitor, self.world)


def _lead(job: _Job, begin: Callable[[], None], console: Console) -> None:
    """Do all that users see; ``begin`` as soon as nothing is in the way."""
    options, particles = job.options, job.particles
    inputs = run_files.fingerprint(particles, options.particles, job.source.file)
    record = _record(options, job.config, inputs)
    if is_done(options.out, record, options.resume, options.overwrite, console):
        return
    threads = record.machine["threads"]
    estimate = job.source.estimate(len(particles), particles.box, threads)
    work = f"infer, symmetry {job.config.symmetry}"
    plan = Plan(work, particles, options.out, threads, estimate)
    if options.dry_run:
        plan.print(console)
        return
    plan.require_disk()
    with RunFolder(options.out, record, options.resume, options.overwrite) as folder:
        begin()  # the folder is ours
        monitor = RichMonitor(console, folder.log, folder.state())
        told = _begin(folder, monitor, job.source, job.known, job.doubts)
        with explained_interruption(folder, console):
            try:
                with monitor:
                    for remark in particles.remarks:
                        monitor.message(remark)
                    result = job.infer(monitor)
            finally:
                folder.add_times(monitor.stage_seconds)
            told |= {REMARKS: list(particles.remarks)}
            if isinstance(result, Heterogeneity):
                every = torch.ones(len(particles), dtype=torch.bool)
                said = finish_conformations(folder, particles, every, result, told)
            else:
                write_results(folder, particles, result, told)
                said = _summary(folder, monitor)
        for line in said:
            monitor.message(line)


def _watch(
    options: InferOptions,
    source: EncoderSource,
    config: InferConfig,
    console: Console,
) -> None:
    path, trained = source.path, source.trained
    known, doubts = source.known(options.local_refinement)
    require_elsewhere(options.out, path, options.particles)
    inputs: dict[str, object] = {"encoder": {"sha256": content_sha256(path)}}
    record = _record(options, config, inputs)
    with RunFolder(options.out, record, options.resume, options.overwrite) as folder:
        # Beside the results, not in the checkpoint, which ends with the run: more
        # files may come after it.
        state = folder.state(layout.WATCH)
        monitor = RichMonitor(console, folder.log, state)
        told = _begin(folder, monitor, source, known, doubts)
        watch = Watch(folder, options.reading, trained, config, monitor, told)
        try:
            with monitor:
                watch.follow(options.particles, options.until_idle)
        finally:
            folder.add_times(monitor.stage_seconds)
        if not watch.has_results:
            left = "".join(f". {name}: {why}" for name, why in watch.left.items())
            raise InputError(
                f"no particles could be inferred: expected .star or .cs files in "
                f"{options.particles}{left}"
            )
        watch.conclude()
        folder.finish()
        for line in _summary(folder, monitor):
            monitor.message(line)
        monitor.message("The same command with --resume infers what comes later.")


def _record(
    options: InferOptions, config: InferConfig, inputs: dict[str, object]
) -> RunRecord:
    assert config.symmetry is not None
    threads = use_threads(options.threads)
    arguments = options.arguments(config.symmetry)
    return RunRecord.of_now("infer", arguments, inputs, options.seed, threads)


def _begin(
    folder: RunFolder,
    monitor: RichMonitor,
    source: InferenceSource,
    known: dict[str, Any],
    doubts: list[str],
) -> dict[str, Any]:
    """Say what is known of an encoder or a run, and return it for the record."""
    folder.log(f"cryoinfer infer, {folder.record.arguments}")
    monitor.message(source.words)
    from_run = inherited(source.path)
    for text in (*from_run, *doubts):
        monitor.message(f"Caution: {text}")
    return {**known, INHERITED: from_run, OWN_CAUTIONS: doubts}


def _summary(folder: RunFolder, monitor: RichMonitor) -> list[str]:
    """Return what a finished inference has found."""
    found = folder.record.results
    left_out = LeftOut.of_results(found)
    assert left_out is not None
    time = format_duration(sum(folder.record.stage_seconds.values()))
    # Of what was resumed neither images nor seconds are known; a watch tells of files.
    if images := monitor.stage_steps.get(INFERENCE):
        time += f", {images / monitor.stage_seconds[INFERENCE]:,.0f} images per second"
    rows = {
        "Resolution": resolution_words(found, ONE_MAP),
        "Encoder": found["verdict"],
        **_calibration(found["trials"]),
        "Flagged": left_out.novel_words(),
        "Unreadable": left_out.unreadable_words(),
        "Time": time,
        "Particles": f"{folder.path / layout.PARTICLES}",
        "Report": f"{folder.path / layout.REPORT}",
    }
    if not left_out.unreadable:
        del rows["Unreadable"]
    return [*aligned(rows), *(f"Caution: {text}" for text in found[CAUTIONS])]


def _calibration(trials: Mapping[str, Any]) -> dict[str, str]:
    """Return how posteriors of the encoder did on images of known truth, by name."""
    found = {
        name: CalibrationTrial.of_record(values) for name, values in trials.items()
    }
    return {
        f"Posteriors, {name}": f"median error {trial.median_degrees:.2g} degrees, 90 % "
        f"sets hold {trial.share_in(0.9):.1%} of {trial.images:,} simulated truths"
        for name, trial in found.items()
    }
