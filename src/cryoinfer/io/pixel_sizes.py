"""Pixel sizes that there can be; imports nothing, so that help stays quick."""

PIXEL_SIZE_RANGE_ANGSTROM = (0.1, 100.0)
"""Pixel sizes of electron microscopy; a header outside it was never filled in."""


def is_plausible_pixel_size(pixel_size_angstrom: float) -> bool:
    """Return whether a pixel size is one that a microscope can have."""
    low, high = PIXEL_SIZE_RANGE_ANGSTROM
    return low <= pixel_size_angstrom <= high


_ROUNDING = 1e-3
"""Relative difference of sizes that files have rounded, to about four digits."""


def same_pixel_size(one_angstrom: float, other_angstrom: float) -> bool:
    """Return whether two pixel sizes are one but for the rounding of files."""
    larger = max(abs(one_angstrom), abs(other_angstrom))
    return abs(one_angstrom - other_angstrom) <= _ROUNDING * larger
