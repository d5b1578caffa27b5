"""Particles that a run has left out of its map: how many, and what that means."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.inference.outlier_score import FALSE_ALARMS, FALSE_DISCOVERIES
from cryoinfer.results.flags import FLAG, LEFT_OUT, UNREADABLE, given_flags
from cryoinfer.results.run_result import RunResult

OWN_CONFORMATIONS = "the maps of their conformations"

_MANY = 0.5
"""Share of novel particles from which the encoder itself is in doubt."""

_CHANCE_DEVIATIONS = 3.0
"""Of the count of false alarms: more than these are no chance."""


@dataclass(frozen=True)
class LeftOut:
    """Counts of particles.

    Attributes
    ----------
    particles : int
        That were judged.
    novel : int
        Flagged: their images are not like those of the map.
    unreadable : int
        With NaN or infinite pixels.
    first_unreadable : int
        Row of the first such particle, from 1; 0 if there is none.
    judged_together : bool
        Whether it took all of them to tell which are flagged; else each was judged
        alone.
    """

    particles: int
    novel: int
    unreadable: int
    first_unreadable: int
    judged_together: bool = False

    @classmethod
    def of_result(cls, result: RunResult, used: Tensor | None = None) -> Self | None:
        """Count those of a result, if it has judged its particles.

        Parameters
        ----------
        result : RunResult
        used : Tensor of bool, shape (n,), optional
            Which particles were judged, by default all: of the others, which an earlier
            run has flagged, it says nothing.
        """
        outlier, unreadable = result.left_out(), result.unreadable
        if outlier is None or unreadable is None:
            return None
        return cls.of(outlier, unreadable, used, result.outlier is not None)

    @classmethod
    def of(
        cls,
        outlier: Tensor,
        unreadable: Tensor,
        used: Tensor | None = None,
        judged_together: bool = False,
    ) -> Self:
        """Count some particles.

        Parameters
        ----------
        outlier, unreadable : Tensor of bool, shape (n,)
        used : Tensor of bool, shape (n,), optional
            As of :meth:`of_result`.
        judged_together : bool
        """
        used = torch.ones_like(unreadable) if used is None else used
        rows = torch.nonzero(unreadable & used).flatten().tolist()
        novel = int((outlier & ~unreadable & used).sum())
        first = rows[0] + 1 if rows else 0
        return cls(int(used.sum()), novel, len(rows), first, judged_together)

    @classmethod
    def of_results(cls, results: Mapping[str, Any]) -> Self | None:
        """Return what the record of a run holds, if it holds any."""
        found = results.get(LEFT_OUT)
        return None if found is None else cls(**found)

    def numbers(self) -> dict[str, Any]:
        """Return what the record of a run is to hold."""
        return {LEFT_OUT: asdict(self)}

    def novel_words(self, reference: str = "the encoder's map") -> str:
        """Say how many are flagged as unlike a reference, and what that means."""
        counts = f"{self.novel:,} of {self.readable:,} ({self.share:.1%})"
        if self.judged_together:
            chance = f"; some {FALSE_DISCOVERIES:.0%} of these may show it all the same"
            return (
                f"{counts} are flagged as unlike the others' map, and left out of it"
                f"{chance if self.novel else ''}"
            )
        return (
            f"{counts} are flagged as unlike {reference}, and left out of the new one; "
            f"of particles that do show it, {FALSE_ALARMS:.0%} are flagged by chance"
        )

    def unreadable_words(self) -> str:
        """Say how many images hold no numbers, and which is the first."""
        return (
            f"{self.unreadable:,} with NaN or infinite pixels, the first in row "
            f"{self.first_unreadable}, have no pose and are left out of the map"
        )

    def doubt(self) -> str | None:
        """Return the plain warning, if an encoder has flagged more than half.

        Of particles that are judged together, most are usual by definition.
        """
        if self.judged_together or self.share <= _MANY:
            return None
        return (
            "More than half of the particles do not fit the map that the encoder "
            "learned. Either it does not know this molecule (or these images: their "
            "CTF, contrast or noise), or its training has not converged. Do not trust "
            "these poses, nor the map."
        )

    def cautions(self, reference: str = "the encoder's map") -> tuple[str, ...]:
        """Return what the report should warn of; as :meth:`novel_words`."""
        said = []
        by_chance = FALSE_ALARMS * self.readable
        unlikely = self.novel > by_chance + _CHANCE_DEVIATIONS * math.sqrt(by_chance)
        if unlikely and not self.judged_together:
            said.append(f"{self.novel_words(reference)}.")
        if self.unreadable:
            said.append(f"Images: {self.unreadable_words()}.")
        doubt = self.doubt()
        return (*said, *([doubt] if doubt else []))

    @property
    def readable(self) -> int:
        """How many images are finite."""
        return self.particles - self.unreadable

    @property
    def share(self) -> float:
        """Of novel ones among those whose images could be read."""
        return self.novel / max(1, self.readable)


def used_particles(workflow: str, particles: Particles) -> Tensor:
    """Return which particles a workflow uses, a mask of shape (n,).

    `refine` and `reconstruct` leave out what an earlier run has flagged, for their map
    is to show what the others do. A search from nothing knows no such map: `abinitio`
    leaves out only what cannot be read.

    Raises
    ------
    InputError
        If none is left.
    """
    flags = given_flags(particles)
    used = flags != UNREADABLE if workflow == "abinitio" else flags == 0
    if not bool(used.any()):
        raise InputError(
            f"all {len(used):,} particles are flagged ({FLAG}) as unlike the map of an "
            "earlier run, or unreadable: there is none to use. Search them with "
            f"`cryoinfer abinitio`, or take the column {FLAG} out of the file"
        )
    return used


def chosen_particles(particles: Particles, used: Tensor) -> Particles:
    """Return the particles of a mask, the same object where it holds all of them."""
    return particles if bool(used.all()) else particles.select(used)


def flag_words(workflow: str, particles: Particles) -> list[str]:
    """Say what becomes of particles that an earlier run has flagged."""
    flags = given_flags(particles)
    out = int((~used_particles(workflow, particles)).sum())
    said = []
    if out:
        said.append(
            f"{out:,} of {len(flags):,} particles are left out, as an earlier run has "
            f"flagged them ({FLAG}); they stay in the file."
        )
    kept = int((flags != 0).sum()) - out
    if kept:
        said.append(
            f"{kept:,} particles that an earlier run has flagged as unlike its map are "
            "used all the same: this search does not begin with that map."
        )
    return said
