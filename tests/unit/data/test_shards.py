"""Folders of prepared particles that are not whole, or not what they seem."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cryoinfer.data.check import check
from cryoinfer.data.particles import Particles
from cryoinfer.data.shard_plan import PreparationConfig, plan_shards
from cryoinfer.data.shard_writing import write_shards
from cryoinfer.data.shards import INDEX, ShardIndex, particle_file_of
from cryoinfer.errors import InputError
from cryoinfer.interfaces import SILENT
from cryoinfer.io.mrc import StackWriter

SHARD = "images_0001.mrcs"


def make(folder: Path, seed: int = 0) -> Path:
    """Return a folder of prepared noise."""
    images = torch.randn(5, 12, 12, generator=torch.Generator().manual_seed(seed))
    raw = folder.with_suffix(".mrcs")
    with StackWriter(raw, 5, 12, 2.0) as writer:
        writer.write(images)
    particles, config = Particles.load(raw), PreparationConfig()
    source = {"path": str(raw), "reading": {}, "seed": seed}
    index = ShardIndex(source, config.settings(), "particles.star", 5)
    folder.mkdir()
    write_shards(particles, plan_shards(particles, config), folder, index, 1, SILENT)
    return folder


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return make(tmp_path / "prepared")


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((folder / INDEX).read_text())
    change(values)
    (folder / INDEX).write_text(json.dumps(values))


def test_a_folder_stands_for_its_particles(prepared: Path, tmp_path: Path) -> None:
    star = prepared / "particles.star"
    assert particle_file_of(prepared) == particle_file_of(star) == star
    found = Particles.load(prepared).images(torch.arange(5))
    assert torch.equal(found, Particles.load(star).images(torch.arange(5)))
    # Elsewhere nothing is looked into.
    for other in (tmp_path, tmp_path / "none.star", prepared / "other.star"):
        assert particle_file_of(other) == other
    assert all(one.severity != "error" for one in check(prepared))


def cut(folder: Path) -> None:
    path = folder / SHARD
    path.write_bytes(path.read_bytes()[:-2])


def exchange(folder: Path) -> None:
    other = make(folder.with_name("other"), seed=1)
    shutil.copy(other / SHARD, folder / SHARD)


def unlabel(folder: Path) -> None:
    path = folder / SHARD
    content = bytearray(path.read_bytes())
    content[304:384] = bytes(80)
    path.write_bytes(content)


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda p: (p / SHARD).unlink(), "images_0001.mrcs is missing"),
    "a folder": (
        lambda p: ((p / SHARD).unlink(), (p / SHARD).mkdir()),
        "images_0001.mrcs is missing",
    ),
    "cut off": (cut, "has 2,462 bytes: expected the 2,464"),
    "of another stack": (exchange, "is a shard of other particles than"),
    "without a label": (unlabel, "is a shard of other particles than"),
    "unfinished": (
        lambda p: edit(p, lambda v: v.update(finished=False)),
        "not all prepared. Finish it first",
    ),
    "of a later version": (
        lambda p: edit(p, lambda v: v.update(format=2)),
        "is of a later version of cryoinfer",
    ),
    "no index": (lambda p: (p / INDEX).write_text("[]"), "missing or damaged"),
    "no text": (lambda p: (p / INDEX).write_bytes(b"\xff"), "missing or damaged"),
    "half an index": (
        lambda p: edit(p, lambda v: v.pop("shards")),
        "missing or damaged",
    ),
    "no particles": (
        lambda p: edit(p, lambda v: v.update(particles="../x.star")),
        "missing or damaged",
    ),
    "no source": (lambda p: edit(p, lambda v: v.update(source={})), "or damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_whole_is_refused(prepared: Path, damage: str) -> None:
    do, message = DAMAGES[damage]
    do(prepared)
    for path in (prepared, prepared / "particles.star"):
        with pytest.raises(InputError, match=message):
            Particles.load(path)
        (finding,) = [one for one in check(path) if one.severity == "error"][:1]
        assert message in finding.message


def test_particles_elsewhere_know_whose_shards_they_name(
    prepared: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    Particles.load(prepared).save(run / "particles.star")
    assert len(Particles.load(run / "particles.star")) == 5
    exchange(prepared)
    with pytest.raises(InputError, match="is a shard of other particles"):
        Particles.load(run / "particles.star")


def test_a_folder_may_be_moved(prepared: Path, tmp_path: Path) -> None:
    before = Particles.load(prepared).images(torch.arange(5))
    shutil.move(prepared, tmp_path / "elsewhere")
    found = Particles.load(tmp_path / "elsewhere").images(torch.arange(5))
    assert torch.equal(found, before)


def test_pixels_that_have_changed_are_found_by_a_check(prepared: Path) -> None:
    path = prepared / SHARD
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)
    assert len(Particles.load(prepared)) == 5  # which reads no pixels
    (finding,) = [one for one in check(prepared) if one.severity == "error"]
    assert "is damaged: its pixels are not those" in finding.message


def test_an_index_is_read_as_it_was_written(prepared: Path, tmp_path: Path) -> None:
    index = ShardIndex.read(prepared)
    index.write(tmp_path)
    assert ShardIndex.read(tmp_path) == index
    assert index.shards[0].bytes == (prepared / SHARD).stat().st_size
    assert index.is_whole(index.shards[0], prepared)
    cut(prepared)
    assert not index.is_whole(index.shards[0], prepared)
