"""The files of a run about classes: particles, probabilities, maps of each class."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.io.conventions.relion_columns import IMAGE
from cryoinfer.io.latents import write_columns
from cryoinfer.io.replacing import replace_file
from cryoinfer.results import layout
from cryoinfer.results.classes import Classes
from cryoinfer.results.particle_rows import (
    among_all,
    column,
    width_columns,
    with_found,
)
from cryoinfer.results.posterior_files import write_posteriors
from cryoinfer.results.run_files import (
    read_image_names,
    save_particles,
    write_reconstruction,
)

_CLASS, _PROBABILITY = "class", "class_probability"
_NOTES = {
    _CLASS: "number of the likeliest class, from 1, the largest; none if not inferred",
    _PROBABILITY: "posterior probability of that class",
}
_NO_CLASS = 0  # of a particle that was left out, in RELION's column


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
        write_reconstruction(folder, maps, layout.of_class(number))
    write_posteriors(
        folder / layout.POSTERIORS,
        {name: value.float().numpy() for name, value in rows.items()},
    )


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
    return among_all(used, values)


def _with_results(
    particles: Particles, used: Tensor, rows: Mapping[str, Tensor], found: Classes
) -> Particles:
    """Return the particles with poses, half-sets and classes."""
    number = rows["class"].nan_to_num(nan=_NO_CLASS).long()
    columns: dict[str, NDArray[Any]] = {
        "rlnClassNumber": number.numpy(),
        **width_columns(rows["covariance"], rows["log_likelihood"]),
        "cryoinferClassProbability": column(rows["weight"]),
    }
    return with_found(particles, used, rows, found.random_subset, columns)


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
