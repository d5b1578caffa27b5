"""How fast particles are read and written.

Shows 2,000 images of 128 x 128 pixels read from a stack in a random order and in its
own, in batches of 500, beside a copy of as many bytes in memory; and a STAR file of
200,000 rows and 26 columns written and read.

    python benchmarks/files.py
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import mrcfile
import numpy as np
import torch
from measure import argument_parser, results_of, scratch_folder
from printed import Column, table
from rows import Row
from throughput import seconds_of
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.io.star import StarBlock, StarFile, read_star, write_star
from cryoinfer.io.star_text import STRING

IMAGES, BATCH, BOX = 2_000, 500, 128
ROWS, NUMBERS = 200_000, 25
COLUMNS = (
    Column("what", "what"),
    Column("units", "units", ",d"),
    Column("seconds", "seconds", ".3f"),
    Column("units/s", "units_per_second", ",.0f"),
    Column("MB/s", "megabytes_per_second", ",.0f"),
)


def measured(function: Callable[[], object], units: int, size: int) -> Row:
    """Return the rates of a function that handles so many units and bytes."""
    seconds = seconds_of(function)
    return {
        "units": units,
        "seconds": seconds,
        "units_per_second": units / seconds,
        "megabytes_per_second": size / seconds / 1e6,
    }


def image_rates(folder: Path, count: int, box: int) -> dict[str, Row]:
    """Measure the reading of images that the system still holds in memory."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, box, box, generator=generator)
    mrcfile.write(folder / "a.mrcs", images.numpy(), voxel_size=1.0)
    particles = Particles.load(folder / "a.mrcs")
    shuffled = torch.randperm(count, generator=generator)

    def read(order: Tensor) -> None:
        for part in order.split(BATCH):
            particles.images(part)

    size = images.nbytes
    return {
        "images in their order": measured(
            lambda: read(torch.arange(count)), count, size
        ),
        "images in random order": measured(lambda: read(shuffled), count, size),
        "copies of images in memory": measured(
            lambda: [part.clone() for part in images.split(BATCH)], count, size
        ),
    }


def table_rates(folder: Path) -> dict[str, Row]:
    """Measure the writing and reading of a particle table."""
    path = folder / "a.star"
    names = [f"{i:06d}@Extract/job001/a.mrcs" for i in range(ROWS)]
    numbers = np.array([f"{i:.6f}" for i in range(ROWS)], dtype=STRING)
    columns = {f"rln{i}": numbers for i in range(NUMBERS)}
    columns["rlnImageName"] = np.array(names, dtype=STRING)
    star = StarFile((StarBlock("particles", columns),))
    write_star(path, star)
    size = path.stat().st_size
    return {
        "rows written": measured(lambda: write_star(path, star), ROWS, size),
        "rows read": measured(lambda: read_star(path), ROWS, size),
    }


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS)


def main() -> None:
    options = argument_parser(__doc__).parse_args()
    results = results_of("files", options)
    if not options.table and (options.again or not results.rows()):
        with scratch_folder() as name:
            folder = Path(name)
            rows = image_rates(folder, options.n or IMAGES, options.box or BOX)
            for what, row in (rows | table_rates(folder)).items():
                results.put({"what": what}, row)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
