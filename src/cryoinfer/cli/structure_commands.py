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
        "file: the imaged molecule, in one conformation.",
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
        help="Expected standard deviation along the softest mode, in A RMSD; those of "
        "the others follow from their stiffness.",
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
        help="Where poses come from. searched: a search of all poses with maps of "
        "several conformations. unknown: an encoder, for very many particles. given: "
        "the particles' file. in-plane: all particles are seen along the structure's z "
        "axis, and only the in-plane angle is inferred.",
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
        help="How posteriors are inferred. refinement: their modes and the widths "
        "there (Laplace), corrected with simulated images. variational: Gaussians "
        "fitted to them (stochastic variational inference), from low to high "
        "resolution.",
    ),
]
Draws = Annotated[
    int,
    typer.Option(
        metavar="COUNT",
        callback=numbers.whole(0),
        help="Additional starts at each resolution, drawn around the modes found at "
        "the previous one: for images of so little signal that posteriors have several "
        "modes (6 below -15 dB).",
    ),
]
Learn = Annotated[
    int,
    typer.Option(
        callback=numbers.whole(0),
        metavar="ROUNDS",
        help="Rounds in which the model at rest and its modes are learned from the "
        "particles (8, for example), where the structure may be wrong or the particles "
        "move along other modes.",
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
    """Compute the normal modes of a structure (elastic network)."""
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
            help="Density below which is no molecule; by default three tenths of the "
            "highest.",
            show_default=False,
        ),
    ] = None,
    pixel_size: VoxelSize = None,
    threads: opt.Threads = None,
    seed: opt.Seed = 0,
    overwrite: opt.Overwrite = False,
) -> None:
    """Model a map by pseudo-atoms, for modes and dynamics without an atomic model."""
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
    """Infer the motion of every particle along the normal modes of a structure."""
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
