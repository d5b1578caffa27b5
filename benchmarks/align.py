"""Maps brought onto another from random rotations: transport, Bayesian, brute force.

Maps of the structures that the package ships, with noise of half the map's standard
deviation in either; the fixed one lies turned at random and up to some angstrom off. Of
partial maps the fixed one lacks a domain (LID of adenylate kinase) or one of four
copies. A start succeeds within 3 degrees, of any symmetry mate. Seconds are of a core,
as its own clock counts them: other work on the machine does not add much to them. The
search for rivals, which `align` adds, is left out: it would correct errors.

    python benchmarks/align.py --starts 100
"""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from measure import argument_parser
from printed import Column, table
from rows import Results, Row
from torch import Tensor

from cryoinfer.data.examples import example_atoms
from cryoinfer.evaluation.map_alignment import Method, fitted, proposed
from cryoinfer.evaluation.pose_error import GlobalAlignment
from cryoinfer.evaluation.rigid_search import MapPair
from cryoinfer.evaluation.volume_alignment import transform_map
from cryoinfer.geometry.rotations import geodesic_angle, random_rotations
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.io.atoms import AtomicModel
from cryoinfer.physics.structures.atoms import GaussianAtoms

_METHODS: tuple[Method, ...] = ("transport", "bayesian", "search")
_MAPS = ("whole", "partial")
_B_FACTOR = 50.0
_NOISE = 0.5
_SHIFT_ANGSTROM = 4.0
_SUCCESS_DEGREES = 3.0
_FITTED_BOX = 32

COLUMNS = (
    Column("structure", "structure"),
    Column("maps", "maps"),
    Column("method", "method"),
    Column("starts", "starts"),
    Column("within 3 degrees", "successes"),
    Column("median error (deg)", "median_degrees", ".2f"),
    Column("rotation and shift (s)", "search_seconds", ".2f"),
    Column("fit (s)", "fit_seconds", ".2f"),
)


@dataclass(frozen=True)
class Structure:
    """A structure to be aligned.

    Attributes
    ----------
    name, symmetry : str
    length_angstrom : float
        Of an edge of the box.
    is_kept : callable
        Which atoms the partial map shows, from residue numbers, which begin with 0.
    """

    name: str
    symmetry: str
    length_angstrom: float
    is_kept: Callable[[Tensor], Tensor]


def _without_lid(residue: Tensor) -> Tensor:
    return (residue < 121) | (residue > 158)


def _without_a_copy(residue: Tensor) -> Tensor:
    return residue >= 214


STRUCTURES = (
    Structure("adenylate-kinase-open", "C1", 96.0, _without_lid),
    Structure("adenylate-kinase-closed", "C1", 96.0, _without_lid),
    Structure("adenylate-kinase-c4", "C4", 148.0, _without_a_copy),
)


def density_of(structure: Structure, box: int, partial: bool) -> Tensor:
    """Return the map, without a domain if it is to be partial."""
    model: AtomicModel = example_atoms(structure.name)
    residue = torch.tensor(model.residue_index)
    kept = structure.is_kept(residue) if partial else residue >= 0
    elements = [e for e, k in zip(model.elements, kept.tolist(), strict=True) if k]
    place = torch.tensor(model.coordinates_angstrom).double()[kept]
    atoms = GaussianAtoms.from_elements(place, elements, _B_FACTOR)
    return atoms.to_map(box, structure.length_angstrom / box).double()


def measure(structure: Structure, method: Method, partial: bool, size: Row) -> Row:
    """Align from as many starts as asked, and count."""
    box, voxel = size["box"], structure.length_angstrom / size["box"]
    whole, part = (density_of(structure, box, is_part) for is_part in (False, partial))
    mates = symmetry_rotations(structure.symmetry).double()
    sd = _NOISE * whole.std()
    generator = torch.Generator().manual_seed(1)
    errors, searching, fitting = [], 0.0, 0.0
    for _ in range(size["starts"]):
        rotation = random_rotations(1, generator)[0]
        shift = _SHIFT_ANGSTROM * torch.randn(3, generator=generator).double()
        noise = torch.randn((2, box, box, box), generator=generator).double()
        true = GlobalAlignment(rotation, False, shift)
        fixed = transform_map(part, true, voxel) + sd * noise[0]
        pair = MapPair(fixed, whole + sd * noise[1], None, structure.length_angstrom)
        begin = time.process_time()
        first = proposed(pair, False, method, partial).alignment
        middle = time.process_time()
        found = fitted(pair.on(_FITTED_BOX), first, partial).alignment.rotation
        searching += middle - begin
        fitting += time.process_time() - middle
        errors.append(float(geodesic_angle(mates @ found, rotation).min()))
    degrees = torch.tensor(errors) * 180 / math.pi
    return {
        "successes": int((degrees <= _SUCCESS_DEGREES).sum()),
        "median_degrees": float(degrees.median()),
        "search_seconds": searching / size["starts"],
        "fit_seconds": fitting / size["starts"],
    }


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--starts", type=int, default=100, help="for each row")
    parser.add_argument("--methods", nargs="+", choices=_METHODS, default=_METHODS)
    parser.add_argument("--maps", nargs="+", choices=_MAPS, default=_MAPS)
    options: argparse.Namespace = parser.parse_args()
    torch.set_num_threads(1)
    results = Results("align", trial=options.n is not None or options.box is not None)
    size: Row = {"starts": options.n or options.starts, "box": options.box or 48}
    for maps, structure, method in product(options.maps, STRUCTURES, options.methods):
        key: Row = {"structure": structure.name, "maps": maps, "method": method}
        key |= size
        if not options.table and (options.again or not results.has(key)):
            results.put(key, measure(structure, method, maps == "partial", size))
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
