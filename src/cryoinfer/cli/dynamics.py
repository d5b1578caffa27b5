"""The motions of particles along the modes of a structure."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from cryoinfer.cli import run_files
from cryoinfer.cli.dynamics_files import write_dynamics
from cryoinfer.cli.estimate import MotionWork, estimate_motions
from cryoinfer.cli.left_out import given_flags
from cryoinfer.cli.particle_options import ParticleOptions
from cryoinfer.cli.plan import Plan
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.report_page import read_dynamics, write_report
from cryoinfer.cli.run_files import FLAG
from cryoinfer.cli.run_folder import REPORT, RunFolder, require_elsewhere
from cryoinfer.cli.run_record import RunRecord
from cryoinfer.cli.runs import explained_interruption, is_done
from cryoinfer.cli.structures import told_atoms
from cryoinfer.cli.terminal import aligned, say
from cryoinfer.cli.threads import use_threads
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.evaluation import amplitude_identifiability
from cryoinfer.inference.pose_network import PoseNetworkConfig
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.report.dynamics import assess_dynamics
from cryoinfer.report.parts import cautions
from cryoinfer.workflows.dynamics import Dynamics, infer_dynamics
from cryoinfer.workflows.motion_problem import DynamicsConfig, Poses
from cryoinfer.workflows.train import require_picture


@dataclass(frozen=True)
class DynamicsOptions:
    """What a user asks of an inference of motions.

    Attributes
    ----------
    particles, out : Path
    structure : str
        An example, or the path of a file.
    modes : int
    amplitude : float
        Expected spread of the softest mode, in angstrom.
    cutoff : float
        Length of the longest spring, in angstrom.
    poses : {"unknown", "in-plane", "given", "searched"}
    shift : float or None
        Expected spread of the shifts in angstrom; None for 5 % of the box.
    defocus_error : float
        Sd of the error of the given defoci in angstrom; 0 takes them as known.
    steps, side, draws : int
        Of the encoder's training, of its picture, and of starts of climbs.
    learn : int
        Rounds in which the model at rest and its modes are learned.
    reading : ParticleOptions
    seed : int
    threads : int or None
    resume, overwrite, dry_run : bool
    """

    particles: Path
    out: Path
    structure: str
    modes: int
    amplitude: float
    cutoff: float
    poses: Poses
    shift: float | None
    defocus_error: float
    steps: int
    side: int
    draws: int
    learn: int
    reading: ParticleOptions
    seed: int
    threads: int | None
    resume: bool
    overwrite: bool
    dry_run: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return what decides the result, by option, in values that JSON knows."""
        found = dict(vars(self))
        for name in ("out", "reading", "threads", "resume", "overwrite", "dry_run"):
            found.pop(name)
        found["particles"] = str(self.particles.absolute())
        found = {name.replace("_", "-"): value for name, value in found.items()}
        return found | self.reading.deciding_arguments()

    def config(self) -> DynamicsConfig:
        """Return what the workflow is told."""
        return DynamicsConfig(
            poses=self.poses,
            shift_sd_angstrom=self.shift,
            defocus_sd_angstrom=self.defocus_error,
            network=PoseNetworkConfig(side=self.side),
            training=TrainingConfig(steps=self.steps),
            draws=self.draws,
            learning_rounds=self.learn,
            seed=self.seed,
        )


def dynamics(options: DynamicsOptions, console: Console) -> None:
    """Infer the motion of every particle, and write a run folder.

    Raises
    ------
    InputError
        If particles or structure cannot be used.
    OutputError
        If the folder is taken or cannot be written.
    """
    require_elsewhere(options.out, options.particles, Path(options.structure))
    model = MovingModel.of(
        told_atoms(options.structure, console),
        options.modes,
        options.amplitude,
        options.cutoff,
    )
    particles = _unflagged(options.reading.load(options.particles), console)
    config = options.config()
    if config.by_encoder:
        require_picture(options.side, particles.box)
    record = RunRecord.of_now(
        "dynamics",
        options.arguments(),
        _inputs(options, particles),
        options.seed,
        use_threads(options.threads),
    )
    if is_done(options.out, record, options.resume, options.overwrite, console):
        return
    plan = _plan(options, particles, len(model.model), record.machine["threads"])
    if options.dry_run:
        plan.print(console)
        return
    plan.require_disk()
    with RunFolder(options.out, record, options.resume, options.overwrite) as folder:
        folder.log(f"cryoinfer dynamics, {options.arguments()}")
        monitor = RichMonitor(console, folder.log, folder.state())
        if flagged := int((given_flags(particles) != 0).sum()):
            monitor.message(
                f"{flagged:,} particles that an earlier run has flagged are inferred "
                "like the others: what was unlike its map may be how they have moved."
            )
        try:
            with explained_interruption(folder, console), monitor:
                for remark in particles.remarks:
                    monitor.message(remark)
                found = infer_dynamics(particles, model, config, monitor)
        finally:
            folder.add_times(monitor.stage_seconds)
        write_dynamics(options.out, particles, found)
        for line in _finish(folder, options.out, model, found):
            monitor.message(line)


def _finish(
    folder: RunFolder, out: Path, model: MovingModel, found: Dynamics
) -> list[str]:
    """Write record and report of a run, and return what is to be said of it."""
    numbers = _numbers(model, found)
    folder.describe(numbers, [])
    shown = read_dynamics(out)
    numbers["free_energy"] = [
        {"bandwidth_angstrom": one.bandwidth, "minima_angstrom": list(one.minima)}
        for one in shown.free_energies
    ]
    numbers["cautions"] = warned = cautions(assess_dynamics(shown))
    folder.describe(numbers, [])
    write_report(out)
    folder.finish()
    return [*_summary(out, model, found), *(f"Caution: {text}" for text in warned)]


def _plan(
    options: DynamicsOptions, particles: Particles, atoms: int, threads: int
) -> Plan:
    steps = options.steps if options.config().by_encoder else 0
    work = MotionWork(
        atoms, options.modes, steps, options.side, options.draws, options.learn
    )
    n, box = len(particles), particles.box
    estimate = estimate_motions(work, n, box, threads)
    plural = "s" if options.modes > 1 else ""
    told = f"dynamics, {options.modes} mode{plural} of {atoms:,} atoms"
    return Plan(told, particles, options.out, threads, estimate)


def _unflagged(particles: Particles, console: Console) -> Particles:
    """Return the particles that no earlier run has flagged, and say how many are left.

    Raises
    ------
    InputError
        If all are flagged.
    """
    flags = particles.table.results.get(FLAG)
    good = torch.ones(len(particles)) > 0
    if flags is not None:
        good = torch.from_numpy(flags == 0)
    if bool(good.all()):
        return particles
    if not bool(good.any()):
        raise InputError(
            f"expected particles to infer, found all {len(particles):,} flagged by an "
            f"earlier run ({FLAG}): give the particles that it was given"
        )
    say(
        console,
        f"Left out: {int((~good).sum()):,} of {len(particles):,} particles that an "
        f"earlier run has flagged ({FLAG}).",
    )
    return particles.select(good)


def _inputs(options: DynamicsOptions, particles: Particles) -> dict[str, object]:
    """Return what tells whether particles or structure have changed."""
    found = run_files.fingerprint(particles, options.particles, None)
    structure = Path(options.structure)
    if structure.is_file():
        found["structure"] = {"sha256": run_files.content_sha256(structure)}
    return found


def _numbers(model: MovingModel, found: Dynamics) -> dict[str, Any]:
    """Return what the record of the run holds."""
    motions, known = found.motions, found.motions.known
    return {
        "particles": len(known),
        "unreadable": int((~known).sum()),
        "frame": {
            "offset_angstrom": found.frame.offset_angstrom.tolist(),
            "turned_degrees": found.frame.turned_degrees,
        },
        "learned_angstrom": found.model.departure_angstrom(model),
        "gain": found.inference.imaged.gain,
        "unexplained": found.inference.imaged.unexplained,
        "unexplained_sd": found.inference.imaged.unexplained_sd,
        "amplitude_prior_sd_angstrom": list(
            found.inference.problem.prior.conformation_sd_angstrom
        ),
        "amplitude_sd_angstrom": motions.sd[known].median(0).values.tolist(),
        "identifiability": asdict(amplitude_identifiability(motions.covariance[known])),
        "verdict": found.verdict,
        "posterior_widening": found.inference.widening.tolist(),
        "trials": {name: asdict(trial) for name, trial in found.trials.items()},
    }


def _summary(folder: Path, model: MovingModel, found: Dynamics) -> list[str]:
    """Return what a finished run has led to."""
    motions, known = found.motions, found.motions.known
    rows = {}
    if found.verdict:
        rows["Encoder"] = found.verdict
    if found.model is not model:
        away = found.model.departure_angstrom(model)
        rows["Model at rest"] = f"learned, {away:.2f} A from the given one"
    left = found.inference.imaged.unexplained
    if left is not None:
        sd = found.inference.imaged.unexplained_sd or 0.0
        rows["Explained"] = f"{1 - left:.0%} (sd {sd:.0%}) of the images' signal"
    for mode in range(motions.mean.shape[1]):
        spread = float(motions.mean[known, mode].std())
        sd = float(motions.sd[known, mode].median())
        rows[f"Mode {mode + 1}"] = (
            f"particles spread over {spread:.2f} A, each known to {sd:.2f} A (median)"
        )
    for name, trial in found.trials.items():
        rows[f"Posteriors, {name}"] = (
            f"90 % sets hold {trial.share_in(0.9):.1%} of {trial.images:,} simulated "
            "truths"
        )
    unreadable = int((~known).sum())
    if unreadable:
        rows["Left out"] = (
            f"{unreadable:,} images with NaN or infinite pixels, or too bright for "
            "single precision"
        )
    rows["Results"] = str(folder)
    rows["Report"] = str(folder / REPORT)
    return aligned(rows)
