"""The commands as a user types them, each in a process of its own or as good as."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cryoinfer import __version__
from cryoinfer.cli.app import app
from cryoinfer.data.particles import Particles

COMMANDS = (
    "demo",
    "simulate",
    "check",
    "abinitio",
    "refine",
    "reconstruct",
    "train",
    "infer",
    "dynamics",
    "beads",
    "modes",
    "evaluate",
    "fsc",
    "align",
    "convert",
    "flip",
    "selfcheck",
    "report",
)
SMALL = ["--n", "100", "--box", "16", "--pixel-size", "6.4"]


def cryoinfer(*words: object) -> Result:
    # Wide enough that no line of help is broken.
    environment = {"COLUMNS": "200", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets") / "sim"
    words = ["--snr-db", "10", "--defocus", "0.5", "1.5", "--shift", "3"]
    answer = cryoinfer(
        "simulate", "adenylate-kinase-open", *SMALL, *words, "--out", folder
    )
    assert answer.exit_code == 0, answer.output
    return folder


def test_help_needs_nothing_heavy() -> None:
    script = (
        "import sys\n"
        "from cryoinfer.cli.app import app\n"
        "try:\n"
        "    app(['--help'])\n"
        "except SystemExit:\n"
        "    heavy = {'torch', 'numba', 'matplotlib', 'pandas', 'scipy', 'numpy'}\n"
        "    print('heavy:', sorted(heavy & sys.modules.keys()))\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert "heavy: []" in answer.stdout


def test_threads_are_those_that_were_asked_for() -> None:
    # In a process of its own: the number is the process's.
    script = (
        "import numba, torch\n"
        "from cryoinfer.cli.threads import use_threads\n"
        "use_threads(1)\n"
        "print(numba.get_num_threads(), torch.get_num_threads())\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert answer.stdout == "1 1\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    answer = cryoinfer(command, "--help")
    assert answer.exit_code == 0
    assert f"cryoinfer {command}" in answer.output
    assert "Example" in answer.output


def test_commands_are_listed_and_the_version_is_told() -> None:
    listed = cryoinfer("--help").output
    assert all(command in listed for command in COMMANDS)
    assert cryoinfer("--version").output == f"cryoinfer {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["inform"],
        ["abinitio", "p.star"],
        ["abinitio", "p.star", "--out", "r", "--starts", "0"],
        ["simulate", "cryoposenet-a", "--noise", "pink", "--out", "r"],
    ],
)
def test_wrong_words_end_with_2(words: list[str]) -> None:
    answer = cryoinfer(*words)
    assert answer.exit_code == 2
    assert "Traceback" not in answer.output


def test_errors_are_one_line_on_stderr(tmp_path: Path) -> None:
    answer = cryoinfer("convert", tmp_path / "no.star", tmp_path / "out.cs")
    assert answer.exit_code == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith("Error: No such STAR file")
    assert answer.stderr.count("\n") == 1


def test_simulating(simulated: Path) -> None:
    names = {path.name for path in simulated.iterdir()}
    truth = {"truth.star", "truth.mrc", "truth.cif"}
    told = {"particles.star", "particles.mrcs", "simulation.json"}
    assert names == told | truth
    optics = Particles.load(simulated / "particles.star").optics
    # Micrometres on the command line, angstrom inside.
    assert 5000 <= float(optics.defocus_u_angstrom.min())
    assert float(optics.defocus_u_angstrom.max()) <= 15000
    again = cryoinfer("simulate", "adenylate-kinase-open", *SMALL, "--out", simulated)
    assert again.exit_code == 2
    assert "--overwrite" in again.stderr


def test_presets_and_no_noise(tmp_path: Path) -> None:
    words = [*SMALL, "--snr-db", "inf", "--out", tmp_path / "g"]
    assert cryoinfer("simulate", "cryoposenet-g", *words).exit_code == 0
    particles = Particles.load(tmp_path / "g" / "particles.star")
    assert particles.has_ctf
    assert len(particles) == 100


def test_what_was_half_simulated_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cryoinfer.data.simulate.write_map", fail)
    answer = cryoinfer("simulate", "cryoposenet-a", *SMALL, "--out", tmp_path / "s")
    assert answer.exit_code == 130
    assert not (tmp_path / "s").exists()


def test_checking(simulated: Path, tmp_path: Path) -> None:
    assert cryoinfer("check", simulated / "particles.star").exit_code == 0
    assert cryoinfer("check", tmp_path / "no.star").exit_code == 2


def test_converting_comparing_flipping(simulated: Path, tmp_path: Path) -> None:
    truth = simulated / "truth.mrc"
    assert (
        cryoinfer("convert", simulated / "truth.star", tmp_path / "t.cs").exit_code == 0
    )
    assert "12.80 A" in cryoinfer("fsc", truth, truth).stdout
    flip = cryoinfer("flip", truth, simulated / "truth.star", "--out", tmp_path / "f")
    assert flip.exit_code == 0
    assert {p.name for p in (tmp_path / "f").iterdir()} == {"map.mrc", "particles.star"}


def test_a_dry_run_writes_nothing(simulated: Path, tmp_path: Path) -> None:
    answer = cryoinfer(
        "abinitio", simulated / "particles.star", "--out", tmp_path / "r", "--dry-run"
    )
    assert answer.exit_code == 0, answer.stderr
    assert "100 of 16 px" in answer.stdout
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_the_whole_way(simulated: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    truth = simulated / "truth.star"
    answer = cryoinfer("reconstruct", truth, "--out", run, "--threads", "1")
    assert answer.exit_code == 0, answer.output
    answer = cryoinfer("evaluate", run, "--truth", simulated)
    assert answer.exit_code == 0, answer.output
    summary = json.loads((run / "evaluation.json").read_text())
    assert summary["hand"] == "same"
    # The poses are the true ones, written with six decimals of a degree.
    assert summary["hands"]["same"]["geodesic_degrees_p95"] < 1e-3
    assert cryoinfer("flip", run, "--out", tmp_path / "flipped").exit_code == 0
    assert cryoinfer("report", tmp_path / "flipped").exit_code == 0
    refined = tmp_path / "refined"
    words = ["--map", run / "map.mrc", "--threads", "1", "--out", refined]
    answer = cryoinfer("refine", simulated / "particles.star", *words)
    assert answer.exit_code == 0, answer.output
    assert json.loads((refined / "run.json").read_text())["status"] == "finished"
    encoder, words = tmp_path / "encoder", ["--side", "8", "--steps", "20"]
    answer = cryoinfer("train", refined, "--out", encoder, *words)
    assert answer.exit_code == 0, answer.output
    assert "Verdict" in answer.output
    assert "90 % sets hold" in answer.output
    assert "Are the uncertainties true?" in (encoder / "report.html").read_text()
    assert cryoinfer("report", encoder).exit_code == 0
    unseen = tmp_path / "unseen"
    answer = cryoinfer("infer", encoder, simulated / "particles.star", "--out", unseen)
    assert answer.exit_code == 0, answer.output
    assert json.loads((unseen / "run.json").read_text())["status"] == "finished"
    for name in ("map.mrc", "particles.star", "posteriors.npz", "report.html"):
        assert (unseen / name).exists()
    answer = cryoinfer("train", run, "--out", tmp_path / "never")
    assert answer.exit_code == 2
    assert "measured no noise" in answer.stderr


@pytest.mark.slow
def test_the_demo_finds_the_map(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    answer = cryoinfer("demo", "--out", out)
    assert answer.exit_code == 0, answer.output
    summary = json.loads((out / "run" / "evaluation.json").read_text())
    hand = summary["hands"][summary["hand"]]
    # At 0 dB the poses of such a set are known to a few degrees.
    assert hand["geodesic_degrees_median"] < 5.0
    assert "Against the truth" in (out / "run" / "report.html").read_text()


@pytest.mark.slow
def test_sigterm_leaves_a_run_that_can_be_resumed(tmp_path: Path) -> None:
    words = ["--n", "1000", "--box", "48", "--pixel-size", "2.2", "--snr-db", "0"]
    made = cryoinfer("simulate", "cryoposenet-g", *words, "--out", tmp_path / "sim")
    assert made.exit_code == 0, made.output
    run = tmp_path / "run"
    command = [sys.executable, "-m", "cryoinfer", "abinitio", "--out", str(run)]
    command += [str(tmp_path / "sim" / "particles.star"), "--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (run / "checkpoint.pt").exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "--resume goes on from its last checkpoint" in output
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    assert not (run / "map.mrc").exists()
    subprocess.run([*command, "--resume"], check=True, timeout=600)
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    assert not (run / "checkpoint.pt").exists()
