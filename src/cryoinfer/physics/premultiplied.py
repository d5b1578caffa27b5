"""Images that were multiplied by their CTF, brought back to what the microscope saw.

RELION multiplies so when it extracts particles: ``y = CTF (CTF X + noise)``. Divided by
the CTF, such images have the noise and the likelihood of those before: inference sees
``y CTF`` and ``CTF^2`` alone, and neither changes. Where the CTF is nearly 0, nothing
was kept: there the image is divided by no less than :data:`LEAST`.

Images that were cut out of larger ones after the multiplication hold at the zeros of
the CTF what lies beside them. Their noise is therefore measured by
:func:`noise_weight` or :func:`background_spectrum`, in which these count little.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.fourier.distortion import is_distorted, mapped_frequencies
from cryoinfer.fourier.transform import fourier_to_image, image_to_fourier
from cryoinfer.physics.ctf import evaluate_ctf
from cryoinfer.physics.noise import estimate_background_spectrum
from cryoinfer.records import Optics

LEAST = 0.1
"""Smallest modulus of the CTF that images are divided by: what lies below has 0.04 % of
the information, the integral of the CTF's square up to it."""


def divided_by_ctf(images: Tensor, optics: Optics) -> Tensor:
    """Return images of which those that were multiplied by their CTF are divided by it.

    Parameters
    ----------
    images : Tensor, shape (n, box, box)
    optics : Optics
        Of the same particles, all of one pixel size.

    Returns
    -------
    Tensor, shape (n, box, box)
    """
    return _filtered(images, optics, torch.div)


def multiplied_by_ctf(images: Tensor, optics: Optics) -> Tensor:
    """Invert :func:`divided_by_ctf`, of images of any box.

    Parameters
    ----------
    images : Tensor, shape (n, box, box)
    optics : Optics
        Of the same particles, all of one pixel size.

    Returns
    -------
    Tensor, shape (n, box, box)
    """
    return _filtered(images, optics, torch.mul)


def _filtered(
    images: Tensor, optics: Optics, change: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """Return images with their coefficients changed by what divides them."""
    rows = torch.nonzero(optics.ctf_premultiplied).squeeze(1)
    if not len(rows):
        return images
    box = images.shape[-1]
    ctf = _ctf(optics[rows], box, images.dtype)
    divisor = torch.where(ctf < 0, ctf.clamp(max=-LEAST), ctf.clamp(min=LEAST))
    changed = images.clone()
    coefficients = change(image_to_fourier(images[rows]), divisor)
    changed[rows] = fourier_to_image(coefficients, box)
    return changed


def _ctf(optics: Optics, box: int, dtype: torch.dtype) -> Tensor:
    """Return the CTF of images of one pixel size, shape (n, box, box // 2 + 1)."""
    size = float(optics.pixel_size_angstrom[0])
    y, x = torch.meshgrid(
        torch.fft.fftfreq(box, size, dtype=dtype),
        torch.fft.rfftfreq(box, size, dtype=dtype),
        indexing="ij",
    )
    frequencies = x.flatten(), y.flatten()
    if is_distorted(optics.magnification):
        frequencies = mapped_frequencies(optics.magnification, *frequencies)
    return evaluate_ctf(optics, *frequencies).unflatten(-1, y.shape)


def background_spectrum(
    images: Tensor, optics: Optics, particle_radius_px: float
) -> Tensor:
    """Estimate the noise spectrum of images that were perhaps multiplied by their CTF.

    Images that were are multiplied again, and their power is compared with that of
    white noise that was: what division by a small CTF has made large counts little.

    Parameters
    ----------
    images : Tensor, shape (n, box, box)
        As they are read (:func:`divided_by_ctf`).
    optics : Optics
        Of the same particles, all of one pixel size.
    particle_radius_px : float
        As of :func:`cryoinfer.physics.noise.estimate_background_spectrum`, which also
        tells what is returned and refused.

    Returns
    -------
    Tensor, shape (box // 2 + 1,)
    """
    rows = torch.nonzero(optics.ctf_premultiplied).squeeze(1)
    if not len(rows):
        return estimate_background_spectrum(images, particle_radius_px)
    ctf = _ctf(optics[rows], images.shape[-1], images.dtype)
    passed = ctf.square().sum(0) + (len(images) - len(rows))
    return estimate_background_spectrum(
        multiplied_by_ctf(images, optics), particle_radius_px, passed / len(images)
    )


def require_ctf_kept(optics: Optics, what: str) -> None:
    """Refuse to refine the CTF of images that were multiplied by it.

    A file with another CTF would say that they were multiplied by that one.

    Parameters
    ----------
    optics : Optics
    what : str
        That would refine it.

    Raises
    ------
    InputError
    """
    if bool(optics.ctf_premultiplied.any()):
        raise InputError(
            "The images were multiplied by their CTF, which must stay what the file "
            f"has: it is what they are divided by. Leave {what} out, or extract the "
            "particles again without the multiplication."
        )


def noise_weight(optics: Optics, ctf: Tensor) -> Tensor | None:
    """Return how much each coefficient counts where the noise is measured, (n, p).

    Parameters
    ----------
    optics : Optics
        Of n particles.
    ctf : Tensor, shape (n, p)
        Or multiples of it that are the same all over a ring.

    Returns
    -------
    Tensor, shape (n, p), or None
        The CTF's square for images that were multiplied by it, 1 for others; None where
        there are only others.
    """
    if not bool(optics.ctf_premultiplied.any()):
        return None
    multiplied = optics.ctf_premultiplied.to(ctf.device)[:, None]
    return torch.where(multiplied, ctf.square(), torch.ones_like(ctf))
