"""Where the particle is: a soft sphere, then a soft mask found from the map."""

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

_THRESHOLD = 0.12
"""Of the 99.9th percentile of the low-passed map: what counts as particle."""

_SMALLEST_PIECE = 0.05
"""Of the largest connected piece: smaller ones are noise."""


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
    # A Gaussian of this width halves amplitudes at the resolution asked for.
    sigma = low_pass / voxel_size_angstrom * 0.1874
    smooth = ndimage.gaussian_filter(density.cpu().numpy(), sigma)
    # Ab initio maps have no zero frequency: the solvent's level is the median.
    smooth -= np.median(smooth)
    level = _THRESHOLD * np.quantile(smooth, 0.999)
    pieces, count = ndimage.label(smooth > level)
    if count == 0:
        return torch.ones_like(density)
    sizes = np.bincount(pieces.ravel())[1:]
    kept = np.flatnonzero(sizes >= _SMALLEST_PIECE * sizes.max()) + 1
    outside = ndimage.distance_transform_edt(~np.isin(pieces, kept))
    margin = low_pass / 2 / voxel_size_angstrom
    depth = torch.from_numpy(outside).to(density) / margin - 1
    return 0.5 + 0.5 * torch.cos(torch.pi * depth.clamp(0, 1))
