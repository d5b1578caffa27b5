"""Aberrations and magnification in the files of RELION and cryoSPARC."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.io.conventions.cryosparc import CryosparcParticles, table_to_cryosparc
from cryoinfer.io.conventions.relion import RelionParticles, table_to_relion
from cryoinfer.io.conventions.table import ImageReferences, ParticleTable
from cryoinfer.io.cryosparc import with_fields
from cryoinfer.physics.aberrations import odd_phase
from cryoinfer.physics.ctf import electron_wavelength_angstrom, evaluate_ctf
from cryoinfer.physics.zernike import even_polynomials
from cryoinfer.records import Optics, Pose

N = 6
TERMS = (
    "beam_tilt_mrad",
    "odd_zernike_radian",
    "even_zernike_radian",
    "magnification",
)


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).repeat(N, 1)


def table(**terms: Tensor) -> ParticleTable:
    """Return particles of two optics groups; the second has no aberrations."""
    group = torch.arange(N) % 2
    bare = replace(
        Optics.without_ctf(N, 1.5),
        group=group,
        cs_mm=torch.full((N,), 2.7, dtype=torch.float64),
        amplitude_contrast=torch.full((N,), 0.1, dtype=torch.float64),
        defocus_u_angstrom=torch.linspace(1e4, 2e4, N, dtype=torch.float64),
    )
    optics = replace(bare, **terms)
    plain = replace(Optics.without_ctf(N, 1.5))
    for name in terms:
        values = getattr(optics, name).clone()
        neutral = getattr(plain, name)
        values[1::2] = neutral[1::2] if neutral.shape == values.shape else 0.0
        optics = replace(optics, **{name: values})
    generator = torch.Generator().manual_seed(0)
    shift = 10 * torch.rand(N, 2, generator=generator, dtype=torch.float64) - 5
    return ParticleTable(
        images=ImageReferences(("a.mrcs",), np.zeros(N, dtype=np.int64), np.arange(N)),
        sign=torch.ones(N),
        box=torch.full((N,), 32),
        optics=optics,
        has_ctf=True,
        pose=Pose(random_rotations(N, generator), shift),
    )


MATRIX = row(1.01, 0.004, -0.003, 0.995).unflatten(1, (2, 2))
BOTH = {
    "beam_tilt_mrad": row(0.4, -0.25),
    "odd_zernike_radian": row(0.1, -0.2),
    "magnification": MATRIX,
}
ALL = BOTH | {
    "odd_zernike_radian": row(0.1, -0.2, 35.0, 0.0, 0.0, -20.0),
    "even_zernike_radian": row(0.0, 0.0, 0.0, 0.0, 120.0, -60.0),
}


def assert_same(found: ParticleTable, expected: ParticleTable, tolerance: float):
    for name in TERMS:
        torch.testing.assert_close(
            getattr(found.optics, name),
            getattr(expected.optics, name),
            atol=tolerance,
            rtol=tolerance,
        )
    assert found.pose is not None
    assert expected.pose is not None
    torch.testing.assert_close(
        found.pose.shift_angstrom, expected.pose.shift_angstrom, atol=2e-6, rtol=0
    )
    assert found.optics.group.tolist() == expected.optics.group.tolist()


def test_star_files_hold_all_of_it(tmp_path):
    table_to_relion(table(**ALL)).write(tmp_path / "a.star")
    # Nine digits.
    assert_same(RelionParticles.read(tmp_path / "a.star").table(), table(**ALL), 1e-8)


def test_cryosparc_tables_hold_tilt_shift_and_magnification(tmp_path):
    table_to_cryosparc(table(**BOTH)).write(tmp_path / "a.cs")
    found = CryosparcParticles.read(tmp_path / "a.cs").table()
    # Single precision; the groups are counted by their values.
    other = replace(found, optics=replace(found.optics, group=table().optics.group))
    assert_same(other, table(**BOTH), 2e-6)
    assert len(found.optics.group.unique()) == 2
    again = table_to_relion(found).table()
    assert_same(again, found, 1e-7)


def test_cryosparc_tables_have_the_published_units():
    fields = table_to_cryosparc(table(**BOTH)).fields
    # Cs times the tilt in radian, the matrix without the identity, and a shift.
    np.testing.assert_allclose(fields["ctf/tilt_A"][0], [10800, -6750], rtol=1e-6)
    expected = [0.01, 0.004, -0.003, -0.005]
    np.testing.assert_allclose(fields["ctf/anisomag"][0], expected, atol=1e-7)
    shift = [0.2 / (2 * np.pi), -0.1 / (2 * np.pi)]
    np.testing.assert_allclose(fields["ctf/shift_A"][0], shift, rtol=1e-6)


def test_cryosparc_tables_hold_trefoil_and_the_fourth_order(tmp_path):
    # Star and tetrafoil, with what their polynomials need of the second order.
    even = row(0.0, 90.0, 0.0, -45.0, 120.0, 30.0, 0.0, -15.0, -60.0)
    given = table(**(ALL | {"even_zernike_radian": even}))
    table_to_cryosparc(given).write(tmp_path / "a.cs")
    found = CryosparcParticles.read(tmp_path / "a.cs").table()
    other = replace(found, optics=replace(found.optics, group=table().optics.group))
    # Single precision, of values up to 120.
    assert_same(other, given, 2e-5)
    assert len(found.optics.group.unique()) == 2


def test_cryosparc_tables_show_the_same_images_whatever_the_aberrations(tmp_path):
    generator = torch.Generator().manual_seed(1)
    # Up to a tenth of a turn at the frequencies below.
    odd = 20 * torch.randn(1, 6, generator=generator).double().repeat(N, 1)
    even = 40 * torch.randn(1, 9, generator=generator).double().repeat(N, 1)
    given = table(
        **(BOTH | {"odd_zernike_radian": odd, "even_zernike_radian": even})
    ).optics
    # Cs of the second group stays, and nothing else is kept there.
    particles = replace(table(), optics=given)
    table_to_cryosparc(particles).write(tmp_path / "a.cs")
    found = CryosparcParticles.read(tmp_path / "a.cs").table().optics
    x, y = torch.randn(2, 50, generator=generator).double() * 0.1
    # Single precision of defoci and of Cs, in phases of up to 500 radian.
    same = {"atol": 2e-4, "rtol": 0}
    expected = evaluate_ctf(given, x, y)
    torch.testing.assert_close(evaluate_ctf(found, x, y), expected, **same)
    torch.testing.assert_close(odd_phase(found, x, y), odd_phase(given, x, y), **same)


def test_cryosparc_coefficients_are_those_of_the_wave_aberration():
    """2 pi / lambda Re(B2* w^2 w* + A2* w^3 / 3 + S3* w^3 w* + A3* w^4 / 4)."""
    coma, trefoil = (8e3 - 5e3j), (3e3 + 4e3j)
    star, tetrafoil = (2e4 - 3e4j), (-1e5 + 7e4j)
    bare = table_to_cryosparc(table())
    given = {
        "ctf/tilt_A": [coma],
        "ctf/trefoil_A": [trefoil],
        "ctf/tetra_A": [star, tetrafoil],
    }
    fields = {
        name: np.tile(np.array(values).view(float).astype(np.float32), (N, 1))
        for name, values in given.items()
    }
    found = CryosparcParticles(with_fields(bare.fields, fields)).table().optics
    generator = torch.Generator().manual_seed(2)
    x, y = torch.randn(2, 50, generator=generator).double() * 0.1
    wavelength = electron_wavelength_angstrom(torch.tensor(300.0).double())
    omega = wavelength * torch.complex(x, y)
    scale = 2 * torch.pi / wavelength
    odd = coma.conjugate() * omega**2 * omega.conj()
    odd = odd + trefoil.conjugate() * omega**3 / 3
    # The sign is RELION's of the beam tilt.
    torch.testing.assert_close(odd_phase(found, x, y)[0], -scale * odd.real)
    even = star.conjugate() * omega**3 * omega.conj()
    even = even + tetrafoil.conjugate() * omega**4 / 4
    values = even_polynomials(found.even_zernike_radian, x, y)[0]
    torch.testing.assert_close(values, scale * even.real)


def test_coma_without_spherical_aberration_is_kept(tmp_path):
    given = table(beam_tilt_mrad=row(0.4, -0.25))
    particles = table_to_cryosparc(given)
    none = np.zeros(N, dtype=np.float32)
    fields = with_fields(particles.fields, {"ctf/cs_mm": none})
    found = CryosparcParticles(fields).table()
    x, y = 0.1 * torch.eye(2).double()
    expected = odd_phase(given.optics, x, y)
    torch.testing.assert_close(odd_phase(found.optics, x, y), expected)
    again = table_to_cryosparc(found).fields["ctf/tilt_A"]
    np.testing.assert_allclose(again, particles.fields["ctf/tilt_A"], rtol=1e-6)


def test_aberrations_of_the_fifth_order_have_no_place_in_cryosparc_tables():
    for name, width in {"odd_zernike_radian": 7, "even_zernike_radian": 10}.items():
        with pytest.raises(InputError, match="fifth order"):
            table_to_cryosparc(table(**{name: torch.ones(N, width).double()}))


def test_origins_are_those_of_the_image_as_it_is_stored():
    given = table(magnification=MATRIX)
    assert given.pose is not None
    block = table_to_relion(given).particles
    origin = -np.stack([block.numbers(f"rlnOrigin{axis}Angst") for axis in "XY"], 1)
    seen = (MATRIX[0].T @ given.pose.shift_angstrom[0]).numpy()
    # Six digits after the point.
    np.testing.assert_allclose(origin[0], seen, atol=1e-6)
    np.testing.assert_allclose(origin[1], given.pose.shift_angstrom[1], atol=1e-6)


def test_a_beam_tilt_takes_the_place_of_the_coefficients_of_coma(tmp_path):
    odd = row(0.1, 0.2, 3.0, 40.0, 50.0, 6.0)
    path = tmp_path / "a.star"
    table_to_relion(table(odd_zernike_radian=odd)).write(path)
    found = RelionParticles.read(path).table().optics.odd_zernike_radian[0]
    assert found.tolist() == [0.1, 0.2, 3.0, 40.0, 50.0, 6.0]
    given = table(odd_zernike_radian=odd, beam_tilt_mrad=row(0.1, 0.0))
    table_to_relion(given).write(path)
    found = RelionParticles.read(path).table().optics.odd_zernike_radian[0]
    assert found.tolist() == [0.1, 0.2, 3.0, 0.0, 0.0, 6.0]


def test_without_aberrations_files_have_no_columns_of_them():
    text = " ".join(table_to_relion(table()).optics.columns)
    assert not any(word in text for word in ("Tilt", "Zernike", "MagMat"))
    names = table_to_cryosparc(table()).fields.dtype.names
    told = {"tilt_A", "shift_A", "trefoil_A", "tetra_A", "anisomag"}
    assert not {f"ctf/{name}" for name in told} & set(names)
