"""From nothing to modes: exhaustive grid, nested grids, Gauss-Newton.

The exhaustive posterior at a low radius names the cells that matter; their children
are scored at a higher radius with shifts of their own; the best of those are climbed
to the top. What comes back is a mixture of Laplace modes for every particle.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from cryoinfer.fourier.slices import FourierVolume, slice_rows
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.geometry.so3_grid import children
from cryoinfer.inference import score_kernel
from cryoinfer.inference.coarse import GridSlices, shift_grid
from cryoinfer.inference.refine import LocalPoses, PosePrior, gauss_newton
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Pose

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
        Of the nested grid and of Gauss-Newton.
    cells : int
        Cells of the exhaustive grid that are kept.
    modes : int
        Modes that are climbed and returned.
    steps : int
        Of Gauss-Newton.
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

    def best(self, count: int) -> "Candidates":
        """Return the ``count`` most likely of each image, best first."""
        value, order = self.log_likelihood.topk(min(count, self.rotation.shape[1]))
        rows = torch.arange(len(order))[:, None]
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
    for rows in torch.arange(len(images)).split(size):
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
    volume: FourierVolume,
    images: WhitenedImages,
    cells: Candidates,
    plan: SearchPlan,
) -> Candidates:
    """Divide cells into their children and score those at the plan's radius.

    Every child is tried at the six neighbours of the best cell's shift, half a step
    away, as well.

    Parameters
    ----------
    volume : FourierVolume
    images : WhitenedImages
        Within ``plan.radius``.
    cells : Candidates
    plan : SearchPlan

    Returns
    -------
    Candidates
        Eight for every cell.
    """
    n = len(cells.log_likelihood)
    rotation = children(cells.rotation, plan.cell_radian).flatten(1, 2)
    step = plan.shift_step_angstrom
    around = shift_grid(step / 2, step / 2) if step > 0 else torch.zeros(1, 2)
    shift = cells.shift_angstrom[:, :1] + around.double()
    scores = _scores(volume, images, rotation, shift)
    value, move = scores.max(2)
    return Candidates(rotation, shift[torch.arange(n)[:, None], move], value)


def log_likelihood(
    volume: FourierVolume, images: WhitenedImages, poses: Pose
) -> Tensor:
    """Return minus the squared residual of each image at a pose of its own, (n,).

    Parameters
    ----------
    volume : FourierVolume
    images : WhitenedImages
        Of n images, within the volume's radius.
    poses : Pose
        Of the same images.

    Returns
    -------
    Tensor of float64, shape (n,)
        Summed in single precision: to a millionth of the images' power.
    """
    rotation, shift = poses.rotation[:, None], poses.shift_angstrom[:, None]
    scores = _scores(volume, images, rotation, shift)[:, 0, 0]
    power = torch.view_as_real(images.coefficients).square().sum((1, 2))
    return scores.double() - power.double()


def _scores(
    volume: FourierVolume, images: WhitenedImages, rotation: Tensor, shift: Tensor
) -> Tensor:
    """Return the log-likelihood of rotations (n, m) by shifts (n, s), (n, m, s).

    Without the constant of the image.
    """
    scores = torch.empty(*rotation.shape[:2], shift.shape[1])
    rows = slice_rows(rotation, volume.padding * images.scale)
    score_kernel.score(
        volume.values.numpy(),
        volume.centre,
        rows.numpy(),
        (shift / images.pixel_size_angstrom).float().contiguous().numpy(),
        images.disc.kx.numpy(),
        images.disc.ky.numpy(),
        torch.view_as_real(images.coefficients.contiguous()).numpy(),
        images.ctf.contiguous().numpy(),
        images.disc.box,
        scores.numpy(),
    )
    return scores


@dataclass(frozen=True)
class Modes:
    """The modes of n posteriors, m each, best first.

    Attributes
    ----------
    best : LocalPoses
        Of length n.
    information : Tensor of float64, shape (n, m, 6, 6)
        Inverse covariance of each mode.
    rotation : Tensor of float64, shape (n, m, 3, 3)
    shift_angstrom : Tensor of float64, shape (n, m, 2)
    weight : Tensor of float64, shape (n, m)
        Probability of each mode by Laplace's approximation; a mode that climbed to
        the same top as a better one, or to a mate of it, has none.
    defocus_offset_angstrom : Tensor of float64, shape (n, m)
    """

    best: LocalPoses
    information: Tensor
    rotation: Tensor
    shift_angstrom: Tensor
    weight: Tensor
    defocus_offset_angstrom: Tensor


def climb(
    volume: FourierVolume,
    images: WhitenedImages,
    start: Candidates,
    prior: PosePrior,
    plan: SearchPlan,
) -> Modes:
    """Climb from every candidate and weigh the tops against each other.

    Parameters
    ----------
    volume : FourierVolume
    images : WhitenedImages
        Of n images, within ``plan.radius``.
    start : Candidates
        Of n images, m each.
    prior : PosePrior
    plan : SearchPlan

    Returns
    -------
    Modes
    """
    n, m = start.log_likelihood.shape
    repeated = images.select(torch.arange(n).repeat_interleave(m))
    poses = gauss_newton(
        volume,
        repeated,
        LocalPoses.at(
            start.rotation.flatten(0, 1),
            start.shift_angstrom.flatten(0, 1),
            torch.zeros(n * m),
        ),
        prior,
        plan.steps,
        plan.cell_radian / 2,
    )
    evidence = laplace_log_evidence(poses, prior).view(n, m)
    order = evidence.argsort(1, descending=True)
    flat = order + torch.arange(n)[:, None] * m
    rotation = poses.rotation[flat]
    sorted_evidence = evidence.gather(1, order)
    twin = repeats(rotation, plan.cell_radian / 4, plan.symmetry)
    weight = torch.softmax(sorted_evidence.masked_fill(twin, -torch.inf), 1)
    return Modes(
        poses.select(flat[:, 0]),
        poses.information[flat],
        rotation,
        poses.shift_angstrom[flat],
        weight,
        poses.defocus_offset_angstrom[flat],
    )


def global_search(
    volume: FourierVolume,
    slices: GridSlices,
    images: WhitenedImages,
    known: LocalPoses | None,
    prior: PosePrior,
    plan: SearchPlan,
) -> Modes:
    """Search all poses: the grid, the children of its best cells, the tops.

    Parameters
    ----------
    volume : FourierVolume
    slices : GridSlices
        Of the volume, over the disc of ``plan.coarse_radius``.
    images : WhitenedImages
        Of n images, within ``plan.radius``.
    known : LocalPoses, optional
        Of n images: one more candidate each.
    prior : PosePrior
    plan : SearchPlan

    Returns
    -------
    Modes
    """
    cells = exhaustive_cells(slices, images.prefix(plan.coarse_radius), plan.cells)
    starts = nested_cells(volume, images, cells, plan).best(plan.modes)
    if known is not None:
        # Its score does not matter: all candidates are climbed.
        score = torch.zeros(len(known), 1)
        here = Candidates(known.rotation[:, None], known.shift_angstrom[:, None], score)
        starts = starts.joined(here)
    return climb(volume, images, starts, prior, plan)


def laplace_log_evidence(poses: LocalPoses, prior: PosePrior) -> Tensor:
    """Return the log integral of each mode's Gaussian, up to one constant, (n,)."""
    held = poses.information.diagonal(dim1=1, dim2=2) <= 0
    filled = poses.information + torch.diag_embed(held.double())
    log_volume = -0.5 * torch.linalg.slogdet(filled).logabsdet
    return poses.log_likelihood - prior.loss(poses) + log_volume


def repeats(
    rotation: Tensor,
    radius: float,
    symmetry: Tensor,
    conformation: Tensor | None = None,
    lever_angstrom: float = 0.0,
) -> Tensor:
    """Tell which modes lie within a radius of a better one, or of a mate of it.

    Parameters
    ----------
    rotation : Tensor, shape (n, m, 3, 3)
        Best first.
    radius : float
        Radians.
    symmetry : Tensor, shape (s, 3, 3)
        Rotations that leave the map as it is, the identity among them.
    conformation : Tensor, shape (n, m, c), optional
        In angstrom; those that are farther apart than the radius moves the lever are
        no repeats.
    lever_angstrom : float

    Returns
    -------
    Tensor of bool, shape (n, m)
    """
    found = torch.zeros(rotation.shape[:2], dtype=torch.bool)
    earlier = torch.ones(rotation.shape[1], rotation.shape[1]).tril(-1).bool()
    if conformation is not None:
        apart = (conformation[:, :, None] - conformation[:, None]).norm(dim=-1)
        earlier = earlier & (apart <= radius * lever_angstrom)
    for mate in symmetry:
        angle = geodesic_angle(rotation[:, :, None], rotation[:, None] @ mate)
        found |= ((angle < radius) & earlier).any(2)
    return found
