"""The opposite hand: maps and poses mirrored together."""

import torch
from torch import Tensor

from cryoinfer.records import Pose


def flip_hand(pose: Pose) -> Pose:
    """Return the poses that fit the mirrored map as the given ones fit the map.

    With S = diag(1, 1, -1) the mirrored map is V'(r) = V(S r): a blob at p moves to
    S p. The pose R' = S R S puts it at S R S S p = S (R p), whose x and y are those
    of R p, so every projection and shift stays as it was.
    """
    mirror = torch.diag(pose.rotation.new_tensor([1.0, 1.0, -1.0]))
    return Pose(mirror @ pose.rotation @ mirror, pose.shift_angstrom)


def mirror_density(density: Tensor) -> Tensor:
    """Return V(S r): flipped along z about the voxel ``n // 2``.

    Parameters
    ----------
    density : Tensor, shape (n, n, n)
    """
    flipped = density.flip(0)
    # On an even box the flip moves the centre by one voxel.
    return flipped.roll(1, 0) if len(density) % 2 == 0 else flipped
