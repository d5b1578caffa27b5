"""Images as the search sees them: few coefficients, divided by the noise."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.arithmetic import complex_product
from cryoinfer.errors import InputError
from cryoinfer.fourier.distortion import (
    distorted_transform,
    is_distorted,
    recorded,
)
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.inference.shift_kernel import move_back
from cryoinfer.operations import Operation
from cryoinfer.physics.aberrations import has_odd_aberrations, turned_phases
from cryoinfer.physics.ctf import ctf_and_defocus_slope, evaluate_ctf
from cryoinfer.records import Optics, ParticleBatch

ROUNDING_PX = 5e-4
"""Of a radius in pixels: lengths read from files are rounded, to 1e-7 in maps. The
kernels allow twice as much."""


@dataclass(frozen=True)
class WhitenedImages:
    """Coefficients and CTFs of some images of one optics group over the noise's sd.

    In these units the log-likelihood of a slice S is, up to a constant of the
    image, ``-sum |coefficients - ctf * phase(shift) * S|^2``.

    Attributes
    ----------
    disc : FourierDisc
        Of p coefficients.
    coefficients : Tensor of complex64, shape (b, p)
    ctf : Tensor of float32, shape (b, p)
    optics : Optics
    weight : Tensor of float32, shape (p,)
        What the CTF was multiplied by.
    scale : float
        Fourier pixels of the reference per Fourier pixel of these images.
    """

    disc: FourierDisc
    coefficients: Tensor
    ctf: Tensor
    optics: Optics
    weight: Tensor
    scale: float

    def __len__(self) -> int:
        return self.coefficients.shape[0]

    @property
    def device(self) -> torch.device:
        """Where the coefficients are."""
        return self.coefficients.device

    @property
    def pixel_size_angstrom(self) -> float:
        """Of these images."""
        return float(self.optics.pixel_size_angstrom[0])

    def moved_back(self, shift_angstrom: Tensor) -> Tensor:
        """Return coefficients of the images moved by minus a shift.

        Parameters
        ----------
        shift_angstrom : Tensor, shape (b, 2) or (t, 1, 2)

        Returns
        -------
        Tensor of complex64, shape (b, p) or (t, b, p)
        """
        return _move_back(self.coefficients, shift_angstrom, self)

    def prefix(self, radius: int) -> "WhitenedImages":
        """Return the images inside a smaller radius of the reference's pixels."""
        disc = self.disc.prefix(image_radius(radius, self.scale, self.disc.box))
        p = len(disc)
        return replace(
            self,
            disc=disc,
            coefficients=self.coefficients[:, :p],
            ctf=self.ctf[:, :p],
            weight=self.weight[:p],
        )

    def select(self, index: Tensor) -> "WhitenedImages":
        """Return some of the images."""
        return replace(
            self,
            coefficients=self.coefficients[index],
            ctf=self.ctf[index],
            optics=self.optics[index],
        )

    def attenuated(self, by_ring: Tensor) -> "WhitenedImages":
        """Return the images of something that shows less at some frequencies.

        Parameters
        ----------
        by_ring : Tensor, shape (rings,)
            What its coefficients are to be multiplied by, per ring of the reference.
        """
        factor = by_ring.to(self.ctf)[self.reference_ring(len(by_ring))]
        return replace(self, ctf=self.ctf * factor, weight=self.weight * factor)

    def reference_ring(self, rings: int) -> Tensor:
        """Return each coefficient's ring in the reference, of so many, (p,)."""
        if self.scale == 1:
            return self.disc.ring.long()
        ring = (self.disc.ring * self.scale).round().long()
        return ring.clamp(max=rings - 1)

    def at_defocus_offset(self, offset_angstrom: Tensor) -> "WhitenedImages":
        """Return the images with the CTF at another defocus, these if it is theirs.

        Parameters
        ----------
        offset_angstrom : Tensor, shape (b,)
            As of :meth:`with_defocus_offset`.
        """
        # The CTF is dear, and most defoci are held.
        if not bool(offset_angstrom.any()):
            return self
        return self.with_defocus_offset(offset_angstrom)[0]

    def with_defocus_offset(
        self, offset_angstrom: Tensor
    ) -> tuple["WhitenedImages", Tensor]:
        """Move the defocus and differentiate by it.

        Parameters
        ----------
        offset_angstrom : Tensor, shape (b,)
            Added to both ``defocus_u_angstrom`` and ``defocus_v_angstrom``.

        Returns
        -------
        images : WhitenedImages
            With the CTF at the new defocus; ``optics`` keep the old one.
        slope : Tensor of float32, shape (b, p)
            Derivative of that CTF by the offset, per angstrom.
        """
        moved = replace(
            self.optics,
            defocus_u_angstrom=self.optics.defocus_u_angstrom + offset_angstrom,
            defocus_v_angstrom=self.optics.defocus_v_angstrom + offset_angstrom,
        )
        ctf, slope = ctf_and_defocus_slope(moved, *_frequencies(self.disc, moved))
        images = replace(self, ctf=ctf * self.weight)
        return images, slope * self.weight


def _move_back_plain(
    coefficients: Tensor, shift_angstrom: Tensor, images: WhitenedImages
) -> Tensor:
    # A phase is the product of one for x and one for y, which are few.
    disc = images.disc
    length = disc.box * images.pixel_size_angstrom
    turns = shift_angstrom.to(images.ctf) * (2 * math.pi / length)
    half = disc.box // 2
    angle = turns[..., None] * torch.arange(-half, half, device=turns.device)
    phase = torch.polar(torch.ones_like(angle), angle)
    along_x = phase[..., 0, :].index_select(-1, disc.kx.long() + half)
    along_y = phase[..., 1, :].index_select(-1, disc.ky.long() + half)
    return complex_product(complex_product(along_x, along_y), coefficients)


def _move_back_compiled(
    coefficients: Tensor, shift_angstrom: Tensor, images: WhitenedImages
) -> Tensor:
    differentiated = coefficients.requires_grad or shift_angstrom.requires_grad
    if differentiated or coefficients.dtype != torch.complex64:
        return _move_back_plain(coefficients, shift_angstrom, images)
    disc, count = images.disc, len(coefficients)
    shape = torch.broadcast_shapes(shift_angstrom.shape[:-1], (count,))
    shifts = (shift_angstrom.double() / images.pixel_size_angstrom).expand(*shape, 2)
    out = coefficients.new_empty(*shape, len(disc))
    move_back(
        shifts.reshape(-1, count, 2).contiguous().numpy(),
        disc.kx.numpy(),
        disc.ky.numpy(),
        torch.view_as_real(coefficients.contiguous()).numpy(),
        disc.box,
        torch.view_as_real(out).view(-1, count, len(disc), 2).numpy(),
    )
    return out


_move_back = Operation("shifts", _move_back_plain, cpu=_move_back_compiled)


@dataclass(frozen=True)
class ReferenceGrid:
    """The box that the map is built in.

    Attributes
    ----------
    box : int
    pixel_size_angstrom : float
    """

    box: int
    pixel_size_angstrom: float

    @property
    def length_angstrom(self) -> float:
        """Side of the box."""
        return self.box * self.pixel_size_angstrom

    @property
    def lever_angstrom(self) -> float:
        """Distance from the centre that particles reach: a quarter of the box."""
        return self.length_angstrom / 4

    def radius_at(self, resolution_angstrom: float) -> int:
        """Return the Fourier radius of a resolution, within Nyquist."""
        wanted = round(self.length_angstrom / resolution_angstrom)
        return max(4, min(self.box // 2 - 1, wanted))

    def resolution_at(self, radius: float) -> float:
        """Return the resolution in angstrom at a Fourier radius."""
        return self.length_angstrom / radius


def whiten(
    batch: ParticleBatch,
    grid: ReferenceGrid,
    radius: int,
    noise_power: Tensor,
) -> WhitenedImages:
    """Transform, crop and whiten images of one optics group.

    What the microscope did besides the CTF is undone: distortion, and phases that odd
    aberrations turned.

    Parameters
    ----------
    batch : ParticleBatch
        All of one optics group.
    grid : ReferenceGrid
    radius : int
        In Fourier pixels of the reference.
    noise_power : Tensor, shape (rings,)
        Of this group, in the units of its images' coefficients, per ring of theirs.
        On any device.

    Returns
    -------
    WhitenedImages
        Scaled so that maps have the units of the reference's pixel size.

    Raises
    ------
    InputError
        If an image holds NaN or infinite pixels.
    """
    require_finite(batch)
    box = batch.images.shape[-1]
    pixel_size = float(batch.optics.pixel_size_angstrom[0])
    scale = grid.length_angstrom / (box * pixel_size)
    reach, device = image_radius(radius, scale, box), batch.images.device
    disc = FourierDisc.of_box(box, reach, device)
    ctf = evaluate_ctf(batch.optics, *_frequencies(disc, batch.optics))
    # A projection's coefficient is the density's integral times (1 / pixel area),
    # over the box from the orthonormal transform.
    gain = (grid.pixel_size_angstrom / pixel_size) ** 2 * grid.box / box
    inverse_sd = noise_power.to(device)[disc.ring].clamp(min=1e-30).rsqrt()
    weight = inverse_sd * gain
    if is_distorted(batch.optics.magnification):
        coefficients, held = _undistorted(batch, disc)
        coefficients = coefficients * inverse_sd
        weight = weight * held
    else:
        # Cheaper than to shift the images: the signs go into the weights.
        half_transforms = torch.fft.rfft2(batch.images.float(), norm="ortho")
        coefficients = disc.gather(half_transforms) * (inverse_sd * disc.centring)
    if has_odd_aberrations(batch.optics):
        one = batch.optics[:1]
        turned = turned_phases(one, *_frequencies(disc, one))
        coefficients = coefficients * turned.conj()
    return WhitenedImages(disc, coefficients, ctf * weight, batch.optics, weight, scale)


def _undistorted(batch: ParticleBatch, disc: FourierDisc) -> tuple[Tensor, Tensor]:
    """Return coefficients without distortion, and which of them images hold.

    The others, beyond Nyquist, are those of the other side: their noise is noise, but
    they show nothing.
    """
    inverse = torch.linalg.inv(batch.optics.magnification[0])
    transform = distorted_transform(batch.images.float(), inverse)
    held = recorded(inverse, disc.kx, disc.ky, disc.box)
    return disc.gather(transform), held.float()


def is_finite(images: Tensor) -> Tensor:
    """Tell which images hold neither NaN nor infinite pixels, shape (b,).

    Nor pixels so large that their power is none of single precision.
    """
    # One such pixel is enough to make the sum of all of them one.
    return images.square().sum((-2, -1)).isfinite()


def require_finite(batch: ParticleBatch) -> None:
    """Refuse images that hold NaN or infinite pixels, naming the first.

    Raises
    ------
    InputError
        If there is such an image.
    """
    bad = ~is_finite(batch.images)
    if bool(bad.any()):
        row = int(batch.index[bad][0]) + 1
        raise InputError(
            f"the image of particle {row} holds NaN or infinite pixels, as do "
            f"{int(bad.sum())} of {len(batch)} in its batch; run `cryoinfer check` to "
            "list them, and leave them out of the STAR file"
        )


def image_radius(radius: int, scale: float, box: int) -> int:
    """Return the image's radius of a radius of the reference."""
    return min(box // 2 - 1, math.floor(radius / scale + ROUNDING_PX))


def _frequencies(disc: FourierDisc, optics: Optics) -> tuple[Tensor, Tensor]:
    return disc.frequencies(float(optics.pixel_size_angstrom[0]))


def concatenate(parts: list[WhitenedImages]) -> WhitenedImages:
    """Join images of one optics group that were whitened alike."""
    first = parts[0]
    return replace(
        first,
        coefficients=torch.cat([part.coefficients for part in parts]),
        ctf=torch.cat([part.ctf for part in parts]),
        optics=Optics.joined([part.optics for part in parts]),
    )
