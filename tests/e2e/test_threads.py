"""One thread and several give the same bits."""

from pathlib import Path

import numba
import pytest
import torch

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio

# Large enough that PyTorch divides its sums: 300 images by 4,608 rotations.
SMALL = SimulationConfig(
    n=300,
    box=32,
    pixel_size_angstrom=3.2,
    snr_db=0.0,
    defocus_range_angstrom=(5000.0, 15000.0),
    max_shift_angstrom=4.0,
)


def digests(folder: Path, threads: int) -> dict[str, bytes]:
    """Return the bytes of the stack and of everything that a run finds."""
    before = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, before[1]))
    try:
        particles = Particles.load(simulate(SMALL, folder, SilentMonitor()))
        found = abinitio(particles, AbinitioConfig(starts=1), SilentMonitor())
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])
    maps, pose = found.reconstruction, found.latents.pose
    tensors = {
        "rotation": pose.rotation,
        "shift": pose.shift_angstrom,
        "covariance": found.posterior.covariance,
        "likelihood": found.posterior.log_likelihood,
        "half1": maps.half1,
        "half2": maps.half2,
        "mask": maps.mask,
    }
    contents = {name: value.numpy().tobytes() for name, value in tensors.items()}
    return {**contents, "stack": (folder / "particles.mrcs").read_bytes()[1024:]}


# `.ci/processors` runs it with two.
@pytest.mark.slow
@pytest.mark.parametrize("threads", [2, 3])
def test_threads_do_not_change_a_bit(threads: int, tmp_path: Path) -> None:
    alone, shared = digests(tmp_path / "1", 1), digests(tmp_path / "n", threads)
    assert [name for name in alone if alone[name] != shared[name]] == []
