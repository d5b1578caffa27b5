"""Post-processing beside RELION's, on the same half-maps and the same mask.

Half-maps of adenylate kinase, blurred by a known B-factor: of an ab initio run on 64
pixels of 1.6 A, and of true poses on 128 pixels of 0.8 A. RELION 3.1 fits a B-factor to
the amplitudes of the whole box, cryoinfer to those inside the mask; both fits are made
here, and RELION is given half-maps that were masked before, too. The range of all fits
is from 10 A to the resolution that cryoinfer finds. True is the fit to the map that was
simulated, where it was one. Local resolutions are correlated over the voxels of the
mask, above one half; RELION's are sampled every 12 A.

    python benchmarks/postprocess.py
"""

import argparse
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from measure import argument_parser, resized, results_of, scratch_folder, simulated
from printed import Column, table
from rows import Row
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.evaluation.local_resolution import local_resolution
from cryoinfer.evaluation.postprocess import Postprocessed, postprocess
from cryoinfer.evaluation.sharpening import fit_b_factor, mean_amplitudes
from cryoinfer.interfaces import SilentMonitor
from cryoinfer.io.mrc import read_map, write_map
from cryoinfer.io.star import read_star
from cryoinfer.results.run_result import Reconstruction
from cryoinfer.workflows.abinitio import AbinitioConfig, abinitio
from cryoinfer.workflows.reconstruct import ReconstructConfig, reconstruct

_CTF = (6000.0, 15000.0)
_COARSE = SimulationConfig(
    n=2000,
    box=64,
    pixel_size_angstrom=1.6,
    snr_db=0.0,
    defocus_range_angstrom=_CTF,
    b_factor_angstrom2=80.0,
)
_FINE = SimulationConfig(
    n=3000, snr_db=-8.0, defocus_range_angstrom=_CTF, b_factor_angstrom2=60.0, seed=1
)
_LOCAL_SAMPLING_ANGSTROM = "12"

COLUMNS = (
    Column("half-maps", "set"),
    Column("resolution (A)", "resolution", ".2f"),
    Column("RELION", "relion_resolution", ".2f"),
    Column("shells apart", "shells_apart", ".1f"),
    Column("B (A2)", "b_factor", ".1f"),
    Column("true", "true_b_factor", ".1f"),
    Column("RELION, masked halves", "relion_masked_b_factor", ".1f"),
    Column("B, whole box", "whole_box_b_factor", ".1f"),
    Column("RELION", "relion_b_factor", ".1f"),
    Column("local resolution: median (A)", "local_median", ".2f"),
    Column("RELION", "relion_local_median", ".2f"),
    Column("correlation", "local_correlation", ".3f"),
)

Made = Callable[[Path], Reconstruction]


def searched(folder: Path) -> Reconstruction:
    particles = Particles.load(folder / "particles.star")
    return abinitio(particles, AbinitioConfig(), SilentMonitor()).reconstruction


def at_true_poses(folder: Path) -> Reconstruction:
    truth = Particles.load(folder / "truth.star")
    particles = Particles.load(folder / "particles.star")
    posed = particles.with_results(pose=truth.pose)
    return reconstruct(posed, ReconstructConfig(), SilentMonitor())


SETS: dict[str, tuple[SimulationConfig, Made]] = {
    "64 px of 1.6 A, 0 dB, ab initio": (_COARSE, searched),
    "64 px of 1.6 A, -8 dB, ab initio": (replace(_COARSE, snr_db=-8.0), searched),
    "128 px of 0.8 A, -8 dB, true poses": (_FINE, at_true_poses),
    "128 px of 0.8 A, -8 dB, open to closed": (
        replace(_FINE, to="adenylate-kinase-closed"),
        at_true_poses,
    ),
}


def measure(folder: Path, made: Made, is_moving: bool) -> Row:
    """Post-process half-maps of a set with both programs."""
    maps = made(folder)
    voxel = maps.pixel_size_angstrom
    half1, half2, mask = maps.half1.cpu(), maps.half2.cpu(), maps.mask.cpu()
    found = postprocess(half1, half2, mask, voxel)
    length = len(mask) * voxel
    row: Row = {
        "resolution": found.resolution_angstrom,
        "b_factor": found.b_factor_angstrom2,
    }
    if found.whole_box_fit is not None:
        row["whole_box_b_factor"] = found.whole_box_fit.b_factor_angstrom2
    if not is_moving and found.fit is not None:
        truth = torch.tensor(read_map(folder / "truth.mrc").density)
        line = fit_b_factor(mean_amplitudes(truth), found.resolution_angstrom, length)
        assert line is not None
        row["true_b_factor"] = line.b_factor_angstrom2
    with scratch_folder() as scratch:
        job = Relion(Path(scratch), found)
        job.write(half1, half2, mask)
        said = job.general("half1.mrc", "half2.mrc", "post")
        masked = job.general("masked1.mrc", "masked2.mrc", "masked")
        theirs = job.local_resolution()
    reached = said["rlnFinalResolution"]
    ours = local_resolution(half1, half2, voxel).angstrom
    inside = mask > 0.5
    both = torch.stack([ours[inside], theirs[inside]]).double()
    return row | {
        "relion_resolution": reached,
        "shells_apart": abs(length / reached - length / found.resolution_angstrom),
        "relion_b_factor": said["rlnBfactorUsedForSharpening"],
        "relion_masked_b_factor": masked["rlnBfactorUsedForSharpening"],
        "local_median": float(both[0].median()),
        "relion_local_median": float(both[1].median()),
        "local_correlation": float(torch.corrcoef(both)[0, 1]),
    }


class Relion:
    """RELION's post-processing of one pair of half-maps.

    Parameters
    ----------
    folder : Path
        That it works in.
    found : Postprocessed
        Whose resolution ends the range of the fit.
    """

    def __init__(self, folder: Path, found: Postprocessed) -> None:
        self._folder = folder
        self._voxel = found.voxel_size_angstrom
        self._range = f"{found.resolution_angstrom:.4f}"

    def write(self, half1: Tensor, half2: Tensor, mask: Tensor) -> None:
        """Write the half-maps, as they are and masked, and the mask."""
        for name, density in (
            ("half1.mrc", half1),
            ("half2.mrc", half2),
            ("masked1.mrc", half1 * mask),
            ("masked2.mrc", half2 * mask),
            ("mask.mrc", mask),
        ):
            write_map(self._folder / name, density, self._voxel)

    def general(self, half1: str, half2: str, out: str) -> dict[str, float]:
        """Return the single numbers of its STAR file."""
        fit = ("--auto_bfac", "--autob_lowres", "10", "--autob_highres", self._range)
        self._run(half1, half2, out, *fit)
        block = read_star(self._folder / out / "p.star").get("general")
        assert block is not None
        wanted = ("rlnFinalResolution", "rlnBfactorUsedForSharpening")
        return {name: float(block.numbers(name)[0]) for name in wanted}

    def local_resolution(self) -> Tensor:
        """Return its local resolution at every voxel."""
        sampling = ("--locres_sampling", _LOCAL_SAMPLING_ANGSTROM)
        self._run(
            "half1.mrc",
            "half2.mrc",
            "local",
            "--locres",
            *sampling,
            "--adhoc_bfac",
            "0",
        )
        return torch.tensor(read_map(self._folder / "local" / "p_locres.mrc").density)

    def _run(self, half1: str, half2: str, out: str, *options: str) -> None:
        (self._folder / out).mkdir()
        command = ["relion_postprocess", "--i", half1, "--i2", half2, *options]
        command += ["--mask", "mask.mrc", "--angpix", str(self._voxel)]
        command += ["--o", f"{out}/p"]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stdout + done.stderr)


def shown(rows: Sequence[Row]) -> str:
    """Return the rows as a table."""
    return table(rows, COLUMNS)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options: argparse.Namespace = parser.parse_args()
    results = results_of("postprocess", options)
    for name in options.sets:
        config, made = SETS[name]
        config = resized(config, options)
        key: Row = {"set": name, "images": config.n, "box": config.box}
        if not options.table and (options.again or not results.has(key)):
            results.put(key, measure(simulated(config), made, config.to is not None))
    print(shown(results.rows()))


if __name__ == "__main__":
    main()
