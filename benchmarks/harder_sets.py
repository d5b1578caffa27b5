"""What coloured noise, preferred views and several optics groups cost.

Shows 10,000 images of 128 x 128 pixels at -10 dB, with a CTF and shifts of up to 3
angstrom, and one complication at a time: noise that falls tenfold with frequency; half
of the particles seen from within 30 degrees of one axis; three optics groups with
pixels of 0.80, 0.88 and 0.96 angstrom at 300, 200 and 300 kV. Errors are compared
with those of the plain set.

    python benchmarks/harder_sets.py
"""

from collections.abc import Sequence
from dataclasses import replace

from measure import Case, argument_parser, measure_cases, results_of
from printed import PRODUCTS, Column, table
from rows import Row

from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.workflows.abinitio import AbinitioConfig

_PLAIN = SimulationConfig(
    defocus_range_angstrom=(4000.0, 12000.0), max_shift_angstrom=3.0
)
SETS = {
    "plain": _PLAIN,
    "coloured noise": replace(_PLAIN, noise="coloured"),
    "preferred views": replace(_PLAIN, views="preferred"),
    "3 optics groups": replace(_PLAIN, optics_groups=3),
}

COLUMNS = (
    Column("set", "set"),
    Column("median error (deg)", "geodesic_degrees_median", ".3f"),
    Column("to plain", "error_to_plain", ".2f"),
    Column("shift (A)", "shift_angstrom_median", ".3f"),
    Column("to plain", "shift_to_plain", ".2f"),
    Column("resolution (A)", "truth_0143_angstrom", ".2f"),
    Column("limit (A)", "limit_0143_angstrom", ".2f"),
    Column("wall (s)", "wall_seconds", ".0f"),
    Column("90 % sets hold", "coverage_pose_90", ".1%"),
)


def compared(rows: Sequence[Row]) -> list[Row]:
    """Return the rows in the order of the sets, with their ratios to the plain one."""
    by_set = {row["set"]: row for row in rows}
    plain = by_set.get("plain")
    ordered = [by_set[name] for name in SETS if name in by_set]
    if plain is None:
        return ordered
    error, shift = "geodesic_degrees_median", "shift_angstrom_median"
    return [
        {
            **row,
            "error_to_plain": row[error] / plain[error],
            "shift_to_plain": row[shift] / plain[shift],
        }
        for row in ordered
    ]


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(compared(rows), COLUMNS, (PRODUCTS,))


def main() -> None:
    options = argument_parser(__doc__).parse_args()
    results = results_of("harder_sets", options)
    cases = [
        Case({"set": name}, simulation, AbinitioConfig())
        for name, simulation in SETS.items()
    ]
    measure_cases(cases, results, options)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
