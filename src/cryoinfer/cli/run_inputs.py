"""What a run is given beside its particles: lengths, a map to begin from, a mask."""

import torch
from torch import Tensor

from cryoinfer.cli.map_inputs import MAP_OPTION, read_named_map, read_particle_mask
from cryoinfer.cli.options import RunOptions
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.workflows.refine import StartingMap


def require_lengths(options: RunOptions, particles: Particles) -> None:
    """Refuse lengths that do not go with the box and the pixel size.

    Raises
    ------
    InputError
    """
    pixel_size = particles.pixel_size_angstrom
    side = particles.box * pixel_size
    limits = {
        "--particle-diameter": (options.particle_diameter, 2 * pixel_size, side),
        "--resolution": (options.resolution, 2 * pixel_size, side),
        "--max-shift": (options.max_shift, 0.0, side / 2),
    }
    for name, (value, low, high) in limits.items():
        if value is not None and not low <= value <= high:
            raise InputError(
                f"{name} must lie between {low:.4g} and {high:.4g} A for images of "
                f"{particles.box} pixels of {pixel_size:.4g} A, found {value:g}."
            )


def read_start(options: RunOptions) -> StartingMap | None:
    """Read the map that a refinement begins from, if it begins from one.

    Raises
    ------
    InputError
    """
    if options.map is None:
        if options.map_pixel_size is not None:
            raise InputError(
                f"{MAP_OPTION} goes with --map, and none is given. Leave it out; the "
                "particles' pixel size is --pixel-size."
            )
        return None
    found = read_named_map(
        options.map, options.map_pixel_size, MAP_OPTION, options.reading.pixel_size
    )
    return StartingMap(torch.tensor(found.density), found.pixel_size_angstrom)


def read_mask(options: RunOptions, particles: Particles) -> Tensor | None:
    """Read the mask of a user, on the voxels of the particles, if there is one.

    Raises
    ------
    InputError
        If it cannot be used, or would not be applied.
    """
    if options.mask is None:
        return None
    if options.method != "search":
        raise InputError(
            f"--mask goes with --method search, found --method {options.method}, whose "
            "maps find a mask of their own. Leave it out, and mask the half-maps "
            "afterwards: `cryoinfer postprocess --mask`"
        )
    found = read_particle_mask(
        options.mask, options.particles, particles.box, particles.pixel_size_angstrom
    )
    return torch.from_numpy(found.density).clamp(0.0, 1.0)
