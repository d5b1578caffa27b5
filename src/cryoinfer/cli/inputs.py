"""Inputs that are not there, told in the readers' words before anything is imported.

PyTorch alone takes seconds; who mistypes a name should not wait for it. Each function
is the callback of an argument or option: it returns what it was given, or refuses it.
"""

import os
from collections.abc import Callable
from pathlib import Path

from cryoinfer.data.shards import INDEX, is_prepared, particle_file_of
from cryoinfer.data.structure_names import PRESET_NAMES, require_structure
from cryoinfer.errors import InputError, MissingFileError
from cryoinfer.io.files import require_file
from cryoinfer.results import layout
from cryoinfer.results.layout import RECORD
from cryoinfer.results.run_record import RunRecord, require_finished

_PARTICLE_FILES = {
    ".star": "STAR file",
    ".cs": "cryoSPARC file",
    ".mrcs": "MRC file",
    ".mrc": "MRC file",
}


def a_file(kind: str) -> Callable[[Path | None], Path | None]:
    """Return the callback that refuses what leads to no file of a kind."""

    def check(path: Path | None) -> Path | None:
        if path is not None:
            require_file(path, kind)
        return path

    return check


def files(kind: str) -> Callable[[list[Path] | None], list[Path] | None]:
    """Return the callback that refuses a list in which one leads to no file."""

    def check(paths: list[Path] | None) -> list[Path] | None:
        for path in paths or ():
            require_file(path, kind)
        return paths

    return check


def particle_file(path: Path | None) -> Path | None:
    """Refuse particles that are not there; of a prepared folder, return its file."""
    if path is None:
        return None
    if os.path.isdir(path) and not is_prepared(path):
        raise InputError(
            f"{path} is a folder without {INDEX}: expected a file of particles, or a "
            "folder that `cryoinfer prepare` has written"
        )
    found = particle_file_of(path)
    require_file(found, _PARTICLE_FILES.get(found.suffix, "file"))
    return found


def map_or_run(path: Path) -> Path:
    """Refuse what is neither the folder of a finished run nor a file."""
    if path.is_dir():
        require_finished(path)
    else:
        require_file(path, "MRC file")
    return path


def run_or_particles(path: Path) -> Path:
    """Refuse what is neither the folder of a finished run nor particles."""
    if path.is_dir() and not is_prepared(path):
        require_finished(path)
        return path
    return particle_file(path) or path


def run(folder: Path) -> Path:
    """Refuse what is not the folder of a run."""
    RunRecord.read(folder)
    return folder


def finished_run(folder: Path | None) -> Path | None:
    """Refuse what is not the folder of a finished run, if anything is given."""
    if folder is not None:
        require_finished(folder)
    return folder


def structure(name: str) -> str:
    """Refuse what is neither an example nor a file."""
    require_structure(name)
    return name


def structure_or_preset(name: str) -> str:
    """Refuse what is neither a preset, nor an example, nor a file."""
    return name if name in PRESET_NAMES else structure(name)


def other_structure(name: str | None) -> str | None:
    """Refuse what is neither an example nor a file, if anything is given."""
    return None if name is None else structure(name)


def other_structures(names: list[str] | None) -> list[str] | None:
    """Refuse a list in which one is neither an example nor a file."""
    for name in names or ():
        structure(name)
    return names


def truth(folder: Path) -> Path:
    """Refuse what does not hold the truth about particles."""
    require_truth(folder / "truth.star")
    return folder


def require_truth(path: Path) -> Path:
    """Refuse a file that is not there, where a truth belongs.

    Raises
    ------
    MissingFileError
    """
    if not path.is_file():
        raise MissingFileError(
            f"{path} is missing. The truth is a folder written by `cryoinfer simulate`."
        )
    return path


def encoder_file(source: Path) -> Path:
    """Return the file of an encoder, which may be named by its folder.

    Raises
    ------
    InputError
        If it is not there, or is to be in the folder of a run that has not finished.
    """
    file = source
    if source.is_dir():
        file = source / layout.ENCODER
        if not file.exists() and (source / RECORD).exists():
            require_finished(source)
    require_file(file, "encoder, or run of `cryoinfer heterogeneity`")
    return file


def inference_path(source: Path) -> Path:
    """Return the file of an encoder, or the folder of a run that is searched in.

    Parameters
    ----------
    source : Path
        Folder of an encoder, or its file; or of a finished run about conformations,
        which is searched in where it has no encoder.

    Raises
    ------
    InputError
        If it is neither.
    """
    if source.is_dir() and not (source / layout.ENCODER).exists():
        if (source / RECORD).exists() and require_finished(source).has_conformations:
            return source
    return encoder_file(source)


def encoder(source: Path) -> Path:
    """Refuse what is no encoder, and no run about conformations."""
    inference_path(source)
    return source


def require_unseen(
    particles: Path, watch: bool, until_idle: float | None, dry_run: bool
) -> Path:
    """Refuse options of ``infer`` that contradict each other, or what is there.

    Returns
    -------
    Path
        The file of particles, or the folder to watch.

    Raises
    ------
    InputError
    """
    if not watch and until_idle is not None:
        raise InputError(
            "--until-idle goes with --watch: an inference of one file ends with it"
        )
    if watch and dry_run:
        raise InputError(
            "--dry-run says what a file takes, and none knows what a watch will find: "
            "name a file of the folder, without --watch"
        )
    if until_idle is not None and until_idle <= 0:
        raise InputError(
            "--until-idle expects more than 0 seconds, found "
            f"{until_idle:g}. Leave it out to watch until Ctrl-C"
        )
    if watch and not particles.is_dir():
        raise InputError(
            f"--watch expects a folder in which .star or .cs files appear, found "
            f"{particles}. Name the folder, or leave --watch out"
        )
    if watch:
        return particles
    if particles.is_dir() and not is_prepared(particles):
        raise InputError(
            f"{particles} is a folder: give --watch to infer the files that "
            "appear in it, or name a file"
        )
    return particle_file(particles) or particles
