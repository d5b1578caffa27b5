"""The files of a run, written and read."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.cli import run_folder
from cryoinfer.cli.run_arrays import run_arrays
from cryoinfer.data.loading import is_bare
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.io.conventions.relion import RelionParticles
from cryoinfer.io.mrc import MapFile, read_map, read_mask, write_map
from cryoinfer.io.replacing import replace_file
from cryoinfer.io.star import StarBlock, StarFile, read_star, text_column, write_star
from cryoinfer.records import Latents, Pose
from cryoinfer.results.run_result import Reconstruction, RunResult

LATENT_DIMENSIONS = 6  # rotation vector, shift, defocus
_UPPER = np.triu_indices(LATENT_DIMENSIONS)
_DIAGONAL = np.flatnonzero(_UPPER[0] == _UPPER[1])
CORRECTED = "rlnFourierShellCorrelationCorrected"
UNMASKED = "rlnFourierShellCorrelationUnmaskedMaps"
MASKED = "rlnFourierShellCorrelationMaskedMaps"
RANDOMISED = "rlnCorrectedFourierShellCorrelationPhaseRandomizedMaskedMaps"
"""RELION's names of the curves; the last one is the masked, randomised maps'."""

UNREADABLE = 2
NOVELTY, FLAG = "cryoinferNovelty", "cryoinferFlag"
"""How little an image is like one of the encoder's map, in nats, and what follows: 0 in
the map, 1 novel and left out, 2 without a pose, as the image holds NaN or infinite
pixels."""

_NOISE = "rlnSigma2Noise"
_INFINITE_NATS = 1e9  # in columns, whose readers refuse infinities
_INFINITE_ANGSTROM = 999.0  # what RELION writes for shell 0


@dataclass(frozen=True)
class Posteriors:
    """What ``posteriors.npz`` holds: float32 arrays of n particles, m modes each.

    Attributes
    ----------
    rotation, shift_angstrom, defocus_offset_angstrom : shapes (n, 3, 3), (n, 2), (n,)
        The most probable latents.
    covariance_upper : shape (n, 21)
        Row by row, the upper triangle of the 6 x 6 covariance of the rotation vector
        in the image frame (radian), the shift and the defocus (angstrom).
    log_likelihood, entropy_nats : shape (n,)
    mode_rotation, mode_shift_angstrom, mode_weight : (n, m, 3, 3), (n, m, 2), (n, m)
        The best modes of the posterior; what the weights lack of 1 is elsewhere.
    """

    rotation: NDArray[np.float32]
    shift_angstrom: NDArray[np.float32]
    defocus_offset_angstrom: NDArray[np.float32]
    covariance_upper: NDArray[np.float32]
    log_likelihood: NDArray[np.float32]
    entropy_nats: NDArray[np.float32]
    mode_rotation: NDArray[np.float32]
    mode_shift_angstrom: NDArray[np.float32]
    mode_weight: NDArray[np.float32]

    @classmethod
    def of(cls, result: RunResult) -> Self:
        """Collect the posteriors of a result."""
        pose = result.latents.pose
        upper = result.covariance[:, torch.tensor(_UPPER[0]), torch.tensor(_UPPER[1])]
        return cls(
            rotation=_float32(pose.rotation),
            shift_angstrom=_float32(pose.shift_angstrom),
            defocus_offset_angstrom=_float32(result.latents.defocus_offset_angstrom),
            covariance_upper=_float32(upper),
            log_likelihood=_float32(result.log_likelihood),
            entropy_nats=_float32(result.entropy()),
            mode_rotation=_float32(result.mode_pose.rotation),
            mode_shift_angstrom=_float32(result.mode_pose.shift_angstrom),
            mode_weight=_float32(result.mode_weight),
        )

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return the posteriors of a run, or None if it inferred none."""
        path = folder / run_folder.POSTERIORS
        if not path.exists():
            return None
        with run_arrays(path) as arrays:
            found = cls(**{name: arrays[name] for name in arrays.files})
            found._require_shapes()
            return found

    def _require_shapes(self) -> None:
        """Raise ValueError unless all arrays are numbers of the same particles."""
        n, modes = self.mode_weight.shape
        shapes: dict[str, tuple[int, ...]] = {
            "rotation": (n, 3, 3),
            "shift_angstrom": (n, 2),
            "covariance_upper": (n, len(_UPPER[0])),
            "mode_rotation": (n, modes, 3, 3),
            "mode_shift_angstrom": (n, modes, 2),
            "mode_weight": (n, modes),
        }
        for name, array in vars(self).items():
            if array.shape != shapes.get(name, (n,)) or array.dtype.kind != "f":
                raise ValueError(f"{name} has the shape {array.shape}")

    def write(self, folder: Path) -> None:
        """Write the arrays under their names."""
        path = folder / run_folder.POSTERIORS
        replace_file(path, lambda partial: np.savez(partial, **vars(self)))

    def covariance(self) -> Tensor:
        """Return the full matrices, float64, shape (n, 6, 6)."""
        size = LATENT_DIMENSIONS
        full = np.zeros((len(self.covariance_upper), size, size))
        full[:, _UPPER[0], _UPPER[1]] = self.covariance_upper
        full[:, _UPPER[1], _UPPER[0]] = self.covariance_upper
        return torch.from_numpy(full)


@dataclass(frozen=True)
class PosedParticles:
    """What a report shows of n particles.

    Attributes
    ----------
    pose : Pose
    variance : Tensor, shape (n, 6)
        Of rotation vector, shift and defocus; zero where nothing was inferred.
    """

    pose: Pose
    variance: Tensor

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the poses of a run, and of what else grows with the particles nothing.

        Raises
        ------
        InputError
            If it has no poses.
        """
        path = folder / run_folder.POSTERIORS
        if path.exists():
            with run_arrays(path) as arrays:
                rotation, shift = arrays["rotation"], arrays["shift_angstrom"]
                variance = arrays["covariance_upper"][:, _DIAGONAL]
            pose = Pose(torch.from_numpy(rotation), torch.from_numpy(shift))
            return cls(pose, torch.from_numpy(variance))
        path = folder / run_folder.PARTICLES
        given = RelionParticles.read(path).table().pose
        if given is None:
            raise InputError(f"{path} has no poses: expected rlnAngleRot and so on.")
        return cls(given, torch.zeros(len(given), LATENT_DIMENSIONS))


def write_reconstruction(folder: Path, reconstruction: Reconstruction) -> None:
    """Write the map, its halves, its mask and its FSC."""
    pixel_size = reconstruction.pixel_size_angstrom
    for name, density in (
        (run_folder.HALF1, reconstruction.half1),
        (run_folder.HALF2, reconstruction.half2),
        (run_folder.MASK, reconstruction.mask),
        (run_folder.MAP, reconstruction.density),
    ):
        save_map(folder / name, density, pixel_size)
    curves = {
        CORRECTED: reconstruction.fsc,
        UNMASKED: reconstruction.fsc_unmasked,
        MASKED: reconstruction.fsc_masked,
        RANDOMISED: reconstruction.fsc_randomised,
    }
    write_fsc(folder / run_folder.FSC, curves, pixel_size)


def write_inference(folder: Path, particles: Particles, result: RunResult) -> None:
    """Write the posteriors, the noise, and the particles with what was found."""
    _write_noise(folder / run_folder.NOISE, result.noise_power)
    Posteriors.of(result).write(folder)
    save_particles(folder / run_folder.PARTICLES, with_posteriors(particles, result))


def with_posteriors(particles: Particles, result: RunResult) -> Particles:
    """Return the particles with poses, half-sets and uncertainties.

    The defocus changes only where it was inferred.
    """
    from cryoinfer.inference.novelty import is_novel

    latents: Latents = result.latents
    variance = result.covariance.diagonal(dim1=-2, dim2=-1).detach().cpu().double()
    rotation_sd = torch.rad2deg(variance[:, :3].mean(1).sqrt())
    columns = {
        "cryoinferRotationSdDegrees": rotation_sd.numpy(),
        "cryoinferShiftSdAngst": variance[:, 3:5].mean(1).sqrt().numpy(),
        "cryoinferPosteriorEntropy": _float32(result.entropy()),
        "rlnLogLikeliContribution": _finite(result.log_likelihood),
    }
    if result.novelty_nats is not None and result.unreadable is not None:
        strange = result.novelty_nats
        flag = is_novel(strange).int()
        flag[result.unreadable] = UNREADABLE
        columns[NOVELTY] = _finite(strange.nan_to_num(nan=_INFINITE_NATS))
        columns[FLAG] = flag.numpy()
    defocus_was_inferred = bool((variance[:, 5] > 0).any())
    return particles.with_results(
        pose=latents.pose,
        defocus_offset_angstrom=(
            latents.defocus_offset_angstrom if defocus_was_inferred else None
        ),
        random_subset=result.random_subset,
        columns=columns,
    )


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
    star = StarFile((StarBlock("fsc", columns),))
    replace_file(path, lambda partial: write_star(partial, star))


def read_fsc(folder: Path) -> dict[str, Tensor]:
    """Return the curves of a run by label, float64.

    Raises
    ------
    InputError
        If the corrected or the unmasked one is not there.
    """
    path = folder / run_folder.FSC
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
    path = folder / run_folder.NOISE
    if not path.exists():
        return []
    return [torch.from_numpy(b.numbers(_NOISE)) for b in read_star(path).blocks]


def _write_noise(path: Path, spectra: Sequence[Tensor]) -> None:
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
    return read_map(folder / run_folder.MAP)


def read_run_mask(folder: Path) -> MapFile:
    """Read the mask of a run."""
    return read_mask(folder / run_folder.MASK)


def read_numbers(folder: Path, label: str) -> NDArray[np.float64] | None:
    """Return one column of the particles of a run, or None if they have none such."""
    star = read_star(folder / run_folder.PARTICLES, only=[label])
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


def content_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _finite(values: Tensor) -> NDArray[np.float32]:
    return _float32(values.clamp(-_INFINITE_NATS, _INFINITE_NATS))


def _float32(values: Tensor) -> NDArray[np.float32]:
    return values.detach().to("cpu", torch.float32).numpy()
