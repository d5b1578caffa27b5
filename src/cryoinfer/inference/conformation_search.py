"""Searches of all poses in several conformations of atoms that move.

One map, the mean of all conformations, loses particles that have moved far from it. So
each of some conformations has a map of its own, of which the best poses are refined;
the likeliest of all maps' are the modes that refinements with the atoms begin at.
"""

from dataclasses import replace
from typing import Self

import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.geometry.so3_grid import grid_step_radian
from cryoinfer.inference.coarse import GRID_ORDER, GridSlices
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.mode_ranking import repeats
from cryoinfer.inference.modes import PosteriorModes, covariance_of
from cryoinfer.inference.moving_projector import MovingProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_search import grid_slices
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.search import (
    SearchPlan,
    exhaustive_cells,
    nested_search,
    pose_score,
    refine_candidates,
)
from cryoinfer.inference.whitening import WhitenedImages

_COARSE_ARC, _FINE_ARC = 0.4, 0.24
"""Resolutions of the exhaustive grid and of what follows, over the radius of the atoms:
one and a half times the arc between neighbours of the grid, and of its children."""

_SHIFT_SD = 3.0  # that are searched
_CELLS, _TOPS, _STEPS = 20, 4, 5  # of each conformation
_DRAWS = 2000  # of conformations, that the maps lie among


class ConformationSearch:
    """Searches all poses with maps of several conformations of one model.

    A :class:`cryoinfer.inference.pose_inference.PoseInference` for the model and the
    prior that it was made of.

    The slices of the last kind of images are kept.

    Parameters
    ----------
    conformation : Tensor of float64, shape (m, c)
        Amplitudes that have a map, in angstrom.
    volumes : tuple of FourierVolume
        Their maps.
    plan : SearchPlan
        Of each map.
    max_shift_angstrom : float
        Largest shift of the exhaustive grid.
    modes : int
        That are proposed for each image.
    """

    def __init__(
        self,
        conformation: Tensor,
        volumes: tuple[FourierVolume, ...],
        plan: SearchPlan,
        max_shift_angstrom: float,
        modes: int,
    ) -> None:
        self.plan, self._conformation = plan, conformation
        self._volumes, self._modes = volumes, modes
        self._max_shift_angstrom = max_shift_angstrom
        self._kind: tuple[int, float] | None = None
        self._slices: tuple[GridSlices, ...] = ()

    @classmethod
    def of(
        cls,
        projector: MovingProjector,
        prior: PosePrior,
        symmetry: Tensor,
        conformations: int,
        modes: int,
        last_radius: int,
    ) -> Self:
        """Make maps of conformations in the middle of all that the prior allows.

        Parameters
        ----------
        projector : MovingProjector
        prior : PosePrior
        symmetry : Tensor, shape (s, 3, 3)
            Of the model at rest: poses are searched in one asymmetric unit.
        conformations : int
            How many have a map.
        modes : int
            That are named for each image.
        last_radius : int
            Of the images, in Fourier pixels: none of the search is larger.
        """
        grid = projector.grid
        sd = prior.unknowns_sd_angstrom[3:]
        generator = torch.Generator().manual_seed(0)
        drawn = sd * torch.randn(_DRAWS, len(sd), generator=generator).double()
        centres, _ = kmeans2(drawn.numpy(), conformations, seed=0, minit="++")
        conformation = torch.from_numpy(centres)
        reach = float(projector.moving.coordinates.norm(dim=1).max())
        last = min(projector.coarse_radius, last_radius)
        radius = min(grid.radius_at(_FINE_ARC * reach), last)
        coarse_radius = min(grid.radius_at(_COARSE_ARC * reach), radius)
        maps = (
            projector.coarse.at(one).to_map(grid.box, grid.pixel_size_angstrom)
            for one in conformation
        )
        plan = SearchPlan(
            coarse_radius,
            radius,
            _CELLS,
            _TOPS,
            _STEPS,
            grid_step_radian(GRID_ORDER),
            # Shifts that are held stay in the middle.
            grid.resolution_at(coarse_radius) / 4 if prior.shift_sd_angstrom else 0.0,
            symmetry,
        )
        volumes = tuple(FourierVolume.from_map(one, radius) for one in maps)
        reach = _SHIFT_SD * prior.shift_sd_angstrom
        return cls(conformation, volumes, plan, reach, modes)

    def _slices_for(self, images: WhitenedImages) -> tuple[GridSlices, ...]:
        """Return the slices of all maps at the poses of the exhaustive grid."""
        kind = images.disc.box, images.scale
        if self._kind != kind:
            reach, plan = self._max_shift_angstrom, self.plan
            self._slices = tuple(
                grid_slices(one, images, reach, plan) for one in self._volumes
            )
            self._kind = kind
        return self._slices

    def infer(
        self,
        images: WhitenedImages,
        projector: object,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return the modes of images that were whitened to the plan's radius or more.

        Coefficients beyond it are not looked at. Modes are a quarter of a cell apart,
        best first, each at its best conformation, and weigh the same: maps of some
        conformations do not tell which is right. Widths of amplitudes are the prior's.

        Parameters
        ----------
        images : WhitenedImages
            In the projector's grid.
        projector, prior
            Those that the maps are of.
        start : ParticlePosterior or None
            Is not looked at.
        """
        plan, n = self.plan, len(images)
        images = images.prefix(plan.radius)
        coarse = images.prefix(plan.coarse_radius)
        # Images of so low a radius tell nothing about defoci.
        rigid = replace(prior.rigid, defocus_sd_angstrom=0.0)
        slices_of = self._slices_for(images)
        every = zip(self._conformation, self._volumes, slices_of, strict=True)
        found, evidence = [], []
        for conformation, volume, slices in every:
            shown = MapProjector(volume)
            cells = exhaustive_cells(slices, coarse, plan.cells)
            best = nested_search(pose_score(shown), images, cells, plan)
            modes = refine_candidates(shown, images, best, rigid, plan)
            evidence.append(modes.log_evidence(rigid).view(n, -1))
            own = conformation.to(modes.information).expand(len(modes), -1)
            latents = replace(modes.latents, conformation=own)
            found.append(replace(modes, latents=latents))
        return self._best(found, torch.cat(evidence, 1), prior)

    def _best(
        self, found: list[PosteriorModes], evidence: Tensor, prior: PosePrior
    ) -> ParticlePosterior:
        """Return the likeliest poses of all conformations that are not repeats.

        Parameters
        ----------
        found : list of PosteriorModes
            Of each conformation, those of n particles in turn.
        evidence : Tensor, shape (n, m)
            Of all of them.
        """
        n, count = len(evidence), evidence.shape[1]
        of_each = count // len(found)
        # Where the modes of a particle lie among those of all conformations.
        rows = torch.arange(n * count, device=evidence.device)
        place = rows.view(len(found), n, of_each).movedim(0, 1)
        place = place.reshape(n, count)
        order = evidence.argsort(1, descending=True)
        modes = PosteriorModes.joined(found)[place.gather(1, order)]
        rotation = modes.latents.pose.rotation
        again = repeats(rotation, self.plan.cell_radian / 4, self.plan.symmetry)
        # Repeats come last; the rest keep their order.
        first = again.byte().argsort(dim=1, stable=True)[:, : self._modes]
        modes = modes[rows[:n, None], first]
        new = (~again.gather(1, first)).double()
        rigid, c = covariance_of(modes.information), self._conformation.shape[1]
        covariance = rigid.new_zeros(n, first.shape[1], 6 + c, 6 + c)
        covariance[..., :6, :6] = rigid
        sd = prior.unknowns_sd_angstrom[2:].to(covariance)
        covariance[..., range(5, 6 + c), range(5, 6 + c)] = sd.square()
        return ParticlePosterior.of_modes(
            modes.latents, new / new.sum(1, keepdim=True), covariance
        )
