"""A map found from nothing, moved so that its particles lie in the middle of images.

Images do not say where in its box a map lies: particles displaced by as much the other
way show the same. Among all such answers the one with the least shifts is given.
"""

from dataclasses import replace

import torch
from torch import Tensor

from cryoinfer.arithmetic import complex_product
from cryoinfer.fourier.transform import fourier_to_map, map_to_fourier
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.records import Pose
from cryoinfer.results.run_result import RunResult

_NEGLIGIBLE_PIXELS = 0.01


def centred(result: RunResult) -> RunResult:
    """Return a run with its map moved to where shifts are least.

    Parameters
    ----------
    result : RunResult

    Returns
    -------
    RunResult
        Posteriors are the same but for the frame that they are told in.
    """
    maps, found = result.reconstruction, result.inferred
    pose = found.mode().pose
    origin = _origin(pose, symmetry_rotations(maps.symmetry))
    if float(origin.norm()) < _NEGLIGIBLE_PIXELS * maps.pixel_size_angstrom:
        return result
    pixels = origin / maps.pixel_size_angstrom
    return replace(
        result,
        reconstruction=replace(
            maps,
            density=moved_map(maps.density, pixels),
            half1=moved_map(maps.half1, pixels),
            half2=moved_map(maps.half2, pixels),
            mask=moved_map(maps.mask, pixels).clamp(0, 1),
        ),
        inferred=replace(
            found,
            modes=replace(found.modes, pose=_moved(found.modes.pose, origin)),
            covariance=moved_covariance(found.covariance[:, 0], pose.rotation, origin)[
                :, None
            ],
        ),
    )


def moved_map(density: Tensor, displacement_pixels: Tensor) -> Tensor:
    """Return a map (n, n, n) moved by (x, y, z), exactly below Nyquist."""
    box = density.shape[-1]
    whole = torch.fft.fftfreq(box, dtype=torch.float64)
    half = torch.fft.rfftfreq(box, dtype=torch.float64)
    x, y, z = displacement_pixels.double()
    turns = half * x + whole[:, None] * y + whole[:, None, None] * z
    wave = torch.polar(torch.ones_like(turns), -2 * torch.pi * turns)
    if box % 2 == 0:  # the sign of Nyquist is undefined
        wave[box // 2] = wave[:, box // 2] = wave[..., box // 2] = 1.0
    moved = complex_product(map_to_fourier(density), wave.to(torch.complex64))
    return fourier_to_map(moved, box)


def _origin(pose: Pose, symmetry: Tensor) -> Tensor:
    """Return the point of the map that lies in the middle of images on average."""
    plane = pose.rotation[:, :2].double()
    # Summed along an axis: the same on any number of threads, unlike products of
    # matrices.
    normal = (plane[..., :, None] * plane[..., None, :]).sum((0, 1))
    right = (plane * pose.shift_angstrom.double()[..., None]).sum((0, 1))
    # Particles seen from one side leave the depth open: it stays as it is.
    origin = torch.linalg.pinv(normal, rtol=1e-6, hermitian=True) @ right
    # A symmetric map may move along what its symmetry leaves alone.
    return symmetry.mean(0) @ origin


def _moved(pose: Pose, origin: Tensor) -> Pose:
    moved = (pose.rotation.double() @ origin)[..., :2]
    return replace(pose, shift_angstrom=pose.shift_angstrom - moved)


def moved_covariance(covariance: Tensor, rotation: Tensor, origin: Tensor) -> Tensor:
    """Return covariances of rotation vector, new shift, and what comes after them.

    A turn by w moves the origin's image by the cross product of w with where it is;
    where shifts were held they stay so, and what is not known of them is not told.
    """
    x, y, z = (rotation.double() @ origin).unbind(-1)
    zero = torch.zeros_like(x)
    by_turn = torch.stack(
        [torch.stack([zero, z, -y], -1), torch.stack([-z, zero, x], -1)], -2
    )
    unknowns = covariance.shape[-1]
    change = torch.eye(unknowns, dtype=torch.float64).repeat(len(x), 1, 1)
    inferred = (covariance[:, 3:5, 3:5].diagonal(dim1=1, dim2=2) > 0).all(1)
    change[:, 3:5, :3] = -by_turn * inferred[:, None, None]
    return change @ covariance.double() @ change.mT
