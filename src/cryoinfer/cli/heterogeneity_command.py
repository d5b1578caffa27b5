"""The command about conformations without a model; app.py registers it."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from cryoinfer.cli import inputs, numbers
from cryoinfer.cli import options as opt
from cryoinfer.cli.particle_options import (
    AS_WRITTEN,
    ParticleOptions,
    reads_particles,
)
from cryoinfer.errors import InputError
from cryoinfer.results.layout import MOST_CLASSES

Model = Annotated[
    Literal["subspace", "field", "classes"],
    typer.Option(
        "--model",
        help="A linear subspace of maps, for particles that change continuously or "
        "between few states of one molecule; a curved field of maps, learned from the "
        "subspace, for large motions; or discrete classes with a map each, for "
        "assemblies with parts missing and different molecules.",
    ),
]
Classes = Annotated[
    int | None,
    typer.Option(
        "--classes",
        callback=numbers.whole(1, MOST_CLASSES),
        metavar="COUNT",
        help="Classes, with `--model classes`; by default as many as make images that "
        "they were not made of likelier, at most 6.",
        show_default=False,
    ),
]
Dims = Annotated[
    int | None,
    typer.Option(
        "--dims",
        callback=numbers.whole(1, 20),
        metavar="COUNT",
        help="Components, with `--model subspace`, or dimensions of z, with `--model "
        "field`; by default as many as raise the likelihood of held-out images, at "
        "most 4 components or 3 dimensions.",
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


FocusMask = Annotated[
    Path | None,
    typer.Option(
        "--focus-mask",
        callback=inputs.a_file("MRC file"),
        metavar="MASK.mrc",
        help="Mask, 0 to 1, of the part whose motion z is to describe, on the voxels "
        "of a map at the given poses (`--poses given`): components are multiplied by "
        "it, the mean map is not.",
        show_default=False,
    ),
]


@reads_particles
def heterogeneity(
    particles: opt.Particles,
    out: opt.Out,
    model: Model = "subspace",
    dims: Dims = None,
    classes: Classes = None,
    poses: Poses = "unknown",
    focus_mask: FocusMask = None,
    method: Method = "search",
    resolution: Resolution = 10.0,
    particle_diameter: opt.ParticleDiameter = None,
    max_shift: opt.MaxShift = None,
    learn: Learn = 10_000,
    reading: ParticleOptions = AS_WRITTEN,
    threads: opt.Threads = None,
    device: opt.Device = "auto",
    seed: opt.Seed = 0,
    resume: opt.Resume = False,
    overwrite: opt.Overwrite = False,
    dry_run: opt.DryRun = False,
) -> None:
    """Infer pose and conformation of every particle, without an atomic model.

    A subspace: a mean map and components, and for every particle its pose and its
    coordinates z along the components, with their uncertainty. A field: the same where
    the map is a polynomial of z. Classes: a map of each, and the probability of every
    particle to be of each.
    """
    _require_own_options(model, dims, classes, method)
    _require_mask_applies(focus_mask, model, method)
    given: dict[str, Any] = {
        "particles": particles,
        "out": out,
        "poses": poses,
        "resolution": resolution,
        "particle_diameter": particle_diameter,
        "max_shift": max_shift,
        "learn": learn,
        "reading": reading,
        "seed": seed,
        "threads": threads,
        "device": device,
        "resume": resume,
        "overwrite": overwrite,
        "dry_run": dry_run,
    }
    if model == "classes":
        from cryoinfer.cli import classes as of_classes

        options = of_classes.ClassOptions(classes=classes, **given)
        of_classes.find_classes(options, Console())
        return
    from cryoinfer.cli import heterogeneity as command

    continuous = command.HeterogeneityOptions(
        model=model, dims=dims, method=method, focus_mask=focus_mask, **given
    )
    command.find_conformations(continuous, Console())


def _require_own_options(
    model: str, dims: int | None, classes: int | None, method: str
) -> None:
    """Refuse options of another model.

    Raises
    ------
    InputError
    """
    if model == "classes" and dims is not None:
        raise InputError(
            "--dims is of --model subspace: expected --classes, or neither"
        )
    if model == "classes" and method != "search":
        raise InputError(
            f"--method {method} is of --model subspace: classes are searched; leave it "
            "out"
        )
    if model == "field" and method != "search":
        raise InputError(
            f"--method {method} is of --model subspace: particles are searched in the "
            "subspace before a field is learned; leave it out"
        )
    if model != "classes" and classes is not None:
        raise InputError("--classes is of --model classes, which was not asked for")


def _require_mask_applies(focus_mask: Path | None, model: str, method: str) -> None:
    """Refuse a focus mask where it would not be applied.

    Raises
    ------
    InputError
    """
    if focus_mask is None:
        return
    if model != "subspace":
        raise InputError(
            "--focus-mask is of --model subspace: maps of classes, and of a field, "
            "differ anywhere"
        )
    if method != "search":
        raise InputError(
            f"--focus-mask needs --poses given, and --method {method} infers poses: "
            "leave out one of the two"
        )
