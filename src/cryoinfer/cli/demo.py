"""The demonstration: the whole way from images to a report, with the truth at hand."""

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from cryoinfer.cli.evaluate import evaluate
from cryoinfer.cli.options import RunOptions
from cryoinfer.cli.runs import run
from cryoinfer.cli.simulation import simulate
from cryoinfer.cli.terminal import say, say_rows
from cryoinfer.cli.threads import use_threads
from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.errors import OutputError
from cryoinfer.results.layout import RECORD, REPORT

_DEMO = SimulationConfig(
    n=3000,
    box=64,
    pixel_size_angstrom=1.6,
    snr_db=0.0,
    defocus_range_angstrom=(4000.0, 12000.0),
    max_shift_angstrom=4.0,
)


_ANEW = "Begin the demonstration again with --overwrite."


@dataclass(frozen=True)
class DemoOptions:
    """What a user asks of the demonstration.

    Attributes
    ----------
    out : Path
    n : int or None
        Images; None for the usual number.
    seed : int
    threads : int or None
    overwrite : bool
    """

    out: Path
    n: int | None
    seed: int
    threads: int | None
    overwrite: bool


def demonstrate(demo: DemoOptions, console: Console) -> int:
    """Simulate particles, find their poses and map, and compare with the truth.

    Returns
    -------
    int
        The exit code of the run.

    Raises
    ------
    OutputError
        If the folder holds a demonstration that must not be replaced.
    """
    data, result = demo.out / "particles", demo.out / "run"
    if (result / RECORD).exists() and not demo.overwrite:
        raise OutputError(
            f"{demo.out} holds a run: give another folder, or --overwrite."
        )
    use_threads(demo.threads)
    config = replace(_DEMO, n=demo.n or _DEMO.n, seed=demo.seed)
    say(
        console,
        f"1/3  Simulate {config.n:,} images of adenylate kinase: {config.box} px of "
        f"{config.pixel_size_angstrom} A, signal as strong as the noise (0 dB), with "
        "CTF and shifts.",
    )
    particles = simulate(config, data, demo.overwrite, console)
    say(console, "2/3  Forget the poses, and find them and the map from the images.")
    options = RunOptions(
        workflow="abinitio",
        particles=particles,
        out=result,
        seed=demo.seed,
        threads=demo.threads,
        device="cpu",  # on which all that is told of it was measured
        overwrite=demo.overwrite,
    )
    code = run(options, console, _ANEW)
    say(console, "3/3  Compare with the truth.")
    evaluate(result, data, console)
    say_rows(
        console,
        {
            "Look at": str(result / REPORT),
            "Go on with": "cryoinfer abinitio YOUR_PARTICLES.star --out run1",
        },
    )
    return code
