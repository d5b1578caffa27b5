"""Ways in which a file may be other than a program expects."""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

Damage = Callable[[Path], None]
"""Spoils the file of that path."""


def _bytes(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


def _random(size: int) -> bytes:
    return np.random.default_rng(7).bytes(size)


def turned(*places: float) -> Damage:
    """Return what turns a bit at each of some shares of the length."""

    def turn(data: bytes) -> bytes:
        changed = bytearray(data)
        for place in places:
            changed[int(place * (len(data) - 1))] ^= 0x10
        return bytes(changed)

    return _bytes(turn)


def _linked(target: str) -> Damage:
    def link(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return link


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/null")


ANY: dict[str, Damage] = {
    "empty": _bytes(lambda data: b""),
    "one byte": _bytes(lambda data: data[:1]),
    "a tenth": _bytes(lambda data: data[: len(data) // 10]),
    "half": _bytes(lambda data: data[: len(data) // 2]),
    "without its end": _bytes(lambda data: data[:-30]),
    "zeros": _bytes(lambda data: bytes(len(data))),
    "noise": _bytes(lambda data: _random(len(data))),
    "noise in the middle": _bytes(
        lambda data: (
            data[: len(data) // 2] + _random(200) + data[len(data) // 2 + 200 :]
        )
    ),
    "bits turned at the beginning": turned(0.0005, 0.004),
    "bits turned": turned(0.3, 0.5, 0.7),
    "absent": Path.unlink,
    "a folder": _folder,
    "a link that leads nowhere": _linked("absent"),
    "a link to itself": _loop,
    "a device": _device,
}
"""Those that any file may meet with."""

PROSE = {
    "prose": _bytes(lambda data: b"Not the file that you are looking for.\n"),
    "a page of HTML": _bytes(lambda data: b"<!DOCTYPE html><html><body>404</body>"),
}

SURE = ("empty", "one byte", "zeros", "noise", "absent", "a folder")
SURE += ("a link that leads nowhere", "a link to itself", "a device")
"""After which no file can be used."""


# STAR files ---------------------------------------------------------------------


def column(name: str, value: str, rows: Iterable[int] = range(1, 10**6)) -> Damage:
    """Return what puts a value into a column, in rows from 0; all but the first."""

    def change(path: Path) -> None:
        lines, heads, row = [], [], 0
        for line in path.read_text().splitlines():
            if line.startswith("data_"):
                heads, row = [], 0
            elif line.startswith("_"):
                heads.append(line.split()[0][1:])
            elif heads and line.strip() and not line.startswith("#"):
                words = line.split()
                if name in heads and (row in rows or len(heads) < 9):
                    words[heads.index(name)] = value
                line, row = " ".join(words), row + 1
            lines.append(line)
        path.write_text("\n".join(lines) + "\n")

    return change


def text(old: str, new: str) -> Damage:
    """Return what replaces a text wherever it stands."""
    return _bytes(lambda data: data.replace(old.encode(), new.encode()))


def _without(name: str) -> Damage:
    return text(f"_{name} ", f"_x{name} ")


TABLE: dict[str, Damage] = {
    **{f"without {name}": _without(name) for name in ("rlnImageName", "rlnVoltage")},
    "without rlnImagePixelSize": _without("rlnImagePixelSize"),
    **{
        f"{name} {value}": column(name, value)
        for name, values in {
            "rlnImageName": (
                "0@particles.mrcs",
                "-1@particles.mrcs",
                "999@particles.mrcs",
                "1e23@particles.mrcs",
                "9" * 30 + "@particles.mrcs",
                "@",
                "1@",
                "none",
                "1@absent.mrcs",
                f"1@{'x' * 5000}.mrcs",
                "1@particles.star",
                "1@/dev/null",
            ),
            "rlnDefocusU": ("nan", "inf", "1e30", "x", "-1e9"),
            "rlnPhaseShift": ("nan", "1e30"),
            "rlnCtfBfactor": ("1e9", "nan"),
            "rlnCtfScalefactor": ("0", "nan", "-inf"),
            "rlnAngleRot": ("nan", "inf", "1e300", "x"),
            "rlnOriginXAngst": ("nan", "1e9", "x"),
            "rlnVoltage": ("0", "-300", "nan", "1e12", "x"),
            "rlnSphericalAberration": ("nan", "-1e9", "x"),
            "rlnAmplitudeContrast": ("7", "-1", "nan"),
            "rlnImagePixelSize": ("0", "-1", "nan", "inf", "1e9", "x"),
            "rlnImageSize": ("0", "-16", "17", "1e9", "x"),
            "rlnOpticsGroup": ("9", "0", "-1", "1e30", "x", "nan"),
        }.items()
        for value in values
    },
    "no particles": _bytes(lambda data: data[: data.index(b"000001@")]),
    "no optics": text("1 opticsGroup1 0.1 2.7 300 6.4 16 2\n", ""),
    "rows of other lengths": text("000005@particles.mrcs 1", "000005@particles.mrcs"),
    "a column twice": text("_rlnDefocusV #4", "_rlnDefocusU #4"),
    "no loop": text("loop_\n", ""),
    "a quote that is not closed": text("opticsGroup1", '"opticsGroup1'),
    "control characters": text("000005@particles", "000005@\x1b[31m\x07par\x00ticles"),
    "not UTF-8": _bytes(
        lambda data: data.replace(b"000005@par", b"000005@\xff\xfe\xe4")
    ),
}

# MRC files ----------------------------------------------------------------------


def word(place: int, value: float, kind: str = "<i4") -> Damage:
    """Return what puts a number into the header, place from 1 as MRC counts words."""

    def change(path: Path) -> None:
        data = bytearray(path.read_bytes())
        new = np.array([value]).astype(kind).tobytes()
        data[4 * (place - 1) : 4 * place] = new
        path.write_bytes(data)

    return change


def voxels(value: float, share: float = 0.0) -> Damage:
    """Return what puts a value into the first voxel and a share of all."""

    def change(path: Path) -> None:
        data = np.frombuffer(path.read_bytes()[1024:], "<f4").copy()
        data[: max(1, int(share * len(data)))] = value
        path.write_bytes(path.read_bytes()[:1024] + data.tobytes())

    return change


MRC: dict[str, Damage] = {
    **{f"nx {n}": word(1, n) for n in (0, -1, 7, 2**31 - 1)},
    **{f"nz {n}": word(3, n) for n in (0, -5, 1, 99999)},
    **{f"mode {n}": word(4, n) for n in (3, 4, 99, -1)},
    **{f"header of {n} bytes": word(24, n) for n in (-4, 7, 2**30)},
    **{f"xlen {n}": word(11, n, "<f4") for n in (0.0, -5.0, np.nan, np.inf, 1e30)},
    **{f"mx {n}": word(8, n) for n in (0, -3)},
    "axes 1 1 1": word(18, 1),
    "no sign of the format": word(53, 0),
    "the other order of bytes": word(54, 0x11110000 - 2**32 if False else 4369),
    "one NaN": voxels(np.nan),
    "one infinite": voxels(np.inf),
    "all NaN": voxels(np.nan, 1.0),
    "all zero": voxels(0.0, 1.0),
    "all the same": voxels(3.0, 1.0),
    "one 1e38": voxels(1e38),
}

# Models ---------------------------------------------------------------------------

MODEL: dict[str, Damage] = {
    "coordinates NaN": text(" 1 1 ", " nan nan "),
    "no atoms": _bytes(lambda data: data[: data.index(b"ATOM")]),
    "one atom": _bytes(
        lambda data: data[: data.index(b"\nATOM", data.index(b"ATOM")) + 1]
    ),
    "without coordinates": text("_atom_site.Cartn_x", "_atom_site.none"),
    "an element that is none": text(" C ", " Qq "),
}

# Run records ------------------------------------------------------------------------


def record(**values: object) -> Damage:
    """Return what puts values into run.json, or takes out those that are ..."""

    def change(path: Path) -> None:
        found = json.loads(path.read_text())
        for name, value in values.items():
            if value is ...:
                del found[name]
            else:
                found[name] = value
        path.write_text(json.dumps(found))

    return change


RECORD: dict[str, Damage] = {
    **{f"without {name}": record(**{name: ...}) for name in ("status", "results")},
    "of an unknown workflow": record(workflow="dance"),
    "of an unknown status": record(status="asleep"),
    "status a list": record(status=["finished"]),
    "results a list": record(results=[1]),
    "results empty": record(results={}),
    "results of other kinds": record(results={"symmetry": 5, "particles": "x"}),
    "arguments a text": record(arguments="x"),
    "iterations of numbers": record(iterations=[1, 2]),
    "iterations of other keys": record(iterations=[{"a": 1}]),
    "times of text": record(stage_seconds={"search": "long"}),
    "a list": _bytes(lambda data: b"[1, 2]"),
    "deep": _bytes(lambda data: b"[" * 100_000),
    "a number": _bytes(lambda data: b"1e999"),
}


def removed(path: Path) -> None:
    """Remove whatever is at a path."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif os.path.lexists(path):
        path.unlink()
