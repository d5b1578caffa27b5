"""A posterior with two modes: two chains that differ by a few residues.

Shows open adenylate kinase beside a copy turned by half a turn, whose last residues are
missing: a map with almost the symmetry C2. An image tells little of which chain is
which, so that its posterior has two modes of comparable mass. An encoder learns the
true map, without a symmetry; its posterior and that of the climb from it are judged on
1,000 images simulated from the map, as in ``calibration.py``.

    python benchmarks/two_modes.py
"""

from dataclasses import replace

import torch
from calibration import COLUMNS, SIMULATED, climbed_tops, measure_simulated
from judged import seeded
from kept import Teller
from measure import argument_parser, results_of
from rows import Column, Row, print_table
from torch import Tensor

from cryoinfer.data.examples import example_atoms, symmetric_copies
from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.amortized import PoseEncoder, SemiAmortized
from cryoinfer.inference.encoder_inputs import picture_radius
from cryoinfer.inference.novelty import Usual
from cryoinfer.inference.pose_network import PoseNetwork, PoseNetworkConfig
from cryoinfer.inference.refine import LocalPoses, PosePrior
from cryoinfer.inference.training import TrainingConfig, train
from cryoinfer.inference.training_images import TrainingImages
from cryoinfer.inference.whitening import (
    ReferenceGrid,
    WhitenedImages,
    whiten,
)
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.records import Latents, Optics, ParticleBatch
from cryoinfer.workflows.train import TrainedEncoder

BOX, PIXEL_SIZE = 64, 2.4
MISSING_RESIDUES = 12
APART_ANGSTROM = 24.0
SNR_DB = -13.0
PRIOR = PosePrior(shift_sd_angstrom=1.0, defocus_sd_angstrom=0.0)


def true_map() -> Tensor:
    """Return the map of both chains, one of them cut short."""
    atoms = example_atoms("adenylate-kinase-open")
    pair = symmetric_copies(atoms, "C2", APART_ANGSTROM)
    last = max(pair.residue_numbers) - MISSING_RESIDUES
    kept = [
        chain == "A" or residue <= last
        for chain, residue in zip(pair.chain_names, pair.residue_numbers, strict=True)
    ]
    coordinates = torch.from_numpy(pair.coordinates_angstrom)[torch.tensor(kept)]
    elements = [one for one, stays in zip(pair.elements, kept, strict=True) if stays]
    structure = GaussianAtoms.from_elements(coordinates.float(), elements, 50.0)
    return structure.to_map(BOX, PIXEL_SIZE).float()


def template(density: Tensor, radius: int) -> tuple[WhitenedImages, Tensor]:
    """Return a white image to borrow noise from, and the noise's power."""
    volume = FourierVolume.from_map(density, BOX // 2 - 1)
    optics = Optics.without_ctf(1, PIXEL_SIZE)
    blank = ParticleBatch(torch.zeros(1, BOX, BOX), optics, torch.arange(1))
    grid = ReferenceGrid(BOX, PIXEL_SIZE)
    ones = torch.ones(BOX // 2 + 1)
    images = whiten(blank, grid, BOX // 2 - 1, ones)
    source = TrainingImages(volume, (images,), PosePrior(0.0, 0.0))
    drawn, _ = source.draw(500, seeded(0))
    # All but one of the unit power of a coefficient is signal; it is spread over as
    # many coefficients as there are pixels.
    signal = float(drawn.coefficients.abs().square().sum(1).mean())
    signal = 2 * (signal - len(images.disc)) / BOX**2
    noise = ones * signal / 10 ** (SNR_DB / 10)
    return whiten(blank, grid, radius, noise), noise


def trained(density: Tensor, steps: int) -> TrainedEncoder:
    config = PoseNetworkConfig()
    radius = picture_radius(config.side)
    images, noise = template(density, radius)
    source = TrainingImages(FourierVolume.from_map(density, radius), (images,), PRIOR)
    torch.manual_seed(0)
    network = PoseNetwork(config, PRIOR)
    c1 = symmetry_rotations("C1")
    school = TrainingConfig(steps=steps)
    done = train(network, source, school, c1, seeded(0), Teller())
    encoder = PoseEncoder(done.network, ReferenceGrid(BOX, PIXEL_SIZE), (noise,))
    return TrainedEncoder(
        encoder, density, PRIOR, "C1", Usual(), done.checks, done.verdict
    )


def masses(
    semi: SemiAmortized, images: WhitenedImages, latents: Latents, mates: Tensor
) -> Row:
    """Return how much the mate of the true pose is worth, and how much it gets."""
    pose = latents.pose
    tops = []
    for mate in mates:
        zero = torch.zeros(len(images), dtype=torch.float64)
        start = LocalPoses.at(pose.rotation @ mate, pose.shift_angstrom, zero)
        tops.append(climbed_tops(semi, images, start, semi.radii).log_likelihood)
    lesser = torch.stack(tops, 1).softmax(1).amin(1)
    found = semi.infer_whitened(images).weight
    return {
        "lesser_mode": float(lesser.mean()),
        "lesser_mode_found": float(found[:, 1].mean()),
    }


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--steps", type=int, default=2000, help="of the training")
    options = parser.parse_args()
    results = results_of("two_modes", options)
    key = {"set": "nearly C2", "steps": options.steps}
    if not options.table and (options.again or not results.has(key)):
        density = true_map()
        model = trained(density, options.steps)
        semi = replace(model.semi_amortized(), modes=4)
        images, _ = template(density, semi.radii[-1])
        source = TrainingImages(semi.volume, (images,), PRIOR)
        drawn, latents = source.draw(SIMULATED, seeded(1))
        mates = symmetry_rotations("C2")
        shared = masses(semi, drawn, latents, mates)
        print(shared, flush=True)
        rows = measure_simulated(semi, drawn, latents, mates)
        for label, row in zip(("encoder", "semi-amortized"), rows, strict=True):
            results.put({**key, "posterior": label}, row | shared)
    more = (
        Column("mass of the lesser mode", "lesser_mode", ".3f"),
        Column("found by the climb", "lesser_mode_found", ".3f"),
    )
    print_table(results.rows(), (*COLUMNS, *more))


if __name__ == "__main__":
    main()
