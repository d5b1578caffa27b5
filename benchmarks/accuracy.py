"""Results of runs on simulated sets, compared with the truth."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from rows import Row
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.evaluation.calibration import coverage_curve, mahalanobis_levels
from cryoinfer.evaluation.fsc import fourier_shell_correlation, resolution_at
from cryoinfer.evaluation.junk import compare_junk
from cryoinfer.evaluation.pose_error import align_poses, pose_errors, tangent_error
from cryoinfer.evaluation.volume_alignment import align_map
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.mrc import read_map
from cryoinfer.records import Pose
from cryoinfer.results.conformations import true_junk
from cryoinfer.workflows.reconstruct import ReconstructConfig, reconstruct

LEVELS = (0.5, 0.9, 0.95)
"""Credible levels whose coverage is measured."""


def accuracy(saved: Row, set_dir: Path, true_symmetry: str = "C1") -> Row:
    """Compare poses, their covariance and the map with the truth.

    Parameters
    ----------
    saved : Row
        ``rotation`` (n, 3, 3), ``shift_angstrom`` (n, 2), ``covariance`` (n, 5, 5),
        ``density`` and ``mask`` (box, box, box), ``gold_standard_angstrom``; of sets
        with junk ``outlier_score`` and ``outlier`` (n,).
    set_dir : Path
    true_symmetry : str

    Returns
    -------
    Row
        Median, mean and 95th percentile of the pose errors after the best global
        alignment, resolutions against the truth under the run's mask, and the
        coverage of the credible sets of the rotation and of the whole pose; all of
        images that show a particle. How junk is told, where there is any.
    """
    truth = Particles.load(set_dir / "truth.star")
    assert truth.pose is not None
    group = symmetry_rotations(true_symmetry)
    is_junk = true_junk(truth.table)
    pose = truth.pose[~is_junk]
    estimated = Pose(saved["rotation"], saved["shift_angstrom"])[~is_junk]
    generator = torch.Generator().manual_seed(0)
    alignment = align_poses(estimated, pose, generator, group)
    errors = pose_errors(estimated, pose, alignment, group)
    masked = saved["density"] * saved["mask"]
    pixel_size = truth.pixel_size_angstrom
    moved = align_map(_true_map(set_dir), masked, alignment, pixel_size)
    fsc = fourier_shell_correlation(moved * saved["mask"], masked)
    error = tangent_error(estimated, pose, alignment, group)
    row: Row = {
        **errors.summary(),
        "mirrored": alignment.mirrored,
        "gold_standard_angstrom": saved["gold_standard_angstrom"],
        "truth_0143_angstrom": resolution_inside(fsc, 0.143, pixel_size),
        "truth_05_angstrom": resolution_inside(fsc, 0.5, pixel_size),
    }
    for name, dims in (("rotation", range(3)), ("pose", range(5))):
        covariance = saved["covariance"][~is_junk]
        levels = mahalanobis_levels(error, covariance, list(dims))
        covered = coverage_curve(levels, torch.tensor(LEVELS)).tolist()
        for level, share in zip(LEVELS, covered, strict=True):
            row[f"coverage_{name}_{round(100 * level)}"] = share
    if bool(is_junk.any()):
        row |= asdict(compare_junk(is_junk, saved["outlier_score"], saved["outlier"]))
    return row


def limit(set_dir: Path, symmetry: str = "C1") -> Row:
    """Return the resolution of the same images at their true poses; kept in the set.

    Of those that show a particle.

    Parameters
    ----------
    set_dir : Path
    symmetry : str
        Imposed on the map, as in the run that it is the limit of.

    Returns
    -------
    Row
        ``limit_0143_angstrom`` and ``limit_05_angstrom`` against the truth, under a
        mask found as the runs find theirs, and ``limit_gold_standard_angstrom``.
    """
    kept = set_dir / f"limit-{symmetry}.json"
    if kept.exists():
        return dict(json.loads(kept.read_text()))
    truth = Particles.load(set_dir / "truth.star")
    particles = Particles.load(set_dir / "particles.star").with_results(pose=truth.pose)
    particles = particles.select(~true_junk(truth.table))
    best = reconstruct(particles, ReconstructConfig(symmetry), SilentMonitor())
    fsc = fourier_shell_correlation(
        _true_map(set_dir) * best.mask, best.density * best.mask
    )
    row = {
        "limit_0143_angstrom": resolution_inside(fsc, 0.143, best.pixel_size_angstrom),
        "limit_05_angstrom": resolution_inside(fsc, 0.5, best.pixel_size_angstrom),
        "limit_gold_standard_angstrom": best.resolution_angstrom,
    }
    kept.write_text(json.dumps(row))
    return row


def resolution_inside(
    fsc: Tensor, threshold: float, pixel_size_angstrom: float
) -> float:
    """Return the first crossing among the shells that runs use; Nyquist without one.

    Runs use coefficients up to ``n // 2 - 1`` Fourier pixels: the outermost shell
    holds next to nothing of the map, and says nothing about it.
    """
    inside = torch.cat([fsc[:-1], fsc[-2:-1]])
    return resolution_at(inside, threshold, 2 * (len(fsc) - 1), pixel_size_angstrom)


def _true_map(set_dir: Path) -> Tensor:
    return torch.from_numpy(read_map(set_dir / "truth.mrc").density.copy()).float()
