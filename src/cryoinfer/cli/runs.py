"""The three workflows, run from files to a folder."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from cryoinfer.cli import run_files, run_folder
from cryoinfer.cli.estimate import estimate_amortized, estimate_run
from cryoinfer.cli.map_inputs import MAP_OPTION, read_named_map
from cryoinfer.cli.options import RunOptions
from cryoinfer.cli.plan import Plan
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.results import write_encoder, write_results
from cryoinfer.cli.run_folder import RunFolder, require_elsewhere, require_free
from cryoinfer.cli.run_record import RECORD, RunRecord
from cryoinfer.cli.terminal import aligned, say
from cryoinfer.cli.threads import use_threads
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, ResourceError
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.interfaces import Monitor
from cryoinfer.wording import format_bytes, format_duration
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio
from cryoinfer.workflows.amortize import (
    SUBSET,
    AmortizeConfig,
    Amortized,
    amortize,
    fitting_encoder,
    require_teachable,
)
from cryoinfer.workflows.reconstruct import ReconstructConfig, reconstruct
from cryoinfer.workflows.refine import RefineConfig, StartingMap, refine
from cryoinfer.workflows.result import Reconstruction, RunResult

_HANDEDNESS = {
    "abinitio": "The hand of the map is not known: untilted images cannot tell it. "
    "If it is wrong, `cryoinfer flip` mirrors the map and the poses together.",
    "refine": "The map has the hand of what it was refined from.",
    "reconstruct": "The map has the hand of the poses.",
}


def run(options: RunOptions, console: Console) -> None:
    """Run a workflow, or say what it would take.

    Everything that can be known to be wrong is refused before anything is written.

    Raises
    ------
    InputError
        If particles, map or options cannot be used.
    OutputError
        If the folder is taken or cannot be written.
    """
    maps = [options.map] if options.map else []
    require_elsewhere(options.out, options.particles, *maps)
    job = _Job.prepare(options)
    record = job.record()
    if is_done(options.out, record, options.resume, options.overwrite, console):
        return
    if options.dry_run:
        job.plan().print(console)
        return
    job.plan().require_disk()
    with RunFolder(options.out, record, options.resume, options.overwrite) as folder:
        with explained_interruption(folder, console):
            _run_in(folder, job, console)


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
    return True


@contextmanager
def explained_interruption(folder: RunFolder, console: Console) -> Iterator[None]:
    """Say how to go on, where Ctrl-C or SIGTERM ends the work in a folder."""
    try:
        yield
    except KeyboardInterrupt:
        kept = folder.checkpoint.exists()
        start = "its last checkpoint" if kept else "its beginning"
        say(
            console,
            f"Interrupted. The same command with --resume goes on from {start}.",
        )
        raise


def _run_in(folder: RunFolder, job: "_Job", console: Console) -> None:
    """Compute in a folder that has been prepared, and write what comes out."""
    folder.log(
        f"cryoinfer {folder.record.workflow}, {json.dumps(folder.record.arguments)}"
    )
    monitor = RichMonitor(console, folder.log, folder.state())
    try:
        with monitor:
            for remark in job.particles.remarks:
                monitor.message(remark)
            result = job.compute(monitor)
    finally:
        folder.add_times(monitor.stage_seconds)
    if isinstance(result, Amortized):
        _write_amortized(folder, job.particles, result)
    else:
        write_results(folder, job.particles, result)
    for line in _summary(folder, job.options):
        monitor.message(line)


def _write_amortized(folder: RunFolder, particles: Particles, found: Amortized) -> None:
    """Write the encoder too, for particles that are yet to come, and its verdict."""
    numbers = {
        **write_encoder(folder, found.trained, found.trials),
        "searched_particles": found.searched.particles,
        "searched_resolution_angstrom": found.searched.resolution_angstrom,
    }
    write_results(folder, particles, found.result, numbers)


@dataclass(frozen=True)
class _Job:
    """Options, and what was read on their behalf."""

    options: RunOptions
    particles: Particles
    start: StartingMap | None
    threads: int

    @classmethod
    def prepare(cls, options: RunOptions) -> "_Job":
        """Read the inputs and refuse what cannot work."""
        particles = options.reading.load(options.particles)
        symmetry_rotations(options.symmetry)
        _require_lengths(options, particles)
        no_poses = particles.pose_problem or f"{options.particles} has no poses."
        if options.workflow == "reconstruct" and particles.pose is None:
            raise InputError(
                f"{no_poses} Without them nothing can be reconstructed. Find them with "
                "`cryoinfer abinitio`."
            )
        start = _read_start(options)
        if options.workflow == "refine" and start is None and particles.pose is None:
            raise InputError(
                f"{no_poses} There is no map to find them with either. Give --map, or "
                "begin with `cryoinfer abinitio`."
            )
        if options.method != "search":
            require_teachable(particles, fitting_encoder(particles.box))
        if options.device == "cuda":
            raise ResourceError(
                "expected --device auto or cpu, found cuda: the compiled loops of the "
                "search run on the CPU only so far. Leave the option out."
            )
        threads = use_threads(options.threads)
        return cls(options, particles, start, threads)

    def record(self) -> RunRecord:
        """Return the record of the run that would begin now."""
        options = self.options
        inputs = run_files.fingerprint(self.particles, options.particles, options.map)
        return RunRecord.of_now(
            options.workflow,
            options.arguments(),
            inputs,
            options.seed,
            self.threads,
        )

    def compute(self, monitor: Monitor) -> RunResult | Reconstruction | Amortized:
        """Call the workflow."""
        options = self.options
        if options.workflow == "reconstruct":
            config = ReconstructConfig(
                symmetry=options.symmetry,
                particle_diameter_angstrom=options.particle_diameter,
                seed=options.seed,
            )
            return reconstruct(self.particles, config, monitor)
        if options.method == "search":
            return self.search(self.particles, monitor)
        encoder = fitting_encoder(self.particles.box)
        chosen = AmortizeConfig(
            climb=options.method == "semi-amortized",
            resolution_angstrom=options.resolution,
            particle_diameter_angstrom=options.particle_diameter,
            encoder=replace(
                encoder,
                seed=options.seed,
                defocus_sd_angstrom=options.defocus_error,
            ),
            seed=options.seed,
        )
        return amortize(self.particles, self.search, chosen, monitor)

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
                seed=options.seed,
            )
            return refine(particles, self.start, config, monitor)
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
        )

    def plan(self) -> Plan:
        """Return what would be done and what it will take."""
        options = self.options
        n, box = len(self.particles), int(self.particles.boxes.max())
        if options.method == "search":
            estimate = estimate_run(options.workflow, n, box, self.threads)
        else:
            steps = fitting_encoder(box).training.steps
            estimate = estimate_amortized(
                options.workflow, n, box, self.threads, SUBSET, steps
            )
        work = f"{options.workflow}, symmetry {options.symmetry}"
        return Plan(work, self.particles, options.out, self.threads, estimate)


def _require_lengths(options: RunOptions, particles: Particles) -> None:
    """Refuse lengths that do not go with the box and the pixel size."""
    pixel_size = particles.pixel_size_angstrom
    side = particles.box * pixel_size
    limits = {
        "--particle-diameter": (options.particle_diameter, 2 * pixel_size, side),
        "--resolution": (options.resolution, 2 * pixel_size, side),
        "--max-shift": (options.max_shift, 0.0, side / 2),
    }
    for name, (value, low, high) in limits.items():
        if value is not None and not low <= value <= high:
            raise InputError(
                f"{name} must lie between {low:.4g} and {high:.4g} A for images of "
                f"{particles.box} pixels of {pixel_size:.4g} A, found {value:g}."
            )


def _read_start(options: RunOptions) -> StartingMap | None:
    if options.map is None:
        return None
    found = read_named_map(
        options.map, options.map_pixel_size, MAP_OPTION, options.reading.pixel_size
    )
    return StartingMap(torch.tensor(found.density), found.pixel_size_angstrom)


def _summary(folder: RunFolder, options: RunOptions) -> list[str]:
    found = folder.record.results
    seconds = sum(folder.record.stage_seconds.values())
    peak = format_bytes(folder.record.peak_memory_bytes)
    path, halves, rows = folder.path, "the half-maps, masked", {}
    if options.method != "search":
        halves = "halves that were posed against one map"
        rows = {
            "Search": f"{found['searched_resolution_angstrom']:.2f} A (the same of "
            f"halves refined apart), {found['searched_particles']:,} particles",
            "Encoder": f"{found['verdict']}",
        }
    rows = {
        "Resolution": f"{found['resolution_angstrom']:.2f} A (FSC 0.143 of {halves})",
        **rows,
        "Time": f"{format_duration(seconds)}, {peak} of memory at the peak",
        "Map": f"{path / run_folder.MAP}",
        "Particles": f"{path / run_folder.PARTICLES}",
        "Report": f"{path / run_folder.REPORT}",
    }
    return [*aligned(rows), _HANDEDNESS[options.workflow]]
