"""The widths of an encoder's posteriors, fitted after its training.

While an encoder learns, its errors fall, and the widths that it states follow: where a
training ends they are still too large, by up to a half. A factor for every kind of
unknown, the same for all images, takes that away.
"""

from dataclasses import replace

import torch
from torch import Tensor

from cryoinfer.inference.pose_network import MixtureParameters

_ROUNDS = 50  # of the minimiser, at most


def fitted_narrowing(
    parameters: MixtureParameters, rotation: Tensor, offset: Tensor, symmetry: Tensor
) -> Tensor:
    """Return by how much widths are to be divided for the truths to be likeliest.

    Parameters
    ----------
    parameters : MixtureParameters
        Of n images.
    rotation : Tensor, shape (n, 3, 3)
        True rotations.
    offset : Tensor, shape (n, d - t)
        True shifts, defoci and conformations, over the prior's sd.
    symmetry : Tensor, shape (m, 3, 3)
        Rotations that leave the map as it is, the identity among them.

    Returns
    -------
    Tensor, shape (d,)
        One number for the rotation's unknowns, one for each other.
    """
    others = offset.shape[-1]
    turns = parameters.factor.shape[-1] - others
    of_unknown = torch.tensor([0] * turns + list(range(1, 1 + others)))
    logs = torch.zeros(1 + others, requires_grad=True)
    minimiser = torch.optim.LBFGS(
        [logs], max_iter=_ROUNDS, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        minimiser.zero_grad()
        factor = logs.exp()[of_unknown][:, None] * parameters.factor
        narrowed = replace(parameters, factor=factor)
        value = -narrowed.log_prob_of_orbit(rotation, offset, symmetry).mean()
        value.backward()
        return value

    minimiser.step(loss)
    return logs.detach().exp()[of_unknown]
