"""What the floors above agree on: structures, posteriors, progress."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from cryoinfer.records import Latents, Pose


class Structure(Protocol):
    """What is measured: something that can be projected."""

    def project(self, pose: Pose, box: int, pixel_size_angstrom: float) -> Tensor:
        """Return noiseless images without CTF, shape (n, box, box), axes (y, x)."""
        ...


class MovingStructure(Structure, Protocol):
    """A structure that has conformations; what is projected without one is at rest."""

    def at(self, conformation: Tensor) -> Structure:
        """Return it in the conformations (n, d) of n images."""
        ...


class Posterior(Protocol):
    """q(latents | image) for a batch of n particles."""

    def mode(self) -> Latents:
        """Return the most probable latents, leading dimension n."""
        ...

    def sample(self, count: int, generator: torch.Generator) -> Latents:
        """Draw latents with leading dimensions (count, n)."""
        ...

    def log_prob(self, latents: Latents) -> Tensor:
        """Return the log density (or log mass, for a grid), shape (n,)."""
        ...

    def entropy(self) -> Tensor:
        """Return the entropy in nats, shape (n,)."""
        ...


class Monitor(Protocol):
    """How long work tells of its progress, and survives an interruption."""

    def stage(self, name: str, total: int) -> None:
        """Begin a named stage of ``total`` steps; its time is kept by name."""
        ...

    def advance(self, steps: int = 1) -> None:
        """Report that steps of the current stage are done."""
        ...

    def extend(self, steps: int) -> None:
        """Add steps to the current stage, before they begin: it takes longer."""
        ...

    def message(self, text: str) -> None:
        """Tell the user one line, and keep it in the log."""
        ...

    def save_checkpoint(self, state: Mapping[str, object]) -> None:
        """Keep a state of tensors, numbers and strings; replaces the one before."""
        ...

    def load_checkpoint(self) -> Mapping[str, object] | None:
        """Return the state kept by an interrupted run that is being resumed."""
        ...


class SilentMonitor:
    """A :class:`Monitor` that says and keeps nothing: the default in library use."""

    def stage(self, name: str, total: int) -> None:
        """Ignore the stage."""

    def advance(self, steps: int = 1) -> None:
        """Ignore the steps."""

    def extend(self, steps: int) -> None:
        """Ignore them."""

    def message(self, text: str) -> None:
        """Ignore the text."""

    def save_checkpoint(self, state: Mapping[str, object]) -> None:
        """Ignore the state."""

    def load_checkpoint(self) -> Mapping[str, object] | None:
        """Return nothing: there is no run to resume."""
        return None


SILENT = SilentMonitor()
