"""What the record of a run holds of its map."""

from dataclasses import asdict
from typing import Any

from cryoinfer.results.run_result import Reconstruction
from cryoinfer.wording import agree_nowhere

STRUCTURE_FOUND, EVIDENCE = "structure_found", "evidence"
"""Keys of the record: whether there is a structure, and by what that was told."""


def map_numbers(maps: Reconstruction) -> dict[str, Any]:
    """Return what the record of a run holds of its map.

    Where no structure was found, or its halves agree nowhere, it has no resolution:
    None.
    """
    box, pixel_size = maps.density.shape[-1], maps.pixel_size_angstrom
    is_none = agree_nowhere(maps.resolution_angstrom, box, pixel_size)
    numbers: dict[str, Any] = {
        "box": box,
        "pixel_size_angstrom": pixel_size,
        "resolution_angstrom": None if is_none else maps.resolution_angstrom,
        "shared_resolution_angstrom": maps.shared_resolution_angstrom,
        "symmetry": maps.symmetry,
    }
    if maps.evidence is not None:
        numbers[STRUCTURE_FOUND] = maps.evidence.is_structure
        numbers[EVIDENCE] = asdict(maps.evidence)
        if not maps.evidence.is_structure:
            numbers["resolution_angstrom"] = None
    return numbers
