"""RELION reads what `cryoinfer select` writes, and selects the same particles."""

from pathlib import Path

import pytest
import starfile
import torch
from rich.console import Console

from cryoinfer.cli.selection import SelectOptions, select_particles
from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig, simulate
from cryoinfer.interfaces import SilentMonitor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with particles that have results of this program."""
    folder = tmp_path_factory.mktemp("selection")
    config = SimulationConfig(
        n=60,
        box=16,
        pixel_size_angstrom=6.4,
        snr_db=0.0,
        defocus_range_angstrom=(6000.0, 15000.0),
        max_shift_angstrom=5.0,
        optics_groups=2,
        seed=3,
    )
    simulate(config, folder, SilentMonitor())
    truth = Particles.load(folder / "truth.star")
    written = truth.with_results(
        columns={"cryoinferOutlierScore": torch.linspace(0, 6, config.n)}
    )
    written.save(folder / "particles.star")
    return folder


def selected(folder: Path, where: str) -> Path:
    out = folder / "ours.star"
    options = SelectOptions(folder / "particles.star", out, where, overwrite=True)
    select_particles(options, Console(quiet=True))
    return out


def test_relion_selects_the_same_particles(folder: Path, relion) -> None:
    ours = selected(folder, "9000 <= rlnDefocusU <= 13000")
    bounds = ("--select", "rlnDefocusU", "--minval", "9000", "--maxval", "13000")
    relion(
        folder,
        "relion_star_handler",
        *("--i", "particles.star", "--o", "theirs.star", *bounds),
    )
    one, other = starfile.read(ours), starfile.read(folder / "theirs.star")
    assert 0 < len(one["particles"]) < 60
    name, group = "rlnImageName", "rlnOpticsGroup"
    for label in (name, group, "rlnDefocusU", "rlnAngleTilt"):
        assert list(one["particles"][label]) == list(other["particles"][label])


def test_relion_reads_every_row_and_writes_it_again(folder: Path, relion) -> None:
    ours = selected(folder, "outlier > 3")
    relion(
        folder,
        "relion_star_handler",
        *("--i", ours.name, "--o", "again.star", "--select", "rlnDefocusU"),
    )
    one, again = starfile.read(ours), starfile.read(folder / "again.star")
    # The second half of an even ramp from 0 to 6.
    assert len(one["particles"]) == 30
    assert len(one["optics"]) == len(again["optics"]) == 2
    assert list(one["particles"].rlnImageName) == list(again["particles"].rlnImageName)
    for label in ("rlnAngleRot", "rlnOriginXAngst"):
        # RELION writes seven characters or so of a number.
        numbers = again["particles"][label].to_numpy()
        assert one["particles"][label].to_numpy() == pytest.approx(numbers, abs=1e-5)


def test_relion_makes_a_map_of_a_selection(folder: Path, relion) -> None:
    ours = selected(folder, "outlier > 3 and rlnOpticsGroup == 2")
    said = relion(
        folder,
        "relion_reconstruct",
        *("--i", ours.name, "--ctf", "--o", "map.mrc"),
    )
    assert (folder / "map.mrc").is_file(), said
