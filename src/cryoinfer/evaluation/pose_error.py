"""How far estimated poses are from the true ones.

An ab initio run may differ from the truth by what no image can tell: one rotation
and one origin of the reference, and its hand. With ``S = diag(1, 1, -1)`` the true
map, seen from the frame of the estimated one, is::

    r_true = S^mirrored (G r_estimated + d)

Both describe the same images when, for the true pose (R, s)::

    R_estimated = R' G,    s_estimated = s + (R' d)_xy,    R' = S^mirrored R S^mirrored

because S changes only the coordinate along the beam. A symmetric map also leaves R
and R g the same image for every g of its group; each particle is compared with the
mate that is nearest.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.errors import InputError
from cryoinfer.geometry.rotations import geodesic_angle, nearest_rotation
from cryoinfer.records import Pose

_CANDIDATES = 64
_SCORED_PARTICLES = 2000
_MEDIAN_ITERATIONS = 50
_CONVERGED_RADIAN = 1e-8


@dataclass(frozen=True)
class GlobalAlignment:
    """The frame of an estimated map in terms of the true one's.

    ``r_true = S (rotation @ r_estimated + origin)``, S only if ``mirrored``.

    Attributes
    ----------
    rotation : Tensor of float64, shape (3, 3)
        G.
    mirrored : bool
        Whether the estimated map has the opposite hand.
    origin_angstrom : Tensor of float64, shape (3,)
        d (x, y, z), in the (mirrored) true frame.
    """

    rotation: Tensor
    mirrored: bool
    origin_angstrom: Tensor

    @classmethod
    def identity(cls) -> "GlobalAlignment":
        """Return the alignment of maps that lie alike."""
        nothing = torch.zeros(3, dtype=torch.float64)
        return cls(torch.eye(3, dtype=torch.float64), False, nothing)


@dataclass(frozen=True)
class PoseErrors:
    """Errors that remain after the best global alignment, one a particle.

    Attributes
    ----------
    geodesic_degrees : Tensor, shape (n,)
        Angle of the rotation between the poses, in [0, 180].
    view_degrees : Tensor, shape (n,)
        Angle between the beam directions, in [0, 180].
    in_plane_degrees : Tensor, shape (n,)
        Signed turn about the beam that is left when the beams are brought together
        along the shortest way, in (-180, 180].
    shift_angstrom : Tensor, shape (n,)
        Distance of the shifts in the image plane.
    alignment : GlobalAlignment
    """

    geodesic_degrees: Tensor
    view_degrees: Tensor
    in_plane_degrees: Tensor
    shift_angstrom: Tensor
    alignment: GlobalAlignment

    def summary(self) -> dict[str, float]:
        """Return medians, means and 95th percentiles by name, in the fields' units."""
        table = {}
        for name in (
            "geodesic_degrees",
            "view_degrees",
            "in_plane_degrees",
            "shift_angstrom",
        ):
            size = getattr(self, name).abs()
            table[f"{name}_median"] = float(size.quantile(0.5))
            table[f"{name}_mean"] = float(size.mean())
            table[f"{name}_p95"] = float(size.quantile(0.95))
        return table


def align_poses(
    estimated: Pose,
    true: Pose,
    generator: torch.Generator,
    symmetry: Tensor | None = None,
    allow_mirror: bool = True,
) -> GlobalAlignment:
    """Find the one global transformation that brings true poses to estimated ones.

    The rotation is the geodesic L1 mean (Hartley et al. 2013, IJCV 103, 267-305) of
    the particles' ``R_true^T R_estimated``: it withstands a majority of randomly
    wrong poses and needs no threshold. It starts from the best of 64 single
    particles and is refined by Weiszfeld's iteration. The origin follows by least
    squares with the same weights; a direction that no view determines stays 0.

    Parameters
    ----------
    estimated, true : Pose, of n particles in the same order
    generator : torch.Generator
        Chooses the particles that propose and judge the rotation.
    symmetry : Tensor, shape (m, 3, 3), optional
        Rotations of the true map's point group, the identity among them.
    allow_mirror : bool
        Whether the opposite hand may be chosen too.

    Returns
    -------
    GlobalAlignment

    Raises
    ------
    InputError
        If the numbers of poses differ or are zero.
    """
    if len(estimated) != len(true) or len(true) == 0:
        raise InputError(
            f"expected as many estimated as true poses, found {len(estimated)} and "
            f"{len(true)}; match the particles first, for instance by image name"
        )
    group = _group(symmetry, true)
    order = torch.randperm(len(true), generator=generator)[:_SCORED_PARTICLES]
    order = order.to(group.device)
    fits = []
    for mirrored in (False, True) if allow_mirror else (False,):
        relative = _relative(estimated[order], true[order], mirrored)
        mates = _mirror(group, mirrored)
        proposed = _propose_rotation(relative, mates)
        rotation = _geodesic_median(proposed, relative, mates)
        fits.append((_mean_angle(rotation, relative, mates), mirrored, rotation))
    _, mirrored, rotation = min(fits, key=lambda fit: fit[0])
    relative = _relative(estimated, true, mirrored)
    rotation = _geodesic_median(rotation, relative, _mirror(group, mirrored))
    alignment = GlobalAlignment(rotation, mirrored, rotation.new_zeros(3))
    return replace(
        alignment, origin_angstrom=_fit_origin(estimated, true, alignment, group)
    )


def truth_in_estimated_frame(
    estimated: Pose,
    true: Pose,
    alignment: GlobalAlignment,
    symmetry: Tensor | None = None,
) -> Pose:
    """Return the true poses as they would read in the frame of the estimated map.

    Parameters
    ----------
    estimated, true : Pose, of n particles
    alignment : GlobalAlignment
    symmetry : Tensor, shape (m, 3, 3), optional
        Of the mates of each true pose the one nearest to the estimate is taken.

    Returns
    -------
    Pose of float64, of n particles
    """
    group = _group(symmetry, true)
    near = _nearest_mates(estimated, true, group, alignment)
    moved = (near @ alignment.origin_angstrom)[..., :2]
    return Pose(near @ alignment.rotation, true.shift_angstrom.double() + moved)


def pose_errors(
    estimated: Pose,
    true: Pose,
    alignment: GlobalAlignment,
    symmetry: Tensor | None = None,
) -> PoseErrors:
    """Measure the errors of every pose under a global alignment.

    Parameters
    ----------
    estimated, true : Pose, of n particles
    alignment : GlobalAlignment
        From :func:`align_poses`.
    symmetry : Tensor, shape (m, 3, 3), optional

    Returns
    -------
    PoseErrors
    """
    target = truth_in_estimated_frame(estimated, true, alignment, symmetry)
    rotation = estimated.rotation.double()
    geodesic = geodesic_angle(rotation, target.rotation)
    # The beam runs along z of the image: R^T z, the third row, in the reference.
    beam, true_beam = rotation[:, 2], target.rotation[:, 2]
    # atan2 keeps its precision at small angles, where acos loses half the digits.
    view = torch.atan2(
        torch.linalg.cross(beam, true_beam).norm(dim=-1), (beam * true_beam).sum(-1)
    )
    turn = target.rotation @ rotation.mT
    # The twist about z of the swing-twist decomposition.
    in_plane = torch.atan2(turn[:, 1, 0] - turn[:, 0, 1], turn[:, 0, 0] + turn[:, 1, 1])
    shift = (estimated.shift_angstrom.double() - target.shift_angstrom).norm(dim=-1)
    return PoseErrors(
        torch.rad2deg(geodesic),
        torch.rad2deg(view),
        torch.rad2deg(in_plane),
        shift,
        alignment,
    )


def tangent_error(
    estimated: Pose,
    true: Pose,
    alignment: GlobalAlignment,
    symmetry: Tensor | None = None,
) -> Tensor:
    """Return true minus estimated pose in the coordinates of the Laplace posterior.

    The rotation part w lives in the image frame of the estimate:
    ``exp(w) R_estimated = R_true`` once the truth is in the estimated frame.

    Parameters
    ----------
    estimated, true : Pose, of n particles
    alignment : GlobalAlignment
    symmetry : Tensor, shape (m, 3, 3), optional

    Returns
    -------
    Tensor of float64, shape (n, 5)
        Rotation vector (radian) and shift (angstrom).
    """
    import roma

    target = truth_in_estimated_frame(estimated, true, alignment, symmetry)
    turn = target.rotation @ estimated.rotation.double().mT
    shift = target.shift_angstrom - estimated.shift_angstrom.double()
    return torch.cat([roma.rotmat_to_rotvec(turn), shift], dim=-1)


def _group(symmetry: Tensor | None, true: Pose) -> Tensor:
    if symmetry is None:
        return torch.eye(3, dtype=torch.float64, device=true.rotation.device)[None]
    return symmetry.to(true.rotation.device, torch.float64)


def _mirror(rotation: Tensor, mirrored: bool) -> Tensor:
    """Return S R S, the pose that shows the mirrored map in the same image."""
    if not mirrored:
        return rotation
    sign = rotation.new_tensor([1.0, 1.0, -1.0])
    return rotation * sign[:, None] * sign


def _relative(estimated: Pose, true: Pose, mirrored: bool) -> Tensor:
    """Return R'^T R_estimated, which is G for every particle without error."""
    return _mirror(true.rotation.double(), mirrored).mT @ estimated.rotation.double()


def _cosine(relative: Tensor, candidate: Tensor) -> Tensor:
    """Return the cosine of the angle from each (n, 3, 3) to each (c, 3, 3)."""
    trace = relative.flatten(-2) @ candidate.flatten(-2).mT
    return ((trace - 1) / 2).clamp(-1, 1)


def _propose_rotation(relative: Tensor, group: Tensor) -> Tensor:
    """Return the G of the particle with which the others agree best."""
    candidate = relative[:_CANDIDATES]
    mates = group[:, None] @ candidate
    cosine = _cosine(relative, mates.flatten(0, 1))
    nearest = cosine.unflatten(1, mates.shape[:2]).amax(1)
    return candidate[nearest.acos().mean(0).argmin()]


def _geodesic_median(rotation: Tensor, relative: Tensor, group: Tensor) -> Tensor:
    """Return the L1 mean of the G of all particles, by Weiszfeld's iteration."""
    for _ in range(_MEDIAN_ITERATIONS):
        cosine, mate = _cosine(relative, group @ rotation).max(1)
        # A floor far below any real error, else a perfect pose would weigh infinity.
        weight = 1 / cosine.acos().clamp_min(1e-6)
        weighted = group[mate] * weight[:, None, None]
        # The sum over n and j of g[n, j, i] relative[n, j, k].
        updated = nearest_rotation(weighted.flatten(0, 1).mT @ relative.flatten(0, 1))
        step = float(geodesic_angle(updated, rotation))
        rotation = updated
        if step < _CONVERGED_RADIAN:
            break
    return rotation


def _mean_angle(rotation: Tensor, relative: Tensor, group: Tensor) -> float:
    cosine = _cosine(relative, group @ rotation).amax(1)
    return float(cosine.acos().mean())


def _nearest_mates(
    estimated: Pose, true: Pose, group: Tensor, alignment: GlobalAlignment
) -> Tensor:
    """Return R' of the mate of each true pose that is nearest to the estimate."""
    group = _mirror(group, alignment.mirrored)
    relative = _relative(estimated, true, alignment.mirrored)
    mate = _cosine(relative, group @ alignment.rotation).argmax(1)
    return _mirror(true.rotation.double(), alignment.mirrored) @ group[mate]


def _fit_origin(
    estimated: Pose, true: Pose, alignment: GlobalAlignment, group: Tensor
) -> Tensor:
    """Solve (R' d)_xy = s_estimated - s_true for d, weighing right poses most."""
    near = _nearest_mates(estimated, true, group, alignment)
    angle = geodesic_angle(estimated.rotation.double(), near @ alignment.rotation)
    weight = 1 / (angle + angle.median() + 1e-6)
    plane = near[:, :2]
    moved = estimated.shift_angstrom.double() - true.shift_angstrom.double()
    normal = torch.einsum("n,nki,nkj->ij", weight, plane, plane)
    right = torch.einsum("n,nki,nk->i", weight, plane, moved)
    return torch.linalg.pinv(normal, rtol=1e-10, hermitian=True) @ right
