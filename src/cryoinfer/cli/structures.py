"""The structure that a command is given."""

from collections import Counter

from rich.console import Console

from cryoinfer.cli.terminal import say
from cryoinfer.data.examples import named_structure
from cryoinfer.data.nodes import Nodes
from cryoinfer.io.atoms import AtomicModel


def told_atoms(name: str, console: Console, *, moving: bool = True) -> AtomicModel:
    """Return the atoms of an example or a file, and say what is left out of it.

    Parameters
    ----------
    name : str
    console : Console
    moving : bool
        Whether residues without a node are to be told as well.

    Raises
    ------
    InputError
        As :func:`cryoinfer.data.examples.named_structure`; if it is to move and has no
        nodes.
    """
    given = named_structure(name)
    for note in given.notes:
        say(console, note)
    if moving and (without := Nodes.of_model(given.model).without):
        say(
            console,
            "Residues without a node, which move with the nearest: "
            f"{_counted(without)}",
        )
    return given.model


def _counted(kinds: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(kinds.items()))
