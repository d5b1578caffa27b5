"""Search of all poses of a map, as an inference."""

from dataclasses import dataclass

from cryoinfer.fourier.slices import FourierVolume
from cryoinfer.geometry.so3_grid import asymmetric_unit
from cryoinfer.inference.coarse import GRID_ORDER, GridSlices, PoseGrid, shift_grid
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.search import SearchPlan, global_search
from cryoinfer.inference.whitening import WhitenedImages


def grid_slices(
    volume: FourierVolume,
    images: WhitenedImages,
    max_shift_angstrom: float,
    plan: SearchPlan,
    grid_order: int = GRID_ORDER,
) -> GridSlices:
    """Return the slices of a volume that a search compares images with first.

    Parameters
    ----------
    volume : FourierVolume
    images : WhitenedImages
        Of the box that the slices are of.
    max_shift_angstrom : float
        Largest shift of the exhaustive grid.
    plan : SearchPlan
    grid_order : int
        Of the exhaustive grid of rotations.
    """
    shifts = shift_grid(max_shift_angstrom, plan.shift_step_angstrom)
    rotation = asymmetric_unit(grid_order, plan.symmetry.cpu())
    poses = PoseGrid(rotation, shifts).to(volume.device)
    disc = images.prefix(plan.coarse_radius).disc
    return GridSlices.of(volume, poses, disc, images.scale)


@dataclass(frozen=True)
class _Sliced:
    """Slices of a volume, and the kind of images that they are compared with."""

    volume: FourierVolume
    box: int
    scale: float
    slices: GridSlices


class GlobalSearch:
    """Searches all poses of a map: an exhaustive grid, nested grids, refinement.

    A :class:`cryoinfer.inference.pose_inference.PoseInference`. The slices of the
    last map and kind of images are kept: of hundreds of optics groups they would fill
    gigabytes, so that images are best inferred group by group.

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
        projector: MapProjector,
        prior: PosePrior,
        start: ParticlePosterior | None,
    ) -> ParticlePosterior:
        """Return the posteriors; poses known from before are tried as well.

        Those of a start that has not seen the images are not.
        """
        pose = None
        if start is not None and bool(start.log_likelihood.isfinite().all()):
            pose = start.mode().pose
        slices = self._slices(projector.volume, images)
        near = images.prefix(self._plan.radius)
        return global_search(projector, slices, near, pose, prior, self._plan)

    def _slices(self, volume: FourierVolume, images: WhitenedImages) -> GridSlices:
        kept, box, scale = self._kept, images.disc.box, images.scale
        if (
            kept is None
            or kept.volume is not volume
            or (kept.box, kept.scale) != (box, scale)
        ):
            reach = self._max_shift_angstrom
            slices = grid_slices(volume, images, reach, self._plan)
            self._kept = kept = _Sliced(volume, box, scale, slices)
        return kept.slices
