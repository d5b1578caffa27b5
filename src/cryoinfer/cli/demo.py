"""The demonstration: the whole way from images to a report, with the truth at hand."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from cryoinfer.cli.evaluate import evaluate
from cryoinfer.cli.options import RunOptions
from cryoinfer.cli.run_folder import REPORT
from cryoinfer.cli.run_record import RECORD
from cryoinfer.cli.runs import run
from cryoinfer.cli.simulation import simulate
from cryoinfer.cli.terminal import say, say_rows
from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.errors import OutputError

_DEMO = SimulationConfig(
    n=3000,
    box=64,
    pixel_size_angstrom=1.6,
    snr_db=0.0,
    defocus_range_angstrom=(4000.0, 12000.0),
    max_shift_angstrom=4.0,
)


def demonstrate(
    out: Path, n: int | None, seed: int, overwrite: bool, console: Console
) -> None:
    """Simulate particles, find their poses and map, and compare with the truth.

    Raises
    ------
    OutputError
        If the folder holds a demonstration that must not be replaced.
    """
    data, result = out / "particles", out / "run"
    if (result / RECORD).exists() and not overwrite:
        raise OutputError(f"{out} holds a run: give another folder, or --overwrite.")
    config = replace(_DEMO, n=_DEMO.n if n is None else n, seed=seed)
    say(
        console,
        f"1/3  Simulate {config.n:,} images of adenylate kinase: {config.box} px of "
        f"{config.pixel_size_angstrom} A, signal as strong as the noise (0 dB), with "
        "CTF and shifts.",
    )
    particles = simulate(config, data, overwrite, console)
    say(console, "2/3  Forget the poses, and find them and the map from the images.")
    options = RunOptions(
        workflow="abinitio",
        particles=particles,
        out=result,
        seed=seed,
        overwrite=overwrite,
    )
    run(options, console)
    say(console, "3/3  Compare with the truth.")
    evaluate(result, data, console)
    say_rows(
        console,
        {
            "Look at": str(result / REPORT),
            "Go on with": "cryoinfer abinitio YOUR_PARTICLES.star --out run1",
        },
    )
