"""PLE's synthetic study: do both tasks gain, or does one rise as the other falls?

    python -m benchmarks.ple_seesaw [--runs 20] [--steps 1000] [--full] [--out DIR]

H. Tang et al., RecSys 2020, evaluation on synthetic data: two regression tasks by the
recipe of the MMoE paper, with c = 1, m = 10, d = 512, alpha and beta from N(0, 1) and
1.4 million rows; reported are the gains of each task over single-task models. The
paper's findings: Shared-Bottom and MMoE sometimes see-saw, one task gains and the other
loses; PLE gains on both tasks, the most of all, at every correlation.

Here, as in `benchmarks.mmoe_synthetic`: p is the cosine of the tasks' weight vectors, a
run has data and starts of its own, runs are trained side by side, every step draws new
rows, the loss is told on rows that no step saw. Reduced: d = 100, 128,000 rows a run;
full: d = 512, 1.4 million rows. The paper's widths are replaced by small ones.

All models are PLE with other numbers: task experts, shared experts, levels. Single is
one expert a task, Shared-Bottom one shared expert, MMoE eight shared, CGC and PLE two a
task and four shared in a level. PLE has two levels of one layer; the experts of all the
others have two layers, so that all are equally deep (in the paper an expert has one,
and PLE is the deeper network). A tower has one hidden layer. Widths are chosen so that
all have as many weights as MMoE with experts of 16: matrices of experts, gates and
towers; Single's two networks have that many together. `Single, wide` has as many in
each of the two, and `Single, again` is Single from other starts: what gains and
see-saws chance alone makes. The two tasks are alike by design, so that a see-saw is a
matter of single runs, and half of all runs would show one where gains are noise of
which nothing is shared.

Learning rates are chosen per model on other runs, at p = 0.5, and fall to zero by a
straight line over the steps: the last step's noise would be most of a gain. A gain is
Single's loss less the model's in the same run. Gains are told by their median: in some
runs a narrow ReLU network dies and predicts little more than a constant, which is a
finding of its own ("collapsed": a task's loss above 0.5) and would be all of a mean.
Intervals are 95 % bootstrap intervals over runs.
"""

from __future__ import annotations

import itertools
import pathlib
import time
from typing import Any, NamedTuple

import numpy as np

from benchmarks.mmoe_synthetic import Data, fit_bank, interval, make_data, mean
from benchmarks.reproduction import note, parser, record, verdict
from tfmtl._keras import keras, tf
from tfmtl.layers.extraction import Extraction
from tfmtl.layers.initializers import StackedInitializer
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.towers import Towers

TASKS, TOWER_UNITS, EXPERT_UNITS, DEPTH = 2, 8, 16, 2
CORRELATIONS = (0.0, 0.5, 1.0)
RATES = (5e-3, 1e-2, 2e-2)
BATCH, TEST_ROWS = 128, 4_096
COLLAPSED = 0.5
SINGLE, AGAIN, WIDE = "Single", "Single, again", "Single, wide"


class Layout(NamedTuple):
    """Experts of each task's own, shared ones, and levels.

    There are `DEPTH` layers in all: of a level each where levels are so many, else all
    in the experts of one level.
    """

    own: int
    shared: int
    levels: int = 1

    @property
    def experts(self) -> int:
        """Experts of a level."""
        return TASKS * self.own + self.shared

    @property
    def seen(self) -> int:
        """Experts that a task's gate chooses from."""
        return self.own + self.shared

    def split(self, units: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Widths of all layers to those of each level."""
        return [units] if self.levels == 1 else [(width,) for width in units]


LAYOUTS = {
    SINGLE: Layout(1, 0),
    WIDE: Layout(1, 0),
    "Shared-Bottom": Layout(0, 1),
    "MMoE": Layout(0, 8),
    "CGC": Layout(2, 4),
    "PLE": Layout(2, 4, 2),
}
MULTI_TASK = ("Shared-Bottom", "MMoE", "CGC", "PLE")


def count_weights(layout: Layout, width: int, units: tuple[int, ...]) -> int:
    """Numbers in the matrices of experts, gates and towers."""
    total = TASKS * units[-1] * TOWER_UNITS + TASKS * TOWER_UNITS
    for number, level in enumerate(layout.split(units), start=1):
        if layout.seen > 1:
            total += TASKS * layout.seen * width
        if number < layout.levels:
            total += layout.experts * width
        for out in level:
            total += layout.experts * width * out
            width = out
    return total


def matched_units(kind: str, width: int) -> tuple[int, ...]:
    """Widths of a model's layers for MMoE's weights, within 1 %, as equal as can be."""
    layout, first = LAYOUTS[kind], (EXPERT_UNITS,) * DEPTH
    target = count_weights(LAYOUTS["MMoE"], width, first)
    if kind == WIDE:
        target *= 2

    def off(units: tuple[int, ...]) -> float:
        return abs(count_weights(layout, width, units) / target - 1)

    pairs = ((h, k) for h in range(1, 300) for k in range(h, 2 * h))
    return min((u for u in pairs if off(u) < 0.01), key=lambda u: (u[1] - u[0], off(u)))


class Bank(tf.Module):
    """R models of one kind side by side: x [R, B, d] -> [R, B, T].

    Args:
        kind: One of `LAYOUTS`.
        runs: R.
        width: d.
        seed: Of the initial values.
    """

    def __init__(self, kind: str, runs: int, width: int, seed: int) -> None:
        super().__init__()
        self.layout = layout = LAYOUTS[kind]
        self.units = matched_units(kind, width)

        def make(name: str, shape: list[int], scale: float = 2.0) -> Any:
            initial = StackedInitializer(child_seed(seed, kind, name), scale)
            return tf.Variable(initial([runs, *shape]), name=name)

        def zeros(name: str, shape: list[int]) -> Any:
            return tf.Variable(tf.zeros([runs, *shape]), name=name)

        own = [t for t in range(TASKS) for _ in range(layout.own)]
        self.stream_of = (*own, *[TASKS] * layout.shared)
        self.levels: list[list[tuple[Any, Any]]] = []
        self.gates, self.masks = [], []
        read = width
        for level, widths in enumerate(layout.split(self.units)):
            rows = TASKS + (level < layout.levels - 1)
            mask = np.full([rows, layout.experts], -np.inf, np.float32)
            for row in range(rows):
                for e, stream in enumerate(self.stream_of):
                    if row == TASKS or stream in (row, TASKS):
                        mask[row, e] = 0.0
            self.masks.append(mask)
            # Columns of experts that a gate does not see never get a gradient.
            shape = [rows, read, layout.experts]
            gated = layout.seen > 1
            self.gates.append(
                make(f"gate_{level}", shape, 1.0) if gated else tf.zeros([runs, *shape])
            )
            layers = []
            for i, out in enumerate(widths):
                name = f"{level}_{i}"
                kernel = make(f"experts_{name}", [layout.experts, read, out])
                layers.append((kernel, zeros(f"bias_{name}", [layout.experts, out])))
                read = out
            self.levels.append(layers)
        self.tower = make("tower", [TASKS, read, TOWER_UNITS])
        self.tower_bias = zeros("tower_bias", [TASKS, TOWER_UNITS])
        self.head = make("head", [TASKS, TOWER_UNITS, 1], 1.0)
        self.head_bias = zeros("head_bias", [TASKS])

    def __call__(self, x: Any) -> Any:
        streams = x  # [R, B, d], of later levels [R, B, G, d]
        for layers, gate, mask in zip(self.levels, self.gates, self.masks):
            if streams.shape.rank == 3:
                hidden = streams
                logits = tf.einsum("rbd,rgdn->rbgn", streams, gate)
            else:
                hidden = tf.gather(streams, self.stream_of, axis=2)
                chosen_by = streams[:, :, : len(mask)]
                logits = tf.einsum("rbgd,rgdn->rbgn", chosen_by, gate)
            for kernel, bias in layers:
                one = hidden.shape.rank == 3
                product = "rbd,rndh->rbnh" if one else "rbnd,rndh->rbnh"
                hidden = tf.einsum(product, hidden, kernel) + bias[:, None]
                hidden = tf.nn.relu(hidden)
            share = tf.nn.softmax(logits + mask)
            streams = tf.einsum("rbgn,rbnh->rbgh", share, hidden)
        deep = tf.einsum("rbth,rthj->rbtj", streams, self.tower)
        deep = tf.nn.relu(deep + self.tower_bias[:, None])
        logit = tf.einsum("rbtj,rtj->rbt", deep, self.head[..., 0])
        return logit + self.head_bias[:, None]


def check_against_the_package(kind: str) -> None:
    """The first run of a bank of CGC or PLE must be what the package computes."""
    width = 20
    bank = Bank(kind, 2, width, seed=1)
    layout, last = bank.layout, bank.layout.levels - 1
    names = [f"task_{t}" for t in range(TASKS)]
    levels: list[Any] = [
        Extraction(
            names,
            [layout.own] * TASKS,
            layout.shared,
            units,
            seed=0,
            shared_gate=level < last,
        )
        for level, units in enumerate(layout.split(bank.units))
    ]
    towers = Towers([f"task/{n}" for n in names], [TOWER_UNITS], [1] * TASKS, seed=0)

    def run(x: Any) -> Any:
        for level in levels:
            x = level(x).mixed
        return tf.stack(towers(x), axis=1)

    x = tf.random.stateless_normal([2, 5, width], [1, 2])
    run(x[0])
    for variable in (v for v in bank.trainable_variables if "bias" in v.name):
        variable.assign(tf.random.stateless_normal(variable.shape, [3, 4]))
    first = TASKS * layout.own
    for layer, layers, gate, mask in zip(levels, bank.levels, bank.gates, bank.masks):
        for i, (kernel, bias) in enumerate(layers):
            for t, name in enumerate(names):
                mine = slice(t * layout.own, (t + 1) * layout.own)
                layer.own._kernels[i][f"task/{name}"].assign(kernel[0, mine])
                layer.own._biases[i][f"task/{name}"].assign(bias[0, mine])
            layer.shared.layers[i]._kernels[0].assign(kernel[0, first:])
            layer.shared.layers[i]._biases[0].assign(bias[0, first:])
        for g, name in enumerate(layer._gates()):
            seen = tf.gather(gate[0, g], np.flatnonzero(mask[g] == 0), axis=1)
            layer._gate_kernels[name].assign(seen)
    (hidden,) = towers.hidden.layers
    for t in range(TASKS):
        hidden._kernels[t].assign(bank.tower[0, t])
        hidden._biases[t].assign(bank.tower_bias[0, t])
        towers.head._kernels[t].assign(bank.head[0, t])
        towers.head._biases[t].assign(bank.head_bias[0, t : t + 1])
    np.testing.assert_allclose(run(x[0]), bank(x)[0], rtol=1e-4, atol=1e-4)


def train(
    kind: str,
    data: Data,
    rate: float,
    *,
    steps: int,
    seed: int,
    start: int,
) -> np.ndarray:
    """Final losses [R, T] of one kind of model.

    Args:
        kind: One of `LAYOUTS`.
        data: The tasks of R runs.
        rate: Adam's first learning rate.
        steps: Of 128 new rows each.
        seed: Of the rows: the same for all models that are compared.
        start: Of the initial values.
    """
    runs, width = int(data.weights.shape[0]), int(data.weights.shape[1])
    bank = Bank(kind, runs, width, start)
    falling = keras.optimizers.schedules.PolynomialDecay(rate, steps, 0.0)
    optimizer = keras.optimizers.legacy.Adam(falling)
    errors = fit_bank(bank, data, optimizer, steps=steps, seed=seed)
    return np.asarray(np.mean(errors, axis=1))


def choose_rates(runs: int, steps: int, width: int, seed: int) -> dict[str, float]:
    """The learning rate of each model with the lowest loss at p = 0.5."""
    rates = {}
    data = make_data(0.5, runs, seed, width=width)
    for kind in LAYOUTS:
        tried = {
            rate: float(
                train(kind, data, rate, steps=steps, seed=seed, start=seed).mean()
            )
            for rate in RATES
        }
        rates[kind] = min(tried, key=lambda r: tried[r])
        note(f"{kind}: loss by learning rate {tried}")
    return rates


def see_saw(gains: np.ndarray) -> np.ndarray:
    """[R, T] -> [R], 1 where one task gains and the other loses."""
    return np.asarray(gains[:, 0] * gains[:, 1] < 0, np.float64)


def median(values: np.ndarray) -> Any:
    """Over the last axis."""
    return np.median(values, axis=-1)


def row(p: float, kind: str, loss: np.ndarray, gains: np.ndarray) -> str:
    """A row of the table."""
    collapsed = (loss > COLLAPSED).any(axis=1).sum()
    cells = [f"{p:g}", kind, f"{np.median(loss):.4f}", f"{collapsed}"]
    for t in range(TASKS):
        low, high = interval(gains[:, t], median)
        cells.append(f"{np.median(gains[:, t]):+.4f} ({low:+.4f}..{high:+.4f})")
    low, high = interval(see_saw(gains), mean)
    up, down = (np.all(s * gains > 0, axis=1).mean() for s in (1, -1))
    cells += [f"{up:.0%}", f"{see_saw(gains).mean():.0%} ({low:.0%}..{high:.0%})"]
    return f"| {' | '.join([*cells, f'{down:.0%}'])} |"


def findings(gains: dict[float, dict[str, np.ndarray]]) -> list[tuple[str, str]]:
    """What the paper reports, and whether it is seen here."""
    result = []

    def above_zero(text: str, values: np.ndarray, of: Any) -> None:
        low, high = interval(values, of)
        shown = f"{of(values):+.4f}, 95 %: {low:+.4f} to {high:+.4f}"
        result.append((f"{text} ({shown})", verdict(low, high)))

    for p, by in gains.items():
        for t in range(TASKS):
            name = f"p = {p:g}: PLE gains on task {t + 1}, median"
            above_zero(name, by["PLE"][:, t], median)
        for other in ("Shared-Bottom", "MMoE", "CGC"):
            above_zero(
                f"p = {p:g}: PLE gains more than {other}, both tasks' mean, median",
                (by["PLE"] - by[other]).mean(axis=1),
                median,
            )
        for other in ("Shared-Bottom", "MMoE"):
            above_zero(
                f"p = {p:g}: {other} see-saws in more runs than PLE, share",
                see_saw(by[other]) - see_saw(by["PLE"]),
                mean,
            )
    return result


def figure(gains: dict[float, dict[str, np.ndarray]], path: pathlib.Path) -> None:
    """Gain of task 1 against gain of task 2, a dot a run, one panel per correlation."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels, axes = pyplot.subplots(
        1, len(gains), figsize=(3.4 * len(gains), 3.4), sharex=True, sharey=True
    )
    shown = (AGAIN, *MULTI_TASK)
    for axis, (p, by) in zip(axes, gains.items()):
        for name, marker in zip(shown, "x.s^o"):
            axis.plot(*by[name].T, marker, label=name, markersize=4, alpha=0.8)
        axis.axhline(0, color="grey", linewidth=0.8)
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set_title(f"p = {p:g}")
        axis.set_xlabel("gain of task 1 over Single")
    every = np.concatenate([by[n].ravel() for by in gains.values() for n in shown])
    low, high = np.percentile(every, [1, 99])
    axes[0].set(xlim=(low, high), ylim=(low, high))
    axes[0].set_ylabel("gain of task 2")
    axes[-1].legend(fontsize=7)
    panels.tight_layout()
    panels.savefig(path)
    pyplot.close(panels)


def main() -> None:
    """Runs the study; prints the table and writes figure and JSON."""
    arguments = parser(__doc__, "d = 512, 100 runs of 1.4 million rows")
    arguments.add_argument("--runs", type=int, default=20)
    arguments.add_argument("--steps", type=int, default=1_000)
    arguments.add_argument("--width", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=0)
    options = arguments.parse_args()
    if options.full:
        options.runs, options.steps, options.width = 100, 1_400_000 // BATCH, 512
    options.out.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    for kind in ("CGC", "PLE"):
        check_against_the_package(kind)
    sizes: dict[str, dict[str, Any]] = {}
    for kind, layout in LAYOUTS.items():
        units = matched_units(kind, options.width)
        weights = count_weights(layout, options.width, units)
        sizes[kind] = {"expert_units": units, "weights": weights}
    rates = choose_rates(10, options.steps, options.width, options.seed + 1_000)

    losses: dict[float, dict[str, np.ndarray]] = {}
    for p in CORRELATIONS:
        data = make_data(p, options.runs, options.seed, width=options.width)
        losses[p] = {}
        for kind, other in itertools.chain(
            ((k, k) for k in LAYOUTS), [(SINGLE, AGAIN)]
        ):
            losses[p][other] = train(
                kind,
                data,
                rates[kind],
                steps=options.steps,
                seed=options.seed,
                start=child_seed(options.seed, other),
            )
            note(
                f"p = {p:g}, {other}: {losses[p][other].mean():.4f}, "
                f"{time.perf_counter() - began:.0f} s"
            )
    gains = {
        p: {k: by[SINGLE] - loss for k, loss in by.items() if k != SINGLE}
        for p, by in losses.items()
    }
    print("| model | widths of layers | weights | learning rate |")
    print("| --- | --- | --- | --- |")
    for kind, size in sizes.items():
        widths = ", ".join(str(u) for u in size["expert_units"])
        print(f"| {kind} | {widths} | {size['weights']:,} | {rates[kind]:g} |")
    print(
        "\n| p | model | median loss | collapsed | gain of task 1 | gain of task 2 "
        "| both gain | see-saw | both lose |\n" + "| --- " * 9 + "|"
    )
    for p in CORRELATIONS:
        base = losses[p][SINGLE]
        died = (base > COLLAPSED).any(axis=1).sum()
        print(f"| {p:g} | {SINGLE} | {np.median(base):.4f} | {died} | | | | | |")
        for kind in (AGAIN, WIDE, *MULTI_TASK):
            print(row(p, kind, losses[p][kind], gains[p][kind]))
    print()
    found = findings(gains)
    for text, conclusion in found:
        print(f"- {text}: **{conclusion}**")
    figure(gains, options.out / "ple_seesaw.svg")
    last = record(
        options.out,
        "ple_seesaw",
        {
            "losses": {
                str(p): {k: v.tolist() for k, v in by.items()}
                for p, by in losses.items()
            },
            "findings": found,
            "models": sizes,
            "learning_rates": rates,
            "runs": options.runs,
            "steps": options.steps,
            "width": options.width,
            "seed": options.seed,
            "seconds": time.perf_counter() - began,
        },
    )
    print(
        f"\n{options.runs} runs of {options.steps} steps, d = {options.width}. {last}"
    )


if __name__ == "__main__":
    main()
