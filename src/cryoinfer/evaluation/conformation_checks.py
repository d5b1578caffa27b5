"""Whether conformations may be something else: the pose, or a rigid motion."""

import torch
from torch import Tensor

_RIDGE = 1e-3
"""Of the design's mean square: an unseen column does no harm."""


def predicted_share(
    z: Tensor, rotation: Tensor, shift_angstrom: Tensor, defocus_angstrom: Tensor
) -> tuple[float, ...]:
    """Return the share of the variance of z that pose and defocus predict.

    A ridge regression on polynomials of the view up to the third order, the angle in
    the plane, the shift and the defocus is fitted to the even particles and judged on
    the odd ones: 0 where it predicts no better than the mean.

    Parameters
    ----------
    z : Tensor, shape (n, q)
    rotation : Tensor, shape (n, 3, 3)
    shift_angstrom : Tensor, shape (n, 2)
    defocus_angstrom : Tensor, shape (n,)
    """
    view, turn = rotation[:, 2].double(), rotation[:, :2].flatten(1).double()
    columns = [view, turn, shift_angstrom.double(), defocus_angstrom.double()[:, None]]
    second = torch.einsum("ni,nj->nij", view, view).flatten(1)
    third = torch.einsum("ni,nj->nij", second, view).flatten(1)
    design = torch.cat([*columns, second, third], 1)
    sd = design.std(0)
    design = (design - design.mean(0)) / torch.where(sd > 1e-6, sd, 1.0)
    design = torch.cat([design, torch.ones_like(design[:, :1])], 1)
    fitted, judged = design[0::2], design[1::2]
    target, seen = z[0::2].double(), z[1::2].double()
    ridge = _RIDGE * len(fitted) * torch.eye(design.shape[1]).double()
    weight = torch.linalg.solve(fitted.T @ fitted + ridge, fitted.T @ target)
    left = (seen - judged @ weight).square().mean(0)
    variance = (seen - seen.mean(0)).square().mean(0).clamp(min=1e-30)
    return tuple((1 - left / variance).clamp(min=0.0).tolist())


def rigid_share(maps: Tensor) -> tuple[float, ...]:
    """Return the share of each component that rigid motions of the mean would make.

    The share of its power in the span of the mean's derivatives along three shifts and
    about three axes.

    Parameters
    ----------
    maps : Tensor, shape (1 + q, m, m, m)
        The mean and the components; axes (z, y, x).
    """
    mean = maps[0].double()
    gradient = torch.stack(torch.gradient(mean), 0)
    line = torch.arange(len(mean)).double() - len(mean) // 2
    place = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), 0)
    turned = torch.linalg.cross(place, gradient, dim=0)
    span, _ = torch.linalg.qr(torch.cat([gradient, turned]).flatten(1).T)
    components = maps[1:].double().flatten(1)
    inside = (components @ span).square().sum(1)
    power = components.square().sum(1).clamp(min=1e-300)
    return tuple((inside / power).tolist())
