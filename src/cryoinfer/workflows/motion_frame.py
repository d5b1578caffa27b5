"""Where a model lies in the frame of the poses that particles came with.

Motions are inferred of a model that is centred on its atoms. Given poses are of a map,
in which the model lies somewhere else and perhaps turned a little: by what all poses
have moved is measured, and poses and models are told in the frame of the given poses,
so that they lie on its map.
"""

from dataclasses import replace

import roma
import torch
from torch import Tensor

from cryoinfer.arithmetic import (
    complex_product,
    fourier_transform_3d,
)
from cryoinfer.geometry.rotations import geodesic_angle
from cryoinfer.records import Latents, Pose
from cryoinfer.results.model_frame import ModelFrame
from cryoinfer.results.motions import Motions
from cryoinfer.workflows.centre import moved_covariance
from cryoinfer.workflows.motion_problem import MotionProblem
from cryoinfer.workflows.noise_and_scale import NoiseAndScale, projected

_SIGNIFICANT = 3.0  # standard errors, by which all poses must have moved together
_PLACES_A_WAVE = 8  # of the highest frequency
_KEPT_MADS = 4.0  # median absolute deviations; poses beyond have found another top


def first_frame(
    problem: MotionProblem, measured: NoiseAndScale, radius: int
) -> ModelFrame:
    """Return where the model lies best, by some images at the poses of their file.

    Wherever in the box that is, to an eighth of the shortest wave: what images have
    in common with the model at rest is, by its displacement, a Fourier transform.

    Parameters
    ----------
    problem : MotionProblem
        Whose particles have poses.
    measured : NoiseAndScale
    radius : int
        To which images are compared, in Fourier pixels.
    """
    middle = ModelFrame.in_the_middle()
    grid, projector = problem.grid, problem.projector(measured)
    starts = starts_in(middle, problem)
    # Places along an axis: memory does not grow with the box.
    m = min(grid.box, _PLACES_A_WAVE * radius)
    common = torch.zeros(m**3, dtype=torch.complex128)
    source = problem.images(measured, radius)
    for batch in measured.calibration_subset(problem.particles):
        images = source.whitened(batch)
        at = starts[batch.index]
        seen = projected(projector, images, at)
        product = complex_product(seen.images.coefficients.conj(), seen.shown)
        product = product.to(common.dtype)
        plane = torch.stack([images.disc.kx, images.disc.ky], 1).double()
        plane = plane * images.scale
        # Where the coefficients of an image lie among those of the map: x, y, z.
        place = plane @ at.pose.rotation[:, :2].double()
        x, y, z = (place.round().long() % m).unbind(-1)
        row = (z * m + y) * m + x
        common.index_add_(0, row.flatten(), product.flatten())
    value = fourier_transform_3d(common.reshape(m, m, m)).real
    place = torch.stack(torch.unravel_index(value.argmax(), value.shape)).flip(0)
    place = (place + m // 2) % m - m // 2
    return ModelFrame(middle.rotation, place.double() * (grid.length_angstrom / m))


def found_frame(given: Pose, motions: Motions, begun: ModelFrame) -> ModelFrame:
    """Return what all found poses have moved by together.

    Parameters
    ----------
    given : Pose
        In whose frame the model's place is asked for.
    motions : Motions
        With poses of the centred model.
    begun : ModelFrame
        Where the model was taken to lie: kept along what no image shows, as the
        depth where all are seen from one side.

    Returns
    -------
    ModelFrame
        In the middle and not turned where poses have not moved together beyond
        chance.
    """
    known = motions.known
    before, after = given[known], motions.rotation[known].double()
    between = before.rotation.double().mT @ after
    plane = before.rotation[:, :2].double()
    aside = motions.shift_angstrom[known] - before.shift_angstrom.double()
    near = _kept(geodesic_angle(begun.rotation.expand_as(between), between))
    near &= _kept((aside - plane @ begun.offset_angstrom).norm(dim=1))
    if not bool(near.any()):
        return begun
    between, plane, aside = between[near], plane[near], aside[near]
    rotation = roma.special_procrustes(between.mean(0))
    apart = geodesic_angle(rotation.expand_as(between), between)
    error = float(apart.square().mean().sqrt()) / len(between) ** 0.5
    eye = torch.eye(3, dtype=torch.float64)
    if float(geodesic_angle(rotation, eye)) < _SIGNIFICANT * error:
        rotation = eye
    left = aside - plane @ begun.offset_angstrom
    normal = torch.linalg.pinv(
        torch.einsum("nki,nkj->ij", plane, plane), rtol=1e-6, hermitian=True
    )
    step = normal @ torch.einsum("nki,nk->i", plane, left)
    offset = begun.offset_angstrom + step
    rest = (left - plane @ step).square().mean()
    # Of each component; those of its length's square add up.
    error = float((rest * normal.trace()).clamp(min=0).sqrt())
    if float(offset.norm()) < _SIGNIFICANT * error:
        offset = torch.zeros_like(offset)
    return ModelFrame(rotation, offset)


def starts_in(frame: ModelFrame, problem: MotionProblem) -> Latents:
    """Return the particles' poses in a frame as ones of the centred model, at rest."""
    pose = problem.particles.pose
    assert pose is not None
    shift = pose.shift_angstrom.double() + frame.shown_at(pose.rotation)
    n = len(shift)
    return Latents(
        Pose(pose.rotation.double() @ frame.rotation, shift),
        torch.zeros(n, dtype=torch.float64),
        torch.zeros(n, len(problem.model.modes), dtype=torch.float64),
    )


def motions_in(frame: ModelFrame, motions: Motions) -> Motions:
    """Return motions of the centred model with their poses in a frame."""
    rotation = motions.rotation @ frame.rotation.mT
    return replace(
        motions,
        rotation=rotation,
        shift_angstrom=motions.shift_angstrom - frame.shown_at(rotation),
        covariance=moved_covariance(
            motions.covariance, rotation, frame.offset_angstrom
        ),
    )


def _kept(distance: Tensor) -> Tensor:
    """Return which distances are of one kind with most, shape (n,)."""
    return distance <= _KEPT_MADS * 1.5 * distance.median() + 1e-9
