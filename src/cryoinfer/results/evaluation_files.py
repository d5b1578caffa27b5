"""What an evaluation against the truth leaves in the folder of a run."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryoinfer.errors import InputError
from cryoinfer.evaluation.against_truth import (
    NOMINAL,
    Coverage,
    OfHand,
    TruthComparison,
    TruthEvaluation,
)
from cryoinfer.evaluation.conformation_against_truth import (
    ConformationComparison,
    ConformationEvaluation,
    StatePoses,
)
from cryoinfer.evaluation.junk import JunkComparison
from cryoinfer.io.replacing import replace_file
from cryoinfer.results.layout import ERRORS, EVALUATION
from cryoinfer.results.run_arrays import run_arrays

_SHOWN = ("particles", "hand", "resolution_angstrom")


def write_evaluation(
    folder: Path,
    found: TruthEvaluation,
    conformations: ConformationEvaluation,
    junk: JunkComparison | None,
    unreadable: int,
) -> None:
    """Write the numbers as ``evaluation.json``, the errors as ``evaluation.npz``.

    Parameters
    ----------
    folder : Path
        Of the run.
    found : TruthEvaluation
    conformations : ConformationEvaluation
    junk : JunkComparison or None
        None where all images show particles.
    unreadable : int
        Particles without a pose, which were left out.
    """
    shown = found.comparison()
    arrays: dict[str, Any] = {
        "rotation_error_degrees": shown.rotation_error_degrees.numpy(),
        "shift_error_angstrom": shown.shift_error_angstrom.numpy(),
    }
    if shown.coverage is not None:
        arrays["nominal"] = shown.coverage.nominal
        arrays["observed"] = shown.coverage.observed
    replace_file(folder / ERRORS, lambda partial: np.savez(partial, **arrays))
    summary = {
        "particles": found.particles,
        "unreadable": unreadable,
        "hand": found.best.hand,
        "resolution_angstrom": shown.resolution_angstrom,
        "hands": {one.hand: _numbers(one) for one in found.hands},
        "fsc": None if found.best.fsc is None else found.best.fsc.tolist(),
        "nominal": list(NOMINAL),
        "coverage": {name: list(shares) for name, shares in found.coverage.items()},
        "conformations": [_compared(one) for one in conformations.comparisons],
        "states": {
            name: _of_states(one) for name, one in conformations.state_poses.items()
        },
        "junk": None if junk is None else asdict(junk),
        "cautions": [*found.cautions(), *conformations.cautions],
    }
    text = json.dumps(summary, indent=2) + "\n"
    replace_file(folder / EVALUATION, lambda partial: partial.write_text(text))


def _numbers(one: OfHand) -> dict[str, Any]:
    alignment = one.errors.alignment
    reached = one.resolution_angstrom
    return {
        **one.errors.summary(),
        **{f"resolution_angstrom_fsc_{level}": reached[level] for level in reached},
        "alignment_rotation": alignment.rotation.tolist(),
        "alignment_origin_angstrom": alignment.origin_angstrom.tolist(),
    }


def _compared(one: ConformationComparison) -> dict[str, Any]:
    known: dict[str, Any] = {
        "truth": one.name,
        "particles": one.particles,
        "dimensions": one.dimensions,
        "rank_correlation": one.rank_correlation,
        "monotone_r2": one.monotone_r2,
        "cautions": list(one.cautions),
    }
    agreement = one.agreement
    if agreement is None:
        return known
    return known | {
        "states": list(one.state_values),
        "confusion_error": one.confusion_error,
        "classes": "k-means of z" if one.are_clusters else "of the run",
        "hungarian_accuracy": agreement.accuracy,
        "adjusted_rand_index": agreement.adjusted_rand_index,
        "true_shares": agreement.true_shares.tolist(),
        "found_shares": agreement.found_shares.tolist(),
        "population_total_variation": agreement.total_variation,
    }


def _of_states(poses: StatePoses) -> list[dict[str, Any]]:
    return [
        {
            "state": state,
            "particles": len(one.geodesic_degrees),
            "hand": "opposite" if one.alignment.mirrored else "same",
            **one.summary(),
        }
        for state, one in poses.states.items()
    ]


def read_comparison(folder: Path) -> TruthComparison | None:
    """Return what was written, or None if the run was never evaluated."""
    if not (folder / EVALUATION).exists() or not (folder / ERRORS).exists():
        return None
    path = folder / EVALUATION
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        known = {name: summary[name] for name in _SHOWN}
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged: run `cryoinfer evaluate` again, or delete it."
        ) from error
    with run_arrays(folder / ERRORS) as arrays:
        coverage = None
        if "nominal" in arrays.files:
            coverage = Coverage(
                arrays["nominal"], arrays["observed"], known["particles"]
            )
        return TruthComparison(
            rotation_error_degrees=torch.from_numpy(arrays["rotation_error_degrees"]),
            shift_error_angstrom=torch.from_numpy(arrays["shift_error_angstrom"]),
            mirrored=known["hand"] == "opposite",
            resolution_angstrom=known["resolution_angstrom"],
            coverage=coverage,
        )
