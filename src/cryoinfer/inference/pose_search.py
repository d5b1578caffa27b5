"""Search as an inference: particles in, posteriors out."""

from dataclasses import dataclass

from torch import Tensor

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.geometry.so3_grid import asymmetric_unit
from cryoinfer.inference.coarse import GridSlices, PoseGrid, shift_grid
from cryoinfer.inference.posteriors import PoseMixture
from cryoinfer.inference.refine import PosePrior, covariance_of
from cryoinfer.inference.search import SearchPlan, global_search
from cryoinfer.inference.whitening import ReferenceGrid, whiten
from cryoinfer.records import ParticleBatch


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

    def infer(self, batch: ParticleBatch) -> PoseMixture:
        """Return the posterior of every particle; all must be of one optics group."""
        images = whiten(batch, self.grid, self.plan.radius, self.noise_power)
        shifts = shift_grid(self.max_shift_angstrom, self.plan.shift_step_angstrom)
        rotation = asymmetric_unit(self.grid_order, self.plan.symmetry)
        poses = PoseGrid(rotation, shifts)
        disc = images.prefix(self.plan.coarse_radius).disc
        slices = GridSlices.of(self.volume, poses, disc, images.scale)
        modes = global_search(self.volume, slices, images, None, self.prior, self.plan)
        return PoseMixture.of_modes(
            modes.rotation,
            modes.shift_angstrom,
            modes.defocus_offset_angstrom,
            modes.weight,
            covariance_of(modes.information),
        )
