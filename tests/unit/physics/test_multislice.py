"""Waves through slices: known answers, and the weak-phase model where both hold."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cryoinfer.fourier.transform import image_to_fourier
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.physics.ctf import electron_wavelength_angstrom, evaluate_ctf
from cryoinfer.physics.image_model import ImageModel
from cryoinfer.physics.multislice import (
    VOLT_ANGSTROM2,
    Slice,
    WaveGrid,
    exit_wave,
    intensity,
    interaction_constant,
    multislice_images,
    slices_of,
)
from cryoinfer.physics.noise import GaussianNoise
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.records import Latents, Optics, Pose

PIXEL_SIZE = 1.5
VOLTAGE = torch.tensor(300.0, dtype=torch.float64)
STRAIGHT = Pose(torch.eye(3).double()[None], torch.zeros(1, 2).double())


def make_optics(n: int = 1, amplitude_contrast: float = 0.1) -> Optics:
    one = torch.ones(n, dtype=torch.float64)
    return replace(
        Optics.without_ctf(n, PIXEL_SIZE),
        cs_mm=2.7 * one,
        amplitude_contrast=amplitude_contrast * one,
        defocus_u_angstrom=9000.0 * one,
        defocus_v_angstrom=8000.0 * one,
        defocus_angle_radian=0.4 * one,
        phase_shift_radian=0.3 * one,
        beam_tilt_mrad=torch.tensor([[3.0, -2.0]]).double().repeat(n, 1),
    )


def make_atoms(thickness: float, spread: float = 4.0) -> GaussianAtoms:
    generator = torch.Generator().manual_seed(3)
    at = torch.randn(40, 3, generator=generator, dtype=torch.float64) * spread
    at[:, 2] *= thickness / spread
    return GaussianAtoms.from_elements(at, ["C", "O"] * 20, 10.0)


def weak_phase(atoms: GaussianAtoms, pose: Pose, optics: Optics, box: int) -> Tensor:
    model = ImageModel(atoms, GaussianNoise.white(0.0, box), box)
    zero = torch.zeros(len(optics), dtype=torch.float64)
    return model.mean(Latents.rigid(pose, zero), optics)


def at_height(z_angstrom: float) -> GaussianAtoms:
    place = torch.tensor([[2.0, -3.0, z_angstrom]], dtype=torch.float64)
    return GaussianAtoms.from_elements(place, ["C"], 5.0)


@pytest.mark.parametrize(("voltage", "told"), [(100.0, 9.244), (300.0, 6.526)])
def test_interaction_constants_are_those_of_the_tables(
    voltage: float, told: float
) -> None:
    """Kirkland 2010, table of sigma; four digits, and RELION's rounded wavelength."""
    found = 1e4 * float(interaction_constant(torch.tensor(voltage).double()))
    assert abs(found - told) < 1e-3


@pytest.mark.parametrize("box", [24, 25])
def test_difference_to_weak_phase_falls_as_the_square_of_the_strength(box: int) -> None:
    """Flat atoms: all of it is scattering twice, second order in the potential."""
    generator = torch.Generator().manual_seed(4)
    shift = torch.tensor([[1.0, -2.0], [0.5, 0.25]], dtype=torch.float64)
    pose = Pose(random_rotations(2, generator), shift)
    atoms, optics = make_atoms(4.0), make_optics(2)
    off = []
    for strength in (1e-2, 1e-3):
        weak = atoms.scaled(strength)
        # So thick that all atoms are in the slice of z = 0.
        seen = multislice_images(weak, pose, optics, box, 1000.0)
        expected = weak_phase(weak, pose, optics, box)
        off.append(float((seen - expected).abs().max()))
        assert off[-1] < 2 * strength * float(expected.abs().max())
    # The third order is a hundredth of the second, or less, at these strengths.
    assert off[1] * 100 == pytest.approx(off[0], rel=0.02)


def test_one_slice_is_the_projection_approximation() -> None:
    """A naive twin: exp(i sigma v) as it is written, in one go."""
    grid = WaveGrid.of_image(24, PIXEL_SIZE)
    (whole,) = slices_of(make_atoms(4.0), STRAIGHT, grid, 1000.0)
    density = make_atoms(4.0).project(STRAIGHT, grid.size, grid.pixel_size_angstrom)
    sigma = interaction_constant(VOLTAGE)
    phase_object = torch.exp(1j * sigma * VOLT_ANGSTROM2 * density[0])
    expected = torch.fft.fft2(torch.fft.ifftshift(phase_object), norm="forward")
    found = exit_wave([whole], grid, 300.0)
    # Rounding of float64; beyond the band there is nothing.
    torch.testing.assert_close(found, expected * grid.band(), atol=1e-14, rtol=0)


def test_electrons_are_conserved_where_nothing_absorbs() -> None:
    """Soft atoms scatter within the band, where transmission only turns phases."""
    atoms = replace(make_atoms(30.0).scaled(10.0), b_factor_angstrom2=300.0)
    grid = WaveGrid.of_image(24, PIXEL_SIZE)
    slices = list(slices_of(atoms, STRAIGHT, grid))
    assert len(slices) > 5
    wave = exit_wave(slices, grid, 300.0)
    power = float(wave.abs().square().sum())
    scattered = 1 - float(wave[0, 0].abs().square())
    assert scattered > 1e-3
    # 5e-11 is what the band limit takes away, far less than what is scattered.
    assert abs(power - 1) < 1e-9
    image = intensity(wave, make_optics(), grid)
    # A phase plate turns what is scattered alone, so electrons count without one.
    plain = replace(make_optics(), phase_shift_radian=torch.zeros(1).double())
    assert float(intensity(wave, plain, grid).mean()) == pytest.approx(power, 1e-12)
    assert float(image.std()) > 0.01
    absorbed = exit_wave(slices, grid, 300.0, amplitude_contrast=0.1)
    assert float(absorbed.abs().square().sum()) < 1 - 1e-3


@pytest.mark.parametrize("box", [32, 33])
@pytest.mark.parametrize("z_angstrom", [-150.0, 400.0])
def test_an_atom_at_a_height_has_its_own_defocus(box: int, z_angstrom: float) -> None:
    """dz + z for flight towards +z (Ewald sphere); a weak atom, to first order."""
    optics, atom = make_optics(), at_height(z_angstrom).scaled(1e-4)
    seen = multislice_images(atom, STRAIGHT, optics, box)
    own = replace(
        optics,
        defocus_u_angstrom=optics.defocus_u_angstrom + z_angstrom,
        defocus_v_angstrom=optics.defocus_v_angstrom + z_angstrom,
    )
    expected = weak_phase(atom, STRAIGHT, own, box)
    flat = weak_phase(atom, STRAIGHT, optics, box)
    largest = float(expected.abs().max())
    # Second order: sigma times the potential of the atom, 1e-5 here.
    assert float((seen - expected).abs().max()) < 1e-4 * largest
    assert float((seen - flat).abs().max()) > 0.05 * largest


def test_a_turned_particle_s_heights_are_those_after_the_rotation() -> None:
    """An atom on +x, turned onto the optical axis, is at its height there."""
    place = torch.tensor([[200.0, 0.0, 0.0]], dtype=torch.float64)
    atom = GaussianAtoms.from_elements(place, ["C"], 5.0).scaled(1e-4)
    turn = torch.tensor([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]).double()
    pose = Pose(turn[None], torch.zeros(1, 2).double())
    seen = multislice_images(atom, pose, make_optics(), 24)
    there = replace(atom, coordinates_angstrom=place[:, [1, 2, 0]])
    expected = multislice_images(there, STRAIGHT, make_optics(), 24)
    torch.testing.assert_close(seen, expected, atol=1e-12, rtol=0)


def test_slices_apart_from_each_other_scatter_twice() -> None:
    """Two gratings, a Talbot distance apart, are one; half of it, their inverse.

    The phase grating ``exp(i a cos)`` repeats itself after 2 / (lambda g^2), and after
    half of that shifted by half a period: the second then undoes the first.
    """
    grid = WaveGrid(48, 1.0)
    g = 3 / 48
    at = torch.arange(48).double() - 24
    volts = (200 * torch.cos(2 * math.pi * g * at)).expand(48, 48)
    wavelength = float(electron_wavelength_angstrom(VOLTAGE))
    talbot = 2 / (wavelength * g**2)
    # The propagator has s^2 in full, so the orders 2, 3, .. of the grating repeat too.
    near, far = (
        exit_wave([Slice(0.0, volts), Slice(z, volts)], grid, 300.0)
        for z in (talbot / 2, talbot)
    )
    once = exit_wave([Slice(0.0, 2 * volts)], grid, 300.0)
    # 1.4e-11 is what orders beyond the band leave.
    assert float((far - once).abs().max()) < 1e-9
    assert float(near[0, 0].abs()) == pytest.approx(1.0, abs=1e-9)
    assert float(once[0, 0].abs()) < 0.99


def test_waves_are_seen_through_the_ctf() -> None:
    """A weak amplitude-free atom has the Thon rings of its optics, with odd phases."""
    optics, atom = make_optics(amplitude_contrast=0.0), at_height(0.0).scaled(1e-4)
    seen = image_to_fourier(multislice_images(atom, STRAIGHT, optics, 32))[0]
    bare = image_to_fourier(atom.project(STRAIGHT, 32, PIXEL_SIZE))[0]
    rows = torch.fft.fftfreq(32, PIXEL_SIZE, dtype=torch.float64)
    columns = torch.fft.rfftfreq(32, PIXEL_SIZE, dtype=torch.float64)
    y, x = (one.flatten() for one in torch.meshgrid(rows, columns, indexing="ij"))
    ctf = evaluate_ctf(optics, x, y)[0].unflatten(0, bare.shape)
    # Second order, as above; phases of the tilt leave the modulus.
    off = (seen.abs() - (bare * ctf).abs()).abs().max()
    assert float(off) < 1e-4 * float(bare.abs().max())


def test_float32_coordinates_give_float32_images() -> None:
    atoms = make_atoms(10.0)
    single = GaussianAtoms.from_elements(
        atoms.coordinates_angstrom.float(), ["C", "O"] * 20, 10.0
    )
    exact = multislice_images(atoms, STRAIGHT, make_optics(), 24)
    found = multislice_images(single, STRAIGHT, make_optics(), 24)
    assert found.dtype == torch.float32
    # Of projections in float32, 1e-5 of the largest value.
    off = float((found.double() - exact).abs().max())
    assert off < 3e-5 * float(exact.abs().max())
