"""What an evaluation against the truth leaves in the folder of a run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cryoinfer.errors import InputError
from cryoinfer.io.replacing import replace_file
from cryoinfer.report import Coverage, TruthComparison
from cryoinfer.results.layout import ERRORS, EVALUATION
from cryoinfer.results.run_arrays import run_arrays

_SHOWN = ("particles", "hand", "resolution_angstrom")


def write_comparison(
    folder: Path, comparison: TruthComparison, summary: dict[str, Any]
) -> None:
    """Write the numbers as ``evaluation.json``, the errors as ``evaluation.npz``."""
    arrays: dict[str, Any] = {
        "rotation_error_degrees": comparison.rotation_error_degrees.numpy(),
        "shift_error_angstrom": comparison.shift_error_angstrom.numpy(),
    }
    if comparison.coverage is not None:
        arrays["nominal"] = comparison.coverage.nominal
        arrays["observed"] = comparison.coverage.observed
    replace_file(folder / ERRORS, lambda partial: np.savez(partial, **arrays))
    text = json.dumps(summary, indent=2) + "\n"
    replace_file(folder / EVALUATION, lambda partial: partial.write_text(text))


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
