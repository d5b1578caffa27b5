"""The motions of particles along the modes of a structure."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from torch import Tensor

from cryoinfer.cli.arguments import recorded_path
from cryoinfer.cli.estimate import MotionWork, estimate_motions
from cryoinfer.cli.nothing_found import INHERITED, ONE_MAP, inherited, resolution_words
from cryoinfer.cli.particle_options import ParticleOptions
from cryoinfer.cli.plan import Plan
from cryoinfer.cli.processes import is_bidden, joined_processes, leading
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.rejected_particles import (
    chosen_particles,
    flag_words,
    used_particles,
)
from cryoinfer.cli.report_page import read_dynamics, write_report
from cryoinfer.cli.run_folder import RunFolder, require_elsewhere
from cryoinfer.cli.runs import explained_interruption, is_done
from cryoinfer.cli.structures import told_structure
from cryoinfer.cli.terminal import aligned, say
from cryoinfer.cli.threads import use_threads
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.evaluation.identifiability import amplitude_identifiability
from cryoinfer.inference.pose_network import PoseNetworkConfig
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.interfaces import Monitor, SilentMonitor
from cryoinfer.io.files import content_sha256
from cryoinfer.report.dynamics import assess_dynamics
from cryoinfer.report.parts import cautions
from cryoinfer.results import run_files
from cryoinfer.results.flags import OBEYED
from cryoinfer.results.layout import REPORT
from cryoinfer.results.map_numbers import map_numbers
from cryoinfer.results.motion_files import write_motions
from cryoinfer.results.run_record import REMARKS, RunRecord
from cryoinfer.workflows.dynamics import Dynamics, infer_dynamics
from cryoinfer.workflows.motion_problem import (
    DynamicsConfig,
    MotionInferenceName,
    MotionProblem,
    Poses,
)
from cryoinfer.workflows.train import require_picture
from cryoinfer.world import World


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
    inference : {"refinement", "variational"}
    shift : float or None
        Expected spread of the shifts in angstrom; None for 5 % of the box.
    defocus_error : float
        Sd of the error of the given defoci in angstrom; 0 takes them as known.
    steps, side, draws : int
        Of the encoder's training, of its picture, and of starts of refinements.
    symmetry : str
        Point group of the model at rest.
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
    inference: MotionInferenceName
    shift: float | None
    defocus_error: float
    steps: int
    side: int
    draws: int
    symmetry: str
    learn: int
    reading: ParticleOptions
    seed: int
    threads: int | None
    resume: bool
    overwrite: bool
    dry_run: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return what decides the result, by option, in values that JSON knows."""
        structure = Path(self.structure)
        return {
            "particles": recorded_path(self.particles),
            "structure": recorded_path(structure)
            if structure.is_file()
            else self.structure,
            "modes": self.modes,
            "amplitude": self.amplitude,
            "cutoff": self.cutoff,
            "poses": self.poses,
            "inference": self.inference,
            "shift-sd": self.shift,
            "defocus-error": self.defocus_error,
            "steps": self.steps,
            "side": self.side,
            "draws": self.draws,
            "symmetry": self.symmetry,
            "learn": self.learn,
            **self.reading.arguments(),
            "seed": self.seed,
        }

    def config(self) -> DynamicsConfig:
        """Return what the workflow is told."""
        return DynamicsConfig(
            poses=self.poses,
            inference=self.inference,
            shift_sd_angstrom=self.shift,
            defocus_sd_angstrom=self.defocus_error,
            network=PoseNetworkConfig(side=self.side),
            training=TrainingConfig(steps=self.steps),
            draws=self.draws,
            symmetry=self.symmetry,
            learning_rounds=self.learn,
            seed=self.seed,
        )


def dynamics(options: DynamicsOptions, console: Console) -> None:
    """Infer the motion of every particle, and write a run folder.

    Everything that can be known to be wrong is refused before anything is written.

    Raises
    ------
    InputError
        If particles or structure cannot be used.
    OutputError
        If the folder is taken or cannot be written.
    """
    with joined_processes() as world:
        job = _Job.prepare(options, console, world)
        if world.is_first:
            with leading(world) as begin:
                _lead(job, begin, console)
        elif is_bidden(world):
            use_threads(options.threads)
            job.infer(SilentMonitor())


def _lead(job: "_Job", begin: Callable[[], None], console: Console) -> None:
    """Do all that users see; ``begin`` as soon as nothing is in the way."""
    options, record = job.options, job.record()
    if is_done(options.out, record, options.resume, options.overwrite, console):
        return
    plan = job.plan(record.machine["threads"])
    if options.dry_run:
        for text in flag_words("dynamics", job.particles):
            say(console, text)
        plan.print(console)
        return
    plan.require_disk()
    with RunFolder(options.out, record, options.resume, options.overwrite) as folder:
        begin()  # the folder is ours
        folder.log(f"cryoinfer dynamics, {options.arguments()}")
        monitor = RichMonitor(console, folder.log, folder.state())
        for text in job.notes:  # they are on the screen already
            folder.log(text)
        for text in job.remarks:
            monitor.message(text)
        for text in job.inherited:
            monitor.message(f"Caution: {text}")
        try:
            with explained_interruption(folder, console), monitor:
                found = job.infer(monitor)
        finally:
            folder.add_times(monitor.stage_seconds)
        write_motions(
            options.out, job.particles, found.motions, found.model, found.frame
        )
        run_files.write_reconstruction(options.out, found.reconstruction)
        for line in _finish(folder, job, found):
            monitor.message(line)


@dataclass(frozen=True)
class _Job:
    """Options, and what was read on their behalf.

    All particles of the file, a mask of those that are used, and what was said of the
    structure when it was read.
    """

    options: DynamicsOptions
    model: MovingModel
    particles: Particles
    used: Tensor
    notes: tuple[str, ...]
    world: World

    @classmethod
    def prepare(cls, options: DynamicsOptions, console: Console, world: World) -> Self:
        """Read the inputs and refuse what cannot work."""
        if not world.is_first:
            console = Console(quiet=True)
        require_elsewhere(options.out, options.particles, Path(options.structure))
        given = told_structure(options.structure, console)
        model = MovingModel.of(
            given.model, options.modes, options.amplitude, options.cutoff
        )
        particles = options.reading.load(options.particles)
        used = used_particles("dynamics", particles)
        if options.config().by_encoder:
            require_picture(options.side, particles.box)
        job = cls(options, model, particles, used, given.notes, world)
        MotionProblem.of(job.chosen, model, options.config())  # or it is refused
        return job

    @property
    def remarks(self) -> list[str]:
        """What is to be said of the particles."""
        return [*flag_words("dynamics", self.particles), *self.particles.remarks]

    @property
    def inherited(self) -> list[str]:
        """What is to be known of the run whose poses are taken."""
        posed = self.options.poses == "given"
        return inherited(self.options.particles if posed else None)

    @property
    def chosen(self) -> Particles:
        """The particles that are used."""
        return chosen_particles(self.particles, self.used)

    def record(self) -> RunRecord:
        """Return the record of the run that would begin now."""
        options = self.options
        return RunRecord.of_now(
            "dynamics",
            options.arguments(),
            _inputs(options, self.particles),
            options.seed,
            use_threads(options.threads),
        )

    def plan(self, threads: int) -> Plan:
        """Return what would be done and what it will take."""
        options, particles, atoms = self.options, self.particles, len(self.model.model)
        steps = options.steps if options.config().by_encoder else 0
        work = MotionWork(
            atoms, options.modes, steps, options.side, options.draws, options.learn
        )
        whole, used = (
            estimate_motions(work, n, particles.box, threads)
            for n in (len(particles), int(self.used.sum()))
        )
        plural = "s" if options.modes > 1 else ""
        told = f"dynamics, {options.modes} mode{plural} of {atoms:,} atoms"
        return Plan(told, particles, options.out, threads, whole.for_used(used))

    def infer(self, monitor: Monitor) -> Dynamics:
        """Return what is found, of all particles of the file."""
        config = self.options.config()
        found = infer_dynamics(self.chosen, self.model, config, monitor, self.world)
        return replace(found, motions=found.motions.among(self.used))


def _finish(folder: RunFolder, job: _Job, found: Dynamics) -> list[str]:
    """Write record and report of a run, and return what is to be said of it."""
    out, numbers = folder.path, _numbers(job, found)
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
    return [*_summary(out, job, found), *(f"Caution: {text}" for text in warned)]


def _inputs(options: DynamicsOptions, particles: Particles) -> dict[str, object]:
    """Return what tells whether particles or structure have changed."""
    found = run_files.fingerprint(particles, options.particles, None)
    structure = Path(options.structure)
    if structure.is_file():
        found["structure"] = {"sha256": content_sha256(structure)}
    return found


def _numbers(job: _Job, found: Dynamics) -> dict[str, Any]:
    """Return what the record of the run holds."""
    motions, known = found.motions, found.motions.known
    left = int((~job.used).sum())
    return {
        "particles": len(known),
        REMARKS: [*job.notes, *job.remarks],
        INHERITED: job.inherited,
        "unreadable": int((job.used & ~known).sum()),
        **({OBEYED: left} if left else {}),
        "frame": {
            "offset_angstrom": found.frame.offset_angstrom.tolist(),
            "turned_degrees": found.frame.turned_degrees,
        },
        **map_numbers(found.reconstruction),
        "learned_angstrom": found.model.departure_angstrom(job.model),
        "gain": found.inference.measured.gain,
        "unexplained": found.inference.measured.unexplained,
        "unexplained_sd": found.inference.measured.unexplained_sd,
        "amplitude_prior_sd_angstrom": list(
            found.inference.problem.prior.conformation_sd_angstrom
        ),
        "amplitude_sd_angstrom": motions.sd[known].median(0).values.tolist(),
        "identifiability": asdict(amplitude_identifiability(motions.covariance[known])),
        "verdict": found.verdict,
        "covariance_inflation": found.inference.covariance_inflation.tolist(),
        "trials": {name: asdict(trial) for name, trial in found.trials.items()},
    }


def _summary(folder: Path, job: _Job, found: Dynamics) -> list[str]:
    """Return what a finished run has led to."""
    motions, known, model = found.motions, found.motions.known, job.model
    rows = {}
    if found.verdict:
        rows["Encoder"] = found.verdict
    if found.model is not model:
        away = found.model.departure_angstrom(model)
        rows["Model at rest"] = f"learned, {away:.2f} A from the given one"
    rows["Half-maps"] = resolution_words(map_numbers(found.reconstruction), ONE_MAP)
    left = found.inference.measured.unexplained
    if left is not None:
        sd = found.inference.measured.unexplained_sd or 0.0
        rows["Explained"] = f"{1 - left:.0%} (sd {sd:.0%}) of the images' signal"
    for mode in range(motions.mean.shape[1]):
        spread = float(motions.mean[known, mode].std())
        sd = float(motions.sd[known, mode].median())
        rows[f"Mode {mode + 1}"] = (
            f"standard deviation {spread:.2f} A over particles, {sd:.2f} A of one "
            "(median)"
        )
    for name, trial in found.trials.items():
        rows[f"Posteriors, {name}"] = (
            f"90 % sets hold {trial.share_in(0.9):.1%} of {trial.images:,} simulated "
            "truths"
        )
    unreadable = int((job.used & ~known).sum())
    if unreadable:
        rows["Left out"] = (
            f"{unreadable:,} images with NaN or infinite pixels, or too bright for "
            "single precision"
        )
    rows["Results"] = str(folder)
    rows["Report"] = str(folder / REPORT)
    return aligned(rows)
