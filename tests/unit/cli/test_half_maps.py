"""Maps compared: their sampling, their masks, and where the curves are written."""

import io
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from roma import rotvec_to_rotmat

from cryoinfer.cli.half_maps import CompareOptions, compare
from cryoinfer.data.examples import example_atoms
from cryoinfer.errors import InputError, OutputError
from cryoinfer.evaluation.pose_error import GlobalAlignment
from cryoinfer.evaluation.rigid_search import Agreement
from cryoinfer.io.mrc import read_map, write_map
from cryoinfer.io.star import read_star
from cryoinfer.physics.structures.atoms import GaussianAtoms

BOX, VOXEL = 16, 2.0


def said(options: CompareOptions) -> str:
    screen = Console(file=io.StringIO(), width=200)
    compare(options, screen)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


@pytest.fixture
def halves(tmp_path: Path) -> tuple[Path, Path]:
    """Return two maps of one random density, with noise of their own."""
    generator = torch.Generator().manual_seed(0)
    signal, *noise = torch.randn((3, BOX, BOX, BOX), generator=generator)
    paths = tmp_path / "half1.mrc", tmp_path / "half2.mrc"
    for path, own in zip(paths, noise, strict=True):
        write_map(path, signal + 0.1 * own, VOXEL)
    return paths


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    path = tmp_path / "mask.mrc"
    values = torch.zeros(BOX, BOX, BOX)
    values[4:12, 4:12, 4:12] = 1
    write_map(path, values, VOXEL)
    return path


def test_what_is_printed_and_written(
    halves: tuple[Path, Path], mask: Path, tmp_path: Path
) -> None:
    # Signal of a hundred times the noise's power agrees up to Nyquist, two voxels.
    assert said(CompareOptions(*halves)).count("4.00 A, at Nyquist") == 2
    out = tmp_path / "new" / "fsc.star"
    text = said(CompareOptions(*halves, mask, out))
    assert "FSC 0.143, masked, corrected" in text
    assert "Caution" not in text
    block = read_star(out).get("fsc")
    assert block is not None
    fsc = block.numbers("rlnFourierShellCorrelationCorrected")
    assert len(fsc) == BOX // 2 + 1
    # Half of the noise is left in the mean: the true ratio of white noise is 200, and
    # the columns have six decimals.
    ratio, error = (
        block.numbers(one) for one in ("rlnSsnrMap", "cryoinferSsnrMapError")
    )
    assert np.allclose(ratio[1:], 2 * fsc[1:] / (1 - fsc[1:]), rtol=1e-2)
    assert abs(ratio[6] - 200.0) < 4 * error[6] < 400.0
    assert "SSNR of the mean" in text
    assert "SSNR" not in said(CompareOptions(*halves, align=True))


def test_maps_that_agree_nowhere_have_no_resolution(tmp_path: Path) -> None:
    paths = tmp_path / "half1.mrc", tmp_path / "half2.mrc"
    first = torch.randn((BOX,) * 3, generator=torch.Generator().manual_seed(0))
    for path, density in zip(paths, (first, -first), strict=True):
        write_map(path, density, VOXEL)
    text = said(CompareOptions(*paths))
    assert "none: below 0.143 from the first shell on" in text
    assert f"{BOX * VOXEL:.2f} A" not in text


def test_the_resolution_by_direction_is_told(
    halves: tuple[Path, Path], mask: Path, tmp_path: Path
) -> None:
    text = said(CompareOptions(*halves, directional=True))
    assert "by direction, FSC 0.143, unmasked" in text
    assert "median 4.00 A, at Nyquist" in text
    assert "in some directions" not in text
    assert "masked, uncorrected" in said(
        CompareOptions(*halves, mask, directional=True)
    )
    # Nothing but what is coarser than 16 A is left of the second map along z.
    density = torch.tensor(read_map(halves[1]).density)
    transform = torch.fft.fft(density, dim=0)
    transform[3:-2] = 0
    blurred = tmp_path / "blurred.mrc"
    write_map(blurred, torch.fft.ifft(transform, dim=0).real, VOXEL)
    text = said(CompareOptions(halves[0], blurred, directional=True))
    assert "much less far in some directions" in text
    worst = next(line for line in text.splitlines() if line.startswith("worst"))
    # From shell 5 on all of a cone is gone whose axis lies within 46 degrees of z:
    # 5 cos(46 + 20) is 2, the last frequency that is left. These are equally bad.
    assert float(worst.split("along ")[1].split()[2]) > math.cos(math.radians(46))


def test_maps_that_hardly_agree_are_told_to_be_aligned(
    halves: tuple[Path, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other.mrc"
    generator = torch.Generator().manual_seed(7)
    write_map(other, torch.randn((BOX,) * 3, generator=generator), VOXEL)
    text = said(CompareOptions(halves[0], other))
    assert "agree in fewer than 5 shells" in text
    assert "--align searches longer" in text
    assert "fewer than 5 shells" not in said(CompareOptions(*halves))


def test_maps_of_another_sampling_are_refused(
    halves: tuple[Path, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other.mrc"
    for box, voxel in ((BOX, 2.1), (BOX + 2, VOXEL)):
        values = torch.ones(box, box, box)
        values[0] = 0
        write_map(other, values, voxel)
        with pytest.raises(InputError, match="expected the same of both"):
            compare(CompareOptions(halves[0], other), Console(file=io.StringIO()))
        with pytest.raises(InputError, match="expected the same of both"):
            compare(CompareOptions(*halves, other), Console(file=io.StringIO()))


def test_voxel_sizes_that_headers_lack_are_given(
    halves: tuple[Path, Path], mask: Path
) -> None:
    expected = said(CompareOptions(*halves, mask))
    for path in (*halves, mask):
        write_map(path, read_map(path, 1.0).density, 0.0)
    with pytest.raises(InputError, match=r"Give --pixel-size\."):
        said(CompareOptions(*halves, mask))
    assert said(CompareOptions(*halves, mask, pixel_size=VOXEL)) == expected
    for path in halves:  # a mask that does not say its voxel size has the maps'
        write_map(path, read_map(path, 1.0).density, VOXEL)
    assert said(CompareOptions(*halves, mask)) == expected


def test_cautions(halves: tuple[Path, Path], mask: Path, tmp_path: Path) -> None:
    same = said(CompareOptions(halves[0], halves[0]))
    assert "are the same map" in same
    write_map(mask, np.ones((BOX, BOX, BOX)), VOXEL)
    assert "it masks nothing" in said(CompareOptions(*halves, mask))
    content = bytearray(halves[1].read_bytes())
    content[16:20] = np.int32(3).tobytes()  # nxstart
    halves[1].write_bytes(content)
    assert "put the second map 6, 0, 0 A" in said(CompareOptions(*halves))


def test_curves_are_never_written_over_an_input_or_a_folder(
    halves: tuple[Path, Path], mask: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.star"
    link.symlink_to(mask)
    before = {path: path.read_bytes() for path in (*halves, mask)}
    for out, message in (
        (halves[0], "is what is read"),
        (halves[1], "is what is read"),
        (mask, "is what is read"),
        (link, "is what is read"),
        (tmp_path, "is a folder"),
        (mask / "fsc.star", "is not a folder"),
    ):
        with pytest.raises(OutputError, match=message):
            said(CompareOptions(*halves, mask, out, overwrite=True))
    assert {path: path.read_bytes() for path in (*halves, mask)} == before
    out = tmp_path / "fsc.star"
    out.write_text("precious")
    with pytest.raises(OutputError, match="--overwrite"):
        said(CompareOptions(*halves, mask, out))
    assert out.read_text() == "precious"
    said(CompareOptions(*halves, mask, out, overwrite=True))
    assert read_star(out).get("fsc") is not None


@pytest.mark.parametrize("mirrored", [False, True])
def test_maps_of_other_frames_and_hands_are_told(
    halves: tuple[Path, Path], mirrored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That frames are found is tested where they are; here, what is said of them.
    alignment = GlobalAlignment(
        torch.diag(torch.tensor([-1.0, -1.0, 1.0])).double(),
        mirrored,
        torch.tensor([0.0, 3.0, 4.0]).double(),
    )
    fsc = torch.tensor([1.0, 1.0, 1.0, 0.75, 0.25, 0.0, 0.0, 0.0, 0.0])
    found = Agreement(alignment, fsc, BOX * VOXEL)
    monkeypatch.setattr("cryoinfer.cli.half_maps.best_frame", lambda _: found)
    text = said(CompareOptions(*halves))
    # Shell 3.5 of a box of 32 A; 4.428 is where 0.25 falls to 0.143 on the way to 0.
    assert "9.14 A (FSC 0.5)" in text
    assert "7.23 A (FSC 0.143)" in text
    assert "turn by 180.0 degrees and a shift by 5.0 A" in text
    assert ("are of opposite hands" in text) == mirrored
    assert ("cryoinfer flip" in text) == mirrored
    assert "FSC 0.143, unmasked  4.00 A" in text  # as they lie, whatever is found
    assert "as far as voxels" not in text
    few = Agreement(alignment, fsc[:5], BOX * VOXEL)
    monkeypatch.setattr("cryoinfer.cli.half_maps.best_frame", lambda _: few)
    assert "as far as voxels of 4.00 A tell" in said(CompareOptions(*halves))


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [3, 8])
def test_a_small_turn_is_told(degrees: int, tmp_path: Path) -> None:
    model, box, length = example_atoms("adenylate-kinase-open"), 32, 96.0
    place = torch.tensor(model.coordinates_angstrom).double()
    generator = torch.Generator().manual_seed(0)
    paths = []
    for turn in (0, degrees):
        tilt = math.radians(turn) * torch.tensor([0.0, 0.6, 0.8]).double()
        turned = place @ rotvec_to_rotmat(tilt)
        atoms = GaussianAtoms.from_elements(turned, model.elements, 50.0)
        density = atoms.to_map(box, length / box).double()
        noise = torch.randn((box,) * 3, generator=generator)
        paths.append(tmp_path / f"{turn}.mrc")
        write_map(paths[-1], density + 0.5 * density.std() * noise, length / box)
    text = said(CompareOptions(paths[0], paths[1]))
    found = re.search(r"after a turn by (\d+\.\d) degrees and a shift by 0\.\d A", text)
    assert found is not None, text
    # A fifth of a degree moves the ends of the molecule by a thirtieth of a voxel.
    assert float(found[1]) == pytest.approx(degrees, abs=0.5)
    assert "as they lie, not aligned" in text
