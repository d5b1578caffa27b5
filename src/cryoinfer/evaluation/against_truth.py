"""What was found of simulated particles, compared with what they were made of.

Poses and maps are compared after one global alignment, for the hand of the truth and
for the opposite one: no image tells them apart.

Where poses are known that alignment is theirs, then fitted to the maps: thousands of
particles give the frame to a fraction of a degree and without a search, in which
another rotation of a map that is nearly symmetric might win. Where they are wrong in
either hand, and the maps agree better so, these are aligned by
:func:`cryoinfer.evaluation.map_alignment.align_maps` instead, as ``cryoinfer align``
does.
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
from cryoinfer.evaluation.map_alignment import MapAlignment, align_maps, moved_map
from cryoinfer.evaluation.pose_error import (
    GlobalAlignment,
    PoseErrors,
    align_poses,
    pose_errors,
    tangent_error,
)
from cryoinfer.evaluation.rigid_search import COARSE_BOX
from cryoinfer.evaluation.rigid_search import MapPair as SearchedPair
from cryoinfer.evaluation.volume_alignment import align_map, transform_map
from cryoinfer.geometry.hand import flip_hand, mirror_density
from cryoinfer.records import Pose
from cryoinfer.wording import agree_nowhere

NOMINAL = (0.5, 0.9, 0.95)
"""Levels of the credible sets that are told."""

FSC_LEVELS = (0.5, 0.143)

Hand = Literal["same", "opposite"]
"""As that of the truth, or mirrored."""

_CURVE = torch.linspace(0, 1, 41, dtype=torch.float64)
_REGIONS = {"pose": range(5), "rotation": range(3), "shift": range(3, 5)}

_FITTED_DEGREES = 20.0
"""Median error of poses up to which the map is fitted: a fit comes back from about 5
degrees, and from far off it would wander and find nothing."""


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

    def tell_a_frame(self) -> bool:
        """Return whether the maps can be aligned without poses."""
        differ = [bool((m != m[0, 0, 0]).any()) for m in (self.estimated, self.true)]
        return all(differ) and len(self.true) >= COARSE_BOX


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
    map_alignment : MapAlignment or None
        Of the true map of this hand, where the poses could not tell the frame.
    """

    hand: Hand
    errors: PoseErrors
    fsc: Tensor | None
    resolution_angstrom: Mapping[float, float | None]
    map_alignment: MapAlignment | None = None

    def mean_fsc(self) -> float:
        """Return the mean of the correlation over the shells, the first left out."""
        return 0.0 if self.fsc is None else float(self.fsc[1:].mean())


@dataclass(frozen=True)
class TruthEvaluation:
    """How poses, map and uncertainties compare with the truth.

    Attributes
    ----------
    particles : int
    hands : tuple of OfHand
        Of either hand.
    best : OfHand
        That with the smaller median error of the rotation; where maps had to be
        aligned without poses, that with the larger mean FSC.
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

    def cautions(self) -> list[str]:
        """Say what the comparison of the maps rests on, where not on the poses."""
        aligned = self.best.map_alignment
        if aligned is None:
            return []
        degrees = _median_degrees(self.best.errors)
        said = [
            f"the poses are not the true ones (median rotation error {degrees:.0f} "
            "degrees), whichever hand: the maps were aligned without them."
        ]
        if aligned.is_by_chance():
            said.append(
                f"the map correlates with the true one by {aligned.score:.2f}, which "
                f"other rotations may reach by chance ({aligned.chance:.2f}): it is "
                "another map, or shows next to nothing."
            )
        return said

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

    For the better hand the map is fitted from the frame of the poses, for the other
    one that frame has to do. If the poses of both are off, the maps of both are aligned
    without them.

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
    near = min(map(_median_degrees, (same, other))) <= _FITTED_DEGREES
    if near or maps is None or not maps.tell_a_frame():
        hands = (
            _of_hand("same", same, maps, is_fitted=near and is_same),
            _of_hand("opposite", other, maps, is_fitted=near and not is_same),
        )
    else:
        hands = (
            _aligned_hand("same", same, maps),
            _aligned_hand("opposite", other, maps),
        )
        is_same = hands[0].mean_fsc() >= hands[1].mean_fsc()
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
    hand: Hand, errors: PoseErrors, maps: MapPair | None, is_fitted: bool
) -> OfHand:
    """Compare the maps in the frame of the poses, given the hand."""
    if maps is None:
        return OfHand(hand, errors, None, {})
    frame, pixel_size = errors.alignment, maps.pixel_size_angstrom
    moved = (
        align_map(maps.true, maps.estimated, frame, pixel_size)
        if is_fitted
        else transform_map(maps.true, frame, pixel_size)
    )
    return _compared(OfHand(hand, errors, None, {}), maps, moved)


def _aligned_hand(hand: Hand, errors: PoseErrors, maps: MapPair) -> OfHand:
    """Compare the maps in the frame that they tell themselves, given the hand.

    Or in that of the poses, where they agree better in it: poses that are off by 30
    degrees may still know more than maps that have little in common.
    """
    true = mirror_density(maps.true) if hand == "opposite" else maps.true
    length = len(true) * maps.pixel_size_angstrom
    found = align_maps(SearchedPair(maps.estimated, true, maps.mask, length))
    moved = moved_map(true, found.alignment, maps.pixel_size_angstrom)
    alone = _compared(OfHand(hand, errors, None, {}, found), maps, moved)
    by_poses = _of_hand(hand, errors, maps, is_fitted=False)
    return max(alone, by_poses, key=OfHand.mean_fsc)


def _compared(one: OfHand, maps: MapPair, moved: Tensor) -> OfHand:
    """Return a hand with the agreement of the maps."""
    pixel_size = maps.pixel_size_angstrom
    fsc = fourier_shell_correlation(maps.estimated * maps.mask, moved * maps.mask)
    resolution: dict[float, float | None] = {}
    for level in FSC_LEVELS:
        reached = resolution_at(fsc, level, len(maps.true), pixel_size)
        nowhere = agree_nowhere(reached, len(maps.true), pixel_size)
        resolution[level] = None if nowhere else reached
    return replace(one, fsc=fsc, resolution_angstrom=resolution)


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
