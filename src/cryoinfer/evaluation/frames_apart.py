"""Whether two maps would agree better after a rigid motion, or in the other hand.

The Fourier shell correlation compares voxel with voxel: of two maps of one molecule in
different frames it says next to nothing. Here the frame is searched for from nothing,
in both hands, and then near the one in which they lie.
"""

import math

import torch
from torch import Tensor

from cryoinfer.evaluation.pose_error import GlobalAlignment
from cryoinfer.evaluation.rigid_search import (
    CERTAIN,
    COARSE_BOX,
    FITTED_BOXES,
    LIKELY,
    Agreement,
    MapPair,
    correlation_as_they_lie,
    fit_frame,
    search_all,
)
from cryoinfer.evaluation.volume_alignment import transform_map
from cryoinfer.geometry.rotations import geodesic_angle

_LESS_APART = 0.9
"""Of what lacks of a correlation of 1 as they lie: less is gained by chance."""

_FEWEST_SHELLS = 4.0
_MUCH = 0.8
"""Of the resolution as they lie: half-maps of one refinement, which differ by a tenth
of a degree, gain a few per cent."""

_LEAST_MOTION = 0.005
"""Of the box, at a quarter of it from the centre, where a turn by 1.1 degrees moves as
much: half-maps of noise are brought back by less."""

_NOISE = 0.143

_CERTAIN_NATS, _MORE = 12.0, 1.04
"""What the maps must share more after a fit. By chance its six numbers gain 3 nats, and
12 in one of 2,000; and maps that share 4 per cent more look no different."""

_MOST_ALIKE = 0.999
"""Beyond which a correlation depends on how a map was interpolated."""


def best_frame(pair: MapPair) -> Agreement | None:
    """Return the rigid motion that makes two maps agree farther, if there is one.

    It is searched for among all, in both hands; where none makes the maps agree much
    farther, by a fit that begins with the maps as they lie, which finds small ones. The
    hand is called opposite only where that makes a difference of its own.

    Parameters
    ----------
    pair : MapPair

    Returns
    -------
    Agreement or None
        None where the maps agree nearly as far as they lie, or nowhere, or have less
        than 16 voxels along an edge.
    """
    if pair.fixed.shape[-1] // 2 * 2 < COARSE_BOX:
        return None
    return _frame_far_off(pair) or _frame_nearby(pair)


def _boxes(pair: MapPair) -> list[int]:
    """Return how many voxels to compare on, few first."""
    whole = pair.fixed.shape[-1] // 2 * 2
    return sorted({min(size, whole) for size in FITTED_BOXES})


def _frame_far_off(pair: MapPair) -> Agreement | None:
    """Return the best frame of all where maps agree much farther in it."""
    found = None
    for box in _boxes(pair):
        maps = pair.on(box)
        before = _as_it_lies(maps)
        if before.reaches_nyquist():
            continue  # nothing is to be gained on so few voxels
        found = (
            _from_nothing(maps) if found is None else fit_frame(maps, found.alignment)
        )
        if found is None or not _is_farther(found, before):
            return None
    return found


def _frame_nearby(pair: MapPair) -> Agreement | None:
    """Return the frame that a fit finds from the maps as they lie, if it is another."""
    few, *more = _boxes(pair)
    maps = pair.on(few)
    before = _as_it_lies(maps)
    if more and before.reaches_nyquist():
        maps = pair.on(more[0])
        before = _as_it_lies(maps)
    if not _is_beyond_few(before):
        return None  # a fit would take long, and find what noise shares
    found = fit_frame(maps, before.alignment)
    turn = float(geodesic_angle(found.alignment.rotation, before.alignment.rotation))
    moved = turn * pair.length_angstrom / 4 + float(
        found.alignment.origin_angstrom.norm()
    )
    if moved < _LEAST_MOTION * pair.length_angstrom:
        return None
    shells = int(found.length_angstrom / found.resolution(_NOISE))
    lying, fitted = (_shared_nats(one.fsc, shells) for one in (before, found))
    gained = (fitted - lying) * _filled_by_noise(maps, found.alignment)
    return found if gained > _CERTAIN_NATS and fitted > _MORE * lying else None


def _as_it_lies(maps: MapPair) -> Agreement:
    return Agreement(GlobalAlignment.identity(), maps.fsc(), maps.length_angstrom)


def _shared_nats(fsc: Tensor, shells: int) -> float:
    """Return what one map tells of the other, up to a shell, in nats.

    Of coefficients that are normal, independent, and correlate by c, each pair shares
    ``-log(1 - c^2)``; there are ``2 pi k^2`` of them in shell k, without their mates.
    """
    k = torch.arange(1, shells + 1, dtype=torch.float64)
    correlation = fsc[1 : shells + 1].double().clamp(0.0, _MOST_ALIKE)
    return float((2 * math.pi * k**2 * -torch.log1p(-(correlation**2))).sum())


def _filled_by_noise(maps: MapPair, alignment: GlobalAlignment) -> float:
    """Return which part of the box that fills in which maps differ, 1 for all of it.

    Where noise fills less (solvent is flattened, or masked), neighbouring coefficients
    tell the same, by that factor.
    """
    voxel = maps.length_angstrom / maps.fixed.shape[-1]
    first, second = maps.fixed, transform_map(maps.moving, alignment, voxel)
    difference = first / first.std() - second / second.std()
    if maps.mask is not None:
        difference = difference * maps.mask
    squared = difference.square()
    # Of normal numbers the mean fourth power is three times the squared variance.
    part = 3 * squared.mean().square() / squared.square().mean().clamp(min=1e-30)
    return float(part.clamp(max=1.0))


def _from_nothing(maps: MapPair) -> Agreement | None:
    """Return how far maps agree after the best of all motions, if any is likely."""
    same, other = (search_all(maps, mirrored) for mirrored in (False, True))
    lying = correlation_as_they_lie(maps)
    best = max(same.score, other.score)
    if best < LIKELY or 1 - best > _LESS_APART * (1 - lying):
        return None
    if other.score <= same.score:
        return fit_frame(maps, same.alignment)
    fit, opposite = (fit_frame(maps, start.alignment) for start in (same, other))
    return opposite if _is_farther(opposite, fit) else fit


def _is_beyond_few(found: Agreement) -> bool:
    """Return whether maps agree in more than a few shells, as by chance."""
    return found.length_angstrom / found.resolution(CERTAIN) > _FEWEST_SHELLS


def _is_farther(found: Agreement, before: Agreement) -> bool:
    """Return whether maps agree much farther, and not in a few shells by chance."""
    after = found.resolution(CERTAIN)
    return after < _MUCH * before.resolution(CERTAIN) and _is_beyond_few(found)
