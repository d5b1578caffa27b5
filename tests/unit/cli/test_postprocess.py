"""The command that post-processes half-maps: what it writes, says and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import starfile
import torch
from typer.testing import CliRunner

from cryoinfer.cli.app import app
from cryoinfer.io.mrc import read_map, read_mask, write_map
from cryoinfer.reconstruction.mask import soft_sphere
from cryoinfer.results import layout
from cryoinfer.results.postprocess_files import FILES

N, VOXEL = 32, 2.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of two half-maps of noise in a ball, and its mask."""
    generator = torch.Generator().manual_seed(0)
    signal, first, second = (
        torch.randn((N, N, N), generator=generator) for _ in range(3)
    )
    ball = soft_sphere(N, 8.0, 2.0)
    signal = 3.0 * signal * ball + 2.0 * ball
    for name, density in (
        ("a", signal + first),
        ("b", signal + second),
        ("minus", -signal - first),
        ("mask", soft_sphere(N, 9.0, 4.0)),
        ("other", soft_sphere(24, 8.0, 2.0)),
    ):
        write_map(tmp_path / f"{name}.mrc", density, VOXEL)
    return tmp_path


def run(folder: Path, words: str) -> tuple[int, str]:
    args = [
        str(folder / one) if one.endswith(".mrc") or one in ("out", "run") else one
        for one in words.split()
    ]
    done = CliRunner().invoke(app, ["postprocess", *args])
    return done.exit_code, " ".join(done.output.split())


def test_it_writes_what_it_says(folder: Path) -> None:
    words = "--half1 a.mrc --half2 b.mrc --mask mask.mrc --bfactor -40 -o out"
    code, said = run(folder, words)
    assert code == 0, said
    out = folder / "out"
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    assert "B-factor -40.0 A2, given" in said
    # White signal of nine times the power of the noise.
    assert "A, at Nyquist" in said
    assert 4.0 < float(said.split("corrected ")[1].split()[0]) < 64.0 / 15
    assert "limited by the pixels" in said
    numbers = json.loads((out / "postprocess.json").read_text())
    assert numbers["b_factor_angstrom2"] == -40.0
    assert numbers["at_nyquist"] is True
    assert any("limited by the pixels" in one for one in numbers["cautions"])
    tables = starfile.read(out / "postprocess.star")
    assert set(tables) == {"general", "fsc", "guinier"}
    assert tables["general"]["rlnBfactorUsedForSharpening"] == -40.0
    fsc = tables["fsc"]["rlnFourierShellCorrelationCorrected"]
    assert np.allclose(fsc, numbers["fsc_corrected"], atol=1e-6)
    assert np.allclose(tables["fsc"]["rlnSsnrMap"][1:], numbers["ssnr"][1:], atol=1e-6)
    assert "SSNR of the mean" in said
    assert len(tables["guinier"]) == len(fsc) == N // 2 + 1
    maps = [read_map(out / name) for name in FILES[:2]]
    assert maps[0].pixel_size_angstrom == pytest.approx(VOXEL)
    mask = read_mask(out / layout.MASK).density
    assert np.allclose(maps[0].density * mask, maps[1].density, atol=1e-5)
    page = (out / "report.html").read_text()
    assert "Guinier plot" in page
    assert "Signal and noise" in page
    assert "limited by the pixels" in page
    code, said = run(folder, words)
    assert code == 2
    assert "--overwrite" in said


def test_a_run_brings_half_maps_and_mask(folder: Path, finished: Path) -> None:
    # Of the run's 16 voxels of 6.4 A nothing is finer than 12.8 A.
    code, said = run(folder, f"{finished} -o out")
    assert code == 0, said
    assert "The mask is that of the run" in said
    assert "masks nothing" in said
    assert "no B-factor was fitted: the resolution is worse than 8 A" in said
    assert "not sharpened; --bfactor sharpens it by hand" in said
    code, said = run(folder, f"{finished} -o {finished} --overwrite")
    assert code == 2
    assert "is the folder of a run" in said
    code, said = run(folder, f"{finished} --half1 a.mrc -o out")
    assert code == 2
    assert "expected a run or half-maps, found both" in said
    (finished / layout.HALF2).unlink()
    code, said = run(folder, f"{finished} -o out --overwrite")
    assert code == 2
    assert "has no half2.mrc" in said


def test_a_mask_is_found_and_a_blur_is_spoken_of(folder: Path) -> None:
    words = "--half1 a.mrc --half2 a.mrc --bfactor 50 -o out"
    code, said = run(folder, words)
    assert code == 0, said
    assert "The mask was found in the mean of the half-maps" in said
    assert "a positive B-factor blurs" in said
    assert "are the same map" in said
    mask = read_mask(folder / "out" / layout.MASK).density
    ball = soft_sphere(N, 8.0, 2.0).numpy()
    assert mask[ball == 1].mean() > 0.9
    assert mask[0].max() == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("-o out", 2, "give --half1 and --half2"),
        ("--half1 a.mrc -o out", 2, "give --half1 and --half2"),
        ("--half1 a.mrc --half2 other.mrc -o out", 2, "expected the same of both"),
        (
            "--half1 a.mrc --half2 b.mrc --mask other.mrc -o out",
            2,
            "expected the same of both",
        ),
        ("--half1 a.mrc --half2 b.mrc --mask b.mrc -o out", 2, "expected a mask"),
        ("--half1 a.mrc --half2 minus.mrc --mask mask.mrc -o out", 3, "in no shell"),
    ],
)
def test_what_cannot_work_is_told(
    folder: Path, words: str, code: int, message: str
) -> None:
    found, said = run(folder, words)
    assert found == code, said
    assert message in said
    assert not (folder / "out").exists()
