"""Images that are simulated through the CTFs and the noise of particles."""

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.inference.amortized import grid_of
from cryoinfer.inference.whitening import (
    ReferenceGrid,
    WhitenedImages,
    concatenate,
    is_finite,
    whiten,
)
from cryoinfer.workflows.problem import CHUNK

_TEMPLATES = 2000
"""Particles a group that lend their CTF."""

_MOST_TEMPLATES = 20_000
"""Of all groups together: there may be hundreds, one of every beam shift."""


def templates_of(
    particles: Particles,
    grid: ReferenceGrid,
    radius: int,
    noise: tuple[Tensor, ...],
    generator: torch.Generator,
    most: int = _MOST_TEMPLATES,
) -> tuple[WhitenedImages, ...]:
    """Return particles of every optics group, whitened, to lend their CTFs and noise.

    Parameters
    ----------
    particles : Particles
    grid : ReferenceGrid
    radius : int
        In Fourier pixels.
    noise : tuple of Tensor
        As :attr:`TrainingData.noise_power`.
    generator : torch.Generator
        Of the choice.
    most : int
        Of all groups together; of each its share, one at least and 2,000 at most.

    Raises
    ------
    InputError
        If all images of a group that are looked at hold NaN or infinite pixels.
    """
    templates = []
    groups = particles.optics.group.unique().tolist()
    for group in groups:
        members = torch.nonzero(particles.optics.group == group).squeeze(1)
        share = max(1, round(most * len(members) / len(particles)))
        order = torch.randperm(len(members), generator=generator)
        order = order[: min(share, _TEMPLATES)]
        parts = []
        for batch in particles.batches(CHUNK, members[order]):
            batch = batch[is_finite(batch.images)]
            if len(batch):
                parts.append(whiten(batch, grid_of(batch, grid), radius, noise[group]))
        if not parts:
            raise InputError(
                f"all {len(order)} images of optics group {group + 1} that were looked "
                "at hold NaN or infinite pixels; run `cryoinfer check` to list them, "
                "and leave the group out of the STAR file"
            )
        templates.append(concatenate(parts))
    return tuple(templates)
