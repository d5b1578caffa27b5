"""Maps and poses mirrored."""

import shutil
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from cryoinfer.cli import run_folder
from cryoinfer.cli.map_inputs import MAP_OPTION, read_named_map
from cryoinfer.cli.nothing_found import inherited
from cryoinfer.cli.outputs import (
    is_same_file,
    make_folder,
    require_free_file,
    write_file,
)
from cryoinfer.cli.particle_options import AS_WRITTEN, ParticleOptions
from cryoinfer.cli.report_page import read_content, write_report
from cryoinfer.cli.results import CAUTIONS
from cryoinfer.cli.run_folder import clear
from cryoinfer.cli.terminal import say
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, OutputError
from cryoinfer.geometry.hand import flip_hand, mirror_density
from cryoinfer.io.mrc import MapFile, read_map, write_map
from cryoinfer.results import layout
from cryoinfer.results.posterior_files import Posteriors
from cryoinfer.results.run_files import (
    read_run_mask,
    read_spectra,
    save_map,
    save_particles,
)
from cryoinfer.results.run_record import RunRecord, require_finished

_MAP_ENDINGS = (".mrc", ".map")
_RUN_MAPS = (layout.MAP, layout.HALF1, layout.HALF2)
# S exp(w) S = exp(-S w): the rotation vector changes its sign in x and y.
_LATENT_SIGNS = np.array([-1.0, -1.0, 1.0, 1.0, 1.0, 1.0])


@dataclass(frozen=True)
class FlipOptions:
    """What a user asks to be mirrored.

    Attributes
    ----------
    source : Path
        Folder of a finished run, or a map.
    out : Path
        A folder; or, for a map alone, a file that ends in ``.mrc``.
    particles : Path or None
        Particles whose poses go with the map; a run has its own.
    map_pixel_size : float or None
        In angstrom, instead of the map's header.
    overwrite : bool
    reading : ParticleOptions
    """

    source: Path
    out: Path
    particles: Path | None = None
    map_pixel_size: float | None = None
    overwrite: bool = False
    reading: ParticleOptions = AS_WRITTEN

    def require_used(self) -> None:
        """Refuse what says nothing of this source.

        Raises
        ------
        InputError
        """
        if self.source.is_dir() and self.particles is not None:
            raise InputError(
                f"{self.source} is a run and has its own particles: give none."
            )
        if self.source.is_dir() and self.map_pixel_size is not None:
            raise InputError(
                f"{MAP_OPTION} goes with a map, and {self.source} is a run, whose maps "
                "have theirs. Leave it out."
            )
        # The pixel size of particles is that of a map which has none.
        of_particles = replace(self.reading, pixel_size=None)
        alone = self.particles is None and not self.source.is_dir()
        if alone and of_particles != AS_WRITTEN:
            raise InputError(
                "options about particles are given, and no particles. Give them after "
                f"{self.source}, or leave the options out."
            )

    def density(self) -> MapFile:
        """Read the map."""
        return read_named_map(
            self.source, self.map_pixel_size, MAP_OPTION, self.reading.pixel_size
        )


def flip(options: FlipOptions, console: Console) -> None:
    """Mirror maps and poses together: V'(r) = V(S r), R' = S R S, S = diag(1, 1, -1).

    Parameters
    ----------
    options : FlipOptions
    console : Console

    Raises
    ------
    InputError
        If the source cannot be used, or particles have no poses.
    OutputError
        If the target is what is read, or exists and must not be replaced.
    """
    source, particles, out = options.source, options.particles, options.out
    options.require_used()
    warned = inherited(source, particles)
    if source.is_dir():
        _flip_run(options)
        warned = RunRecord.read(out).results.get(CAUTIONS, ())
    elif out.suffix in _MAP_ENDINGS and particles is None:
        require_free_file(out, source, overwrite=options.overwrite)
        density, pixel_size = _mirrored(options.density())
        write_file(out, lambda part: write_map(part, density, pixel_size))
    elif out.suffix in _MAP_ENDINGS:
        raise OutputError(
            f"{out} is a map, but particles are given too: give a folder."
        )
    else:
        _flip_files(options)
    say(console, f"The mirror image is in {out}")
    for text in warned:
        say(console, f"Caution: {text}")


def _flip_run(options: FlipOptions) -> None:
    """Write the mirror image of a run as a run of its own."""
    source, out = options.source, options.out
    record = require_finished(source)
    if is_same_file(source, out):
        raise OutputError(f"{out} is the run itself: give another folder.")
    run_folder.require_no_run(out, options.overwrite)
    # All is read before anything is removed, what the report will show among it.
    particles = _flipped(options.reading.of_run(record).load(_particles_of(source)))
    maps = {name: _mirrored(read_map(source / name)) for name in _RUN_MAPS}
    maps[layout.MASK] = _mirrored(read_run_mask(source))
    posteriors = Posteriors.read(source)
    read_content(source), read_spectra(source)
    make_folder(out)
    clear(out)
    replace(record, status="running").write(out)
    for name, (density, pixel_size) in maps.items():
        save_map(out / name, density, pixel_size)
    # A mirrored map at mirrored poses has the projections that the map has.
    for name in (layout.FSC, layout.NOISE, layout.GALLERY):
        if (source / name).exists():
            copy = partial(shutil.copyfile, source / name)
            write_file(out / name, copy)
    save_particles(_particles_of(out), particles)
    if posteriors is not None:
        _mirror_posteriors(posteriors).write(out)
    write_report(out)
    replace(record, mirrored=not record.mirrored).write(out)


def _flip_files(options: FlipOptions) -> None:
    out, given = options.out, options.particles
    inputs = [options.source, *([] if given is None else [given])]
    targets = [out / layout.MAP, *([] if given is None else [_particles_of(out)])]
    for target in targets:
        require_free_file(target, *inputs, overwrite=options.overwrite)
    flipped = None if given is None else _flipped(options.reading.load(given))
    density, pixel_size = _mirrored(options.density())
    make_folder(out)
    if flipped is not None:
        save_particles(_particles_of(out), flipped)
    save_map(out / layout.MAP, density, pixel_size)


def _particles_of(folder: Path) -> Path:
    return folder / layout.PARTICLES


def _mirrored(found: MapFile) -> tuple[Tensor, float]:
    return mirror_density(torch.tensor(found.density)), found.pixel_size_angstrom


def _flipped(particles: Particles) -> Particles:
    if particles.pose is None:
        why = particles.pose_problem or "The particles have no poses to be mirrored."
        raise InputError(f"{why} Mirror the map alone.")
    return particles.with_results(pose=flip_hand(particles.pose))


def _mirror_posteriors(posteriors: Posteriors) -> Posteriors:
    size = len(_LATENT_SIGNS)
    upper = np.triu_indices(size)
    signs = np.outer(_LATENT_SIGNS, _LATENT_SIGNS)[upper].astype(np.float32)
    axis = np.array([1.0, 1.0, -1.0], dtype=np.float32)
    mirror = np.outer(axis, axis)  # S R S, entry by entry
    return replace(
        posteriors,
        rotation=posteriors.rotation * mirror,
        covariance_upper=posteriors.covariance_upper * signs,
        mode_rotation=posteriors.mode_rotation * mirror,
    )
