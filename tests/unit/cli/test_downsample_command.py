"""Particles of fewer pixels, with metadata that are right for them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cryoinfer.cli.app import app
from cryoinfer.data.particles import Particles
from cryoinfer.data.resampling import cropped_images
from cryoinfer.io.cryosparc import read_cs, with_fields, write_cs
from cryoinfer.io.mrc import StackFile, StackWriter
from cryoinfer.io.star import read_star

N, BOX, PIXEL = 3, 24, 1.5

OLD_STAR = """
data_

loop_
_rlnImageName
_rlnDetectorPixelSize
_rlnMagnification
_rlnCoordinateX
_rlnCoordinateY
_rlnOriginX
_rlnOriginY
_rlnAngleRot
_rlnAngleTilt
_rlnAnglePsi
"""


def ask(*words: str | Path) -> tuple[int, str]:
    answer = CliRunner().invoke(app, [*map(str, words)], env={"COLUMNS": "500"})
    assert answer.exception is None or isinstance(answer.exception, SystemExit)
    return answer.exit_code, " ".join(answer.output.split())


def write_stack(path: Path, box: int = BOX, seed: int = 0) -> torch.Tensor:
    images = torch.randn(N, box, box, generator=torch.Generator().manual_seed(seed))
    with StackWriter(path, N, box, PIXEL) as writer:
        writer.write(images)
    return images


@pytest.fixture(name="old_star")
def old_star_fixture(tmp_path: Path) -> Path:
    write_stack(tmp_path / "raw.mrcs")
    rows = [f"{i + 1}@raw.mrcs 15 100000 700 {i} 2 -4 0 0 0" for i in range(N)]
    (tmp_path / "old.star").write_text(OLD_STAR + "\n".join(rows) + "\n")
    return tmp_path / "old.star"


@pytest.mark.parametrize("words", [("--box", "16"), ("--new-pixel-size", "2.2")])
def test_images_are_cropped_and_columns_are_right(
    old_star: Path, words: tuple[str, str]
) -> None:
    out = old_star.with_name("small.star")
    code, said = ask("downsample", old_star, *words, "--out", out)
    assert code == 0
    assert "3 images of 16 pixels of 2.25 A, before 24 of 1.5 A" in said
    raw, new = Particles.load(old_star), Particles.load(out)
    every = torch.arange(N)
    torch.testing.assert_close(
        new.images(every), cropped_images(raw.images(every), 16), rtol=0, atol=0
    )
    assert new.pixel_size_angstrom == pytest.approx(2.25, rel=1e-8)
    assert raw.pose is not None
    assert new.pose is not None
    # Six decimals of a pixel in the file.
    torch.testing.assert_close(
        new.pose.shift_angstrom, raw.pose.shift_angstrom, rtol=0, atol=2e-6
    )
    columns = read_star(out).blocks[0].columns
    # As RELION up to 3.0 has it: the magnification tells the pixel size.
    assert set(columns["rlnDetectorPixelSize"]) == {"15"}
    assert columns["rlnMagnification"].astype(float) == pytest.approx(1e5 * 16 / 24)
    assert columns["rlnOriginX"].astype(float) == pytest.approx([2 * 16 / 24] * N)
    assert columns["rlnCoordinateY"].tolist() == ["0", "1", "2"]
    assert columns["rlnImageOriginalName"][1] == "2@raw.mrcs"
    assert StackFile.of(out.with_suffix(".mrcs")).pixel_size_angstrom == pytest.approx(
        2.25
    )


def test_a_cs_file_stays_one(tmp_path: Path) -> None:
    write_stack(tmp_path / "raw.mrcs")
    table = np.zeros(N, dtype=[("uid", "u8")])
    table["uid"] = [7, 5, 9]
    fields = {
        "blob/path": np.array([b"raw.mrcs"] * N),
        "blob/idx": np.arange(N, dtype="u4"),
        "blob/shape": np.full((N, 2), BOX, dtype="u4"),
        "blob/psize_A": np.full(N, PIXEL, dtype="f4"),
        "location/center_x_frac": np.full(N, 0.25, dtype="f4"),
        "alignments3D/pose": np.zeros((N, 3), dtype="f4"),
        "alignments3D/shift": np.array([[2, -4], [0, 0], [1, 1]], dtype="f4"),
        "alignments3D/psize_A": np.full(N, 3.0, dtype="f4"),
    }
    write_cs(tmp_path / "a.cs", with_fields(table, fields))
    code, _ = ask("downsample", tmp_path / "a.cs", "--box", 12, "-o", tmp_path / "b.cs")
    assert code == 0
    found = read_cs(tmp_path / "b.cs")
    assert found["blob/shape"].tolist() == [[12, 12]] * N
    assert found["blob/psize_A"].tolist() == [3.0] * N
    assert found["location/center_x_frac"].tolist() == [0.25] * N
    # Shifts are counted in pixels of their own.
    assert found["alignments3D/psize_A"].tolist() == [3.0] * N
    assert found["uid"].tolist() == [7, 5, 9]
    old, new = (Particles.load(tmp_path / name).pose for name in ("a.cs", "b.cs"))
    assert old is not None
    assert new is not None
    torch.testing.assert_close(new.shift_angstrom, old.shift_angstrom)


def test_images_of_two_sizes_go_into_two_stacks(tmp_path: Path) -> None:
    for name, box in (("a.mrcs", 24), ("b.mrcs", 31)):
        write_stack(tmp_path / name, box)
    (tmp_path / "all.txt").write_text("a.mrcs\nb.mrcs\n")
    code, _ = ask(
        "downsample", tmp_path / "all.txt", "--box", "12", "-o", tmp_path / "c.star"
    )
    assert code == 0
    new = Particles.load(tmp_path / "c.star")
    assert {stack.path.name for stack in new.stacks} == {"c.mrcs", "c_2.mrcs"}
    expected = [PIXEL * 2] * N + [PIXEL * 31 / 12] * N
    assert new.optics.pixel_size_angstrom.tolist() == pytest.approx(expected, rel=1e-7)


def test_hot_pixels_are_not_smeared(tmp_path: Path) -> None:
    images = write_stack(tmp_path / "raw.mrcs")
    images[1, 5, 5] = 1000.0
    with StackWriter(tmp_path / "raw.mrcs", N, BOX, PIXEL) as writer:
        writer.write(images)
    out = tmp_path / "b.star"
    assert ask("downsample", tmp_path / "raw.mrcs", "--box", "12", "-o", out)[0] == 0
    # Without repair the pixel would show with 1000 / 4 over four new ones.
    assert float(Particles.load(out).images(torch.arange(N)).abs().max()) < 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-o", "b.star"), "Give either --box or --new-pixel-size"),
        (("--box", "12", "--new-pixel-size", "3", "-o", "b.star"), "Give either"),
        (("--box", "13", "-o", "b.star"), "an even box of 8 to 24 pixels"),
        (("--box", "26", "-o", "b.star"), "never padded, found 26 pixels"),
        (("--new-pixel-size", "1", "-o", "b.star"), "found 36 pixels, for pixels of 1"),
        (("--box", "12", "-o", "b.txt"), "expected .star or .cs"),
        (("--box", "12", "-o", "raw.star"), "raw.mrcs"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(
    old_star: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message
) -> None:
    monkeypatch.chdir(old_star.parent)
    code, said = ask("downsample", "old.star", *words)
    assert code == 2
    assert message in said
    assert not Path("b.star").exists()
