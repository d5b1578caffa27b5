"""What a GPU brings: one set from nothing on CUDA, and on the CPU beside it.

Shows set F of cryoPoseNet (9,000 images of 128 x 128 pixels at -10 dB), one random
start: the seconds of every stage, the memory, and whether the accuracy is the same. On
the GPU all operations run as plain PyTorch; between passes the CPU solves for the maps.
The GPU comes first, and every row is kept at once. Images, both runs and the comparison
with the truth are to take ten minutes at most: the CPU's run takes one on two cores. A
smaller set is a trial.

Nobody has run this on a GPU yet, so there are no rows of it.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --n 2000 --box 64
"""

from collections.abc import Sequence

import torch
from measure import Case, argument_parser, measure_cases, results_of
from printed import Column, table
from rows import Row

from cryoinfer.data.simulation_presets import simulation_preset
from cryoinfer.workflows.abinitio import AbinitioConfig

COLUMNS = (
    Column("device", "device"),
    Column("GPU", "gpu"),
    Column("images", "images", ","),
    Column("box", "box"),
    Column("wall (s)", "wall_seconds", ".0f"),
    Column("over the CPU's", "to_cpu", ".2f"),
    Column("random starts (s)", "random starts", ".1f"),
    Column("global search (s)", "global search", ".1f"),
    Column("refinement (s)", "refinement", ".1f"),
    Column("maps and FSC (s)", "maps and FSC", ".1f"),
    Column("memory (MB)", "peak_anonymous_mb", ",.0f"),
    Column("of the GPU (MB)", "peak_gpu_mb", ",.0f"),
    Column("median error (deg)", "geodesic_degrees_median", ".3f"),
    Column("resolution (A)", "truth_0143_angstrom", ".2f"),
    Column("90 % sets hold", "coverage_pose_90", ".1%"),
)


def compared(rows: Sequence[Row]) -> list[Row]:
    """Return rows with stages as columns, and their time over the CPU's of that set."""
    seconds = {
        (row["images"], row["box"]): row["wall_seconds"]
        for row in rows
        if row["device"] == "cpu"
    }
    found = []
    for row in rows:
        values = {**row, **row["stage_seconds"]}
        if before := seconds.get((row["images"], row["box"])):
            values["to_cpu"] = row["wall_seconds"] / before
        found.append(values)
    return found


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(compared(rows), COLUMNS)


def main() -> None:
    options = argument_parser(__doc__).parse_args()
    if not options.table and not torch.cuda.is_available():
        raise SystemExit(
            f"expected a GPU of CUDA, found none by PyTorch {torch.__version__}; "
            "--table prints the rows that there are"
        )
    results = results_of("gpu", options)
    simulation, config = simulation_preset("cryoposenet-f"), AbinitioConfig(starts=1)
    cases = []
    if torch.cuda.is_available():
        gpu = {"device": "cuda", "gpu": torch.cuda.get_device_name()}
        cases.append(Case(gpu, simulation, config, device="cuda"))
    cases.append(Case({"device": "cpu"}, simulation, config))
    measure_cases(cases, results, options)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
