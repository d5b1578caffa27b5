"""How particles are read: options that every command which reads some takes."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from cryoinfer.cli import numbers
from cryoinfer.cli.arguments import recorded_path
from cryoinfer.errors import InputError

if TYPE_CHECKING:  # they import PyTorch, for which none waits until it must
    from cryoinfer.data.finding import Finding
    from cryoinfer.data.particles import Particles
    from cryoinfer.results.run_record import RunRecord

_PANEL = "Input"
_PARAMETER = "reading"

Datadir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder of the stacks that the particles name, where they are not in the "
        "folder of the particles or above it.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
PixelSize = Annotated[
    float | None,
    typer.Option(
        help="Pixel size in A, where the metadata have none.",
        metavar="A",
        callback=numbers.pixel_size(),
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Physics in the metadata that is not modelled, to be ignored, such as "
        "aberrations; may be repeated.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Passthrough = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE.cs",
        help="Passthrough table of a .cs file; may be repeated. By default those "
        "beside it that hold all of its particles.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
AmplitudeContrast = Annotated[
    float | None,
    typer.Option(
        help="Amplitude contrast, 0 to 1, where the metadata have none.",
        metavar="FRACTION",
        callback=numbers.between(0.0, 1.0),
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Voltage = Annotated[
    float | None,
    typer.Option(
        help="Acceleration voltage in kV, where the metadata have none.",
        metavar="KV",
        callback=numbers.between(60.0, 400.0),
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Cs = Annotated[
    float | None,
    typer.Option(
        help="Spherical aberration in mm, where the metadata have none.",
        metavar="MM",
        callback=numbers.between(0.0, 10.0),
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]

_OPTIONS: dict[str, Any] = {
    "datadir": Datadir,
    "pixel_size": PixelSize,
    "ignore": Ignore,
    "passthrough": Passthrough,
    "amplitude_contrast": AmplitudeContrast,
    "voltage": Voltage,
    "cs": Cs,
}


@dataclass(frozen=True)
class ParticleOptions:
    """How a user wants particles to be read.

    Attributes
    ----------
    datadir, pixel_size, ignore, passthrough
        As for :meth:`cryoinfer.data.particles.Particles.load`.
    amplitude_contrast, voltage, cs : float or None
        What the metadata lack of the microscope: a fraction, kV and mm.
    """

    datadir: Path | None = None
    pixel_size: float | None = None
    ignore: tuple[str, ...] = ()
    passthrough: tuple[Path, ...] = ()
    amplitude_contrast: float | None = None
    voltage: float | None = None
    cs: float | None = None

    def load(self, path: Path) -> "Particles":
        """Read the particles of a file."""
        from cryoinfer.data.particles import Particles

        return Particles.load(path, **self._of_library())

    def check(self, path: Path) -> "list[Finding]":
        """Return what could spoil a run on the particles of a file."""
        from cryoinfer.data.check import check

        return check(path, **self._of_library())

    def arguments(self) -> dict[str, Any]:
        """Return the options by their names, in values that JSON knows."""
        files = [recorded_path(path) for path in self.passthrough]
        return {
            "datadir": None if self.datadir is None else recorded_path(self.datadir),
            "pixel-size": self.pixel_size,
            "ignore": list(self.ignore),
            "passthrough": files or None,
            "amplitude-contrast": self.amplitude_contrast,
            "voltage": self.voltage,
            "cs": self.cs,
        }

    def of_run(self, record: "RunRecord") -> Self:
        """Return the same for the particles that a run has written.

        What the run was told to ignore is ignored; all else that it was told, its
        particles have.

        Raises
        ------
        InputError
            If passthrough tables are given, which go with no STAR file.
        """
        if self.passthrough:
            raise InputError(
                "--passthrough goes with a .cs file, and a run has its particles in "
                "particles.star, with all columns. Leave the option out"
            )
        ignored = record.arguments.get("ignore", ())
        return replace(self, ignore=tuple(dict.fromkeys((*self.ignore, *ignored))))

    @classmethod
    def of_arguments(cls, arguments: Mapping[str, Any]) -> Self:
        """Return how particles were read: the inverse of :meth:`arguments`.

        One that a record has not was not given.
        """
        found: dict[str, Any] = {
            name.replace("-", "_"): arguments.get(name)
            for name in AS_WRITTEN.arguments()
        }
        datadir = found.pop("datadir")
        return cls(
            **found
            | {
                "datadir": None if datadir is None else Path(datadir),
                "ignore": tuple(found["ignore"] or ()),
                "passthrough": tuple(map(Path, found["passthrough"] or ())),
            }
        )

    def of_own(self) -> Self:
        """Return the same for particles that the run so told has written itself.

        All that it was told, they have: a passthrough table is none of theirs, and
        numbers differ in the last digits of the file. Where the stacks are, and what
        is ignored, is told again.
        """
        return type(self)(datadir=self.datadir, ignore=self.ignore)

    def _of_library(self) -> dict[str, Any]:
        from cryoinfer.io.conventions.table import Microscope

        return {
            "datadir": self.datadir,
            "pixel_size_angstrom": self.pixel_size,
            "ignore": self.ignore,
            "passthrough": self.passthrough,
            "microscope": Microscope(self.voltage, self.cs, self.amplitude_contrast),
        }


def reads_particles(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of this module in place of its ``reading``.

    Parameters
    ----------
    command : function
        With a parameter ``reading`` of type :class:`ParticleOptions`.
    """

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        own = {name: given.pop(name) for name in _OPTIONS}
        for name in ("ignore", "passthrough"):
            own[name] = tuple(own[name] or ())
        command(**given, **{_PARAMETER: ParticleOptions(**own)})

    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name == _PARAMETER:
            parameters += [
                inspect.Parameter(name, keyword, default=None, annotation=kind)
                for name, kind in _OPTIONS.items()
            ]
        else:
            parameters.append(parameter.replace(kind=keyword))
    # Typer reads it; mypy knows no such attribute of functions.
    with_options.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        parameters
    )
    with_options.__annotations__ = {p.name: p.annotation for p in parameters}
    return with_options


AS_WRITTEN = ParticleOptions()
"""Particles as their file says they are."""
