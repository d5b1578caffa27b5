"""Write the tables of README.md from the rows in ``results/``.

A table stands between the lines ``<!-- table: NAME -->`` and ``<!-- end -->``; the name
is that of the benchmark, and what of it is shown where it has more than one. No table
is typed by hand: one outside of such lines is an error.

    python benchmarks/tables.py
    python benchmarks/tables.py --check
"""

import argparse
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import ablation
import align
import boxes
import busy_core
import calibration
import claims
import classes
import conformation_calibration
import conformation_scaling
import continuous
import cryoposenet
import cryoposenet_rates
import cryoposenet_sets
import defocus
import densities
import dirty
import dynamics
import encoder
import field
import files
import harder_sets
import heterogeneity
import igg_1d
import known_view
import low_snr
import marching
import optics
import out_of_distribution
import postprocess
import prepare
import random_starts
import real_motion
import relion_comparison
import relion_images
import scaling
import streaming
import symmetric
import throughput
import two_modes
import verdicts
import wrong_model
from rows import HERE, Results, Row

TABLES: dict[str, Callable[[Sequence[Row]], str]] = {
    "cryoposenet_sets": cryoposenet_sets.shown,
    "low_snr": low_snr.shown,
    "harder_sets": harder_sets.shown,
    "symmetric": symmetric.shown,
    "scaling": scaling.shown,
    "throughput": throughput.shown,
    "files": files.shown,
    "relion_comparison": relion_comparison.shown,
    "encoder, first seed": encoder.shown_first,
    "encoder, all seeds": encoder.shown_seeds,
    "calibration": calibration.shown,
    "two_modes": two_modes.shown,
    "out_of_distribution": out_of_distribution.shown,
    "relion_images": relion_images.shown,
    "defocus": defocus.shown,
    "streaming": streaming.shown,
    "streaming, break-even": streaming.shown_break_even,
    "ablation": ablation.shown,
    "densities": densities.shown,
    "cryoposenet": cryoposenet.shown,
    "cryoposenet_rates": cryoposenet_rates.shown,
    "known_view": known_view.shown,
    "marching": marching.shown,
    "dynamics": dynamics.shown,
    "wrong_model": wrong_model.shown,
    "heterogeneity": heterogeneity.shown,
    "classes": classes.shown,
    "continuous": continuous.shown,
    "field": field.shown,
    "real_motion": real_motion.shown,
    "prepare": prepare.shown,
    "align": align.shown,
    "conformation_scaling": conformation_scaling.shown,
    "conformation_calibration": conformation_calibration.shown,
    "verdicts": verdicts.shown,
    "postprocess": postprocess.shown,
    "optics": optics.shown,
    "boxes": boxes.shown,
    "busy_core": busy_core.shown,
    "igg_1d": igg_1d.shown,
    "dirty": dirty.shown,
    "random_starts": random_starts.shown,
}
CLAIMS = "claims"
"""The table that a reader sees first; its rows are of all benchmarks."""

_PLACE = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def shown(name: str) -> str:
    """Return a table as Markdown, from the rows that are kept."""
    if name == CLAIMS:
        return claims.shown()
    if name not in TABLES:
        raise SystemExit(f"no table is called {name!r}; there are {', '.join(TABLES)}")
    return TABLES[name](Results(name.partition(",")[0], trial=False).rows())


def with_tables(text: str) -> str:
    """Return a document with its tables written anew."""
    typed = [one for one in _PLACE.sub("", text).splitlines() if one.startswith("|")]
    if typed:
        raise SystemExit(f"a table typed by hand: {typed[0]}")
    return _PLACE.sub(lambda found: f"{found[1]}{shown(found[2])}\n{found[3]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "documents",
        type=Path,
        nargs="*",
        default=[HERE / "README.md"],
        help="default: README.md beside this file",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if one would change"
    )
    options = parser.parse_args()
    stale = []
    for document in options.documents:
        text = document.read_text()
        written = with_tables(text)
        if written == text:
            continue
        stale.append(str(document))
        if not options.check:
            document.write_text(written)
    for name in stale:
        print(f"{'differs from the rows' if options.check else 'written'}: {name}")
    if stale and options.check:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
