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
        help='What they are to be, such as "z_1 > 0.5 and outlier < 3": comparisons of '
        "columns with numbers, and, or, not, parentheses.",
        show_default=False,
    ),
]
Near = Annotated[
    str | None,
    typer.Option(
        metavar="Z",
        help="A point in z, such as 0.5,-1.2: those nearest to it, as many as --count "
        "says.",
        show_default=False,
    ),
]
Nearest = Annotated[
    int | None,
    typer.Option(
        metavar="COUNT",
        help="How many particles, of those that are all the rest that is asked for.",
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
        help="Those of a class, from 1.",
        show_default=False,
    ),
]
Rows = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Those that a file lists: a .txt or .json of their numbers from 0 or of "
        "rlnImageName, as a report saves it, or a .pkl of cryoDRGN's indices.",
        callback=inputs.a_file("file of particles' numbers"),
        show_default=False,
    ),
]
ForeignLatents = Annotated[
    Path | None,
    typer.Option(
        metavar="Z.pkl",
        help="File of cryoDRGN's z, a row a particle, in place of the run's latents.",
        callback=inputs.a_file("file of cryoDRGN"),
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
        typer.Option("--invert", metavar="", help="All others instead."),
    ] = False,
    latents: ForeignLatents = None,
    reading: ParticleOptions = AS_WRITTEN,
    overwrite: opt.Overwrite = False,
) -> None:
    """Write some particles of a run to a file of their own.

    Where several options say which, particles are to be all of it.
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
        invert=invert,
        overwrite=overwrite,
        reading=reading,
    )
    select_particles(options, Console())
