"""Infer images that RELION has projected, with an encoder that never saw one.

Shows set G of cryoPoseNet (0 dB, CTF): the 1,000 particles held back, and the same
particles as RELION projects and blurs them from the true map, with white noise of
RELION's own. Median errors of the encoder and of the climb, and the share of images
that are flagged as novel.

    apt-get install relion
    python benchmarks/relion_images.py
"""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from judged import batches_of, infer_all, modes, novelty_of
from kept import Case, Kept, kept_encoder
from measure import argument_parser, results_of
from out_of_distribution import share_flagged
from printed import HALF_PRECISION, Column, table
from rows import Row

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import Simulation
from cryoinfer.evaluation.pose_error import pose_errors

COLUMNS = (
    Column("set", "set"),
    Column("images of", "images_of"),
    Column("encoder: view (deg)", "encoder_view_degrees", ".2f"),
    Column("geodesic (deg)", "encoder_degrees", ".2f"),
    Column("with a climb: view (deg)", "climbed_view_degrees", ".3f"),
    Column("geodesic (deg)", "climbed_degrees", ".3f"),
    Column("flagged", "flagged", ".1%"),
)


def projected_by_relion(kept: Kept, noise_sd: float, folder: Path) -> Particles:
    """Return the particles held back as RELION makes their images."""
    kept.truth.save(folder / "ask.star")
    command = ["relion_project", "--i", str(kept.folder / "truth.mrc")]
    command += ["--ang", "ask.star", "--ctf", "--o", "projected"]
    command += ["--add_noise", "--white_noise", f"{noise_sd:.6g}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"relion_project failed:\n{done.stdout}{done.stderr}")
    return Particles.load(folder / "projected.star")


def measure(kept: Kept, particles: Particles) -> Row:
    truth, row = kept.truth.pose, Row()
    assert truth is not None
    for label, inference in (
        ("encoder", kept.model.encoder),
        ("climbed", kept.model.semi_amortized()),
    ):
        found = infer_all(kept.model, inference, batches_of(particles))
        errors = pose_errors(modes(found), truth, kept.alignment)
        row[f"{label}_degrees"] = float(errors.geodesic_degrees.median())
        row[f"{label}_view_degrees"] = float(errors.view_degrees.median())
        strange = novelty_of(kept.model, batches_of(particles), found)
        row["flagged"] = share_flagged(strange)
    return row


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS, (HALF_PRECISION,))


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--set", default="G", help="which (default: G)")
    parser.add_argument("--steps", type=int, help="of the training (default: by set)")
    options = parser.parse_args()
    results = results_of("relion_images", options)
    case = Case.of_set(options.set, options)
    key = {"set": options.set, "steps": case.steps}
    if not options.table and (options.again or not results.has(key)):
        kept = kept_encoder(case)
        # White: the sd of a pixel is that of a coefficient.
        power = Simulation.of(case.simulation).model.noise.spectrum[1]
        results.put({**key, "images_of": "cryoinfer"}, measure(kept, kept.unseen))
        with tempfile.TemporaryDirectory() as folder:
            theirs = projected_by_relion(kept, float(power) ** 0.5, Path(folder))
            results.put({**key, "images_of": "RELION"}, measure(kept, theirs))
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
