"""The report of a search, as JSON and as a page."""

import json

import numpy as np
import pytest

from tfmtl.tuning.goals import Goal
from tfmtl.tuning.importance import Importance, Importances
from tfmtl.tuning.markdown import table
from tfmtl.tuning.retrained import Retrained, SeedRun
from tfmtl.tuning.summary import summarize, write_summary

GOAL = Goal.parse(["click/auc"], ["like/auc >= 0.6"])
BOTH = Goal.parse(["click/auc", "like/auc"], [])


@pytest.fixture
def trials(record):
    def metrics(click, like):
        return {"click/auc": click, "like/auc": like, "buy/auc": 0.5, "click/loss": 1.0}

    return [
        record(1, metrics(0.70, 0.65), {"rate": 0.01, "kind": "a|b"}),
        record(2, metrics(0.80, 0.50), {"rate": 0.02}),
        record(3, None, {"rate": 9.0}, reason="out of memory"),
        record(4, metrics(0.72, 0.61), {"rate": 0.03}, status="pruned"),
        record(5, metrics(0.70, 0.65), {"rate": 0.01}, reused="0001"),
    ]


def runs(*clicks):
    return [
        SeedRun(
            seed,
            {"click/auc": c, "like/auc": 0.7, "buy/auc": 0.5},
            {"click/auc": c - 0.1},
            10.0,
        )
        for seed, c in enumerate(clicks)
    ]


@pytest.fixture
def retrained():
    return [
        Retrained("Equal", "control", None, runs(0.60, 0.62), trials=1, spent=7.0),
        Retrained("PCGrad", "control", None, runs(0.63)),
        Retrained("trial 0004", "tuned", "0004", runs(0.70, 0.74)),
        Retrained("trial 0001", "tuned", "0001", runs(0.71, 0.71), {2: "diverged"}),
    ]


def test_counts_and_winner(trials, retrained):
    found = summarize(trials, GOAL, retrained, asked={"oracle": "random"})
    assert found["asked"] == {"oracle": "random"}
    # The reused trial cost nothing.
    assert found["trials"] == {
        "total": 5,
        "finished": 3,
        "pruned": 1,
        "failed": 1,
        "reused": 1,
        "keep_bounds": 3,
        "seconds": 10.0,
    }
    assert found["winner"] == {
        "label": "trial 0004",
        "trial": "0004",
        "values": {"rate": 0.03},
        "seeds": 2,
        "keeps_bounds": True,
        "metrics": {"click/auc": pytest.approx(0.72), "like/auc": 0.7},
    }
    assert found["failed"] == [{"trial": "0003", "reason": "out of memory"}]
    assert found["reused"] == [{"trial": "0005", "of": "0001"}]
    assert [row["trial"] for row in found["top"]] == ["0004", "0001", "0005", "0002"]
    assert len(found["records"]) == 5 and found["front"] is None


def test_rows_of_controls_and_tuned(trials, retrained):
    found = summarize(trials, GOAL, retrained)
    # The kinds of the goal's metrics of every task, and no others.
    assert found["metrics"] == ["click/auc", "like/auc", "buy/auc"]
    equal, one_seed, best, other = found["retrained"]
    cell = best["validation"]["click/auc"]
    assert cell["mean"] == pytest.approx(0.72) and cell["by_seed"] == {
        "0": 0.70,
        "1": 0.74,
    }
    assert cell["sd"] == pytest.approx(np.sqrt(2) * 0.02)
    assert list(best["test"]) == ["click/auc"]
    gain = best["gain"]["validation"]["click/auc"]
    assert gain["mean"] == pytest.approx(0.11) and gain["seeds"] == 2
    # t of one degree of freedom: 12.706; differences 0.10 and 0.12.
    assert gain["high"] - gain["mean"] == pytest.approx(12.706 * 0.01, rel=1e-4)
    assert equal["gain"] == {"validation": {}, "test": {}}
    assert one_seed["gain"]["test"]["click/auc"]["low"] is None
    assert (equal["trials"], equal["spent"], equal["seconds"]) == (1, 7.0, 20.0)
    assert (best["trials"], best["spent"]) == (5, 10.0)
    assert one_seed["trials"] == 0
    assert [row["winner"] for row in found["retrained"]] == [False, False, True, False]
    assert other["failed"] == {"2": "diverged"}
    assert found["gains_over"] == "Equal"
    without = summarize(trials, GOAL, retrained[1:])
    assert without["gains_over"] is None
    assert without["retrained"][1]["gain"]["validation"] == {}


def test_front_of_several_objectives(trials):
    found = summarize(trials, BOTH)["front"]
    assert [p["trial"] for p in found["points"]] == ["0002", "0004", "0001"]
    assert found["reference"] == {"click/auc": 0.70, "like/auc": 0.50}
    # 0.02 x 0.11 of trial 4; the other two lie on the edges.
    assert found["hypervolume"] == pytest.approx(0.0022)
    assert found["over_time"] == pytest.approx([0, 0, 0, 0.0022, 0.0022])
    given = summarize(trials, BOTH, reference=np.array([0.0, 0.0]))["front"]
    assert given["hypervolume"] > 0.5


def test_without_seeds_the_winner_is_a_trial_and_said_to_be_luck(trials, tmp_path):
    found = summarize(trials, GOAL)
    assert found["winner"]["trial"] == "0004" and found["winner"]["seeds"] == 1
    write_summary(tmp_path, found)
    assert "which may be luck" in (tmp_path / "report.md").read_text()
    harsh = Goal.parse(["click/auc"], ["like/auc >= 0.9"])
    none = summarize(trials, harsh)
    assert none["winner"]["keeps_bounds"] is False
    write_summary(tmp_path, none)
    assert "does not keep all bounds" in (tmp_path / "report.md").read_text()


def test_files(trials, retrained, tmp_path):
    importance = Importances(
        (
            Importance("click/auc", {"rate": 0.8, "kind": 0.1}, 0.1, 0.7, 4),
            Importance("like/auc", {"kind": 0.5, "rate": 0.2}, 0.3, float("nan"), 4),
        ),
        "no score",
    )
    found = summarize(trials, BOTH, retrained, importance=importance)
    write_summary(tmp_path, found)
    assert json.loads((tmp_path / "report.json").read_text()) == found
    assert found["importance"]["found"][1]["r2"] is None
    page = (tmp_path / "report.md").read_text()
    for wanted in (
        "| **trial 0004** (winner) | 2 | 0.7200 ± 0.0283 | 0.7000 ± 0.0000 |",
        "| PCGrad | 1 | 0.6300 | 0.7000 |",
        "| **trial 0004** (winner) | +0.1100 [-0.0171, +0.2371] |",
        "| PCGrad | +0.0300 (one seed) |",
        "Hypervolume 0.0022 above `click/auc` 0.7000, `like/auc` 0.5000",
        "| `rate` | 80% | 20% |",
        "Not to be believed of like/auc",
        "| 0003 | out of memory |",
        "| 0005 | 0001 |",
        "kind: a\\|b",
    ):
        assert wanted in page
    # Every table is whole: as many cells in each row as in its head.
    for block in page.split("\n\n"):
        if block.startswith("|"):
            cells = {line.replace("\\|", "").count("|") for line in block.splitlines()}
            assert len(cells) == 1


def test_a_search_without_a_usable_trial_has_a_report(record, tmp_path):
    found = summarize([record(1), record(2)], BOTH, importance=Importances((), "few"))
    assert found["winner"] is None and found["front"]["points"] == []
    write_summary(tmp_path, found)
    page = (tmp_path / "report.md").read_text()
    assert "None: no trial" in page and "Empty: no trial" in page and "few" in page
    assert summarize([], GOAL)["trials"]["total"] == 0


def test_table_escapes_and_aligns():
    assert table(["a|c", "b"], [["x|y", 1.5], [None, 2]]).splitlines() == [
        "| a\\|c | b |",
        "| --- | ---: |",
        "| x\\|y | 1.5000 |",
        "| - | 2 |",
    ]
