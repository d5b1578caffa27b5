"""RELION's post-processing of our half-maps finds our FSC and our resolution."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.mrc import write_map
from cryoinfer.io.star import StarBlock, read_star
from cryoinfer.results.run_result import Reconstruction
from cryoinfer.workflows.reconstruct import ReconstructConfig, reconstruct

BOX = 64
PIXEL_SIZE_ANGSTROM = 1.6
LENGTH_ANGSTROM = BOX * PIXEL_SIZE_ANGSTROM
OUTER = BOX // 2 - 1  # of our maps; beyond it, coefficients are zero


@dataclass(frozen=True)
class Job:
    """Our maps, and what RELION says of them."""

    ours: Reconstruction
    resolution_angstrom: float
    curves: StarBlock


@pytest.fixture(scope="module")
def job(tmp_path_factory, relion) -> Job:
    # Blurred and noisy, so that the halves part well before Nyquist.
    config = SimulationConfig(
        n=600,
        box=BOX,
        pixel_size_angstrom=PIXEL_SIZE_ANGSTROM,
        snr_db=-12.0,
        defocus_range_angstrom=(6000.0, 15000.0),
        b_factor_angstrom2=200.0,
        seed=3,
    )
    folder = tmp_path_factory.mktemp("relion")
    simulate(config, folder, SilentMonitor())
    particles = Particles.load(folder / "truth.star")
    ours = reconstruct(
        particles, ReconstructConfig(particle_diameter_angstrom=80.0), SilentMonitor()
    )
    for name, volume in {
        "run_half1_class001_unfil.mrc": ours.half1,
        "run_half2_class001_unfil.mrc": ours.half2,
        "mask.mrc": ours.mask,
    }.items():
        write_map(folder / name, volume, PIXEL_SIZE_ANGSTROM)
    # RELION finds the second half by its name. It writes a PDF into this folder.
    (folder / "post").mkdir()
    relion(
        folder,
        "relion_postprocess",
        *("--i", "run_half1_class001_unfil.mrc", "--mask", "mask.mrc", "--o", "post"),
    )
    star = read_star(folder / "post.star")
    general, curves = star.get("general"), star.get("fsc")
    assert general is not None
    assert curves is not None
    return Job(ours, general.numbers("rlnFinalResolution")[0], curves)


@pytest.mark.slow
def test_resolutions_agree(job):
    shell = LENGTH_ANGSTROM / job.ours.resolution_angstrom
    assert 5 < shell < OUTER - 5
    # RELION names the last shell above 0.143, we the crossing that follows; its
    # random phases are others than ours.
    assert abs(LENGTH_ANGSTROM / job.resolution_angstrom - shell) <= 1.5


def unweighted_correlation(first: Tensor, second: Tensor) -> NDArray[np.float64]:
    """Return the FSC over half a transform, whose coefficients all count once.

    RELION sums so: pairs of k and -k count once but where x = 0, twice there. Ours
    counts every coefficient of the whole transform once.
    """
    a, b = (np.fft.rfftn(half.double().numpy()) for half in (first, second))
    whole = np.fft.fftfreq(BOX, 1 / BOX)
    half = np.arange(BOX // 2 + 1)
    squared = whole[:, None, None] ** 2 + whole[:, None] ** 2 + half**2
    shells = np.rint(np.sqrt(squared)).astype(int).ravel()

    def shell_sum(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(shells, values.ravel())[: BOX // 2 + 1]

    power = shell_sum(np.abs(a) ** 2) * shell_sum(np.abs(b) ** 2)
    return shell_sum((a * b.conj()).real) / np.sqrt(power)


@pytest.mark.slow
def test_relion_reads_the_maps_as_they_were_written(job):
    ours, theirs = job.ours, job.curves
    for label, mask in (("UnmaskedMaps", 1.0), ("MaskedMaps", ours.mask)):
        found = theirs.numbers(f"rlnFourierShellCorrelation{label}")
        mine = unweighted_correlation(ours.half1 * mask, ours.half2 * mask)
        # RELION writes six digits after the point.
        np.testing.assert_allclose(mine[1:OUTER], found[1:OUTER], atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("label", "curve"),
    [
        ("rlnFourierShellCorrelationUnmaskedMaps", "fsc_unmasked"),
        ("rlnFourierShellCorrelationMaskedMaps", "fsc_masked"),
    ],
)
def test_curves_agree(job, label, curve):
    theirs = job.curves.numbers(label)
    mine = getattr(job.ours, curve).numpy()
    # Found: 0.013 and 0.010, all of it by the weights of the plane x = 0, see above.
    np.testing.assert_allclose(mine[1:OUTER], theirs[1:OUTER], atol=0.03)


@pytest.mark.slow
def test_corrected_curves_agree(job):
    theirs = job.curves.numbers("rlnFourierShellCorrelationCorrected")
    difference = np.abs(job.ours.fsc.numpy() - theirs)[1:OUTER]
    # The random phases differ. Found: 0.063 at most and 0.012 in the mean.
    assert difference.max() < 0.15
    assert difference.mean() < 0.03
