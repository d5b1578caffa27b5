"""Pictures of particles: which are chosen, and what is kept of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryoinfer.errors import InputError
from cryoinfer.report.gallery import gallery_section
from cryoinfer.results import layout
from cryoinfer.results.gallery import BEST, TYPICAL, WORST, Gallery, _chosen, _cropped


def gallery(count: int = 3, pixels: int = 8) -> Gallery:
    random = np.random.default_rng(3)
    images = random.normal(size=(count, pixels, pixels)).astype(np.float32)
    ones = np.ones(count)
    return Gallery(
        kind=np.arange(count),
        row=np.arange(count) * 10,
        images=images,
        projections=0.5 * images,
        contrast=0.5 * ones,
        correlation=ones,
        outlier_score_nats=np.nan * ones,
        flagged=np.zeros(count, dtype=bool),
        rotation_sd_degrees=2.0 * ones,
        shift_sd_angstrom=0.5 * ones,
        side_angstrom=100.0 * ones,
        finest_angstrom=np.array(15.0),
        compared=np.array(40),
    )


def test_best_middle_and_worst_are_chosen() -> None:
    rank = torch.arange(100, dtype=torch.float64).flip(0)
    rank[7] = -torch.inf  # of an image that overflowed
    rows, kind = _chosen(rank)
    assert kind.tolist() == [BEST] * 4 + [TYPICAL] * 4 + [WORST] * 4
    assert rows[:4].tolist() == [0, 1, 2, 3]
    assert rows[4:8].tolist() == [49, 50, 51, 52]
    assert rows[-1] == 7
    few, kind = _chosen(torch.tensor([0.5, 0.1]))
    assert few.tolist() == [0, 1]
    assert kind.tolist() == [TYPICAL] * 2


def test_a_coarser_picture_has_the_same_wave() -> None:
    """A wave of two periods, about the middle of the box, of 24 pixels and of 16."""

    def wave(box: int) -> torch.Tensor:
        x = (torch.arange(box, dtype=torch.float64) - box // 2) / box
        return torch.cos(2 * torch.pi * 2 * x).expand(1, box, box)

    # Both are exact: what is left is the rounding of float64.
    torch.testing.assert_close(_cropped(wave(24), 16), wave(16), atol=1e-12, rtol=0)


def test_a_gallery_comes_back_from_its_file(tmp_path: Path) -> None:
    assert Gallery.read(tmp_path) is None
    kept = gallery()
    kept.write(tmp_path)
    found = Gallery.read(tmp_path)
    assert found is not None
    for name, array in vars(kept).items():
        # Pictures are kept as float16, whose roundings are 2^-11 of a value.
        np.testing.assert_allclose(getattr(found, name), array, rtol=2**-11)
    (tmp_path / layout.GALLERY).write_bytes(b"PK")
    with pytest.raises(InputError, match="damaged"):
        Gallery.read(tmp_path)


def test_the_page_says_how_particles_were_chosen_and_which_are_flagged() -> None:
    page = gallery_section(gallery())
    assert "correlation with the map&#x27;s projection, among 40" in page
    assert page.count("data:image/png;base64,") == 9
    assert "Row 11" in page
    assert "rotation ±2°" in page
    assert 'class="flag"' not in page
    scored = replace(
        gallery(),
        outlier_score_nats=np.array([0.1, 1.0, 80.0]),
        flagged=np.array([False, False, True]),
    )
    page = gallery_section(scored)
    assert "Chosen by outlier score among 40 particles" in page
    assert page.count('class="flag"') == 1
