"""The image model: mean, samples and densities fit together."""

import math
from dataclasses import replace

import pytest
import roma
import torch
from torch import Tensor

from cryoinfer.fourier.transform import image_to_fourier
from cryoinfer.physics.ctf import evaluate_ctf
from cryoinfer.physics.image_model import ImageModel
from cryoinfer.physics.noise import GaussianNoise
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.records import Latents, Optics, Pose

BOX = 24


def make_model(spectrum: float = 0.5) -> ImageModel:
    generator = torch.Generator().manual_seed(0)
    coordinates = torch.randn(8, 3, generator=generator, dtype=torch.float64) * 5
    structure = GaussianAtoms.from_elements(coordinates, ["C", "N"] * 4)
    noise = GaussianNoise(torch.full((BOX // 2 + 1,), spectrum, dtype=torch.float64))
    return ImageModel(structure, noise, BOX)


def make_latents(n: int) -> Latents:
    generator = torch.Generator().manual_seed(1)
    quaternion = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    rotation = roma.unitquat_to_rotmat(
        torch.nn.functional.normalize(quaternion, dim=-1)
    )
    shift = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return Latents.rigid(Pose(rotation, shift), torch.zeros(n, dtype=torch.float64))


def make_optics(n: int) -> Optics:
    generator = torch.Generator().manual_seed(2)
    optics = Optics.without_ctf(n, 1.5)
    defocus = 5000 + 5000 * torch.rand(n, generator=generator, dtype=torch.float64)
    return replace(
        optics,
        cs_mm=optics.cs_mm + 2.7,
        amplitude_contrast=optics.amplitude_contrast * 0.1,
        defocus_u_angstrom=defocus + 800,
        defocus_v_angstrom=defocus,
        defocus_angle_radian=defocus / 1e4,
    )


def test_without_a_ctf_the_mean_is_the_projection() -> None:
    model, latents = make_model(), make_latents(3)
    expected = model.structure.project(latents.pose, BOX, 1.5)
    # There and back through the transform, float64.
    torch.testing.assert_close(
        model.mean(latents, Optics.without_ctf(3, 1.5)), expected, atol=1e-12, rtol=0
    )


def test_the_mean_is_the_ctf_times_the_projection() -> None:
    model, latents, optics = make_model(), make_latents(2), make_optics(2)
    projection = image_to_fourier(model.structure.project(latents.pose, BOX, 1.5))
    for i in range(2):
        for row, column in [(0, 0), (1, 2), (5, 0), (BOX - 3, 4), (BOX - 1, 11)]:
            ky = (row if row < BOX / 2 else row - BOX) / (BOX * 1.5)
            kx = column / (BOX * 1.5)
            ctf = evaluate_ctf(
                optics[i : i + 1],
                torch.tensor([kx], dtype=torch.float64),
                torch.tensor([ky], dtype=torch.float64),
            )
            actual = image_to_fourier(model.mean(latents, optics))[i, row, column]
            expected = ctf[0, 0] * projection[i, row, column]
            torch.testing.assert_close(actual, expected, atol=1e-12, rtol=0)


def test_the_defocus_offset_is_added_to_both_defoci() -> None:
    model, latents, optics = make_model(), make_latents(2), make_optics(2)
    offset = torch.tensor([300.0, -200.0], dtype=torch.float64)
    moved = replace(
        optics,
        defocus_u_angstrom=optics.defocus_u_angstrom + offset,
        defocus_v_angstrom=optics.defocus_v_angstrom + offset,
    )
    assert torch.equal(
        model.mean(replace(latents, defocus_offset_angstrom=offset), optics),
        model.mean(latents, moved),
    )


def test_pixel_sizes_may_be_mixed() -> None:
    model, latents, optics = make_model(), make_latents(5), make_optics(5)
    sizes = torch.tensor([1.5, 1.2, 1.5, 1.2, 1.35], dtype=torch.float64)
    mixed = replace(optics, pixel_size_angstrom=sizes)
    images = model.mean(latents, mixed)
    for i in range(5):
        one = slice(i, i + 1)
        torch.testing.assert_close(
            images[one], model.mean(latents[one], mixed[one]), atol=1e-12, rtol=0
        )


def test_samples_scatter_about_the_mean() -> None:
    model, latents, optics = make_model(), make_latents(50), make_optics(50)
    images = model.sample(latents, optics, torch.Generator().manual_seed(3))
    residual = images - model.mean(latents, optics)
    # 28,800 pixels: the variance is known to 0.8 %.
    assert float(residual.var()) == pytest.approx(0.5, rel=0.04)
    assert abs(float(residual.mean())) < 0.02


def test_log_prob_is_that_of_the_pixels() -> None:
    model, latents, optics = make_model(), make_latents(3), make_optics(3)
    images = model.sample(latents, optics, torch.Generator().manual_seed(4))
    mean = model.mean(latents, optics)
    normal = torch.distributions.Normal(mean, torch.full_like(mean, math.sqrt(0.5)))
    torch.testing.assert_close(
        model.log_prob(images, latents, optics),
        normal.log_prob(images).sum((-2, -1)),
        rtol=1e-12,
        atol=0,
    )


def test_the_truth_is_more_probable_than_another_pose() -> None:
    model, latents, optics = make_model(0.01), make_latents(10), make_optics(10)
    images = model.sample(latents, optics, torch.Generator().manual_seed(5))
    turned = replace(latents, pose=latents.pose[torch.arange(10).roll(1)])
    truth = model.log_prob(images, latents, optics)
    assert bool((truth > model.log_prob(images, turned, optics)).all())


def test_gradients_reach_shift_and_defocus() -> None:
    model, latents, optics = make_model(), make_latents(1), make_optics(1)
    images = model.sample(latents, optics, torch.Generator().manual_seed(6))

    def log_prob(shift: Tensor, offset: Tensor) -> Tensor:
        moved = Latents.rigid(Pose(latents.pose.rotation, shift), offset * 1000)
        return model.log_prob(images, moved, optics)

    shift = latents.pose.shift_angstrom.clone().requires_grad_()
    offset = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    # The defocus is in units of 1000 angstrom, so that one step suits both.
    assert torch.autograd.gradcheck(log_prob, (shift, offset), atol=1e-4)
