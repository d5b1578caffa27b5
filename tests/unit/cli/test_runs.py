import io
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from rich.console import Console

from cryoinfer.cli import map_files, plan, runs
from cryoinfer.cli.beads import BeadsOptions, write_beads
from cryoinfer.cli.guard import LoggedError
from cryoinfer.cli.half_maps import CompareOptions, compare
from cryoinfer.cli.nothing_found import inherited
from cryoinfer.cli.options import RunOptions
from cryoinfer.cli.particle_files import convert
from cryoinfer.cli.particle_options import AS_WRITTEN
from cryoinfer.cli.report_page import read_content
from cryoinfer.cli.threads import use_threads
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, OutputError
from cryoinfer.interfaces import Monitor
from cryoinfer.io.mrc import read_map, write_map
from cryoinfer.results.run_record import RunRecord, require_finished
from cryoinfer.results.run_result import Evidence, Reconstruction, RunResult
from cryoinfer.workflows.refine import StartingMap

FILES = {
    "particles.star",
    "posteriors.npz",
    "noise.star",
    "fsc.star",
    "map.mrc",
    "half1.mrc",
    "half2.mrc",
    "mask.mrc",
    "run.json",
    "log.txt",
    "report.html",
    "gallery.npz",
}


def shown(screen: Console) -> str:
    assert isinstance(screen.file, io.StringIO)
    return screen.file.getvalue()


def test_a_run_leaves_everything_and_says_where(
    finished: Path, screen: Console, result: RunResult
) -> None:
    assert {path.name for path in finished.iterdir()} == FILES
    record = require_finished(finished)
    assert record.results["resolution_angstrom"] == 14.0
    assert record.seed == 0
    assert record.arguments["symmetry"] == "C1"
    assert record.stage_seconds.keys() == {"search"}
    text = shown(screen)
    assert "Resolution  14.00 A" in text
    assert str(finished / "report.html") in text
    assert "hand of the map is not known" in text
    assert "hand of the map is not known" in (finished / "log.txt").read_text()
    density = torch.tensor(read_map(finished / "map.mrc").density)
    assert torch.equal(density, result.reconstruction.density)


def fsc_of(run: Path, folder: Path) -> str:
    screen = Console(file=io.StringIO(), width=200)
    compare(CompareOptions(run / "half1.mrc", run / "half2.mrc"), screen)
    return shown(screen)


def beads_of(run: Path, folder: Path) -> str:
    screen = Console(file=io.StringIO(), width=200)
    out = folder / "beads.cif"
    write_beads(
        BeadsOptions(run / "map.mrc", out, 20, None, None, 0, overwrite=False), screen
    )
    return shown(screen)


def converted(run: Path, folder: Path) -> str:
    screen = Console(file=io.StringIO(), width=200)
    convert(
        run / "particles.star",
        folder / "particles.cs",
        screen,
        reading=AS_WRITTEN,
        overwrite=False,
    )
    return shown(screen)


def test_whether_there_is_a_structure_was_not_asked_of_few_images(
    finished: Path,
) -> None:
    # A result without evidence, as of fewer images than it takes.
    found = require_finished(finished).results
    assert "structure_found" not in found
    assert any(
        "was not tested, since fewer than 20" in one for one in found["cautions"]
    )
    assert "was not tested" in (finished / "report.html").read_text()


def test_a_run_that_found_nothing_says_so_everywhere(
    options: RunOptions,
    result: RunResult,
    screen: Console,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evidence = Evidence(120, 0.02, 0.01, 0.01, 0.3)
    maps = replace(
        result.reconstruction, evidence=evidence, shared_resolution_angstrom=13.0
    )
    nothing = replace(result, reconstruction=maps)
    monkeypatch.setattr(runs, "abinitio", lambda *_: nothing)
    assert runs.run(options, screen) == 3
    found = require_finished(options.out).results
    assert found["structure_found"] is False
    assert found["resolution_angstrom"] is None
    assert found["evidence"]["gain_nats"] == 0.02
    page = (options.out / "report.html").read_text()
    log = (options.out / "log.txt").read_text()
    for text in (shown(screen), page, log, " ".join(found["cautions"])):
        assert "No structure was found" in text
        assert "14.00 " not in text
    assert "Resolution  none" in shown(screen)
    assert 'class="good"' not in page
    assert "alpha helix" not in page + shown(screen)
    # So says the same command when it is asked again, and whatever follows.
    again = Console(file=io.StringIO(), width=200)
    assert runs.run(replace(options, resume=True), again) == 3
    assert "No structure was found" in shown(again)
    monkeypatch.setattr(runs, "refine", lambda *_: result)
    start = options.out / "map.mrc"
    after = replace(options, workflow="refine", map=start, out=tmp_path / "after")
    assert runs.run(after, again) == 0
    assert f"The run in {options.out} found no structure" in shown(again)
    assert inherited(after.out / "map.mrc") == inherited(start)
    assert "found no structure" in (after.out / "report.html").read_text()
    # But not what is searched for anew, in the same images.
    anew = replace(
        after, map=None, workflow="abinitio", particles=options.out / "particles.star"
    )
    anew = replace(anew, out=tmp_path / "anew")
    monkeypatch.setattr(runs, "abinitio", lambda *_: result)
    fresh = Console(file=io.StringIO(), width=200)
    runs.run(anew, fresh)
    assert "found no structure" not in shown(fresh)
    said = "found no structure"
    for told in (fsc_of, beads_of, converted):
        assert said in told(options.out, tmp_path), told
    flipped = Console(file=io.StringIO(), width=200)
    map_files.flip(map_files.FlipOptions(options.out, tmp_path / "flipped"), flipped)
    assert "No structure was found" in shown(flipped)


def test_the_report_is_made_from_the_folder(finished: Path, result: RunResult) -> None:
    content = read_content(finished)
    variance = result.inferred.covariance[:, 0].diagonal(dim1=1, dim2=2)
    # Kept in single precision.
    torch.testing.assert_close(content.variance, variance.float(), rtol=0, atol=0)
    torch.testing.assert_close(
        content.fsc, result.reconstruction.fsc, rtol=0, atol=1e-6
    )
    assert content.iterations == result.iterations
    assert content.noise_spectrum is not None
    assert content.arguments["--seed"] == "0"
    assert "--map" not in content.arguments
    assert "<svg" in (finished / "report.html").read_text()


def test_a_report_of_files_that_do_not_belong_together_is_refused(
    finished: Path,
) -> None:
    record = RunRecord.read(finished)
    replace(record, results={}).write(finished)
    with pytest.raises(InputError, match="being written"):
        read_content(finished)
    # Posteriors are written before the particles.
    record.write(finished)
    found = Particles.load(finished / "particles.star")
    replace(record, results=record.results | {"left_out": {}}).write(finished)
    flags = found.with_results(columns={"cryoinferFlag": np.zeros(len(found))})
    flags.select(torch.arange(100)).save(finished / "particles.star")
    with pytest.raises(InputError, match="being written"):
        read_content(finished)


def test_a_second_run_is_refused_before_any_work(
    finished: Path, options: RunOptions, screen: Console
) -> None:
    before = (finished / "run.json").read_bytes()
    with pytest.raises(OutputError, match="--overwrite"):
        runs.run(options, screen)
    assert (finished / "run.json").read_bytes() == before
    runs.run(replace(options, resume=True), screen)
    assert "nothing to do" in shown(screen)
    with pytest.raises(OutputError, match="symmetry"):
        runs.run(replace(options, resume=True, symmetry="C2"), screen)
    runs.run(replace(options, overwrite=True, symmetry="C2"), screen)
    assert require_finished(finished).arguments["symmetry"] == "C2"


def test_an_interrupted_run_is_resumed_from_its_checkpoint(
    options: RunOptions, workflow, screen: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: Any) -> None:
        monitor: Monitor = given[2]
        monitor.stage("search", 2)
        monitor.save_checkpoint({"step": 1})
        raise KeyboardInterrupt

    seen = []

    def resumed(*given: Any) -> RunResult:
        seen.append(given[2].load_checkpoint())
        result: RunResult = workflow(*given)
        return result

    monkeypatch.setattr(runs, "abinitio", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runs.run(options, screen)
    assert RunRecord.read(options.out).status == "interrupted"
    assert "--resume goes on from its last checkpoint" in shown(screen)
    assert not (options.out / "map.mrc").exists()
    monkeypatch.setattr(runs, "abinitio", resumed)
    runs.run(replace(options, resume=True), screen)
    assert seen == [{"step": 1}]
    assert {path.name for path in options.out.iterdir()} == FILES


def test_a_fault_is_logged(
    options: RunOptions, screen: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "abinitio", lambda *_: 1 / 0)
    with pytest.raises(LoggedError):
        runs.run(options, screen)
    assert RunRecord.read(options.out).status == "failed"
    assert "ZeroDivisionError" in (options.out / "log.txt").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symmetry": "X3"}, "symmetry 'X3' is not known"),
        ({"particle_diameter": 500.0}, "--particle-diameter must lie between"),
        ({"resolution": 3.0}, "--resolution must lie between"),
        ({"max_shift": 60.0}, "--max-shift must lie between"),
        ({"workflow": "reconstruct"}, "no poses"),
        ({"workflow": "refine"}, "no map to find them"),
    ],
)
def test_bad_requests_leave_nothing(
    options: RunOptions, screen: Console, change: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        runs.run(replace(options, **change), screen)
    assert not options.out.exists()


def test_a_refinement_gets_the_map_with_its_own_sampling(
    options: RunOptions,
    workflow,
    screen: Console,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "start.mrc"
    density = torch.randn(20, 20, 20, generator=torch.Generator().manual_seed(4))
    write_map(path, density, 5.0)
    seen = []

    def refined(particles: Particles, start: StartingMap, *others: object) -> RunResult:
        seen.append(start)
        result: RunResult = workflow(particles, *others)
        return result

    monkeypatch.setattr(runs, "refine", refined)
    runs.run(replace(options, workflow="refine", map=path), screen)
    assert torch.equal(seen[0].density, density)
    assert seen[0].pixel_size_angstrom == pytest.approx(5.0)
    # Another map at the same place is not the one that the run began with.
    write_map(path, density + 1, 5.0)
    record = RunRecord.read(options.out)
    replace(record, status="interrupted").write(options.out)
    with pytest.raises(OutputError, match=r"\(map\) has changed"):
        runs.run(replace(options, workflow="refine", map=path, resume=True), screen)


def test_a_full_disk_is_noticed_before(
    options: RunOptions, screen: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "free_bytes", lambda folder: 1000)
    with pytest.raises(OutputError, match="Free some space"):
        runs.run(options, screen)
    assert not options.out.exists()


def test_a_dry_run_tells_and_writes_nothing(
    options: RunOptions, screen: Console
) -> None:
    runs.run(replace(options, dry_run=True), screen)
    text = shown(screen)
    for word in (
        "120 of 16 px",
        "with CTF",
        "1 optics group",
        "Memory",
        "Disk",
        "Time",
    ):
        assert word in text
    assert not options.out.exists()


def test_reconstructing_writes_maps_and_particles(
    options: RunOptions,
    simulated: Path,
    reconstruction: Reconstruction,
    screen: Console,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runs, "reconstruct", lambda *_: reconstruction)
    truth = simulated / "truth.star"
    runs.run(replace(options, workflow="reconstruct", particles=truth), screen)
    names = {path.name for path in options.out.iterdir()}
    assert names == FILES - {"posteriors.npz", "noise.star"}


def test_threads_are_set_everywhere() -> None:
    before = torch.get_num_threads(), numba.get_num_threads()
    try:
        assert use_threads(1) == 1
        assert (torch.get_num_threads(), numba.get_num_threads()) == (1, 1)
        assert use_threads(None) == len(os.sched_getaffinity(0))
    finally:
        torch.set_num_threads(before[0])
        numba.set_num_threads(before[1])


@pytest.mark.parametrize("read", ["particles", "map"])
def test_nothing_is_written_where_the_inputs_are(
    options: RunOptions,
    workflow,
    screen: Console,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read: str,
) -> None:
    monkeypatch.setattr(runs, "refine", workflow)
    density = tmp_path / "own" / "map.mrc"
    density.parent.mkdir()
    write_map(density, np.zeros((32, 32, 32), np.float32), 3.2)
    out = density.parent if read == "map" else options.particles.parent
    here = replace(options, workflow="refine", map=density, out=out, overwrite=True)
    before = options.particles.read_bytes()
    with pytest.raises(OutputError, match="holds what is read"):
        runs.run(here, screen)
    assert options.particles.read_bytes() == before
    assert density.exists()


@pytest.mark.parametrize("dry_run", [True, False])
def test_too_few_particles_are_refused_before_anything_is_written(
    options: RunOptions,
    simulated: Path,
    screen: Console,
    dry_run: bool,
) -> None:
    path = simulated / "few.star"
    particles = Particles.load(simulated / "particles.star")
    particles.select(torch.arange(len(particles)) < 30).save(path)
    with pytest.raises(InputError, match="at least 100 particles, found 30"):
        runs.run(replace(options, particles=path, dry_run=dry_run), screen)
    assert not options.out.exists()


def test_the_voxel_size_of_no_map_is_refused(
    options: RunOptions, simulated: Path, screen: Console
) -> None:
    particles = simulated / "truth.star"
    asked = replace(options, workflow="refine", particles=particles, map_pixel_size=2.0)
    with pytest.raises(InputError, match="--map-pixel-size goes with --map"):
        runs.run(asked, screen)
    assert not options.out.exists()
