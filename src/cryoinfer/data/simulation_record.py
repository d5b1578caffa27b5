"""What is written of a simulated set, beside its images and maps."""

import json
import math
from dataclasses import asdict

import numpy as np
import torch

from cryoinfer.io.conventions.table import ImageReferences, ParticleTable
from cryoinfer.physics.detector import CountingDetector
from cryoinfer.records import Optics

FORMATION = "simulation.json"
"""How images formed, and their signal to noise."""


def formation_json(
    scattering: str, detector: CountingDetector | None, signal_to_noise: float
) -> str:
    """Return how images formed, as the text of a file.

    Parameters
    ----------
    scattering : str
    detector : CountingDetector, optional
    signal_to_noise : float
        Ratio of variances; infinity, which is ``null`` in the file, without noise.
    """
    noisy = math.isfinite(signal_to_noise)
    told = {
        "model": scattering,
        "detector": None if detector is None else "counting",
        **({} if detector is None else asdict(detector)),
        "signal_to_noise": signal_to_noise if noisy else None,
        "snr_db": 10 * math.log10(signal_to_noise) if noisy else None,
    }
    return json.dumps(told, indent=1) + "\n"


def particle_table(
    optics: Optics, box: int, has_ctf: bool, stack_name: str
) -> ParticleTable:
    """Return the particles of one stack as a file describes them, without poses.

    Parameters
    ----------
    optics : Optics
        Of n particles, in the order of the stack.
    box : int
    has_ctf : bool
    stack_name : str
        As the file names it.
    """
    n = len(optics)
    row = np.arange(n, dtype=np.int64)
    return ParticleTable(
        images=ImageReferences((stack_name,), np.zeros(n, dtype=np.int64), row),
        sign=torch.ones(n),
        box=torch.full((n,), box),
        optics=optics,
        has_ctf=has_ctf,
    )
