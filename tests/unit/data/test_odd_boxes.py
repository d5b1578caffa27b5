"""Images of an odd size: read in an even one, written of as they are."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cryoinfer.data.check import check
from cryoinfer.data.joining import join
from cryoinfer.data.particles import Particles
from cryoinfer.data.resampling import even_sized
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.transform import image_to_fourier
from cryoinfer.io.cryosparc import read_cs, write_cs
from cryoinfer.io.mrc import StackWriter, read_map
from cryoinfer.io.star import read_star
from cryoinfer.records import Pose
from cryoinfer.results.truth import paired
from cryoinfer.workflows.reconstruct import reconstruct

N, BOX, PIXEL = 3, 31, 1.5
EVEN = PIXEL * BOX / (BOX - 1)


@pytest.mark.parametrize("box", [15, 33])
def test_all_coefficients_below_the_new_nyquist_are_kept(box: int) -> None:
    images = torch.randn(2, box, box, generator=torch.Generator().manual_seed(0))
    found, disc = even_sized(images), FourierDisc.of_box(box - 1, (box - 1) // 2 - 1)
    own = FourierDisc.of_box(box, (box - 1) // 2 - 1)
    assert torch.equal(own.kx, disc.kx)
    # Values are kept, and coefficients are sums of them over the side. Single
    # precision of sums over a row.
    torch.testing.assert_close(
        disc.gather(image_to_fourier(found)) * (box / (box - 1)),
        own.gather(image_to_fourier(images)),
        atol=1e-5,
        rtol=0,
    )


def test_a_blob_stays_where_it_was_in_angstrom() -> None:
    at, sd = (7.25, -4.5), 4.0

    def blob(box: int, pixel: float) -> torch.Tensor:
        axis = (torch.arange(box) - box // 2) * pixel
        x, y = (torch.exp(-((axis - c) ** 2) / (2 * sd**2)) for c in at)
        return y[:, None] * x

    found = even_sized(blob(BOX, PIXEL)[None])[0].double()
    axis = (torch.arange(BOX - 1) - (BOX - 1) // 2) * EVEN
    centre = [float((found.sum(dim) * axis).sum() / found.sum()) for dim in (0, 1)]
    # What the rim cuts off: exp(-((23 - 7) / 4)^2 / 2) = 3e-4 of the blob's height.
    assert centre == pytest.approx(at, abs=1e-2)
    expected = blob(BOX - 1, EVEN).double()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_even_images_are_the_same_tensor() -> None:
    images = torch.ones(1, 8, 8)
    assert even_sized(images) is images


def write_stack(path: Path, box: int = BOX) -> torch.Tensor:
    images = torch.randn(N, box, box, generator=torch.Generator().manual_seed(1))
    with StackWriter(path, N, box, PIXEL) as writer:
        writer.write(images)
    return images


POSE = Pose(
    torch.eye(3, dtype=torch.float64).expand(N, 3, 3),
    torch.tensor([[1.5, -3.0], [0.0, 6.0], [2.25, 0.75]], dtype=torch.float64),
)

HEADER = """
data_

loop_
_rlnImageName
_rlnDetectorPixelSize
_rlnMagnification
_rlnOriginX
_rlnOriginY
_rlnAngleRot
_rlnAngleTilt
_rlnAnglePsi
"""


def test_shifts_of_a_star_file_are_in_its_own_pixels(tmp_path: Path) -> None:
    images = write_stack(tmp_path / "a.mrcs")
    rows = [f"{i + 1}@a.mrcs 15 100000 2 -4 0 0 0" for i in range(N)]
    (tmp_path / "a.star").write_text(HEADER + "\n".join(rows) + "\n")
    particles = Particles.load(tmp_path / "a.star")
    assert (particles.box, particles.boxes.tolist()) == (BOX - 1, [BOX - 1] * N)
    assert particles.pixel_size_angstrom == pytest.approx(EVEN, rel=1e-12)
    assert particles.pose is not None
    # RELION's origins are minus shifts, counted in pixels of 1.5 A.
    assert particles.pose.shift_angstrom[0].tolist() == pytest.approx([-3.0, 6.0])
    assert any("31 pixels of 1.5 A" in remark for remark in particles.remarks)
    every = torch.arange(N)
    torch.testing.assert_close(particles.images(every), even_sized(images))
    assert torch.equal(particles.stored_images(every), images)
    particles.with_results(pose=POSE).save(tmp_path / "b.star")
    block = read_star(tmp_path / "b.star").blocks[0]
    assert block.columns["rlnDetectorPixelSize"].tolist() == ["15"] * N
    assert block.numbers("rlnOriginX") == pytest.approx([-1.0, 0.0, -1.5])
    assert block.numbers("rlnOriginY") == pytest.approx([2.0, -4.0, -0.5])
    again = Particles.load(tmp_path / "b.star").pose
    assert again is not None
    torch.testing.assert_close(again.shift_angstrom, POSE.shift_angstrom)


def test_a_cs_file_keeps_its_boxes(tmp_path: Path, cryosparc_table) -> None:
    write_stack(tmp_path / "a.mrcs")
    fields = {
        "blob/path": np.array([b"a.mrcs"] * N),
        "blob/idx": np.arange(N, dtype="u4"),
        "blob/shape": np.full((N, 2), BOX, dtype="u4"),
    }
    write_cs(tmp_path / "a.cs", cryosparc_table(**fields))
    particles = Particles.load(tmp_path / "a.cs")
    assert particles.box == BOX - 1
    particles.with_results(pose=POSE).save(tmp_path / "b.cs")
    found = read_cs(tmp_path / "b.cs")
    assert found["blob/shape"].tolist() == [[BOX, BOX]] * N
    again = Particles.load(tmp_path / "b.cs").pose
    assert again is not None
    # Single precision.
    torch.testing.assert_close(
        again.shift_angstrom, POSE.shift_angstrom, atol=1e-6, rtol=0
    )


def test_joined_particles_keep_their_own_sizes(tmp_path: Path) -> None:
    for name, box in (("a.mrcs", BOX), ("b.mrcs", BOX - 1)):
        write_stack(tmp_path / name, box)
    parts = [Particles.load(tmp_path / name) for name in ("a.mrcs", "b.mrcs")]
    both = join(parts).particles
    assert both.table.box.tolist() == [BOX] * N + [BOX - 1] * N
    both.save(tmp_path / "both.star")
    again = Particles.load(tmp_path / "both.star")
    sizes = again.optics.pixel_size_angstrom.tolist()
    assert sizes == pytest.approx([EVEN] * N + [PIXEL] * N, rel=1e-6)


def test_check_says_in_which_size_they_are_read(tmp_path: Path) -> None:
    write_stack(tmp_path / "a.mrcs")
    notes = [one.message for one in check(tmp_path / "a.mrcs") if one.topic == "images"]
    assert any("read in 30 pixels of 1.55 A" in note for note in notes)


def test_a_simulated_odd_set_gives_its_map(tmp_path: Path) -> None:
    config = SimulationConfig(
        n=200, box=BOX, pixel_size_angstrom=2.8, snr_db=15.0, max_shift_angstrom=4.0
    )
    simulate(config, tmp_path)
    maps = reconstruct(Particles.load(tmp_path / "truth.star"))
    assert maps.density.shape == (BOX - 1,) * 3
    size = maps.pixel_size_angstrom
    truth = read_map(tmp_path / "truth.mrc")
    pair = paired(maps.density, maps.mask, size, truth, tmp_path / "truth.mrc")
    fsc = fourier_shell_correlation(pair.estimated * pair.mask, pair.true * pair.mask)
    # Off by half a pixel the correlation at shell 12 were cos(pi 12 / 30) = 0.31.
    assert float(fsc[1:13].min()) > 0.98
