"""Which Fourier coefficients of an image are used, and in which order."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor


def _annulus(kx: Tensor, ky: Tensor) -> Tensor:
    # Integer coordinates: the square root is exact where it is an integer.
    return torch.ceil(torch.sqrt(kx.double() ** 2 + ky.double() ** 2))


@dataclass(frozen=True)
class FourierDisc:
    """The independent Fourier coefficients of a real image inside a radius.

    Coefficients are sorted by their distance from the origin, rounded up, so that
    every smaller disc is a prefix of a larger one: frequency marching is a slice.
    Inside an annulus they go round by angle: neighbours in memory are neighbours
    in the volume too, which made slicing six times as fast as rows or radius alone.
    Of each pair k, -k only one is kept; the origin is left out.

    Attributes
    ----------
    box : int
        Size n of the image.
    kx, ky : Tensor of float32, shape (p,)
        Frequencies in Fourier pixels (cycles per box).
    ring : Tensor of int64, shape (p,)
        Distance from the origin, rounded.
    position : Tensor of int64, shape (p,)
        Index of the coefficient in the flattened (n, n // 2 + 1) half-transform.
    """

    box: int
    kx: Tensor
    ky: Tensor
    ring: Tensor
    position: Tensor

    def __len__(self) -> int:
        return self.kx.shape[0]

    @classmethod
    @functools.lru_cache(maxsize=64)
    def of_box(
        cls, box: int, radius: int, device: torch.device | str = "cpu"
    ) -> "FourierDisc":
        """Return the disc of the given radius in Fourier pixels (< box / 2)."""
        if not 0 < radius < box / 2:
            raise ValueError(f"radius must lie in (0, {box / 2}), got {radius}")
        rows = torch.fft.fftfreq(box, 1 / box)[:, None].expand(box, box // 2 + 1)
        columns = torch.arange(box // 2 + 1, dtype=rows.dtype)[None].expand_as(rows)
        squared = rows**2 + columns**2
        half = (columns > 0) | (rows > 0)
        position = torch.nonzero((half & (squared <= radius**2)).flatten()).squeeze(1)
        kx, ky = columns.flatten()[position], rows.flatten()[position]
        angle = torch.atan2(ky, kx)
        order = torch.argsort(_annulus(kx, ky) * 4.0 + angle)
        position, kx, ky = position[order], kx[order], ky[order]
        ring = torch.hypot(kx, ky).round().long()
        # The order is that of the CPU everywhere: others sort equals otherwise.
        found = (kx, ky, ring, position)
        return cls(box, *(values.to(device) for values in found))

    def count(self, radius: int) -> int:
        """Return how many coefficients lie within ``radius`` Fourier pixels."""
        return int((_annulus(self.kx, self.ky) <= radius).sum())

    def prefix(self, radius: int) -> "FourierDisc":
        """Return the smaller disc of the given radius."""
        p = self.count(radius)
        return FourierDisc(
            self.box, self.kx[:p], self.ky[:p], self.ring[:p], self.position[:p]
        )

    @property
    def centring(self) -> Tensor:
        """Signs, shape (p,), that move the origin from pixel 0 to ``box // 2``.

        Exact for even boxes: a shift of half a box is a factor of -1 a frequency.
        """
        return 1 - 2 * ((self.kx + self.ky).long() % 2).float()

    def frequencies(
        self, pixel_size_angstrom: float, dtype: torch.dtype = torch.float32
    ) -> tuple[Tensor, Tensor]:
        """Return the coefficients' frequencies along x and y in 1/angstrom, (p,)."""
        step = 1 / (self.box * pixel_size_angstrom)
        return self.kx.to(dtype) * step, self.ky.to(dtype) * step

    def gather(self, half_transform: Tensor) -> Tensor:
        """Take the disc's coefficients, shape (..., p), out of half-transforms."""
        return half_transform.flatten(-2)[..., self.position]

    def scatter(self, values: Tensor) -> Tensor:
        """Put (..., p) values into half-transforms that are zero elsewhere.

        The column x = 0 holds both k and -k; the partner is filled in, so that the
        inverse transform is the real image of these coefficients.
        """
        n = self.box
        half = values.new_zeros((*values.shape[:-1], n * (n // 2 + 1)))
        half[..., self.position] = values
        half = half.unflatten(-1, (n, n // 2 + 1))
        column = half[..., 0]
        partner = torch.roll(column.flip(-1), 1, -1).conj()
        half[..., 0] = column + partner
        return half
