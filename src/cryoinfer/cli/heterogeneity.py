"""The conformations of particles, in a subspace of maps."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from rich.console import Console
from torch import Tensor

from cryoinfer.cli.arguments import recorded_path
from cryoinfer.cli.conformation_run import finish_conformations
from cryoinfer.cli.estimate import HeterogeneityWork, estimate_heterogeneity
from cryoinfer.cli.nothing_found import INHERITED, inherited
from cryoinfer.cli.options import RefinementMethod
from cryoinfer.cli.particle_options import ParticleOptions
from cryoinfer.cli.plan import Plan
from cryoinfer.cli.processes import joined_processes, require_alone
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.rejected_particles import (
    chosen_particles,
    flag_words,
    used_particles,
)
from cryoinfer.cli.results import write_encoder
from cryoinfer.cli.run_folder import RunFolder, require_elsewhere
from cryoinfer.cli.runs import explained_interruption, is_done
from cryoinfer.cli.terminal import say
from cryoinfer.cli.threads import use_threads
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.interfaces import Monitor
from cryoinfer.results import run_files
from cryoinfer.results.heterogeneity import ENCODER_NUMBERS, Heterogeneity
from cryoinfer.results.run_record import REMARKS, RunRecord
from cryoinfer.workflows.amortize import fitting_encoder, require_teachable
from cryoinfer.workflows.amortized_conformations import (
    AmortizedConformations,
    amortize_conformations,
)
from cryoinfer.workflows.heterogeneity import heterogeneity
from cryoinfer.workflows.heterogeneity_config import (
    HeterogeneityConfig,
    require_enough,
)
from cryoinfer.workflows.reconstruct import given_poses

Poses = Literal["unknown", "given"]


@dataclass(frozen=True)
class HeterogeneityOptions:
    """What a user asks of an inference of conformations.

    Attributes
    ----------
    particles, out : Path
    dims : int or None
        Components; None for as many as held-out images ask for.
    poses : {"unknown", "given"}
    method : {"search", "amortized", "semi-amortized"}
        By which all particles are inferred in what some of them have taught.
    resolution : float
        That conformations are inferred at, in angstrom.
    particle_diameter, max_shift : float or None
        In angstrom.
    learn : int
        Most particles that the subspace is learned from.
    reading : ParticleOptions
    seed : int
    threads : int or None
    resume, overwrite, dry_run : bool
    """

    particles: Path
    out: Path
    dims: int | None
    poses: Poses
    method: RefinementMethod
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
            "dims": self.dims,
            "poses": self.poses,
            "method": self.method,
            "resolution": self.resolution,
            "particle-diameter": self.particle_diameter,
            "max-shift": self.max_shift,
            "learn": self.learn,
            **self.reading.arguments(),
            "seed": self.seed,
        }

    def config(self) -> HeterogeneityConfig:
        """Return what the workflow is told."""
        return HeterogeneityConfig(
            dims=self.dims,
            poses=self.poses,
            resolution_angstrom=self.resolution,
            particle_diameter_angstrom=self.particle_diameter,
            max_shift_angstrom=self.max_shift,
            learning_particles=self.learn,
            seed=self.seed,
        )


def find_conformations(options: HeterogeneityOptions, console: Console) -> None:
    """Infer the conformation of every particle, and write a run folder.

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
                found = job.infer(monitor)
        finally:
            folder.add_times(monitor.stage_seconds)
        told: dict[str, Any] = {REMARKS: job.remarks, INHERITED: job.inherited}
        if isinstance(found, AmortizedConformations):
            told[ENCODER_NUMBERS] = write_encoder(folder, found.trained, found.trials)
            found = found.found
        for line in finish_conformations(folder, job.particles, job.used, found, told):
            monitor.message(line)


@dataclass(frozen=True)
class _Job:
    """Options, and what was read on their behalf."""

    options: HeterogeneityOptions
    particles: Particles
    used: Tensor
    chosen: Particles

    @classmethod
    def prepare(cls, options: HeterogeneityOptions) -> Self:
        """Read the inputs and refuse what cannot work."""
        require_elsewhere(options.out, options.particles)
        particles = options.reading.load(options.particles)
        used = used_particles("heterogeneity", particles)
        chosen = chosen_particles(particles, used)
        require_enough(len(chosen), options.config())
        if options.poses == "given":
            given_poses(chosen)
        if options.method != "search":
            if options.poses == "given":
                raise InputError(
                    f"--method {options.method} infers poses, --poses given takes them "
                    "from the file: leave out one of the two"
                )
            require_teachable(chosen, fitting_encoder(chosen.box))
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
            options.config().tried_dims(n),
            options.poses == "unknown",
            0 if options.method == "search" else TrainingConfig().steps,
        )
        estimate = estimate_heterogeneity(work, n, self.chosen.box, threads)
        dims = (
            "as many components as held-out images support"
            if options.dims is None
            else (f"{options.dims} component{'s' if options.dims > 1 else ''}")
        )
        told = f"heterogeneity, {dims}, poses {options.poses}"
        return Plan(told, self.particles, options.out, threads, estimate)

    def infer(self, monitor: Monitor) -> Heterogeneity | AmortizedConformations:
        """Return what is found, of the particles that are used."""
        config, method = self.options.config(), self.options.method
        if method == "search":
            return heterogeneity(self.chosen, config, monitor)
        encoder = replace(fitting_encoder(self.chosen.box), seed=self.options.seed)
        refines = method == "semi-amortized"
        return amortize_conformations(self.chosen, config, encoder, refines, monitor)
