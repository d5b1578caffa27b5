"""Images with aberrations and distortion: maps with the terms, and without.

Shows the FSC with the truth, inside the particle at 3.7 A, of maps that RELION's
`relion_reconstruct --ctf` and `reconstruct` make of 900 simulated images of 96 x 96
pixels of 1.6 A (0 dB, defocus 0.3 to 0.7 micrometres, true poses). Their optics have
one term each; once the STAR file tells of it, and once it does not. Without RELION its
columns stay empty.

Of the beam tilt it also shows what `estimate_beam_tilt` finds in these images, at their
true poses and with the true map, when the STAR file tells of none: the larger of the
two errors over its Cramer-Rao bound, and that bound.

Rows that are "refined" tell what `refine` finds of a term, from true poses and a file
without it, whose defoci are those that a CTF fit would see in the distorted images:
the root mean square of the errors of its numbers over their bounds, and the largest
bound. A magnification's numbers are half the difference of its symmetric factor along x
and y, and the element beside the diagonal; astigmatism's are two of each of 30
micrographs, drawn with an sd of 200 A; aberrations' are beam tilt, trefoil, whose bound
is shown, and nine even coefficients, among them an error of Cs and tetrafoil of about a
radian at the edge.

    python benchmarks/optics.py
"""

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import argument_parser, results_of
from printed import Column, table
from rows import Row
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import Simulation, SimulationConfig
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference.aberration_estimate import PhaseSums, estimate_beam_tilt
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.whitening import ReferenceGrid, whiten
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.conventions.relion import table_to_relion
from cryoinfer.io.conventions.table import ImageReferences, ParticleTable
from cryoinfer.io.mrc import StackWriter, read_map
from cryoinfer.physics.aberrations import TREFOIL
from cryoinfer.physics.ctf import of_magnification, with_astigmatism
from cryoinfer.reconstruction.mask import soft_sphere
from cryoinfer.records import Optics
from cryoinfer.results.refined_optics import RefinedOptics
from cryoinfer.workflows.problem import OpticsTerms
from cryoinfer.workflows.reconstruct import ReconstructConfig, reconstruct
from cryoinfer.workflows.refine import RefineConfig, refine

IMAGES, BOX, PIXEL_ANGSTROM, RESOLUTION_ANGSTROM = 900, 96, 1.6, 3.7
PARTICLE_RADIUS_ANGSTROM = 40.0
TILTED = "beam tilt (1.5, -2) mrad"
STRETCHED = "magnification, 1.8 %"
TERMS: dict[str, dict[str, Any]] = {
    TILTED: {"beam_tilt_mrad": (1.5, -2.0)},
    "trefoil of 50 and 80": {"odd_zernike_radian": (0.3, -0.5, 80.0, 0.0, 0.0, 50.0)},
    "even terms to n = 4": {
        "even_zernike_radian": (0.2, 10, 0, -20, 250.0, 100, -150, 60, 100)
    },
    STRETCHED: {"magnification": ((1.015, 0.012), (0.006, 0.985))},
}
MICROGRAPHS, ASTIGMATISM_SD_ANGSTROM = 30, 200.0
EVEN_RADIAN = (20.0, 1.5, 30.0, -1.5, 60.0, 1.0, 10.0, -1.0, -50.0)


@dataclass(frozen=True)
class Refined:
    """What `refine` is to find.

    Attributes
    ----------
    true : dict of str to value
        Of all particles.
    terms : OpticsTerms
    box : int
        In 96 pixels the simulation wraps a little of what the CTF spreads round the
        edges, in 128 none.
    """

    true: dict[str, Any]
    terms: OpticsTerms
    box: int = BOX


STRETCH = Refined(TERMS[STRETCHED], OpticsTerms(magnification=True))
REFINED = {
    f"{TILTED}, refined": Refined(TERMS[TILTED], OpticsTerms(beam_tilt=True)),
    f"{STRETCHED}, refined": STRETCH,
    f"{STRETCHED}, refined, 128 pixels": replace(STRETCH, box=128),
    "astigmatism, refined": Refined({}, OpticsTerms(astigmatism=True)),
    "trefoil and even terms, refined": Refined(
        {
            "odd_zernike_radian": (0.0, 0.0, 80.0, 0.0, 0.0, 50.0),
            "even_zernike_radian": EVEN_RADIAN,
        },
        OpticsTerms(aberrations=True),
    ),
}
COLUMNS = (
    Column("optics", "optics"),
    Column("images", "images", ","),
    Column("seed", "seed"),
    Column("FSC at 3.7 A: ours, with", "ours_with", ".3f"),
    Column("without", "ours_without", ".3f"),
    Column("RELION, with", "relion_with", ".3f"),
    Column("without", "relion_without", ".3f"),
    Column("tilt found: error over its bound", "tilt_error_in_bounds", ".2f"),
    Column("bound (mrad)", "tilt_bound_mrad", ".3f"),
    Column("refined: rms error over bound", "refined_error_in_bounds", ".2f"),
    Column("bound (mrad, %, A, rad A3)", "refined_bound", ".4f"),
    Column("iterations", "iterations"),
)


def set_of(options: argparse.Namespace, seed: int, box: int = BOX) -> Simulation:
    config = SimulationConfig(
        n=options.n or IMAGES,
        box=box,
        pixel_size_angstrom=PIXEL_ANGSTROM,
        snr_db=0.0,
        defocus_range_angstrom=(3000.0, 7000.0),
        max_shift_angstrom=5.0,
        seed=seed,
    )
    return Simulation.of(config)


def with_terms(optics: Optics, terms: dict[str, Any]) -> Optics:
    """Return optics of which all particles have the given terms."""
    n = len(optics)
    values = {
        name: torch.tensor(value, dtype=torch.float64).expand(n, *np.shape(value))
        for name, value in terms.items()
    }
    return replace(optics, **values)


def agreement(density: Tensor, truth: Tensor) -> float:
    """Return the FSC at the resolution, inside the particle."""
    mask = soft_sphere(BOX, PARTICLE_RADIUS_ANGSTROM / PIXEL_ANGSTROM, 3.0)
    fsc = fourier_shell_correlation(density * mask, truth * mask)
    return float(fsc[round(BOX * PIXEL_ANGSTROM / RESOLUTION_ANGSTROM)])


def of_relion(folder: Path, star: str, truth: Tensor) -> float | None:
    """Return the agreement of RELION's map, None where it is not installed."""
    if shutil.which("relion_reconstruct") is None:
        return None
    command = ["relion_reconstruct", "--i", star, "--ctf", "--o", "relion.mrc"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    density = read_map(folder / "relion.mrc").density.copy()
    return agreement(torch.from_numpy(density).float(), truth)


def tilt_found(folder: Path, simulation: Simulation, truth: Tensor) -> Row:
    """Return how well the tilt is found of particles whose file has none."""
    particles = Particles.load(folder / "without.star")
    grid, radius = ReferenceGrid(BOX, PIXEL_ANGSTROM), BOX // 2 - 1
    projector = MapProjector(FourierVolume.from_map(truth, radius))
    noise = simulation.model.noise.spectrum
    optics = particles.optics[:1]
    total = PhaseSums.empty(FourierDisc.of_box(BOX, radius), optics)
    for batch in particles.batches(250):
        images = whiten(batch, grid, radius, noise)
        total.add(images, projector, simulation.latents[batch.index])
    found = estimate_beam_tilt(total)
    true = torch.tensor(TERMS[TILTED]["beam_tilt_mrad"], dtype=torch.float64)
    error = (found.beam_tilt_mrad - true).abs() / found.sd_mrad
    return {
        "tilt_error_in_bounds": float(error.max()),
        "tilt_bound_mrad": float(found.sd_mrad.max()),
    }


def written(folder: Path, name: str, optics: Optics, simulation: Simulation) -> Path:
    """Write a STAR file of the simulated images with the given optics."""
    n = len(optics)
    particles = ParticleTable(
        images=ImageReferences(("a.mrcs",), np.zeros(n, int), np.arange(n)),
        sign=torch.ones(n),
        box=torch.full((n,), simulation.model.box),
        optics=optics,
        has_ctf=True,
        micrograph=np.array([f"{i:02d}.mrc" for i in micrograph_of(n)]),
        pose=simulation.latents.pose,
    )
    star = folder / f"{name}.star"
    table_to_relion(particles).write(star)
    return star


def micrograph_of(n: int) -> Tensor:
    """Return the micrograph of each particle."""
    return torch.arange(n) % MICROGRAPHS


def write_images(folder: Path, simulation: Simulation, optics: Optics) -> None:
    box = simulation.model.box
    with StackWriter(folder / "a.mrcs", len(optics), box, PIXEL_ANGSTROM) as writer:
        for batch in replace(simulation, optics=optics).batches():
            writer.write(batch.images)


def stretch_of(matrix: Tensor) -> Tensor:
    """Return what poses and the pixel size leave of a magnification, shape (2,)."""
    square, turn = torch.linalg.eigh(matrix.mT @ matrix)
    symmetric = turn @ torch.diag(square.sqrt()) @ turn.mT
    symmetric = symmetric / symmetric.diagonal().mean()
    difference = (symmetric[0, 0] - symmetric[1, 1]) / 2
    return torch.stack([difference, symmetric[0, 1]])


def true_optics(optics: Optics, case: Refined, astigmatism: Tensor) -> Optics:
    """Return what images are seen through."""
    true = with_terms(optics, case.true)
    if case.terms.astigmatism:
        true = with_astigmatism(true, astigmatism[micrograph_of(len(true))])
    return true


def found_over_bound(
    found: RefinedOptics, true: Optics, case: Refined, astigmatism: Tensor
) -> tuple[Tensor, float]:
    """Return the errors of what was found over their bounds, and the largest bound."""
    if case.terms.magnification:
        error = stretch_of(found.magnification[0]) - stretch_of(true.magnification[0])
        return error / found.stretch_sd[0], 100 * float(found.stretch_sd.max())
    if case.terms.astigmatism:
        sd = found.astigmatism_sd_angstrom
        return (found.astigmatism_angstrom - astigmatism) / sd, float(sd.max())
    error = found.beam_tilt_mrad[0] - true.beam_tilt_mrad[0]
    tilt = error / found.beam_tilt_sd_mrad[0]
    if not case.terms.aberrations:
        return tilt, float(found.beam_tilt_sd_mrad.max())
    trefoil = found.trefoil_radian[0] - true.odd_zernike_radian[0, TREFOIL]
    even = found.even_radian[0] - true.even_zernike_radian[0]
    parts = (
        tilt,
        trefoil / found.trefoil_sd_radian[0],
        even / found.even_sd_radian[0],
    )
    return torch.cat(parts), float(found.trefoil_sd_radian.max())


def measure_refined(options: argparse.Namespace, seed: int, name: str) -> Row:
    """Return the row of one term that `refine` finds."""
    case = REFINED[name]
    simulation = set_of(options, seed, case.box)
    astigmatism = ASTIGMATISM_SD_ANGSTROM * torch.randn(
        MICROGRAPHS,
        2,
        generator=torch.Generator().manual_seed(seed),
        dtype=torch.float64,
    )
    true = true_optics(simulation.optics, case, astigmatism)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_images(folder, simulation, true)
        seen = simulation.optics
        if case.terms.magnification:
            identity = torch.eye(2).double().expand(len(true), 2, 2)
            seen = of_magnification(true, identity)
        star = written(folder, "seen", seen, simulation)
        config = RefineConfig(
            particle_diameter_angstrom=2 * PARTICLE_RADIUS_ANGSTROM,
            optics_terms=case.terms,
            seed=seed,
        )
        result = refine(Particles.load(star), None, config, SilentMonitor())
    found = result.refined_optics
    assert found is not None
    ratio, bound = found_over_bound(found, true, case, astigmatism)
    return {
        "refined_error_in_bounds": float(ratio.square().mean().sqrt()),
        "refined_bound": bound,
        "iterations": len(result.iterations),
    }


def measure(options: argparse.Namespace, seed: int, name: str) -> Row:
    """Return the row of one term."""
    simulation = set_of(options, seed)
    truth = simulation.density().float()
    optics = with_terms(simulation.optics, TERMS[name])
    row: Row = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_images(folder, simulation, optics)
        for told, given in (("with", optics), ("without", simulation.optics)):
            star = written(folder, told, given, simulation)
            config = ReconstructConfig(
                particle_diameter_angstrom=2 * PARTICLE_RADIUS_ANGSTROM
            )
            made = reconstruct(Particles.load(star), config, SilentMonitor())
            row[f"ours_{told}"] = agreement(made.density, truth)
            theirs = of_relion(folder, star.name, truth)
            if theirs is not None:
                row[f"relion_{told}"] = theirs
        if name == TILTED:
            row |= tilt_found(folder, simulation, truth)
    return row


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=1, help="default: 1")
    options = parser.parse_args()
    results = results_of("optics", options)
    for name in (*TERMS, *REFINED):
        of_term = measure if name in TERMS else measure_refined

        def row(
            given: argparse.Namespace,
            seed: int,
            name: str = name,
            of_term: Callable[[argparse.Namespace, int, str], Row] = of_term,
        ) -> Row:
            return of_term(given, seed, name)

        key: Row = {"optics": name, "images": options.n or IMAGES}
        results.measure_seeds(options, key, row)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
