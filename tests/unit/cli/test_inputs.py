"""Who mistypes a name is told at once, before anything that takes seconds to import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from cryoinfer.cli.app import app
from cryoinfer.data.particles import Particles
from cryoinfer.errors import MissingFileError
from cryoinfer.io.atoms import read_atoms
from cryoinfer.io.files import require_file
from cryoinfer.io.mrc import read_map
from cryoinfer.io.trajectories import read_frames
from cryoinfer.workflows.encoder_file import load_encoder

HEAVY = ("torch", "numba", "scipy", "matplotlib", "mdtraj", "pyarrow", "roma")

MISTYPED = {
    "check no.star": "No such STAR file: no.star",
    "check no.cs": "No such cryoSPARC file: no.cs",
    "check no.mrcs": "No such MRC file: no.mrcs",
    "check .": ". is a folder without prepared.json",
    "prepare no.star -o out": "No such STAR file: no.star",
    "select there.star --on no.cs -o out.cs": "No such cryoSPARC file: no.cs",
    "abinitio no.star -o out": "No such STAR file: no.star",
    "refine there.star --map no.mrc -o out": "No such MRC file: no.mrc",
    "reconstruct no.star -o out": "No such STAR file: no.star",
    "refine there.star --mask no.mrc -o out": "No such MRC file: no.mrc",
    "reconstruct there.star --mask no.mrc -o out": "No such MRC file: no.mrc",
    "train no -o out": "no is not the folder of a run",
    "infer no there.star -o out": "No such encoder, or run of `cryoinfer heterog",
    "infer there.pt no.star -o out": "No such STAR file: no.star",
    "infer there.pt no --watch -o out": "--watch expects a folder",
    "dynamics no.star --structure there.pdb -o out": "No such STAR file: no.star",
    "dynamics there.star --structure no.pdb -o out": "structure 'no.pdb' is neither",
    "heterogeneity no.star -o out": "No such STAR file: no.star",
    "heterogeneity there.star --focus-mask no.mrc -o out": "No such MRC file: no.mrc",
    "volumes no --along 1 -o out": "no is not the folder of a run",
    "select no.star --class 1 -o out.star": "No such STAR file: no.star",
    "beads no.mrc -o out.cif": "No such MRC file: no.mrc",
    "modes adenylate-kinase-opne": "The structure 'adenylate-kinase-opne' is neither",
    "simulate cryoposenet-h -o out": "The structure 'cryoposenet-h' is neither",
    "simulate cryoposenet-a --trajectory no.dcd -o out": "No such trajectory: no.dcd",
    "simulate cryoposenet-a --to no.pdb -o out": "structure 'no.pdb' is neither",
    "simulate cryoposenet-a --also no.pdb -o out": "structure 'no.pdb' is neither",
    "evaluate no --truth no": "no/truth.star is missing",
    "fsc there.mrc no.mrc": "No such MRC file: no.mrc",
    "fsc there.mrc there.mrc --mask no.mrc": "No such MRC file: no.mrc",
    "local-resolution there.mrc no.mrc -o out": "No such MRC file: no.mrc",
    "mask no.mrc -o out.mrc": "No such MRC file: no.mrc",
    "postprocess no -o out": "no is not the folder of a run",
    "postprocess --half1 there.mrc --half2 no.mrc -o out": "No such MRC file: no.mrc",
    "align no.mrc there.mrc -o out.mrc": "No such MRC file: no.mrc",
    "align there.mrc no.mrc -o out.mrc": "No such MRC file: no.mrc",
    "align there.mrc there.mrc --also no.mrc -o out.mrc": "No such MRC file: no.mrc",
    "downsample no.star --box 32 -o out.star": "No such STAR file: no.star",
    "convert no.star out.cs": "No such STAR file: no.star",
    "flip no.mrc -o out": "No such MRC file: no.mrc",
    "flip there.mrc no.star -o out": "No such STAR file: no.star",
    "report no": "no is not the folder of a run",
    "check there.star --no-such-option": "No such option: --no-such-option",
    "chek there.star": "No such command 'chek'",
    "--help": "",
    "--version": "",
}

PROGRAM = """
import contextlib, io, json, sys
from cryoinfer.cli.app import app
told = {}
for line in json.load(sys.stdin):
    screen = io.StringIO()
    with contextlib.redirect_stderr(screen), contextlib.redirect_stdout(screen):
        try:
            app(line.split(), prog_name="cryoinfer")
        except SystemExit as end:
            told[line] = [end.code, screen.getvalue()]
    heavy = [name for name in HEAVY if name in sys.modules]
    assert not heavy, (line, heavy)
print(json.dumps(told))
"""


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """Return a folder with files of every kind; none of them is read."""
    for name in ("there.star", "there.mrc", "there.pt", "there.pdb"):
        (tmp_path / name).touch()
    return tmp_path


def test_a_mistyped_name_is_told_before_anything_heavy_is_imported(there) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {HEAVY}\n{PROGRAM}"],
        input=json.dumps(list(MISTYPED)),
        capture_output=True,
        text=True,
        cwd=there,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for line, message in MISTYPED.items():
        code, screen = told[line]
        assert code == (2 if message else 0), line
        assert message in " ".join(screen.split()), line
    assert sorted(path.name for path in there.iterdir()) == [
        f"there.{ending}" for ending in ("mrc", "pdb", "pt", "star")
    ]


def test_every_command_that_takes_a_path_is_among_them() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    without = {"demo", "selfcheck"}
    assert {line.split()[0] for line in MISTYPED} >= commands.keys() - without


@pytest.mark.parametrize(
    ("read", "name", "kind"),
    [
        (Particles.load, "no.star", "STAR file"),
        (Particles.load, "no.cs", "cryoSPARC file"),
        (Particles.load, "no.mrcs", "MRC file"),
        (Particles.load, "no.txt", "file"),
        (read_map, "no.mrc", "MRC file"),
        (read_atoms, "no.pdb", "model"),
        (lambda path: read_frames(path, None), "no.dcd", "trajectory"),
        (load_encoder, "no.pt", "encoder of `cryoinfer train`"),
    ],
)
def test_readers_say_the_same(tmp_path: Path, read, name: str, kind: str) -> None:
    path = tmp_path / name
    with pytest.raises(MissingFileError) as told:
        read(path)
    with pytest.raises(MissingFileError) as again:
        require_file(path, kind)
    assert str(told.value) == str(again.value) == f"No such {kind}: {path}"


def test_a_name_that_is_nearly_there_is_offered(tmp_path: Path) -> None:
    (tmp_path / "particles.star").touch()
    with pytest.raises(MissingFileError, match=r"did you mean particles\.star\?"):
        require_file(tmp_path / "partciles.star")
    with pytest.raises(MissingFileError, match=r"map\.mrc$"):
        require_file(tmp_path / "map.mrc")
