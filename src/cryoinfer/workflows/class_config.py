"""What may be chosen of an inference of classes, and what cannot work."""

from dataclasses import dataclass

from cryoinfer.errors import InputError
from cryoinfer.results.layout import MOST_CLASSES
from cryoinfer.workflows.heterogeneity_config import ConformationConfig
from cryoinfer.workflows.random_start import require_many

_FEWEST_EACH = 50
"""Particles a class, below which noise makes classes of its own."""

_TRIED = 6
"""Classes that are begun with where their number is left open."""

_SPARE = 2
"""Classes beyond those that were chosen, that are begun with: some may be alike."""


@dataclass(frozen=True)
class ClassConfig(ConformationConfig):
    """What may be chosen of classes; the rest as of :class:`ConformationConfig`.

    Attributes
    ----------
    classes : int, optional
        By default as many as make images that they were not made of likelier, at most
        6.
    """

    classes: int | None = None

    def begun_with(self, particles: int) -> int:
        """Return how many classes are begun with."""
        carried = max(1, min(particles, self.learning_particles) // _FEWEST_EACH)
        if self.classes is None:
            return min(_TRIED, carried)
        return max(self.classes, min(self.classes + _SPARE, carried))


def require_enough_for_classes(particles: int, config: ClassConfig) -> None:
    """Refuse more classes than particles can carry.

    Raises
    ------
    InputError
    """
    if config.poses == "unknown":
        require_many(particles)
    classes = 1 if config.classes is None else config.classes
    needed, found = _FEWEST_EACH * classes, min(particles, config.learning_particles)
    if not 1 <= classes <= MOST_CLASSES or found < needed:
        raise InputError(
            f"expected 1 to {MOST_CLASSES} classes, and {_FEWEST_EACH} particles to "
            f"learn each from: {needed:,} for {classes}, found {found:,}; --classes "
            "and --learn change this"
        )
