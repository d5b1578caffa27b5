"""The commands that write particles anew; app.py registers them."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cryoinfer.cli import numbers
from cryoinfer.cli import options as opt
from cryoinfer.cli.particle_options import AS_WRITTEN, ParticleOptions, reads_particles

Box = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="Box size that images are cropped to in Fourier space, even; by default "
        "that of the images, or a pixel less.",
        callback=numbers.whole(8, numbers.LARGEST_BOX),
        show_default=False,
    ),
]
Resolution = Annotated[
    float | None,
    typer.Option(
        metavar="A",
        help="In place of --box: the finest resolution in A that is to be kept.",
        callback=numbers.length(),
        show_default=False,
    ),
]
Memory = Annotated[
    float,
    typer.Option(
        metavar="GB",
        help="Memory for images in GB; changes the speed, never the result.",
        callback=numbers.between(0.0, 1e5, above=True),
    ),
]


@reads_particles
def prepare(
    particles: opt.Particles,
    out: opt.Out,
    box: Box = None,
    resolution: Resolution = None,
    particle_diameter: opt.ParticleDiameter = None,
    memory: Memory = 0.25,
    reading: ParticleOptions = AS_WRITTEN,
    threads: opt.Threads = None,
    resume: opt.Resume = False,
    overwrite: opt.Overwrite = False,
    dry_run: opt.DryRun = False,
) -> None:
    """Crop and normalise particles, for runs that read less.

    Every command takes the folder in place of the particles.
    """
    from cryoinfer.cli.preparation import PrepareOptions, prepare_particles

    options = PrepareOptions(
        particles=particles,
        out=out,
        box=box,
        resolution=resolution,
        particle_diameter=particle_diameter,
        memory=memory,
        reading=reading,
        threads=threads,
        resume=resume,
        overwrite=overwrite,
        dry_run=dry_run,
    )
    prepare_particles(options, Console())


@reads_particles
def downsample(
    particles: opt.Particles,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="File to write, .star or .cs; the stack beside it has its name.",
            show_default=False,
        ),
    ],
    box: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            help="Box size that images are cropped to in Fourier space, even.",
            callback=numbers.whole(8, numbers.LARGEST_BOX),
            show_default=False,
        ),
    ] = None,
    new_pixel_size: Annotated[
        float | None,
        typer.Option(
            metavar="A",
            help="In place of --box: the pixel size in A that the new one is to be "
            "nearest to.",
            callback=numbers.pixel_size(),
            show_default=False,
        ),
    ] = None,
    reading: ParticleOptions = AS_WRITTEN,
    threads: opt.Threads = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Write particles with fewer, larger pixels over the same area.

    A stack, and its metadata with pixel size, box and shifts of the new images.
    """
    from cryoinfer.cli.downsampling import DownsampleOptions, downsample_particles

    options = DownsampleOptions(
        particles, out, box, new_pixel_size, reading, threads, overwrite
    )
    downsample_particles(options, Console())


@reads_particles
def convert(
    source: opt.Particles,
    target: Annotated[
        Path, typer.Argument(help="File to write: .star or .cs.", show_default=False)
    ],
    poses: opt.CryodrgnPoses = None,
    ctf: opt.CryodrgnCtf = None,
    reading: ParticleOptions = AS_WRITTEN,
    overwrite: opt.Overwrite = False,
) -> None:
    """Convert particles of RELION, cryoSPARC or cryoDRGN to .star or .cs."""
    from cryoinfer.cli import particle_files

    particle_files.convert(
        source,
        target,
        Console(),
        reading=reading,
        cryodrgn=particle_files.CryodrgnFiles(poses, ctf),
        overwrite=overwrite,
    )
