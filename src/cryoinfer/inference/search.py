"""From nothing to modes: exhaustive grid, nested grids, local refinement.

The exhaustive posterior at a low radius tells which cells matter; their children are
likelihood at a higher radius with shifts of their own; the best of those are refined
locally. What comes back is a mixture of Laplace modes for every particle.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.geometry.so3_grid import children
from cryoinfer.inference.coarse import GridSlices, shift_grid
from cryoinfer.inference.local_refinement import refine_locally
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.mode_ranking import ranked_posterior
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents, Pose

_MEMORY_ELEMENTS = 2**21
"""Log-likelihoods held at a time: 8 MB stay in the cache."""


@dataclass(frozen=True)
class SearchPlan:
    """How far a global search goes.

    Attributes
    ----------
    coarse_radius : int
        Of the exhaustive grid, in Fourier pixels.
    radius : int
        Of the nested grid and of local refinement.
    cells : int
        Cells of the exhaustive grid that are kept.
    modes : int
        Modes that are refined and returned.
    steps : int
        Of local refinement.
    cell_radian, shift_step_angstrom : float
        Widths of a cell of the exhaustive grid.
    symmetry : Tensor, shape (s, 3, 3)
        Rotations that leave the map as it is, the identity among them: of all mates
        of a mode one counts, and the grid need hold no other.
    """

    coarse_radius: int
    radius: int
    cells: int
    modes: int
    steps: int
    cell_radian: float
    shift_step_angstrom: float
    symmetry: Tensor


@dataclass(frozen=True)
class Candidates:
    """Poses of n images, m each, with their log-likelihood.

    Attributes
    ----------
    rotation : Tensor of float64, shape (n, m, 3, 3)
    shift_angstrom : Tensor of float64, shape (n, m, 2)
    log_likelihood : Tensor, shape (n, m)
    """

    rotation: Tensor
    shift_angstrom: Tensor
    log_likelihood: Tensor

    @classmethod
    def at_shifts(
        cls, rotation: Tensor, shift: Tensor, value: Tensor, move: Tensor
    ) -> "Candidates":
        """Return rotations (n, m, 3, 3), each at one of the shifts (n, s, 2).

        ``move`` (n, m) says at which, ``value`` (n, m) how likely that is.
        """
        rows = torch.arange(len(move), device=move.device)[:, None]
        return cls(rotation, shift[rows, move], value)

    def alone(self, images: WhitenedImages) -> tuple[WhitenedImages, Latents]:
        """Return n m images and latents, those of an image together."""
        n, m = self.rotation.shape[:2]
        image = torch.arange(n, device=images.device).repeat_interleave(m)
        pose = Pose(self.rotation.flatten(0, 1), self.shift_angstrom.flatten(0, 1))
        zero = torch.zeros(n * m, device=images.device)
        return images.select(image), Latents.rigid(pose, zero)

    def best(self, count: int) -> "Candidates":
        """Return the ``count`` most likely of each image, best first."""
        value, order = self.log_likelihood.topk(min(count, self.rotation.shape[1]))
        rows = torch.arange(len(order), device=order.device)[:, None]
        return Candidates(
            self.rotation[rows, order], self.shift_angstrom[rows, order], value
        )

    def joined(self, other: "Candidates") -> "Candidates":
        """Return the candidates of both."""
        return Candidates(
            torch.cat([self.rotation, other.rotation], 1),
            torch.cat([self.shift_angstrom, other.shift_angstrom], 1),
            torch.cat([self.log_likelihood, other.log_likelihood], 1),
        )


def exhaustive_cells(
    slices: GridSlices, images: WhitenedImages, count: int
) -> Candidates:
    """Score the whole grid and keep the best rotations, each at its best shift.

    Parameters
    ----------
    slices : GridSlices
        Of the disc of ``images``.
    images : WhitenedImages
        Of b images.
    count : int

    Returns
    -------
    Candidates
        Of b images, ``count`` each.
    """
    grid = slices.grid
    per_image = len(grid.rotation) * len(grid.shift_angstrom)
    size = max(1, _MEMORY_ELEMENTS // per_image)
    rotations, shifts, values = [], [], []
    for rows in torch.arange(len(images), device=images.device).split(size):
        likelihood = slices.log_likelihood(images.select(rows))
        # Where the maximum lies is asked of the best cells alone: of all it would
        # take as long as the product.
        best, cell = likelihood.amax(0).topk(count, 1)
        shift = likelihood.gather(2, cell.expand(len(likelihood), -1, -1)).argmax(0)
        rotations.append(grid.rotation[cell])
        shifts.append(grid.shift_angstrom[shift].double())
        values.append(best)
    return Candidates(torch.cat(rotations), torch.cat(shifts), torch.cat(values))


def nested_cells(
    projector: MapProjector,
    images: WhitenedImages,
    cells: Candidates,
    plan: SearchPlan,
) -> Candidates:
    """Divide cells into their children and score those at the plan's radius.

    Every child is tried at the six neighbours of the best cell's shift, half a step
    away, as well.

    Parameters
    ----------
    projector : MapProjector
    images : WhitenedImages
        Within ``plan.radius``.
    cells : Candidates
    plan : SearchPlan

    Returns
    -------
    Candidates
        Eight for every cell.
    """
    rotation, shift = children_of(cells, plan)
    value, move = projector.scores(images, rotation, shift).max(2)
    return Candidates.at_shifts(rotation, shift, value, move)


def children_of(cells: Candidates, plan: SearchPlan) -> tuple[Tensor, Tensor]:
    """Return the children of cells, and the shifts that all of an image are tried at.

    Returns
    -------
    rotation : Tensor of float64, shape (n, 8 m, 3, 3)
    shift : Tensor of float64, shape (n, s, 2)
        The best cell's, and half a step around it.
    """
    rotation = children(cells.rotation, plan.cell_radian).flatten(1, 2)
    step = plan.shift_step_angstrom
    around = shift_grid(step / 2, step / 2) if step > 0 else torch.zeros(1, 2)
    return rotation, cells.shift_angstrom[:, :1] + around.to(cells.shift_angstrom)


def refine_candidates(
    projector: MapProjector,
    images: WhitenedImages,
    start: Candidates,
    prior: PosePrior,
    plan: SearchPlan,
) -> PosteriorModes:
    """Refine every candidate locally.

    Parameters
    ----------
    projector : MapProjector
    images : WhitenedImages
        Of n images, within ``plan.radius``.
    start : Candidates
        Of n images, m each.
    prior : PosePrior
    plan : SearchPlan

    Returns
    -------
    PosteriorModes
        Of length n times m, those of an image together.
    """
    each, begin = start.alone(images)
    longest = plan.cell_radian / 2
    return refine_locally(projector, each, begin, prior, plan.steps, longest)


def global_search(
    projector: MapProjector,
    slices: GridSlices,
    images: WhitenedImages,
    known: Pose | None,
    prior: PosePrior,
    plan: SearchPlan,
) -> ParticlePosterior:
    """Search all poses: the grid, the children of its best cells, local refinement.

    Parameters
    ----------
    projector : MapProjector
    slices : GridSlices
        Of the map, over the disc of ``plan.coarse_radius``.
    images : WhitenedImages
        Of n images, within ``plan.radius``.
    known : Pose, optional
        Of n images: one more candidate each.
    prior : PosePrior
    plan : SearchPlan

    Returns
    -------
    ParticlePosterior
        A mode that was refined to the same place as a better one, or to a mate of it,
        has no weight.
    """
    cells = exhaustive_cells(slices, images.prefix(plan.coarse_radius), plan.cells)
    starts = nested_cells(projector, images, cells, plan).best(plan.modes)
    if known is not None:
        # Its score does not matter: all candidates are refined.
        score = torch.zeros(len(known), 1, device=images.device)
        here = Candidates(known.rotation[:, None], known.shift_angstrom[:, None], score)
        starts = starts.joined(here)
    found = refine_candidates(projector, images, starts, prior, plan)
    count = starts.rotation.shape[1]
    return ranked_posterior(found, count, prior, plan.cell_radian / 4, plan.symmetry)
