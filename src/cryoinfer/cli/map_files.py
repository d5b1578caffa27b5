"""Maps compared and mirrored."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from cryoinfer.cli import run_folder
from cryoinfer.cli.particle_options import AS_WRITTEN, ParticleOptions
from cryoinfer.cli.report_page import write_report
from cryoinfer.cli.run_files import (
    CORRECTED,
    MASKED,
    RANDOMISED,
    UNMASKED,
    Posteriors,
    save_map,
    save_particles,
    write_fsc,
)
from cryoinfer.cli.run_folder import clear, require_finished
from cryoinfer.cli.terminal import say, say_rows
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError, OutputError
from cryoinfer.evaluation import fourier_shell_correlation, masked_fsc, resolution_at
from cryoinfer.io.conventions.poses import flip_hand
from cryoinfer.io.mrc import MapFile, read_map

_MAP_ENDINGS = (".mrc", ".map")
_THRESHOLDS = (0.143, 0.5)
# S exp(w) S = exp(-S w): the rotation vector changes its sign in x and y.
_LATENT_SIGNS = np.array([-1.0, -1.0, 1.0, 1.0, 1.0, 1.0])


def compare(
    first: Path, second: Path, mask: Path | None, out: Path | None, console: Console
) -> None:
    """Print the resolution at which two half-maps agree, and write the curves.

    Raises
    ------
    InputError
        If the maps cannot be used or are sampled differently.
    """
    half1, half2 = read_map(first), read_map(second)
    _require_same_sampling(first, half1, second, half2)
    if mask is None:
        maps = torch.tensor(half1.density), torch.tensor(half2.density)
        curves = {UNMASKED: fourier_shell_correlation(*maps)}
    else:
        mask_map = read_map(mask, half1.pixel_size_angstrom)
        curve = masked_fsc(
            torch.tensor(half1.density),
            torch.tensor(half2.density),
            torch.tensor(mask_map.density),
            torch.Generator().manual_seed(0),
        )
        curves = {
            CORRECTED: curve.corrected,
            UNMASKED: curve.unmasked,
            MASKED: curve.masked,
            RANDOMISED: curve.randomised,
        }
    names = {
        CORRECTED: "masked, corrected",
        MASKED: "masked, uncorrected",
        UNMASKED: "unmasked",
    }
    box, pixel_size = len(half1.density), half1.pixel_size_angstrom
    rows = {}
    for label in names.keys() & curves.keys():
        for threshold in _THRESHOLDS:
            found = resolution_at(curves[label], threshold, box, pixel_size)
            rows[f"FSC {threshold}, {names[label]}"] = f"{found:.2f} A"
    say_rows(console, dict(sorted(rows.items())))
    if out is not None:
        write_fsc(out, curves, pixel_size)
        say(console, f"Curves written to {out}")


def flip(
    source: Path,
    particles: Path | None,
    out: Path,
    overwrite: bool,
    console: Console,
    reading: ParticleOptions = AS_WRITTEN,
) -> None:
    """Mirror maps and poses together: V'(r) = V(S r), R' = S R S, S = diag(1, 1, -1).

    Parameters
    ----------
    source : Path
        Folder of a finished run, or a map.
    particles : Path or None
        Particles whose poses go with the map; a run has its own.
    out : Path
        A folder; or, for a map alone, a file that ends in ``.mrc``.
    overwrite : bool
    console : Console
    reading : ParticleOptions

    Raises
    ------
    InputError
        If the source cannot be used, or particles have no poses.
    OutputError
        If the target exists and must not be replaced.
    """
    if source.is_dir():
        if particles is not None:
            raise InputError(f"{source} is a run and has its own particles: name none.")
        _flip_run(source, out, overwrite, reading)
    elif out.suffix in _MAP_ENDINGS and particles is None:
        _require_absent(out, overwrite)
        _flip_map(source, out)
    elif out.suffix in _MAP_ENDINGS:
        raise OutputError(
            f"{out} is a map, but particles are given too: name a folder."
        )
    else:
        _flip_files(source, particles, out, overwrite, reading)
    say(console, f"The mirror image is in {out}")


def mirror_density(density: Tensor) -> Tensor:
    """Return V(S r): flipped along z about the voxel ``n // 2``.

    Parameters
    ----------
    density : Tensor, shape (n, n, n)
    """
    flipped = density.flip(0)
    # On an even box the flip moves the centre by one voxel.
    return flipped.roll(1, 0) if len(density) % 2 == 0 else flipped


def _flip_run(
    source: Path, out: Path, overwrite: bool, reading: ParticleOptions
) -> None:
    """Write the mirror image of a run as a run of its own."""
    record = require_finished(source)
    if source.resolve() == out.resolve():
        raise OutputError(f"{out} is the run itself: give another folder.")
    flipped = reading.of_run(record).load(source / run_folder.PARTICLES)
    run_folder.require_free(out, record, resume=False, overwrite=overwrite)
    _make_folder(out)
    clear(out)
    replace(record, status="running").write(out)
    for name in (run_folder.MAP, run_folder.HALF1, run_folder.HALF2, run_folder.MASK):
        _flip_map(source / name, out / name)
    for name in (run_folder.FSC, run_folder.NOISE):
        if (source / name).exists():
            shutil.copyfile(source / name, out / name)
    _flip_poses(flipped, out / run_folder.PARTICLES)
    posteriors = Posteriors.read(source)
    if posteriors is not None:
        _mirror_posteriors(posteriors).write(out)
    write_report(out)
    replace(record, mirrored=not record.mirrored).write(out)


def _flip_files(
    source: Path,
    particles: Path | None,
    out: Path,
    overwrite: bool,
    reading: ParticleOptions,
) -> None:
    targets = [out / run_folder.MAP]
    if particles is not None:
        targets.append(out / run_folder.PARTICLES)
    for target in targets:
        _require_absent(target, overwrite)
    loaded = None if particles is None else reading.load(particles)
    found = read_map(source)
    _make_folder(out)
    if loaded is not None:
        _flip_poses(loaded, out / run_folder.PARTICLES)
    density = mirror_density(torch.tensor(found.density))
    save_map(out / run_folder.MAP, density, found.pixel_size_angstrom)


def _flip_map(source: Path, target: Path) -> None:
    found = read_map(source)
    density = mirror_density(torch.tensor(found.density))
    save_map(target, density, found.pixel_size_angstrom)


def _flip_poses(particles: Particles, target: Path) -> None:
    if particles.pose is None:
        raise InputError(
            "The particles have no poses to be mirrored: mirror the map alone."
        )
    save_particles(target, particles.with_results(pose=flip_hand(particles.pose)))


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


def _require_same_sampling(
    first: Path, half1: MapFile, second: Path, half2: MapFile
) -> None:
    ratio = half1.pixel_size_angstrom / half2.pixel_size_angstrom
    if half1.density.shape != half2.density.shape or abs(ratio - 1) > 0.01:
        raise InputError(
            f"{first} has {len(half1.density)} voxels of "
            f"{half1.pixel_size_angstrom:.4g} A, {second} {len(half2.density)} of "
            f"{half2.pixel_size_angstrom:.4g} A: half-maps must agree in both."
        )


def _require_absent(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists: give another name, or --overwrite.")


def _make_folder(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"Cannot make {path}: {error.strerror}.") from error
