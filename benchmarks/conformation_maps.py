"""Maps of conformations, as they are found and as they are."""

import torch
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.simulate import SimulationConfig
from cryoinfer.data.simulated_structure import SimulatedStructure
from cryoinfer.physics.structures.path import AtomsOnPath
from cryoinfer.reconstruction.kernel_regression import ConformationPosterior
from cryoinfer.results.heterogeneity import Heterogeneity
from cryoinfer.workflows.volumes import kernel_volumes


def true_maps(config: SimulationConfig, frames: Tensor) -> Tensor:
    """Return the densities at frames of a path, also between them, (t, n, n, n)."""
    path = config.path_source()
    assert path is not None
    shown = SimulatedStructure.of(
        config.structure, config.b_factor_angstrom2, path=path
    ).structure
    assert isinstance(shown, AtomsOnPath)
    box, size = config.box, config.pixel_size_angstrom
    return torch.stack([shown.at(one[None]).to_map(box, size) for one in frames])


def central_z(z: Tensor) -> Tensor:
    """Return z of the particle that is nearest to the mean z of some, as CryoBench."""
    return z[(z - z.mean(0)).norm(dim=1).argmin()]


def posterior_of(found: Heterogeneity) -> ConformationPosterior:
    """Return the posterior of z of every particle, at its likeliest pose."""
    return ConformationPosterior(found.z, found.posterior.covariances[:, 0, 6:, 6:])


def exactly(z: Tensor) -> ConformationPosterior:
    """Return the posterior of those who know z (n, q)."""
    covariance = torch.eye(z.shape[1], dtype=torch.float64) * 1e-6
    return ConformationPosterior(z, covariance.expand(len(z), -1, -1))


def by_kernels(particles: Particles, found: Heterogeneity, at: Tensor) -> Tensor:
    """Return maps by kernel regression at z (t, q)."""
    made = kernel_volumes(particles, posterior_of(found), at)
    return torch.stack([one.reconstruction.density for one in made])
