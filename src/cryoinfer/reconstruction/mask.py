"""Where the particle is: a soft sphere, then a soft mask found from the map."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from cryoinfer.errors import InputError

_THRESHOLD = 0.12
"""Of the 99.9th percentile of the low-passed map: what counts as particle."""

_SMALLEST_PIECE = 0.05
"""Of the largest connected piece: smaller ones are noise."""

OUTLINE_ANGSTROM = 15.0
"""Resolution that a threshold is found at, for a map that nothing else is known of."""


@dataclass(frozen=True)
class MaskShape:
    """What a mask is to be like.

    Attributes
    ----------
    extend_angstrom : float
        From the threshold's surface outwards to where the mask is 1.
    soft_edge_angstrom : float
        From there to where it is 0.
    threshold : float or None
        Density that the particle is above; None to find one.
    low_pass_angstrom : float or None
        Resolution of the map that the threshold is of; None for the map as it is or,
        without a threshold, 15 angstrom.
    """

    extend_angstrom: float
    soft_edge_angstrom: float
    threshold: float | None = None
    low_pass_angstrom: float | None = None

    @property
    def outline_angstrom(self) -> float | None:
        """Return the resolution that the surface is drawn at, None for all there is."""
        if self.low_pass_angstrom is None and self.threshold is None:
            return OUTLINE_ANGSTROM
        return self.low_pass_angstrom


@dataclass(frozen=True)
class ThresholdMask:
    """A mask around what lies above a threshold.

    Attributes
    ----------
    mask : Tensor of float32, shape (n, n, n)
        In [0, 1].
    threshold : float
        Given or found.
    volume_angstrom3 : float
        Above it, of the largest connected part.
    other_parts : int
        That were left out.
    other_share : float
        Of all that is above the threshold, what lies in these.
    reaches_edge : bool
        Whether the mask is cut off at an edge of the box.
    """

    mask: Tensor
    threshold: float
    volume_angstrom3: float
    other_parts: int
    other_share: float
    reaches_edge: bool


def distance_from_centre(box: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the distance of every voxel from ``box // 2``, shape (n, n, n)."""
    axis = torch.arange(box, device=device) - box // 2
    squared = axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2
    return squared.double().sqrt().float()


def soft_sphere(
    box: int,
    radius_voxels: float,
    edge_voxels: float,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return 1 inside a radius, falling to 0 over a cosine edge, (n, n, n)."""
    depth = (distance_from_centre(box, device) - radius_voxels) / edge_voxels
    return 0.5 + 0.5 * torch.cos(torch.pi * depth.clamp(0, 1))


def soft_mask(density: Tensor, voxel_size_angstrom: float, low_pass: float) -> Tensor:
    """Find the particle in a map.

    The map is low-passed and thresholded, small pieces are dropped, and what is
    left is dilated by ``low_pass / 2`` with a cosine edge as wide again.

    Parameters
    ----------
    density : Tensor, shape (n, n, n)
        The particle is bright.
    voxel_size_angstrom : float
    low_pass : float
        Resolution in angstrom at which the outline is drawn.

    Returns
    -------
    Tensor of float32, shape (n, n, n)
        In [0, 1], on the device of the map; 1 everywhere when nothing stands out.
    """
    smooth = _low_passed(density, low_pass / voxel_size_angstrom)
    # Ab initio maps have no zero frequency: the solvent's level is the median.
    smooth -= np.median(smooth)
    pieces, count = ndimage.label(smooth > _level(smooth))
    if count == 0:
        return torch.ones_like(density)
    sizes = np.bincount(pieces.ravel())[1:]
    is_kept = np.concatenate([[False], sizes >= _SMALLEST_PIECE * sizes.max()])
    margin = low_pass / 2 / voxel_size_angstrom
    outside = _distance_from(is_kept[pieces], 2 * margin)
    depth = torch.from_numpy(outside).to(density) / margin - 1
    return 0.5 + 0.5 * torch.cos(torch.pi * depth.clamp(0, 1))


def threshold_mask(
    density: Tensor, voxel_size_angstrom: float, shape: MaskShape
) -> ThresholdMask:
    """Draw a soft mask around the largest connected part above a threshold.

    What RELION's mask creation does, which keeps all parts: binary above the threshold,
    extended, with a raised cosine around it. Parts are connected over faces of voxels.
    A threshold that is not given is 12 % of the way from the median density to the
    99.9th percentile, of the low-passed map.

    Parameters
    ----------
    density : Tensor, shape (n, n, n)
        The particle is bright.
    voxel_size_angstrom : float
    shape : MaskShape

    Returns
    -------
    ThresholdMask

    Raises
    ------
    InputError
        If nothing lies above the threshold, or everything.
    """
    outline = shape.outline_angstrom
    smooth = density.cpu().numpy()
    if outline is not None:
        smooth = _low_passed(density, outline / voxel_size_angstrom)
    threshold = shape.threshold
    if threshold is None:
        solvent = np.median(smooth)
        threshold = float(solvent) + float(_level(smooth - solvent))
    inside = smooth > threshold
    if inside.all() or not inside.any():
        raise InputError(
            "expected a threshold between the lowest and the highest density, which "
            f"are {smooth.min():.4g} and {smooth.max():.4g}"
            f"{'' if outline is None else f' at {outline:g} A'}, found {threshold:.4g}"
        )
    pieces, count = ndimage.label(inside)
    sizes = np.bincount(pieces.ravel())[1:]
    kept = pieces == sizes.argmax() + 1
    reach = (shape.extend_angstrom + shape.soft_edge_angstrom) / voxel_size_angstrom
    away = _distance_from(kept, reach) * voxel_size_angstrom
    behind = away - shape.extend_angstrom
    if shape.soft_edge_angstrom > 0:
        depth = np.clip(behind / shape.soft_edge_angstrom, 0.0, 1.0)
        mask = 0.5 + 0.5 * np.cos(np.pi * depth)
    else:
        mask = (behind <= 0).astype(np.float64)
    faces = [mask.take((0, -1), axis) for axis in range(3)]
    return ThresholdMask(
        mask=torch.from_numpy(mask).float(),
        threshold=threshold,
        volume_angstrom3=float(sizes.max()) * voxel_size_angstrom**3,
        other_parts=count - 1,
        other_share=1.0 - float(sizes.max() / sizes.sum()),
        reaches_edge=any(bool((face > 1e-6).any()) for face in faces),
    )


def bounding_box(inside: NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    """Return the smallest box around all voxels inside, None if there are none."""
    (found,) = ndimage.find_objects(inside.view(np.uint8), max_label=1)
    return None if found is None else (found[0], found[1], found[2])


def _low_passed(density: Tensor, resolution_voxels: float) -> NDArray[np.float32]:
    # A Gaussian of this width halves amplitudes at the resolution asked for.
    values: NDArray[np.float32] = density.cpu().numpy()
    return np.asarray(ndimage.gaussian_filter(values, resolution_voxels * 0.1874))


def _distance_from(inside: NDArray[np.bool_], reach: float) -> NDArray[np.float64]:
    """Return how far each voxel is from those inside, infinity where beyond a reach.

    A particle fills an eighth of its box: the rest takes no time.
    """
    margin, box = math.ceil(reach), bounding_box(inside)
    assert box is not None  # who asks has found some
    around = tuple(slice(max(0, x.start - margin), x.stop + margin) for x in box)
    distance = np.full(inside.shape, np.inf)
    distance[around] = ndimage.distance_transform_edt(~inside[around])
    return distance


def _level(above_solvent: NDArray[np.float32]) -> Any:
    """Return the level that the particle is above, of densities over the solvent's."""
    return _THRESHOLD * np.quantile(above_solvent, 0.999)
