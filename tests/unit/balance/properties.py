"""Gradients to try balancers on, and the properties that the methods promise.

A property takes explicit gradients G [T, n] and weights [T] or a combined gradient [n],
and raises AssertionError where it does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfmtl._keras import tf
from tfmtl.balance import GradientWeighting, TaskInfo, TaskStats

COUNTS = (1, 2, 3, 5)
WIDTH = 50
Array = np.ndarray


def drawn(count: int, seed: int = 0) -> Array:
    return np.random.default_rng([seed, count]).normal(size=(count, WIDTH))


def _agreeing(count: int) -> Array:
    return drawn(count) + 1.5


def _conflicting(count: int) -> Array:
    """Each against the mean of the others, to some degree."""
    found = drawn(count)
    return found - 0.9 * found.mean(axis=0)


def _deficient(count: int) -> Array:
    """Of rank T - 1."""
    found = drawn(count)
    if count > 2:
        found[-1] = 0.5 * found[0] - 0.7 * found[1]
    return found


def _duplicated(count: int) -> Array:
    found = drawn(count)
    found[-1] = found[0]
    return found


def _opposite(count: int) -> Array:
    found = drawn(count)
    if count > 1:
        found[1] = -2.0 * found[0]
    return found


def _zero(count: int) -> Array:
    found = drawn(count)
    found[-1] = 0.0
    return found


def _scaled(count: int) -> Array:
    return drawn(count) * np.logspace(-6, 8, count)[:, None]


SAMPLES: dict[str, Callable[[int], Array]] = {
    "random": drawn,
    "agreeing": _agreeing,
    "conflicting": _conflicting,
    "deficient": _deficient,
    "duplicated": _duplicated,
    "opposite": _opposite,
    "zero": _zero,
    "scaled": _scaled,
}
WELL_POSED = ("random", "agreeing", "conflicting")
"""Samples of full rank and like norms, where closed forms hold without limits."""


def samples(*names: str, counts: tuple[int, ...] = COUNTS) -> list[Array]:
    return [SAMPLES[n](c) for n in names or SAMPLES for c in counts]


def gram(gradients: Array) -> Any:
    return tf.constant(gradients @ gradients.T)


def orders(count: int, seed: int = 0) -> Array:
    draw = np.random.default_rng(seed)
    return np.stack([draw.permutation(count) for _ in range(count)]).astype("i4")


def make(kind: Any, count: int, groups: int = 1, **config: Any) -> GradientWeighting:
    """A balancer of tasks t0, t1 ..., prepared."""
    names = tuple(f"t{i}" for i in range(count))
    made: GradientWeighting = kind(TaskInfo(names, seed=7), kind.Config(**config))
    made.prepare(groups)
    return made


def stats_of(
    gradients: Array, losses: Any = None, present: Any = None, step: int = 0
) -> TaskStats:
    """Statistics of one step; gradients [T, n], or [G, T, n] for several groups."""
    count = gradients.shape[-2]
    grams = np.matmul(gradients, np.swapaxes(gradients, -1, -2))
    return TaskStats(
        tf.constant(np.ones(count) if losses is None else losses, tf.float32),
        tf.constant([True] * count if present is None else present),
        tf.constant(step, tf.int64),
        tf.constant(grams if grams.ndim == 3 else grams[None]),
    )


def weights_of(balancer: GradientWeighting, gradients: Array, **stats: Any) -> Array:
    """[T] float64, of one step; [G, T] for several groups."""
    found = balancer.weigh(stats_of(gradients, **stats)).numpy().astype("f8")
    return found if gradients.ndim == 3 else found[0]


def cosine(first: Array, second: Array) -> float:
    return float(first @ second / np.linalg.norm(first) / np.linalg.norm(second))


def norms(gradients: Array) -> Array:
    return np.linalg.norm(gradients, axis=1)


def fails(check: Callable[..., None], *arguments: Any, **settings: Any) -> bool:
    """Whether a property does not hold."""
    try:
        check(*arguments, **settings)
    except AssertionError:
        return True
    return False


def conflict_free(gradients: Array, combined: Array, tolerance: float = 1e-9) -> None:
    """No loss rises to first order: g_t . d >= 0."""
    size = norms(gradients) * max(np.linalg.norm(combined), norms(gradients).min())
    assert np.all(gradients @ combined >= -tolerance * size)


def minimum_norm_kkt(gradients: Array, weights: Array, tolerance: float = 1e-8) -> None:
    """On the simplex; g_t . d >= ||d||^2, with equality where the weight is positive.

    Products are measured against ||g_t|| and the shortest gradient.
    """
    np.testing.assert_allclose(weights.sum(), 1.0, atol=1e-9)
    assert np.all(weights >= 0)
    combined = weights @ gradients
    size = norms(gradients) * norms(gradients).min()
    slack = (gradients @ combined - combined @ combined) / size
    assert np.all(slack >= -tolerance)
    # A weight counts by the length of its part.
    share = weights * norms(gradients) / norms(gradients).min()
    assert np.all(np.minimum(share, slack) <= np.sqrt(tolerance))


def equal_projections(gradients: Array, combined: Array, rtol: float = 1e-6) -> None:
    """d . u_t is the same for all unit gradients u_t."""
    found = gradients @ combined / norms(gradients)
    size = max(np.abs(found).max(), 1e-9 * norms(gradients).min())
    assert np.ptp(found) <= rtol * size


def bargain(gradients: Array, weights: Array, rtol: float = 1e-6) -> None:
    """M alpha = 1 / alpha, so that g_t . d = 1 / alpha_t > 0 and ||d|| = sqrt(T)."""
    assert np.all(weights > 0)
    combined = weights @ gradients
    np.testing.assert_allclose(gradients @ combined * weights, 1.0, rtol=rtol)
    np.testing.assert_allclose(
        np.linalg.norm(combined), np.sqrt(len(weights)), rtol=rtol
    )


def same_direction(first: Array, second: Array, tolerance: float = 1e-9) -> None:
    assert cosine(first, second) > 1 - tolerance


def scale_invariant(weigh: Callable[[Array], Array], gradients: Array) -> None:
    """The direction does not change when single gradients are rescaled."""
    factors = np.geomspace(0.01, 300.0, len(gradients))[:, None]
    scaled = factors * gradients
    same_direction(weigh(gradients) @ gradients, weigh(scaled) @ scaled)
