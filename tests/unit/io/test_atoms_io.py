import bz2
import gzip
from pathlib import Path

import numpy as np
import pytest

from cryoinfer.errors import InputError, MissingFileError
from cryoinfer.io.atoms import read_atoms

REAL_FILES = Path(__file__).parents[4] / "shared/data/models"

PDB = """\
ATOM      1  N   GLY A   5       1.000   2.000   3.000  1.00 10.00           N
ATOM      2  CA AGLY A   5       2.000   2.000   3.000  0.60 11.00           C
ATOM      3  CA BGLY A   5       2.500   2.000   3.000  0.40 11.00           C
ATOM      4  C   GLY A   5       3.000   2.000   3.000  1.00 12.00           C
ATOM      5  HA2 GLY A   5       2.000   3.000   3.000  1.00 12.00           H
HETATM    6 ZN    ZN A   6       0.000   0.000   9.000  1.00 20.00          ZN
HETATM    7  O   HOH A   7       5.000   5.000   5.000  1.00 30.00           O
END
"""


@pytest.fixture
def pdb(tmp_path):
    path = tmp_path / "a.pdb"
    path.write_text(PDB)
    return path


def test_atoms_without_hydrogens_waters_and_alternatives(pdb):
    model = read_atoms(pdb)
    assert model.elements == ("N", "C", "C", "Zn")
    assert model.atom_names == ("N", "CA", "C", "ZN")
    assert model.residue_names == ("GLY", "GLY", "GLY", "ZN")
    assert model.residue_numbers == (5, 5, 5, 6)
    assert set(model.chain_names) == {"A"}
    assert model.coordinates_angstrom.dtype == np.float64
    assert model.coordinates_angstrom[1].tolist() == [2.0, 2.0, 3.0]
    assert model.b_factors_angstrom2.tolist() == [10.0, 11.0, 12.0, 20.0]


def test_hydrogens_and_waters_on_request(pdb):
    assert len(read_atoms(pdb, hydrogens=True)) == 5
    assert len(read_atoms(pdb, waters=True)) == 5
    assert len(read_atoms(pdb, hydrogens=True, waters=True)) == 6


def test_gzip_and_mmcif(pdb, tmp_path):
    gemmi = pytest.importorskip("gemmi")
    (tmp_path / "b.pdb.gz").write_bytes(gzip.compress(PDB.encode()))
    structure = gemmi.read_structure(str(pdb))
    structure.make_mmcif_document().write_file(str(tmp_path / "c.cif"))
    want = read_atoms(pdb)
    for name in ("b.pdb.gz", "c.cif"):
        found = read_atoms(tmp_path / name)
        assert found.elements == want.elements
        assert np.array_equal(found.coordinates_angstrom, want.coordinates_angstrom)


def test_a_file_without_element_symbols_has_no_calcium_backbone(tmp_path):
    # CHARMM writes names from column 13 on and leaves the element out.
    lines = [
        f"ATOM      {i}{name:>5s} GLY A   1       1.000   2.000   3.000  1.00  0.00"
        for i, name in enumerate(["N   ", "CA  ", "C   ", "HG1 "], 1)
    ]
    (tmp_path / "a.pdb").write_text(
        "\n".join(lines).replace("  N ", " N  ") + "\nEND\n"
    )
    model = read_atoms(tmp_path / "a.pdb", hydrogens=True)
    assert model.elements == ("N", "C", "C", "H")


def test_unusable_files_are_refused(tmp_path):
    with pytest.raises(MissingFileError, match="No such model"):
        read_atoms(tmp_path / "none.pdb")
    (tmp_path / "a.pdb").write_text(PDB.splitlines()[-2] + "\nEND\n")
    with pytest.raises(InputError, match=r"is left out: 1 waters \(HOH\)"):
        read_atoms(tmp_path / "a.pdb")
    (tmp_path / "a.cif").write_text("nothing\n")
    with pytest.raises(InputError, match="is not an mmCIF or PDB"):
        read_atoms(tmp_path / "a.cif")


@pytest.mark.skipif(
    not REAL_FILES.is_dir(),
    reason=f"the files of other programs are not at {REAL_FILES}",
)
def test_models_of_other_programs():
    charmm = read_atoms(REAL_FILES / "adk_4ake_open_charmm.pdb")
    plain = read_atoms(REAL_FILES / "4akeA_alg_fixed.pdb")
    # Both are chain A of 4AKE: 1656 heavy atoms.
    assert len(charmm) == len(plain) == 1656
    assert sorted(charmm.elements) == sorted(plain.elements)


@pytest.mark.parametrize(
    "head",
    [
        "# written by a program\n\n",
        "\n\n  # a comment that is set in\n\n",
        "\ufeff",
        "\ufeff# a comment\n\n",
        "# a licence, line by line\n" * 200,
        "\r\n# of another system\r\n\r\n",
    ],
)
def test_mmcif_is_known_whatever_stands_before_its_block(pdb, tmp_path, head):
    gemmi = pytest.importorskip("gemmi")
    text = gemmi.read_structure(str(pdb)).make_mmcif_document().as_string()
    path = tmp_path / "a.cif"
    path.write_bytes((head + text).encode())
    found = read_atoms(path)
    assert found.elements == ("N", "C", "C", "Zn")
    path.write_bytes(gzip.compress((head + text).encode()))
    assert read_atoms(path).elements == found.elements


def test_a_mark_of_utf_8_hides_no_atom_of_a_pdb_file(pdb):
    pdb.write_bytes(b"\xef\xbb\xbf" + PDB.encode())
    assert len(read_atoms(pdb)) == 4


def test_bzip2(pdb):
    pdb.write_bytes(bz2.compress(PDB.encode()))
    assert len(read_atoms(pdb)) == 4
    pdb.write_bytes(bz2.compress(PDB.encode())[:-20])
    with pytest.raises(InputError, match="is cut short"):
        read_atoms(pdb)


def test_what_is_left_out_is_said_where_nothing_else_is_there(tmp_path):
    dummies = [
        f"HETATM{i:5d}  X   DUM A{i:4d}       {i}.000   2.000   3.000  1.00  0.00"
        f"{'X':>12}"
        for i in range(1, 4)
    ]
    (tmp_path / "a.pdb").write_text("\n".join(dummies) + "\nEND\n")
    with pytest.raises(InputError, match="left out: 3 atoms of no known element"):
        read_atoms(tmp_path / "a.pdb")
