"""The files that post-processing leaves: maps, numbers, and tables as RELION's."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cryoinfer.evaluation.postprocess import GuinierPlot, Postprocessed
from cryoinfer.evaluation.sharpening import GuinierFit
from cryoinfer.io.replacing import replace_file
from cryoinfer.io.star import StarBlock, StarFile, text_column, write_star
from cryoinfer.results import layout
from cryoinfer.results.run_files import (
    CORRECTED,
    MASKED,
    RANDOMISED,
    UNMASKED,
    fsc_block,
    save_map,
    ssnr_columns,
)
from cryoinfer.wording import agree_at_nyquist

SHARPENED, SHARPENED_MASKED = "map_sharpened.mrc", "map_sharpened_masked.mrc"
NUMBERS, TABLES = "postprocess.json", "postprocess.star"
FILES = (
    *(SHARPENED, SHARPENED_MASKED, layout.MASK),
    *(NUMBERS, TABLES, layout.REPORT),
)
"""All that post-processing writes."""


def write_postprocessed(
    folder: Path, found: Postprocessed, about: Mapping[str, Any]
) -> None:
    """Write maps, tables and, last of all, the numbers.

    Parameters
    ----------
    folder : Path
        That is there.
    found : Postprocessed
    about : mapping
        What else the numbers are to say: of which maps, and what asks for caution.
    """
    voxel = found.voxel_size_angstrom
    save_map(folder / SHARPENED, found.sharpened, voxel)
    save_map(folder / SHARPENED_MASKED, found.sharpened * found.mask, voxel)
    save_map(folder / layout.MASK, found.mask, voxel)
    star = StarFile((_general(found), _fsc(found), _guinier(found.guinier)))
    replace_file(folder / TABLES, lambda part: write_star(part, star))
    text = json.dumps({**postprocess_numbers(found), **about}, indent=2) + "\n"
    replace_file(folder / NUMBERS, lambda part: part.write_text(text))


def postprocess_numbers(found: Postprocessed) -> dict[str, Any]:
    """Return the numbers of post-processing, in values that JSON knows."""
    box, voxel = found.mask.shape[-1], found.voxel_size_angstrom
    curve = found.curve
    return {
        "box": box,
        "pixel_size_angstrom": voxel,
        "resolution_angstrom": found.resolution_angstrom,
        "at_nyquist": agree_at_nyquist(found.resolution_angstrom, box, voxel),
        "unmasked_resolution_angstrom": found.unmasked_resolution_angstrom,
        "b_factor_angstrom2": found.b_factor_angstrom2,
        "b_factor_fit": _fit(found.fit),
        "b_factor_fit_whole_box": _fit(found.whole_box_fit),
        "why_no_fit": found.why_no_fit,
        "mask_share": float(found.mask.double().mean()),
        "randomised_from_angstrom": box * voxel / curve.randomised_from_shell
        if curve.randomised_from_shell <= box // 2
        else None,
        "fsc_corrected": curve.corrected.tolist(),
        "fsc_masked": curve.masked.tolist(),
        "fsc_unmasked": curve.unmasked.tolist(),
        "fsc_randomised": curve.randomised.tolist(),
        "ssnr": _ratios(found.ssnr.ratio),
        "ssnr_standard_error": _ratios(found.ssnr.standard_error),
        "guinier": {
            "inverse_square_per_angstrom2": found.guinier.inverse_square.tolist(),
            "log_amplitude": found.guinier.original.tolist(),
            "log_amplitude_weighted": found.guinier.weighted.tolist(),
            "log_amplitude_sharpened": found.guinier.sharpened.tolist(),
        },
    }


def _ratios(values: Tensor) -> list[float | None]:
    """Return numbers for JSON, which knows no infinity."""
    return [one if math.isfinite(one) else None for one in values.tolist()]


def _fit(fit: GuinierFit | None) -> dict[str, Any] | None:
    return None if fit is None else asdict(fit)


def _general(found: Postprocessed) -> StarBlock:
    """Return the block of single numbers, as RELION's post-processing writes it."""
    numbers = {
        "rlnFinalResolution": found.resolution_angstrom,
        "rlnBfactorUsedForSharpening": found.b_factor_angstrom2,
    }
    if found.fit is not None:
        numbers["rlnFittedSlopeGuinierPlot"] = found.fit.b_factor_angstrom2 / 4
        numbers["rlnFittedInterceptGuinierPlot"] = found.fit.intercept
    columns = {
        name: text_column(np.array([value]), "%.6f") for name, value in numbers.items()
    }
    return StarBlock("general", columns, is_loop=False)


def _fsc(found: Postprocessed) -> StarBlock:
    curve = found.curve
    curves = {
        CORRECTED: curve.corrected,
        UNMASKED: curve.unmasked,
        MASKED: curve.masked,
        RANDOMISED: curve.randomised,
        **ssnr_columns(found.ssnr),
    }
    return fsc_block(curves, found.voxel_size_angstrom)


def _guinier(plot: GuinierPlot) -> StarBlock:
    columns = {
        "rlnResolutionSquared": text_column(plot.inverse_square.numpy(), "%.8f"),
        "rlnLogAmplitudesOriginal": text_column(plot.original.numpy(), "%.6f"),
        "rlnLogAmplitudesWeighted": text_column(plot.weighted.numpy(), "%.6f"),
        "rlnLogAmplitudesSharpened": text_column(plot.sharpened.numpy(), "%.6f"),
    }
    return StarBlock("guinier", columns)
