"""Linear algebra on T x T matrices that the balancers share.

All is float64, for a number of tasks that is known to the graph alone. Where scales
differ by many orders of magnitude, the Gram matrix M is taken apart into norms n_t and
cosines C, M = diag(n) C diag(n): C has ones on its diagonal whatever the scales.
"""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf

TINY = 1e-300
"""Keeps a division by zero a number."""
SMALLEST_EIGENVALUE = 1e-12
"""Of a matrix of cosines; smaller ones are rounding."""


def norms_of(gramian: Any) -> Any:
    """Norms [n] of the gradients whose inner products [n, n] are given."""
    return tf.sqrt(tf.maximum(tf.linalg.diag_part(gramian), 0.0))


def cosines_and_norms(gramian: Any) -> tuple[Any, Any]:
    """Cosines [n, n], with ones on the diagonal, and norms [n].

    A gradient that vanishes has cosine 0 with all others.
    """
    norms = norms_of(gramian)
    unit = tf.math.divide_no_nan(gramian, norms[:, None] * norms[None, :])
    cosines = tf.clip_by_value((unit + tf.transpose(unit)) / 2.0, -1.0, 1.0)
    return tf.linalg.set_diag(cosines, tf.ones_like(norms)), norms


def combined_norm(gramian: Any, weights: Any) -> Any:
    """||sum_t w_t g_t||, a scalar."""
    squared = tf.tensordot(weights, tf.linalg.matvec(gramian, weights), 1)
    return tf.sqrt(tf.maximum(squared, 0.0))


def pseudo_inverse(matrix: Any, rcond: float = 1e-10) -> Any:
    """Moore-Penrose inverse of a symmetric matrix.

    Args:
        matrix: [n, n], of any signature.
        rcond: Eigenvalues not larger than this times the largest, both without their
            sign, count as 0.
    """
    values, vectors = tf.linalg.eigh(matrix)
    size = tf.abs(values)
    kept = size > rcond * tf.reduce_max(size)
    inverse = tf.where(kept, 1.0 / tf.where(kept, values, 1.0), 0.0)
    return tf.matmul(vectors * inverse[None, :], vectors, transpose_b=True)


def solve_semidefinite(matrix: Any, right: Any) -> Any:
    """Solves A X = R for a positive semidefinite A, eigenvalues near 0 raised.

    Args:
        matrix: [n, n], of entries around 1.
        right: [n, k].
    """
    values, vectors = tf.linalg.eigh(matrix)
    values = tf.maximum(values, SMALLEST_EIGENVALUE)
    rotated = tf.matmul(vectors, right, transpose_a=True) / values[:, None]
    return tf.matmul(vectors, rotated)


def project_to_simplex(values: Any, radius: Any = 1.0) -> Any:
    """The nearest point whose entries are >= 0 and sum to a radius.

    By sorting (Duchi et al., ICML 2008): exact, no iterations.

    Args:
        values: [n].
        radius: Scalar >= 0.
    """
    falling = tf.sort(values, direction="DESCENDING")
    ranks = tf.cast(tf.range(1, tf.size(values) + 1), values.dtype)
    excess = (tf.cumsum(falling) - tf.cast(radius, values.dtype)) / ranks
    kept = tf.reduce_sum(tf.cast(falling > excess, tf.int32))
    threshold = tf.gather(excess, tf.maximum(kept, 1) - 1)
    return tf.maximum(values - threshold, 0.0)


def minimise_with_barrier(matrix: Any, iterations: int = 60) -> Any:
    """argmin over x > 0 of x'Qx/2 - sum_t ln x_t, where Qx = 1/x.

    Newton's method, damped by back-tracking. In relative steps r = dx/x the Hessian is
    XQX + I, whose eigenvalues are >= 1: nothing is ever singular. The function is
    self-concordant, so that the full step is safe where the decrement is below 1/4
    (Nesterov, Nemirovskii 1994). All lengths that back-tracking may try are tried at
    once: they are few numbers.

    Args:
        matrix: [n, n] positive definite.
        iterations: At most so many; some ten are usual.
    """
    lengths = tf.constant([2.0**-k for k in range(12)], tf.float64)

    def value(x: Any) -> Any:
        """[..., n] -> [...]."""
        along = tf.reduce_sum(x * tf.linalg.matvec(matrix, x), axis=-1)
        return 0.5 * along - tf.reduce_sum(tf.math.log(x), axis=-1)

    def damped(x: Any, step: Any, decrement: Any) -> Any:
        factors = 1.0 + lengths[:, None] * step  # [lengths, n]
        legal = tf.reduce_all(factors > 0.0, axis=1)
        tried = value(x * tf.where(legal[:, None], factors, 1.0))
        enough = tried <= value(x) - 0.25 * lengths * decrement
        first = tf.argmax(tf.cast(legal & enough, tf.int32))
        return tf.gather(lengths, first)

    def newton(x: Any, _: Any) -> tuple[Any, Any]:
        hessian = x[:, None] * matrix * x[None, :]
        hessian = hessian + tf.eye(tf.size(x), dtype=tf.float64)
        slope = x * tf.linalg.matvec(matrix, x) - 1.0
        step = -tf.linalg.cholesky_solve(tf.linalg.cholesky(hessian), slope[:, None])
        step = step[:, 0]
        decrement = -tf.reduce_sum(slope * step)  # Squared.
        length = tf.cond(
            decrement < 1.0 / 16.0,
            lambda: tf.constant(1.0, tf.float64),
            lambda: damped(x, step, decrement),
        )
        return x * (1.0 + length * step), decrement

    start = tf.ones_like(matrix[0]) / tf.sqrt(tf.cast(tf.shape(matrix)[0], tf.float64))
    found: Any = tf.while_loop(
        lambda x, decrement: decrement > 1e-20,
        newton,
        (start, tf.constant(1.0, tf.float64)),
        maximum_iterations=iterations,
    )
    return found[0]
