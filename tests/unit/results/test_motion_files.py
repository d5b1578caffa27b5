"""What a run of motions reads and writes beside what it infers."""

from pathlib import Path

import pandas as pd
import torch

from cryoinfer.results import motion_files
from cryoinfer.results.flags import FLAG
from cryoinfer.results.motions import Motions


def test_latents_are_named_by_the_particles(tmp_path: Path) -> None:
    (tmp_path / "particles.star").write_text(
        "data_particles\nloop_\n_rlnImageName\n1@a.mrcs\n2@a.mrcs\n\n"
        "data_general\nloop_\n_rlnComment\nnone\n"
    )
    motion_files._write_latents(tmp_path, Motions.blank(2, 1), torch.tensor([2, 1]))
    table = pd.read_parquet(tmp_path / "latents.parquet")
    assert table["rlnImageName"].tolist() == ["1@a.mrcs", "2@a.mrcs"]
    assert table["mode_1"].isna().all()
    assert table[FLAG].tolist() == [2, 1]
