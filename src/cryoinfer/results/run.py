"""A finished run, read from its folder into the records that workflows return."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.evaluation.fsc import resolution_at
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.io.conventions.relion import RelionParticles
from cryoinfer.io.conventions.table import ParticleTable
from cryoinfer.io.files import require_file
from cryoinfer.io.mrc import MapFile, read_cube
from cryoinfer.results import layout
from cryoinfer.results.conformation_files import read_conformation_posteriors
from cryoinfer.results.flags import (
    CONTRAST,
    LEFT_OUT,
    UNREADABLE,
    given_outlier_scores,
    read_flags,
)
from cryoinfer.results.map_numbers import EVIDENCE
from cryoinfer.results.motions import Motions
from cryoinfer.results.posterior_files import Posteriors, read_motions
from cryoinfer.results.run_files import (
    CORRECTED,
    INFINITE_NATS,
    MASKED,
    RANDOMISED,
    UNMASKED,
    read_fsc,
    read_numbers,
    read_run_mask,
    read_spectra,
)
from cryoinfer.results.run_record import RunRecord, require_finished
from cryoinfer.results.run_result import (
    Evidence,
    Iteration,
    Reconstruction,
    RunResult,
)

_THRESHOLD = 0.143
_SUBSET = "rlnRandomSubset"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes
    ----------
    path : Path
        Of its folder.
    record : RunRecord
        Workflow, options, inputs, times, versions and numbers.
    reconstruction : Reconstruction or None
        Maps, halves, mask and FSC; none of `dynamics`.
    result : RunResult or None
        The same and what was inferred of every particle, of `abinitio`, `refine` and
        `infer`.
    motions : Motions or None
        Of every particle, of `dynamics`.
    conformations : ParticlePosterior or None
        Of every particle, of `heterogeneity` and of `infer` with its encoder: pose
        and z at the most probable mode.
    """

    path: Path
    record: RunRecord
    reconstruction: Reconstruction | None = None
    result: RunResult | None = None
    motions: Motions | None = None
    conformations: ParticlePosterior | None = None

    @property
    def summary(self) -> Mapping[str, Any]:
        """The numbers of ``run.json``: resolution, evidence, cautions and so on."""
        return self.record.results

    @property
    def noise_power(self) -> tuple[Tensor, ...]:
        """Noise per optics group and ring, each of shape (rings,); () if none is known.

        Power of a coefficient of the orthonormal transform.
        """
        return () if self.result is None else self.result.noise_power

    @property
    def posterior(self) -> ParticlePosterior:
        """The posteriors of all particles, the weights of their modes adding up to one.

        Raises
        ------
        InputError
            Of a run that has inferred no poses of a map: of `reconstruct`, whose poses
            were given, and of `dynamics`, which has :attr:`motions`.
        """
        if self.conformations is not None:
            return self.conformations
        if self.result is None:
            have = "motions" if self.motions is not None else "poses that were given"
            raise InputError(
                f"{self.path} is a run of `cryoinfer {self.record.workflow}`: expected "
                f"one that has inferred poses, found {have}"
            )
        return self.result.posterior


def load_run(folder: Path | str) -> Run:
    """Read a finished run.

    Images are not read, and need not be there. Of a run that the workflow has just
    returned the same comes back, to the precision of files: maps and posteriors in
    single precision, curves with six decimals; but not which images an encoder had to
    prepare (``RunResult.prepared``), of which only the number is kept.

    Parameters
    ----------
    folder : path
        Of a run of `abinitio`, `refine`, `reconstruct`, `infer`, `dynamics` or
        `heterogeneity`.

    Returns
    -------
    Run

    Raises
    ------
    InputError
        If the folder holds no run or none that has finished, a file of it is damaged
        or missing, or it is of `train`, whose encoder ``load_encoder`` reads.
    """
    path = Path(folder)
    record = require_finished(path)
    if record.workflow == "train":
        raise InputError(
            f"{path} is a run of `cryoinfer train`, which leaves an encoder: read "
            f"{path / layout.ENCODER} with cryoinfer.load_encoder"
        )
    if record.workflow == "dynamics":
        return Run(path, record, motions=read_motions(path))
    if record.has_conformations:
        with record.trusted(path):
            # Classes have maps of their own.
            maps = None if record.has_classes else _reconstruction(path, record)
            found = read_conformation_posteriors(path)
        return Run(path, record, maps, conformations=found)
    with record.trusted(path):
        maps = _reconstruction(path, record)
        posteriors = Posteriors.read(path)
        if posteriors is None and record.workflow == "reconstruct":
            return Run(path, record, maps)
        if posteriors is None:
            raise InputError(
                f"{path} holds no {layout.POSTERIORS}, which every run of `cryoinfer "
                f"{record.workflow}` has: copy it again, or repeat the run"
            )
        return Run(path, record, maps, _result(path, record, maps, posteriors))


def read_iterations(record: RunRecord) -> tuple[Iteration, ...]:
    """Return the history of a run; one of before gains were kept has none."""
    earlier = {"gain_nats": math.nan}
    names = [one.name for one in fields(Iteration)]
    rows = [earlier | values for values in record.iterations]
    return tuple(Iteration(**{name: row[name] for name in names}) for row in rows)


def _reconstruction(path: Path, record: RunRecord) -> Reconstruction:
    # Of particles that are all left out the maps are 0 throughout.
    whole, half1, half2 = (
        read_cube(path / name) for name in (layout.MAP, layout.HALF1, layout.HALF2)
    )
    mask = read_run_mask(path)
    curves = read_fsc(path)
    box, pixel_size = len(whole.density), whole.pixel_size_angstrom
    shapes = {one.density.shape for one in (whole, half1, half2, mask)}
    if len(shapes) != 1 or len(curves[CORRECTED]) != box // 2 + 1:
        raise InputError(
            f"{path} holds maps, mask or FSC of different boxes: are they of one run?"
        )
    if MASKED not in curves or RANDOMISED not in curves:
        raise InputError(f"{path / layout.FSC} lacks a curve that every run has.")
    found = record.results
    evidence = found.get(EVIDENCE)
    # A run without a structure has none of which anyone should speak.
    reached = found["resolution_angstrom"]
    if reached is None:
        reached = resolution_at(curves[CORRECTED], _THRESHOLD, box, pixel_size)
    return Reconstruction(
        density=_tensor(whole),
        half1=_tensor(half1),
        half2=_tensor(half2),
        mask=_tensor(mask),
        fsc=curves[CORRECTED],
        fsc_masked=curves[MASKED],
        fsc_randomised=curves[RANDOMISED],
        fsc_unmasked=curves[UNMASKED],
        pixel_size_angstrom=pixel_size,
        resolution_angstrom=float(reached),
        symmetry=record.symmetry(path),
        evidence=None if evidence is None else Evidence(**evidence),
        shared_resolution_angstrom=found.get("shared_resolution_angstrom"),
    )


def _tensor(found: MapFile) -> Tensor:
    return torch.tensor(found.density)


def _result(
    path: Path, record: RunRecord, maps: Reconstruction, posteriors: Posteriors
) -> RunResult:
    """Return what was inferred, in the order of the particles' file."""
    table = RelionParticles.read(path / layout.PARTICLES).table()
    # As it stands there: one half alone is none of a file that is read anew.
    subset = read_numbers(path, _SUBSET)
    if len(table) != len(posteriors.rotation) or subset is None:
        raise InputError(
            f"{path / layout.PARTICLES} does not go with {layout.POSTERIORS}: expected "
            f"{len(posteriors.rotation):,} particles with half-sets, found "
            f"{len(table):,}. Copy both again, or repeat the run"
        )
    require_file(path / layout.NOISE, "noise of a run")
    outlier_score, flags = _tested(record, table)
    return RunResult(
        reconstruction=maps,
        inferred=posteriors.modes(),
        random_subset=torch.from_numpy(subset).long(),
        noise_power=tuple(read_spectra(path)),
        iterations=read_iterations(record),
        entropy_nats=_double(posteriors.entropy_nats),
        outlier_score_nats=outlier_score,
        outlier=None if flags is None or not _together(record) else flags == 1,
        contrast=_optional(table.results.get(CONTRAST)),
        unreadable=None if flags is None else flags == UNREADABLE,
    )


def _tested(
    record: RunRecord, table: ParticleTable
) -> tuple[Tensor | None, Tensor | None]:
    """Return outlier scores and flags, if the run has them."""
    found = given_outlier_scores(table)
    if LEFT_OUT not in record.results or found is None:
        return None, None
    score = torch.from_numpy(found.astype("float64"))
    score = torch.where(score >= INFINITE_NATS, torch.inf, score)
    return score, read_flags(record, table)


def _together(record: RunRecord) -> bool:
    """Tell whether all particles of a run were judged together."""
    return bool(record.results[LEFT_OUT].get("judged_together", False))


def _optional(values: Any) -> Tensor | None:
    return None if values is None else _double(values)


def _double(values: Any) -> Tensor:
    return torch.from_numpy(values).double()
