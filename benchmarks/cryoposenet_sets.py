"""The sets A to G of cryoPoseNet from nothing, five random starts each.

Shows the pose error, the resolution and the cost on 9,000 images of 128 x 128 pixels
(Nashed et al. 2021): A without noise, B to F at 10 to -10 dB, G at 0 dB with a CTF.
The images are those of one simulation; the seed is the run's. The runs are not told
that the particles are centred.

    python benchmarks/cryoposenet_sets.py
    python benchmarks/cryoposenet_sets.py --sets F --seeds 1
"""

from collections.abc import Sequence

from measure import Case, argument_parser, measure_cases, results_of
from printed import PRODUCTS, Column, merged, table
from rows import Row

from cryoinfer.data.simulation_presets import simulation_preset
from cryoinfer.workflows.abinitio import AbinitioConfig

COLUMNS = (
    Column("set", "set"),
    Column("seeds", "count"),
    Column("median error (deg)", "geodesic_degrees_median", ".3f"),
    Column("resolution (A)", "truth_0143_angstrom", ".2f"),
    Column("limit (A)", "limit_0143_angstrom", ".2f"),
    Column("wall (s)", "wall_seconds", ".0f"),
    Column("random starts (s)", "random starts", ".0f"),
    Column("global search (s)", "global search", ".0f"),
    Column("refinement (s)", "refinement", ".0f"),
    Column("memory (MB)", "peak_anonymous_mb", ",.0f"),
    Column("50 % sets hold", "coverage_pose_50", ".1%"),
    Column("90 % sets hold", "coverage_pose_90", ".1%"),
)


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    staged = [row | row["stage_seconds"] for row in rows]
    return table(merged(staged, lambda row: row["set"]), COLUMNS, (PRODUCTS,))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--sets", default="ABCDEFG", help="which (default: ABCDEFG)")
    parser.add_argument("--seeds", type=int, default=5, help="how many (default: 5)")
    options = parser.parse_args()
    results = results_of("cryoposenet_sets", options)
    cases = [
        Case(
            {"set": letter, "seed": seed},
            simulation_preset(f"cryoposenet-{letter.lower()}"),
            AbinitioConfig(seed=seed),
        )
        for letter in options.sets
        for seed in range(options.seeds)
    ]
    measure_cases(cases, results, options)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
