"""An encoder, the maps that it knows, and local refinement of what it proposes."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.fourier.slices import DEFAULT_PADDING
from cryoinfer.inference.amortized import PoseEncoder
from cryoinfer.inference.convergence import Check
from cryoinfer.inference.local_refinement import reach_radian
from cryoinfer.inference.mode_refinement import ModeRefinement
from cryoinfer.inference.outlier_score import InlierStatistics
from cryoinfer.inference.pose_inference import InflatedCovariance
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.subspace_projector import MapsProjector, maps_projector
from cryoinfer.inference.training_images import TrainingImages
from cryoinfer.workflows.acquisition import AcquisitionStatistics
from cryoinfer.workflows.simulated_images import templates_of

_FINE_PADDING, _LARGEST_FINE_BOX = 3.0, 256
"""Of the map of refinements. Interpolation bends slopes, which moves modes and makes
them look sharper: with 3 in the place of 2, squared errors of rotations are 3 to 4 %
smaller in units of their posteriors (sets D, F and G of cryoPoseNet; 4 gains 1 % more).
A map of 256 takes 1.9 GB."""

_LOWEST_RADIUS = 6
_MODES, _MODES_OF_SUBSPACE = 2, 8
"""Of an encoder, that are refined. Where it infers z too it errs more: with 8, 2.7 % of
the poses of two states of adenylate kinase end elsewhere, with 4 3.3 % and with 2
6.7 % (600 simulated images of 32 pixels, 3 dB), for half as much time again."""

_LIKELY_ERRORS = 1.5  # medians, that a first refinement is to come back from
_CLOSE = 0.75  # of a radius, from which refinement needs no stop in between


@dataclass(frozen=True)
class TrainedEncoder:
    """An encoder and the map that it has learned.

    Attributes
    ----------
    encoder : PoseEncoder
    density : Tensor, shape (n, n, n)
        Of the run, masked.
    components : tuple of Tensor, each of shape (n, n, n)
        As of :class:`TrainingData`.
    last_radius : int
        That the maps reach.
    prior : PosePrior
        Of shifts, defoci and z.
    symmetry : str
        Point group of the map.
    inliers : InlierStatistics
        How the map fits the particles that it was made of.
    imaging : tuple of AcquisitionStatistics or None
        By optics group; None of a group without particles.
    checks : tuple of Check
    verdict : str
    covariance_inflation : Tensor of float64, shape (6 + q,)
        What the standard deviations of refined posteriors are multiplied by.
    """

    encoder: PoseEncoder
    density: Tensor
    components: tuple[Tensor, ...]
    last_radius: int
    prior: PosePrior
    symmetry: str
    inliers: InlierStatistics
    imaging: tuple[AcquisitionStatistics | None, ...]
    checks: tuple[Check, ...]
    verdict: str
    covariance_inflation: Tensor

    @property
    def maps(self) -> tuple[Tensor, ...]:
        """The map, or the mean and the components."""
        return (self.density, *self.components)

    @cached_property
    def shown_projector(self) -> MapsProjector:
        """The maps, to the radius that the encoder is shown."""
        return maps_projector(self.maps, self.encoder.radius)

    def knows(self, group: int) -> bool:
        """Tell whether particles of an optics group have been learned from."""
        return group < len(self.imaging) and self.imaging[group] is not None

    def like(
        self, particles: Particles, most: int, generator: torch.Generator
    ) -> TrainingImages[MapsProjector]:
        """Return the source of images of the map that are simulated like particles.

        Parameters
        ----------
        particles : Particles
            Whose CTFs and noise are lent; of areas that the encoder knows.
        most : int
            Particles that lend.
        generator : torch.Generator
            Of the choice of these.

        Returns
        -------
        TrainingImages
            To the last radius that is refined at.
        """
        encoder, radius = self.encoder, self.refinement.radii[-1]
        lent = templates_of(
            particles, encoder.grid, radius, encoder.noise_power, generator, most
        )
        return TrainingImages(self.projector, lent, self.prior)

    @cached_property
    def projector(self) -> MapsProjector:
        """The maps to their last radius, for local refinement."""
        # A watch asks for every file, and transforming the map takes a while.
        fine = self.density.shape[-1] <= _LARGEST_FINE_BOX and not self.components
        padding = _FINE_PADDING if fine else DEFAULT_PADDING
        return maps_projector(self.maps, self.refinement.radii[-1], padding)

    @property
    def refinement(self) -> ModeRefinement[MapsProjector]:
        """Local refinement of what the encoder proposes.

        First at the radius of the encoder's picture, or at a lower one if the encoder
        errs too much to be refined from there; then at twice that, and so on to the
        last one of the box.
        """
        degrees = self.checks[-1].median_degrees
        return ModeRefinement(
            self.encoder,
            refinement_radii(degrees, self.encoder.radius, self.last_radius),
            self.encoder.grid.lever_angstrom,
            self.encoder.symmetry,
            _MODES_OF_SUBSPACE if self.components else _MODES,
        )

    def semi_amortized(self) -> InflatedCovariance[MapsProjector]:
        """Return the inference by encoder and local refinement, its widths fitted."""
        return InflatedCovariance(self.refinement, self.covariance_inflation)


def refinement_radii(median_degrees: float, shown: int, last: int) -> tuple[int, ...]:
    """Return the Fourier radii of refinements from poses of a given error.

    Parameters
    ----------
    median_degrees : float
        Of the poses that are refined.
    shown : int
        Radius that they were found at, in pixels.
    last : int

    Returns
    -------
    tuple of int
        From the largest one, at most ``shown``, at which refinement reaches poses of
        one and a half times that error, doubling until ``last`` is near, and ``last``.
    """
    wrong = _LIKELY_ERRORS * max(math.radians(median_degrees), 1e-6)
    radius = min(max(int(reach_radian(1) / wrong), _LOWEST_RADIUS), shown)
    radii = [min(radius, last)]
    while 2 * radii[-1] < _CLOSE * last:
        radii.append(2 * radii[-1])
    return tuple(sorted({*radii, last}))
