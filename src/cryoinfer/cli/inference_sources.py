"""What new particles are inferred with: an encoder, or the maps of a run by search."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from cryoinfer.cli.estimate import (
    Estimate,
    HeterogeneityWork,
    estimate_heterogeneity,
    estimate_inference,
)
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.interfaces import Monitor
from cryoinfer.results import layout
from cryoinfer.results.calibration_trial import ENCODER, REFINED, CalibrationTrial
from cryoinfer.results.conformation_files import read_subspace
from cryoinfer.results.heterogeneity import (
    CONTRAST_SD,
    ENCODER_NUMBERS,
    LAST_RADIUS,
    Heterogeneity,
)
from cryoinfer.results.run_record import RunRecord
from cryoinfer.results.run_result import RunResult
from cryoinfer.workflows.amortized_conformations import infer_conformations
from cryoinfer.workflows.encoder_file import load_encoder
from cryoinfer.workflows.infer import InferConfig, infer
from cryoinfer.workflows.preparation import require_alike
from cryoinfer.workflows.trained_encoder import TrainedEncoder
from cryoinfer.workflows.unseen_conformations import (
    LearnedMaps,
    search_conformations,
)
from cryoinfer.world import World


class InferenceSource(Protocol):
    """What infers new particles."""

    @property
    def path(self) -> Path:
        """Where it was read from: a file, or the folder of a run."""

    @property
    def file(self) -> Path:
        """The file that tells whether it has changed."""

    @property
    def symmetry(self) -> str:
        """Point group of its map."""

    def require_alike(self, particles: Particles) -> None:
        """Refuse particles that it cannot infer.

        Raises
        ------
        InputError
        """

    def estimate(self, n: int, box: int, threads: int) -> Estimate:
        """Return what n particles will take."""

    def infer(
        self, particles: Particles, config: InferConfig, monitor: Monitor, world: World
    ) -> RunResult | Heterogeneity:
        """Infer particles; of several processes, a share of them."""

    def known(self, local_refinement: bool) -> tuple[dict[str, Any], list[str]]:
        """Return what a record is to hold of it, and what is in doubt."""

    @property
    def words(self) -> str:
        """What is said of it before it infers."""


@dataclass(frozen=True)
class EncoderSource:
    """An encoder; an :class:`InferenceSource`.

    Attributes
    ----------
    path : Path
        Its file.
    trained : TrainedEncoder
    """

    path: Path
    trained: TrainedEncoder

    @classmethod
    def read(cls, path: Path) -> "EncoderSource":
        """Read the file of an encoder."""
        return cls(path, load_encoder(path))

    @property
    def file(self) -> Path:
        """The file that tells whether it has changed."""
        return self.path

    @property
    def symmetry(self) -> str:
        """Point group of the map that was learned."""
        return self.trained.symmetry

    @property
    def words(self) -> str:
        """How it was trained."""
        return f"The training of this encoder: {self.trained.verdict}"

    def require_alike(self, particles: Particles) -> None:
        """Refuse particles that cannot be made like those that it has learned."""
        require_alike(particles, self.trained)

    def estimate(self, n: int, box: int, threads: int) -> Estimate:
        """Return what n particles will take."""
        return estimate_inference(n, len(self.trained.density), threads)

    def infer(
        self, particles: Particles, config: InferConfig, monitor: Monitor, world: World
    ) -> RunResult | Heterogeneity:
        """Infer particles; of several processes, a share of them."""
        work = infer_conformations if self.trained.components else infer
        return work(particles, self.trained, config, monitor, world)

    def known(self, local_refinement: bool) -> tuple[dict[str, Any], list[str]]:
        """Return how it was trained and tried, and what is in doubt."""
        used = REFINED if local_refinement else ENCODER
        trials, doubts = trials_beside(self.path, used)
        numbers = {
            "verdict": self.trained.verdict,
            "median_degrees": self.trained.checks[-1].median_degrees,
            "trials": trials,
        }
        if self.trained.components:
            return {ENCODER_NUMBERS: numbers}, doubts
        return numbers, doubts


@dataclass(frozen=True)
class RunSource:
    """A run about conformations, in whose subspace is searched.

    An :class:`InferenceSource`.

    Attributes
    ----------
    path : Path
        Its folder.
    learned : LearnedMaps
    """

    path: Path
    learned: LearnedMaps
    symmetry = "C1"
    words = (
        "This run has no encoder: all poses of every particle are searched in its maps."
    )

    @property
    def file(self) -> Path:
        """The file that tells whether it has changed."""
        return self.path / layout.MEAN

    @classmethod
    def read(cls, folder: Path) -> "RunSource":
        """Read the maps of a finished run.

        Raises
        ------
        InputError
            If they are missing or damaged.
        """
        record = RunRecord.read(folder)
        maps = read_subspace(folder, record)
        density = tuple(torch.tensor(one.density) for one in maps)
        with record.trusted(folder):
            last_radius = int(record.results[LAST_RADIUS])
            contrast_sd = float(record.results.get(CONTRAST_SD, 0.0))
        size = maps[0].pixel_size_angstrom
        learned = LearnedMaps(density, size, last_radius, contrast_sd)
        return cls(folder, learned)

    def require_alike(self, particles: Particles) -> None:
        """Refuse particles of another area."""
        self.learned.require_area(particles)

    def estimate(self, n: int, box: int, threads: int) -> Estimate:
        """Return what n particles will take."""
        radius = float(self.learned.search_radius)
        work = HeterogeneityWork(0, radius, self.learned.dims, True, 0)
        return estimate_heterogeneity(work, n, box, threads)

    def infer(
        self, particles: Particles, config: InferConfig, monitor: Monitor, world: World
    ) -> Heterogeneity:
        """Infer particles; of several processes, a share of them."""
        return search_conformations(
            particles, self.learned, config.seed, monitor, world
        )

    def known(self, local_refinement: bool) -> tuple[dict[str, Any], list[str]]:
        """Return nothing: the run itself says what its maps are worth.

        Raises
        ------
        InputError
            If poses are not to be refined: none are proposed.
        """
        if not local_refinement:
            raise InputError(
                f"--no-refinement is of encoders, and {self.path} has none: leave it "
                f"out, or train one (`cryoinfer train {self.path}`)"
            )
        return {}, []


def trials_beside(encoder: Path, used: str) -> tuple[dict[str, Any], list[str]]:
    """Return how some posteriors of an encoder were tried, and what is in doubt.

    Its trials are in the record of the run that trained it, if its folder is there.
    """
    folder = encoder.parent
    try:
        trials = _read_trials(folder) if (folder / layout.RECORD).exists() else {}
    except InputError as error:
        return {}, [f"The test of this encoder's uncertainties cannot be read: {error}"]
    trials = {name: values for name, values in trials.items() if name == used}
    if trials:
        return trials, []
    return {}, [
        "The uncertainties of this encoder have not been tested, or the record "
        "of the test is not beside its file."
    ]


def _read_trials(folder: Path) -> dict[str, Any]:
    """Return the trials in the record of a run, in JSON's types.

    Raises
    ------
    InputError
        If they are damaged, or of another version.
    """
    record = RunRecord.read(folder)
    with record.trusted(folder):
        # A run about conformations has what concerns its encoder apart.
        trials = record.results.get(ENCODER_NUMBERS, record.results).get("trials", {})
        return {
            name: asdict(CalibrationTrial.of_record(values))
            for name, values in trials.items()
        }
