"""Optics that a file has wrong are found again while poses and map are refined."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cryoinfer.data.particles import Particles
from cryoinfer.data.refined_particles import with_optics
from cryoinfer.data.simulate import Simulation, SimulationConfig
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.conventions.relion import table_to_relion
from cryoinfer.io.conventions.table import ImageReferences, ParticleTable
from cryoinfer.io.mrc import StackWriter
from cryoinfer.physics.aberrations import coma_as_tilt_mrad, odd_phase, with_tilt
from cryoinfer.physics.ctf import evaluate_ctf, of_magnification, with_astigmatism
from cryoinfer.records import Optics
from cryoinfer.results.refined_optics import RefinedOptics
from cryoinfer.results.run_files import with_posteriors
from cryoinfer.workflows.problem import OpticsTerms
from cryoinfer.workflows.refine import RefineConfig, refine

N, BOX, PIXEL, MICROGRAPHS = 400, 48, 3.0, 20
TILT_MRAD = torch.tensor([4.0, -3.0], dtype=torch.float64)
STRETCH = torch.tensor([0.02, -0.015], dtype=torch.float64)
CONFIG = RefineConfig(particle_diameter_angstrom=80.0, max_shift_angstrom=6.0)


class Spoken(SilentMonitor):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def message(self, text: str) -> None:
        self.said.append(text)


def particles_of(
    folder: Path, true: dict[str, torch.Tensor], n: int = N, snr_db: float = 0.0
) -> Particles:
    """Return particles of two groups whose file tells of no such optics.

    Its defoci are those that the distorted images show, as a CTF fit would find them.
    """
    config = SimulationConfig(
        n=n,
        box=BOX,
        pixel_size_angstrom=PIXEL,
        snr_db=snr_db,
        defocus_range_angstrom=(4000.0, 8000.0),
        max_shift_angstrom=2.0,
    )
    made = Simulation.of(config)
    told = replace(made.optics, group=torch.arange(n) % 2)
    of_groups = {k: v for k, v in true.items() if k != "astigmatism"}
    seen = replace(told, **{k: v.expand(n, *v.shape) for k, v in of_groups.items()})
    if "astigmatism" in true:
        offset = true["astigmatism"][torch.arange(n) % MICROGRAPHS]
        seen = with_astigmatism(told, offset)
    if "magnification" in true:
        undone = of_magnification(told, true["magnification"].expand(n, 2, 2))
        names = ("defocus_u_angstrom", "defocus_v_angstrom", "defocus_angle_radian")
        seen = replace(seen, **{name: getattr(undone, name) for name in names})
    with StackWriter(folder / "a.mrcs", n, BOX, PIXEL) as writer:
        for batch in replace(made, optics=seen).batches():
            writer.write(batch.images)
    table = ParticleTable(
        images=ImageReferences(("a.mrcs",), np.zeros(n, int), np.arange(n)),
        sign=torch.ones(n),
        box=torch.full((n,), BOX),
        optics=told,
        has_ctf=True,
        micrograph=np.array([f"{i % MICROGRAPHS:02d}.mrc" for i in range(n)]),
        pose=made.latents.pose,
    )
    table_to_relion(table).write(folder / "a.star")
    return Particles.load(folder / "a.star")


def written(particles: Particles, result, folder: Path) -> Optics:
    """Return the optics that a run's file tells of."""
    with_posteriors(particles, result).save(folder / "found.star")
    return Particles.load(folder / "found.star").optics


@pytest.mark.slow
def test_a_beam_tilt_and_a_magnification_are_recovered(tmp_path):
    a, b = STRETCH.tolist()
    matrix = torch.tensor([[1 + a, b], [b, 1 - a]], dtype=torch.float64)
    true = {"beam_tilt_mrad": TILT_MRAD, "magnification": matrix}
    particles = particles_of(tmp_path, true)
    terms = OpticsTerms(beam_tilt=True, magnification=True)
    result = refine(particles, None, replace(CONFIG, optics_terms=terms))
    found = result.refined_optics
    assert found is not None
    # Two numbers of two groups each: one of eight is beyond 3.5 sds once in 300 sets.
    # Poses that are inferred too, and maps that hold the images' noise, widen that: 1.3
    # is allowed.
    tilt = (found.beam_tilt_mrad - TILT_MRAD) / found.beam_tilt_sd_mrad
    assert float(tilt.abs().max()) < 3.5 * 1.3
    stretch = torch.stack(
        [
            (found.magnification[:, 0, 0] - found.magnification[:, 1, 1]) / 2,
            (found.magnification[:, 0, 1] + found.magnification[:, 1, 0]) / 2,
        ],
        1,
    )
    assert float(((stretch - STRETCH) / found.stretch_sd).abs().max()) < 3.5 * 1.3
    # Both are worth finding: they are many times their errors.
    assert float((STRETCH.abs() / found.stretch_sd).min()) > 5
    assert float((TILT_MRAD.abs() / found.beam_tilt_sd_mrad).min()) > 5
    told = written(particles, result, tmp_path)
    torch.testing.assert_close(
        told.beam_tilt_mrad, found.beam_tilt_mrad[told.group], rtol=1e-8, atol=0
    )
    torch.testing.assert_close(
        told.magnification, found.magnification[told.group], rtol=1e-8, atol=1e-9
    )


@pytest.mark.slow
def test_astigmatism_of_micrographs_is_recovered(tmp_path):
    generator = torch.Generator().manual_seed(2)
    true = 200 * torch.randn(MICROGRAPHS, 2, generator=generator, dtype=torch.float64)
    particles = particles_of(tmp_path, {"astigmatism": true})
    terms = OpticsTerms(astigmatism=True)
    result = refine(particles, None, replace(CONFIG, optics_terms=terms))
    found = result.refined_optics
    assert found is not None
    left = (found.astigmatism_angstrom - true) / found.astigmatism_sd_angstrom
    # 40 numbers of unit variance, or less of what is drawn to the file: 1 +- 0.11.
    # Poses that are inferred too, and maps that hold the images' noise, widen that.
    assert float(left.square().mean().sqrt()) < 1.3
    assert float((true / found.astigmatism_sd_angstrom).square().mean().sqrt()) > 2
    told = written(particles, result, tmp_path)
    expected = found.applied(particles.table)
    # Defoci have six digits in files.
    torch.testing.assert_close(
        told.defocus_u_angstrom, expected.defocus_u_angstrom, atol=1e-5, rtol=0
    )


EVEN = torch.tensor(
    [200.1, 8.0, 300.0, -6.0, 700.0, 5.0, 100.0, -4.0, -500.0], dtype=torch.float64
)
"""Of which 200, 300 and 100 are 600 s^4, an error of Cs: 0.4 radian at the edge."""


@pytest.mark.slow
def test_aberrations_are_recovered(tmp_path):
    trefoil = torch.tensor([60.0, -40.0], dtype=torch.float64)
    odd = torch.zeros(6, dtype=torch.float64)
    odd[[2, 5]] = trefoil
    true = {"odd_zernike_radian": odd, "even_zernike_radian": EVEN}
    true["beam_tilt_mrad"] = TILT_MRAD
    particles = particles_of(tmp_path, true)
    terms = OpticsTerms(aberrations=True)
    result = refine(particles, None, replace(CONFIG, optics_terms=terms))
    found = result.refined_optics
    assert found is not None
    tilt = (found.beam_tilt_mrad - TILT_MRAD) / found.beam_tilt_sd_mrad
    both = torch.cat([tilt, (found.trefoil_radian - trefoil) / found.trefoil_sd_radian])
    # One of eight numbers is beyond 3.5 sds once in 300 sets; 1.3 as of the tilt.
    assert float(both.abs().max()) < 3.5 * 1.3
    assert float((trefoil.abs() / found.trefoil_sd_radian).min()) > 4
    even = (found.even_radian - EVEN) / found.even_sd_radian
    assert float(even.abs().max()) < 3.5 * 1.3
    told = written(particles, result, tmp_path)
    expected = found.applied(particles.table)
    # Nine digits in files.
    for name in ("odd_zernike_radian", "even_zernike_radian", "beam_tilt_mrad"):
        torch.testing.assert_close(
            getattr(told, name), getattr(expected, name), rtol=1e-8, atol=1e-8
        )


def test_what_was_found_of_one_group_is_written_and_read_again(tmp_path):
    particles = particles_of(tmp_path, {}, n=6)
    matrix = torch.tensor([[1.02, 0.01], [0.01, 0.98]], dtype=torch.float64)
    found = RefinedOptics.unknown(2).with_group(
        1, beam_tilt_mrad=TILT_MRAD, magnification=matrix
    )
    first = torch.tensor([0, 2, 4])
    for some in (particles, particles.select(first)):
        new = with_optics(some, found.applied(some.table))
        new.save(tmp_path / "b.star")
        told = Particles.load(tmp_path / "b.star")
        second = told.optics.group == 1
        expected = TILT_MRAD * second[:, None]
        torch.testing.assert_close(told.optics.beam_tilt_mrad, expected)
        # Rows of a group that has no particles say nothing either.
        expected = torch.where(second[:, None, None], matrix, torch.eye(2).double())
        torch.testing.assert_close(told.optics.magnification, expected)
        assert told.pose is not None
        assert some.pose is not None
        # Shifts have six digits in files.
        torch.testing.assert_close(
            told.pose.shift_angstrom, some.pose.shift_angstrom, atol=1e-5, rtol=0
        )


def test_images_show_the_same_defocus_through_another_magnification(tmp_path):
    matrix = torch.tensor([[1.03, 0.01], [-0.02, 0.98]], dtype=torch.float64)
    optics = particles_of(tmp_path, {}, n=6).optics
    optics = replace(optics, cs_mm=torch.zeros(6).double())
    new = of_magnification(optics, matrix.expand(6, 2, 2))
    frequency = torch.rand(2, 50, generator=torch.Generator().manual_seed(0)).double()
    before = evaluate_ctf(optics, *(frequency * 0.15))
    after = evaluate_ctf(new, *(matrix @ frequency * 0.15))
    # Exact without Cs, but for the defocus' rounding in float64.
    torch.testing.assert_close(after, before, atol=1e-9, rtol=0)


def test_a_tilt_takes_the_place_of_coefficients_of_coma(tmp_path):
    optics = particles_of(tmp_path, {}, n=6).optics
    odd = torch.tensor([0.1, 0.2, 5.0, 20.0, -30.0, 7.0], dtype=torch.float64)
    both = replace(
        optics,
        beam_tilt_mrad=TILT_MRAD.repeat(6, 1),
        odd_zernike_radian=odd.repeat(6, 1),
    )
    tilt = both.beam_tilt_mrad + coma_as_tilt_mrad(both)
    new = with_tilt(both, tilt, torch.ones(6, dtype=torch.bool))
    assert not bool(new.odd_zernike_radian[:, 3:5].any())
    frequency = torch.rand(2, 50, generator=torch.Generator().manual_seed(0)).double()
    before, after = (odd_phase(one, *(frequency * 0.2)) for one in (both, new))
    # The same polynomials, in float64.
    torch.testing.assert_close(after.expand_as(before), before, atol=1e-10, rtol=0)


def test_too_little_data_leave_a_term_alone(tmp_path):
    particles = particles_of(tmp_path, {}, n=40, snr_db=-15.0)
    monitor = Spoken()
    terms = OpticsTerms(beam_tilt=True, magnification=True)
    config = replace(CONFIG, optics_terms=terms)
    result = refine(particles, None, config, monitor)
    assert any("too little data for a beam tilt" in text for text in monitor.said)
    assert result.refined_optics is not None
    assert bool(result.refined_optics.beam_tilt_mrad.isnan().all())
