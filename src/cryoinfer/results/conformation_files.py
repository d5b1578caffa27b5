"""The files of a run about conformations: particles, z, mean and components."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.io.conventions.relion_columns import IMAGE
from cryoinfer.io.files import require_file
from cryoinfer.io.latents import write_columns
from cryoinfer.io.mrc import MapFile, read_cube
from cryoinfer.io.replacing import replace_file
from cryoinfer.records import Latents, Pose
from cryoinfer.results import layout
from cryoinfer.results.field import FIELD, write_field
from cryoinfer.results.flags import FLAG, given_flags
from cryoinfer.results.heterogeneity import COMPONENTS, Heterogeneity
from cryoinfer.results.particle_rows import (
    among_all,
    column,
    width_columns,
    with_found,
)
from cryoinfer.results.posterior_files import require_known, write_posteriors
from cryoinfer.results.run_arrays import run_arrays
from cryoinfer.results.run_files import (
    INFINITE_NATS,
    flag_columns,
    read_image_names,
    save_map,
    save_particles,
    write_noise,
    write_reconstruction,
)
from cryoinfer.results.run_record import RunRecord

_NOTES = {
    "z_k": "posterior mean of the k-th coordinate of the conformation, of about unit "
    "spread over the particles",
    "z_k_sd": "its posterior standard deviation",
    "contrast": "posterior mean of how strong a particle is in its image, 1 on average",
    "contrast_sd": "its posterior standard deviation",
    "outlier_score": "minus the log p-value of an image of that conformation, in nats",
}


def write_heterogeneity(
    folder: Path, particles: Particles, used: Tensor, found: Heterogeneity
) -> None:
    """Write particles, latents, posteriors, mean, components and half-maps.

    Parameters
    ----------
    folder : Path
        Of the run.
    particles : Particles
        All n of its file.
    used : Tensor of bool, shape (n,)
        Which were inferred. The others keep the pose that they came with, and no z.
    found : Heterogeneity
        Of those that were.
    """
    rows = _rows(used, found)
    path = folder / layout.PARTICLES
    save_particles(path, _with_results(particles, used, rows, found))
    _write_latents(folder, rows, used, found)
    pixel_size = found.reconstruction.pixel_size_angstrom
    for number, one in enumerate(found.maps):
        name = layout.COMPONENT.format(number) if number else layout.MEAN
        save_map(folder / name, one, pixel_size)
    if found.field is not None:
        write_field(folder / layout.FIELD, found.field, pixel_size)
    write_reconstruction(folder, found.reconstruction)
    write_noise(folder / layout.NOISE, found.run.noise_power)
    write_posteriors(
        folder / layout.POSTERIORS,
        {name: value.float().numpy() for name, value in rows.items()},
    )


def _rows(used: Tensor, found: Heterogeneity) -> dict[str, Tensor]:
    """Return what was found of each particle of the file; NaN of those left out."""
    best = found.posterior.mode()
    values = {
        "rotation": best.pose.rotation,
        "shift_angstrom": best.pose.shift_angstrom,
        "defocus_offset_angstrom": best.defocus_offset_angstrom,
        "conformation": best.conformation,
        "weight": found.posterior.weight[:, 0],
        "covariance": found.posterior.covariances[:, 0],
        "mean": found.z,
        "sd": found.z_sd,
        "log_likelihood": found.posterior.log_likelihood,
        "entropy_nats": found.run.entropy().double(),
    }
    return among_all(used, values)


def read_subspace(folder: Path, record: RunRecord) -> list[MapFile]:
    """Return the mean and the components of a run.

    Parameters
    ----------
    folder : Path
    record : RunRecord
        Of that run.

    Raises
    ------
    InputError
        If it is of classes or of a field, or a file is missing or damaged.
    """
    if COMPONENTS not in record.results:
        raise InputError(
            f"the run in {folder} is of classes: expected one map, or a subspace of "
            "maps (`cryoinfer heterogeneity --model subspace`). Select a class, refine "
            "it, and go on from that run"
        )
    with record.trusted(folder):
        is_field = record.results.get(FIELD, {}).get("kept") is not None
        count = int(record.results[COMPONENTS])
    if is_field:
        raise InputError(
            f"the run in {folder} is of a curved field, which encoders do not learn "
            "and new particles are not searched in: expected one map, or a subspace of "
            "maps (`cryoinfer heterogeneity --model subspace`)"
        )
    names = [layout.MEAN, *(layout.COMPONENT.format(k + 1) for k in range(count))]
    return [read_cube(folder / name) for name in names]


def read_conformation_posteriors(folder: Path) -> ParticlePosterior:
    """Return the most probable mode of every particle of a run, as all there is.

    Raises
    ------
    InputError
        If the file is missing or damaged, or of another version.
    """
    path = folder / layout.POSTERIORS
    require_file(path, "file of posteriors")
    with run_arrays(path) as arrays:
        require_known(arrays, path)
        found = {
            name: torch.from_numpy(arrays[name]).double()
            for name in (
                *("rotation", "shift_angstrom", "defocus_offset_angstrom"),
                *("conformation", "covariance", "log_likelihood"),
            )
        }
    pose = Pose(found["rotation"], found["shift_angstrom"])
    offset = found["defocus_offset_angstrom"]
    latents = Latents(pose, offset, found["conformation"])
    return ParticlePosterior.of_modes(
        latents[:, None],
        torch.ones(len(latents), 1, dtype=torch.float64),
        found["covariance"][:, None],
        found["log_likelihood"],
    )


def _with_results(
    particles: Particles, used: Tensor, rows: Mapping[str, Tensor], found: Heterogeneity
) -> Particles:
    """Return the particles with poses, half-sets and what was found of z."""
    columns = width_columns(rows["covariance"], rows["log_likelihood"])
    for number in range(found.dims):
        columns[f"cryoinferZ{number + 1}"] = column(rows["mean"][:, number])
        columns[f"cryoinferZ{number + 1}Sd"] = column(rows["sd"][:, number])
    for name, own in flag_columns(found.run).items():
        # What was left out had been flagged before.
        before = given_flags(particles).numpy() if name == FLAG else INFINITE_NATS
        columns[name] = np.where(used.numpy(), _among(used, own), before)
    return with_found(particles, used, rows, found.run.random_subset, columns)


def _among(used: Tensor, own: NDArray[Any]) -> NDArray[Any]:
    whole = np.zeros(len(used), own.dtype)
    whole[used.numpy()] = own
    return whole


def _write_latents(
    folder: Path,
    rows: Mapping[str, Tensor],
    used: Tensor,
    found: Heterogeneity,
) -> None:
    """Write a row a particle."""
    columns: dict[str, NDArray[Any] | list[str]] = {
        IMAGE: [str(one) for one in read_image_names(folder).tolist()]
    }
    for number in range(rows["mean"].shape[1]):
        columns[f"z_{number + 1}"] = rows["mean"][:, number].numpy()
        columns[f"z_{number + 1}_sd"] = rows["sd"][:, number].numpy()
    columns["entropy_nats"] = rows["entropy_nats"].numpy()
    columns["log_likelihood"] = rows["log_likelihood"].numpy()
    more = {}
    if found.contrast is not None:
        more["contrast"] = found.contrast.mean.double()
        more["contrast_sd"] = found.contrast.sd.double()
    if found.run.outlier_score_nats is not None:
        more["outlier_score"] = found.run.outlier_score_nats.double()
    columns |= {name: one.numpy() for name, one in among_all(used, more).items()}
    path = folder / layout.LATENTS
    replace_file(path, lambda part: write_columns(part, columns, _NOTES))
