"""What learning particles have taught of a subspace of maps."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from torch import Tensor

from cryoinfer.errors import state_of_this_version
from cryoinfer.results.heterogeneity import HeldOutGain
from cryoinfer.workflows.subspace_update import Subspace


@dataclass(frozen=True)
class LearnedSubspace:
    """What the learning particles have taught.

    Attributes
    ----------
    subspace : Subspace
        Of as many components as are kept.
    noise : tuple of Tensor
    gain : HeldOutGain
    shift_sd_angstrom : float
        Spread of their shifts about the centres of their boxes.
    """

    subspace: Subspace
    noise: tuple[Tensor, ...]
    gain: HeldOutGain
    shift_sd_angstrom: float

    @property
    def dims(self) -> int:
        """Number of components that are kept, which may be 0."""
        return len(self.subspace.maps) - 1

    def to_state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "subspace": dict(vars(self.subspace)),
            "noise": list(self.noise),
            "gain": asdict(self.gain),
            "shift_sd_angstrom": self.shift_sd_angstrom,
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Self:
        """Invert :meth:`to_state`."""
        with state_of_this_version():
            return cls(
                Subspace(**state["subspace"]),
                tuple(state["noise"]),
                HeldOutGain(**state["gain"]),
                state["shift_sd_angstrom"],
            )
