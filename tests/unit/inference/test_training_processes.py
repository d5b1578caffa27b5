"""Two processes learn what one does. Run as a script, this file is one of them."""

import subprocess
import sys
from pathlib import Path

import torch
from torch import distributed

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.pose_network import PoseNetwork, PoseNetworkConfig
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.training import Training, TrainingConfig, train
from cryoinfer.inference.training_images import TrainingImages
from cryoinfer.inference.whitening import ReferenceGrid, whiten
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.records import Optics, ParticleBatch

BOX, PIXEL, SIDE = 16, 5.0, 8
STEPS = 8
PRIOR = PosePrior(shift_sd_angstrom=3.0, defocus_sd_angstrom=0.0)


def learn() -> Training:
    generator = torch.Generator().manual_seed(0)
    density = torch.zeros(BOX, BOX, BOX)
    density[5:11, 5:11, 5:11] = torch.rand(6, 6, 6, generator=generator)
    optics = Optics.without_ctf(4, PIXEL)
    batch = ParticleBatch(torch.randn(4, BOX, BOX), optics, torch.arange(4))
    noise = torch.full((BOX // 2 + 1,), 0.1)
    grid = ReferenceGrid(BOX, PIXEL)
    images = TrainingImages(
        MapProjector(FourierVolume.from_map(density, SIDE // 2 - 1)),
        (whiten(batch, grid, SIDE // 2 - 1, noise),),
        PRIOR,
    )
    torch.manual_seed(0)
    network = PoseNetwork(PoseNetworkConfig(SIDE, components=2, width=8), PRIOR)
    config = TrainingConfig(
        steps=STEPS,
        batch=32,
        warm_up=1,
        average_share=0.0,
        check_every=STEPS // 2,
    )
    alone = torch.eye(3, dtype=torch.float64)[None]
    return train(network, images, config, alone, generator, SilentMonitor())


def weights_of(done: Training) -> torch.Tensor:
    return torch.cat([w.detach().flatten() for w in done.network.parameters()])


def work(out: Path) -> None:
    distributed.init_process_group("gloo")
    torch.set_num_threads(1)
    done = learn()
    losses = [check.loss_nats for check in done.checks]
    file = out / f"{distributed.get_rank()}.pt"
    torch.save({"weights": weights_of(done), "losses": losses}, file)
    distributed.destroy_process_group()


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", __file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    torch.testing.assert_close(first["weights"], second["weights"], rtol=0, atol=0)
    torch.manual_seed(0)
    network = PoseNetwork(PoseNetworkConfig(SIDE, components=2, width=8), PRIOR)
    start = torch.cat([w.detach().flatten() for w in network.parameters()])
    alone = learn()
    moved = (weights_of(alone) - start).norm()
    apart = (weights_of(alone) - first["weights"]).norm()
    # Sums of single precision in another order, which Muon's iterations in bfloat16
    # and the signs of AdamW's first steps make larger. Found: 1 to 3 %. Processes
    # that did not share their gradients would be as far apart as they moved.
    assert apart < 0.1 * moved
    for check, loss in zip(alone.checks, first["losses"], strict=True):
        assert abs(check.loss_nats - loss) < 0.02


if __name__ == "__main__":
    work(Path(sys.argv[1]))
