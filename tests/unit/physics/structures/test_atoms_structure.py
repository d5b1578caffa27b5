"""Projections of atoms against direct sums, their own map, and known integrals."""

import gemmi
import pytest
import roma
import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.fourier.transform import image_to_fourier, map_to_fourier
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.records import Pose

ELEMENTS = ["C", "N", "O", "S", "C", "C", "N"]


def small_molecule(dtype: torch.dtype = torch.float64) -> GaussianAtoms:
    generator = torch.Generator().manual_seed(0)
    coordinates = torch.randn(7, 3, generator=generator, dtype=torch.float64) * 4
    return GaussianAtoms.from_elements(coordinates.to(dtype), ELEMENTS)


def random_poses(n: int) -> Pose:
    generator = torch.Generator().manual_seed(1)
    quaternion = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    rotation = roma.unitquat_to_rotmat(
        torch.nn.functional.normalize(quaternion, dim=-1)
    )
    shift = torch.randn(n, 2, generator=generator, dtype=torch.float64) * 3
    return Pose(rotation, shift)


def identity_pose() -> Pose:
    return Pose(
        torch.eye(3, dtype=torch.float64)[None], torch.zeros(1, 2, dtype=torch.float64)
    )


def naive_transform(
    atoms: GaussianAtoms, pose: Pose, box: int, pixel_size_angstrom: float
) -> Tensor:
    """Sum the atoms' waves one by one, with gemmi's scattering factors."""
    frequency = torch.fft.fftfreq(box, pixel_size_angstrom, dtype=torch.float64)
    x, y = frequency[: box // 2 + 1].abs(), frequency[:, None]
    stol2 = (x * x + y * y) / 4
    transform = torch.zeros(len(pose), box, box // 2 + 1, dtype=torch.complex128)
    for position, name in zip(atoms.coordinates_angstrom, ELEMENTS, strict=True):
        coefficients = gemmi.Element(name).c4322
        factor = torch.tensor(
            [[coefficients.calculate_sf(float(s)) for s in row] for row in stol2],
            dtype=torch.float64,
        )
        place = (pose.rotation @ position)[:, :2] + pose.shift_angstrom
        turns = place[:, 0, None, None] * x + place[:, 1, None, None] * y
        transform += factor * torch.exp(-2j * torch.pi * turns)
    if box % 2 == 0:
        transform[:, box // 2] = 0
        transform[:, :, box // 2] = 0
    return transform / (box * pixel_size_angstrom**2)


@pytest.mark.parametrize(("box", "pixel"), [(24, 1.1), (25, 1.0)])
def test_agrees_with_the_direct_sum(box: int, pixel: float) -> None:
    atoms, pose = small_molecule(), random_poses(3)
    actual = image_to_fourier(atoms.project(pose, box, pixel))
    # gemmi evaluates its scattering factors in float32.
    torch.testing.assert_close(
        actual, naive_transform(atoms, pose, box, pixel), atol=1e-6, rtol=0
    )


def test_one_atom_is_five_gaussians() -> None:
    """The projection of one carbon in real space, from its tabulated Gaussians."""
    atoms = GaussianAtoms.from_elements(
        torch.tensor([[3.0, -2.0, 5.0]], dtype=torch.float64), ["C"], 100.0
    )
    image = atoms.project(identity_pose(), 32, 1.0)[0]
    axis = torch.arange(32, dtype=torch.float64) - 16
    squared = (axis - 3.0) ** 2 + (axis[:, None] + 2.0) ** 2
    carbon = gemmi.Element("C").c4322
    expected = torch.zeros(32, 32, dtype=torch.float64)
    for a, b in zip(carbon.a, carbon.b, strict=True):
        width = b + 100.0
        peak = a * 4 * torch.pi / width
        expected += peak * torch.exp(-4 * torch.pi**2 * squared / width)
    # At Nyquist (0.5 / angstrom) a B-factor of 100 leaves exp(-6.25) = 0.2 % of the
    # carbon's factor; what is cut off beyond it is less than 1 % of the peak.
    torch.testing.assert_close(
        image, expected, atol=0.01 * float(expected.max()), rtol=0
    )


def test_pixels_sum_to_the_forward_scattering() -> None:
    atoms = small_molecule()
    total = sum(gemmi.Element(name).c4322.calculate_sf(0.0) for name in ELEMENTS)
    for pixel in (0.9, 1.3):
        image = atoms.project(random_poses(1), 32, pixel)
        # gemmi's float32.
        assert float(image.sum()) * pixel**2 == pytest.approx(total, rel=1e-6)


def test_an_atom_appears_where_the_pose_puts_it() -> None:
    """A blob at r is seen at (R r)[:2] + shift: axes (y, x), centre box // 2."""
    atoms = GaussianAtoms.from_elements(
        torch.tensor([[5.0, 1.0, -3.0]], dtype=torch.float64), ["O"], 20.0
    )
    quarter_turn = torch.tensor([[[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]]).double()
    pose = Pose(quarter_turn, torch.tensor([[2.0, -1.0]], dtype=torch.float64))
    image = atoms.project(pose, 32, 1.0)[0]
    y, x = divmod(int(image.argmax()), 32)
    assert (x - 16, y - 16) == (-1 + 2, 5 - 1)


@pytest.mark.parametrize("box", [24, 25])
def test_the_map_sums_to_the_image(box: int) -> None:
    atoms = small_molecule()
    density = atoms.to_map(box, 1.1)
    image = atoms.project(identity_pose(), box, 1.1)[0]
    # Same sums in another order, float64.
    torch.testing.assert_close(density.sum(0), image, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        map_to_fourier(density)[0], image_to_fourier(image), atol=1e-12, rtol=0
    )


def test_the_map_has_the_atom_at_its_place() -> None:
    atoms = GaussianAtoms.from_elements(
        torch.tensor([[4.0, -2.0, 6.0]], dtype=torch.float64), ["C"], 20.0
    )
    density = atoms.to_map(32, 1.0)
    index = int(density.argmax())
    assert (index // 1024, index // 32 % 32, index % 32) == (22, 14, 20)


def test_a_turned_map_is_the_map_of_turned_atoms() -> None:
    """Image from any direction: the z sum of the map of rotated coordinates."""
    atoms, pose = small_molecule(), random_poses(2)
    images = atoms.project(Pose(pose.rotation, 0 * pose.shift_angstrom), 24, 1.2)
    for rotation, image in zip(pose.rotation, images, strict=True):
        turned = GaussianAtoms.from_elements(
            atoms.coordinates_angstrom @ rotation.T, ELEMENTS
        )
        # Same sums in another order, float64.
        torch.testing.assert_close(
            turned.to_map(24, 1.2).sum(0), image, atol=1e-12, rtol=0
        )


def test_float32_is_exact_to_a_hundred_thousandth() -> None:
    pose = random_poses(3)
    exact = small_molecule().project(pose, 64, 0.8)
    single = small_molecule(torch.float32).project(pose, 64, 0.8)
    assert single.dtype == torch.float32
    torch.testing.assert_close(
        single.double(), exact, atol=1e-5 * float(exact.max()), rtol=0
    )


def test_many_images_in_parts_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    atoms, pose = small_molecule(), random_poses(5)
    whole = atoms.project(pose, 16, 1.5)
    monkeypatch.setattr(
        "cryoinfer.physics.structures.waves._TABLE_VALUES_AT_ONCE", 2 * 16 * 7 * 2
    )
    # The matrix products may be blocked differently, float64.
    torch.testing.assert_close(atoms.project(pose, 16, 1.5), whole, atol=1e-13, rtol=0)


def test_no_poses_give_no_images() -> None:
    assert small_molecule().project(random_poses(2)[:0], 16, 1.0).shape == (0, 16, 16)


def test_gradient_in_the_coordinates() -> None:
    pose = random_poses(2)
    coordinates = small_molecule().coordinates_angstrom[:3].clone().requires_grad_()

    def images(coordinates: Tensor) -> Tensor:
        return GaussianAtoms.from_elements(coordinates, ELEMENTS[:3]).project(
            pose, 6, 2.0
        )

    assert torch.autograd.gradcheck(images, (coordinates,))


def test_unknown_elements_are_refused() -> None:
    with pytest.raises(InputError, match="Og"):
        GaussianAtoms.from_elements(torch.zeros(1, 3), ["Og"])
    with pytest.raises(ValueError, match="elements"):
        GaussianAtoms.from_elements(torch.zeros(2, 3), ["C"])
