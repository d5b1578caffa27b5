"""Search as an inference: particles in, posteriors out."""

from dataclasses import dataclass

from torch import Tensor

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.geometry.so3_grid import asymmetric_unit
from cryoinfer.inference.coarse import GridSlices, PoseGrid, shift_grid
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.search import SearchPlan, global_search
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages, whiten
from cryoinfer.records import ParticleBatch


def grid_slices(
    volume: FourierVolume,
    images: WhitenedImages,
    max_shift_angstrom: float,
    grid_order: int,
    plan: SearchPlan,
) -> GridSlices:
    """Return the slices of a volume that a search compares images with first.

    Parameters
    ----------
    volume : FourierVolume
    images : WhitenedImages
        Of the box that the slices are of.
    max_shift_angstrom : float
        Largest shift of the exhaustive grid.
    grid_order : int
        Of the exhaustive grid of rotations.
    plan : SearchPlan
    """
    shifts = shift_grid(max_shift_angstrom, plan.shift_step_angstrom)
    rotation = asymmetric_unit(grid_order, plan.symmetry.cpu())
    poses = PoseGrid(rotation.to(volume.device), shifts.to(volume.device))
    disc = images.prefix(plan.coarse_radius).disc
    return GridSlices.of(volume, poses, disc, images.scale)


@dataclass(frozen=True)
class PoseSearch:
    """Infer poses by exhaustive and nested search against one map.

    An :class:`cryoinfer.interfaces.Inference`.

    Attributes
    ----------
    volume : FourierVolume
        Of the map, to ``plan.radius`` at least.
    grid : ReferenceGrid
        The map's box.
    noise_power : Tensor, shape (rings,)
        Of the particles, per ring of their orthonormal transform.
    prior : PosePrior
    max_shift_angstrom : float
        Largest shift of the exhaustive grid.
    grid_order : int
        Of the exhaustive grid of rotations.
    plan : SearchPlan
    """

    volume: FourierVolume
    grid: ReferenceGrid
    noise_power: Tensor
    prior: PosePrior
    max_shift_angstrom: float
    grid_order: int
    plan: SearchPlan

    def infer(self, batch: ParticleBatch) -> ParticlePosterior:
        """Return the posterior of every particle; all must be of one optics group."""
        noise = self.noise_power
        return self.infer_whitened(whiten(batch, self.grid, self.plan.radius, noise))

    def infer_whitened(self, images: WhitenedImages) -> ParticlePosterior:
        """Return the posterior of images that were whitened to the plan's radius."""
        slices = grid_slices(
            self.volume, images, self.max_shift_angstrom, self.grid_order, self.plan
        )
        projector, prior = MapProjector(self.volume), self.prior
        return global_search(projector, slices, images, None, prior, self.plan)
