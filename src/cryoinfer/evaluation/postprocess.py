"""From two half-maps to the map that people look at: resolution, B-factor, sharpening.

What RELION's post-processing does, with one difference: amplitudes for the B-factor are
those of the masked map, like the FSC that weights them. In the whole box the solvent's
noise is amplitude too, which the masked FSC does not take out: the plot falls less than
the signal does (benchmarks, section "Post-processing").
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.errors import NothingFoundError
from cryoinfer.evaluation.fsc import (
    FscCurve,
    amplitude_weight,
    fourier_shell_correlation,
    masked_fsc,
    resolution_at,
)
from cryoinfer.evaluation.sharpening import (
    COARSEST_FIT_ANGSTROM,
    GuinierFit,
    fit_b_factor,
    log_amplitudes,
    mean_amplitudes,
    sharpen,
    shell_frequencies,
)
from cryoinfer.evaluation.ssnr import (
    SpectralSignalToNoise,
    independent_numbers,
    ssnr_from_fsc,
)
from cryoinfer.reconstruction.mask import soft_mask

THRESHOLD = 0.143

_OUTLINE = 1.5
_OUTLINE_RANGE = (1 / 12, 1 / 4)
"""A mask is drawn at a resolution coarser than that of the halves by the first, as in
reconstructions, within the second, over the length of the box."""


@dataclass(frozen=True)
class GuinierPlot:
    """Logarithms of mean amplitudes by shell, of the masked mean of the halves.

    Attributes
    ----------
    inverse_square : Tensor of float64, shape (n // 2 + 1,)
        1 / d^2, in 1 / angstrom^2.
    original, weighted, sharpened : Tensor of float64, shape (n // 2 + 1,)
        As it is, weighted by the FSC, and with the B-factor applied as well; -99 where
        there is no amplitude.
    """

    inverse_square: Tensor
    original: Tensor
    weighted: Tensor
    sharpened: Tensor


@dataclass(frozen=True)
class Postprocessed:
    """What post-processing makes of two half-maps.

    Attributes
    ----------
    sharpened : Tensor of float32, shape (n, n, n)
        Mean of the halves, weighted, with the B-factor applied; not masked.
    mask : Tensor, shape (n, n, n)
    curve : FscCurve
        Its corrected FSC is at most 0 in the last shell, where nothing is claimed.
    ssnr : SpectralSignalToNoise
        Of the mean of both halves under the mask, from the corrected FSC.
    guinier : GuinierPlot
    fit : GuinierFit or None
        None where the range is too short.
    whole_box_fit : GuinierFit or None
        The same without the mask on the map, as RELION fits it.
    b_factor_angstrom2 : float
        That was applied: given, fitted, or 0. A negative one sharpens.
    resolution_angstrom, unmasked_resolution_angstrom : float
        FSC 0.143, corrected for the mask, and without it.
    voxel_size_angstrom : float
    """

    sharpened: Tensor
    mask: Tensor
    curve: FscCurve
    ssnr: SpectralSignalToNoise
    guinier: GuinierPlot
    fit: GuinierFit | None
    whole_box_fit: GuinierFit | None
    b_factor_angstrom2: float
    resolution_angstrom: float
    unmasked_resolution_angstrom: float
    voxel_size_angstrom: float

    @property
    def why_no_fit(self) -> str:
        """Say why no B-factor was fitted; nothing where one was."""
        if self.fit is not None:
            return ""
        if self.resolution_angstrom > COARSEST_FIT_ANGSTROM:
            return (
                f"the resolution is worse than {COARSEST_FIT_ANGSTROM:g} A, where "
                "amplitudes follow the shape of the molecule"
            )
        return "too few shells lie between 10 A and the resolution"

    @property
    def mask_correlation(self) -> float:
        """Return how far the mask makes random phases correlate at the resolution.

        The mean of three shells about it; 0 where they hold true phases.
        """
        shells = len(self.curve.randomised) - 1
        length = self.mask.shape[-1] * self.voxel_size_angstrom
        middle = min(round(length / self.resolution_angstrom), shells - 1)
        if middle - 1 < self.curve.randomised_from_shell:
            return 0.0
        return float(self.curve.randomised[middle - 1 : middle + 2].mean())


def find_solvent_mask(
    half1: Tensor, half2: Tensor, voxel_size_angstrom: float
) -> Tensor:
    """Find the particle in the mean of two half-maps, at a resolution they both have.

    Parameters
    ----------
    half1, half2 : Tensor, shape (n, n, n)
    voxel_size_angstrom : float

    Returns
    -------
    Tensor of float32, shape (n, n, n)
        In [0, 1]; 1 everywhere when nothing stands out.
    """
    box, voxel = half1.shape[-1], voxel_size_angstrom
    fsc = fourier_shell_correlation(half1, half2)
    reached, length = resolution_at(fsc, THRESHOLD, box, voxel), box * voxel
    low, high = (share * length for share in _OUTLINE_RANGE)
    return soft_mask(half1 + half2, voxel, min(max(_OUTLINE * reached, low), high))


def postprocess(
    half1: Tensor,
    half2: Tensor,
    mask: Tensor,
    voxel_size_angstrom: float,
    b_factor_angstrom2: float | None = None,
    symmetry_order: int = 1,
) -> Postprocessed:
    """Find resolution and B-factor of two half-maps, and sharpen their mean.

    Parameters
    ----------
    half1, half2 : Tensor, shape (n, n, n)
        Of independent halves of the particles, neither filtered nor masked.
    mask : Tensor, shape (n, n, n)
        In [0, 1], with a soft edge.
    voxel_size_angstrom : float
    b_factor_angstrom2 : float, optional
        To be applied; a negative one sharpens. By default it is fitted; 0 where it
        cannot be, or where the amplitudes do not fall.
    symmetry_order : int
        Number of rotations of the point group that was imposed on the halves: noise of
        symmetric maps has so many times fewer independent numbers.

    Returns
    -------
    Postprocessed

    Raises
    ------
    InputError
        If the maps and the mask are not cubes of one size.
    NothingFoundError
        If the halves agree in no shell.
    """
    box, voxel = half1.shape[-1], voxel_size_angstrom
    length = box * voxel
    curve = masked_fsc(half1, half2, mask, torch.Generator().manual_seed(0))
    # Half of the last shell lies in no disc of coefficients, and a mask smears what is
    # inside into it: nothing is claimed there.
    corrected = curve.corrected.clone()
    corrected[-1] = corrected[-1].clamp(max=0.0)
    curve = replace(curve, corrected=corrected)
    resolution = resolution_at(curve.corrected, THRESHOLD, box, voxel)
    if resolution >= length:
        raise NothingFoundError(
            "the half-maps agree in no shell (FSC below 0.143 from the first on), so "
            "that there is nothing to sharpen. Are they of one run, and in one frame?"
        )
    weight = amplitude_weight(curve.corrected)
    mean = 0.5 * (half1.double() + half2.double())
    amplitudes = mean_amplitudes(mean * mask)
    fit = fit_b_factor(amplitudes * weight, resolution, length)
    whole_box = fit_b_factor(mean_amplitudes(mean) * weight, resolution, length)
    applied = b_factor_angstrom2
    if applied is None:
        applied = min(0.0, fit.b_factor_angstrom2) if fit is not None else 0.0
    sharpened = sharpen(mean, weight, applied, resolution, voxel)
    guinier = GuinierPlot(
        shell_frequencies(len(weight), length).square(),
        log_amplitudes(amplitudes),
        log_amplitudes(amplitudes * weight),
        log_amplitudes(mean_amplitudes(sharpened * mask)),
    )
    unmasked = resolution_at(curve.unmasked, THRESHOLD, box, voxel)
    numbers = independent_numbers(box, mask, symmetry_order)
    return Postprocessed(
        sharpened,
        mask,
        curve,
        ssnr_from_fsc(curve.corrected, numbers),
        guinier,
        fit,
        whole_box,
        applied,
        resolution,
        unmasked,
        voxel,
    )
