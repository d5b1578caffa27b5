"""Masks of a user for runs: one that fits is applied and recorded, others refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from cryoinfer.cli import runs
from cryoinfer.cli.options import RunOptions
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.io.mrc import write_map
from cryoinfer.reconstruction.mask import soft_sphere
from cryoinfer.results.run_record import require_finished
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.refine import RefineConfig, StartingMap


def test_a_mask_of_the_user_is_read_and_recorded(
    options: RunOptions,
    workflow,
    screen: Console,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "mask.mrc"
    mask = soft_sphere(16, 3.0, 4.0)  # the particles have 16 pixels of 6.4 A
    start = options.particles.parent / "truth.mrc"
    asked = replace(options, workflow="refine", map=start, mask=path)
    for density, voxel, words in (
        (soft_sphere(20, 3.0, 4.0), 6.4, "20 voxels of 6.4 A"),
        (mask, 3.2, "16 voxels of 3.2 A"),
        (5 * mask, 6.4, "from 0 to 5"),
    ):
        write_map(path, density, voxel)
        with pytest.raises(InputError, match=words):
            runs.run(asked, screen)
    write_map(path, mask, 6.4)
    with pytest.raises(InputError, match="--mask goes with --method search"):
        runs.run(replace(asked, method="amortized"), screen)
    assert not options.out.exists()
    seen = []

    def refined(
        particles: Particles, _: StartingMap, config: RefineConfig, *others: object
    ) -> RunResult:
        seen.append(config.mask)
        result: RunResult = workflow(particles, config, *others)
        return result

    monkeypatch.setattr(runs, "refine", refined)
    runs.run(asked, screen)
    assert torch.equal(seen[0], mask)
    record = require_finished(options.out)
    assert "mask" in record.inputs
    assert any("masked by" in text for text in record.results["remarks"])
