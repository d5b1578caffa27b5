"""Maps on other voxels."""

import pytest
import torch
from torch import Tensor

from cryoinfer.evaluation.rigid_search import resampled


@pytest.mark.parametrize(("before", "after"), [(32, 16), (33, 16), (32, 64), (33, 32)])
def test_resampling_keeps_values_and_centre(before: int, after: int) -> None:
    """A blob far coarser than either voxel has the same values at the same places."""

    def blob(box: int) -> Tensor:
        line = (torch.arange(box, dtype=torch.float64) - box // 2) / box
        wave = torch.exp(-((line - 0.05) ** 2) / (2 * 0.12**2))
        return wave[:, None, None] * wave[:, None] * wave

    found = resampled(blob(before), after)
    # What the Gaussian has at the edge of the box, exp(-(0.45 / 0.12)^2 / 2), and
    # beyond the radius of 7 Fourier pixels: both below 1e-3.
    torch.testing.assert_close(found, blob(after), rtol=0, atol=2e-3)
