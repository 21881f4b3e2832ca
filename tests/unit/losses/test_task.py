"""Masked losses of all tasks against NumPy loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl._keras import tf
from tfmtl.losses import Context, TaskLosses
from tfmtl.schema.task import TaskSpec

B = 12


def _tasks(normalization: str = "observed") -> tuple[TaskSpec, ...]:
    more = {"normalization": normalization}
    return (
        TaskSpec(name="click", label="click", **more),
        TaskSpec(
            name="time", label="time", type="regression", transform="log1p", **more
        ),
        TaskSpec(name="kind", label="kind", type="multiclass", classes=3, **more),
    )


def _data(seed: int = 0) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    logits = {
        "click": draw.normal(size=B),
        "time": draw.normal(size=B),
        "kind": draw.normal(size=(B, 3)),
    }
    labels = np.stack(
        [draw.integers(0, 2, B), draw.exponential(5, B), draw.integers(0, 3, B)], axis=1
    ).astype(float)
    labels[draw.random((B, 3)) < 0.3] = np.nan
    return logits, labels, draw.integers(1, 4, (B, 3)).astype(float)


def _run(
    tasks: tuple[TaskSpec, ...],
    logits: dict[str, Any],
    labels: np.ndarray,
    weights: np.ndarray,
) -> tuple[np.ndarray, list[Any], np.ndarray]:
    """Losses, gradients by the logits, presence."""
    values = {k: tf.Variable(v, dtype=tf.float32) for k, v in logits.items()}
    mask = ~np.isnan(labels)
    losses = TaskLosses(tasks, {t.name: t.name for t in tasks})
    with tf.GradientTape() as tape:
        found, present = losses(
            values,
            tf.constant(np.where(mask, labels, 0), tf.float32),
            tf.constant(mask),
            tf.constant(weights, tf.float32),
        )
        total = tf.reduce_sum(found)
    return found.numpy(), tape.gradient(total, list(values.values())), present.numpy()


def _row_loss(task: str, logit: Any, label: float) -> float:
    if task == "click":
        return float(np.logaddexp(0, logit) - label * logit)
    if task == "time":
        return float(0.5 * (logit - np.log1p(label)) ** 2)
    return float(np.log(np.exp(logit).sum()) - logit[int(label)])


def _truth(normalization: str, logits: Any, labels: Any, weights: Any) -> list[float]:
    result = []
    for t, task in enumerate(("click", "time", "kind")):
        total = count = weight = 0.0
        for b in range(B):
            if not np.isnan(labels[b, t]):
                total += weights[b, t] * _row_loss(task, logits[task][b], labels[b, t])
                count += 1
                weight += weights[b, t]
        divisor = {"observed": count, "batch": B, "weights": weight}[normalization]
        result.append(total / divisor)
    return result


@pytest.mark.parametrize("normalization", ["observed", "batch", "weights"])
def test_equals_numpy(normalization: str) -> None:
    data = _data()
    found, _, present = _run(_tasks(normalization), *data)
    np.testing.assert_allclose(found, _truth(normalization, *data), rtol=1e-5)
    others = {"observed", "batch", "weights"} - {normalization}
    for other in others:
        assert not np.allclose(found, _truth(other, *data), rtol=1e-3)
    assert present.all()


@pytest.mark.parametrize("normalization", ["observed", "batch", "weights"])
def test_masked_rows_hold_no_influence_whatever_they_hold(normalization: str) -> None:
    logits, labels, weights = _data()
    tasks = _tasks(normalization)
    mask = ~np.isnan(labels)
    losses = TaskLosses(tasks, {t.name: t.name for t in tasks})
    values = {k: tf.constant(v, tf.float32) for k, v in logits.items()}
    plain, gradients, _ = _run(tasks, logits, labels, weights)
    for wild in (0.0, 1.0, 1e9, np.nan):
        other, _ = losses(
            values,
            tf.constant(np.where(mask, labels, wild), tf.float32),
            tf.constant(mask),
            tf.constant(np.where(mask, weights, wild), tf.float32),
        )
        np.testing.assert_array_equal(other, plain)
    for t, gradient in enumerate(gradients):
        assert np.isfinite(gradient).all()
        assert (gradient.numpy()[~mask[:, t]] == 0).all()
        assert (np.abs(gradient.numpy()[mask[:, t]]) > 0).any()


@pytest.mark.parametrize("normalization", ["observed", "batch", "weights"])
def test_nothing_labelled_is_loss_0_and_gradient_0(normalization: str) -> None:
    logits, labels, weights = _data()
    found, gradients, present = _run(
        _tasks(normalization), logits, np.full_like(labels, np.nan), weights
    )
    np.testing.assert_array_equal(found, 0)
    assert not present.any()
    for gradient in gradients:
        assert gradient is not None
        np.testing.assert_array_equal(gradient, 0)


def test_integer_weights_are_duplicated_rows() -> None:
    logits, labels, weights = _data()
    again = np.repeat(np.arange(B), 1)
    tasks = _tasks("weights")
    found, _, _ = _run(tasks, logits, labels, np.repeat(weights[:, :1], 3, axis=1))
    again = np.repeat(np.arange(B), weights[:, 0].astype(int))
    duplicated, _, _ = _run(
        tasks,
        {k: v[again] for k, v in logits.items()},
        labels[again],
        np.ones((len(again), 3)),
    )
    np.testing.assert_allclose(found, duplicated, rtol=1e-5)
    assert not np.allclose(found, _run(tasks, logits, labels, np.ones((B, 3)))[0])


def test_weights_of_0_drop_rows_and_do_not_divide_by_0() -> None:
    logits, labels, _ = _data()
    found, gradients, _ = _run(_tasks("weights"), logits, labels, np.zeros((B, 3)))
    np.testing.assert_array_equal(found, 0)
    assert all(np.isfinite(g).all() for g in gradients)


def test_gradient_is_weight_times_error_over_the_sum() -> None:
    logits, labels, weights = _data()
    _, (gradient, *_), _ = _run(_tasks("weights"), logits, labels, weights)
    known = ~np.isnan(labels[:, 0])
    error = 1 / (1 + np.exp(-logits["click"])) - np.nan_to_num(labels[:, 0])
    share = np.where(known, weights[:, 0], 0)
    np.testing.assert_allclose(gradient, share * error / share.sum(), atol=1e-7)


def test_the_joint_output_may_be_trained_instead() -> None:
    tasks = (
        TaskSpec(name="click", label="click"),
        TaskSpec(name="buy", label="buy", given="click"),
    )
    labels = tf.constant([[1.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    logits = {
        n: tf.constant([0.5, -1.0, 2.0, 0.0]) for n in ("click", "buy", "buy|click")
    }
    rows = np.logaddexp(0, [0.5, -1, 2, 0]) - np.array([0.5, 0, 0, 0])
    for output, members in (("buy|click", [0, 2]), ("buy", [0, 1, 2, 3])):
        losses = TaskLosses(tasks, {"click": "click", "buy": output})
        found, _ = losses(logits, labels, tf.ones([4, 2], tf.bool), tf.ones([4, 2]))
        np.testing.assert_allclose(found[1], rows[members].mean(), rtol=1e-5)


# === Losses that need more than rows ===

GROUPS = np.array(
    [b"a", b"a", b"a", b"b", b"b", b"b", b"b", b"c", b"c", b"", b"", b"d"]
)
SCENARIO = np.arange(B) % 2
ORDERS = ("bpr", "list_softmax", "listnet", "listmle", "jrc")


def _one(loss: Any, **changes: Any) -> TaskSpec:
    return TaskSpec.model_validate({"name": "y", "label": "y", "loss": loss, **changes})


def _lone(
    task: TaskSpec, outputs: Any, labels: Any, weights: Any = None
) -> tuple[float, np.ndarray, bool]:
    """Loss, gradient by the outputs and presence of one task."""
    labels = np.asarray(labels, float)
    weights = np.ones(B) if weights is None else weights
    mask = ~np.isnan(labels)
    values = tf.Variable(outputs, dtype=tf.float32)
    context = Context(
        tf.constant(GROUPS), tf.constant(SCENARIO), {"y": tf.constant(labels * 2 - 1)}
    )
    losses = TaskLosses([task], {"y": "y"})
    with tf.GradientTape() as tape:
        found, present = losses(
            {"y": values},
            tf.constant(labels[:, None], tf.float32),
            tf.constant(mask[:, None]),
            tf.constant(weights[:, None], tf.float32),
            context._replace(teachers={"y": tf.constant(labels * 2 - 1, tf.float32)}),
        )
    gradient = tf.convert_to_tensor(tape.gradient(found, values))
    return float(found[0]), gradient.numpy(), bool(present[0])


def _outputs(task: TaskSpec, seed: int = 0) -> np.ndarray:
    shape = (B, task.width) if task.width > 1 else (B,)
    return np.random.default_rng(seed).normal(size=shape)


def _labels(task: TaskSpec) -> np.ndarray:
    labels = np.random.default_rng(5).integers(0, task.classes or 2, B).astype(float)
    labels[[0, 3, 7]] = 1
    labels[[1, 5, 8]] = 0
    labels[[2, 9]] = np.nan
    return labels


EVERY = (
    *(_one(n) for n in ("bce", "focal", "l2r", "jrc", "bpr")),
    *(_one(n) for n in ("list_softmax", "listnet", "listmle")),
    _one("distill", teacher="t"),
    *(
        _one(n, type="regression")
        for n in ("mse", "huber", "weighted_logistic", "ziln", "bpr", "listmle")
    ),
    *(_one(n, type="multiclass", classes=4) for n in ("softmax", "ordinal")),
)


def _id(task: TaskSpec) -> str:
    return f"{task.type}-{task.fitted.name}"


@pytest.mark.parametrize("task", EVERY, ids=_id)
def test_rows_without_a_label_hold_no_influence_in_any_loss(task: TaskSpec) -> None:
    labels = _labels(task)
    outputs = _outputs(task)
    loss, gradient, present = _lone(task, outputs, labels)
    assert present and loss > 0 and np.isfinite(gradient).all()
    assert (gradient[np.isnan(labels)] == 0).all()
    assert np.abs(gradient).sum() > 0
    wild = outputs.copy()
    wild[np.isnan(labels)] = np.nan
    other, gradient_2, _ = _lone(task, wild, labels)
    assert other == loss
    np.testing.assert_array_equal(gradient_2, gradient)
    # What a labelled row holds does matter.
    changed = outputs.copy()
    changed[0] *= -3
    assert _lone(task, changed, labels)[0] != loss


@pytest.mark.parametrize("task", EVERY, ids=_id)
def test_no_label_is_loss_0_and_gradient_0_in_any_loss(task: TaskSpec) -> None:
    loss, gradient, present = _lone(task, _outputs(task), np.full(B, np.nan))
    assert loss == 0 and not present
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("name", ["bpr", "list_softmax", "listnet", "listmle"])
def test_no_positive_in_any_group_is_nothing_to_order(name: str) -> None:
    loss, gradient, present = _lone(_one(name), _outputs(_one(name)), np.zeros(B))
    assert loss == 0 and not present
    np.testing.assert_array_equal(gradient, 0)


@pytest.mark.parametrize("name", ["bpr", "list_softmax", "listnet", "listmle"])
def test_a_pointwise_part_is_there_without_a_pair_or_list(name: str) -> None:
    task = _one({"name": name, "pointwise": 0.3})
    s = _outputs(task)
    loss, gradient, present = _lone(task, s, np.zeros(B))
    np.testing.assert_allclose(loss, 0.3 * np.logaddexp(0, s).mean(), rtol=1e-5)
    assert present and (gradient > 0).all()
    assert not _lone(task, s, np.full(B, np.nan))[2]
    assert not _lone(task, s, np.zeros(B), np.zeros(B))[2]


@pytest.mark.parametrize("task", EVERY, ids=_id)
def test_rows_of_weight_0_are_as_good_as_not_there(task: TaskSpec) -> None:
    labels, outputs = _labels(task), _outputs(task)
    weights = np.where(np.arange(B) % 4 == 1, 0.0, 2.0)
    found = _lone(task, outputs, labels, weights)
    truth = _lone(task, outputs, np.where(weights > 0, labels, np.nan), weights)
    np.testing.assert_allclose(found[0], truth[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], truth[1], atol=1e-7)
    assert found[0] > 0 and found[2]
    nothing = _lone(task, outputs, labels, np.zeros(B))
    assert nothing[0] == 0 and not nothing[2]


@pytest.mark.parametrize("name", ["list_softmax", "listnet", "listmle"])
def test_an_order_below_0_is_one_to_all_but_shares_of_labels(name: str) -> None:
    task = _one(name, type="regression")
    labels = -1 - _labels(_one(name))  # -1 and -2, in order
    loss, gradient, present = _lone(task, _outputs(task), labels)
    assert present == (loss > 0) == bool(gradient.any()) == (name != "list_softmax")
    # Equal labels are no order, however high; shares of labels they have.
    loss, _, present = _lone(task, _outputs(task), np.full(B, 3.0))
    assert present == (loss > 0) == (name == "list_softmax")


@pytest.mark.parametrize("name", ORDERS)
def test_only_the_group_decides_what_is_compared(name: str) -> None:
    task = _one(name)
    labels, outputs = _labels(task), _outputs(task)
    plain = _lone(task, outputs, labels)[0]
    everywhere = _one({"name": name, "within": "batch"})
    assert not np.isclose(_lone(everywhere, outputs, labels)[0], plain, rtol=1e-3)
    both = _one({"name": name, "within": "group_scenario"})
    assert not np.isclose(_lone(both, outputs, labels)[0], plain, rtol=1e-3)


def test_bpr_divides_by_its_pairs_or_their_weights() -> None:
    weights = np.random.default_rng(2).integers(1, 4, B).astype(float)
    task = _one("bpr")
    labels, s = _labels(task), _outputs(task)
    total = count = weight = 0.0
    for i in range(B):
        for j in range(B):
            if GROUPS[i] == GROUPS[j] != b"" and labels[i] == 1 and labels[j] == 0:
                total += weights[i] * weights[j] * np.logaddexp(0, s[j] - s[i])
                count += 1
                weight += weights[i] * weights[j]
    for name, divisor in (
        ("observed", count),
        ("weights", weight),
        ("batch", B),
        ("sum", 1),
    ):
        changed = _one("bpr", normalization=name)
        found, _, _ = _lone(changed, s, labels, weights)
        np.testing.assert_allclose(found, total / divisor, rtol=1e-5)


@pytest.mark.parametrize("name", ["bpr", "list_softmax", "listnet", "listmle"])
def test_a_pointwise_part_is_added(name: str) -> None:
    plain = _one(name)
    labels, s = _labels(plain), _outputs(plain)
    order, cross = _lone(plain, s, labels)[0], _lone(_one("bce"), s, labels)[0]
    found, _, _ = _lone(_one({"name": name, "pointwise": 0.3}), s, labels)
    np.testing.assert_allclose(found, order + 0.3 * cross, rtol=1e-5)


def test_l2r_sums_where_it_is_asked_to() -> None:
    task = _one("l2r", normalization="sum")
    labels, s = _labels(task), _outputs(task)
    weights = np.random.default_rng(2).integers(1, 4, B).astype(float)
    known = ~np.isnan(labels)
    y = 2 * labels[known] - 1
    truth = (weights[known] * np.log1p(np.exp(-y * s[known]))).sum()
    np.testing.assert_allclose(_lone(task, s, labels, weights)[0], truth, rtol=1e-5)


def test_a_teacher_must_be_in_the_batch() -> None:
    task = _one("distill", teacher="t")
    with pytest.raises(ValueError, match=r"'y': `loss: distill` needs the teacher"):
        TaskLosses([task], {"y": "y"})(
            {"y": tf.zeros([2])},
            tf.zeros([2, 1]),
            tf.ones([2, 1], tf.bool),
            tf.ones([2, 1]),
        )


def test_probabilities_of_a_teacher_are_read_as_such() -> None:
    settings = {"name": "distill", "mix": 1.0}
    labels, s = _labels(_one("bce")), _outputs(_one("bce"))
    as_logit = _lone(_one(settings, teacher="t"), s, labels)[0]
    settings["form"] = "probability"
    as_probability = _lone(_one(settings, teacher="t"), s, labels)[0]
    known = ~np.isnan(labels)
    p = np.clip(labels[known] * 2 - 1, 1e-7, 1 - 1e-7)
    truth = (np.logaddexp(0, s[known]) - p * s[known]).mean()
    np.testing.assert_allclose(as_probability, truth, rtol=1e-5)
    assert not np.isclose(as_logit, as_probability, rtol=1e-2)
