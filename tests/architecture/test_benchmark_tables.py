"""Tables of the measurements are those of the rows that are kept, and none is typed.

The script runs in a process of its own: its modules are found beside it, in no package.
"""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cryoinfer.cli.options import AbinitioMethod, PublishedHead, RunOptions
from cryoinfer.cli.published_method import published_cautions

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "benchmarks" / "README.md"


def check(*documents: Path) -> "subprocess.CompletedProcess[str]":
    script = ROOT / "benchmarks" / "tables.py"
    command = [sys.executable, script, "--check", *documents]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return what is said of README.md, and of a copy with one other figure in it."""
    text = DOCUMENT.read_text()
    begin = text.index("| --- |")
    at = next(k for k in range(begin, len(text)) if text[k].isdigit())
    other = tmp_path_factory.mktemp("tables") / "other.md"
    other.write_text(f"{text[:at]}{9 - int(text[at])}{text[at + 1 :]}")
    return check(DOCUMENT, other).stdout


def test_tables_are_those_of_the_rows(answer: str) -> None:
    assert str(DOCUMENT) not in answer, "run python benchmarks/tables.py"


def test_canary_other_figure(answer: str) -> None:
    assert "differs from the rows" in answer
    assert "other.md" in answer


def test_canary_typed_table(tmp_path: Path) -> None:
    document = tmp_path / "typed.md"
    document.write_text("# Title\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n")
    answer = check(document)
    assert answer.returncode == 1
    assert "a table typed by hand: | a | b |" in answer.stderr


def published(head: PublishedHead | None) -> RunOptions:
    here = Path("none")
    return RunOptions("abinitio", here, here, method="cryoposenet", head=head)


def test_what_is_said_of_cryoposenet_is_what_was_measured() -> None:
    rows = (ROOT / "benchmarks" / "results" / "cryoposenet.jsonl").read_text()
    heads = ("s2s2", "quaternion", "euler")
    converged: dict[str, list[bool]] = {
        "encoders": [],
        "ad": [],
        "tomo": [],
        "noise": [],
    }
    for row in map(json.loads, rows.splitlines()):
        kind = "encoders" if row["method"] in heads else row["method"]
        converged[kind if row["set"] == "A" else "noise"].append(row["converged"])
    assert not any(converged["noise"])
    said = {kind: f"{sum(all)} of {len(all)} runs" for kind, all in converged.items()}
    assert said["tomo"] == "10 of 10 runs"
    (option,) = AbinitioMethod.__metadata__
    (of_encoders,) = published_cautions(published("s2s2"))
    page = (ROOT / "docs" / "choosing-an-inference.md").read_text()
    for text in (option.help, of_encoders, page):
        assert said["encoders"] in text
    (of_free,) = published_cautions(published("free"))
    assert said["ad"] in of_free
    assert not published_cautions(published("known"))
    assert not published_cautions(replace(published(None), method="search"))


def test_rows_name_day_and_machine() -> None:
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            assert {"date", "machine"} <= json.loads(line).keys(), path.name
