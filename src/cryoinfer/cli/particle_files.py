"""Particles checked, and written in another program's format."""

from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from cryoinfer.cli.nothing_found import inherited
from cryoinfer.cli.outputs import require_free_file, write_file
from cryoinfer.cli.particle_options import ParticleOptions
from cryoinfer.cli.terminal import say
from cryoinfer.data.cryodrgn import with_cryodrgn_ctf, with_cryodrgn_poses
from cryoinfer.data.finding import Finding
from cryoinfer.data.loading import is_bare
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.io.cryodrgn import read_ctf
from cryoinfer.io.cryosparc import tables_beside

_SNUG = 0.9
"""A particle wider than this part of its box has no solvent around it."""

DONE, HAS_ERRORS, UNUSABLE = 0, 1, 2


@dataclass(frozen=True)
class CryodrgnFiles:
    """Files of cryoDRGN about particles that have a file of their own.

    Attributes
    ----------
    poses, ctf : Path or None
    """

    poses: Path | None = None
    ctf: Path | None = None

    def given(self) -> list[Path]:
        """Return those that there are."""
        return [one for one in (self.poses, self.ctf) if one is not None]

    def load(self, source: Path, reading: ParticleOptions) -> Particles:
        """Read particles, with what these files say of them.

        Raises
        ------
        InputError
            If CTFs are given to particles that have metadata of their own, or with a
            pixel size beside theirs, or a file cannot be used.
        """
        if self.ctf is None:
            particles = reading.load(source)
        elif not is_bare(source):
            raise InputError(
                f"--ctf goes with a stack or a list of stacks, and {source} has "
                "metadata of its own. Leave it out, or name the stack."
            )
        elif reading.pixel_size is not None:
            raise InputError(f"{self.ctf} has the pixel size: leave --pixel-size out.")
        else:
            parameters = read_ctf(self.ctf)
            # One that the stack need not have; that of each image comes with its CTF.
            any_size = replace(reading, pixel_size=1.0)
            particles = with_cryodrgn_ctf(any_size.load(source), self.ctf, parameters)
        if self.poses is not None:
            particles = with_cryodrgn_poses(particles, self.poses)
        return particles


NO_FILES = CryodrgnFiles()


def check(
    path: Path,
    console: Console,
    *,
    reading: ParticleOptions,
    particle_diameter: float | None,
) -> int:
    """Print everything that could spoil a run.

    Parameters
    ----------
    path : Path
    console : Console
    reading : ParticleOptions
    particle_diameter : float, optional
        In angstrom; compared with the box.

    Returns
    -------
    int
        0 if no run would be stopped, 1 if one would, 2 if the file itself cannot be
        used.
    """
    findings = reading.check(path)
    is_usable = all(finding.severity != "error" for finding in findings)
    if is_usable:
        particles = reading.load(path)
        findings += _check_diameter(particle_diameter, particles)
    for finding in sorted(findings, key=lambda f: _ORDER.index(f.severity)):
        say(console, f"{finding.severity:<8} {finding.topic}: {finding.message}")
    counts = {s: sum(f.severity == s for f in findings) for s in _ORDER}
    found = ", ".join(f"{n} {s}{'s' * (n > 1)}" for s, n in counts.items() if n)
    what = path.name
    if is_usable:
        box, pixel_size = particles.box, particles.pixel_size_angstrom
        what += f" ({len(particles):,} particles, {box} px of {pixel_size:.4g} A)"
    say(console, f"{what}: {found or 'nothing to complain of'}.")
    if any(f.severity == "error" and f.topic == "file" for f in findings):
        return UNUSABLE
    return HAS_ERRORS if counts["error"] else DONE


def convert(
    source: Path,
    target: Path,
    console: Console,
    *,
    reading: ParticleOptions,
    cryodrgn: CryodrgnFiles = NO_FILES,
    overwrite: bool,
) -> None:
    """Write particles in the format that the ending of ``target`` says.

    Raises
    ------
    InputError
        If the particles, cryoDRGN's files or the ending cannot be used.
    OutputError
        If the target exists and must not be replaced, or is what is read: the
        particles, a table or a stack of theirs, by whichever name.
    """
    if target.suffix not in (".star", ".cs"):
        raise InputError(
            f"Cannot write particles as {target.name}: expected .star or .cs."
        )
    tables = [*reading.passthrough, *cryodrgn.given()]
    if source.suffix == ".cs":
        tables += tables_beside(source)
    require_free_file(target, source, *tables, overwrite=overwrite)
    particles = cryodrgn.load(source, reading)
    # Known only now; under another name a stack could be written over.
    stacks = [stack.path for stack in particles.stacks]
    require_free_file(target, *stacks, overwrite=overwrite)
    for remark in particles.remarks:
        say(console, remark)
    write_file(target, particles.save)
    for text in inherited(source):
        say(console, f"Caution: {text}")
    poses = "with" if particles.pose is not None else "without"
    say(console, f"Wrote {len(particles):,} particles {poses} poses to {target}")


_ORDER = ("error", "warning", "note")


def _check_diameter(diameter: float | None, particles: Particles) -> list[Finding]:
    side = particles.box * particles.pixel_size_angstrom
    if diameter is None or diameter <= _SNUG * side:
        return []
    message = (
        f"A particle of {diameter:g} A in a box of {side:.0f} A leaves no solvent "
        "around it, from which the noise is measured. Extract it in a larger box."
    )
    return [Finding("error" if diameter > side else "warning", "box", message)]
