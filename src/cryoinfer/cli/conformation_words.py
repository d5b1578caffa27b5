"""What an evaluation has found of conformations, in words."""

from rich.console import Console

from cryoinfer.cli.terminal import say, say_rows
from cryoinfer.evaluation.conformation_against_truth import (
    ConformationComparison,
    ConformationEvaluation,
    StatePoses,
)
from cryoinfer.evaluation.junk import JunkComparison

_SHOWN_STATES = 6


def say_conformations(console: Console, found: ConformationEvaluation) -> None:
    """Print how conformations compare with the truth, and what asks for caution.

    Parameters
    ----------
    console : Console
    found : ConformationEvaluation
    """
    for one in found.comparisons:
        say(
            console,
            f"Conformations ({_count(one.dimensions, 'coordinate')}) of "
            f"{one.particles:,} particles against {one.name}",
        )
        say_rows(console, _rows(one))
        for text in one.cautions:
            say(console, f"Caution: {text}")
    for name, poses in found.state_poses.items():
        say(console, f"Poses against {name}, every state in a frame of its own")
        say_rows(console, _pose_rows(poses))
    for text in found.cautions:
        say(console, f"Caution: {text}")


def say_junk(console: Console, found: JunkComparison) -> None:
    """Print how well images without a particle are told from the others."""
    say(
        console,
        f"Junk: {found.junk:,} images show no particle, {found.particles:,} one; poses "
        "and conformations above are of the latter",
    )
    rows = {"  Outlier scores": "the run has none"}
    if found.auc is not None:
        rows["  Outlier scores"] = (
            f"AUC {found.auc:.3f} (0.5 by chance, 1 if all junk scores higher)"
        )
    if found.flagged_junk is not None and found.flagged_particles is not None:
        rows["  Flagged"] = (
            f"{found.flagged_junk:.1%} of the junk, {found.flagged_particles:.1%} of "
            "the particles"
        )
    say_rows(console, rows)


def _rows(one: ConformationComparison) -> dict[str, str]:
    rows = {}
    along = " along the best direction" if one.dimensions > 1 else ""
    if one.rank_correlation is not None and one.monotone_r2 is not None:
        rows["  Rank correlation"] = f"{one.rank_correlation:.3f} (Spearman{along})"
        rows["  R2"] = (
            f"{one.monotone_r2:.3f}: what the best monotone function of z{along} "
            "explains of the truth's variance, fitted to other particles"
        )
    agreement = one.agreement
    if agreement is None:
        return rows
    if one.confusion_error is not None:
        rows["  Confusion error"] = (
            f"{one.confusion_error:.2%} of particles are on the wrong side of the best "
            f"threshold{along}, fitted to other particles"
        )
    classes = "clusters of z (k-means)" if one.are_clusters else "classes of the run"
    rows["  Accuracy"] = (
        f"{agreement.accuracy:.2%} are in the right one of "
        f"{_count(len(one.state_values), 'state')}, by {classes}"
    )
    rows["  Adjusted Rand index"] = f"{agreement.adjusted_rand_index:.3f}"
    rows["  Populations"] = _populations(one)
    return rows


def _populations(one: ConformationComparison) -> str:
    assert one.agreement is not None
    shares = zip(
        one.state_values,
        one.agreement.true_shares.tolist(),
        one.agreement.found_shares.tolist(),
        strict=True,
    )
    told = [f"{state:g}: {true:.1%}, {found:.1%}" for state, true, found in shares]
    more = "; ..." if len(told) > _SHOWN_STATES else ""
    listed = "; ".join(told[:_SHOWN_STATES]) + more
    apart = one.agreement.total_variation
    return f"off by {apart:.1%} (state: true, found: {listed})"


def _pose_rows(poses: StatePoses) -> dict[str, str]:
    shown = {
        "rotation": ("geodesic_degrees", "deg"),
        "view": ("view_degrees", "deg"),
        "in-plane": ("in_plane_degrees", "deg"),
        "shift": ("shift_angstrom", "A"),
    }
    return {
        f"  Median {name} error": f"{poses.median(field):.3g} {unit}"
        for name, (field, unit) in shown.items()
    }


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
