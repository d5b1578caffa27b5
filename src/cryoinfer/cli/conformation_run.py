"""What a run about conformations leaves in its folder, and says at its end."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from cryoinfer.cli.heterogeneity_page import read_heterogeneity
from cryoinfer.cli.nothing_found import ONE_MAP, resolution_words
from cryoinfer.cli.rejected_particles import OWN_CONFORMATIONS, LeftOut
from cryoinfer.cli.report_page import write_report
from cryoinfer.cli.results import CAUTIONS, PREPARED
from cryoinfer.cli.run_folder import RunFolder
from cryoinfer.cli.terminal import aligned
from cryoinfer.data.particles import Particles
from cryoinfer.report.heterogeneity import assess_heterogeneity, verdict_words
from cryoinfer.report.parts import cautions
from cryoinfer.results import layout
from cryoinfer.results.conformation_files import write_heterogeneity
from cryoinfer.results.field import FIELD
from cryoinfer.results.flags import OBEYED
from cryoinfer.results.heterogeneity import (
    COMPONENTS,
    CONTRAST_SD,
    LAST_RADIUS,
    Heterogeneity,
)
from cryoinfer.results.map_numbers import map_numbers
from cryoinfer.results.population_files import population_numbers, write_populations


def finish_conformations(
    folder: RunFolder,
    particles: Particles,
    used: Tensor,
    found: Heterogeneity,
    numbers: Mapping[str, Any],
) -> list[str]:
    """Write all files of a run, its report last, and return what is to be said.

    Parameters
    ----------
    folder : RunFolder
    particles : Particles
        All n of its file.
    used : Tensor of bool, shape (n,)
        Which were inferred.
    found : Heterogeneity
        Of those that were.
    numbers : mapping
        What its record is to hold beside the numbers of the conformations.
    """
    write_heterogeneity(folder.path, particles, used, found)
    left = int((~used).sum())
    counts = _left_out(found)
    numbers = {
        "particles": int(used.sum()),
        **({OBEYED: left} if left else {}),
        **(counts.numbers() if counts else {}),
        **map_numbers(found.reconstruction),
        COMPONENTS: found.dims,
        "verdict": verdict_words(found.gain, found.dims),
        "held_out_gain": asdict(found.gain),
        "pose_r2": list(found.pose_r2),
        "rigid_share": list(found.rigid_share),
        LAST_RADIUS: found.last_radius,
        **({} if found.contrast is None else {CONTRAST_SD: found.contrast.spread}),
        "z_sd": found.z_sd.median(0).values.tolist() if found.dims else [],
        "trials": {name: asdict(trial) for name, trial in found.trials.items()},
        **_field_numbers(found),
        **numbers,
    }
    if found.run.prepared is not None:
        numbers[PREPARED] = int(found.run.prepared.sum())
    folder.describe(numbers, [])
    content = read_heterogeneity(folder.path)
    numbers[CAUTIONS] = warned = cautions(assess_heterogeneity(content))
    numbers["populations"] = population_numbers(content.populations)
    write_populations(folder.path, content.populations)
    folder.describe(numbers, [])
    write_report(folder.path)
    folder.finish()
    return [*_summary(folder, found), *(f"Caution: {text}" for text in warned)]


def _field_numbers(found: Heterogeneity) -> dict[str, Any]:
    """Return what the record holds of fields, nothing where none was tried."""
    gain = found.field_gain
    if gain is None:
        return {}
    return {FIELD: {**asdict(gain), "kept": gain.best, "verdict": gain.verdict}}


def _left_out(found: Heterogeneity) -> LeftOut | None:
    return LeftOut.of_result(found.run)


def _summary(folder: RunFolder, found: Heterogeneity) -> list[str]:
    """Return what a finished run has led to."""
    rows = {"Conformations": verdict_words(found.gain, found.dims)}
    if found.field_gain is not None:
        rows["Field"] = found.field_gain.verdict
    rows["Mean map"] = resolution_words(map_numbers(found.reconstruction), ONE_MAP)
    for number in range(found.dims):
        spread = float(found.z[:, number].std())
        sd = float(found.z_sd[:, number].median())
        rows[f"z {number + 1}"] = (
            f"standard deviation {spread:.2f} over particles, {sd:.2f} of one (median)"
        )
    if found.contrast is not None:
        own = float(found.contrast.sd.median())
        rows["Contrast"] = (
            f"standard deviation {found.contrast.spread:.2f} over particles, {own:.2f} "
            "of one (median)"
        )
    if counts := _left_out(found):
        rows["Flagged"] = counts.novel_words(OWN_CONFORMATIONS)
        if counts.unreadable:
            rows["Unreadable"] = counts.unreadable_words()
    rows["Results"] = str(folder.path)
    rows["Report"] = str(folder.path / layout.REPORT)
    return aligned(rows)
