"""Populations of classes, and how many classes images ask for: known answers."""

import math

import pytest
import torch

from cryoinfer.results.classes import (
    ClassGain,
    maximum_populations,
    responsibilities,
)


def test_sure_particles_are_counted() -> None:
    evidence = torch.zeros(100, 3, dtype=torch.float64)
    for row in range(100):
        evidence[row, 0 if row < 50 else 1 if row < 80 else 2] = 200.0
    found = maximum_populations(evidence)
    expected = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    # It ends where a share moves by less than a thousandth of a particle.
    torch.testing.assert_close(found.share, expected, rtol=0, atol=1e-5)
    # Of certain classes the errors are those of counts.
    counted = (expected * (1 - expected) / 100).sqrt()
    torch.testing.assert_close(found.se, counted, rtol=1e-3, atol=0)


def test_doubtful_particles_are_counted_in_part_and_known_less_well() -> None:
    generator = torch.Generator().manual_seed(0)
    n, true, apart = 20_000, 0.3, 1.5
    second = torch.rand(n, generator=generator) < true
    seen = torch.randn(n, generator=generator).double() + apart * second
    evidence = torch.stack([-(seen**2) / 2, -((seen - apart) ** 2) / 2], 1)
    found = maximum_populations(evidence)
    se = float(found.se[1])
    assert abs(float(found.share[1]) - true) < 4 * se  # one in 16,000 seeds
    assert se == pytest.approx(float(found.se[0]))
    # What is not known of the classes comes on top of the error of a count.
    assert 1.2 * math.sqrt(true * (1 - true) / n) < se < 0.02


def test_errors_are_those_of_repeated_sets() -> None:
    generator = torch.Generator().manual_seed(1)
    shares, errors = [], []
    for _ in range(60):
        second = torch.rand(400, generator=generator) < 0.4
        seen = torch.randn(400, generator=generator).double() + 2.0 * second
        evidence = torch.stack([-(seen**2) / 2, -((seen - 2) ** 2) / 2], 1)
        found = maximum_populations(evidence)
        shares.append(found.share[1])
        errors.append(found.se[1])
    spread = float(torch.stack(shares).std())
    # A spread of 60 is known to a tenth; three times that.
    assert float(torch.stack(errors).mean()) == pytest.approx(spread, rel=0.3)


def test_responsibilities_are_bayes_rule() -> None:
    generator = torch.Generator().manual_seed(2)
    evidence = 3 * torch.randn(7, 4, generator=generator, dtype=torch.float64)
    share = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    found = responsibilities(evidence, share)
    for row in range(7):
        joint = [float(share[k]) * math.exp(float(evidence[row, k])) for k in range(4)]
        for k in range(4):
            assert float(found[row, k]) == pytest.approx(joint[k] / sum(joint))


@pytest.mark.parametrize(
    ("step", "error", "expected"),
    [
        ((-0.2, 0.1, 5.0), (0.1, 0.1, 0.5), 2),
        ((0.5, 3.0), (0.1, 0.1), 4),
        ((-0.1, 0.2, math.nan), (0.1, 0.1, 0.1), 1),
        ((), (), 1),
    ],
)
def test_classes_that_say_nothing_are_not_counted(
    step: tuple[float, ...], error: tuple[float, ...], expected: int
) -> None:
    gain = ClassGain(tuple(range(4, 4 - len(step), -1)), step, error)
    assert gain.significant == expected
