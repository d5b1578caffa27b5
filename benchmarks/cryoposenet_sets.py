"""The sets A to G of cryoPoseNet from nothing, five random starts each.

Shows the pose error, the resolution and the cost on 9,000 images of 128 x 128 pixels
(Nashed et al. 2021): A without noise, B to F at 10 to -10 dB, G at 0 dB with a CTF.
The images are those of one simulation; the seed is the run's. The runs are not told
that the particles are centred.

    python benchmarks/cryoposenet_sets.py
    python benchmarks/cryoposenet_sets.py --sets F --seeds 1
"""

from measure import Case, argument_parser, measure_cases, results_of
from rows import Column, print_table

from cryoinfer.data.simulate import simulation_preset
from cryoinfer.workflows.abinitio import AbinitioConfig

COLUMNS = (
    Column("set", "set"),
    Column("seed", "seed"),
    Column("median error (deg)", "geodesic_degrees_median", ".2f"),
    Column("p95 (deg)", "geodesic_degrees_p95", ".1f"),
    Column("resolution (A)", "truth_0143_angstrom", ".2f"),
    Column("limit (A)", "limit_0143_angstrom", ".2f"),
    Column("ratio", "ratio_to_limit", ".3f"),
    Column("halves (A)", "gold_standard_angstrom", ".2f"),
    Column("wall (s)", "wall_seconds", ".0f"),
    Column("peak (MB)", "peak_mb", ".0f"),
    Column("covered 50 %", "coverage_pose_50", ".3f"),
    Column("90 %", "coverage_pose_90", ".3f"),
    Column("95 %", "coverage_pose_95", ".3f"),
)


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
    order = sorted(results.rows(), key=lambda row: (row["set"], row["seed"]))
    print_table(order, COLUMNS)


if __name__ == "__main__":
    main()
