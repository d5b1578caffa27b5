import math

import torch

from cryoinfer.cli.left_out import LeftOut


def test_counts_and_what_they_mean() -> None:
    # Flagged above -log(0.01) = 4.6 nats.
    novelty = torch.tensor([0.1, 4.5, 4.7, math.inf, 1.0, math.inf])
    found = LeftOut.of(novelty)
    assert found == LeftOut(6, 1, 2, 4)
    assert found.share == 0.25
    assert "1 of 6 (25.0%) are flagged" in found.novel_words()
    assert "2 with NaN or infinite pixels, the first in row 4" in (
        found.unreadable_words()
    )
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
