"""Images that show something else than the map: how many are flagged, and how surely.

Shows, for set F of cryoPoseNet (-10 dB): an encoder of the map found from 8,000 images
infers the 1,000 held back and as many each of noise alone, of the closed state, of
junk (carbon edges, ice, two particles in one box), of the closed state and junk half
and half, and of other molecules. Of each kind the area under the ROC curve of the
novelty against the images held back, and the share flagged, after the encoder alone
and after a climb. The encoder is kept in ``runs/``. The other molecules are those of
``--models``; without these files they are left out.

    python benchmarks/out_of_distribution.py
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from judged import CHUNK, batches_of, infer_all, novelty_of
from kept import Case, kept_encoder
from measure import argument_parser, results_of
from printed import HALF_PRECISION, Column, table
from rows import HERE, Row
from torch import Tensor

from cryoinfer.data.simulate import Simulation, SimulationConfig
from cryoinfer.inference.outlier_score import is_outlier
from cryoinfer.physics.noise import GaussianNoise
from cryoinfer.records import Optics, ParticleBatch

MODELS = HERE.parent.parent / "shared" / "data" / "models"
OTHER_MOLECULES = {"lysozyme": "1hel.pdb", "enolase": "3enl.pdb"}
KINDS = ("noise", "closed", "junk", "closed_and_junk", *OTHER_MOLECULES)
COLUMNS = (
    Column("set", "set"),
    Column("inference", "inference"),
    Column("map's images flagged", "flagged_held_back", ".1%"),
    *(
        column
        for kind in KINDS
        for column in (
            Column(f"{kind.replace('_', ' ')}: AUC", f"auc_{kind}", ".4f"),
            Column("flagged", f"flagged_{kind}", ".1%"),
        )
    ),
)


# --- Images -------------------------------------------------------------------------


def foreign_images(
    config: SimulationConfig, models: Path, n: int
) -> dict[str, ParticleBatch]:
    """Return n images of every kind that the map does not explain."""
    noise = Simulation.of(config).model.noise
    closed = pictures(
        replace(config, structure="adenylate-kinase-closed", n=n, seed=11)
    )
    junk = pictures_of_junk(replace(config, n=2 * n, seed=12))
    half = torch.arange(n) < n // 2
    kinds = {
        "noise": torch.zeros_like(closed.images),
        "closed": closed.images,
        "junk": junk,
        "closed_and_junk": torch.where(half[:, None, None], closed.images, junk),
    }
    for seed, (name, file) in enumerate(OTHER_MOLECULES.items(), 13):
        if (models / file).is_file():
            other = replace(config, structure=str(models / file), n=n, seed=seed)
            kinds[name] = pictures(other).images
        else:
            print(f"LEFT OUT: {name}, there is no {models / file} (see --models)")
    generator = torch.Generator().manual_seed(20)
    return {
        name: in_noise(images, closed.optics, noise, generator)
        for name, images in kinds.items()
    }


def pictures(config: SimulationConfig) -> ParticleBatch:
    """Return images without noise."""
    batches = list(Simulation.of(replace(config, snr_db=None)).batches())
    fields = {
        name: torch.cat([getattr(one.optics, name) for one in batches])
        for name in vars(batches[0].optics)
    }
    images = torch.cat([one.images for one in batches]).float()
    return ParticleBatch(images, Optics(**fields), torch.arange(len(images)))


def pictures_of_junk(config: SimulationConfig) -> Tensor:
    """Return edges, blobs and pairs in turn, half as many as the config's images.

    All have the variance of the particles.
    """
    particles = pictures(config).images
    n, box = config.n // 2, config.box
    generator = torch.Generator().manual_seed(config.seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, 1, generator=generator)

    # In units of the box, about its centre.
    axis = (torch.arange(box) - box // 2) / box
    y, x = axis[:, None], axis[None, :]
    angle = uniform(0, 2 * torch.pi)
    across = angle.cos() * x + angle.sin() * y - uniform(-0.3, 0.3)
    edges = torch.sigmoid(across / 0.03)
    blobs = torch.zeros_like(edges)
    for _ in range(4):
        width = uniform(0.03, 0.1)
        distance = (x - uniform(-0.3, 0.3)) ** 2 + (y - uniform(-0.3, 0.3)) ** 2
        blobs += torch.exp(-distance / (2 * width**2))
    far = torch.randint(box // 6, box // 3, (n, 2), generator=generator).tolist()
    neighbours = [
        torch.roll(one, move, (0, 1))
        for one, move in zip(particles[n:], far, strict=True)
    ]
    pairs = particles[:n] + torch.stack(neighbours)
    kind = torch.arange(n)[:, None, None] % 3
    junk = torch.where(kind == 0, edges, torch.where(kind == 1, blobs, pairs))
    junk = junk - junk.mean((-2, -1), keepdim=True)
    return junk * (particles.std() / junk.std((-2, -1), keepdim=True))


def in_noise(
    images: Tensor, optics: Optics, noise: GaussianNoise, generator: torch.Generator
) -> ParticleBatch:
    n, box = len(images), images.shape[-1]
    return ParticleBatch(
        images + noise.sample(n, box, generator), optics, torch.arange(n)
    )


# --- Inference ----------------------------------------------------------------------


def in_chunks(batch: ParticleBatch) -> list[ParticleBatch]:
    return [batch[rows] for rows in torch.arange(len(batch)).split(CHUNK)]


def area_under_curve(familiar: Tensor, foreign: Tensor) -> float:
    """Return the chance that a foreign image's score exceeds a familiar one's."""
    ordered = familiar.sort().values
    below = torch.searchsorted(ordered, foreign) / len(ordered)
    return float(below.double().mean())


def measure(case: Case, models: Path) -> list[Row]:
    """Return a row for the encoder alone, and one for the climb."""
    kept = kept_encoder(case)
    model, held = kept.model, len(kept.unseen)
    foreign = foreign_images(case.simulation, models, held)
    rows: list[Row] = []
    for label, inference in (
        ("encoder", model.encoder),
        ("with a climb", model.semi_amortized()),
    ):
        judged = list(batches_of(kept.unseen))
        own = novelty_of(model, judged, infer_all(model, inference, judged))
        row: Row = {
            "inference": label,
            "usual": vars(model.inliers),
            "flagged_held_back": share_flagged(own),
        }
        for name, batch in foreign.items():
            chunks = in_chunks(batch)
            found = novelty_of(model, chunks, infer_all(model, inference, chunks))
            row[f"auc_{name}"] = area_under_curve(own, found)
            row[f"flagged_{name}"] = share_flagged(found)
        rows.append(row)
    return rows


def share_flagged(nats: Tensor) -> float:
    return float(is_outlier(nats).double().mean())


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS, (HALF_PRECISION,))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--set", default="F", help="which (default: F)")
    parser.add_argument("--steps", type=int, help="of the training (default: by set)")
    parser.add_argument(
        "--models", type=Path, default=MODELS, help="folder of the other molecules"
    )
    options = parser.parse_args()
    results = results_of("out_of_distribution", options)
    if not options.table:
        case = Case.of_set(options.set, options)
        key = {"set": options.set, "steps": case.steps}
        if options.again or not results.has(key):
            for row in measure(case, options.models):
                results.put({**key, "inference": row.pop("inference")}, row)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
