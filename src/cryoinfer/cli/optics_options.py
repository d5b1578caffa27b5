"""What of the optics a refinement refines: its options."""

from typing import TYPE_CHECKING, Annotated

import typer

from cryoinfer.errors import InputError

if TYPE_CHECKING:  # they import PyTorch, for which none waits until it must
    from cryoinfer.cli.options import RunOptions
    from cryoinfer.data.particles import Particles
    from cryoinfer.workflows.problem import OpticsTerms

_PANEL = "Particle"

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


def optics_terms(options: "RunOptions") -> "OpticsTerms":
    """Return what of the optics is to be refined."""
    from cryoinfer.workflows.problem import OpticsTerms

    return OpticsTerms(options.refine_beam_tilt, options.refine_magnification)


def require_refinable(options: "RunOptions", particles: "Particles") -> None:
    """Refuse to refine optics that the run or the particles do not have.

    Raises
    ------
    InputError
    """
    if not (options.refine_beam_tilt or options.refine_magnification):
        return
    if options.method != "search":
        raise InputError(
            f"--refine-beam-tilt and --refine-magnification go with --method search, "
            f"found --method {options.method}. Leave them out, or use search"
        )
    if options.refine_beam_tilt and not particles.has_ctf:
        raise InputError(
            "--refine-beam-tilt needs a CTF: a beam tilt shows by spherical aberration "
            "alone, and the particles have no defocus. Leave it out"
        )
