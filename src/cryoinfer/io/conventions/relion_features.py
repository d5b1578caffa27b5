"""Physics that a STAR file can ask for and the program does not model."""

import re
from collections.abc import Sequence

import numpy as np

from cryoinfer.io.conventions.relion_aberrations import BEAM_TILT, EVEN, ODD
from cryoinfer.io.conventions.relion_columns import PREMULTIPLIED
from cryoinfer.io.conventions.table import Feature, feature
from cryoinfer.io.star import StarBlock

# Label, the value that asks for nothing, and the name of what another one asks for.
_NEUTRAL = (("rlnImageDimensionality", 2.0, "subtomograms"),)
_OF_THE_CTF = (
    *((label, "aberrations") for label in (*BEAM_TILT, ODD, EVEN)),
    (PREMULTIPLIED, "ctf-premultiplied"),
)
_TOMOGRAPHY = ("rlnTomoName", "rlnCtfImage")
_FLOAT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def unsupported_in_relion(blocks: Sequence[StarBlock], has_ctf: bool) -> list[Feature]:
    """Return one feature for each kind of physics, with the columns that ask for it."""
    causes: dict[str, list[str]] = {}
    for label, neutral, name in _NEUTRAL:
        if any(_differs(block, label, neutral) for block in blocks):
            causes.setdefault(name, []).append(f"{label} is not {neutral:g}")
    for label, name in () if has_ctf else _OF_THE_CTF:
        if any(_differs(block, label, 0.0) for block in blocks):
            where = f"{label} is not 0, and there is no rlnDefocusU"
            causes.setdefault(name, []).append(where)
    for label in _TOMOGRAPHY:
        if any(label in block for block in blocks):
            causes.setdefault("subtomograms", []).append(f"a column {label}")
    return [feature(name, ", ".join(where)) for name, where in causes.items()]


def _differs(block: StarBlock, label: str, neutral: float) -> bool:
    """Return whether a column holds another value, alone or in a list, anywhere."""
    if label not in block:
        return False
    words = " ".join(str(word) for word in np.unique(block.columns[label]))
    return any(abs(float(x) - neutral) > 1e-6 for x in _FLOAT.findall(words))
