import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cryoinfer.cli.rejected_particles import LeftOut
from cryoinfer.data.particles import Particles
from cryoinfer.inference.outlier_score import is_outlier
from cryoinfer.results.flags import read_flags
from cryoinfer.results.run_record import RunRecord


def test_counts_and_what_they_mean() -> None:
    # Flagged above -log(0.01) = 4.6 nats.
    outlier = is_outlier(torch.tensor([0.1, 4.5, 4.7, math.inf, 1.0, math.inf]))
    unreadable = torch.arange(6) % 2 == 1
    unreadable[1] = False
    found = LeftOut.of(outlier, unreadable)
    assert found == LeftOut(6, 1, 2, 4)
    assert found.share == 0.25
    assert "1 of 4 (25.0%) are flagged" in found.novel_words()
    # What has overflowed is novel, and not an image without numbers.
    assert LeftOut.of(outlier, torch.zeros(6).bool()) == LeftOut(6, 3, 0, 0)
    assert "2 with NaN or infinite pixels, the first in row 4" in (
        found.unreadable_words()
    )
    # Of what an earlier run has flagged, this encoder says nothing.
    used = torch.tensor([True, True, True, False, False, True])
    assert LeftOut.of(outlier, unreadable, used) == LeftOut(4, 1, 1, 6)
    assert LeftOut.of_results(found.numbers()) == found
    assert LeftOut.of_results({}) is None


def test_what_chance_explains_is_no_caution() -> None:
    # 10 false alarms of 1,000 are expected, and 3 sd more.
    assert LeftOut(1000, 19, 0, 0).cautions() == ()
    assert len(LeftOut(1000, 20, 0, 0).cautions()) == 1
    assert LeftOut(1000, 500, 0, 0).doubt() is None
    (_, doubt) = LeftOut(1000, 501, 0, 0).cautions()
    assert "does not know this molecule" in doubt
    assert LeftOut(3, 0, 3, 1).share == 0
    # Judged together, most are usual by definition.
    assert LeftOut(1000, 501, 0, 0, judged_together=True).cautions() == ()


def test_flags_are_those_of_the_run_itself(simulated: Path) -> None:
    particles = Particles.load(simulated / "particles.star")
    flag = np.arange(len(particles)) % 3
    table = particles.with_results(columns={"cryoinferFlag": flag}).table
    record = RunRecord.of_now("infer", {}, {}, 0, 1)
    own = replace(record, results=LeftOut(120, 40, 40, 3).numbers())
    assert read_flags(own, table).tolist() == flag.tolist()
    # Flags that refined particles have brought along are of an earlier run.
    assert not bool(read_flags(record, table).any())
    assert not bool(read_flags(own, particles.table).any())
