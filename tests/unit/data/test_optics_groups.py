"""Optics groups have one of everything: a noise spectrum is measured for each."""

import numpy as np
import pytest
import torch

from cryoinfer.data.check import check
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.io.cryosparc import write_cs
from cryoinfer.workflows.problem import define_problem, initial_noise


def noise_powers(particles):
    """Return how many frequencies the noise of each group is known at."""
    generator = torch.Generator().manual_seed(0)
    problem = define_problem(particles, "C1", None, None, 0.0, generator)
    return [len(power) for power in initial_noise(problem)]


def write_mixed(folder, label, values):
    """Write a 3.1 file with one optics group, and a column that its particles have."""
    columns = {
        "rlnVoltage": ["300"] * 4,
        "rlnSphericalAberration": ["2.7"] * 4,
        "rlnAmplitudeContrast": ["0.1"] * 4,
        "rlnImagePixelSize": ["1.5"] * 4,
        "rlnCtfDataArePhaseFlipped": ["0"] * 4,
    } | {label: values}
    head = [f"_{name}" for name in ("rlnImageName", "rlnOpticsGroup", "rlnDefocusU")]
    rows = zip(*columns.values(), strict=True)
    lines = ["data_optics", "loop_", "_rlnOpticsGroup", "7", "data_particles", "loop_"]
    lines += [*head, *(f"_{name}" for name in columns)]
    lines += [f"{i}@a.mrcs 7 10000 " + " ".join(row) for i, row in enumerate(rows, 1)]
    path = folder / "mixed.star"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("label", "values", "found"),
    [
        ("rlnVoltage", ["300", "300", "200", "200"], "row 1 is 300 .* row 3 is 200"),
        ("rlnSphericalAberration", ["2.7", "1.4", "2.7", "2.7"], "1.4 .1 such rows"),
        ("rlnAmplitudeContrast", ["0.1", "0.07", "0.1", "0.1"], "row 2 is 0.07"),
        ("rlnImagePixelSize", ["1.5", "1.5", "1.5", "2"], "row 4 is 2"),
        ("rlnCtfDataArePhaseFlipped", ["0", "1", "1", "0"], "row 2 is 1 .2 such"),
    ],
)
def test_one_group_of_several_optics_is_refused(project, label, values, found):
    path = write_mixed(project, label, values)
    with pytest.raises(InputError, match=f"Optics group 7 .*{label}.*{found}") as error:
        Particles.load(path)
    assert str(error.value) in [f.message for f in check(path)]
    path = write_mixed(project, label, values[:1] * 4)
    assert Particles.load(path).optics.group.tolist() == [0] * 4


def test_one_group_of_two_boxes_is_refused(project):
    path = write_mixed(project, "rlnVoltage", ["300"] * 4)
    path.write_text(path.read_text().replace("2@a.mrcs", "2@b.mrcs"))
    message = "Optics group 7 .*rlnImageSize.*row 1 is 8 .* row 2 is 6 .1 such rows"
    with pytest.raises(InputError, match=message) as error:
        Particles.load(path)
    assert str(error.value) in [f.message for f in check(path) if f.severity == "error"]


def test_files_without_groups_have_one_a_box(project):
    path = project / "old.star"
    path.write_text(path.read_text().replace("2@a.mrcs", "2@b.mrcs"))
    particles = Particles.load(path)
    assert not [f for f in check(path) if f.severity == "error"]
    group = {8: 1, 6: 0}
    assert particles.optics.group.tolist() == [group[int(b)] for b in particles.boxes]
    assert len(noise_powers(particles)) == 2
    particles.save(project / "out.star")
    assert Particles.load(project / "out.star").boxes.tolist() == [8, 6]


def test_tables_without_a_shape_have_a_group_a_box(sparc, stack, cryosparc_table):
    stack(sparc / "J1" / "extract" / "b.mrcs", 4, 6)
    names = np.array([b"J1/extract/a.mrcs", b"J1/extract/b.mrcs", b"J1/extract/a.mrcs"])
    fields = {"blob/path": names, "ctf/exp_group_id": np.zeros(3)}
    table = cryosparc_table(**fields)
    kept = [name for name in table.dtype.names if name != "blob/shape"]
    write_cs(sparc / "J1" / "p.cs", table[kept])
    particles = Particles.load(sparc / "J1" / "p.cs")
    assert particles.optics.group.tolist() == [1, 0, 1]
    assert noise_powers(particles) == [3, 4]
    # In RELION's terms each group says its size.
    particles.save(sparc / "J1" / "out.star")
    again = Particles.load(sparc / "J1" / "out.star")
    assert again.boxes.tolist() == [8, 6, 8]
    assert again.optics.group.tolist() == [1, 0, 1]


def test_a_list_of_stacks_has_a_group_a_box(project):
    (project / "list.txt").write_text("a.mrcs\nb.mrcs\n")
    particles = Particles.load(project / "list.txt", pixel_size_angstrom=1.5)
    assert particles.boxes.tolist() == [8] * 4 + [6] * 2
    assert particles.optics.group.tolist() == [1] * 4 + [0] * 2
    found = check(project / "list.txt", pixel_size_angstrom=1.5)
    assert not [f for f in found if f.severity == "error"]
    assert len(noise_powers(particles)) == 2
