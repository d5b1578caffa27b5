"""Which hand a map has, and what is known of it."""

from cryoinfer.results.map_numbers import STRUCTURE_FOUND
from cryoinfer.results.run_record import RunRecord

_FROM = {
    "abinitio": "The hand of the map is not known: untilted images cannot tell it.",
    "refine": "The map has the hand of what it was refined from.",
    "reconstruct": "The map has the hand of the poses.",
    "infer": "The map has the hand of the one that the encoder has learned.",
}
_FLIPPED = " `cryoinfer flip` has mirrored it since."
_ADVICE = (
    " Look at an alpha helix or a known domain: if the hand is wrong, `cryoinfer flip` "
    "mirrors the map and the poses together."
)


def hand_words(record: RunRecord) -> str:
    """Return where the hand of a run's map is from, and what to do if it is wrong.

    Nothing is to be said of a map of noise.
    """
    if record.results.get(STRUCTURE_FOUND) is False:
        return ""
    return _FROM[record.workflow] + _FLIPPED * record.mirrored + _ADVICE
