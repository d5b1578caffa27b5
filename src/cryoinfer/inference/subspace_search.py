"""Search of all poses in a linear subspace of maps, as an inference.

As the search with one map, an exhaustive grid, nested grids and local refinement, but
that every pose is scored by its evidence: the conformation is integrated out in closed
form, whichever it may be.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import extract_slices
from cryoinfer.geometry.so3_grid import asymmetric_unit
from cryoinfer.inference.coarse import GRID_ORDER, PoseGrid, shift_grid
from cryoinfer.inference.linear_conformation import conformation_at
from cryoinfer.inference.local_refinement import refine_locally
from cryoinfer.inference.mode_ranking import ranked_posterior
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.search import (
    Candidates,
    Score,
    SearchPlan,
    nested_search,
)
from cryoinfer.inference.subspace_projector import SubspaceProjector
from cryoinfer.inference.subspace_scores import (
    SliceProducts,
    StackedVolumes,
    marginal_scores,
    pairs_of,
    slice_products,
)
from cryoinfer.inference.whitening import WhitenedImages

_MEMORY_ELEMENTS = 2**23
"""Products held at a time, 32 MB: with fewer, slices of all pairs are read oftener."""


@dataclass(frozen=True)
class SubspaceGridSlices:
    """The slices of a subspace at every rotation of a grid, ready for products.

    Attributes
    ----------
    grid : PoseGrid
    values : Tensor of float32, shape ((1 + q) g, 2 p)
        Real and imaginary parts interleaved, the mean's first.
    power : Tensor of float32, shape (pairs g, p)
        Of each pair of maps (:func:`pairs_of`), the real part of the product.
    maps : int
        1 + q.
    """

    grid: PoseGrid
    values: Tensor
    power: Tensor
    maps: int

    @classmethod
    def of(
        cls, volumes: StackedVolumes, grid: PoseGrid, disc: FourierDisc, scale: float
    ) -> "SubspaceGridSlices":
        """Slice all volumes at the whole grid."""
        slices = torch.stack(
            [extract_slices(one, grid.rotation, disc, scale) for one in volumes.each]
        )
        first, second = pairs_of(len(slices))
        # Not the view of complex numbers, which each product would copy again.
        power = (slices[first] * slices[second].conj()).real.contiguous()
        values = torch.view_as_real(slices).flatten(2)
        return cls(grid, values.flatten(0, 1), power.flatten(0, 1), len(slices))

    def products(self, images: WhitenedImages) -> SliceProducts:
        """Return the products with some images, at all rotations and shifts."""
        moved = images.moved_back(self.grid.shift_angstrom[:, None]) * images.ctf
        seen = torch.view_as_real(moved).flatten(-2).flatten(0, 1) @ self.values.T
        shown = images.ctf.square() @ self.power.T
        g = len(self.grid.rotation)
        return SliceProducts(
            seen.view(-1, len(images), self.maps, g), shown.view(len(images), -1, g)
        )


@dataclass(frozen=True)
class _Sliced:
    """Slices of a subspace, and the kind of images that they are compared with."""

    projector: SubspaceProjector
    box: int
    scale: float
    volumes: StackedVolumes
    slices: SubspaceGridSlices


class SubspaceSearch:
    """Searches all poses in a linear subspace of maps.

    A :class:`cryoinfer.inference.pose_inference.PoseInference`. The slices of the last
    subspace and kind of images are kept.

    Parameters
    ----------
    plan : SearchPlan
    max_shift_angstrom : float
        Largest shift of the exhaustive grid.
    """

    def __init__(self, plan: SearchPlan, max_shift_angstrom: float) -> None:
        self._plan, self._max_shift_angstrom = plan, max_shift_angstrom
        self._kept: _Sliced | None = None

    def infer(
        self,
        images: WhitenedImages,
        projector: SubspaceProjector,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return the posteriors of images that were whitened to the plan's radius.

        Parameters
        ----------
        images : WhitenedImages
            Of n particles, to the plan's radius or farther.
        projector : SubspaceProjector
        prior : PosePrior
        start : ParticlePosterior or None
            Is not looked at.

        Returns
        -------
        ParticlePosterior
            Modes of pose and z that were refined together. One that came to the same
            pose as a better one has no weight.
        """
        plan = self._plan
        # Images of so low a radius tell nothing about defoci.
        prior = replace(prior, defocus_sd_angstrom=0.0)
        kept = self._sliced(projector, images)
        images = images.prefix(plan.radius)
        sd = prior.unknowns_sd_angstrom[3:]
        coarse = images.prefix(plan.coarse_radius)
        cells = exhaustive_evidence(kept.slices, coarse, sd, plan.cells)
        score = evidence_score(kept.volumes, sd)
        starts = nested_search(score, images, cells, plan)
        found = _refined(projector, images, starts, prior, plan)
        count = starts.rotation.shape[1]
        return ranked_posterior(
            found, count, prior, plan.cell_radian / 4, plan.symmetry
        )

    def _sliced(self, projector: SubspaceProjector, images: WhitenedImages) -> _Sliced:
        kept, box, scale = self._kept, images.disc.box, images.scale
        if (
            kept is None
            or kept.projector is not projector
            or (kept.box, kept.scale) != (box, scale)
        ):
            plan, mean = self._plan, projector.mean
            values = [mean.values, *(one.values for one in projector.components)]
            volumes = StackedVolumes(mean, torch.stack(values))
            shifts = shift_grid(self._max_shift_angstrom, plan.shift_step_angstrom)
            rotation = asymmetric_unit(GRID_ORDER, plan.symmetry.cpu())
            grid = PoseGrid(rotation, shifts).to(mean.device)
            disc = images.prefix(plan.coarse_radius).disc
            slices = SubspaceGridSlices.of(volumes, grid, disc, scale)
            self._kept = kept = _Sliced(projector, box, scale, volumes, slices)
        return kept


def exhaustive_evidence(
    slices: SubspaceGridSlices, images: WhitenedImages, sd: Tensor, count: int
) -> Candidates:
    """Score the whole grid and keep the best rotations, each at its best shift.

    Parameters
    ----------
    slices : SubspaceGridSlices
        Of the disc of ``images``.
    images : WhitenedImages
        Of n images.
    sd : Tensor, shape (q,)
        Of the prior of z.
    count : int

    Returns
    -------
    Candidates
        Of n images, ``count`` each.
    """
    grid = slices.grid
    per_image = len(grid.rotation) * len(grid.shift_angstrom) * slices.maps
    size = max(1, _MEMORY_ELEMENTS // per_image)
    rotations, shifts, values = [], [], []
    for rows in torch.arange(len(images), device=images.device).split(size):
        products = slices.products(images.select(rows))
        evidence, shift = marginal_scores(products, sd)
        best, cell = evidence.topk(count, 1)
        rotations.append(grid.rotation[cell])
        shifts.append(grid.shift_angstrom[shift.gather(1, cell)].double())
        values.append(best)
    return Candidates(torch.cat(rotations), torch.cat(shifts), torch.cat(values))


def evidence_score(volumes: StackedVolumes, sd: Tensor) -> Score:
    """Return the score of poses of a subspace: their evidence.

    Parameters
    ----------
    volumes : StackedVolumes
    sd : Tensor, shape (q,)
        Of the prior of z.
    """

    def score(
        images: WhitenedImages, rotation: Tensor, shift: Tensor
    ) -> tuple[Tensor, Tensor]:
        return marginal_scores(slice_products(volumes, images, rotation, shift), sd)

    return score


def _refined(
    projector: SubspaceProjector,
    images: WhitenedImages,
    start: Candidates,
    prior: PosePrior,
    plan: SearchPlan,
) -> PosteriorModes:
    """Refine pose and z of every candidate, from the likeliest z at its pose."""
    each, begin = start.alone(images)
    z = conformation_at(projector, each, begin, prior).mean
    begin = replace(begin, conformation=z)
    longest = plan.finest_cell_radian
    return refine_locally(projector, each, begin, prior, plan.steps, longest)
