"""From nothing to modes: exhaustive grid, nested grids, local refinement.

The exhaustive scores at a low radius tell which cells matter; their children, of half
the width, are scored at a somewhat higher radius, and the children of the best of these
higher again; the best are refined locally at the radius of the search. The radius of a
grid follows from its width: where a cell is wider than what it resolves, the right one
scores no better than a wrong one. What comes back is a mixture of Laplace modes for
every particle.
"""

from collections.abc import Callable, Sequence
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

_CHILDREN = 8  # of a cell

_NESTED = ((4 / 3, _CHILDREN), (1.8, 1))
"""Radii of the first and second nested grid, over that of the exhaustive grid, and how
many children of a cell are kept: of the last, one, for its siblings would be refined to
the same mode."""

_FEWEST_CELLS = 6
_MARGIN_NATS = 20.0
"""Cells that are divided: the fewest of an image, and all whose scores are this close
to the best. For 99 % that of the true pose lies within 12 to 19 nats (set F, adenylate
kinase, apoferritin), or 26 (IgG), where it is among the eight best
(docs/development/measured-by-hand.md, section 35)."""

_NESTED_SHARE = 4
"""Most cells of the exhaustive grid that are divided, over most of the nested grid."""

_BLOCK = 64
"""Images that are divided together: those with as many cells."""

Score = Callable[[WhitenedImages, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Scores n images at rotations (n, m, 3, 3) by shifts (n, s, 2).

Returns the best score over shifts, and at which it is, both of shape (n, m).
"""


@dataclass(frozen=True)
class Subdivision:
    """Cells of a grid and what becomes of them.

    Attributes
    ----------
    cells : int
        Most that are divided of an image.
    radius : int
        At which the children are scored.
    cell_radian, shift_step_angstrom : float
        Widths of the cells that are divided.
    of_cell : int
        Children of a cell that are kept, of eight.
    """

    cells: int
    radius: int
    cell_radian: float
    shift_step_angstrom: float
    of_cell: int


@dataclass(frozen=True)
class SearchPlan:
    """How far a global search goes.

    Attributes
    ----------
    coarse_radius : int
        Of the exhaustive grid, in Fourier pixels.
    radius : int
        Of local refinement; nested grids go no further.
    cells : int
        Most cells of the exhaustive grid that are divided.
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

    @property
    def subdivisions(self) -> tuple[Subdivision, ...]:
        """The nested grids, from the widest cells to the narrowest."""
        return tuple(
            Subdivision(
                max(min(self.cells, _FEWEST_CELLS), self.cells // _NESTED_SHARE**depth),
                min(self.radius, round(growth * self.coarse_radius)),
                self.cell_radian / 2**depth,
                self.shift_step_angstrom / 2**depth,
                of_cell,
            )
            for depth, (growth, of_cell) in enumerate(_NESTED)
        )

    @property
    def finest_cell_radian(self) -> float:
        """Width of a cell of the last nested grid."""
        return self.cell_radian / 2 ** len(_NESTED)


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

    def select(self, rows: Tensor) -> "Candidates":
        """Return the candidates of some images."""
        return Candidates(
            self.rotation[rows], self.shift_angstrom[rows], self.log_likelihood[rows]
        )

    @classmethod
    def of_images(cls, parts: Sequence["Candidates"]) -> "Candidates":
        """Return the candidates of the images of all parts."""
        return cls(
            torch.cat([one.rotation for one in parts]),
            torch.cat([one.shift_angstrom for one in parts]),
            torch.cat([one.log_likelihood for one in parts]),
        )

    def best(self, count: int) -> "Candidates":
        """Return the ``count`` most likely of each image, best first."""
        value, order = self.log_likelihood.topk(min(count, self.rotation.shape[1]))
        return self._chosen(order, value)

    def best_of_each(self, size: int, count: int) -> "Candidates":
        """Return the ``count`` most likely of every ``size`` that follow each other."""
        value, order = self.log_likelihood.unflatten(1, (-1, size)).topk(count, 2)
        first = torch.arange(0, self.rotation.shape[1], size, device=order.device)
        return self._chosen((order + first[:, None]).flatten(1), value.flatten(1))

    def _chosen(self, order: Tensor, value: Tensor) -> "Candidates":
        """Return those at ``order`` (n, k) of each image, of the scores ``value``."""
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


def nested_search(
    score: Score, images: WhitenedImages, cells: Candidates, plan: SearchPlan
) -> Candidates:
    """Divide the likeliest cells again and again.

    Parameters
    ----------
    score : callable
    images : WhitenedImages
        Of n images, within ``plan.radius``.
    cells : Candidates
        Of the exhaustive grid, best first.
    plan : SearchPlan

    Returns
    -------
    Candidates
        Of n images, ``plan.modes`` each, of the last nested grid.
    """
    for level in plan.subdivisions:
        cells = divided(score, images.prefix(level.radius), cells, level)
    return cells.best(plan.modes)


def divided(
    score: Score, images: WhitenedImages, cells: Candidates, level: Subdivision
) -> Candidates:
    """Divide the cells that may hold the pose into their children, and score those.

    Of an image these are all whose score is close to the best, but for a fewest and a
    most: few of a clear image, many of one that tells little. How many does not depend
    on the images beside it.

    Parameters
    ----------
    score : callable
    images : WhitenedImages
        Of n images, within ``level.radius``.
    cells : Candidates
        Best first.
    level : Subdivision

    Returns
    -------
    Candidates
        The best children, best first, as many of every image.
    """
    most = min(level.cells, cells.rotation.shape[1])
    fewest = min(_FEWEST_CELLS, most)
    near = cells.log_likelihood >= cells.log_likelihood[:, :1] - _MARGIN_NATS
    count = near.sum(1).clamp(fewest, most)
    order, kept = count.argsort(stable=True), fewest * level.of_cell
    parts = []
    for rows in order.split(_BLOCK):
        parents = cells.select(rows).best(int(count[rows[-1]]))
        rotation, shift = children_of(parents, level)
        value, move = score(images.select(rows), rotation, shift)
        parent = torch.arange(value.shape[1], device=value.device) // _CHILDREN
        value = value.masked_fill(parent >= count[rows, None], -torch.inf)
        children = Candidates.at_shifts(rotation, shift, value, move)
        parts.append(children.best_of_each(_CHILDREN, level.of_cell).best(kept))
    return Candidates.of_images(parts).select(order.argsort())


def children_of(cells: Candidates, level: Subdivision) -> tuple[Tensor, Tensor]:
    """Return the children of cells, and the shifts that all of an image are tried at.

    Returns
    -------
    rotation : Tensor of float64, shape (n, 8 m, 3, 3)
    shift : Tensor of float64, shape (n, s, 2)
        The best cell's, and half a step around it.
    """
    rotation = children(cells.rotation, level.cell_radian).flatten(1, 2)
    step = level.shift_step_angstrom
    around = shift_grid(step / 2, step / 2) if step > 0 else torch.zeros(1, 2)
    return rotation, cells.shift_angstrom[:, :1] + around.to(cells.shift_angstrom)


def pose_score(projector: MapProjector) -> Score:
    """Return the score of poses of a map: their log-likelihood."""

    def score(
        images: WhitenedImages, rotation: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        value, move = projector.scores(images, rotation, shift).max(2)
        return value, move

    return score


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
    longest = plan.finest_cell_radian
    return refine_locally(projector, each, begin, prior, plan.steps, longest)


def global_search(
    projector: MapProjector,
    slices: GridSlices,
    images: WhitenedImages,
    known: Pose | None,
    prior: PosePrior,
    plan: SearchPlan,
) -> ParticlePosterior:
    """Search all poses: the grid, nested grids of its best cells, local refinement.

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
    starts = nested_search(pose_score(projector), images, cells, plan)
    if known is not None:
        # Its score does not matter: all candidates are refined.
        score = torch.zeros(len(known), 1, device=images.device)
        here = Candidates(known.rotation[:, None], known.shift_angstrom[:, None], score)
        starts = starts.joined(here)
    found = refine_candidates(projector, images, starts, prior, plan)
    count = starts.rotation.shape[1]
    return ranked_posterior(found, count, prior, plan.cell_radian / 4, plan.symmetry)
