"""Points, bars and names in the picture of the front."""

import numpy as np
import pytest

from tfmtl.tuning.goals import Goal
from tfmtl.tuning.plots import draw_front

BOTH = Goal.parse(["click/auc", "like/auc"], ["like/auc >= 0.5"])


def points(pane):
    return {
        line.get_label(): line.get_xydata().tolist()
        for line in pane.get_lines()
        if not line.get_label().startswith("_")
    }


def test_trials_and_the_front(trials, look):
    shown = points(draw_front(trials, BOTH).axes[0])
    assert shown["front (one seed)"] == [[0.72, 0.61], [0.71, 0.63]]
    assert shown["breaks a bound"] == [[0.73, 0.40]]
    assert len(shown["trial"]) == 4


def test_bars_are_deviations_over_seeds(trials, retrained, look):
    figure = draw_front(trials, BOTH, retrained, winner="trial 0002")
    bars = {c.get_label(): c for c in figure.axes[0].containers}
    assert list(bars) == [
        "trial 0002, the winner (2 seeds)",
        "retrained (mean, s.d. over seeds)",
        "Equal (2 seeds)",
        "PCGrad (1 seeds)",
    ]
    line, _, (across, upright) = bars["trial 0002, the winner (2 seeds)"]
    np.testing.assert_allclose(line.get_xydata(), [[0.72, 0.62]])
    half = np.sqrt(2) * 0.01
    (ends,) = across.get_segments()
    np.testing.assert_allclose(ends, [[0.72 - half, 0.62], [0.72 + half, 0.62]])
    (ends,) = upright.get_segments()
    np.testing.assert_allclose(ends, [[0.72, 0.62 - half], [0.72, 0.62 + half]])
    # One seed has no deviation, and so no bar.
    assert not bars["PCGrad (1 seeds)"].has_xerr
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {*bars} <= {*legend}
    markers = [bars[f"{n} seeds)"][0].get_marker() for n in ("Equal (2", "PCGrad (1")]
    assert len(set(markers)) == 2


def test_everything_but_what_is_far_worse_is_inside(trials, retrained, look):
    figure = draw_front(trials, BOTH, retrained, winner="trial 0002")
    figure.draw_without_rendering()
    (pane,) = figure.axes
    assert 0.6 < pane.get_xlim()[0] < 0.69 and pane.get_xlim()[1] > 0.735
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
    assert not box.overlaps(pane.xaxis.label.get_window_extent())


def test_three_objectives_are_two_panels(record, look):
    goal = Goal.parse(["a/auc", "b/auc", "c/logloss"], [])
    made = [
        record(i, {"a/auc": 0.1 * i, "b/auc": 1 - 0.1 * i, "c/logloss": 0.3})
        for i in range(4)
    ]
    panes = draw_front(made, goal).axes
    assert [(p.get_xlabel(), p.get_ylabel()) for p in panes] == [
        ("a/auc", "b/auc"),
        ("a/auc", "c/logloss"),
    ]
    low, high = panes[1].get_ylim()
    assert low < 0.3 < high


def test_nothing_usable_is_drawn_too(record):
    assert draw_front([record(1)], BOTH).startswith(b"\x89PNG")
    assert draw_front([], BOTH).startswith(b"\x89PNG")
    with pytest.raises(ValueError):
        draw_front([], Goal.parse(["click/auc"], []))
