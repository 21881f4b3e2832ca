"""What the true probabilities reach: the ceiling of every model."""

from __future__ import annotations

import numpy as np

from tfmtl.adapters.simulator import constants as c
from tfmtl.adapters.simulator.impressions import Impressions
from tfmtl.adapters.simulator.outcomes import Labels, Truth
from tfmtl.adapters.simulator.world import Bools, Floats

Cell = dict[str, float | int | None]


def rank_sum(score: Floats, pairs: list[tuple[Floats, Floats]]) -> list[float]:
    """For each (positive, negative) weight pair: the weight of pairs in right order.

    Args:
        score: `[n]`; ties count half.
        pairs: Weights `[n]` of each row as a positive and as a negative.
    """
    order = np.argsort(score, kind="stable")
    ranked = score[order]
    starts = np.flatnonzero(np.concatenate([[True], np.diff(ranked) > 0]))
    sums = []
    for positive, negative in pairs:
        up = np.add.reduceat(positive[order], starts)
        down = np.add.reduceat(negative[order], starts)
        sums.append(float(np.sum(up * (np.cumsum(down) - 0.5 * down))))
    return sums


def bayes_cell(probability: Floats, label: Bools) -> Cell:
    """AUC of the true probability: against the labels drawn, and in expectation.

    The expected AUC is E[pairs in right order] / E[pairs] when every label is drawn
    anew: sum over i != j of p_i (1 - p_j) 1(p_i > p_j), over the sum of p_i (1 - p_j).

    Args:
        probability: `[n]` true probabilities.
        label: `[n]` labels drawn from them.

    Returns:
        rows, positives, rate, auc, expected_auc; an AUC without a positive and a
        negative is None.
    """
    rows, positives = len(label), int(label.sum())
    cell: Cell = {"rows": rows, "positives": positives}
    cell |= {"rate": positives / rows if rows else None, "auc": None}
    cell["expected_auc"] = None
    if rows < 2:
        return cell
    drawn = label.astype(np.float64)
    other = 1.0 - probability
    right, expected = rank_sum(
        probability, [(drawn, 1.0 - drawn), (probability, other)]
    )
    if 0 < positives < rows:
        cell["auc"] = right / (positives * (rows - positives))
    itself = float(probability @ other)
    pairs = float(probability.sum()) * float(other.sum()) - itself
    cell["expected_auc"] = (expected - 0.5 * itself) / pairs
    return cell


def watch_cell(truth: Truth, labels: Labels, where: Bools) -> Cell:
    """Error of the true conditional mean of watch_time on the clicked rows `where`."""
    rows = int(where.sum())
    if not rows:
        return {"rows": 0, "mean": None, "rmse": None, "log_rmse": None}
    seconds, centre = labels.watch_time[where], truth.watch_log_mean[where]
    mean = np.exp(centre + 0.5 * c.WATCH_NOISE**2)
    return {
        "rows": rows,
        "mean": float(seconds.mean()),
        "rmse": float(np.sqrt(np.mean((seconds - mean) ** 2))),
        "log_rmse": float(np.sqrt(np.mean((np.log(seconds) - centre) ** 2))),
    }


def bayes_table(log: Impressions, truth: Truth, labels: Labels) -> dict[str, object]:
    """Per task: "joint" over impressions and "given" over its parent's population.

    Each is a cell of `bayes_cell` with "scenarios", a cell for each scenario. Rows of
    an unknown like are left out, and like's joint probability is that where known.
    watch_time has "given" only, see `watch_cell`.
    """
    event, scenario = labels.event, log.scenario
    populations = {
        "cart": event["click"],
        "favourite": event["click"],
        "like": event["click"] & labels.like_known,
        "buy": event["cart"] | event["favourite"],
    }

    def cells(probability: Floats, task: str, where: Bools) -> dict[str, object]:
        table: dict[str, object] = dict(
            bayes_cell(probability[where], event[task][where])
        )
        here = {name: where & (scenario == s) for s, name in enumerate(c.SCENARIOS)}
        table["scenarios"] = {
            name: bayes_cell(probability[rows], event[task][rows])
            for name, rows in here.items()
        }
        return table

    everyone = np.ones(len(scenario), np.bool_)
    tasks: dict[str, object] = {
        "click": {"joint": cells(truth.click, "click", everyone)}
    }
    for task, population in populations.items():
        known = labels.like_known if task == "like" else everyone
        joint = truth.like_where_known if task == "like" else truth.joint(task)
        tasks[task] = {
            "joint": cells(joint, task, known),
            "given": cells(truth.given[task], task, population),
        }
    watch: dict[str, object] = dict(watch_cell(truth, labels, event["click"]))
    watch["scenarios"] = {
        name: watch_cell(truth, labels, event["click"] & (scenario == s))
        for s, name in enumerate(c.SCENARIOS)
    }
    tasks["watch_time"] = {"given": watch}
    return tasks
