"""The record that every check of a data set returns."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """Something that a user should know about a data set.

    Attributes
    ----------
    severity : {"error", "warning", "note"}
        An error stops every run; a warning probably spoils one.
    topic : str
        What it is about, such as ``"ctf"``.
    message : str
        What was expected, what was found and what to do.
    """

    severity: Severity
    topic: str
    message: str
