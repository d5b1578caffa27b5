"""How time and memory grow with the number of images.

Shows 10,000, 30,000 and 100,000 images of 128 x 128 pixels at -10 dB with a CTF: the
seconds of every stage, and the most memory that does not merely map files. The last
set is 6.6 GB on disk, and the runs must not share the machine.

    python benchmarks/scaling.py --keep-data no
"""

from collections.abc import Sequence

from measure import Case, argument_parser, measure_cases
from printed import PRODUCTS, Column, table
from rows import Results, Row

from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.workflows.abinitio import AbinitioConfig

IMAGES = (10_000, 30_000, 100_000)


def per_thousand(rows: Sequence[Row]) -> list[Row]:
    """Return rows with stages as columns, and what a further thousand images cost."""
    ordered = sorted(rows, key=lambda row: int(row["images"]))
    flat: list[Row] = []
    for row in ordered:
        values = {**row, **row["stage_seconds"]}
        if flat:
            more = (row["images"] - flat[-1]["images"]) / 1e3
            for name in ("wall_seconds", "peak_anonymous_mb"):
                values[f"more_{name}"] = (row[name] - flat[-1][name]) / more
        flat.append(values)
    return flat


COLUMNS = (
    Column("images", "images", ","),
    Column("wall (s)", "wall_seconds", ".0f"),
    Column("each further 1,000 (s)", "more_wall_seconds", ".2f"),
    Column("random starts (s)", "random starts", ".1f"),
    Column("global search (s)", "global search", ".1f"),
    Column("refinement (s)", "refinement", ".1f"),
    Column("memory (MB)", "peak_anonymous_mb", ",.0f"),
    Column("each further 1,000 (MB)", "more_peak_anonymous_mb", ".2f"),
    Column("median error (deg)", "geodesic_degrees_median", ".2f"),
    Column("resolution (A)", "truth_0143_angstrom", ".2f"),
    Column("90 % sets hold", "coverage_pose_90", ".1%"),
)


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(per_thousand(rows), COLUMNS, (PRODUCTS,))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--images", type=int, nargs="+", default=IMAGES, help="which numbers of them"
    )
    options = parser.parse_args()
    if options.n is not None:
        parser.error("the number of images is --images here")
    trial = options.box is not None or not set(options.images) <= set(IMAGES)
    results = Results("scaling", trial)
    cases = [
        Case(
            {},
            SimulationConfig(n=n, defocus_range_angstrom=(4000.0, 12000.0)),
            AbinitioConfig(),
        )
        for n in options.images
    ]
    measure_cases(cases, results, options)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
