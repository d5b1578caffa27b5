"""Particles cropped, normalised and written, and read again."""

from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryoinfer.data import shard_plan
from cryoinfer.data.downsampling import plan_downsampling, write_downsampled
from cryoinfer.data.normalising import Background
from cryoinfer.data.particles import Particles
from cryoinfer.data.resampling import band_limited_matrix, cropped_images
from cryoinfer.data.shard_plan import PreparationConfig, plan_shards
from cryoinfer.data.shard_writing import write_shards
from cryoinfer.data.shards import ShardIndex
from cryoinfer.errors import InputError
from cryoinfer.interfaces import SILENT
from cryoinfer.io.conventions.relion import table_to_relion
from cryoinfer.io.conventions.table import ImageReferences, ParticleTable
from cryoinfer.io.cryosparc import read_cs, write_cs
from cryoinfer.io.mrc import StackWriter
from cryoinfer.io.star import read_star
from cryoinfer.physics.premultiplied import multiplied_by_ctf
from cryoinfer.records import Optics

N, BOX, PIXEL = 37, 24, 1.5


def prepare(
    particles: Particles, folder: Path, config: PreparationConfig
) -> ShardIndex:
    folder.mkdir(exist_ok=True)
    source = {"path": "a.star", "reading": {}}
    is_star = hasattr(particles.source, "star")
    name = "particles.star" if is_star else "particles.cs"
    index = ShardIndex(source, config.settings(), name, len(particles))
    planned = plan_shards(particles, config)
    memory = config.memory_bytes
    return write_shards(particles, planned, folder, index, memory, SILENT)


def write_noise(folder: Path, box: int = BOX) -> torch.Tensor:
    """Write a stack and return its images."""
    images = 5 + 3 * torch.randn(
        N, box, box, generator=torch.Generator().manual_seed(3)
    )
    with StackWriter(folder / "raw.mrcs", N, box, PIXEL) as writer:
        writer.write(images)
    return images


@pytest.mark.parametrize("old_box", [24, 25])
def test_a_band_limited_image_is_sampled_anew(tmp_path: Path, old_box: int) -> None:
    def waves(box: int) -> torch.Tensor:
        axis = (torch.arange(box, dtype=torch.float64) - box // 2) / box
        x, y = axis[None, :], axis[:, None]
        terms = [(3, -1, 0.3), (5, 5, 1.0), (-2, 4, 2.0), (0, 1, 0.1)]
        return sum(
            (torch.cos(2 * torch.pi * (k * x + q * y) + p) for k, q, p in terms),
            torch.zeros(box, box),
        )

    with StackWriter(tmp_path / "raw.mrcs", 1, old_box, PIXEL) as writer:
        writer.write(7 + 4 * waves(old_box)[None])
    particles = Particles.load(tmp_path / "raw.mrcs")
    prepare(particles, tmp_path / "out", PreparationConfig(box=12))
    again = Particles.load(tmp_path / "out")
    assert again.pixel_size_angstrom == pytest.approx(PIXEL * old_box / 12, rel=1e-8)
    expected, outside = waves(12).numpy(), Background.of(12, 0.75 * 6).outside.numpy()
    expected = expected - expected[outside].mean()
    expected = expected / expected[outside].std()
    found = again.images(torch.tensor([0]))[0].double().numpy()
    # Half of the last digit of a float16, and single precision in between.
    np.testing.assert_allclose(found, expected, rtol=2**-11, atol=2e-6)


def test_without_a_box_images_are_only_normalised(tmp_path: Path) -> None:
    images = write_noise(tmp_path)
    index = prepare(
        Particles.load(tmp_path / "raw.mrcs"), tmp_path / "out", PreparationConfig()
    )
    assert (index.count, index.finished, len(index.shards)) == (N, True, 1)
    outside = Background.of(BOX, 0.75 * BOX / 2).outside.numpy()
    found = Particles.load(tmp_path / "out").images(torch.arange(N)).numpy()
    for one, raw in zip(found, images.double().numpy(), strict=True):
        expected = (raw - raw[outside].mean()) / raw[outside].std()
        np.testing.assert_allclose(one, expected, rtol=2**-11, atol=2e-6)


def test_rounding_costs_no_more_than_its_last_digit(tmp_path: Path) -> None:
    write_noise(tmp_path)
    particles = Particles.load(tmp_path / "raw.mrcs")
    prepare(particles, tmp_path / "out", PreparationConfig())
    around = Background.of(BOX, 0.75 * BOX / 2)
    raw = particles.images(torch.arange(N)).double()
    mean, deviation = around.statistics(raw)
    exact = (raw - mean[:, None, None]) / deviation[:, None, None]
    stored = Particles.load(tmp_path / "out").images(torch.arange(N)).double()
    # As Fourier coefficients have it: transforms keep sums of squares.
    off = torch.fft.rfft2(stored - exact).abs().square().mean().sqrt()
    whole = torch.fft.rfft2(exact).abs().square().mean().sqrt()
    # At most 2^-11 of each pixel, rounded to nearest; on average half as much.
    assert 2**-13 < float(off / whole) < 2**-11


def test_no_budget_and_no_number_of_threads_changes_a_bit(tmp_path: Path) -> None:
    write_noise(tmp_path)
    particles = Particles.load(tmp_path / "raw.mrcs")
    found = []
    for number, (memory, threads) in enumerate([(1, 1), (10**9, 1), (200_000, 2)]):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            config = PreparationConfig(box=14, memory_bytes=memory)
            prepare(particles, tmp_path / f"out{number}", config)
        finally:
            torch.set_num_threads(before)
        files = sorted((tmp_path / f"out{number}").iterdir())
        found.append([(path.name, path.read_bytes()) for path in files])
    assert found[0] == found[1] == found[2]


def test_shards_are_stacks_that_others_read(tmp_path: Path, monkeypatch) -> None:
    write_noise(tmp_path)
    # Of 12 x 12 pixels of two bytes: ten images a shard.
    monkeypatch.setattr(shard_plan, "_SHARD_BYTES", 10 * 12 * 12 * 2)
    particles = Particles.load(tmp_path / "raw.mrcs")
    index = prepare(particles, tmp_path / "out", PreparationConfig(box=12))
    assert [shard.images for shard in index.shards] == [10, 10, 10, 7]
    whole = Particles.load(tmp_path / "out")
    first = 0
    for shard in index.shards:
        with mrcfile.open(tmp_path / "out" / shard.name) as mrc:
            assert (int(mrc.header.mode), mrc.is_image_stack()) == (12, True)
            assert float(mrc.voxel_size.x) == pytest.approx(3.0)
            rows = torch.arange(first, first + shard.images)
            assert np.array_equal(mrc.data.astype("f4"), whole.images(rows).numpy())
        assert mrcfile.validate(str(tmp_path / "out" / shard.name))
        first += shard.images


def test_a_star_file_keeps_all_but_what_has_changed(project: Path) -> None:
    particles = Particles.load(project / "new.star")
    prepare(particles, project / "out", PreparationConfig(box=4))
    before = read_star(project / "new.star")
    after = read_star(project / "out" / "particles.star")
    assert [block.name for block in after.blocks] == ["optics", "particles", "extra"]
    changed = {"rlnImageName", "rlnImagePixelSize", "rlnImageSize"}
    for block in before.blocks:
        found = after.get(block.name)
        assert found is not None
        for label, words in block.columns.items():
            if label not in changed:
                assert found.columns[label].tolist() == words.tolist()
    optics, rows = after.get("optics"), after.get("particles")
    assert optics is not None
    assert rows is not None
    assert optics.columns["rlnImageSize"].tolist() == ["4", "4"]
    # 6 pixels of 2 A and 8 of 1.5 A, in the file's order.
    assert optics.columns["rlnImagePixelSize"].tolist() == ["3", "3"]
    assert rows.columns["rlnImageOriginalName"].tolist() == (
        before.blocks[0].columns["rlnImageName"].tolist()
    )
    # A stack for each box that there was.
    assert rows.columns["rlnImageName"].tolist() == [
        "000001@images_0002.mrcs",
        "000002@images_0002.mrcs",
        "000001@images_0001.mrcs",
    ]
    again = Particles.load(project / "out")
    assert again.pose is not None
    assert particles.pose is not None
    assert torch.equal(again.pose.shift_angstrom, particles.pose.shift_angstrom)
    same = replace(particles.optics, pixel_size_angstrom=torch.full((3,), 3.0).double())
    assert all(torch.equal(getattr(again.optics, k), v) for k, v in vars(same).items())


def test_shifts_in_pixels_are_counted_in_the_new_ones(project: Path) -> None:
    particles = Particles.load(project / "old.star")
    prepare(particles, project / "out", PreparationConfig(box=6))
    block = read_star(project / "out" / "particles.star").blocks[0]
    # 6 of 8 pixels: an origin of 1 becomes one of 0.75.
    assert block.columns["rlnOriginX"].tolist() == ["0.750000", "0.375000"]
    assert block.columns["rlnMagnification"].tolist() == ["30000", "30000"]
    assert block.columns["rlnAngleRot"].tolist() == ["10", "10"]
    again = Particles.load(project / "out")
    assert again.pixel_size_angstrom == pytest.approx(2.0)
    assert again.pose is not None
    assert particles.pose is not None
    torch.testing.assert_close(again.pose.shift_angstrom, particles.pose.shift_angstrom)


def test_a_table_of_cryosparc_stays_one(sparc: Path) -> None:
    given = sparc / "J1" / "particles.cs"
    particles = Particles.load(given)
    index = prepare(particles, sparc / "out", PreparationConfig(box=4))
    assert index.particles == "particles.cs"
    before, after = read_cs(given), read_cs(sparc / "out" / "particles.cs")
    changed = {"blob/path", "blob/idx", "blob/shape", "blob/psize_A"}
    assert before.dtype.names is not None
    for name in before.dtype.names:
        if name not in changed:
            assert np.array_equal(after[name], before[name]), name
    assert after["blob/shape"].tolist() == [[4, 4]] * 3
    assert after["blob/psize_A"].tolist() == [3.0] * 3
    assert after["cryoinfer/original_idx"].tolist() == before["blob/idx"].tolist()
    assert after["cryoinfer/original_path"].tolist() == before["blob/path"].tolist()
    again = Particles.load(sparc / "out")
    star = Particles.load(sparc / "out" / "particles.star")
    # A STAR file says with the CTF's scale that particles are black.
    assert torch.equal(star.images(torch.arange(3)), -again.images(torch.arange(3)))
    assert torch.equal(star.optics.scale, -again.optics.scale)
    for one in (again, star):
        assert one.pose is not None
        assert particles.pose is not None
        found, wanted = one.pose.shift_angstrom, particles.pose.shift_angstrom
        # Six decimals of a STAR file.
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)
    words = read_star(sparc / "out" / "particles.star").blocks[1].columns
    assert words["rlnImageOriginalName"][1] == "000004@J1/extract/a.mrcs"
    # Black on white in the table, and in the shards: the same particles.
    matrix = band_limited_matrix(8, 4, 8.0).float()
    raw = matrix @ particles.images(torch.tensor([1]))[0] @ matrix.T
    pair = torch.stack([raw.flatten(), again.images(torch.tensor([1])).flatten()])
    assert float(torch.corrcoef(pair)[0, 1]) > 0.999
    assert (after["blob/sign"] == -1).all()


def test_shifts_of_cryosparc_keep_their_unit(sparc: Path) -> None:
    given = sparc / "J1" / "particles.cs"
    table = read_cs(given)
    assert table.dtype.names is not None
    kept = [name for name in table.dtype.names if name != "alignments3D/psize_A"]
    bare = np.empty(len(table), np.dtype([(n, table.dtype[n]) for n in kept]))
    for name in kept:
        bare[name] = table[name]
    write_cs(given, bare)
    particles = Particles.load(given)
    prepare(particles, sparc / "out", PreparationConfig(box=4))
    again = Particles.load(sparc / "out")
    assert particles.pose is not None
    assert again.pose is not None
    torch.testing.assert_close(again.pose.shift_angstrom, particles.pose.shift_angstrom)


def test_older_originals_are_not_forgotten(tmp_path: Path) -> None:
    write_noise(tmp_path)
    prepare(Particles.load(tmp_path / "raw.mrcs"), tmp_path / "a", PreparationConfig())
    particles = Particles.load(tmp_path / "a")
    prepare(particles, tmp_path / "b", PreparationConfig(box=12))
    rows = read_star(tmp_path / "b" / "particles.star").blocks[1]
    assert rows.columns["rlnImageOriginalName"][0] == "000001@raw.mrcs"


@pytest.mark.parametrize(
    ("resolution", "box"),
    [
        # 36 A across: the ring at 6 pixels must be full, so 14, and 16 is quick.
        (6.0, 16),
        (12.0, 8),
        # 12 pixels and more would not fit.
        (3.0, 24),
    ],
)
def test_a_resolution_is_kept(tmp_path: Path, resolution: float, box: int) -> None:
    write_noise(tmp_path)
    particles = Particles.load(tmp_path / "raw.mrcs")
    config = PreparationConfig(resolution_angstrom=resolution)
    assert [one.crop.box for one in plan_shards(particles, config)] == [box]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PreparationConfig(box=26), "--box must be an even number up to the 24 pixels"),
        (PreparationConfig(box=13), "--box must be an even number"),
        (PreparationConfig(resolution_angstrom=2.9), "--resolution must lie between 3"),
        (PreparationConfig(resolution_angstrom=40), "--resolution must lie between 3"),
        (PreparationConfig(particle_diameter_angstrom=37), "between 3 and 36 A"),
        (PreparationConfig(box=12, particle_diameter_angstrom=5), "between 6 and 36 A"),
    ],
)
def test_crops_that_there_are_not_are_refused(
    tmp_path: Path, config: PreparationConfig, message: str
) -> None:
    write_noise(tmp_path)
    with pytest.raises(InputError, match=message):
        plan_shards(Particles.load(tmp_path / "raw.mrcs"), config)


def test_spoiled_images_are_listed_and_not_mended(tmp_path: Path) -> None:
    images = write_noise(tmp_path)
    images[3, 0, 0], images[20] = torch.nan, 5.0
    images[30, 11:14, 11:14] = 1e9  # one alone were a hot pixel
    with StackWriter(tmp_path / "raw.mrcs", N, BOX, PIXEL) as writer:
        writer.write(images)
    particles = Particles.load(tmp_path / "raw.mrcs")
    index = prepare(particles, tmp_path / "out", PreparationConfig())
    (shard,) = index.shards
    assert (shard.unreadable, shard.flat, shard.clipped) == ((3,), (20,), (30,))
    found = Particles.load(tmp_path / "out").images(torch.arange(N))
    finite = found.flatten(1).isfinite().all(1)
    assert torch.nonzero(~finite).flatten().tolist() == [3]
    assert not found[20].any()
    assert ShardIndex.read(tmp_path / "out") == index


def test_images_without_any_noise_are_refused(tmp_path: Path) -> None:
    with StackWriter(tmp_path / "raw.mrcs", N, BOX, PIXEL) as writer:
        writer.write(torch.ones(N, BOX, BOX))
    particles = Particles.load(tmp_path / "raw.mrcs")
    with pytest.raises(InputError, match="Not one image has noise around"):
        prepare(particles, tmp_path / "out", PreparationConfig())
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture(params=[24, 25])
def multiplied(request: pytest.FixtureRequest, tmp_path: Path) -> Particles:
    """Return particles whose images were multiplied by their CTF."""
    box = request.param
    images = write_noise(tmp_path, box)
    defocus = torch.linspace(6000.0, 9000.0, N, dtype=torch.float64)
    one = torch.ones(N, dtype=torch.float64)
    optics = replace(
        Optics.without_ctf(N, PIXEL),
        cs_mm=2.7 * one,
        amplitude_contrast=0.1 * one,
        defocus_u_angstrom=defocus,
        defocus_v_angstrom=defocus,
        ctf_premultiplied=torch.ones(N, dtype=torch.bool),
    )
    with StackWriter(tmp_path / "times_ctf.mrcs", N, box, PIXEL) as writer:
        writer.write(multiplied_by_ctf(images, optics))
    first, rows = np.zeros(N, dtype=np.int64), np.arange(N)
    table = ParticleTable(
        images=ImageReferences(("times_ctf.mrcs",), first, rows),
        sign=torch.ones(N),
        box=torch.full((N,), box),
        optics=optics,
        has_ctf=True,
    )
    table_to_relion(table).write(tmp_path / "a.star")
    return Particles.load(tmp_path / "a.star")


ALL = torch.arange(N)


def test_multiplied_images_stay_so_when_cropped(
    multiplied: Particles, tmp_path: Path
) -> None:
    planned = plan_downsampling(multiplied, 12, None, "b")
    found = write_downsampled(multiplied, planned, tmp_path, SILENT)
    assert found.optics.ctf_premultiplied.all()
    # As recorded, as if nobody had told of the multiplication.
    recorded = torch.tensor(mrcfile.read(tmp_path / "times_ctf.mrcs"))
    expected = cropped_images(recorded, 12)
    cropped = torch.tensor(mrcfile.read(tmp_path / "b.mrcs"))
    # Single precision, of values up to 20.
    torch.testing.assert_close(cropped, expected, atol=2e-5, rtol=0)


def test_multiplied_images_are_prepared_by_the_noise_without(
    multiplied: Particles, tmp_path: Path
) -> None:
    config = PreparationConfig(box=12)
    prepare(multiplied, tmp_path / "p", config)
    found = Particles.load(tmp_path / "p")
    assert found.optics.ctf_premultiplied.all()
    (planned,) = plan_shards(multiplied, config)
    plain = replace(multiplied.optics, ctf_premultiplied=torch.zeros(N).bool())
    raw = multiplied.repaired_images(ALL).images
    expected = planned.crop.images(raw, plain).images.float()
    # Half precision, of values up to 5, divided by 0.1 at the least.
    torch.testing.assert_close(found.images(ALL), expected, atol=2e-2, rtol=0)
