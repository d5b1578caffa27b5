"""What terminals are shown."""

import io

import pytest
from rich.console import Console

from cryoinfer.cli.terminal import say


def shown(encoding: str, terminal: bool) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="")
    say(Console(file=file, force_terminal=terminal, width=40), "Resolution 3.30 A")
    file.flush()
    return raw.getvalue().decode(encoding).strip()


@pytest.mark.parametrize(
    ("encoding", "terminal", "text"),
    [
        ("utf-8", True, "Resolution 3.30 Å"),
        ("latin-1", True, "Resolution 3.30 Å"),
        ("ascii", True, "Resolution 3.30 A"),
        # What is piped is searched, and read where nobody knows its encoding.
        ("utf-8", False, "Resolution 3.30 A"),
    ],
)
def test_the_angstrom_has_its_sign_where_it_can(
    encoding: str, terminal: bool, text: str
) -> None:
    assert shown(encoding, terminal) == text
