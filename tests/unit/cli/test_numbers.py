"""No option of any command takes a number that is none."""

import inspect
from typing import Any, get_args, get_type_hints

import pytest
import typer
from typer.testing import CliRunner

from cryoinfer.cli import numbers
from cryoinfer.cli.app import app

COMMANDS: Any = typer.main.get_command(app).commands  # type: ignore[attr-defined]

MEANT = {("simulate", "--snr-db", "inf"): "no noise, as its help says"}
"""Words that are a number only to the eye, and yet have a meaning, each with it."""


def options(kind: type) -> list[Any]:
    """Return command and option, for those that take such numbers."""
    found = []
    for name, command in COMMANDS.items():
        # A command that takes the options of particles says so itself.
        function = inspect.unwrap(
            command.callback, stop=lambda f: hasattr(f, "__signature__")
        )
        hints = get_type_hints(function)
        for option in command.params:
            hint = hints[option.name]
            # ``float``, ``float | None`` and ``tuple[float, float] | None``.
            inner = {part for outer in get_args(hint) for part in get_args(outer)}
            if kind in {hint, *get_args(hint), *inner}:
                found.append(pytest.param(name, option, id=f"{name} {option.opts[0]}"))
    return found


def refusal(command: str, option: Any, word: str) -> str:
    """Return what a command says of a value, before it looks at anything else."""
    needed = [p for p in COMMANDS[command].params if p.required and p is not option]
    words = [command, option.opts[0], *[word] * option.nargs]
    for parameter in needed:
        is_option = parameter.param_type_name == "option"
        words += [parameter.opts[0], "none"] if is_option else ["none"]
    answer = CliRunner().invoke(
        app,
        words,
        env={"COLUMNS": "300", "NO_COLOR": "1"},
    )
    assert answer.exit_code == 2
    return answer.output


@pytest.mark.parametrize(("command", "option"), options(float))
@pytest.mark.parametrize("word", ["nan", "inf"])
def test_no_option_takes_what_is_no_quantity(
    command: str, option: Any, word: str
) -> None:
    said = refusal(command, option, word)
    is_meant = (command, option.opts[0], word) in MEANT
    assert ("Invalid value for '" in said) != is_meant, said


@pytest.mark.parametrize(("command", "option"), options(int))
def test_no_option_counts_beyond_what_machines_count(command: str, option: Any) -> None:
    assert "Invalid value for '" in refusal(command, option, str(2**64))


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_seeds_have_one_bound(command: str) -> None:
    seed = next((p for p in COMMANDS[command].params if p.name == "seed"), None)
    if seed is not None:
        said = refusal(command, seed, str(2**63))
        assert f"from 0 to {2**63 - 1:,}" in said


def test_there_are_options_that_were_looked_at() -> None:
    assert len(options(float)) > 20
    assert len(options(int)) > 20


@pytest.mark.parametrize(
    ("check", "taken", "refused"),
    [
        (numbers.between(1.0, 2.0), (None, 1.0, 1.5, 2.0), (0.9, 2.1)),
        (numbers.between(0.0, 2.0, above=True), (None, 1e-9, 2.0), (0.0, -1.0)),
        (numbers.whole(1), (None, 1, 10**9), (0, 10**9 + 1)),
        (numbers.whole(0, 20), (None, 0, 20), (-1, 21)),
        (numbers.pixel_size(), (0.1, 100.0), (0.09, 0.0, 101.0)),
        (numbers.length(), (0.01, 1e6), (0.0, -1.0, 1e7)),
        (numbers.distance(), (0.0, 1e6), (-1.0, 1e7)),
        (numbers.finite(), (None, -1e300, 0.0), ()),
        (numbers.signal_to_noise, (None, float("inf"), -100.0, 100.0), (-101.0, 101.0)),
        (numbers.defocus_range, (None, (1.0, 1.0), (0.5, 50.0)), ((2.0, 1.0),)),
    ],
)
def test_what_each_rule_takes(check: Any, taken: Any, refused: Any) -> None:
    for value in taken:
        assert check(value) == value
    for value in refused:
        with pytest.raises(typer.BadParameter, match="expected"):
            check(value)


def test_defoci_of_nothing_are_refused() -> None:
    with pytest.raises(typer.BadParameter, match="above 0 and at most 50, found 0"):
        numbers.defocus_range((0.0, 0.0))
