"""Maps of conformations of a run, written as a series."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from rich.console import Console
from torch import Tensor

from cryoinfer.cli.arguments import recorded_path
from cryoinfer.cli.nothing_found import inherited
from cryoinfer.cli.outputs import make_folder, require_free_folder
from cryoinfer.cli.particle_options import ParticleOptions
from cryoinfer.cli.processes import is_bidden, joined_processes, leading
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.run_folder import require_elsewhere
from cryoinfer.cli.terminal import aligned, say
from cryoinfer.cli.threads import use_threads
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.interfaces import Monitor, SilentMonitor
from cryoinfer.reconstruction.kernel_regression import (
    NARROWEST,
    ConformationPosterior,
)
from cryoinfer.results import layout
from cryoinfer.results.flags import given_flags
from cryoinfer.results.run_record import (
    RunRecord,
    local_time,
    require_finished,
    software_versions,
)
from cryoinfer.results.target_volume import TargetVolume
from cryoinfer.results.volume_files import (
    TABLE,
    clear_volumes,
    map_name,
    read_conformation_posterior,
    write_tables,
    write_volume,
)
from cryoinfer.workflows.volume_targets import along_axis, along_path, cluster_targets
from cryoinfer.workflows.volumes import (
    VolumesConfig,
    kernel_volumes,
    near_particles,
    require_dimensions,
)
from cryoinfer.world import World

DEFAULT_COUNT = 5
"""Maps along an axis or a path, where nobody says how many."""

_GIGABYTE = 1e9


@dataclass(frozen=True)
class VolumesOptions:
    """What a user asks of the maps of conformations.

    Attributes
    ----------
    run, out : Path
    z : tuple of str
        Conformations, their numbers separated by commas.
    along : int or None
        Axis of z, from 1.
    path : tuple of two str, or None
        First and last conformation.
    kmeans : int or None
        Number of clusters.
    count : int or None
        Of maps along an axis or a path.
    memory : float
        For sums, in gigabytes.
    reading : ParticleOptions
    seed : int
    threads : int or None
    overwrite : bool
    """

    run: Path
    out: Path
    z: tuple[str, ...]
    along: int | None
    path: tuple[str, str] | None
    kmeans: int | None
    count: int | None
    memory: float
    reading: ParticleOptions
    seed: int
    threads: int | None
    overwrite: bool

    def require_one_choice(self) -> None:
        """Refuse more than one way to choose conformations, or none.

        Raises
        ------
        InputError
        """
        given = [
            name
            for name, value in (
                ("--z", self.z or None),
                ("--along", self.along),
                ("--path", self.path),
                ("--kmeans", self.kmeans),
            )
            if value is not None
        ]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise InputError(
                "expected one of --z, --along, --path and --kmeans, which say of which "
                f"conformations maps are made; found {found}"
            )
        if self.count is not None and given[0] not in ("--along", "--path"):
            raise InputError(
                f"--count goes with --along or --path, found it with {given[0]}"
            )

    def targets(self, posterior: ConformationPosterior) -> Tensor:
        """Return the conformations, shape (t, q)."""
        count = self.count or DEFAULT_COUNT
        if self.along is not None:
            return along_axis(posterior, self.along, count)
        if self.path is not None:
            first, last = map(_parsed, self.path)
            return along_path(first, last, count)
        if self.kmeans is not None:
            return cluster_targets(posterior, self.kmeans)
        parsed = [_parsed(one) for one in self.z]
        for one in parsed:
            require_dimensions(posterior, len(one))
        return torch.stack(parsed)

    def arguments(self) -> dict[str, Any]:
        """Return what decides the result, by option, in values that JSON knows."""
        return {
            "run": recorded_path(self.run),
            "z": list(self.z) or None,
            "along": self.along,
            "path": None if self.path is None else list(self.path),
            "kmeans": self.kmeans,
            "count": self.count,
            **self.reading.arguments(),
            "seed": self.seed,
        }


def make_volumes(options: VolumesOptions, console: Console) -> None:
    """Make the maps, and write them into a folder.

    Everything that can be known to be wrong is refused before anything is written.

    Raises
    ------
    InputError
        If the run has no conformations, or those asked for are not among them.
    OutputError
        If the folder is taken or cannot be written.
    """
    options.require_one_choice()
    with joined_processes() as world:
        require_elsewhere(options.out, options.run)
        require_free_folder(options.out, (TABLE, map_name(1)), options.overwrite)
        use_threads(options.threads)
        job = _Job.prepare(options, world)
        if world.is_first:
            with leading(world) as begin:
                _lead(job, begin, console)
        elif is_bidden(world):
            for _ in job.volumes(SilentMonitor()):
                pass


@dataclass(frozen=True)
class _Job:
    """Options, and what was read on their behalf."""

    options: VolumesOptions
    particles: Particles
    posterior: ConformationPosterior
    targets: Tensor
    near: list[int]
    config: VolumesConfig
    world: World

    @classmethod
    def prepare(cls, options: VolumesOptions, world: World) -> Self:
        """Read the run and refuse what cannot work."""
        record = require_finished(options.run)
        posterior = read_conformation_posterior(options.run)
        reading = options.reading.of_run(record)
        particles = reading.load(options.run / layout.PARTICLES)
        if len(particles) != len(posterior):
            raise InputError(
                f"{options.run / layout.PARTICLES} does not go with "
                f"{layout.POSTERIORS}: expected {len(posterior):,} particles, found "
                f"{len(particles):,}. Copy both again, or repeat the run"
            )
        used = posterior.known & (given_flags(particles) == 0)
        if not bool(used.any()):
            raise InputError(
                f"{options.run} has no particle whose conformation is known"
            )
        posterior = posterior[used]
        targets = options.targets(posterior)
        near = near_particles(posterior, targets)
        config = _config(options, record)
        return cls(
            options, particles.select(used), posterior, targets, near, config, world
        )

    def volumes(self, monitor: Monitor) -> Iterator[TargetVolume]:
        """Yield the maps."""
        return kernel_volumes(
            self.particles,
            self.posterior,
            self.targets,
            self.config,
            monitor,
            self.world,
        )

    def cautions(self) -> list[str]:
        """Say which maps are of few particles, and what is to be known of the run."""
        few = [
            f"{map_name(number)}: few particles are near z = {_told(target)}, {count}; "
            "the map is made of particles of other conformations, too."
            for number, target, count in zip(
                itertools.count(1), self.targets, self.near, strict=False
            )
            if count < NARROWEST
        ]
        return [*few, *inherited(self.options.run)]


def _config(options: VolumesOptions, record: RunRecord) -> VolumesConfig:
    diameter = record.arguments.get("particle-diameter")
    return VolumesConfig(
        symmetry=record.symmetry(options.run),
        particle_diameter_angstrom=diameter,
        memory_bytes=options.memory * _GIGABYTE,
        seed=options.seed,
    )


def _lead(job: _Job, begin: Callable[[], None], console: Console) -> None:
    """Do all that users see; ``begin`` as soon as nothing is in the way."""
    out = job.options.out
    rows: list[dict[str, Any]] = []
    make_folder(out)
    clear_volumes(out)
    monitor = RichMonitor(console)
    volumes = job.volumes(monitor)
    begin()
    cautions = job.cautions()
    for text in cautions:
        monitor.message(f"Caution: {text}")
    with monitor:
        for number, volume in enumerate(volumes, 1):
            row = write_volume(out, number, volume)
            rows.append(row)
            monitor.message(_line(row))
    about = {
        "command": "volumes",
        "created": local_time(),
        "arguments": job.options.arguments(),
        "symmetry": job.config.symmetry,
        "particles": len(job.particles),
        "versions": software_versions(),
        "cautions": cautions,
    }
    write_tables(out, rows, about)
    for line in aligned({"Maps": str(out), "Table": str(out / TABLE)}):
        say(console, line)


def _line(row: dict[str, Any]) -> str:
    reached = row["resolution_angstrom"]
    told = "no resolution" if reached is None else f"{reached:.2f} A"
    return (
        f"{row['map']}: z = {_told(row['z'])}, {row['effective_particles']:,.0f} "
        f"effective particles, {told} (FSC 0.143 of the half-maps)"
    )


def _told(target: Any) -> str:
    return ",".join(f"{float(one):.4g}" for one in target)


def _parsed(text: str) -> Tensor:
    """Return a conformation that was given as numbers separated by commas."""
    try:
        found = torch.tensor([float(one) for one in text.split(",")])
    except ValueError:
        found = torch.tensor([torch.nan])
    if not bool(found.isfinite().all()):
        raise InputError(
            f"expected a z as numbers separated by commas (0.5,-1), found {text!r}"
        )
    return found.double()
