"""What junk, uneven contrast and an envelope cost, and how junk is told.

Shows 10,000 images of 128 x 128 pixels at -10 dB with a CTF, shifts of up to 4 A,
coloured noise and a B-factor of 80 A^2, of three structures: adenylate kinase and,
where their models are found (see ``--models``), IgG and apoferritin, with its symmetry
stated. Each set is clean, or 20 % of it are junk (7 % empty ice, 7 % edges of the
support film, 6 % four copies of adenylate kinase) and its contrast is 1 +- 0.2. Errors
are of the particles alone, beside those of the clean set.

    python benchmarks/dirty.py
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from measure import Case, argument_parser, measure_cases, results_of
from printed import PRODUCTS, Column, table
from random_starts import MODELS
from rows import Row

from cryoinfer.data.junk import EDGE, ICE, Junk
from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.data.simulated_set import Composition
from cryoinfer.workflows.abinitio import AbinitioConfig

OTHER = "adenylate-kinase-d2"
JUNK = Composition(junk=(Junk(ICE, 0.07), Junk(EDGE, 0.07), Junk(OTHER, 0.06)))
CLEAN = SimulationConfig(
    n=10_000,
    pixel_size_angstrom=1.1,
    defocus_range_angstrom=(5000.0, 15000.0),
    max_shift_angstrom=4.0,
    noise="coloured",
    b_factor_angstrom2=80.0,
)
STRUCTURES = {
    "adenylate kinase": ("adenylate-kinase-open", "C1", 1.1),
    "IgG": ("1igt_igg.pdb", "C1", 1.9),
    "apoferritin": ("4v1w_apoferritin.cif", "O", 1.6),
}
COLUMNS = (
    Column("structure", "structure"),
    Column("set", "set"),
    Column("seed", "seed"),
    Column("median error (deg)", "geodesic_degrees_median", ".3f"),
    Column("to clean", "error_to_clean", ".2f"),
    Column("shift (A)", "shift_angstrom_median", ".3f"),
    Column("resolution (A)", "truth_0143_angstrom", ".2f"),
    Column("limit (A)", "limit_0143_angstrom", ".2f"),
    Column("90 % sets hold", "coverage_pose_90", ".1%"),
    Column("junk: AUC", "auc", ".4f"),
    Column("flagged: junk", "flagged_junk", ".1%"),
    Column("particles", "flagged_particles", ".2%"),
    Column("wall (s)", "wall_seconds", ".0f"),
    Column("to clean", "wall_to_clean", ".2f"),
)


def cases(models: Path, seeds: int) -> Iterator[Case]:
    """Yield the runs, the clean one of each pair at first."""
    for name, (source, group, pixel_size) in STRUCTURES.items():
        file = models / source
        if source.endswith((".pdb", ".cif")):
            if not file.is_file():
                print(f"LEFT OUT: {name}, there is no {file} (see --models)")
                continue
            source = str(file)
        clean = replace(CLEAN, structure=source, pixel_size_angstrom=pixel_size)
        dirty = replace(clean, composition=JUNK, contrast_sd=0.2)
        for seed in range(seeds):
            for kind, simulation in (("clean", clean), ("dirty", dirty)):
                yield Case(
                    {"structure": name, "set": kind, "seed": seed},
                    simulation,
                    AbinitioConfig(symmetry=group, seed=seed),
                    true_symmetry=group,
                )


def compared(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, those of dirty sets with their ratios to the clean ones."""
    keys = "structure", "seed", "images", "box"
    clean = {
        tuple(row[key] for key in keys): row for row in rows if row["set"] == "clean"
    }
    error = "geodesic_degrees_median"
    found = []
    for row in rows:
        beside = clean.get(tuple(row[key] for key in keys))
        if row["set"] == "dirty" and beside is not None:
            row = {
                **row,
                "error_to_clean": row[error] / beside[error],
                "wall_to_clean": row["wall_seconds"] / beside["wall_seconds"],
            }
        found.append(row)
    return found


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(compared(rows), COLUMNS, (PRODUCTS,))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--models", type=Path, default=MODELS)
    parser.add_argument("--seeds", type=int, default=1, help="default: 1")
    options = parser.parse_args()
    results = results_of("dirty", options)
    measure_cases(list(cases(options.models, options.seeds)), results, options)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
