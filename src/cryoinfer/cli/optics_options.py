"""What of the optics a refinement refines: its options."""

from typing import TYPE_CHECKING, Annotated

import typer

from cryoinfer.errors import InputError

if TYPE_CHECKING:  # they import PyTorch, for which none waits until it must
    from cryoinfer.cli.options import RunOptions
    from cryoinfer.data.particles import Particles
    from cryoinfer.workflows.problem import OpticsTerms

_PANEL = "Particle"
_TERMS = (
    "refine_beam_tilt",
    "refine_magnification",
    "refine_astigmatism",
    "refine_aberrations",
)

RefineBeamTilt = Annotated[
    bool,
    typer.Option(
        "--refine-beam-tilt",
        metavar="",
        help="Refine the beam tilt of each optics group between iterations, as "
        "RELION's CtfRefine does.",
        rich_help_panel=_PANEL,
    ),
]
RefineMagnification = Annotated[
    bool,
    typer.Option(
        "--refine-magnification",
        metavar="",
        help="Refine the anisotropic magnification of each optics group between "
        "iterations; its mean, the pixel size, stays.",
        rich_help_panel=_PANEL,
    ),
]
RefineAstigmatism = Annotated[
    bool,
    typer.Option(
        "--refine-astigmatism",
        metavar="",
        help="Refine the astigmatism of each micrograph between iterations (of each "
        "optics group, where particles name no micrograph); --defocus-error is for "
        "the mean defocus of each particle.",
        rich_help_panel=_PANEL,
    ),
]
RefineAberrations = Annotated[
    bool,
    typer.Option(
        "--refine-aberrations",
        metavar="",
        help="Refine beam tilt, trefoil and symmetric aberrations up to the fourth "
        "order (Cs, tetrafoil) of each optics group between iterations.",
        rich_help_panel=_PANEL,
    ),
]


def optics_terms(options: "RunOptions") -> "OpticsTerms":
    """Return what of the optics is to be refined."""
    from cryoinfer.workflows.problem import OpticsTerms

    return OpticsTerms(
        options.refine_beam_tilt,
        options.refine_magnification,
        options.refine_astigmatism,
        options.refine_aberrations,
    )


def require_refinable(options: "RunOptions", particles: "Particles") -> None:
    """Refuse to refine optics that the run or the particles do not have.

    Nor what images were multiplied by.

    Raises
    ------
    InputError
    """
    from cryoinfer.physics.premultiplied import require_ctf_kept

    given = [f"--{name.replace('_', '-')}" for name in _TERMS if getattr(options, name)]
    if given and options.method != "search":
        raise InputError(
            f"{given[0]} goes with --method search, found --method {options.method}. "
            "Leave it out, or use search"
        )
    changing = [name for name in given if name != "--refine-beam-tilt"]
    if options.defocus_error > 0:
        changing.append("--defocus-error")
    if changing:
        require_ctf_kept(particles.optics, changing[0])
    of_ctf = [name for name in given if name != "--refine-magnification"]
    if of_ctf and not particles.has_ctf:
        raise InputError(
            f"{of_ctf[0]} needs a CTF, and the particles have no defocus. Leave it out"
        )
