"""The command that selects particles; app.py registers it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cryoinfer.cli import inputs, numbers
from cryoinfer.cli import options as opt
from cryoinfer.cli.particle_options import AS_WRITTEN, ParticleOptions, reads_particles

Where = Annotated[
    str | None,
    typer.Option(
        metavar="CONDITION",
        help='Condition, such as "z_1 > 0.5 and outlier < 3": comparisons of columns '
        "with numbers, joined by and, or, not and parentheses.",
        show_default=False,
    ),
]
Near = Annotated[
    str | None,
    typer.Option(
        metavar="Z",
        help="A point in z, such as 0.5,-1.2: the --count particles nearest to it.",
        show_default=False,
    ),
]
Nearest = Annotated[
    int | None,
    typer.Option(
        metavar="COUNT",
        help="With --near: number of particles, of those that satisfy the other "
        "options.",
        callback=numbers.whole(1),
        show_default=False,
    ),
]
ClassNumber = Annotated[
    int | None,
    typer.Option(
        "--class",
        metavar="NUMBER",
        callback=numbers.whole(1),
        help="Particles of this class, counted from 1.",
        show_default=False,
    ),
]
Rows = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Particles listed in a file: a .txt or .json with row numbers from 0 or "
        "rlnImageName, as a report saves it, or a .pkl of cryoDRGN's indices.",
        callback=inputs.a_file("file of particles' numbers"),
        show_default=False,
    ),
]
ForeignLatents = Annotated[
    Path | None,
    typer.Option(
        metavar="Z.pkl",
        help="Coordinates z of cryoDRGN, one row per particle, in place of the run's.",
        callback=inputs.a_file("file of cryoDRGN"),
        show_default=False,
    ),
]
On = Annotated[
    Path | None,
    typer.Option(
        metavar="PARTICLES",
        help="The particles that `cryoinfer prepare` was given: those selected are "
        "written as they are in that file, with what was found of them.",
        callback=inputs.particle_file,
        show_default=False,
    ),
]


@reads_particles
def select(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="The folder of a finished run, or a file of particles.",
            callback=inputs.run_or_particles,
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="File to write: .star or .cs.",
            show_default=False,
        ),
    ],
    where: Where = None,
    near: Near = None,
    count: Nearest = None,
    class_number: ClassNumber = None,
    rows: Rows = None,
    invert: Annotated[
        bool,
        typer.Option(
            "--invert", metavar="", help="Select all other particles instead."
        ),
    ] = False,
    latents: ForeignLatents = None,
    on: On = None,
    reading: ParticleOptions = AS_WRITTEN,
    overwrite: opt.Overwrite = False,
) -> None:
    """Write some particles of a run to a new file.

    Where several options are given, the particles satisfy all of them.
    """
    from cryoinfer.cli.selection import SelectOptions, select_particles

    options = SelectOptions(
        source=source,
        out=out,
        where=where,
        near=near,
        count=count,
        class_number=class_number,
        rows=rows,
        latents=latents,
        on=on,
        invert=invert,
        overwrite=overwrite,
        reading=reading,
    )
    select_particles(options, Console())
