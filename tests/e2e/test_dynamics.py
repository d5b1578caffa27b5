"""Motions at the command line: every file that a run leaves can be read."""

import json
from dataclasses import replace
from pathlib import Path

import gemmi
import numpy as np
import pyarrow.parquet
import pytest
from typer.testing import CliRunner, Result

from cryoinfer.cli.app import app
from cryoinfer.data.examples import named_atoms
from cryoinfer.io.ensembles import write_ensemble
from cryoinfer.workflows import motion_calibration

STRUCTURE = "adenylate-kinase-open"
SET = ("--n", 40, "--box", 32, "--pixel-size", 4, "--snr-db", 5, "--views", "one")
RUN = ("--modes", 1, "--poses", "in-plane", "--shift", 0, "--steps", 20, "--side", 16)


def cryoinfer(*words: object) -> Result:
    environment = {"COLUMNS": "200", "NO_COLOR": "1"}
    return CliRunner().invoke(app, [str(word) for word in words], env=environment)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a finished run; its particles lie beside it."""
    folder = tmp_path_factory.mktemp("dynamics")
    particles = folder / "set" / "particles.star"
    made = cryoinfer(
        "simulate", STRUCTURE, *SET, "--modes", "1:N(0,2)", "--out", particles.parent
    )
    assert made.exit_code == 0, made.output
    done = cryoinfer(
        *("dynamics", particles, "--structure", STRUCTURE, "--out", folder / "run"),
        *RUN,
    )
    assert done.exit_code == 0, done.output
    assert "A over particles" in done.output
    return folder / "run"


def test_every_particle_has_a_row(run: Path) -> None:
    table = pyarrow.parquet.read_table(run / "latents.parquet")
    assert table.num_rows == 40
    names = ["rlnImageName", "mode_1", "mode_1_sd", "mode_1_q05", "mode_1_q95"]
    assert table.column_names[:5] == names
    mode = table["mode_1"].to_numpy()
    assert np.isfinite(mode).all()
    assert 0.5 < mode.std() < 4.0


@pytest.mark.slow
def test_poses_are_searched_and_the_model_learned(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A trial of fewer images than a user's: it is not their widths that are tested.
    monkeypatch.setattr(motion_calibration, "_FEWEST_TRIED", 20)
    particles = run.parent / "set" / "particles.star"
    options = ("--modes", 1, "--poses", "searched", "--shift", 0, "--learn", 1)
    done = cryoinfer(
        *("dynamics", particles, "--structure", STRUCTURE, "--out", tmp_path / "run"),
        *options,
    )
    assert done.exit_code == 0, done.output
    assert "Posteriors, of a search" in done.output
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Posteriors of the search" in page
    assert "along the widest mode" in page
    assert "take the learned model as true" in page


def test_ensembles_are_models_of_all_atoms(run: Path) -> None:
    model = named_atoms(STRUCTURE)
    ensemble = gemmi.read_structure(str(run / "mode1.cif"))
    assert len(ensemble) == 11
    counts = {sum(1 for _ in one.all()) for one in ensemble}
    assert counts == {len(model)}
    ends = [
        np.array([cra.atom.pos.tolist() for cra in ensemble[k].all()]) for k in (0, 5)
    ]
    # The middle is the structure itself, in the middle of the box of 32 voxels of 4 A,
    # to the three decimals of the file.
    np.testing.assert_allclose(ends[1], model.coordinates_angstrom + 64, atol=1e-3)
    assert np.sqrt(((ends[0] - ends[1]) ** 2).sum(1).mean()) > 0.5
    assert len(gemmi.read_structure(str(run / "centres.cif"))) >= 2


@pytest.mark.slow
def test_another_protein_gets_its_caution_at_the_end(tmp_path: Path) -> None:
    enzyme = named_atoms(STRUCTURE)
    alpha = enzyme.select(np.flatnonzero([name == "CA" for name in enzyme.atom_names]))
    # The same chain, mirrored and on its side, is as good as another protein.
    other = replace(
        alpha, coordinates_angstrom=alpha.coordinates_angstrom[:, [2, 1, 0]]
    )
    write_ensemble(tmp_path / "right.cif", "right", [alpha])
    write_ensemble(tmp_path / "wrong.cif", "wrong", [other])
    made = cryoinfer(
        *("simulate", tmp_path / "right.cif", "--n", 40, "--box", 32),
        *("--pixel-size", 4, "--snr-db", 5, "--out", tmp_path / "set"),
    )
    assert made.exit_code == 0, made.output
    words = ("dynamics", tmp_path / "set" / "truth.star", "--poses", "given")
    for name in ("right", "wrong"):
        done = cryoinfer(
            *(*words, "--structure", tmp_path / f"{name}.cif", "--modes", 1),
            *("--out", tmp_path / name),
        )
        assert done.exit_code == 0, done.output
        last = done.output.split("Report ")[-1]
        record = json.loads((tmp_path / name / "run.json").read_text())
        said = " ".join(record["results"]["cautions"])
        for text in (last, said):
            assert ("signal unexplained: it may be of another" in text) == (
                name == "wrong"
            )


def test_script_names_files_that_are_there(run: Path) -> None:
    lines = (run / "view.cxc").read_text().splitlines()
    opened = [line.split()[1] for line in lines if line.startswith("open ")]
    assert opened == ["mode1.cif", "rest.cif", "centres.cif"]
    assert all((run / name).exists() for name in opened)
    modes = (run / "modes.nmd").read_text().splitlines()
    assert modes[-1].startswith("mode 1 2.0000 ")


def test_the_report_can_be_written_again(run: Path) -> None:
    page = (run / "report.html").read_text()
    assert "The moving model" in page
    assert "Free energy" in page
    assert "If the pose were known" in page
    (run / "report.html").unlink()
    again = cryoinfer("report", run)
    assert again.exit_code == 0, again.output
    assert (run / "report.html").read_text() == page
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["results"]["gain"] == pytest.approx(1.0, abs=0.1)


def test_what_is_there_is_not_lost(run: Path) -> None:
    particles = run.parent / "set" / "particles.star"
    words = ("dynamics", particles, "--structure", STRUCTURE, "--out", run, *RUN)
    refused = cryoinfer(*words)
    assert refused.exit_code == 2
    assert "--overwrite" in refused.output
    finished = cryoinfer(*words, "--resume")
    assert finished.exit_code == 0
    assert "nothing to do" in finished.output
    other = cryoinfer(*words, "--resume", "--seed", 7)
    assert other.exit_code == 2
    assert "was started with --seed 0, now with --seed 7" in other.output


@pytest.mark.parametrize(
    ("structure", "message"),
    [("nowhere.cif", "neither a file nor one of the examples"), ("ligand", "CA")],
)
def test_structures_that_cannot_move_are_refused(
    run: Path, tmp_path: Path, structure: str, message: str
) -> None:
    if structure == "ligand":
        path = tmp_path / "ligand.pdb"
        lines = [
            f"HETATM{k:5d}  C{k}  LIG A   1    {2.0 * k:8.3f}{0.0:8.3f}{0.0:8.3f}"
            "  1.00  0.00           C"
            for k in range(1, 6)
        ]
        path.write_text("\n".join([*lines, "END", ""]))
        structure = str(path)
    particles = run.parent / "set" / "particles.star"
    found = cryoinfer(
        "dynamics", particles, "--structure", structure, "--out", tmp_path / "run"
    )
    assert found.exit_code == 2
    assert message in found.output
