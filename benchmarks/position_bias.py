"""Position bias: does the shallow tower bring the scores nearer to true relevance?

    python -m benchmarks.position_bias [--rows 200000] [--seeds 5] [--full] [--out DIR]

Z. Zhao et al., RecSys 2019 (WatchNext): an item further down is clicked less whatever
it is; the position as an input feature, missing at serving, brought -0.07 % engagement,
the shallow tower +0.24 %. Live gains cannot be repeated here. What can: the simulator
knows the probability of a click had the item stood first, so that scores are compared
with relevance itself. The logging policy puts better items first, so that position and
quality are confounded; the click logit falls by 0.35 log(1 + position).

A score is the click logit that is served; figures are means over the requests of the
test split of Spearman's and Kendall's correlation with true relevance, item by item
within the list, and the share of the attainable gap, (AUC - 0.5) / (Bayes AUC - 0.5),
of clicks at the first position over all rows, in expectation. Rows of the table:

- MMoE, position shown: the position is an input, and served as it was logged, which no
  ranker can know before it has ranked;
- MMoE, first position: the same model, every item served as if it stood first;
- MMoE without the position;
- WatchNext, blind: WatchNext with all positions missing in training, the same network
  without its shallow tower;
- WatchNext.

The recovered bias is relative to the first position: of WatchNext, its tower's own
numbers; of MMoE, the mean change of the logit of test rows when their position is set.
Tasks are click, like and watch time, of which click alone depends on the position.
Features and optimizers are those of the shipped `simulated` experiment, with histories
of 10 clicks in the reduced size. A seed is of starts and order of rows; log, splits and
test rows are the same for all. Best step of five epochs by click's AUC on validation.
"""

from __future__ import annotations

import pathlib
import tempfile
import time
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.reproduction import (
    Columns,
    Simulated,
    note,
    over_seeds,
    plus_minus,
    record,
    share_of_bayes,
    simulated_options,
)
from tfmtl import build
from tfmtl._keras import tf
from tfmtl.adapters.simulator.constants import POSITION_EFFECT
from tfmtl.models.mmoe import MMoE
from tfmtl.workflow.restore import Restored, restore

TASKS = (
    "[{name: click, label: click}, {name: like, label: like, given: click, "
    "normalization: batch}, {name: watch_time, label: watch_time, type: regression, "
    "observed_when: click == 1, transform: log1p, normalization: batch}]"
)
_EXPERTS = "{num_experts: 4, expert_units: [128, 64], tower_units: [32]}"
_SHALLOW = (
    "{shared_units: [128], num_experts: 4, expert_units: [64], tower_units: [32], "
    "biased_tasks: [click], missing_rate: %s}"
)
SHOWN, FIRST = "MMoE, position shown", "MMoE, first position"
WITHOUT, BLIND, DEBIASED = "MMoE without position", "WatchNext, blind", "WatchNext"
MODELS = {
    SHOWN: ("MMoE", _EXPERTS),
    WITHOUT: ("benchmarks.position_bias:MMoEWithoutPosition", _EXPERTS),
    BLIND: ("WatchNext", _SHALLOW % 1.0),
    DEBIASED: ("WatchNext", _SHALLOW % 0.1),
}
"""Those that are trained; `FIRST` is another way to serve the first."""
ROWS = (SHOWN, FIRST, WITHOUT, BLIND, DEBIASED)
FIGURES = {"spearman": "Spearman", "kendall": "Kendall", "share": "share of the gap"}
_BIAS_ROWS = 4_096


class MMoEWithoutPosition(MMoE):
    """MMoE that does not read the position."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.embedding = self.make_embedding("embedding", exclude=["position"])


def click_logits(restored: Restored, position: int | None = None) -> Columns:
    """`row`, `position` (its id) and `logit` of the test split, [N] each.

    Args:
        restored: A finished run.
        position: The id to feed for every row; the logged ones if None.
    """
    reader = build.make_reader(
        restored.experiment, restored.manifest, restored.dataset, "test", keys=True
    )

    @tf.function(autograph=False)
    def predict(features: Any) -> Any:
        return restored.model(features, training=False)["click"]

    parts: dict[str, list[np.ndarray]] = {"row": [], "position": [], "logit": []}
    for batch in reader.epoch():
        ids = batch.features["position"]
        fed = ids if position is None else tf.ones_like(ids) * position
        logit = predict({**batch.features, "position": fed})
        for name, values in (
            ("row", batch.keys["row"]),
            ("position", ids),
            ("logit", logit),
        ):
            parts[name].append(values.numpy())
    columns = {name: np.concatenate(values) for name, values in parts.items()}
    return {**columns, "row": columns["row"].astype(np.int64)}


def within_lists(
    score: np.ndarray, truth: np.ndarray, request: np.ndarray
) -> tuple[float, float]:
    """Mean Spearman and Kendall correlation over the lists.

    A list of which all scores are equal counts 0.

    Args:
        score: [N].
        truth: [N], without ties in a list.
        request: [N], which list a row belongs to.
    """
    order = np.argsort(request, kind="stable")
    starts = np.flatnonzero(np.diff(request[order], prepend=np.nan))
    length = np.diff([*starts, len(order)])
    spearman, kendall = [], []
    for n in np.unique(length[length > 1]):
        rows = order[starts[length == n][:, None] + np.arange(n)]  # [lists, n]
        s, t = score[rows], truth[rows]
        ranks = [stats.rankdata(v, axis=1) - (n + 1) / 2 for v in (s, t)]
        norm = np.sqrt(np.prod([(r**2).sum(axis=1) for r in ranks], axis=0))
        product = (ranks[0] * ranks[1]).sum(axis=1)
        spearman.append(np.where(norm > 0, product / np.maximum(norm, 1e-12), 0.0))
        agree = np.sign(s[:, :, None] - s[:, None]) * np.sign(
            t[:, :, None] - t[:, None]
        )
        kendall.append(agree.sum(axis=(1, 2)) / (n * (n - 1)))
    return float(np.concatenate(spearman).mean()), float(np.concatenate(kendall).mean())


def ids_of_positions(found: Columns, log: Columns) -> np.ndarray:
    """[P]: the id in the records of each position that the test split shows."""
    position = log["position"][found["row"]]
    first = {int(p): int(i) for p, i in zip(position[::-1], found["position"][::-1])}
    return np.array([first[p] for p in range(int(position.max()) + 1)])


def bias_of_tower(restored: Restored, ids: np.ndarray) -> np.ndarray:
    """[P]: WatchNext's tower, relative to the first position."""
    model: Any = restored.model
    column = model.biased.index("click")
    bias = model.position_tower(tf.constant(ids, tf.int32))[:, column].numpy()
    return np.asarray(bias - bias[0], np.float64)


def bias_of_input(restored: Restored, ids: np.ndarray) -> np.ndarray:
    """[P]: the mean change of a model's logit when the position is set."""
    reader = build.make_reader(
        restored.experiment, restored.manifest, restored.dataset, "test", keys=True
    )
    batch = next(iter(reader.epoch()))
    features = {name: values[:_BIAS_ROWS] for name, values in batch.features.items()}
    means = []
    for i in ids:
        fed = tf.fill(tf.shape(features["position"]), int(i))
        fed = tf.cast(fed, features["position"].dtype)
        outputs = restored.model({**features, "position": fed}, training=False)
        means.append(float(tf.reduce_mean(outputs["click"])))
    return np.array(means) - means[0]


def slope(bias: np.ndarray, rows: np.ndarray) -> float:
    """The coefficient of log(1 + position) that fits a bias best, weighted by rows."""
    x = np.log1p(np.arange(len(bias)))
    return float((rows * x * bias).sum() / (rows * x * x).sum())


def findings(found: dict[str, list[dict[str, Any]]]) -> list[tuple[str, str]]:
    """What the method promises, and whether it is seen here."""
    result = []
    for ahead, behind, what in (
        (DEBIASED, BLIND, "the shallow tower alone"),
        (DEBIASED, WITHOUT, "against MMoE without the position"),
        (DEBIASED, SHOWN, "against MMoE with the logged position"),
        (DEBIASED, FIRST, "against the position as input, fixed when served"),
        (FIRST, WITHOUT, "the position as input, fixed when served"),
    ):
        for name in ("spearman", "kendall"):
            better, worse = ([f[name] for f in found[m]] for m in (ahead, behind))
            shown, conclusion = over_seeds(better, worse)
            text = f"{FIGURES[name]} of {ahead} above {behind}, {what}: {shown}"
            result.append((text, conclusion))
    return result


def figure(
    found: dict[str, list[dict[str, Any]]],
    biases: dict[str, list[np.ndarray]],
    path: pathlib.Path,
) -> None:
    """Correlations, a dot a seed; and the bias by position against the true one."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels, (left, right) = pyplot.subplots(
        1, 2, figsize=(9, 3.4), width_ratios=[1, 1.2]
    )
    for place, name in enumerate(reversed(ROWS)):
        values = [f["spearman"] for f in found[name]]
        left.plot(values, [place] * len(values), "o", markersize=4, alpha=0.7)
        left.plot(np.mean(values), place, "k|", markersize=14)
    left.set_yticks(range(len(ROWS)), list(reversed(ROWS)))
    left.set_xlabel("Spearman with true relevance")
    left.grid(axis="x", linewidth=0.4)
    for (name, several), colour in zip(biases.items(), ("tab:blue", "tab:orange")):
        for i, bias in enumerate(several):
            label = name if i == 0 else None
            right.plot(bias, color=colour, alpha=0.6, linewidth=1, label=label)
    positions = np.arange(max(len(b) for several in biases.values() for b in several))
    true = -POSITION_EFFECT * np.log1p(positions)
    right.plot(true, "k--", linewidth=1.5, label="true")
    right.set_xlabel("position")
    right.set_ylabel("click logit, relative to the first")
    right.legend(fontsize=8)
    panels.tight_layout()
    panels.savefig(path)
    pyplot.close(panels)


def table(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Mean ± s.d. over seeds."""
    lines = [
        f"| model | {' | '.join(FIGURES.values())} | parameters |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in ROWS:
        cells = [plus_minus([f[k] for f in found[name]]) for k in FIGURES]
        cells.append(f"{found[name][0]['parameters']:,}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def bias_table(biases: dict[str, list[np.ndarray]], rows: np.ndarray) -> list[str]:
    """The recovered bias of some positions and its slope beside the true ones."""
    at = [p for p in (1, 2, 4, 8, 12) if p < len(rows)]
    lines = [
        f"| bias at position | {' | '.join(str(p) for p in at)} "
        "| coefficient of log(1 + position) |",
        "| --- | " + "--- | " * (len(at) + 1),
    ]
    true = [f"{-POSITION_EFFECT * np.log1p(p):.3f}" for p in at]
    lines.append(f"| true | {' | '.join(true)} | {-POSITION_EFFECT:.3f} |")
    for name, several in biases.items():
        cells = [plus_minus([b[p] for b in several], 3) for p in at]
        cells.append(plus_minus([slope(b, rows) for b in several], 3))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Runs the study; prints the tables and writes figure and JSON."""
    options = simulated_options(__doc__, seeds=5, full_seeds=10)
    began = time.perf_counter()
    common = [
        f"dataset.tasks={TASKS}",
        f"dataset.features.hist.max_length={options.history}",
        "training.monitor=click/auc",
        "training.epochs=5",
        "training.patience=2",
    ]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ROWS}
    biases: dict[str, list[np.ndarray]] = {SHOWN: [], DEBIASED: []}
    shown_rows = np.zeros(0, np.int64)
    with tempfile.TemporaryDirectory() as folder:
        world = Simulated(pathlib.Path(folder), options.rows, seed=1)
        dataset = world.preprocess("dataset", common)
        note(f"data: {time.perf_counter() - began:.0f} s")
        for seed in range(options.seeds):
            for name, (model, config) in MODELS.items():
                run, result = world.train(
                    "run",
                    dataset,
                    [
                        *common,
                        f"seed={seed}",
                        f"model.class={model}",
                        f"model.config={config}",
                    ],
                )
                restored = restore(run)
                logged = click_logits(restored)
                ids = ids_of_positions(logged, world.log)
                shown_rows = np.bincount(world.log["position"][logged["row"]])
                served = {name: logged["logit"]}
                if name == SHOWN:
                    biases[name].append(bias_of_input(restored, ids))
                    fixed = click_logits(restored, int(ids[0]))
                    served[FIRST] = fixed["logit"]
                if name == DEBIASED:
                    biases[name].append(bias_of_tower(restored, ids))
                relevance = world.truth["click_at_first_position"][logged["row"]]
                request = world.log["request_id"][logged["row"]]
                for row, score in served.items():
                    spearman, kendall = within_lists(score, relevance, request)
                    now = {
                        "spearman": spearman,
                        "kendall": kendall,
                        "share": share_of_bayes(score, relevance),
                    }
                    facts = {"step": result.step, "parameters": result.parameters}
                    found[row].append({"seed": seed, **facts, **now})
                    shown = {k: round(v, 4) for k, v in now.items()}
                    note(f"{row} {seed}: {shown}, {time.perf_counter() - began:.0f} s")
    print("\n".join(table(found)))
    print()
    print("\n".join(bias_table(biases, shown_rows)))
    print(f"\n{int(shown_rows.sum()):,} test rows; {options.seeds} seeds.\n")
    reported = findings(found)
    for text, conclusion in reported:
        print(f"- {text}: **{conclusion}**")
    figure(found, biases, options.out / "position_bias.svg")
    last = record(
        options.out,
        "position_bias",
        {
            "models": found,
            "configs": dict(MODELS),
            "bias": {k: [b.tolist() for b in v] for k, v in biases.items()},
            "true_coefficient": -POSITION_EFFECT,
            "rows_by_position": shown_rows.tolist(),
            "findings": reported,
            "rows": options.rows,
            "history": options.history,
            "log_seed": 1,
            "seconds": time.perf_counter() - began,
        },
    )
    print(f"\n{options.rows:,} rows. {last}")


if __name__ == "__main__":
    main()
