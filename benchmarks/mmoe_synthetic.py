"""The synthetic study of the MMoE paper: correlation of tasks against spread of losses.

    python -m benchmarks.mmoe_synthetic [--runs 30] [--steps 1500] [--full] [--out DIR]

J. Ma et al., KDD 2018, sections 3 and 5.2: two regression tasks whose weight vectors
have cosine p, labels linear plus a sum of sines; Shared-Bottom, OMoE and MMoE with
13,056 weights each (matrices of bottom or experts, and of the towers). Each run has
data of its own (new directions u_1, u_2) and starts of its own. Runs are trained side
by side, as one more axis of every matrix product; Adam is element-wise, so they do not
touch.

The paper gives neither c, m, alpha nor beta. Here c = 1, m = 10, alpha and beta drawn
once from N(0, 1), d = 100; N(0, 0.01) is read as a variance, so that noise has a
standard deviation of 0.1. Learning rates are chosen per model from 1e-4, 1e-3, 1e-2 on
other runs. Every step draws new rows; the loss is the mean squared error of both tasks
on rows that no step saw. Intervals are 95 % bootstrap intervals over runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.provenance import provenance
from tfmtl._keras import keras, tf
from tfmtl.layers.gate import Gates
from tfmtl.layers.initializers import StackedInitializer
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.stacked import StackedMLP
from tfmtl.layers.towers import Towers

WIDTH, EXPERTS, EXPERT_UNITS, TOWER_UNITS, TASKS = 100, 8, 16, 8, 2
BOTTOM_UNITS = 113
SINES, CONSTANT, NOISE = 10, 1.0, 0.1
CORRELATIONS = (0.0, 0.5, 0.9, 1.0)
RATES = (1e-4, 1e-3, 1e-2)
MODELS = ("Shared-Bottom", "OMoE", "MMoE")
BATCH, TEST_ROWS = 128, 4_096


@dataclasses.dataclass(frozen=True)
class Data:
    """The tasks of R runs.

    Attributes:
        weights: [R, d, T]; the cosine of the two columns is p.
        alpha: [m].
        beta: [m].
    """

    weights: Any
    alpha: Any
    beta: Any

    def labels(self, x: Any, noise: Any) -> Any:
        """[R, B, d] and standard normal [R, B, T] -> [R, B, T]."""
        linear = tf.einsum("rbd,rdt->rbt", x, self.weights)
        waves = tf.sin(linear[..., None] * self.alpha + self.beta)
        return linear + tf.reduce_sum(waves, axis=-1) + NOISE * noise


def make_data(
    correlation: float, runs: int, seed: int, sines: int = SINES, width: int = WIDTH
) -> Data:
    """Steps 1 and 2 of the recipe for each run; alpha and beta are the same in all."""
    once = np.random.default_rng(2018)
    alpha, beta = once.normal(size=sines), once.normal(size=sines)
    draw = np.random.default_rng([seed, int(correlation * 1000)])
    weights = []
    for _ in range(runs):
        basis, _ = np.linalg.qr(draw.normal(size=(width, 2)))  # u_1, u_2 orthonormal
        other = correlation * basis[:, 0] + (1 - correlation**2) ** 0.5 * basis[:, 1]
        weights.append(CONSTANT * np.stack([basis[:, 0], other], axis=1))
    as_float = [tf.constant(v, tf.float32) for v in (np.array(weights), alpha, beta)]
    return Data(*as_float)


class Bank(tf.Module):
    """R models of one kind side by side: x [R, B, d] -> [R, B, T].

    Args:
        kind: One of `MODELS`.
        runs: R.
        seed: Of the initial values.
    """

    def __init__(self, kind: str, runs: int, seed: int) -> None:
        super().__init__()
        experts = 1 if kind == "Shared-Bottom" else EXPERTS
        units = BOTTOM_UNITS if kind == "Shared-Bottom" else EXPERT_UNITS
        gates = {"Shared-Bottom": 0, "OMoE": 1, "MMoE": TASKS}[kind]

        def make(name: str, shape: list[int], scale: float = 2.0) -> Any:
            initial = StackedInitializer(child_seed(seed, kind, name), scale)
            return tf.Variable(initial([runs, *shape]), name=name)

        def zeros(name: str, shape: list[int]) -> Any:
            return tf.Variable(tf.zeros([runs, *shape]), name=name)

        self.gates = gates
        self.kernel = make("experts", [experts, WIDTH, units])
        self.bias = zeros("experts_bias", [experts, units])
        self.gate = make("gate", [gates, WIDTH, EXPERTS], 1.0) if gates else None
        self.tower = make("tower", [TASKS, units, TOWER_UNITS])
        self.tower_bias = zeros("tower_bias", [TASKS, TOWER_UNITS])
        self.head = make("head", [TASKS, TOWER_UNITS, 1], 1.0)
        self.head_bias = zeros("head_bias", [TASKS])

    def __call__(self, x: Any) -> Any:
        hidden = tf.einsum("rbd,redh->rbeh", x, self.kernel)
        hidden = tf.nn.relu(hidden + self.bias[:, None])
        if self.gates:
            share = tf.nn.softmax(tf.einsum("rbd,rgde->rbge", x, self.gate))
            mixed = tf.einsum("rbge,rbeh->rbgh", share, hidden)
        else:
            mixed = hidden
        if mixed.shape[2] == 1:
            mixed = tf.repeat(mixed, TASKS, axis=2)  # [R, B, T, h]
        deep = tf.einsum("rbth,rthj->rbtj", mixed, self.tower)
        deep = tf.nn.relu(deep + self.tower_bias[:, None])
        return (
            tf.einsum("rbtj,rtj->rbt", deep, self.head[..., 0])
            + self.head_bias[:, None]
        )

    def matched_weights(self) -> int:
        """Numbers in the matrices of experts and towers of one model."""
        per_run = [
            int(tf.size(v)) // int(v.shape[0]) for v in (self.kernel, self.tower)
        ]
        return sum(per_run)


def check_against_the_package(bank: Bank) -> None:
    """The first run of an MMoE bank must be what the package's layers compute."""
    experts = StackedMLP(EXPERTS, [EXPERT_UNITS], seed=0)
    gates = Gates(["gate/1", "gate/2"], EXPERTS, seed=0)
    towers = Towers(["task/1", "task/2"], [TOWER_UNITS], [1, 1], seed=0)
    x = tf.random.stateless_normal([bank.kernel.shape[0], 5, WIDTH], [1, 2])
    towers(gates(x[0], experts(x[0]))[0])
    (layer,), (hidden,) = experts.layers, towers.hidden.layers
    layer._kernels[0].assign(bank.kernel[0])
    layer._biases[0].assign(bank.bias[0])
    for t in range(TASKS):
        gates.dense._kernels[t].assign(bank.gate[0, t])
        hidden._kernels[t].assign(bank.tower[0, t])
        hidden._biases[t].assign(bank.tower_bias[0, t])
        towers.head._kernels[t].assign(bank.head[0, t])
        towers.head._biases[t].assign(bank.head_bias[0, t : t + 1])
    found = tf.stack(towers(gates(x[0], experts(x[0]))[0]), axis=1)
    np.testing.assert_allclose(found, bank(x)[0], rtol=1e-4, atol=1e-5)


def train(
    kind: str, correlation: float, rate: float, *, runs: int, steps: int, seed: int
) -> np.ndarray:
    """Final losses [R] of one kind of model."""
    data = make_data(correlation, runs, seed)
    bank = Bank(kind, runs, seed)
    optimizer = keras.optimizers.legacy.Adam(rate)
    errors = fit_bank(bank, data, optimizer, steps=steps, seed=seed)
    return np.mean(errors, axis=(1, 2))


def fit_bank(
    bank: Any, data: Data, optimizer: Any, *, steps: int, seed: int
) -> np.ndarray:
    """Trains a bank of R models; squared errors [R, B, T] on rows no step saw.

    Args:
        bank: A `tf.Module`, x [R, B, d] -> [R, B, T].
        data: The tasks of the R runs.
        optimizer: A legacy one, element-wise, so that runs do not touch.
        steps: Of 128 new rows each.
        seed: Of the rows.
    """
    runs, width = int(data.weights.shape[0]), int(data.weights.shape[1])
    variables = list(bank.trainable_variables)

    def draw(rows: int, step: Any, salt: int) -> tuple[Any, Any]:
        key = tf.stack([tf.constant(child_seed(seed, salt), tf.int64), step])
        both = tf.random.stateless_normal([runs, rows, width + TASKS], key)
        x, noise = both[..., :width], both[..., width:]
        return x, data.labels(x, noise)

    @tf.function(autograph=False, reduce_retracing=True)
    def fit() -> Any:
        def body(step: Any) -> tuple[Any]:
            x, y = draw(BATCH, step, 1)
            with tf.GradientTape() as tape:
                # Means over a run's rows and tasks, summed over runs.
                error = tf.reduce_mean(tf.square(bank(x) - y), axis=[1, 2])
                total = tf.reduce_sum(error)
            gradients = tape.gradient(total, variables)
            update = optimizer.apply_gradients(zip(gradients, variables))
            with tf.control_dependencies([update]):
                return (step + 1,)

        return tf.while_loop(
            lambda step: step < steps, body, (tf.constant(0, tf.int64),)
        )

    optimizer._create_all_weights(variables)
    fit()
    x, y = draw(TEST_ROWS, tf.constant(0, tf.int64), 2)
    return np.asarray(np.square(bank(x) - y))


def interval(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float]:
    """95 % bootstrap interval of a statistic over runs; it takes rows of resamples."""
    draw = np.random.default_rng(7)
    picked = values[draw.integers(0, len(values), (4_000, len(values)))]
    low, high = np.percentile(statistic(picked), [2.5, 97.5])
    return float(low), float(high)


def mean(values: np.ndarray) -> Any:
    """Over the last axis."""
    return values.mean(axis=-1)


def spread(values: np.ndarray) -> Any:
    """Standard deviation over the last axis."""
    return values.std(axis=-1, ddof=1)


def label_correlation(correlation: float, runs: int = 20, sines: int = SINES) -> float:
    """Mean Pearson correlation of the two labels."""
    data = make_data(correlation, runs, seed=99, sines=sines)
    both = tf.random.stateless_normal([runs, 10_000, WIDTH + TASKS], [5, 6])
    y = data.labels(both[..., :WIDTH], both[..., WIDTH:]).numpy()
    return float(np.mean([np.corrcoef(run.T)[0, 1] for run in y]))


def findings(losses: dict[float, dict[str, np.ndarray]]) -> list[tuple[str, str]]:
    """What the paper reports, and whether it is seen here.

    The interval of a difference of means or of a ratio of spreads decides: on the
    reported side of 0 (or 1) it is seen, on the other it is not, else it is open.
    """

    def verdict(low: float, high: float) -> str:
        if low > 0:
            return "seen"
        return "not seen: the reverse" if high < 0 else "open"

    result = []
    draw = np.random.default_rng(11)

    def compare(text: str, worse: np.ndarray, better: np.ndarray, of: Any) -> None:
        i, j = (draw.integers(0, len(v), (4_000, len(v))) for v in (worse, better))
        low, high = np.percentile(of(worse[i]) - of(better[j]), [2.5, 97.5])
        result.append((f"{text} (95 %: {low:+.4f} to {high:+.4f})", verdict(low, high)))

    half, equal = losses[0.5], losses[1.0]
    compare("p = 0.5: mean loss OMoE - MMoE > 0", half["OMoE"], half["MMoE"], mean)
    compare(
        "p = 0.5: mean loss Shared-Bottom - OMoE > 0",
        half["Shared-Bottom"],
        half["OMoE"],
        mean,
    )
    i = draw.integers(0, len(equal["MMoE"]), (4_000, len(equal["MMoE"])))
    gap = mean(equal["OMoE"][i]) - mean(equal["MMoE"][i])
    low, high = np.percentile(gap, [2.5, 97.5])
    alike = "seen" if low < 0 < high else "not seen"
    result.append((f"p = 1: OMoE = MMoE (95 %: {low:+.4f} to {high:+.4f})", alike))
    for p in (0.5, 0.9, 1.0):
        for other in ("OMoE", "MMoE"):
            compare(
                f"p = {p:g}: spread Shared-Bottom - {other} > 0",
                losses[p]["Shared-Bottom"],
                losses[p][other],
                spread,
            )
    for other in ("Shared-Bottom", "OMoE"):
        falls = {k: losses[0.5][k].mean() - losses[1.0][k].mean() for k in MODELS}
        less = falls[other] - falls["MMoE"]
        text = f"loss from p = 1 to 0.5 rises less for MMoE than for {other}"
        result.append((f"{text} ({less:+.4f})", "seen" if less > 0 else "not seen"))
    return result


def figure(losses: dict[float, dict[str, np.ndarray]], path: pathlib.Path) -> None:
    """Histograms of the final losses, one panel per correlation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels, axes = pyplot.subplots(
        1, len(losses), figsize=(3.2 * len(losses), 2.8), sharey=True
    )
    for axis, (p, by_model) in zip(axes, losses.items()):
        every = np.concatenate(list(by_model.values()))
        bins = np.linspace(every.min(), np.percentile(every, 99), 25)
        for name, values in by_model.items():
            axis.hist(values, bins=bins, histtype="step", label=name, linewidth=1.5)
        axis.set_title(f"p = {p:g}")
        axis.set_xlabel("final loss")
    axes[0].set_ylabel("runs")
    axes[-1].legend(fontsize=8)
    panels.tight_layout()
    panels.savefig(path)
    pyplot.close(panels)


def main() -> None:
    """Runs the study; prints the table and writes it beside the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--steps", type=int, default=1_500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--full", action="store_true", help="200 runs of 10,000 steps")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path())
    options = parser.parse_args()
    if options.full:
        options.runs, options.steps = 200, 10_000
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    check_against_the_package(Bank("MMoE", 2, seed=1))
    weights = {k: Bank(k, 1, 0).matched_weights() for k in MODELS}
    print(f"matched weights: {weights}")
    for p in CORRELATIONS:
        print(f"p = {p:g}: label correlation {label_correlation(p):.3f}")
    rates: dict[str, float] = {}
    for kind in MODELS:
        tried = {
            rate: float(
                train(
                    kind,
                    0.5,
                    rate,
                    runs=8,
                    steps=options.steps,
                    seed=options.seed + 1_000,
                ).mean()
            )
            for rate in RATES
        }
        rates[kind] = min(tried, key=lambda r: tried[r])
        print(f"{kind}: loss by learning rate {tried}", flush=True)
    losses: dict[float, dict[str, np.ndarray]] = {}
    print("\n| p | model | mean loss | s.d. over runs | best | worst |")
    print("| --- | --- | --- | --- | --- | --- |")
    for p in CORRELATIONS:
        losses[p] = {}
        for kind in MODELS:
            found = train(
                kind,
                p,
                rates[kind],
                runs=options.runs,
                steps=options.steps,
                seed=options.seed,
            )
            losses[p][kind] = found
            at, off = interval(found, mean), interval(found, spread)
            print(
                f"| {p:g} | {kind} | {found.mean():.4f} ({at[0]:.4f}..{at[1]:.4f}) "
                f"| {spread(found):.4f} ({off[0]:.4f}..{off[1]:.4f}) "
                f"| {found.min():.4f} | {found.max():.4f} |",
                flush=True,
            )
    print()
    for text, verdict in findings(losses):
        print(f"- {text}: **{verdict}**")
    figure(losses, options.out / "mmoe_synthetic.svg")
    (options.out / "mmoe_synthetic.json").write_text(
        json.dumps(
            {
                "losses": {
                    str(p): {k: v.tolist() for k, v in by.items()}
                    for p, by in losses.items()
                },
                "learning_rates": rates,
                "runs": options.runs,
                "steps": options.steps,
                "seed": options.seed,
                **provenance(),
            },
            indent=1,
        )
    )
    print(f"\n{time.perf_counter() - began:.0f} s; {provenance()}")


if __name__ == "__main__":
    main()
