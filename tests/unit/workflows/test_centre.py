"""Maps moved to where the shifts of their particles are least."""

from dataclasses import replace

import pytest
import torch

from cryoinfer.geometry.rotations import random_rotations, rotate_in_image_frame
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.records import Latents, Pose
from cryoinfer.results.run_result import Reconstruction, RunResult
from cryoinfer.workflows.centre import centred, moved_map

BOX, PIXEL = 24, 2.0


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def atoms(moved: torch.Tensor) -> GaussianAtoms:
    coordinates = torch.randn(8, 3, generator=seeded(), dtype=torch.float64) * 4
    return GaussianAtoms.from_elements(coordinates + moved, ["C"] * 8, 120.0)


def run(off: torch.Tensor, symmetry: str = "C1") -> RunResult:
    """Return a run whose map lies off the middle, of particles that do not."""
    rotation = random_rotations(600, seeded(1)).unflatten(0, (300, 2))
    noise = 0.1 * torch.randn(300, 2, 2, generator=seeded(2), dtype=torch.float64)
    pose = Pose(rotation, (rotation @ -off)[..., :2] + noise)
    density = atoms(off).to_map(BOX, PIXEL).float()
    curve = torch.ones(BOX // 2 + 1)
    maps = Reconstruction(
        *(density, density, density, torch.ones_like(density)),
        *(curve, curve, curve, curve, PIXEL, 4.0, symmetry),
    )
    sd = torch.tensor([0.02, 0.03, 0.04, 0.2, 0.3, 0.0], dtype=torch.float64)
    weight = torch.tensor([0.75, 0.25], dtype=torch.float64).expand(300, 2)
    return RunResult(
        reconstruction=maps,
        inferred=ParticlePosterior.of_modes(
            Latents.rigid(pose, torch.zeros_like(weight)),
            weight,
            torch.diag(sd**2).expand(300, 1, 6, 6),
        ),
        random_subset=torch.ones(300, dtype=torch.int64),
        noise_power=(),
        iterations=(),
    )


def test_a_map_off_the_middle_is_moved_there_with_its_particles() -> None:
    off = torch.tensor([3.2, -1.5, 2.4], dtype=torch.float64)
    before = run(-off)
    after = centred(before)
    # 300 shifts with a sd of 0.1 A about the middle leave 0.006 A of an origin, which
    # is that of all modes.
    shift = after.inferred.modes.pose.shift_angstrom
    assert float(shift.square().mean((0, 2)).sqrt().max()) < 0.11
    expected = atoms(torch.zeros(3).double()).to_map(BOX, PIXEL).float()
    difference = (after.reconstruction.density - expected).square().mean()
    assert float(difference / expected.square().mean()) < 1e-4
    # The same images as before.
    image = atoms(-off).project(before.latents.pose[:3], BOX, PIXEL)
    again = atoms(torch.zeros(3).double())
    again = again.project(after.latents.pose[:3], BOX, PIXEL)
    assert float((image - again).norm() / image.norm()) < 0.01


def test_posteriors_are_the_same_in_the_new_frame() -> None:
    off = torch.tensor([6.0, -4.0, 5.0], dtype=torch.float64)
    before = run(-off)
    after = centred(before)
    # Draws of the old posterior of one particle, told in the new frame.
    root = torch.linalg.cholesky(before.inferred.covariance[0, 0, :5, :5])
    step = root @ torch.randn(5, 20_000, generator=seeded(3), dtype=torch.float64)
    rotation = before.latents.pose.rotation[:1].expand(20_000, 3, 3)
    turned = rotate_in_image_frame(rotation, step[:3].T)
    shift = before.latents.pose.shift_angstrom[0] + step[3:].T
    origin = torch.linalg.lstsq(
        before.latents.pose.rotation[:, :2].reshape(-1, 3),
        before.latents.pose.shift_angstrom.reshape(-1),
    ).solution
    told = shift - (turned @ origin)[:, :2]
    found = torch.cov(torch.cat([step[:3], told.T]))
    # 20,000 draws: 1 % a standard deviation; turns of 0.04 are nearly linear.
    sd = found.diagonal().sqrt()
    gap = (found - after.inferred.covariance[0, 0, :5, :5]) / (sd[:, None] * sd)
    assert float(gap.abs().max()) < 0.04


@pytest.mark.parametrize(("symmetry", "left"), [("C3", (0, 0, 1)), ("D2", (0, 0, 0))])
def test_symmetric_maps_stay_on_their_axes(symmetry: str, left: tuple) -> None:
    off = torch.tensor([3.0, 2.0, 4.0], dtype=torch.float64)
    before = run(-off, symmetry)
    moved = centred(before).latents.pose.shift_angstrom
    moved = before.latents.pose.shift_angstrom - moved
    plane = before.latents.pose.rotation[:, :2]
    along = torch.tensor(left, dtype=torch.float64) * off
    torch.testing.assert_close(moved, (plane @ along), rtol=0, atol=0.1)


def test_a_map_in_the_middle_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    middle = run(torch.zeros(3, dtype=torch.float64))
    shift = torch.zeros(300, 2, dtype=torch.float64)
    pose = replace(middle.latents.pose, shift_angstrom=shift)
    still = middle.posterior.with_first_mode(replace(middle.latents, pose=pose))
    exact = replace(middle, inferred=still)
    assert centred(exact) is exact


@pytest.mark.parametrize("box", [16, 17])
def test_whole_pixels_roll(box: int) -> None:
    density = torch.randn(box, box, box, generator=seeded())
    if box % 2 == 0:  # without what lies at Nyquist
        density = moved_map(density, torch.zeros(3))
        spectrum = torch.fft.rfftn(density)
        spectrum[box // 2] = spectrum[:, box // 2] = spectrum[..., box // 2] = 0
        density = torch.fft.irfftn(spectrum, s=(box,) * 3)
    moved = moved_map(density, torch.tensor([2.0, -3.0, 1.0]))
    rolled = density.roll((1, -3, 2), (0, 1, 2))
    torch.testing.assert_close(moved, rolled, rtol=0, atol=2e-5)
