"""Whether particles are seen from one direction only, and show no structure in space.

Images of one view fit a map in space as well as one of theirs: what differs between
them by defocus, and their noise, gets views of its own about the true one. The map has
a resolution then, and is nothing but a smeared projection. So where the views leave
much of Fourier space unmeasured, each particle is looked at from the mean view too, in
the map of the other half-set. If that explains it nearly as well, there was one view.
"""

import torch
from torch import Tensor

from cryoinfer.arithmetic import reproducible_sum
from cryoinfer.evaluation.view_coverage import fourier_coverage
from cryoinfer.geometry.rotations import least_turn
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.whitening import whiten
from cryoinfer.records import Latents, Pose
from cryoinfer.workflows.problem import Problem

_MEASURED = 0.25
"""Of what an even spread of views would give a direction, that counts as measured."""

_ENOUGH = 0.6
"""Share of directions that are measured with which nothing is asked: views from within
37 degrees of one axis measure as much."""


def single_view_share(
    problem: Problem,
    noise: tuple[Tensor, ...],
    projectors: tuple[MapProjector, MapProjector],
    latents: Latents,
) -> float | None:
    """Return how much of what a map explains one projection of it explains.

    Parameters
    ----------
    problem : Problem
        Its noise rows are the particles that are looked at.
    noise : tuple of Tensor
        Noise power per optics group and ring.
    projectors : tuple of two MapProjector
        Of the half-sets.
    latents : Latents
        Of all particles.

    Returns
    -------
    float or None
        Of the gain in log-likelihood over no map, summed over particles; None where the
        views measure most of Fourier space.
    """
    rotation = latents.pose.rotation
    mates = (rotation[:, None] @ problem.symmetry_rotation)[..., 2, :].flatten(0, 1)
    measured = fourier_coverage(mates) > _MEASURED
    if float(measured.double().mean()) > _ENOUGH:
        return None
    seen = from_mean_view(latents)
    radius = projectors[0].radius
    gains = torch.zeros(2, dtype=torch.float64)
    for batch in problem.batches(torch.nonzero(problem.noise_rows).squeeze(1)):
        group, rows = int(batch.optics.group[0]), batch.index.cpu()
        images = whiten(batch, problem.grid, radius, noise[group])
        other = projectors[1 - int(problem.half[int(rows[0])])]
        power = images.coefficients.abs().square().sum(1).double()
        for number, one in enumerate((latents, seen)):
            explained = other.log_likelihood(images, one[rows]).double() + power
            gains[number] += float(reproducible_sum(explained))
    return float(gains[1] / gains[0]) if float(gains[0]) > 0 else 1.0


def from_mean_view(latents: Latents) -> Latents:
    """Return the particles as they would be seen from their mean direction.

    Turned by the least angle that leads there, so that turns in the plane stay.
    """
    rotation = latents.pose.rotation.double()
    view = rotation[:, 2]
    mean = view.mean(0)
    mean = (mean / mean.norm().clamp(min=1e-12)).expand_as(view)
    return Latents(
        Pose(rotation @ least_turn(mean, view), latents.pose.shift_angstrom),
        latents.defocus_offset_angstrom,
        latents.conformation,
    )
