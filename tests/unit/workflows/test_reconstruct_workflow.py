"""Maps from true poses."""

import pytest
import torch

from cryoinfer.errors import InputError
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.reconstruction.mask import soft_sphere
from cryoinfer.records import Pose
from cryoinfer.workflows.reconstruct import ReconstructConfig, reconstruct

BOX, PIXEL_SIZE = 24, 3.8


def slope(found: torch.Tensor, truth: torch.Tensor) -> float:
    """Regress on the truth within shells 1 to 10, all that a map may know."""
    axis = torch.fft.fftfreq(BOX, 1 / BOX)
    half = torch.arange(BOX // 2 + 1)
    radius = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + half**2).sqrt()
    known = (radius > 0.5) & (radius < 10.5)
    first, second = (torch.fft.rfftn(m.double())[known] for m in (found, truth))
    return float((first * second.conj()).real.sum() / second.abs().square().sum())


@pytest.mark.parametrize("groups", [1, 2])
def test_true_poses_give_the_true_map_in_its_own_units(simulated, groups) -> None:
    made = simulated(
        600,
        snr_db=20.0,
        max_shift_angstrom=2.0,
        optics_groups=groups,
        defocus_range_angstrom=(8000.0, 16000.0),
    )
    found = reconstruct(made.with_poses(), ReconstructConfig(), SilentMonitor())
    assert found.density.shape == (BOX, BOX, BOX)
    assert found.pixel_size_angstrom == pytest.approx(PIXEL_SIZE)
    curve = fourier_shell_correlation(found.density * found.mask, made.density)
    # The last shell is cut by the disc.
    assert curve[1:10].min() > 0.95
    # The filter keeps nearly all at this signal, trilinear interpolation loses 2 to
    # 4 %. A second group of another pixel size (and voltage) changes nothing.
    assert slope(found.density, made.density) == pytest.approx(1.0, abs=0.05)
    half = 0.5 * (found.half1 + found.half2)
    assert slope(half, made.density) == pytest.approx(1.0, abs=0.05)
    # The images' discs end one shell before Nyquist: nothing is known beyond them, nor
    # does the corrected curve say more than the masked one anywhere.
    assert (found.fsc <= found.fsc_masked).all()
    assert found.fsc[-1] <= 0
    # Nyquist.
    assert found.resolution_angstrom < 2 * PIXEL_SIZE * 1.15


def test_halves_are_independent_of_each_other(simulated) -> None:
    made = simulated(400, snr_db=0.0)
    subset = torch.arange(400) % 2 + 1
    particles = made.with_poses().with_results(random_subset=subset)
    config = ReconstructConfig()
    found = reconstruct(particles, config, SilentMonitor())
    wrong = made.true_pose.rotation.clone()
    wrong[subset == 2] = wrong[subset == 2].flip(0)
    pose = Pose(wrong, made.true_pose.shift_angstrom)
    spoilt = reconstruct(particles.with_results(pose=pose), config, SilentMonitor())
    assert torch.equal(found.half1, spoilt.half1)
    assert not torch.allclose(found.half2, spoilt.half2)
    assert spoilt.resolution_angstrom > found.resolution_angstrom


def test_wrong_poses_have_no_resolution(simulated) -> None:
    made = simulated(400, snr_db=0.0)
    turned = Pose(made.true_pose.rotation.flip(0), made.true_pose.shift_angstrom)
    particles = made.particles.with_results(pose=turned)
    found = reconstruct(particles, ReconstructConfig(), SilentMonitor())
    right = reconstruct(made.with_poses(), ReconstructConfig(), SilentMonitor())
    # What is left is the blob that all images share.
    assert found.resolution_angstrom > 1.5 * right.resolution_angstrom


def test_symmetry_makes_a_symmetric_map(simulated) -> None:
    made = simulated(200)
    config = ReconstructConfig(symmetry="C2")
    found = reconstruct(made.with_poses(), config, SilentMonitor())
    turned = torch.flip(found.density, (1, 2)).roll((1, 1), (1, 2))
    # But for the first row and column, which have no partner in an even box.
    inside = (slice(None), slice(1, None), slice(1, None))
    scale = float(found.density.abs().max())
    torch.testing.assert_close(
        found.density[inside], turned[inside], rtol=0, atol=1e-4 * scale
    )
    assert found.symmetry == "C2"


def test_particles_without_poses_are_refused(simulated) -> None:
    with pytest.raises(InputError, match="poses"):
        reconstruct(simulated().particles, ReconstructConfig(), SilentMonitor())


def test_half_maps_are_compared_in_the_mask_of_the_user(simulated) -> None:
    made = simulated(400, snr_db=0.0)
    mask = soft_sphere(BOX, 6.0, 4.0)
    found = reconstruct(made.with_poses(), ReconstructConfig(mask=mask))
    plain = reconstruct(made.with_poses(), ReconstructConfig())
    assert torch.equal(found.mask, mask)
    assert not torch.allclose(plain.mask, mask, atol=0.1)
    assert torch.equal(found.half1, plain.half1)
    masked = fourier_shell_correlation(found.half1 * mask, found.half2 * mask)
    # Products with the mask are of double precision there, of single here.
    torch.testing.assert_close(found.fsc_masked, masked, atol=1e-6, rtol=0)
