"""The structure that a command is given."""

from collections import Counter
from dataclasses import replace

from rich.console import Console

from cryoinfer.cli.terminal import say
from cryoinfer.data.examples import named_structure
from cryoinfer.data.given_structure import GivenStructure
from cryoinfer.data.nodes import Nodes


def told_structure(
    name: str, console: Console, *, moving: bool = True
) -> GivenStructure:
    """Return an example or a file's structure, and say what is left out of it.

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
    if moving and (without := Nodes.of_model(given.model).without):
        note = (
            f"Residues without a node, which move with the nearest: {_kinds(without)}"
        )
        given = replace(given, notes=(*given.notes, note))
    for note in given.notes:
        say(console, note)
    return given


def _kinds(kinds: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(kinds.items()))
