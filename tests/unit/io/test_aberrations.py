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


def test_trefoil_and_tetrafoil_have_no_place_in_cryosparc_tables():
    for name in ("odd_zernike_radian", "even_zernike_radian"):
        with pytest.raises(InputError, match="whose signs"):
            table_to_cryosparc(table(**{name: ALL[name]}))


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
    assert not {"ctf/tilt_A", "ctf/shift_A", "ctf/anisomag"} & set(names)
