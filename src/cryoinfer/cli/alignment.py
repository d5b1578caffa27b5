"""A map brought onto another, and maps that go with it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from cryoinfer.cli.map_inputs import (
    PIXEL_OPTION,
    read_named_map,
    require_same_sampling,
)
from cryoinfer.cli.nothing_found import inherited
from cryoinfer.cli.outputs import require_free_file, write_file
from cryoinfer.cli.terminal import say, say_rows
from cryoinfer.errors import InputError, OutputError
from cryoinfer.evaluation.fsc import fourier_shell_correlation, resolution_at
from cryoinfer.evaluation.map_alignment import (
    Hand,
    MapAlignment,
    Method,
    align_maps,
    moved_map,
)
from cryoinfer.evaluation.pose_error import GlobalAlignment
from cryoinfer.evaluation.rigid_search import MapPair
from cryoinfer.geometry.rotations import geodesic_angle, rotation_vector
from cryoinfer.io.conventions.poses import rotation_to_euler_degrees
from cryoinfer.io.mrc import MapFile, write_map
from cryoinfer.wording import agree_nowhere, format_resolution


@dataclass(frozen=True)
class AlignOptions:
    """What a user asks to be aligned.

    Attributes
    ----------
    moving, reference, out : Path
    also : tuple of Path
        Maps in the frame of the moving one, to be moved along.
    method : {"transport", "bayesian", "search"}
    hand : {"same", "both"}
    partial : bool
    pixel_size : float or None
        In angstrom, instead of the headers'.
    overwrite : bool
    """

    moving: Path
    reference: Path
    out: Path
    also: tuple[Path, ...] = ()
    method: Method = "transport"
    hand: Hand = "same"
    partial: bool = False
    pixel_size: float | None = None
    overwrite: bool = False

    def targets(self) -> list[Path]:
        """Return where the maps are to be written, the moving one's first."""
        named = [f"{self.out.stem}-{path.stem}.mrc" for path in self.also]
        return [self.out, *(self.out.with_name(name) for name in named)]


def align(options: AlignOptions, console: Console) -> None:
    """Write a map in the frame of another, and say which motion that was.

    Raises
    ------
    InputError
        If the maps cannot be used or are sampled differently.
    OutputError
        If a map cannot be written where it is to be.
    """
    paths = (options.moving, *options.also)
    targets = options.targets()
    if len({*targets}) < len(targets):
        raise OutputError(
            "two of the maps that are to be moved along have one name: rename one"
        )
    for target in targets:
        inputs = (*paths, options.reference)
        require_free_file(target, *inputs, overwrite=options.overwrite)
    reference, *maps = (
        read_named_map(path, options.pixel_size, PIXEL_OPTION)
        for path in (options.reference, *paths)
    )
    for path, one in zip(paths, maps, strict=True):
        require_same_sampling(path, one, options.reference, reference)
    voxel = reference.pixel_size_angstrom
    pair = MapPair(_tensor(reference), _tensor(maps[0]), None, _length(reference))
    try:
        found = align_maps(pair, options.method, options.hand, options.partial)
    except InputError as error:
        raise InputError(f"{options.moving} and {options.reference}: {error}") from None
    moved = [moved_map(_tensor(one), found.alignment, voxel) for one in maps]
    say_rows(console, _rows(found, moved[0], reference))
    for target, density in zip(targets, moved, strict=True):
        write_file(target, partial(_write, density, voxel))
        say(console, f"Written to {target}")
    cautions = inherited(options.moving, options.reference)
    for caution in (*cautions, *alignment_cautions(found)):
        say(console, f"Caution: {caution}")


def _write(density: Tensor, voxel_angstrom: float, path: Path) -> None:
    write_map(path, density, voxel_angstrom)


def alignment_cautions(found: MapAlignment) -> Iterator[str]:
    """Yield what speaks against an alignment."""
    if found.is_by_chance():
        yield (
            f"the maps correlate by {found.score:.2f} after the motion, which other "
            f"rotations may reach by chance ({found.chance:.2f}): the motion means "
            "nothing unless the maps are known to show one molecule."
        )
    if found.is_ambiguous() and found.rival is not None:
        apart = turn_degrees(found.rival.rotation.mT @ found.alignment.rotation)
        hands = ", in the other hand" * (
            found.rival.mirrored != found.alignment.mirrored
        )
        yield (
            f"a rotation {apart:.0f} degrees away{hands} does nearly as well "
            f"(correlation {found.rival_score:.2f} in place of {found.score:.2f}), as "
            "for a map that has a symmetry or nearly one."
        )


def spelled_motion(alignment: GlobalAlignment) -> str:
    """Return a motion in a few words, as of the moving map."""
    turn = turn_degrees(alignment.rotation)
    shift = float(alignment.origin_angstrom.norm())
    mirror = "mirrored, then " * alignment.mirrored
    return f"{mirror}turned by {turn:.1f} degrees and shifted by {shift:.1f} A"


def _rows(found: MapAlignment, moved: Tensor, reference: MapFile) -> dict[str, str]:
    turn = found.alignment.rotation.mT
    vector = rotation_vector(turn)
    angle = float(vector.norm())
    axis = (vector / max(angle, 1e-12)).tolist()
    shift = (-turn @ found.alignment.origin_angstrom).tolist()
    rot, tilt, psi = rotation_to_euler_degrees(turn).tolist()
    fixed = _tensor(reference)
    both = torch.stack((moved.flatten(), fixed.flatten())).double()
    fsc = fourier_shell_correlation(moved, fixed)
    box, voxel = len(fixed), reference.pixel_size_angstrom
    reached = resolution_at(fsc, 0.143, box, voxel)
    return {
        "hand": "mirrored" if found.alignment.mirrored else "as it is",
        "rotation": f"{math.degrees(angle):.2f} degrees about "
        + " ".join(f"{x:.4f}" for x in axis),
        "rot, tilt, psi (RELION)": f"{rot:.2f} {tilt:.2f} {psi:.2f} degrees",
        "shift, x y z": " ".join(f"{x:.2f}" for x in shift) + " A",
        "correlation": f"{float(torch.corrcoef(both)[0, 1]):.3f}",
        "FSC 0.143": "none"
        if agree_nowhere(reached, box, voxel)
        else format_resolution(reached, box, voxel),
    }


def turn_degrees(rotation: Tensor) -> float:
    """Return the angle of a rotation."""
    return math.degrees(float(geodesic_angle(rotation, torch.eye(3).to(rotation))))


def _tensor(found: MapFile) -> Tensor:
    return torch.tensor(found.density)


def _length(found: MapFile) -> float:
    return len(found.density) * found.pixel_size_angstrom
