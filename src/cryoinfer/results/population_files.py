"""The file of densities and free energies along z: `populations.csv`."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cryoinfer.evaluation.populations import AxisPopulation
from cryoinfer.io.replacing import replace_file
from cryoinfer.results import layout

_COLUMNS = (
    *("axis", "z", "density", "density_low", "density_high"),
    *("free_energy_kt", "free_energy_low_kt", "free_energy_high_kt"),
)


def write_populations(folder: Path, populations: Sequence[AxisPopulation]) -> None:
    """Write a row a place of every axis; energies are empty where nothing was seen.

    Parameters
    ----------
    folder : Path
        Of the run.
    populations : sequence of AxisPopulation
        One an axis.
    """

    def write(path: Path) -> None:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            for axis, one in enumerate(populations, 1):
                values = (
                    *(one.at, one.density, one.low, one.high),
                    *(one.energy, one.energy_low, one.energy_high),
                )
                for row in np.stack(values, 1).tolist():
                    spelled = ["" if x != x else f"{x:.6g}" for x in row]
                    writer.writerow([axis, *spelled])

    replace_file(folder / layout.POPULATIONS, write)


def population_numbers(populations: Sequence[AxisPopulation]) -> list[dict[str, Any]]:
    """Return what the record of a run holds of states along each axis.

    The outermost ends are null.
    """
    return [
        {
            "axis": axis,
            "smoothed_by": one.width,
            "likelihood_sd": one.likelihood_sd,
            "states": [
                {
                    "from": basin.low if np.isfinite(basin.low) else None,
                    "to": basin.high if np.isfinite(basin.high) else None,
                    "share": basin.share,
                    "standard_error": basin.standard_error,
                    "interval_90": [basin.share_low, basin.share_high],
                }
                for basin in one.basins
            ],
        }
        for axis, one in enumerate(populations, 1)
    ]
