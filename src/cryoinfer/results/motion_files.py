"""The files of a run about motions, written and read."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.model_in_box import in_box
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.data.particles import Particles
from cryoinfer.evaluation.clusters import cluster_centres
from cryoinfer.io.atoms import AtomicModel
from cryoinfer.io.conventions.relion_columns import IMAGE
from cryoinfer.io.ensembles import write_ensemble
from cryoinfer.io.latents import write_columns
from cryoinfer.io.nmd import write_nmd
from cryoinfer.io.replacing import replace_file
from cryoinfer.records import Pose
from cryoinfer.results import layout
from cryoinfer.results.flags import FLAG, UNREADABLE, given_flags
from cryoinfer.results.model_frame import ModelFrame
from cryoinfer.results.motions import Motions
from cryoinfer.results.particle_rows import column, width_columns
from cryoinfer.results.posterior_files import write_posteriors
from cryoinfer.results.run_files import read_image_names, save_particles

_FRAMES = 11  # along a mode
_EXTENT_SD = 2.0  # of the particles' amplitudes, to either end of a mode's ensemble
_LEAST_EXTENT_ANGSTROM = 0.5


def write_motions(
    folder: Path,
    particles: Particles,
    motions: Motions,
    model: MovingModel,
    frame: ModelFrame,
) -> None:
    """Write particles, amplitudes, modes, ensembles and a script for ChimeraX.

    Parameters
    ----------
    folder : Path
        Of the run.
    particles : Particles
        All n of its file.
    motions : Motions
        Of n particles.
    model : MovingModel
        By which they were found.
    frame : ModelFrame
        Of their poses.
    """
    path = folder / layout.PARTICLES
    flags = _flags(particles, motions)
    save_particles(path, _with_motions(particles, motions, flags))
    _write_latents(folder, motions, flags)
    placing = _Placing.of(particles, model, frame)
    nodes = placing.placed(model.model).select(model.nodes.atom)
    turn = frame.rotation.mT
    direction = model.modes.direction @ turn
    replace_file(
        folder / layout.MODES,
        lambda part: write_nmd(
            part,
            "structure",
            nodes,
            direction.numpy(),
            list(model.amplitude_sd_angstrom),
        ),
    )
    extent = extents(motions)
    centres = cluster_centres(motions.mean[motions.known])
    ensembles = {
        layout.ENSEMBLE.format(mode + 1): along(model, mode, float(widest))
        for mode, widest in enumerate(extent)
    }
    ensembles[layout.REST] = iter([model.model])
    ensembles[layout.CENTRES] = (model.at(one) for one in centres)
    for name, models in ensembles.items():
        _write_ensemble(folder / name, map(placing.placed, models))
    script = _script(list(ensembles))
    replace_file(folder / layout.SCRIPT, lambda part: part.write_text(script))
    arrays = {
        "node_coordinates_angstrom": nodes.coordinates_angstrom,
        "node_displacement": (model.modes.per_angstrom() @ turn).numpy(),
        "node_chain": _chains(nodes),
        "extent_angstrom": extent.numpy(),
        "centre_angstrom": centres.numpy(),
    }
    _write_arrays(folder, motions, arrays)


@dataclass(frozen=True)
class _Placing:
    """How models come to lie in a map of the particles.

    Attributes
    ----------
    frame : ModelFrame
    mean_angstrom : Tensor of float64, shape (3,)
        Of the atoms at rest, where the structure's file has them.
    box : int
    pixel_size_angstrom : float
    """

    frame: ModelFrame
    mean_angstrom: Tensor
    box: int
    pixel_size_angstrom: float

    @classmethod
    def of(cls, particles: Particles, model: MovingModel, frame: ModelFrame) -> Self:
        """Return that of a run."""
        mean = torch.from_numpy(model.model.coordinates_angstrom).mean(0)
        return cls(frame, mean, particles.box, particles.pixel_size_angstrom)

    def placed(self, model: AtomicModel) -> AtomicModel:
        """Return a conformation of the model where a map of the particles has it."""
        centred = torch.from_numpy(model.coordinates_angstrom) - self.mean_angstrom
        placed = self.frame.placed(centred).numpy()
        return in_box(model, placed, self.box, self.pixel_size_angstrom)


def extents(motions: Motions) -> Tensor:
    """Return how far along each mode an ensemble goes, in angstrom, shape (c,)."""
    spread = motions.mean[motions.known].std(0)
    return (_EXTENT_SD * spread).clamp(min=_LEAST_EXTENT_ANGSTROM)


def along(model: MovingModel, mode: int, widest: float) -> Iterator[AtomicModel]:
    """Yield a model in conformations along one mode, from end to end."""
    for amplitude in torch.linspace(-widest, widest, _FRAMES).tolist():
        conformation = torch.zeros(len(model.modes))
        conformation[mode] = amplitude
        yield model.at(conformation)


def _flags(particles: Particles, motions: Motions) -> Tensor:
    """Return the flags that particles came with, and those of unreadable ones."""
    unreadable = torch.where(motions.known, 0, UNREADABLE)
    given = given_flags(particles)
    return torch.where(given == 0, unreadable, given)


def _with_motions(particles: Particles, motions: Motions, flags: Tensor) -> Particles:
    """Return the particles with poses, amplitudes and their spreads.

    What was left out, as it came with a flag, keeps the pose that it came with.
    """
    known = motions.known
    rotation = torch.eye(3, dtype=torch.float64).repeat(len(known), 1, 1)
    shift = torch.zeros(len(known), 2, dtype=torch.float64)
    if particles.pose is not None:
        left = given_flags(particles) != 0
        rotation[left] = particles.pose.rotation[left]
        shift[left] = particles.pose.shift_angstrom[left]
    rotation[known] = motions.rotation[known]
    shift[known] = motions.shift_angstrom[known]
    columns = width_columns(motions.covariance, motions.log_likelihood)
    columns[FLAG] = flags.numpy()
    for mode in range(motions.mean.shape[1]):
        columns[f"cryoinferMode{mode + 1}Angst"] = column(motions.mean[:, mode])
        columns[f"cryoinferMode{mode + 1}SdAngst"] = column(motions.sd[:, mode])
    inferred = bool((motions.covariance[known, 5, 5] > 0).any())
    return particles.with_results(
        pose=Pose(rotation, shift),
        defocus_offset_angstrom=(
            motions.defocus_offset_angstrom.nan_to_num() if inferred else None
        ),
        columns=columns,
    )


def _write_latents(folder: Path, motions: Motions, flags: Tensor) -> None:
    """Write a row a particle; those that were not inferred have NaN and a flag."""
    names = [str(one) for one in read_image_names(folder).tolist()]
    columns: dict[str, NDArray[Any] | list[str]] = {IMAGE: names}
    for mode in range(motions.mean.shape[1]):
        name = f"mode_{mode + 1}"
        columns[name] = motions.mean[:, mode].numpy()
        columns[f"{name}_sd"] = motions.sd[:, mode].numpy()
        columns[f"{name}_q05"] = motions.low[:, mode].numpy()
        columns[f"{name}_q95"] = motions.high[:, mode].numpy()
    columns["entropy_nats"] = motions.entropy_nats.numpy()
    columns["log_likelihood"] = motions.log_likelihood.numpy()
    columns[FLAG] = flags.numpy()
    notes = {
        "mode_k": "posterior mean of the amplitude of mode k in angstrom RMSD",
        "mode_k_sd": "its posterior standard deviation in angstrom",
        "mode_k_q05, mode_k_q95": "ends of its central 90 % credible interval",
        FLAG: "0 inferred; 1, or 2 (unreadable), left out, with NaN",
    }
    path = folder / layout.LATENTS
    replace_file(path, lambda part: write_columns(part, columns, notes))


def _write_ensemble(path: Path, models: Iterator[AtomicModel]) -> None:
    # gemmi tells formats by the ending, which the temporary name keeps.
    replace_file(path, lambda part: write_ensemble(part, path.stem, models))


def _script(names: list[str]) -> str:
    """Return commands that show the ensembles in ChimeraX."""
    lines = [
        "# open this file in ChimeraX, from its own folder;",
        "# models lie where a map of these particles lies: open one beside them",
    ]
    for number, name in enumerate(names, 1):
        still = name in (layout.CENTRES, layout.REST)
        moving = "false" if still else "true"
        lines.append(f"open {name} coordsets {moving}")
        if number > 1:
            lines.append(f"hide #{number} models")
    lines += ["hide atoms", "show cartoons", "rainbow chains palette viridis"]
    lines += ["view", "coordset #1 1,11,1 loop 3", ""]
    return "\n".join(lines)


def _chains(nodes: AtomicModel) -> NDArray[np.int64]:
    """Return the number of each node's chain, shape (n,)."""
    number = {name: i for i, name in enumerate(dict.fromkeys(nodes.chain_names))}
    return np.array([number[name] for name in nodes.chain_names], dtype=np.int64)


def _write_arrays(
    folder: Path, motions: Motions, shown: Mapping[str, NDArray[np.generic]]
) -> None:
    """Write the full covariances, and what the report shows besides."""
    arrays: dict[str, Any] = {
        **{name: value.float().numpy() for name, value in vars(motions).items()},
        **shown,
    }
    write_posteriors(folder / layout.POSTERIORS, arrays)
