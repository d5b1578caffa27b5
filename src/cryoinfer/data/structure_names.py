"""The names that stand for structures and sets; imports nothing heavy."""

from pathlib import Path

from cryoinfer.errors import InputError

EXAMPLE_NAMES = (
    "adenylate-kinase-open",
    "adenylate-kinase-closed",
    "adenylate-kinase-c4",
    "adenylate-kinase-d2",
)
"""What :func:`cryoinfer.data.examples.example_atoms` knows."""

PRESET_NAMES = tuple(f"cryoposenet-{letter}" for letter in "abcdefg")
"""What :func:`cryoinfer.data.simulation_presets.simulation_preset` knows."""


def require_structure(name: str) -> None:
    """Refuse what is neither an example nor there.

    Raises
    ------
    InputError
    """
    if name in EXAMPLE_NAMES or _exists(name):
        return
    raise InputError(
        f"The structure {name!r} is neither a file nor one of the examples "
        f"{', '.join(EXAMPLE_NAMES)}."
    )


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False  # of a name that no file can have
