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
        help="Components of the subspace; by default as many as raise the likelihood "
        "of held-out images, at most 4.",
        show_default=False,
    ),
]
Poses = Annotated[
    Literal["unknown", "given"],
    typer.Option(
        "--poses",
        help="Whether poses are inferred (unknown), or kept as in the file (given).",
    ),
]
Method = Annotated[
    opt.RefinementMethod,
    typer.Option(
        help="How all particles are inferred in what some have taught. search: all "
        "poses of each. amortized: an encoder that learns the subspace finds pose and "
        "z in one pass; semi-amortized: local refinement of both from there.",
    ),
]
Resolution = Annotated[
    float,
    typer.Option(
        callback=numbers.length(),
        metavar="A",
        help="Resolution, in A, at which conformations are inferred. Poses are refined "
        "and maps made to 0.45 times this value.",
    ),
]
Learn = Annotated[
    int,
    typer.Option(
        callback=numbers.whole(200, 10_000_000),
        metavar="COUNT",
        help="Number of particles, drawn at random, that the subspace is learned from, "
        "if there are more. All are inferred, and used in the final maps.",
    ),
]


@reads_particles
def heterogeneity(
    particles: opt.Particles,
    out: opt.Out,
    dims: Dims = None,
    poses: Poses = "unknown",
    method: Method = "search",
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
    """Infer pose and conformation of every particle, without an atomic model.

    Finds a mean map and components (a linear subspace), and for every particle its
    pose and its coordinates z along the components, with their uncertainty.
    """
    from cryoinfer.cli import heterogeneity as command

    command.find_conformations(
        command.HeterogeneityOptions(
            particles=particles,
            out=out,
            dims=dims,
            poses=poses,
            method=method,
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
