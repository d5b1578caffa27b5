"""What boxes of many pixels cost, from nothing to a map at the limit.

Shows IgG at -10 dB times the area of a pixel (the same dose) over 333 A with a CTF and
shifts of up to 4 A: 10,000 images of 128 pixels of 2.6 A and of 256 of 1.3 A, and 2,000
of 512 pixels of 0.65 A. Wall time, memory, and what was found, beside the resolution to
which a map from the true poses agrees with the truth.

    python benchmarks/boxes.py
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from measure import Case, argument_parser, measure_cases, results_of
from printed import PRODUCTS, Column, table
from random_starts import MODELS
from rows import Row

from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.workflows.abinitio import AbinitioConfig

LENGTH_ANGSTROM = 332.8
SETS = ((10_000, 128), (10_000, 256), (2_000, 512))
COLUMNS = (
    Column("images", "images"),
    Column("box", "box"),
    Column("SNR (dB)", "snr_db", ".1f"),
    Column("median error (deg)", "geodesic_degrees_median", ".3f"),
    Column("95th percentile", "geodesic_degrees_p95", ".2f"),
    Column("shift (A)", "shift_angstrom_median", ".3f"),
    Column("resolution (A)", "truth_0143_angstrom", ".2f"),
    Column("limit (A)", "limit_0143_angstrom", ".2f"),
    Column("90 % sets hold", "coverage_pose_90", ".1%"),
    Column("wall (s)", "wall_seconds", ".0f"),
    Column("memory (MB)", "peak_anonymous_mb", ".0f"),
)


def cases(structure: Path) -> Iterator[Case]:
    """Yield the runs, the smallest box first."""
    for images, box in SETS:
        snr_db = -10.0 - 20 * math.log10(box / 128)
        simulation = SimulationConfig(
            structure=str(structure),
            n=images,
            box=box,
            pixel_size_angstrom=LENGTH_ANGSTROM / box,
            snr_db=snr_db,
            defocus_range_angstrom=(5000.0, 15000.0),
            max_shift_angstrom=4.0,
        )
        yield Case({"snr_db": snr_db}, simulation, AbinitioConfig())


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS, (PRODUCTS,))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--models", type=Path, default=MODELS)
    options = parser.parse_args()
    results = results_of("boxes", options)
    structure = options.models / "1igt_igg.pdb"
    if structure.is_file():
        measure_cases(list(cases(structure)), results, options)
    else:
        print(f"LEFT OUT: there is no {structure} (see --models)")
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
