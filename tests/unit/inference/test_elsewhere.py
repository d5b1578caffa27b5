"""From images to a map on a device that is not the CPU."""

from dataclasses import replace

import pytest
import torch
from elsewhere import DEVICE, Elsewhere, is_elsewhere
from torch.utils._pytree import tree_leaves

from cryoinfer.fourier.slices import FourierVolume, SliceAccumulator, insert_slices
from cryoinfer.geometry.rotations import random_rotations
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.inference.local_refinement import refine_locally
from cryoinfer.inference.map_projector import MapProjector
from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.particle_posterior import ParticlePosterior
from cryoinfer.inference.pose_search import grid_slices
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.search import SearchPlan, global_search
from cryoinfer.inference.whitening import ReferenceGrid, whiten
from cryoinfer.operations import plain_only
from cryoinfer.reconstruction.backproject import shell_sums, solve
from cryoinfer.reconstruction.mask import soft_mask, soft_sphere
from cryoinfer.reconstruction.symmetrise import symmetrise
from cryoinfer.records import Latents, Optics, ParticleBatch, Pose

BOX, RADIUS, IMAGES = 16, 6, 3


def everything(device: torch.device) -> list[torch.Tensor]:
    """Search, refine and reconstruct a few images with all tensors on a device."""
    generator = torch.Generator().manual_seed(0)
    density = torch.randn(BOX, BOX, BOX, generator=generator)
    defocus = torch.linspace(5e3, 9e3, IMAGES)
    optics = replace(
        Optics.without_ctf(IMAGES, 2.0),
        amplitude_contrast=torch.full((IMAGES,), 0.1),
        defocus_u_angstrom=defocus,
        defocus_v_angstrom=defocus,
    )
    pixels = torch.randn(IMAGES, BOX, BOX, generator=generator)
    batch = ParticleBatch(pixels, optics, torch.arange(IMAGES)).to(device)
    grid, noise = ReferenceGrid(BOX, 2.0), torch.ones(BOX // 2).to(device)
    images = whiten(batch, grid, RADIUS, noise)
    volume = FourierVolume.from_map(density.to(device), RADIUS)
    symmetry = symmetry_rotations("C2").to(device)
    plan = SearchPlan(3, RADIUS, 2, 2, 2, 0.5, 2.0, symmetry)
    prior = PosePrior(4.0, 0.0)
    slices = grid_slices(volume, images, 2.0, plan, grid_order=0)
    projector = MapProjector(volume)
    rotation = random_rotations(IMAGES, generator).to(device)
    known = Pose(rotation, rotation[:, 2, :2])
    found = global_search(projector, slices, images, known, prior, plan)
    pose = Pose(rotation, found.mode().pose.shift_angstrom)
    start = Latents.rigid(pose, found.mode().defocus_offset_angstrom)
    modes = refine_locally(projector, images, start, PosePrior(4.0, 300.0), 3, 0.1)
    sums = SliceAccumulator.empty(BOX, RADIUS, 2.0, device)
    values = images.moved_back(modes.pose.shift_angstrom) * images.ctf
    insert_slices(sums, modes.pose.rotation, images.disc, values, images.ctf.square())
    sums = symmetrise(sums, symmetry)
    new = solve(sums, torch.full((RADIUS + 2,), 3.0), BOX, BOX)
    new = new * soft_sphere(BOX, 6.0, 1.0, device)
    return [
        found.weight,
        found.covariance,
        *tree_leaves(found.best(3).to_state()),
        PosteriorModes.unknown(start).information,
        ParticlePosterior.at(start, 2).weight,
        found.with_mode(modes).log_likelihood,
        modes.log_evidence(PosePrior(4.0, 300.0)),
        *tree_leaves(modes.latents.to_state()),
        modes.information,
        projector.log_likelihood(images, modes.latents),
        *vars(shell_sums(sums)).values(),
        new * soft_mask(new, 2.0, 10.0),
    ]


def test_all_tensors_stay_on_the_device_of_the_images() -> None:
    with plain_only():
        here = everything(torch.device("cpu"))
    with Elsewhere():
        there = everything(DEVICE)
        assert all(map(is_elsewhere, there))
        there = [value.cpu() for value in there]
    # The same sums, but for the library of the Fourier transforms: rounding, which a
    # local refinement in three shells may carry on.
    for one, other in zip(here, there, strict=True):
        # An entry of the information that cancels is rounded as the largest are.
        largest = float(one.abs().max()) if one.numel() else 0.0
        rounding = 16 * 2**-24 * largest
        torch.testing.assert_close(one, other, rtol=1e-3, atol=max(1e-3, rounding))


def test_the_device_that_is_not_there_is_as_strict_as_one_that_is() -> None:
    with Elsewhere():
        there, here = torch.ones(2, device=DEVICE), torch.ones(2)
        assert there.device == DEVICE
        assert here.device == torch.device("cpu")
        for mixed in (lambda: there + here, lambda: here[there.long()]):
            with pytest.raises(RuntimeError, match="one device"):
                mixed()
        with pytest.raises(TypeError, match="no array"):
            there.numpy()
        assert is_elsewhere(there[torch.tensor([0])] + torch.ones(()))
        assert not is_elsewhere(there.cpu() + here)
        assert is_elsewhere(here.to(there) + there)
