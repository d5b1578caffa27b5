"""What a map of a conformation consists of."""

from dataclasses import dataclass

from torch import Tensor

from cryoinfer.results.run_result import Reconstruction


@dataclass(frozen=True)
class TargetVolume:
    """The map of one conformation, made of the particles near it.

    Attributes
    ----------
    target : Tensor of float64, shape (q,)
        The conformation z.
    reconstruction : Reconstruction
        Map, half-maps, mask and FSC.
    near_particles : int
        Whose posteriors, widened by half of the particles' spread, hold it.
    effective_particles : float
        How many equally weighted particles the map is as good as, to its resolution.
    shell_particles : Tensor of int64, shape (n // 2 + 1,)
        How many each shell is made of.
    """

    target: Tensor
    reconstruction: Reconstruction
    near_particles: int
    effective_particles: float
    shell_particles: Tensor
