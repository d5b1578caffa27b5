"""The exact posterior of single particles, by summation: what mixtures are judged by.

About every mode lies a grid (:mod:`cryoinfer.inference.quadrature_grid`). The
likelihood at all of its points is cheap, since they are ordered: a slice belongs to
many points, and shifts are one matrix product.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.evaluation.grid_patch import (
    FITTED_REACH,
    REACH,
    GridPatch,
    joined,
    refitted,
)
from cryoinfer.geometry.rotation_volume import (
    LOG_VOLUME_OF_TURNS,
    log_exponential_volume,
)
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import Projector
from cryoinfer.inference.quadrature_grid import (
    Ellipsoid,
    ball,
    departure,
    log_share,
    moved,
)
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents, Pose

_SHIFT, _DEFOCUS, _CONFORMATION = (3, 4), 5, 6

_LEAST_WEIGHT = 1e-3  # of a mode in the mixture
_FITS = 8  # at most; two or three are the rule

_EDGE_SHARE = 0.04
"""Of the mass within a step of the edge, beyond which the lattice is widened. A
Gaussian has 0.7 % there in 5 dimensions, 1.4 % in 6."""

_WIDER = 1.4
_WIDENINGS = 3
_CHUNK = 256  # poses a matrix product


@dataclass(frozen=True)
class GridPosterior:
    """Posteriors of b images as points with masses, m in all.

    Attributes
    ----------
    latents : Latents
        Of length m.
    log_mass : Tensor of float64, shape (m,)
        Those of an image sum to one.
    log_density : Tensor of float64, shape (m,)
        Of the posterior at the points, per volume as in :class:`ParticlePosterior`.
        Mass over density is the volume of the point's cell times its share in it.
    image : Tensor of int64, shape (m,)
        Which image a point belongs to, not falling.
    log_evidence : Tensor of float64, shape (b,)
        Log integral of ``exp(-sum |residual|^2)`` of the whitened image times the
        normalised prior: without the constant of the image.
    free : Tensor of bool, shape (6 + c,)
        Which of rotation (3), shift (2), defocus and conformation were unknown.
    """

    latents: Latents
    log_mass: Tensor
    log_density: Tensor
    image: Tensor
    log_evidence: Tensor
    free: Tensor

    def __len__(self) -> int:
        return len(self.log_evidence)

    def expectation(self, values: Tensor) -> Tensor:
        """Return the mean of values at the points, (m, ...), as shape (b, ...)."""
        mass = self.log_mass.exp().view(-1, *[1] * (values.dim() - 1))
        zero = torch.zeros(len(self), *values.shape[1:], dtype=torch.float64)
        return zero.index_add(0, self.image, mass * values)

    def moments(self, centre: Latents) -> tuple[Tensor, Tensor]:
        """Return mean and covariance of the departure from given latents.

        Parameters
        ----------
        centre : Latents
            Of b images, near the mass: rotations are vectors about it.

        Returns
        -------
        mean : Tensor of float64, shape (b, 6 + c)
            Rotation vector in the image frame in radian, shift, defocus and
            conformation in angstrom.
        covariance : Tensor of float64, shape (b, 6 + c, 6 + c)
        """
        step = departure(self.latents, centre[self.image])
        mean = self.expectation(step)
        apart = step - mean[self.image]
        return mean, self.expectation(apart[:, :, None] * apart[:, None, :])


def kl_divergence(exact: GridPosterior, approximate: ParticlePosterior) -> Tensor:
    """Return the divergence of a mixture from the exact posterior.

    ``KL(exact || approximate)``: nats an image that is coded by the mixture costs more.

    Parameters
    ----------
    exact : GridPosterior
        Of b images.
    approximate : ParticlePosterior
        Of the same images, with the same unknowns.

    Returns
    -------
    Tensor of float64, shape (b,)
        Nats.

    Raises
    ------
    ValueError
        If the mixture is of other images or unknowns.
    """
    free = approximate.covariance.diagonal(dim1=-2, dim2=-1) > 0
    if len(exact) != len(approximate) or bool((free != exact.free).any()):
        raise ValueError(
            f"expected a mixture of {len(exact)} images with the unknowns "
            f"{exact.free.tolist()}, got {len(approximate)} images with "
            f"{free[0, 0].tolist()}: infer both with one prior"
        )
    difference = torch.empty_like(exact.log_density)
    for row in range(len(exact)):
        points = exact.image == row
        log_q = approximate[row : row + 1].log_prob(exact.latents[points][:, None])
        difference[points] = exact.log_density[points] - log_q[:, 0]
    return exact.expectation(difference)


def grid_posterior(
    projector: Projector,
    images: WhitenedImages,
    prior: PosePrior,
    near: ParticlePosterior,
) -> GridPosterior:
    """Sum the posterior of every image over lattices about given modes.

    Parameters
    ----------
    projector : Projector
    images : WhitenedImages
        Of b images, within the projector's radius.
    prior : PosePrior
    near : ParticlePosterior
        Of b images: its modes say where mass may lie, its covariances roughly how
        widely it spreads (within a factor of a few). What lies near no mode is not
        found. An unknown without covariance is held; a held defocus is that of the
        images' CTFs.

    Returns
    -------
    GridPosterior

    Raises
    ------
    ValueError
        If modes differ in what is unknown, or the prior holds what they do not.
    """
    free = _free_unknowns(near, prior)
    dims = [unknown for unknown in _order(len(free)) if free[unknown]]
    parts, evidence = [], []
    for row in range(len(images)):
        particle = _Particle(projector, images.select(torch.tensor([row])), prior, dims)
        modes = _ellipsoids(near[row : row + 1], dims)
        part = joined(particle.integrate(modes))
        total = torch.logsumexp(part.log_mass, 0)
        parts.append(
            replace(
                part,
                log_mass=part.log_mass - total,
                log_density=part.log_density - total,
            )
        )
        evidence.append(total)
    counts = torch.tensor([len(part.log_mass) for part in parts])
    whole = joined(parts)
    return GridPosterior(
        whole.latents,
        whole.log_mass,
        whole.log_density,
        torch.arange(len(images)).repeat_interleave(counts),
        torch.stack(evidence),
        free,
    )


def _order(unknowns: int) -> tuple[int, ...]:
    """Return rotation, conformation, defocus, shift.

    What is projected and blurred comes before the shift, which takes but a product.
    """
    return (0, 1, 2, *range(_CONFORMATION, unknowns), _DEFOCUS, *_SHIFT)


def _free_unknowns(near: ParticlePosterior, prior: PosePrior) -> Tensor:
    free = near.covariance.diagonal(dim1=-2, dim2=-1) > 0
    first = free[0, 0]
    if bool((free != first).any()):
        raise ValueError("expected modes of one set of unknowns, got several")
    if bool((first & (prior.precision < 0)).any()):
        raise ValueError(
            f"the modes have unknowns {first.tolist()} of which {prior} holds some: "
            "infer the modes with the same prior"
        )
    return first


def _ellipsoids(near: ParticlePosterior, dims: list[int]) -> list[Ellipsoid]:
    """Return those of one image's modes, without repeats and the negligible."""
    covariance = near.covariance[0][:, dims][:, :, dims]
    roots = torch.linalg.cholesky(covariance)
    weight = near.weight[0]
    kept: list[Ellipsoid] = []
    for mode in weight.argsort(descending=True).tolist():
        centre = near.modes[0, mode]
        if kept and float(weight[mode]) < _LEAST_WEIGHT:
            break
        # Two refinements to one mode end within a standard deviation of each other.
        if all(float(one.squared_distance(centre)) > 1.0 for one in kept):
            kept.append(Ellipsoid(centre, roots[mode], dims))
    return kept


@dataclass(frozen=True)
class _Particle:
    """One image, and what is unknown about it."""

    projector: Projector
    image: WhitenedImages
    prior: PosePrior
    dims: list[int]

    def integrate(self, modes: list[Ellipsoid]) -> list[GridPatch]:
        """Fit the lattices to the posterior, then sum over them in full."""
        for _ in range(_FITS):
            sheets = self._sheets(modes, FITTED_REACH)
            modes, settled = refitted(modes, sheets)
            if settled:
                break
        sheets = self._sheets(modes, REACH)
        for _ in range(_WIDENINGS):
            edge = torch.stack([sheet.edge_log_mass() for sheet in sheets])
            total = torch.logsumexp(joined(sheets).log_mass, 0)
            if float((torch.logsumexp(edge, 0) - total).exp()) < _EDGE_SHARE:
                break
            modes = [replace(mode, root=mode.root * _WIDER) for mode in modes]
            sheets = self._sheets(modes, REACH)
        return sheets

    def _sheets(self, modes: list[Ellipsoid], reach: float) -> list[GridPatch]:
        return [self._sheet(modes, own, reach) for own in range(len(modes))]

    def _sheet(self, modes: list[Ellipsoid], own: int, reach: float) -> GridPatch:
        """Return the posterior on the lattice of one of the modes."""
        mode = modes[own]
        shifts = sum(unknown in _SHIFT for unknown in self.dims)
        head = ball(len(self.dims) - shifts, reach)
        tail = ball(shifts, reach)
        ahead = mode.step(torch.cat([head, head.new_zeros(len(head), shifts)], 1))
        behind = mode.step(
            torch.cat([tail.new_zeros(len(tail), head.shape[1]), tail], 1)
        )
        inside = head.square().sum(-1)[:, None] + tail.square().sum(-1) <= reach**2
        angle = ahead[:, :3].norm(dim=1)
        # Beyond half a turn a rotation would be counted twice.
        inside &= angle[:, None] < math.pi
        row, column = torch.nonzero(inside, as_tuple=True)
        at, behind = moved(mode.centre, ahead), behind[:, 3:5]
        pose = Pose(at.pose.rotation[row], at.pose.shift_angstrom[row] + behind[column])
        latents = replace(at[row], pose=pose)
        likelihood = self._log_likelihood(at, head, behind)[row, column]
        density = likelihood + self._log_prior(latents)
        log_volume = likelihood.new_zeros(())
        if 0 in self.dims:
            log_volume = log_exponential_volume(angle)[row]
        cell = mode.root.diagonal().log().sum() + log_volume
        share = log_share(modes, own, latents)
        points = torch.cat([head[row], tail[column]], 1)
        return GridPatch(points, latents, density + cell + share, density)

    def _log_likelihood(self, at: Latents, head: Tensor, behind: Tensor) -> Tensor:
        """Return it at h latents, moved by t shifts more, shape (h, t)."""
        image = self.image
        unit = replace(image, coefficients=torch.ones_like(image.coefficients))
        phases = unit.moved_back(behind[:, None])[:, 0].conj_physical()
        phases = torch.view_as_real(phases).flatten(1).T
        power = float(image.coefficients.abs().square().sum(dtype=torch.float64))
        values = []
        for rows in torch.arange(len(head)).split(_CHUNK):
            model = self._model(at[rows], head[rows])
            back = image.moved_back(at.pose.shift_angstrom[rows][:, None])[:, 0]
            product = torch.view_as_real(back.mul_(model.conj())).flatten(1)
            own = torch.view_as_real(model).flatten(1).square().sum(1)
            values.append(2 * (product @ phases).double() - own.double()[:, None])
        return torch.cat(values) - power

    def _model(self, at: Latents, head: Tensor) -> Tensor:
        """Return the whitened images without their shifts, shape (r, p)."""
        image = self.image
        shown = sum(unknown not in (_DEFOCUS, *_SHIFT) for unknown in self.dims)
        if shown:
            # Points that differ in defocus alone share their slice.
            _, which = head[:, :shown].unique_consecutive(dim=0, return_inverse=True)
        else:
            which = torch.zeros(len(at), dtype=torch.int64)
        first = torch.searchsorted(which, torch.arange(int(which[-1]) + 1))
        slices = self.projector.coefficients(at[first], image)[which]
        if _DEFOCUS not in self.dims:
            return slices.mul_(image.ctf)
        repeated = image.select(torch.zeros(len(at), dtype=torch.int64))
        defocused, _ = repeated.with_defocus_offset(at.defocus_offset_angstrom)
        return slices.mul_(defocused.ctf)

    def _log_prior(self, latents: Latents) -> Tensor:
        """Return the normalised log prior of the unknowns, shape (m,)."""
        turns = sum(unknown < 3 for unknown in self.dims)
        log_prior = -LOG_VOLUME_OF_TURNS[turns]
        values, sd = latents.offsets_angstrom, self.prior.unknowns_sd_angstrom
        free = [unknown - 3 for unknown in self.dims if unknown >= 3]
        scaled = values[:, free] / sd[free]
        constant = (sd[free] * math.sqrt(2 * math.pi)).log().sum()
        return log_prior - constant - 0.5 * scaled.square().sum(-1)
