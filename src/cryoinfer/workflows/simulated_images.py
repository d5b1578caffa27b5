"""Images that are simulated through the CTFs and the noise of particles."""

from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.inference.amortized import grid_of
from cryoinfer.inference.subjects import Subject
from cryoinfer.inference.training_images import TrainingImages
from cryoinfer.inference.whitening import (
    ReferenceGrid,
    WhitenedImages,
    concatenate,
    is_finite,
    whiten,
)
from cryoinfer.records import Latents
from cryoinfer.workflows.problem import CHUNK

_TEMPLATES = 2000
"""Particles a group that lend their CTF."""

_OF_ONE_GROUP = 100
"""Images that are simulated with the optics of one group, before the next is drawn."""

S = TypeVar("S", bound=Subject)


def drawn_batches(
    source: TrainingImages[S], count: int, generator: torch.Generator
) -> Iterator[tuple[WhitenedImages, Latents]]:
    """Yield simulated images and their truths, in batches of one optics group each."""
    for rows in torch.arange(count).split(_OF_ONE_GROUP):
        yield source.draw(len(rows), generator)


def templates_of(
    particles: Particles,
    grid: ReferenceGrid,
    radius: int,
    noise: tuple[Tensor, ...],
    generator: torch.Generator,
    most: int | None = None,
) -> tuple[WhitenedImages, ...]:
    """Return particles of every optics group, whitened, to lend their CTFs and noise.

    Parameters
    ----------
    particles : Particles
    grid : ReferenceGrid
    radius : int
        In Fourier pixels.
    noise : tuple of Tensor
        As :attr:`Lesson.noise_power`.
    generator : torch.Generator
        Of the choice.
    most : int, optional
        Of all groups together, one of each at least; without it 2,000 of each group.

    Raises
    ------
    InputError
        If all images of a group that are looked at hold NaN or infinite pixels.
    """
    templates = []
    groups = particles.optics.group.unique().tolist()
    most_of_group = _TEMPLATES if most is None else max(1, most // len(groups))
    for group in groups:
        members = torch.nonzero(particles.optics.group == group).squeeze(1)
        order = torch.randperm(len(members), generator=generator)[:most_of_group]
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
