"""Central slices of a volume's transform, and their exact adjoint.

A slice is read from an oversampled transform by trilinear interpolation. The
kernel's fall-off in real space is divided out of the map beforehand, so what is
left is the aliasing of the kernel's tails: measured against analytic projections
in ``tests/unit/fourier/test_slice_accuracy.py``.
"""

import math
from dataclasses import dataclass, replace

import numba
import torch
from torch import Tensor

from cryoinfer.fourier import kernels, trilinear
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.oversampled import oversampled_transform
from cryoinfer.operations import Operation

DEFAULT_PADDING = 2.0


@dataclass(frozen=True)
class FourierVolume:
    """The transform of a map inside a radius, oversampled.

    Attributes
    ----------
    values : Tensor of float32, shape (2c + 1, 2c + 1, c + 2, 2)
        Real and imaginary parts; axes (z, y, x) with x >= 0; frequency zero at
        ``[c, c, 0]``. Values are those of ``transform.map_to_fourier``.
    radius : int
        Largest frequency that may be read, in Fourier pixels of the box.
    padding : float
        Voxels of this grid per Fourier pixel of the box.
    """

    values: Tensor
    radius: int
    padding: float

    @property
    def device(self) -> torch.device:
        """Where the values are."""
        return self.values.device

    @property
    def centre(self) -> int:
        """Index of frequency zero along z and y."""
        return (self.values.shape[0] - 1) // 2

    @classmethod
    def from_map(
        cls, density: Tensor, radius: int, padding: float = DEFAULT_PADDING
    ) -> "FourierVolume":
        """Transform a map for slicing.

        Parameters
        ----------
        density : Tensor, shape (n, n, n)
            Axes (z, y, x), centre at ``n // 2``, n even.
        radius : int
            At most ``n / 2 - 1``.
        padding : float
            1 or more; see :func:`padded_box`.
        """
        n = density.shape[-1]
        padded = padded_box(n, padding)
        corrected = density.float() / (n * kernel_falloff(n, padded, density.device))
        centre = math.ceil(radius * padded / n) + 2
        reach = min(centre, padded // 2 - 1)
        coefficients = oversampled_transform(corrected, padded, reach)
        values = _with_margin(torch.view_as_real(coefficients), centre)
        return cls(_flush(values), radius, padded / n)


@dataclass(frozen=True)
class SliceAccumulator:
    """Sums of inserted slices: what the adjoint of slicing writes.

    Attributes
    ----------
    sums : Tensor of float32, shape (2c + 1, 2c + 1, c + 2, 4)
        Real part, imaginary part, weight, and weight times the voxel's share of the
        coefficient; laid out as a FourierVolume.
    radius : int
    padding : float
    """

    sums: Tensor
    radius: int
    padding: float

    @classmethod
    def empty(
        cls, box: int, radius: int, padding: float, device: torch.device | str = "cpu"
    ) -> "SliceAccumulator":
        """Return sums that are zero, for maps of the given box."""
        exact = padded_box(box, padding) / box
        centre = math.ceil(radius * exact) + 2
        shape = (2 * centre + 1, 2 * centre + 1, centre + 2, 4)
        return cls(torch.zeros(shape, device=device), radius, exact)

    def to(self, device: torch.device | str) -> "SliceAccumulator":
        """Return the sums on a device."""
        return replace(self, sums=self.sums.to(device))

    @property
    def device(self) -> torch.device:
        """Where the sums are."""
        return self.sums.device

    @property
    def centre(self) -> int:
        """Index of frequency zero along z and y."""
        return (self.sums.shape[0] - 1) // 2

    def hermitian(self) -> tuple[Tensor, Tensor]:
        """Return numerator (complex) and weight with the mates in the plane x = 0.

        A coefficient near that plane belongs to it twice: itself and its conjugate
        from the other side, which is not stored.
        """
        value = torch.view_as_complex(self.sums[..., :2].contiguous())
        value[..., 0] += value[..., 0].flip(0, 1).conj()
        return value, self._joined(2)

    def own_weight(self) -> Tensor:
        """Return the sum of weights times shares squared, mates joined.

        Over the weight it is how much of a coefficient comes back from the voxel
        that it was put into.
        """
        return self._joined(3)

    def _joined(self, channel: int) -> Tensor:
        values = self.sums[..., channel].clone()
        values[..., 0] += values[..., 0].flip(0, 1)
        return values


def padded_box(box: int, padding: float) -> int:
    """Return the size of a padded box: ``padding * box``, or else ``2 * box``.

    The fall-back is taken where ``padding * box`` is not an even integer, as for a
    padding of 1.5 and a box that is no multiple of 4. A rounded size would be
    another ratio for every box, and maps of one particle on grids of different
    coarseness could not share the voxels of one Fourier grid.

    Parameters
    ----------
    box : int
    padding : float
        1 or more.
    """
    padded = round(box * padding)
    # A padding that was itself computed as padded / box may miss by a rounding.
    exact = math.isclose(padded, box * padding, rel_tol=1e-9)
    return padded if exact and padded % 2 == 0 else 2 * box


def kernel_falloff(box: int, padded: int, device: torch.device | str) -> Tensor:
    """Return the trilinear kernel's transform in real space, shape (n, n, n).

    The product of ``sinc(x / padded)**2`` along the axes: what interpolation in a
    grid of ``padded`` frequencies multiplies a map by.
    """
    axis = (torch.arange(box, device=device) - box // 2) / padded
    falloff = torch.sinc(axis) ** 2
    return falloff[:, None, None] * falloff[None, :, None] * falloff[None, None, :]


def extract_slices(
    volume: FourierVolume, rotation: Tensor, disc: FourierDisc, scale: float = 1.0
) -> Tensor:
    """Read central slices.

    Parameters
    ----------
    volume : FourierVolume
    rotation : Tensor, shape (n, 3, 3)
        Reference to image: the slice at k is the volume at ``rotation.T @ k``.
    disc : FourierDisc
        Which coefficients, at most ``volume.radius`` after scaling.
    scale : float
        Fourier pixels of the volume per Fourier pixel of the image; other than 1
        where the image covers another area than the map.

    Returns
    -------
    Tensor of complex64, shape (n, p)
        On the device of the volume, as the rotations and the disc.

    Raises
    ------
    ValueError
        If the scaled disc reaches beyond ``volume.radius``.
    """
    _require_inside(disc, scale, volume.radius)
    return _extract(volume, rotation, disc, scale)


def insert_slices(
    accumulator: SliceAccumulator,
    rotation: Tensor,
    disc: FourierDisc,
    values: Tensor,
    weights: Tensor,
    scale: float = 1.0,
) -> None:
    """Add slices to the sums: the exact adjoint of :func:`extract_slices`.

    Parameters
    ----------
    accumulator : SliceAccumulator
        Changed in place.
    rotation : Tensor, shape (n, 3, 3)
    disc : FourierDisc
    values : Tensor of complex64, shape (n, p)
        For a map of least squares: CTF times image over the noise variance.
    weights : Tensor of float32, shape (n, p)
        CTF squared over the noise variance.
    scale : float
        As in :func:`extract_slices`.

    Raises
    ------
    ValueError
        If the scaled disc reaches beyond ``accumulator.radius``.
    """
    _require_inside(disc, scale, accumulator.radius)
    _insert(accumulator, rotation, disc, values, weights, scale)


def _bands(disc: FourierDisc, factor: float) -> Tensor:
    """Divide a disc into bands, every other of which touches voxels of its own.

    A coefficient reaches voxels up to the diagonal of a cell away, on both sides.
    """
    width = math.ceil(2 * math.sqrt(3) / factor)
    radius = math.ceil(float(disc.kx.hypot(disc.ky).max()) - 1e-6)
    counts = [disc.count(r) for r in range(0, radius, width)]
    return torch.tensor([*counts, len(disc)])


def slice_rows(rotation: Tensor, factor: float) -> Tensor:
    """Return ``factor`` times the first two rows of the matrices, float32."""
    return (rotation[..., :2, :] * factor).float().contiguous()


def slice_points(
    array: Tensor, rotation: Tensor, disc: FourierDisc, factor: float
) -> Tensor:
    """Return where coefficients of slices lie, in voxels, shape (..., p, 3).

    Parameters
    ----------
    array : Tensor
        Of the precision that is wanted.
    rotation : Tensor, shape (..., 3, 3)
    disc : FourierDisc
    factor : float
        Voxels per Fourier pixel of the images.
    """
    along_x, along_y = (rotation[..., :2, None, :] * factor).to(array).unbind(-3)
    # No matrix product, which some devices round to fewer digits.
    kx, ky = disc.kx.to(array)[:, None], disc.ky.to(array)[:, None]
    return kx * along_x + ky * along_y


def _require_inside(disc: FourierDisc, scale: float, radius: int) -> None:
    """Refuse a disc that the kernels would read or write out of bounds."""
    reach = scale * float((disc.kx**2 + disc.ky**2).max().sqrt())
    # Scales are ratios of measured lengths; the grid has two voxels to spare.
    if reach > radius + 1e-3:
        raise ValueError(
            f"the disc reaches {reach:.2f} Fourier pixels of the volume, which is "
            f"known up to {radius}: take a smaller disc or a volume of larger radius"
        )


def _flush(values: Tensor) -> Tensor:
    """Set to zero what is far below the rounding of the largest coefficient.

    The coefficients of a smooth map fall to 1e-20 of the largest. Their products are
    denormal numbers, whose arithmetic made the kernels four times as slow.
    """
    magnitude = values.abs()
    return values.masked_fill_(magnitude < 1e-10 * magnitude.max(), 0)


def _with_margin(values: Tensor, centre: int) -> Tensor:
    """Fill up with zeros to ``centre``, and one plane more along x.

    That last plane is only ever read with weight zero.
    """
    reach = values.shape[0] // 2
    margin = centre - reach
    return torch.nn.functional.pad(
        values, (0, 0, 0, centre + 1 - reach, margin, margin, margin, margin)
    )


def _extract_plain(
    volume: FourierVolume, rotation: Tensor, disc: FourierDisc, scale: float
) -> Tensor:
    point = slice_points(volume.values, rotation, disc, volume.padding * scale)
    return torch.view_as_complex(trilinear.read(volume.values, point))


def _extract_compiled(
    volume: FourierVolume, rotation: Tensor, disc: FourierDisc, scale: float
) -> Tensor:
    rows = slice_rows(rotation, volume.padding * scale)
    out = torch.empty((len(rows), len(disc), 2))
    kernels.extract(
        volume.values.numpy(),
        volume.centre,
        rows.numpy(),
        disc.kx.numpy(),
        disc.ky.numpy(),
        out.numpy(),
    )
    return torch.view_as_complex(out)


def _insert_plain(
    accumulator: SliceAccumulator,
    rotation: Tensor,
    disc: FourierDisc,
    values: Tensor,
    weights: Tensor,
    scale: float,
) -> None:
    factor = accumulator.padding * scale
    size = max(1, trilinear.AT_ONCE // len(disc))
    images = rotation.split(size), values.split(size), weights.split(size)
    for few, value, weight in zip(*images, strict=True):
        point = slice_points(accumulator.sums, few, disc, factor)
        trilinear.add(accumulator.sums, point, value, weight)


def _insert_compiled(
    accumulator: SliceAccumulator,
    rotation: Tensor,
    disc: FourierDisc,
    values: Tensor,
    weights: Tensor,
    scale: float,
) -> None:
    factor = accumulator.padding * scale
    kernels.insert(
        accumulator.sums.numpy(),
        accumulator.centre,
        slice_rows(rotation, factor).numpy(),
        disc.kx.numpy(),
        disc.ky.numpy(),
        torch.view_as_real(values.contiguous()).numpy(),
        weights.contiguous().numpy(),
        _bands(disc, factor).numpy(),
        numba.get_num_threads(),
    )


_extract = Operation("slices", _extract_plain, cpu=_extract_compiled)
_insert = Operation("insertion", _insert_plain, cpu=_insert_compiled)
