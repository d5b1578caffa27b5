"""Find defoci that are given wrong, and the resolution of the map again.

Shows set F of cryoPoseNet (-10 dB) with the CTF of set G, whose given defoci are off by
up to 2,000 angstrom, uniformly: ab initio that takes them as true, ab initio that
infers them, and a pass of an encoder that infers them, refined locally, taught by ab
initio on 8,000 of the particles; beside ab initio on the true defoci. Of the defoci,
the root mean square error over the Cramer-Rao bound, from the true map at the true pose
with rotation and shift unknown too, and the share of truths in the central 90 % of
their posteriors.

    python benchmarks/defocus.py
"""

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from kept import STEPS_OF, Case, Teller, kept_encoder
from measure import argument_parser, resized, results_of, simulated
from printed import HALF_PRECISION, PRODUCTS, Column, table
from rows import Row
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import Simulation, SimulationConfig
from cryoinfer.data.simulation_presets import simulation_preset
from cryoinfer.evaluation.pose_error import align_poses, pose_errors
from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.modes import covariance_of
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.whitening import ReferenceGrid, whiten
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio
from cryoinfer.workflows.infer import InferConfig, infer

ERROR_ANGSTROM = 2000.0
SD_ANGSTROM = ERROR_ANGSTROM / math.sqrt(3)  # uniform
NO, SEARCH, ENCODER = "no", "by the search", "by an encoder"
CHUNK = 500
WITHIN_90 = 1.6449  # standard deviations of a Gaussian
COLUMNS = (
    Column("given defoci", "given"),
    Column("inferred", "inferred"),
    Column("wall (s)", "wall_seconds", ".0f"),
    Column("median error (deg)", "geodesic_degrees", ".3f"),
    Column("resolution (A)", "resolution_angstrom", ".3f"),
    Column("defocus: rms error (A)", "defocus_rms_angstrom", ".1f"),
    Column("median (A)", "defocus_median_angstrom", ".1f"),
    Column("bound (A)", "bound_rms_angstrom", ".1f"),
    Column("over the bound", "over_bound", ".2f"),
    Column("in 90 % intervals", "covered_90", ".1%"),
)


def bound_angstrom(config: SimulationConfig, particles: Particles) -> Tensor:
    """Return the least sd of every defocus, from an infinitely wide prior."""
    simulation = Simulation.of(config)
    box, pixel_size = config.box, config.pixel_size_angstrom
    radius = box // 2 - 1
    projector = MapProjector(
        FourierVolume.from_map(simulation.density().float(), radius)
    )
    grid = ReferenceGrid(box, pixel_size)
    noise = simulation.model.noise.spectrum
    wide = PosePrior(1e4, 1e7)
    found = []
    for batch in particles.batches(CHUNK, torch.arange(len(particles))):
        true = simulation.latents[batch.index]
        images = whiten(batch, grid, radius, noise)
        found_out = projector.normal_equations(images, true, wide).information
        found.append(covariance_of(found_out + wide.information)[:, 5, 5].sqrt())
    return torch.cat(found)


def of_defoci(run: RunResult, given: Particles, truth: Particles, bound: Tensor) -> Row:
    """Return how far the defoci that were found are from the true ones."""
    offset = truth.optics.defocus_u_angstrom - given.optics.defocus_u_angstrom
    error = run.latents.defocus_offset_angstrom - offset
    sd = run.posterior.covariance[:, 0, 5, 5].sqrt()
    rms = float(error.square().mean().sqrt())
    least = float(bound.square().mean().sqrt())
    return {
        "defocus_rms_angstrom": rms,
        "defocus_median_angstrom": float(error.abs().median()),
        "bound_rms_angstrom": least,
        "over_bound": rms / least,
        "covered_90": float((error.abs() < WITHIN_90 * sd).double().mean()),
    }


def searched(given: Particles, inferred: bool) -> tuple[RunResult, float]:
    """Return a run from nothing, and its seconds."""
    config = AbinitioConfig(refine_defocus=inferred, defocus_sd_angstrom=SD_ANGSTROM)
    started = time.perf_counter()
    run = abinitio(given, config, Teller())
    return run, time.perf_counter() - started


def encoded(given: Particles, case: Case) -> tuple[RunResult, float]:
    """Return what an encoder finds, and the seconds from nothing, training included."""
    kept = kept_encoder(case)
    started = time.perf_counter()
    run = infer(given, kept.model, InferConfig(), Teller())
    seconds = time.perf_counter() - started
    before = kept.row["abinitio_seconds"] + kept.row["training_seconds"]
    return run, before + seconds


def judged(
    run: RunResult,
    seconds: float,
    given: Particles,
    truth: Particles,
    bound: Tensor | None,
) -> Row:
    """Return how good a run is; of its defoci too if there is a bound."""
    assert truth.pose is not None
    generator = torch.Generator().manual_seed(0)
    alignment = align_poses(run.latents.pose, truth.pose, generator)
    errors = pose_errors(run.latents.pose, truth.pose, alignment)
    row: Row = {
        "wall_seconds": seconds,
        "geodesic_degrees": float(errors.geodesic_degrees.median()),
        "resolution_angstrom": run.reconstruction.resolution_angstrom,
        "fsc": run.reconstruction.fsc.tolist(),
    }
    if bound is not None:
        row |= of_defoci(run, given, truth, bound)
    print({k: v for k, v in row.items() if not isinstance(v, list)}, flush=True)
    return row


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    encoded = HALF_PRECISION.of(lambda row: bool(row["inferred"] == ENCODER))
    return table(rows, COLUMNS, (PRODUCTS, encoded))


def main() -> None:
    options = argument_parser(__doc__).parse_args()
    results = results_of("defocus", options)
    preset = simulation_preset("cryoposenet-f")
    like_g = simulation_preset("cryoposenet-g").defocus_range_angstrom
    config = replace(resized(preset, options), defocus_range_angstrom=like_g)
    config = replace(config, defocus_error_angstrom=ERROR_ANGSTROM)
    cases = [("true", NO), ("wrong", NO), ("wrong", SEARCH), ("wrong", ENCODER)]
    keys = [{"given": given, "inferred": inferred} for given, inferred in cases]
    todo = [key for key in keys if options.again or not results.has(key)]
    if todo and not options.table:
        folder = simulated(config)
        truth = Particles.load(folder / "truth.star")
        wrong = Particles.load(folder / "particles.star")
        least = bound_angstrom(config, truth)
        case = Case(config, STEPS_OF["F"], defocus_sd_angstrom=SD_ANGSTROM)
        for key in todo:
            given = truth if key["given"] == "true" else wrong
            inferred = key["inferred"]
            run, seconds = (
                encoded(given, case)
                if inferred == ENCODER
                else searched(given, inferred == SEARCH)
            )
            bound = None if inferred == NO else least
            results.put(key, judged(run, seconds, given, truth, bound))
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
