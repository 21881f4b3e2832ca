"""Conversion after the click: entire-space models against a model of clicked rows.

    python -m benchmarks.funnel [--rows 200000] [--seeds 3] [--full] [--out DIR]

On the simulator's funnel, impression -> click -> intent (cart or favourite) -> buy, of
which `buy` is the conversion. CVR is p(buy | click), told by its AUC on clicked rows;
CTCVR is p(click and buy), told on all impressions, as in the papers:

- ESMM (X. Ma et al., SIGIR 2018): CVR AUC 68.56 against 66.00 of the model of clicked
  rows, CTCVR 65.32 against 62.07.
- ESM2 (H. Wen et al., SIGIR 2020), which knows the action between, ahead of ESMM: CVR
  .8486 against .8398, CTCVR .8371 against .8270.
- AITM (D. Xi et al., KDD 2021), purchase on all impressions of Ali-CCP: .6525 against
  MMoE's .6420, ESMM's .6291 and single-task's .5806.
- DBMTL (Q. Wang et al., 2019) and MMoE+ESMM (no paper of its own) stand beside them.

The base is SingleTask: a network of its own for click and one for buy, which learns
from clicked rows alone; its CTCVR is the product of the two. Every model has layers of
128, 64 and 32 and the features and optimizers of the shipped `simulated` experiment,
with histories of 10 clicks in the reduced size. Models of "click, buy" never see the
action between; "branch" models see click, intent and buy, both given the click;
"chain" is click, intent, buy, each given the one before. `MMoE, branch` tells what the
extra label alone is worth.

Beside the AUC of the labels drawn stands the share of the attainable gap, (AUC - 0.5) /
(Bayes AUC - 0.5), both in expectation over labels from the simulator's true
probabilities: the labels' noise, large with some 200 purchases in a test split, is not
in it, and it decides the verdicts. "CVR, all rows" is the same of p(buy | click) over
all impressions, clicked or not: what CVR models serve, and what no log can tell.

A seed is of starts and order of rows; log, splits and test rows are the same for all.
Best step of five epochs by the mean of click's and buy's AUC on validation.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
import time
from typing import Any

import numpy as np

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
from tfmtl.metrics.exact import auc

CLICK = "{name: click, label: click}"
INTENT = (
    "{name: intent, label: cart == 1 or favourite == 1, given: click, "
    "normalization: batch, role: auxiliary}"
)
BUY = "{name: buy, label: buy, given: %s, normalization: batch}"
GRAPHS = {
    "click, buy": (CLICK, BUY % "click"),
    "branch": (CLICK, INTENT, BUY % "click"),
    "chain": (CLICK, INTENT, BUY % "intent"),
}
"""Labels that a model sees, and what is given what."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """A row of the table.

    Attributes:
        model: Class.
        graph: One of `GRAPHS`.
        config: Settings, as YAML.
        overrides: Of the experiment, beside the model's.
    """

    model: str
    graph: str
    config: str
    overrides: tuple[str, ...] = ()


_EXPERTS = "{num_experts: 4, expert_units: [128, 64], tower_units: [32]}"
_TOWERS = "tower_units: [128, 64, 32]"
MODELS = {
    # The mean over clicked rows: alone, a loss is as strong against the penalty of the
    # embeddings as click's.
    "SingleTask": Entry(
        "SingleTask",
        "click, buy",
        "{units: [128, 64], tower_units: [32]}",
        ("dataset.tasks.buy.normalization=observed",),
    ),
    "MMoE": Entry("MMoE", "click, buy", _EXPERTS),
    "ESMM": Entry("ESMM", "click, buy", f"{{{_TOWERS}}}"),
    "MMoE+ESMM": Entry("MMoE+ESMM", "click, buy", _EXPERTS),
    "MMoE, branch": Entry("MMoE", "branch", _EXPERTS),
    "ESM2": Entry("ESM2", "branch", f"{{through: {{buy: intent}}, {_TOWERS}}}"),
    "DBMTL": Entry(
        "DBMTL",
        "branch",
        "{parents: {intent: [click], buy: [click, intent]}, bottom_units: [128, 64], "
        "specific_units: [64], relation_units: [32]}",
    ),
    "AITM": Entry("AITM", "chain", "{step_units: [128, 64, 32]}"),
}
REPORTED = (
    ("ESMM", "SingleTask", ("cvr", "ctcvr"), "ESMM's paper"),
    ("ESM2", "ESMM", ("cvr", "ctcvr"), "ESM2's paper"),
    ("AITM", "SingleTask", ("ctcvr",), "AITM's paper"),
    ("AITM", "ESMM", ("ctcvr",), "AITM's paper"),
    ("AITM", "MMoE", ("ctcvr",), "AITM's paper"),
    ("MMoE+ESMM", "SingleTask", ("cvr", "ctcvr"), "expected, no paper"),
    ("DBMTL", "SingleTask", ("cvr", "ctcvr"), "expected, no table of its paper"),
    ("MMoE", "SingleTask", ("cvr", "ctcvr"), "for comparison"),
    ("ESMM", "SingleTask", ("cvr_everywhere",), "the claim behind ESMM"),
    ("ESMM", "MMoE", ("cvr_everywhere",), "the claim behind ESMM"),
)
"""Ahead, behind, in which figures, and where it is reported."""
NAMES = {
    "cvr": "CVR on clicks",
    "ctcvr": "CTCVR",
    "cvr_everywhere": "CVR, all rows",
    "ctr": "CTR",
}


def figures(predictions: Columns, truth: Columns) -> dict[str, float]:
    """AUCs of the labels drawn, and shares of the attainable gap.

    Args:
        predictions: Of the test split, by column.
        truth: Of all rows, by column.
    """
    row = predictions["row"].astype(np.int64)
    click, buy = (
        predictions[f"prediction/{t}"].astype(float) for t in ("click", "buy")
    )
    clicked, bought = (predictions[f"label/{t}"] for t in ("click", "buy"))
    rate = buy / np.maximum(click, 1e-12)
    where = clicked == 1
    true_rate, true_buy = truth["buy_given_click"][row], truth["buy"][row]
    return {
        "cvr_auc": auc(bought[where], rate[where]),
        "ctcvr_auc": auc(bought, buy),
        "ctr_auc": auc(clicked, click),
        "cvr": share_of_bayes(rate[where], true_rate[where]),
        "ctcvr": share_of_bayes(buy, true_buy),
        "ctr": share_of_bayes(click, truth["click"][row]),
        "cvr_everywhere": share_of_bayes(rate, true_rate),
    }


def best(predictions: Columns, truth: Columns) -> dict[str, float]:
    """The figures of the true probabilities."""
    row = predictions["row"].astype(np.int64)
    known = {f"prediction/{t}": truth[t][row] for t in ("click", "buy")}
    return figures({**predictions, **known}, truth)


def findings(found: dict[str, list[dict[str, Any]]]) -> list[tuple[str, str]]:
    """What the papers report, and whether it is seen here."""
    result = []
    for ahead, behind, names, source in REPORTED:
        for name in names:
            better, worse = ([f[name] for f in found[m]] for m in (ahead, behind))
            shown, conclusion = over_seeds(better, worse)
            text = f"{NAMES[name]}: {ahead} above {behind} ({source}): share {shown}"
            result.append((text, conclusion))
    return result


def figure(found: dict[str, list[dict[str, Any]]], path: pathlib.Path) -> None:
    """Shares of the attainable gap, a dot a seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels, axes = pyplot.subplots(1, len(NAMES), figsize=(10, 3.2), sharey=True)
    places = list(range(len(found)))[::-1]
    for axis, (name, title) in zip(axes, NAMES.items()):
        for place, values in zip(places, found.values()):
            shares = [f[name] for f in values]
            axis.plot(shares, [place] * len(shares), "o", markersize=4, alpha=0.7)
            axis.plot(np.mean(shares), place, "k|", markersize=14)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("share of the gap", fontsize=8)
        axis.grid(axis="x", linewidth=0.4)
    axes[0].set_yticks(places, list(found))
    panels.tight_layout()
    panels.savefig(path)
    pyplot.close(panels)


def table(
    found: dict[str, list[dict[str, Any]]], ceiling: dict[str, float]
) -> list[str]:
    """Mean ± s.d. over seeds; the last row is of the true probabilities."""
    lines = [
        "| model | labels | parameters | CVR AUC, clicks | CTCVR AUC, all | CVR share "
        "| CTCVR share | CVR share, all rows | CTR share |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    shares = ("cvr", "ctcvr", "cvr_everywhere", "ctr")
    for name, values in found.items():
        cells = [name, MODELS[name].graph, f"{values[0]['parameters']:,}"]
        cells += [plus_minus([f[k] for f in values]) for k in ("cvr_auc", "ctcvr_auc")]
        cells += [plus_minus([f[k] for f in values], 3) for k in shares]
        lines.append(f"| {' | '.join(cells)} |")
    drawn = [f"{ceiling[k]:.4f}" for k in ("cvr_auc", "ctcvr_auc")]
    lines.append(f"| true probabilities | | | {' | '.join(drawn)} | 1 | 1 | 1 | 1 |")
    return lines


def main() -> None:
    """Runs the study; prints the table and writes figure and JSON."""
    options = simulated_options(__doc__, seeds=3, full_seeds=5)
    began = time.perf_counter()
    shared = [
        f"dataset.features.hist.max_length={options.history}",
        "training.monitor=mean/auc",
        "training.epochs=5",
        "training.patience=2",
    ]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in MODELS}
    ceiling: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        world = Simulated(pathlib.Path(folder), options.rows, seed=1)
        common, datasets = {}, {}
        for graph, tasks in GRAPHS.items():
            common[graph] = [f"dataset.tasks=[{', '.join(tasks)}]", *shared]
            datasets[graph] = world.preprocess(graph.replace(", ", "-"), common[graph])
        note(f"data: {time.perf_counter() - began:.0f} s")
        for name, entry in MODELS.items():
            for seed in range(options.seeds):
                run, result = world.train(
                    "run",
                    datasets[entry.graph],
                    [
                        *common[entry.graph],
                        *entry.overrides,
                        f"seed={seed}",
                        f"model.class={entry.model}",
                        f"model.config={entry.config}",
                    ],
                )
                predictions = world.predictions(run)
                ceiling = ceiling or best(predictions, world.truth)
                now = figures(predictions, world.truth)
                facts = {"step": result.step, "parameters": result.parameters}
                found[name].append({"seed": seed, **facts, **now})
                shown = {k: round(v, 4) for k, v in now.items()}
                note(f"{name} {seed}: {shown}, {time.perf_counter() - began:.0f} s")
        rows = len(predictions["row"])
        purchases = int(np.sum(predictions["label/buy"] == 1))
    print("\n".join(table(found, ceiling)))
    print(f"\n{rows:,} test rows with {purchases} purchases; {options.seeds} seeds.\n")
    reported = findings(found)
    for text, conclusion in reported:
        print(f"- {text}: **{conclusion}**")
    figure(found, options.out / "funnel.svg")
    last = record(
        options.out,
        "funnel",
        {
            "models": {
                name: {**dataclasses.asdict(MODELS[name]), "seeds": values}
                for name, values in found.items()
            },
            "true_probabilities": ceiling,
            "findings": reported,
            "rows": options.rows,
            "test_rows": rows,
            "test_purchases": purchases,
            "history": options.history,
            "log_seed": 1,
            "seconds": time.perf_counter() - began,
        },
    )
    print(f"\n{options.rows:,} rows. {last}")


if __name__ == "__main__":
    main()
