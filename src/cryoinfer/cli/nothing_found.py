"""Runs that have found no structure: what is said of them, and of what follows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryoinfer.cli.guard import NOTHING_FOUND
from cryoinfer.errors import InputError
from cryoinfer.results.layout import RECORD
from cryoinfer.results.map_numbers import EVIDENCE, STRUCTURE_FOUND
from cryoinfer.results.run_record import RunRecord
from cryoinfer.results.run_result import Evidence
from cryoinfer.wording import format_resolution

INHERITED = "inherited"
"""Key of the record: what is to be known of the runs that this one was made from."""

OWN_CAUTIONS = "own_cautions"
"""Key of the record: what asks for caution in this run alone, not in what is made from
it."""


ONE_MAP = "half-maps with poses from one map"
"""Half-maps of an encoder's run, whose agreement says too much."""


def resolution_words(results: Mapping[str, Any], halves: str) -> str:
    """Return the resolution that the record of a run holds; why, where it is none.

    Parameters
    ----------
    results : mapping
    halves : str
        Which half-maps it is of, such as ``the half-maps, masked``.
    """
    if results.get(STRUCTURE_FOUND) is False:
        return "none: no structure was found"
    resolution = results["resolution_angstrom"]
    if resolution is None:
        return "none: the half-maps agree nowhere"
    box, pixel_size = results["box"], results["pixel_size_angstrom"]
    reached = format_resolution(resolution, box, pixel_size)
    return f"{reached} (FSC 0.143 of {halves})"


def searched_words(results: Mapping[str, Any]) -> str:
    """Return the resolution of the search behind an encoder's run."""
    return format_resolution(
        results["searched_resolution_angstrom"],
        results["box"],
        results["pixel_size_angstrom"],
    )


def exit_code(record: RunRecord) -> int:
    """Return 3 for a run that found no structure, 0 for any other."""
    return NOTHING_FOUND if record.results.get(STRUCTURE_FOUND) is False else 0


def nothing_words(results: Mapping[str, Any]) -> str:
    """Say why no structure was found; nothing if one was, or nobody asked."""
    if results.get(STRUCTURE_FOUND) is not False:
        return ""
    found = Evidence(**results[EVIDENCE])
    if found.is_seen and found.astray_share is not None:
        return (
            "No structure was found: the poses do not fit the map. Of the tested "
            f"images {found.astray_share:.0%} fit it better at another pose than at "
            "the one found for them, as when the training has not converged. Do not "
            "use the map or the poses. Another seed may converge; `cryoinfer abinitio` "
            "searches all poses by default."
        )
    if found.is_seen and found.is_single_view:
        return (
            "No structure was found: the particles are seen from one direction only, "
            "or nearly so. One projection of the map explains "
            f"{found.single_view_share:.0%} of what the map explains, and the views "
            "leave much of Fourier space unmeasured. A map in space cannot be made of "
            "them: do not use it. Tilt the stage, or find other views."
        )
    return (
        "No structure was found: images fit the map of the other half-set no better "
        f"than maps of noise. They gain {found.excess_nats:.2f} nats each "
        f"({found.images:,} images), and {found.needed_nats:.2f} are needed. Where the "
        "half-maps agree, they owe it to their common start. Do not use the map or the "
        "poses. Are there particles in the images, white on black, with the right "
        "pixel size and CTF? If so, more of them may help."
    )


def inherited(*inputs: Path | None) -> list[str]:
    """Return what is to be known of the runs that inputs come from.

    Parameters
    ----------
    inputs : path or None
        Folders of runs, or files, which may lie in one.
    """
    said: list[str] = []
    for path in inputs:
        folder = None if path is None else path if path.is_dir() else path.parent
        if folder is None or not (folder / RECORD).is_file():
            continue
        try:
            results = RunRecord.read(folder).results
        except InputError:
            continue  # of another program, or damaged: the file itself will tell
        if results.get(STRUCTURE_FOUND) is False:
            said.append(
                f"The run in {folder} found no structure: nor does anything made from "
                "it show one, whatever its numbers say."
            )
        said += results.get(INHERITED, [])
    return list(dict.fromkeys(said))
