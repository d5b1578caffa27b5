"""Compiled steps of Levenberg and Marquardt, for any number of unknowns (CPU).

The unknowns are a rotation vector in the image frame, the shift in pixels, the defocus,
and whatever follows. All in the order written: steps are the same in every kernel.
Arrays are copied and added element by element: what numba makes of a whole assignment
checks its shapes and words the error, which takes seconds to compile.
"""

import math

from cryoinfer.fourier.kernels import Array, compiled_in_order


@compiled_in_order
def copy_vector(values: Array, out: Array) -> None:
    """Copy a vector."""
    for a in range(values.shape[0]):
        out[a] = values[a]


@compiled_in_order
def copy_matrix(values: Array, out: Array) -> None:
    """Copy a matrix."""
    for a in range(values.shape[0]):
        for b in range(values.shape[1]):
            out[a, b] = values[a, b]


@compiled_in_order
def fill_matrix(out: Array, value: float) -> None:
    """Set all entries of a matrix."""
    for a in range(out.shape[0]):
        for b in range(out.shape[1]):
            out[a, b] = value


@compiled_in_order
def scale_matrix(values: Array, factor: float, out: Array) -> None:
    """Fill ``out`` with a multiple of a matrix."""
    for a in range(values.shape[0]):
        for b in range(values.shape[1]):
            out[a, b] = values[a, b] * factor


@compiled_in_order
def add_vectors(first: Array, second: Array, out: Array) -> None:
    """Fill ``out`` with the sum, which may be one of the two."""
    for a in range(first.shape[0]):
        out[a] = first[a] + second[a]


@compiled_in_order
def damped_step(
    matrix: Array,
    gradient: Array,
    precision: Array,
    start: Array,
    moved: Array,
    damping: float,
    step: Array,
) -> float:
    """Solve the damped equations of a posterior for ``step`` (d).

    ``matrix`` (d, d) and ``gradient`` (d) are those of the likelihood, and are changed.
    ``precision`` is half the inverse variance of the prior, ``start + moved`` the
    departure from its centre. Returns the decrease of the loss that the step
    promises. An unknown that nothing depends on stays where it is.
    """
    count = precision.shape[0]
    for a in range(count):
        gradient[a] -= precision[a] * (start[a] + moved[a])
        matrix[a, a] += precision[a]
        if matrix[a, a] <= 0.0 or precision[a] < 0.0:
            # Held: a negative precision says so.
            for b in range(count):
                matrix[a, b] = matrix[b, a] = 0.0
            matrix[a, a] = 1.0
            gradient[a] = 0.0
        matrix[a, a] *= 1.0 + damping
    _solve(matrix, gradient, step)
    promised = 0.0
    for a in range(count):
        promised += gradient[a] * step[a]
    return promised


@compiled_in_order
def _solve(matrix: Array, right: Array, out: Array) -> None:
    """Solve equations by Cholesky's decomposition, which overwrites ``matrix``."""
    count = right.shape[0]
    for a in range(count):
        for b in range(a + 1):
            total = matrix[a, b]
            for c in range(b):
                total -= matrix[a, c] * matrix[b, c]
            if a == b:
                matrix[a, a] = math.sqrt(max(total, 1e-30))
            else:
                matrix[a, b] = total / matrix[b, b]
    for a in range(count):
        total = right[a]
        for c in range(a):
            total -= matrix[a, c] * out[c]
        out[a] = total / matrix[a, a]
    for a in range(count - 1, -1, -1):
        total = out[a]
        for c in range(a + 1, count):
            total -= matrix[c, a] * out[c]
        out[a] = total / matrix[a, a]


@compiled_in_order
def shorten(step: Array, limits: Array) -> float:
    """Shorten a step to the longest rotation and defocus; return by how much."""
    turn = math.sqrt(step[0] ** 2 + step[1] ** 2 + step[2] ** 2)
    cut = min(1.0, limits[0] / max(turn, 1e-12))
    cut = min(cut, limits[1] / max(abs(step[5]), 1e-12))
    for a in range(6, step.shape[0]):
        cut = min(cut, limits[3] / max(abs(step[a]), 1e-12))
    for a in range(step.shape[0]):
        step[a] *= cut
    return cut


@compiled_in_order
def prior_loss(precision: Array, start: Array, moved: Array) -> float:
    """Return minus the log density of the prior, up to a constant."""
    loss = 0.0
    for a in range(3, precision.shape[0]):
        loss += max(precision[a], 0.0) * (start[a] + moved[a]) ** 2
    return loss


@compiled_in_order
def turned(rotation: Array, w: Array, out: Array) -> None:
    """Fill ``out`` with exp(w) times the rotation (Rodrigues' formula)."""
    angle = math.sqrt(w[0] * w[0] + w[1] * w[1] + w[2] * w[2])
    sine = 1.0 - angle * angle / 6.0
    versine = 0.5 - angle * angle / 24.0
    if angle > 1e-4:
        sine = math.sin(angle) / angle
        versine = (1.0 - math.cos(angle)) / (angle * angle)
    for b in range(3):
        x, y, z = rotation[0, b], rotation[1, b], rotation[2, b]
        px, py, pz = w[1] * z - w[2] * y, w[2] * x - w[0] * z, w[0] * y - w[1] * x
        qx, qy, qz = w[1] * pz - w[2] * py, w[2] * px - w[0] * pz, w[0] * py - w[1] * px
        out[0, b] = x + sine * px + versine * qx
        out[1, b] = y + sine * py + versine * qy
        out[2, b] = z + sine * pz + versine * qz
