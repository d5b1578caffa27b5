"""How much of the machine the inner loops use.

Shows the rates of the operations that all time goes into, on images of 128 x 128
pixels, next to what the machine does in the same minute: matrix products of 4096
cubed and of the search's own shape, and the bandwidth of a copy. Operations and bytes
are counted from the formulas; bytes are those touched, most of which a cache holds,
so that their rate may exceed that of a copy.

    python benchmarks/throughput.py
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from measure import argument_parser, results_of
from printed import PRODUCTS, Column, table
from rows import Row

from cryoinfer.data.simulate import Simulation, SimulationConfig
from cryoinfer.fourier.slices import (
    FourierVolume,
    SliceAccumulator,
    extract_slices,
    insert_slices,
)
from cryoinfer.fourier.transform import image_to_fourier
from cryoinfer.geometry.so3_grid import rotation_grid
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.coarse import (
    GRID_ORDER,
    GridSlices,
    PoseGrid,
    shift_grid,
)
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.search import divided, exhaustive_cells, pose_score
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.records import Latents
from cryoinfer.workflows.search_plan import search_plan
from cryoinfer.workflows.structure_update import padding_at

SEARCH = "exhaustive search"

_IMAGES = 250  # half of a chunk: what one reference sees at a time
_START_RADIUS = 8  # of a run that is told nothing
_CELLS = 6  # that are divided
_SHIFT_OF_BOX = 0.07  # likewise
_SECONDS = 1.0  # at least, for each operation

# Operations a coefficient, counted in the kernels' source.
_INTERPOLATION = 56
_INSERTION = 20 + 8 * 8
_NORMAL_EQUATIONS = 237
_POWER, _SHIFTED_PRODUCT, _SHIFT = 6, 4, 14
# Bytes a coefficient: eight corners, then frequencies, images and CTFs.
_CORNERS_READ = 8 * 8
_CORNERS_ADDED = 2 * 8 * 16
_FREQUENCY, _COMPLEX, _REAL = 8, 8, 4


@dataclass(frozen=True)
class Rate:
    """How fast one operation went.

    Attributes
    ----------
    operation : str
    counted : str
        What ``count`` counts.
    count, operations, bytes_touched : float
        Of one call.
    seconds : float
        Of one call.
    """

    operation: str
    counted: str
    count: float
    operations: float
    bytes_touched: float
    seconds: float


@dataclass(frozen=True)
class Bench:
    """A typical problem: images of a known map, whitened.

    Attributes
    ----------
    pixels : Tensor, shape (n, box, box)
    images : WhitenedImages
        To the last Fourier radius.
    volume : FourierVolume
    latents : Latents
        That the images were made with.
    length_angstrom : float
        Side of the box.
    """

    pixels: torch.Tensor
    images: WhitenedImages
    volume: FourierVolume
    latents: Latents
    length_angstrom: float

    @classmethod
    def of(cls, n: int, box: int) -> "Bench":
        """Simulate n images of adenylate kinase at -10 dB with a CTF."""
        config = SimulationConfig(
            n=n,
            box=box,
            pixel_size_angstrom=0.8 * 128 / box,
            defocus_range_angstrom=(4000.0, 12000.0),
            max_shift_angstrom=3.0,
        )
        simulation = Simulation.of(config)
        batch = next(simulation.batches())
        radius = box // 2 - 1
        grid = ReferenceGrid(box, config.pixel_size_angstrom)
        noise = simulation.model.noise.spectrum
        volume = FourierVolume.from_map(
            simulation.density(), radius, padding_at(radius)
        )
        pose = simulation.latents.pose[batch.index]
        latents = Latents.rigid(pose, torch.zeros(len(batch)))
        images = whiten(batch, grid, radius, noise)
        return cls(batch.images, images, volume, latents, grid.length_angstrom)

    @property
    def projector(self) -> MapProjector:
        """The map as a forward model."""
        return MapProjector(self.volume)


def seconds_of(function: Callable[[], object]) -> float:
    """Return the median time of a call, after one that does not count."""
    function()
    times: list[float] = []
    while sum(times) < _SECONDS or len(times) < 3:
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def product_rate(name: str, shape: tuple[int, int, int], dtype: torch.dtype) -> Rate:
    """Time an (a, b) by (b, c) matrix product."""
    a, b, c = shape
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(a, b, generator=generator).to(dtype)
    right = torch.randn(c, b, generator=generator).to(dtype).T
    size = (a * b + b * c + a * c) * dtype.itemsize
    kind = f"product {name} {a} x {b} x {c}, {str(dtype).removeprefix('torch.')}"
    # As the search multiplies, into memory that is there already.
    target = torch.empty(a, c, dtype=dtype)
    seconds = seconds_of(lambda: torch.mm(left, right, out=target))
    return Rate(kind, "products", 1, 2.0 * a * b * c, size, seconds)


def machine_rates(bench: Bench, size: int) -> list[Rate]:
    """Time what the machine does at its best: the first is the yardstick."""
    coarse = bench.images.prefix(_START_RADIUS)
    grid = search_grid(bench)
    poses = (len(grid.shift_angstrom), len(grid.rotation))
    searched = (len(coarse) * poses[0], 2 * len(coarse.disc), poses[1])
    large = (size, size, size)
    source = torch.ones(2**26)
    target = torch.empty_like(source)
    copied = 2 * source.numel() * source.element_size()
    return [
        product_rate("large", large, torch.float32),
        product_rate("large", large, torch.bfloat16),
        product_rate("of the search", searched, torch.float32),
        product_rate("of the search", searched, torch.bfloat16),
        Rate("copy", "copies", 1, 0, copied, seconds_of(lambda: target.copy_(source))),
    ]


def search_grid(bench: Bench) -> PoseGrid:
    """Return the grid of a run's first global pass."""
    step = bench.length_angstrom / _START_RADIUS / 3
    shifts = shift_grid(_SHIFT_OF_BOX * bench.length_angstrom, step)
    return PoseGrid(rotation_grid(GRID_ORDER), shifts)


def search_rates(bench: Bench) -> list[Rate]:
    """Time the exhaustive search, and the search of the best cells' children."""
    coarse = bench.images.prefix(_START_RADIUS)
    grid = search_grid(bench)
    disc, scale = coarse.disc, coarse.scale
    slices = GridSlices.of(bench.volume, grid, disc, scale)
    n, p = len(coarse), len(disc)
    g, t = len(grid.rotation), len(grid.shift_angstrom)
    step = bench.length_angstrom / _START_RADIUS / 3
    radius = min(3 * _START_RADIUS, bench.volume.radius)
    plan = search_plan(_START_RADIUS, radius, step, symmetry_rotations("C1"))
    # As many of every image as of a clear one.
    level = replace(plan, cells=_CELLS).subdivisions[0]
    near = bench.images.prefix(level.radius)
    cells = exhaustive_cells(slices, coarse, _CELLS)
    score = pose_score(bench.projector)
    around = len(shift_grid(step / 2, step / 2))
    children, q = 8 * _CELLS, len(near.disc)
    nested_operations = children * (_INTERPOLATION + _POWER)
    nested_operations += around * (_SHIFT + children * _SHIFTED_PRODUCT)
    nested_bytes = children * (_CORNERS_READ + _FREQUENCY + _REAL + around * _COMPLEX)
    return [
        Rate(
            SEARCH,
            "images x poses",
            n * g * t,
            2.0 * n * g * p * (2 * t + 1),
            4.0 * (n * t * (2 * p + g) + n * (p + g) + 3 * g * p),
            seconds_of(lambda: exhaustive_cells(slices, coarse, _CELLS)),
        ),
        Rate(
            f"nested search at radius {level.radius}",
            "images x poses",
            n * children * around,
            float(n * q * nested_operations),
            float(n * q * nested_bytes),
            seconds_of(lambda: divided(score, near, cells, level)),
        ),
    ]


def slice_rates(bench: Bench) -> list[Rate]:
    """Time extraction and insertion of slices to the last Fourier radius."""
    images, rotation = bench.images, bench.latents.pose.rotation
    n, p = images.coefficients.shape
    values, weights = images.coefficients * images.ctf, images.ctf.square()
    reach, padding = bench.volume.radius, bench.volume.padding
    sums = SliceAccumulator.empty(images.disc.box, reach, padding)
    read = _CORNERS_READ + _FREQUENCY + _COMPLEX
    added = _CORNERS_ADDED + _FREQUENCY + _COMPLEX + _REAL
    coefficients = float(n * p)
    extraction = seconds_of(
        lambda: extract_slices(bench.volume, rotation, images.disc, images.scale)
    )
    insertion = seconds_of(
        lambda: insert_slices(
            sums, rotation, images.disc, values, weights, images.scale
        )
    )
    return [
        Rate(
            f"slice extraction, {p} coefficients",
            "slices",
            n,
            coefficients * _INTERPOLATION,
            coefficients * read,
            extraction,
        ),
        Rate(
            f"slice insertion, {p} coefficients",
            "slices",
            n,
            coefficients * _INSERTION,
            coefficients * added,
            insertion,
        ),
    ]


def refinement_rates(bench: Bench) -> list[Rate]:
    """Time one evaluation of Gauss-Newton, and the transforms of the images."""
    n, p = bench.images.coefficients.shape
    box = bench.images.disc.box
    prior = PosePrior(5.0, 0.0)
    touched = _CORNERS_READ + _FREQUENCY + _COMPLEX + _REAL
    pixels = float(box * box)
    logarithm = 2 * torch.log2(torch.tensor(float(box))).item()
    return [
        Rate(
            f"Gauss-Newton, {p} coefficients",
            "evaluations",
            n,
            float(n * p * _NORMAL_EQUATIONS),
            float(n * p * touched),
            seconds_of(
                lambda: bench.projector.normal_equations(
                    bench.images, bench.latents, prior
                )
            ),
        ),
        Rate(
            # The usual count of a real transform: 2.5 N log2 N.
            "FFT of the images",
            "images",
            n,
            n * 2.5 * pixels * logarithm,
            n * (4 * pixels + 8.0 * box * (box // 2 + 1)),
            seconds_of(lambda: image_to_fourier(bench.pixels)),
        ),
    ]


def flat(row: Row) -> list[Row]:
    """Return one line for each operation, with its ratios to the machine's best."""
    rates = row["rates"]
    best = rates[0]["operations"] / rates[0]["seconds"]
    copy = next(rate for rate in rates if rate["operation"] == "copy")
    bandwidth = copy["bytes_touched"] / copy["seconds"]
    lines = []
    measured = {name: row[name] for name in ("machine", "date")}
    for rate in rates:
        per_second = {
            name: rate[name] / rate["seconds"]
            for name in ("count", "operations", "bytes_touched")
        }
        lines.append(
            {
                **rate,
                **measured,
                "count_per_second": per_second["count"],
                "gflops": per_second["operations"] / 1e9,
                "gigabytes": per_second["bytes_touched"] / 1e9,
                "of_product": per_second["operations"] / best,
                "of_copy": per_second["bytes_touched"] / bandwidth,
            }
        )
    return lines


COLUMNS = (
    Column("operation", "operation"),
    Column("unit", "counted"),
    Column("units/s", "count_per_second", ".3g"),
    Column("GFLOP/s", "gflops", ".3g"),
    Column("of the large product", "of_product", ".3f"),
    Column("GB/s touched", "gigabytes", ".3g"),
    Column("of the copy", "of_copy", ".2f"),
)


def shown(rows: Sequence[Row]) -> str:
    """Return the operations of all rows as a table."""
    searched = PRODUCTS.of(lambda row: bool(row["operation"] == SEARCH))
    return table([line for row in rows for line in flat(row)], COLUMNS, (searched,))


def main() -> None:
    options = argument_parser(__doc__).parse_args()
    results = results_of("throughput", options)
    box = options.box or 128
    key = {"box": box, "threads": torch.get_num_threads()}
    if not options.table and (options.again or not results.has(key)):
        bench = Bench.of(options.n or _IMAGES, box)
        rates = [
            *machine_rates(bench, 32 * box),
            *search_rates(bench),
            *slice_rates(bench),
            *refinement_rates(bench),
        ]
        results.put(key, {"rates": [asdict(rate) for rate in rates]})
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
