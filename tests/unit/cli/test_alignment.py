"""`cryoinfer align`, and `fsc --align`: what is written, said and refused."""

import io
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor

from cryoinfer.cli.alignment import AlignOptions, align, alignment_cautions
from cryoinfer.cli.half_maps import CompareOptions, compare
from cryoinfer.errors import InputError, OutputError
from cryoinfer.evaluation.map_alignment import MapAlignment
from cryoinfer.evaluation.pose_error import GlobalAlignment
from cryoinfer.evaluation.rigid_search import Agreement
from cryoinfer.evaluation.volume_alignment import transform_map
from cryoinfer.io.conventions.poses import euler_degrees_to_rotation
from cryoinfer.io.mrc import read_map, write_map

BOX, VOXEL = 20, 3.0


def blobs() -> Tensor:
    generator = torch.Generator().manual_seed(5)
    place = torch.randn((40, 3), generator=generator, dtype=torch.float64)
    arms = torch.tensor([[11.0, 0, 0], [0, 8, 3], [-11, -7, -2], [2, -3, 10]]).double()
    place = 3.0 * place + arms[torch.arange(40) // 10]
    line = (torch.arange(BOX, dtype=torch.float64) - BOX // 2) * VOXEL
    wave = [torch.exp(-((line - c[:, None]) ** 2) / 25.0) for c in place.T]
    return torch.einsum("az,ay,ax->zyx", *wave)


@pytest.fixture
def maps(tmp_path: Path) -> tuple[Path, Path]:
    """Return a map, and the same with rot 40, tilt 50, psi 60 and a shift of 4 A."""
    turn = euler_degrees_to_rotation(torch.tensor([40.0, 50.0, 60.0]).double())
    # The reference at r is the map at turn' (r - shift).
    shift = torch.tensor([0.0, 0.0, 4.0]).double()
    true = GlobalAlignment(turn.mT, False, -turn.mT @ shift)
    paths = tmp_path / "moving.mrc", tmp_path / "reference.mrc"
    write_map(paths[0], blobs().float(), VOXEL)
    write_map(paths[1], transform_map(blobs(), true, VOXEL).float(), VOXEL)
    return paths


def said(options: AlignOptions | CompareOptions) -> str:
    screen = Console(file=io.StringIO(), width=200)
    if isinstance(options, AlignOptions):
        align(options, screen)
    else:
        compare(options, screen)
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def numbers(text: str, name: str) -> list[float]:
    line = next(line for line in text.splitlines() if line.startswith(name))
    return [float(x) for x in re.findall(r"-?\d+\.\d+", line.removeprefix(name))]


def test_what_is_written_and_said(maps: tuple[Path, Path], tmp_path: Path) -> None:
    half = tmp_path / "half1.mrc"
    write_map(half, 2 * read_map(maps[0]).density, VOXEL)
    out = tmp_path / "new" / "aligned.mrc"
    text = said(AlignOptions(*maps, out, also=(half,)))
    angles = numbers(text, "rot, tilt, psi (RELION)")
    assert angles == pytest.approx([40.0, 50.0, 60.0], abs=0.5)
    assert numbers(text, "shift, x y z") == pytest.approx([0, 0, 4], abs=0.1)
    assert numbers(text, "correlation")[0] > 0.99
    assert "Caution" not in text
    aligned, along = (
        read_map(path) for path in (out, out.with_name("aligned-half1.mrc"))
    )
    assert aligned.pixel_size_angstrom == VOXEL
    expected = read_map(maps[1]).density
    assert abs(aligned.density - expected).max() < 0.03 * expected.max()
    assert abs(along.density - 2 * aligned.density).max() < 1e-4 * expected.max()


def test_maps_that_cannot_be_aligned_are_refused(
    maps: tuple[Path, Path], tmp_path: Path
) -> None:
    out, other = tmp_path / "out.mrc", tmp_path / "other.mrc"
    write_map(other, blobs().float(), 1.1 * VOXEL)
    with pytest.raises(InputError, match="expected the same of both"):
        said(AlignOptions(other, maps[1], out))
    with pytest.raises(InputError, match="expected the same of both"):
        said(AlignOptions(*maps, out, also=(other,)))
    write_map(other, torch.ones(BOX, BOX, BOX), VOXEL)
    with pytest.raises(InputError, match=r"other\.mrc"):
        said(AlignOptions(other, maps[1], out))
    with pytest.raises(OutputError, match="is what is read"):
        said(AlignOptions(*maps, maps[0], overwrite=True))
    with pytest.raises(OutputError, match="have one name"):
        said(AlignOptions(*maps, out, also=(maps[0], maps[0])))
    assert not out.exists()


def test_fsc_aligns_only_where_it_is_asked(maps: tuple[Path, Path]) -> None:
    lying = said(CompareOptions(*reversed(maps)))
    assert "The second map is" not in lying
    aligned = said(CompareOptions(*reversed(maps), align=True))
    assert "The second map is turned by" in aligned
    assert "as they lie" not in aligned
    reached = [numbers(text, "FSC 0.5, unmasked")[0] for text in (lying, aligned)]
    assert reached[1] < 0.6 * reached[0]


def test_cautions() -> None:
    still = GlobalAlignment(torch.eye(3).double(), False, torch.zeros(3).double())
    turned = GlobalAlignment(
        torch.diag(torch.tensor([-1.0, -1.0, 1.0])).double(), True, torch.zeros(3)
    )
    agreement = Agreement(still, torch.ones(9), 32.0)
    assert not list(
        alignment_cautions(MapAlignment(agreement, 0.9, 0.2, 0.4, still, 0.3))
    )
    (text,) = alignment_cautions(MapAlignment(agreement, 0.2, 0.1, 0.4, None, -1.0))
    assert "by chance" in text
    (text,) = alignment_cautions(MapAlignment(agreement, 0.9, 0.2, 0.4, turned, 0.88))
    assert "180 degrees away, in the other hand" in text
