"""The options of the commands, each described once."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cryoinfer.cli import inputs, numbers
from cryoinfer.cli.arguments import recorded_path
from cryoinfer.cli.particle_options import AS_WRITTEN, ParticleOptions

Workflow = Literal["abinitio", "refine", "reconstruct"]
RefinementMethod = Literal["search", "amortized", "semi-amortized"]
PoseMethod = Literal[RefinementMethod, "cryoposenet"]
PublishedHead = Literal["s2s2", "quaternion", "euler", "known", "free"]
DeviceName = Literal["auto", "cpu", "cuda"]

_INPUT, _PARTICLE, _RUN = "Input", "Particle", "Run"
_FOLDER_FIELDS = ("out", "resume", "overwrite", "dry_run", "threads", "device")
_SEARCHES: tuple[Workflow, ...] = ("abinitio", "refine")
_TAKEN_BY: dict[str, tuple[Workflow, ...]] = {
    "map": ("refine",),
    "map_pixel_size": ("refine",),
    "mask": ("refine", "reconstruct"),
    "starts": ("abinitio",),
    "method": _SEARCHES,
    "head": ("abinitio",),
    "steps": ("abinitio",),
    "resolution": _SEARCHES,
    "max_shift": _SEARCHES,
    "defocus_error": _SEARCHES,
    "refine_beam_tilt": ("refine",),
    "refine_magnification": ("refine",),
    "refine_astigmatism": ("refine",),
    "refine_aberrations": ("refine",),
}
"""Options that not every workflow has."""


@dataclass(frozen=True)
class RunOptions:
    """What a user asks of a run.

    Attributes
    ----------
    workflow : {"abinitio", "refine", "reconstruct"}
    particles, out : Path
        Where the particles are, and the folder of the run.
    map : Path or None
        To begin a refinement from.
    map_pixel_size : float or None
        Of its voxels in angstrom, instead of what its header says.
    mask : Path or None
        In place of the one that is found in the maps.
    method : {"search", "amortized", "semi-amortized", "cryoposenet"}
        How an ab initio run or a refinement poses the particles.
    head : {"s2s2", "quaternion", "euler", "known", "free"} or None
        What names poses in cryoPoseNet; None for s2s2.
    steps : int or None
        Of cryoPoseNet's training; None for as many as published.
    reading : ParticleOptions
    symmetry : str
    particle_diameter, resolution, max_shift : float or None
        In angstrom; None lets the workflow choose.
    starts : int
        Random starts of an ab initio run.
    defocus_error : float
        Sd of the error of the given defoci in angstrom; 0 takes them as known.
    refine_beam_tilt, refine_magnification : bool
    refine_astigmatism, refine_aberrations : bool
    seed : int
    threads : int or None
        None for all cores that the process may use.
    device : {"auto", "cpu", "cuda"}
    resume, overwrite, dry_run : bool
    """

    workflow: Workflow
    particles: Path
    out: Path
    map: Path | None = None
    map_pixel_size: float | None = None
    mask: Path | None = None
    method: PoseMethod = "search"
    head: PublishedHead | None = None
    steps: int | None = None
    reading: ParticleOptions = AS_WRITTEN
    symmetry: str = "C1"
    particle_diameter: float | None = None
    resolution: float | None = None
    max_shift: float | None = None
    starts: int = 2
    defocus_error: float = 0.0
    refine_beam_tilt: bool = False
    refine_magnification: bool = False
    refine_astigmatism: bool = False
    refine_aberrations: bool = False
    seed: int = 0
    threads: int | None = None
    device: DeviceName = "auto"
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    def arguments(self) -> dict[str, Any]:
        """Return what decides the result, by option, in values that JSON knows.

        The folder and the number of threads do not: a run may be resumed with others.
        """
        found: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in (*_FOLDER_FIELDS, "workflow", "reading"):
                continue
            if self.workflow not in _TAKEN_BY.get(field.name, (self.workflow,)):
                continue
            if isinstance(value, Path):
                value = recorded_path(value)
            found[field.name.replace("_", "-")] = value
        return found | self.reading.arguments()


Particles = Annotated[
    Path,
    typer.Argument(
        help="A .star file of RELION, a .cs file of cryoSPARC, a stack (.mrcs), a "
        ".txt list of stacks, or a folder of `cryoinfer prepare`.",
        callback=inputs.particle_file,
        show_default=False,
    ),
]
Run = Annotated[
    Path,
    typer.Argument(
        help="The folder of a finished run.", callback=inputs.run, show_default=False
    ),
]
Symmetry = Annotated[
    str,
    typer.Option(
        metavar="GROUP",
        help="Point group in RELION's settings: C1, Cn, Dn, T, O, I, I1, I2.",
        rich_help_panel=_PARTICLE,
    ),
]
ParticleDiameter = Annotated[
    float | None,
    typer.Option(
        help="Diameter of the particle in A; by default three quarters of the box.",
        metavar="A",
        callback=numbers.length(),
        rich_help_panel=_PARTICLE,
        show_default=False,
    ),
]
Resolution = Annotated[
    float | None,
    typer.Option(
        help="Stop at this resolution in A; by default as far as the data go.",
        metavar="A",
        callback=numbers.length(),
        rich_help_panel=_PARTICLE,
        show_default=False,
    ),
]
MaxShift = Annotated[
    float | None,
    typer.Option(
        help="Largest distance of a particle from the centre of its box, in A; by "
        "default 7 % of the box.",
        metavar="A",
        callback=numbers.distance(),
        rich_help_panel=_PARTICLE,
        show_default=False,
    ),
]
Starts = Annotated[
    int,
    typer.Option(
        help="Random starts (initial models); the best one is refined. Six times as "
        "many with the symmetry T, O or I.",
        metavar="COUNT",
        callback=numbers.whole(1),
        rich_help_panel=_PARTICLE,
    ),
]
_METHODS = (
    "search: exhaustive search for every particle. amortized, for many particles: some "
    "are searched, an encoder is trained on their map and infers all in one pass. "
    "semi-amortized: the same, then local refinement."
)
Method = Annotated[
    RefinementMethod, typer.Option(help=_METHODS, rich_help_panel=_PARTICLE)
]
AbinitioMethod = Annotated[
    PoseMethod,
    typer.Option(
        help=f"{_METHODS} cryoposenet: a baseline, the auto-encoder of Nashed et al. "
        "2021 as published; 0 of 30 runs converged on images without noise.",
        rich_help_panel=_PARTICLE,
    ),
]
Head = Annotated[
    PublishedHead | None,
    typer.Option(
        help="With --method cryoposenet, where poses come from: an encoder with one of "
        "three heads (s2s2 by default); known: the particles' file; free: parameters "
        "of each particle, optimised like the map.",
        rich_help_panel=_PARTICLE,
        show_default=False,
    ),
]
PublishedSteps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        metavar="COUNT",
        help="With --method cryoposenet, training steps; by default 10,000.",
        callback=numbers.whole(1),
        rich_help_panel=_PARTICLE,
        show_default=False,
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o", metavar="DIR", help="Folder to write.", show_default=False
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite", metavar="", help="Replace existing output.", rich_help_panel=_RUN
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        metavar="",
        help="Continue the interrupted run in the folder.",
        rich_help_panel=_RUN,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        metavar="",
        help="Print what would be done, with time, memory and disk; write nothing.",
        rich_help_panel=_RUN,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        "-j",
        metavar="COUNT",
        help="CPU threads; by default all cores that the process may use.",
        callback=numbers.whole(1, numbers.MOST_THREADS),
        rich_help_panel=_RUN,
        show_default=False,
    ),
]
Device = Annotated[
    DeviceName,
    typer.Option(
        help="Where images are searched and inserted into maps: cuda uses a GPU, on "
        "which no run has been measured yet; auto is the CPU. Encoders stay on the "
        "CPU.",
        rich_help_panel=_RUN,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        metavar="NUMBER",
        help="Seed of all random numbers.",
        callback=numbers.whole(0, numbers.LARGEST_SEED),
        rich_help_panel=_RUN,
    ),
]

Steps = Annotated[
    int,
    typer.Option(metavar="COUNT", help="Training steps.", callback=numbers.whole(1)),
]
Side = Annotated[
    int,
    typer.Option(
        metavar="PIXELS",
        help="Box size that images are Fourier-cropped to for the encoder: 16, 32, "
        "64, ...",
        callback=numbers.whole(8, numbers.LARGEST_BOX),
    ),
]
DefocusError = Annotated[
    float,
    typer.Option(
        metavar="A",
        help="Standard deviation of the errors of the given defoci, in A (300, for "
        "example): the defocus of each particle is then inferred. 0 keeps them fixed.",
        callback=numbers.distance(),
        rich_help_panel=_PARTICLE,
    ),
]
Encoder = Annotated[
    Path,
    typer.Argument(
        help="Folder of an encoder, as written by `cryoinfer train`; or of a run of "
        "`heterogeneity`, in whose maps all poses are searched.",
        callback=inputs.encoder,
        show_default=False,
    ),
]
Unseen = Annotated[
    Path,
    typer.Argument(
        metavar="PARTICLES",
        help="A .star file of RELION, a .cs file of cryoSPARC, a stack (.mrcs), a "
        ".txt list of stacks, or a folder of `cryoinfer prepare`; with --watch, a "
        "folder in which .star or .cs files appear.",
        show_default=False,
    ),
]
Watch = Annotated[
    bool,
    typer.Option(
        "--watch",
        metavar="",
        help="Infer the files of a folder as they arrive, and update the map when "
        "none is waiting, until Ctrl-C. --resume continues later.",
        rich_help_panel=_INPUT,
    ),
]
UntilIdle = Annotated[
    float | None,
    typer.Option(
        metavar="SECONDS",
        help="Stop watching when no file has arrived for this long; more than 0.",
        callback=numbers.between(0.0, 1e9, above=True),
        rich_help_panel=_INPUT,
        show_default=False,
    ),
]
LearnedSymmetry = Annotated[
    str | None,
    typer.Option(
        metavar="GROUP",
        help="Point group of the map; by default that of the map that was learned.",
        rich_help_panel=_PARTICLE,
        show_default=False,
    ),
]
LocalRefinement = Annotated[
    bool,
    typer.Option(
        "--refinement/--no-refinement",
        metavar="",
        help="Refine each pose that the encoder proposes to the mode of its posterior.",
    ),
]

CryodrgnPoses = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.pkl",
        help="Poses of cryoDRGN, in place of those that the particles have.",
        callback=inputs.a_file("file of cryoDRGN"),
        show_default=False,
    ),
]
CryodrgnCtf = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.pkl",
        help="CTFs and pixel size of cryoDRGN, for a stack or a list of stacks.",
        callback=inputs.a_file("file of cryoDRGN"),
        show_default=False,
    ),
]

Count = Annotated[
    int | None,
    typer.Option(
        "--n",
        "-n",
        metavar="COUNT",
        help="Number of images.",
        callback=numbers.whole(1),
    ),
]
