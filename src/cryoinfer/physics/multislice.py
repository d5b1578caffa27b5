"""Images of thick, strong specimens: electron waves through slices of atoms.

The wave is turned by the potential of a slice, then spreads to the next slice
(Cowley and Moodie 1957; Kirkland, Advanced Computing in Electron Microscopy, 2010,
chapter 6)::

    psi <- psi exp(i sigma v (sqrt(1 - w^2) + i w))        through a slice
    psi(k) <- psi(k) exp(-i pi lambda h s^2)               over a distance h
    I = |1 + F^-1[(psi - 1)(k) exp(i gamma(s) + i odd(k))]|^2

with the projected potential v of a slice in volt angstrom, the interaction constant
sigma, the amplitude contrast w as absorption, and the phases gamma and odd of
:mod:`cryoinfer.physics.ctf` and :mod:`cryoinfer.physics.aberrations`. Phase plates
turn what is scattered, and not the beam, at frequency 0 too.

Electrons fly towards +z, and defoci are those of the plane z = 0, which the centre of
rotation is in: an atom at height z has the defocus ``dz + z``.

An image is ``(1 - I) / (2 sigma 47.88 V A^2)``, in 1/angstrom: for a thin, weak
specimen the CTF times the projection (:mod:`cryoinfer.physics.image_model`).
"""

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from scipy import constants, fft
from torch import Tensor

from cryoinfer.fourier.distortion import is_distorted
from cryoinfer.fourier.transform import fourier_to_image, image_to_fourier
from cryoinfer.physics.aberrations import turned_phases
from cryoinfer.physics.ctf import electron_wavelength_angstrom, evaluate_ctf
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.records import Optics, Pose

VOLT_ANGSTROM2 = constants.h**2 / (2e-20 * math.pi * constants.m_e * constants.e)
"""47.88 V angstrom^2: potential, integrated over space, of 1 angstrom of scattering
length (first Born approximation)."""

SLICE_ANGSTROM = 5.0
"""Within a slice of 5 A rays go straight: a wave of 2 A loses pi lambda h s^2 = 0.08
radian at 300 kV."""


def interaction_constant(voltage_kv: Tensor) -> Tensor:
    """Return the phase that a wave gains from a projected potential.

    ``sigma = 2 pi m e lambda / h^2`` with the relativistic mass m (Kirkland 2010,
    equation 5.6).

    Parameters
    ----------
    voltage_kv : Tensor, shape (...)

    Returns
    -------
    Tensor, shape (...)
        In radian per volt and angstrom: 6.53e-4 at 300 kV.
    """
    rest_energy_kev = constants.m_e * constants.c**2 / constants.e * 1e-3
    gamma = 1 + voltage_kv / rest_energy_kev
    return electron_wavelength_angstrom(voltage_kv) * gamma / VOLT_ANGSTROM2


@dataclass(frozen=True)
class WaveGrid:
    """Pixels on which a wave is computed, periodic.

    A product of two functions has twice their band. Waves and transmissions lose
    frequencies above 2/3 of Nyquist, so that what a product folds back falls where it
    is deleted. The band is square: images keep their corners.

    Attributes
    ----------
    size : int
        Pixels along an edge.
    pixel_size_angstrom : float
    """

    size: int
    pixel_size_angstrom: float

    @classmethod
    def of_image(cls, box: int, pixel_size_angstrom: float) -> "WaveGrid":
        """Return a grid over an image, whose band holds all of its frequencies."""
        size = int(fft.next_fast_len(math.ceil(1.5 * box), real=False))
        return cls(size, box * pixel_size_angstrom / size)

    def frequencies(self) -> tuple[Tensor, Tensor]:
        """Return x and y in 1/angstrom, float64, shape (size, size) each."""
        along = torch.fft.fftfreq(
            self.size, self.pixel_size_angstrom, dtype=torch.float64
        )
        y, x = torch.meshgrid(along, along, indexing="ij")
        return x, y

    def band(self) -> Tensor:
        """Tell which frequencies waves keep, shape (size, size)."""
        number = torch.fft.fftfreq(self.size, 1 / self.size, dtype=torch.float64)
        kept = 3 * number.abs() < self.size
        return kept[:, None] & kept

    def propagator(
        self, distance_angstrom: float, wavelength_angstrom: float
    ) -> Tensor:
        """Return what the transform of a wave is multiplied by over a distance.

        ``exp(-i pi lambda h s^2)`` within the band, 0 beyond; complex128, shape
        (size, size).
        """
        x, y = self.frequencies()
        rate = -math.pi * wavelength_angstrom * distance_angstrom
        turned = torch.polar(torch.ones_like(x), rate * (x * x + y * y))
        return turned * self.band()


@dataclass(frozen=True)
class Slice:
    """A slice of a specimen.

    Attributes
    ----------
    z_angstrom : float
        Of its middle, where all of its potential is.
    potential : Tensor, shape (size, size)
        Integrated over its thickness, in volt angstrom.
    """

    z_angstrom: float
    potential: Tensor


def slices_of(
    atoms: GaussianAtoms,
    pose: Pose,
    grid: WaveGrid,
    thickness_angstrom: float = SLICE_ANGSTROM,
) -> Iterator[Slice]:
    """Yield the slices that atoms lie in, in the order of flight.

    All of an atom is in the slice of its centre. The middles of slices are multiples of
    their thickness.

    Parameters
    ----------
    atoms : GaussianAtoms
        The same in all images.
    pose : Pose
        Of one particle.
    grid : WaveGrid
    thickness_angstrom : float
    """
    coordinates = atoms.coordinates_angstrom
    height = coordinates @ pose.rotation[0, 2].to(coordinates)
    number = torch.round(height / thickness_angstrom).long()
    for one in number.unique().tolist():
        inside = number == one
        # A projection sums over elements, each of which must have an atom.
        present, element = atoms.element[inside].unique(return_inverse=True)
        part = GaussianAtoms(
            coordinates[inside],
            element,
            atoms.amplitudes_angstrom[present],
            atoms.widths_angstrom2[present],
            atoms.b_factor_angstrom2,
        )
        density = part.project(pose, grid.size, grid.pixel_size_angstrom)[0]
        yield Slice(one * thickness_angstrom, VOLT_ANGSTROM2 * density)


def exit_wave(
    slices: Iterable[Slice],
    grid: WaveGrid,
    voltage_kv: float,
    amplitude_contrast: float = 0.0,
) -> Tensor:
    """Return the wave behind a specimen, as the plane z = 0 would have emitted it.

    Parameters
    ----------
    slices : iterable of Slice
        In the order of flight; at any distances.
    grid : WaveGrid
    voltage_kv : float
    amplitude_contrast : float
        Absorption: the sine of the phase of the complex potential, 0 to 1.

    Returns
    -------
    Tensor, complex128, shape (size, size)
        Its transform, of the sign ``exp(-2 pi i k r)`` with r from the centre of the
        image, over the size squared: without a specimen 1 at frequency 0, ``[0, 0]``,
        and 0 elsewhere.
    """
    voltage = torch.tensor(voltage_kv, dtype=torch.float64)
    wavelength = float(electron_wavelength_angstrom(voltage))
    sigma = float(interaction_constant(voltage))
    strength = (
        1j * sigma * complex(math.sqrt(1 - amplitude_contrast**2), amplitude_contrast)
    )
    transform = torch.zeros(grid.size, grid.size, dtype=torch.complex128)
    transform[0, 0] = 1
    band, z_angstrom = grid.band(), 0.0

    @functools.cache  # slices are equally thick: nearly all steps are one
    def over(step: float) -> Tensor:
        return grid.propagator(step, wavelength)

    for one in slices:
        arriving = transform * over(one.z_angstrom - z_angstrom)
        wave = torch.fft.ifft2(arriving, norm="forward")
        potential = torch.fft.ifftshift(one.potential).double()
        through = torch.fft.fft2(torch.exp(strength * potential)) * band
        behind = wave * torch.fft.ifft2(through)
        transform = torch.fft.fft2(behind, norm="forward") * band
        z_angstrom = one.z_angstrom
    return transform * over(-z_angstrom)


def intensity(transform: Tensor, optics: Optics, grid: WaveGrid) -> Tensor:
    """Return the share of the beam's electrons that arrive at each pixel.

    Parameters
    ----------
    transform : Tensor, complex128, shape (size, size)
        What :func:`exit_wave` returns.
    optics : Optics
        Of one particle. Its amplitude contrast, which is in the wave, is not used; its
        B-factor and scale damp the scattered wave.
    grid : WaveGrid

    Returns
    -------
    Tensor of float64, shape (size, size)
        1 without a specimen; the origin is the pixel ``size // 2``.
    """
    if is_distorted(optics.magnification):
        raise ValueError("multislice images cannot have a distorted magnification")
    x, y = (one.flatten() for one in grid.frequencies())
    one = torch.ones_like(optics.amplitude_contrast)
    sine, cosine = (
        evaluate_ctf(replace(optics, amplitude_contrast=contrast), x, y)
        for contrast in (0 * one, one)
    )
    transfer = torch.complex(cosine, sine) * turned_phases(optics, x, y)
    scattered = transform.clone()
    scattered[0, 0] -= 1
    scattered = scattered * transfer[0].unflatten(0, scattered.shape)
    scattered[0, 0] += 1
    wave = torch.fft.ifft2(scattered, norm="forward")
    return torch.fft.fftshift(wave.real.square() + wave.imag.square())


def multislice_images(
    atoms: GaussianAtoms,
    pose: Pose,
    optics: Optics,
    box: int,
    thickness_angstrom: float = SLICE_ANGSTROM,
) -> Tensor:
    """Return images of atoms by multislice, particles white on black.

    Parameters
    ----------
    atoms : GaussianAtoms
        With one set of coordinates, or one for each image.
    pose : Pose
        Of n particles.
    optics : Optics
        Of the same particles; with a CTF, not distorted, phases not flipped.
    box : int
    thickness_angstrom : float
        Of slices, above 0.

    Returns
    -------
    Tensor, shape (n, box, box)
        ``(1 - I) / (2 sigma 47.88 V A^2)`` in 1/angstrom, in the dtype of the
        coordinates. Frequencies at the Nyquist frequency of an even box are 0.
    """
    coordinates = atoms.coordinates_angstrom
    images = []
    for i in range(len(optics)):
        own = atoms
        if coordinates.dim() == 3:
            own = replace(atoms, coordinates_angstrom=coordinates[i])
        one, row = optics[[i]], [i]
        voltage_kv = float(one.voltage_kv)
        grid = WaveGrid.of_image(box, float(one.pixel_size_angstrom))
        slices = slices_of(own, pose[row], grid, thickness_angstrom)
        wave = exit_wave(slices, grid, voltage_kv, float(one.amplitude_contrast))
        seen = _cropped(1 - intensity(wave, one, grid), box)
        images.append(seen / float(contrast_per_density(one.voltage_kv)))
    if not images:
        return coordinates.new_zeros(0, box, box)
    return torch.stack(images).to(coordinates)


def contrast_per_density(voltage_kv: Tensor) -> Tensor:
    """Return the change of intensity that 1/angstrom in an image stands for.

    ``I = 1 - 2 sigma 47.88 V A^2 image``, with sigma at the voltage, shape (...).
    """
    return 2 * VOLT_ANGSTROM2 * interaction_constant(voltage_kv.double())


def _cropped(image: Tensor, box: int) -> Tensor:
    """Return an image on fewer pixels over the same area, band-limited."""
    transform = image_to_fourier(image)
    below = (box + 1) // 2  # frequencies from 0 to below Nyquist
    kept = transform.new_zeros(box, box // 2 + 1)
    kept[:below, :below] = transform[:below, :below]
    if below > 1:
        kept[1 - below :, :below] = transform[1 - below :, :below]
    # Orthonormal transforms of the same image grow with its pixels along an edge.
    return fourier_to_image(kept, box) * (box / image.shape[-1])
