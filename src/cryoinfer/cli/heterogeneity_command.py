"""The command about conformations without a model; app.py registers it."""

from typing import Annotated, Literal

import typer
from rich.console import Console

from cryoinfer.cli import numbers
from cryoinfer.cli import options as opt
from cryoinfer.cli.particle_options import (
    AS_WRITTEN,
    ParticleOptions,
    reads_particles,
)

Dims = Annotated[
    int | None,
    typer.Option(
        "--dims",
        callback=numbers.whole(1, 20),
        metavar="COUNT",
        help="Components of the subspace; by default as many as make images that they "
        "were not made of likelier, at most 4.",
        show_default=False,
    ),
]
Poses = Annotated[
    Literal["unknown", "given"],
    typer.Option(
        "--poses",
        help="Whether poses are found, or taken from the file as they are.",
    ),
]
Resolution = Annotated[
    float,
    typer.Option(
        callback=numbers.length(),
        metavar="A",
        help="Resolution in A that conformations are inferred at; poses are refined "
        "and maps made at 0.45 of it.",
    ),
]
Learn = Annotated[
    int,
    typer.Option(
        callback=numbers.whole(200, 10_000_000),
        metavar="COUNT",
        help="Most particles that the subspace is learned from, drawn at random; all "
        "are inferred in it, and add to the last maps.",
    ),
]


@reads_particles
def heterogeneity(
    particles: opt.Particles,
    out: opt.Out,
    dims: Dims = None,
    poses: Poses = "unknown",
    resolution: Resolution = 10.0,
    particle_diameter: opt.ParticleDiameter = None,
    max_shift: opt.MaxShift = None,
    learn: Learn = 10_000,
    reading: ParticleOptions = AS_WRITTEN,
    threads: opt.Threads = None,
    seed: opt.Seed = 0,
    resume: opt.Resume = False,
    overwrite: opt.Overwrite = False,
    dry_run: opt.DryRun = False,
) -> None:
    """Find what conformations particles have, and which of them each one has.

    Without a model: a mean map and components, poses, and for every particle its
    coordinates z along the components with their uncertainty.
    """
    from cryoinfer.cli import heterogeneity as command

    command.find_conformations(
        command.HeterogeneityOptions(
            particles=particles,
            out=out,
            dims=dims,
            poses=poses,
            resolution=resolution,
            particle_diameter=particle_diameter,
            max_shift=max_shift,
            learn=learn,
            reading=reading,
            seed=seed,
            threads=threads,
            resume=resume,
            overwrite=overwrite,
            dry_run=dry_run,
        ),
        Console(),
    )
