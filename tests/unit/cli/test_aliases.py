"""Options by names that users of other programs have in their fingers."""

from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from cryoinfer.cli.aliases import ALIASES, in_own_words
from cryoinfer.cli.app import app

COMMANDS: Any = typer.main.get_command(app).commands  # type: ignore[attr-defined]

WITHOUT_THREADS = {
    "convert": "it copies tables",
    "flip": "it copies maps",
    "fsc": "two transforms",
    "local-resolution": "some hundred transforms",
    "mask": "a threshold and distances",
    "postprocess": "ten transforms",
    "report": "it draws",
    "select": "it copies tables",
}


def names_of(command: str) -> set[str]:
    return {name for one in COMMANDS[command].params for name in one.opts}


def own(command: str, words: str) -> str:
    return " ".join(in_own_words(COMMANDS[command], words.split()))


@pytest.mark.parametrize(
    ("command", "words", "meant"),
    [
        (
            "abinitio",
            "--i a.star --o run --sym D2 --j 4 --angpix 1.2 --particle_diameter 120",
            "a.star --out run --symmetry D2 --threads 4 --pixel-size 1.2 "
            "--particle-diameter 120",
        ),
        ("refine", "--i=a.star --ref=map.mrc", "a.star --map=map.mrc"),
        ("refine", "a.star --refine-defocus", "a.star --defocus-error 300"),
        ("check", "a.star --kV 300 --Cs 2.7 --Q0 0.1 --random_seed 1", None),
        (
            "infer",
            "enc a.star --outdir run --datadir d",
            "enc a.star --out run --datadir d",
        ),
        # Of two inputs nobody knows which is meant.
        ("infer", "--i enc a.star", "--i enc a.star"),
        ("fsc", "a.mrc b.mrc --angpix 1.5", "a.mrc b.mrc --pixel-size 1.5"),
        ("beads", "a.mrc --Apix 1.5", "a.mrc --pixel-size 1.5"),
        ("postprocess", "run --adhoc_bfac -80", "run --bfactor -80"),
        ("mask", "--i a.mrc --ini_threshold 0.1", "a.mrc --threshold 0.1"),
        ("simulate", "x --shift 3", "x --max-shift 3"),
        ("dynamics", "a.star --shift 3", "a.star --shift-sd 3"),
        # What comes after the end of options is a name.
        ("check", "-- --i", "-- --i"),
        ("report", "run --sym C2", "run --sym C2"),
    ],
)
def test_names_of_others_are_understood(command: str, words: str, meant) -> None:
    if meant is None:  # check is given no seed
        meant = "a.star --voltage 300 --cs 2.7 --amplitude-contrast 0.1 --random_seed 1"
    assert own(command, words) == meant


def test_every_alias_leads_to_an_option_and_hides_none() -> None:
    everything = set.union(*map(names_of, COMMANDS))
    for alias, (_, meant) in ALIASES.items():
        assert alias not in everything, "it is an option's own name"
        for words in meant:
            assert words[0] in everything, words


def test_a_command_line_of_relion_is_parsed(tmp_path: Path) -> None:
    star = tmp_path / "a.star"
    star.touch()
    words = f"--i {star} --o run --sym D2 --j 4 --angpix 1.2 --random_seed 3".split()
    command = COMMANDS["abinitio"]
    found = command.make_context("abinitio", in_own_words(command, words)).params
    assert (found["particles"], found["out"]) == (star, Path("run"))
    assert (found["symmetry"], found["threads"], found["seed"]) == ("D2", 4, 3)
    assert found["pixel_size"] == 1.2


def test_help_has_one_name_for_each() -> None:
    for name in ("abinitio", "simulate", "dynamics", "train"):
        answer = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"})
        words = answer.output.split()
        assert not ALIASES.keys() & set(words), name


def test_work_that_takes_long_takes_a_number_of_threads() -> None:
    with_threads = {name for name in COMMANDS if "--threads" in names_of(name)}
    assert with_threads == COMMANDS.keys() - WITHOUT_THREADS
    assert all("-j" in names_of(name) for name in with_threads)


def test_what_takes_long_can_be_tried_without_writing() -> None:
    long = {"abinitio", "refine", "reconstruct", "train", "infer", "dynamics"}
    long |= {"heterogeneity", "prepare"}
    assert {name for name in COMMANDS if "--dry-run" in names_of(name)} == long
