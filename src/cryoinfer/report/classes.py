"""The page about classes: how many there are, their maps, what to bear in mind."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.report.figures import FSC_CAPTION, MAP_CAPTION, draw_fsc, draw_map
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
from cryoinfer.report.style import BLUE, figure_style, to_svg
from cryoinfer.results.classes import ClassGain

_SURE = 0.9
"""Probability of its class from which a particle is said to be told."""

_FEW_SURE = 0.5
_PANEL = (4.6, 3.0)


@dataclass(frozen=True)
class ClassContent:
    """What the page shows of one class.

    Attributes
    ----------
    share, share_se : float
        Of the particles.
    density : ndarray, shape (m, m, m)
    fsc, fsc_unmasked : Tensor, shape (m // 2 + 1,)
    resolution : str
        In words.
    """

    share: float
    share_se: float
    density: NDArray[np.float32]
    fsc: Tensor
    fsc_unmasked: Tensor
    resolution: str


@dataclass(frozen=True)
class ClassesContent:
    """All that the page shows, of n particles and K classes.

    Attributes
    ----------
    title, created : str
    of_class : tuple of ClassContent
        The largest first.
    probability : ndarray, shape (n,)
        Of every particle's class.
    pixel_size_angstrom : float
    gain : ClassGain
    chosen : bool
        Whether the user chose the number of classes.
    poses_given : bool
    stage_seconds : mapping from stage to seconds
    arguments, versions : mapping
    warnings, remarks : tuple of str
    """

    title: str
    created: str
    of_class: tuple[ClassContent, ...]
    probability: NDArray[np.float64]
    pixel_size_angstrom: float
    gain: ClassGain
    chosen: bool
    poses_given: bool
    stage_seconds: Mapping[str, float]
    arguments: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def class_verdict(gain: ClassGain, count: int) -> str:
    """Say how many classes there are, and whether held-out images ask for them."""
    if gain.significant > count:
        kept = "one class was" if count == 1 else f"{count} classes were"
        return (
            f"{kept.capitalize()} asked for, and held-out images ask for "
            f"{gain.significant}: some hold particles of several structures."
        )
    if count == 1:
        return (
            "There is one class: no second one makes images that it was not made of "
            "likelier. At this resolution the particles show one structure, or too few "
            "of them show another."
        )
    place = gain.classes.index(count) if count in gain.classes else -1
    step, error = gain.step_nats[place], gain.step_se_nats[place]
    worth = (
        f"held-out images are {step:.2f} ± {error:.2f} nats likelier each than with "
        "one class less"
    )
    if gain.significant < count:
        return (
            f"{count} classes were asked for, and they are not all there: {worth}. "
            "Some may be alike, or of noise."
        )
    return f"There are {count} classes: {worth}."


def assess_classes(content: ClassesContent) -> list[Finding]:
    """Return what a user of the classes should know."""
    findings = [Finding("caution", text) for text in content.warnings]
    count, gain = len(content.of_class), content.gain
    verdict = class_verdict(gain, count)
    if count > 1 and gain.significant == count:
        findings.append(Finding("good", verdict))
    else:
        findings.append(Finding("caution", verdict))
    sure = float((content.probability > _SURE).mean())
    if count > 1 and sure < _FEW_SURE:
        findings.append(
            Finding(
                "caution",
                f"Only {sure:.0%} of the particles are of one class with a probability "
                f"above {_SURE:g}: weigh particles by it where you count them.",
            )
        )
    if count > 1 and not content.poses_given:
        findings.append(
            Finding(
                "caution",
                "Poses and classes were found in maps of the other half-set, up to the "
                "resolution of the search: half-maps may agree so far on what they "
                "share. Maps of different molecules have no common frame or hand.",
            )
        )
    if count > 1:
        findings.append(
            Finding(
                "caution",
                "Standard errors of populations take the maps as exact. Particles "
                "that change continuously are divided as well: try `--model subspace`.",
            )
        )
    return findings


def render_class_report(content: ClassesContent) -> str:
    """Write the classes of particles as a self-contained HTML page."""
    count = len(content.of_class)
    sure = float((content.probability > _SURE).mean())
    return page(
        title=content.title,
        subtitle=f"Discrete classes · {content.created}",
        verdict=class_verdict(content.gain, count),
        tiles=tiles(
            ("Particles", f"{len(content.probability):,}", "inferred"),
            ("Classes", f"{count}", "chosen" if content.chosen else "by held-out gain"),
            ("In one class", f"{sure:.0%}", f"with a probability above {_SURE:g}"),
            time_tile(content.stage_seconds),
        ),
        findings=assess_classes(content),
        sections=_sections(content),
    )


def _sections(content: ClassesContent) -> Iterator[str]:
    rows = [
        [f"{number}", f"{one.share:.1%} ± {one.share_se:.1%}", one.resolution]
        for number, one in enumerate(content.of_class, 1)
    ]
    yield section(
        "Classes",
        "The population of a class is the share of particles that makes all images "
        "likeliest, ± its standard error; it counts doubtful particles in part.",
        table(("Class", "Population", "Resolution"), rows),
        figure(
            "sure",
            _draw_probability(content.probability),
            "Histogram of the probability of every particle's class",
            "Of the likeliest class of each particle, if one of these classes is the "
            "right one; what fits none of them is certain of one as well.",
            "narrow",
        ),
    )
    for number, one in enumerate(content.of_class, 1):
        yield section(
            f"Class {number}",
            f"{one.share:.1%} of the particles; resolution {one.resolution}.",
            figure(
                f"map-{number}",
                draw_map(one.density.astype(np.float64), content.pixel_size_angstrom),
                f"Map of class {number}",
                MAP_CAPTION,
                "map",
            ),
            figure(
                f"fsc-{number}",
                draw_fsc(one.fsc, one.fsc_unmasked, content.pixel_size_angstrom),
                f"Fourier shell correlation of the half-maps of class {number}",
                FSC_CAPTION,
            ),
        )
    if content.gain.classes:
        yield section(
            "What classes are worth",
            "Classes were given up one by one, and the maps of the others made anew. "
            "The gain is of images in maps of the half that they are not in: a class "
            "of noise makes it negative.",
            _gain_table(content.gain),
        )
    yield from last_sections(
        content.stage_seconds, content.remarks, content.arguments, content.versions
    )


def _draw_probability(values: NDArray[np.float64]) -> str:
    with figure_style():
        drawing = Figure(figsize=_PANEL)
        axes = drawing.add_subplot()
        axes.hist(values, bins=40, range=(0, 1), color=BLUE)
        axes.set(xlabel="probability of its class", ylabel="particles")
        return to_svg(drawing)


def _gain_table(gain: ClassGain) -> str:
    steps = zip(gain.classes, gain.step_nats, gain.step_se_nats, strict=True)
    cells = [[f"{count}", f"{step:+.3f} ± {error:.3f}"] for count, step, error in steps]
    return table(("Classes", "Gain over one less (nats a particle)"), cells)
