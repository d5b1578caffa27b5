"""Columns of RELION's STAR files, made from the library's records."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.io.conventions.relion_aberrations import aberration_columns
from cryoinfer.io.conventions.table import ParticleTable
from cryoinfer.io.star import text_column
from cryoinfer.io.star_text import STRING
from cryoinfer.records import Optics

IMAGE = "rlnImageName"
GROUP = "rlnOpticsGroup"
PIXEL_SIZE = "rlnImagePixelSize"
PHASE_FLIPPED = "rlnCtfDataArePhaseFlipped"
PREMULTIPLIED = "rlnCtfDataAreCtfPremultiplied"


def optics_columns(table: ParticleTable) -> dict[str, NDArray[Any]]:
    """Return what RELION 3.1 demands in ``data_optics``, one row a group."""
    group, first = np.unique(table.optics.group.numpy(), return_index=True)
    head = table.optics[torch.from_numpy(first)]
    columns = {
        GROUP: text_column(group + 1, "%d"),
        "rlnOpticsGroupName": text_column(group + 1, "opticsGroup%d"),
        "rlnAmplitudeContrast": text_column(head.amplitude_contrast.numpy(), "%.9g"),
        "rlnSphericalAberration": text_column(head.cs_mm.numpy(), "%.9g"),
        "rlnVoltage": text_column(head.voltage_kv.numpy(), "%.9g"),
        PIXEL_SIZE: text_column(head.pixel_size_angstrom.numpy(), "%.9g"),
        "rlnImageSize": text_column(table.box.numpy()[first], "%d"),
        "rlnImageDimensionality": text_column(np.full(len(first), 2), "%d"),
    }
    if bool(head.phase_flipped.any()):
        columns[PHASE_FLIPPED] = text_column(head.phase_flipped.numpy(), "%d")
    if bool(head.ctf_premultiplied.any()):
        columns[PREMULTIPLIED] = text_column(head.ctf_premultiplied.numpy(), "%d")
    return columns | aberration_columns(head)


def particle_columns(table: ParticleTable) -> dict[str, NDArray[Any]]:
    """Return the names, groups, CTFs and classes of the particles."""
    images = table.images
    # RELION reads a stack called .mrc as a map unless it is told otherwise.
    paths = [p + ":mrcs" if p.endswith(".mrc") else p for p in images.paths]
    pairs = zip((images.row + 1).tolist(), images.path_index.tolist(), strict=True)
    names = [f"{row:06d}@{paths[path]}" for row, path in pairs]
    columns: dict[str, NDArray[Any]] = {
        IMAGE: np.array(names, dtype=STRING),
        GROUP: text_column(table.optics.group.numpy() + 1, "%d"),
    }
    if table.micrograph is not None:
        columns["rlnMicrographName"] = table.micrograph.astype(STRING)
    if table.has_ctf or bool((table.sign < 0).any()):
        columns |= _ctf_columns(table.optics, table.sign.double())
    if table.class_number is not None:
        columns["rlnClassNumber"] = text_column(table.class_number.numpy(), "%d")
    return columns


def result_columns(results: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return numbers or words as columns of text."""
    columns = {}
    for label, values in results.items():
        if values.dtype.kind in "iub":
            columns[label] = text_column(values, "%d")
        elif values.dtype.kind == "f":
            columns[label] = text_column(values, "%.9g")
        else:
            columns[label] = values.astype(STRING)
    return columns


def _ctf_columns(optics: Optics, sign: Tensor) -> dict[str, NDArray[Any]]:
    values = {
        "rlnDefocusU": optics.defocus_u_angstrom,
        "rlnDefocusV": optics.defocus_v_angstrom,
        "rlnDefocusAngle": torch.rad2deg(optics.defocus_angle_radian),
        "rlnPhaseShift": torch.rad2deg(optics.phase_shift_radian),
        "rlnCtfBfactor": optics.bfactor_angstrom2,
        "rlnCtfScalefactor": optics.scale * sign,
    }
    return {label: text_column(v.numpy(), "%.6f") for label, v in values.items()}
