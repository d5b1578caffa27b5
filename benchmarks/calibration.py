"""Do an encoder's posteriors deserve trust? Against truths, and the exact posterior.

Shows, for sets of cryoPoseNet, of the encoder alone and of local refinement of what it
names:

- on 5,000 images simulated from the map that it learned, through the CTFs and noise of
  the particles held back, of poses drawn from the prior (simulation-based calibration):
  the share of truths in 50, 90 and 95 % credible sets, p-values of the ranks, and the
  expected calibration error in balls about random points (TARP);
- on 100 of them: the median divergence from the exact posterior, summed on a grid; for
  the encoder also from that within the radius of its picture, all that it is shown;
- on 5,000 more particles of the set, made with another seed: the share of true
  rotations and poses in the sets. There the map's own error counts too.

Encoders are kept in ``runs/``; one that lies there is not trained again.

    python benchmarks/calibration.py --sets F
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from accuracy import LEVELS
from judged import CHUNK, batches_of, coverage, infer_all, map_of, modes, seeded
from kept import Case, Kept, kept_encoder
from measure import argument_parser, results_of, simulated
from printed import HALF_PRECISION, Column, table
from rows import Row
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.evaluation.grid_posterior import grid_posterior, kl_divergence
from cryoinfer.evaluation.pose_error import truth_in_estimated_frame
from cryoinfer.inference.local_refinement import reach_radian, refine_locally
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_inference import PoseInference
from cryoinfer.inference.training_images import TrainingImages
from cryoinfer.inference.whitening import WhitenedImages, concatenate, whiten
from cryoinfer.records import Latents
from cryoinfer.results.calibration_trial import CalibrationTrial
from cryoinfer.workflows.trained_encoder import TrainedEncoder

SIMULATED = 5000
EXACT = 100
FRESH = 5000
"""Particles that tell a share of a half to within 0.7 points (a standard deviation)."""

ENCODER, REFINED = "encoder", "semi-amortized"

_NAMED = 3  # modes of the encoder that the exact posterior looks at, beside the truth's
_STEPS = 8  # of a local refinement at one radius
SETS = tuple(
    Column(f"{level:.0%} sets", f"simulated_pose_{level:.0%}", ".1%")
    for level in LEVELS
)
RANKS = (
    Column("p: rotation", "p_rotation", ".2g"),
    Column("shift x", "p_shift_x", ".2g"),
    Column("shift y", "p_shift_y", ".2g"),
)
DISTANCES = (
    Column("TARP error", "tarp_error", ".3f"),
    Column("KL (nats)", "kl_nats", ".2f"),
)
WIDENED = (
    Column("rotation widened by", "rotation_widened", ".3f"),
    Column("shift by", "shift_widened", ".3f"),
)
COLUMNS = (
    Column("set", "set"),
    Column("posterior", "posterior"),
    Column("defocus sd (A)", "defocus_sd_angstrom", ".0f"),
    *SETS,
    *RANKS,
    Column("defocus", "p_defocus", ".2g"),
    *DISTANCES,
    *WIDENED,
    *(
        Column(f"fresh, {what}: {level:.0%}", f"real_{what}_{level:.0%}", ".1%")
        for what in ("rotation", "pose")
        for level in LEVELS
    ),
)


# --- What is judged -----------------------------------------------------------------


def simulated_images(
    model: TrainedEncoder, particles: Particles
) -> tuple[WhitenedImages, Latents]:
    """Return images of the learned map to the last radius; optics of one group."""
    noise = model.encoder.noise_power[int(particles.optics.group[0])]
    radius = model.refinement.radii[-1]
    templates = concatenate(
        [
            whiten(batch, model.encoder.grid, radius, noise)
            for batch in batches_of(particles)
        ]
    )
    source = TrainingImages(model.projector, (templates,), model.prior)
    return source.draw(SIMULATED, seeded(1))


def in_chunks(count: int) -> tuple[Tensor, ...]:
    return torch.arange(count).split(CHUNK)


# --- Ranks and levels ---------------------------------------------------------------


def of_rotation(posterior: ParticlePosterior) -> ParticlePosterior:
    """Return the marginal posterior of the rotation."""
    covariance = posterior.covariance.clone()
    covariance[..., 3:, :] = 0
    covariance[..., :, 3:] = 0
    return replace(posterior, covariance=covariance)


def judged_by_truths(posteriors: list[ParticlePosterior], truths: list[Latents]) -> Row:
    """Return p-values, expected calibration error and coverage."""
    alone = torch.eye(3, dtype=torch.float64)[None]
    trial = CalibrationTrial.of(posteriors, truths, alone, seeded(2))
    shares = {f"simulated_pose_{level:.0%}": trial.share_in(level) for level in LEVELS}
    p_values = {
        f"p_{name.replace(' ', '_')}": p_value
        for name, p_value in trial.p_values.items()
    }
    return {**shares, "tarp_error": trial.calibration_error, **p_values}


# --- The exact posterior ------------------------------------------------------------


def modes_near(
    model: TrainedEncoder,
    images: WhitenedImages,
    truths: ParticlePosterior,
    named: ParticlePosterior,
    radii: tuple[int, ...],
) -> ParticlePosterior:
    """Return the modes next to what may be true and to what an encoder named."""
    n, several_true = truths.weight.shape
    count = several_true + min(_NAMED, named.weight.shape[1])
    both = Latents.joined(
        [truths.modes.transposed(), named.modes[:, :_NAMED].transposed()]
    )
    owner = torch.arange(n).repeat_interleave(count)
    starts = both[torch.arange(count).repeat(n), owner]
    found = refined_modes(model, images.select(owner), starts, radii)
    place = torch.arange(n * count).view(n, count)
    return ParticlePosterior.of_modes(
        found.latents[place],
        found.log_evidence(model.prior)[place].softmax(1),
        found.covariance()[place],
    )


def refined_modes(
    model: TrainedEncoder,
    images: WhitenedImages,
    start: Latents,
    radii: tuple[int, ...],
) -> PosteriorModes:
    """Return the modes next to latents of the same images, a radius at a time."""
    found = PosteriorModes.unknown(start)
    for radius in radii:
        found = refine_locally(
            model.projector,
            images.prefix(radius),
            found.latents,
            model.prior,
            _STEPS,
            reach_radian(radius),
        )
    return found


def as_modes(latents: Latents, mates: Tensor) -> ParticlePosterior:
    """Return latents and their mates as modes of a mixture, of no known width."""
    n, m = len(latents), len(mates)
    repeated = latents[:, None][:, torch.zeros(m, dtype=torch.int64)]
    turned = replace(repeated.pose, rotation=repeated.pose.rotation @ mates)
    return ParticlePosterior.of_modes(
        replace(repeated, pose=turned),
        torch.full((n, m), 1 / m, dtype=torch.float64),
        torch.eye(6, dtype=torch.float64).expand(n, m, 6, 6),
    )


def divergences(
    model: TrainedEncoder,
    images: WhitenedImages,
    truths: ParticlePosterior,
    found: Mapping[str, ParticlePosterior],
) -> dict[str, Row]:
    """Return the median divergence of posteriors from the exact one, by name.

    ``truths`` are poses that mass may be at, the true ones first.
    """
    encoded = found[ENCODER]
    near = modes_near(model, images, truths, encoded, model.refinement.radii)
    projector, prior = model.projector, model.prior
    exact = grid_posterior(projector, images, prior, near)
    rows: dict[str, Row] = {
        name: {"kl_nats": float(kl_divergence(exact, one).median())}
        for name, one in found.items()
    }
    shown = model.encoder.radius
    lower = tuple(radius for radius in model.refinement.radii if radius < shown)
    near = modes_near(model, images, truths, encoded, (*lower, shown))
    images = images.prefix(shown)
    as_shown = grid_posterior(projector, images, prior, near)
    rows[ENCODER]["kl_as_shown_nats"] = float(kl_divergence(as_shown, encoded).median())
    return rows


# --- Sets ---------------------------------------------------------------------------


def measure_simulated(
    model: TrainedEncoder,
    images: WhitenedImages,
    latents: Latents,
    mates: Tensor,
    ways: Mapping[str, PoseInference[MapProjector]],
) -> dict[str, Row]:
    """Return what simulated images say of posteriors, by name.

    ``mates`` (m, 3, 3) are turns of the map that may leave it much as it is, the
    identity first.
    """
    chunks = in_chunks(len(images))
    found = {
        name: [
            one.infer(images.select(rows), map_of(model), model.prior, None)
            for rows in chunks
        ]
        for name, one in ways.items()
    }
    few = torch.arange(EXACT)
    rows = divergences(
        model,
        images.select(few),
        as_modes(latents[few], mates),
        {name: posteriors[0][few] for name, posteriors in found.items()},
    )
    truths = [latents[rows] for rows in chunks]
    return {
        name: judged_by_truths(posteriors, truths) | rows[name]
        for name, posteriors in found.items()
    }


def fresh_particles(case: Case) -> tuple[Particles, Particles]:
    """Return particles of the same set that nothing was made of, and their truth."""
    old = case.simulation
    folder = simulated(replace(old, seed=old.seed + 1, n=min(FRESH, old.n)))
    names = ("particles.star", "truth.star")
    particles, truth = (Particles.load(folder / name) for name in names)
    return particles, truth


def measure_real(case: Case, kept: Kept) -> tuple[Row, Row]:
    """Return how often the sets of fresh particles hold their truth."""
    particles, true = fresh_particles(case)
    assert true.pose is not None
    semi = kept.model.semi_amortized()
    encoded = infer_all(kept.model, kept.model.encoder, batches_of(particles))
    refined = infer_all(kept.model, semi, batches_of(particles))
    offset = true.optics.defocus_u_angstrom - particles.optics.defocus_u_angstrom
    found = []
    for posteriors in (encoded, refined):
        pose = truth_in_estimated_frame(modes(posteriors), true.pose, kept.alignment)
        latents = Latents.rigid(pose, offset)
        truths = [latents[rows] for rows in in_chunks(len(particles))]
        rotations = [of_rotation(posterior) for posterior in posteriors]
        found.append(
            coverage(posteriors, truths, "real_pose")
            | coverage(rotations, truths, "real_rotation")
        )
    return found[0], found[1]


def measure_case(case: Case) -> dict[str, Row]:
    """Return a row for each of the two posteriors."""
    kept = kept_encoder(case)
    model = kept.model
    images, latents = simulated_images(model, kept.unseen)
    alone = torch.eye(3, dtype=torch.float64)[None]
    of_simulated = measure_simulated(
        model,
        images,
        latents,
        alone,
        {ENCODER: model.encoder, REFINED: model.semi_amortized()},
    )
    of_real = measure_real(case, kept)
    wider = kept.model.covariance_inflation.tolist()
    fitted = {"rotation_widened": wider[0], "shift_widened": wider[3]}
    rows = {
        ENCODER: of_simulated[ENCODER] | of_real[0],
        REFINED: of_simulated[REFINED] | of_real[1] | fitted,
    }
    for label, row in rows.items():
        print(label, {k: round(v, 3) for k, v in row.items()}, flush=True)
    return rows


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table, by set."""
    order = sorted(rows, key=lambda row: (row["set"], row["defocus_sd_angstrom"]))
    return table(order, COLUMNS, (HALF_PRECISION,))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--sets", default="DFG", help="which (default: DFG)")
    parser.add_argument(
        "--defocus-sd",
        type=float,
        default=0.0,
        help="of the error of given defoci, in angstrom, which the encoder allows for",
    )
    parser.add_argument("--steps", type=int, help="of the training (default: by set)")
    options = parser.parse_args()
    results = results_of("calibration", options)
    for name in () if options.table else options.sets:
        case = Case.of_set(name, options)
        sd = options.defocus_sd
        # Uniform within as much as has that sd.
        error = float(round(sd * math.sqrt(3)))
        wrong = replace(case.simulation, defocus_error_angstrom=error)
        case = replace(case, simulation=wrong, defocus_sd_angstrom=sd)
        key = {
            "set": name,
            "steps": case.steps,
            "defocus_sd_angstrom": options.defocus_sd,
            "defocus_error_angstrom": error,
        }
        if options.again or not results.has(key):
            for label, row in measure_case(case).items():
                results.put({**key, "posterior": label}, row)
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
