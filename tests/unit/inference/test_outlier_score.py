"""Images of the map are flagged at the stated rate; others nearly always."""

import math
from dataclasses import replace

import pytest
import torch

from cryoinfer.fourier.slices import FourierVolume, extract_slices
from cryoinfer.geometry.rotations import random_rotations, rotate_in_image_frame
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.outlier_score import (
    FALSE_ALARMS,
    Fit,
    InlierStatistics,
    fit,
    fit_at,
    is_outlier,
    outlier_score,
)
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.training_images import TrainingImages
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.records import Latents, Optics, ParticleBatch, Pose

BOX, PIXEL, RADIUS = 32, 3.0, 10
PRIOR = PosePrior(shift_sd_angstrom=2.0, defocus_sd_angstrom=0.0)
FREE_DEFOCUS = PosePrior(shift_sd_angstrom=2.0, defocus_sd_angstrom=500.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shown(seed: int = 0, radius: int = RADIUS) -> MapProjector:
    coordinates = torch.randn(60, 3, generator=seeded(seed), dtype=torch.float64) * 12
    atoms = GaussianAtoms.from_elements(coordinates, ["C"] * 60, 200.0)
    density = atoms.to_map(BOX, PIXEL).float()
    return MapProjector(FourierVolume.from_map(density, radius))


def blank(n: int, radius: int, noise_power: float, with_ctf: bool) -> WhitenedImages:
    optics = Optics.without_ctf(n, PIXEL)
    if with_ctf:
        defocus = torch.linspace(8000, 20_000, n, dtype=torch.float64)
        optics = replace(
            optics,
            voltage_kv=torch.full_like(defocus, 300.0),
            cs_mm=torch.full_like(defocus, 2.7),
            amplitude_contrast=torch.full_like(defocus, 0.1),
            defocus_u_angstrom=defocus,
            defocus_v_angstrom=defocus,
        )
    batch = ParticleBatch(torch.zeros(n, BOX, BOX), optics, torch.arange(n))
    noise = torch.full((BOX // 2,), noise_power)
    return whiten(batch, ReferenceGrid(BOX, PIXEL), radius, noise)


def drawn(
    n: int,
    molecule: MapProjector,
    *,
    noise_power: float = 0.005,
    with_ctf: bool = False,
    prior: PosePrior = PRIOR,
) -> tuple[WhitenedImages, Latents]:
    """Return images of a molecule; by default contrasts are known to 0.05."""
    template = blank(500, molecule.radius, noise_power, with_ctf)
    return TrainingImages(molecule, (template,), prior).draw(n, seeded(1))


def noise_alone(images: WhitenedImages) -> WhitenedImages:
    shape = images.coefficients.shape
    noise = torch.randn(shape, generator=seeded(2), dtype=torch.complex64)
    return replace(images, coefficients=noise)


def flagged(nats: torch.Tensor) -> float:
    return float(is_outlier(nats).double().mean())


@pytest.mark.parametrize("with_ctf", [False, True])
def test_noise_has_no_contrast_and_the_power_of_noise(with_ctf: bool) -> None:
    images, latents = drawn(4000, shown(), with_ctf=with_ctf)
    found = fit_at(shown(), noise_alone(images), latents)
    score = found.contrast / found.contrast_sd
    # Four standard errors of a mean and of a standard deviation of 4,000.
    assert abs(float(score.mean())) < 4 / math.sqrt(4000)
    assert abs(float(score.std()) - 1) < 4 / math.sqrt(8000)
    excess = (found.power - 1) / found.power_sd
    assert abs(float(excess.mean())) < 4 / math.sqrt(4000)
    assert abs(float(excess.std()) - 1) < 0.06  # the power is not quite Gaussian


@pytest.mark.parametrize("with_ctf", [False, True])
def test_novelty_of_images_of_the_map_is_exponential(with_ctf: bool) -> None:
    images, latents = drawn(4000, shown(), with_ctf=with_ctf)
    nats = outlier_score(fit_at(shown(), images, latents), InlierStatistics())
    chance = torch.exp(-nats).sort().values
    steps = (torch.arange(4000) + 0.5) / 4000
    # Kolmogorov and Smirnov at a level of 1e-4: 2.2 / sqrt(n).
    assert float((chance - steps).abs().max()) < 2.2 / math.sqrt(4000)
    assert abs(flagged(nats) - FALSE_ALARMS) < 0.005  # 3 standard errors


@pytest.mark.parametrize("radius", [2, 4])
def test_rate_holds_for_a_few_coefficients(radius: int) -> None:
    molecule = shown(radius=radius)
    images, latents = drawn(20_000, molecule)
    nats = outlier_score(fit_at(molecule, images, latents), InlierStatistics())
    # 6 or 24 coefficients; 1.5 % of 6 without the cube root, 10 standard errors away.
    assert abs(flagged(nats) - FALSE_ALARMS) < 0.0035


def test_local_refinement_makes_up_for_rough_poses() -> None:
    images, latents = drawn(2000, shown(), noise_power=0.0005)
    turn = torch.randn(2000, 3, generator=seeded(3), dtype=torch.float64) * 0.04
    rough = Latents.rigid(
        Pose(
            rotate_in_image_frame(latents.pose.rotation, turn),
            latents.pose.shift_angstrom + 0.3,
        ),
        latents.defocus_offset_angstrom,
    )
    at_once = outlier_score(fit_at(shown(), images, rough), InlierStatistics())
    refined = outlier_score(fit(shown(), images, rough, PRIOR), InlierStatistics())
    assert flagged(at_once) > 0.2
    assert 0.002 < flagged(refined) < 0.02


def test_wrong_defocus_is_no_novelty() -> None:
    images, latents = drawn(
        1000, shown(), noise_power=0.0001, with_ctf=True, prior=FREE_DEFOCUS
    )
    zero = torch.zeros(1000, dtype=torch.float64)
    given = Latents.rigid(latents.pose, zero)
    held = outlier_score(fit(shown(), images, given, PRIOR), InlierStatistics())
    free = outlier_score(fit(shown(), images, given, FREE_DEFOCUS), InlierStatistics())
    assert flagged(held) > 0.2
    assert flagged(free) < 0.02


def test_power_of_few_coefficients_follows_the_gamma_distribution() -> None:
    shape = 8.0
    power = torch.linspace(0.35, 2.2, 50, dtype=torch.float64)
    one = torch.ones_like(power)
    nats = outlier_score(
        Fit(one, one, power, one / math.sqrt(shape)), InlierStatistics()
    )
    chance = torch.special.gammainc(shape * one, shape * power)
    exact = torch.special.ndtri(chance).abs()
    # Their error for 16 degrees of freedom; a plain root would be off by 0.12.
    torch.testing.assert_close((2 * nats).sqrt(), exact, atol=0.02, rtol=0)


@pytest.mark.parametrize("foreign", ["noise", "molecule", "double", "blank"])
def test_what_the_map_does_not_explain_is_flagged(foreign: str) -> None:
    other, latents = drawn(300, shown(seed=5))
    images, own = drawn(300, shown())
    foreigner = {
        "noise": noise_alone(images),
        "molecule": other,
        # Two sums of signal and noise have twice the noise.
        "double": replace(
            images,
            coefficients=(images.coefficients + other.coefficients) / math.sqrt(2),
            ctf=images.ctf / math.sqrt(2),
        ),
        "blank": replace(images, coefficients=images.coefficients * 0),
    }[foreign]
    start = latents if foreign == "molecule" else own
    found = outlier_score(fit(shown(), foreigner, start, PRIOR), InlierStatistics())
    assert bool(torch.isfinite(found).all())
    assert flagged(found) > 0.9


def test_usual_contrast_is_learned_from_particles() -> None:
    images, latents = drawn(4000, shown())
    slices = extract_slices(shown().volume, latents.pose.rotation, images.disc)
    centred = replace(images, coefficients=images.ctf * slices)
    signal = centred.moved_back(-latents.pose.shift_angstrom)
    factor = 0.9 + 0.15 * torch.randn(4000, 1, generator=seeded(4))
    noise = noise_alone(images).coefficients * math.sqrt(1.1)
    weaker = replace(images, coefficients=signal * factor + noise)
    found = fit_at(shown(), weaker, latents)
    inliers = InlierStatistics.of(found)
    # Errors of medians of 4,000: 0.003 and 0.002.
    assert inliers.contrast == pytest.approx(0.9, abs=0.012)
    assert inliers.contrast_spread == pytest.approx(0.15, abs=0.012)
    assert inliers.power == pytest.approx(1.1, abs=0.01)
    assert inliers.power_spread < 0.03  # a third of its error
    assert flagged(outlier_score(found, InlierStatistics())) > 0.3
    assert abs(flagged(outlier_score(found, inliers)) - FALSE_ALARMS) < 0.005


def test_a_fifth_of_junk_hardly_moves_what_is_usual() -> None:
    images, latents = drawn(2000, shown())
    clean = fit_at(shown(), images, latents)
    junk = fit_at(shown(), noise_alone(images), latents)
    rows = torch.arange(500)
    few = Fit(
        junk.contrast[rows],
        junk.contrast_sd[rows],
        junk.power[rows],
        junk.power_sd[rows],
    )
    inliers = InlierStatistics.of(Fit.joined([clean, few]))
    # The median moves to the quantile 0.375 of what is left, by a third of the error.
    error = float(clean.contrast_sd.median())
    assert inliers.contrast == pytest.approx(1.0, abs=0.5 * error)
    assert inliers.contrast_spread < error
    assert flagged(outlier_score(few, inliers)) == 1.0


def test_an_empty_map_says_nothing() -> None:
    nothing = torch.zeros(BOX, BOX, BOX)
    empty = MapProjector(FourierVolume.from_map(nothing, RADIUS))
    images = noise_alone(blank(50, RADIUS, 1.0, with_ctf=False))
    rotation = random_rotations(50, seeded())
    zero = torch.zeros(50, dtype=torch.float64)
    latents = Latents.rigid(
        Pose(rotation, torch.zeros(50, 2, dtype=torch.float64)), zero
    )
    nats = outlier_score(fit(empty, images, latents, PRIOR), InlierStatistics())
    assert bool(torch.isfinite(nats).all())
    assert flagged(nats) < 0.1
