"""What is decided before the first pass, and what is refused."""

import pytest
import torch

from cryoinfer.errors import InputError
from cryoinfer.results.refined_optics import RefinedOptics
from cryoinfer.workflows.problem import define_problem, initial_noise


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def problem_of(particles, diameter=None, max_shift=None, defocus_sd=0.0, seed=0):
    return define_problem(
        particles, "c2", diameter, max_shift, defocus_sd, seeded(seed)
    )


def noise(n: int = 120, box: int = 16) -> torch.Tensor:
    return torch.randn(n, box, box, generator=seeded())


def test_defaults_follow_the_box(simulated) -> None:
    problem = problem_of(simulated().particles)
    length = 24 * 3.8
    assert problem.grid.length_angstrom == pytest.approx(length)
    assert problem.symmetry == "C2"
    assert problem.symmetry_rotation.shape == (2, 3, 3)
    # As documented: three quarters, and seven hundredths.
    assert 2 * problem.particle_radius_angstrom == pytest.approx(0.75 * length)
    assert problem.max_shift_angstrom == pytest.approx(0.07 * length)
    assert problem.prior.defocus_sd_angstrom == 0
    chosen = problem_of(simulated().particles, 60.0, 5.0, 200.0)
    assert chosen.particle_radius_angstrom == 30
    assert chosen.max_shift_angstrom == 5
    assert chosen.prior.defocus_sd_angstrom == 200
    # Wide enough that a shift at the limit is no surprise.
    assert chosen.prior.shift_sd_angstrom > 2.5


def test_no_shift_holds_the_shifts(simulated) -> None:
    assert problem_of(simulated().particles, None, 0.0).prior.shift_sd_angstrom == 0


def test_halves_are_random_and_even(simulated) -> None:
    first, again, other = (
        problem_of(simulated().particles, seed=seed).half for seed in (0, 0, 1)
    )
    assert sorted(first.bincount().tolist()) == [100, 100]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_halves_of_the_file_are_kept(simulated) -> None:
    subset = torch.arange(200) // 50 % 2 + 1
    particles = simulated().particles.with_results(random_subset=subset)
    assert torch.equal(problem_of(particles).half, subset - 1)


def test_batches_hold_one_group_and_every_particle_once(simulated) -> None:
    problem = problem_of(simulated(60, optics_groups=3).particles)
    wanted = torch.tensor([5, 1, 44, 7, 9, 2])
    batches = list(problem.batches(wanted))
    assert all(len(batch.optics.group.unique()) == 1 for batch in batches)
    seen = torch.cat([batch.index for batch in batches])
    assert sorted(seen.tolist()) == sorted(wanted.tolist())


def test_files_of_one_particle_fill_both_halves(simulated) -> None:
    one = simulated().particles.select(torch.tensor([3]))
    halves = [
        int(
            define_problem(
                one, "C1", None, None, 0.0, torch.Generator().manual_seed(seed)
            ).half
        )
        for seed in range(20)
    ]
    # All alike in one of 500,000 choices of seeds.
    assert 0 < sum(halves) < 20


def test_map_boxes_hold_their_radius(simulated) -> None:
    problem = problem_of(simulated().particles)
    for radius in range(1, 12):
        box = problem.map_box(radius)
        assert box % 4 == 0
        assert box == 24 or box / 2 > radius + 1


def test_initial_noise_is_the_power_of_the_images(stack) -> None:
    problem = problem_of(stack(3 * noise()))
    (spectrum,) = initial_noise(problem)
    assert spectrum.shape == (8,)
    # 120 images of 4 coefficients in the smallest ring: four standard errors.
    torch.testing.assert_close(
        spectrum, torch.full((8,), 9.0), rtol=4 / (120 * 4) ** 0.5, atol=0
    )


def test_every_group_has_its_noise(simulated) -> None:
    problem = problem_of(simulated(60, optics_groups=3).particles)
    spectra = initial_noise(problem)
    assert len(spectra) == 3
    assert all((spectrum > 0).all() for spectrum in spectra)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_pixels_that_are_no_numbers_are_refused_with_the_row(stack, value) -> None:
    images = noise()
    images[37, 3, 3] = value
    with pytest.raises(InputError, match="particle 38"):
        initial_noise(problem_of(stack(images)))


def test_constant_images_are_refused(stack) -> None:
    with pytest.raises(InputError, match="constant"):
        initial_noise(problem_of(stack(torch.zeros(120, 16, 16))))


@pytest.mark.parametrize("diameter", [-1.0, 1e4])
def test_a_diameter_outside_the_box_is_refused(simulated, diameter) -> None:
    with pytest.raises(InputError, match="diameter"):
        problem_of(simulated().particles, diameter)


def test_an_unknown_symmetry_is_refused(simulated) -> None:
    with pytest.raises(InputError, match="symmetry"):
        define_problem(simulated().particles, "X3", None, None, 0.0, seeded())


def test_batches_have_the_optics_and_contrasts_that_were_found(simulated) -> None:
    particles = simulated().particles
    problem = problem_of(particles)
    tilt = torch.tensor([1.0, -2.0], dtype=torch.float64)
    found = RefinedOptics.unknown(1).with_group(0, beam_tilt_mrad=tilt)
    contrast = torch.linspace(0.5, 1.5, len(particles), dtype=torch.float64)
    rows = torch.tensor([3, 7, 100])
    seen = problem.seen_through(found).of_contrast(contrast)
    batch = seen.of_rows(rows).batch(torch.arange(3))
    plain = problem.batch(rows)
    assert torch.equal(batch.images, plain.images)
    assert torch.equal(batch.optics.beam_tilt_mrad, tilt.expand(3, 2))
    assert torch.equal(batch.optics.scale, plain.optics.scale * contrast[rows])
    assert torch.equal(batch.optics.defocus_u_angstrom, plain.optics.defocus_u_angstrom)
    # What is known of the images is known of those seen through other optics.
    assert seen.particles is particles
