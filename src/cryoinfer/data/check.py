"""Look for everything that could spoil a run before the run is started."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from cryoinfer.data import loading
from cryoinfer.data.finding import Finding, Severity
from cryoinfer.data.image_checks import check_images
from cryoinfer.data.optics_checks import check_optics, check_shifts
from cryoinfer.data.particles import Particles
from cryoinfer.data.same_images import repeated_images
from cryoinfer.data.shards import particle_file_of, require_own_shards
from cryoinfer.data.stack_paths import Place
from cryoinfer.errors import InputError
from cryoinfer.io.conventions.table import (
    ImageReferences,
    Microscope,
    ParticleTable,
    require_ignorable,
)
from cryoinfer.io.mrc import StackFile
from cryoinfer.io.pixel_sizes import same_pixel_size
from cryoinfer.io.raw_text import text_of_name

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Opened = tuple[loading.Source, Sequence[StackFile | None]]
_FEW_PARTICLES = 100
# Lets the checks go on when the pixel size is unknown; nothing reported depends on it.
_STAND_IN_ANGSTROM = 1.0
_SHOWN = 5


def check(
    path: Path | str,
    *,
    datadir: Path | str | None = None,
    pixel_size_angstrom: float | None = None,
    ignore: Collection[str] = (),
    passthrough: Sequence[Path | str] = (),
    microscope: Microscope = loading.UNKNOWN,
) -> list[Finding]:
    """Examine particles and go on after each problem where that is possible.

    All images are read once, in batches.

    Parameters
    ----------
    path, datadir, pixel_size_angstrom, ignore, passthrough, microscope
        As for :meth:`~cryoinfer.data.particles.Particles.load`.

    Returns
    -------
    list of Finding
        Without an error among them, the particles can be loaded.
    """
    survey = _Survey()
    path = survey.attempt("file", particle_file_of, Path(path)) or Path(path)
    place = Place(path.parent, None if datadir is None else Path(datadir))
    survey.attempt("file", require_ignorable, ignore)
    survey.attempt("images", place.require_folder)
    if survey.findings:
        return survey.findings
    if loading.is_bare(path):
        survey.attempt("file", loading.require_no_passthrough, path, passthrough)
        survey.attempt("file", loading.require_no_microscope, path, microscope)
        opened = survey.bare_stacks(path, place, pixel_size_angstrom)
    else:
        source = survey.attempt(
            "file", loading.read_source, path, passthrough, microscope
        )
        if source is None:
            return survey.findings
        survey.features(source, ignore)
        survey.remarks(loading.tables_not_used(path, passthrough, source))
        opened = survey.described_stacks(source, place, pixel_size_angstrom)
    if opened is None:
        return survey.findings
    source, stacks = opened
    own = [stack.path for stack in stacks if stack is not None]
    survey.attempt("images", require_own_shards, own, pixels=True)
    table = survey.attempt("metadata", source.table)
    if table is not None:
        survey.metadata(table, stacks)
        survey.images(source, table, stacks)
    return survey.findings


class _Survey:
    """Findings as they come in."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def attempt(
        self, topic: str, step: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs
    ) -> _T | None:
        """Return what a step returns, or None after noting why it cannot."""
        try:
            return step(*args, **kwargs)
        except InputError as error:
            self._add("error", topic, str(error))
            return None

    def features(self, source: loading.Source, ignore: Collection[str]) -> None:
        """Note physics that is not modelled."""
        for item in source.unsupported():
            if item.ignorable and item.name in ignore:
                self._add("note", "physics", f"{item.message}; it is ignored.")
            else:
                cure = item.cure or f"--ignore {item.name} goes on without."
                self._add("error", "physics", f"{item.message}. {cure}")

    def remarks(self, remarks: Sequence[str]) -> None:
        """Note what of the metadata is not used."""
        for remark in remarks:
            self._add("warning", "metadata", remark)

    def bare_stacks(
        self, path: Path, place: Place, pixel_size_angstrom: float | None
    ) -> _Opened | None:
        """Return stacks that came without metadata, and metadata made for them."""
        names: tuple[str, ...] = ()
        if loading.is_list(path):
            names = self.attempt("file", loading.listed_stacks, path) or ()
            stacks = self.stacks(names, place)
        else:
            stacks = [self.attempt("file", loading.open_stack, path)]
            names = (text_of_name(path.name),)
        found = zip(names, stacks, strict=True)
        usable = [(name, stack) for name, stack in found if stack is not None]
        if not usable:
            return None
        names = tuple(name for name, _ in usable)
        readable = tuple(stack for _, stack in usable)
        make = loading.source_of_stacks
        source = self.attempt("pixel size", make, names, readable, pixel_size_angstrom)
        return source or make(names, readable, _STAND_IN_ANGSTROM), readable

    def described_stacks(
        self,
        source: loading.Source,
        place: Place,
        pixel_size_angstrom: float | None,
    ) -> _Opened | None:
        """Return the stacks that metadata name, and the metadata with a pixel size."""
        references = self.attempt("images", source.images)
        if references is None:
            return None
        stacks = self.stacks(references.paths, place)
        declared = self.attempt("metadata", source.pixel_size_angstrom)
        if declared is None:
            return None
        usable = [stack for stack in stacks if stack is not None]
        has_none = bool(np.isnan(declared).any())
        if usable or not has_none:
            completed = self.attempt(
                "pixel size",
                loading.with_pixel_size,
                source,
                usable,
                pixel_size_angstrom,
            )
            if completed is not None:
                declared = self.attempt("metadata", completed.pixel_size_angstrom)
                if declared is None:  # it stands in groups that are not the particles'
                    return None
                self._compare_headers(declared, references, stacks)
                return completed, stacks
        return (
            source.with_pixel_size(_STAND_IN_ANGSTROM) if has_none else source
        ), stacks

    def stacks(self, names: Sequence[str], place: Place) -> list[StackFile | None]:
        """Return the stacks that can be read, None in place of the others."""
        paths = self.attempt("images", place.find_all, names)
        if paths is None:
            return [None] * len(names)
        missing = [n for n, path in zip(names, paths, strict=True) if path is None]
        if missing:
            self._add("error", "images", str(place.missing(missing, len(names))))
        stacks: list[StackFile | None] = []
        failures: list[str] = []
        for path in paths:
            try:
                stack = None if path is None else loading.open_stack(path)
            except InputError as error:
                failures.append(str(error))
                stack = None
            stacks.append(stack)
        for message in failures[:_SHOWN]:
            self._add("error", "images", message)
        if len(failures) > _SHOWN:
            left = len(failures) - _SHOWN
            self._add("error", "images", f"{left} more stacks cannot be used.")
        return stacks

    def metadata(
        self, table: ParticleTable, stacks: Sequence[StackFile | None]
    ) -> None:
        """Note what the table tells."""
        n = len(table)
        if n < _FEW_PARTICLES:
            message = f"Expected at least {_FEW_PARTICLES} particles, found {n}."
            self._add("warning", "particles", message)
        for message in repeated_images(table.images, stacks):
            self._add("warning", "particles", message)
        self.remarks(table.remarks)
        self.findings += check_optics(table)

    def images(
        self,
        source: loading.Source,
        table: ParticleTable,
        stacks: Sequence[StackFile | None],
    ) -> None:
        """Note what the images tell, of the stacks that can be read."""
        images = table.images
        self.attempt("images", loading.require_rows, images, stacks)
        counts = np.array([0 if stack is None else len(stack) for stack in stacks])
        present = counts[images.path_index] > images.row
        rows = torch.from_numpy(np.flatnonzero(present))
        if len(rows) == 0:
            return
        chosen = table.select(rows)
        usable = tuple(stack for stack in stacks if stack is not None)
        place = np.cumsum(counts > 0) - 1
        references = replace(chosen.images, path_index=place[chosen.images.path_index])
        boxes = loading.stack_boxes(references, usable)
        part = source.select(rows.numpy())
        self.attempt("images", loading.with_boxes, part, chosen, boxes)
        chosen = replace(chosen, images=references, box=torch.from_numpy(boxes))
        for remark in loading.odd_boxes(boxes, chosen.optics):
            self._add("note", "images", remark)
        self.findings += check_shifts(chosen, rows)
        self.findings += check_images(Particles(source, chosen, usable), rows)

    def _compare_headers(
        self,
        declared_angstrom: NDArray[np.float64],
        references: ImageReferences,
        stacks: Sequence[StackFile | None],
    ) -> None:
        """Note the first stack whose header has another pixel size."""
        _, first = np.unique(references.path_index, return_index=True)
        declared = declared_angstrom[first].tolist()
        for stack, value in zip(stacks, declared, strict=True):
            header = None if stack is None else stack.pixel_size_angstrom
            if stack and header and not same_pixel_size(header, value):
                self._add(
                    "warning",
                    "pixel size",
                    f"The metadata say {value:.5g} A, which is used, but the header "
                    f"of {stack.path} says {header:.5g} A.",
                )
                return

    def _add(self, severity: Severity, topic: str, message: str) -> None:
        self.findings.append(Finding(severity, topic, message))
