"""What the documents show is run: python blocks as they stand, commands as spelled.

The python blocks of one document run in order in one namespace, as a reader would
type them, in an empty folder.
"""

import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for folder in (".", "docs", "docs/development", "benchmarks")
    for path in (ROOT / folder).glob("*.md")
)


def spell(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and how many lines stand before it."""

    language: str
    text: str
    lines_before: int


def blocks(text: str, language: str) -> Iterator[Block]:
    for match in FENCE.finditer(text):
        if match[1] == language:
            yield Block(language, match[2], text[: match.start(2)].count("\n"))


def run_python(path: Path) -> None:
    """Run the blocks; a traceback then points at the document's own line."""
    namespace: dict[str, object] = {"__name__": path.stem}
    for block in blocks(path.read_text(), "python"):
        code = "\n" * block.lines_before + block.text
        exec(compile(code, str(path), "exec"), namespace)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words after ``cryoinfer`` of every command line that is shown."""
    for block in blocks(text, "console"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and Path(words[0]).name == "cryoinfer":
                yield words[1:]


def unknown_words(app: typer.Typer, words: list[str]) -> list[str]:
    """Return the subcommand or the options of a command line that do not exist."""
    name = words[:1] if words and not words[0].startswith("-") else []
    # Wide enough that no option name is broken off at the edge of the help text.
    answer = CliRunner().invoke(app, [*name, "--help"], env={"COLUMNS": "300"})
    if answer.exit_code != 0:
        return name
    known = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", answer.output))
    given = (word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word))
    return [option for option in given if option not in known]


@pytest.mark.parametrize("path", DOCUMENTS, ids=spell)
def test_python_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_python(path)


@pytest.mark.parametrize("path", DOCUMENTS, ids=spell)
def test_commands_exist(path: Path) -> None:
    app = importlib.import_module("cryoinfer.cli.app").app
    for words in commands(path.read_text()):
        assert unknown_words(app, words) == [], " ".join(["cryoinfer", *words])


@pytest.mark.parametrize("path", DOCUMENTS, ids=spell)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_canary_python(tmp_path: Path) -> None:
    document = tmp_path / "bad.md"
    document.write_text(
        "# Title\n\n```python\nx = 1\n```\n\n```python\ny = x / 0\n```\n"
    )
    with pytest.raises(ZeroDivisionError) as caught:
        run_python(document)
    assert caught.traceback[-1].lineno == 7  # counted from 0: line 8 of the document


def test_canary_commands() -> None:
    app = typer.Typer()

    @app.command()
    def infer(particles: Path, out: Path = Path(), max_shift: float = 0.0) -> None: ...

    @app.command()
    def demo() -> None: ...

    shown = (
        "```console\n$ cryoinfer infer p.star --out here \\\n  --max-shift -1\n"
        "$ .venv/bin/cryoinfer infer p.star --outt=here  # a typing error\n"
        "$ make test\n$ cryoinfer inform p.star\n```\n"
    )
    results = [unknown_words(app, words) for words in commands(shown)]
    assert results == [[], ["--outt"], ["inform"]]
