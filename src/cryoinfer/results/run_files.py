"""The files of a run, written and read."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.loading import is_bare
from cryoinfer.data.particles import Particles
from cryoinfer.data.refined_particles import with_optics
from cryoinfer.errors import InputError
from cryoinfer.evaluation.ssnr import SpectralSignalToNoise
from cryoinfer.io.conventions.relion import RelionParticles
from cryoinfer.io.conventions.relion_columns import IMAGE
from cryoinfer.io.files import content_sha256
from cryoinfer.io.mrc import MapFile, read_map, read_mask, write_map
from cryoinfer.io.replacing import replace_file
from cryoinfer.io.star import StarBlock, StarFile, read_star, text_column, write_star
from cryoinfer.results import layout
from cryoinfer.results.flags import CONTRAST, FLAG, OUTLIER_SCORE, UNREADABLE
from cryoinfer.results.posterior_files import Posteriors
from cryoinfer.results.run_result import Reconstruction, RunResult

CORRECTED = "rlnFourierShellCorrelationCorrected"
UNMASKED = "rlnFourierShellCorrelationUnmaskedMaps"
MASKED = "rlnFourierShellCorrelationMaskedMaps"
RANDOMISED = "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"
"""RELION's names of the curves; the last one is the masked, randomised maps'."""

SSNR, SSNR_ERROR = "rlnSsnrMap", "cryoinferSsnrMapError"
"""Of the mean of half-maps: the first is RELION's name, of its model files."""

_NOISE = "rlnSigma2Noise"
INFINITE_NATS = 1e9  # in columns, whose readers refuse infinities
INFINITE_RATIO = 1e9  # of signal to nothing
_INFINITE_ANGSTROM = 999.0  # what RELION writes for shell 0


def write_reconstruction(
    folder: Path, reconstruction: Reconstruction, names: layout.MapNames = layout.OF_RUN
) -> None:
    """Write the map, its halves, its mask and its FSC."""
    pixel_size = reconstruction.pixel_size_angstrom
    for name, density in (
        (names.half1, reconstruction.half1),
        (names.half2, reconstruction.half2),
        (names.mask, reconstruction.mask),
        (names.density, reconstruction.density),
    ):
        save_map(folder / name, density, pixel_size)
    curves = {
        CORRECTED: reconstruction.fsc,
        UNMASKED: reconstruction.fsc_unmasked,
        MASKED: reconstruction.fsc_masked,
        RANDOMISED: reconstruction.fsc_randomised,
    }
    write_fsc(folder / names.fsc, curves, pixel_size)


def write_inference(folder: Path, particles: Particles, result: RunResult) -> None:
    """Write the posteriors, the noise, and the particles with what was found."""
    write_noise(folder / layout.NOISE, result.noise_power)
    Posteriors.of(result).write(folder)
    save_particles(folder / layout.PARTICLES, with_posteriors(particles, result))


def with_posteriors(particles: Particles, result: RunResult) -> Particles:
    """Return the particles with poses, half-sets and uncertainties.

    The defocus changes only where it was inferred.
    """
    if result.refined_optics is not None:
        found_optics = result.refined_optics.applied(particles.table)
        particles = with_optics(particles, found_optics)
    found = result.inferred
    latents = found.mode()
    variance = found.covariance[:, 0].diagonal(dim1=-2, dim2=-1).detach().cpu().double()
    rotation_sd = torch.rad2deg(variance[:, :3].mean(1).sqrt())
    columns = {
        "cryoinferRotationSdDegrees": rotation_sd.numpy(),
        "cryoinferShiftSdAngst": variance[:, 3:5].mean(1).sqrt().numpy(),
        "cryoinferPosteriorEntropy": _float32(result.entropy()),
        "rlnLogLikeliContribution": _finite(found.log_likelihood),
    }
    columns |= flag_columns(result)
    defocus_was_inferred = bool((variance[:, 5] > 0).any())
    return particles.with_results(
        pose=latents.pose,
        defocus_offset_angstrom=(
            latents.defocus_offset_angstrom if defocus_was_inferred else None
        ),
        random_subset=result.random_subset,
        columns=columns,
    )


def flag_columns(result: RunResult) -> dict[str, NDArray[Any]]:
    """Return the outlier scores and what follows, if the run asked for them."""
    strange, left_out = result.outlier_score_nats, result.left_out()
    if strange is None or left_out is None or result.unreadable is None:
        return {}
    flag = left_out.int()
    flag[result.unreadable] = UNREADABLE
    score = _finite(strange.nan_to_num(nan=INFINITE_NATS))
    columns: dict[str, NDArray[Any]] = {OUTLIER_SCORE: score, FLAG: flag.numpy()}
    if result.contrast is not None:
        columns[CONTRAST] = _float32(result.contrast)
    return columns


def read_image_names(folder: Path) -> NDArray[Any]:
    """Return ``rlnImageName`` of the particles that a run has written, shape (n,)."""
    star = read_star(folder / layout.PARTICLES, only=[IMAGE])
    return RelionParticles(star).particles.columns[IMAGE]


def save_map(path: Path, density: Tensor, pixel_size_angstrom: float) -> None:
    """Write a map, all of it or nothing."""
    replace_file(path, lambda part: write_map(part, density, pixel_size_angstrom))


def save_particles(path: Path, particles: Particles) -> None:
    """Write particles, all of them or nothing."""
    replace_file(path, particles.save)


def write_fsc(
    path: Path, curves: Mapping[str, Tensor], pixel_size_angstrom: float
) -> None:
    """Write FSC curves as RELION's post-processing does, in a block ``data_fsc``.

    Parameters
    ----------
    path : Path
    curves : mapping of label to Tensor, shape (n // 2 + 1,)
    pixel_size_angstrom : float
    """
    star = StarFile((fsc_block(curves, pixel_size_angstrom),))
    replace_file(path, lambda partial: write_star(partial, star))


def fsc_block(curves: Mapping[str, Tensor], pixel_size_angstrom: float) -> StarBlock:
    """Return FSC curves as a block of a STAR file; see :func:`write_fsc`."""
    shells = len(next(iter(curves.values())))
    frequency = np.arange(shells) / (2 * (shells - 1) * pixel_size_angstrom)
    resolution = np.full(shells, _INFINITE_ANGSTROM)
    resolution[1:] = 1 / frequency[1:]
    columns = {
        "rlnSpectralIndex": text_column(np.arange(shells), "%d"),
        "rlnResolution": text_column(frequency, "%.6f"),
        "rlnAngstromResolution": text_column(resolution, "%.6f"),
    }
    for label, curve in curves.items():
        columns[label] = text_column(curve.detach().cpu().numpy(), "%.6f")
    return StarBlock("fsc", columns)


def ssnr_columns(ssnr: SpectralSignalToNoise) -> dict[str, Tensor]:
    """Return the signal-to-noise ratio as columns of the block of the curves."""
    most = INFINITE_RATIO
    return {
        SSNR: ssnr.ratio.clamp(max=most),
        SSNR_ERROR: ssnr.standard_error.clamp(max=most),
    }


def read_fsc(folder: Path, name: str = layout.FSC) -> dict[str, Tensor]:
    """Return the curves of a run by label, float64.

    Parameters
    ----------
    folder : Path
    name : str, optional
        Of their file, where it is not that of the one map of a run.

    Raises
    ------
    InputError
        If the corrected or the unmasked one is not there.
    """
    path = folder / name
    block = read_star(path).get("fsc")
    if block is None or CORRECTED not in block or UNMASKED not in block:
        raise InputError(f"{path} holds no FSC of a run.")
    labels = (CORRECTED, UNMASKED, MASKED, RANDOMISED)
    return {
        label: torch.from_numpy(block.numbers(label))
        for label in labels
        if label in block
    }


def read_noise(folder: Path) -> Tensor | None:
    """Return the noise spectra of a run, shape (groups, rings), if it has any.

    Groups whose images have another size than those of the first are left out.
    """
    spectra = read_spectra(folder)
    if not spectra:
        return None
    same = [spectrum for spectrum in spectra if len(spectrum) == len(spectra[0])]
    return torch.stack(same)


def read_spectra(folder: Path) -> list[Tensor]:
    """Return the noise spectrum of every optics group of a run, none if it has none."""
    path = folder / layout.NOISE
    if not path.exists():
        return []
    return [torch.from_numpy(b.numbers(_NOISE)) for b in read_star(path).blocks]


def write_noise(path: Path, spectra: Sequence[Tensor]) -> None:
    """Write one block an optics group, under RELION's names."""
    blocks = tuple(
        StarBlock(
            f"model_optics_group_{number}",
            {
                "rlnSpectralIndex": text_column(np.arange(len(spectrum)), "%d"),
                _NOISE: text_column(spectrum.detach().cpu().numpy(), "%.6e"),
            },
        )
        for number, spectrum in enumerate(spectra, 1)
    )
    replace_file(path, lambda partial: write_star(partial, StarFile(blocks)))


def read_run_map(folder: Path) -> MapFile:
    """Read the map of a run."""
    return read_map(folder / layout.MAP)


def read_run_mask(folder: Path) -> MapFile:
    """Read the mask of a run."""
    return read_mask(folder / layout.MASK)


def read_numbers(folder: Path, label: str) -> NDArray[np.float64] | None:
    """Return one column of the particles of a run, or None if they have none such."""
    star = read_star(folder / layout.PARTICLES, only=[label])
    block = next((block for block in star.blocks if label in block), None)
    return None if block is None else block.numbers(label)


def fingerprint(
    particles: Particles, path: Path, map_path: Path | None
) -> dict[str, object]:
    """Return what tells whether the inputs of a run have changed.

    Metadata and maps by their content; of the stacks, which may be huge, the size
    and the time of their last change.
    """
    stacks = hashlib.sha256()
    for stack in particles.stacks:
        status = os.stat(stack.path)
        stamp = f"{stack.path} {status.st_size} {status.st_mtime_ns}\n"
        stacks.update(os.fsencode(stamp))  # names may be of any bytes
    found: dict[str, object] = {
        "stacks": {"count": len(particles.stacks), "sha256": stacks.hexdigest()}
    }
    if not is_bare(path):
        found["particles"] = {"sha256": content_sha256(path)}
    if map_path is not None:
        found["map"] = {"sha256": content_sha256(map_path)}
    return found


def _finite(values: Tensor) -> NDArray[np.float32]:
    return _float32(values.clamp(-INFINITE_NATS, INFINITE_NATS))


def _float32(values: Tensor) -> NDArray[np.float32]:
    return values.detach().to("cpu", torch.float32).numpy()
