"""The commands about encoders; app.py registers them."""

from rich.console import Console

from cryoinfer.cli import options as opt
from cryoinfer.cli.inputs import require_unseen
from cryoinfer.cli.particle_options import (
    AS_WRITTEN,
    ParticleOptions,
    reads_particles,
)


@reads_particles
def train(
    run: opt.Run,
    out: opt.Out,
    steps: opt.Steps = 7000,
    side: opt.Side = 32,
    defocus_error: opt.DefocusError = 0.0,
    reading: ParticleOptions = AS_WRITTEN,
    threads: opt.Threads = None,
    seed: opt.Seed = 0,
    resume: opt.Resume = False,
    overwrite: opt.Overwrite = False,
    dry_run: opt.DryRun = False,
) -> None:
    """Train an encoder on the map of a run, to infer new particles quickly."""
    from cryoinfer.cli import encoders

    encoders.train(
        encoders.TrainOptions(
            run=run,
            out=out,
            steps=steps,
            side=side,
            defocus_error=defocus_error,
            reading=reading,
            seed=seed,
            threads=threads,
            resume=resume,
            overwrite=overwrite,
            dry_run=dry_run,
        ),
        Console(),
    )


@reads_particles
def infer(
    encoder: opt.Encoder,
    particles: opt.Unseen,
    out: opt.Out,
    local_refinement: opt.LocalRefinement = True,
    watch: opt.Watch = False,
    until_idle: opt.UntilIdle = None,
    symmetry: opt.LearnedSymmetry = None,
    reading: ParticleOptions = AS_WRITTEN,
    threads: opt.Threads = None,
    seed: opt.Seed = 0,
    resume: opt.Resume = False,
    overwrite: opt.Overwrite = False,
    dry_run: opt.DryRun = False,
) -> None:
    """Infer the poses of new particles, by an encoder or in maps of conformations."""
    particles = require_unseen(particles, watch, until_idle, dry_run)
    from cryoinfer.cli import new_particles

    new_particles.infer_unseen(
        new_particles.InferOptions(
            encoder=encoder,
            particles=particles,
            out=out,
            local_refinement=local_refinement,
            watch=watch,
            until_idle=until_idle,
            symmetry=symmetry,
            reading=reading,
            seed=seed,
            threads=threads,
            resume=resume,
            overwrite=overwrite,
            dry_run=dry_run,
        ),
        Console(),
    )
