"""The conformations of particles, in a subspace or a curved field of maps."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console

from cryoinfer.cli.arguments import recorded_path
from cryoinfer.cli.conformation_job import (
    ConformationJob,
    ConformationModel,
    ConformationOptions,
    run_job,
)
from cryoinfer.cli.conformation_run import finish_conformations
from cryoinfer.cli.map_inputs import read_particle_mask
from cryoinfer.cli.options import RefinementMethod
from cryoinfer.cli.plan import Plan
from cryoinfer.cli.processes import joined_processes, require_alone
from cryoinfer.cli.results import write_encoder
from cryoinfer.cli.run_folder import RunFolder
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.inference.training import TrainingConfig, require_divided
from cryoinfer.interfaces import Monitor
from cryoinfer.results.heterogeneity import ENCODER_NUMBERS, Heterogeneity
from cryoinfer.workflows.amortize import fitting_encoder, require_teachable
from cryoinfer.workflows.amortized_conformations import (
    AmortizedConformations,
    amortize_conformations,
)
from cryoinfer.workflows.field_heterogeneity import (
    MOST_MAPS,
    field_heterogeneity,
    require_field_dims,
)
from cryoinfer.workflows.heterogeneity import heterogeneity
from cryoinfer.workflows.heterogeneity_config import (
    HeterogeneityConfig,
    require_enough,
    require_frame_of_mask,
)
from cryoinfer.workflows.reconstruct import given_poses
from cryoinfer.workflows.subspace_learning import SubspaceLearning


@dataclass(frozen=True, kw_only=True)
class HeterogeneityOptions(ConformationOptions):
    """What a user asks of an inference of conformations.

    Attributes
    ----------
    model : {"subspace", "field"}
    dims : int or None
        Components, or dimensions of z in a field; None for as many as held-out images
        ask for.
    method : {"search", "amortized", "semi-amortized"}
        By which all particles are inferred in what some of them have taught.
    focus_mask : Path or None
        Of the components.
    """

    model: Literal["subspace", "field"]
    dims: int | None
    method: RefinementMethod
    focus_mask: Path | None

    def own_arguments(self) -> dict[str, Any]:
        """Return what decides the result of a subspace, or a field, alone."""
        model = {"model": self.model} if self.model == "field" else {}
        mask = self.focus_mask
        return {
            **model,
            "dims": self.dims,
            "method": self.method,
            "focus-mask": None if mask is None else recorded_path(mask),
        }

    def own_inputs(self) -> dict[str, Path]:
        """Return the files beside the particles, by what they are."""
        return {} if self.focus_mask is None else {"focus mask": self.focus_mask}

    def own_remarks(self) -> list[str]:
        """Return what is to be known of the result."""
        if self.focus_mask is None:
            return []
        return [
            f"Components lie inside the focus mask {self.focus_mask}: z describes what "
            "changes there, and no change elsewhere."
        ]

    def config(self) -> HeterogeneityConfig:
        """Return what the workflow is given, but for a focus mask."""
        return HeterogeneityConfig(dims=self.dims, **self.shared_choices())


def find_conformations(options: HeterogeneityOptions, console: Console) -> None:
    """Infer the conformation of every particle, and write a run folder.

    Everything that can be known to be wrong is refused before anything is written.

    Raises
    ------
    InputError
        If particles or options cannot be used, or show no structure.
    OutputError
        If the folder is taken or cannot be written.
    """
    with joined_processes() as world:
        job = ConformationJob.read(options, world)
        _require_usable(job, options)
        config = _config(job.chosen, options)
        run_job(job, _model(job, options, config), console)


def _config(chosen: Particles, options: HeterogeneityOptions) -> HeterogeneityConfig:
    """Return what the workflow is given; read the focus mask.

    Raises
    ------
    InputError
        If the mask cannot be used.
    """
    config, path = options.config(), options.focus_mask
    if path is None:
        return config
    found = read_particle_mask(
        path, options.particles, chosen.box, chosen.pixel_size_angstrom
    )
    return replace(config, focus_mask=torch.from_numpy(found.density))


def _model(
    job: ConformationJob, options: HeterogeneityOptions, config: HeterogeneityConfig
) -> ConformationModel[Heterogeneity | AmortizedConformations]:
    """Return what is particular to a subspace."""

    def plan(threads: int) -> Plan:
        dims = options.dims
        steps = 0 if options.method == "search" else TrainingConfig().steps
        if options.model == "field":
            sought = "a curved field, where held-out images support one"
            return job.plan(sought, MOST_MAPS - 1, steps, threads)
        sought = "as many components as held-out images support"
        if dims is not None:
            sought = f"{dims} component{'s' if dims > 1 else ''}"
        tried = config.tried_dims(len(job.chosen))
        return job.plan(sought, tried, steps, threads)

    def finish(
        folder: RunFolder,
        found: Heterogeneity | AmortizedConformations,
        numbers: dict[str, Any],
    ) -> list[str]:
        if isinstance(found, AmortizedConformations):
            of_encoder = write_encoder(folder, found.trained, found.trials)
            numbers = {**numbers, ENCODER_NUMBERS: of_encoder}
            found = found.found
        return finish_conformations(folder, job.particles, job.used, found, numbers)

    def infer(monitor: Monitor) -> Heterogeneity | AmortizedConformations:
        return _inferred(job, options, config, monitor)

    return ConformationModel(plan, infer, finish)


def _require_usable(job: ConformationJob, options: HeterogeneityOptions) -> None:
    """Refuse particles and options that do not go together.

    Raises
    ------
    InputError
    """
    chosen, world = job.chosen, job.world
    require_frame_of_mask(options.focus_mask, options.poses)
    require_enough(len(chosen), options.config())
    if options.model == "field":
        require_field_dims(options.config())
        require_alone(world, "--model field")
        if job.device.type != "cpu":
            raise InputError(
                f"--model field computes on the CPU, found --device {job.device.type}: "
                "leave it out"
            )
    if options.poses == "given":
        given_poses(chosen)
    if options.method == "search":
        return
    if options.poses == "given":
        raise InputError(
            f"--method {options.method} infers poses, --poses given takes them from "
            "the file: leave out one of the two"
        )
    encoder = fitting_encoder(chosen.box)
    require_teachable(chosen, encoder)
    require_divided(encoder.training.batch, world.size)


def _inferred(
    job: ConformationJob,
    options: HeterogeneityOptions,
    config: HeterogeneityConfig,
    monitor: Monitor,
) -> Heterogeneity | AmortizedConformations:
    chosen, world = job.chosen, job.world
    if options.model == "field":
        return field_heterogeneity(chosen, config, monitor)
    if options.method == "search":
        return heterogeneity(chosen, config, monitor, world, job.device)
    encoder = replace(fitting_encoder(chosen.box), seed=options.seed)
    refines = options.method == "semi-amortized"
    learning = SubspaceLearning.begun(chosen, config, monitor, world, job.device)
    return amortize_conformations(learning, encoder, refines)
