"""The shortest vector in the convex hull of the tasks' gradients, three ways.

    min over w of ||sum_t w_t g_t||^2, where w >= 0 and sum_t w_t = 1

from the Gram matrix M of the gradients alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tfmtl._keras import tf
from tfmtl.balance.solvers import (
    TINY,
    cosines_and_norms,
    project_to_simplex,
    solve_semidefinite,
)


def two_point(first: Any, cross: Any, second: Any) -> Any:
    """Weight of the first of two gradients: the exact answer for two tasks.

    Args:
        first: g_1 . g_1.
        cross: g_1 . g_2.
        second: g_2 . g_2.
    """
    inside = (second - cross) / tf.maximum(first + second - 2.0 * cross, TINY)
    ends = tf.where(cross >= second, tf.zeros_like(inside), inside)
    # Where the gradients are equal, both ends are right.
    return tf.where(cross >= first, tf.ones_like(inside), ends)


def pairwise_steps(
    start: Any,
    slope: Callable[[Any], Any],
    length: Callable[[Any, Any], Any],
    iterations: int,
    tolerance: float = 1e-12,
) -> Any:
    """Frank-Wolfe on the simplex, by pairwise steps.

    Each step moves weight from the vertex in use where the function rises most to the
    vertex where it falls most. The plain steps, towards one vertex and away from all
    others, zigzag before a face (Lacoste-Julien, Jaggi, NeurIPS 2015).

    Args:
        start: [n], on the simplex.
        slope: Weights [n] to the gradient [n] of a convex function.
        length: Weights and direction, [n] each, to the length of the step that is best
            along it; it is cut where a weight would get negative.
        iterations: At most so many.
        tolerance: Ends where the slopes of the two vertices differ by less than this
            share of the larger.
    """

    def step(weights: Any, _: Any) -> tuple[Any, Any]:
        slopes = slope(weights)
        rising = tf.argmax(tf.where(weights > 0.0, slopes, -float("inf")))
        falling = tf.argmin(slopes)
        places = tf.range(tf.size(weights, out_type=tf.int64), dtype=tf.int64)
        direction = tf.cast(places == falling, tf.float64)
        direction -= tf.cast(places == rising, tf.float64)
        top, bottom = tf.gather(slopes, rising), tf.gather(slopes, falling)
        # Of these two alone: a slope that is larger by far may belong to no weight.
        going = top - bottom > tolerance * tf.maximum(tf.abs(top), tf.abs(bottom))
        far = tf.gather(weights, rising)
        moved = tf.clip_by_value(length(weights, direction), 0.0, far) * direction
        return tf.where(going, weights + moved, weights), going

    found: Any = tf.while_loop(
        lambda weights, going: going,
        step,
        (start, tf.constant(True)),
        maximum_iterations=iterations,
    )
    return found[0]


def uniform(matrix: Any) -> Any:
    """[n] weights 1/n for an [n, n] matrix."""
    return tf.ones_like(matrix[0]) / tf.cast(tf.shape(matrix)[0], matrix.dtype)


def frank_wolfe(gramian: Any, iterations: int = 250) -> Any:
    """Minimum-norm weights by Frank-Wolfe.

    Args:
        gramian: [n, n].
        iterations: At most so many.

    Returns:
        [n].
    """

    def length(weights: Any, direction: Any) -> Any:
        along = tf.linalg.matvec(gramian, direction)
        down = -tf.tensordot(weights, along, 1)
        return down / tf.maximum(tf.tensordot(direction, along, 1), TINY)

    def slope(weights: Any) -> Any:
        return tf.linalg.matvec(gramian, weights)

    return pairwise_steps(uniform(gramian), slope, length, iterations)


def projected_gradient(gramian: Any, iterations: int = 1000) -> Any:
    """Minimum-norm weights by projected gradient steps of 1/lambda_max.

    Slow where the norms of the gradients differ much: normalise them first.

    Args:
        gramian: [n, n].
        iterations: At most so many.

    Returns:
        [n].
    """
    rate = 1.0 / tf.maximum(tf.reduce_max(tf.linalg.eigvalsh(gramian)), TINY)

    def step(weights: Any, _: Any) -> tuple[Any, Any]:
        slopes = tf.linalg.matvec(gramian, weights)
        moved = project_to_simplex(weights - rate * slopes)
        return moved, tf.reduce_max(tf.abs(moved - weights))

    found: Any = tf.while_loop(
        lambda weights, change: change > 1e-14,
        step,
        (uniform(gramian), tf.constant(1.0, tf.float64)),
        maximum_iterations=iterations,
    )
    return found[0]


def minimum_norm(gramian: Any, lower: Any | None = None) -> Any:
    """Exact minimum-norm weights, each with a lower bound, by an active set.

    With x = w - c >= 0, sum_t x_t = 1 - sum_t c_t, this is a convex quadratic programme
    of T unknowns. It is solved in z_t proportional to n_t x_t, so that only cosines and
    relative norms enter: 1e-6 and 1e8 may meet.

    Args:
        gramian: [n, n].
        lower: [n] lower bounds c >= 0, of sum <= 1; 0 where absent.

    Returns:
        [n].
    """
    cosines, norms = cosines_and_norms(gramian)
    lower = tf.zeros_like(norms) if lower is None else lower
    radius = tf.maximum(1.0 - tf.reduce_sum(lower), 0.0)
    smallest = tf.maximum(tf.reduce_min(norms), TINY)
    rates = smallest / tf.maximum(norms, smallest)
    pull = tf.linalg.matvec(cosines, norms * lower)
    pull /= tf.maximum(radius * smallest, TINY)
    z = _active_set(cosines, pull, rates)
    # Where the bounds leave no room, z is the answer to a problem of no meaning.
    room = tf.where(radius > 1e-12, z * rates, tf.zeros_like(z))
    total = tf.maximum(tf.reduce_sum(room), TINY)
    return lower + radius * room / total


def _active_set(matrix: Any, pull: Any, rates: Any) -> Any:
    """argmin of z'Cz/2 + pull'z over z >= 0, rates'z = 1.

    The primal active-set method (Nocedal, Wright, Numerical Optimization, 16.5): from
    all entries free, a step to the optimum of the free ones ends at the first bound it
    meets; an optimum within the bounds frees the entry that wants to grow most.
    """
    count = tf.size(pull)
    places = tf.range(count)

    def best(free: Any) -> Any:
        on = tf.cast(free, tf.float64)
        part = tf.linalg.set_diag(matrix * on[:, None] * on, tf.ones_like(on))
        both = tf.stack([rates * on, pull * on], axis=1)
        solved = solve_semidefinite(part, both)  # [n, 2]
        upon = tf.tensordot(rates * on, solved, 1)
        level = (1.0 + upon[1]) / tf.maximum(upon[0], TINY)
        return (level * solved[:, 0] - solved[:, 1]) * on

    def step(z: Any, free: Any, _: Any) -> tuple[Any, Any, Any]:
        target = best(free)
        ends = free & (target < 0.0)
        blocked = tf.reduce_any(ends)
        shares = tf.where(ends, z / tf.maximum(z - target, TINY), float("inf"))
        first = places == tf.argmin(shares, output_type=tf.int32)
        met = tf.maximum(z + tf.reduce_min(shares) * (target - z), 0.0)
        met = tf.where(free & ~first, met, tf.zeros_like(z))
        z = tf.where(blocked, met, target)
        slopes = tf.linalg.matvec(matrix, z) + pull
        multipliers = slopes - tf.tensordot(z, slopes, 1) * rates
        # The size of what was summed: a smaller difference is rounding.
        size = tf.linalg.matvec(tf.abs(matrix), z) + tf.abs(pull)
        wants = tf.where(free, tf.zeros_like(z), multipliers + 1e-12 * size)
        worst = places == tf.argmin(wants, output_type=tf.int32)
        frees = tf.logical_not(blocked) & (tf.reduce_min(wants) < 0.0)
        free = tf.where(blocked, free & ~first, free | (worst & frees))
        return z, free, blocked | frees

    start = rates / tf.reduce_sum(rates * rates)
    found: Any = tf.while_loop(
        lambda z, free, going: going,
        step,
        (start, tf.ones_like(pull, tf.bool), tf.constant(True)),
        maximum_iterations=10 + 6 * count,
    )
    return found[0]
