"""Every option that a message names is one of the command that prints it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cryoinfer.cli.app import app

SOURCE = Path(__file__).parents[2] / "src" / "cryoinfer"
COMMANDS: Any = typer.main.get_command(app).commands  # type: ignore[attr-defined]

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z](?![\w-])")
OF_COMMAND = re.compile(r"cryoinfer ([a-z]+)((?: (?!cryoinfer )[^;`]+)?)")

READERS = (
    *("check", "abinitio", "refine", "reconstruct", "infer", "dynamics"),
    "heterogeneity",
    *("convert", "flip", "evaluate", "select", "volumes", "prepare", "downsample"),
)
RUNS = ("abinitio", "refine", "reconstruct", "train", "infer", "dynamics")
RUNS += ("heterogeneity",)
WRITERS = (
    *RUNS,
    *("demo", "simulate", "beads", "modes", "volumes", "flip", "fsc", "convert"),
    *("select", "prepare", "downsample", "local-resolution", "align"),
    "postprocess",
    "mask",
)

SAID_BY: dict[str, tuple[str, ...]] = {
    # Of particles.
    "data/check.py": ("check",),
    "data/loading.py": READERS,
    "data/stack_paths.py": READERS,
    "data/original_particles.py": ("select",),
    "data/shard_plan.py": ("prepare",),
    "cli/downsampling.py": ("downsample",),
    "cli/preparation.py": ("prepare",),
    "io/cryosparc.py": READERS,
    "io/conventions/cryosparc.py": READERS,
    "io/conventions/relion_rows.py": READERS,
    "io/conventions/table.py": READERS,
    # Of one command or a few.
    "cli/half_maps.py": ("fsc",),
    "cli/beads.py": ("beads",),
    "cli/local_resolution.py": ("local-resolution",),
    "cli/postprocess.py": ("postprocess",),
    "cli/mask.py": ("mask",),
    "data/bead_model.py": ("beads",),
    "cli/simulation.py": ("simulate",),
    "data/simulation_rules.py": ("simulate",),
    "cli/modes.py": ("modes",),
    "cli/published_method.py": ("abinitio",),
    "cli/optics_options.py": ("refine",),
    "cli/volumes.py": ("volumes",),
    "cli/demo.py": ("demo",),
    "cli/inputs.py": ("infer",),
    "cli/particle_options.py": ("train", "flip", "evaluate", "select"),
    "cli/particle_files.py": ("convert",),
    "cli/selection.py": ("select",),
    "results/selection.py": ("select",),
    "results/particle_numbers.py": ("select",),
    "cli/new_particles.py": ("infer",),
    "cli/inference_sources.py": ("infer",),
    "cli/watching.py": ("infer",),
    "workflows/motion_problem.py": ("dynamics",),
    "workflows/heterogeneity_config.py": ("heterogeneity",),
    "workflows/class_config.py": ("heterogeneity",),
    "report/assessment.py": ("abinitio",),  # which it names
    "report/classes.py": ("heterogeneity",),
    "cli/class_page.py": ("heterogeneity",),
    "cli/heterogeneity_command.py": ("heterogeneity",),
    "cli/heterogeneity.py": ("heterogeneity",),
    "report/scatter.py": ("select",),
    "cli/heterogeneity_page.py": ("heterogeneity",),
    "workflows/amortize.py": ("abinitio", "refine"),
    # Of runs.
    "cli/runs.py": ("abinitio", "refine", "reconstruct"),
    "cli/run_inputs.py": ("abinitio", "refine", "reconstruct"),
    "cli/device.py": ("abinitio", "refine", "reconstruct", "heterogeneity"),
    "world.py": RUNS,  # a command without it does not print the sentence
    "cli/run_folder.py": RUNS,
    "results/run_record.py": RUNS,  # of the command that made the run, by its name
    "cli/state_file.py": RUNS,
    "errors.py": RUNS,
    "workflows/inferred.py": RUNS,
    "workflows/field_heterogeneity.py": ("heterogeneity",),
    "cli/outputs.py": WRITERS,
    "physics/structures/elastic.py": ("modes", "simulate", "dynamics"),
}
"""Which commands print the messages of a module that names options."""

OF_ONE_COMMAND = {
    ("cli/runs.py", "--map"): ("refine",),
    ("cli/run_inputs.py", "--map"): ("refine",),
    ("cli/run_inputs.py", "--mask"): ("refine", "reconstruct"),
    ("cli/run_inputs.py", "--method"): ("refine",),
    ("cli/run_inputs.py", "--resolution"): ("abinitio", "refine"),
    ("cli/run_inputs.py", "--max-shift"): ("abinitio", "refine"),
    ("cli/map_inputs.py", "--map-pixel-size"): ("refine", "flip", "evaluate"),
    ("cli/map_inputs.py", "--pixel-size"): (
        *("fsc", "local-resolution", "beads", "align", "postprocess", "mask"),
    ),
    # A command without them does not print the sentence (GuardedGroup).
    ("cli/guard.py", "--resume"): RUNS,
    ("cli/guard.py", "--dry-run"): ("abinitio", "refine", "reconstruct"),
}
"""Options that only some of a module's commands name."""

DECLARES = ("typer.Option", "typer.Argument")

NO_MESSAGES = {
    "cli/aliases.py": "names of other programs for our options, tested beside them",
    "cli/app.py": "examples below the help, which the documents' test runs",
    "report/style.py": "variables of a style sheet",
    "io/trajectories.py": "an option of mdconvert, which the message names",
}


def texts(path: Path) -> Iterator[str]:
    """Yield the strings of a module, but for docstrings and what declares options."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in DECLARES:
            skipped |= {id(part) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in skipped:
                yield node.value


def options(command: str) -> set[str]:
    return {
        name
        for one in COMMANDS[command].params
        for name in (*one.opts, *one.secondary_opts)
    }


def broken(module: str, text: str) -> list[str]:
    """Return the options that a text names and a command that says it lacks."""
    found = []
    left = text
    for command, words in OF_COMMAND.findall(text):
        if command in COMMANDS:
            lacking = set(OPTION.findall(words)) - options(command)
            found += [f"{command} {option}" for option in sorted(lacking)]
            left = left.replace(words, "") if words else left
    for option in OPTION.findall(left):
        commands = OF_ONE_COMMAND.get((module, option)) or SAID_BY.get(module)
        if commands is None:
            found.append(f"nobody knows who says {option}")
            continue
        found += [f"{c} {option}" for c in commands if option not in options(c)]
    return found


@pytest.mark.parametrize(
    "path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE))
)
def test_every_option_that_a_message_names_exists(path: Path) -> None:
    module = path.relative_to(SOURCE).as_posix()
    if module not in NO_MESSAGES:
        assert [b for text in texts(path) for b in broken(module, text)] == []


def test_the_tables_hold_nothing_that_is_gone() -> None:
    named = {*SAID_BY, *NO_MESSAGES, *(module for module, _ in OF_ONE_COMMAND)}
    for module in sorted(named):
        assert any(OPTION.search(text) for text in texts(SOURCE / module)), module
    for commands in (*SAID_BY.values(), *OF_ONE_COMMAND.values()):
        assert set(commands) <= set(COMMANDS)


def test_canary_options_that_do_not_exist() -> None:
    assert broken("cli/beads.py", "Give --voltage.") == ["beads --voltage"]
    assert broken("cli/beads.py", "Give --level.") == []
    assert broken("cli/new.py", "Give --level.") == ["nobody knows who says --level"]
    assert broken("cli/beads.py", "see `cryoinfer fsc --level 3`") == ["fsc --level"]
    assert broken("cli/beads.py", "see `cryoinfer fsc --mask m`") == []
