"""What a watch goes on from, in a file of its folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from cryoinfer.cli.watched_files import Stamp
from cryoinfer.errors import state_of_this_version
from cryoinfer.workflows.inferred import Inferred

DEFOCI = ("defocus_u_angstrom", "defocus_v_angstrom")


@dataclass(frozen=True)
class Kept:
    """What a watch goes on from.

    Attributes
    ----------
    files : mapping of str to Stamp
        That are in.
    defoci : mapping of str to Tensor, each shape (n,)
        As they were given.
    groups : tuple of int
        Numbers that the files give to the optics groups.
    inferred : Inferred
        Of n particles.
    """

    files: Mapping[str, Stamp]
    defoci: Mapping[str, Tensor]
    groups: tuple[int, ...]
    inferred: Inferred

    def to_state(self) -> dict[str, object]:
        """Return all of it, for a checkpoint."""
        return {
            "files": [[name, *stamp] for name, stamp in self.files.items()],
            "given": dict(self.defoci),
            "groups": list(self.groups),
            **self.inferred.to_state(),
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any], box: int) -> Self:
        """Return what a checkpoint holds.

        Raises
        ------
        InputError
            If it is of maps of another box, or of another version of the program.
        """
        inferred = Inferred.of_state(state, box)
        with state_of_this_version():
            files = {
                name: (int(size), int(time)) for name, size, time in state["files"]
            }
            defoci = {name: state["given"][name] for name in DEFOCI}
            groups = tuple(map(int, state["groups"]))
            if any(one.shape != inferred.half.shape for one in defoci.values()):
                raise ValueError("expected as many defoci as particles")
            if len(groups) != len(inferred.noise_power):
                raise ValueError("expected a noise spectrum for every optics group")
        return cls(files, defoci, groups, inferred)
