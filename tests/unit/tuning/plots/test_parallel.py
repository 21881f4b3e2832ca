"""Lines, scales and labels of the parallel coordinates."""

import itertools

import pytest

from tfmtl.tuning.goals import Goal
from tfmtl.tuning.plots import draw_parallel

BOUNDED = Goal.parse(["click/auc"], ["like/auc >= 0.5"])


def colours(pane):
    """Colour to the lines [steps] of trials, without ticks and axes."""
    found = {}
    for line in pane.get_lines():
        if len(line.get_xdata()) > 2:
            found.setdefault(str(line.get_color()), []).append(line.get_ydata())
    return found


def test_lines_pass_their_values(trials, axes, look):
    pane = draw_parallel(trials, axes, BOUNDED).axes[0]
    shown = colours(pane)
    (winner,) = shown["black"]
    assert winner[0] == 1.0 and winner[1] < -0.05
    assert winner[2] == pytest.approx(1.0, abs=0.05)
    (failed,) = shown["C3"]
    assert len(failed) == 3 and failed[:2] == pytest.approx([1.0, 1.0])
    (broken,) = shown["0.6"]
    assert broken[:2] == pytest.approx([0.0, 1.0])
    # Of trials that keep the bound: another colour for each value, best on top.
    others = {k: v[0] for k, v in shown.items() if k[0] == "("}
    assert len(others) == 4
    ends = sorted(line[-1] for line in others.values())
    assert ends[0] == 0.0 and ends[-1] == winner[-1] > 0.9
    first = next(line for line in others.values() if line[1] == pytest.approx(0.5))
    assert first[0] == pytest.approx(0.5)


def test_the_winner_may_be_another(trials, axes, look):
    pane = draw_parallel(trials, axes, BOUNDED, winner="0001").axes[0]
    assert colours(pane)["black"][0][:2] == pytest.approx([0.5, 0.5])
    texts = [t.get_text() for t in pane.get_legend().get_texts()]
    assert texts == ["winner: trial 0001", "breaks a bound", "failed"]


def test_labels_are_right_and_do_not_overlap(trials, axes, look):
    figure = draw_parallel(trials, axes, BOUNDED)
    figure.draw_without_rendering()
    (pane,) = figure.axes
    texts = [t.get_text() for t in pane.texts]
    assert {"MMoE", "PLE", "SharedBottom", "not active", "0.001", "0.1"} <= set(texts)
    names = [t.get_text() for t in pane.get_xticklabels()]
    assert names == [
        "shared\nlearning_rate",
        "embedding\nlearning_rate",
        "model\nclass",
        "click/auc",
    ]
    boxes = [t.get_window_extent() for t in [*pane.texts, *pane.get_xticklabels()]]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    inside = figure.bbox
    assert all(inside.contains(*box.min) and inside.contains(*box.max) for box in boxes)


def test_small_losses_are_on_top(record, axes, look):
    goal = Goal.parse(["buy/logloss"], [])
    values = {"optimizers.shared.learning_rate": 0.01, "model.class": "PLE"}
    made = [record(i, {"buy/logloss": v}, values) for i, v in enumerate((0.4, 0.3))]
    (winner,) = colours(draw_parallel(made, axes, goal).axes[0])["black"]
    assert winner[-1] > 0.9


def test_nothing_usable_is_drawn_too(record, axes):
    assert draw_parallel([record(1)], axes, BOUNDED).startswith(b"\x89PNG")
    assert draw_parallel([], axes, BOUNDED).startswith(b"\x89PNG")
