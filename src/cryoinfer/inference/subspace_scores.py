"""The log evidence of many poses in a linear subspace of maps, z integrated out.

At a pose a whitened image is ``y = A_0 + A z + noise`` with the slices A of mean and
components through its CTF. All that the evidence asks of the image are the products
``A_k . y``, and of the pose ``A_k . A_l``
(:mod:`cryoinfer.inference.linear_conformation`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.fourier.slices import FourierVolume, extract_slices, slice_rows
from cryoinfer.inference import subspace_score_kernel
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.operations import Operation


@dataclass(frozen=True)
class SliceProducts:
    """Products of slices through the CTF of n images, at m rotations and s shifts.

    Attributes
    ----------
    seen : Tensor of float32, shape (s, n, 1 + q, m)
        With the images.
    shown : Tensor of float32, shape (n, (1 + q) (2 + q) / 2, m)
        With each other: the lower triangle row by row, the mean first.
    """

    seen: Tensor
    shown: Tensor

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.seen.device


@dataclass(frozen=True)
class StackedVolumes:
    """The volumes of a subspace as one array.

    Attributes
    ----------
    mean : FourierVolume
        Whose radius and padding are those of all.
    values : Tensor of float32, shape (1 + q, z, y, x, 2)
        As of a :class:`FourierVolume`, the mean's first.
    """

    mean: FourierVolume
    values: Tensor

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.values.device

    @property
    def each(self) -> list[FourierVolume]:
        """Mean and components."""
        radius, padding = self.mean.radius, self.mean.padding
        return [FourierVolume(one, radius, padding) for one in self.values]


def pairs_of(maps: int) -> tuple[Tensor, Tensor]:
    """Return which maps each of the products of slices is of."""
    first, second = torch.tril_indices(maps, maps)
    return first, second


def _products_plain(
    volumes: StackedVolumes, images: WhitenedImages, rotation: Tensor, shift: Tensor
) -> SliceProducts:
    n, m = rotation.shape[:2]
    flat, disc = rotation.flatten(0, 1), images.disc
    each = [extract_slices(one, flat, disc, images.scale) for one in volumes.each]
    slices = torch.stack([one.view(n, m, -1) for one in each], 1)
    through = torch.view_as_real(slices * images.ctf[:, None, None]).flatten(3)
    moved = images.moved_back(shift.movedim(1, 0))
    seen = torch.einsum("nkmp,snp->snkm", through, torch.view_as_real(moved).flatten(2))
    first, second = pairs_of(len(each))
    shown = (through[:, first] * through[:, second]).sum(3)
    return SliceProducts(seen.contiguous(), shown)


def _products_compiled(
    volumes: StackedVolumes, images: WhitenedImages, rotation: Tensor, shift: Tensor
) -> SliceProducts:
    (n, m), s, maps = rotation.shape[:2], shift.shape[1], len(volumes.values)
    found = SliceProducts(
        torch.empty(s, n, maps, m), torch.empty(n, maps * (maps + 1) // 2, m)
    )
    subspace_score_kernel.products(
        volumes.values.numpy(),
        volumes.mean.centre,
        slice_rows(rotation, volumes.mean.padding * images.scale).numpy(),
        (shift / images.pixel_size_angstrom).float().contiguous().numpy(),
        images.disc.kx.numpy(),
        images.disc.ky.numpy(),
        torch.view_as_real(images.coefficients.contiguous()).numpy(),
        images.ctf.contiguous().numpy(),
        images.disc.box,
        found.seen.numpy(),
        found.shown.numpy(),
    )
    return found


slice_products = Operation(
    "products of slices of a subspace", _products_plain, cpu=_products_compiled
)
"""Products of slices with n images and with each other, as SliceProducts.

Takes StackedVolumes, WhitenedImages of n images, rotations (n, m, 3, 3), and shifts in
angstrom (n, s, 2).
"""


def _marginal_plain(products: SliceProducts, sd: Tensor) -> tuple[Tensor, Tensor]:
    maps = products.seen.shape[2]
    first, second = pairs_of(maps)
    shown = products.shown.movedim(1, 2)
    power = shown.new_zeros(*shown.shape[:2], maps, maps)
    power[..., first, second] = shown
    power[..., second, first] = shown
    seen = products.seen.movedim(2, 3)
    information = 2 * power[..., 1:, 1:] + torch.diag(sd.to(power) ** -2)
    root = torch.linalg.cholesky(information)
    slope = 2 * (seen[..., 1:] - power[..., 1:, 0])
    white = torch.linalg.solve_triangular(root, slope[..., None], upper=False)
    log_volume = root.diagonal(dim1=-2, dim2=-1).log().sum(-1) + sd.log().sum().to(root)
    score = 2 * seen[..., 0] - power[..., 0, 0] - log_volume
    found = (score + 0.5 * white.square().sum((-2, -1))).max(0)
    return found.values, found.indices


def _marginal_compiled(products: SliceProducts, sd: Tensor) -> tuple[Tensor, Tensor]:
    _, n, _, m = products.seen.shape
    best, where = torch.empty(n, m), torch.empty(n, m, dtype=torch.int64)
    subspace_score_kernel.marginal_scores(
        products.seen.numpy(),
        products.shown.numpy(),
        (sd**-2).float().numpy(),
        best.numpy(),
        where.numpy(),
    )
    return best, where


marginal_scores = Operation(
    "evidence of poses in a subspace", _marginal_plain, cpu=_marginal_compiled
)
"""The log evidence of m rotations at their best shifts, and which those are, (n, m).

Takes SliceProducts, and the prior's sd of z (q,). z is integrated out under a normal
prior; the constant of each image is left out.
"""
