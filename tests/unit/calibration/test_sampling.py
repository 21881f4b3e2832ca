"""Corrections of sampling: round trips, simulated regressions, gradients, weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.calibration import Finish, SamplingCorrection, correct_batch
from tfmtl.data.read import Batch
from tfmtl.metrics.exact import auc
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.manifest import (
    DatasetManifest,
    LabelStats,
    RowCounts,
    SamplingStats,
    SplitStats,
    StratumCounts,
)

W = 0.05


def sigmoid(s: Any) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.asarray(s, np.float64))))


def manifest(correction: str, rate: float = W, **more: Any) -> DatasetManifest:
    """Of a funnel in two scenarios; `b` keeps half of its rows."""
    dataset = DatasetSpec.model_validate(
        {
            "features": [{"name": "item", "kind": "categorical"}],
            "scenario": {"column": "page", "values": ["a", "b"]},
            "tasks": [
                {"name": "click", "label": "click"},
                {"name": "buy", "label": "buy", "given": "click"},
            ],
            "split": {"by": "hash", "column": "item"},
            "sampling": {
                "keep": ["click"],
                "rate": rate,
                "scenario_rates": more.pop("scenario_rates", {"b": 0.5}),
                "correction": correction,
            },
        }
    )
    written = {"click": LabelStats(rows=150, total=50)}
    before = {"click": LabelStats(rows=1_050, total=50)}
    stats = SamplingStats(
        sure=50,
        strata={"a": StratumCounts(rate=rate, candidates=1_000, kept=100)},
        exposed={"click": 1_000, "buy": 0},
        tasks=before,
    )
    return DatasetManifest(
        tfmtl_version="test",
        schema_hash="",
        dataset=dataset,
        block_rows=1,
        columns=(),
        splits={"train": SplitStats(rows=150, files=(), tasks=written)},
        counts=RowCounts(read=0, written=0),
        sampling=stats,
    )


def outputs(rows: int = 200) -> tuple[dict[str, Any], np.ndarray]:
    """Logits of a funnel whose joint is the product."""
    random = np.random.default_rng(0)
    click, given = random.normal(-2, 2, (2, rows))
    p = sigmoid(click) * sigmoid(given)
    logits = {"click": click, "buy|click": given, "buy": np.log(p) - np.log1p(-p)}
    scenario = random.integers(0, 3, rows).astype(np.int32)
    return {n: tf.constant(v, tf.float32) for n, v in logits.items()}, scenario


def test_correction_is_the_formula_of_the_paper_and_comes_back() -> None:
    correction = SamplingCorrection.of(manifest("export"))
    assert correction is not None
    logits, scenario = outputs()
    rates = np.array([W, 0.5, W])[scenario]
    log_rates = correction.log_rates(tf.constant(scenario))
    true = correction.moved(logits, log_rates)
    p = sigmoid(logits["click"])
    q = p / (p + (1 - p) / rates)  # He et al., 2014
    np.testing.assert_allclose(sigmoid(true["click"]), q, rtol=1e-5)
    np.testing.assert_allclose(
        sigmoid(true["buy"]), sigmoid(logits["buy"]) * q / p, rtol=1e-5
    )
    np.testing.assert_allclose(
        sigmoid(true["buy"]), q * sigmoid(logits["buy|click"]), rtol=1e-5
    )
    assert true["buy|click"] is logits["buy|click"]
    # The joint odds do not shift by 1 / w: that would be another number.
    wrong = sigmoid(logits["buy"] + log_rates)
    assert np.abs(wrong / sigmoid(true["buy"]) - 1).max() > 0.1
    back = correction.moved(true, -log_rates)
    for name, value in logits.items():
        np.testing.assert_allclose(back[name], value, rtol=1e-4, atol=1e-4)


def test_finish_corrects_for_export_alone_and_a_rate_of_one_is_the_identity() -> None:
    logits, scenario = outputs()
    features = {"scenario": tf.constant(scenario)}
    for kind in ("training", "weights", "none"):
        assert Finish(manifest(kind))(logits, features) == logits
    moved = Finish(manifest("export"))(logits, features)
    rates = np.array([W, 0.5, W])[scenario]
    np.testing.assert_allclose(moved["click"], logits["click"] + np.log(rates), 1e-5)
    # A scenario's ranking stays; that over all scenarios, at other rates, need not.
    y = np.random.default_rng(1).random(len(scenario)) < sigmoid(logits["click"])
    for number in range(3):
        rows = scenario == number
        before = auc(y[rows].astype(float), logits["click"].numpy()[rows])
        assert auc(y[rows].astype(float), moved["click"].numpy()[rows]) == before
    one = Finish(manifest("export", 1.0, scenario_rates={}))(logits, features)
    for name, value in logits.items():
        np.testing.assert_array_equal(one[name], value)


def logistic_regression(
    x: np.ndarray, y: np.ndarray, offset: Any = 0.0, weights: Any = 1.0
) -> np.ndarray:
    """Newton's method: theta of sigmoid(x theta + offset)."""
    theta = np.zeros(x.shape[1])
    for _ in range(30):
        p = sigmoid(x @ theta + offset)
        curvature = (x * np.broadcast_to(weights * p * (1 - p), len(y))[:, None]).T @ x
        theta += np.linalg.solve(curvature, x.T @ (weights * (y - p)))
    return theta


def test_training_on_sampled_rows_and_correcting_recovers_the_mean() -> None:
    """200,000 rows with known p; kept rates of two scenarios; three corrections."""
    random = np.random.default_rng(3)
    rows = 200_000
    x = np.stack([np.ones(rows), random.normal(size=rows)], axis=1)
    scenario = random.integers(0, 2, rows)
    theta = np.array([-3.0, 0.8])
    truth = sigmoid(x @ theta)
    y = (random.random(rows) < truth).astype(np.float64)
    rates = np.array([W, 0.5])[scenario]
    kept = (y == 1) | (random.random(rows) < rates)
    x_kept, y_kept, log_w = x[kept], y[kept], np.log(rates[kept])
    error = y.std() / np.sqrt(rows)

    correction = SamplingCorrection.of(manifest("training"))
    assert correction is not None
    found = {
        # In training the loss reads the logit moved by the correction.
        "training": logistic_regression(
            x_kept,
            y_kept,
            offset=correction.moved(
                {n: tf.zeros(kept.sum()) for n in ("click", "buy|click", "buy")},
                -correction.log_rates(tf.constant(scenario[kept], tf.int32)),
            )["click"].numpy(),
        ),
        "weights": logistic_regression(
            x_kept, y_kept, weights=np.where(y_kept == 1, 1.0, 1 / rates[kept])
        ),
    }
    for name, solved in found.items():
        assert abs(sigmoid(x @ solved).mean() - truth.mean()) < 4 * error, name
        np.testing.assert_allclose(solved, theta, atol=0.06, err_msg=name)
    # One rate for all: the plain fit, corrected afterwards.
    kept = (y == 1) | (random.random(rows) < W)
    plain = logistic_regression(x[kept], y[kept])
    after = sigmoid(x @ plain + np.log(W)).mean()
    assert abs(after - truth.mean()) < 4 * error
    # The wrong sign, or no correction at all, is far off.
    for wrong in (-np.log(W), 0.0):
        assert abs(sigmoid(x @ plain + wrong).mean() - truth.mean()) > 100 * error
    wrong_sign = logistic_regression(x_kept, y_kept, offset=log_w)
    assert abs(sigmoid(x @ wrong_sign).mean() - truth.mean()) > 100 * error


class Model:
    """What `correct_batch` asks of a model."""

    def __init__(self, kind: str, reached: bool = True) -> None:
        self.manifest = manifest(kind)
        self.tasks = self.manifest.dataset.tasks
        self._reached = reached

    def reached_by_others(self, task: str) -> bool:
        return self._reached

    def extra_losses(self) -> dict[str, Any]:
        from tfmtl.models.base import ExtraLoss

        return {"help": ExtraLoss("click", 1.0)}

    def trained_output(self, task: Any) -> str:
        return str(task.conditional)


def batch() -> Batch:
    """Click, buy; the fourth row has no label of click."""
    labels = tf.constant([[1.0, 1], [1, 0], [0, 0], [0, 0], [0, 1]])
    mask = tf.constant([[True, True]] * 3 + [[False, True]] + [[True, True]])
    scenario = tf.constant([0, 1, 0, 1, 2])
    return Batch({"scenario": scenario}, labels, mask, tf.ones([5, 2]), {})


def test_importance_weights_are_of_mean_one_over_the_split() -> None:
    logits = {n: tf.zeros(5) for n in ("click", "buy|click", "buy")}
    same, (labels, _, weights) = correct_batch(Model("weights"), logits, batch())
    assert same is logits
    scale = 150 / 1_050
    # A purchase without a click is no positive of click.
    expected = scale * np.array([1, 1, 1 / W, 2, 1 / W])
    np.testing.assert_allclose(weights, np.stack([expected] * 2, axis=1), rtol=1e-6)
    assert labels.shape == [5, 2]


def test_training_moves_what_the_losses_read() -> None:
    names = ("click", "buy|click", "buy", "help")
    logits = {n: tf.zeros(5) for n in names}
    moved, (_, _, weights) = correct_batch(Model("training"), logits, batch())
    away = -np.log([W, 0.5, W, 0.5, W])
    np.testing.assert_allclose(moved["click"], away, rtol=1e-6)
    np.testing.assert_allclose(moved["help"], away, rtol=1e-6)
    np.testing.assert_array_equal(moved["buy|click"], np.zeros(5))
    np.testing.assert_array_equal(weights, np.ones([5, 2]))
    for kind in ("export", "none"):
        same, read = correct_batch(Model(kind), logits, batch())
        assert same is logits and read[2] is not None


@pytest.mark.parametrize("reached", [True, False])
def test_gradient_reaches_the_step_above_only_where_the_architecture_has_it(
    reached: bool,
) -> None:
    variables = {n: tf.Variable(tf.zeros(5)) for n in ("click", "buy|click", "buy")}
    with tf.GradientTape() as tape:
        logits = {n: v + 0.0 for n, v in variables.items()} | {"help": tf.zeros(5)}
        moved, _ = correct_batch(Model("training", reached), logits, batch())
        total = tf.reduce_sum(moved["buy"])
    click, buy = tape.gradient(total, [variables["click"], variables["buy"]])
    assert np.isfinite(buy).all() and (np.abs(buy) > 0).all()
    assert (click is not None) == reached


def test_outputs_start_at_the_rate_that_the_logit_is_of() -> None:
    for kind, wanted in (
        ("export", 50 / 150),
        ("none", 50 / 150),
        ("training", 50 / 1_050),
        ("weights", 50 / 1_050),
    ):
        tasks, _ = manifest(kind).base_rates()
        assert tasks["click"].mean == pytest.approx(wanted), kind
