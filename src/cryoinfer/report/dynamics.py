"""The page about motions: where the particles are, and how well that is known."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.model_in_box import middle_angstrom
from cryoinfer.evaluation.free_energy import FEWEST, FreeEnergy, FreeEnergyPlane
from cryoinfer.evaluation.identifiability import Identifiability
from cryoinfer.inference.convergence import CONVERGED
from cryoinfer.report.figures import FSC_CAPTION, draw_fsc
from cryoinfer.report.free_energy import draw_uncertainties, free_energy_section
from cryoinfer.report.isosurface import (
    Chain,
    Isosurface,
    has_surface,
    isosurface_view,
)
from cryoinfer.report.parts import (
    Finding,
    figure,
    last_sections,
    page,
    section,
    table,
    tiles,
    time_tile,
)
from cryoinfer.report.trials import EXPLAINED_WELL, judge_trials, trial_section
from cryoinfer.report.viewer import moving_view
from cryoinfer.results.calibration_trial import CalibrationTrial

_HARDLY_KNOWN = 0.8  # of the prior's spread, that a posterior may have
_WIDENED = 2.0  # by the pose, of what would be known without it
_ALIKE = 0.9  # posterior correlation of two modes


@dataclass(frozen=True)
class HalfMaps:
    """The map of all particles, and how far those of both half-sets agree.

    Attributes
    ----------
    density : ndarray, shape (n, n, n)
        In the frame of the model.
    fsc, fsc_unmasked : Tensor, shape (n // 2 + 1,)
        ``fsc`` is masked and corrected for the mask.
    pixel_size_angstrom : float
    resolution : str
        In words.
    """

    density: NDArray[Any]
    fsc: Tensor
    fsc_unmasked: Tensor
    pixel_size_angstrom: float
    resolution: str


@dataclass(frozen=True)
class DynamicsContent:
    """All that the page shows, of n readable particles and c modes.

    Attributes
    ----------
    title, created : str
    mean, sd : ndarray, shape (n, c)
        Of the amplitudes' posteriors, in angstrom.
    prior_sd_angstrom : ndarray, shape (c,)
    centre_angstrom : ndarray, shape (m, c)
        Of clusters.
    rotation_sd_degrees : ndarray, shape (n,)
    node_coordinates_angstrom : ndarray, shape (a, 3)
        From the first voxel of the map's box.
    node_chain : ndarray of int64, shape (a,)
    node_displacement : ndarray, shape (c, a, 3)
        For an amplitude of 1 angstrom.
    extent_angstrom : ndarray, shape (c,)
        Of the ensembles.
    identifiability : Identifiability
    learned_angstrom : float
        By which the model at rest was changed; 0 if it was not.
    unexplained, unexplained_sd : float
        Share of the signal that the model leaves, and its standard error.
    unreadable : int
    verdict : str
        Of the encoder's training; empty without one.
    trials : mapping of str to CalibrationTrial
    stage_seconds : mapping from stage to seconds, in the order of the run
    arguments, versions : mapping
    seed : int
        Of what is drawn anew.
    flagged : int
        How many more particles an earlier run has flagged, which are left out.
    half_maps : HalfMaps, optional
        Of all conformations together.
    warnings, remarks : tuple of str
        What is to be known of the run that poses come from; what was said of structure
        and particles when they were read.
    """

    title: str
    created: str
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    prior_sd_angstrom: NDArray[np.float64]
    centre_angstrom: NDArray[np.float64]
    rotation_sd_degrees: NDArray[np.float64]
    node_coordinates_angstrom: NDArray[np.float64]
    node_chain: NDArray[np.int64]
    node_displacement: NDArray[np.float64]
    extent_angstrom: NDArray[np.float64]
    identifiability: Identifiability
    learned_angstrom: float
    unexplained: float
    unexplained_sd: float
    unreadable: int
    verdict: str
    trials: Mapping[str, CalibrationTrial]
    stage_seconds: Mapping[str, float]
    arguments: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    flagged: int = 0
    half_maps: HalfMaps | None = None
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @cached_property
    def free_energies(self) -> tuple[FreeEnergy, ...]:
        """Along each mode; none if there are too few particles."""
        if len(self.mean) < FEWEST:
            return ()
        return tuple(
            FreeEnergy.of(self.mean[:, mode], self.sd[:, mode], self.seed)
            for mode in range(self.mean.shape[1])
        )

    @cached_property
    def plane(self) -> FreeEnergyPlane | None:
        """Of the first two modes, if there are two, and particles enough."""
        if self.mean.shape[1] < 2 or len(self.mean) < FEWEST:
            return None
        return FreeEnergyPlane.of(self.mean[:, :2], self.sd[:, :2])


def render_dynamics_report(content: DynamicsContent) -> str:
    """Write the motions of particles as a self-contained HTML page."""
    n, modes = content.mean.shape
    spread, sd = content.mean.std(0), np.median(content.sd, axis=0)
    learned = content.learned_angstrom > 0
    return page(
        title=content.title,
        subtitle=f"Motions along {'learned' if learned else 'elastic-network'} modes · "
        f"{content.created}",
        verdict=f"{n:,} particles spread over {spread[0]:.2f} Å along the "
        f"{'widest' if learned else 'softest'} mode; the median uncertainty of a "
        f"particle is {sd[0]:.2f} Å.",
        tiles=tiles(
            ("Particles", f"{n:,}", _left_out(content)),
            ("Modes", f"{modes}", "learned" if learned else "the softest"),
            ("Mode 1", f"{sd[0]:.2f} Å", "median uncertainty"),
            (
                "View",
                f"{np.median(content.rotation_sd_degrees):.2g}°",
                "median uncertainty",
            ),
            ("Explained", f"{1 - content.unexplained:.0%}", "of the signal"),
            time_tile(content.stage_seconds),
        ),
        findings=assess_dynamics(content),
        sections=_sections(content),
    )


def assess_dynamics(content: DynamicsContent) -> list[Finding]:
    """Return what a user of the motions should know."""
    findings = [Finding("caution", text) for text in content.warnings]
    left = content.unexplained
    findings.append(_explained(left, content.unexplained_sd))
    if content.learned_angstrom > 0:
        findings.append(
            Finding(
                "good" if left <= EXPLAINED_WELL else "caution",
                f"The model at rest was learned: it is {content.learned_angstrom:.2f} "
                "Å RMSD from the given one (`rest.cif`), and modes are the principal "
                "axes of the particles' motion.",
            )
        )
        findings.append(
            Finding(
                "caution",
                "Uncertainties take the learned model as true, and are too small where "
                "it is still wrong.",
            )
        )
    if content.unreadable:
        findings.append(
            Finding(
                "caution",
                f"{content.unreadable:,} images hold NaN or infinite pixels, or are "
                "too bright for single precision: nothing is known of these particles.",
            )
        )
    if content.verdict and not content.verdict.startswith(CONVERGED):
        findings.append(Finding("caution", f"The encoder: {content.verdict}."))
    share = np.median(content.sd, axis=0) / content.prior_sd_angstrom
    vague = [str(k + 1) for k in np.flatnonzero(share > _HARDLY_KNOWN).tolist()]
    if vague:
        findings.append(
            Finding(
                "caution",
                f"The images say next to nothing about mode {', '.join(vague)}: its "
                "posteriors are nearly as wide as the prior.",
            )
        )
    findings += _told_apart(content.identifiability)
    findings += judge_trials(content.trials, content.unexplained)
    if not content.trials:
        findings.append(
            Finding(
                "caution",
                "The uncertainties were not tested: given poses have no distribution "
                "that simulated ones could be drawn from.",
            )
        )
    return findings


def _left_out(content: DynamicsContent) -> str:
    """Say how many particles are not among those of the page."""
    said = f"{content.unreadable:,} unreadable"
    if content.flagged:
        said += f", {content.flagged:,} left out as an earlier run flagged them"
    return said


def _explained(left: float, sd: float) -> Finding:
    """Say how much of the images' signal the model explains, if that can be told."""
    if left > EXPLAINED_WELL:
        return Finding(
            "caution",
            f"The model leaves {left:.0%} (sd {sd:.0%}) of the images' signal "
            "unexplained: it may be of another molecule or lack a part, or the "
            "particles move in ways that these modes do not span. Compare it with a "
            "map of the particles (`cryoinfer abinitio`).",
        )
    text = f"The model explains {1 - left:.0%} (sd {sd:.0%}) of the images' signal"
    if left + 2 * sd > EXPLAINED_WELL:
        return Finding(
            "caution",
            f"{text}: the tested images are too noisy to show whether it is wrong.",
        )
    return Finding("good", f"{text}.")


def _told_apart(found: Identifiability) -> Iterator[Finding]:
    """Yield what images tell apart badly."""
    for mode, ratio in enumerate(found.widened_by_pose, 1):
        if ratio > _WIDENED:
            yield Finding(
                "caution",
                f"Rotation, shift and defocus can imitate mode {mode}: its posterior "
                f"would be {ratio:.1f} times narrower if they were known. Motions that "
                "turn most of the structure are hard to tell from its rotation.",
            )
    modes = len(found.widened_by_pose)
    for one, other in itertools.combinations(range(modes), 2):
        share = found.correlation[one][other]
        if share > _ALIKE:
            yield Finding(
                "caution",
                f"Modes {one + 1} and {other + 1} look alike in the images: their "
                f"amplitudes have a posterior correlation of {share:.2f} (median).",
            )


def _sections(content: DynamicsContent) -> Iterator[str]:
    yield section(
        "The moving model",
        "The backbone, blue at its beginning. Sliders end where the ensembles do: at "
        "twice the particles' spread.",
        moving_view(
            content.node_coordinates_angstrom,
            content.node_chain,
            content.node_displacement,
            content.extent_angstrom,
        ),
    )
    yield free_energy_section(
        content.free_energies,
        content.plane,
        np.median(content.sd, axis=0),
        content.centre_angstrom,
    )
    yield section(
        "Amplitudes",
        "In Å of root mean square displacement (RMSD), of one atom per residue: the "
        "alpha carbon of an amino acid, the phosphorus of a nucleotide.",
        _amplitude_table(content),
        figure(
            "known",
            draw_uncertainties(content.sd),
            "Uncertainty of every amplitude",
            "How well each particle's amplitudes are known.",
            "narrow",
        ),
    )
    if content.trials:
        yield trial_section(content.trials, content.unexplained)
    if content.half_maps is not None:
        yield _half_map_section(content.half_maps, content)
    yield from last_sections(
        content.stage_seconds, content.remarks, content.arguments, content.versions
    )


def _half_map_section(halves: HalfMaps, content: DynamicsContent) -> str:
    middle = middle_angstrom(len(halves.density), halves.pixel_size_angstrom)
    chain = Chain(content.node_coordinates_angstrom - middle, content.node_chain)
    shown = Isosurface(halves.density, halves.pixel_size_angstrom, chain)
    return section(
        "The map and the model at rest",
        f"Maps of the two half-sets from the poses found: resolution "
        f"{halves.resolution}. The poses of all particles come from one model, whose "
        "errors the half-maps may share; and all conformations are in one map, where "
        "moving parts are blurred. That the backbone lies in the map is no proof of "
        "the model, from which the poses are.",
        isosurface_view(shown) if has_surface(halves.density) else "",
        figure(
            "fsc",
            draw_fsc(halves.fsc, halves.fsc_unmasked, halves.pixel_size_angstrom),
            "Fourier shell correlation of the half-maps",
            FSC_CAPTION,
            shape="middle",
        ),
    )


def _amplitude_table(content: DynamicsContent) -> str:
    """Return a column a mode: most often there are fewer of them than of rows."""
    mean, known = content.mean, np.median(content.sd, axis=0)
    alone = known / np.array(content.identifiability.widened_by_pose)
    modes = [f"Mode {mode}" for mode in range(1, mean.shape[1] + 1)]
    rows = {
        "Mean": mean.mean(0),
        "Spread of particles": mean.std(0),
        "Known to (median)": known,
        "If the pose were known": alone,
        "Expected": content.prior_sd_angstrom,
    }
    cells = [[name, *(f"{one:.2f}" for one in row)] for name, row in rows.items()]
    return table(("Å RMSD", *modes), cells)
