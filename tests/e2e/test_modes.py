"""The normal modes of a structure at the command line."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cryoinfer.cli.app import app
from cryoinfer.data.examples import example_atoms, symmetric_copies
from cryoinfer.data.moving_model import MovingModel
from cryoinfer.io.ensembles import write_ensemble
from cryoinfer.io.mrc import write_map

LIGAND = """\
HETATM    1  C1  BNZ A   1       1.000   2.000   3.000  1.00 10.00           C
END
"""


def cryoinfer(*words: object) -> Result:
    environment = {"COLUMNS": "200", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


def test_modes_are_printed_and_written(tmp_path: Path) -> None:
    out = tmp_path / "modes"
    words = ("modes", "adenylate-kinase-open", "--modes", 3, "--out", out)
    answer = cryoinfer(*words)
    assert answer.exit_code == 0, answer.output
    assert "214 in chain" in answer.output
    assert "0.0322" in answer.output
    assert (out / "modes.nmd").read_text().count("\nmode ") == 3
    page = (out / "report.html").read_text()
    assert "Correlation" in page or "correlated" in page
    assert page.count("<svg") == 4  # three modes, and the fluctuations
    again = cryoinfer(*words)
    assert again.exit_code == 2
    assert "already holds modes.nmd" in again.stderr
    assert cryoinfer(*words, "--overwrite").exit_code == 0


def test_modes_of_a_map(tmp_path: Path) -> None:
    model = MovingModel.of(example_atoms("adenylate-kinase-open"), 1, 1.0)
    density = model.beads(8.0).atoms.to_map(32, 3.0)
    write_map(tmp_path / "map.mrc", density, 3.0)
    beads = tmp_path / "new" / "beads.cif"
    words = ("beads", tmp_path / "map.mrc", "--count", 60, "--out", beads)
    answer = cryoinfer(*words)
    assert answer.exit_code == 0, answer.output
    assert "about 2" in answer.output  # 23.6 kDa, of a map at 8 A
    assert "kDa, if protein" in answer.output
    again = cryoinfer(*words)
    assert again.exit_code == 2
    assert "exists: give another name" in again.stderr
    shown = cryoinfer("modes", beads, "--modes", 2, "--cutoff", 20)
    assert shown.exit_code == 0, shown.output
    assert "60 in chain A" in shown.output


def test_copies_without_chain_names_are_all_there(tmp_path: Path) -> None:
    """As programs of molecular dynamics write them, in water of their names."""
    pair = symmetric_copies(example_atoms("adenylate-kinase-open"), "C2", 16.0)
    water = "HETATM    1  OW  SOL     1      90.000   0.000   0.000  1.00  0.00"
    lines = [
        f"ATOM      1  {pair.atom_names[row]:<4s}{pair.residue_names[row]} "
        f" {pair.residue_numbers[row]:4d}    "
        + "".join(f"{value:8.3f}" for value in pair.coordinates_angstrom[row])
        + f"  1.00 20.00          {pair.elements[row]:>2s}"
        for row in range(len(pair))
    ]
    path = tmp_path / "pair.pdb"
    path.write_text("\n".join([*lines, water, ""]))
    out = tmp_path / "out"
    answer = cryoinfer("modes", path, "--modes", 1, "--out", out)
    assert answer.exit_code == 0, answer.output
    for said in (
        "Left out of " + str(path) + ": 1 waters (SOL)",
        "here they are called A, B",
        "Atoms      3,312",
        "Nodes      428 in chains A, B",
        "0.03734",
    ):
        assert said in answer.output
    nmd = dict(
        line.split(" ", 1) for line in (out / "modes.nmd").read_text().splitlines()
    )
    assert nmd["chainids"].split() == ["A"] * 214 + ["B"] * 214
    assert nmd["resids"].split() == [str(n) for n in (*range(1, 215), *range(1, 215))]
    words = ("--n", 2, "--box", 16, "--pixel-size", 12, "--out", tmp_path / "sim")
    answer = cryoinfer("simulate", path, *words)
    assert answer.exit_code == 0, answer.output
    assert "1 waters (SOL)" in answer.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no-such"], "neither a file nor one of the examples"),
        (["adenylate-kinase-open", "--cutoff", 4], "Raise the cutoff"),
        (["adenylate-kinase-c4", "--cutoff", 7], "Raise the cutoff"),
    ],
)
def test_structures_without_modes_are_refused(words: list, said: str) -> None:
    answer = cryoinfer("modes", *words)
    assert answer.exit_code == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr


def test_particles_that_move_are_simulated(tmp_path: Path) -> None:
    words = ["adenylate-kinase-open", "--n", 10, "--box", 16, "--pixel-size", 8]
    words += ["--modes", "1:N(0,2)", "--modes", "2:U(-1,1)"]
    answer = cryoinfer("simulate", *words, "--out", tmp_path / "sim")
    assert answer.exit_code == 0, answer.output
    truth = (tmp_path / "sim" / "truth.star").read_text()
    assert "_cryoinferMode1Angst" in truth
    assert "_cryoinferMode2Angst" in truth
    words[-1] = "2:V(-1,1)"
    answer = cryoinfer("simulate", *words, "--out", tmp_path / "never")
    assert answer.exit_code == 2
    assert "2:U(-3,3)" in answer.stderr
    assert not (tmp_path / "never").exists()


def test_a_ligand_alone_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ligand.pdb"
    path.write_text(LIGAND)
    answer = cryoinfer("modes", path)
    assert answer.exit_code == 2
    assert "no alpha carbon" in answer.stderr


def test_of_several_models_the_first_is_used_and_said(tmp_path: Path) -> None:
    path = tmp_path / "two.cif"
    model = example_atoms("adenylate-kinase-open")
    write_ensemble(path, "two", [model, model])
    answer = cryoinfer("modes", path, "--modes", 1)
    assert answer.exit_code == 0, answer.output
    assert "holds 2 models: the first is used" in answer.output
    words = ("simulate", path, "--trajectory", path, "--n", 10, "--box", 16)
    out = tmp_path / "frames"
    answer = cryoinfer(*words, "--pixel-size", 8, "--out", out)
    assert answer.exit_code == 0, answer.output
    # An XTC file that was cut between two frames shows by their number alone.
    assert f"Particles show the 2 frames of {path}" in answer.output
    assert "_cryoinferFrame" in (out / "truth.star").read_text()


def test_a_trajectory_of_other_atoms_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "closed.cif"
    write_ensemble(path, "closed", [example_atoms("adenylate-kinase-c4")])
    words = ("simulate", "adenylate-kinase-open", "--trajectory", path)
    answer = cryoinfer(*words, "--out", tmp_path / "never")
    assert answer.exit_code == 2
    assert "6,624 atoms a frame, the structure 1,656" in answer.stderr
    assert not (tmp_path / "never").exists()
