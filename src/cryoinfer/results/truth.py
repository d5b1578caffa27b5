"""A run on simulated particles, judged by what they were made of."""

from pathlib import Path

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.resampling import cropped_map
from cryoinfer.errors import InputError
from cryoinfer.evaluation.against_truth import (
    MapPair,
    TruthEvaluation,
    compare_with_truth,
)
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.io.mrc import MapFile, read_map
from cryoinfer.results.run_result import RunResult

_SAME_PIXEL = 0.01  # of its size


def evaluate(result: RunResult, truth: Path | str) -> TruthEvaluation:
    """Compare poses, their uncertainties and the map of a run with the true ones.

    Poses and map are compared after one global alignment, for the hand of the truth
    and for the opposite one.

    Parameters
    ----------
    result : RunResult
        Of all simulated particles, in their order.
    truth : path
        Folder with ``truth.star`` and ``truth.mrc``, as
        :func:`cryoinfer.data.simulate.simulate` writes them.

    Returns
    -------
    TruthEvaluation

    Raises
    ------
    InputError
        If the truth is missing, or of other particles.
    """
    star, density = Path(truth) / "truth.star", Path(truth) / "truth.mrc"
    true = Particles.load(star).pose
    n = len(result.inferred)
    if true is None or len(true) != n:
        found = "none" if true is None else f"{len(true):,}"
        raise InputError(
            f"{star}: expected the poses of {n:,} particles, found {found}"
        )
    whole = read_map(density)
    maps = result.reconstruction
    return compare_with_truth(
        result.latents.pose,
        true,
        paired(maps.density, maps.mask, maps.pixel_size_angstrom, whole, density),
        symmetry_rotations(maps.symmetry),
        result.inferred.covariance[:, 0],
    )


def paired(
    estimated: Tensor,
    mask: Tensor,
    pixel_size_angstrom: float,
    true: MapFile,
    path: Path,
) -> MapPair:
    """Return a map beside the true one, which is cropped to the same voxels.

    Parameters
    ----------
    estimated, mask : Tensor, shape (n, n, n)
    pixel_size_angstrom : float
    true : MapFile
    path : Path
        Of the true map.

    Raises
    ------
    InputError
        If they are of other areas, or the true one is sampled less finely.
    """
    box, density = len(estimated), torch.tensor(true.density)
    side = len(density) * true.pixel_size_angstrom
    if len(density) > box and abs(side / (box * pixel_size_angstrom) - 1) < _SAME_PIXEL:
        # The run was made on images that were cropped.
        cropped = cropped_map(density, box)
        return MapPair(estimated, cropped, mask, pixel_size_angstrom)
    same_pixel = abs(true.pixel_size_angstrom / pixel_size_angstrom - 1) < _SAME_PIXEL
    if true.density.shape != estimated.shape or not same_pixel:
        raise InputError(
            f"{path} has {true.density.shape[0]} voxels of "
            f"{true.pixel_size_angstrom:.4g} A, the map of the run {len(estimated)} of "
            f"{pixel_size_angstrom:.4g} A: are they of the same particles?"
        )
    return MapPair(estimated, density, mask, pixel_size_angstrom)
