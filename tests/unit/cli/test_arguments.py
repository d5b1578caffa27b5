"""Arguments that a record keeps are those of the command line, and lead back to it."""

import io
import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cryoinfer.cli import (
    classes,
    dynamics,
    encoders,
    heterogeneity,
    new_particles,
    runs,
)
from cryoinfer.cli.app import app
from cryoinfer.cli.arguments import recorded_path, spelled_arguments, told_argument
from cryoinfer.cli.classes import ClassOptions
from cryoinfer.cli.dynamics import DynamicsOptions
from cryoinfer.cli.encoders import TrainOptions
from cryoinfer.cli.heterogeneity import HeterogeneityOptions
from cryoinfer.cli.new_particles import InferOptions
from cryoinfer.cli.options import RunOptions, Workflow
from cryoinfer.cli.particle_options import ParticleOptions

EVERYTHING = {
    "symmetry": "D2",
    "particle_diameter": 70.5,
    "resolution": 20.0,
    "max_shift": 3.0,
    "starts": 5,
    "defocus_error": 300.0,
    "refine_beam_tilt": True,
    "refine_magnification": True,
    "refine_astigmatism": True,
    "refine_aberrations": True,
    "method": "amortized",
    "head": "known",
    "steps": 50,
    "map_pixel_size": 2.5,
    "seed": 3,
}
"""Of a run: another value than the usual one for every option."""


@pytest.fixture
def reading(tmp_path: Path) -> ParticleOptions:
    folder = tmp_path / "a folder of stacks"
    folder.mkdir()
    return ParticleOptions(
        datadir=folder,
        pixel_size=6.4,
        ignore=("aberrations",),
        passthrough=(folder / "a.cs", folder / "b.cs"),
        amplitude_contrast=0.1,
        voltage=300.0,
        cs=2.7,
    )


def of_run(workflow: Workflow) -> Callable[..., RunOptions]:
    def options(simulated: Path, reading: ParticleOptions, **_: Path) -> RunOptions:
        density = simulated / "truth.mrc"
        given = {"map": density, "mask": density} | EVERYTHING
        particles = simulated / "particles.star"
        return RunOptions(workflow, particles, Path("out"), reading=reading, **given)

    return options


def of_train(finished: Path, reading: ParticleOptions, **_: Path) -> TrainOptions:
    return TrainOptions(
        finished, Path("out"), 50, 64, 300.0, reading, 3, None, False, False
    )


def of_infer(watch: bool) -> Callable[..., InferOptions]:
    def options(
        simulated: Path, finished: Path, reading: ParticleOptions
    ) -> InferOptions:
        (finished / "encoder.pt").touch()
        return InferOptions(
            encoder=finished,
            particles=simulated if watch else simulated / "particles.star",
            out=Path("out"),
            local_refinement=False,
            watch=watch,
            until_idle=None,
            symmetry="D2",
            reading=reading,
            seed=3,
            threads=None,
            resume=False,
            overwrite=False,
        )

    return options


def of_dynamics(
    simulated: Path, reading: ParticleOptions, **_: Path
) -> DynamicsOptions:
    return DynamicsOptions(
        particles=simulated / "particles.star",
        out=Path("out"),
        structure="adenylate-kinase-open",
        modes=2,
        amplitude=3.0,
        cutoff=12.0,
        poses="in-plane",
        shift=4.0,
        defocus_error=300.0,
        steps=50,
        side=64,
        draws=6,
        inference="variational",
        symmetry="C3",
        learn=8,
        reading=reading,
        seed=3,
        threads=None,
        resume=False,
        overwrite=False,
    )


def of_heterogeneity(
    simulated: Path, reading: ParticleOptions, **_: Path
) -> HeterogeneityOptions:
    return HeterogeneityOptions(
        particles=simulated / "particles.star",
        out=Path("out"),
        model="subspace",
        dims=2,
        poses="given",
        focus_mask=simulated / "truth.mrc",
        method="search",
        resolution=12.0,
        particle_diameter=60.0,
        max_shift=4.0,
        learn=500,
        reading=reading,
        seed=3,
        threads=None,
        device="auto",
        resume=False,
        overwrite=False,
    )


def of_field(
    simulated: Path, reading: ParticleOptions, **_: Path
) -> HeterogeneityOptions:
    subspace = of_heterogeneity(simulated, reading)
    return replace(subspace, model="field", focus_mask=None)


def of_classes(simulated: Path, reading: ParticleOptions, **_: Path) -> ClassOptions:
    return ClassOptions(
        particles=simulated / "particles.star",
        out=Path("out"),
        classes=2,
        poses="given",
        resolution=12.0,
        particle_diameter=60.0,
        max_shift=4.0,
        learn=500,
        reading=reading,
        seed=3,
        threads=None,
        device="auto",
        resume=False,
        overwrite=False,
    )


def arguments_of(options: Any) -> dict[str, Any]:
    if isinstance(options, InferOptions):
        assert options.symmetry is not None
        return options.arguments(options.symmetry)
    found: dict[str, Any] = options.arguments()
    return found


KINDS = {
    "abinitio": (of_run("abinitio"), (runs, "run")),
    "refine": (of_run("refine"), (runs, "run")),
    "reconstruct": (of_run("reconstruct"), (runs, "run")),
    "train": (of_train, (encoders, "train")),
    "infer": (of_infer(False), (new_particles, "infer_unseen")),
    "infer --watch": (of_infer(True), (new_particles, "infer_unseen")),
    "dynamics": (of_dynamics, (dynamics, "dynamics")),
    "heterogeneity": (of_heterogeneity, (heterogeneity, "find_conformations")),
    "heterogeneity, field": (of_field, (heterogeneity, "find_conformations")),
    "heterogeneity, classes": (of_classes, (classes, "find_classes")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_is_repeated_by_what_its_report_shows(
    kind: str,
    simulated: Path,
    finished: Path,
    reading: ParticleOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make, (module, name) = KINDS[kind]
    made = make(simulated=simulated, finished=finished, reading=reading)
    recorded = arguments_of(made)
    line = kind.split()[0].rstrip(",")
    for option, value in spelled_arguments(recorded).items():
        line += f" {option} {value}" if option.startswith("--") else f" {value}"
    seen: list[Any] = []

    def call(options: Any, _: Console) -> int:
        seen.append(options)
        return 0

    monkeypatch.setattr(module, name, call)
    answer = CliRunner().invoke(app, [*shlex.split(line), "--out", "out"])
    assert answer.exit_code == 0, answer.output
    assert arguments_of(seen[0]) == recorded


def test_no_argument_of_another_workflow_is_recorded(options: RunOptions) -> None:
    found = replace(options, workflow="reconstruct").arguments()
    assert not {"map", "starts", "method", "head", "resolution"} & found.keys()
    assert "starts" not in replace(options, workflow="refine").arguments()
    assert options.arguments()["starts"] == 2


def test_flags_and_lists_are_told_as_they_are_given() -> None:
    assert told_argument("no-refinement", True) == "with --no-refinement"
    assert told_argument("no-refinement", False) == "without --no-refinement"
    assert told_argument("encoder", "/a b/e.pt") == "with encoder '/a b/e.pt'"
    assert told_argument("ignore", ["x", "y"]) == "with --ignore x --ignore y"
    assert told_argument("ignore", []) == "without --ignore"


def test_one_path_has_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stacks"
    folder.mkdir()
    (folder / "a.star").touch()
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "other.star").symlink_to(folder / "a.star")
    monkeypatch.chdir(tmp_path)
    spellings = ("stacks", "./stacks/", "stacks/../stacks", "link")
    found = {recorded_path(Path(one)) for one in spellings}
    assert found == {os.path.realpath(folder)}
    assert {recorded_path(Path(one) / "a.star") for one in spellings} == {
        os.path.realpath(folder / "a.star")
    }
    # Its own folder is where stacks are looked for.
    assert Path(recorded_path(Path("other.star"))).name == "other.star"


def test_a_run_is_resumed_with_another_spelling_of_its_folders(
    finished: Path, options: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = options.particles.parent
    monkeypatch.chdir(folder)
    again = Console(file=io.StringIO(), width=200)
    spelled = Path("..") / folder.name / options.particles.name
    runs.run(replace(options, particles=spelled, resume=True), again)
    assert isinstance(again.file, io.StringIO)
    assert "there is nothing to do" in again.file.getvalue()
