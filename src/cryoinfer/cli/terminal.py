"""Lines for people: never coloured, cut or broken, so that paths can be copied."""

from rich.console import Console

from cryoinfer.wording import spell_angstrom


def say(console: Console, text: str) -> None:
    """Print a line as it stands, but for the sign of the angstrom."""
    console.print(spelled(console, text), markup=False, highlight=False, soft_wrap=True)


def spelled(console: Console, text: str) -> str:
    """Return a text with the sign of the angstrom, where a terminal can show it.

    What is piped or kept has the letter A, as the logs: it can be searched anywhere.
    """
    if not console.is_terminal:
        return text
    found = spell_angstrom(text)
    try:
        found.encode(console.encoding)
    except (UnicodeEncodeError, LookupError):
        return text
    return found


def say_rows(console: Console, rows: dict[str, str]) -> None:
    """Print names and values, the values below each other."""
    for line in aligned(rows):
        say(console, line)


def aligned(rows: dict[str, str]) -> list[str]:
    """Return a line for each name and value, the values below each other."""
    width = max(map(len, rows)) + 2
    return [f"{name:<{width}}{value}" for name, value in rows.items()]
