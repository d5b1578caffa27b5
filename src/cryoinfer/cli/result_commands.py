"""The commands about finished runs and this machine; app.py registers them."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cryoinfer.cli import inputs
from cryoinfer.cli import options as opt
from cryoinfer.cli.map_options import MapPixelSize
from cryoinfer.cli.particle_options import (
    AS_WRITTEN,
    ParticleOptions,
    reads_particles,
)


@reads_particles
def evaluate(
    run: opt.Run,
    truth: Annotated[
        Path,
        typer.Option(
            help="Folder with truth.star, and truth.mrc for a run with a map, as "
            "simulate writes them.",
            callback=inputs.truth,
            show_default=False,
        ),
    ],
    map_pixel_size: MapPixelSize = None,
    reading: ParticleOptions = AS_WRITTEN,
    threads: opt.Threads = None,
) -> None:
    """Compare a run on simulated particles with the truth."""
    from cryoinfer.cli import evaluate as evaluation
    from cryoinfer.cli.threads import use_threads

    use_threads(threads)
    evaluation.evaluate(run, truth, Console(), reading, map_pixel_size)


def selfcheck(threads: opt.Threads = None) -> None:
    """Test on this machine that compiled kernels agree with plain versions.

    Exit code 0: all agree; 1: one differs.
    """
    from cryoinfer.cli.selfcheck import check_machine
    from cryoinfer.cli.threads import use_threads

    use_threads(threads)
    raise typer.Exit(check_machine(Console()))


def report(run: opt.Run) -> None:
    """Write the report of a run again, from its folder."""
    from cryoinfer.cli.report_page import write_report
    from cryoinfer.cli.terminal import say

    say(Console(), f"Written to {write_report(run)}")
