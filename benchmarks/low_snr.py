"""How far down in signal-to-noise ratio a start from nothing works.

Shows 10,000 images of 128 x 128 pixels at -20 and -25 dB, with a CTF of 0.4 to 1.2
micrometres and shifts of up to 5 angstrom in x and in y.

    python benchmarks/low_snr.py
"""

from collections.abc import Sequence

from measure import Case, argument_parser, measure_cases, results_of
from printed import PRODUCTS, Column, table
from rows import Row

from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.workflows.abinitio import AbinitioConfig

COLUMNS = (
    Column("SNR (dB)", "snr_db", ".0f"),
    Column("seed", "seed"),
    Column("median error (deg)", "geodesic_degrees_median", ".2f"),
    Column("p95 (deg)", "geodesic_degrees_p95", ".1f"),
    Column("shift (A)", "shift_angstrom_median", ".2f"),
    Column("resolution (A)", "truth_0143_angstrom", ".2f"),
    Column("limit (A)", "limit_0143_angstrom", ".2f"),
    Column("halves (A)", "gold_standard_angstrom", ".2f"),
    Column("wall (s)", "wall_seconds", ".0f"),
    Column("90 % sets hold", "coverage_pose_90", ".1%"),
)


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    order = sorted(rows, key=lambda row: (-row["snr_db"], row["seed"]))
    return table(order, COLUMNS, (PRODUCTS,))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    options = parser.parse_args()
    results = results_of("low_snr", options)
    cases = [
        Case(
            {"snr_db": snr_db, "seed": seed},
            SimulationConfig(
                snr_db=snr_db,
                defocus_range_angstrom=(4000.0, 12000.0),
                max_shift_angstrom=5.0,
            ),
            AbinitioConfig(seed=seed),
        )
        for snr_db in (-20.0, -25.0)
        for seed in range(options.seeds)
    ]
    measure_cases(cases, results, options)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
