"""The demonstration, of a run that is not computed."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cryoinfer.cli import demo, runs
from cryoinfer.cli.app import app


def cryoinfer(*words: object) -> Result:
    environment = {"COLUMNS": "200", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


def test_the_exit_code_is_that_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "evaluate", lambda *_: None)
    for code in (0, 3):
        monkeypatch.setattr(demo, "run", lambda *_, code=code: code)
        found = cryoinfer("demo", "--n", 4, "--out", tmp_path / str(code))
        assert found.exit_code == code
        assert "Compare with the truth" in found.output


def test_an_interruption_names_what_the_command_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "abinitio", interrupted)
    found = cryoinfer("demo", "--n", 100, "--out", tmp_path / "demo")
    assert found.exit_code == 130
    assert "Begin the demonstration again with --overwrite." in found.output
    assert "--resume" not in found.output
    again = cryoinfer("demo", "--n", 100, "--out", tmp_path / "demo", "--overwrite")
    assert again.exit_code == 130
