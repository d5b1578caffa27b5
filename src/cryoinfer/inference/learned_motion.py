"""A structure at rest, and the ways it moves, learned from images.

A particle shows ``x + sum_k z_k d_k``: the model at rest, and amplitudes along its
modes. Model and modes may be wrong by fields of displacements, one for x and one for
every d, each a sum of the softest modes of an elastic network, with thermal spreads as
their prior: the energy of the network regularises. What an image tells about its own
field ``u_0 + sum_k z_k u_k`` is linear in the fields, so that all images together are
one system of normal equations. Rotation, shift, defocus and amplitudes of every
particle are eliminated from them (Schur's complement, as in bundle adjustment): a field
that they could make up for is not learned.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.records import Latents

_AT_ONCE = 64
_CENTRAL_SHARE = 0.05  # of the particles, that are in the middle of all
_ROUNDS = 12  # of the search for the factors of the priors
_LEAST_FACTOR, _MOST_FACTOR = 1.0, 1e8  # of a prior's precision


@dataclass(frozen=True)
class Fields:
    """Displacements that are to be found.

    Attributes
    ----------
    beads : MovingAtoms
        The model along its k modes.
    basis : Tensor, shape (m, b, 3)
        Displacements of the beads, in angstrom.
    of_nodes : Tensor of float64, shape (m, n, 3)
        The same displacements of the nodes.
    sd : Tensor of float64, shape (m,)
        Of each one's share in the error of the model at rest.
    """

    beads: MovingAtoms
    basis: Tensor
    of_nodes: Tensor
    sd: Tensor

    @property
    def joined(self) -> MovingAtoms:
        """The beads along modes and basis."""
        direction = torch.cat(
            [self.beads.direction, self.basis.to(self.beads.direction)]
        )
        return replace(self.beads, direction=direction)


class FieldEquations:
    """Normal equations of the fields, summed over images.

    Parameters
    ----------
    fields : Fields
    projector : MovingProjector
        Whose units the images are in.
    prior : PosePrior
        Of the particles.
    """

    def __init__(
        self, fields: Fields, projector: MovingProjector, prior: PosePrior
    ) -> None:
        self._fields, self._prior = fields, prior
        whole = fields.joined
        # At any radius: the fields are as smooth as the beads.
        self._projector = replace(projector, moving=whole, coarse=whole)
        self._own = 6 + len(prior.conformation_sd_angstrom)
        self._wide = replace(
            prior,
            conformation_sd_angstrom=(
                *prior.conformation_sd_angstrom,
                *([1.0] * len(fields.sd)),
            ),
        )
        k, m = self._own - 5, len(fields.sd)  # with the model at rest
        self._matrix = torch.zeros(k * k, m * m, dtype=torch.float64)
        self._right = torch.zeros(k, m, dtype=torch.float64)
        self._eliminated: list[tuple[Tensor, Tensor, Tensor]] = []

    @property
    def tensors(self) -> tuple[Tensor, Tensor]:
        """The sums, which add up over processes."""
        return self._matrix, self._right

    def add(self, images: WhitenedImages, at: Latents) -> None:
        """Add what images tell, at the best latents of their particles."""
        for rows in torch.arange(len(at)).split(_AT_ONCE):
            self._add(images.select(rows), at[rows])

    def _add(self, images: WhitenedImages, at: Latents) -> None:
        n, m, own = len(at), len(self._fields.sd), self._own
        none = at.conformation.new_zeros(n, m)
        wide = replace(at, conformation=torch.cat([at.conformation, none], 1))
        found = self._projector.normal_equations(images, wide, self._wide)
        slope, information = found.gradient, found.information
        uphill = slope[:, :own] + self._prior.gradient(at)
        matrix = information[:, :own, :own] + self._prior.information
        held = matrix.diagonal(dim1=1, dim2=2) <= 0
        matrix = matrix + torch.diag_embed(held.double())
        across = information[:, :own, own:]
        solved = torch.linalg.solve(matrix, torch.cat([across, uphill[..., None]], 2))
        marginal = information[:, own:, own:] - across.mT @ solved[..., :m]
        right = slope[:, own:] - (across.mT @ solved[..., m:])[..., 0]
        amplitude = torch.cat([at.conformation.new_ones(n, 1), at.conformation], 1)
        pairs = (amplitude[:, :, None] * amplitude[:, None]).flatten(1)
        self._matrix += pairs.mT @ marginal.flatten(1)
        self._right += amplitude.mT @ right
        self._eliminated.append((amplitude, solved[..., :m], solved[..., m]))

    def solved(self) -> Tensor:
        """Return the shares of the basis in each field, float64, shape (1 + k, m).

        Of the model at rest, then of the modes. How wrong each may be is found with
        them, as the factor of its prior that makes the images likeliest (MacKay,
        Neural Comput. 4, 415, 1992): a field that images say nothing about stays zero.
        """
        k, m = self._right.shape
        matrix = self._matrix.view(k, k, m, m).permute(0, 2, 1, 3).reshape(k * m, -1)
        amplitude_sd = self._prior.unknowns_sd_angstrom[3:]
        spread = torch.cat([amplitude_sd.new_ones(1), amplitude_sd])
        # At first, an amplitude of its sd moves by as much more as rest may be wrong.
        precision = (spread[:, None] / self._fields.sd).square()
        factor = torch.ones(k, 1, dtype=torch.float64)
        for _ in range(_ROUNDS):
            whole = matrix + torch.diag((factor * precision).flatten())
            root = torch.linalg.cholesky(whole)
            share = torch.cholesky_solve(self._right.reshape(-1, 1), root).view(k, m)
            variance = torch.cholesky_inverse(root).diagonal().view(k, m)
            # Of so many numbers the images determine these.
            told = m - (factor * precision * variance).sum(1, keepdim=True)
            size = (precision * share.square()).sum(1, keepdim=True)
            factor = (told / size).clamp(_LEAST_FACTOR, _MOST_FACTOR)
        return share

    def steps(self, share: Tensor) -> Tensor:
        """Return how far the particles' own unknowns move with the fields.

        Parameters
        ----------
        share : Tensor of float64, shape (1 + k, m)
            As :meth:`solved` returns it.

        Returns
        -------
        Tensor of float64, shape (p, 6 + k)
            Of the particles in the order in which they were added.
        """
        found = []
        for amplitude, across, alone in self._eliminated:
            own = amplitude @ share
            found.append(alone - (across @ own[..., None])[..., 0])
        return torch.cat(found)


@dataclass(frozen=True)
class Motion:
    """A model at rest and its modes, and where particles are along them.

    Attributes
    ----------
    rest : Tensor of float64, shape (n, 3)
        Of the nodes, in angstrom.
    direction : Tensor of float64, shape (k, n, 3)
        Of unit length over the nodes, orthogonal; the widest motion first.
    amplitude : Tensor of float64, shape (p, k)
        Root mean square displacement of the nodes in angstrom.
    sd_angstrom : Tensor of float64, shape (k,)
        Root mean square of the amplitudes.
    """

    rest: Tensor
    direction: Tensor
    amplitude: Tensor
    sd_angstrom: Tensor


def principal_motion(rest: Tensor, displacement: Tensor, amplitude: Tensor) -> Motion:
    """Return the same places of all particles, from their middle and principal axes.

    The middle is one that particles are at: the mean over a domain's turn is a domain
    that has shrunk.

    Parameters
    ----------
    rest : Tensor of float64, shape (n, 3)
    displacement : Tensor of float64, shape (k, n, 3)
        For an amplitude of one; no orthogonality is asked for.
    amplitude : Tensor of float64, shape (p, k)
        Of the particles.
    """
    k, n = displacement.shape[:2]
    axes, turned = torch.linalg.qr(displacement.flatten(1).mT)
    whole = amplitude @ turned.mT / n**0.5
    middle = _middle(whole)
    moved = rest + (n**0.5 * axes @ middle).view(n, 3)
    coordinate = whole - middle
    variance = coordinate.mT @ coordinate / len(coordinate)
    values, vectors = torch.linalg.eigh(variance)
    order = values.argsort(descending=True)
    vectors = vectors[:, order]
    direction = (axes @ vectors).mT.reshape(k, n, 3)
    # A sign that does not depend on the machine.
    largest = direction.flatten(1).abs().argmax(1)
    sign = direction.flatten(1)[torch.arange(k), largest].sign()
    return Motion(
        moved,
        direction * sign[:, None, None],
        coordinate @ vectors * sign,
        values[order].clamp(min=0).sqrt(),
    )


def _middle(points: Tensor) -> Tensor:
    """Return the mean (k,) of those points (p, k) that are nearest to all others."""
    distance = torch.cdist(points, points).mean(1)
    central = distance.argsort()[: max(1, round(_CENTRAL_SHARE * len(points)))]
    return points[central].mean(0)
