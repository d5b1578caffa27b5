"""What was found of simulated particles, compared with what they were made of.

Poses and maps are compared after one global alignment, for the hand of the truth and
for the opposite one: no image tells them apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.evaluation.calibration import coverage_curve, mahalanobis_levels
from cryoinfer.evaluation.fsc import fourier_shell_correlation, resolution_at
from cryoinfer.evaluation.pose_error import (
    GlobalAlignment,
    PoseErrors,
    align_poses,
    pose_errors,
    tangent_error,
)
from cryoinfer.evaluation.volume_alignment import align_map, transform_map
from cryoinfer.geometry.hand import flip_hand
from cryoinfer.records import Pose
from cryoinfer.wording import agree_nowhere

NOMINAL = (0.5, 0.9, 0.95)
"""Levels of the credible sets that are told."""

FSC_LEVELS = (0.5, 0.143)

_CURVE = torch.linspace(0, 1, 41, dtype=torch.float64)
_REGIONS = {"pose": range(5), "rotation": range(3), "shift": range(3, 5)}

_FITTED_DEGREES = 20.0
"""Median error of poses up to which the map is fitted: a fit comes back from about 5
degrees, and from far off it would wander for minutes and find nothing."""


@dataclass(frozen=True)
class Coverage:
    """How often the truth lies inside the stated region.

    Attributes
    ----------
    nominal, observed : ndarray, shape (m,)
        Stated probability, and the fraction of particles inside.
    n_particles : int
    """

    nominal: NDArray[np.float64]
    observed: NDArray[np.float64]
    n_particles: int


@dataclass(frozen=True)
class TruthComparison:
    """How a run on simulated particles compares with what they were made of.

    Attributes
    ----------
    rotation_error_degrees, shift_error_angstrom : Tensor, shape (n,)
        After the best global alignment.
    mirrored : bool
        Whether the map came out with the opposite hand.
    resolution_angstrom : float or None
        Where the FSC with the true map falls below 0.5; None if it never is above.
    coverage : Coverage, optional
        Of the pose posteriors.
    """

    rotation_error_degrees: Tensor
    shift_error_angstrom: Tensor
    mirrored: bool
    resolution_angstrom: float | None
    coverage: Coverage | None = None


@dataclass(frozen=True)
class MapPair:
    """A map, and the true one on the same grid.

    Attributes
    ----------
    estimated, true : Tensor, shape (n, n, n)
    mask : Tensor, shape (n, n, n)
        Within which they are compared.
    pixel_size_angstrom : float
    """

    estimated: Tensor
    true: Tensor
    mask: Tensor
    pixel_size_angstrom: float


@dataclass(frozen=True)
class OfHand:
    """How poses and map compare with the truth if the map has a given hand.

    Attributes
    ----------
    hand : {"same", "opposite"}
        As that of the truth, or mirrored.
    errors : PoseErrors
    fsc : Tensor, shape (n // 2 + 1,), or None
        With the true map, within the mask; None if no map was compared.
    resolution_angstrom : mapping of float to float or None
        By level of :data:`FSC_LEVELS`, where the correlation falls below it; None if
        it never is above. Empty if no map was compared.
    """

    hand: Literal["same", "opposite"]
    errors: PoseErrors
    fsc: Tensor | None
    resolution_angstrom: Mapping[float, float | None]


@dataclass(frozen=True)
class TruthEvaluation:
    """How poses, map and uncertainties compare with the truth.

    Attributes
    ----------
    particles : int
    hands : tuple of OfHand
        Of either hand.
    best : OfHand
        That with the smaller median error of the rotation.
    coverage : mapping of str to tuple of float
        For pose, rotation and shift, the share of truths inside the credible sets of
        :data:`NOMINAL`; empty where no posteriors are known.
    curve : Coverage, optional
        Of the pose, at all levels.
    """

    particles: int
    hands: tuple[OfHand, ...]
    best: OfHand
    coverage: Mapping[str, tuple[float, ...]]
    curve: Coverage | None

    def comparison(self) -> TruthComparison:
        """Return what a report shows."""
        return TruthComparison(
            rotation_error_degrees=self.best.errors.geodesic_degrees,
            shift_error_angstrom=self.best.errors.shift_angstrom,
            mirrored=self.best.hand == "opposite",
            resolution_angstrom=self.best.resolution_angstrom.get(0.5),
            coverage=self.curve,
        )


def compare_with_truth(
    estimated: Pose,
    true: Pose,
    maps: MapPair | None,
    symmetry: Tensor,
    covariance: Tensor | None = None,
) -> TruthEvaluation:
    """Compare poses, their uncertainties and a map with the true ones.

    Only for the better hand the map is fitted, if its poses are near enough; else
    there is nothing to be found, and the poses' alignment has to do.

    Parameters
    ----------
    estimated, true : Pose
        Of n particles in the same order.
    maps : MapPair or None
        None if there is not one map: of particles in many conformations.
    symmetry : Tensor, shape (m, 3, 3)
        Rotations that leave the true map as it is, the identity among them.
    covariance : Tensor, shape (n, d, d), optional
        Of the rotation vector in the image frame (radian), the shift (angstrom) and
        what else, about ``estimated``.

    Returns
    -------
    TruthEvaluation

    Raises
    ------
    InputError
        If the numbers of poses differ or are zero, or the maps are not on one grid.
    """
    if maps is not None and maps.true.shape != maps.estimated.shape:
        raise InputError(
            f"expected a true map of {len(maps.estimated)} voxels, as the one that it "
            f"is compared with, found {len(maps.true)}"
        )
    same = _pose_errors(estimated, true, symmetry, opposite=False)
    other = _pose_errors(estimated, true, symmetry, opposite=True)
    is_same = _median_degrees(same) <= _median_degrees(other)
    hands = (
        _of_hand("same", same, maps, is_best=is_same),
        _of_hand("opposite", other, maps, is_best=not is_same),
    )
    best = hands[0 if is_same else 1]
    levels: dict[str, Tensor] = {}
    if covariance is not None:
        alignment = best.errors.alignment
        levels = _levels(estimated, true, alignment, symmetry, covariance)
    nominal = torch.tensor(NOMINAL)
    curve = None
    if levels:
        observed = coverage_curve(levels["pose"], _CURVE).numpy()
        curve = Coverage(_CURVE.numpy(), observed, len(estimated))
    coverage = {
        region: tuple(coverage_curve(values, nominal).tolist())
        for region, values in levels.items()
    }
    return TruthEvaluation(len(estimated), hands, best, coverage, curve)


def nearer_hand(estimated: Pose, true: Pose, symmetry: Tensor) -> PoseErrors:
    """Return the errors of poses for the hand with the smaller median rotation error.

    Parameters
    ----------
    estimated, true : Pose
        Of n particles in the same order.
    symmetry : Tensor, shape (m, 3, 3)
        Rotations that leave the true map as it is, the identity among them.
    """
    both = (_pose_errors(estimated, true, symmetry, hand) for hand in (False, True))
    return min(both, key=_median_degrees)


def _median_degrees(errors: PoseErrors) -> float:
    return float(errors.geodesic_degrees.median())


def _pose_errors(
    estimated: Pose, true: Pose, group: Tensor, opposite: bool
) -> PoseErrors:
    """Return the errors of the poses, given the hand."""
    # Fitting the mirrored truth gives the alignment to the mirrored frame.
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=group.dtype))
    alignment = align_poses(
        estimated,
        flip_hand(true) if opposite else true,
        torch.Generator().manual_seed(0),
        symmetry=mirror @ group @ mirror if opposite else group,
        allow_mirror=False,
    )
    alignment = replace(alignment, mirrored=opposite)
    return pose_errors(estimated, true, alignment, group)


def _of_hand(
    hand: Literal["same", "opposite"],
    errors: PoseErrors,
    maps: MapPair | None,
    is_best: bool,
) -> OfHand:
    """Compare the maps, given the hand."""
    if maps is None:
        return OfHand(hand, errors, None, {})
    pixel_size = maps.pixel_size_angstrom
    near = _median_degrees(errors) <= _FITTED_DEGREES
    moved = (
        align_map(maps.true, maps.estimated, errors.alignment, pixel_size)
        if is_best and near
        else transform_map(maps.true, errors.alignment, pixel_size)
    )
    fsc = fourier_shell_correlation(maps.estimated * maps.mask, moved * maps.mask)
    resolution: dict[float, float | None] = {}
    for level in FSC_LEVELS:
        reached = resolution_at(fsc, level, len(maps.true), pixel_size)
        nowhere = agree_nowhere(reached, len(maps.true), pixel_size)
        resolution[level] = None if nowhere else reached
    return OfHand(hand, errors, fsc, resolution)


def _levels(
    estimated: Pose,
    true: Pose,
    alignment: GlobalAlignment,
    group: Tensor,
    covariance: Tensor,
) -> dict[str, Tensor]:
    """Return, by region, the credible level at which each truth lies."""
    error = tangent_error(estimated, true, alignment, group)
    return {
        region: mahalanobis_levels(error, covariance[:, :5, :5], dims)
        for region, dims in _REGIONS.items()
    }
