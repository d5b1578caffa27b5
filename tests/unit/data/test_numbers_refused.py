"""Numbers that no microscope has: what `check` calls an error, no command runs on."""

import numpy as np
import pytest

from cryoinfer.data.check import check
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.io.cryosparc import write_cs
from cryoinfer.io.star import read_star

N = 6
OPTICS = {
    "rlnOpticsGroup": "1",
    "rlnVoltage": "300",
    "rlnSphericalAberration": "2.7",
    "rlnAmplitudeContrast": "0.1",
    "rlnImagePixelSize": "1.5",
}
PARTICLES = {
    "rlnImageName": "{}@a.mrcs",
    "rlnOpticsGroup": "1",
    "rlnDefocusU": "12000",
    "rlnDefocusV": "11000",
    "rlnDefocusAngle": "10",
    "rlnPhaseShift": "0",
    "rlnCtfBfactor": "0",
    "rlnCtfScalefactor": "1",
    "rlnAngleRot": "1",
    "rlnAngleTilt": "2",
    "rlnAnglePsi": "3",
    "rlnOriginXAngst": "0",
    "rlnOriginYAngst": "0",
}


def table(name, columns, rows):
    head = ["", f"data_{name}", "", "loop_", *(f"_{label}" for label in columns)]
    body = (" ".join(columns.values()).format(i + 1) for i in range(rows))
    return "\n".join([*head, *body, ""])


def write(folder, **changes):
    """Write particles of which the third has other values, or all those of a group."""
    optics = OPTICS | {k: v for k, v in changes.items() if k in OPTICS}
    text = table("optics", optics, 1) + table("particles", PARTICLES, N)
    rows = text.splitlines()
    at = next(i for i, row in enumerate(rows) if row.startswith("3@"))
    odd = PARTICLES | {k: v for k, v in changes.items() if k in PARTICLES}
    rows[at] = " ".join(odd.values()).format(3)
    path = folder / "p.star"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def folder(tmp_path, stack):
    """Return a folder with a stack."""
    stack(tmp_path / "a.mrcs", N, 8)
    return tmp_path


def test_good_numbers_pass(folder):
    assert len(Particles.load(write(folder))) == N
    assert not [f for f in check(write(folder)) if f.severity == "error"]


NEEDED = [
    ("rlnVoltage", ["0", "-300", "300000", "nan", "inf", "x"]),
    ("rlnSphericalAberration", ["-2.7", "2700", "nan"]),
    ("rlnAmplitudeContrast", ["7", "-0.1", "nan"]),
    ("rlnImagePixelSize", ["0", "-1.5", "1000", "1e-9", "inf"]),
    ("rlnDefocusU", ["1e9", "-1e9", "nan"]),
    ("rlnDefocusV", ["1e9", "inf", ""]),
    ("rlnDefocusAngle", ["1e9", "nan"]),
    ("rlnPhaseShift", ["1e9", "nan"]),
    ("rlnCtfBfactor", ["1e9", "-1e9", "nan"]),
    ("rlnCtfScalefactor", ["0", "1e-9", "1e9", "nan"]),
    ("rlnOpticsGroup", ["1.5", "1e23", "2", "nan", "x"]),
    ("rlnImageName", ["1e23@a.mrcs", "0@a.mrcs", "-1@a.mrcs", "7@a.mrcs", "@a.mrcs"]),
    ("rlnImageName", [f"{'9' * 30}@a.mrcs", "1.5@a.mrcs", "a.mrcs", "1@", "²@a.mrcs"]),
    ("rlnImageName", [f"{'9' * 5000}@a.mrcs", f"1@{'x' * 5000}"]),
]


@pytest.mark.parametrize(
    ("label", "word"), [(label, word) for label, words in NEEDED for word in words]
)
def test_numbers_that_are_needed(folder, label, word):
    path = write(folder, **{label: word or '""'})
    with pytest.raises(InputError) as error:
        Particles.load(path)
    found = [f.message for f in check(path) if f.severity == "error"]
    assert len(found) == 1
    assert found[0] in str(error.value)
    assert len(found[0]) < 800


@pytest.mark.parametrize(
    ("label", "word"),
    [("rlnAngleRot", "1e30"), ("rlnOriginXAngst", "1e9"), ("rlnAnglePsi", "-1e6")],
)
def test_poses_of_absurd_numbers_are_none(folder, label, word):
    particles = Particles.load(write(folder, **{label: word}))
    assert particles.pose is None
    assert "row 3" in particles.pose_problem


def test_a_particle_beside_its_image_is_told(folder):
    found = check(write(folder, rlnOriginXAngst="7"))  # of 12 A, 6 to either side
    assert any("not in their images" in finding.message for finding in found)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ctf/accel_kv", 0),
        ("ctf/accel_kv", np.nan),
        ("ctf/cs_mm", -2.7),
        ("ctf/amp_contrast", 7),
        ("ctf/df1_A", 1e9),
        ("ctf/df2_A", np.inf),
        ("ctf/df_angle_rad", 1e9),
        ("ctf/phase_shift_rad", 1e9),
        ("ctf/bfactor", 1e9),
        ("ctf/scale", 0),
        ("blob/psize_A", 1e9),
        ("blob/idx", 99),
    ],
)
def test_fields_of_absurd_numbers(sparc, cryosparc_table, field, value):
    path = sparc / "J1" / "particles.cs"
    write_cs(path, cryosparc_table(**{field: np.full(3, value, dtype="f4")}))
    with pytest.raises(InputError) as error:
        Particles.load(path)
    found = [f.message for f in check(path) if f.severity == "error"]
    assert len(found) == 1
    assert found[0] in str(error.value)


OLD = """
data_
loop_
_rlnImageName
_rlnMagnification
_rlnDetectorPixelSize
1@a.mrcs {} {}
2@a.mrcs 40000 6.0
"""


@pytest.mark.parametrize(
    ("magnification", "micrometre"),
    [("0", "6"), ("-1", "6"), ("nan", "6"), ("1e-9", "6"), ("40000", "inf")],
)
def test_magnifications_of_no_microscope(folder, magnification, micrometre):
    path = folder / "old.star"
    path.write_text(OLD.format(magnification, micrometre))
    with pytest.raises(InputError):
        Particles.load(path)
    assert len([f for f in check(path) if f.severity == "error"]) == 1


@pytest.mark.parametrize("without", [None, "rlnImagePixelSize"])
def test_tables_of_optics_that_describe_nothing_or_twice(folder, without):
    rest = table("particles", PARTICLES, N)
    # The headers of the stacks say the pixel size too.
    known = {name: value for name, value in OPTICS.items() if name != without}
    for text, message in (
        (table("optics", known, 0), "data_optics has no rows"),
        (table("optics", known, 2), "describes group 1 more than once"),
        (
            table("optics", known | {"rlnOpticsGroup": "2"}, 1),
            r"Row 1 belongs to optics group 1, but .* only \[2\]",
        ),
    ):
        path = folder / "p.star"
        path.write_text(text + rest)
        with pytest.raises(InputError, match=message):
            Particles.load(path)
        # A finding beside others, not the end of the check.
        found = [f for f in check(path) if f.severity == "error"]
        assert [f.topic for f in found] == ["metadata"]


@pytest.mark.parametrize(("first", "written"), [(0, [1, 2]), (-3, [1, 2]), (3, [3, 4])])
def test_groups_are_written_from_1(folder, first, written):
    groups = [OPTICS | {"rlnOpticsGroup": str(first + i)} for i in range(2)]
    optics = table("optics", groups[0], 1)
    optics += optics.splitlines()[-1].replace(str(first), str(first + 1), 1) + "\n"
    particles = table("particles", PARTICLES | {"rlnOpticsGroup": str(first)}, N)
    (folder / "p.star").write_text(optics + particles)
    Particles.load(folder / "p.star").save(folder / "out.star")
    star = read_star(folder / "out.star")
    assert star.get("optics").integers("rlnOpticsGroup").tolist() == written
    assert set(star.get("particles").integers("rlnOpticsGroup")) == {written[0]}
    assert len(Particles.load(folder / "out.star")) == N
