"""Encoders trained from raw particles, kept in ``runs/`` with how they came about.

Several measurements ask the same encoder: one that is there is not trained again.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from measure import resized, simulated
from rows import HERE, Row
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.data.simulation_presets import simulation_preset
from cryoinfer.evaluation.pose_error import GlobalAlignment, align_poses, pose_errors
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio
from cryoinfer.workflows.encoder_file import load_encoder, save_encoder
from cryoinfer.workflows.train import EncoderConfig, TrainingData, train_encoder
from cryoinfer.workflows.trained_encoder import TrainedEncoder

HELD_BACK = 1000
"""Last particles of a set, which neither the run nor the encoder sees."""

STEPS_OF = {"A": 1500, "D": 2500, "F": 7000, "G": 1500}
"""Steps of the training on each set of cryoPoseNet: what it needs, and some more."""


class Teller(SilentMonitor):
    """Prints what is told."""

    def message(self, text: str) -> None:
        """Print a line."""
        print(f"    {text}", flush=True)


@dataclass(frozen=True)
class Case:
    """What an encoder is made of.

    Attributes
    ----------
    simulation : SimulationConfig
    steps : int
        Of the training.
    seed : int
        Of ab initio and training.
    defocus_sd_angstrom : float
        That the encoder allows for; 0 takes the given defoci as true.
    """

    simulation: SimulationConfig
    steps: int
    seed: int = 0
    defocus_sd_angstrom: float = 0.0

    @classmethod
    def of_set(cls, letter: str, options: argparse.Namespace) -> "Case":
        """Return that of a set of cryoPoseNet, as the options of a script ask."""
        preset = simulation_preset(f"cryoposenet-{letter.lower()}")
        return cls(resized(preset, options), options.steps or STEPS_OF[letter])


@dataclass(frozen=True)
class Kept:
    """An encoder, its set, and how it came about.

    Attributes
    ----------
    folder, file : Path
        Of the set, and of the encoder.
    seen, unseen : Particles
    truth : Particles
        Of the unseen, true poses and defoci.
    model : TrainedEncoder
    alignment : GlobalAlignment
        The frame of its map, fitted to the poses of the run.
    row : Row
        Seconds and errors of the run, seconds and verdict of the training.
    """

    folder: Path
    file: Path
    seen: Particles
    unseen: Particles
    truth: Particles
    model: TrainedEncoder
    alignment: GlobalAlignment
    row: Row


def kept_encoder(case: Case) -> Kept:
    """Return the encoder of a case, trained from raw particles if there is none."""
    folder = simulated(case.simulation)
    particles = Particles.load(folder / "particles.star")
    truth = Particles.load(folder / "truth.star")
    held = min(HELD_BACK, len(particles) // 5)
    order = torch.arange(len(particles))
    seen, unseen = order[:-held], order[-held:]
    defocus = f"-{case.defocus_sd_angstrom:.0f}A" if case.defocus_sd_angstrom else ""
    name = f"encoder-{folder.name}{defocus}-{case.steps}-{case.seed}"
    file, story = HERE / "runs" / f"{name}.pt", HERE / "runs" / f"{name}-run.pt"
    if not story.exists():
        file.parent.mkdir(exist_ok=True)
        made = _made(case, particles.select(seen), truth.select(seen), file)
        torch.save(made, story)
    made = torch.load(story, weights_only=True)
    rotation, mirrored, origin = made["alignment"]
    return Kept(
        folder,
        file,
        particles.select(seen),
        particles.select(unseen),
        truth.select(unseen),
        load_encoder(file),
        GlobalAlignment(rotation, mirrored, origin),
        made["row"],
    )


def _made(
    case: Case, seen: Particles, truth: Particles, file: Path
) -> dict[str, list[Tensor | bool] | Row]:
    """Run ab initio and train, and write the encoder; return how it went."""
    monitor = Teller()
    started = time.perf_counter()
    sd = case.defocus_sd_angstrom
    if sd:
        config = AbinitioConfig(
            seed=case.seed, refine_defocus=True, defocus_sd_angstrom=sd
        )
    else:
        config = AbinitioConfig(seed=case.seed)
    run = abinitio(seen, config, monitor)
    searched = time.perf_counter()
    setup = EncoderConfig(
        training=TrainingConfig(steps=case.steps),
        defocus_sd_angstrom=sd,
        seed=case.seed,
    )
    model = train_encoder(seen, TrainingData.of_run(run), setup, monitor)
    trained = time.perf_counter()
    save_encoder(file, model)
    assert truth.pose is not None
    alignment = align_poses(
        run.latents.pose, truth.pose, torch.Generator().manual_seed(0)
    )
    errors = pose_errors(run.latents.pose, truth.pose, alignment)
    row: Row = {
        "abinitio_seconds": searched - started,
        "training_seconds": trained - searched,
        "search_degrees": float(errors.geodesic_degrees.median()),
        "search_view_degrees": float(errors.view_degrees.median()),
        "search_resolution_angstrom": run.reconstruction.resolution_angstrom,
        "trained_degrees": model.checks[-1].median_degrees,
        "verdict": model.verdict,
    }
    monitor.message(f"{row}")
    frame = [alignment.rotation, alignment.mirrored, alignment.origin_angstrom]
    left: Row = {"alignment": frame, "row": row}
    return left
