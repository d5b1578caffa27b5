import re
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch

from cryoinfer.data.check import check
from cryoinfer.data.particles import Particles
from cryoinfer.io.mrc import StackWriter

N, BOX = 120, 16
HEADER = """
data_optics

loop_
_rlnOpticsGroup #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnImagePixelSize #5
_rlnBeamTiltX #6
1 {voltage} {cs} {contrast} {pixel_size} {tilt}

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnPhaseShift #5
"""
GOOD = {
    "voltage": 300,
    "cs": 2.7,
    "contrast": 0.1,
    "pixel_size": 1.5,
    "tilt": 0,
    "defocus_u": 15000,
    "defocus_v": 14000,
    "phase": 0,
}


def particle_images():
    """Return noise with a bright disc in the middle."""
    images = torch.randn(N, BOX, BOX, generator=torch.Generator().manual_seed(0))
    axis = torch.arange(BOX) - BOX // 2
    disc = torch.hypot(axis[:, None].float(), axis[None].float()) < BOX / 4
    return images + disc.float()


def write(folder, images, *, rows=range(1, N + 1), header_pixel_size=1.5, **values):
    values = GOOD | values
    with StackWriter(folder / "a.mrcs", len(images), BOX, header_pixel_size) as writer:
        writer.write(images)
    line = "{:06d}@a.mrcs 1 {defocus_u} {defocus_v} {phase}"
    lines = [line.format(row, **values) for row in rows]
    path = folder / "p.star"
    path.write_text(HEADER.format(**values) + "\n".join(lines) + "\n")
    return path


def messages(findings, severity=None):
    return [f.message for f in findings if severity in (None, f.severity)]


def test_good_particles_have_no_findings(tmp_path):
    assert check(write(tmp_path, particle_images())) == []


@pytest.mark.parametrize(
    ("values", "severity", "message"),
    [
        ({"voltage": 300000}, "error", "voltage between 60 and 400 kV.*volts"),
        ({"cs": 2700}, "error", "cs between -0.1 and 10 mm.*micrometres"),
        ({"contrast": 10}, "error", "amplitude contrast between 0 and 1.*percent"),
        ({"contrast": 0.6}, "warning", "amplitude contrast between 0.005 and 0.4"),
        ({"defocus_u": 1.5, "defocus_v": 1.4}, "error", "Is it in micrometres"),
        ({"defocus_u": -100, "defocus_v": 400}, "warning", "Underfocus is positive"),
        ({"defocus_v": 5000}, "warning", "120 particles, .* astigmatism above 5000"),
        ({"phase": 1.57}, "warning", "Is the column in radians"),
        ({"tilt": 100}, "error", "beam tilt between -50 and 50 mrad"),
        ({"pixel_size": 0}, "error", "pixel size between 0.1 and 100"),
        ({"pixel_size": 2}, "warning", "say 2 A, which is used, but the header"),
        ({"pixel_size": 1.51}, "warning", "say 1.51 A, .* but the header"),
        ({"rows": [1, *range(1, N)]}, "warning", "1 rows repeat an image"),
        ({"rows": range(1, 60)}, "warning", "at least 100 particles, found 59"),
        ({"rows": range(2, N + 2)}, "error", "Row 120 .* only 120 images"),
    ],
)
def test_suspicious_metadata_are_found(tmp_path, values, severity, message):
    findings = check(write(tmp_path, particle_images(), **values))
    found = messages(findings, severity)
    assert len(found) == 1
    assert re.search(message, found[0])


def test_ignored_physics_is_noted(tmp_path):
    path = write(tmp_path, particle_images(), tilt=0.1)
    path.write_text(path.read_text().replace("_rlnDefocusU", "_userDefocus"))
    findings = check(path, ignore=["aberrations"])
    assert {f.severity for f in findings} == {"note"}
    assert "is ignored" in findings[0].message


def test_inverted_contrast_is_found(tmp_path):
    (finding,) = check(write(tmp_path, -particle_images()))
    assert (finding.severity, finding.topic) == ("warning", "contrast")
    assert "found them darker" in finding.message


def test_pure_noise_is_noted(tmp_path):
    images = torch.randn(N, BOX, BOX, generator=torch.Generator().manual_seed(1))
    (finding,) = check(write(tmp_path, images))
    assert (finding.severity, finding.topic) == ("note", "contrast")


def test_broken_and_odd_images_are_found(tmp_path):
    images = particle_images()
    images[3, 2, 2] = torch.nan
    images[5] = 4.0
    images[7] *= 100
    images[9] += 1000
    found = messages(check(write(tmp_path, images)))
    assert len(found) == 4
    assert found[0].startswith("1 of 120 images (rows 4) hold values that are no num")
    assert found[1].startswith("1 of 120 images (rows 6) are constant")
    assert found[2].startswith("1 of 120 images (rows 10) have a background that slope")
    assert found[3].startswith("1 of 120 images (rows 8) are in other units than most")


def test_images_repeat_under_whatever_name_of_their_stack(tmp_path):
    path = write(tmp_path, particle_images())
    (tmp_path / "link.mrcs").symlink_to(tmp_path / "a.mrcs")
    (tmp_path / "links").symlink_to(tmp_path)
    text = path.read_text()
    for name in ("./a.mrcs", "link.mrcs", "links/a.mrcs", "links/link.mrcs"):
        path.write_text(text.replace("000001@a.mrcs", f"000002@{name}"))
        (found,) = messages(check(path))
        assert found.startswith("1 rows repeat an image")
        assert Particles.load(path).remarks == (found,)
        path.write_text(text.replace("000001@a.mrcs", f"000001@{name}"))
        assert check(path) == []
        assert Particles.load(path).remarks == ()


def test_rows_and_stacks_that_repeat_are_told_when_they_are_loaded(tmp_path):
    path = write(tmp_path, particle_images())
    rows = [line for line in path.read_text().splitlines() if "@" in line]
    path.write_text(path.read_text() + "\n".join(rows) + "\n")
    (tmp_path / "list.txt").write_text("a.mrcs\n./a.mrcs\n")
    for name in ("p.star", "list.txt"):
        (remark,) = Particles.load(tmp_path / name).remarks
        assert remark.startswith(f"{N} rows repeat an image")
        assert remark in messages(check(tmp_path / name), "warning")


def test_one_problem_does_not_hide_another(tmp_path):
    images = particle_images()
    images[0] = torch.inf
    path = write(tmp_path, images, voltage=300000, tilt=100, pixel_size=0)
    with path.open("a") as file:
        file.write("000001@gone.mrcs 1 15000 14000 0\n")
        file.write("000001@cut.mrcs 1 15000 14000 0\n")
        file.write("000500@a.mrcs 1 15000 14000 0\n")
    (tmp_path / "cut.mrcs").write_bytes((tmp_path / "a.mrcs").read_bytes()[:-4])
    found = "\n".join(messages(check(path), "error"))
    for part in (
        "1 of 3 stacks are missing, the first is 'gone.mrcs'",
        "cut.mrcs is cut off",
        "Row 123 of the particles is image 500",
        "beam tilt between",
        "voltage",
        "pixel size between",
        "images (rows 1) hold values that are no number",
    ):
        assert part in found


def test_bare_stacks_are_checked(tmp_path):
    with StackWriter(tmp_path / "a.mrcs", N, BOX, 0.0) as writer:
        writer.write(particle_images())
    findings = check(tmp_path / "a.mrcs")
    assert [f.severity for f in findings] == ["error", "note"]
    assert "Give --pixel-size" in findings[0].message
    assert "no CTF at all" in findings[1].message
    (finding,) = check(tmp_path / "a.mrcs", pixel_size_angstrom=1.5)
    assert finding.severity == "note"


def test_what_cannot_be_read_is_one_finding(tmp_path):
    (finding,) = check(tmp_path / "none.star")
    assert finding.severity == "error"
    with mrcfile.new(tmp_path / "a.mrcs") as mrc:
        mrc.set_data(np.zeros((2, 7, 8), dtype=np.float32))
    (finding,) = check(tmp_path / "a.mrcs")
    assert "expected square images" in finding.message


def test_particles_without_errors_load(tmp_path):
    path = write(tmp_path, particle_images(), contrast=0.6)
    assert not messages(check(path), "error")
    assert len(Particles.load(path)) == N


def test_a_stack_that_cannot_be_read_does_not_hide_the_others(tmp_path, monkeypatch):
    images = particle_images()
    images[0] = torch.inf
    path = write(tmp_path, images)
    (tmp_path / "b.mrcs").write_bytes((tmp_path / "a.mrcs").read_bytes())
    text = path.read_text()
    path.write_text(text.replace("000002@a.mrcs", "000002@b.mrcs"))
    plain = Path.open

    def opened(self, *args, **kwargs):
        if self.name == "b.mrcs":
            raise OSError(5, "Input/output error")
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", opened)
    found = messages(check(path), "error")
    assert len(found) == 2
    assert "b.mrcs: Input/output error" in found[0]
    assert "images (rows 1) hold values that are no number" in found[1]
