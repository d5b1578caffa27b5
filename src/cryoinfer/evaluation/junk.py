"""How well images that show no particle are told from those that do."""

from dataclasses import dataclass

import torch
from scipy.stats import rankdata
from torch import Tensor


@dataclass(frozen=True)
class JunkComparison:
    """Outlier scores and flags beside what images show.

    Attributes
    ----------
    particles, junk : int
        Images of either kind.
    auc : float or None
        Chance that the score of junk is above that of a particle, ties by half: 0.5 if
        scores say nothing. None without scores, or without particles.
    flagged_junk, flagged_particles : float or None
        Share of either that is flagged; None without flags.
    """

    particles: int
    junk: int
    auc: float | None
    flagged_junk: float | None
    flagged_particles: float | None


def compare_junk(
    is_junk: Tensor, score: Tensor | None, flagged: Tensor | None
) -> JunkComparison:
    """Compare outlier scores and flags with what n images show.

    Parameters
    ----------
    is_junk : Tensor of bool, shape (n,)
        At least one is.
    score : Tensor, shape (n,), or None
        Larger for what is less like a particle; NaN is the largest.
    flagged : Tensor of bool, shape (n,), or None
    """
    junk, particles = int(is_junk.sum()), int((~is_junk).sum())
    auc = None
    if score is not None and particles:
        rank = torch.from_numpy(rankdata(score.double().nan_to_num(torch.inf).numpy()))
        # Mann and Whitney's U over the number of pairs.
        above = float(rank[is_junk].sum()) - junk * (junk + 1) / 2
        auc = above / (junk * particles)
    if flagged is None or not particles:
        return JunkComparison(particles, junk, auc, None, None)
    shares = [float(flagged[one].double().mean()) for one in (is_junk, ~is_junk)]
    return JunkComparison(particles, junk, auc, *shares)
