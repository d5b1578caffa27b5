"""What a run will take, from counts: to be told before it begins."""

from dataclasses import dataclass, replace

from cryoinfer.cli.options import Workflow
from cryoinfer.data.chunks import PIXELS_AT_ONCE
from cryoinfer.fourier.slices import DEFAULT_PADDING
from cryoinfer.inference.published_encoder import PoseChoice
from cryoinfer.inference.published_training import PublishedConfig
from cryoinfer.workflows.problem import CHUNK
from cryoinfer.workflows.structure_update import padding_at

_PROGRAM_BYTES = 0.6e9
_START_SECONDS = 12.0
_PARTICLE_BYTES = 3000.0

_USUAL_STARTS = 2
"""Random starts that the seconds of a search count in."""

_RANDOM_START_SECONDS = 5.0
"""Of one more, on one core, whatever the images: two of 9,000 images at -10 dB take 5
seconds on two (section 1). Where poses stay uncertain, up to 15 times as long."""

_STEP_SECONDS = 0.09
"""Of a training, on one core, for pictures of 32 pixels
(``benchmarks/README.md``, section 9)."""

_TRIAL_SECONDS = 60.0  # of posteriors on simulated images, on one core
_REFINED_MEGAPIXEL_SECONDS = 0.15
"""Of encoder, local refinement and insertion, on one core."""

_MOVING_MEGAPIXEL_SECONDS = 11.0
"""Of search, refinement and trial of a structure of 1,656 atoms and three modes, on one
core (section 20)."""

_LEARNT_MEGAPIXEL_SECONDS = 2.5  # of one round of learning (section 22)

_PUBLISHED_MEGAPIXEL_SECONDS = 2.2
"""Of a step of cryoPoseNet's encoder, on one core: 2.0 to 2.5 at boxes of 24 to 128, in
single precision (by hand; benchmarks, section 17, has half precision)."""

_PUBLISHED_MEGAVOXEL_SECONDS = 0.3
"""Of a step of its map, likewise: 0.2 to 0.5."""

_PUBLISHED_WEIGHT_BYTES = 4.0 * 512 * 128 / 64
"""A pixel of the box: nearly all weights of the encoder are of its first dense layer,
512 for each of 128 filters at a 64th of the pixels."""


_SUBSPACE_SECONDS, _STATES_SECONDS, _SEARCHED_SECONDS = 0.03, 0.03, 0.025
"""A particle, on one core, of: the iterations that learn a subspace of four
components; ab initio runs of all particles and of four states; a search in five maps.
By hand, to a factor of two, of 10,000 images at a radius of 12 Fourier pixels."""

_SUBSPACE_RADIUS = 12.0
_SUMS_BYTES = 8 * 8 * 2.0
"""A voxel and pair of maps: of both half-sets, with what solving them takes."""


@dataclass(frozen=True)
class Estimate:
    """What a run takes, within a factor of about two.

    Attributes
    ----------
    memory_bytes : float
        At the peak.
    disk_bytes : float
        In the run folder.
    seconds : float
    """

    memory_bytes: float
    disk_bytes: float
    seconds: float

    def with_starts(self, starts: int, threads: int) -> "Estimate":
        """Return that of a search with another number of random starts."""
        more = (starts - _USUAL_STARTS) * _RANDOM_START_SECONDS / threads
        return replace(self, seconds=self.seconds + more)

    def for_used(self, fewer: "Estimate") -> "Estimate":
        """Return this one with the time of a run that leaves some particles out.

        All of them are read and written.
        """
        return replace(self, seconds=fewer.seconds)


def estimate_run(workflow: Workflow, n: int, box: int, threads: int) -> Estimate:
    """Count what a run needs.

    Memory: the program itself, some seventy maps (the sums and transforms of two
    halves on a grid twice as fine are 16 and 8 each; fewer of large boxes, which are
    padded less), one batch of images, and a few hundred bytes a particle; images stay
    on disk. 1.3, 5.1 and 21 GB were taken at boxes of 128, 256 and 512
    (``benchmarks/README.md``, section 36), and are 1.4, 5.5 and 23 by these counts.
    Disk: four maps, a line and the posterior of each particle, and the checkpoint,
    twice while it is replaced. Time: a cost a particle that grows with the number of
    its pixels, shared by the threads, and one a map; its constant is that of 9,000
    images of 128 x 128 on two cores (``benchmarks/README.md``, section 1).

    Parameters
    ----------
    workflow : {"abinitio", "refine", "reconstruct"}
    n : int
        Particles.
    box : int
        Their size in pixels.
    threads : int
    """
    map_bytes = 4.0 * box**3
    batch_bytes = 4.0 * min(CHUNK * box**2, PIXELS_AT_ONCE)
    padded_maps = 48 * (padding_at(box // 2) / DEFAULT_PADDING) ** 3
    particle_bytes = {"abinitio": 3000.0, "refine": 3000.0, "reconstruct": 800.0}
    maps_on_disk = {"abinitio": 32, "refine": 32, "reconstruct": 4}
    megapixels = n * box**2 / 1e6
    seconds_per_megapixel = {"abinitio": 0.33, "refine": 0.30, "reconstruct": 0.05}
    seconds_per_map = 20 * map_bytes / 1e8
    return Estimate(
        memory_bytes=_PROGRAM_BYTES
        + (22 + padded_maps) * map_bytes
        + 8 * batch_bytes
        + n * particle_bytes[workflow],
        disk_bytes=maps_on_disk[workflow] * map_bytes + n * particle_bytes[workflow],
        seconds=_START_SECONDS
        + seconds_per_map
        + megapixels * seconds_per_megapixel[workflow] / threads,
    )


def estimate_training(steps: int, side: int, box: int, threads: int) -> Estimate:
    """Count what the training of an encoder needs, trials included.

    Parameters
    ----------
    steps : int
    side, box : int
        Of the encoder's picture and of the images, in pixels.
    threads : int
    """
    map_bytes = 4.0 * box**3
    seconds = _training_seconds(steps, side) + _TRIAL_SECONDS
    return Estimate(
        memory_bytes=2 * _PROGRAM_BYTES + 30 * map_bytes,
        disk_bytes=50e6,  # the encoder, and its checkpoint twice while it is replaced
        seconds=_START_SECONDS + seconds / threads,
    )


def estimate_inference(n: int, box: int, threads: int) -> Estimate:
    """Count what an inference of particles by an encoder needs, with its map.

    Parameters
    ----------
    n, box, threads : int
        As for :func:`estimate_run`.
    """
    like = estimate_run("refine", n, box, threads)
    seconds = n * box**2 / 1e6 * _REFINED_MEGAPIXEL_SECONDS
    return Estimate(
        like.memory_bytes, like.disk_bytes, _START_SECONDS + seconds / threads
    )


def estimate_amortized(
    workflow: Workflow, n: int, box: int, threads: int, searched: int, steps: int
) -> Estimate:
    """Count what a run needs that searches some particles and infers all.

    Parameters
    ----------
    workflow, n, box, threads
        As for :func:`estimate_run`.
    searched : int
        Particles.
    steps : int
        Of the training.
    """
    whole = estimate_run(workflow, n, box, threads)
    part = estimate_run(workflow, min(n, searched), box, threads)
    work = _training_seconds(steps, 32) + n * box**2 / 1e6 * _REFINED_MEGAPIXEL_SECONDS
    return Estimate(whole.memory_bytes, whole.disk_bytes, part.seconds + work / threads)


def estimate_published(
    training: PublishedConfig, head: PoseChoice, n: int, box: int, threads: int
) -> Estimate:
    """Count what a run of cryoPoseNet needs.

    All images are in memory, and the run is one of given poses otherwise.

    Parameters
    ----------
    training : PublishedConfig
    head : PoseChoice
    n, box, threads : int
        As for :func:`estimate_run`.
    """
    like = estimate_run("reconstruct", n, box, threads)
    seconds = box**3 / 1e6 * _PUBLISHED_MEGAVOXEL_SECONDS
    state = 0.0
    if head not in ("known", "free"):
        seconds += training.batch * box**2 / 1e6 * _PUBLISHED_MEGAPIXEL_SECONDS
        # With the moments of Adam, twice while a checkpoint is replaced.
        state = 2 * 3 * _PUBLISHED_WEIGHT_BYTES * box**2
    return Estimate(
        like.memory_bytes + 2 * 4.0 * n * box**2 + state,
        like.disk_bytes + state,
        like.seconds + training.steps * seconds / threads,
    )


@dataclass(frozen=True)
class MotionWork:
    """What decides how long motions take to infer.

    Attributes
    ----------
    atoms, modes : int
    steps, side : int
        Of the training of an encoder; no steps for none.
    draws : int
        Further starts of refinements.
    rounds : int
        Of learning.
    """

    atoms: int
    modes: int
    steps: int
    side: int
    draws: int
    rounds: int


def estimate_motions(work: MotionWork, n: int, box: int, threads: int) -> Estimate:
    """Count what an inference of motions needs.

    Parameters
    ----------
    work : MotionWork
    n, box, threads : int
        As for :func:`estimate_run`.
    """
    like = estimate_run("refine", n, box, threads)
    # One matrix product an image has atoms times unknowns.
    size = (work.atoms / 1656) * (6 + work.modes) / 9
    an_image = _MOVING_MEGAPIXEL_SECONDS * (1 + work.draws / 2)
    an_image += _LEARNT_MEGAPIXEL_SECONDS * work.rounds
    seconds = n * box**2 / 1e6 * an_image * size
    seconds += _training_seconds(work.steps, work.side)
    return Estimate(
        memory_bytes=3 * _PROGRAM_BYTES + n * _PARTICLE_BYTES,
        disk_bytes=like.disk_bytes,
        seconds=_START_SECONDS + seconds / threads,
    )


@dataclass(frozen=True)
class HeterogeneityWork:
    """What decides how long conformations take to infer.

    Attributes
    ----------
    learning : int
        Particles that the subspace is learned from.
    radius : float
        Of conformations, in Fourier pixels.
    dims : int
        Components that are tried.
    searches : bool
        Whether poses are unknown.
    steps : int
        Of the training of an encoder; 0 for a search of all particles.
    """

    learning: int
    radius: float
    dims: int
    searches: bool
    steps: int


def estimate_heterogeneity(
    work: HeterogeneityWork, n: int, box: int, threads: int
) -> Estimate:
    """Count what an inference of conformations needs.

    Parameters
    ----------
    work : HeterogeneityWork
    n, box, threads : int
        As for :func:`estimate_run`.
    """
    like = estimate_run("refine", n, box, threads)
    seconds = _SUBSPACE_SECONDS * work.learning * (1 + work.dims) / 5
    if work.searches:
        searched = min(n, work.learning) if work.steps else n
        seconds += _STATES_SECONDS * work.learning + _SEARCHED_SECONDS * searched
    seconds *= (work.radius / _SUBSPACE_RADIUS) ** 2
    if work.steps:
        seconds += _training_seconds(work.steps, 32) + _TRIAL_SECONDS
        seconds += n * box**2 / 1e6 * _REFINED_MEGAPIXEL_SECONDS * (1 + work.dims)
    pairs = (1 + work.dims) * (2 + work.dims) / 2
    # Padded twofold, half of a cube, to the radius of the last maps.
    voxels = (4 * work.radius / 0.45) ** 3 / 2
    return Estimate(
        memory_bytes=3 * _PROGRAM_BYTES
        + n * _PARTICLE_BYTES
        + _SUMS_BYTES * pairs * voxels,
        disk_bytes=like.disk_bytes,
        seconds=_START_SECONDS + seconds / threads,
    )


def _training_seconds(steps: int, side: int) -> float:
    """Return what a training takes on one core."""
    return steps * _STEP_SECONDS * (side / 32) ** 2
