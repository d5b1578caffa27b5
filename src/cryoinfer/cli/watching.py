"""A folder that fills during a data collection, inferred as it does.

A file is inferred when it and its stacks have not changed for some seconds and can be
read; one that cannot, because its stack is still being written or because it is
damaged, is reported once and tried again. The sums of all slices are kept, so that
renewing the map costs the same however many they are; ``particles.star`` and the
posteriors are written anew for all particles each time. Of a file that has changed
since, as extraction adds to it, those images are inferred that are not in yet. Kept as
well is which files are in: a watch that was stopped, or killed, goes on after the last
map that it wrote, and no image is in a map twice.
"""

import time
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cryoinfer.cli.guard import mendable
from cryoinfer.cli.nothing_found import ONE_MAP, OWN_CAUTIONS, resolution_words
from cryoinfer.cli.particle_options import ParticleOptions
from cryoinfer.cli.progress import RichMonitor
from cryoinfer.cli.rejected_particles import LeftOut
from cryoinfer.cli.results import put_own_cautions, write_found
from cryoinfer.cli.run_folder import RunFolder
from cryoinfer.cli.signals import ENDING
from cryoinfer.cli.watch_state import DEFOCI, Kept
from cryoinfer.cli.watched_files import LeftFiles, Stamp, holds_particles, stamp, stamps
from cryoinfer.data.joining import Joined, is_further, join, require_joinable
from cryoinfer.data.particles import Particles
from cryoinfer.errors import InputError
from cryoinfer.inference.outlier_score import is_outlier
from cryoinfer.results import layout
from cryoinfer.workflows.infer import (
    InferConfig,
    infer_particles,
    reconstruct_inferred,
)
from cryoinfer.workflows.inferred import Inferred
from cryoinfer.workflows.trained_encoder import TrainedEncoder

_LOOK_SECONDS = 2.0
"""Between two looks at the folder."""

_SETTLED_SECONDS = 5.0
"""Without a change before a file is read: writers pause."""

_LOOKS_WHILE_IDLE = 5
"""At least, before the folder counts as idle."""

_WRITE_SECONDS = 60.0
"""Of inference after which results are written although more files wait."""


class Watch:
    """Particles of all files so far, and the map of them.

    Parameters
    ----------
    folder : RunFolder
        Of the run; a state in it is gone on with.
    reading : ParticleOptions
        Of the files in the watched folder.
    trained : TrainedEncoder
    config : InferConfig
    monitor : RichMonitor
        Keeps the state.
    told : mapping
        What is known of the encoder, for the record.
    """

    def __init__(
        self,
        folder: RunFolder,
        reading: ParticleOptions,
        trained: TrainedEncoder,
        config: InferConfig,
        monitor: RichMonitor,
        told: Mapping[str, Any],
    ) -> None:
        self._folder, self._reading, self._monitor = folder, reading, monitor
        self._of_encoder = told
        self._trained, self._config = trained, config
        self._done: dict[str, Stamp] = {}
        self._left = LeftFiles()
        self._particles: Particles | None = None
        self._given: tuple[int, ...] = ()
        self._inferred: Inferred | None = None
        self._waiting: list[tuple[Particles, tuple[Tensor, ...]]] = []
        self._is_whole, self._is_away = True, False
        self._written = time.monotonic()
        state = monitor.load_checkpoint()
        if state is not None:
            self._restore(state)

    @property
    def has_results(self) -> bool:
        """Whether any file has been inferred and written."""
        return self._particles is not None

    @property
    def left(self) -> dict[str, str]:
        """Why files were left for later, by name."""
        return self._left.reasons

    def follow(self, source: Path, until_idle: float | None) -> None:
        """Infer files as they arrive, until Ctrl-C or until nothing has arrived.

        Parameters
        ----------
        source : Path
            A folder.
        until_idle : float or None
            Seconds without a new or changed file, more than 0.
        """
        self._monitor.message(f"Watching {source}; Ctrl-C ends it.")
        try:
            self._look(source, until_idle)
        except KeyboardInterrupt:
            if not self.has_results and not (self._is_whole and self._waiting):
                raise
            self._stop()
            ENDING.settle()

    def conclude(self) -> None:
        """Bring record and report up to what is known now of files that were left.

        Results are to have been written.
        """
        own = self._own_cautions()
        if self._folder.record.results.get(OWN_CAUTIONS) != own:
            put_own_cautions(self._folder, own)

    def _own_cautions(self) -> list[str]:
        """Return what asks for caution in this run alone."""
        return [*self._of_encoder.get(OWN_CAUTIONS, ()), *self._left.cautions()]

    def _stop(self) -> None:
        """Write what was inferred, if all of it belongs together."""
        if not self._is_whole:
            self._monitor.message(
                "Stopped while a file was added: the last map that was written "
                "stands, and --resume infers what came after it."
            )
            return
        self._write()
        self._monitor.message("Stopped. What was inferred is written.")

    def _look(self, source: Path, until_idle: float | None) -> None:
        """Infer and write until nothing has arrived for so long."""
        pause, settled = _LOOK_SECONDS, _SETTLED_SECONDS
        if until_idle is not None:
            shortest = until_idle / _LOOKS_WHILE_IDLE
            pause, settled = min(pause, shortest), min(settled, shortest)
        # By this clock, which that of a file server need not agree with.
        before: dict[str, Stamp] = {}
        since: dict[str, float] = {}
        fresh: set[str] = set()
        look, changed = 0, time.monotonic()
        while True:
            now, clock = self._seen(source, before), time.monotonic()
            if now != before or fresh:
                changed = clock
            elif until_idle is not None and clock - changed >= until_idle:
                return
            self._left.keep(now)
            since = {
                name: since[name] if before.get(name) == seen else clock
                for name, seen in now.items()
            }
            fresh = {name for name in now if clock - since[name] < settled}
            taken = [
                name
                for name in sorted(filter(holds_particles, now))
                if name not in fresh and self._take(source / name, now, look, fresh)
            ]
            self._write()
            if taken:
                # The folder may have filled meanwhile: look again first.
                changed = time.monotonic()
            before, look = now, look + 1
            time.sleep(pause)

    def _seen(self, source: Path, before: dict[str, Stamp]) -> dict[str, Stamp]:
        """Return the files of a folder, as before while it is out of reach."""
        try:
            found = stamps(source)
        except OSError as error:
            if not self._is_away:
                self._monitor.message(f"{source} is out of reach ({error}): waiting.")
            self._is_away = True
            return before
        self._is_away = False
        return found

    def _take(
        self, path: Path, now: Mapping[str, Stamp], look: int, fresh: Container[str]
    ) -> bool:
        """Infer a file unless that is done or just failed; tell whether it was.

        Parameters
        ----------
        path : Path
        now : mapping of str to Stamp
            What its folder holds.
        look : int
            Number of the look.
        fresh : container of str
            What of that has changed just now.
        """
        name = path.name
        if self._done.get(name) == now[name]:
            self._left.drop(name)
            return False
        if self._left.is_to_wait(name, now, look):
            return False
        started = time.perf_counter()
        try:
            particles = self._reading.load(path)
            self._require_passthrough(path, particles)
            remarks, known = particles.remarks, self._known()
            require_joinable([*known[:1], particles])
            stacks = [stack.path for stack in particles.stacks]
            if any(one.parent == path.parent and one.name in fresh for one in stacks):
                return False
            before = [stamp(one) for one in (path, *stacks)]
            further = is_further(particles, known)
            if not bool(further.all()):
                taken = int((~further).sum())
                self._monitor.message(
                    f"{name}: {taken:,} of {len(particles):,} particles are in already."
                )
                particles = particles.select(further)
            if not len(particles):
                self._done[name] = now[name]
                self._left.drop(name)
                return False
            found = infer_particles(
                particles, self._trained, self._seeded(), self._monitor
            )
            if [stamp(one) for one in (path, *stacks)] != before:
                raise InputError("it, or a stack of it, changed while it was inferred")
        except Exception as error:  # of one file among many: a watch goes on
            reason = mendable(error) or f"{type(error).__name__}: {error}"
            if self._left.add(name, now, look, reason):
                self._monitor.message(f"{name} is left for later: {reason}")
            return False
        finally:
            self._keep_times()
        self._left.drop(name)
        self._add(name, now[name], particles, found)
        self._tell(name, remarks, found, time.perf_counter() - started)
        if time.monotonic() - self._written > _WRITE_SECONDS:
            self._write()
        return True

    def _require_passthrough(self, path: Path, particles: Particles) -> None:
        """Refuse a ``.cs`` whose CTF may lie in a table that has not arrived yet."""
        if path.suffix != ".cs" or particles.has_ctf:
            return
        if any(one is not None and one.has_ctf for one in self._trained.imaging):
            raise InputError(
                "expected a CTF, as the encoder's particles have, found none: it may "
                "be in a passthrough table that is not there yet. If there is no CTF, "
                "infer the file without --watch"
            )

    def _keep_times(self) -> None:
        """End the stage and add its time to the run's: waiting is no work."""
        self._monitor.end_stage()
        self._folder.add_times(self._monitor.stage_seconds)
        self._monitor.forget_stages()

    def _known(self) -> list[Particles]:
        """Return what has been inferred, part by part."""
        written = [] if self._particles is None else [self._particles]
        return written + [particles for particles, _ in self._waiting]

    def _add(
        self, name: str, stamp: Stamp, particles: Particles, found: Inferred
    ) -> None:
        # Interrupted in the middle, these would not belong together.
        self._is_whole = False
        total = self._inferred
        self._inferred = found if total is None else total.joined_with(found)
        self._waiting.append((particles, found.noise_power))
        self._done[name] = stamp
        self._is_whole = True

    def _seeded(self) -> InferConfig:
        """Return the configuration with other random halves for every file."""
        before = 0 if self._inferred is None else len(self._inferred)
        return replace(self._config, seed=self._config.seed + before)

    def _write(self) -> None:
        """Renew the map and write everything, the state last."""
        if not self._waiting or self._inferred is None:
            return
        joined, noise = self._joined()
        particles = joined.particles
        inferred = replace(self._inferred, noise_power=noise)
        self._monitor.stage("maps and FSC", 1)
        result = reconstruct_inferred(particles, inferred, self._trained, self._config)
        self._monitor.advance()
        self._keep_times()
        numbers = {
            **self._of_encoder,
            OWN_CAUTIONS: self._own_cautions(),
            "watched_files": len(self._done),
        }
        write_found(self._folder, particles, result, numbers)
        # The defoci as they came: those in the file that is written are inferred.
        defoci = {name: getattr(particles.optics, name) for name in DEFOCI}
        kept = Kept(self._done, defoci, joined.given, inferred)
        self._monitor.save_checkpoint(kept.to_state())
        self._is_whole = False
        self._particles, self._inferred, self._waiting = particles, inferred, []
        self._given = joined.given
        self._is_whole = True
        self._written = time.monotonic()
        self._monitor.message(
            f"Map of {len(particles):,} particles of {len(self._done)} "
            f"file{'s' * (len(self._done) != 1)}: "
            f"{resolution_words(self._folder.record.results, ONE_MAP)}"
        )

    def _joined(self) -> tuple[Joined, tuple[Tensor, ...]]:
        """Return all particles as one set, and the noise of its optics groups."""
        parts = [(one, noise) for one, noise in self._waiting]
        if self._particles is not None:
            assert self._inferred is not None
            parts.insert(0, (self._particles, self._inferred.noise_power))
        joined = join([particles for particles, _ in parts], self._given)
        noise: dict[int, Tensor] = {}
        for (_, spectra), numbers in zip(parts, joined.groups, strict=True):
            for own, number in numbers.items():
                noise.setdefault(number, spectra[own])
        return joined, tuple(noise[number] for number in range(len(joined.given)))

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Go on where the last state was written."""
        kept = Kept.of_state(state, self._trained.encoder.grid.box)
        path = self._folder.path / layout.PARTICLES
        particles = self._reading.of_own().load(path)
        lost = len(kept.inferred) - len(particles)
        if lost > 0:
            raise InputError(
                f"{path} lacks {lost:,} particles that were inferred: put it back as "
                "it was, or start again with --overwrite"
            )
        # Particles are written before the state: there may be more of them.
        known = particles.select(torch.arange(len(kept.inferred)))
        given = replace(known.table.optics, **kept.defoci)
        known = replace(known, table=replace(known.table, optics=given))
        self._done, self._inferred = dict(kept.files), kept.inferred
        self._given = kept.groups
        self._particles = join([known], self._given).particles
        self._monitor.message(
            f"Going on after {len(self._done)} files, {len(known):,} particles."
        )

    def _tell(
        self, name: str, remarks: Sequence[str], found: Inferred, seconds: float
    ) -> None:
        for remark in remarks:
            self._monitor.message(f"{name}: {remark}")
        strange = is_outlier(found.particles.outlier_score_nats)
        left_out = LeftOut.of(strange, found.particles.unreadable)
        broken = left_out.unreadable
        total = 0 if self._inferred is None else len(self._inferred)
        self._monitor.message(
            f"{name}: {len(found):,} particles, {left_out.share:.1%} flagged"
            + (f", {broken:,} not finite" if broken else "")
            + f", {len(found) / seconds:,.0f} images a second; {total:,} in all"
        )
        doubt = left_out.doubt()
        if doubt is not None:
            self._monitor.message(f"{name}: {doubt}")
