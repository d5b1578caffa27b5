"""Folders of prepared particles: shards of images, and an index of them.

A folder holds ``particles.star`` (for cryoSPARC's also ``particles.cs``), a few stacks
of float16 images, the shards, and ``prepared.json``. The shards know which index they
belong to by a label in their headers, so that one of another folder is not taken for
one of this. Nothing here needs PyTorch: who mistypes a name is told at once.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from cryoinfer import __version__
from cryoinfer.errors import InputError, MissingFileError
from cryoinfer.io.files import content_sha256
from cryoinfer.io.replacing import replace_file

INDEX = "prepared.json"
PARTICLES, CRYOSPARC_PARTICLES = "particles.star", "particles.cs"
SHARD = "images_{:04d}.mrcs"

_FORMAT = 1
_HEADER_BYTES, _LABEL_BYTES, _SECOND_LABEL = 1024, 80, 224 + 80
_KEY_DIGITS = 40


@dataclass(frozen=True)
class Shard:
    """One stack of prepared images.

    Attributes
    ----------
    name : str
        Of the file.
    images, box : int
        How many, and their size in pixels.
    bytes : int
        Of the file.
    sha256 : str
        Of the pixels, without the header.
    unreadable, flat, clipped : tuple of int
        Rows, from 0, of the particles' file, whose images hold values that are no
        number; are constant around the particle; hold values beyond float16.
    """

    name: str
    images: int
    box: int
    bytes: int
    sha256: str
    unreadable: tuple[int, ...] = ()
    flat: tuple[int, ...] = ()
    clipped: tuple[int, ...] = ()


@dataclass(frozen=True)
class ShardIndex:
    """What ``prepared.json`` holds.

    Attributes
    ----------
    source : dict
        Of the particles that were prepared: their ``path``, the options of ``reading``
        them, and what tells whether they have changed since.
    settings : dict
        What was asked for.
    particles : str
        Name of the file that stands for the folder.
    count : int
        How many particles there are.
    shards : tuple of Shard
        Those that are written.
    finished : bool
        Whether that is all of them.
    particles_sha256 : str
        Of the file of particles as it was written.
    version : str
        Of the program.
    format : int
        Of this file.
    """

    source: dict[str, Any]
    settings: dict[str, Any]
    particles: str
    count: int
    shards: tuple[Shard, ...] = ()
    finished: bool = False
    particles_sha256: str = ""
    version: str = __version__
    format: int = _FORMAT

    @property
    def key(self) -> str:
        """What tells shards of this index from those of another one."""
        made_of = {k: v for k, v in self.source.items() if k != "path"}
        decisive = [self.format, made_of, self.settings, self.count]
        text = json.dumps(decisive, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:_KEY_DIGITS]

    def label(self, name: str) -> str:
        """Return what the header of a shard says whose it is."""
        return f"{name} of {self.key}"

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the index of a folder.

        Raises
        ------
        InputError
            If it is damaged, or of a later version.
        """
        path = folder / INDEX
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(values["format"], int) and values["format"] > _FORMAT:
                raise InputError(
                    f"{path} is of a later version of cryoinfer "
                    f"({str(values['version'])[:50]}): use that version, or prepare "
                    "the particles again."
                )
            shards = tuple(_shard(one) for one in values.pop("shards"))
            given = {
                one.name: values[one.name] for one in fields(cls) if one.name in values
            }
            index = cls(**given, shards=shards)
            index._require_types()
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} is missing or damaged: expected the index that `cryoinfer "
                "prepare` has written. Copy it again, or prepare the particles again."
            ) from error
        return index

    def write(self, folder: Path) -> None:
        """Write the index, all of it or nothing."""
        text = json.dumps(asdict(self), indent=1) + "\n"
        replace_file(folder / INDEX, lambda path: path.write_text(text))

    def is_whole(self, shard: Shard, folder: Path) -> bool:
        """Tell whether a shard is there, of its length and of this index."""
        path = folder / shard.name
        try:
            same_length = path.stat().st_size == shard.bytes
        except OSError:
            return False
        return same_length and _label_of(path) == self.label(shard.name)

    def require_shard(self, shard: Shard, folder: Path) -> None:
        """Refuse a shard that is not there, is cut off, or belongs elsewhere.

        Raises
        ------
        MissingFileError, InputError
        """
        path = folder / shard.name
        if not os.path.isfile(path):
            raise MissingFileError(
                f"{path} is missing: {INDEX} beside it lists it with "
                f"{len(self.shards)} shards. Copy the folder again, or prepare the "
                "particles again."
            )
        found = path.stat().st_size
        if found != shard.bytes:
            raise InputError(
                f"{path} has {found:,} bytes: expected the {shard.bytes:,} of "
                f"{INDEX} beside it. Copy the folder again, or prepare the particles "
                "again."
            )
        if _label_of(path) != self.label(shard.name):
            raise InputError(
                f"{path} is a shard of other particles than {INDEX} beside it tells "
                "of. Copy the folder again, or prepare the particles again."
            )

    def _require_types(self) -> None:
        for one, kind in (
            (self.source["path"], str),
            (self.source["reading"], dict),
            (self.settings, dict),
            (self.particles, str),
            (self.count, int),
            (self.finished, bool),
            (self.particles_sha256, str),
        ):
            if not isinstance(one, kind):
                raise TypeError(f"{one!r} is no {kind}")
        if self.particles not in (PARTICLES, CRYOSPARC_PARTICLES):
            raise ValueError(self.particles)


def is_prepared(path: Path) -> bool:
    """Tell whether a path is a folder of prepared particles."""
    # Not Path.is_file, which fails where a name is too long.
    return os.path.isdir(path) and os.path.isfile(path / INDEX)


def particle_file_of(path: Path) -> Path:
    """Return the file of particles that a path means: of a prepared folder, its own.

    Raises
    ------
    MissingFileError, InputError
        If a prepared folder is not finished, or lacks a shard.
    """
    folder = path if is_prepared(path) else path.parent
    is_own = path.name in (PARTICLES, CRYOSPARC_PARTICLES)
    if not (is_own or folder == path) or not os.path.isfile(folder / INDEX):
        return path
    index = ShardIndex.read(folder)
    if not index.finished:
        raise InputError(
            f"The particles in {folder} are not all prepared. Finish it first with "
            "`cryoinfer prepare --resume` and the options that it was started with."
        )
    for shard in index.shards:
        index.require_shard(shard, folder)
    return folder / index.particles if folder == path else path


def require_own_shards(stacks: Iterable[Path], pixels: bool = False) -> None:
    """Refuse stacks that lie where an index tells of others by their names.

    Parameters
    ----------
    stacks : iterable of Path
        Shards or not.
    pixels : bool
        Whether to read the pixels of shards, and compare them with those written.

    Raises
    ------
    InputError
    """
    by_folder: dict[Path, list[str]] = {}
    for path in stacks:
        by_folder.setdefault(path.parent, []).append(path.name)
    for folder, names in by_folder.items():
        if not os.path.isfile(folder / INDEX):
            continue
        index = ShardIndex.read(folder)
        own = {shard.name: shard for shard in index.shards}
        for shard in (own[name] for name in names if name in own):
            index.require_shard(shard, folder)
            if (
                pixels
                and content_sha256(folder / shard.name, _HEADER_BYTES) != shard.sha256
            ):
                raise InputError(
                    f"{folder / shard.name} is damaged: its pixels are not those that "
                    f"{INDEX} beside it tells of. Copy the folder again, or prepare "
                    "the particles again."
                )


def _shard(values: Mapping[str, Any]) -> Shard:
    rows = {x: tuple(map(int, values[x])) for x in ("unreadable", "flat", "clipped")}
    return Shard(
        name=str(values["name"]),
        images=int(values["images"]),
        box=int(values["box"]),
        bytes=int(values["bytes"]),
        sha256=str(values["sha256"]),
        **rows,
    )


def _label_of(path: Path) -> str:
    """Return the second label of a stack's header."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    label = header[_SECOND_LABEL : _SECOND_LABEL + _LABEL_BYTES]
    return label.rstrip(b"\0 ").decode("ascii", "replace")
