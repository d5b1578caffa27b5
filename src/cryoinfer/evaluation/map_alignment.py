"""The rigid motion that brings a map onto another, from any rotation.

A proposal names a few rotations: by transport of point clouds, by Bayesian optimisation
over the rotations, or by trying all of a grid. The rest is the same for all: every
shift by Fourier transform, finer cells around the best, and a fit. What the best is
worth is told by the best of the rotations that are far from it, which takes its place
where it is better.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.evaluation.bayesian_rotations import bayesian_rotations
from cryoinfer.evaluation.pose_error import GlobalAlignment
from cryoinfer.evaluation.rigid_search import (
    COARSE_BOX,
    FITTED_BOXES,
    LIKELY,
    Agreement,
    Found,
    MapPair,
    fit_frame,
    narrow,
    on_few_voxels,
    resampled,
    score_rotations,
    search_all,
)
from cryoinfer.evaluation.transport_rotations import transport_rotations
from cryoinfer.evaluation.volume_alignment import transform_map
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.geometry.so3_grid import rotation_grid

Method = Literal["transport", "bayesian", "search"]
Hand = Literal["same", "both"]

_FAR_RADIAN = 0.7
"""40 degrees: a rotation farther than that from the best is another."""

_ORDER, _RIVALS = 1, 12
_RIVAL = 0.85
"""Of the way from what rotations reach by chance to the best: a second optimum above
it might be the true one in noise."""

_SIGMAS = 4.0

_ENVELOPE_BOX = 16
_EDGE = (0.1, 0.3)
"""Of the largest value on so few voxels, where an envelope begins and is whole."""


@dataclass(frozen=True)
class MapAlignment:
    """A map brought onto another.

    Attributes
    ----------
    agreement : Agreement
        The frame, and the correlation by shells in it.
    score : float
        Correlation on 24 voxels along an edge, before the fit.
    typical : float
        Median of what other rotations reach, each with its best shift.
    chance : float
        What the best of many other rotations would reach.
    rival : GlobalAlignment or None
        The best rotation that is more than 40 degrees from the best of all.
    rival_score : float
    """

    agreement: Agreement
    score: float
    typical: float
    chance: float
    rival: GlobalAlignment | None
    rival_score: float

    @property
    def alignment(self) -> GlobalAlignment:
        """Return the motion."""
        return self.agreement.alignment

    def is_by_chance(self) -> bool:
        """Return whether maps that have nothing in common could reach the score."""
        return self.score < max(LIKELY, self.chance)

    def is_ambiguous(self) -> bool:
        """Return whether another rotation does nearly as well."""
        way = self.rival_score - self.typical
        way /= max(self.score - self.typical, 1e-6)
        return self.rival is not None and way > _RIVAL


def align_maps(
    pair: MapPair,
    method: Method = "transport",
    hand: Hand = "same",
    partial: bool = False,
) -> MapAlignment:
    """Find the rigid motion that brings a map onto another.

    Parameters
    ----------
    pair : MapPair
        Cubes of one size; one of odd size is padded by a layer.
    method : {"transport", "bayesian", "search"}
        What names the first rotations.
    hand : {"same", "both"}
        Whether the mirror image of the moving map is tried, too.
    partial : bool
        Whether one map may lack a part of the other.

    Returns
    -------
    MapAlignment

    Raises
    ------
    InputError
        If a map is the same everywhere, or has fewer than 16 voxels along an edge.
    """
    for name, density in (("reference", pair.fixed), ("moving map", pair.moving)):
        if not bool((density != density.flatten()[0]).any()):
            raise InputError(f"the {name} is the same everywhere: it has no frame")
    if pair.fixed.shape[-1] < COARSE_BOX:
        raise InputError(
            f"maps of {pair.fixed.shape[-1]} voxels along an edge are too small: "
            f"expected {COARSE_BOX} or more"
        )
    even = MapPair(
        padded_to_even(pair.fixed),
        padded_to_even(pair.moving),
        None if pair.mask is None else padded_to_even(pair.mask),
        _even_length(pair),
    )
    small = on_few_voxels(even)
    hands = (False, True) if hand == "both" else (False,)
    tried = [proposed(small, mirrored, method, partial) for mirrored in hands]
    best = max(tried, key=lambda one: one.score)
    typical, chance, rival = _judged(small, best.alignment, hand)
    if rival is not None and rival.score > best.score:
        best, rival = rival, best
    agreement = fitted(small, best.alignment, partial)
    if agreement.reaches_nyquist() and even.fixed.shape[-1] > FITTED_BOXES[0]:
        finer = even.on(min(FITTED_BOXES[1], even.fixed.shape[-1]))
        agreement = fitted(finer, agreement.alignment, partial)
    return MapAlignment(
        agreement,
        best.score,
        typical,
        chance,
        None if rival is None else rival.alignment,
        -1.0 if rival is None else rival.score,
    )


def moved_map(
    density: Tensor, alignment: GlobalAlignment, voxel_angstrom: float
) -> Tensor:
    """Return a map in the frame of the reference, of any size of box.

    Parameters
    ----------
    density : Tensor, shape (n, n, n)
    alignment : GlobalAlignment
    voxel_angstrom : float

    Returns
    -------
    Tensor, shape (n, n, n)
    """
    moved = transform_map(padded_to_even(density), alignment, voxel_angstrom)
    first = len(moved) - len(density)
    return moved[first:, first:, first:]


def padded_to_even(density: Tensor) -> Tensor:
    """Return a map of even size, whose centre ``n // 2`` is the same voxel."""
    if len(density) % 2 == 0:
        return density
    edge = torch.cat([density[0].flatten(), density[-1].flatten()]).mean()
    padded = density.new_full((len(density) + 1,) * 3, float(edge))
    padded[1:, 1:, 1:] = density
    return padded


def _even_length(pair: MapPair) -> float:
    box = pair.fixed.shape[-1]
    return pair.length_angstrom * (box + box % 2) / box


def proposed(pair: MapPair, mirrored: bool, method: Method, partial: bool) -> Found:
    """Return the best rotation of those that a method names, and the shift.

    Parameters
    ----------
    pair : MapPair
        Of an even box; compared on 24 voxels along an edge.
    mirrored : bool
        Whether the mirror image of the moving map is meant.
    method : {"transport", "bayesian", "search"}
    partial : bool
    """
    if method == "search":
        return search_all(pair, mirrored)
    small = on_few_voxels(pair)
    propose = transport_rotations if method == "transport" else bayesian_rotations
    rotation = propose(small, mirrored, partial)
    if not len(rotation):  # too few points to tell
        return search_all(pair, mirrored)
    # Transport moves its rotations freely; those of a grid are cells' centres.
    return narrow(pair, rotation, mirrored, 2 if method == "transport" else 1)


def fitted(pair: MapPair, start: GlobalAlignment, partial: bool) -> Agreement:
    """Fit a frame; where maps lack parts, then again to what both of them show.

    Parameters
    ----------
    pair : MapPair
        Of an even box.
    start : GlobalAlignment
        Right within about 5 degrees.
    partial : bool
    """
    found = fit_frame(pair, start)
    if not partial:
        return found
    voxel = pair.length_angstrom / pair.fixed.shape[-1]
    there = transform_map(_envelope(pair.moving), found.alignment, voxel)
    here = transform_map(_envelope(pair.fixed), inverse(found.alignment), voxel)
    shared = replace(pair, fixed=pair.fixed * there, moving=pair.moving * here)
    again = fit_frame(shared, found.alignment)
    moved = transform_map(pair.moving, again.alignment, voxel)
    return replace(again, fsc=replace(pair, moving=moved).fsc())


def inverse(alignment: GlobalAlignment) -> GlobalAlignment:
    """Return the motion from the frame of the moving map to that of the fixed one."""
    mirror = torch.ones(3, dtype=torch.float64)
    mirror[2] = -1.0 if alignment.mirrored else 1.0
    back = mirror[:, None] * alignment.rotation.mT
    return GlobalAlignment(
        back * mirror, alignment.mirrored, -(back @ alignment.origin_angstrom)
    )


def _envelope(density: Tensor) -> Tensor:
    """Return a soft mask, 0 to 1, of where a map shows something."""
    smooth = resampled(density, _ENVELOPE_BOX)
    high = smooth.max().clamp(min=1e-30)
    mask = ((smooth / high - _EDGE[0]) / (_EDGE[1] - _EDGE[0])).clamp(0.0, 1.0)
    return resampled(mask, len(density)).clamp(0.0, 1.0)


def _judged(
    pair: MapPair, best: GlobalAlignment, hand: Hand
) -> tuple[float, float, Found | None]:
    """Return what rotations reach, what chance does, and the best of the others."""
    rotation = rotation_grid(_ORDER)
    rivals, scores = [], []
    for mirrored in (False, True) if hand == "both" else (best.mirrored,):
        score, _ = score_rotations(pair, rotation, mirrored, COARSE_BOX)
        far = geodesic_angle(rotation, best.rotation) > _FAR_RADIAN
        if mirrored != best.mirrored:
            far[:] = True
        scores.append(score[far])
        chosen = rotation[far][score[far].topk(_RIVALS).indices]
        rivals.append(narrow(pair, chosen, mirrored, _ORDER))
    # Fisher's transform of correlations is nearly normal.
    normal = torch.cat(scores).clamp(-0.999, 0.999).atanh()
    middle, above = normal.quantile(normal.new_tensor([0.5, 0.84]))
    typical = float(middle.tanh())
    chance = float((middle + _SIGMAS * (above - middle)).tanh())
    rival = max(rivals, key=lambda one: one.score)
    near = geodesic_angle(rival.alignment.rotation, best.rotation) < _FAR_RADIAN / 2
    if rival.alignment.mirrored == best.mirrored and bool(near):
        return typical, chance, None  # it has climbed to the best
    return typical, chance, rival
