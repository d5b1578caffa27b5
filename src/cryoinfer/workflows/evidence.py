"""Whether images show the map that was made without them, or only what halves share.

Both halves of a run may begin with one map, or with poses that were found with one.
Images of noise alone then align to it, each half gives it back, and the halves agree
(the map "found in noise"): their correlation says nothing within what they share. So
the images of each half are asked about the map of the *other* half. Of an image x and
a map that it was not used for, the evidence over that of no map,

    log mean over poses of exp(2 Re <x, m> - |m|^2),

is at most 0 on average where x is noise (the mean of the ratio itself is 1), whatever
the map and however many poses are tried: the search pays for itself. The same is asked
about maps of noise with the same spectrum and mask, which takes out what a noise level
that is slightly wrong, or any blob in the middle, would gain. Poses are those of the
exhaustive grid, at the radius of the start.

What is left to the halves in common is what the image itself has brought into the map
of the other half, by way of the first map or of given poses. That is less than what it
has brought into its own, which is known from the weights; a quarter is allowed for.
"""

import math

import torch
from torch import Tensor

from cryoinfer.evaluation.fsc import fourier_shell_correlation
from cryoinfer.fourier.grids import FourierDisc
from cryoinfer.fourier.slices import FourierVolume, SliceAccumulator
from cryoinfer.fourier.transform import fourier_to_map, map_to_fourier
from cryoinfer.geometry.so3_grid import rotation_grid
from cryoinfer.inference.coarse import GRID_ORDER, GridSlices, PoseGrid, shift_grid
from cryoinfer.inference.whitening import WhitenedImages, whiten
from cryoinfer.reconstruction.backproject import signal_to_noise, solve
from cryoinfer.results.run_result import Evidence
from cryoinfer.workflows.acquisition import is_usual
from cryoinfer.workflows.problem import Problem, start_radius
from cryoinfer.workflows.residual_noise import own_share
from cryoinfer.workflows.structure_update import find_mask

FEWEST_IMAGES = 20
"""With fewer in all, nothing is asked: their spread is not known."""

_IMAGES = 500  # of a half: the mean of their evidence is known to some hundredths
_NOISE_MAPS = 2
_LARGEST_NATS = 20.0
"""Of an image, either way: one with a speck of light would outweigh all others."""

_COMMON_SHARE = 0.25
"""Of what an image brings into its own half's map, in that of the other half: half of
it in a start that was made of both, and at most half of that is left after the passes.
Of 200 to 400 images of noise a tenth or less was found (tests)."""

_MEMORY_ELEMENTS = 2**23


def structure_evidence(
    problem: Problem,
    noise: tuple[Tensor, ...],
    sums: tuple[SliceAccumulator, SliceAccumulator],
) -> Evidence | None:
    """Ask the images of each half about the map of the other.

    Parameters
    ----------
    problem : Problem
    noise : tuple of Tensor
        Power per optics group and ring.
    sums : tuple of two SliceAccumulator
        Of each half, symmetrised.

    Returns
    -------
    Evidence or None
        None of fewer than 20 images.
    """
    generator = torch.Generator().manual_seed(0)
    radius = start_radius(problem)
    maps, mask, fsc = _references(problem, sums, radius)
    gains = []
    for half in (0, 1):
        other = maps[1 - half]
        unlike = (_noise_like(other, mask, generator) for _ in range(_NOISE_MAPS))
        volumes = [
            FourierVolume.from_map(density.to(problem.device), radius, 2.0)
            for density in (other, *unlike)
        ]
        members = torch.nonzero(problem.half == half).squeeze(1)
        order = torch.randperm(len(members), generator=generator)[:_IMAGES]
        rows = members[order].sort().values
        gains.append(_gains(problem, noise, volumes, rows, radius))
    found = torch.cat(gains, 1)
    if found.shape[1] < FEWEST_IMAGES:
        return None
    # Bounded apart: strong images gain more than that from maps of noise, too.
    gain, over_noise = (
        values.clamp(-_LARGEST_NATS, _LARGEST_NATS)
        for values in (found[0], found[0] - found[1:].mean(0))
    )
    least = gain if float(gain.mean()) < float(over_noise.mean()) else over_noise
    return Evidence(
        images=len(gain),
        gain_nats=float(gain.mean()),
        over_noise_nats=float(over_noise.mean()),
        error_nats=float(least.std()) / math.sqrt(len(gain)),
        common_nats=_COMMON_SHARE * _own_nats(problem, sums, mask, fsc, radius),
    )


def _references(
    problem: Problem, sums: tuple[SliceAccumulator, SliceAccumulator], radius: int
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Return the filtered, masked maps of the halves, their mask and their FSC."""
    box, map_box = problem.grid.box, problem.map_box(radius)
    halves = [solve(one, None, box, map_box) for one in sums]
    mask = find_mask(problem, halves[0] + halves[1], radius)
    fsc = fourier_shell_correlation(halves[0] * mask, halves[1] * mask).float()
    snr = signal_to_noise(fsc, joined=False)
    return [solve(one, snr, box, map_box) * mask for one in sums], mask, fsc


def _noise_like(density: Tensor, mask: Tensor, generator: torch.Generator) -> Tensor:
    """Return a map of noise with the spectrum of a map, in the same mask."""
    box = density.shape[-1]
    noise = map_to_fourier(torch.randn(density.shape, generator=generator) * mask)
    wanted = map_to_fourier(density)
    whole, half = torch.fft.fftfreq(box, 1 / box), torch.arange(box // 2 + 1)
    squared = whole[:, None, None] ** 2 + whole[:, None] ** 2 + half**2
    shell = squared.sqrt().round().long().flatten()
    power = [
        torch.bincount(shell, values.abs().square().flatten().double())
        for values in (wanted, noise)
    ]
    factor = (power[0] / power[1].clamp(min=1e-30)).sqrt().float()
    return fourier_to_map(noise * factor[shell].reshape(squared.shape), box)


def _gains(
    problem: Problem,
    noise: tuple[Tensor, ...],
    volumes: list[FourierVolume],
    rows: Tensor,
    radius: int,
) -> Tensor:
    """Return log evidence of maps over that of none, shape (maps, images)."""
    step = problem.grid.resolution_at(radius) / 3
    shifts = shift_grid(problem.max_shift_angstrom, step)
    grid = PoseGrid(rotation_grid(GRID_ORDER), shifts).to(problem.device)
    poses = len(grid.rotation) * len(shifts)
    found = []
    for batch in problem.batches(rows):
        batch = batch[is_usual(batch.images)]
        if not len(batch):
            continue
        group = int(batch.optics.group[0])
        images = whiten(batch, problem.grid, radius, noise[group])
        slices = [
            GridSlices.of(volume, grid, images.disc, images.scale) for volume in volumes
        ]
        size = max(1, _MEMORY_ELEMENTS // poses)
        for few in torch.arange(len(images)).split(size):
            part = images.select(few)
            found.append(torch.stack([_evidence(one, part) for one in slices]).cpu())
    empty = torch.zeros(len(volumes), 0, dtype=torch.float64)
    return torch.cat([empty, *found], 1)


def _evidence(slices: GridSlices, images: WhitenedImages) -> Tensor:
    ratio = slices.log_likelihood(images).movedim(1, 0).flatten(1).double()
    return torch.logsumexp(ratio, 1) - math.log(ratio.shape[1])


def _own_nats(
    problem: Problem,
    sums: tuple[SliceAccumulator, SliceAccumulator],
    mask: Tensor,
    fsc: Tensor,
    radius: int,
) -> float:
    """Return what an image of noise gains by being in the map of its own half."""
    disc = FourierDisc.of_box(problem.grid.box, radius)
    coefficients = torch.bincount(disc.ring, minlength=radius + 1)[: radius + 1]
    share = own_share(problem, sums[0], radius + 1) * float(mask.mean())
    filtered = share * fsc[: radius + 1].clamp(min=0.0)
    return float(2 * (coefficients * filtered).sum())
