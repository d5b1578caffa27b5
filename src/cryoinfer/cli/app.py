"""The commands of ``cryoinfer``; each imports what does its work when it is called."""

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cryoinfer import __version__
from cryoinfer.cli import inputs
from cryoinfer.cli import options as opt
from cryoinfer.cli.encoder_commands import infer, train
from cryoinfer.cli.guard import GuardedGroup
from cryoinfer.cli.heterogeneity_command import heterogeneity
from cryoinfer.cli.map_commands import (
    align,
    flip,
    fsc,
    local_resolution,
    mask,
    postprocess,
)
from cryoinfer.cli.map_options import MapPixelSize, ParticleMask
from cryoinfer.cli.optics_options import (
    RefineAberrations,
    RefineAstigmatism,
    RefineBeamTilt,
    RefineMagnification,
)
from cryoinfer.cli.particle_commands import convert, downsample, prepare
from cryoinfer.cli.particle_options import (
    AS_WRITTEN,
    ParticleOptions,
    reads_particles,
)
from cryoinfer.cli.result_commands import evaluate, report, selfcheck
from cryoinfer.cli.selection_command import select
from cryoinfer.cli.simulation_command import simulate
from cryoinfer.cli.structure_commands import beads, dynamics, modes
from cryoinfer.cli.volume_command import volumes

_MAPS, _ENCODERS = "From images to a map", "From many more images"
_MOTIONS, _FILES = "Conformations and motion", "Results and files"

app = typer.Typer(
    cls=GuardedGroup,
    help="Maps, poses and conformations from cryo-EM particle images, with error bars.",
    epilog="Begin with: cryoinfer demo. Options of RELION and cryoDRGN that mean the "
    "same (--i, --o, --sym, --j, --outdir, ...) are accepted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names of files may be of any bytes
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="cryoinfer")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"cryoinfer {__version__}")
        raise typer.Exit


@app.callback()
def _options_of_all(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            metavar="",
            callback=_print_version,
            is_eager=True,
            help="Print the version.",
        ),
    ] = False,
) -> None:
    pass


@app.command(rich_help_panel=_MAPS, epilog="Example: cryoinfer demo --out demo")
def demo(
    out: opt.Out = Path("demo"),
    n: opt.Count = None,
    threads: opt.Threads = None,
    seed: opt.Seed = 0,
    overwrite: opt.Overwrite = False,
) -> None:
    """Simulate particles, find poses and map, and compare them with the truth."""
    from cryoinfer.cli.demo import DemoOptions, demonstrate

    asked = DemoOptions(out, n, seed, threads, overwrite)
    raise typer.Exit(demonstrate(asked, Console()))


app.command(
    rich_help_panel=_MAPS,
    epilog="Examples: cryoinfer simulate cryoposenet-g --out set-g; "
    "cryoinfer simulate 4ake.cif --n 5000 --snr-db -10 --defocus 0.5 2.0 --out sim",
)(simulate)


@app.command(rich_help_panel=_MAPS, epilog="Example: cryoinfer check particles.star")
@reads_particles
def check(
    particles: opt.Particles,
    reading: ParticleOptions = AS_WRITTEN,
    particle_diameter: opt.ParticleDiameter = None,
    threads: opt.Threads = None,
) -> None:
    """Check a particle file for anything that could spoil a run.

    Exit code 0: no errors; 1: errors; 2: not a particle file.
    """
    from cryoinfer.cli import particle_files
    from cryoinfer.cli.threads import use_threads

    use_threads(threads)
    code = particle_files.check(
        particles, Console(), reading=reading, particle_diameter=particle_diameter
    )
    raise typer.Exit(code)


app.command(
    rich_help_panel=_MAPS,
    epilog="Example: cryoinfer prepare particles.star --resolution 6 --out prepared",
)(prepare)


@app.command(
    rich_help_panel=_MAPS,
    epilog="Example: cryoinfer abinitio particles.star --symmetry D2 --out run1",
)
@reads_particles
def abinitio(
    particles: opt.Particles,
    out: opt.Out,
    symmetry: opt.Symmetry = "C1",
    method: opt.AbinitioMethod = "search",
    head: opt.Head = None,
    steps: opt.PublishedSteps = None,
    particle_diameter: opt.ParticleDiameter = None,
    resolution: opt.Resolution = None,
    max_shift: opt.MaxShift = None,
    starts: opt.Starts = 2,
    defocus_error: opt.DefocusError = 0.0,
    reading: ParticleOptions = AS_WRITTEN,
    threads: opt.Threads = None,
    device: opt.Device = "auto",
    seed: opt.Seed = 0,
    resume: opt.Resume = False,
    overwrite: opt.Overwrite = False,
    dry_run: opt.DryRun = False,
) -> None:
    """Find the map and the pose of every particle from the images alone."""
    _run(
        opt.RunOptions(
            workflow="abinitio",
            particles=particles,
            out=out,
            symmetry=symmetry,
            method=method,
            head=head,
            steps=steps,
            particle_diameter=particle_diameter,
            resolution=resolution,
            max_shift=max_shift,
            starts=starts,
            defocus_error=defocus_error,
            reading=reading,
            threads=threads,
            device=device,
            seed=seed,
            resume=resume,
            overwrite=overwrite,
            dry_run=dry_run,
        )
    )


@app.command(
    rich_help_panel=_MAPS,
    epilog="Example: cryoinfer refine particles.star --map run1/map.mrc --out run2",
)
@reads_particles
def refine(
    particles: opt.Particles,
    out: opt.Out,
    map: Annotated[
        Path | None,
        typer.Option(
            help="Starting map; without it, poses of the particles are the start.",
            callback=inputs.a_file("MRC file"),
            show_default=False,
        ),
    ] = None,
    map_pixel_size: MapPixelSize = None,
    mask: ParticleMask = None,
    symmetry: opt.Symmetry = "C1",
    method: opt.Method = "search",
    particle_diameter: opt.ParticleDiameter = None,
    resolution: opt.Resolution = None,
    max_shift: opt.MaxShift = None,
    defocus_error: opt.DefocusError = 0.0,
    refine_beam_tilt: RefineBeamTilt = False,
    refine_magnification: RefineMagnification = False,
    refine_astigmatism: RefineAstigmatism = False,
    refine_aberrations: RefineAberrations = False,
    reading: ParticleOptions = AS_WRITTEN,
    threads: opt.Threads = None,
    device: opt.Device = "auto",
    seed: opt.Seed = 0,
    resume: opt.Resume = False,
    overwrite: opt.Overwrite = False,
    dry_run: opt.DryRun = False,
) -> None:
    """Refine poses and map, from a starting map or from given poses."""
    _run(
        opt.RunOptions(
            workflow="refine",
            particles=particles,
            out=out,
            map=map,
            map_pixel_size=map_pixel_size,
            mask=mask,
            symmetry=symmetry,
            method=method,
            particle_diameter=particle_diameter,
            resolution=resolution,
            max_shift=max_shift,
            defocus_error=defocus_error,
            refine_beam_tilt=refine_beam_tilt,
            refine_magnification=refine_magnification,
            refine_astigmatism=refine_astigmatism,
            refine_aberrations=refine_aberrations,
            reading=reading,
            threads=threads,
            device=device,
            seed=seed,
            resume=resume,
            overwrite=overwrite,
            dry_run=dry_run,
        )
    )


@app.command(
    rich_help_panel=_MAPS,
    epilog="Example: cryoinfer reconstruct run1/particles.star --out map1",
)
@reads_particles
def reconstruct(
    particles: opt.Particles,
    out: opt.Out,
    mask: ParticleMask = None,
    symmetry: opt.Symmetry = "C1",
    particle_diameter: opt.ParticleDiameter = None,
    reading: ParticleOptions = AS_WRITTEN,
    threads: opt.Threads = None,
    device: opt.Device = "auto",
    seed: opt.Seed = 0,
    resume: opt.Resume = False,
    overwrite: opt.Overwrite = False,
    dry_run: opt.DryRun = False,
) -> None:
    """Reconstruct map, half-maps and FSC from particles with poses."""
    _run(
        opt.RunOptions(
            workflow="reconstruct",
            particles=particles,
            out=out,
            mask=mask,
            symmetry=symmetry,
            particle_diameter=particle_diameter,
            reading=reading,
            threads=threads,
            device=device,
            seed=seed,
            resume=resume,
            overwrite=overwrite,
            dry_run=dry_run,
        )
    )


app.command(
    rich_help_panel=_ENCODERS, epilog="Example: cryoinfer train run1 --out encoder1"
)(train)
app.command(
    rich_help_panel=_ENCODERS,
    epilog="Example: cryoinfer infer encoder1 new.star --out new1",
)(infer)
app.command(
    rich_help_panel=_MOTIONS,
    epilog="Example: cryoinfer heterogeneity particles.star --out run",
)(heterogeneity)
app.command(
    rich_help_panel=_MOTIONS,
    epilog="Example: cryoinfer dynamics particles.star --structure model.cif --out run",
)(dynamics)
app.command(
    rich_help_panel=_MOTIONS,
    epilog="Example: cryoinfer beads run1/map.mrc --count 200 --out beads.cif",
)(beads)
app.command(
    rich_help_panel=_MOTIONS,
    epilog="Example: cryoinfer modes adenylate-kinase-open --out modes",
)(modes)
app.command(
    rich_help_panel=_MOTIONS,
    epilog="Examples: cryoinfer volumes run1 --along 1 --out volumes; "
    "cryoinfer volumes run1 --z 0.5 --z -1 --out volumes",
)(volumes)


app.command(
    rich_help_panel=_FILES,
    epilog="Example: cryoinfer evaluate demo/run --truth demo/particles",
)(evaluate)

app.command(
    rich_help_panel=_FILES,
    epilog="Example: cryoinfer fsc half1.mrc half2.mrc --mask mask.mrc",
)(fsc)

app.command(
    rich_help_panel=_FILES,
    epilog="Examples: cryoinfer postprocess run1 --out sharp; cryoinfer postprocess "
    "--half1 half1.mrc --half2 half2.mrc --mask mask.mrc --bfactor -80 --out sharp",
)(postprocess)

app.command(
    rich_help_panel=_FILES,
    epilog="Example: cryoinfer mask run1/map.mrc --threshold 0.02 --out mask.mrc",
)(mask)

app.command(
    "local-resolution",
    rich_help_panel=_FILES,
    epilog="Example: cryoinfer local-resolution run1/half1.mrc run1/half2.mrc "
    "--mask run1/mask.mrc --out local",
)(local_resolution)


app.command(
    rich_help_panel=_FILES,
    epilog="Examples: cryoinfer align map.mrc reference.mrc --out aligned.mrc; "
    "cryoinfer align map.mrc reference.mrc --also half1.mrc --also half2.mrc --hand "
    "both --out aligned.mrc",
)(align)


app.command(
    rich_help_panel=_FILES,
    epilog='Example: cryoinfer select run1 --where "z_1 > 0.5 and outlier < 3" --out '
    "subset.star",
)(select)


app.command(
    rich_help_panel=_FILES,
    epilog="Example: cryoinfer downsample all.star --box 128 --out small.star",
)(downsample)
app.command(
    rich_help_panel=_FILES,
    epilog="Examples: cryoinfer convert particles.cs particles.star; "
    "cryoinfer convert stack.mrcs particles.star --poses poses.pkl --ctf ctf.pkl",
)(convert)


app.command(
    rich_help_panel=_FILES,
    epilog="Examples: cryoinfer flip run1 --out run1-flipped; "
    "cryoinfer flip map.mrc particles.star --out flipped",
)(flip)


app.command(rich_help_panel=_FILES, epilog="Example: cryoinfer selfcheck")(selfcheck)
app.command(rich_help_panel=_FILES, epilog="Example: cryoinfer report run1")(report)


def _run(options: opt.RunOptions) -> None:
    from cryoinfer.cli.runs import run

    raise typer.Exit(run(options, Console()))
