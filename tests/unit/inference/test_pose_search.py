"""Search obeys the interface of an inference and finds known poses."""

import torch

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.geometry.rotations import geodesic_angle, random_rotations
from cryoinfer.geometry.so3_grid import grid_step_radian
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_search import PoseSearch
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.search import SearchPlan
from cryoinfer.inference.whitening import ReferenceGrid
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.records import Optics, ParticleBatch, Pose

BOX, PIXEL = 32, 3.0
ALONE = symmetry_rotations("C1")


def test_a_search_returns_posteriors_about_the_true_poses() -> None:
    generator = torch.Generator().manual_seed(0)
    coordinates = torch.randn(60, 3, generator=generator, dtype=torch.float64) * 12
    atoms = GaussianAtoms.from_elements(coordinates, ["C"] * 60, 200.0)
    n = 12
    shift = (torch.rand(n, 2, generator=generator, dtype=torch.float64) - 0.5) * 8
    true = Pose(random_rotations(n, generator), shift)
    clean = atoms.project(true, BOX, PIXEL).float()
    sd = float(clean.std()) * 0.5
    images = clean + sd * torch.randn(clean.shape, generator=generator)
    batch = ParticleBatch(images, Optics.without_ctf(n, PIXEL), torch.arange(n))
    density = atoms.to_map(BOX, PIXEL).float()
    search = PoseSearch(
        FourierVolume.from_map(density, 12),
        ReferenceGrid(BOX, PIXEL),
        torch.full((BOX // 2,), sd**2),
        PosePrior(shift_sd_angstrom=8.0, defocus_sd_angstrom=0.0),
        max_shift_angstrom=6.0,
        grid_order=1,
        plan=SearchPlan(6, 12, 8, 3, 8, grid_step_radian(1), 4.0, ALONE),
    )
    posterior = search.infer(batch)
    assert isinstance(posterior, ParticlePosterior)
    found = posterior.mode()
    angle = torch.rad2deg(geodesic_angle(found.pose.rotation, true.rotation))
    # A blob of a few atoms at 6 dB is known to about a degree; a wrong mode would be
    # tens of degrees off.
    assert angle.median() < 3.0
    sd_degrees = torch.rad2deg(
        posterior.covariance[:, 0].diagonal(dim1=1, dim2=2)[:, :3].mean(1).sqrt()
    )
    assert (angle < 6 * sd_degrees).double().mean() > 0.8
    torch.testing.assert_close(
        posterior.weight.sum(1), torch.ones(n, dtype=torch.float64)
    )
