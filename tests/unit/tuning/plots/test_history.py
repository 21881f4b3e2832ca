"""What the picture of a search over time shows."""

import pytest

from tfmtl.tuning.goals import Goal
from tfmtl.tuning.pareto import hypervolume_over_time
from tfmtl.tuning.plots import draw_history

BOUNDED = Goal.parse(["click/auc"], ["like/auc >= 0.5"])


def lines(pane):
    return {
        line.get_label(): [tuple(p) for p in line.get_xydata().tolist()]
        for line in pane.get_lines()
    }


def test_each_trial_is_where_it_belongs(trials, look):
    pane = draw_history(trials, BOUNDED).axes[0]
    shown = lines(pane)
    assert shown["finished"] == [(1, 0.70), (2, 0.72)]
    assert shown["pruned"] == [(4, 0.71)]
    assert shown["breaks a bound"] == [(3, 0.73)]
    assert shown["failed"] == [(5, 0.0)] and shown["far worse"] == [(6, 0.0)]
    # Trial 3 is best, but for its bound.
    best = [y for _, y in shown["best so far"]]
    assert best == [0.70, 0.72, 0.72, 0.72, 0.72]
    low, high = pane.get_ylim()
    assert 0.69 < low < 0.70 and 0.73 < high < 0.74
    free = lines(draw_history(trials, Goal.parse(["click/auc"], [])).axes[0])
    assert max(y for _, y in free["best so far"]) == 0.73


def test_losses_fall(record, look):
    goal = Goal.parse(["buy/logloss"], [])
    losses = (0.40, 0.42, 0.39, 0.41, 9.0)
    made = [record(i, {"buy/logloss": v}) for i, v in enumerate(losses)]
    shown = lines(draw_history([*made, record(9)], goal).axes[0])
    assert [y for _, y in shown["best so far"]] == [0.40, 0.40, 0.39, 0.39, 0.39, 0.39]
    # The bad end of the axis is its upper one.
    assert shown["far worse"] == [(5, 1.0)] and shown["failed"] == [(6, 1.0)]


def test_several_objectives_have_a_panel_each_and_the_hypervolume(trials, look):
    goal = Goal.parse(["click/auc", "like/auc"], [])
    figure = draw_history(trials, goal)
    assert [pane.get_ylabel() for pane in figure.axes] == [
        "click/auc",
        "like/auc",
        "hypervolume of the front",
    ]
    (line,) = figure.axes[2].get_lines()
    assert line.get_ydata() == pytest.approx(hypervolume_over_time(trials, goal))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(labels) == len(set(labels))


def test_nothing_usable_is_drawn_too(record):
    for records in ([record(1), record(2)], []):
        assert draw_history(records, BOUNDED).startswith(b"\x89PNG")
