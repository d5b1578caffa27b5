"""What a command does not need cannot stop it, and is written back as it came."""

import re

import numpy as np
import pytest
import torch

from cryoinfer.data.check import check
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.io.cryosparc import read_cs, write_cs
from cryoinfer.io.star import read_star

N = 8
ODD = ["<NA>", "nan", "None", "inf", "-999", ""]


def write(folder, **columns):
    """Write particles with poses and other columns, one word a row."""
    own = {
        "rlnImageName": [f"{i + 1}@a.mrcs" for i in range(N)],
        "rlnAngleRot": [str(i) for i in range(N)],
        "rlnAngleTilt": ["10"] * N,
        "rlnAnglePsi": ["20"] * N,
        "rlnOriginXAngst": ["1.5"] * N,
        "rlnOriginYAngst": ["0"] * N,
    } | columns
    lines = ["data_particles", "", "loop_", *(f"_{label}" for label in own)]
    rows = zip(*own.values(), strict=True)
    lines += [" ".join(word or '""' for word in row) for row in rows]
    path = folder / "p.star"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def folder(tmp_path, stack):
    """Return a folder with a stack."""
    stack(tmp_path / "a.mrcs", N, 8)
    return tmp_path


def with_odd(values, word):
    return [*values[:3], word, *values[4:]]


@pytest.mark.parametrize("word", ODD)
@pytest.mark.parametrize(
    "label",
    [
        "rlnLogLikeliContribution",
        "rlnMaxValueProbDistribution",
        "rlnClassNumber",
        "rlnRandomSubset",
        "rlnCtfFigureOfMerit",
        "rlnGroupNumber",
        "cryoinferRotationSdDegrees",
    ],
)
def test_values_that_nobody_needs(folder, label, word):
    values = with_odd([str(i % 2 + 1) for i in range(N)], word)
    particles = Particles.load(write(folder, **{label: values}))
    assert particles.pose is not None
    assert particles.random_subset is None
    particles.save(folder / "out.star")
    block = read_star(folder / "out.star").blocks[0]
    assert block.columns[label].tolist() == values
    particles.save(folder / "out.cs")
    assert len(Particles.load(folder / "out.cs")) == N


@pytest.mark.parametrize("word", ["<NA>", "nan", "inf", "None"])
@pytest.mark.parametrize("label", ["rlnAngleRot", "rlnAnglePsi", "rlnOriginYAngst"])
def test_poses_that_are_no_numbers_are_none_and_told(folder, label, word):
    path = write(folder, **{label: with_odd(["1"] * N, word)})
    particles = Particles.load(path)
    assert particles.pose is None
    assert f"{label} must hold numbers, but row 4" in particles.pose_problem
    assert particles.remarks == (particles.pose_problem,)
    assert particles.pose_problem in [f.message for f in check(path)]
    particles.save(folder / "out.star")
    block = read_star(folder / "out.star").blocks[0]
    assert block.columns[label].tolist() == with_odd(["1"] * N, word)


def test_an_origin_of_one_axis_alone_counts(folder):
    path = write(folder)
    path.write_text(path.read_text().replace("rlnOriginYAngst", "rlnOther"))
    pose = Particles.load(path).pose
    assert pose.shift_angstrom.tolist() == [[-1.5, 0.0]] * N


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("1" * N, "it is 1 for all 8 particles"),
        ("2" * N, "it is 2 for all 8 particles"),
        ("0" * N, r"it holds 0 in row 1 \(8 such rows\)"),
        ("01201201", r"it holds 0 in row 1 \(3 such rows\)"),
        ("12121213", r"it holds 3 in row 8 \(1 such rows\)"),
        ("1212121x", r"it holds no number in row 8 \(1 such rows\)"),
        (["1.5", *"1212121"], r"it holds 1\.5 in row 1"),
        ("11111112", "puts 7 particles into one half and 1 into the other"),
    ],
)
def test_subsets_that_are_no_halves(folder, values, message):
    path = write(folder, rlnRandomSubset=list(values))
    particles = Particles.load(path)
    assert (particles.random_subset is None) == ("puts" not in message)
    (remark,) = particles.remarks
    assert re.search(message, remark)
    assert remark in [f.message for f in check(path) if f.severity == "warning"]


def test_halves_are_kept_and_those_of_one_half_are_none(folder):
    path = write(folder, rlnRandomSubset=list("12" * (N // 2)))
    particles = Particles.load(path)
    assert particles.random_subset.tolist() == [1, 2] * (N // 2)
    assert particles.remarks == ()
    assert particles.select(torch.tensor([0, 2, 4])).random_subset is None


@pytest.mark.parametrize(
    ("split", "halves"),
    [([0, 1, 1], [1, 2, 2]), ([0, 0, 0], None), ([1, 1, 1], None), ([0, 1, 2], None)],
)
def test_the_split_of_cryosparc(sparc, cryosparc_table, split, halves):
    path = sparc / "J1" / "particles.cs"
    fields = {"alignments3D/split": np.array(split, dtype="u4")}
    write_cs(path, cryosparc_table(**fields))
    particles = Particles.load(path)
    subset = particles.random_subset
    assert (None if subset is None else subset.tolist()) == halves
    # Until a refinement splits the data all are in half 0: nothing to tell.
    assert len(particles.remarks) == (halves is None and any(split))


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("alignments3D/pose", np.full((3, 3), np.nan, dtype="f4")),
        ("alignments3D/pose", np.zeros((3, 2), dtype="f4")),
        ("alignments3D/shift", np.full((3, 2), np.inf, dtype="f4")),
        ("alignments3D/class", np.full(3, -1)),
        ("alignments3D/class", np.zeros((3, 2))),
        ("location/micrograph_path", np.zeros(3)),
        ("cryoinfer/cryoinferOutlierScore", np.full(3, np.nan)),
        ("cryoinfer/odd", np.zeros((3, 2))),
    ],
)
def test_fields_that_nobody_needs(sparc, cryosparc_table, field, values):
    path = sparc / "J1" / "particles.cs"
    write_cs(path, cryosparc_table(**{field: values}))
    particles = Particles.load(path)
    assert (particles.pose is None) == field.endswith(("pose", "shift"))
    particles.save(sparc / "out.star")
    assert len(Particles.load(sparc / "out.star")) == 3
    particles.save(sparc / "J1" / "out.cs")
    found = read_cs(sparc / "J1" / "out.cs")[field]
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("blob/idx", np.array([0, -1, 2]), "Row 2 .* an index below 0"),
        ("blob/idx", np.array([0, 0.5, 2]), "whole numbers, but row 2 holds 0.5"),
        ("blob/idx", np.zeros((3, 2)), "blob/idx must hold a number per particle"),
        ("blob/idx", np.array([b"a"] * 3), "blob/idx must hold a number"),
        ("blob/path", np.zeros(3), "blob/path must hold one text"),
        ("blob/path", np.array([b""] * 3), "Row 1 .* no path"),
        ("blob/shape", np.zeros(3), "blob/shape must hold 2 numbers"),
        ("blob/psize_A", np.array([np.nan] * 3), "blob/psize_A must hold finite"),
        ("blob/sign", np.array([np.nan] * 3), "blob/sign must hold finite"),
        ("ctf/df1_A", np.array([b"a"] * 3), "ctf/df1_A must hold a number"),
        ("ctf/exp_group_id", np.array([np.nan] * 3), "ctf/exp_group_id must hold"),
    ],
)
def test_fields_that_are_needed(sparc, cryosparc_table, field, values, message):
    path = sparc / "J1" / "particles.cs"
    write_cs(path, cryosparc_table(**{field: values}))
    with pytest.raises(InputError, match=message):
        Particles.load(path)
    assert any(f.severity == "error" for f in check(path))


def test_a_split_of_another_type_is_told(sparc, cryosparc_table):
    path = sparc / "J1" / "particles.cs"
    split = np.array([b"A", b"B", b"A"])
    for values in (split, np.array([0, 1, np.nan]), np.ones((3, 2))):
        write_cs(path, cryosparc_table(**{"alignments3D/split": values}))
        particles = Particles.load(path)
        assert particles.random_subset is None
        (remark,) = particles.remarks
        assert "alignments3D/split must hold" in remark
        assert "Halves are drawn at random instead" in remark
        assert remark in [f.message for f in check(path)]


@pytest.mark.parametrize("word", ["0", "-16", "x", "nan"])
def test_an_image_size_that_says_nothing_is_that_of_the_stack(folder, word):
    path = write(folder, rlnOpticsGroup=["1"] * N)
    optics = f"data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnImageSize\n1 {word}\n\n"
    path.write_text(optics + path.read_text())
    particles = Particles.load(path)
    assert particles.boxes.tolist() == [8] * N
    particles.save(folder / "out.star")
    # Other programs demand one.
    optics = read_star(folder / "out.star").get("optics")
    assert optics.columns["rlnImageSize"].tolist() == ["8"]


@pytest.mark.parametrize("size", [1e30, 8.5, 1e9])
def test_an_image_size_that_contradicts_the_stack(sparc, cryosparc_table, size):
    path = sparc / "J1" / "particles.cs"
    write_cs(path, cryosparc_table(**{"blob/shape": np.full((3, 2), size)}))
    with pytest.raises(InputError, match="but those of row 1 have 8"):
        Particles.load(path)


def test_a_shape_of_zeros_is_that_of_the_stack(sparc, cryosparc_table):
    path = sparc / "J1" / "particles.cs"
    write_cs(path, cryosparc_table(**{"blob/shape": np.zeros((3, 2), dtype="u4")}))
    Particles.load(path).save(sparc / "J1" / "out.cs")
    assert read_cs(sparc / "J1" / "out.cs")["blob/shape"].tolist() == [[8, 8]] * 3


def test_a_result_in_any_bytes_and_no_column_of_another_name(sparc, cryosparc_table):
    path = sparc / "J1" / "particles.cs"
    fields = {
        "cryoinfer/cryoinferNote": np.array([b"caf\xe9", b"a", b"b"]),
        "cryoinfer/rlnImageName": np.array([b"9@z.mrcs"] * 3),
        "cryoinfer/rlnLogLikeliContribution": np.array([1.0, 2.0, 3.0]),
    }
    write_cs(path, cryosparc_table(**fields))
    particles = Particles.load(path)
    assert set(particles.table.results) == {
        "cryoinferNote",
        "rlnLogLikeliContribution",
    }
    particles.save(sparc / "J1" / "out.star")
    assert Particles.load(sparc / "J1" / "out.star").table.images.row[0] == 0
    assert b"caf\xe9" in (sparc / "J1" / "out.star").read_bytes()
    # The table itself keeps them all.
    particles.save(sparc / "J1" / "out.cs")
    again = read_cs(sparc / "J1" / "out.cs")
    for name, values in fields.items():
        assert np.array_equal(again[name], values)
