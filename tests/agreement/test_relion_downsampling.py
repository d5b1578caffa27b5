"""RELION rescales the same images to the same pixels."""

from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from rich.console import Console

from cryoinfer.cli.downsampling import DownsampleOptions, downsample_particles
from cryoinfer.cli.particle_options import AS_WRITTEN
from cryoinfer.io.mrc import StackWriter

N, BOX, PIXEL = 5, 64, 1.6


def without_nyquist(images: np.ndarray) -> np.ndarray:
    values, half = np.fft.fft2(images), images.shape[-1] // 2
    values[:, half] = values[:, :, half] = 0
    return np.fft.ifft2(values).real


@pytest.mark.parametrize("box", [32, 40, 62])
def test_images_are_those_of_relion(tmp_path: Path, box: int, relion) -> None:
    images = torch.randn(N, BOX, BOX, generator=torch.Generator().manual_seed(0))
    with StackWriter(tmp_path / "a.mrcs", N, BOX, PIXEL) as writer:
        writer.write(images)
    options = DownsampleOptions(
        tmp_path / "a.mrcs", tmp_path / "b.star", box, None, AS_WRITTEN, None, False
    )
    downsample_particles(options, Console(quiet=True))
    words = ("--i", "a.mrcs", "--o", "c.mrcs", "--angpix", str(PIXEL))
    size = ("--rescale_angpix", repr(PIXEL * BOX / box), "--new_box", str(box))
    relion(tmp_path, "relion_image_handler", *words, *size)
    ours, theirs = (
        mrcfile.read(tmp_path / name).astype(float) for name in ("b.mrcs", "c.mrcs")
    )
    # Ours lack the new Nyquist's frequency, whose phase is undefined. The rest is
    # single precision, of sums of 64 numbers along each axis.
    np.testing.assert_allclose(ours, without_nyquist(theirs), rtol=0, atol=1e-5)
