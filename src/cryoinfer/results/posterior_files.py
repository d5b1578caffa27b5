"""The posteriors of a run, written and read."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.io.conventions.relion import RelionParticles
from cryoinfer.io.files import require_file
from cryoinfer.io.replacing import replace_file
from cryoinfer.records import Latents, Pose
from cryoinfer.results import layout
from cryoinfer.results.motions import Motions
from cryoinfer.results.run_arrays import run_arrays
from cryoinfer.results.run_result import RunResult

VERSION_KEY, VERSION = "version", 1
"""Of the layout of ``posteriors.npz``; raised when a name or what it holds changes. A
file of before versions were kept has that of the first."""

LATENT_DIMENSIONS = 6  # rotation vector, shift, defocus
_UPPER = np.triu_indices(LATENT_DIMENSIONS)
_DIAGONAL = np.flatnonzero(_UPPER[0] == _UPPER[1])


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
        found = result.inferred
        best, modes = found.mode(), found.modes.pose
        upper = found.covariance[:, 0, torch.tensor(_UPPER[0]), torch.tensor(_UPPER[1])]
        return cls(
            rotation=_float32(best.pose.rotation),
            shift_angstrom=_float32(best.pose.shift_angstrom),
            defocus_offset_angstrom=_float32(best.defocus_offset_angstrom),
            covariance_upper=_float32(upper),
            log_likelihood=_float32(found.log_likelihood),
            entropy_nats=_float32(result.entropy()),
            mode_rotation=_float32(modes.rotation),
            mode_shift_angstrom=_float32(modes.shift_angstrom),
            mode_weight=_float32(found.weight),
        )

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Return the posteriors of a run, or None if it inferred none."""
        path = folder / layout.POSTERIORS
        if not path.exists():
            return None
        with run_arrays(path) as arrays:
            require_known(arrays, path)
            names = set(arrays.files) - {VERSION_KEY}
            found = cls(**{name: arrays[name] for name in names})
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
        """Write the arrays under their names, and the version of the layout."""
        write_posteriors(folder / layout.POSTERIORS, vars(self))

    def modes(self) -> ParticlePosterior:
        """Return the modes, in float64; what their weights lack of 1 is elsewhere."""
        weight = torch.from_numpy(self.mode_weight).double()
        offset = torch.from_numpy(self.defocus_offset_angstrom)[:, None]
        pose = Pose(
            torch.from_numpy(self.mode_rotation),
            torch.from_numpy(self.mode_shift_angstrom),
        )
        modes = Latents.rigid(pose, offset.expand_as(weight)).double()
        best = Pose(
            torch.from_numpy(self.rotation), torch.from_numpy(self.shift_angstrom)
        )
        found = ParticlePosterior.of_modes(
            modes,
            weight,
            self.covariance()[:, None],
            torch.from_numpy(self.log_likelihood).double(),
        )
        # Files of before have another first mode where nothing is known.
        return found.with_first_mode(Latents.rigid(best, offset[:, 0]).double())

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
        path = folder / layout.POSTERIORS
        if path.exists():
            with run_arrays(path) as arrays:
                require_known(arrays, path)
                rotation, shift = arrays["rotation"], arrays["shift_angstrom"]
                variance = arrays["covariance_upper"][:, _DIAGONAL]
            pose = Pose(torch.from_numpy(rotation), torch.from_numpy(shift))
            return cls(pose, torch.from_numpy(variance))
        path = folder / layout.PARTICLES
        given = RelionParticles.read(path).table().pose
        if given is None:
            raise InputError(f"{path} has no poses: expected rlnAngleRot and so on.")
        return cls(given, torch.zeros(len(given), LATENT_DIMENSIONS))


def read_motions(folder: Path) -> Motions:
    """Return the motions of the particles of a run.

    Raises
    ------
    InputError
        If the file is missing or damaged, or of another version.
    """
    path = folder / layout.POSTERIORS
    require_file(path, "file of posteriors")
    with run_arrays(path) as arrays:
        require_known(arrays, path)
        found = {one.name: arrays[one.name] for one in fields(Motions)}
        n, c = found["mean"].shape
        blank = Motions.blank(n, c)
        for name, array in found.items():
            if array.shape != getattr(blank, name).shape or array.dtype.kind != "f":
                raise ValueError(f"{name} has the shape {array.shape}")
        return Motions(
            **{name: torch.from_numpy(a).double() for name, a in found.items()}
        )


def write_posteriors(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays and the version of their layout, all of them or nothing."""
    named: dict[str, Any] = {**arrays, VERSION_KEY: np.int64(VERSION)}
    replace_file(path, lambda partial: np.savez(partial, **named))


def require_known(arrays: NpzFile, path: Path) -> None:
    """Refuse a layout that this version of the program does not know.

    Raises
    ------
    InputError
    """
    found = int(arrays[VERSION_KEY]) if VERSION_KEY in arrays.files else VERSION
    if found != VERSION:
        raise InputError(
            f"{path} has the layout of version {found}, expected version {VERSION}: it "
            "was made by another version of cryoinfer. Use that one, or repeat the "
            "run."
        )


def _float32(values: Tensor) -> NDArray[np.float32]:
    return values.detach().to("cpu", torch.float32).numpy()
