"""A set of particles: metadata, and images that stay on disk until asked for."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cryoinfer.data import loading
from cryoinfer.data.chunks import chunks_of
from cryoinfer.data.image_repair import RepairedImages, UsualLevels, repaired
from cryoinfer.data.optics_checks import require_usable
from cryoinfer.data.resampling import even_sized
from cryoinfer.data.same_images import repeated_images
from cryoinfer.data.shards import particle_file_of, require_own_shards
from cryoinfer.data.stack_paths import Place, spell_names
from cryoinfer.errors import InputError
from cryoinfer.io.conventions.cryosparc import CryosparcParticles, table_to_cryosparc
from cryoinfer.io.conventions.relion import RelionParticles, table_to_relion
from cryoinfer.io.conventions.table import (
    Changes,
    Microscope,
    ParticleTable,
    refuse_features,
    require_ignorable,
)
from cryoinfer.io.mrc import StackFile
from cryoinfer.physics.premultiplied import divided_by_ctf
from cryoinfer.records import Optics, ParticleBatch, Pose


@dataclass(frozen=True)
class Particles:
    """Particles with everything that their files say; immutable and picklable.

    Made by :meth:`load`. Whatever the program does not understand, columns, blocks
    and fields, is kept and written back.

    Attributes
    ----------
    source : RelionParticles or CryosparcParticles
        The metadata in their program's terms.
    table : ParticleTable
        The same in the library's terms.
    stacks : tuple of StackFile
        In the order of ``table.images.paths``.
    usual_levels : UsualLevels
        Of these images.
    """

    source: loading.Source
    table: ParticleTable
    stacks: tuple[StackFile, ...]
    usual_levels: UsualLevels = field(
        default_factory=UsualLevels, init=False, repr=False, compare=False
    )

    @classmethod
    def load(
        cls,
        path: Path | str,
        *,
        datadir: Path | str | None = None,
        pixel_size_angstrom: float | None = None,
        ignore: Collection[str] = (),
        passthrough: Sequence[Path | str] = (),
        microscope: Microscope = loading.UNKNOWN,
    ) -> Self:
        """Read particles and find their images.

        Parameters
        ----------
        path : path
            A ``.star`` file of RELION 2 to 5, a ``.cs`` file of cryoSPARC, a stack
            ``.mrcs`` or ``.mrc``, a ``.txt`` list of stacks, or a folder that
            ``cryoinfer prepare`` has written.
        datadir : path, optional
            Folder to search first for the stacks that the metadata name.
        pixel_size_angstrom : float, optional
            Used where the metadata have none, instead of the headers'.
        ignore : collection of str
            Names of physics to go without, such as ``"aberrations"``, that the
            metadata ask for and the program does not model.
        passthrough : sequence of paths
            Passthrough tables of a ``.cs`` file; by default those beside it.
        microscope : Microscope, optional
            Used where the metadata have a defocus and none of it.

        Raises
        ------
        MissingFileError
            If the file or a stack does not exist.
        UnsupportedError
            If the metadata ask for physics that is not modelled nor ignored.
        InputError
            If a file cannot be used; the message says which and why.
        """
        path = particle_file_of(Path(path))
        require_ignorable(ignore)
        place = Place(path.parent, None if datadir is None else Path(datadir))
        place.require_folder()
        source: loading.Source
        if loading.is_bare(path):
            loading.require_no_passthrough(path, passthrough)
            loading.require_no_microscope(path, microscope)
            names, stacks = loading.open_bare(path, place)
            source = loading.source_of_stacks(names, stacks, pixel_size_angstrom)
        else:
            source = loading.read_source(path, passthrough, microscope)
            refuse_features(source.unsupported(), ignore)
            stacks = loading.open_stacks(source.images().paths, place)
            source = loading.with_pixel_size(source, stacks, pixel_size_angstrom)
        require_own_shards([stack.path for stack in stacks])
        table = source.table()
        require_usable(table)
        loading.require_rows(table.images, stacks)
        left = loading.tables_not_used(path, passthrough, source)
        repeated = repeated_images(table.images, stacks)
        boxes = loading.stack_boxes(table.images, stacks)
        odd = loading.odd_boxes(boxes, table.optics)
        table = replace(table, remarks=(*table.remarks, *left, *repeated, *odd))
        return cls(source, loading.with_boxes(source, table, boxes), stacks)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def box(self) -> int:
        """Image size in pixels of the first particle."""
        return int(self.boxes[0])

    @cached_property
    def boxes(self) -> Tensor:
        """Image size in pixels of every particle as it is read, int64, even, (n,)."""
        return self.table.box - self.table.box % 2

    @property
    def pixel_size_angstrom(self) -> float:
        """Pixel size of the first particle."""
        return float(self.optics.pixel_size_angstrom[0])

    @cached_property
    def optics(self) -> Optics:
        """Optics of every particle as its image is read, float64, shape (n,)."""
        optics, box = self.table.optics, self.table.box
        if not bool((box % 2).any()):
            return optics
        # Fewer pixels over the same field of view.
        size = optics.pixel_size_angstrom * box / self.boxes
        return replace(optics, pixel_size_angstrom=size)

    @property
    def has_ctf(self) -> bool:
        """Whether the metadata describe a CTF; without one it is 1."""
        return self.table.has_ctf

    @property
    def pose(self) -> Pose | None:
        """Poses of the metadata, float64, or None if there are none."""
        return self.table.pose

    @property
    def random_subset(self) -> Tensor | None:
        """Half-set 1 or 2 of every particle, int64, or None.

        Both have particles: of some particles alone there may be no halves.
        """
        subset = self.table.random_subset
        is_split = subset is not None and len(subset.unique()) == 2
        return subset if is_split else None

    @property
    def pose_problem(self) -> str:
        """Why there are no poses although the metadata have some; empty otherwise."""
        return self.table.pose_problem

    @property
    def remarks(self) -> tuple[str, ...]:
        """What of the metadata is not used as it seems to be meant, and why."""
        return self.table.remarks

    def images(self, index: Tensor) -> Tensor:
        """Read images, repaired and of an even size.

        Hot pixels, ramps and units unlike those of most images are taken out
        (:mod:`cryoinfer.data.image_repair`). Images of an odd size are cropped by a
        pixel in Fourier space, which keeps their field of view and their centre
        (:func:`cryoinfer.data.resampling.even_sized`).

        Parameters
        ----------
        index : Tensor of int64, shape (b,)
            Particles, all of one box.

        Returns
        -------
        Tensor of float32, shape (b, box, box)
            Particles white on black, otherwise as stored.

        Raises
        ------
        InputError
            If the particles have several boxes.
        """
        return even_sized(self.repaired_images(index).images)

    def repaired_images(self, index: Tensor) -> RepairedImages:
        """Read images as :meth:`images` does, of the size that they have."""
        index, levels = index.cpu(), self.usual_levels
        stored = self.stored_images(index)
        places = levels.doubtful(index, len(self))
        if not len(places):
            return RepairedImages.untouched(stored)
        some = stored if len(places) == len(stored) else stored[places]
        rows = index[places]
        made = repaired(some, levels.of(self.table, rows, self.stored_images))
        levels.keep_sound(rows, made)
        return made.among(stored, some, places)

    def stored_images(self, index: Tensor) -> Tensor:
        """Read images from disk as recorded; particles white on black."""
        index = index.cpu()
        boxes = self.table.box[index].unique()
        if len(boxes) > 1:
            raise InputError(
                f"Images of {boxes.tolist()} pixels cannot be read together. Take the "
                "particles of one optics group at a time."
            )
        rows = self.table.images.row[index.numpy()]
        images = self._read(self.table.images.path_index[index.numpy()], rows)
        sign = self.table.sign[index]
        if bool((sign < 0).any()):
            images *= sign[:, None, None]
        return divided_by_ctf(images, self.table.optics[index])

    def batch(self, index: Tensor) -> ParticleBatch:
        """Read images, of one box, with their optics."""
        index = index.cpu()
        return ParticleBatch(self.images(index), self.optics[index], index)

    def batches(
        self, size: int, index: Tensor | None = None
    ) -> Iterator[ParticleBatch]:
        """Yield all particles, or those of ``index``, in batches of one box each.

        Parameters
        ----------
        size : int
            The most particles a batch; of large boxes it holds fewer.
        index : Tensor of int64, optional
            The order is kept among particles of one box.
        """
        index = torch.arange(len(self)) if index is None else index.cpu()
        for rows in self.chunks(size, index):
            yield self.batch(rows)

    def chunks(self, size: int, index: Tensor) -> list[Tensor]:
        """Return rows in chunks of one box each, as :meth:`batches` reads them."""
        return chunks_of(index, self.table.box[index], size)

    def select(self, index: Tensor) -> Self:
        """Return some particles, by number or by a mask of all of them."""
        index = index.cpu()
        if index.dtype == torch.bool:
            index = torch.nonzero(index).squeeze(1)
        return replace(
            self,
            source=self.source.select(index.numpy()),
            table=self.table.select(index),
        )

    def with_results(
        self,
        *,
        pose: Pose | None = None,
        defocus_offset_angstrom: Tensor | None = None,
        random_subset: Tensor | None = None,
        columns: Mapping[str, ArrayLike] | None = None,
    ) -> Self:
        """Return the particles with what an inference has found out.

        Parameters
        ----------
        pose : Pose, of length n, optional
        defocus_offset_angstrom : Tensor, shape (n,), optional
            Added to both defoci; without a CTF it has no meaning and is left out.
        random_subset : Tensor of int64, shape (n,), optional
            Half-set, 1 or 2.
        columns : mapping of str to array, shape (n,), optional
            Under RELION's names or names that begin with ``cryoinfer``.

        Raises
        ------
        ValueError
            If a length is not that of the particles.
        """
        results = {k: _array(k, v, len(self)) for k, v in (columns or {}).items()}
        table = self.table
        defocus: dict[str, Tensor] = {}
        if pose is not None:
            pose = Pose(_host(pose.rotation, self), _host(pose.shift_angstrom, self))
            table = replace(table, pose=pose)
        if defocus_offset_angstrom is not None and self.has_ctf:
            offset = _host(defocus_offset_angstrom, self)
            defocus = {
                name: getattr(table.optics, name) + offset
                for name in ("defocus_u_angstrom", "defocus_v_angstrom")
            }
            table = replace(table, optics=replace(table.optics, **defocus))
        if random_subset is not None:
            random_subset = _host(random_subset, self).long()
            table = replace(table, random_subset=random_subset)
        changes = Changes(
            pose=pose,
            defocus_u_angstrom=defocus.get("defocus_u_angstrom"),
            defocus_v_angstrom=defocus.get("defocus_v_angstrom"),
            random_subset=random_subset,
            pixel_size_angstrom=table.optics.pixel_size_angstrom,
            results=results,
        )
        return replace(
            self,
            source=self.source.with_changes(changes),
            table=replace(table, results={**table.results, **results}),
        )

    def save(self, path: Path | str) -> None:
        """Write the metadata as ``.star`` or ``.cs``, whichever the ending says.

        In the format that was read, every row, column and block is kept. In the
        other one are written: images, CTF, pixel size, poses, half-sets, classes,
        the micrographs' names and results of this program.

        Paths of stacks stay as they are where they lead there from the folder of
        ``path`` or one above; else they become relative. RELION has its project's.

        Raises
        ------
        InputError
            If the ending is another one.
        OutputError
            If the file cannot be written.
        """
        path = Path(path)
        if path.suffix not in (".star", ".cs"):
            raise InputError(
                f"Cannot write particles as {path.name}: expected .star or .cs"
            )
        images = self.table.images
        stacks = [stack.path for stack in self.stacks]
        names = spell_names(dict(zip(images.paths, stacks, strict=True)), path.parent)
        source = self.source
        paths = tuple(names[name] for name in images.paths)
        table = replace(self.table, images=replace(images, paths=paths))
        if path.suffix == ".star" and not isinstance(source, RelionParticles):
            source = table_to_relion(table)
        elif path.suffix == ".cs" and not isinstance(source, CryosparcParticles):
            source = table_to_cryosparc(table)
        else:
            source = source.with_paths(names)
        source.with_image_size(self.table.box.numpy()).write(path)

    def _read(self, stack_index: NDArray[np.int64], rows: NDArray[np.int64]) -> Tensor:
        """Copy images out of their stacks, which are open only for this moment.

        Thousands of open stacks would exhaust the open files of the process.
        """
        used = np.unique(stack_index)
        if len(used) == 1:
            return torch.from_numpy(self.stacks[used[0]].read(rows))
        box = self.stacks[used[0]].shape[1] if len(used) else 0
        images = np.empty((len(rows), box, box), dtype=np.float32)
        for i in used.tolist():
            here = np.flatnonzero(stack_index == i)
            images[here] = self.stacks[i].read(rows[here])
        return torch.from_numpy(images)


def _host(values: Tensor, particles: Particles) -> Tensor:
    if len(values) != len(particles):
        raise ValueError(f"expected {len(particles)} values, got {len(values)}")
    return values.detach().to("cpu", torch.float64)


def _array(name: str, values: ArrayLike, n: int) -> NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if array.shape != (n,):
        raise ValueError(f"column {name}: expected shape ({n},), got {array.shape}")
    return array
