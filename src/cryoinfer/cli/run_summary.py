"""What a finished search or reconstruction says at its end."""

from cryoinfer.cli import run_folder
from cryoinfer.cli.options import RunOptions
from cryoinfer.cli.results import CAUTIONS
from cryoinfer.cli.run_folder import RunFolder
from cryoinfer.cli.terminal import aligned
from cryoinfer.wording import format_bytes, format_duration

_HANDEDNESS = {
    "abinitio": "The hand of the map is not known: untilted images cannot tell it. "
    "If it is wrong, `cryoinfer flip` mirrors the map and the poses together.",
    "refine": "The map has the hand of what it was refined from.",
    "reconstruct": "The map has the hand of the poses.",
}


def summary(folder: RunFolder, options: RunOptions) -> list[str]:
    """Return numbers, places, and all that asks for caution, line by line."""
    found = folder.record.results
    seconds = sum(folder.record.stage_seconds.values())
    peak = format_bytes(folder.record.peak_memory_bytes)
    path, halves, rows = folder.path, "the half-maps, masked", {}
    if options.method != "search":
        halves = "halves that were posed against one map"
        rows = {
            "Search": f"{found['searched_resolution_angstrom']:.2f} A (the same of "
            f"halves refined apart), {found['searched_particles']:,} particles",
            "Encoder": f"{found['verdict']}",
        }
    resolution = found["resolution_angstrom"]
    told = "none: no structure was found"
    if resolution is not None:
        told = f"{resolution:.2f} A (FSC 0.143 of {halves})"
    rows = {
        "Resolution": told,
        **rows,
        "Time": f"{format_duration(seconds)}, {peak} of memory at the peak",
        "Map": f"{path / run_folder.MAP}",
        "Particles": f"{path / run_folder.PARTICLES}",
        "Report": f"{path / run_folder.REPORT}",
    }
    warned = [f"Caution: {text}" for text in found[CAUTIONS]]
    return [*aligned(rows), _HANDEDNESS[options.workflow], *warned]
