"""`benchmarks.balancing`: what its tables say of given figures."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.balancing_tables import Accuracy, cost_table
from benchmarks.trials import Ledger


def cells(text):
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()]
    return {tuple(row[:2]): row for row in rows}


def cost(name, times, config=None, peak=1000.0):
    return {
        "name": name,
        "config": config or {},
        "ms": 99.0,
        "equal_ms": 90.0,
        "peak_mib": peak,
        "cpu_ms": 100.0 * times,
        "cpu_equal_ms": 100.0,
    }


@pytest.mark.parametrize(
    ("name", "config", "limit"),
    [
        ("Uncertainty", {}, 1.15),
        ("FAMO", {}, 1.45),
        ("GradNorm", {}, 1.4),
        ("PCGrad", {}, 3.2),
        ("PCGrad", {"gradients": "representation"}, 1.5),
        ("MGDA-UB", {}, 1.5),
    ],
)
def test_a_cost_is_held_against_the_limit_of_its_kind(name, config, limit):
    for times, kept in ((limit, "yes"), (limit + 0.01, "no")):
        rows = [cost("Equal", 1.0), cost(name, times, config, peak=1010.0)]
        *_, line = cells(cost_table(rows)).values()
        assert line[0] == name
        assert line[2:] == [f"{times:.2f}", "1.10", f"{limit:.2f}", kept, "+10"]


def trial(name, seed, auc, **more):
    tasks = {"click": {"auc": auc + 0.1}, "buy": {"auc": auc - 0.1}}
    made = {"model": name, "seed": seed, "mean_task_auc": auc, "tasks": tasks}
    return made | {"data": "some", "settings": name} | more


EQUAL = [0.70, 0.71, 0.75]


def test_gains_are_paired_by_seed():
    trials = [trial("Equal", s, a) for s, a in enumerate(EQUAL)]
    # The seeds spread by 0.026 and more; the gains by 0.001.
    more = [0.010, 0.011, 0.012]
    trials += [trial("FAMO", s, EQUAL[s] + more[s]) for s in (2, 0, 1)]
    trials += [trial("DWA", s, EQUAL[s] + g) for s, g in enumerate([0.01, 0, -0.01])]
    trials += [trial("Nash-MTL", 0, 0.5, failed="ValueError: a|b")]
    found = Accuracy(("click", "buy"), trials)
    assert found.gains("FAMO", "Equal") == pytest.approx(more)
    half = 4.3027 * np.std(more, ddof=1) / np.sqrt(3)  # t, 97.5 %, 2 degrees
    lines = {row[0]: row for row in cells(found.table()).values()}
    assert lines["FAMO"][2] == f"+0.0110 ({0.011 - half:+.4f} to {0.011 + half:+.4f})"
    assert lines["FAMO"][1] == "0.7310 ± 0.0274"
    assert lines["FAMO"][4:] == ["0.8310 ± 0.0274", "0.6310 ± 0.0274", "3"]
    assert lines["Nash-MTL"][1] == "failed: ValueError: a\\|b" and "Fixed" in lines
    assert lines["GradNorm"][1:] == ["-"] * 5 + ["0"]
    first, second = found.findings()
    assert "ahead beyond the seeds' spread: FAMO (+0.0110); behind: none" in first
    assert "1 of 2 not told apart" in first and "no second seed" in second


def test_ledgers_side_by_side_become_one(tmp_path):
    for name, aucs in (("a", [0.1, 0.2]), ("b", [0.9, 0.3])):
        made = [trial("Equal", s + (name == "b"), a) for s, a in enumerate(aucs)]
        (tmp_path / f"{name}.json").write_text(json.dumps({"trials": made}))
    ledger = Ledger(tmp_path / "a.json")
    ledger.join(tmp_path / "b.json")
    assert [t["mean_task_auc"] for t in ledger.trials] == [0.1, 0.2, 0.3]
