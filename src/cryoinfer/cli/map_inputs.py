"""Maps and masks that a user names: whoever cannot read one says which option helps."""

from pathlib import Path

from cryoinfer.errors import InputError, VoxelSizeError
from cryoinfer.geometry.symmetry import symmetry_rotations
from cryoinfer.io.mrc import MapFile, read_map, read_mask
from cryoinfer.results import layout
from cryoinfer.results.run_record import RunRecord

MAP_OPTION = "--map-pixel-size"
"""Of commands that take a map beside particles."""

PIXEL_OPTION = "--pixel-size"
"""Of commands that take maps alone."""

SAME_VOXEL = 0.01
"""By how much, of itself, the voxel size of one sampling may differ in two headers."""


def imposed_rotations(density: Path) -> int:
    """Return how many rotations of a point group were imposed on a map.

    1 for a map that lies in no folder of a run.
    """
    folder = density.parent
    if not (folder / layout.RECORD).is_file():
        return 1
    try:
        return len(symmetry_rotations(RunRecord.read(folder).symmetry(folder)))
    except InputError:
        return 1  # of another program, or of a run that makes no map


def read_named_map(
    path: Path,
    pixel_size: float | None,
    option: str,
    fallback: float | None = None,
) -> MapFile:
    """Read a map, whose voxel size an option may give.

    Parameters
    ----------
    path : Path
    pixel_size : float or None
        In angstrom, instead of the header's.
    option : str
        What the command calls it, for the message of a map that has none.
    fallback : float or None
        In angstrom, for a map whose header has none: the pixel size that a user has
        given for the particles of the map.

    Raises
    ------
    InputError
        If the map cannot be used.
    """
    try:
        return read_map(path, pixel_size)
    except VoxelSizeError as error:
        if fallback is not None:
            return read_map(path, fallback)
        raise VoxelSizeError(f"{error}. Give {option}.") from error


def read_mask_of(
    path: Path, density: MapFile, name: Path, pixel_size: float | None = None
) -> MapFile:
    """Read the mask of a map; one that does not say its voxel size has the map's.

    Parameters
    ----------
    path : Path
    density : MapFile
        Of the map.
    name : Path
        Of the map's file, for messages.
    pixel_size : float or None
        In angstrom, instead of the header's.

    Raises
    ------
    InputError
        If the mask cannot be used, or is sampled otherwise than the map.
    """
    try:
        mask = read_mask(path, pixel_size)
    except VoxelSizeError:
        mask = read_mask(path, density.pixel_size_angstrom)
    require_same_sampling(path, mask, name, density)
    return mask


def read_particle_mask(
    path: Path, name: Path, box: int, pixel_size_angstrom: float
) -> MapFile:
    """Read a mask on the voxels of particles; without a voxel size it has theirs.

    Parameters
    ----------
    path, name : Path
        Of the mask's file, and of that of the particles, for messages.
    box : int
    pixel_size_angstrom : float

    Raises
    ------
    InputError
        If the mask cannot be used, or is sampled otherwise than the particles.
    """
    try:
        mask = read_mask(path)
    except VoxelSizeError:
        mask = read_mask(path, pixel_size_angstrom)
    ratio = mask.pixel_size_angstrom / pixel_size_angstrom
    if len(mask.density) != box or abs(ratio - 1) > SAME_VOXEL:
        raise InputError(
            f"{path} has {len(mask.density)} voxels of {mask.pixel_size_angstrom:.4g} "
            f"A, the particles of {name} {box} pixels of {pixel_size_angstrom:.4g} A: "
            "expected the same of both, as of a map of these particles. Crop, pad or "
            "resample the mask."
        )
    return mask


def require_same_sampling(
    first: Path, map1: MapFile, second: Path, map2: MapFile
) -> None:
    """Raise :class:`InputError` unless two maps have the same voxels."""
    ratio = map1.pixel_size_angstrom / map2.pixel_size_angstrom
    if map1.density.shape != map2.density.shape or abs(ratio - 1) > SAME_VOXEL:
        raise InputError(
            f"{first} has {len(map1.density)} voxels of "
            f"{map1.pixel_size_angstrom:.4g} A, {second} {len(map2.density)} of "
            f"{map2.pixel_size_angstrom:.4g} A: expected the same of both. Crop, pad "
            "or resample one of them."
        )
