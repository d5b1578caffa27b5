"""RELION's B-factors, masks and local resolutions of the same maps are ours."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from cryoinfer.data.examples import example_atoms
from cryoinfer.evaluation.local_resolution import local_resolution
from cryoinfer.evaluation.postprocess import Postprocessed, postprocess
from cryoinfer.evaluation.sharpening import GuinierFit
from cryoinfer.io.mrc import read_map, read_mask, write_map
from cryoinfer.io.star import read_star
from cryoinfer.physics.structures.atoms import GaussianAtoms
from cryoinfer.reconstruction.mask import MaskShape, ThresholdMask, threshold_mask

pytestmark = pytest.mark.slow

BOX, VOXEL = 96, 1.0
LEVEL, EXTEND, EDGE = 0.2, 4.0, 7.0
"""Of the mask: density over its largest value, and angstrom, which are voxels."""


@dataclass(frozen=True)
class Halves:
    """Two noisy halves of adenylate kinase, and what we make of them."""

    folder: Path
    first: Tensor
    second: Tensor
    drawn: ThresholdMask
    found: Postprocessed


def noisy_halves() -> tuple[Tensor, Tensor, Tensor]:
    """Return the true map, one half of the molecule blurred more, and noisy halves."""
    model = example_atoms("adenylate-kinase-open")
    place = torch.tensor(model.coordinates_angstrom).double()
    place -= place.mean(0)
    true = torch.zeros((BOX, BOX, BOX), dtype=torch.float64)
    for b_factor, kept in ((60.0, place[:, 1] < 0), (300.0, place[:, 1] >= 0)):
        elements = [e for e, k in zip(model.elements, kept.tolist(), strict=True) if k]
        atoms = GaussianAtoms.from_elements(place[kept], elements, b_factor)
        true += atoms.to_map(BOX, VOXEL)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((2, BOX, BOX, BOX), generator=generator).double()
    first, second = (true + 0.5 * true.std() * one for one in noise)
    return true, first, second


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Halves:
    folder = tmp_path_factory.mktemp("relion")
    true, first, second = noisy_halves()
    shape = MaskShape(EXTEND, EDGE, LEVEL * float(true.max()))
    drawn = threshold_mask(true, VOXEL, shape)
    for name, density in (
        ("true", true),
        ("half1", first),
        ("half2", second),
        ("masked1", first * drawn.mask),
        ("masked2", second * drawn.mask),
        ("mask", drawn.mask),
    ):
        write_map(folder / f"{name}.mrc", density.float(), VOXEL)
    found = postprocess(first, second, drawn.mask, VOXEL)
    return Halves(folder, first, second, drawn, found)


def numbers_of(relion, halves: Halves, name: str) -> dict[str, float]:
    """Return resolution and B-factor that RELION finds in a pair of maps."""
    out = halves.folder / f"post-{name}"
    out.mkdir()
    reached = f"{halves.found.resolution_angstrom:.4f}"
    relion(
        halves.folder,
        "relion_postprocess",
        *("--i", f"{name}1.mrc", "--i2", f"{name}2.mrc", "--mask", "mask.mrc"),
        *("--angpix", VOXEL, "--auto_bfac", "--autob_highres", reached),
        *("--o", f"{out.name}/p"),
    )
    block = read_star(out / "p.star").get("general")
    assert block is not None
    wanted = ("rlnFinalResolution", "rlnBfactorUsedForSharpening")
    return {name: float(block.numbers(name)[0]) for name in wanted}


@pytest.mark.parametrize("name", ["half", "masked"])
def test_b_factors_agree(relion, halves: Halves, name: str) -> None:
    theirs = numbers_of(relion, halves, name)
    ours = halves.found.whole_box_fit if name == "half" else halves.found.fit
    assert isinstance(ours, GuinierFit)
    # Random phases, which the weights are corrected by, differ; and RELION counts
    # coefficients of the plane x = 0 twice.
    assert ours.b_factor_angstrom2 == pytest.approx(
        theirs["rlnBfactorUsedForSharpening"], rel=0.1
    )
    # RELION names the last shell above 0.143, we the crossing that follows.
    length = BOX * VOXEL
    apart = length / theirs["rlnFinalResolution"] - length / (
        halves.found.resolution_angstrom
    )
    assert abs(apart) <= 1.5


def test_masks_agree(relion, halves: Halves) -> None:
    relion(
        halves.folder,
        "relion_mask_create",
        *("--i", "true.mrc", "--ini_threshold", halves.drawn.threshold),
        *("--extend_inimask", EXTEND / VOXEL, "--width_soft_edge", EDGE / VOXEL),
        *("--angpix", VOXEL, "--o", "created.mrc"),
    )
    theirs = read_mask(halves.folder / "created.mrc").density
    assert halves.drawn.other_parts == 0  # which RELION would keep
    # RELION extends to less than the distance, and begins its edge at the centres of
    # the voxels that are inside then: it is tighter, by less than a voxel and a half.
    ours, tighter = (
        threshold_mask(
            torch.tensor(read_map(halves.folder / "true.mrc").density),
            VOXEL,
            MaskShape(EXTEND - less, EDGE, halves.drawn.threshold),
        ).mask.numpy()
        for less in (0.0, 1.5 * VOXEL)
    )
    assert bool((theirs <= ours + 1e-6).all())
    assert bool((theirs >= tighter - 1e-6).all())


def test_local_resolutions_agree(relion, halves: Halves) -> None:
    out = halves.folder / "local"
    out.mkdir()
    relion(
        halves.folder,
        "relion_postprocess",
        *("--i", "half1.mrc", "--i2", "half2.mrc", "--mask", "mask.mrc"),
        *("--angpix", VOXEL, "--locres", "--locres_sampling", 12, "--adhoc_bfac", 0),
        *("--o", f"{out.name}/p"),
    )
    theirs = torch.tensor(read_map(out / "p_locres.mrc").density)
    ours = local_resolution(halves.first, halves.second, VOXEL).angstrom
    inside = halves.drawn.mask > 0.5
    both = torch.stack([ours[inside], theirs[inside]]).double()
    # Windows of two kinds, of 24 A and more in theirs, of two periods in ours.
    assert float(torch.corrcoef(both)[0, 1]) > 0.9
