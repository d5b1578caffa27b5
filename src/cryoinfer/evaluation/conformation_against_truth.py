"""Conformations that were found of simulated particles, compared with the true ones."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.evaluation.clusters import cluster_labels
from cryoinfer.evaluation.conformation import (
    FEWEST,
    confusion_error,
    monotone_r2,
    rank_correlation,
)
from cryoinfer.evaluation.pose_error import PoseErrors
from cryoinfer.evaluation.states import (
    FEWEST_ALIGNED,
    ClassAgreement,
    class_agreement,
    state_pose_errors,
)
from cryoinfer.records import Pose

MOST_STATES = 20
"""Distinct values up to which a truth is one of states, if each stands for two or more
particles on average; of more it is continuous."""

_FEW = 100
_FLATTERED = 5 * FEWEST_ALIGNED
"""Particles of a state below which a frame of its own takes up over 1 % of errors: its
six numbers are fitted to five of each particle, and sqrt(1 - 6 / 250) is 0.988."""


@dataclass(frozen=True)
class TrueConformation:
    """One thing that is known of the true conformations.

    Attributes
    ----------
    name : str
        Such as the column that it was read from.
    value : Tensor of float64, shape (n,)
        Of each particle, finite.
    is_ordered : bool
        Whether a larger value is more of something; not of a class number.
    """

    name: str
    value: Tensor
    is_ordered: bool

    def has_states(self) -> bool:
        """Tell whether its values are states: at most 20, and of few particles fewer.

        Class numbers are, however many there are.
        """
        distinct = len(torch.unique(self.value))
        most = min(MOST_STATES, len(self.value) // 2)
        return not self.is_ordered or distinct <= most

    def varies(self) -> bool:
        """Tell whether there are two conformations at all."""
        return len(torch.unique(self.value)) > 1


@dataclass(frozen=True)
class FoundConformations:
    """What a program has found of the conformations of n particles.

    Attributes
    ----------
    z : Tensor of float64, shape (n, q)
        Finite; without any column where it has found classes alone.
    class_number : Tensor of int64, shape (n,), or None
        Classes, where the program has found some.
    """

    z: Tensor
    class_number: Tensor | None = None

    def is_known(self) -> Tensor:
        """Tell of which particles anything was found, (n,)."""
        known = self.z.isfinite().all(1)
        if self.class_number is not None and not self.z.shape[1]:
            known &= self.class_number > 0
        return known

    def select(self, index: Tensor) -> "FoundConformations":
        """Return those of some particles."""
        number = self.class_number
        return FoundConformations(
            self.z[index], None if number is None else number[index]
        )


@dataclass(frozen=True)
class StatePoses:
    """Errors of poses where every true state has a frame of its own.

    Attributes
    ----------
    states : mapping of float to PoseErrors
        By state.
    left_out : int
        Particles of states with too few to fit a frame to.
    """

    states: Mapping[float, PoseErrors]
    left_out: int

    def median(self, name: str) -> float:
        """Return the median over the particles of all states, of a field of errors."""
        sizes = [getattr(one, name).abs() for one in self.states.values()]
        return float(torch.cat(sizes).median())


@dataclass(frozen=True)
class ConformationComparison:
    """How conformations compare with one thing that is known of the true ones.

    Attributes
    ----------
    name : str
    particles, dimensions : int
        How many were compared, and coordinates of z.
    rank_correlation, monotone_r2 : float or None
        None where the truth has no order, or but two states, or there is no z.
    state_values : tuple of float
        True states, in order; empty where the truth is continuous.
    confusion_error : float or None
        Of two states, by z.
    agreement : ClassAgreement or None
        Of states with classes.
    are_clusters : bool
        Whether those are of k-means with as many clusters as there are states, as the
        program has found no classes.
    cautions : tuple of str
        Whole sentences.
    """

    name: str
    particles: int
    dimensions: int
    rank_correlation: float | None
    monotone_r2: float | None
    state_values: tuple[float, ...]
    confusion_error: float | None
    agreement: ClassAgreement | None
    are_clusters: bool
    cautions: tuple[str, ...]


@dataclass(frozen=True)
class ConformationEvaluation:
    """How conformations, and poses state by state, compare with the truth.

    Attributes
    ----------
    comparisons : tuple of ConformationComparison
        One for each thing that is known; empty if no conformations were found.
    state_poses : mapping of str to StatePoses
        By the name of what is known, where that is states.
    cautions : tuple of str
        About poses and maps; whole sentences.
    """

    comparisons: tuple[ConformationComparison, ...]
    state_poses: Mapping[str, StatePoses]
    cautions: tuple[str, ...]


@dataclass(frozen=True)
class PosePair:
    """Poses, and the true ones of the same particles.

    Attributes
    ----------
    estimated, true : Pose
    """

    estimated: Pose
    true: Pose


def compare_conformations(
    found: FoundConformations, true: TrueConformation
) -> ConformationComparison:
    """Compare conformations with what is known of the true ones.

    Halves of particles are dealt from seed 0.

    Parameters
    ----------
    found : FoundConformations
    true : TrueConformation
        Of the same particles; it varies.
    """
    generator = torch.Generator().manual_seed(0)
    rank = r2 = error = agreement = None
    n, has_z = len(true.value), found.z.shape[1] > 0
    values, counts = torch.unique(true.value, return_counts=True)
    # Of two states the confusion error says it all.
    if has_z and true.is_ordered and n >= FEWEST and len(values) > 2:
        rank = rank_correlation(found.z, true.value, generator)
        r2 = monotone_r2(found.z, true.value, generator)
    if not true.has_states():
        values = values[:0]
    elif has_z and len(values) == 2 and int(counts.min()) >= FEWEST:
        error = confusion_error(found.z, true.value == values[1], generator)
    if len(values):
        classes = found.class_number
        if classes is None:
            classes = cluster_labels(found.z, len(values))
        agreement = class_agreement(classes, true.value)
    return ConformationComparison(
        name=true.name,
        particles=n,
        dimensions=found.z.shape[1],
        rank_correlation=rank,
        monotone_r2=r2,
        state_values=tuple(values.tolist()),
        confusion_error=error,
        agreement=agreement,
        are_clusters=len(values) > 0 and found.class_number is None,
        cautions=tuple(_cautions(n, rank, error, agreement)),
    )


def evaluate_conformations(
    found: FoundConformations | None,
    truths: Sequence[TrueConformation],
    poses: PosePair,
    symmetry: Tensor,
    has_map: bool,
) -> ConformationEvaluation:
    """Compare what was found of particles in many conformations with the truth.

    Parameters
    ----------
    found : FoundConformations or None
        None if a program has asked for poses alone.
    truths : sequence of TrueConformation
        Of the same particles; each varies. Empty if they are all alike.
    poses : PosePair
        Of the same particles.
    symmetry : Tensor, shape (m, 3, 3)
        Rotations that leave every true map as it is, the identity among them.
    has_map : bool
        Whether one map was compared, too.
    """
    states = {
        one.name: errors
        for one in truths
        if one.has_states()
        and (errors := _state_poses(poses, one.value, symmetry)) is not None
    }
    cautions = _pose_cautions(truths, has_map)
    for errors in states.values():
        cautions += _state_cautions(errors)
    return ConformationEvaluation(
        ()
        if found is None
        else tuple(compare_conformations(found, one) for one in truths),
        states,
        tuple(cautions),
    )


def _state_poses(poses: PosePair, state: Tensor, symmetry: Tensor) -> StatePoses | None:
    errors = state_pose_errors(poses.estimated, poses.true, state, symmetry)
    if not errors:
        return None
    judged = sum(len(one.geodesic_degrees) for one in errors.values())
    return StatePoses(errors, len(state) - judged)


def _pose_cautions(truths: Sequence[TrueConformation], has_map: bool) -> list[str]:
    """Return what to bear in mind of poses that are compared in one frame."""
    if not truths:
        return []
    names = ", ".join(one.name for one in truths)
    found = [
        f"The true particles are not all alike ({names}). How far a structure turns "
        "while it changes is a convention: in one frame for all, errors of rotation "
        "and shift hold that difference too."
    ]
    if has_map:
        found.append(
            "The true map is of one conformation, at rest where `simulate` made it; "
            "the map of the run is a mean of many."
        )
    return found


def _state_cautions(poses: StatePoses) -> list[str]:
    """Return what to bear in mind of poses that are compared state by state."""
    found = []
    sizes = [len(one.geodesic_degrees) for one in poses.states.values()]
    if min(sizes) < _FLATTERED:
        found.append(
            "A frame was fitted to each state, the smallest of "
            f"{min(sizes)} particles: with so few it takes up a part of their errors."
        )
    if poses.left_out:
        found.append(
            f"{poses.left_out:,} particles are of states with fewer than "
            f"{FEWEST_ALIGNED}, to which no frame can be fitted: left out."
        )
    if len({one.alignment.mirrored for one in poses.states.values()}) > 1:
        found.append("The states came out with different hands.")
    return found


def _cautions(
    n: int, rank: float | None, error: float | None, agreement: ClassAgreement | None
) -> list[str]:
    found = []
    if n < _FEW:
        found.append(f"Only {n} particles: chance counts for much in these numbers.")
    # Chance of |Spearman| to be above this is 5 % where z knows nothing.
    if rank is not None and rank < 2 / n**0.5:
        found.append(
            f"A rank correlation of {rank:.2f} may be chance: z shows nothing of this."
        )
    if agreement is None:
        return found
    largest = float(agreement.true_shares.max())
    if error is not None and error >= 1 - largest:
        found.append(
            f"A confusion error of {error:.1%} is no better than to call all particles "
            f"the larger state, which errs by {1 - largest:.1%}."
        )
    if largest > 0.9:
        found.append(
            f"One state holds {largest:.0%} of the particles: errors are small "
            "whatever is found. The adjusted Rand index is 0 by chance."
        )
    return found
