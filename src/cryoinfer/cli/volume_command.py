"""The command about maps of conformations; app.py registers it."""

from typing import Annotated

import typer
from rich.console import Console

from cryoinfer.cli import numbers
from cryoinfer.cli import options as opt
from cryoinfer.cli.particle_options import (
    AS_WRITTEN,
    ParticleOptions,
    reads_particles,
)

Z = Annotated[
    list[str] | None,
    typer.Option(
        "--z",
        metavar="Z",
        help="A point in z, its coordinates separated by commas; may be repeated.",
        show_default=False,
    ),
]
Along = Annotated[
    int | None,
    typer.Option(
        callback=numbers.whole(1),
        metavar="AXIS",
        help="Points along this axis of z, from the 5th to the 95th percentile of the "
        "particles.",
        show_default=False,
    ),
]
Ends = Annotated[
    tuple[str, str] | None,
    typer.Option(
        "--path",
        metavar="Z Z",
        help="Points on the straight line between two points in z.",
        show_default=False,
    ),
]
Kmeans = Annotated[
    int | None,
    typer.Option(
        callback=numbers.whole(1, 1000),
        metavar="COUNT",
        help="Points at the centres of this many clusters, the largest first.",
        show_default=False,
    ),
]
Maps = Annotated[
    int | None,
    typer.Option(
        "--count",
        callback=numbers.whole(1, 1000),
        metavar="COUNT",
        help="Number of maps along an axis or a path; 5 by default.",
        show_default=False,
    ),
]
Memory = Annotated[
    float,
    typer.Option(
        callback=numbers.between(0.0, 1e6, above=True),
        metavar="GB",
        help="Memory for accumulating maps, in GB; with less, the particles are read "
        "more often. The maps do not depend on it.",
    ),
]


@reads_particles
def volumes(
    run: opt.Run,
    out: opt.Out,
    z: Z = None,
    along: Along = None,
    path: Ends = None,
    kmeans: Kmeans = None,
    count: Maps = None,
    memory: Memory = 8.0,
    reading: ParticleOptions = AS_WRITTEN,
    threads: opt.Threads = None,
    seed: opt.Seed = 0,
    overwrite: opt.Overwrite = False,
) -> None:
    """Make maps at points in z from the particles near each, with half-maps."""
    from cryoinfer.cli.volumes import VolumesOptions, make_volumes

    make_volumes(
        VolumesOptions(
            run=run,
            out=out,
            z=tuple(z or ()),
            along=along,
            path=path,
            kmeans=kmeans,
            count=count,
            memory=memory,
            reading=reading,
            seed=seed,
            threads=threads,
            overwrite=overwrite,
        ),
        Console(),
    )
