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


def format_resolution(
    resolution_angstrom: float, box: int, pixel_size_angstrom: float
) -> str:
    """Return a resolution such as ``6.95 A``; where maps agree nowhere, ``none``.

    Parameters
    ----------
    resolution_angstrom : float
        Where a correlation falls below a threshold: the length of the box if it is
        below it from the first shell on
        (:func:`cryoinfer.evaluation.resolution_at`).
    box : int
    pixel_size_angstrom : float

    Returns
    -------
    str
        In the last shell, ``at Nyquist`` is added: finer pixels may show more.
    """
    if agree_nowhere(resolution_angstrom, box, pixel_size_angstrom):
        return "none"
    at_nyquist = agree_at_nyquist(resolution_angstrom, box, pixel_size_angstrom)
    return f"{resolution_angstrom:.2f} A{', at Nyquist' * at_nyquist}"


def agree_nowhere(
    resolution_angstrom: float, box: int, pixel_size_angstrom: float
) -> bool:
    """Tell whether a resolution is that of maps that agree in no shell."""
    return resolution_angstrom >= box * pixel_size_angstrom


def agree_at_nyquist(
    resolution_angstrom: float, box: int, pixel_size_angstrom: float
) -> bool:
    """Tell whether a resolution is that of maps that agree up to the last shell.

    Nothing is measured in that one: what agrees up to it agrees at Nyquist.
    """
    last = box * pixel_size_angstrom / max(box // 2 - 1, 1)
    return resolution_angstrom <= last


def format_bytes(count: float) -> str:
    """Return a size such as ``1.5 GB``, in powers of ten as disks are sold."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
