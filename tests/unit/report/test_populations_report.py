"""What the page about conformations says of populations, and of which axes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from cryoinfer.report.heterogeneity import HeterogeneityContent
from cryoinfer.report.populations import populations_section
from cryoinfer.results.heterogeneity import HeldOutGain

N, NOISE = 400, 0.3


@pytest.fixture(scope="module")
def content() -> HeterogeneityContent:
    """Return two states along z 1, and nothing but a normal along z 2."""
    random = np.random.default_rng(0)
    z = random.standard_normal((N, 2))
    z[:, 0] = np.where(random.random(N) < 0.6, -1.0, 1.0)
    seen = z + NOISE * random.standard_normal((N, 2))
    variance = NOISE**2 / (1 + NOISE**2)
    flat = torch.ones(9)
    return HeterogeneityContent(
        title="run",
        created="today",
        columns={},
        z=seen * (1 - variance),
        z_sd=np.full((N, 2), variance**0.5),
        maps=np.zeros((3, 16, 16, 16), dtype=np.float32),
        pixel_size_angstrom=1.0,
        gain=HeldOutGain((5.0, 5.0), (0.1, 0.1), (5.0, 0.0), (0.1, 0.1)),
        counted="chosen",
        unseen=False,
        pose_r2=(0.0, 0.0),
        rigid_share=(0.0, 0.0),
        fsc=flat,
        fsc_unmasked=flat,
        resolution="4 A",
        poses_given=True,
        seed=0,
        stage_seconds={},
        correlation=np.zeros(N),
    )


def test_axes_that_say_nothing_have_no_density(content: HeterogeneityContent) -> None:
    assert content.gain.significant == 1
    (only,) = content.populations
    assert content.plane is None
    assert len(only.basins) == 2
    page = populations_section(content.populations, content.plane)
    assert "Free energy along z 1" in page
    assert "Free energy along z 2" not in page
    # Binomial: 2.4 % a sd of the share.
    assert only.basins[0].share == pytest.approx(0.6, abs=4 * 0.0245)
    assert "90 % interval" in page
    # Half way between the states, of which none is within a width of 0.2.
    assert only.basins[0].high == pytest.approx(0, abs=0.3)
    assert f"below {only.basins[0].high:.2f}" in page


def test_two_axes_have_a_plane(content: HeterogeneityContent) -> None:
    both = replace(content, gain=replace(content.gain, step_nats=(5.0, 1.0)))
    assert len(both.populations) == 2
    assert len(both.populations[1].basins) == 1
    page = populations_section(both.populations, both.plane)
    assert "Free energy of z 1 and z 2" in page


def test_without_components_that_say_something_it_is_said(
    content: HeterogeneityContent,
) -> None:
    nothing = replace(content, gain=replace(content.gain, step_nats=(0.0, 0.0)))
    assert nothing.populations == ()
    page = populations_section(nothing.populations, nothing.plane)
    assert "No component says anything" in page
