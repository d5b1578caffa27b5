"""The rigid motion that brings a map onto another, searched for from nothing.

Every rotation of a grid of 15 degrees is tried with its best shift, on few voxels, then
finer cells around the best, then a fit (:mod:`cryoinfer.evaluation.volume_alignment`).
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.arithmetic import (
    fourier_transform_3d,
    inverse_fourier_transform_3d,
    inverse_real_fourier_transform_3d,
    real_fourier_transform_3d,
)
from cryoinfer.evaluation.fsc import (
    fourier_shell_correlation,
    masked_fsc,
    resolution_at,
)
from cryoinfer.evaluation.pose_error import GlobalAlignment
from cryoinfer.evaluation.volume_alignment import refine_alignment, transform_map
from cryoinfer.geometry.hand import mirror_density
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.geometry.so3_grid import children, grid_step_radian, rotation_grid

_GRID_ORDER = 2
COARSE_BOX, _FINE_BOX = 16, 24
"""Voxels along an edge: cells of 15 degrees smear what is finer than an eighth of the
box, those of 4 degrees not even a twelfth."""

_KEPT = 12
_DISTINCT_RADIAN = 0.35
"""20 degrees, of cells of 15: what is narrowed first lies farther apart, or all of it
may crowd around one optimum. Where a map lacks a part, another than the true one may be
the best on so few voxels."""

_HALVINGS = 3
FITTED_BOXES = (32, 96)
"""Few voxels first; and no more than 96, for which a fit would take minutes."""

_CLOSE_TO_NYQUIST = 1.2

CERTAIN = 0.5
"""Correlation that a search does not reach by chance, beyond a few shells."""

LIKELY = 0.3
"""Correlation of few voxels below which no fit is begun: the best of all motions of
white noise has 0.15."""

_BATCH = 256


@dataclass(frozen=True)
class Agreement:
    """How far two maps agree in a frame.

    Attributes
    ----------
    alignment : GlobalAlignment
        The voxel at r of the first map is compared with the second one at
        ``S (rotation @ r + origin)``.
    fsc : Tensor, shape (n // 2 + 1,)
        Corrected for the mask, if there is one.
    length_angstrom : float
        Of an edge of the box.
    """

    alignment: GlobalAlignment
    fsc: Tensor
    length_angstrom: float

    def resolution(self, threshold: float) -> float:
        """Return the resolution at which the correlation falls below a threshold."""
        box = 2 * (len(self.fsc) - 1)
        return resolution_at(self.fsc, threshold, box, self.length_angstrom / box)

    def reaches_nyquist(self) -> bool:
        """Return whether finer voxels would be needed to see how far they agree."""
        shells = self.length_angstrom / self.resolution(CERTAIN)
        return shells * _CLOSE_TO_NYQUIST > len(self.fsc) - 1


@dataclass(frozen=True)
class MapPair:
    """Two maps to be compared.

    Attributes
    ----------
    fixed, moving : Tensor, shape (n, n, n)
    mask : Tensor, shape (n, n, n), or None
        In the frame of the fixed map.
    length_angstrom : float
        Of an edge of the box.
    """

    fixed: Tensor
    moving: Tensor
    mask: Tensor | None
    length_angstrom: float

    def on(self, box: int) -> "MapPair":
        """Return the same on fewer voxels of the same volume."""
        mask = None if self.mask is None else resampled(self.mask, box).clamp(0.0, 1.0)
        fixed, moving = resampled(self.fixed, box), resampled(self.moving, box)
        return MapPair(fixed, moving, mask, self.length_angstrom)

    def fsc(self) -> Tensor:
        """Correlate the maps as they lie."""
        if self.mask is None:
            return fourier_shell_correlation(self.fixed, self.moving)
        generator = torch.Generator().manual_seed(0)
        return masked_fsc(self.fixed, self.moving, self.mask, generator).corrected


def likeliest_frame(pair: MapPair) -> Agreement:
    """Return the rigid motion, in either hand, that brings two maps nearest.

    Found however far that is: for maps that are known to be of one molecule, perhaps in
    different conformations.

    Parameters
    ----------
    pair : MapPair
        Of an even box; compared on at most 32 voxels along an edge.

    Returns
    -------
    Agreement
        In that frame.
    """
    maps = on_few_voxels(pair)
    same, other = (search_all(maps, mirrored) for mirrored in (False, True))
    best = same if same.score >= other.score else other
    return fit_frame(maps, best.alignment)


def frame_as_it_lies(pair: MapPair) -> Agreement:
    """Return how two maps agree without any motion, as :func:`likeliest_frame` sees it.

    Parameters
    ----------
    pair : MapPair
        Of an even box.
    """
    fsc = on_few_voxels(pair).fsc()
    return Agreement(GlobalAlignment.identity(), fsc, pair.length_angstrom)


def correlation_as_they_lie(maps: MapPair) -> float:
    """Correlate two maps without any motion, on the voxels of the search."""
    fixed, moving = (resampled(m, _FINE_BOX) for m in (maps.fixed, maps.moving))
    return float(torch.corrcoef(torch.stack((fixed.flatten(), moving.flatten())))[0, 1])


def on_few_voxels(pair: MapPair) -> MapPair:
    """Return two maps on the voxels of a first fit, at most 32 along an edge."""
    return pair.on(min(FITTED_BOXES[0], pair.fixed.shape[-1]))


def resampled(density: Tensor, box: int) -> Tensor:
    """Return a map on voxels of the same volume, without what they cannot hold.

    Parameters
    ----------
    density : Tensor, shape (n, n, n)
    box : int
        Even; the centre is the voxel ``box // 2`` as it was ``n // 2``.

    Returns
    -------
    Tensor of float64, shape (box, box, box)
    """
    n = density.shape[-1]
    coefficients = torch.fft.fftshift(
        fourier_transform_3d(torch.fft.ifftshift(density.double()))
    )
    kept = min(
        (n - 1) // 2, (box - 1) // 2
    )  # of the radii on either side of the origin
    line = torch.arange(-kept, kept + 1, device=density.device)
    inside = line[:, None, None] ** 2 + line[:, None] ** 2 + line**2 <= kept**2
    part = coefficients[(slice(n // 2 - kept, n // 2 + kept + 1),) * 3]
    out = torch.zeros((box,) * 3, dtype=coefficients.dtype, device=density.device)
    out[(slice(box // 2 - kept, box // 2 + kept + 1),) * 3] = part * inside
    values = inverse_fourier_transform_3d(torch.fft.ifftshift(out)).real
    return torch.fft.fftshift(values) * (box / n) ** 3


def fit_frame(pair: MapPair, start: GlobalAlignment) -> Agreement:
    """Fit a frame, and compare the maps in it.

    Parameters
    ----------
    pair : MapPair
        Of an even box.
    start : GlobalAlignment
        Right within about 5 degrees and one tenth of the particle.
    """
    voxel = pair.length_angstrom / pair.fixed.shape[-1]
    alignment = refine_alignment(pair.moving, pair.fixed, start, voxel)
    moved = transform_map(pair.moving, alignment, voxel)
    fsc = replace(pair, moving=moved).fsc()
    return Agreement(alignment, fsc, pair.length_angstrom)


@dataclass(frozen=True)
class Found:
    """The best of some rotations, given the hand.

    Attributes
    ----------
    alignment : GlobalAlignment
    score : float
        Correlation of the maps on 24 voxels along an edge.
    """

    alignment: GlobalAlignment
    score: float


def search_all(pair: MapPair, mirrored: bool) -> Found:
    """Return the best of all rotations: every one of a grid, then finer cells."""
    rotation = rotation_grid(_GRID_ORDER)
    score, _ = score_rotations(pair, rotation, mirrored, COARSE_BOX)
    return narrow(pair, rotation[distinct(rotation, score, _KEPT)], mirrored, 1)


def distinct(rotation: Tensor, score: Tensor, count: int) -> Tensor:
    """Return the indices of the best rotations that are 20 degrees or more apart.

    Parameters
    ----------
    rotation : Tensor, shape (k, 3, 3)
    score : Tensor, shape (k,)
        Higher for the better.
    count : int

    Returns
    -------
    Tensor of int, shape (c,)
        The best first; fewer than ``count`` where there is no room for more.
    """
    left, chosen = score.clone(), []
    for _ in range(count):
        best = int(left.argmax())
        if float(left[best]) == -math.inf:
            break
        chosen.append(best)
        left[geodesic_angle(rotation, rotation[best]) < _DISTINCT_RADIAN] = -math.inf
        left[best] = -math.inf  # of an angle that rounding leaves above 0
    return torch.tensor(chosen)


def narrow(
    pair: MapPair, rotation: Tensor, mirrored: bool, order: int = _GRID_ORDER
) -> Found:
    """Return the best rotation in some cells of a grid.

    Parameters
    ----------
    pair : MapPair
    rotation : Tensor of float64, shape (k, 3, 3)
        Centres of the cells.
    mirrored : bool
    order : int
        Of the grid: 2 for cells of 15 degrees, 1 for those of 30, which also hold what
        is nearer to a rotation than others of 15 degrees, and was left for that.
    """
    step = grid_step_radian(order)
    for _ in range(_HALVINGS + _GRID_ORDER - order):
        rotation = children(rotation, step).flatten(0, 1)
        step /= 2
        score, shift = score_rotations(pair, rotation, mirrored, _FINE_BOX)
        best = score.topk(min(_KEPT, len(score))).indices
        rotation, score, shift = rotation[best], score[best], shift[best]
    frame = GlobalAlignment(rotation[0], mirrored, rotation[0] @ shift[0])
    return Found(frame, float(score[0]))


def score_rotations(
    pair: MapPair, rotation: Tensor, mirrored: bool, box: int
) -> tuple[Tensor, Tensor]:
    """Return the best correlation of each rotation, and the shift t that has it.

    The moving map is compared at ``G (r + t)``.

    Parameters
    ----------
    pair : MapPair
    rotation : Tensor, shape (k, 3, 3)
    mirrored : bool
    box : int
        Voxels to compare on.

    Returns
    -------
    score : Tensor, shape (k,)
    shift_angstrom : Tensor of float64, shape (k, 3)
        In x, y, z.
    """
    fixed = resampled(pair.fixed, box)
    fixed = (fixed - fixed.mean()).float()
    fixed = real_fourier_transform_3d(fixed / fixed.norm().clamp(min=1e-30))
    moving = fine_map(pair.moving, mirrored, box)
    scores, places = [], []
    for part in rotation.split(_BATCH):
        turned = turned_maps(moving, part, box)
        product = fixed.conj() * real_fourier_transform_3d(turned)
        correlation = inverse_real_fourier_transform_3d(product, box).flatten(1)
        norm = turned.flatten(1).norm(dim=1).clamp(min=1e-30)
        value, place = correlation.max(1)
        scores.append(value / norm)
        places.append(place)
    place = torch.cat(places)
    index = torch.stack((place % box, place // box % box, place // box**2), -1)
    signed = (index + box // 2) % box - box // 2
    return torch.cat(scores), signed.double() * (pair.length_angstrom / box)


def fine_map(moving: Tensor, mirrored: bool, box: int) -> Tensor:
    """Return a map twice as fine as a box, so that reading between voxels loses little.

    Parameters
    ----------
    moving : Tensor, shape (n, n, n)
    mirrored : bool
        Whether its mirror image is wanted.
    box : int

    Returns
    -------
    Tensor of float32, shape (2 * box, 2 * box, 2 * box)
        Of mean 0.
    """
    fine = resampled(moving, 2 * box)
    fine = (fine - fine.mean()).float()
    return mirror_density(fine) if mirrored else fine


def turned_maps(fine: Tensor, rotation: Tensor, box: int) -> Tensor:
    """Return a map at ``G r`` for every voxel r of a box, by linear interpolation.

    Parameters
    ----------
    fine : Tensor of float32, shape (2 * box, 2 * box, 2 * box)
        See :func:`fine_map`.
    rotation : Tensor, shape (k, 3, 3)
    box : int

    Returns
    -------
    Tensor of float32, shape (k, box, box, box)
    """
    line = torch.arange(box) - box // 2
    # Coordinates in the order x, y, z; grid_sample wants them from -1 to 1, where the
    # centre of the fine grid is its voxel ``box``.
    points = torch.stack(torch.meshgrid(line, line, line, indexing="ij")[::-1], -1)
    scale = 2.0 / (2 * box - 1)
    at = torch.einsum("kij,zyxj->kzyxi", rotation.float(), points.float())
    at = (2.0 * at + box) * scale - 1.0
    volume = fine[None, None].expand(len(rotation), 1, -1, -1, -1)
    return torch.nn.functional.grid_sample(volume, at, align_corners=True)[:, 0]
