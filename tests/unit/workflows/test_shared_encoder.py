"""An encoder of conformations that two processes teach and infer with.

Run as a script, this file is one of the two.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed

from cryoinfer.data.joining import join
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.inference import training
from cryoinfer.inference.pose_network import PoseNetworkConfig
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.interfaces import SILENT
from cryoinfer.workflows import amortized_conformations, train
from cryoinfer.workflows.amortized_conformations import amortize_conformations
from cryoinfer.workflows.heterogeneity_config import HeterogeneityConfig
from cryoinfer.workflows.subspace_learning import SubspaceLearning
from cryoinfer.workflows.train import EncoderConfig
from cryoinfer.world import World

EACH = 60
STATES = "adenylate-kinase-open", "adenylate-kinase-closed"


def work(file: Path, out: Path) -> None:
    distributed.init_process_group("gloo")
    world = World.current()
    # Fewer images for what is not looked at.
    training._FITTED = train._FEWEST_FITTED = 50
    amortized_conformations.calibrate_encoder = lambda *_: {}
    config = HeterogeneityConfig(
        dims=1, resolution_angstrom=14.0, max_shift_angstrom=0.0
    )
    learning = SubspaceLearning.begun(Particles.load(file), config, SILENT, world)
    encoder = EncoderConfig(
        network=PoseNetworkConfig(side=16, components=3, width=16),
        training=TrainingConfig(steps=4, batch=8, check_every=4),
    )
    done = amortize_conformations(learning, encoder, True)
    found = {
        "z": done.found.z,
        "maps": done.found.maps,
        "weights": done.trained.encoder.network.state_dict(),
        "known": done.found.run.unreadable,
    }
    torch.save(found, out / f"{world.rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_one_encoder_and_one_result(tmp_path: Path) -> None:
    parts = []
    for number, name in enumerate(STATES):
        config = SimulationConfig(
            name, n=EACH, box=20, pixel_size_angstrom=5.6, snr_db=5.0, seed=number
        )
        made = simulate(config, tmp_path / str(number), SILENT)
        parts.append(Particles.load(made))
    file = tmp_path / "particles.star"
    join(parts).particles.save(file)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", __file__, str(file), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert first["z"].shape == (2 * EACH, 1)
    assert not bool(first["known"].any())
    for name in ("z", "maps"):
        assert torch.equal(first[name], second[name])
    for name, weight in first["weights"].items():
        assert torch.equal(weight, second["weights"][name])


if __name__ == "__main__":
    work(Path(sys.argv[1]), Path(sys.argv[2]))
