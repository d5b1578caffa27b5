"""The structure that a command is given."""

from collections import Counter
from dataclasses import replace

from rich.console import Console

from cryoinfer.cli.terminal import say
from cryoinfer.data.examples import named_structure
from cryoinfer.data.given_structure import GivenStructure
from cryoinfer.data.nodes import Nodes
from cryoinfer.errors import InputError
from cryoinfer.physics.structures.elastic import FEWEST_NODES


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
        As :func:`cryoinfer.data.examples.named_structure`; if it is to move and has
        fewer than 4 nodes.
    """
    given = named_structure(name)
    if moving:
        nodes = Nodes.of_model(given.model)
        if len(nodes.atom) < FEWEST_NODES:
            raise InputError(
                f"{name}: expected {FEWEST_NODES} residues or more that move as nodes, "
                f"found {len(nodes.atom)}"
            )
        if nodes.without:
            note = (
                "Residues without a node, which move with the nearest: "
                f"{_kinds(nodes.without)}"
            )
            given = replace(given, notes=(*given.notes, note))
    for note in given.notes:
        say(console, note)
    return given


def _kinds(kinds: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(kinds.items()))
