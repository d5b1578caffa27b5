"""Two rules for two kinds of weights: orthogonal steps for matrices, AdamW for others.

The step of a hidden layer's matrix is made orthogonal (Muon), so that no direction of
it is learned slower than another. Kernels of convolutions are matrices too, of one row
an output channel.
"""

from typing import Any

import torch
from torch import Tensor, nn

_MATRIX_RATE = 20.0
"""Learning rate of matrices over that of the other weights."""


class Optimiser:
    """Changes the weights of a network by their gradients.

    Parameters
    ----------
    network : nn.Module
        Kernels of convolutions in the ``channels_last`` layout.
    ends : tuple of str
        Names of the modules that numbers come in and go out by: their weights are
        not hidden, and learned by AdamW, as are all biases and scales.
    """

    def __init__(self, network: nn.Module, ends: tuple[str, ...]) -> None:
        hidden: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, weight in network.named_parameters():
            inside = weight.dim() >= 2 and not name.startswith(ends)
            (hidden if inside else others).append(weight)
        self._hidden = hidden
        # They share their memory with the weights.
        self._matrices = [nn.Parameter(_as_matrix(weight.data)) for weight in hidden]
        self._muon = torch.optim.Muon(self._matrices, weight_decay=0.0)
        self._adam = torch.optim.AdamW(others, weight_decay=1e-4, fused=True)

    def step(self, learning_rate: float) -> None:
        """Take one step.

        Parameters
        ----------
        learning_rate : float
            Of AdamW.
        """
        for weight, matrix in zip(self._hidden, self._matrices, strict=True):
            assert weight.grad is not None
            matrix.grad = _as_matrix(weight.grad)
        self._muon.param_groups[0]["lr"] = _MATRIX_RATE * learning_rate
        self._adam.param_groups[0]["lr"] = learning_rate
        self._muon.step()
        self._adam.step()

    def state(self) -> dict[str, Any]:
        """Return what the next step depends on, beside weights and gradients."""
        return {"muon": self._muon.state_dict(), "adam": self._adam.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Invert :meth:`state`."""
        self._muon.load_state_dict(state["muon"])
        self._adam.load_state_dict(state["adam"])


def _as_matrix(weight: Tensor) -> Tensor:
    """Return a view of a weight as a matrix of a row an output."""
    if weight.dim() == 4:
        weight = weight.permute(0, 2, 3, 1)
    return weight.flatten(1)
