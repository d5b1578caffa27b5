"""The command that simulates particles; app.py registers it."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from cryoinfer.cli import inputs, numbers
from cryoinfer.cli import options as opt

Structure = Annotated[
    str,
    typer.Argument(
        help="A preset (cryoposenet-a to -g), a built-in structure (such as "
        "adenylate-kinase-open), or an mmCIF or PDB file.",
        callback=inputs.structure_or_preset,
        show_default=False,
    ),
]
Box = Annotated[
    int | None,
    typer.Option(
        metavar="PIXELS",
        help="Box size of the images in pixels.",
        callback=numbers.whole(8, numbers.LARGEST_BOX),
    ),
]
SimulatedPixelSize = Annotated[
    float | None,
    typer.Option(metavar="A", help="Pixel size in A.", callback=numbers.pixel_size()),
]
SnrDb = Annotated[
    float | None,
    typer.Option(
        metavar="DB",
        help="Signal to noise, 10 log10 of the ratio of variances; inf for no noise.",
        callback=numbers.signal_to_noise,
    ),
]
Defocus = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="LO HI",
        help="Lowest and highest defocus in micrometres; without it no CTF.",
        callback=numbers.defocus_range,
    ),
]
SimulatedShift = Annotated[
    float | None,
    typer.Option(
        "--max-shift",
        metavar="A",
        help="Largest shift along x and along y, in A.",
        callback=numbers.distance(),
    ),
]
Noise = Annotated[
    Literal["white", "coloured"] | None, typer.Option(help="Spectrum of the noise.")
]
Motions = Annotated[
    list[str] | None,
    typer.Option(
        "--modes",
        metavar="MOTION",
        help='Motion along a normal mode, in A: "1:N(0,2)" (mean, sd) or "2:U(-3,3)"; '
        "may be repeated.",
    ),
]
Trajectory = Annotated[
    Path | None,
    typer.Option(
        "--trajectory",
        metavar="FILE",
        help="Frames of molecular dynamics that particles show, all alike likely: "
        ".dcd, .xtc, or mmCIF or PDB with several models; of the structure's file.",
        callback=inputs.a_file("trajectory"),
        show_default=False,
    ),
]
To = Annotated[
    str | None,
    typer.Option(
        "--to",
        metavar="STRUCTURE",
        help="Another structure of the same atoms: particles lie on the straight way "
        "to it.",
        callback=inputs.other_structure,
        show_default=False,
    ),
]
TurnOfPart = Annotated[
    str | None,
    typer.Option(
        "--turn",
        metavar="TURN",
        help='A part that turns about an axis through two residues: "A:1-230, B about '
        'A:230 A:240 by 360", or ".. by 360 in 100" conformations.',
    ),
]
Along = Annotated[
    str | None,
    typer.Option(
        metavar="DENSITY",
        help="How particles are distributed along the trajectory, way or turn, from 0 "
        'to 1: "U(0,1)", or "0.7 N(0,0.05) + 0.3 N(1,0.05)" (share, mean, sd).',
    ),
]
Also = Annotated[
    list[str] | None,
    typer.Option(
        "--also",
        metavar="STRUCTURE",
        help="A further molecule in the set; may be repeated.",
        callback=inputs.other_structures,
        show_default=False,
    ),
]
Without = Annotated[
    list[str] | None,
    typer.Option(
        "--without",
        metavar="PARTS",
        help='A further assembly, which lacks parts of the structure: "chain C" or '
        '"C, D:10-50"; may be repeated.',
    ),
]
Population = Annotated[
    str | None,
    typer.Option(
        metavar="SHARES",
        help="Of the structure, each --also and each --without, such as 0.5,0.3,0.2; "
        "by default all alike.",
        show_default=False,
    ),
]
JunkShare = Annotated[
    list[str] | None,
    typer.Option(
        "--junk",
        metavar="SHARE",
        help='Share of images without a particle: "ice:0.1", "edge:0.1" (of a support '
        'film), "other.pdb:0.1" (another protein), or 0.2 (half ice, half edges); may '
        "be repeated.",
    ),
]
BFactor = Annotated[
    float | None,
    typer.Option(
        "--b-factor",
        metavar="A2",
        help="B-factor that blurs the structure, in A^2.",
        callback=numbers.distance(),
    ),
]
ContrastSd = Annotated[
    float | None,
    typer.Option(
        "--contrast-sd",
        metavar="SD",
        help="Spread of the contrast of particles about 1, as of ice of uneven "
        "thickness.",
        callback=numbers.between(0.0, 1.0),
    ),
]
Scattering = Annotated[
    Literal["weak-phase", "multislice"] | None,
    typer.Option(
        "--model",
        help="How images form: the CTF times the projection, or waves through slices "
        "of 5 A, for thick specimens and high resolution (7 to 18 times as long, 14 "
        "to 36 ms an image of 64 to 128 pixels of 214 residues); needs --defocus.",
    ),
]
Detector = Annotated[
    Literal["counting"] | None,
    typer.Option(
        help="Noise of counted electrons, in place of --snr-db; about 1 microsecond a "
        "pixel; needs --dose-per-square-angstrom and --defocus.",
    ),
]
Dose = Annotated[
    float | None,
    typer.Option(
        "--dose-per-square-angstrom",
        metavar="E",
        help="Electrons a square A, of --detector counting.",
        callback=numbers.between(0.0, 1e4, above=True),
    ),
]
Mtf = Annotated[
    float | None,
    typer.Option(
        "--mtf",
        metavar="MTF",
        help="Modulation transfer of --detector counting at the Nyquist frequency of "
        "the images; 1, the default, is a perfect one.",
        callback=numbers.between(0.0, 1.0, above=True),
        show_default=False,
    ),
]
Views = Annotated[
    Literal["uniform", "preferred", "one"] | None,
    typer.Option(help="Distribution of the views."),
]
OpticsGroups = Annotated[
    int | None,
    typer.Option(
        metavar="COUNT", help="Number of optics groups.", callback=numbers.whole(1)
    ),
]


def simulate(
    structure: Structure,
    out: opt.Out,
    n: opt.Count = None,
    box: Box = None,
    pixel_size: SimulatedPixelSize = None,
    snr_db: SnrDb = None,
    defocus: Defocus = None,
    max_shift: SimulatedShift = None,
    noise: Noise = None,
    views: Views = None,
    optics_groups: OpticsGroups = None,
    motions: Motions = None,
    trajectory: Trajectory = None,
    to: To = None,
    turn: TurnOfPart = None,
    along: Along = None,
    also: Also = None,
    without: Without = None,
    population: Population = None,
    junk: JunkShare = None,
    b_factor: BFactor = None,
    contrast_sd: ContrastSd = None,
    model: Scattering = None,
    detector: Detector = None,
    dose: Dose = None,
    mtf: Mtf = None,
    threads: opt.Threads = None,
    seed: opt.Seed = 0,
    overwrite: opt.Overwrite = False,
) -> None:
    """Simulate particles whose truth is known.

    What is not given is that of the preset, or 10,000 images of 128 pixels of 0.8 A
    at -10 dB without CTF.
    """
    from cryoinfer.cli import simulation
    from cryoinfer.cli.threads import use_threads

    use_threads(threads)
    changes: dict[str, Any] = {
        "n": n,
        "box": box,
        "pixel_size_angstrom": pixel_size,
        "max_shift_angstrom": max_shift,
        "noise": noise,
        "views": views,
        "optics_groups": optics_groups,
        "b_factor_angstrom2": b_factor,
        "contrast_sd": contrast_sd,
        "scattering": model,
        "defocus_range_angstrom": simulation.read_defocus(defocus),
        "to": to,
        "seed": seed,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    changes |= simulation.read_noise(snr_db, detector is not None, dose, mtf)
    changes |= simulation.read_path(motions, trajectory, turn, along)
    changes["composition"] = simulation.read_composition(
        also or (), without or (), population, junk or ()
    )
    config = simulation.configure(structure, changes)
    simulation.simulate(config, out, overwrite, Console())
