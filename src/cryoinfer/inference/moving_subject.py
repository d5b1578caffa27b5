"""Atoms that move, as inference needs them: no map, no interpolation.

Rotation, shift, defocus and the amplitudes of all modes are climbed together, by
Gauss-Newton with exact slopes.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cryoinfer.inference.lattice import moved
from cryoinfer.inference.refine import LocalPoses, PosePrior
from cryoinfer.inference.whitening import ReferenceGrid, WhitenedImages
from cryoinfer.physics.structures.moving import MovingAtoms
from cryoinfer.physics.structures.slopes import (
    DiscView,
    coefficients,
    coefficients_and_slopes,
)
from cryoinfer.records import Latents

_AT_ONCE = 64
"""Images whose slopes are in memory together: some ten times as much as an image."""

_LONGEST_STEP_SD = 1.0
"""Of an amplitude, in one step, over its prior's sd."""

_NEGLIGIBLE_NATS = 0.01
"""Gain that a step is no longer taken for."""

_FIRST_DAMPING, _LEAST_DAMPING = 1e-2, 1e-6  # over the diagonal of the information
_LESS, _MORE = 0.1, 10.0  # damping after a step that gained, or did not


@dataclass(frozen=True)
class MovingSubject:
    """Atoms or beads that move along modes.

    A :class:`cryoinfer.inference.subjects.Subject`.

    Attributes
    ----------
    moving : MovingAtoms
        In single precision.
    grid : ReferenceGrid
        In whose units the images were whitened.
    coarse : MovingAtoms
        What stands for the atoms at low radii: beads, say.
    coarse_radius : int
        The largest Fourier radius of the grid at which it does.
    """

    moving: MovingAtoms
    grid: ReferenceGrid
    coarse: MovingAtoms
    coarse_radius: int

    def coefficients(self, latents: Latents, images: WhitenedImages) -> Tensor:
        """Return exact coefficients of the atoms in their conformations."""
        pose = latents.pose
        centred = replace(pose, shift_angstrom=torch.zeros_like(pose.shift_angstrom))
        return self._values(images, replace(latents, pose=centred))

    def climb(
        self,
        images: WhitenedImages,
        start: LocalPoses,
        prior: PosePrior,
        steps: int,
        max_turn_radian: float,
    ) -> LocalPoses:
        """Climb to the mode of each image's posterior.

        Levenberg-Marquardt: a step is kept where it raises the posterior.

        Parameters
        ----------
        images : WhitenedImages
            Of n particles.
        start : LocalPoses
            Of the same particles.
        prior : PosePrior
        steps : int
            Most trial steps.
        max_turn_radian : float
            Longest rotation of one step.

        Returns
        -------
        LocalPoses
        """
        if not len(start):
            return start
        done = []
        for rows in torch.arange(len(start)).split(_AT_ONCE):
            climber = _Climber(self, images.select(rows), prior, start.select(rows))
            for _ in range(steps):
                if not climber.step(max_turn_radian):
                    break
            done.append(climber.tops())
        return LocalPoses.joined(done)

    def log_likelihood(self, images: WhitenedImages, latents: Latents) -> Tensor:
        """Return minus the squared residual of each whitened image, float64, (n,)."""
        images = images.at_defocus_offset(latents.defocus_offset_angstrom)
        shown = self._values(images, latents)
        residual = images.coefficients - images.ctf * shown
        return -torch.view_as_real(residual).square().sum((1, 2)).double()

    def _values(self, images: WhitenedImages, latents: Latents) -> Tensor:
        return coefficients(self._moving(images), latents, self._view(images))

    def _moving(self, images: WhitenedImages) -> MovingAtoms:
        """Return the atoms, or what stands for them at the radius of images."""
        reach = float(images.disc.kx.max()) * images.scale
        return self.coarse if reach <= self.coarse_radius else self.moving

    def _view(self, images: WhitenedImages) -> DiscView:
        unit = 1 / (self.grid.box * self.grid.pixel_size_angstrom**2)
        return DiscView(images.disc, images.pixel_size_angstrom, unit)

    def normal_equations(
        self, images: WhitenedImages, latents: Latents, prior: PosePrior
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the log-likelihood, and its slopes and curvatures by the unknowns.

        Returns
        -------
        log_likelihood : Tensor of float64, shape (n,)
        slope : Tensor of float64, shape (n, 6 + c)
        information : Tensor of float64, shape (n, 6 + c, 6 + c)
            Of Gauss and Newton; zero where an unknown is held.
        """
        free = prior.precision >= 0
        ctf_slope = None
        if bool(free[5]):
            images, ctf_slope = images.with_defocus_offset(
                latents.defocus_offset_angstrom
            )
        tilts = bool(free[0])
        view = self._view(images)
        shown, slopes = coefficients_and_slopes(
            self._moving(images), latents, view, tilts
        )
        ctf = images.ctf[:, None]
        jacobian = torch.cat(
            [
                slopes[:, :5] * ctf,
                torch.zeros_like(slopes[:, :1])
                if ctf_slope is None
                else (ctf_slope * shown)[:, None],
                slopes[:, 5:] * ctf,
            ],
            dim=1,
        )
        residual = images.coefficients - images.ctf * shown
        flat = torch.view_as_real(jacobian).flatten(2)
        flat = flat * free[:, None].float()
        left = torch.view_as_real(residual).flatten(1)
        return (
            -left.square().sum(1).double(),
            2 * (flat @ left[..., None])[..., 0].double(),
            2 * (flat @ flat.mT).double(),
        )


class _Climber:
    """Some images, where their climbs are, and what was found there."""

    def __init__(
        self,
        subject: MovingSubject,
        images: WhitenedImages,
        prior: PosePrior,
        start: LocalPoses,
    ) -> None:
        self._subject, self._images, self._prior = subject, images, prior
        self._pull = 2 * prior.precision.clamp(min=0.0)
        self._at = start.latents
        self._found = subject.normal_equations(images, self._at, prior)
        n = len(start)
        self._damping = torch.full((n,), _FIRST_DAMPING, dtype=torch.float64)
        self._active = torch.ones(n, dtype=torch.bool)

    def step(self, max_turn_radian: float) -> bool:
        """Try a step of every image that still climbs; tell whether any does."""
        rows = torch.nonzero(self._active).squeeze(1)
        if not len(rows):
            return False
        value, slope, matrix = (found[rows] for found in self._found)
        at = self._at[rows]
        away = LocalPoses.of(at).departure()
        uphill = slope - self._pull * away
        matrix = matrix + torch.diag(self._pull)
        step, promised = self._proposed(uphill, matrix, self._damping[rows])
        worth = promised > _NEGLIGIBLE_NATS
        self._active[rows[~worth]] = False
        if not bool(worth.any()):
            return False
        rows, step, at = rows[worth], step[worth], at[worth]
        step = self._limited(step, max_turn_radian)
        trial = moved(at, step)
        found = self._subject.normal_equations(
            self._images.select(rows), trial, self._prior
        )
        before = value[worth] - self._prior.loss(LocalPoses.of(at))
        gained = found[0] - self._prior.loss(LocalPoses.of(trial)) > before
        self._damping[rows] *= torch.where(gained, _LESS, _MORE)
        self._damping.clamp_(min=_LEAST_DAMPING)
        kept = rows[gained]
        _put(self._at, kept, trial[gained])
        for whole, part in zip(self._found, found, strict=True):
            whole[kept] = part[gained]
        return True

    def _proposed(
        self, uphill: Tensor, matrix: Tensor, damping: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return damped Newton steps and what a parabola promises of them."""
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        damped = matrix + torch.diag_embed(damping[:, None] * diagonal)
        held = diagonal <= 0
        damped = damped + torch.diag_embed(held.double())
        uphill = torch.where(held, 0.0, uphill)
        step = torch.linalg.solve(damped, uphill)
        return step, 0.5 * (step * uphill).sum(1)

    def _limited(self, step: Tensor, max_turn_radian: float) -> Tensor:
        """Shorten steps that leave the neighbourhood that slopes speak of."""
        turn = step[:, :3].norm(dim=1) / max_turn_radian
        longest = turn.clamp(min=1.0)
        sd = torch.tensor(self._prior.conformation_sd_angstrom, dtype=torch.float64)
        free = sd > 0
        if bool(free.any()):
            far = step[:, 6:][:, free].abs() / (_LONGEST_STEP_SD * sd[free])
            longest = torch.maximum(longest, far.amax(1))
        return step / longest[:, None]

    def tops(self) -> LocalPoses:
        """Return where the climbs have come."""
        value, _, matrix = self._found
        at = self._at
        assert at.conformation is not None
        return LocalPoses(
            at.pose.rotation,
            at.pose.shift_angstrom,
            at.defocus_offset_angstrom,
            matrix + torch.diag(self._pull),
            value,
            at.conformation,
        )


def _put(whole: Latents, rows: Tensor, part: Latents) -> None:
    """Replace some latents."""
    whole.pose.rotation[rows] = part.pose.rotation
    whole.pose.shift_angstrom[rows] = part.pose.shift_angstrom
    whole.defocus_offset_angstrom[rows] = part.defocus_offset_angstrom
    assert whole.conformation is not None
    assert part.conformation is not None
    whole.conformation[rows] = part.conformation
