"""Lines for people: never coloured, cut or broken, so that paths can be copied."""

from rich.console import Console


def say(console: Console, text: str) -> None:
    """Print a line as it stands."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def say_rows(console: Console, rows: dict[str, str]) -> None:
    """Print names and values, the values below each other."""
    for line in aligned(rows):
        say(console, line)


def aligned(rows: dict[str, str]) -> list[str]:
    """Return a line for each name and value, the values below each other."""
    width = max(map(len, rows)) + 2
    return [f"{name:<{width}}{value}" for name, value in rows.items()]


def format_bytes(count: float) -> str:
    """Return a size such as ``1.5 GB``, in powers of ten as disks are sold."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
