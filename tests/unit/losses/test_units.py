"""Raw outputs in the label's unit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl.losses.units import to_logit, to_unit
from tfmtl.schema.task import TaskSpec

VALUE: dict[str, Any] = {"type": "regression"}


def _task(**changes: Any) -> TaskSpec:
    return TaskSpec.model_validate({"name": "y", "label": "y", **changes})


def _unit(value: Any, factor: Any = None, **changes: Any) -> np.ndarray:
    return np.asarray(to_unit(_task(**changes), np.asarray(value, "f"), factor))


def test_binary_outputs_are_probabilities() -> None:
    for loss in ("bce", "focal", "l2r", "bpr", "list_softmax", "listnet", "listmle"):
        np.testing.assert_allclose(_unit([0, np.log(3)], loss=loss), [0.5, 0.75])
    found = _unit([[1, 1 + np.log(3)], [2, 2]], loss="jrc")
    np.testing.assert_allclose(found, [0.75, 0.5], rtol=1e-6)


def test_regressions_have_the_labels_unit() -> None:
    assert _unit([2.5], **VALUE) == _unit([2.5], **VALUE, loss="huber") == 2.5
    log1p = {**VALUE, "transform": "log1p"}
    assert _unit(np.log(8), **log1p) == pytest.approx(7)
    assert _unit(np.log(8), 1.5, **log1p, smearing=True) == pytest.approx(11)
    assert _unit(np.log(8), **VALUE, loss="weighted_logistic") == pytest.approx(8)
    sigma = np.log1p(np.e)
    value = _unit([[0, 1, 1]], **VALUE, loss="ziln")
    np.testing.assert_allclose(value, [0.5 * np.exp(1 + sigma**2 / 2)], rtol=1e-5)


def test_the_score_of_a_ranking_loss_stays_a_score() -> None:
    log1p = {**VALUE, "transform": "log1p"}
    assert _unit(3.0, **log1p, loss="bpr") == 3
    with_part = {"name": "bpr", "pointwise": 0.1}
    assert _unit(np.log(8), **log1p, loss=with_part) == pytest.approx(7)


def test_ordered_classes_are_logits_whose_softmax_are_probabilities() -> None:
    task = _task(type="multiclass", classes=4, loss="ordinal")
    outputs = np.random.default_rng(0).normal(size=(9, 3)).astype("f")
    logits, answers = to_logit(task, outputs).numpy(), to_unit(task, outputs).numpy()
    np.testing.assert_allclose(np.exp(logits), answers, rtol=1e-5)
    np.testing.assert_allclose(answers.sum(1), 1, rtol=1e-5)
    assert answers.shape == (9, 4)
