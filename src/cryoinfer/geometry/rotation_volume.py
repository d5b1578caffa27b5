"""How much there is to rotate: volumes of sets of rotations."""

import math

import torch
from torch import Tensor

ALL_TURNS, IN_PLANE = 3, 1
"""How many directions of rotation are unknown: all, or that about the optical axis."""

LOG_VOLUME_OF_ROTATIONS = math.log(8 * math.pi**2)
"""Of all rotations, in cubic radians about any one of them."""

VARIANCE_OF_ANY_TURN = (math.pi**2 / 3 + 2) / 3
"""About one axis, in radian squared, of the rotation vectors of random rotations."""

LOG_VOLUME_OF_TURNS = {
    ALL_TURNS: LOG_VOLUME_OF_ROTATIONS,
    IN_PLANE: math.log(2 * math.pi),
    0: 0.0,
}
"""Of what can be turned to in as many directions."""


def log_exponential_volume(angle: Tensor) -> Tensor:
    """Return the log of how the exponential map scales volumes at an angle.

    ``2 (1 - cos angle) / angle^2``, 1 at zero and 4 / pi^2 at half a turn: a density of
    rotation vectors divided by it is one of rotations (Chirikjian, Stochastic Models,
    Information Theory, and Lie Groups 2, 2012, section 10.3).

    Parameters
    ----------
    angle : Tensor
        Radians, 0 to pi.
    """
    return 2 * torch.sinc(angle / (2 * math.pi)).log()
