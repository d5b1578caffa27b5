"""Whether two maps would agree better after a rigid motion, or in the other hand.

The Fourier shell correlation compares voxel with voxel: of two maps of one molecule in
different frames it says next to nothing. Here the frame is searched for from nothing,
in both hands.
"""

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

_LESS_APART = 0.9
"""Of what lacks of a correlation of 1 as they lie: less is gained by chance."""

_FEWEST_SHELLS = 4.0
_MUCH = 0.8
"""Of the resolution as they lie: half-maps of one refinement, which differ by a tenth
of a degree, gain a few per cent."""


def best_frame(pair: MapPair) -> Agreement | None:
    """Return the rigid motion that makes two maps agree much farther, if there is one.

    Motions of a few degrees, or less than a voxel of 24 along the edge, are not looked
    for: a fit of noisy maps that lie alike would take longer than all else. The hand is
    called opposite only where that makes a difference of its own.

    Parameters
    ----------
    pair : MapPair

    Returns
    -------
    Agreement or None
        None where the maps agree nearly as far as they lie, or nowhere, or have less
        than 16 voxels along an edge.
    """
    whole = pair.fixed.shape[-1] // 2 * 2
    found = None
    for box in sorted({min(size, whole) for size in FITTED_BOXES}):
        maps = pair.on(box)
        before = Agreement(GlobalAlignment.identity(), maps.fsc(), pair.length_angstrom)
        if before.reaches_nyquist() or box < COARSE_BOX:
            continue  # nothing is to be gained on so few voxels
        found = (
            _from_nothing(maps) if found is None else fit_frame(maps, found.alignment)
        )
        if found is None or not _is_farther(found, before):
            return None
    return found


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


def _is_farther(found: Agreement, before: Agreement) -> bool:
    """Return whether maps agree much farther, and not in a few shells by chance."""
    after = found.resolution(CERTAIN)
    return (
        after < _MUCH * before.resolution(CERTAIN)
        and found.length_angstrom / after > _FEWEST_SHELLS
    )
