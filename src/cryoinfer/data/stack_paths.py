"""Which file the name of a stack stands for; never one that only might be it."""

import functools
import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Literal

from cryoinfer.errors import InputError, MissingFileError
from cryoinfer.io.raw_text import encode, file_name, text_of_name

_FORMAT_MARK = ":mrcs"
_FORMS: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
_PIECES, _PIECE_BYTES = 16, 2**16


@dataclass(frozen=True)
class Place:
    """Where to look for stacks that metadata name.

    RELION and cryoSPARC name files relative to the root of their project, which is
    the metadata's folder or one above it. The working folder is not looked in: which
    images a name stands for would depend on where a command is started.

    Attributes
    ----------
    folder : Path
        Of the metadata.
    datadir : Path or None
        Named by the user. The name is followed in it as a whole, then without its
        first folder, without its first two, down to its last part.
    """

    folder: Path
    datadir: Path | None = None

    def find(self, name: str) -> Path | None:
        """Return the file that a name stands for, or None.

        Raises
        ------
        InputError
            If two files with other contents have equal claims to it.
        """
        found = self._find(name, _is_folder)
        return None if found is None else found.path

    def find_all(self, names: Sequence[str]) -> list[Path | None]:
        """Return the file of every name, None where there is none.

        Raises
        ------
        InputError
            As :meth:`find`, or if several names would become one file.
        """
        # Thousands of stacks share a few folders.
        is_folder = functools.cache(_is_folder)
        found = [self._find(name, is_folder) for name in names]
        self._require_distinct(names, found)
        return [None if one is None else one.path for one in found]

    def missing(self, missing: Sequence[str], total: int) -> MissingFileError:
        """Return the error about names that stand for no file."""
        first = missing[0]
        tried = f"Searched {self.folder.absolute()} and the folders above"
        if self.datadir is not None:
            tried += f", and {self.datadir} for ever shorter ends of the name"
        cure = "Say with --datadir where they are."
        here = Path(file_name(_bare(first)))
        if os.path.isfile(here):
            cure = (
                f"The working folder has {here}: if that is meant, give --datadir "
                f"{Path.cwd()}."
            )
        return MissingFileError(
            f"{len(missing)} of {total} stacks are missing, the first is "
            f"{_shown(first)}. {tried}. {cure}"
        )

    def require_folder(self) -> None:
        """Raise :class:`InputError` if the user's folder is none."""
        if self.datadir is not None and not os.path.isdir(self.datadir):
            raise MissingFileError(f"--datadir: there is no folder {self.datadir}")

    def _find(self, name: str, is_folder: Callable[[Path], bool]) -> "_Found | None":
        # Systems write letters with their accents as one character, or as two.
        spellings = dict.fromkeys(
            [name, *(unicodedata.normalize(f, name) for f in _FORMS)]
        )
        found = (self._find_spelled(spelling, is_folder) for spelling in spellings)
        return next((one for one in found if one is not None), None)

    def _find_spelled(
        self, name: str, is_folder: Callable[[Path], bool]
    ) -> "_Found | None":
        relative = PurePath(file_name(_bare(name)))
        if not relative.parts:
            return None
        whole = dict.fromkeys(above / relative for above in self._folders())
        found = [
            _Found(path, True)
            for path in whole
            if is_folder(path.parent) and os.path.isfile(path)
        ]
        if self.datadir is not None:
            found += _longest_end(self.datadir.absolute(), relative)
        if not found:
            return None
        for other in found[1:]:
            _require_same_content(name, found[0].path, other.path)
        # Of copies, the one in the folder that the user has named.
        return found[-1 if self.datadir is not None else 0]

    def _folders(self) -> list[Path]:
        """Return the folder of the metadata and those above, by either name of it."""
        # Not Path.resolve, which fails where links go in a circle.
        real = Path(os.path.realpath(self.folder))
        # What stands before `..` is not above.
        named = real if ".." in self.folder.parts else self.folder.absolute()
        return list(dict.fromkeys((named, *named.parents, real, *real.parents)))

    def _require_distinct(
        self, names: Sequence[str], found: "Sequence[_Found | None]"
    ) -> None:
        """Refuse two names, of which one was cut short, for one file."""
        if self.datadir is None:
            return
        first: dict[str, tuple[str, _Found]] = {}
        for name, one in zip(names, found, strict=True):
            if one is None:
                continue
            real = os.path.realpath(one.path)
            earlier, other = first.setdefault(real, (name, one))
            same = os.path.normpath(_bare(earlier)) == os.path.normpath(_bare(name))
            if not same and not (one.is_whole and other.is_whole):
                raise InputError(
                    f"The particles name {_shown(earlier)} and {_shown(name)}, but "
                    f"--datadir {self.datadir} has one file for both: {one.path}. Give "
                    "a folder that holds both, in folders called as in the names."
                )


@dataclass(frozen=True)
class _Found:
    """A file, and whether it was found by the whole name."""

    path: Path
    is_whole: bool


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)


def _bare(name: str) -> str:
    return name.removesuffix(_FORMAT_MARK)


def _shown(name: str) -> str:
    text = encode(name).decode("utf-8", "backslashreplace")
    return f"'{text}'" if len(text) <= 200 else f"'{text[:200]}...'"


def _longest_end(folder: Path, relative: PurePath) -> "list[_Found]":
    """Return the file of the longest end of a name that leads to one in a folder."""
    parts = relative.parts[1:] if relative.is_absolute() else relative.parts
    for i in range(len(parts)):
        path = folder.joinpath(*parts[i:])
        if os.path.isfile(path):
            return [_Found(path, i == 0 and not relative.is_absolute())]
    return []


def _require_same_content(name: str, one: Path, other: Path) -> None:
    """Raise :class:`InputError` unless two files are one, or look alike."""
    try:
        if os.path.samefile(one, other) or _content(one) == _content(other):
            return
    except OSError:
        pass  # what cannot be read is not known to be the same
    raise InputError(
        f"The particles name {_shown(name)}, which may be {one} or {other}: these "
        "files differ. Move away the one that is not meant, leave --datadir out where "
        "it is given, or write the whole path into the metadata."
    )


def _content(path: Path) -> tuple[int, tuple[bytes, ...]]:
    """Return the size of a file and some pieces, the first and the last among them."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        last = max(0, size - _PIECE_BYTES)
        pieces = []
        for i in range(_PIECES):
            file.seek(last * i // (_PIECES - 1))
            pieces.append(file.read(_PIECE_BYTES))
    return size, tuple(pieces)


def spell_names(stacks: Mapping[str, Path], folder: Path) -> dict[str, str]:
    """Return how metadata in ``folder`` should call stacks, by their old names.

    The old name stays where it still leads to the stack from there, so that RELION
    and cryoSPARC find it from the root of their project; otherwise the name is
    relative to ``folder``, or absolute if there is no such way (another drive).
    """
    return {name: _spelled(name, path, folder) for name, path in stacks.items()}


def _spelled(name: str, stack: Path, folder: Path) -> str:
    real = Path(os.path.realpath(stack))
    mark = _FORMAT_MARK if name.endswith(_FORMAT_MARK) else ""
    spellings = [name]
    with suppress(ValueError):  # another drive
        relative = Path(os.path.relpath(real, os.path.realpath(folder)))
        spellings.append(text_of_name(relative.as_posix()) + mark)
    for spelling in spellings:
        with suppress(InputError):  # another file has an equal claim to it
            found = Place(folder).find(spelling)
            if found is not None and found.samefile(stack):
                return spelling
    return text_of_name(real.as_posix()) + mark
