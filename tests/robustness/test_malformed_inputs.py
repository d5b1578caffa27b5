"""No malformed input is a fault of the program, leaves half a file, or is harmed."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from robustness.cases import Case, all_cases, is_quick, names_something
from robustness.conftest import cryoinfer

CASES = all_cases()
_QUICK = 120


def cases() -> list:
    """Return all of them, most of them slow."""
    return [
        pytest.param(
            case,
            id=str(case),
            marks=() if is_quick(i, len(CASES), _QUICK) else pytest.mark.slow,
        )
        for i, case in enumerate(CASES)
    ]


def state(folder: Path) -> dict[str, str]:
    """Return what there is in a folder, files by what they hold."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_file():
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def test_there_are_enough_of_them() -> None:
    assert len(CASES) >= 400
    assert len({case.words[0] for case in CASES}) >= 12


@pytest.mark.parametrize("case", cases())
def test_malformed(case: Case, inputs: Path, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "in"
    shutil.copytree(inputs, folder, symlinks=True)
    if case.spoil is not None:
        case.spoil(folder / case.file)
    monkeypatch.chdir(folder)
    before = state(folder)
    answer = cryoinfer(*case.words)
    after = state(folder)

    # The right answer or one message that names something: nothing else.
    assert answer.exit_code in (0, 2, 3) or (case.words[0], answer.exit_code) == (
        "check",
        1,
    )
    assert "Traceback" not in answer.output
    assert "fault of the program" not in answer.output
    if case.must_refuse:
        assert answer.exit_code == 2
    refused = answer.exit_code == 2
    if refused and case.words[0] != "check":
        assert answer.stderr.count("Error") == 1, answer.output
        assert len(answer.stderr) < 2000
        assert names_something(answer.stderr, case, folder), answer.stderr

    # Inputs are what they were; a report and an evaluation are written into the run.
    own = (
        ("run/report.html", "run/evaluation") if case.words[0] in _INTO_THE_RUN else ()
    )
    changed = {
        n for n in before if after.get(n) != before[n] and not n.startswith(own or "\0")
    }
    assert not changed, changed
    # And nothing is half written: neither under a temporary name nor its own.
    new = [name for name in after if name not in before]
    assert not [name for name in new if ".partial-" in name]
    if refused:
        assert {Path(name).name for name in new} <= {"run.json", "log.txt"}, new


_INTO_THE_RUN = ("report", "evaluate")
