"""The page about motions: where the particles are, and how well that is known."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from cryoinfer.evaluation import Identifiability
from cryoinfer.report.parts import (
    Finding,
    figure,
    page,
    repeat_section,
    section,
    table,
    tiles,
    times,
)
from cryoinfer.report.style import (
    BLUE,
    GREY,
    ORANGE,
    figure_style,
    format_duration,
    to_svg,
)
from cryoinfer.report.trials import judge_trials, trial_section
from cryoinfer.report.viewer import moving_view
from cryoinfer.workflows.trial import Trial

_EXPLAINED_WELL = 0.1  # of the signal, that a model may leave
_HARDLY_KNOWN = 0.8  # of the prior's spread, that a posterior may have
_HIGHEST_KT = 5.0  # of a landscape
_GRID = 160
_CONVERGED = "converged"
_WIDENED = 2.0  # by the pose, of what would be known without it
_ALIKE = 0.9  # posterior correlation of two modes


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
    node_chain : ndarray of int64, shape (a,)
    node_displacement : ndarray, shape (c, a, 3)
        For an amplitude of 1 angstrom.
    extent_angstrom : ndarray, shape (c,)
        Of the ensembles.
    identifiability : Identifiability
    learned_angstrom : float
        By which the model at rest was changed; 0 if it was not.
    unexplained : float
        Share of the signal that the model leaves.
    unreadable : int
    verdict : str
        Of the encoder's training; empty without one.
    trials : mapping of str to Trial
    stage_seconds : mapping from stage to seconds, in the order of the run
    arguments, versions : mapping
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
    unreadable: int
    verdict: str
    trials: Mapping[str, Trial]
    stage_seconds: Mapping[str, float]
    arguments: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)


def render_dynamics_report(content: DynamicsContent) -> str:
    """Write the motions of particles as a self-contained HTML page."""
    n, modes = content.mean.shape
    spread, sd = content.mean.std(0), np.median(content.sd, axis=0)
    learned = content.learned_angstrom > 0
    return page(
        title=content.title,
        subtitle=f"Motions along {'learned' if learned else 'elastic-network'} modes · "
        f"{content.created}",
        verdict=f"{n:,} particles spread over {spread[0]:.2f} A along the "
        f"{'widest' if learned else 'softest'} mode; where each of them is, is known "
        f"to {sd[0]:.2f} A (median).",
        tiles=tiles(
            ("Particles", f"{n:,}", f"{content.unreadable:,} unreadable"),
            ("Modes", f"{modes}", "learned" if learned else "the softest"),
            ("Mode 1", f"{sd[0]:.2f} A", "median uncertainty"),
            (
                "View",
                f"{np.median(content.rotation_sd_degrees):.2g}°",
                "median uncertainty",
            ),
            ("Explained", f"{1 - content.unexplained:.0%}", "of the signal"),
            (
                "Time",
                format_duration(sum(content.stage_seconds.values())),
                "all stages",
            ),
        ),
        findings=assess_dynamics(content),
        sections=_sections(content),
    )


def assess_dynamics(content: DynamicsContent) -> list[Finding]:
    """Return what a user of the motions should know."""
    findings = []
    left = content.unexplained
    if left > _EXPLAINED_WELL:
        findings.append(
            Finding(
                "caution",
                f"The model leaves {left:.0%} of the images' signal unexplained: it "
                "may be of another molecule or lack a part, or the particles move in "
                "ways that these modes do not span. Compare it with a map of the "
                "particles (`cryoinfer abinitio`).",
            )
        )
    else:
        findings.append(
            Finding("good", f"The model explains {1 - left:.0%} of the images' signal.")
        )
    if content.learned_angstrom > 0:
        findings.append(
            Finding(
                "good",
                f"The model at rest was learned: it is {content.learned_angstrom:.2f} "
                "A RMSD from the given one (`rest.cif`), and modes are the principal "
                "axes of the particles' motion.",
            )
        )
        findings.append(
            Finding(
                "caution",
                "Uncertainties take the learned model as true: they are too small by "
                "what it still has wrong, which views make up for differently.",
            )
        )
    if content.verdict and not content.verdict.startswith(_CONVERGED):
        findings.append(Finding("caution", f"The encoder: {content.verdict}."))
    share = np.median(content.sd, axis=0) / content.prior_sd_angstrom
    vague = [str(k + 1) for k in np.flatnonzero(share > _HARDLY_KNOWN).tolist()]
    if vague:
        findings.append(
            Finding(
                "caution",
                f"The images say next to nothing of mode {', '.join(vague)}: its "
                "posteriors are nearly as wide as what was believed before.",
            )
        )
    findings += _told_apart(content.identifiability)
    findings += judge_trials(content.trials)
    return findings


def _told_apart(found: Identifiability) -> Iterator[Finding]:
    """Yield what images tell apart badly."""
    for mode, ratio in enumerate(found.widened_by_pose, 1):
        if ratio > _WIDENED:
            yield Finding(
                "caution",
                f"Rotation, shift and defocus make up for mode {mode}: it would be "
                f"known {ratio:.1f} times as well if they were known. Motions that "
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
    yield section(
        "Free energy",
        "Minus the logarithm of the particles' density, their posteriors added up, in "
        "units of kT: blurred by what is not known of each particle. Crosses are "
        "centres of clusters (`centres.cif`).",
        figure("landscape", draw_landscape(content), "Free energy by amplitude"),
    )
    yield section(
        "Amplitudes",
        "In angstrom of root mean square displacement of the nodes.",
        table(
            (
                "Mode",
                "Mean",
                "Spread of particles",
                "Known to (median)",
                "If the pose were known",
                "Expected",
            ),
            _rows(content),
        ),
        figure("known", draw_uncertainties(content), "Uncertainty of every amplitude"),
    )
    if content.trials:
        yield trial_section(content.trials)
    yield section("Course of the run", "", *times(content.stage_seconds))
    yield repeat_section(content.arguments, content.versions)


def _rows(content: DynamicsContent) -> Iterator[list[str]]:
    for mode in range(content.mean.shape[1]):
        mean = content.mean[:, mode]
        known = float(np.median(content.sd[:, mode]))
        yield [
            str(mode + 1),
            f"{mean.mean():.2f}",
            f"{mean.std():.2f}",
            f"{known:.2f}",
            f"{known / content.identifiability.widened_by_pose[mode]:.2f}",
            f"{content.prior_sd_angstrom[mode]:.2f}",
        ]


def free_energy(
    mean: NDArray[np.float64], sd: NDArray[np.float64], at: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return minus the log density of particles, its least value zero, in kT.

    Parameters
    ----------
    mean, sd : ndarray, shape (n,)
        Of the posteriors, which are added up as Gaussians.
    at : ndarray, shape (g,)

    Returns
    -------
    ndarray, shape (g,)
    """
    width = np.maximum(sd, 1e-3 * np.ptp(at))
    # Some particles at a time: memory does not grow with them.
    density = np.zeros_like(at)
    for begin in range(0, len(mean), 2000):
        part = slice(begin, begin + 2000)
        z = (at[:, None] - mean[part]) / width[part]
        density += (np.exp(-0.5 * z**2) / width[part]).sum(1)
    energy = -np.log(np.maximum(density, 1e-300))
    return energy - energy.min()


def draw_landscape(content: DynamicsContent) -> str:
    """Draw the free energy along each mode, and of the first two, as SVG."""
    modes = content.mean.shape[1]
    with figure_style():
        drawing = Figure(figsize=(7.2, 3.2))
        axes = drawing.subplots(1, 2 if modes > 1 else 1, squeeze=False)[0]
        for mode, colour in zip(
            range(min(modes, 3)), (BLUE, ORANGE, GREY), strict=False
        ):
            reach = 1.2 * float(np.abs(content.mean[:, mode]).max()) + 1e-3
            at = np.linspace(-reach, reach, _GRID)
            energy = free_energy(content.mean[:, mode], content.sd[:, mode], at)
            shown = energy < _HIGHEST_KT
            axes[0].plot(
                at[shown], energy[shown], color=colour, label=f"mode {mode + 1}"
            )
        axes[0].set(xlabel="amplitude (A)", ylabel="free energy (kT)")
        axes[0].set_ylim(0, _HIGHEST_KT)
        axes[0].legend(loc="upper center")
        if modes > 1:
            _plane(axes[1], content)
        return to_svg(drawing)


def _plane(axes: Axes, content: DynamicsContent) -> None:
    first, second = content.mean[:, 0], content.mean[:, 1]
    bins = int(np.clip(np.sqrt(len(first)) / 2, 8, 60))
    count, x, y = np.histogram2d(first, second, bins=bins)
    with np.errstate(divide="ignore"):
        energy = -np.log(count / count.max())
    energy[energy > _HIGHEST_KT] = np.nan
    shown = axes.pcolormesh(x, y, energy.T, cmap="viridis_r", rasterized=True)
    axes.figure.colorbar(shown, ax=axes, label="kT")
    axes.plot(*content.centre_angstrom[:, :2].T, "x", color=ORANGE, markersize=7)
    axes.set(xlabel="mode 1 (A)", ylabel="mode 2 (A)")


def draw_uncertainties(content: DynamicsContent) -> str:
    """Draw how well each particle's amplitudes are known, as SVG."""
    modes = content.mean.shape[1]
    with figure_style():
        drawing = Figure(figsize=(7.2, 2.6))
        axes = drawing.add_subplot()
        for mode, colour in zip(
            range(min(modes, 3)), (BLUE, ORANGE, GREY), strict=False
        ):
            axes.hist(
                content.sd[:, mode],
                bins=60,
                histtype="step",
                color=colour,
                label=f"mode {mode + 1}",
            )
        axes.set(xlabel="posterior standard deviation (A)", ylabel="particles")
        axes.legend(loc="upper right")
        return to_svg(drawing)
