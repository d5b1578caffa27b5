"""What the numbers of a run mean, in plain words."""

import math
from collections.abc import Iterator, Mapping

from torch import Tensor

from cryoinfer.evaluation.view_coverage import fourier_coverage, unseen_share
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.report.content import ReportContent
from cryoinfer.report.parts import Finding
from cryoinfer.report.trials import judge_trials, spoken
from cryoinfer.results.calibration_trial import CalibrationTrial

_VISIBLE = (
    (2.5, "most side chains and well-ordered waters"),
    (3.5, "the chain and many of its side chains"),
    (4.5, "the backbone and the bulky side chains"),
    (8.0, "alpha helices as rods, but not the chain between them"),
    (15.0, "domains, but no secondary structure"),
    (math.inf, "the overall shape only"),
)
"""Up to this resolution in angstrom, what a map usually shows."""


_RESERVE = {
    "apart": "",
    "given": "",
    "one map": ", with the poses of both halves from one map",
}
_BEGUN = ", no finer than the map from which both halves began"

_HIGH_SYMMETRY = 12
"""Rotations of the point groups T, O, I and D6: their mates see the map from all sides
even if particles do not."""

_CROWDED = 0.1
"""Share of directions that are hardly seen: 0.24 where apoferritin ended in a wrong map
with halves that agreed to 3.6 A, 0 where its map was right, and at most 0.03 of 50 or
more particles that are seen from everywhere."""

_FAR_DEGREES = 10.0
"""Median error of an encoder's poses, on images of its own map, that blurs any map."""


def give_verdict(content: ReportContent) -> str:
    """Return what was reached, and how far to trust it, in three sentences."""
    if content.nothing_found:
        return content.nothing_found
    resolution = content.resolution_angstrom()
    if content.agrees_nowhere:
        return (
            f"{len(content.pose):,} particles gave two half-maps that agree nowhere: "
            "there is no resolution. Do not use the map."
        )
    visible = next(words for limit, words in _VISIBLE if resolution <= limit)
    cautions = sum(finding.level == "caution" for finding in assess(content))
    trust = (
        "All checks passed."
        if cautions == 0
        else f"{cautions} of the checks below ask for caution."
        if cautions > 1
        else "One of the checks below asks for caution."
    )
    return (
        f"{len(content.pose):,} particles gave a map at {resolution:.2f} Å"
        f"{_RESERVE[content.halves]}{_BEGUN if content.agrees_as_begun else ''}. "
        f"A map at this resolution usually shows {visible}. {trust}"
    )


def assess(content: ReportContent) -> tuple[Finding, ...]:
    """Check the run for what commonly goes wrong.

    The warnings of the run itself come last. Of a run that has found no structure
    nothing else is judged: a good mark for the views of noise would mislead.
    """
    warnings = [Finding("caution", text) for text in content.warnings]
    if content.nothing_found:
        return (Finding("caution", content.nothing_found), *warnings)
    findings = [*_judge_curve(content), _judge_views(content.directions)]
    findings += _judge_crowding(content)
    if (sd := content.rotation_sd_degrees) is not None:
        findings.append(_judge_poses(sd))
    if len(content.iterations) >= 2:
        findings.append(_judge_convergence(content))
    findings += _judge_encoder(content.trials)
    return (*findings, *warnings)


def _judge_curve(content: ReportContent) -> list[Finding]:
    """Judge how the half-maps agree: what they share, and where the curve ends."""
    if content.agrees_nowhere:
        return [
            Finding("caution", "The half-maps agree nowhere: there is no resolution.")
        ]
    cautions = [*_judge_end(content), *_judge_independence(content)]
    if cautions:
        return [Finding("caution", text) for text in cautions]
    if content.halves == "given":
        return [
            Finding(
                "good",
                "The FSC falls to zero and stays there. Poses were given: the halves "
                "are as independent as they were when the poses were found.",
            )
        ]
    return [
        Finding(
            "good",
            "The FSC falls to zero and stays there, as it does for independent halves.",
        )
    ]


def _judge_end(content: ReportContent) -> Iterator[str]:
    """Yield what is wrong with a curve that does not fall to zero and stay there."""
    if content.agrees_at_nyquist:
        yield (
            "The half-maps still agree at Nyquist "
            f"({content.nyquist_angstrom:.2f} Å): the pixel size limits the map. "
            "Particles with a smaller pixel may show more."
        )
        return
    tail = content.fsc[-max(3, len(content.fsc) // 10) :]
    if float(tail.mean()) > 0.143:
        yield (
            "The FSC rises again at high frequency. The halves may share "
            "something: duplicate particles, or a mask that is too tight."
        )


def _judge_independence(content: ReportContent) -> Iterator[str]:
    """Yield what the halves have in common that is no structure."""
    if content.halves == "one map":
        yield (
            "The poses of both halves come from one map, whose features and noise are "
            "in both: their FSC is too high wherever that map is wrong."
        )
    elif content.agrees_as_begun:
        yield (
            "The half-maps agree only to the resolution of the map from which both "
            f"began, {content.shared_resolution_angstrom:.2f} Å: their FSC proves "
            "nothing about what they found independently."
        )


def _judge_encoder(trials: Mapping[str, CalibrationTrial]) -> list[Finding]:
    """Judge the encoder that has posed the particles by its trials."""
    findings = judge_trials(trials)
    for name, trial in trials.items():
        if trial.median_degrees > _FAR_DEGREES:
            findings.append(
                Finding(
                    "caution",
                    f"Poses of the {spoken(name)} are wrong: half of the images that "
                    "were simulated from its own map are off by "
                    f"{trial.median_degrees:.0f}° or more.",
                )
            )
    return findings


def _judge_views(directions: Tensor) -> Finding:
    coverage = float(fourier_coverage(directions).min())
    if coverage < 0.25:
        return Finding(
            "caution",
            "Some directions of the map are hardly measured: the worst gets "
            f"{coverage:.0%} of the data that an even spread of views would give it. "
            "Expect smearing along it, and do not trust fine detail there.",
        )
    return Finding(
        "good",
        "All directions of the map are measured: the worst gets "
        f"{coverage:.0%} of the data that an even spread of views would give it.",
    )


def _judge_crowding(content: ReportContent) -> Iterator[Finding]:
    """Yield that views of a high symmetry leave out much of the asymmetric unit."""
    if len(symmetry_rotations(content.symmetry)) < _HIGH_SYMMETRY:
        return
    unseen = unseen_share(content.directions)
    if unseen > _CROWDED:
        yield Finding(
            "caution",
            f"Views crowd within the asymmetric unit of {content.symmetry}: from "
            f"{unseen:.0%} of all directions, symmetry mates included, hardly any "
            "particle is seen. Unless they all lie alike on the film, the map may be "
            "wrong, however far its half-maps agree: try `cryoinfer abinitio` with "
            "another --seed or more --starts, or with --symmetry C1 first.",
        )


def _judge_poses(rotation_sd_degrees: Tensor) -> Finding:
    median = float(rotation_sd_degrees.median())
    loose = float((rotation_sd_degrees > 10).double().mean())
    text = (
        f"The orientation of the typical particle is known to {median:.2g}° "
        "(one standard deviation about each axis)"
    )
    if loose > 0.1:
        return Finding(
            "caution",
            f"{text}, but {loose:.0%} of the particles are uncertain by more than "
            "10°. They blur the map; some may be junk.",
        )
    return Finding("good", f"{text}.")


def _judge_convergence(content: ReportContent) -> Finding:
    before, last = (i.resolution_angstrom for i in content.iterations[-2:])
    if last < 0.95 * before:
        return Finding(
            "caution",
            f"The last iteration still improved the resolution from {before:.2f} to "
            f"{last:.2f} Å: the run may not have finished. Continue with "
            "`cryoinfer refine`.",
        )
    return Finding("good", "The resolution had settled by the last iteration.")
