"""An encoder in one file: tensors, numbers and strings, no code."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cryoinfer.errors import InputError, is_out_of_memory
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.amortized import PoseEncoder
from cryoinfer.inference.convergence import Check
from cryoinfer.inference.outlier_score import InlierStatistics
from cryoinfer.inference.pose_network import PoseNetwork, PoseNetworkConfig
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.whitening import ReferenceGrid
from cryoinfer.io.files import require_file
from cryoinfer.io.torch_files import read_values, write_values
from cryoinfer.workflows.acquisition import AcquisitionStatistics
from cryoinfer.workflows.trained_encoder import TrainedEncoder

FORMAT = 10
"""Raised whenever the network or what stands in the file changes."""

_FINITE = (
    *("weights", "grid", "prior", "usual", "noise_power"),
    *("density", "components", "widening"),
)


def save_encoder(path: Path, trained: TrainedEncoder) -> None:
    """Write an encoder, the map that it learned, and how it did."""
    encoder = trained.encoder
    values = {
        "format": FORMAT,
        "network": asdict(encoder.network.config),
        "weights": encoder.network.state_dict(),
        "grid": asdict(encoder.grid),
        "prior": asdict(trained.prior),
        "symmetry": trained.symmetry,
        "usual": asdict(trained.inliers),
        "imaging": [one and asdict(one) for one in trained.imaging],
        "noise_power": list(encoder.noise_power),
        "density": trained.density,
        "components": list(trained.components),
        "last_radius": trained.last_radius,
        "checks": [asdict(check) for check in trained.checks],
        "verdict": trained.verdict,
        "widening": trained.covariance_inflation,
    }
    write_values(path, values)


def load_encoder(path: Path) -> TrainedEncoder:
    """Read an encoder.

    Raises
    ------
    MissingFileError
        If there is no such file.
    InputError
        If it is none, is damaged or cut short, is of another version, or holds what no
        training leaves.
    """
    require_file(path, "encoder of `cryoinfer train`")
    try:
        values = read_values(path)
        found = values["format"]
        if found != FORMAT:
            raise _OtherVersionError(
                f"{path} is an encoder of format {found}, expected format {FORMAT}: it "
                "was made by another version of cryoinfer. Train again, or use that "
                "version."
            )
        _require_finite({name: values[name] for name in _FINITE})
        trained = _trained(values)
        _require_one_box(trained)
    except (_OtherVersionError, OSError):
        raise
    except Exception as error:  # whatever a wrong kind or shape leads to
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"{path} is not an encoder, or is cut short or damaged: expected a file "
            "written by `cryoinfer train`. Copy it again, or train again."
        ) from error
    return trained


class _OtherVersionError(InputError):
    """A file that another version of the program can read."""


def _require_finite(values: object) -> None:
    """Raise ValueError if there is a number that no training leaves."""
    if isinstance(values, dict):
        values = list(values.values())
    if isinstance(values, list | tuple):
        for one in values:
            _require_finite(one)
    elif isinstance(values, Tensor | float):
        if not bool(torch.as_tensor(values).isfinite().all()):
            raise ValueError("a number is not finite")


def _require_one_box(trained: TrainedEncoder) -> None:
    """Raise ValueError unless map, noise and widths are of one box."""
    box = trained.encoder.grid.box
    rings = {tuple(one.shape) for one in trained.encoder.noise_power}
    shapes = {tuple(one.shape) for one in trained.maps}
    unknowns = 6 + len(trained.components)
    if (
        shapes != {(box, box, box)}
        or len(rings) != 1
        or tuple(trained.covariance_inflation.shape) != (unknowns,)
        or not 0 < trained.last_radius < box // 2
        or not trained.checks
    ):
        raise ValueError(f"not of a box of {box}")


def _trained(values: dict[str, Any]) -> TrainedEncoder:
    prior = PosePrior(**values["prior"])
    network = PoseNetwork(PoseNetworkConfig(**values["network"]), prior)
    network.load_state_dict(values["weights"])
    noise = tuple(values["noise_power"])
    grid, symmetry = ReferenceGrid(**values["grid"]), values["symmetry"]
    encoder = PoseEncoder(network, grid, noise, symmetry_rotations(symmetry))
    return TrainedEncoder(
        encoder=encoder,
        density=values["density"],
        components=tuple(values["components"]),
        last_radius=values["last_radius"],
        prior=prior,
        symmetry=values["symmetry"],
        inliers=InlierStatistics(**values["usual"]),
        imaging=tuple(
            one and AcquisitionStatistics(**one) for one in values["imaging"]
        ),
        checks=tuple(Check(**check) for check in values["checks"]),
        verdict=values["verdict"],
        covariance_inflation=values["widening"],
    )
