"""What a command has written is what a library reads."""

import subprocess
import sys
from pathlib import Path

import torch

from cryoinfer.results.run import load_run
from cryoinfer.results.run_result import RunResult

SINGLE = {"rtol": 2**-23, "atol": 0.0}


def test_a_run_of_a_command_comes_back(finished: Path, result: RunResult) -> None:
    run = load_run(finished)
    assert run.result is not None
    assert run.result.iterations == result.iterations
    assert torch.equal(run.result.random_subset, result.random_subset)
    torch.testing.assert_close(
        run.result.inferred.covariance[:, 0],
        result.inferred.covariance[:, 0],
        **SINGLE,
    )
    torch.testing.assert_close(
        run.posterior.modes.pose.rotation,
        result.posterior.modes.pose.rotation,
        **SINGLE,
    )
    assert run.summary["particles"] == len(result.latents)


def test_a_run_is_read_without_what_made_it(finished: Path) -> None:
    code = (
        "import sys, cryoinfer as ci\n"
        f"print(len(ci.load_run({str(finished)!r}).posterior.weight))\n"
        "heavy = {'numba', 'typer', 'cryoinfer.cli', 'cryoinfer.workflows'}\n"
        "print(heavy & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["120", "set()"]
