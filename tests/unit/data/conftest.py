"""Small projects of RELION and cryoSPARC, written anew for every test."""

import numpy as np
import pytest
import torch

from cryoinfer.io.cryosparc import with_fields, write_cs
from cryoinfer.io.mrc import StackWriter

# Two optics groups that differ in everything, the particles before the optics.
RELION_31 = """
# version 30001

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
_rlnPhaseShift #6
_rlnCtfBfactor #7
_rlnCtfScalefactor #8
_rlnAngleRot #9
_rlnAngleTilt #10
_rlnAnglePsi #11
_rlnOriginXAngst #12
_rlnOriginYAngst #13
_rlnRandomSubset #14
_rlnClassNumber #15
_userCode #16
000001@a.mrcs 7 10000 9000 30 0 0 1.0 10 20 30 1.5 -2.5 1 2 007
000003@a.mrcs 7 11000 9500 40 0 5 0.9 40 50 60 0.0 0.0 2 1 008
000002@b.mrcs 9 12000 9900 50 90 0 1.0 70 80 90 -3.0 4.0 1 1 009

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnVoltage #3
_rlnSphericalAberration #4
_rlnAmplitudeContrast #5
_rlnImagePixelSize #6
_rlnImageSize #7
_rlnImageDimensionality #8
9 second 200 1.4 0.07 2.0 6 2
7 first  300 2.7 0.10 1.5 8 2

data_extra
_kept yes
"""

RELION_30 = """
data_

loop_
_rlnImageName #1
_rlnVoltage #2
_rlnSphericalAberration #3
_rlnAmplitudeContrast #4
_rlnMagnification #5
_rlnDetectorPixelSize #6
_rlnDefocusU #7
_rlnDefocusV #8
_rlnDefocusAngle #9
_rlnAngleRot #10
_rlnAngleTilt #11
_rlnAnglePsi #12
_rlnOriginX #13
_rlnOriginY #14
000001@a.mrcs 300 2.7 0.1 40000 6.0 10000 9000 30 10 20 30 1.0 -2.0
000002@a.mrcs 300 2.7 0.1 40000 6.0 11000 9000 30 10 20 30 0.5  0.0
"""


def write_noise(path, n, box, pixel_size=1.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, box, box, generator=generator)
    with StackWriter(path, n, box, pixel_size) as writer:
        writer.write(images)
    return images


def make_cryosparc_table(n=3, **fields):
    base = np.zeros(n, dtype=[("uid", "u8")])
    base["uid"] = [7, 5, 9][:n]
    path = b">J1/extract/a.mrcs"
    return with_fields(
        base,
        {
            "blob/path": np.array([path] * n),
            "blob/idx": np.array([0, 3, 2], dtype="u4")[:n],
            "blob/shape": np.full((n, 2), 8, dtype="u4"),
            "blob/psize_A": np.full(n, 1.5, dtype="f4"),
            "blob/sign": np.full(n, -1, dtype="f4"),
            "ctf/exp_group_id": np.array([4, 4, 6], dtype="u4")[:n],
            "ctf/accel_kv": np.full(n, 300, dtype="f4"),
            "ctf/cs_mm": np.full(n, 2.7, dtype="f4"),
            "ctf/amp_contrast": np.full(n, 0.1, dtype="f4"),
            "ctf/df1_A": np.array([16412, 16000, 9000], dtype="f4")[:n],
            "ctf/df2_A": np.array([16236, 15000, 8000], dtype="f4")[:n],
            "ctf/df_angle_rad": np.array([0.86, 0.1, 3.0], dtype="f4")[:n],
            "ctf/phase_shift_rad": np.zeros(n, dtype="f4"),
            "ctf/scale": np.ones(n, dtype="f4"),
            "ctf/tilt_A": np.zeros((n, 2), dtype="f4"),
            "alignments3D/pose": np.array(
                [[0, 0, 1.0], [3.0, 0.1, 0], [0.5, -1, 2]], dtype="f4"
            )[:n],
            "alignments3D/shift": np.array([[2, -4], [0, 0], [1, 1]], dtype="f4")[:n],
            "alignments3D/psize_A": np.full(n, 3.0, dtype="f4"),
            "alignments3D/split": np.array([0, 1, 1], dtype="u4")[:n],
            "alignments3D/class": np.array([0, 0, 2], dtype="u4")[:n],
            "location/micrograph_path": np.array([b"m1.mrc", b"m1.mrc", b"m2.mrc"])[:n],
        }
        | fields,
    )


@pytest.fixture(scope="session")
def stack():
    """Return a function that writes a stack of noise and returns its images."""
    return write_noise


@pytest.fixture(scope="session")
def cryosparc_table():
    """Return a function that makes a table, with some fields exchanged."""
    return make_cryosparc_table


@pytest.fixture
def project(tmp_path):
    """Return a folder with two stacks and STAR files of two versions."""
    write_noise(tmp_path / "a.mrcs", 4, 8, seed=1)
    write_noise(tmp_path / "b.mrcs", 2, 6, 2.0, seed=2)
    (tmp_path / "new.star").write_text(RELION_31)
    (tmp_path / "old.star").write_text(RELION_30)
    return tmp_path


@pytest.fixture
def sparc(tmp_path):
    """Return a cryoSPARC project with a stack and the table of a refinement."""
    (tmp_path / "J1" / "extract").mkdir(parents=True)
    write_noise(tmp_path / "J1" / "extract" / "a.mrcs", 4, 8, seed=1)
    write_cs(tmp_path / "J1" / "particles.cs", make_cryosparc_table())
    return tmp_path
