"""How much of Fourier space views measure."""

import pytest
import torch

from cryoinfer.evaluation.view_coverage import fourier_coverage, unseen_share
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.geometry.symmetry import symmetry_rotations


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


@pytest.mark.parametrize("group", ["T", "O", "I"])
def test_views_that_crowd_leave_directions_unseen(group: str) -> None:
    """Mates included, as a wrong map of high symmetry and a right one have them."""
    generator = torch.Generator().manual_seed(3)
    rotation = symmetry_rotations(group).double()
    even = random_rotations(100, generator)[:, 2].double()
    axis = torch.tensor([0.3, 0.5, 0.8], dtype=torch.float64)
    # Some 6 degrees about one view.
    spread = 0.1 * torch.randn(100, 3, generator=generator, dtype=torch.float64)
    crowd = torch.nn.functional.normalize(axis + spread, dim=1)
    # Of 20 draws of 50 even views the most was 2.5 %.
    assert unseen_share((even @ rotation).flatten(0, 1)) < 0.03
    assert unseen_share((crowd @ rotation).flatten(0, 1)) > 0.2


def test_the_unseen_share_of_a_cap() -> None:
    """Views within 60 degrees of an axis, or its opposite: all but half of them."""
    view = random_rotations(20_000, torch.Generator().manual_seed(5))[:, 2].double()
    seen = view[view[:, 2] > 0.5]
    # A cap of 8 degrees holds too few views from about 3 degrees outside on: 0.05 less.
    assert unseen_share(seen) == pytest.approx(0.45, abs=0.03)
