"""The structure that a command is given."""

from rich.console import Console

from cryoinfer.cli.terminal import say
from cryoinfer.data.examples import EXAMPLE_NAMES, named_atoms
from cryoinfer.io.atoms import AtomicModel, read_models


def told_atoms(name: str, console: Console) -> AtomicModel:
    """Return the atoms of an example or a file, and say what is left out of it.

    Raises
    ------
    InputError
        As :func:`cryoinfer.data.examples.named_atoms`.
    """
    model = named_atoms(name)
    if name not in EXAMPLE_NAMES:
        count = len(read_models(name))
        if count > 1:
            say(
                console,
                f"{name} holds {count} models: the first is used. Particles that show "
                "all of them come from `cryoinfer simulate --trajectory`.",
            )
    return model
