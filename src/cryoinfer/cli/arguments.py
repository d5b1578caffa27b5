"""Arguments of a command: as a record keeps them, and as a user gives them.

A record has them by the names of the command line, flags as true or false.
"""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_WITHOUT_OPTION = ("particles", "run", "encoder")
"""Names of what a command takes without an option."""


def recorded_path(path: Path) -> str:
    """Return the name of a path that a record keeps: one, however it was spelled.

    A file that is a link keeps its own name, for its folder is where others are
    looked for.
    """
    # Not Path.resolve, which fails where links go in a circle.
    if path.is_dir():
        return os.path.realpath(path)
    return os.path.join(os.path.realpath(path.parent), path.name)


def spelled_arguments(arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return what was given, by option, as it stands behind it on a command line.

    Parameters
    ----------
    arguments : mapping
        As a record keeps them.
    """
    return {
        _option(name): _value(name, value)
        for name, value in arguments.items()
        if _is_given(value)
    }


def told_argument(name: str, value: object) -> str:
    """Say with what, or without which option, a run was started."""
    if not _is_given(value):
        return f"without {_option(name)}"
    return f"with {_option(name)} {_value(name, value)}".rstrip()


def _is_given(value: object) -> bool:
    return value is not None and value is not False and value != []


def _option(name: str) -> str:
    return name if name in _WITHOUT_OPTION else f"--{name}"


def _value(name: str, value: object) -> str:
    if value is True:
        return ""
    values = value if isinstance(value, list) else [value]
    # An option with several values is given several times.
    return f" {_option(name)} ".join(shlex.quote(str(one)) for one in values)
