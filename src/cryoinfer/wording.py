"""Words and signs for people: times, sizes, and the sign of the angstrom."""

import re

# A number, or a word that asks for a unit, before an A that stands alone.
_ANGSTROM = re.compile(r"((?<=\d)|(?<=\bin)) A(?=[23]?(?![\w'-]))|\(A\)|^A$")


def spell_angstrom(text: str) -> str:
    """Return a text with the sign of the angstrom, where it has an A in its place.

    Pages and terminals show the sign; what is logged, piped or written to a table keeps
    the letter, which every encoding has.
    """
    return _ANGSTROM.sub(
        lambda found: found[0].replace(
            "A", "\N{LATIN CAPITAL LETTER A WITH RING ABOVE}"
        ),
        text,
    )


def format_duration(seconds: float) -> str:
    """Return a time in the two units that fit it, such as ``3 min 20 s``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def format_bytes(count: float) -> str:
    """Return a size such as ``1.5 GB``, in powers of ten as disks are sold."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
