"""The help of every command, as someone sees it who has never seen it."""

import re
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cryoinfer.cli.app import app

COMMANDS: Any = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def shown(*words: str, terminal: bool = False) -> str:
    environment = {"COLUMNS": "120", "NO_COLOR": "1"}
    if terminal:
        environment["FORCE_COLOR"] = "1"  # by which rich knows one
    answer = CliRunner().invoke(app, [*words, "--help"], env=environment)
    assert answer.exit_code == 0
    return answer.output


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_says_what_it_takes(name: str) -> None:
    text = shown(name)
    assert "Example" in text
    # Bounds that no person meets, and names of types of numbers.
    assert not re.search(r"<=|\d{9}|<(int|float|int range|float range)>", text)
    for option in COMMANDS[name].params:
        assert option.help, option.name
        assert option.help[0].isupper() or option.help.startswith("search:")


def test_commands_stand_by_what_they_are_for() -> None:
    text = shown()
    panels = re.findall(r"─ ([A-Z][a-z ]+) ─", text)
    assert panels == [
        "Options",
        "From images to a map",
        "From many more images",
        "Conformations and motion",
        "Results and files",
    ]
    assert all(re.search(rf"│ {name} ", text) for name in COMMANDS)


def test_lengths_have_their_sign_on_a_terminal() -> None:
    assert "Diameter of the particle in A;" in shown("abinitio")
    assert "Diameter of the particle in Å;" in shown("abinitio", terminal=True)
