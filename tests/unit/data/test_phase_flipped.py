"""Images whose phases were flipped, or that were multiplied by their CTF."""

import numpy as np
import pytest
import torch
from tests.extracted import FLIPPED, extracted_set

from cryoinfer.data.check import check
from cryoinfer.data.joining import join
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.errors import InputError, UnsupportedError
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.mrc import read_map
from cryoinfer.io.star import text_column
from cryoinfer.workflows.problem import OpticsTerms, define_problem
from cryoinfer.workflows.reconstruct import ReconstructConfig, reconstruct

N, BOX, PIXEL = 200, 24, 4.0


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """Return a folder with particles, and with the same with their phases flipped."""
    folder = tmp_path_factory.mktemp("flipped")
    config = SimulationConfig(
        n=N,
        box=BOX,
        pixel_size_angstrom=PIXEL,
        snr_db=5.0,
        defocus_range_angstrom=(15000.0, 25000.0),
    )
    simulate(config, folder, SilentMonitor())
    extracted_set(folder, FLIPPED, "flipped")
    return folder


def resolution_with_truth(folder, name):
    particles = Particles.load(folder / name)
    found = reconstruct(particles, ReconstructConfig(seed=1), SilentMonitor())
    truth = torch.tensor(read_map(folder / "truth.mrc").density)
    return fourier_shell_correlation(found.density, truth)


def test_a_map_is_the_same_with_and_without_flipped_phases(simulated):
    plain = resolution_with_truth(simulated, "truth.star")
    flipped = resolution_with_truth(simulated, "flipped.star")
    # The transforms differ by a sign alone: all but Nyquist, which is left out, agrees
    # to the rounding of single precision in the images and sums.
    torch.testing.assert_close(flipped[:-1], plain[:-1], atol=1e-3, rtol=0)
    assert float(plain[1:-2].min()) > 0.5


def test_flipped_phases_are_read_noted_and_kept(simulated, tmp_path):
    path = simulated / "flipped.star"
    particles = Particles.load(path)
    assert particles.optics.phase_flipped.all()
    assert any("modulus of the CTF" in f.message for f in check(path))
    particles.save(tmp_path / "again.star")
    assert Particles.load(tmp_path / "again.star").optics.phase_flipped.all()
    with pytest.raises(InputError, match=r"a \.cs table cannot say"):
        particles.save(tmp_path / "again.cs")
    # Nothing is offered that would model them as if they were not flipped.
    with pytest.raises(InputError, match="Cannot ignore ctf-phase-flipped"):
        Particles.load(path, ignore=["ctf-phase-flipped"])


def test_flipped_and_other_particles_have_groups_of_their_own(simulated, tmp_path):
    flipped = Particles.load(simulated / "flipped.star")
    plain = Particles.load(simulated / "truth.star")
    joined = join([flipped, plain]).particles
    joined.save(tmp_path / "both.star")
    again = Particles.load(tmp_path / "both.star").optics
    assert again.phase_flipped.tolist() == [True] * N + [False] * N
    assert again.group.tolist() == [0] * N + [1] * N


def relabelled(folder, name, label, text=None):
    """Write the particles with another column in place of that of flipped phases."""
    text = text or (folder / "flipped.star").read_text()
    (folder / name).write_text(text.replace("rlnCtfDataArePhaseFlipped", label))
    return folder / name


def test_multiplied_images_are_read_noted_and_kept(simulated, tmp_path):
    path = relabelled(simulated, "multiplied.star", "rlnCtfDataAreCtfPremultiplied")
    particles = Particles.load(path)
    assert particles.optics.ctf_premultiplied.all()
    assert any("multiplied by their CTF" in f.message for f in check(path))
    particles.select(torch.arange(5)).save(tmp_path / "again.star")
    again = Particles.load(tmp_path / "again.star")
    assert again.optics.ctf_premultiplied.tolist() == [True] * 5
    plain = Particles.load(simulated / "truth.star")
    both = join([particles, plain]).particles.optics
    assert both.ctf_premultiplied.tolist() == [True] * N + [False] * N
    assert both.group.tolist() == [0] * N + [1] * N


def test_what_cannot_be_done_with_multiplied_images_is_refused(simulated, tmp_path):
    path = relabelled(simulated, "refused.star", "rlnCtfDataAreCtfPremultiplied")
    particles = Particles.load(path)
    with pytest.raises(InputError, match=r"a \.cs table cannot say"):
        particles.save(tmp_path / "again.cs")
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(InputError, match="Leave the error of the defocus out"):
        define_problem(particles, "C1", None, None, 100.0, generator)
    problem = define_problem(particles, "C1", None, None, 0.0, generator)
    with pytest.raises(InputError, match="Leave its refinement out"):
        problem.refining(OpticsTerms(astigmatism=True))


def test_images_cannot_be_flipped_and_multiplied(simulated):
    particles = Particles.load(simulated / "flipped.star")
    source = particles.source
    label = "rlnCtfDataAreCtfPremultiplied"
    column = {label: text_column(np.ones(len(source.optics)), "%d")}
    star = source.star.with_block(source.optics, source.optics.with_columns(column))
    type(source)(star).write(simulated / "both.star")
    with pytest.raises(InputError, match="flipped phases and a multiplication"):
        Particles.load(simulated / "both.star")


def test_a_multiplication_without_a_ctf_is_refused(simulated):
    text = (simulated / "flipped.star").read_text().replace("rlnDefocusU", "rlnOther")
    label = "rlnCtfDataAreCtfPremultiplied"
    path = relabelled(simulated, "without.star", label, text)
    with pytest.raises(UnsupportedError, match="Add the CTF") as error:
        Particles.load(path)
    assert "--ignore" not in str(error.value)
