"""How much of Fourier space views measure."""

import pytest
import torch

from cryoinfer.evaluation.view_coverage import fourier_coverage
from cryoinfer.geometry.rotations import random_rotations


def test_fourier_coverage_of_known_spreads() -> None:
    even = random_rotations(4000, torch.Generator().manual_seed(6))[:, 2]
    # 4000 views x 0.087: about 350 in the band of each probe, so a noise of 5 %, and
    # the worst of 400 probes lies some 3 sd low.
    assert 0.75 < fourier_coverage(even).min() < 1
    along_z = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64).expand(500, 3)
    assert fourier_coverage(along_z).min() == 0
    turn = torch.linspace(0, 2 * torch.pi, 5000, dtype=torch.float64)
    tilt_series = torch.stack([turn.cos(), turn.sin(), 0 * turn], dim=-1)
    # Beams round the equator: within asin(x) of the plane of a probe on the equator lie
    # 4 asin(x) / 2 pi of them, and x of an even spread: 2/pi.
    assert float(fourier_coverage(tilt_series).min()) == pytest.approx(
        2 / torch.pi, abs=0.03
    )
