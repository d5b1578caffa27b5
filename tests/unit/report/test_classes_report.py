"""The page about classes says how many there are, and when they are not all there."""

import numpy as np
import pytest
import torch

from cryoinfer.report.classes import (
    ClassContent,
    ClassesContent,
    assess_classes,
    class_verdict,
    render_class_report,
)
from cryoinfer.report.parts import cautions
from cryoinfer.results.classes import ClassGain

BOX = 8
NOTHING = ClassGain((), (), ())
ASKED_FOR = ClassGain((3, 2), (-0.1, 4.0), (0.1, 0.2))
NOISE = ClassGain((2,), (-0.3,), (0.1,))


def content(gain: ClassGain, count: int, sure: float = 0.99) -> ClassesContent:
    curve = torch.linspace(1, 0, BOX // 2 + 1)
    one = ClassContent(
        share=1 / count,
        share_se=0.01,
        density=np.random.default_rng(0).random((BOX, BOX, BOX), dtype=np.float32),
        fsc=curve,
        fsc_unmasked=curve,
        resolution="8.0 A (FSC 0.143 of the half-maps, masked)",
    )
    return ClassesContent(
        title="run",
        created="today",
        of_class=(one,) * count,
        probability=np.full(50, sure),
        pixel_size_angstrom=2.0,
        gain=gain,
        chosen=False,
        poses_given=False,
        stage_seconds={"search": 3.0},
    )


@pytest.mark.parametrize(
    ("gain", "count", "words"),
    [
        (NOTHING, 1, "There is one class"),
        (NOISE, 1, "There is one class"),
        (ASKED_FOR, 2, "There are 2 classes: held-out images are 4.00 ± 0.20 nats"),
        (NOISE, 2, "2 classes were asked for, and they are not all there"),
        (ASKED_FOR, 1, "One class was asked for, and held-out images ask for 2"),
        (ClassGain((4, 3), (1, -1), (0.1, 1)), 3, "images ask for 4"),
    ],
)
def test_verdicts(gain: ClassGain, count: int, words: str) -> None:
    verdict = class_verdict(gain, count)
    assert words in verdict
    said = cautions(assess_classes(content(gain, count)))
    assert (verdict in said) == (not words.startswith("There are"))


def test_doubtful_classes_are_told_as_such() -> None:
    assert "Only 0%" in " ".join(cautions(assess_classes(content(ASKED_FOR, 2, 0.6))))
    assert "Only" not in " ".join(cautions(assess_classes(content(ASKED_FOR, 2))))


def test_the_page_shows_every_class() -> None:
    page = render_class_report(content(ASKED_FOR, 2))
    assert "50.0% ± 1.0%" in page
    assert "Map of class 2" in page
    assert "+4.000 ± 0.200" in page
