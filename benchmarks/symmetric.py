"""Symmetric particles, with their point group stated and without.

Shows four copies of adenylate kinase about the axes of C4 and of D2 in a box whose
side the particle fills to 71 %: 5,000 images of 128 x 128 pixels of 1.3 angstrom at
-10 dB, with a CTF and shifts of up to 3 angstrom. Poses that the group makes equal
count as equal, whether the run knew of it or not.

    python benchmarks/symmetric.py
"""

from collections.abc import Sequence

from measure import Case, argument_parser, measure_cases, results_of
from printed import PRODUCTS, Column, table
from rows import Row

from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.workflows.abinitio import AbinitioConfig

COLUMNS = (
    Column("structure", "structure"),
    Column("stated", "stated"),
    Column("median error (deg)", "geodesic_degrees_median", ".3f"),
    Column("shift (A)", "shift_angstrom_median", ".3f"),
    Column("resolution (A)", "truth_0143_angstrom", ".2f"),
    Column("limit (A)", "limit_0143_angstrom", ".2f"),
    Column("wall (s)", "wall_seconds", ".0f"),
    Column("90 % sets hold", "coverage_pose_90", ".1%"),
)


def simulation_of(group: str) -> SimulationConfig:
    """Return the set of a point group."""
    return SimulationConfig(
        structure=f"adenylate-kinase-{group.lower()}",
        n=5000,
        pixel_size_angstrom=1.3,
        defocus_range_angstrom=(4000.0, 12000.0),
        max_shift_angstrom=3.0,
    )


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS, (PRODUCTS,))


def main() -> None:
    options = argument_parser(__doc__).parse_args()
    results = results_of("symmetric", options)
    cases = [
        Case(
            {"structure": group, "stated": stated},
            simulation_of(group),
            AbinitioConfig(symmetry=stated),
            true_symmetry=group,
        )
        for group in ("C4", "D2")
        for stated in (group, "C1")
    ]
    measure_cases(cases, results, options)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
