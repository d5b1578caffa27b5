"""What is known of particles in numbers, by name: latents, results and metadata."""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import takewhile
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.io.conventions.cryosparc import CryosparcParticles
from cryoinfer.io.conventions.relion_columns import IMAGE
from cryoinfer.io.cryodrgn import read_latents
from cryoinfer.io.cryosparc import field_names, native_field
from cryoinfer.io.latents import read_columns
from cryoinfer.results.flags import FLAG, OUTLIER_SCORES

CLASS = "class"
_SHORT = {"outlier": OUTLIER_SCORES, "flag": (FLAG,)}
"""Names by which reports and people call columns, of which the first is taken that the
particles have, where latents have none of them."""

_MOST_NAMES = 60
"""That a message lists."""


@dataclass(frozen=True)
class ParticleNumbers:
    """Numbers of n particles.

    Attributes
    ----------
    particles : Particles
        Of n rows.
    latents : mapping of str to array of float64, shape (n,)
        What goes before columns of the particles that have the same name.
    """

    particles: Particles
    latents: Mapping[str, NDArray[np.float64]]

    @classmethod
    def of_run(cls, particles: Particles, latents: Path | None) -> Self:
        """Return those of particles and of the latents of their run.

        Parameters
        ----------
        particles : Particles
            Of the run, as its own file has them.
        latents : Path or None
            None where there are none.

        Raises
        ------
        InputError
            If rows of the latents are not the particles'.
        """
        if latents is None:
            return cls(particles, {})
        columns = read_columns(latents)
        names = columns.pop(IMAGE, None)
        numbers = {k: v for k, v in columns.items() if v.dtype.kind == "f"}
        rows = max((len(v) for v in columns.values()), default=0)
        _require_rows(latents, rows, len(particles))
        own = image_names(particles)
        if names is not None and own is not None and not np.array_equal(names, own):
            raise InputError(
                f"{latents} has {names[(names != own).argmax()]!r} in row "
                f"{(names != own).argmax() + 1}, where the particles have "
                f"{own[(names != own).argmax()]!r}: its rows are not theirs. Copy both "
                "files of the run again"
            )
        return cls(particles, numbers)

    @classmethod
    def with_cryodrgn(cls, particles: Particles, path: Path) -> Self:
        """Return those of particles and z of cryoDRGN, a row a particle.

        Raises
        ------
        InputError
            If the file cannot be used, or has another number of rows.
        """
        found = read_latents(path)
        _require_rows(path, len(found.mean), len(particles))
        columns = {f"z_{k + 1}": one for k, one in enumerate(found.mean.T)}
        if found.sd is not None:
            columns |= {f"z_{k + 1}_sd": one for k, one in enumerate(found.sd.T)}
        return cls(particles, columns)

    def names(self) -> list[str]:
        """Return the names of all columns that have numbers."""
        known = self._metadata()
        short = [name for name, long in _SHORT.items() if set(long) & set(known)]
        if self.particles.table.class_number is not None:
            short.append(CLASS)
        return list(dict.fromkeys([*self.latents, *short, *known]))

    def column(self, name: str) -> NDArray[np.float64]:
        """Return the numbers of one column, NaN where a particle has none, (n,).

        Raises
        ------
        InputError
            If there is no such column, or none of it is a number.
        """
        if name in self.latents:
            return self.latents[name]
        number = self.particles.table.class_number
        if name == CLASS and number is not None:
            return number.double().numpy()
        every = (self._numbers(one) for one in _SHORT.get(name, (name,)))
        values = next((one for one in every if one is not None), None)
        if values is None:
            raise InputError(f"There is no column {name}{self._instead(name)}")
        if np.isnan(values).all():
            raise InputError(f"The column {name} holds no numbers{self._instead(name)}")
        return values

    def coordinates(self) -> NDArray[np.float64]:
        """Return z of all particles, or their amplitudes along modes, shape (n, q).

        Raises
        ------
        InputError
            If they have none.
        """
        for kind in ("z", "mode"):
            names = [f"{kind}_{k}" for k in range(1, len(self.latents) + 1)]
            axes = [
                self.latents[x] for x in takewhile(self.latents.__contains__, names)
            ]
            if axes:
                return np.stack(axes, axis=1)
        raise InputError(
            "These particles have no z, which runs of `cryoinfer heterogeneity` and "
            "`cryoinfer dynamics` have, and files of cryoDRGN (--latents z.pkl)"
        )

    def of_class(self, number: int) -> NDArray[np.float64]:
        """Return the classes of all particles, shape (n,), of which one is asked for.

        Raises
        ------
        InputError
            If there are none, or not that one.
        """
        if CLASS not in self.latents and self.particles.table.class_number is None:
            raise InputError(
                "These particles have no classes: expected a run with classes, or a "
                "column rlnClassNumber"
            )
        classes = self.column(CLASS)
        known = np.unique(classes[~np.isnan(classes)])
        if number not in known:
            listed = ", ".join(f"{one:g}" for one in known[:_MOST_NAMES])
            raise InputError(f"There is no class {number}: expected one of {listed}")
        return classes

    def _metadata(self) -> list[str]:
        """Return the columns of the particles' file that seem to have numbers."""
        source = self.particles.source
        if isinstance(source, CryosparcParticles):
            names = [*self.particles.table.results, *field_names(source.fields)]
            return [name for name in names if self._numbers(name) is not None]
        first = source.particles.select(np.array([0]))
        return [
            label
            for label in first.columns
            if not np.isnan(first.numbers_or_nan(label)[0])
        ]

    def _numbers(self, name: str) -> NDArray[np.float64] | None:
        """Return a column of the particles' file, None if it has none such."""
        source, results = self.particles.source, self.particles.table.results
        if not isinstance(source, CryosparcParticles):
            block = source.particles
            return block.numbers_or_nan(name) if name in block else None
        if name in results:
            values: NDArray[Any] = results[name]
            return values.astype(np.float64) if values.dtype.kind in "iufb" else None
        if name not in field_names(source.fields):
            return None
        try:
            return native_field(source.fields, name).astype(np.float64)
        except InputError:
            return None

    def _instead(self, name: str) -> str:
        """Say which names there are, those that are like one first."""
        names = sorted(self.names(), key=lambda one: -_likeness(name, one))
        more = f" and {len(names) - _MOST_NAMES} more" * (len(names) > _MOST_NAMES)
        return f": expected one of {', '.join(names[:_MOST_NAMES])}{more}"


def image_names(particles: Particles) -> NDArray[Any] | None:
    """Return the names of the images as a STAR file has them, (n,); None of others."""
    source = particles.source
    if isinstance(source, CryosparcParticles):
        return None
    return source.particles.columns[IMAGE]


def _likeness(name: str, other: str) -> float:
    return SequenceMatcher(None, name.lower(), other.lower()).ratio()


def _require_rows(path: Path, found: int, expected: int) -> None:
    if found != expected:
        raise InputError(
            f"{path} has {found:,} rows, and there are {expected:,} particles: its "
            "rows are not theirs"
        )
