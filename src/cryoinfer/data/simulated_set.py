"""What the images of a simulated set show: molecules, parts of them, and junk."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.examples import named_structure
from cryoinfer.data.junk import EDGE, ICE, JUNK, Junk
from cryoinfer.data.model_parts import ModelParts
from cryoinfer.data.simulated_path import laid_on, same_atoms
from cryoinfer.data.simulated_structure import SimulatedStructure
from cryoinfer.errors import InputError
from cryoinfer.interfaces import MovingStructure, Structure
from cryoinfer.io.atoms import AtomicModel
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.physics.structures.several import (
    EmptyIce,
    FilmEdge,
    SeveralStructures,
)

_FILM_DENSITY = 22.0
"""In 1/angstrom: 100 A of carbon, 0.09 atoms a cubic angstrom of 2.5 A each."""


@dataclass(frozen=True)
class Composition:
    """What a set holds besides one structure.

    Attributes
    ----------
    also : tuple of str
        Further molecules.
    without : tuple of ModelParts
        Further assemblies: the structure without these parts.
    population : tuple of float
        Shares of the particles: of the structure, of the further molecules, of the
        further assemblies; empty for all alike.
    junk : tuple of Junk
    """

    also: tuple[str, ...] = ()
    without: tuple[ModelParts, ...] = ()
    population: tuple[float, ...] = ()
    junk: tuple[Junk, ...] = ()


ONE_MOLECULE = Composition()


@dataclass(frozen=True)
class DrawnParticles:
    """What n images show.

    Attributes
    ----------
    conformation : Tensor of float64, shape (n, d)
        As the structure of the image model takes it.
    place : Tensor of float64, shape (n, c)
        Conformation of the first molecule alone.
    class_number : Tensor of int64, shape (n,), or None
        From 1: molecule or assembly, or term of the density along a path; None if
        there are not several.
    junk : Tensor of int64, shape (n,), or None
        0 for a particle, from 1 for a kind of junk; None if there is none.
    """

    conformation: Tensor
    place: Tensor
    class_number: Tensor | None
    junk: Tensor | None

    def is_particle(self) -> Tensor:
        """Tell which images show one, shape (n,)."""
        if self.junk is None:
            return torch.ones(len(self.place), dtype=torch.bool)
        return self.junk == 0


@dataclass(frozen=True)
class SimulatedSet:
    """Molecules to simulate, and junk.

    Attributes
    ----------
    first : SimulatedStructure
    molecules : tuple of GaussianAtoms
        At rest: the first, the further ones and the assemblies.
    structure : Structure or MovingStructure
        Of the image model.
    population : tuple of float
        Of the molecules; adds up to 1.
    junk : tuple of Junk
    reach_angstrom : float
        How far from the centre any atom comes.
    """

    first: SimulatedStructure
    molecules: tuple[GaussianAtoms, ...]
    structure: Structure | MovingStructure
    population: tuple[float, ...]
    junk: tuple[Junk, ...]
    reach_angstrom: float

    @classmethod
    def of(
        cls,
        first: SimulatedStructure,
        name: str,
        b_factor_angstrom2: float,
        composition: Composition,
    ) -> "SimulatedSet":
        """Return a set of which a structure is the first molecule.

        Parameters
        ----------
        first : SimulatedStructure
        name : str
            Of it, for messages.
        b_factor_angstrom2 : float
        composition : Composition

        Raises
        ------
        InputError
            If a further structure, or a part, cannot be used, or shares do not fit.
        """
        also = [
            _further(one, first.model, b_factor_angstrom2) for one in composition.also
        ]
        fewer = [
            _without(first, parts, name, b_factor_angstrom2)
            for parts in composition.without
        ]
        molecules = (first.at_rest, *also, *fewer)
        shown = {
            one.kind: _further(one.kind, first.model, b_factor_angstrom2)
            for one in composition.junk
            if one.kind not in (ICE, EDGE)
        }
        others: dict[str, Structure] = {
            ICE: EmptyIce(),
            EDGE: FilmEdge(_FILM_DENSITY),
            **shown,
        }
        members: tuple[Structure | MovingStructure, ...] = (
            first.structure,
            *molecules[1:],
            *(others[one.kind] for one in composition.junk),
        )
        reaches = [
            float(one.coordinates_angstrom.norm(dim=1).max())
            for one in (*molecules[1:], *shown.values())
        ]
        return cls(
            first,
            molecules,
            first.structure if len(members) == 1 else SeveralStructures(members),
            _shares(composition.population, len(molecules)),
            composition.junk,
            max(first.reach_angstrom, *reaches, 0.0),
        )

    def draw(self, n: int, generator: torch.Generator) -> DrawnParticles:
        """Draw what n images show."""
        place, number = self.first.draw(n, generator)
        member = torch.zeros(n, dtype=torch.int64)
        if len(self.molecules) > 1:
            member = number = _chosen(self.population, n, generator)
        kind = None
        if self.junk:
            shares = [one.share for one in self.junk]
            kind = _chosen((1 - sum(shares), *shares), n, generator)
            member = torch.where(kind > 0, len(self.molecules) - 1 + kind, member)
        conformation = place
        if len(self.molecules) > 1 or self.junk:
            conformation = torch.cat([member[:, None].double(), place], 1)
        if number is not None:
            number = number + 1
        return DrawnParticles(conformation, place, number, kind)

    def columns(self, drawn: DrawnParticles) -> dict[str, NDArray[np.generic]]:
        """Return what is true of images in columns of a particle file."""
        columns = self.first.columns(drawn.place)
        if drawn.junk is not None:
            columns[JUNK] = drawn.junk.numpy()
        return columns


def _chosen(shares: Sequence[float], n: int, generator: torch.Generator) -> Tensor:
    weight = torch.tensor(shares, dtype=torch.float64)
    return torch.multinomial(weight, n, replacement=True, generator=generator)


def _shares(population: tuple[float, ...], count: int) -> tuple[float, ...]:
    if not population:
        return (1 / count,) * count
    if len(population) != count:
        raise InputError(
            f"expected a population for each of {count} molecules and assemblies (the "
            "structure, then further ones, then those without parts), found "
            f"{len(population)}"
        )
    return population


def _further(name: str, first: AtomicModel, b_factor_angstrom2: float) -> GaussianAtoms:
    """Return another molecule, about its middle or, of the same atoms, on the first."""
    model = named_structure(name).model
    at = model.coordinates_angstrom - model.coordinates_angstrom.mean(0)
    if same_atoms(model, first):
        at = laid_on(model, first) - first.coordinates_angstrom.mean(0)
    return GaussianAtoms.from_elements(
        torch.from_numpy(at).float(), model.elements, b_factor_angstrom2
    )


def _without(
    first: SimulatedStructure, parts: ModelParts, name: str, b_factor_angstrom2: float
) -> GaussianAtoms:
    """Return the first molecule where it is, without some parts."""
    missing = parts.rows(first.model, name)
    if missing.all():
        raise InputError(
            f"nothing of {name} is left without {parts}: images of nothing are junk"
        )
    kept = np.flatnonzero(~missing)
    return GaussianAtoms.from_elements(
        first.at_rest.coordinates_angstrom[torch.from_numpy(kept)],
        first.model.select(kept).elements,
        b_factor_angstrom2,
    )
