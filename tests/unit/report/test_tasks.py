"""Findings on tasks: one made-up case for each, and one without."""

from __future__ import annotations

from typing import Any

import pytest

from tfmtl.report.tasks import conflicting_tasks, dominant_tasks, worsening_tasks


def event(share: float, cosine: float) -> dict[str, Any]:
    facts = {
        "norm_share": {"click": share, "like": 1 - share},
        "cosine": {"click": {"like": cosine}},
    }
    return {"groups": {"shared": facts}}


def test_a_dominant_task_is_found_in_the_mean() -> None:
    (found,) = dominant_tasks([event(0.95, 0), event(0.75, 0)])
    assert found.subject == "click on shared"
    assert found.number == pytest.approx(0.85) and "85%" in found.text
    assert not list(dominant_tasks([event(0.95, 0), event(0.6, 0)]))
    alone = {"groups": {"shared": {"norm_share": {"click": 1.0}, "cosine": {}}}}
    assert not list(dominant_tasks([alone]))


def test_a_conflict_must_last() -> None:
    (found,) = conflicting_tasks([event(0.5, c) for c in (-0.4, -0.2, 0.1)])
    assert found.subject == "click and like on shared"
    assert found.number == pytest.approx(-0.5 / 3) and "67% of 3" in found.text
    # Once, however much; always, but hardly.
    assert not list(conflicting_tasks([event(0.5, c) for c in (-0.9, 0.1, 0.1)]))
    assert not list(conflicting_tasks([event(0.5, -0.05)] * 3))


def history(
    click: list[float], like: list[float]
) -> list[tuple[int, dict[str, float]]]:
    values = zip(click, like)
    return [
        (5 * i, {"click/auc": c, "like/rmse": e}) for i, (c, e) in enumerate(values)
    ]


def test_a_task_that_pays_for_another_is_found() -> None:
    metrics = ["click/auc", "like/rmse"]
    (found,) = worsening_tasks(history([0.6, 0.7, 0.68], [2.0, 2.0, 1.5]), metrics)
    assert found.subject == "click" and found.number == pytest.approx(0.02)
    assert "0.7000 at step 5, 0.6800 at step 10" in found.text
    assert "while like improved" in found.text
    (found,) = worsening_tasks(history([0.6, 0.7, 0.8], [2.0, 1.0, 1.1]), metrics)
    assert found.subject == "like" and found.number == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("click", "like"),
    [
        ([0.6, 0.7, 0.68], [2.0, 1.5, 1.5]),  # nobody gained
        ([0.6, 0.7, 0.698], [2.0, 2.0, 1.5]),  # hardly worse
        ([0.6, 0.65, 0.7], [2.0, 1.5, 1.0]),  # all improve
        ([0.6], [2.0]),
    ],
)
def test_other_histories_are_no_finding(click: Any, like: Any) -> None:
    assert not list(worsening_tasks(history(click, like), ["click/auc", "like/rmse"]))
