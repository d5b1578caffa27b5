"""The three workflows, run from files to a folder."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from cryoinfer.cli.device import chosen_device, device_words
from cryoinfer.cli.estimate import Estimate, estimate_amortized, estimate_run
from cryoinfer.cli.nothing_found import (
    INHERITED,
    OWN_CAUTIONS,
    exit_code,
    inherited,
    nothing_words,
)
from cryoinfer.cli.optics_options import optics_terms, require_refinable
from cryoinfer.cli.options import RunOptions
from cryoinfer.cli.plan import Plan
from cryoinfer.cli.processes import (
    is_bidden,
    joined_processes,
    leading,
    require_alone,
)
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.published_method import (
    PUBLISHED,
    estimate_of,
    published_cautions,
    require_own_options,
    require_published,
    run_published,
)
from cryoinfer.cli.rejected_particles import (
    chosen_particles,
    flag_words,
    used_particles,
)
from cryoinfer.cli.results import write_encoder, write_results
from cryoinfer.cli.run_folder import RunFolder, require_elsewhere, require_free
from cryoinfer.cli.run_inputs import read_mask, read_start, require_lengths
from cryoinfer.cli.run_summary import summary
from cryoinfer.cli.terminal import say
from cryoinfer.cli.threads import use_threads
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.interfaces import Monitor, SilentMonitor
from cryoinfer.io.files import content_sha256
from cryoinfer.results import run_files
from cryoinfer.results.flags import OBEYED, UNREADABLE, given_flags
from cryoinfer.results.layout import RECORD
from cryoinfer.results.run_record import REMARKS, RunRecord
from cryoinfer.results.run_result import Reconstruction, RunResult
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio
from cryoinfer.workflows.amortize import (
    SUBSET,
    AmortizeConfig,
    Amortized,
    amortize,
    fitting_encoder,
    require_teachable,
)
from cryoinfer.workflows.inferred import with_rejected
from cryoinfer.workflows.random_start import require_many
from cryoinfer.workflows.reconstruct import ReconstructConfig, reconstruct
from cryoinfer.workflows.refine import RefineConfig, StartingMap, refine
from cryoinfer.world import World

RESUMED = "The same command with --resume goes on from {start}."
"""How to go on after an interruption, from where the run stood."""


def run(options: RunOptions, console: Console, going_on: str = RESUMED) -> int:
    """Run a workflow, or say what it would take.

    Everything that can be known to be wrong is refused before anything is written.

    Parameters
    ----------
    options : RunOptions
    console : Console
    going_on : str
        How a user of the command goes on with a run that was interrupted.

    Returns
    -------
    int
        The exit code: 3 of a run that has found no structure, 0 of any other.

    Raises
    ------
    InputError
        If particles, map or options cannot be used.
    OutputError
        If the folder is taken or cannot be written.
    """
    with joined_processes() as world:
        maps = [path for path in (options.map, options.mask) if path]
        require_elsewhere(options.out, options.particles, *maps)
        job = _Job.prepare(options, world)
        if world.is_first:
            with leading(world) as begin:
                return _lead(job, begin, console, going_on)
        if is_bidden(world):
            job.compute(SilentMonitor())
        return 0


def _lead(
    job: "_Job", begin: Callable[[], None], console: Console, going_on: str
) -> int:
    """Do all that users see; ``begin`` as soon as nothing is in the way."""
    options, record = job.options, job.record()
    if is_done(options.out, record, options.resume, options.overwrite, console):
        return exit_code(RunRecord.read(options.out))
    if options.dry_run:
        own = [f"Caution: {text}" for text in published_cautions(options)]
        words = flag_words(options.workflow, job.particles)
        for text in (*device_words(job.device), *own, *words):
            say(console, text)
        job.plan().print(console)
        return 0
    job.plan().require_disk()
    with RunFolder(options.out, record, options.resume, options.overwrite) as folder:
        begin()  # the folder is ours
        with explained_interruption(folder, console, going_on):
            _run_in(folder, job, console)
        return exit_code(folder.record)


def is_done(
    out: Path, record: RunRecord, resume: bool, overwrite: bool, console: Console
) -> bool:
    """Tell, and say, whether the run that is asked for has been finished before.

    Raises
    ------
    OutputError
        As :func:`require_free`.
    """
    require_free(out, record, resume, overwrite)
    there = (out / RECORD).exists()
    if not (resume and there and RunRecord.read(out).status == "finished"):
        return False
    say(console, f"The run in {out} is finished: there is nothing to do.")
    if words := nothing_words(RunRecord.read(out).results):
        say(console, words)
    return True


@contextmanager
def explained_interruption(
    folder: RunFolder, console: Console, going_on: str = RESUMED
) -> Iterator[None]:
    """Say how to go on, where Ctrl-C or SIGTERM ends the work in a folder."""
    try:
        yield
    except KeyboardInterrupt:
        kept = folder.checkpoint.exists()
        start = "its last checkpoint" if kept else "its beginning"
        say(console, f"Interrupted. {going_on.format(start=start)}")
        raise


def _run_in(folder: RunFolder, job: "_Job", console: Console) -> None:
    """Compute in a folder that has been prepared, and write what comes out."""
    folder.log(
        f"cryoinfer {folder.record.workflow}, {json.dumps(folder.record.arguments)}"
    )
    monitor = RichMonitor(console, folder.log, folder.state())
    # Poses that are searched for anew have nothing of an earlier run.
    posed = job.options.particles if job.uses_poses else None
    from_runs = inherited(posed, job.options.map, job.options.mask)
    remarks = [
        *flag_words(job.options.workflow, job.particles),
        *job.particles.remarks,
        *([f"Maps are masked by {job.options.mask}."] if job.options.mask else []),
    ]
    own = published_cautions(job.options)
    cautions = [f"Caution: {text}" for text in (*from_runs, *own)]
    for text in (*device_words(job.device), *cautions, *remarks):
        monitor.message(text)
    try:
        with monitor:
            result = job.compute(monitor)
    finally:
        folder.add_times(monitor.stage_seconds)
    numbers: dict[str, object] = {INHERITED: from_runs, REMARKS: remarks}
    if own:
        numbers[OWN_CAUTIONS] = own
    if isinstance(result, Amortized):
        numbers |= _amortized_numbers(folder, result)
        result = result.result
    if left := int((~job.used).sum()):
        numbers[OBEYED] = left
        if isinstance(result, RunResult):
            given = given_flags(job.particles) == UNREADABLE
            result = with_rejected(result, job.used, job.particles, given)
    write_results(folder, job.particles, result, numbers, job.used)
    for line in summary(folder, job.options):
        monitor.message(line)


def _amortized_numbers(folder: RunFolder, found: Amortized) -> dict[str, object]:
    """Write the encoder, for particles that are yet to come, and return how it did."""
    return {
        **write_encoder(folder, found.trained, found.trials),
        "searched_particles": found.searched.particles,
        "searched_resolution_angstrom": found.searched.resolution_angstrom,
    }


@dataclass(frozen=True)
class _Job:
    """Options, and what was read on their behalf.

    All particles of the file, and a mask of those that are used.
    """

    options: RunOptions
    particles: Particles
    used: Tensor
    start: StartingMap | None
    mask: Tensor | None
    threads: int
    world: World
    device: torch.device

    @property
    def uses_poses(self) -> bool:
        """Whether the run begins with poses that the particles have."""
        workflow, start = self.options.workflow, self.start
        given = workflow == "reconstruct" or self.options.head == "known"
        return given or (workflow == "refine" and start is None)

    @classmethod
    def prepare(cls, options: RunOptions, world: World) -> "_Job":
        """Read the inputs and refuse what cannot work."""
        require_own_options(options)
        particles = options.reading.load(options.particles)
        used = used_particles(options.workflow, particles)
        symmetry_rotations(options.symmetry)
        if options.workflow == "abinitio":
            require_many(int(used.sum()))
        require_lengths(options, particles)
        require_refinable(options, particles)
        no_poses = particles.pose_problem or f"{options.particles} has no poses."
        if options.workflow == "reconstruct" and particles.pose is None:
            raise InputError(
                f"{no_poses} Without them nothing can be reconstructed. Find them with "
                "`cryoinfer abinitio`."
            )
        start, mask = read_start(options), read_mask(options, particles)
        if options.workflow == "refine" and start is None and particles.pose is None:
            raise InputError(
                f"{no_poses} There is no map to find them with either. Give --map, or "
                "begin with `cryoinfer abinitio`."
            )
        if options.method != "search":
            own = ", or train cryoinfer's own encoder in several (`cryoinfer train`)"
            require_alone(world, f"the method {options.method}", own)
            if options.method == PUBLISHED:
                require_published(options, chosen_particles(particles, used))
            else:
                require_teachable(particles, fitting_encoder(particles.box))
        device = chosen_device(options.device)
        threads = use_threads(options.threads)
        return cls(options, particles, used, start, mask, threads, world, device)

    @property
    def chosen(self) -> Particles:
        """The particles that are used."""
        return chosen_particles(self.particles, self.used)

    def record(self) -> RunRecord:
        """Return the record of the run that would begin now."""
        options = self.options
        inputs = run_files.fingerprint(self.particles, options.particles, options.map)
        if options.mask is not None:
            inputs["mask"] = {"sha256": content_sha256(options.mask)}
        return RunRecord.of_now(
            options.workflow,
            options.arguments(),
            inputs,
            options.seed,
            self.threads,
            str(self.device),
        )

    def compute(self, monitor: Monitor) -> RunResult | Reconstruction | Amortized:
        """Call the workflow."""
        options = self.options
        if options.workflow == "reconstruct":
            config = ReconstructConfig(
                symmetry=options.symmetry,
                particle_diameter_angstrom=options.particle_diameter,
                seed=options.seed,
                mask=self.mask,
            )
            return reconstruct(self.chosen, config, monitor, self.world, self.device)
        if options.method == "search":
            return self.search(self.chosen, monitor)
        if options.method == PUBLISHED:
            return run_published(options, self.chosen, monitor, self.device)
        encoder = fitting_encoder(self.particles.box)
        chosen = AmortizeConfig(
            local_refinement=options.method == "semi-amortized",
            resolution_angstrom=options.resolution,
            particle_diameter_angstrom=options.particle_diameter,
            encoder=replace(
                encoder,
                seed=options.seed,
                defocus_sd_angstrom=options.defocus_error,
            ),
            seed=options.seed,
        )
        return amortize(self.chosen, self.search, chosen, monitor)

    def search(self, particles: Particles, monitor: Monitor) -> RunResult:
        """Search poses and map of the particles, or of some of them."""
        options = self.options
        if options.workflow == "refine":
            config = RefineConfig(
                symmetry=options.symmetry,
                particle_diameter_angstrom=options.particle_diameter,
                resolution_angstrom=options.resolution,
                max_shift_angstrom=options.max_shift,
                refine_defocus=options.defocus_error > 0,
                defocus_sd_angstrom=options.defocus_error,
                optics_terms=optics_terms(options),
                seed=options.seed,
                mask=self.mask,
            )
            return refine(
                particles, self.start, config, monitor, self.world, self.device
            )
        return abinitio(
            particles,
            AbinitioConfig(
                symmetry=options.symmetry,
                particle_diameter_angstrom=options.particle_diameter,
                resolution_angstrom=options.resolution,
                max_shift_angstrom=options.max_shift,
                starts=options.starts,
                refine_defocus=options.defocus_error > 0,
                defocus_sd_angstrom=options.defocus_error,
                seed=options.seed,
            ),
            monitor,
            self.world,
            self.device,
        )

    def plan(self) -> Plan:
        """Return what would be done and what it will take."""
        options, used = self.options, int(self.used.sum())
        estimate = self._estimate(len(self.particles)).for_used(self._estimate(used))
        if options.workflow == "abinitio" and options.method != PUBLISHED:
            estimate = estimate.with_starts(options.starts, self.threads)
        work = f"{options.workflow}, symmetry {options.symmetry}"
        return Plan(work, self.particles, options.out, self.threads, estimate)

    def _estimate(self, n: int) -> Estimate:
        """Return what n particles like these take."""
        options, box = self.options, int(self.particles.boxes.max())
        if options.method == "search":
            return estimate_run(options.workflow, n, box, self.threads)
        if options.method == PUBLISHED:
            return estimate_of(options, n, box, self.threads)
        steps = fitting_encoder(box).training.steps
        return estimate_amortized(options.workflow, n, box, self.threads, SUBSET, steps)
