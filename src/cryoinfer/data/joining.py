"""Particles of several files as one set."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cryoinfer.data.particles import Particles
from cryoinfer.data.same_images import real_path
from cryoinfer.errors import InputError
from cryoinfer.io.conventions.relion import table_to_relion
from cryoinfer.io.conventions.table import ImageReferences, ParticleTable
from cryoinfer.io.mrc import StackFile
from cryoinfer.io.raw_text import text_of_name
from cryoinfer.records import Optics

_SAME_OPTICS = 1e-5
"""Relative difference of values that files have rounded: to single precision in
cryoSPARC's, to some decimals in RELION's."""


@dataclass(frozen=True)
class Joined:
    """Particles of several parts, in their order.

    Attributes
    ----------
    particles : Particles
        In RELION's terms, whatever the parts came in. What the library does not
        understand is left out, as are poses, half-sets and results.
    groups : tuple of dict of int to int
        For every part, the optics group in the set of each of its own.
    given : tuple of int
        By optics group of the set, its number in the part that it came from.
    """

    particles: Particles
    groups: tuple[dict[int, int], ...]
    given: tuple[int, ...]


def join(parts: Sequence[Particles], given: Sequence[int] = ()) -> Joined:
    """Put particles of several files into one set.

    Optics groups of one number are one group where their optics are the same, and two
    where they are not. Those of the set are numbered from 0 without a gap, as they will
    be when it is read again. The first part keeps the names of its stacks; a stack of
    another folder that has such a name too gets its whole path.

    Parameters
    ----------
    parts : sequence of Particles
    given : sequence of int, optional
        As :attr:`Joined.given`, where the first part is a set that was joined before.

    Raises
    ------
    InputError
        If some have a CTF and others none.
    """
    require_joinable(parts)
    known: list[_Group] = []
    first = _numbered(parts[0], known, dict(enumerate(given)))
    groups = (first, *(_numbered(part, known, {}) for part in parts[1:]))
    stacks: dict[str, tuple[int, StackFile]] = {}
    references = [_named(part, stacks) for part in parts]
    table = ParticleTable(
        images=ImageReferences(
            tuple(stacks),
            np.concatenate([index for index, _ in references]),
            np.concatenate([row for _, row in references]),
        ),
        sign=torch.cat([part.table.sign for part in parts]),
        box=torch.cat([part.table.box for part in parts]),
        optics=_joined_optics(parts, groups),
        has_ctf=parts[0].has_ctf,
    )
    micrographs = [part.table.micrograph for part in parts]
    if all(micrograph is not None for micrograph in micrographs):
        words = [m for m in micrographs if m is not None]
        table = replace(table, micrograph=np.concatenate(words))
    source = table_to_relion(table)
    opened = tuple(stack for _, stack in stacks.values())
    numbers = tuple(group.given for group in known)
    return Joined(Particles(source, table, opened), groups, numbers)


def require_joinable(parts: Sequence[Particles]) -> None:
    """Refuse particles that :func:`join` could not put into one set.

    Raises
    ------
    InputError
        If some have a CTF and others none.
    """
    if len({part.has_ctf for part in parts}) > 1:
        raise InputError(
            "expected a CTF for all particles or for none: some of the files have a "
            "defocus, others do not. Leave one kind out"
        )


def is_further(particles: Particles, known: Sequence[Particles]) -> Tensor:
    """Tell which particles are images that none of the known ones, or before, are.

    Parameters
    ----------
    particles : Particles
        Of length n.
    known : sequence of Particles

    Returns
    -------
    Tensor of bool, shape (n,)
        By file and row; what an image shows is not looked at.
    """
    files: dict[str, int] = {}
    for stack in particles.stacks:
        files.setdefault(real_path(stack.path), len(files))

    def places(part: Particles) -> NDArray[np.int64]:
        images = part.table.images
        numbers = [files.get(real_path(stack.path), -1) for stack in part.stacks]
        # Headers of stacks count their images in 32 bits.
        return np.array(numbers, dtype=np.int64)[images.path_index] << 32 | images.row

    own = places(particles)
    sharing = [
        part
        for part in known
        if any(real_path(stack.path) in files for stack in part.stacks)
    ]
    taken = np.concatenate([own[:0], *map(places, sharing)])
    is_first = np.zeros(len(own), dtype=bool)
    is_first[np.unique(own, return_index=True)[1]] = True
    return torch.from_numpy(is_first & ~np.isin(own, taken))


@dataclass(frozen=True)
class _Group:
    """An optics group of a set: its number where it came from, and what it is like."""

    given: int
    looks: tuple[float, ...]
    odd: tuple[float, ...]
    even: tuple[float, ...]


def _numbered(
    part: Particles, known: list[_Group], given: Mapping[int, int]
) -> dict[int, int]:
    """Return the numbers in the set of a part's optics groups; add new ones."""
    found = {}
    for group in part.optics.group.unique().tolist():
        row = int(torch.nonzero(part.optics.group == group)[0])
        optics = part.table.optics
        looks = (
            float(part.table.box[row]),
            float(optics.pixel_size_angstrom[row]),
            float(optics.voltage_kv[row]),
            float(optics.cs_mm[row]),
            float(optics.amplitude_contrast[row]),
            float(optics.phase_flipped[row]),
            float(optics.ctf_premultiplied[row]),
            *optics.beam_tilt_mrad[row].tolist(),
            *optics.magnification[row].flatten().tolist(),
        )
        series = optics.odd_zernike_radian[row], optics.even_zernike_radian[row]
        own = _Group(given.get(group, group), looks, *map(_significant, series))
        alike = [n for n, one in enumerate(known) if _same_optics(one, own)]
        named = [n for n, one in enumerate(known) if one.given == own.given]
        # A number that stands for other optics says nothing of which group this is.
        same = [n for n in alike if n in named] or (alike if named else [])
        found[group] = same[0] if same else len(known)
        if not same:
            known.append(own)
    return found


def _significant(series: Tensor) -> tuple[float, ...]:
    """Return coefficients up to the last that is not 0."""
    last = torch.nonzero(series)[-1:].flatten().tolist() or [-1]
    return tuple(series[: last[0] + 1].tolist())


def _same_optics(one: _Group, other: _Group) -> bool:
    pairs = (
        (one.looks, other.looks),
        (one.odd, other.odd),
        (one.even, other.even),
    )
    return all(
        len(first) == len(second)
        and all(
            math.isclose(a, b, rel_tol=_SAME_OPTICS)
            for a, b in zip(first, second, strict=True)
        )
        for first, second in pairs
    )


def _named(
    part: Particles, stacks: dict[str, tuple[int, StackFile]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return stack and row of a part's images; new stacks get a place by their name."""
    place = []
    for name, stack in zip(part.table.images.paths, part.stacks, strict=True):
        taken = name in stacks and stacks[name][1].path != stack.path
        key = text_of_name(stack.path) if taken else name
        number, before = stacks.setdefault(key, (len(stacks), stack))
        if len(stack) > len(before):  # it has grown since
            stacks[key] = (number, stack)
        place.append(number)
    images = part.table.images
    return np.array(place, dtype=np.int64)[images.path_index], images.row


def _joined_optics(
    parts: Sequence[Particles], groups: Sequence[dict[int, int]]
) -> Optics:
    numbers = []
    for part, mapping in zip(parts, groups, strict=True):
        table = torch.zeros(max(mapping) + 1, dtype=torch.int64)
        table[list(mapping)] = torch.tensor(list(mapping.values()))
        numbers.append(table[part.optics.group])
    optics = Optics.joined([part.table.optics for part in parts])
    return replace(optics, group=torch.cat(numbers))
