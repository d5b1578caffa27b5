"""What a process that was killed has left, and names of what cannot be written."""

import errno
import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from cryoinfer.cli import simulation
from cryoinfer.data import simulation_rules
from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.errors import OutputError
from cryoinfer.io.replacing import clear_partials, replace_file

FEW = SimulationConfig(n=4, box=16, pixel_size_angstrom=6.4, snr_db=None)


@pytest.fixture
def screen() -> Console:
    return Console(file=io.StringIO(), width=200)


@pytest.fixture
def killed(tmp_path: Path) -> Path:
    """Return the folder of a simulation that was killed before its end."""
    part = tmp_path / "set" / ".partial-simulation"
    part.mkdir(parents=True)
    (part / "particles.star").write_text("half of it")
    return tmp_path / "set"


def test_a_simulation_that_was_killed_can_be_repeated(
    killed: Path, screen: Console
) -> None:
    path = simulation.simulate(FEW, killed, overwrite=False, console=screen)
    assert path == killed / "particles.star"
    assert "half of it" not in path.read_text()
    assert {one.name for one in killed.iterdir()} == {
        *("particles.star", "particles.mrcs", "truth.star", "truth.mrc", "truth.cif"),
        "simulation.json",
    }


def test_folders_and_links_that_were_left_are_removed(killed: Path) -> None:
    kept = killed / "kept"
    kept.mkdir()
    (killed / ".partial-link").symlink_to(kept)
    (killed / ".partial-map.mrc").write_text("half of it")
    clear_partials(killed)
    assert list(killed.iterdir()) == [kept]


@pytest.mark.parametrize("full", ["at once", "midway"])
def test_a_full_disk_is_told_by_the_name_that_was_given(
    tmp_path: Path, screen: Console, monkeypatch: pytest.MonkeyPatch, full: str
) -> None:
    if full == "at once":
        monkeypatch.setattr(simulation_rules, "_SPARE_DISK", 1e20)
    else:

        def refuse(path: Path, *_: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

        monkeypatch.setattr("cryoinfer.data.simulate.write_map", refuse)
    with pytest.raises((OutputError, OSError)) as caught:
        simulation.simulate(FEW, tmp_path / "set", overwrite=False, console=screen)
    assert str(tmp_path / "set") in str(caught.value)
    assert ".partial" not in str(caught.value)
    assert not (tmp_path / "set").exists()


def test_a_writer_that_refuses_names_the_file(tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        raise OutputError(f"Cannot write {path}: no space left.")

    with pytest.raises(OutputError) as caught:
        replace_file(tmp_path / "map.mrc", refuse)
    assert str(caught.value) == f"Cannot write {tmp_path / 'map.mrc'}: no space left."


def test_a_file_is_no_folder_to_simulate_into(tmp_path: Path, screen: Console) -> None:
    (tmp_path / "set").touch()
    with pytest.raises(OutputError, match="is a file: give another output folder"):
        simulation.simulate(FEW, tmp_path / "set", overwrite=True, console=screen)
