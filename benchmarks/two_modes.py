"""A posterior with two modes: two chains that differ by a few residues.

Shows open adenylate kinase beside a copy turned by half a turn, whose last residues are
missing: a map with almost the symmetry C2. An image tells little of which chain is
which, so that its posterior has two modes of comparable mass. An encoder learns the
true map, without a symmetry; its posterior and what local refinement makes of it are
judged on 5,000 images simulated from the map, as in ``calibration.py``, and ranks of
refined rotations on eight times 5,000 more: of exact posteriors too one p-value in a
hundred is below 0.01. In the second case there is so little signal that modes are no
Gaussians.

    python benchmarks/two_modes.py
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch
from calibration import (
    DISTANCES,
    ENCODER,
    RANKS,
    REFINED,
    SETS,
    SIMULATED,
    WIDENED,
    in_chunks,
    judged_by_truths,
    measure_simulated,
    refined_modes,
)
from judged import map_of, seeded
from kept import Teller
from measure import argument_parser, results_of
from printed import HALF_PRECISION, Column, table
from rows import HERE, Row
from torch import Tensor

from cryoinfer.data.examples import example_atoms, symmetric_copies
from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.amortized import PoseEncoder
from cryoinfer.inference.encoder_inputs import picture_radius
from cryoinfer.inference.importance import ImportanceSampling, SampledRefinement
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.outlier_score import InlierStatistics
from cryoinfer.inference.pose_inference import InflatedCovariance, PoseInference
from cryoinfer.inference.pose_network import PoseNetwork, PoseNetworkConfig
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.subspace_projector import MapsProjector
from cryoinfer.inference.training import TrainingConfig, train
from cryoinfer.inference.training_images import TrainingImages
from cryoinfer.inference.whitening import (
    ReferenceGrid,
    WhitenedImages,
    whiten,
)
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.records import Latents, Optics, ParticleBatch
from cryoinfer.workflows.encoder_file import load_encoder, save_encoder
from cryoinfer.workflows.refinement_inflation import inflation_of_refinement
from cryoinfer.workflows.trained_encoder import TrainedEncoder

BOX, PIXEL_SIZE = 64, 2.4
APART_ANGSTROM = 24.0
CASES = ((2, -3.0), (12, -13.0))
"""Residues that are missing, and the images' signal to noise in dB."""

SAMPLED = "sampled"

FITTED = 10_000
"""Images that widths after refinement are fitted to, as in a training."""

MORE_SEEDS = range(101, 109)
"""Of further images that ranks are judged on."""

PRIOR = PosePrior(shift_sd_angstrom=1.0, defocus_sd_angstrom=0.0)


COLUMNS = (
    Column("residues missing", "missing"),
    Column("dB", "snr_db", ".0f"),
    Column("posterior", "posterior"),
    *SETS,
    *RANKS,
    *DISTANCES,
    *WIDENED,
    Column("mass of the lesser mode", "lesser_mode", ".3f"),
    Column("found by the climb", "lesser_mode_found", ".3f"),
    Column("p: rotation of eight times more, median", "p_rotation_median", ".2g"),
    Column("least", "p_rotation_least", ".2g"),
)


def true_map(missing: int) -> Tensor:
    """Return the map of both chains, one of them cut short by some residues."""
    atoms = example_atoms("adenylate-kinase-open")
    pair = symmetric_copies(atoms, "C2", APART_ANGSTROM)
    last = max(pair.residue_numbers) - missing
    kept = [
        chain == "A" or residue <= last
        for chain, residue in zip(pair.chain_names, pair.residue_numbers, strict=True)
    ]
    coordinates = torch.from_numpy(pair.coordinates_angstrom)[torch.tensor(kept)]
    elements = [one for one, stays in zip(pair.elements, kept, strict=True) if stays]
    structure = GaussianAtoms.from_elements(coordinates.float(), elements, 50.0)
    return structure.to_map(BOX, PIXEL_SIZE).float()


def template(
    density: Tensor, snr_db: float, radius: int
) -> tuple[WhitenedImages, Tensor]:
    """Return a white image to borrow noise from, and the noise's power."""
    volume = FourierVolume.from_map(density, BOX // 2 - 1)
    optics = Optics.without_ctf(1, PIXEL_SIZE)
    blank = ParticleBatch(torch.zeros(1, BOX, BOX), optics, torch.arange(1))
    grid = ReferenceGrid(BOX, PIXEL_SIZE)
    ones = torch.ones(BOX // 2 + 1)
    images = whiten(blank, grid, BOX // 2 - 1, ones)
    source = TrainingImages(MapProjector(volume), (images,), PosePrior(0.0, 0.0))
    drawn, _ = source.draw(500, seeded(0))
    # All but one of the unit power of a coefficient is signal; it is spread over as
    # many coefficients as there are pixels.
    signal = float(drawn.coefficients.abs().square().sum(1).mean())
    signal = 2 * (signal - len(images.disc)) / BOX**2
    noise = ones * signal / 10 ** (snr_db / 10)
    return whiten(blank, grid, radius, noise), noise


def trained(density: Tensor, snr_db: float, steps: int) -> TrainedEncoder:
    config = PoseNetworkConfig()
    radius = picture_radius(config.side)
    images, noise = template(density, snr_db, radius)
    source = TrainingImages(
        MapProjector(FourierVolume.from_map(density, radius)), (images,), PRIOR
    )
    torch.manual_seed(0)
    network = PoseNetwork(config, PRIOR)
    c1 = symmetry_rotations("C1")
    setup = TrainingConfig(steps=steps)
    done = train(network, source, setup, c1, seeded(0), Teller())
    grid = ReferenceGrid(BOX, PIXEL_SIZE)
    encoder = PoseEncoder(done.network, grid, (noise,), c1)
    as_found = torch.ones(6, dtype=torch.float64)
    return TrainedEncoder(
        encoder,
        density,
        (),
        BOX // 2 - 1,
        PRIOR,
        "C1",
        InlierStatistics(),
        (),
        done.checks,
        done.verdict,
        as_found,
    )


def masses(
    model: TrainedEncoder,
    inference: PoseInference[MapProjector],
    images: WhitenedImages,
    latents: Latents,
    mates: Tensor,
) -> Row:
    """Return how much the mate of the true pose is worth, and how much it gets."""
    pose, radii = latents.pose, model.refinement.radii
    values = []
    for mate in mates:
        zero = torch.zeros(len(images), dtype=torch.float64)
        turned = replace(pose, rotation=pose.rotation @ mate)
        modes = refined_modes(model, images, Latents.rigid(turned, zero), radii)
        values.append(modes.log_likelihood)
    lesser = torch.stack(values, 1).softmax(1).amin(1)
    found = inference.infer(images, map_of(model), model.prior, None).weight
    return {
        "lesser_mode": float(lesser.mean()),
        "lesser_mode_found": float(found[:, 1].mean()),
    }


def more_p_values(
    inference: PoseInference[MapsProjector], source: TrainingImages[MapsProjector]
) -> Row:
    """Return p-values of rotations' ranks on further images."""
    found = []
    for seed in MORE_SEEDS:
        drawn, latents = source.draw(SIMULATED, seeded(seed))
        chunks = in_chunks(SIMULATED)
        posteriors = [
            inference.infer(drawn.select(rows), source.projector, source.prior, None)
            for rows in chunks
        ]
        judged = judged_by_truths(posteriors, [latents[rows] for rows in chunks])
        found.append(judged["p_rotation"])
    return {
        "p_rotation_more": found,
        "p_rotation_least": min(found),
        "p_rotation_median": statistics.median(found),
    }


def measure(missing: int, snr_db: float, steps: int) -> dict[str, Row]:
    """Return a row for the encoder, one refined locally, and one for draws after it."""
    density = true_map(missing)
    name = f"two-modes-{missing}-{snr_db:.0f}-{steps}.pt"
    file = HERE / "runs" / name
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        save_encoder(file, trained(density, snr_db, steps))
    model = load_encoder(file)
    refinement = replace(model.refinement, modes=4)
    images, _ = template(density, snr_db, refinement.radii[-1])
    source = TrainingImages(model.projector, (images,), PRIOR)
    wider = inflation_of_refinement(
        refinement, source, FITTED, seeded(2), SilentMonitor()
    )
    semi = InflatedCovariance(refinement, wider)
    drawn, latents = source.draw(SIMULATED, seeded(1))
    mates = symmetry_rotations("C2")
    shared = masses(model, semi, drawn, latents, mates)
    print(shared, flush=True)
    ways: dict[str, PoseInference[MapProjector]] = {
        ENCODER: model.encoder,
        REFINED: semi,
        SAMPLED: SampledRefinement(
            refinement, ImportanceSampling(model.encoder.symmetry)
        ),
    }
    rows = measure_simulated(model, drawn, latents, mates, ways)
    fitted = {"rotation_widened": wider[0].item(), "shift_widened": wider[3].item()}
    rows[REFINED] |= fitted | more_p_values(semi, source)
    return {name: row | shared for name, row in rows.items()}


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS, (HALF_PRECISION,))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--steps", type=int, default=5000, help="of the training")
    parser.add_argument(
        "--missing",
        type=int,
        nargs="+",
        choices=[missing for missing, _ in CASES],
        default=[missing for missing, _ in CASES],
        help="which cases, by the residues that are missing (default: all)",
    )
    options = parser.parse_args()
    results = results_of("two_modes", options)
    cases = [case for case in CASES if case[0] in options.missing]
    for missing, snr_db in () if options.table else cases:
        key = {"set": "nearly C2", "missing": missing, "snr_db": snr_db}
        key |= {"steps": options.steps}
        if options.again or not results.has(key):
            for label, row in measure(missing, snr_db, options.steps).items():
                results.put({**key, "posterior": label}, row)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
