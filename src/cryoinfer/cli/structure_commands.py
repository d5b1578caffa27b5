"""The commands about structures; app.py registers them."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from cryoinfer.cli import inputs, numbers
from cryoinfer.cli import options as opt
from cryoinfer.cli.map_options import VoxelSize
from cryoinfer.cli.particle_options import (
    AS_WRITTEN,
    ParticleOptions,
    reads_particles,
)

Structure = Annotated[
    str,
    typer.Option(
        "--structure",
        metavar="NAME",
        help="A built-in structure (such as adenylate-kinase-open), or an mmCIF or PDB "
        "file: what the particles are of, in one conformation.",
        callback=inputs.structure,
        show_default=False,
    ),
]

Modes = Annotated[
    int,
    typer.Option(
        "--modes",
        callback=numbers.whole(1, 20),
        metavar="COUNT",
        help="Number of normal modes, the softest first.",
    ),
]
Amplitude = Annotated[
    float,
    typer.Option(
        callback=numbers.between(0.01, 1000.0),
        metavar="A",
        help="Expected spread of the softest mode, in A RMSD; others by stiffness.",
    ),
]
Cutoff = Annotated[
    float,
    typer.Option(
        callback=numbers.between(1.0, 1000.0),
        metavar="A",
        help="Length of the longest spring of the elastic network, in A.",
    ),
]
KnownPoses = Annotated[
    Literal["unknown", "in-plane", "given", "searched"],
    typer.Option(
        "--poses",
        help="Whether poses are searched with maps of several conformations, unknown "
        "to an encoder that learns them (one pass an image, for very many), known but "
        "for the angle in the plane (all seen along the structure's z), or those of "
        "the particles' file.",
    ),
]
Shift = Annotated[
    float | None,
    typer.Option(
        "--shift-sd",
        callback=numbers.distance(),
        metavar="A",
        help="Expected standard deviation of the shifts; 5 % of the box by default, 0 "
        "for centred particles.",
        show_default=False,
    ),
]
Inference = Annotated[
    Literal["refinement", "variational"],
    typer.Option(
        "--inference",
        help="How posteriors are inferred: refinement finds their tops and the widths "
        "there, and corrects these by simulated images; variational fits Gaussians to "
        "them by random draws (stochastic variational inference), at ever higher "
        "resolution.",
    ),
]
Draws = Annotated[
    int,
    typer.Option(
        metavar="COUNT",
        callback=numbers.whole(0),
        help="Starts beside what was found at a lower resolution: for images of so "
        "little signal that posteriors have several tops (6, below -15 dB).",
    ),
]
Learn = Annotated[
    int,
    typer.Option(
        callback=numbers.whole(0),
        metavar="ROUNDS",
        help="Rounds in which the model at rest and its modes are learned from the "
        "particles, where the structure may be wrong or moves otherwise: 8, say.",
    ),
]


def modes(
    structure: Annotated[
        str,
        typer.Argument(
            help="A built-in structure (such as adenylate-kinase-open), or an mmCIF "
            "or PDB file.",
            callback=inputs.structure,
            show_default=False,
        ),
    ],
    count: Annotated[
        int,
        typer.Option(
            "--modes",
            callback=numbers.whole(1),
            metavar="COUNT",
            help="Number of normal modes, the softest first.",
        ),
    ] = 10,
    cutoff: Cutoff = 15.0,
    springs: Annotated[
        Literal["constant", "inverse-square"],
        typer.Option(help="Whether short springs are stiffer than long ones."),
    ] = "constant",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Folder for modes.nmd (NMWiz, ProDy) and a report.",
            show_default=False,
        ),
    ] = None,
    threads: opt.Threads = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Show in which ways a structure moves most easily (elastic network)."""
    from cryoinfer.cli.modes import ModesOptions, show_modes
    from cryoinfer.cli.threads import use_threads

    use_threads(threads)
    show_modes(
        ModesOptions(structure, count, cutoff, springs, out, overwrite), Console()
    )


def beads(
    density: Annotated[
        Path,
        typer.Argument(
            metavar="MAP",
            help="A map.",
            callback=inputs.a_file("MRC file"),
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE.cif", help="File to write.", show_default=False
        ),
    ],
    count: Annotated[
        int,
        typer.Option(
            "--count",
            callback=numbers.whole(4),
            metavar="COUNT",
            help="Number of pseudo-atoms.",
        ),
    ] = 300,
    level: Annotated[
        float | None,
        typer.Option(
            metavar="DENSITY",
            callback=numbers.finite(),
            help="Density below which there is none of the molecule; three tenths of "
            "the highest by default.",
            show_default=False,
        ),
    ] = None,
    pixel_size: VoxelSize = None,
    threads: opt.Threads = None,
    seed: opt.Seed = 0,
    overwrite: opt.Overwrite = False,
) -> None:
    """Spread pseudo-atoms over a map, for modes and dynamics without a model."""
    from cryoinfer.cli.beads import BeadsOptions, write_beads
    from cryoinfer.cli.threads import use_threads

    use_threads(threads)
    write_beads(
        BeadsOptions(density, out, count, level, pixel_size, seed, overwrite),
        Console(),
    )


@reads_particles
def dynamics(
    particles: opt.Particles,
    structure: Structure,
    out: opt.Out,
    modes: Modes = 3,
    amplitude: Amplitude = 2.0,
    cutoff: Cutoff = 15.0,
    poses: KnownPoses = "searched",
    inference: Inference = "refinement",
    shift: Shift = None,
    defocus_error: opt.DefocusError = 0.0,
    steps: opt.Steps = 3000,
    side: opt.Side = 32,
    draws: Draws = 0,
    symmetry: opt.Symmetry = "C1",
    learn: Learn = 0,
    reading: ParticleOptions = AS_WRITTEN,
    threads: opt.Threads = None,
    seed: opt.Seed = 0,
    resume: opt.Resume = False,
    overwrite: opt.Overwrite = False,
    dry_run: opt.DryRun = False,
) -> None:
    """Find how far every particle has moved along the modes of a structure."""
    from cryoinfer.cli import dynamics as command

    command.dynamics(
        command.DynamicsOptions(
            particles=particles,
            out=out,
            structure=structure,
            modes=modes,
            amplitude=amplitude,
            cutoff=cutoff,
            poses=poses,
            inference=inference,
            shift=shift,
            defocus_error=defocus_error,
            steps=steps,
            side=side,
            draws=draws,
            symmetry=symmetry,
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
