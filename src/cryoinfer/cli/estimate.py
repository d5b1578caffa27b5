"""What a run will take, from counts: to be told before it begins."""

from dataclasses import dataclass

from cryoinfer.cli.options import Workflow


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


def estimate_run(workflow: Workflow, n: int, box: int, threads: int) -> Estimate:
    """Count what a run needs.

    Memory: the program itself, some seventy maps (the sums and transforms of two
    halves on a grid twice as fine are 16 and 8 each, the last passes' references up to
    14), one batch of images, and a few hundred bytes a particle; images stay on disk.
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
    batch_bytes = 500 * 4.0 * box**2
    particle_bytes = {"abinitio": 3000.0, "refine": 3000.0, "reconstruct": 800.0}
    maps_on_disk = {"abinitio": 32, "refine": 32, "reconstruct": 4}
    megapixels = n * box**2 / 1e6
    seconds_per_megapixel = {"abinitio": 0.33, "refine": 0.30, "reconstruct": 0.05}
    seconds_per_map = 20 * map_bytes / 1e8
    return Estimate(
        memory_bytes=0.6e9
        + 70 * map_bytes
        + 8 * batch_bytes
        + n * particle_bytes[workflow],
        disk_bytes=maps_on_disk[workflow] * map_bytes + n * particle_bytes[workflow],
        seconds=12.0
        + seconds_per_map
        + megapixels * seconds_per_megapixel[workflow] / threads,
    )
