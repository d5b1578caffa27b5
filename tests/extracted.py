"""Simulated sets as RELION extracts them with an option."""

from pathlib import Path

import numpy as np
import torch

from cryoinfer.data.particles import Particles
from cryoinfer.fourier.transform import fourier_to_image, image_to_fourier
from cryoinfer.io.mrc import StackWriter
from cryoinfer.io.star import text_column
from cryoinfer.physics.ctf import evaluate_ctf

FLIPPED, MULTIPLIED = "rlnCtfDataArePhaseFlipped", "rlnCtfDataAreCtfPremultiplied"


def extracted_set(folder: Path, label: str, name: str) -> Path:
    """Write images multiplied by their CTF, or its sign, and the file that says so.

    Parameters
    ----------
    folder : Path
        With ``truth.star`` of a simulated set, whose poses are kept.
    label : str
        :data:`FLIPPED` or :data:`MULTIPLIED`.
    name : str
        Of the new files, without an extension.

    Returns
    -------
    Path
        Of the STAR file.
    """
    truth = Particles.load(folder / "truth.star")
    n, box, size = len(truth), truth.box, truth.pixel_size_angstrom
    y, x = torch.meshgrid(
        torch.fft.fftfreq(box, size, dtype=torch.float64),
        torch.fft.rfftfreq(box, size, dtype=torch.float64),
        indexing="ij",
    )
    ctf = evaluate_ctf(truth.optics, x.flatten(), y.flatten()).unflatten(-1, y.shape)
    factor = ctf.sign() if label == FLIPPED else ctf
    images = truth.images(torch.arange(n)).double()
    with StackWriter(folder / f"{name}.mrcs", n, box, size) as writer:
        writer.write(fourier_to_image(image_to_fourier(images) * factor, box).float())
    source = truth.source.with_paths({"particles.mrcs": f"{name}.mrcs"})
    column = {label: text_column(np.ones(len(source.optics)), "%d")}
    star = source.star.with_block(source.optics, source.optics.with_columns(column))
    type(source)(star).write(folder / f"{name}.star")
    return folder / f"{name}.star"
