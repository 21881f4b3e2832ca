"""Two objectives with a known Pareto front: where do the balancers end?

    python -m benchmarks.pareto_fronts [--out DIR] [--dimensions 10] [--starts 12]

    f_1(x) = 1 - exp(-||x - 1/sqrt(n)||^2),    f_2(x) = 1 - exp(-||x + 1/sqrt(n)||^2)

Pareto points lie between the two minima, x = s/sqrt(n) with s in [-1, 1]; their front
is concave, so that a weighted sum has its minima at or near the two ends alone. Each
method starts from points of its own random draw and follows its direction with steps
that fall to 0; the weights are those of `tfmtl.balance`, from the exact gradients.
PE-LTR gets a least weight of one task or the other, STCH a grid of preferences,
weighted sums a grid of weights.

A gap is the distance of the end to the front in (f_1, f_2); what a method spreads over
is the range of s that its ends reach.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.reproduction import parser, record
from benchmarks.trials import table
from tfmtl._keras import tf
from tfmtl.balance.cagrad import cagrad_weights
from tfmtl.balance.mgda import mgda_weights
from tfmtl.balance.nash_mtl import nash_weights
from tfmtl.balance.pcgrad import pcgrad_weights
from tfmtl.balance.pe_ltr import pe_ltr_weights
from tfmtl.balance.stch import stch_weights

RATE, STEPS, MU = 0.1, 2_000, 0.02
GRID = np.linspace(0.05, 0.95, 10)
ON_FRONT = 1e-2

Weights = Callable[[Any, Any, Any], Any]
"""Values [2], Gram matrix [2, 2] and a setting [2] -> weights [2]."""


def _stch(values: Any, gramian: Any, setting: Any) -> Any:
    used = tf.constant([True, True])
    return stch_weights(values, setting, tf.zeros_like(values), MU, used)


def _pcgrad(values: Any, gramian: Any, setting: Any) -> Any:
    return pcgrad_weights(gramian, tf.constant([[1, 0], [0, 1]]))


METHODS: dict[str, tuple[Weights, str]] = {
    "weighted sum": (lambda f, m, c: c, "weights"),
    "PCGrad": (_pcgrad, ""),
    "MGDA": (lambda f, m, c: mgda_weights(m, tf.ones([2], m.dtype)), ""),
    "CAGrad, c = 0.9": (lambda f, m, c: cagrad_weights(m, 0.9), ""),
    "Nash-MTL": (lambda f, m, c: nash_weights(m), ""),
    "PE-LTR": (lambda f, m, c: pe_ltr_weights(m, c), "bounds"),
    "STCH": (_stch, "preference"),
}
"""Name to weights, and what its grid is of."""


def objectives(x: Any) -> Any:
    """[n] -> [2]."""
    centre = tf.cast(1 / np.sqrt(int(x.shape[0])), x.dtype)
    squared = tf.stack([tf.reduce_sum((x - s * centre) ** 2) for s in (1.0, -1.0)])
    return 1 - tf.exp(-squared)


def gradients_at(x: Any) -> tuple[Any, Any]:
    """Values [2] and gradients [2, n]."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        values = objectives(x)
    return values, tape.jacobian(values, x, experimental_use_pfor=False)


def follow(weigh: Weights, start: np.ndarray, setting: np.ndarray) -> np.ndarray:
    """The end [n] of a path."""
    ask = tf.constant(setting, tf.float64)

    @tf.function(autograph=False)
    def run(x: Any) -> Any:
        def step(number: Any, x: Any) -> tuple[Any, Any]:
            values, gradients = gradients_at(x)
            gramian = tf.matmul(gradients, gradients, transpose_b=True)
            weights = tf.cast(weigh(values, gramian, ask), x.dtype)
            direction = tf.linalg.matvec(gradients, weights, transpose_a=True)
            rate = RATE * (1 - tf.cast(number, x.dtype) / STEPS)
            return number + 1, x - rate * direction

        return tf.while_loop(lambda i, x: i < STEPS, step, (tf.constant(0), x))[1]

    return np.asarray(run(tf.constant(start, tf.float64)))


def front(points: int = 2001) -> tuple[np.ndarray, np.ndarray]:
    """s [P] in [-1, 1] and the values [P, 2] there."""
    s = np.linspace(-1, 1, points)
    return s, 1 - np.exp(-np.stack([(s - 1) ** 2, (s + 1) ** 2], axis=1))


def settings(kind: str, starts: int) -> list[np.ndarray]:
    """One for each path."""
    if kind in ("weights", "preference"):
        return [np.array([w, 1 - w]) for w in GRID]
    if kind == "bounds":
        low = np.linspace(0.05, 0.45, 5)
        return [np.array([b, 0.0]) for b in low] + [np.array([0.0, b]) for b in low]
    return [np.ones(2)] * starts


def figure(ends: dict[str, np.ndarray], path: pathlib.Path) -> None:
    """The ends of every method on the front."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    _, line = front()
    panels, axes = pyplot.subplots(2, 4, figsize=(13, 6.5), sharex=True, sharey=True)
    for axis, (name, values) in zip(axes.flat, ends.items()):
        axis.plot(*line.T, color="0.6", lw=1, label="front")
        axis.plot(*values.T, "o", ms=5, alpha=0.7)
        axis.set_title(name)
        axis.grid(alpha=0.3)
    axes.flat[-1].set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("$f_2$")
    for axis in axes[-1]:
        axis.set_xlabel("$f_1$")
    panels.tight_layout()
    panels.savefig(path)
    pyplot.close(panels)


def main() -> None:
    """Follows all paths; prints the table, draws the figure."""
    options_of = parser(__doc__, "100 dimensions, 50 starts")
    options_of.add_argument("--dimensions", type=int, default=10)
    options_of.add_argument("--starts", type=int, default=12)
    options = options_of.parse_args()
    if options.full:
        options.dimensions, options.starts = 100, 50
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    places, line = front()
    ends, lines = {}, []
    for name, (weigh, kind) in METHODS.items():
        draw = np.random.default_rng(0)
        found = []
        for setting in settings(kind, options.starts):
            start = draw.normal(0, 0.4, options.dimensions)
            found.append(objectives(tf.constant(follow(weigh, start, setting))).numpy())
        values = np.stack(found)
        distance = np.linalg.norm(values[:, None] - line, axis=2)
        gap, reached = distance.min(axis=1), places[distance.argmin(axis=1)]
        inner = np.sum((gap < ON_FRONT) & (np.abs(reached) < 0.7))
        ends[name] = values
        lines.append(
            [
                name,
                kind or "starts",
                str(len(values)),
                f"{np.median(gap):.4f}",
                f"{gap.max():.4f}",
                str(int(np.sum(gap < ON_FRONT))),
                f"{reached.min():+.2f} to {reached.max():+.2f}",
                str(int(inner)),
            ]
        )
    head = [
        "method",
        "varied",
        "paths",
        "median gap",
        "largest",
        f"gap < {ON_FRONT}",
        "s reached",
        "of these |s| < 0.7",
    ]
    text = table(head, lines)
    figure(ends, options.out / "pareto_fronts.svg")
    seconds = time.perf_counter() - began
    last = record(options.out, "pareto_fronts", {"table": text, "seconds": seconds})
    print(f"{text}\n\n{last}")


if __name__ == "__main__":
    main()
