"""What a finished search or reconstruction says at its end."""

from cryoinfer.cli.handedness import hand_words
from cryoinfer.cli.nothing_found import ONE_MAP, resolution_words, searched_words
from cryoinfer.cli.options import RunOptions
from cryoinfer.cli.rejected_particles import LeftOut
from cryoinfer.cli.results import CAUTIONS
from cryoinfer.cli.run_folder import RunFolder
from cryoinfer.cli.terminal import aligned
from cryoinfer.results import layout
from cryoinfer.wording import format_bytes, format_duration


def summary(folder: RunFolder, options: RunOptions) -> list[str]:
    """Return numbers, places, and all that asks for caution, line by line."""
    found = folder.record.results
    seconds = sum(folder.record.stage_seconds.values())
    peak = format_bytes(folder.record.peak_memory_bytes)
    path, halves = folder.path, "the half-maps, masked"
    rows: dict[str, str] = {}
    if options.method != "search" and options.head != "known":
        halves = ONE_MAP
    if "searched_particles" in found:
        rows = {
            "Search": f"{searched_words(found)} (the same of halves refined apart), "
            f"{found['searched_particles']:,} particles",
            "Encoder": f"{found['verdict']}",
        }
    left_out = LeftOut.of_results(found)
    if left_out is not None and left_out.novel:
        rows["Left out"] = left_out.novel_words()
    rows = {
        "Resolution": resolution_words(found, halves),
        **rows,
        "Time": f"{format_duration(seconds)}, {peak} of memory at the peak",
        "Map": f"{path / layout.MAP}",
        "Particles": f"{path / layout.PARTICLES}",
        "Report": f"{path / layout.REPORT}",
    }
    warned = [f"Caution: {text}" for text in found[CAUTIONS]]
    hand = [words] if (words := hand_words(folder.record)) else []
    return [*aligned(rows), *hand, *warned]
