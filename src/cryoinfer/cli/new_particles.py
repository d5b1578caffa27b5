"""Particles that an encoder has not seen: a file of them, or a folder as it fills."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cryoinfer.cli.arguments import recorded_path
from cryoinfer.cli.conformation_run import finish_conformations
from cryoinfer.cli.estimate import estimate_inference
from cryoinfer.cli.inputs import encoder_file
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
from cryoinfer.results import layout, run_files
from cryoinfer.results.calibration_trial import ENCODER, REFINED, CalibrationTrial
from cryoinfer.results.heterogeneity import ENCODER_NUMBERS, Heterogeneity
from cryoinfer.results.layout import RECORD
from cryoinfer.results.run_record import REMARKS, RunRecord
from cryoinfer.results.run_result import RunResult
from cryoinfer.wording import format_duration
from cryoinfer.workflows.amortized_conformations import infer_conformations
from cryoinfer.workflows.encoder_file import load_encoder
from cryoinfer.workflows.infer import INFERENCE, InferConfig, infer
from cryoinfer.workflows.preparation import require_alike
from cryoinfer.workflows.trained_encoder import TrainedEncoder
from cryoinfer.world import World


@dataclass(frozen=True)
class InferOptions:
    """What a user asks of an inference.

    Attributes
    ----------
    encoder : Path
        Folder of an encoder, or its file.
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
            "encoder": recorded_path(encoder_file(self.encoder)),
            "particles": recorded_path(self.particles),
            "watch": self.watch,
            "no-refinement": not self.local_refinement,
            "symmetry": symmetry,
            **self.reading.arguments(),
            "seed": self.seed,
        }


def infer_unseen(options: InferOptions, console: Console) -> None:
    """Infer particles with an encoder, and write a run folder.

    Options that contradict each other have been refused before (``require_unseen``).

    Raises
    ------
    InputError
        If encoder or particles cannot be used.
    OutputError
        If the folder is taken or cannot be written.
    """
    with joined_processes() as world:
        trained = load_encoder(encoder_file(options.encoder))
        symmetry = options.symmetry or trained.symmetry
        symmetry_rotations(symmetry)
        config = InferConfig(
            local_refinement=options.local_refinement,
            symmetry=symmetry,
            seed=options.seed,
        )
        if options.watch and trained.components:
            raise InputError(
                "--watch knows one map, and this encoder has learned conformations: "
                "infer a file of particles at a time"
            )
        if options.watch:
            require_alone(world, "--watch")
            _watch(options, trained, config, console)
            return
        particles = options.reading.load(options.particles)
        require_elsewhere(options.out, encoder_file(options.encoder), options.particles)
        require_alike(particles, trained)
        job = _Job(options, particles, trained, config, world)
        if world.is_first:
            with leading(world) as begin:
                _lead(job, begin, console)
        elif is_bidden(world):
            use_threads(options.threads)
            job.infer(SilentMonitor())


@dataclass(frozen=True)
class _Job:
    """Options, and what was read on their behalf."""

    options: InferOptions
    particles: Particles
    trained: TrainedEncoder
    config: InferConfig
    world: World

    def infer(self, monitor: Monitor) -> RunResult | Heterogeneity:
        """Do this process's share."""
        work = infer_conformations if self.trained.components else infer
        return work(self.particles, self.trained, self.config, monitor, self.world)


def _lead(job: _Job, begin: Callable[[], None], console: Console) -> None:
    """Do all that users see; ``begin`` as soon as nothing is in the way."""
    options, particles = job.options, job.particles
    path = encoder_file(options.encoder)
    inputs = run_files.fingerprint(particles, options.particles, path)
    record = _record(options, job.config, inputs)
    if is_done(options.out, record, options.resume, options.overwrite, console):
        return
    threads = record.machine["threads"]
    estimate = estimate_inference(len(particles), len(job.trained.density), threads)
    work = f"infer, symmetry {job.config.symmetry}"
    plan = Plan(work, particles, options.out, threads, estimate)
    if options.dry_run:
        plan.print(console)
        return
    plan.require_disk()
    with RunFolder(options.out, record, options.resume, options.overwrite) as folder:
        begin()  # the folder is ours
        monitor = RichMonitor(console, folder.log, folder.state())
        told = _begin(folder, monitor, options, job.trained)
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
                said = _finish_conformations(folder, particles, result, told)
            else:
                write_results(folder, particles, result, told)
                said = _summary(folder, monitor)
        for line in said:
            monitor.message(line)


def _finish_conformations(
    folder: RunFolder, particles: Particles, found: Heterogeneity, told: dict[str, Any]
) -> list[str]:
    """Write what an encoder of a subspace has found, and return what is to be said."""
    own = {name: told.pop(name) for name in ("verdict", "median_degrees", "trials")}
    every = torch.ones(len(particles), dtype=torch.bool)
    numbers = {**told, ENCODER_NUMBERS: own}
    return finish_conformations(folder, particles, every, found, numbers)


def _watch(
    options: InferOptions,
    trained: TrainedEncoder,
    config: InferConfig,
    console: Console,
) -> None:
    path = encoder_file(options.encoder)
    require_elsewhere(options.out, path, options.particles)
    inputs: dict[str, object] = {"encoder": {"sha256": run_files.content_sha256(path)}}
    record = _record(options, config, inputs)
    with RunFolder(options.out, record, options.resume, options.overwrite) as folder:
        # Beside the results, not in the checkpoint, which ends with the run: more
        # files may come after it.
        state = folder.state(layout.WATCH)
        monitor = RichMonitor(console, folder.log, state)
        told = _begin(folder, monitor, options, trained)
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
    options: InferOptions,
    trained: TrainedEncoder,
) -> dict[str, Any]:
    """Say what is known of the encoder, and return it for the record."""
    folder.log(f"cryoinfer infer, {folder.record.arguments}")
    monitor.message(f"The training of this encoder: {trained.verdict}")
    path = encoder_file(options.encoder)
    from_run = inherited(path)
    trials, doubts = _trials_beside(
        path, REFINED if options.local_refinement else ENCODER
    )
    for text in (*from_run, *doubts):
        monitor.message(f"Caution: {text}")
    return {
        "verdict": trained.verdict,
        "median_degrees": trained.checks[-1].median_degrees,
        "trials": trials,
        INHERITED: from_run,
        OWN_CAUTIONS: doubts,
    }


def _trials_beside(encoder: Path, used: str) -> tuple[dict[str, Any], list[str]]:
    """Return how some posteriors of an encoder were tried, and what is in doubt.

    Its trials are in the record of the run that trained it, if its folder is there.
    """
    folder = encoder.parent
    try:
        trials = _read_trials(folder) if (folder / RECORD).exists() else {}
    except InputError as error:
        return {}, [f"The test of this encoder's uncertainties cannot be read: {error}"]
    trials = {name: values for name, values in trials.items() if name == used}
    if trials:
        return trials, []
    return {}, [
        "The uncertainties of this encoder have not been tested, or the record "
        "of the test is not beside its file."
    ]


def _read_trials(folder: Path) -> dict[str, Any]:
    """Return the trials in the record of a run, in JSON's types.

    Raises
    ------
    InputError
        If they are damaged, or of another version.
    """
    record = RunRecord.read(folder)
    with record.trusted(folder):
        # A run about conformations has what concerns its encoder apart.
        trials = record.results.get(ENCODER_NUMBERS, record.results).get("trials", {})
        return {
            name: asdict(CalibrationTrial.of_record(values))
            for name, values in trials.items()
        }


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
