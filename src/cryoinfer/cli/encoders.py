"""Encoders: trained from a run, and asked about particles that they have not seen."""

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from cryoinfer.cli import run_files, run_folder
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.run_folder import RunFolder, RunRecord, require_finished
from cryoinfer.cli.runs import (
    explained_interruption,
    is_finished,
    use_threads,
    write_results,
)
from cryoinfer.cli.terminal import aligned, say
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, OutputError
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.pose_network import PoseNetworkConfig
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.workflows.encoder_file import load_encoder, save_encoder
from cryoinfer.workflows.infer import InferConfig, infer, require_alike
from cryoinfer.workflows.train import (
    EncoderConfig,
    Lesson,
    require_picture,
    train_encoder,
)


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
    seed : int
    threads : int or None
    resume, overwrite : bool
    """

    run: Path
    out: Path
    steps: int
    side: int
    defocus_error: float
    seed: int
    threads: int | None
    resume: bool
    overwrite: bool


@dataclass(frozen=True)
class InferOptions:
    """What a user asks of an inference.

    Attributes
    ----------
    encoder : Path
        Folder of an encoder, or its file.
    particles, out : Path
    climb : bool
    symmetry : str or None
        None for that of the map that was learned.
    datadir, pixel_size, ignore
        As for :meth:`cryoinfer.data.particles.Particles.load`.
    seed : int
    threads : int or None
    overwrite : bool
    """

    encoder: Path
    particles: Path
    out: Path
    climb: bool
    symmetry: str | None
    datadir: Path | None
    pixel_size: float | None
    ignore: tuple[str, ...]
    seed: int
    threads: int | None
    overwrite: bool


def train(options: TrainOptions, console: Console) -> None:
    """Train an encoder on the map of a run, and write it to a folder.

    Raises
    ------
    InputError
        If the run cannot be learned from.
    OutputError
        If the folder is taken or cannot be written.
    """
    learned = require_finished(options.run)
    _require_elsewhere(options.out, options.run)
    particles = Particles.load(
        options.run / run_folder.PARTICLES, ignore=learned.arguments.get("ignore", ())
    )
    lesson = _read_lesson(options.run, learned, particles)
    require_picture(options.side, particles.box)
    if options.resume and is_finished(options.out):
        say(console, f"The encoder in {options.out} is finished: nothing to do.")
        return
    arguments = {
        "run": str(options.run.absolute()),
        "steps": options.steps,
        "side": options.side,
        "defocus-error": options.defocus_error,
        "seed": options.seed,
    }
    record = RunRecord.of_now(
        "train",
        arguments,
        run_files.fingerprint(
            particles,
            options.run / run_folder.PARTICLES,
            options.run / run_folder.MAP,
        ),
        options.seed,
        use_threads(options.threads),
    )
    with RunFolder(options.out, record, options.resume, options.overwrite) as folder:
        folder.log(f"cryoinfer train, {arguments}")
        monitor = RichMonitor(console, folder.log, folder.checkpoint)
        config = EncoderConfig(
            network=PoseNetworkConfig(side=options.side),
            training=TrainingConfig(steps=options.steps),
            defocus_sd_angstrom=options.defocus_error,
            seed=options.seed,
        )
        try:
            with explained_interruption(folder, console), monitor:
                trained = train_encoder(particles, lesson, config, monitor)
        finally:
            folder.add_times(monitor.stage_seconds)
        path = options.out / run_folder.ENCODER
        run_folder.replace_file(path, lambda part: save_encoder(part, trained))
        last = trained.checks[-1]
        folder.describe(
            {"loss_nats": last.loss_nats, "median_degrees": last.median_degrees}, []
        )
        folder.finish()
        for line in aligned({"Verdict": trained.verdict, "Encoder": str(path)}):
            monitor.message(line)


def infer_unseen(options: InferOptions, console: Console) -> None:
    """Infer particles with an encoder, and write a run folder.

    Raises
    ------
    InputError
        If encoder or particles cannot be used.
    OutputError
        If the folder is taken or cannot be written.
    """
    source = options.encoder
    path = source / run_folder.ENCODER if source.is_dir() else source
    trained = load_encoder(path)
    particles = Particles.load(
        options.particles,
        datadir=options.datadir,
        pixel_size_angstrom=options.pixel_size,
        ignore=options.ignore,
    )
    _require_elsewhere(options.out, path.parent, options.particles.parent)
    require_alike(particles, trained)
    symmetry = options.symmetry or trained.symmetry
    symmetry_rotations(symmetry)
    arguments = {
        "particles": str(options.particles.absolute()),
        "encoder": str(path.absolute()),
        "no-climb": not options.climb,
        "symmetry": symmetry,
        "pixel-size": options.pixel_size,
        "ignore": list(options.ignore),
        "seed": options.seed,
    }
    inputs = run_files.fingerprint(particles, options.particles, path)
    threads = use_threads(options.threads)
    record = RunRecord.of_now("infer", arguments, inputs, options.seed, threads)
    with RunFolder(options.out, record, overwrite=options.overwrite) as folder:
        folder.log(f"cryoinfer infer, {arguments}")
        monitor = RichMonitor(console, folder.log, folder.checkpoint)
        config = InferConfig(options.climb, symmetry, options.seed)
        monitor.message(f"The training of this encoder: {trained.verdict}")
        try:
            with monitor:
                result = infer(particles, trained, config, monitor)
        finally:
            folder.add_times(monitor.stage_seconds)
        write_results(folder, particles, result)
        seconds = sum(monitor.stage_seconds.values())
        maps = result.reconstruction
        rows = {
            "Resolution": f"{maps.resolution_angstrom:.2f} A (FSC 0.143 of halves that "
            "were posed against one map)",
            "Time": f"{seconds:.1f} s, {len(particles) / seconds:,.0f} images a second",
            "Particles": f"{folder.path / run_folder.PARTICLES}",
            "Report": f"{folder.path / run_folder.REPORT}",
        }
        for line in aligned(rows):
            monitor.message(line)


def _require_elsewhere(out: Path, *inputs: Path) -> None:
    """Refuse to write where the inputs are, which --overwrite would remove."""
    if out.resolve() in [folder.resolve() for folder in inputs]:
        raise OutputError(f"{out} holds what is read: give another folder.")


def _read_lesson(folder: Path, record: RunRecord, particles: Particles) -> Lesson:
    found = run_files.read_run_map(folder)
    mask = run_files.read_run_map(folder, run_folder.MASK)
    noise = run_files.read_spectra(folder)
    if not noise:
        raise InputError(
            f"the run in {folder} measured no noise: expected one of `cryoinfer "
            "abinitio` or `refine`, found a reconstruction"
        )
    assert particles.pose is not None
    shift = particles.pose.shift_angstrom
    return Lesson(
        torch.tensor(found.density * mask.density),
        # That of the map is rounded to single precision.
        particles.pixel_size_angstrom,
        tuple(spectrum.float() for spectrum in noise),
        float(shift.square().mean().sqrt()),
        record.results["symmetry"],
    )
