"""What a command would do, and what it would take: told before it begins."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console

from cryoinfer.cli.estimate import Estimate
from cryoinfer.cli.terminal import say, say_rows
from cryoinfer.data.particles import Particles
from cryoinfer.errors import OutputError
from cryoinfer.wording import format_bytes, format_duration


@dataclass(frozen=True)
class Plan:
    """What would be done.

    Attributes
    ----------
    work : str
        The command, and what decides how long it takes.
    particles : Particles
    out : Path
    threads : int
    estimate : Estimate
    """

    work: str
    particles: Particles
    out: Path
    threads: int
    estimate: Estimate

    def require_disk(self) -> None:
        """Refuse to begin what will not fit on the disk.

        Raises
        ------
        OutputError
        """
        needed, free = self.estimate.disk_bytes, free_bytes(self.out)
        if free < needed:
            raise OutputError(
                f"The run needs about {format_bytes(needed)} in {self.out}, "
                f"where {format_bytes(free)} are free. Free some space, or give "
                "another folder."
            )

    def print(self, console: Console) -> None:
        """Say what would be done and what it would take."""
        particles, estimate = self.particles, self.estimate
        groups = len(particles.optics.group.unique())
        ctf = "with CTF" if particles.has_ctf else "without CTF"
        available = psutil.virtual_memory().available
        rows = {
            "Would run": f"cryoinfer {self.work}, into {self.out}",
            "Particles": f"{len(particles):,} of {particles.box} px, "
            f"{particles.pixel_size_angstrom:.4g} A a pixel, {ctf}, "
            f"{groups} optics group{'s' if groups > 1 else ''}",
            "Machine": f"{self.threads} thread{'s' if self.threads > 1 else ''}",
            "Memory": f"about {format_bytes(estimate.memory_bytes)} "
            f"(available: {format_bytes(available)})",
            "Disk": f"about {format_bytes(estimate.disk_bytes)} "
            f"(free: {format_bytes(free_bytes(self.out))})",
            "Time": f"roughly {format_duration(estimate.seconds)}",
        }
        say_rows(console, rows)
        for remark in particles.remarks:
            say(console, remark)
        if estimate.memory_bytes > available:
            say(console, "The memory is short: use fewer particles or a smaller box.")
        say(console, "Nothing was written.")


def free_bytes(folder: Path) -> int:
    """Return the free space where a folder is or will be."""
    above = [folder.absolute(), *folder.absolute().parents]
    return shutil.disk_usage(next(f for f in above if f.exists())).free
