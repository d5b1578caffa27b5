"""Write normal modes for NMWiz and ProDy: NMD files.

A line a property (http://prody.csb.pitt.edu/manual/reference/dynamics/nmdfile.html).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cryoinfer.io.atoms import AtomicModel


def write_nmd(
    path: Path | str,
    name: str,
    nodes: AtomicModel,
    direction: NDArray[np.float64],
    scale: Sequence[float],
) -> None:
    """Write modes of n nodes.

    Parameters
    ----------
    path : path
    name : str
        Of the structure; blanks are replaced, here and in the names of atoms,
        residues and chains: a word each.
    nodes : AtomicModel
        The atoms that are nodes.
    direction : ndarray, shape (k, n, 3)
        Of unit length each.
    scale : sequence of float, length k
        The spread of each mode's amplitude, in any units.
    """
    lines = [
        f"name {'_'.join(name.split()) or 'structure'}",
        f"atomnames {_words(nodes.atom_names)}",
        f"resnames {_words(nodes.residue_names)}",
        f"chainids {_words(nodes.chain_names)}",
        f"resids {' '.join(map(str, nodes.residue_numbers))}",
        f"bfactors {_numbers(nodes.b_factors_angstrom2, 2)}",
        f"coordinates {_numbers(nodes.coordinates_angstrom, 3)}",
    ]
    for number, (vector, size) in enumerate(zip(direction, scale, strict=True), 1):
        lines.append(f"mode {number} {size:.4f} {_numbers(vector, 4)}")
    # A path that is no UTF-8 may be the name.
    Path(path).write_text("\n".join(lines) + "\n", "utf-8", "replace")


def _words(names: Sequence[str]) -> str:
    return " ".join("_".join(name.split()) or "-" for name in names)


def _numbers(values: NDArray[np.float64], decimals: int) -> str:
    return " ".join(f"{value:.{decimals}f}" for value in values.ravel())
