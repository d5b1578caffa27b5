"""The files of maps of conformations, and the conformations of a run."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cryoinfer.errors import InputError
from cryoinfer.io.files import require_file
from cryoinfer.io.replacing import replace_file
from cryoinfer.io.star import StarBlock, StarFile, text_column, write_star
from cryoinfer.reconstruction.kernel_regression import ConformationPosterior
from cryoinfer.results import layout
from cryoinfer.results.map_numbers import map_numbers
from cryoinfer.results.posterior_files import LATENT_DIMENSIONS, require_known
from cryoinfer.results.run_arrays import run_arrays
from cryoinfer.results.run_files import write_reconstruction
from cryoinfer.results.run_record import RunRecord
from cryoinfer.results.target_volume import TargetVolume

TABLE, STAR_TABLE, SCRIPT = "volumes.json", "volumes.star", "volumes.cxc"
_OWN = re.compile(r"volume_\d{3,}(_half1|_half2|_mask|_fsc)?\.(mrc|star)")
_INFINITE_ANGSTROM = 999.0  # what RELION writes where there is no resolution


def read_conformation_posterior(folder: Path) -> ConformationPosterior:
    """Return what a run has found of the conformation of every particle.

    Raises
    ------
    InputError
        If it has not inferred any, or the file is damaged.
    """
    path = folder / layout.POSTERIORS
    workflow = RunRecord.read(folder).workflow
    other = InputError(
        f"{folder} is a run of `cryoinfer {workflow}`, which infers no conformations: "
        "expected one of `cryoinfer heterogeneity` or `cryoinfer dynamics`"
    )
    if workflow == "train":
        raise other
    require_file(path, "file of posteriors")
    with run_arrays(path) as arrays:
        require_known(arrays, path)
        if "mean" not in arrays.files or not arrays["mean"].size:
            raise other
        mean, covariance = arrays["mean"], arrays["covariance"]
        n, q = mean.shape
        size = LATENT_DIMENSIONS + q
        if covariance.shape != (n, size, size) or covariance.dtype.kind != "f":
            raise ValueError(f"covariance has the shape {covariance.shape}")
    part = covariance[:, LATENT_DIMENSIONS:, LATENT_DIMENSIONS:]
    return ConformationPosterior(
        torch.from_numpy(mean).double(), torch.from_numpy(part).double()
    )


def map_name(number: int) -> str:
    """Return the name of a map, numbers from 1."""
    return _names(number).density


def _names(number: int) -> layout.MapNames:
    return layout.MapNames.after(f"volume_{number:03d}")


def clear_volumes(folder: Path) -> None:
    """Remove what an earlier command of the same name left; other files stay."""
    for path in folder.iterdir():
        if path.name in (TABLE, STAR_TABLE, SCRIPT) or _OWN.fullmatch(path.name):
            path.unlink()


def write_volume(folder: Path, number: int, volume: TargetVolume) -> dict[str, Any]:
    """Write the maps of a conformation, and return its row of the table.

    Parameters
    ----------
    folder : Path
    number : int
        From 1.
    volume : TargetVolume
    """
    maps, names = volume.reconstruction, _names(number)
    write_reconstruction(folder, maps, names)
    return {
        "map": names.density,
        "half1": names.half1,
        "half2": names.half2,
        "mask": names.mask,
        "fsc": names.fsc,
        "z": volume.target.tolist(),
        "near_particles": volume.near_particles,
        "effective_particles": volume.effective_particles,
        "resolution_angstrom": map_numbers(maps)["resolution_angstrom"],
        "particles_by_shell": volume.shell_particles.tolist(),
    }


def write_tables(
    folder: Path, rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]
) -> None:
    """Write the script for ChimeraX and the tables, ``volumes.json`` last of all.

    Parameters
    ----------
    folder : Path
    rows : sequence of dict
        From :func:`write_volume`, in order.
    about : dict
        What else ``volumes.json`` is to say: of which run, with what it was made.
    """
    script = _script([row["map"] for row in rows])
    replace_file(folder / SCRIPT, lambda part: part.write_text(script))
    star = StarFile((StarBlock("volumes", _columns(rows)),))
    replace_file(folder / STAR_TABLE, lambda part: write_star(part, star))
    text = json.dumps({**about, "volumes": list(rows)}, indent=2) + "\n"
    replace_file(folder / TABLE, lambda part: part.write_text(text))


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
    z = np.array([row["z"] for row in rows])
    resolution = [row["resolution_angstrom"] or _INFINITE_ANGSTROM for row in rows]
    effective = np.array([row["effective_particles"] for row in rows])
    near = np.array([row["near_particles"] for row in rows])
    return {
        "rlnReferenceImage": np.array([row["map"] for row in rows]),
        **{
            f"cryoinferZ{axis + 1}": text_column(z[:, axis], "%.6g")
            for axis in range(z.shape[1])
        },
        "cryoinferNearParticles": text_column(near, "%d"),
        "cryoinferEffectiveParticles": text_column(effective, "%.1f"),
        "rlnEstimatedResolution": text_column(np.array(resolution), "%.4f"),
    }


def _script(names: Sequence[str]) -> str:
    """Return commands that open the maps in ChimeraX, as a series."""
    series = " vseries true" if len(names) > 1 else ""
    lines = [
        "# open this file in ChimeraX, from its own folder",
        f"open {' '.join(names)}{series}",
        "volume #1 style surface sdLevel 4",
        "view",
    ]
    if len(names) > 1:
        lines.append("vseries play #1 loop true direction oscillate")
    return "\n".join([*lines, ""])
