"""The files of a run about classes: particles, probabilities, maps of each class."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.io.conventions.relion_columns import IMAGE
from cryoinfer.io.latents import write_columns
from cryoinfer.io.replacing import replace_file
from cryoinfer.records import Pose
from cryoinfer.results import layout
from cryoinfer.results.classes import Classes
from cryoinfer.results.posterior_files import write_posteriors
from cryoinfer.results.run_files import (
    CORRECTED,
    MASKED,
    RANDOMISED,
    UNMASKED,
    read_image_names,
    save_map,
    save_particles,
    write_fsc,
)
from cryoinfer.results.run_result import Reconstruction

_CLASS, _PROBABILITY = "class", "class_probability"
_NOTES = {
    _CLASS: "number of the likeliest class, from 1, the largest; none if not inferred",
    _PROBABILITY: "posterior probability of that class",
}
_NO_CLASS = 0  # of a particle that was left out, in RELION's column


@dataclass(frozen=True)
class ClassFiles:
    """The names of the files of one class.

    Attributes
    ----------
    density, half1, half2, mask, fsc : str
    """

    density: str
    half1: str
    half2: str
    mask: str
    fsc: str

    @classmethod
    def of(cls, number: int) -> "ClassFiles":
        """Return those of a class, from 1."""
        return cls(
            *(layout.CLASS_FILE.format(number, kind) for kind in layout.CLASS_KINDS)
        )


def write_classes(
    folder: Path, particles: Particles, used: Tensor, found: Classes
) -> None:
    """Write particles, latents, posteriors, and the maps of every class.

    Parameters
    ----------
    folder : Path
        Of the run.
    particles : Particles
        All n of its file.
    used : Tensor of bool, shape (n,)
        Which were inferred. The others keep the pose that they came with, and are in
        no class.
    found : Classes
        Of those that were.
    """
    rows = _rows(used, found)
    path = folder / layout.PARTICLES
    save_particles(path, _with_results(particles, used, rows, found))
    _write_latents(folder, rows)
    for number, maps in enumerate(found.reconstructions, 1):
        _write_maps(folder, ClassFiles.of(number), maps)
    write_posteriors(
        folder / layout.POSTERIORS,
        {name: value.float().numpy() for name, value in rows.items()},
    )


def _write_maps(folder: Path, names: ClassFiles, maps: Reconstruction) -> None:
    pixel_size = maps.pixel_size_angstrom
    save_map(folder / names.half1, maps.half1, pixel_size)
    save_map(folder / names.half2, maps.half2, pixel_size)
    save_map(folder / names.mask, maps.mask, pixel_size)
    save_map(folder / names.density, maps.density, pixel_size)
    curves = {
        CORRECTED: maps.fsc,
        UNMASKED: maps.fsc_unmasked,
        MASKED: maps.fsc_masked,
        RANDOMISED: maps.fsc_randomised,
    }
    write_fsc(folder / names.fsc, curves, pixel_size)


def _rows(used: Tensor, found: Classes) -> dict[str, Tensor]:
    """Return what was found of each particle of the file; NaN of those left out."""
    posterior, best = found.posterior, found.poses()
    number = found.class_number
    none = found.probability[:, :0]
    values = {
        "rotation": best.pose.rotation,
        "shift_angstrom": best.pose.shift_angstrom,
        "defocus_offset_angstrom": best.defocus_offset_angstrom,
        # There is no z: as of a run whose z carries nothing.
        "conformation": none,
        "mean": none,
        "sd": none,
        "weight": found.probability.gather(1, number[:, None] - 1)[:, 0],
        "covariance": posterior.covariance[:, 0, :6, :6],
        "log_likelihood": posterior.log_likelihood,
        "entropy_nats": posterior.entropy(),
        "class": number.double(),
        "class_probabilities": found.probability,
    }
    rows = {}
    for name, value in values.items():
        whole = value.new_full((len(used), *value.shape[1:]), torch.nan)
        whole[used] = value
        rows[name] = whole
    return rows


def _with_results(
    particles: Particles, used: Tensor, rows: Mapping[str, Tensor], found: Classes
) -> Particles:
    """Return the particles with poses, half-sets and classes."""
    rotation = torch.eye(3, dtype=torch.float64).repeat(len(used), 1, 1)
    shift = torch.zeros(len(used), 2, dtype=torch.float64)
    if particles.pose is not None:
        rotation[~used] = particles.pose.rotation[~used].double()
        shift[~used] = particles.pose.shift_angstrom[~used].double()
    rotation[used] = rows["rotation"][used]
    shift[used] = rows["shift_angstrom"][used]
    half = 1 + torch.arange(len(used)) % 2
    if particles.random_subset is not None:
        half = particles.random_subset.clone()
    half[used] = found.random_subset
    variance = rows["covariance"].diagonal(dim1=1, dim2=2)
    number = rows["class"].nan_to_num(nan=_NO_CLASS).long()
    columns: dict[str, NDArray[Any]] = {
        "rlnClassNumber": number.numpy(),
        "cryoinferRotationSdDegrees": _numbers(
            torch.rad2deg(variance[:, :3].mean(1).sqrt())
        ),
        "cryoinferShiftSdAngst": _numbers(variance[:, 3:5].mean(1).sqrt()),
        "rlnLogLikeliContribution": _numbers(rows["log_likelihood"]),
        "cryoinferClassProbability": _numbers(rows["weight"]),
    }
    return particles.with_results(
        pose=Pose(rotation, shift), random_subset=half, columns=columns
    )


def _numbers(values: Tensor) -> NDArray[np.float64]:
    return np.asarray(values.double().nan_to_num().numpy())


def _write_latents(folder: Path, rows: Mapping[str, Tensor]) -> None:
    """Write a row a particle."""
    columns: dict[str, NDArray[Any] | list[str]] = {
        IMAGE: [str(one) for one in read_image_names(folder).tolist()],
        _CLASS: rows["class"].numpy(),
        _PROBABILITY: rows["weight"].numpy(),
    }
    for number in range(rows["class_probabilities"].shape[1]):
        name = f"{_CLASS}_{number + 1}_probability"
        columns[name] = rows["class_probabilities"][:, number].numpy()
    columns["entropy_nats"] = rows["entropy_nats"].numpy()
    columns["log_likelihood"] = rows["log_likelihood"].numpy()
    path = folder / layout.LATENTS
    replace_file(path, lambda part: write_columns(part, columns, _NOTES))
