"""Posteriors put to the test, on images whose truth is known.

Truths are drawn from the prior, images from the truths: the posteriors of the images
must then hold the truths as often as they say (simulation-based calibration).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from cryoinfer.evaluation.calibration import (
    coverage_curve,
    expected_calibration_error,
    posterior_ranks,
    rank_uniformity_p_value,
    rotation_ranks,
    tarp_levels,
)
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.geometry.symmetry import nearest_mates
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.records import Latents

DRAWS = 199
"""From each posterior: one less than a multiple of the bins, which are then alike."""

BINS = 20
LEVELS = tuple(number / 20 for number in range(21))

ENCODER, REFINED, SEARCHED = "encoder", "with local refinement", "of a search"
VARIATIONAL = "by variational inference"
"""What is tried: the encoder's own posteriors, those of local refinements from them,
those of refinements from a search, and those of variational inference from either."""


@dataclass(frozen=True)
class CalibrationTrial:
    """What truths say of the posteriors of their images.

    Attributes
    ----------
    images : int
    median_degrees : float
        Geodesic error of the best modes.
    coverage : tuple of float
        Share of the truths in the credible sets of :data:`LEVELS`.
    calibration_error : float
        Mean of |share - level| over balls about random points (TARP), 0 to 0.5; about
        ``0.31 / sqrt(images)`` if posteriors are exact.
    ranks : mapping of str to tuple of int
        By unknown, truths in each of 20 bins of their rank among draws; that of a
        rotation is by its angle from the best mode.
    p_values : mapping of str to float
        By unknown: how likely ranks as uneven as these are, if posteriors are exact.
    """

    images: int
    median_degrees: float
    coverage: tuple[float, ...]
    calibration_error: float
    ranks: Mapping[str, tuple[int, ...]]
    p_values: Mapping[str, float]

    @classmethod
    def of(
        cls,
        posteriors: Sequence[ParticlePosterior],
        truths: Sequence[Latents],
        symmetry: Tensor,
        generator: torch.Generator,
    ) -> Self:
        """Compare posteriors with the truths of their images, batch by batch.

        Parameters
        ----------
        posteriors : sequence of ParticlePosterior
        truths : sequence of Latents
            Of the same images.
        symmetry : Tensor, shape (m, 3, 3)
            Rotations that leave the map as it is, the identity among them; posteriors
            are folded by it.
        generator : torch.Generator
            Of the draws.
        """
        degrees, levels, ranks = [], [], []
        for posterior, truth in zip(posteriors, truths, strict=True):
            found, pose = posterior.mode().pose.rotation, truth.pose
            mate = nearest_mates(pose.rotation, found, symmetry)
            truth = replace(truth, pose=replace(pose, rotation=mate))
            degrees.append(torch.rad2deg(geodesic_angle(found, mate)))
            level = posterior.credible_level(truth, DRAWS, generator, symmetry)
            levels.append(level)
            ranks.append(_ranks(posterior, truth, symmetry, generator))
        joined = {name: torch.cat([one[name] for one in ranks]) for name in ranks[0]}
        balls = joined.pop("balls")
        shares = coverage_curve(torch.cat(levels), torch.tensor(LEVELS))
        return cls(
            len(balls),
            float(torch.cat(degrees).median()),
            tuple(shares.tolist()),
            expected_calibration_error(balls),
            {name: _histogram(values) for name, values in joined.items()},
            {
                name: rank_uniformity_p_value(values, DRAWS)
                for name, values in joined.items()
            },
        )

    @classmethod
    def of_record(cls, values: Mapping[str, Any]) -> Self:
        """Return what the record of a run holds: the attributes, in JSON's types.

        What another version has kept otherwise is a LookupError, TypeError, ValueError
        or AttributeError.
        """
        trial = cls(
            int(values["images"]),
            float(values["median_degrees"]),
            tuple(map(float, values["coverage"])),
            float(values["calibration_error"]),
            {name: tuple(map(int, counts)) for name, counts in values["ranks"].items()},
            {name: float(value) for name, value in values["p_values"].items()},
        )
        bins = {len(counts) for counts in trial.ranks.values()}
        if len(trial.coverage) != len(LEVELS) or bins != {BINS} or trial.images < 1:
            raise ValueError("expected a trial with other levels, bins or images")
        if trial.ranks.keys() != trial.p_values.keys():
            raise ValueError("expected a p-value for the ranks of every unknown")
        return trial

    def share_in(self, level: float) -> float:
        """Return the share of truths in the credible sets of one of the levels."""
        return self.coverage[LEVELS.index(level)]


def _ranks(
    posterior: ParticlePosterior,
    truth: Latents,
    symmetry: Tensor,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Return the truths' ranks among draws, and their levels in balls about one."""
    best = posterior.mode().pose.rotation

    def draw(count: int) -> Latents:
        drawn = posterior.sample(count, generator)
        at = best.expand_as(drawn.pose.rotation)
        mate = nearest_mates(drawn.pose.rotation, at, symmetry)
        return replace(drawn, pose=replace(drawn.pose, rotation=mate))

    drawn, point = draw(DRAWS), draw(1)[0]
    variance = posterior.covariance[:, 0].diagonal(dim1=1, dim2=2)
    ranks = {
        "rotation": rotation_ranks(
            truth.pose.rotation,
            drawn.pose.rotation,
            best,
            generator,
        )
    }
    numbers: dict[str, Callable[[Latents], Tensor]] = {
        "shift x": lambda latents: latents.pose.shift_angstrom[..., 0],
        "shift y": lambda latents: latents.pose.shift_angstrom[..., 1],
        "defocus": lambda latents: latents.defocus_offset_angstrom,
    }
    for mode in range(posterior.modes.conformation.shape[-1]):
        numbers[f"conformation {mode + 1}"] = functools.partial(_conformation, mode)
    for column, (name, number) in enumerate(numbers.items(), 3):
        if bool((variance[:, column] > 0).all()):
            ranks[name] = posterior_ranks(number(truth), number(drawn), generator)
    to_truth, to_drawn = (_distance(one, point, variance) for one in (truth, drawn))
    ranks["balls"] = tarp_levels(to_truth, to_drawn, generator)
    return ranks


def _conformation(mode: int, latents: Latents) -> Tensor:
    return latents.conformation[..., mode]


def _distance(first: Latents, second: Latents, variance: Tensor) -> Tensor:
    """Return distances in standard deviations of a posterior, shape (..., n).

    ``variance`` is (n, 6 + c); what was held does not count.
    """
    angle = geodesic_angle(first.pose.rotation, second.pose.rotation)
    shift = (first.pose.shift_angstrom - second.pose.shift_angstrom).square().sum(-1)
    offset = first.defocus_offset_angstrom - second.defocus_offset_angstrom
    terms = [angle.square(), shift, offset.square()]
    scales = [variance[:, :3].mean(1), variance[:, 3:5].mean(1), variance[:, 5]]
    apart = first.conformation - second.conformation
    terms.extend(apart.square().unbind(-1))
    scales.extend(variance[:, 6:].unbind(-1))
    squared, scale = torch.stack(terms, -1), torch.stack(scales, -1)
    return torch.where(scale > 0, squared / scale, 0.0).sum(-1).sqrt()


def _histogram(ranks: Tensor) -> tuple[int, ...]:
    of_bin = ranks * BINS // (DRAWS + 1)
    return tuple(torch.bincount(of_bin, minlength=BINS).tolist())
