"""Write conformations of a model as the models of one mmCIF file."""

from collections.abc import Iterable
from pathlib import Path

import gemmi

from cryoinfer.io.atoms import AtomicModel
from cryoinfer.io.residue_kinds import POLYMERS, Kind


def write_ensemble(path: Path | str, name: str, models: Iterable[AtomicModel]) -> None:
    """Write models of the same atoms, numbered from 1.

    Parameters
    ----------
    path : path
        Ending in ``.cif``.
    name : str
        Of the structure.
    models : iterable of AtomicModel
    """
    structure = gemmi.Structure()
    # A path that is no UTF-8 may be the name.
    spelled = name.encode("utf-8", "replace").decode()
    structure.name = "_".join(spelled.split()) or "structure"
    kinds: dict[int, Kind] = {}  # of residues, by their first rows
    for number, atoms in enumerate(models, 1):
        if not kinds:
            pairs = zip(atoms.residues(), atoms.residue_kinds(), strict=True)
            kinds = {rows.start: kind for rows, kind in pairs}
        structure.add_model(_model(atoms, number, kinds))
    structure.setup_entities()
    structure.assign_label_seq_id()
    # Not by gemmi, which says nothing of a full disk.
    Path(path).write_text(structure.make_mmcif_document().as_string(), encoding="utf-8")


def _model(atoms: AtomicModel, number: int, kinds: dict[int, Kind]) -> gemmi.Model:
    model = gemmi.Model(number)
    chain: gemmi.Chain | None = None
    residue: gemmi.Residue | None = None
    for row in range(len(atoms)):
        if chain is None or chain.name != atoms.chain_names[row]:
            chain, residue = model.add_chain(gemmi.Chain(atoms.chain_names[row])), None
        if residue is None or row in kinds:
            residue = chain.add_residue(_residue(atoms, row))
            # Under names of their own as well, that gemmi takes for ligands.
            if kinds[row] in POLYMERS:
                residue.entity_type = gemmi.EntityType.Polymer
        residue.add_atom(_atom(atoms, row))
    return model


def _residue(atoms: AtomicModel, row: int) -> gemmi.Residue:
    residue = gemmi.Residue()
    residue.name = atoms.residue_names[row]
    code = atoms.insertion_codes[row]
    code = code if len(code) == 1 and code.isascii() else " "
    residue.seqid = gemmi.SeqId(atoms.residue_numbers[row], code)
    return residue


def _atom(atoms: AtomicModel, row: int) -> gemmi.Atom:
    atom = gemmi.Atom()
    atom.name = atoms.atom_names[row]
    atom.element = gemmi.Element(atoms.elements[row])
    atom.pos = gemmi.Position(*atoms.coordinates_angstrom[row].tolist())
    atom.b_iso = float(atoms.b_factors_angstrom2[row])
    atom.occ = 1.0
    return atom
