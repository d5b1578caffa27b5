"""Lessons, encoders in files, and particles that an encoder may not see."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cryoinfer.errors import InputError, MissingFileError
from cryoinfer.geometry.rotations import random_rotations, rotate_in_image_frame
from cryoinfer.inference.amortized import PoseEncoder
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_network import PoseNetworkConfig
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.training import TrainingConfig
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.records import Latents, ParticleBatch, Pose
from cryoinfer.workflows.encoder_file import load_encoder, save_encoder
from cryoinfer.workflows.refinement_inflation import inflation_of_refinement
from cryoinfer.workflows.simulated_images import templates_of
from cryoinfer.workflows.train import (
    EncoderConfig,
    TrainingData,
    require_picture,
    train_encoder,
)
from cryoinfer.workflows.trained_encoder import TrainedEncoder, refinement_radii

BOX, PIXEL_SIZE = 24, 3.8
CONFIG = EncoderConfig(
    network=PoseNetworkConfig(side=16, components=3, width=8),
    training=TrainingConfig(steps=3, batch=8, check_every=3),
)


@pytest.fixture(scope="module")
def trained(simulated) -> TrainedEncoder:
    made = simulated()
    training_data = TrainingData(
        made.density, PIXEL_SIZE, (torch.full((BOX // 2 + 1,), 0.1),), 1.0, "C1"
    )
    return train_encoder(made.particles, training_data, CONFIG, SilentMonitor())


def posterior_of(encoder: PoseEncoder, batch: ParticleBatch) -> ParticlePosterior:
    return encoder.posterior(encoder.whitened(batch, encoder.radius))


def test_an_encoder_survives_its_file(trained, simulated, tmp_path: Path) -> None:
    save_encoder(tmp_path / "encoder.pt", trained)
    loaded = load_encoder(tmp_path / "encoder.pt")
    batch = simulated().particles.batch(torch.arange(5))
    before, after = (posterior_of(one.encoder, batch) for one in (trained, loaded))
    assert torch.equal(before.modes.pose.rotation, after.modes.pose.rotation)
    assert torch.equal(before.covariance, after.covariance)
    assert torch.equal(trained.density, loaded.density)
    assert (loaded.prior, loaded.checks) == (trained.prior, trained.checks)
    assert loaded.verdict == trained.verdict
    assert torch.equal(loaded.covariance_inflation, trained.covariance_inflation)


@pytest.fixture(scope="module")
def of_subspace(simulated) -> TrainedEncoder:
    """Return an encoder that was shown a mean and two components."""
    made = simulated()
    noise = (torch.full((BOX // 2 + 1,), 0.1),)
    others = (0.2 * made.density.flip(0), 0.1 * made.density.flip(1))
    training_data = TrainingData(
        made.density, PIXEL_SIZE, noise, 1.0, "C1", others, last_radius=8
    )
    return train_encoder(made.particles, training_data, CONFIG, SilentMonitor())


def test_an_encoder_of_a_subspace_infers_z(of_subspace, simulated, tmp_path) -> None:
    save_encoder(tmp_path / "encoder.pt", of_subspace)
    loaded = load_encoder(tmp_path / "encoder.pt")
    batch = simulated().particles.batch(torch.arange(5))
    found = posterior_of(loaded.encoder, batch)
    assert found.modes.conformation.shape == (5, 3, 2)
    assert found.covariance.shape == (5, 3, 8, 8)
    assert loaded.refinement.radii[-1] == 8
    assert loaded.covariance_inflation.shape == (8,)
    images = loaded.encoder.whitened(batch, 8)
    refined = loaded.semi_amortized().infer(
        images, loaded.projector, loaded.prior, None
    )
    assert refined.mode().conformation.shape == (5, 2)
    # A likelihood can only narrow the prior's unit spread.
    spread = refined.covariance[:, 0, 6:, 6:].diagonal(dim1=1, dim2=2)
    inflation = loaded.covariance_inflation[6:].square()
    assert bool((spread <= inflation * (1 + 1e-9)).all())


def test_components_of_another_box_are_no_encoder(of_subspace, tmp_path) -> None:
    wrong = replace(of_subspace, components=(torch.zeros(12, 12, 12),) * 2)
    save_encoder(tmp_path / "encoder.pt", wrong)
    with pytest.raises(InputError, match="damaged"):
        load_encoder(tmp_path / "encoder.pt")


@pytest.mark.parametrize(
    ("degrees", "last", "radii"),
    [
        (0.0, 63, (15, 30, 63)),
        # Reaches 2 / 15 radian, 7.6 degrees, of which two thirds are 5.1.
        (5.0, 63, (15, 30, 63)),
        (8.0, 63, (9, 18, 36, 63)),
        (90.0, 63, (6, 12, 24, 63)),
        (0.0, 31, (15, 31)),
        (0.0, 19, (15, 19)),
        (0.0, 12, (12,)),
    ],
)
def test_local_refinement_begins_within_reach_of_the_encoder(
    degrees, last, radii
) -> None:
    assert refinement_radii(degrees, 15, last) == radii


@pytest.mark.parametrize("side", [4, 20, 0, 32])
def test_pictures_that_cannot_be_are_refused(side: int) -> None:
    with pytest.raises(InputError, match=f"at most the 24 of the box, found {side}"):
        require_picture(side, BOX)


def test_optics_groups_of_different_pixel_size_are_refused(simulated) -> None:
    particles = simulated(optics_groups=2).particles
    noise = (torch.full((BOX // 2 + 1,), 0.1),) * 2
    training_data = TrainingData(simulated().density, PIXEL_SIZE, noise, 1.0, "C1")
    with pytest.raises(InputError, match="in optics group 2"):
        train_encoder(particles, training_data, CONFIG, SilentMonitor())


def test_a_pixel_size_that_a_map_has_rounded_costs_no_ring(simulated) -> None:
    particles = simulated().particles
    noise = (torch.full((BOX // 2 + 1,), 0.1),)
    for rounding in (1 + 1e-7, 1 - 1e-7):
        rounded = PIXEL_SIZE * rounding
        training_data = TrainingData(simulated().density, rounded, noise, 1.0, "C1")
        trained = train_encoder(particles, training_data, CONFIG, SilentMonitor())
        found = posterior_of(trained.encoder, particles.batch(torch.arange(3)))
        assert found.modes.pose.rotation.shape == (3, 3, 3, 3)


def test_files_that_are_no_encoder_are_refused(trained, tmp_path: Path) -> None:
    path = tmp_path / "encoder.pt"
    with pytest.raises(MissingFileError, match="No such encoder"):
        load_encoder(path)
    path.write_text("not one")
    with pytest.raises(InputError, match="not an encoder, or is cut short"):
        load_encoder(path)
    save_encoder(path, trained)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="cut short"):
        load_encoder(path)
    torch.save({"format": 99}, path)
    with pytest.raises(InputError, match="format 99, expected format 10"):
        load_encoder(path)


def test_particles_that_cannot_be_read_lend_nothing(stack, monkeypatch) -> None:
    images = torch.randn(40, BOX, BOX, generator=torch.Generator().manual_seed(0))
    images[5:, 3, 3] = torch.nan
    # Nearly every chunk is without a finite image.
    monkeypatch.setattr("cryoinfer.workflows.simulated_images.CHUNK", 2)
    grid, noise = ReferenceGrid(BOX, 2.0), (torch.ones(BOX // 2 + 1),)

    def lent(images: torch.Tensor) -> tuple[WhitenedImages, ...]:
        generator = torch.Generator().manual_seed(1)
        return templates_of(stack(images), grid, 7, noise, generator)

    (templates,) = lent(images)
    assert len(templates) == 5
    assert bool(templates.coefficients.abs().isfinite().all())
    images[:, 3, 3] = torch.nan
    with pytest.raises(InputError, match="all 40 images of optics group 1"):
        lent(images)


def test_optics_groups_lend_by_their_share(stack) -> None:
    images = torch.randn(100, BOX, BOX, generator=torch.Generator().manual_seed(0))
    particles = stack(images)
    group = (torch.arange(100) < 20).long() + 2 * (torch.arange(100) == 99)
    table = replace(particles.table, optics=replace(particles.optics, group=group))
    grid, noise = ReferenceGrid(BOX, 2.0), (torch.ones(BOX // 2 + 1),) * 3
    templates = templates_of(
        replace(particles, table=table),
        grid,
        7,
        noise,
        torch.Generator().manual_seed(1),
        most=10,
    )
    assert [len(one) for one in templates] == [8, 2, 1]


class Foretold:
    """Images and an inference of them that states a sd of one degree or angstrom."""

    def __init__(self, sd: float) -> None:
        self._sd, self.symmetry = sd, torch.eye(3)[None]
        self.projector, self.prior = object(), PosePrior(1.0, 0.0)

    def draw(
        self, count: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, Latents]:
        found = random_rotations(count, generator)
        step = self._sd * torch.randn(count, 5, generator=generator).double()
        turned = rotate_in_image_frame(found, torch.deg2rad(step[:, :3]))
        return found, Latents.rigid(
            Pose(turned, step[:, 3:]), torch.zeros(count).double()
        )

    def infer(
        self, found: torch.Tensor, projector: object, prior: PosePrior, start: None
    ) -> ParticlePosterior:
        assert projector is self.projector
        assert prior is self.prior
        n = len(found)
        degree = torch.deg2rad(torch.ones(3)).double()
        sd = torch.cat([degree, torch.tensor([1.0, 1.0, 0.0]).double()])
        return ParticlePosterior.of_modes(
            Latents.rigid(
                Pose(found[:, None], torch.zeros(n, 1, 2).double()),
                torch.zeros(n, 1).double(),
            ),
            torch.ones(n, 1).double(),
            torch.diag(sd.square()).expand(n, 1, 6, 6),
        )


@pytest.mark.parametrize(
    ("sd", "factor"), [(1.3, 1.3), (1.0, 1.0), (0.8, 1.0), (30.0, 1.0)]
)
def test_refined_modes_are_widened_never_narrowed_nor_to_reach_others(
    sd: float, factor: float
) -> None:
    told = Foretold(sd)
    generator = torch.Generator().manual_seed(2)
    found = inflation_of_refinement(told, told, 4000, generator, SilentMonitor())
    # The quantile of 8,000 numbers is known to 1 %; three of those, upwards too.
    assert torch.allclose(found[:5], torch.full((5,), factor).double(), rtol=0.03)
    assert found[5] == 1.0
    assert bool((found >= 1.0).all())
