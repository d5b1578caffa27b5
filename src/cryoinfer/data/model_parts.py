"""Parts of a model by their names: chains, and residues of chains."""

import re
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cryoinfer.errors import InputError
from cryoinfer.io.atoms import AtomicModel

_PART = re.compile(r"(?:chain\s+)?([^\s:,]+)(?::(-?\d+)(?:-(-?\d+))?)?")
_SHOWN = 12


@dataclass(frozen=True)
class ModelPart:
    """A chain, or residues of one.

    Attributes
    ----------
    chain : str
    first, last : int or None
        Numbers of residues, both within; None for the whole chain.
    """

    chain: str
    first: int | None = None
    last: int | None = None

    def __str__(self) -> str:
        if self.first is None:
            return f"chain {self.chain}"
        end = "" if self.last == self.first else f"-{self.last}"
        return f"{self.chain}:{self.first}{end}"


@dataclass(frozen=True)
class ModelParts:
    """Some parts of a model, together.

    Attributes
    ----------
    parts : tuple of ModelPart
        One or more.
    """

    parts: tuple[ModelPart, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.parts))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read parts such as ``chain C, D:10-50``.

        Raises
        ------
        InputError
            If they are spelled otherwise.
        """
        parts = []
        for word in text.split(","):
            found = _PART.fullmatch(word.strip())
            if found is None:
                raise InputError(
                    'expected parts of a model such as "chain C" or "C, D:10-50" '
                    f"(chain, and first and last residue), found {text!r}"
                )
            chain, first, last = found.groups()
            start = None if first is None else int(first)
            end = start if last is None else int(last)
            if start is not None and end is not None and end < start:
                raise InputError(f"numbers of residues ascend, found {word.strip()!r}")
            parts.append(ModelPart(chain, start, end))
        return cls(tuple(parts))

    def rows(self, model: AtomicModel, name: str) -> NDArray[np.bool_]:
        """Return which atoms of a model are in them, shape (a,).

        Parameters
        ----------
        model : AtomicModel
        name : str
            Of the model, for messages.

        Raises
        ------
        InputError
            If the model has nothing of one of them.
        """
        chains = np.array(model.chain_names)
        numbers = np.array(model.residue_numbers)
        inside = np.zeros(len(model), dtype=bool)
        for part in self.parts:
            own = chains == part.chain
            if part.first is not None and part.last is not None:
                own &= (numbers >= part.first) & (numbers <= part.last)
            if not own.any():
                raise InputError(
                    f"{name} has no {part}: its chains are {_chains(model)}"
                )
            inside |= own
        return inside


def _chains(model: AtomicModel) -> str:
    """Return the chains of a model with their residues, ``A (1-214), B (1-220)``."""
    ranges: dict[str, tuple[int, int]] = {}
    for chain, number in zip(model.chain_names, model.residue_numbers, strict=True):
        low, high = ranges.get(chain, (number, number))
        ranges[chain] = min(low, number), max(high, number)
    told = [f"{chain} ({low}-{high})" for chain, (low, high) in ranges.items()]
    return ", ".join(told[:_SHOWN]) + (" ..." if len(told) > _SHOWN else "")
