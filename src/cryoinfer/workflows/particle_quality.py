"""How well particles fit the map that is made of them: contrast, and who is left out.

Ice, edges of the support film and other molecules get a pose like any image. In every
iteration the map's slice is fitted to each image at its pose, at a low radius, where
the signal is (:mod:`cryoinfer.inference.outlier_score`). Images that do not show the
map are left out of the next one, and of the noise; their poses are inferred on, and
they come back once they fit. While all poses are searched only images of unusual power
are left out: a first map does not show rare views well.

Then contrasts are part of the forward model too: the CTF of every image is multiplied
by what is believed of its contrast, the mean of its posterior under a Gaussian prior
that is as wide as contrasts are found to differ (empirical Bayes).
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from cryoinfer.inference.outlier_score import Fit, judge_together
from cryoinfer.records import Indexable

FIT_RADIUS = 2.0
"""Fourier radius of the fit over that of the first map."""

_LEAST_SCALE = 1e-6  # of the median contrast: a map of nothing fits nothing

_TINY = 1e-12

_CONTRAST_RANGE = (0.2, 3.0)
"""What is believed of contrasts, in multiples of the usual one."""


@dataclass(frozen=True)
class ParticleQuality(Indexable):
    """How n particles fit the map.

    Attributes
    ----------
    contrast : Tensor of float64, shape (n,)
        What the map's slice is multiplied by in each image, 1 in the median.
    contrast_sd : Tensor of float64, shape (n,)
        Its error from the noise.
    believed_contrast : Tensor of float64, shape (n,)
        Its posterior mean, nearer to 1 the less the image tells; 1 for flagged ones.
    outlier_score_nats : Tensor of float64, shape (n,)
    flagged : Tensor of bool, shape (n,)
        Which do not show the map.
    left_out : Tensor of bool, shape (n,)
        Which the structure of this iteration is made without.
    """

    contrast: Tensor
    contrast_sd: Tensor
    believed_contrast: Tensor
    outlier_score_nats: Tensor
    flagged: Tensor
    left_out: Tensor

    def __len__(self) -> int:
        return len(self.flagged)

    @classmethod
    def unknown(cls, n: int) -> Self:
        """Return that of n particles before any map: none is flagged."""
        zero = torch.zeros(n, dtype=torch.float64)
        no = torch.zeros(n, dtype=torch.bool)
        return cls(zero + 1, zero + torch.inf, zero + 1, zero, no, no)

    @classmethod
    def of(cls, found: Fit, used: Tensor) -> Self:
        """Judge all particles of a set by how a map fits them.

        Parameters
        ----------
        found : Fit
            Of n particles.
        used : Tensor of bool, shape (n,)
            Which the next structure is made of.
        """
        judged = judge_together(found)
        scale = max(judged.usual.contrast, _LEAST_SCALE)
        contrast, sd = found.contrast / scale, found.contrast_sd / scale
        prior = (judged.usual.contrast_spread / scale) ** 2
        believed = 1 + (contrast - 1) * prior / (prior + sd.square()).clamp(min=_TINY)
        return cls(
            contrast,
            sd,
            believed.clamp(*_CONTRAST_RANGE).masked_fill(judged.outlier, 1.0),
            judged.outlier_score_nats,
            judged.outlier,
            ~used,
        )
