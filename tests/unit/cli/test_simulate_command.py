"""Options of `simulate` that say in what particles differ."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cryoinfer.cli.app import app
from cryoinfer.io.conventions.relion import RelionParticles

SMALL = ("--n", "20", "--box", "32", "--pixel-size", "4")

COUNTED = ("--detector", "counting", "--dose-per-square-angstrom", "20")


def simulate(out: Path, *words: str) -> Result:
    command = ["simulate", "adenylate-kinase-open", *SMALL, *words, "--out", str(out)]
    return CliRunner().invoke(app, command)


@pytest.mark.parametrize(
    ("words", "columns", "classes"),
    [
        (("--also", "adenylate-kinase-closed", "--population", "0.5,0.5"), (), 2),
        (("--without", "A:122-159", "--without", "A:30-67"), (), 3),
        (
            ("--to", "adenylate-kinase-closed", "--along", "N(0,0.1)+N(1,0.1)"),
            ("cryoinferPath",),
            2,
        ),
        (
            ("--turn", "A:122-159 about A:121 A:160 by 30", "--junk", "ice:0.4"),
            ("cryoinferTurnDegrees", "cryoinferJunk"),
            0,
        ),
    ],
)
def test_the_truth_says_in_what_particles_differ(
    tmp_path: Path, words: tuple[str, ...], columns: tuple[str, ...], classes: int
) -> None:
    answer = simulate(tmp_path / "set", *words)
    assert answer.exit_code == 0, answer.output
    truth = RelionParticles.read(tmp_path / "set" / "truth.star").table()
    assert tuple(truth.results) == columns
    assert (truth.class_number is None) == (classes == 0)
    if truth.class_number is not None:
        assert int(truth.class_number.max()) == classes


def test_the_signal_to_noise_of_counts_is_told(tmp_path: Path) -> None:
    words = (*COUNTED, "--mtf", "0.5", "--defocus", "1", "2")
    answer = simulate(tmp_path / "set", *words)
    assert answer.exit_code == 0, answer.output
    assert "Signal to noise of the counts: -" in answer.output
    assert (tmp_path / "set" / "simulation.json").exists()


def test_maps_of_an_earlier_set_go_with_it(tmp_path: Path) -> None:
    out = tmp_path / "set"
    simulate(out, "--without", "A:122-159")
    assert (out / "truth_class_2.mrc").exists()
    assert simulate(out, "--overwrite").exit_code == 0
    assert not (out / "truth_class_2.mrc").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--population", "a,b"), "expected populations such as 0.7,0.3"),
        (("--population", "0.5,0.5"), "--population goes with --also or --without"),
        (("--without", "chain Q"), "has no chain Q: its chains are A (1-214)"),
        (("--junk", "1.5"), "a share of all images above 0 and below 1"),
        (("--along", "U(0,1)"), "--along goes with --trajectory, --to or --turn"),
        (("--turn", "A:1-9"), "expected a turn such as"),
        (("--to", "adenylate-kinase-d2"), "two models of the same atoms"),
        (("--model", "multislice"), "needs a CTF, found none"),
        (
            ("--model", "multislice", "--defocus", "1", "2", "--junk", "0.1"),
            "--model multislice does not go with --junk",
        ),
        (("--mtf", "0.5"), "--mtf goes with --detector counting"),
        (
            ("--dose-per-square-angstrom", "20"),
            "--dose-per-square-angstrom goes with --detector counting",
        ),
        (("--detector", "counting"), "needs --dose-per-square-angstrom"),
        ((*COUNTED,), "needs a CTF, found none"),
        (
            (*COUNTED, "--defocus", "1", "2", "--snr-db", "0"),
            "--detector counting does not go with --snr-db",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    answer = simulate(tmp_path / "set", *words)
    assert answer.exit_code == 2, answer.output
    assert said in " ".join(answer.stderr.split())
    assert answer.stderr.count("Error") == 1
    assert not (tmp_path / "set").exists()
