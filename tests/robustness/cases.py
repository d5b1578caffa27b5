"""Malformed inputs: which command gets which file, and how it is damaged."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from robustness.damages import ANY, MODEL, MRC, PROSE, RECORD, SURE, TABLE, Damage


@dataclass(frozen=True)
class Case:
    """A command and what is wrong with what it is given.

    Attributes
    ----------
    words : tuple of str
        Of the command, run in the folder of the inputs.
    file : str
        Which of them is damaged; empty for none.
    damage : str
        Its name.
    spoil : function of a path, or None
    must_refuse : bool
        Whether the right answer can only be a refusal.
    """

    words: tuple[str, ...]
    file: str = ""
    damage: str = ""
    spoil: Damage | None = field(default=None, compare=False)
    must_refuse: bool = False

    def __str__(self) -> str:
        short = [one if len(one) < 40 else f"{one[:20]}..." for one in self.words]
        return " ".join(short) + (f" ({self.file}: {self.damage})" if self.file else "")


OUT = ("--out", "out")
DRY = ("--threads", "1", "--dry-run")

_READ_TABLE = (
    ("check", "particles.star"),
    ("convert", "particles.star", "out/p.cs"),
    ("select", "particles.star", "--where", "rlnDefocusU > 0", "--out", "out/p.star"),
    ("abinitio", "particles.star", *OUT, *DRY),
    ("reconstruct", "particles.star", *OUT, *DRY),
    ("infer", "encoder.pt", "particles.star", *OUT, "--threads", "1"),
)
_PREPARE = ("prepare", "particles.star", *OUT, "--box", "12", "--threads", "1")
_READ_PREPARED = (
    ("check", "prepared"),
    ("reconstruct", "prepared", *OUT, *DRY),
    ("select", "prepared", "--on", "particles.star", "--out", "out/p.star"),
)
_READ_CS = (
    ("check", "particles.cs"),
    ("convert", "particles.cs", "out/p.star"),
    ("refine", "particles.cs", *OUT, *DRY),
)
_READ_STACK = (
    ("check", "particles.star"),
    ("check", "particles.mrcs", "--pixel-size", "6.4"),
    ("abinitio", "particles.star", *OUT, *DRY),
    ("infer", "encoder.pt", "particles.star", *OUT, "--threads", "1"),
)
_READ_MAP = (
    ("fsc", "truth.mrc", "half.mrc", "--out", "out/fsc.star"),
    ("flip", "truth.mrc", "--out", "out/flipped.mrc"),
    ("align", "truth.mrc", "half.mrc", "--out", "out/aligned.mrc"),
    ("beads", "truth.mrc", "--count", "20", "--out", "out/beads.cif"),
    ("refine", "particles.star", "--map", "truth.mrc", *OUT, *DRY),
)
_READ_MASK = (("fsc", "half.mrc", "half.mrc", "--mask", "mask.mrc"),)
_READ_MODEL = (
    ("modes", "model.cif", "--modes", "2", "--cutoff", "40", *OUT),
    (
        "dynamics",
        "particles.star",
        "--structure",
        "model.cif",
        *OUT,
        "--modes",
        "1",
        "--cutoff",
        "40",
        "--poses",
        "in-plane",
        "--side",
        "64",
    ),  # too large a picture
)
_READ_RUN = (
    ("report", "run"),
    ("flip", "run", *OUT),
    ("evaluate", "run", "--truth", "."),
    ("train", "run", *OUT, "--side", "64"),  # which is refused, whatever else is
)
_RUN_FILES = ("map.mrc", "half1.mrc", "mask.mrc", "fsc.star", "noise.star")
_RUN_FILES += ("particles.star", "posteriors.npz", "evaluation.json", "evaluation.npz")

_OPTIONS = {
    "--n": ("0", "-1", "x", "1e30", "nan"),
    "--box": ("0", "-2", "7.5", "x", "99999999999999999999"),
    "--pixel-size": ("0", "-1", "nan", "inf", "x"),
    "--snr-db": ("nan", "-inf", "x", "1e300"),
    "--seed": ("-1", "18446744073709551616", "1.5", "x"),
    "--noise": ("pink", ""),
    "--views": ("none", ""),
    "--optics-groups": ("0", "-1", "x"),
    "--modes": ("1:N(0", "99999:N(0,1)", "1:N(0,nan)", "", "1:N(0,1e300)"),
    "--trajectory": ("absent.dcd", "particles.star", "/dev/null"),
}
_RUN_OPTIONS = {
    "--symmetry": ("X1", "", "C0", "C-1", "D999999999", "C1.5"),
    "--method": ("guess",),
    "--particle-diameter": ("0", "-1", "nan", "inf", "1e9", "x"),
    "--resolution": ("0", "-1", "nan", "inf", "1e9", "1e-9"),
    "--starts": ("0", "-1", "x", "1e30"),
    "--datadir": ("absent", "particles.star", "", "loop"),
    "--pixel-size": ("0", "-1", "nan", "inf", "x"),
    "--ignore": ("nonsense", ""),
    "--threads": ("0", "-1", "x", "1000000000000"),
    "--device": ("tpu", "cuda"),
    "--seed": ("-1", "18446744073709551616", "x"),
}
_OUTS = ("particles.star", "particles.star/deeper", "loop", "loop/deeper", "nowhere")
_OUTS += ("/dev/null", "/dev/null/deeper", "/proc/nowhere", "x" * 5000, "run")


def all_cases() -> list[Case]:
    """Return every case, each once."""
    return list(dict.fromkeys(_cases()))


def _cases() -> Iterator[Case]:
    table = ANY | PROSE | TABLE
    yield from _damaged(_READ_TABLE, "particles.star", table, surely=SURE)
    yield from _damaged((_PREPARE,), "particles.star", table, surely=SURE)
    yield from _damaged((_PREPARE,), "particles.mrcs", ANY | MRC)
    index = ANY | PROSE
    yield from _damaged(_READ_PREPARED, "prepared/prepared.json", index, surely=SURE)
    yield from _damaged(_READ_PREPARED, "prepared/images_0001.mrcs", ANY | MRC)
    yield from _damaged(_READ_PREPARED, "prepared/particles.star", table, surely=SURE)
    yield from _damaged(_READ_CS, "particles.cs", ANY | PROSE, surely=SURE)
    yield from _damaged(_READ_STACK, "particles.mrcs", ANY | MRC)
    yield from _damaged(_READ_MAP, "truth.mrc", ANY | PROSE | MRC, surely=SURE)
    yield from _damaged(_READ_MASK, "mask.mrc", ANY | MRC, surely=SURE)
    yield from _damaged(_READ_MODEL, "model.cif", ANY | PROSE | MODEL, surely=SURE)
    infer = (("infer", "encoder.pt", "particles.star", *OUT, "--threads", "1"),)
    yield from _damaged(infer, "encoder.pt", ANY | PROSE, surely=tuple(ANY | PROSE))
    yield from _damaged(_READ_RUN, "run/run.json", ANY | PROSE | RECORD, surely=SURE)
    for name in _RUN_FILES:
        yield from _damaged(_READ_RUN, f"run/{name}", ANY)
    for options, start in (
        (_OPTIONS, ("simulate", "cryoposenet-a", *OUT, "--n", "2", "--box", "16")),
        (_RUN_OPTIONS, ("abinitio", "particles.star", *OUT, "--dry-run")),
    ):
        for option, values in options.items():
            for value in values:
                yield Case((*start, option, value))
    for words in (
        *_READ_TABLE[1:],
        _PREPARE,
        *_READ_MAP,
        *_READ_MODEL[:1],
        _READ_RUN[1],
    ):
        for out in _OUTS:
            yield Case(_to(words, out))


def _damaged(
    commands: tuple[tuple[str, ...], ...],
    file: str,
    damages: dict[str, Damage],
    surely: tuple[str, ...] = (),
) -> Iterator[Case]:
    for words in commands:
        for name, spoil in damages.items():
            yield Case(words, file, name, spoil, name in surely and words[0] != "check")


def _to(words: tuple[str, ...], out: str) -> tuple[str, ...]:
    """Return a command that writes somewhere else."""
    return tuple(
        out
        if one == "out"
        else one.replace("out/", f"{out}/")
        if "out/" in one
        else one
        for one in words
        if one != "--dry-run"
    ) + (("--dry-run",) if "--dry-run" in words else ())


def is_quick(number: int, count: int, wanted: int) -> bool:
    """Tell whether a case is one of those that every change must pass."""
    return number * wanted // count != (number - 1) * wanted // count


def names_something(said: str, case: Case, folder: Path) -> bool:
    """Tell whether a message names an option, a file or a place in one."""
    names = [Path(word).name for word in case.words if "." in word or "/" in word]
    names += [Path(case.file).name, str(folder), "run", "--", "out", *case.words[-1:]]
    # The folder of a file to write, and what an option was given.
    names += [str(Path(word).parent) for word in case.words if "/" in word]
    names += [f"'{word}'" for word in case.words]
    # A table, its column and row; the side of a picture.
    names += ["data_", "rln", "row ", "Row ", "picture"]
    return any(name and name[:200] in said for name in names)
