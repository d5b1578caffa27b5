"""How particles are distributed along a path: a mixture of simple laws."""

import re
from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor

from cryoinfer.errors import InputError

_NUMBER = r"\s*(\d+(?:\.\d*)?|\.\d+)\s*"
_TERM = re.compile(rf"(?:{_NUMBER})?\s*([NU])\({_NUMBER},{_NUMBER}\)")
_SHARES_ERROR = 1e-6


@dataclass(frozen=True)
class PathTerm:
    """One law, from 0, the beginning of a path, to 1, its end.

    Attributes
    ----------
    share : float
        Of the particles.
    law : "normal" or "uniform"
    first, second : float
        Mean and standard deviation, of which what lies beyond the ends of the path is
        cut off; or the ends of the interval.
    """

    share: float
    law: Literal["normal", "uniform"]
    first: float
    second: float

    def at(self, uniform: Tensor) -> Tensor:
        """Return the places of numbers that are uniform in [0, 1]."""
        if self.law == "uniform":
            return self.first + (self.second - self.first) * uniform
        ends = torch.tensor([0.0, 1.0], dtype=uniform.dtype)
        low, high = torch.special.ndtr((ends - self.first) / self.second)
        place = torch.special.ndtri(low + (high - low) * uniform)
        return (self.first + self.second * place).clamp(0, 1)


@dataclass(frozen=True)
class PathDensity:
    """A mixture of laws.

    Attributes
    ----------
    terms : tuple of PathTerm
        Their shares add up to 1.
    """

    terms: tuple[PathTerm, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a density such as ``U(0,1)`` or ``0.7 N(0,0.05) + 0.3 N(1,0.05)``.

        Raises
        ------
        InputError
            If it is spelled otherwise, or leaves the path.
        """
        terms = []
        words = text.split("+")
        for word in words:
            found = _TERM.fullmatch(word.strip())
            if found is None:
                raise InputError(
                    "expected a density along the path, from 0 to 1, such as U(0,1), "
                    "N(0.5,0.1), or 0.7 N(0,0.05) + 0.3 N(1,0.05) (share, mean, sd); "
                    f"found {text!r}"
                )
            share, letter, first, second = found.groups()
            law: Literal["normal", "uniform"]
            law = "normal" if letter == "N" else "uniform"
            alike = 1 / len(words)
            terms.append(
                PathTerm(
                    alike if share is None else float(share),
                    law,
                    float(first),
                    float(second),
                )
            )
        for term in terms:
            _require_on_path(term, text)
        if abs(sum(term.share for term in terms) - 1) > _SHARES_ERROR:
            raise InputError(
                "the shares of a density along a path add up to 1, found "
                f"{sum(term.share for term in terms):g} in {text!r}"
            )
        return cls(tuple(terms))

    def draw(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return places of n particles, float64, and the numbers of their terms.

        Both of shape (n,); terms are counted from 0.
        """
        share = torch.tensor([term.share for term in self.terms], dtype=torch.float64)
        number = torch.multinomial(share, n, replacement=True, generator=generator)
        uniform = torch.rand(n, generator=generator, dtype=torch.float64)
        places = torch.stack([term.at(uniform) for term in self.terms])
        return places[number, torch.arange(n)], number


def _require_on_path(term: PathTerm, text: str) -> None:
    if term.share <= 0:
        raise InputError(f"a share of particles is above 0, found {text!r}")
    if not 0 <= term.first <= 1:
        raise InputError(f"a path goes from 0 to 1, found {term.first:g} in {text!r}")
    if term.law == "uniform" and not term.first <= term.second <= 1:
        raise InputError(f"the ends of an interval ascend, from 0 to 1, found {text!r}")
    if term.law == "normal" and not 0 < term.second:
        raise InputError(f"a standard deviation is above 0, found {text!r}")
