"""Local refinement: to the nearest mode of every particle's posterior.

Levenberg-Marquardt on rotation, shift, defocus and conformation together, for any
structure that has normal equations. A structure may bring a refinement of its own
that does the same faster: :class:`FusedRefinement`.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from cryoinfer.inference.modes import PosteriorModes
from cryoinfer.inference.prior import PosePrior
from cryoinfer.inference.projector import NormalEquations, Projector
from cryoinfer.inference.quadrature_grid import moved
from cryoinfer.inference.whitening import WhitenedImages
from cryoinfer.records import Latents

_AT_ONCE = 64
"""Images whose slopes are in memory together: some ten times as much as an image."""

_LONGEST_STEP_SD = 1.0
"""Of an amplitude, in one step, over its prior's sd."""

_NEGLIGIBLE_NATS = 0.01
"""Gain that a step is no longer taken for."""

_FIRST_DAMPING, _LEAST_DAMPING = 1e-2, 1e-6  # over the diagonal of the information
_LESS, _MORE = 0.1, 10.0  # damping after a step that gained, or did not


@runtime_checkable
class FusedRefinement(Protocol):
    """A projector that refines by a loop of its own; the optional fast path."""

    def refine_locally(
        self,
        images: WhitenedImages,
        start: Latents,
        prior: PosePrior,
        steps: int,
        max_rotation_radian: float,
    ) -> PosteriorModes:
        """Do what :func:`refine_locally` does."""
        ...


def reach_radian(radius: int) -> float:
    """Return how far from its mode a refinement at a Fourier radius may begin.

    Farther off, slopes may lead to another mode: the finest detail, a quarter of the
    box from the centre, has then moved by half of its wavelength.
    """
    return 2 / radius


def refine_locally(
    projector: Projector,
    images: WhitenedImages,
    start: Latents,
    prior: PosePrior,
    steps: int,
    max_rotation_radian: float,
) -> PosteriorModes:
    """Refine the latents of every image to the nearest mode of its posterior.

    Parameters
    ----------
    projector : Projector
    images : WhitenedImages
        Of n particles, within the projector's radius.
    start : Latents
        Of the same particles.
    prior : PosePrior
    steps : int
        Most trial steps. A step is kept where it raises the posterior.
    max_rotation_radian : float
        Longest rotation of one step.

    Returns
    -------
    PosteriorModes
    """
    if isinstance(projector, FusedRefinement):
        return projector.refine_locally(
            images, start, prior, steps, max_rotation_radian
        )
    return refine_by_normal_equations(
        projector, images, start, prior, steps, max_rotation_radian
    )


def refine_by_normal_equations(
    projector: Projector,
    images: WhitenedImages,
    start: Latents,
    prior: PosePrior,
    steps: int,
    max_rotation_radian: float,
) -> PosteriorModes:
    """Do the same by nothing but the projector's normal equations."""
    if not len(start):
        return PosteriorModes.unknown(start)
    done = []
    for rows in torch.arange(len(start), device=images.device).split(_AT_ONCE):
        run = _LevenbergMarquardt(projector, images.select(rows), prior, start[rows])
        for _ in range(steps):
            if not run.step(max_rotation_radian):
                break
        done.append(run.modes())
    return PosteriorModes.joined(done)


class _LevenbergMarquardt:
    """Some images, where their refinements are, and what was found there."""

    def __init__(
        self,
        projector: Projector,
        images: WhitenedImages,
        prior: PosePrior,
        start: Latents,
    ) -> None:
        self._projector, self._images, self._prior = projector, images, prior
        self._at = start.double()
        self._prior_information = prior.information.to(self._at.pose.rotation)
        self._found = projector.normal_equations(images, self._at, prior)
        self._damping = torch.full_like(self._found.log_likelihood, _FIRST_DAMPING)
        self._active = torch.ones_like(self._damping, dtype=torch.bool)

    def step(self, max_rotation_radian: float) -> bool:
        """Try a step of every image that still moves; tell whether any does."""
        rows = torch.nonzero(self._active).squeeze(1)
        if not len(rows):
            return False
        known, at = self._found[rows], self._at[rows]
        step, promised = self._proposed(known, at, self._damping[rows])
        worth = promised > _NEGLIGIBLE_NATS
        self._active[rows[~worth]] = False
        if not bool(worth.any()):
            return False
        rows, at, known = rows[worth], at[worth], known[worth]
        trial = moved(at, self._limited(step[worth], max_rotation_radian))
        found = self._projector.normal_equations(
            self._images.select(rows), trial, self._prior
        )
        gained = self._posterior(found, trial) > self._posterior(known, at)
        self._damping[rows] *= torch.where(gained, _LESS, _MORE)
        self._damping.clamp_(min=_LEAST_DAMPING)
        kept = rows[gained]
        self._at = self._at.with_rows(kept, trial[gained])
        self._found = self._found.with_rows(kept, found[gained])
        return True

    def _posterior(self, found: NormalEquations, at: Latents) -> Tensor:
        return found.log_likelihood + self._prior.log_density(at)

    def _proposed(
        self, known: NormalEquations, at: Latents, damping: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return damped Newton steps and what a parabola promises of them."""
        gradient = known.gradient + self._prior.gradient(at)
        matrix = known.information + self._prior_information
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        damped = matrix + torch.diag_embed(damping[:, None] * diagonal)
        held = diagonal <= 0
        damped = damped + torch.diag_embed(held.double())
        gradient = torch.where(held, 0.0, gradient)
        step = torch.linalg.solve(damped, gradient)
        return step, 0.5 * (step * gradient).sum(1)

    def _limited(self, step: Tensor, max_rotation_radian: float) -> Tensor:
        """Shorten steps that leave the neighbourhood that slopes speak of."""
        longest = (step[:, :3].norm(dim=1) / max_rotation_radian).clamp(min=1.0)
        sd = step.new_tensor(self._prior.conformation_sd_angstrom)
        free = sd > 0
        if bool(free.any()):
            far = step[:, 6:][:, free].abs() / (_LONGEST_STEP_SD * sd[free])
            longest = torch.maximum(longest, far.amax(1))
        return step / longest[:, None]

    def modes(self) -> PosteriorModes:
        """Return where the refinements have come."""
        return PosteriorModes(
            self._at,
            self._found.information + self._prior_information,
            self._found.log_likelihood,
        )
