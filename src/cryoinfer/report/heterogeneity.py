"""The page about conformations: what z is worth, where particles are, what moves."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.evaluation.free_energy import FEWEST
from cryoinfer.evaluation.population_plane import PlanePopulation
from cryoinfer.evaluation.populations import AxisPopulation
from cryoinfer.evaluation.rigid_search import resampled
from cryoinfer.report.figures import FSC_CAPTION, draw_fsc
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
from cryoinfer.report.populations import populations_section
from cryoinfer.report.scatter import ScatterContent, scatter_section
from cryoinfer.report.style import BLUE, GREEN, GREY, ORANGE, figure_style, to_svg
from cryoinfer.report.surface import surface_level
from cryoinfer.report.trials import judge_trials
from cryoinfer.report.volumes import AxisFrames, volumes_section
from cryoinfer.results.calibration_trial import CalibrationTrial
from cryoinfer.results.heterogeneity import HeldOutGain

_FOLLOWS_POSE = 0.3
"""Share of the variance of z that the pose predicts, above which it is said."""

_RIGID = 0.5
_FRAMES, _EXTENT_QUANTILE = 7, 0.02
_SHOWN_BOX = 40
"""Voxels of the surfaces along an edge: pages stay small."""

_PANEL = (4.6, 3.0)
_COLOURS = (BLUE, ORANGE, GREEN, GREY)


@dataclass(frozen=True)
class HeterogeneityContent:
    """All that the page shows, of n particles and q components.

    Attributes
    ----------
    title, created : str
    columns : mapping of str to ndarray, shape (n,)
        Of the interactive picture: z and more.
    z, z_sd : ndarray, shape (n, q)
    maps : ndarray, shape (1 + q, m, m, m)
        Mean and components.
    pixel_size_angstrom : float
    gain : HeldOutGain
    counted : str
        What the number of components comes of.
    unseen : bool
        Whether the subspace was learned from other particles.
    pose_r2, rigid_share : tuple of float
    fsc, fsc_unmasked : Tensor, shape (n // 2 + 1,)
        Of the half-maps of all particles.
    resolution : str
        In words.
    poses_given : bool
    seed : int
    stage_seconds : mapping from stage to seconds
    arguments, versions : mapping
    field_verdict : str
        Whether a curved field says more than the subspace; empty if none was tried.
    warnings, remarks : tuple of str
    trials : mapping of str to CalibrationTrial
        Of an encoder that has inferred the particles.
    correlation : ndarray, shape (n,), or None
        Of the posterior of z 1 and z 2; None where there is but one component.
    """

    title: str
    created: str
    columns: Mapping[str, NDArray[np.float64]]
    z: NDArray[np.float64]
    z_sd: NDArray[np.float64]
    maps: NDArray[np.float32]
    pixel_size_angstrom: float
    gain: HeldOutGain
    counted: str
    unseen: bool
    pose_r2: tuple[float, ...]
    rigid_share: tuple[float, ...]
    fsc: Tensor
    fsc_unmasked: Tensor
    resolution: str
    poses_given: bool
    seed: int
    stage_seconds: Mapping[str, float]
    arguments: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    field_verdict: str = ""
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    trials: Mapping[str, CalibrationTrial] = field(default_factory=dict)
    correlation: NDArray[np.float64] | None = None

    @cached_property
    def populations(self) -> tuple[AxisPopulation, ...]:
        """Density and free energy along each axis that held-out images ask for.

        None of too few particles. Along a component of noise, posteriors are narrower
        than they should be, and the density would be that of the noise.
        """
        if len(self.z) < FEWEST:
            return ()
        return tuple(
            AxisPopulation.of(self.z[:, axis], self.z_sd[:, axis], self.seed)
            for axis in range(min(self.z.shape[1], self.gain.significant))
        )

    @cached_property
    def plane(self) -> PlanePopulation | None:
        """The free energy of the first two axes at once, if there are two."""
        if self.correlation is None or len(self.populations) < 2:
            return None
        sd = self.z_sd[:, :2]
        covariance = sd[:, :, None] * sd[:, None]
        covariance[:, [0, 1], [1, 0]] *= self.correlation[:, None]
        first, second = self.populations[:2]
        return PlanePopulation.of((first, second), self.z[:, :2], covariance, self.seed)


def verdict_words(gain: HeldOutGain, dims: int) -> str:
    """Say whether z carries anything."""
    if dims == 0 or gain.significant == 0:
        return (
            "z carries nothing: with components, held-out images are no more likely "
            "than with the mean map alone. At this resolution the particles have one "
            "conformation, or too few of them have another."
        )
    last = min(dims, gain.significant)
    mean, error = gain.mean_nats[last - 1], gain.se_nats[last - 1]
    made = f"{last} components raise" if last > 1 else "1 component raises"
    return (
        f"z carries information: {made} the log-likelihood of a held-out image by "
        f"{mean:.2f} ± {error:.2f} nats over the mean map alone."
    )


def assess_heterogeneity(content: HeterogeneityContent) -> list[Finding]:
    """Return what a user of the conformations should know."""
    findings = [Finding("caution", text) for text in content.warnings]
    dims, significant = content.z.shape[1], content.gain.significant
    if significant == 0:
        text = verdict_words(content.gain, dims)
        if dims:
            text += " Regard the components as noise."
        findings.append(Finding("caution", text))
    elif dims > significant:
        findings.append(
            Finding(
                "caution",
                f"Of the {dims} components requested, {significant} raise the "
                "likelihood of held-out images; the others may be noise.",
            )
        )
    else:
        findings.append(Finding("good", verdict_words(content.gain, dims)))
    if content.field_verdict:
        findings.append(Finding("good", content.field_verdict))
    for number, share in enumerate(content.pose_r2, 1):
        if share > _FOLLOWS_POSE:
            findings.append(
                Finding(
                    "caution",
                    f"z {number} follows the pose: view, shift and defocus predict "
                    f"{share:.0%} of its variance. It may stand for an error of the "
                    "poses or the CTF, or states may differ in their preferred views.",
                )
            )
    for number, share in enumerate(content.rigid_share, 1):
        if share > _RIGID:
            findings.append(
                Finding(
                    "caution",
                    f"Component {number} is mostly a rigid motion of the whole "
                    f"structure ({share:.0%} of its power), as pose errors make one.",
                )
            )
    findings += judge_trials(content.trials)
    if dims:
        findings.append(
            Finding(
                "caution",
                "z of both half-sets, and their poses unless these were given, come "
                "from one subspace: the half-maps may share its errors. Posteriors of "
                "z take the subspace as true, and are too narrow where it is wrong.",
            )
        )
    return findings


def render_heterogeneity_report(content: HeterogeneityContent) -> str:
    """Write the conformations of particles as a self-contained HTML page."""
    n, dims = content.z.shape
    known = f"{np.median(content.z_sd[:, 0]):.2f}" if dims else "none"
    return page(
        title=content.title,
        subtitle=f"Conformations in a linear subspace of maps · {content.created}",
        verdict=verdict_words(content.gain, dims),
        tiles=tiles(
            ("Particles", f"{n:,}", "inferred"),
            ("Components", f"{dims}", content.counted),
            ("Uncertainty of z 1", known, "median sd; sd of all particles about 1"),
            ("Mean map", content.resolution.split(",")[0].split(" (")[0], "half-maps"),
            time_tile(content.stage_seconds),
        ),
        findings=assess_heterogeneity(content),
        sections=_sections(content),
    )


def _sections(content: HeterogeneityContent) -> Iterator[str]:
    random = np.random.default_rng(content.seed)
    dims = content.z.shape[1]
    if dims:
        picture = ScatterContent(content.title, content.columns)
        yield scatter_section(picture, random)
        yield volumes_section(_axes(content))
        yield populations_section(content.populations, content.plane)
        yield section(
            "How well z is known",
            "Beside the spread of the particles' posterior means, which is not that of "
            "the population.",
            figure(
                "known",
                _draw_histogram(content.z_sd, "posterior sd of z"),
                "Histograms of the uncertainty of z",
                "Posteriors take the subspace as true: what it has learned of noise, "
                "or lacks, is in none of their widths.",
                "narrow",
            ),
            _component_table(content),
        )
    made = (
        "Each half-set has a subspace of its own, from random z, and is judged by the "
        "images of the other half."
    )
    if content.unseen:
        made = (
            "The subspace was learned from other particles, unless these are the ones "
            "of the run that it is from; some of these judge it."
        )
    yield section(
        "Held-out gain of the components",
        f"{made} The gain is how much the components raise the log-likelihood. Where a "
        "component has learned noise, it is negative.",
        _gain_table(content.gain),
    )
    yield section(
        "Mean map",
        f"Half-maps of all particles, whatever their conformation: resolution "
        f"{content.resolution}.",
        figure(
            "fsc",
            draw_fsc(content.fsc, content.fsc_unmasked, content.pixel_size_angstrom),
            "Fourier shell correlation of the half-maps",
            FSC_CAPTION,
        ),
    )
    yield from last_sections(
        content.stage_seconds, content.remarks, content.arguments, content.versions
    )


def _axes(content: HeterogeneityContent) -> list[AxisFrames]:
    """Return maps along each axis, between the outermost few per cent of particles."""
    whole = content.maps.shape[-1]
    box = min(_SHOWN_BOX, whole)
    mean, *components = (
        resampled(torch.from_numpy(one), box).numpy() for one in content.maps
    )
    voxel, found = content.pixel_size_angstrom * whole / box, []
    for number, component in enumerate(components):
        z = content.z[:, number]
        low, high = np.quantile(z, (_EXTENT_QUANTILE, 1 - _EXTENT_QUANTILE)).tolist()
        at = np.linspace(low, high, _FRAMES)
        shown = mean + at[:, None, None, None] * component
        level = surface_level(shown)
        found.append(AxisFrames(f"z {number + 1}", at, "", shown, voxel, level))
    return found


def _draw_histogram(values: NDArray[np.float64], label: str) -> str:
    with figure_style():
        drawing = Figure(figsize=_PANEL)
        axes = drawing.add_subplot()
        for number in range(values.shape[1]):
            axes.hist(
                values[:, number],
                bins=60,
                histtype="step",
                color=_COLOURS[number % len(_COLOURS)],
                label=f"z {number + 1}",
            )
        axes.set(xlabel=label, ylabel="particles")
        axes.legend(loc="upper right")
        return to_svg(drawing)


def _component_table(content: HeterogeneityContent) -> str:
    rows = {
        "Spread of particles": content.z.std(0),
        "Median posterior sd": np.median(content.z_sd, axis=0),
        "Predicted by the pose": np.array(content.pose_r2),
        "Rigid motion": np.array(content.rigid_share),
    }
    cells = [[name, *(f"{one:.2f}" for one in row)] for name, row in rows.items()]
    heads = [f"z {number + 1}" for number in range(content.z.shape[1])]
    return table(("", *heads), cells)


def _gain_table(gain: HeldOutGain) -> str:
    cells = [
        [f"{number}", f"{mean:+.3f} ± {error:.3f}", f"{step:+.3f} ± {step_error:.3f}"]
        for number, (mean, error, step, step_error) in enumerate(
            zip(
                gain.mean_nats,
                gain.se_nats,
                gain.step_nats,
                gain.step_se_nats,
                strict=True,
            ),
            1,
        )
    ]
    heads = ("Components", "Gain over none (nats per particle)", "Of the last one")
    return table(heads, cells)
