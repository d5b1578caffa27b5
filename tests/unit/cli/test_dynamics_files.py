"""What a run of motions reads and writes beside what it infers."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from cryoinfer.cli import dynamics_files
from cryoinfer.cli.dynamics import _unflagged
from cryoinfer.cli.run_files import FLAG
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.workflows.motion_result import Motions


def test_latents_are_named_by_the_particles(tmp_path: Path) -> None:
    (tmp_path / "particles.star").write_text(
        "data_particles\nloop_\n_rlnImageName\n1@a.mrcs\n2@a.mrcs\n\n"
        "data_general\nloop_\n_rlnComment\nnone\n"
    )
    dynamics_files._write_latents(tmp_path, Motions.blank(2, 1))
    table = pd.read_parquet(tmp_path / "latents.parquet")
    assert table["rlnImageName"].tolist() == ["1@a.mrcs", "2@a.mrcs"]
    assert table["mode_1"].isna().all()


def test_flagged_particles_are_left_out(simulated: Path) -> None:
    particles = Particles.load(simulated / "particles.star")
    flags = np.zeros(len(particles), dtype=np.int64)
    flags[[1, 4]] = 1, 2
    console = Console(file=io.StringIO(), width=200)
    flagged = particles.with_results(columns={FLAG: flags})
    kept = _unflagged(flagged, console)
    assert len(kept) == len(particles) - 2
    assert isinstance(console.file, io.StringIO)
    assert f"Left out: 2 of {len(particles):,} particles" in console.file.getvalue()
    assert len(_unflagged(particles, console)) == len(particles)
    with pytest.raises(InputError, match=r"all .* flagged by an earlier run"):
        _unflagged(flagged.select(torch.from_numpy(flags > 0)), console)
