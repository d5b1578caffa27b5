"""The option --method cryoposenet: what goes with it, and its settings."""

from dataclasses import fields, replace
from typing import Any

import torch

from cryoinfer.cli.estimate import Estimate, estimate_published
from cryoinfer.cli.options import RunOptions
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.inference.published_training import PublishedConfig
from cryoinfer.interfaces import Monitor
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.cryoposenet import (
    CryoPoseNetConfig,
    cryoposenet,
    require_modelled,
)

PUBLISHED = "cryoposenet"

_OWN = ("head", "steps")

_NOT_MODELLED = {
    "symmetry": "it knows none",
    "resolution": "it compares whole images",
    "max_shift": "it takes particles as centred",
    "starts": "it begins once, elsewhere with another --seed",
    "defocus_error": "it takes defoci as they are",
}
"""Options that a run of the published method has no use for, and why."""


_ENCODERS_CAUTION = (
    "0 of 30 runs of cryoPoseNet's encoders converged on images without noise, and "
    "none with noise (benchmarks, section 17): compare the map with that of --method "
    "search."
)
_FREE_CAUTION = (
    "0 of 10 runs of free poses converged on images without noise (benchmarks, "
    "section 17): compare the map with that of --method search."
)


def published_cautions(options: RunOptions) -> list[str]:
    """Return how often runs of the published method have converged, if it is asked for.

    Nothing of poses that are known, which need not.
    """
    head = _config(options).head
    if options.method != PUBLISHED or head == "known":
        return []
    return [_FREE_CAUTION if head == "free" else _ENCODERS_CAUTION]


def require_own_options(options: RunOptions) -> None:
    """Refuse options of one method that were given with another.

    Raises
    ------
    InputError
    """
    if options.method != PUBLISHED:
        for name in _OWN:
            if getattr(options, name) is not None:
                raise InputError(
                    f"--{name} goes with --method {PUBLISHED}, found --method "
                    f"{options.method}: leave it out"
                )
        return
    usual: dict[str, Any] = {one.name: one.default for one in fields(RunOptions)}
    for name, reason in _NOT_MODELLED.items():
        given = getattr(options, name)
        said = given.upper() if name == "symmetry" else given
        # Particles that are known to be centred may be said to be so.
        if said != usual[name] and (name, given) != ("max_shift", 0.0):
            raise InputError(
                f"--{name.replace('_', '-')} does not go with --method {PUBLISHED}: "
                f"{reason}. Leave it out, or use --method search"
            )


def require_published(options: RunOptions, particles: Particles) -> None:
    """Refuse particles that the published method does not model.

    Raises
    ------
    InputError
    """
    require_modelled(particles, _config(options).head)


def run_published(
    options: RunOptions, particles: Particles, monitor: Monitor, device: torch.device
) -> RunResult:
    """Run the published method on particles."""
    return cryoposenet(particles, _config(options), monitor, device)


def estimate_of(options: RunOptions, n: int, box: int, threads: int) -> Estimate:
    """Return what n particles like these take."""
    config = _config(options)
    return estimate_published(config.training, config.head, n, box, threads)


def _config(options: RunOptions) -> CryoPoseNetConfig:
    config = CryoPoseNetConfig(
        particle_diameter_angstrom=options.particle_diameter, seed=options.seed
    )
    if options.head is not None:
        config = replace(config, head=options.head)
    if options.steps is not None:
        config = replace(config, training=PublishedConfig(steps=options.steps))
    return config
