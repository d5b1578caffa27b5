"""The options of --method cryoposenet, and those that do not go with it."""

import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from rich.console import Console

from cryoinfer.cli import runs
from cryoinfer.cli.options import RunOptions
from cryoinfer.cli.published_method import (
    estimate_of,
    require_own_options,
    require_published,
    run_published,
)
from cryoinfer.cli.report_page import read_content
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.interfaces import SILENT
from cryoinfer.results.run_result import RunResult


@pytest.fixture
def published(options: RunOptions) -> RunOptions:
    return replace(options, method="cryoposenet")


@pytest.mark.parametrize("method", ["search", "amortized"])
@pytest.mark.parametrize("own", [{"head": "free"}, {"steps": 10}])
def test_options_of_its_own_go_with_no_other(
    options: RunOptions, method: Any, own: dict[str, Any]
) -> None:
    (name,) = own
    other = replace(options, method=method)
    require_own_options(other)
    with pytest.raises(InputError, match=rf"--{name} goes .* --method {method}"):
        require_own_options(replace(other, **own))


@pytest.mark.parametrize(
    "given",
    [
        {"symmetry": "D2"},
        {"resolution": 8.0},
        {"max_shift": 2.0},
        {"starts": 3},
        {"defocus_error": 300.0},
    ],
)
def test_what_it_does_not_model_is_refused(
    published: RunOptions, given: dict[str, Any]
) -> None:
    option = f"--{next(iter(given)).replace('_', '-')}"
    with pytest.raises(InputError, match=f"{option} does not go with .* --method sea"):
        require_own_options(replace(published, **given))


def test_what_goes_with_it_does(published: RunOptions) -> None:
    require_own_options(published)
    given = {"symmetry": "c1", "max_shift": 0.0, "head": "known", "steps": 5}
    require_own_options(replace(published, **given, particle_diameter=60.0, seed=4))


def test_settings_reach_the_workflow(
    published: RunOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    place = "cryoinfer.cli.published_method.cryoposenet"
    monkeypatch.setattr(place, lambda *given: seen.append(given))
    particles = Particles.load(published.particles)
    run_published(published, particles, SILENT, torch.device("cpu"))
    asked = replace(published, head="free", steps=7, particle_diameter=50.0, seed=3)
    run_published(asked, particles, SILENT, torch.device("cuda"))
    (_, usual, _, here), (_, chosen, _, there) = seen
    assert (here.type, there.type) == ("cpu", "cuda")
    assert (usual.head, usual.training.steps) == ("s2s2", 10_000)
    assert (chosen.head, chosen.training.steps) == ("free", 7)
    assert (chosen.particle_diameter_angstrom, chosen.seed) == (50.0, 3)
    with pytest.raises(InputError, match="takes those of the file"):
        require_published(replace(published, head="known"), particles)


def test_an_estimate_is_what_was_measured(published: RunOptions) -> None:
    # One core, a box of 64: 0.31 s a step of an encoder, 0.056 s of known poses
    # (by hand); an estimate is to be right within a factor of two.
    encoder = estimate_of(published, 9000, 64, threads=1)
    assert 3100 / 2 < encoder.seconds < 3100 * 2
    known = estimate_of(replace(published, head="known"), 9000, 64, threads=1)
    assert 560 / 2 < known.seconds < 560 * 2
    short = estimate_of(replace(published, steps=100), 9000, 64, threads=1)
    assert short.seconds < encoder.seconds / 20
    # All images are in memory.
    many = estimate_of(published, 90_000, 64, threads=1)
    assert many.memory_bytes - encoder.memory_bytes > 81_000 * 4 * 64**2
    assert encoder.disk_bytes > known.disk_bytes + 1e8


@pytest.mark.parametrize("head", ["s2s2", "known"])
def test_a_report_says_what_the_halves_prove(
    published: RunOptions,
    head: Any,
    result: RunResult,
    screen: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "require_published", lambda *_: None)
    monkeypatch.setattr(runs, "run_published", lambda *_: result)
    assert runs.run(replace(published, head=head), screen) == 0
    assert isinstance(screen.file, io.StringIO)
    text, content = screen.file.getvalue(), read_content(published.out)
    assert ("of half-maps with poses from one map" in text) == (head == "s2s2")
    assert content.halves == ("one map" if head == "s2s2" else "given")
    assert content.workflow == "Ab initio, cryoposenet"
    own = "learned together with one map" in content.independence
    assert own == (head == "s2s2")
