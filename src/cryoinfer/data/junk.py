"""Images of a simulated set that show no particle of it."""

from dataclasses import dataclass

from cryoinfer.data.structure_names import require_structure
from cryoinfer.errors import InputError

JUNK = "cryoinferJunk"
"""Column of what an image shows instead of a particle: 0 a particle, from 1 a kind of
junk in the order in which they were asked for."""

ICE, EDGE = "ice", "edge"


@dataclass(frozen=True)
class Junk:
    """A kind of image that shows no particle.

    Attributes
    ----------
    kind : str
        ``ice``, nothing but noise; ``edge``, that of a support film; or a structure,
        another protein.
    share : float
        Of all images.
    """

    kind: str
    share: float


def parse_junk(text: str) -> tuple[Junk, ...]:
    """Read junk such as ``0.2`` (half ice, half edges), ``ice:0.1`` or ``x.pdb:0.1``.

    Raises
    ------
    InputError
        If it is spelled otherwise.
    """
    kind, _, number = text.strip().rpartition(":")
    try:
        share = float(number)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise InputError(
            "expected junk such as 0.2, ice:0.1, edge:0.1 or other.pdb:0.1, a share of "
            f"all images above 0 and below 1; found {text!r}"
        )
    if not kind:
        return Junk(ICE, share / 2), Junk(EDGE, share / 2)
    if kind not in (ICE, EDGE):
        require_structure(kind)
    return (Junk(kind, share),)
