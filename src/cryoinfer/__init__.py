"""Posteriors over what is unknown in cryo-EM particle images, and the maps.

``import cryoinfer as ci`` offers the names below; each is imported when it is first
used, since PyTorch and the compiled loops take seconds. Everything else has its place
in a module of its own, which may move.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; the same places as below
    from cryoinfer.data.examples import named_structure as load_structure
    from cryoinfer.data.moving_model import MovingModel
    from cryoinfer.data.particles import Particles
    from cryoinfer.data.simulate import SimulationConfig, simulate
    from cryoinfer.errors import InputError
    from cryoinfer.evaluation.fsc import fourier_shell_correlation as fsc
    from cryoinfer.records import Latents, Optics, Pose
    from cryoinfer.results.run import Run, load_run
    from cryoinfer.results.run_result import Reconstruction, RunResult
    from cryoinfer.results.truth import evaluate
    from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio
    from cryoinfer.workflows.class_config import ClassConfig
    from cryoinfer.workflows.class_maps import classes
    from cryoinfer.workflows.dynamics import infer_dynamics as dynamics
    from cryoinfer.workflows.encoder_file import load_encoder, save_encoder
    from cryoinfer.workflows.heterogeneity import heterogeneity
    from cryoinfer.workflows.heterogeneity_config import HeterogeneityConfig
    from cryoinfer.workflows.infer import InferConfig, infer
    from cryoinfer.workflows.motion_problem import DynamicsConfig
    from cryoinfer.workflows.reconstruct import ReconstructConfig, reconstruct
    from cryoinfer.workflows.refine import RefineConfig, StartingMap, refine
    from cryoinfer.workflows.train import EncoderConfig, TrainingData
    from cryoinfer.workflows.train import train_encoder as train

    load_particles = Particles.load

import_module("cryoinfer.matrix_library").ask_for_reproducible_products()

__version__ = "0.1.0"

__all__ = [
    "AbinitioConfig",
    "ClassConfig",
    "DynamicsConfig",
    "EncoderConfig",
    "HeterogeneityConfig",
    "InferConfig",
    "InputError",
    "Latents",
    "MovingModel",
    "Optics",
    "Particles",
    "Pose",
    "ReconstructConfig",
    "Reconstruction",
    "RefineConfig",
    "Run",
    "RunResult",
    "SimulationConfig",
    "StartingMap",
    "TrainingData",
    "__version__",
    "abinitio",
    "classes",
    "dynamics",
    "evaluate",
    "fsc",
    "heterogeneity",
    "infer",
    "load_encoder",
    "load_particles",
    "load_run",
    "load_structure",
    "reconstruct",
    "refine",
    "save_encoder",
    "simulate",
    "train",
]

_PLACES = {
    "AbinitioConfig": "workflows.abinitio:AbinitioConfig",
    "ClassConfig": "workflows.class_config:ClassConfig",
    "DynamicsConfig": "workflows.motion_problem:DynamicsConfig",
    "EncoderConfig": "workflows.train:EncoderConfig",
    "HeterogeneityConfig": "workflows.heterogeneity_config:HeterogeneityConfig",
    "InferConfig": "workflows.infer:InferConfig",
    "InputError": "errors:InputError",
    "Latents": "records:Latents",
    "TrainingData": "workflows.train:TrainingData",
    "MovingModel": "data.moving_model:MovingModel",
    "Optics": "records:Optics",
    "Particles": "data.particles:Particles",
    "Pose": "records:Pose",
    "ReconstructConfig": "workflows.reconstruct:ReconstructConfig",
    "Reconstruction": "results.run_result:Reconstruction",
    "RefineConfig": "workflows.refine:RefineConfig",
    "Run": "results.run:Run",
    "RunResult": "results.run_result:RunResult",
    "SimulationConfig": "data.simulate:SimulationConfig",
    "StartingMap": "workflows.refine:StartingMap",
    "abinitio": "workflows.abinitio:abinitio",
    "classes": "workflows.class_maps:classes",
    "dynamics": "workflows.dynamics:infer_dynamics",
    "evaluate": "results.truth:evaluate",
    "fsc": "evaluation.fsc:fourier_shell_correlation",
    "heterogeneity": "workflows.heterogeneity:heterogeneity",
    "infer": "workflows.infer:infer",
    "load_encoder": "workflows.encoder_file:load_encoder",
    "load_particles": "data.particles:Particles.load",
    "load_run": "results.run:load_run",
    "load_structure": "data.examples:named_structure",
    "reconstruct": "workflows.reconstruct:reconstruct",
    "refine": "workflows.refine:refine",
    "save_encoder": "workflows.encoder_file:save_encoder",
    "simulate": "data.simulate:simulate",
    "train": "workflows.train:train_encoder",
}
"""Where the public names are: module, and what it calls them."""


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # or every name would pass for one of any type

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used."""
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, path = _PLACES[name].partition(":")
        found = import_module(f"{__name__}.{module}")
        for part in path.split("."):
            found = getattr(found, part)
        globals()[name] = found
        return found
