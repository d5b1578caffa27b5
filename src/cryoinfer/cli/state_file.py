"""The state of a run that is under way, in a file of its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryoinfer.errors import InputError
from cryoinfer.io.replacing import replace_file

FORMAT = 1
"""Raised whenever what stands in the file around the state changes."""

_ANEW = "Delete it to start again with --resume"


class StateFile:
    """Keeps one state of one run.

    Parameters
    ----------
    path : Path
    run : str
        What tells the run from all others, as
        :meth:`cryoinfer.results.run_record.RunRecord.key` does.
    """

    def __init__(self, path: Path, run: str) -> None:
        self.path, self._run = path, run

    def save(self, state: Mapping[str, object]) -> None:
        """Replace the state; a half-written one never takes its place.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        from cryoinfer.io.torch_files import write_values

        values = {"format": FORMAT, "run": self._run, "state": dict(state)}
        replace_file(self.path, lambda path: write_values(path, values))

    def load(self) -> dict[str, Any] | None:
        """Return the state, None if there is none.

        Raises
        ------
        InputError
            If the file is damaged, or of another run or version.
        """
        from cryoinfer.io.torch_files import read_values

        if not self.path.exists():
            return None
        try:
            values = read_values(self.path)
        except InputError as error:
            raise InputError(
                f"The checkpoint {self.path} is damaged. {_ANEW}, or copy it again."
            ) from error
        if values.get("format") != FORMAT or not isinstance(values.get("state"), dict):
            raise InputError(
                f"The checkpoint {self.path} was kept by another version of cryoinfer. "
                f"{_ANEW}, or resume with that version."
            )
        if values.get("run") != self._run:
            raise InputError(
                f"The checkpoint {self.path} is of another run: of other particles or "
                f"other options. {_ANEW}, or put the run's own back."
            )
        state: dict[str, Any] = values["state"]
        return state
