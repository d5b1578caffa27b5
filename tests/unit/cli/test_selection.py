"""Particles selected: those that were asked for, with all that their file had."""

import json
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import starfile
import torch
from typer.testing import CliRunner

from cryoinfer.cli.app import app
from cryoinfer.cli.arguments import recorded_path
from cryoinfer.data.particles import Particles
from cryoinfer.io.cryosparc import read_cs, with_fields, write_cs
from cryoinfer.io.latents import write_columns
from cryoinfer.io.star import read_star
from cryoinfer.results.run_files import fingerprint, save_particles
from cryoinfer.results.run_record import RunRecord

COUNT = 120
NAN_ROWS = [3, 50, 77]


def names_of(path: Path) -> list[str]:
    """Return the names of the images of a file."""
    return [str(x) for x in read_star(path).blocks[-1].columns["rlnImageName"]]


@dataclass(frozen=True)
class Asked:
    """What a command answered."""

    code: int
    said: str

    def of_rows(self, path: Path, run: Path) -> list[int]:
        """Return which rows of a run a file holds, and check that they are whole."""
        assert self.code == 0, self.said
        whole = read_star(run / "particles.star")
        some = read_star(path)
        assert [b.name for b in some.blocks] == [b.name for b in whole.blocks]
        assert some.version == whole.version
        before, after = whole.blocks[-1], some.blocks[-1]
        # The stack is one; its name leads there from the folder of the file.
        numbers = [name.split("@")[0] for name in names_of(run / "particles.star")]
        rows = [numbers.index(name.split("@")[0]) for name in names_of(path)]
        assert list(after.columns) == list(before.columns)
        for label, words in after.columns.items():
            if label == "rlnImageName":
                continue
            assert words.tolist() == before.columns[label][rows].tolist()
        for label, words in whole.blocks[0].columns.items():
            assert some.blocks[0].columns[label].tolist() == words.tolist()
        return rows


def make_run(folder: Path, given: Path, workflow: str) -> Path:
    """Write a run that has found the truth of a file of particles."""
    particles = Particles.load(given)
    random = torch.Generator().manual_seed(2)
    found = particles.with_results(
        pose=particles.pose,
        random_subset=torch.arange(COUNT) % 2 + 1,
        columns={"cryoinferRotationSdDegrees": torch.rand(COUNT, generator=random)},
    )
    folder.mkdir()
    save_particles(folder / "particles.star", found)
    inputs = fingerprint(particles, given, None)
    arguments = {"particles": recorded_path(given)}
    record = RunRecord.of_now(workflow, arguments, inputs, seed=0, threads=1)
    replace(record, status="finished").write(folder)
    return folder


@pytest.fixture
def plain(simulated: Path, tmp_path: Path) -> Path:
    """Return a run without latents."""
    return make_run(tmp_path / "plain", simulated / "truth.star", "refine")


@pytest.fixture
def run(simulated: Path, tmp_path: Path) -> Path:
    """Return a run with z, classes and outliers, some particles not inferred."""
    folder = make_run(tmp_path / "run", simulated / "truth.star", "heterogeneity")
    random = np.random.default_rng(4)
    z = random.normal(size=(COUNT, 2))
    z[NAN_ROWS] = np.nan
    columns = {
        "rlnImageName": names_of(folder / "particles.star"),
        "z_1": z[:, 0],
        "z_1_sd": np.full(COUNT, 0.1),
        "z_2": z[:, 1],
        "class": np.arange(COUNT) % 3 + 1,
        "outlier": np.abs(random.normal(size=COUNT)) * 2,
    }
    write_columns(folder / "latents.parquet", columns, {})
    return folder


@pytest.fixture
def z(run: Path) -> np.ndarray:
    from pyarrow.parquet import read_table

    table = read_table(run / "latents.parquet")
    return np.stack([table["z_1"].to_numpy(), table["z_2"].to_numpy()], 1)


def ask(*words: Any) -> Asked:
    answer = CliRunner().invoke(app, ["select", *map(str, words)])
    return Asked(answer.exit_code, answer.output)


def test_a_condition_keeps_rows_columns_blocks_and_digits(
    run: Path, tmp_path: Path, z: np.ndarray
) -> None:
    out = tmp_path / "a" / "some.star"
    found = ask(run, "--where", "z_1 > 0.5 and not z_2 > 0", "--out", out)
    expected = np.flatnonzero((z[:, 0] > 0.5) & (z[:, 1] <= 0)).tolist()
    assert found.of_rows(out, run) == expected
    assert f"Wrote {len(expected)} of 120 particles" in found.said
    assert "3 lack a number" in found.said
    # What was written can be read with its images, from where it lies.
    assert len(Particles.load(out)) == len(expected)
    theirs = starfile.read(out)["particles"]
    assert len(theirs) == len(expected)


def test_inverted_are_the_others_but_those_without_a_number(
    run: Path, tmp_path: Path
) -> None:
    kept, left = tmp_path / "kept.star", tmp_path / "left.star"
    words = (run, "--where", "z_1 > 0.5")
    rows = ask(*words, "--out", kept).of_rows(kept, run)
    others = ask(*words, "--invert", "--out", left).of_rows(left, run)
    assert sorted([*rows, *others, *NAN_ROWS]) == list(range(COUNT))


def test_the_nearest_of_a_class(run: Path, tmp_path: Path, z: np.ndarray) -> None:
    out = tmp_path / "near.star"
    found = ask(
        *(run, "--near", "-0.5,0.25", "--count", 7, "--class", 2, "--out", out)
    ).of_rows(out, run)
    distance = np.hypot(z[:, 0] + 0.5, z[:, 1] - 0.25)
    among = [i for i in range(COUNT) if i % 3 == 1 and i not in NAN_ROWS]
    assert found == sorted(sorted(among, key=lambda i: distance[i])[:7])


@pytest.mark.parametrize("kind", ["txt", "names", "json", "list", "image names", "pkl"])
def test_files_of_rows(run: Path, tmp_path: Path, kind: str) -> None:
    rows = [7, 2, 119, 2]
    names = [names_of(run / "particles.star")[i] for i in rows]
    path = tmp_path / ("rows.json" if kind in ("json", "image names") else "rows.txt")
    if kind == "txt":
        path.write_text("# of a run\n" + "\n".join(map(str, rows)) + "\n")
    elif kind == "names":
        path.write_text("\r\n".join(names))
    elif kind == "list":
        path.write_text(json.dumps(rows))
    elif kind == "pkl":
        path = tmp_path / "ind.pkl"
        path.write_bytes(pickle.dumps(np.array(rows)))
    else:
        chosen = rows if kind == "json" else names
        path.write_text(json.dumps({"run": "x", "count": 4, "rows": chosen}))
    out = tmp_path / "some.star"
    assert ask(run, "--rows", path, "--out", out).of_rows(out, run) == [2, 7, 119]


def test_columns_of_any_run_and_file(plain: Path, tmp_path: Path) -> None:
    """A run without latents has those of its particles, and so has its file."""
    block = read_star(plain / "particles.star").blocks[-1]
    sd = block.numbers("cryoinferRotationSdDegrees")
    middle = float(np.median(sd))
    for source in (plain, plain / "particles.star"):
        out = tmp_path / f"{source.name}.some.star"
        where = f"cryoinferRotationSdDegrees > {middle!r} and rlnRandomSubset == 1"
        found = ask(source, "--where", where, "--out", out).of_rows(out, plain)
        half = block.numbers("rlnRandomSubset") == 1
        assert found == np.flatnonzero((sd > middle) & half).tolist()


# The second is what earlier versions called the column in their files.
@pytest.mark.parametrize("score", ["cryoinferOutlierScore", "cryoinferNovelty"])
def test_short_names_of_outliers_and_flags(
    simulated: Path, tmp_path: Path, score: str
) -> None:
    particles = Particles.load(simulated / "truth.star")
    flags = torch.arange(COUNT) % 2
    columns = {"cryoinferFlag": flags, score: torch.linspace(0, 5, COUNT)}
    for name in ("in.star", "in.cs"):
        particles.with_results(columns=columns).save(tmp_path / name)
        out = tmp_path / f"out-{name}"
        found = ask(tmp_path / name, "--where", "outlier < 3 and flag == 0", "-o", out)
        assert found.code == 0, found.said
        kept = Particles.load(out).table.results[score]
        assert len(kept) == 36  # every second of those below 3/5 of 119
        assert kept.max() < 3


def test_z_of_cryodrgn(simulated: Path, tmp_path: Path) -> None:
    z = np.random.default_rng(0).normal(size=(COUNT, 3)).astype(np.float32)
    path = tmp_path / "z.pkl"
    path.write_bytes(pickle.dumps(z) + pickle.dumps(np.zeros_like(z)))
    out = tmp_path / "some.star"
    words = (simulated / "particles.star", "--latents", path, "--out", out)
    assert ask(*words, "--where", "z_3 > 1 and z_1_sd == 1").code == 0
    assert len(Particles.load(out)) == int((z[:, 2] > 1).sum())
    assert ask(*words, "--near", "0 0 0", "--count", 5, "--overwrite").code == 0
    assert len(Particles.load(out)) == 5


@pytest.fixture
def of_cryosparc(simulated: Path, tmp_path: Path) -> Path:
    """Return a run that began with a table of cryoSPARC."""
    given = tmp_path / "given.cs"
    Particles.load(simulated / "truth.star").save(given)
    other = {"alignments2D/class_ess": np.linspace(0, 1, COUNT, dtype=np.float32)}
    write_cs(given, with_fields(read_cs(given), other))
    return make_run(tmp_path / "run", given, "abinitio")


def test_a_table_of_cryosparc_keeps_its_fields_and_uids(
    of_cryosparc: Path, tmp_path: Path
) -> None:
    out, given = tmp_path / "some.cs", read_cs(tmp_path / "given.cs")
    found = ask(of_cryosparc, "--where", "rlnRandomSubset == 2", "--out", out)
    assert found.code == 0, found.said
    half = read_star(of_cryosparc / "particles.star").blocks[-1]
    rows = half.numbers("rlnRandomSubset") == 2
    some = read_cs(out)
    for name in ("uid", "alignments2D/class_ess", "blob/path", "ctf/df1_A"):
        assert np.array_equal(some[name], given[name][rows])
    posed = Particles.load(of_cryosparc / "particles.star").pose
    written = Particles.load(out).pose
    assert posed is not None
    assert written is not None
    # The text has six decimals of a degree, the table single precision.
    error = (written.rotation - posed.rotation[torch.from_numpy(rows)]).abs().max()
    assert float(error) < 1e-5


def test_a_table_that_has_changed_is_not_taken(
    of_cryosparc: Path, tmp_path: Path
) -> None:
    given = tmp_path / "given.cs"
    write_cs(given, read_cs(given)[::-1])
    out = tmp_path / "some.cs"
    found = ask(of_cryosparc, "--where", "rlnRandomSubset == 2", "--out", out)
    assert found.code == 0
    assert "has changed since" in found.said
    assert "alignments2D/class_ess" not in read_cs(out).dtype.names


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "No condition is given"),
        (["--where", "z_1 > 99"], "None of 120 particles is selected; 3 lack"),
        (["--where", "z_3 > 0"], "no column z_3: expected one of z_"),
        (["--where", "outlir > 0"], "no column outlir: expected one of outlier, "),
        (["--where", "rlnImageName > 0"], "rlnImageName holds no numbers"),
        (["--where", "os.system(1)"], "A condition holds 'os.system(1)'"),
        (["--near", "0"], "--near and --count go together"),
        (["--count", "3", "--class", "1"], "--near and --count go together"),
        (["--near", "0", "--count", "3"], "--near gives 1 numbers, and z has 2"),
        (["--near", "0,x", "--count", "3"], "expects numbers with commas"),
        (["--near", "nan,0", "--count", "3"], "expects numbers with commas"),
        (["--near", "0,0", "--count", "0"], "expected a whole number from 1"),
        (["--class", "4"], "no class 4: expected one of 1, 2, 3"),
        (["--rows", "absent.txt"], "No such file"),
    ],
)
def test_bad_requests(run: Path, tmp_path: Path, words: list[str], said: str) -> None:
    out = tmp_path / "out.star"
    found = ask(run, *words, "--out", out)
    assert found.code == 2
    assert said in " ".join(found.said.replace("│", " ").split())
    assert not out.exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lists no particles"),
        ("[]", "lists no particles"),
        ("1\n120\n", "lists particle 120, and there are 120"),
        ("-1", "expected numbers from 0 to 119"),
        ("1\nx", "other things than particles"),
        ("[1, 2.5]", "other things than particles"),
        ("[1, true]", "other things than particles"),
        ("[99999999999999999999]", "a number that no particle has"),
        ('{"count": 3}', 'expected {"rows": [..]}'),
        ('{"rows": [1', "no JSON"),
        ("[" * 100000, "no JSON"),
        ("000001@absent.mrcs", "which no particle is (1 such names)"),
        ("\x00\xff", "which no particle is"),
    ],
)
def test_bad_files_of_rows(run: Path, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "rows.txt"
    path.write_text(text)
    found = ask(run, "--rows", path, "--out", tmp_path / "out.star")
    assert found.code == 2
    assert said in found.said


@pytest.mark.parametrize("damage", ["short", "other order", "no table"])
def test_latents_that_are_not_the_particles(
    run: Path, tmp_path: Path, damage: str
) -> None:
    path = run / "latents.parquet"
    names = names_of(run / "particles.star")
    if damage == "no table":
        path.write_bytes(b"PAR1")
    elif damage == "short":
        write_columns(path, {"z_1": np.zeros(COUNT - 1)}, {})
    else:
        write_columns(path, {"rlnImageName": names[::-1], "z_1": np.zeros(COUNT)}, {})
    found = ask(run, "--where", "z_1 == 0", "--out", tmp_path / "out.star")
    assert found.code == 2
    assert "latents.parquet" in found.said


def test_nothing_is_written_over_what_is_read(run: Path, tmp_path: Path) -> None:
    words = (run, "--class", 1, "--overwrite", "--out")
    assert "is what is read" in ask(*words, run / "particles.star").said
    assert "expected .star or .cs" in ask(*words, tmp_path / "out.csv").said
    out = tmp_path / "out.star"
    assert ask(*words, out).code == 0
    assert "exists" in ask(run, "--class", 1, "--out", out).said
