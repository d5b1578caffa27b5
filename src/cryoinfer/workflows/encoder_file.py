"""An encoder in one file: tensors, numbers and strings, no code."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch

from cryoinfer.errors import (
    CryoinferError,
    InputError,
    MissingFileError,
    is_out_of_memory,
)
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.amortized import PoseEncoder
from cryoinfer.inference.convergence import Check
from cryoinfer.inference.novelty import Usual
from cryoinfer.inference.pose_network import PoseNetwork, PoseNetworkConfig
from cryoinfer.inference.refine import PosePrior
from cryoinfer.inference.whitening import ReferenceGrid
from cryoinfer.workflows.imaging import Imaging
from cryoinfer.workflows.train import TrainedEncoder

FORMAT = 9
"""Raised whenever the network or what stands in the file changes."""


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
        "usual": asdict(trained.usual),
        "imaging": [one and asdict(one) for one in trained.imaging],
        "noise_power": list(encoder.noise_power),
        "density": trained.density,
        "checks": [asdict(check) for check in trained.checks],
        "verdict": trained.verdict,
        "widening": trained.widening,
    }
    # Given a file, torch leaves the system's errors as they are.
    with path.open("wb") as file:
        torch.save(values, file)


def load_encoder(path: Path) -> TrainedEncoder:
    """Read an encoder.

    Raises
    ------
    MissingFileError
        If there is no such file.
    InputError
        If it is none, is cut short, or is of another version.
    """
    if not path.is_file():
        raise MissingFileError(
            f"No such encoder: {path}. Expected what `cryoinfer train` has written."
        )
    try:
        values: dict[str, Any] = torch.load(path, weights_only=True)
        found = values["format"]
        return _trained(values) if found == FORMAT else _refuse(path, found)
    except (CryoinferError, OSError):
        raise
    except Exception as error:  # zip, pickle and torch have errors of their own
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"{path} is not an encoder, or is cut short: expected a file written by "
            "`cryoinfer train`. Copy it again, or train anew."
        ) from error


def _refuse(path: Path, found: object) -> NoReturn:
    raise InputError(
        f"{path} is an encoder of format {found}, expected format {FORMAT}: it was "
        "made by another version of cryoinfer. Train anew, or use that version."
    )


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
        prior=prior,
        symmetry=values["symmetry"],
        usual=Usual(**values["usual"]),
        imaging=tuple(one and Imaging(**one) for one in values["imaging"]),
        checks=tuple(Check(**check) for check in values["checks"]),
        verdict=values["verdict"],
        widening=values["widening"],
    )
