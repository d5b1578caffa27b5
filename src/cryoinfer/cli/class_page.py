"""What the report of classes shows, read from the folder of a run."""

from pathlib import Path

import numpy as np

from cryoinfer.cli.arguments import spelled_arguments
from cryoinfer.cli.nothing_found import INHERITED, resolution_words
from cryoinfer.errors import InputError
from cryoinfer.io.mrc import read_cube
from cryoinfer.report.classes import ClassContent, ClassesContent
from cryoinfer.results import layout
from cryoinfer.results.classes import ClassGain
from cryoinfer.results.posterior_files import require_known
from cryoinfer.results.run_arrays import run_arrays
from cryoinfer.results.run_files import CORRECTED, UNMASKED, read_fsc
from cryoinfer.results.run_record import REMARKS, RunRecord

HALVES = "the half-maps, masked"


def read_classes(path: Path) -> ClassesContent:
    """Collect what the report of classes shows.

    Raises
    ------
    InputError
        If the folder holds no run, or one that has not come to its end.
    """
    record = RunRecord.read(path)
    arrays_path = path / layout.POSTERIORS
    if not record.results or not arrays_path.exists():
        raise InputError(
            f"the run in {path} has not been finished: there is nothing to report. "
            "Resume it with `cryoinfer heterogeneity --resume`"
        )
    results, found = record.results, []
    for number, numbers in enumerate(results["class_maps"], 1):
        names = layout.of_class(number)
        curves = read_fsc(path, names.fsc)
        found.append(
            ClassContent(
                share=numbers["population"],
                share_se=numbers["population_se"],
                density=read_cube(path / names.density).density,
                fsc=curves[CORRECTED],
                fsc_unmasked=curves[UNMASKED],
                resolution=resolution_words(numbers, HALVES),
            )
        )
    with run_arrays(arrays_path) as arrays:
        require_known(arrays, arrays_path)
        weight = arrays["weight"].astype(float)
    gain = {name: tuple(values) for name, values in results["held_out_gain"].items()}
    return ClassesContent(
        title=path.absolute().name,
        created=record.created,
        of_class=tuple(found),
        probability=weight[~np.isnan(weight)],
        pixel_size_angstrom=results["class_maps"][0]["pixel_size_angstrom"],
        gain=ClassGain(**gain),
        chosen=record.arguments.get("classes") is not None,
        poses_given=record.arguments.get("poses") == "given",
        stage_seconds=record.stage_seconds,
        arguments=spelled_arguments(record.arguments),
        versions=record.versions,
        warnings=tuple(results.get(INHERITED, ())),
        remarks=tuple(results.get(REMARKS, ())),
    )
