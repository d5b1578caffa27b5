"""A curved field of maps: what is found of it, and its file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.errors import state_of_this_version
from cryoinfer.inference.hermite import HermiteFeatures
from cryoinfer.io.files import require_file
from cryoinfer.io.replacing import replace_file
from cryoinfer.io.torch_files import read_values, write_values

FIELD = "field"
"""Key of a run's record: the fields that were tried."""


@dataclass(frozen=True)
class Field:
    """Maps that are multiplied by polynomials of z and added up.

    Attributes
    ----------
    features : HermiteFeatures
    maps : Tensor, shape (f, m, m, m)
        That of 1, those of z, then those of the higher polynomials.
    halves : tuple of two Tensor, each of shape (f, m, m, m)
        Of the half-sets, unfiltered: their z is that of all particles.
    fsc : Tensor, shape (f, shells)
        Between these.
    """

    features: HermiteFeatures
    maps: Tensor
    halves: tuple[Tensor, Tensor]
    fsc: Tensor

    def at(self, z: Tensor) -> Tensor:
        """Return the map at one z (q,), shape (m, m, m)."""
        return self._weighed(self.maps, z)

    def halves_at(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the half-maps at one z (q,)."""
        first, second = self.halves
        return self._weighed(first, z), self._weighed(second, z)

    def _weighed(self, maps: Tensor, z: Tensor) -> Tensor:
        shares = self.features.values(z.double()).to(maps)
        return torch.einsum("f,fzyx->zyx", shares, maps)

    def on_voxels(self, changed: Callable[[Tensor], Tensor]) -> Self:
        """Return the field with each of its maps (m, m, m) changed alike."""
        maps, first, second = (
            torch.stack([changed(one) for one in each])
            for each in (self.maps, *self.halves)
        )
        return type(self)(self.features, maps, (first, second), self.fsc)

    def moved(self, mean: Tensor, root: Tensor) -> Self:
        """Return the field of which ``mean + root z`` was the z before.

        Parameters
        ----------
        mean : Tensor of float64, shape (q,)
        root : Tensor of float64, shape (q, q)
        """
        mixed = self.features.moved(mean, root)
        maps, first, second = (
            torch.einsum("kzyx,kl->lzyx", one, mixed.to(one))
            for one in (self.maps, *self.halves)
        )
        return type(self)(self.features, maps, (first, second), self.fsc)

    def to_state(self) -> dict[str, Any]:
        """Return tensors and numbers, for a file."""
        return {
            "dims": self.features.dims,
            "degree": self.features.degree,
            "maps": self.maps,
            "halves": list(self.halves),
            "fsc": self.fsc,
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """Invert :meth:`to_state`."""
        with state_of_this_version():
            first, second = state["halves"]
            features = HermiteFeatures(int(state["dims"]), int(state["degree"]))
            maps = state["maps"]
            if not len(features) == len(maps) == len(first) == len(second):
                raise ValueError(f"expected {len(features)} maps, found {len(maps)}")
            return cls(features, maps, (first, second), state["fsc"])


@dataclass(frozen=True)
class FieldGain:
    """How much likelier images of one half are in fields of the other.

    Attributes
    ----------
    dims, degrees : tuple of int
        Of the fields that were tried.
    mean_nats, se_nats : tuple of float
        A particle, over the linear subspace, and standard errors.
    """

    dims: tuple[int, ...]
    degrees: tuple[int, ...]
    mean_nats: tuple[float, ...]
    se_nats: tuple[float, ...]

    SIGNIFICANT_SE = 3.0
    """Standard errors of a mean gain that count as a gain."""

    @classmethod
    def of(
        cls, features: Sequence[HermiteFeatures], evidence: Sequence[Tensor]
    ) -> Self:
        """Return the gains from evidence (n,) of the subspace, then of each field."""
        over = [one - evidence[0] for one in evidence[1:]]
        root = len(evidence[0]) ** 0.5
        return cls(
            tuple(one.dims for one in features),
            tuple(one.degree for one in features),
            tuple(float(one.mean()) for one in over),
            tuple(float(one.std()) / root for one in over),
        )

    @property
    def best(self) -> int | None:
        """The number of the field that gains most; None if none says more."""
        best = max(range(len(self.dims)), key=lambda one: self.mean_nats[one])
        gains = self.mean_nats[best] > self.SIGNIFICANT_SE * self.se_nats[best]
        return best if gains else None  # NaN is no gain

    @property
    def verdict(self) -> str:
        """Whether a field says more than the subspace, in words."""
        best = self.best
        if best is None:
            return (
                "No curved field says more of held-out images than the linear "
                "subspace, which is kept."
            )
        mean, error = self.mean_nats[best], self.se_nats[best]
        dims = self.dims[best]
        return (
            f"A curved field of degree {self.degrees[best]} in {dims} "
            f"dimension{'s' if dims > 1 else ''} raises the log-likelihood of a "
            f"held-out image by {mean:.2f} ± {error:.2f} nats over the linear subspace."
        )


def write_field(path: Path, field: Field, pixel_size_angstrom: float) -> None:
    """Write a field whose maps are on voxels of a size.

    Raises
    ------
    OSError
    """
    values = {**field.to_state(), "pixel_size_angstrom": pixel_size_angstrom}
    replace_file(path, lambda part: write_values(part, values))


def read_field(path: Path) -> tuple[Field, float]:
    """Read what :func:`write_field` has written: a field, and its voxels' size.

    Raises
    ------
    InputError
        If the file is missing or damaged, or of another version.
    """
    require_file(path, "file of a field")
    values = read_values(path)
    return Field.of_state(values), float(values.get("pixel_size_angstrom", torch.nan))
