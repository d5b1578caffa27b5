"""Rows of measurements, kept as lines of JSON."""

import argparse
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import cryoinfer
from cryoinfer.workflows.machine import Machine

Row = dict[str, Any]
"""One measurement, as it is kept in a line of JSON."""

HERE = Path(__file__).resolve().parent


class Results:
    """Rows of one benchmark, a line of JSON each.

    Parameters
    ----------
    name : str
        Of the benchmark.
    trial : bool
        Whether the problem was made smaller to try the script: such rows go to
        ``runs/``, which is not committed, and never to ``results/``.
    """

    def __init__(self, name: str, trial: bool) -> None:
        self._path = HERE / ("runs" if trial else "results") / f"{name}.jsonl"

    def rows(self) -> list[Row]:
        """Return all rows, oldest first."""
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text().splitlines()]

    def has(self, key: Row) -> bool:
        """Tell whether there is a row whose values include those of ``key``."""
        key = _rounded(key)  # as rows are kept
        return any(key.items() <= _without_lists(row).items() for row in self.rows())

    def put(self, key: Row, measured: Row) -> None:
        """Write a row at once, with machine and day; it replaces those of its key."""
        key = _rounded(key)
        kept = [
            row for row in self.rows() if not key.items() <= _without_lists(row).items()
        ]
        today = datetime.now(UTC).date().isoformat()
        row = {**key, **measured, "machine": machine(), "date": today}
        lines = [json.dumps(_rounded(r)) for r in [*kept, row]]
        self._path.parent.mkdir(exist_ok=True)
        self._path.write_text("\n".join(lines) + "\n")

    def measure_seeds(
        self,
        options: argparse.Namespace,
        key: Row,
        measure: Callable[[argparse.Namespace, int], Row],
    ) -> None:
        """Measure all seeds that have no row yet, and store their rows one by one."""
        for seed in range(options.seeds):
            own = {**key, "seed": seed}
            if not options.table and (options.again or not self.has(own)):
                self.put(own, measure(options, seed))


def machine() -> Row:
    """Return what the numbers were measured on and with."""
    here = Machine.here()
    return {
        "processor": here.processor,
        "instructions": here.torch_instructions,
        "threads": here.threads,
        "cryoinfer": cryoinfer.__version__,
        "torch": torch.__version__,
    }


def _without_lists(row: Row) -> Row:
    return {k: v for k, v in row.items() if not isinstance(v, list | dict)}


def _rounded(value: Any) -> Any:
    """Cut numbers to six digits, so that the files stay small and can be read."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else value
