"""The gate of structures: what cannot be one is refused, what is odd is told."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cryoinfer.data.examples import example_atoms, named_structure, symmetric_copies
from cryoinfer.data.given_structure import given_structure
from cryoinfer.data.nodes import Nodes
from cryoinfer.errors import InputError
from cryoinfer.io.atoms import AtomicModel
from cryoinfer.io.ensembles import write_ensemble

ROUNDING = 5.1e-4  # of files with three decimals
BOX = 62.0  # angstrom: longer than the protein, and its centre is moved to a corner


@pytest.fixture(scope="module")
def protein() -> AtomicModel:
    model = example_atoms("adenylate-kinase-open")
    return model.select(np.flatnonzero(np.array(model.residue_numbers) <= 60))


def pdb(
    path: Path, model: AtomicModel, places: NDArray[np.float64], head: str = ""
) -> str:
    lines = [
        f"ATOM  {row % 100_000:5d} {name:>2s}{'':{4 - max(2, len(name))}}"
        f" {model.residue_names[row]:<4s}{model.chain_names[row]}"
        f"{model.residue_numbers[row]:4d}    "
        + "".join(f"{value:8.3f}" for value in places[row])
        + f"  1.00 20.00          {model.elements[row]:>2s}"
        for row, name in enumerate(model.atom_names)
    ]
    path.write_text("\n".join([*([head] if head else []), *lines, "END", ""]))
    return str(path)


def cryst(box: float) -> str:
    return f"CRYST1{box:9.3f}{box:9.3f}{box:9.3f}  90.00  90.00  90.00 P 1           1"


def wrapped(model: AtomicModel) -> NDArray[np.float64]:
    """Return atoms at their images in a box whose corner is within the molecule."""
    return (model.coordinates_angstrom - model.coordinates_angstrom.mean(0)) % BOX


def apart(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Return the largest error but for one shift of the whole."""
    away = found - expected
    return float(np.abs(away - away[0]).max())


def test_a_molecule_cut_by_its_box_is_made_whole(
    protein: AtomicModel, tmp_path: Path
) -> None:
    path = pdb(tmp_path / "a.pdb", protein, wrapped(protein), cryst(BOX))
    found = given_structure(path)
    assert apart(found.model.coordinates_angstrom, protein.coordinates_angstrom) < (
        3 * ROUNDING
    )
    assert any("made whole" in note for note in found.notes)


def test_without_a_box_it_is_refused(protein: AtomicModel, tmp_path: Path) -> None:
    path = pdb(tmp_path / "a.pdb", protein, wrapped(protein))
    with pytest.raises(InputError, match=r"periodic box has cut .* CRYST1"):
        given_structure(path)


def test_a_copy_in_the_next_cell_is_brought_back(tmp_path: Path) -> None:
    pair = symmetric_copies(example_atoms("adenylate-kinase-open"), "C2", 16.0)
    pair = pair.select(np.flatnonzero(np.array(pair.residue_numbers) <= 60))
    moved = pair.coordinates_angstrom.copy()
    moved[np.array(pair.chain_names) == "B"] += (0.0, 2 * 90.0, -90.0)
    there = given_structure(pdb(tmp_path / "a.pdb", pair, moved, cryst(90.0)))
    # Two cells away: only the next are looked into.
    assert not any("made whole" in note for note in there.notes)
    moved[np.array(pair.chain_names) == "B"] -= (0.0, 90.0, 0.0)
    found = given_structure(pdb(tmp_path / "b.pdb", pair, moved, cryst(90.0)))
    assert apart(found.model.coordinates_angstrom, pair.coordinates_angstrom) < (
        3 * ROUNDING
    )


def test_crystals_and_whole_molecules_stay_where_they_are(
    protein: AtomicModel, tmp_path: Path
) -> None:
    places = protein.coordinates_angstrom
    for head in (cryst(BOX), cryst(1.0), cryst(BOX).replace("P 1 ", "P 21"), ""):
        found = given_structure(pdb(tmp_path / "a.pdb", protein, places, head))
        assert np.abs(found.model.coordinates_angstrom - places).max() < ROUNDING
        assert found.notes == ()


def test_a_loop_that_is_left_out_is_no_cut(
    protein: AtomicModel, tmp_path: Path
) -> None:
    """Numbered through although residues are missing: 25 A askew of the axes."""
    places = protein.coordinates_angstrom.copy()
    places[np.array(protein.residue_numbers) > 30] += (16.0, 16.0, 10.0)
    assert given_structure(pdb(tmp_path / "a.pdb", protein, places)).notes == ()


CIF = "data_x\nloop_\n" + "\n".join(
    f"_atom_site.{name}"
    for name in (
        "group_PDB id type_symbol label_atom_id label_comp_id auth_asym_id "
        "auth_seq_id Cartn_x Cartn_y Cartn_z occupancy B_iso_or_equiv"
    ).split()
)


def cif(path: Path, places: list[str], tail: str = "1.00 20.00") -> str:
    rows = [
        f"ATOM {row} C CA GLY A {row} {place} {tail}"
        for row, place in enumerate(places, 1)
    ]
    path.write_text("\n".join([CIF, *rows, ""]))
    return str(path)


FINE = [f"{3.8 * row} 0 0" for row in range(5)]


@pytest.mark.parametrize(
    ("places", "said"),
    [
        ([*FINE, "nan 0 0"], r"1 of 6 atoms are at no place, the first is atom 6, CA"),
        ([*FINE, "1e30 0 0"], r"\(1e\+30, 0, 0\): expected angstrom, within 100000"),
        ([*FINE, "inf 0 0"], "at no place"),
        ([*FINE, "x 0 0"], "atom 6 has no coordinates that are numbers"),
        ([*FINE, "1_0 0 0"], "atom 6 has no coordinates that are numbers: 1_0, 0, 0"),
        ([*FINE, "? ? ?"], "at no place"),
        ([*FINE, ". . ."], "1 of 6 atoms are at no place"),
        (["0 0 .", *FINE], r"1 of 6 atoms .* atom 1, CA of GLY 1, at \(0, 0, nan\)"),
        (["1 2 3"] * 6, "all atoms of 6 lie on others"),
        (FINE * 2, "10 atoms of 10 lie on others, such as those of A GLY 1"),
    ],
)
def test_atoms_at_no_place_are_refused(
    places: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        given_structure(cif(tmp_path / "a.cif", places))


@pytest.mark.parametrize("number", ["4294967296", "-99999999999999999999999"])
def test_residue_numbers_beyond_32_bits_are_refused(
    number: str, tmp_path: Path
) -> None:
    path = Path(cif(tmp_path / "a.cif", FINE))
    path.write_text(path.read_text().replace("GLY A 5 ", f"GLY A {number} "))
    with pytest.raises(InputError, match=f"atom 5 has the residue number {number}"):
        given_structure(str(path))


@pytest.mark.parametrize("b_factor", ["nan", "-1", "1e9", "x"])
def test_b_factors_that_none_can_be_are_not_used(b_factor: str, tmp_path: Path) -> None:
    found = given_structure(cif(tmp_path / "a.cif", FINE, f"1.00 {b_factor}"))
    assert not found.model.b_factors_angstrom2.any()
    assert "B-factors of 5 atoms" in found.notes[0]


@pytest.mark.parametrize("occupancy", ["nan", "-1", "7", "0"])
def test_occupancies_that_none_can_be_are_told(occupancy: str, tmp_path: Path) -> None:
    found = given_structure(cif(tmp_path / "a.cif", FINE, f"{occupancy} 20"))
    assert len(found.model) == 5
    assert "Occupancies of 5 atoms" in found.notes[0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        "END\n",
        "data_x\n",
        "data_x\nloop_\n_atom_site.Cartn_x\n_atom_site.Cartn_y\n1 2 3\n",
        "ATOM      1  CA  GLY A   1       1.000   2.0",
        "ATOM      1  CA  GLY A   1      ****************\n",
        "\x00" * 500,
        "{",
    ],
)
def test_files_without_atoms_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.pdb").write_text(text)
    with pytest.raises(InputError, match="is not an mmCIF or PDB model"):
        given_structure(str(tmp_path / "a.pdb"))


def test_a_gzipped_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pdb.gz"
    path.write_bytes(b"\x1f\x8b\x08" + bytes(20))
    with pytest.raises(InputError, match="cut short"):
        given_structure(str(path))


def test_several_models_are_told(protein: AtomicModel, tmp_path: Path) -> None:
    write_ensemble(tmp_path / "a.cif", "a", [protein, protein])
    assert "holds 2 models" in given_structure(str(tmp_path / "a.cif")).notes[0]


def test_an_example_has_nothing_to_tell() -> None:
    assert named_structure("adenylate-kinase-open").notes == ()


def test_chains_of_a_made_name_are_told(protein: AtomicModel, tmp_path: Path) -> None:
    blank = replace(protein, chain_names=(" ",) * len(protein))
    path = pdb(tmp_path / "a.pdb", blank, protein.coordinates_angstrom)
    found = given_structure(path)
    assert found.notes == (
        f"{path} names chains alike or not at all: here they are called A",
    )
    assert len(Nodes.of_model(found.model)) == 60


def mutated(text: bytes, random: np.random.Generator) -> bytes:
    """Return a file of which some bytes are others, missing, or there again."""
    found = bytearray(text)
    for _ in range(int(random.choice([1, 3, 20]))):
        at, length = int(random.integers(len(found))), int(random.integers(1, 200))
        match random.integers(4):
            case 0:
                found[at] = int(random.integers(256))
            case 1:
                found[at:at] = found[at : at + length]
            case 2:
                del found[at : at + length]
            case _:
                word = random.choice([b"nan", b"1e30", b"    ", b"****", b"-9999"])
                found[at : at + len(word)] = word
        found = found or bytearray(b"x")
    return bytes(found)


@pytest.mark.parametrize("ending", ["pdb", "cif"])
def test_damaged_files_are_read_or_refused(
    ending: str, protein: AtomicModel, tmp_path: Path
) -> None:
    few = protein.select(np.arange(90))
    path = tmp_path / f"a.{ending}"
    if ending == "pdb":
        pdb(path, few, few.coordinates_angstrom, cryst(BOX))
    else:
        write_ensemble(path, "a", [few, few])
    whole, random = path.read_bytes(), np.random.default_rng(0)
    read = 0
    for _ in range(120):
        path.write_bytes(mutated(whole, random))
        try:
            model = given_structure(str(path)).model
            Nodes.of_model(model)
            write_ensemble(tmp_path / "again.cif", "again", [model])
            read += 1
        except InputError:
            continue
    # Neither all nor none: the loop says something of both.
    assert 0 < read < 120
