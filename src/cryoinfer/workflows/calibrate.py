"""How much sharper the Laplace posteriors look than they are.

Two things are missing from the normal equations of a particle. The noise of the
reference has slopes too, and Gauss-Newton takes them for information. With T the
filtered reference of one half and U the unfiltered one of the other, whose noise is
independent, the true slope of the estimate is ``A = sum Re(T'* U')`` where the normal
equations hold ``B = sum Re(T'* T')``: the covariance is the sandwich
``A^-1 B A^-1 / 2`` instead of ``B^-1 / 2``. A is had from
normal equations alone, by polarisation: ``A = (B(T + U) - B(T) - B(U)) / 2``. The
prior knows no reference: its precision is added to both, A and B.

And the reference itself is wrong, which moves all poses that look at the same part of
it together. The references of the halves are wrong independently: half the mean square
of what an image's poses against the one and the other differ by is the variance that
each brings.
"""

import torch
from torch import Tensor

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.inference.local_refinement import refine_locally
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.quadrature_grid import departure
from cryoinfer.inference.whitening import WhitenedImages, whiten
from cryoinfer.workflows.problem import Problem
from cryoinfer.workflows.structure_update import reference_volume

_UNKNOWNS = (slice(0, 3), slice(3, 5), slice(5, 6))  # rotation, shift, defocus
_MEAN_OVER_MEDIAN = (1.268, 1.443, 2.198)
"""Of chi-squares of 3, 2 and 1 degrees: the median leaves out images whose poses
against the two references are different modes."""

_STEPS = 3
_LARGEST = 10.0  # of a variance; beyond it the halves do not agree at all


def variance_inflation(
    problem: Problem,
    noise: tuple[Tensor, ...],
    posterior: ParticlePosterior,
    filtered: tuple[Tensor, Tensor],
    unfiltered: tuple[Tensor, Tensor],
    radius: int,
) -> Tensor:
    """Return the factor of each unknown's variance, shape (6,), 1 or more.

    Parameters
    ----------
    problem : Problem
        Its noise rows are the particles that the factor is measured on.
    noise : tuple of Tensor
    posterior : ParticlePosterior
        Of all particles.
    filtered, unfiltered : tuple of two Tensor, shape (m, m, m)
        References of the halves, masked alike.
    radius : int
        Largest Fourier radius that is looked at.
    """
    first, second = (
        reference_volume(density.to(problem.device), radius) for density in filtered
    )
    references = first, second
    ratios, differences = [], []
    sample = torch.nonzero(problem.noise_rows).squeeze(1)
    # Half by half: there are never more than four volumes at a time.
    for half in (0, 1):
        own, density = references[half], unfiltered[1 - half].to(problem.device)
        other = reference_volume(density, radius)
        volumes = own, other, _sum(own, other)
        for batch in problem.batches(sample[problem.half[sample] == half]):
            group = int(batch.optics.group[0])
            images = whiten(batch, problem.grid, radius, noise[group])
            known = batch.rows_of(posterior)
            ratios.append(_ratio(problem, images, known, volumes).cpu())
            share = _reference_share(problem, images, known, references)
            differences.append(share.cpu())
        del other, volumes
    sharper = torch.cat(ratios).median(0).values.clamp(1.0, _LARGEST)
    shares = torch.cat(differences).median(0).values * torch.tensor(_MEAN_OVER_MEDIAN)
    factor = torch.ones(6, dtype=torch.float64)
    for number, unknown in enumerate(_UNKNOWNS):
        factor[unknown] = (sharper[number] + shares[number]).clamp(max=_LARGEST)
    return factor


def _sum(first: FourierVolume, second: FourierVolume) -> FourierVolume:
    return FourierVolume(first.values + second.values, first.radius, first.padding)


def _ratio(
    problem: Problem,
    images: WhitenedImages,
    known: ParticlePosterior,
    volumes: tuple[FourierVolume, FourierVolume, FourierVolume],
) -> Tensor:
    """Return sandwich over naive variance of rotation, shift and defocus, (n, 3)."""
    naive, other, both = (
        MapProjector(volume)
        .normal_equations(images, known.mode(), problem.prior)
        .information
        for volume in volumes
    )
    of_prior = problem.prior.information.to(naive)
    believed = naive + of_prior
    free = believed.diagonal(dim1=1, dim2=2) > 0
    eye = torch.diag_embed((~free).double())
    bread = torch.linalg.inv((both - naive - other) / 2 + of_prior + eye)
    inverse = torch.linalg.inv(believed + eye)
    sandwich = bread @ (believed + eye) @ bread
    columns = []
    for unknown in _UNKNOWNS:
        kept = free[:, unknown].double()
        top = (sandwich.diagonal(dim1=1, dim2=2)[:, unknown] * kept).sum(1)
        bottom = (inverse.diagonal(dim1=1, dim2=2)[:, unknown] * kept).sum(1)
        columns.append(torch.where(bottom > 0, top / bottom.clamp(min=1e-300), 1.0))
    return torch.stack(columns, 1)


def _reference_share(
    problem: Problem,
    images: WhitenedImages,
    known: ParticlePosterior,
    references: tuple[FourierVolume, FourierVolume],
) -> Tensor:
    """Return the variance that the reference brings over the naive one, (n, 3)."""
    first, second = (
        refine_locally(
            MapProjector(volume),
            images,
            known.mode(),
            problem.prior,
            _STEPS,
            1 / references[0].radius,
        ).latents
        for volume in references
    )
    difference = departure(first, second)
    variance = known.covariance[:, 0].diagonal(dim1=1, dim2=2)
    columns = []
    for unknown in _UNKNOWNS:
        naive = variance[:, unknown].sum(1)
        brought = difference[:, unknown].square().sum(1) / 2
        columns.append(torch.where(naive > 0, brought / naive.clamp(min=1e-300), 0.0))
    return torch.stack(columns, 1)
