"""What may be chosen of an inference of conformations, and what cannot work."""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.workflows.abinitio import AbinitioConfig
from cryoinfer.workflows.random_start import require_many

_MOST_DIMS = 4
"""Components that are tried where the number is left open."""

_FEWEST_EACH = 50
"""Particles a component, below which noise makes components of its own."""


@dataclass(frozen=True, kw_only=True)
class ConformationConfig:
    """What may be chosen of both, a subspace and classes; None leaves it open.

    Attributes
    ----------
    poses : {"unknown", "given"}
    resolution_angstrom : float
        That conformations, or classes, are inferred at.
    particle_diameter_angstrom, max_shift_angstrom : float, optional
        As of :class:`cryoinfer.workflows.abinitio.AbinitioConfig`.
    learning_particles : int
        Most particles that the subspace, or the classes, are learned from.
    seed : int
    """

    poses: Literal["unknown", "given"] = "unknown"
    resolution_angstrom: float = 10.0
    particle_diameter_angstrom: float | None = None
    max_shift_angstrom: float | None = None
    learning_particles: int = 10_000
    seed: int = 0

    def abinitio(self, resolution_angstrom: float) -> AbinitioConfig:
        """Return the configuration of ab initio runs to a resolution."""
        return AbinitioConfig(
            particle_diameter_angstrom=self.particle_diameter_angstrom,
            resolution_angstrom=resolution_angstrom,
            max_shift_angstrom=self.max_shift_angstrom,
            starts=1,
            seed=self.seed,
        )


@dataclass(frozen=True)
class HeterogeneityConfig(ConformationConfig):
    """What may be chosen of a subspace; the rest as of :class:`ConformationConfig`.

    Attributes
    ----------
    dims : int, optional
        Components; by default as many as say something of images that they were not
        made of, at most 4.
    focus_mask : Tensor, shape (n, n, n), optional
        From 0 to 1, on the voxels of the particles, in the frame of the given poses.
        Components are multiplied by it, the mean is not: z is of motions inside it.
    contrast : bool
        Whether the contrast of every particle is inferred where it varies. Encoders
        and curved fields take all particles to be equally strong.
    """

    dims: int | None = None
    focus_mask: Tensor | None = field(default=None, compare=False)
    contrast: bool = True

    def tried_dims(self, particles: int) -> int:
        """Return how many components are looked for at first."""
        if self.dims is not None:
            return self.dims
        learning = min(particles, self.learning_particles)
        return max(1, min(_MOST_DIMS, learning // _FEWEST_EACH))


def require_frame_of_mask(focus_mask: object, poses: str) -> None:
    """Refuse a focus mask whose frame nobody knows.

    Raises
    ------
    InputError
        If there is one, and poses are unknown.
    """
    if focus_mask is not None and poses != "given":
        raise InputError(
            "a focus mask lies in the frame of a map, and a search for unknown poses "
            "ends in a frame of its own: give the particles of a run of `cryoinfer "
            "abinitio` or `refine`, whose map the mask was made on, with --poses given"
        )


def require_enough(particles: int, config: HeterogeneityConfig) -> None:
    """Refuse more components than particles can carry.

    Raises
    ------
    InputError
    """
    if config.poses == "unknown":
        require_many(particles)
    dims = config.tried_dims(particles)
    needed, found = _FEWEST_EACH * dims, min(particles, config.learning_particles)
    if dims < 1 or found < needed:
        raise InputError(
            f"expected at least one component, and {_FEWEST_EACH} particles to learn "
            f"each from: {needed:,} for {dims}, found {found:,}; --dims and --learn "
            "change this"
        )
