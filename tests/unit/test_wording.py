"""Words and signs for people."""

import pytest

from cryoinfer.wording import (
    format_bytes,
    format_duration,
    format_resolution,
    spell_angstrom,
)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("refinement to 3.30 A", "refinement to 3.30 Å"),
        ("Diameter in A; by default", "Diameter in Å; by default"),
        ("resolution (A), FSC 0.5", "resolution (Å), FSC 0.5"),
        ("of 1.6 A, found 2 A.", "of 1.6 Å, found 2 Å."),
        ("B-factors of 800 A2, in A2", "B-factors of 800 Å2, in Å2"),
        ("A", "Å"),  # all that an option takes
        # No units: chains, sets, names, numbers of another kind.
        ("chain A has 214 residues", "chain A has 214 residues"),
        ("The sets A to G", "The sets A to G"),
        ("1 ATP and 2 A-sites", "1 ATP and 2 A-sites"),
        ("in Angola, in A-form", "in Angola, in A-form"),
        ("3.30 Å", "3.30 Å"),
    ],
)
def test_an_a_that_is_a_unit_gets_its_ring(text: str, spelled: str) -> None:
    assert spell_angstrom(text) == spelled


@pytest.mark.parametrize(
    ("resolution", "told"),
    [
        # A box of 32 pixels of 2 A: 64 A long, Nyquist 4 A, the shell before 4.27 A.
        (64.0, "none"),
        (63.9, "63.90 A"),
        (4.3, "4.30 A"),
        (4.1, "4.10 A, at Nyquist"),
        (4.0, "4.00 A, at Nyquist"),
    ],
)
def test_a_resolution_says_where_the_box_or_the_pixels_end_it(
    resolution: float, told: str
) -> None:
    assert format_resolution(resolution, 32, 2.0) == told


def test_sizes_read_well() -> None:
    assert format_bytes(1.5e9) == "1.5 GB"
    assert format_bytes(2.6e7) == "26 MB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.7, "1 min 00 s"),
        (61, "1 min 01 s"),
        (3720, "1 h 02 min"),
    ],
)
def test_durations_read_well(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
