"""Encoders, trained from a run."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch
from rich.console import Console
from torch import Tensor

from cryoinfer.cli.arguments import recorded_path
from cryoinfer.cli.estimate import estimate_training
from cryoinfer.cli.nothing_found import INHERITED, inherited
from cryoinfer.cli.particle_options import ParticleOptions
from cryoinfer.cli.plan import Plan
from cryoinfer.cli.processes import is_bidden, joined_processes, leading
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.report_page import write_report
from cryoinfer.cli.results import CAUTIONS, PREPARED, write_encoder
from cryoinfer.cli.run_folder import RunFolder, require_elsewhere
from cryoinfer.cli.runs import explained_interruption, is_done
from cryoinfer.cli.terminal import aligned
from cryoinfer.cli.threads import use_threads
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.inference.amortized import SAME_AREA
from cryoinfer.inference.pose_network import PoseNetworkConfig
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.io.mrc import MapFile
from cryoinfer.results import layout, run_files
from cryoinfer.results.calibration_trial import CalibrationTrial
from cryoinfer.results.conformation_files import read_subspace
from cryoinfer.results.flags import read_flags
from cryoinfer.results.heterogeneity import LAST_RADIUS
from cryoinfer.results.run_record import RunRecord, require_finished
from cryoinfer.workflows.encoder_calibration import calibrate_encoder
from cryoinfer.workflows.train import (
    EncoderConfig,
    TrainingData,
    help_training,
    require_picture,
    train_encoder,
)
from cryoinfer.workflows.trained_encoder import TrainedEncoder


@dataclass(frozen=True)
class TrainOptions:
    """What a user asks of a training.

    Attributes
    ----------
    run, out : Path
        Folder of a finished run, and of the encoder.
    steps : int
    side : int
        Of the encoder's picture, in pixels.
    defocus_error : float
        Sd of the error of the given defoci in angstrom; 0 takes them as known.
    reading : ParticleOptions
        Of the particles of the run.
    seed : int
    threads : int or None
    resume, overwrite, dry_run : bool
    """

    run: Path
    out: Path
    steps: int
    side: int
    defocus_error: float
    reading: ParticleOptions
    seed: int
    threads: int | None
    resume: bool
    overwrite: bool
    dry_run: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return what decides the result, by option, in values that JSON knows."""
        return {
            "run": recorded_path(self.run),
            "steps": self.steps,
            "side": self.side,
            "defocus-error": self.defocus_error,
            **self.reading.arguments(),
            "seed": self.seed,
        }


def train(options: TrainOptions, console: Console) -> None:
    """Train an encoder on the map of a run, and write it to a folder.

    Started by ``torchrun``, several processes share every batch.

    Raises
    ------
    InputError
        If the run cannot be learned from.
    OutputError
        If the folder is taken or cannot be written.
    """
    with joined_processes() as world:
        setup = _TrainingSetup.of(options)
        if world.is_first:
            with leading(world) as begin:
                _lead(options, setup, begin, console)
        elif is_bidden(world):
            use_threads(options.threads)
            help_training(setup.particles, setup.training_data, setup.config)


@dataclass(frozen=True)
class _TrainingSetup:
    """What an encoder is to learn, and from what."""

    particles: Particles
    training_data: TrainingData
    config: EncoderConfig

    @classmethod
    def of(cls, options: TrainOptions) -> Self:
        learned = require_finished(options.run)
        require_elsewhere(options.out, options.run)
        reading = options.reading.of_run(learned)
        particles = reading.load(options.run / layout.PARTICLES)
        particles, training_data = _read_training_data(options.run, learned, particles)
        require_picture(options.side, particles.box)
        config = EncoderConfig(
            network=PoseNetworkConfig(side=options.side),
            training=TrainingConfig(steps=options.steps),
            defocus_sd_angstrom=options.defocus_error,
            seed=options.seed,
        )
        return cls(particles, training_data, config)


def _lead(
    options: TrainOptions,
    setup: _TrainingSetup,
    begin: Callable[[], None],
    console: Console,
) -> None:
    """Train, and do all that users see; ``begin`` as soon as nothing is in the way."""
    arguments = options.arguments()
    record = RunRecord.of_now(
        "train",
        arguments,
        run_files.fingerprint(
            setup.particles,
            options.run / layout.PARTICLES,
            options.run / layout.MAP,
        ),
        options.seed,
        use_threads(options.threads),
    )
    if is_done(options.out, record, options.resume, options.overwrite, console):
        return
    plan = _plan(options, setup, record.machine["threads"])
    if options.dry_run:
        plan.print(console)
        return
    plan.require_disk()
    with RunFolder(options.out, record, options.resume, options.overwrite) as folder:
        # The folder is ours.
        begin()
        folder.log(f"cryoinfer train, {arguments}")
        monitor = RichMonitor(console, folder.log, folder.state())
        from_run = inherited(options.run)
        for text in from_run:
            monitor.message(f"Caution: {text}")
        try:
            with explained_interruption(folder, console), monitor:
                trained = train_encoder(
                    setup.particles, setup.training_data, setup.config, monitor
                )
                trials = calibrate_encoder(
                    trained, setup.particles, options.seed + 1, monitor
                )
        finally:
            folder.add_times(monitor.stage_seconds)
        numbers = write_encoder(folder, trained, trials)
        numbers |= {INHERITED: from_run, CAUTIONS: [*from_run, *numbers[CAUTIONS]]}
        folder.describe(numbers, [asdict(check) for check in trained.checks])
        write_report(options.out)
        folder.finish()
        for line in _summary(options.out, trained, trials):
            monitor.message(line)
        for text in numbers[CAUTIONS]:
            monitor.message(f"Caution: {text}")


def _plan(options: TrainOptions, setup: _TrainingSetup, threads: int) -> Plan:
    particles = setup.particles
    estimate = estimate_training(options.steps, options.side, particles.box, threads)
    work = f"train, {options.steps:,} steps"
    return Plan(work, particles, options.out, threads, estimate)


def _summary(
    folder: Path, trained: TrainedEncoder, trials: Mapping[str, CalibrationTrial]
) -> list[str]:
    """Return what a finished training has led to."""
    rows = {"Verdict": trained.verdict}
    for name, trial in trials.items():
        rows[f"Posteriors, {name}"] = (
            f"median error {trial.median_degrees:.2g} degrees, 90 % sets hold "
            f"{trial.share_in(0.9):.1%} of {trial.images:,} simulated truths"
        )
    rows["Encoder"] = str(folder / layout.ENCODER)
    rows["Report"] = str(folder / layout.REPORT)
    return aligned(rows)


def _read_training_data(
    folder: Path, record: RunRecord, particles: Particles
) -> tuple[Particles, TrainingData]:
    """Return those particles of a run that its map shows, and what they teach.

    Raises
    ------
    InputError
        If there are none, the run measured no noise, or its map has another grid.
    """
    found, maps = _read_maps(folder, record)
    noise = run_files.read_spectra(folder)
    if not noise:
        raise InputError(
            f"the run in {folder} measured no noise: expected one of `cryoinfer "
            "abinitio` or `refine`, found a reconstruction"
        )
    particles = particles.select(read_flags(record, particles.table) == 0)
    if not len(particles):
        raise InputError(
            f"all particles of the run in {folder} are flagged: its map shows none of "
            "them. Train on the run that its encoder learned from, or refine them"
        )
    box, pixel_size = len(found.density), found.pixel_size_angstrom
    sizes = particles.optics.pixel_size_angstrom
    same = (particles.boxes == box) & ((sizes / pixel_size - 1).abs() <= SAME_AREA)
    if not bool(same.any()):
        raise InputError(
            f"the map of the run in {folder} has {box} voxels of {pixel_size:.4g} A, "
            f"its particles {particles.box} pixels of "
            f"{particles.pixel_size_angstrom:.4g} A: expected the same, found the grid "
            "of the encoder that inferred them. Refine them (`cryoinfer refine "
            f"{folder / layout.PARTICLES}`), and train on that run"
        )
    prepared = record.results.get(PREPARED, 0)
    if prepared:
        raise InputError(
            f"{prepared:,} images of the run in {folder} had been resampled, or taken "
            "to be of another strength, to be like those that its encoder learned: "
            "expected images in the units of the run's map and noise. Refine them "
            f"(`cryoinfer refine {folder / layout.PARTICLES}`), and train on that "
            "run"
        )
    assert particles.pose is not None
    shift = particles.pose.shift_angstrom
    training_data = TrainingData(
        maps[0],
        # That of the map is rounded to single precision.
        float(sizes[same][0]),
        tuple(spectrum.float() for spectrum in noise),
        float(shift.square().mean().sqrt()),
        record.symmetry(folder),
        tuple(maps[1:]),
        record.results.get(LAST_RADIUS),
    )
    return particles, training_data


def _read_maps(folder: Path, record: RunRecord) -> tuple[MapFile, list[Tensor]]:
    """Return a map on the run's grid, and the map or the subspace to be learned."""
    if not record.has_conformations:
        found = run_files.read_run_map(folder)
        mask = run_files.read_run_mask(folder)
        return found, [torch.tensor(found.density * mask.density)]
    maps = read_subspace(folder, record)
    return maps[0], [torch.tensor(one.density) for one in maps]
