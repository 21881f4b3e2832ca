"""One step: weighted losses and penalties, one gradient, one update."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tfmtl import build
from tfmtl._keras import tf
from tfmtl.data.read import Batch
from tfmtl.schema.experiment import Experiment
from tfmtl.training.trainer import Trainer


def _trainer(experiment: Any, dataset: Any, **changes: Any) -> Trainer:
    plain = {
        **experiment().model_dump(by_alias=True),
        "optimizers": {"default": {"class": "SGD", "learning_rate": 0.1}},
        **changes,
    }
    asked = Experiment.model_validate(plain)
    model = build.make_model(asked, dataset[1], dataset[0])
    return build.make_trainer(asked, model, 10)


@pytest.fixture
def batch(experiment: Any, dataset: Any) -> Batch:
    reader = build.make_reader(
        experiment(), dataset[1], dataset[0], "train", train=True
    )
    return next(iter(reader.epoch()))


def test_a_step_is_the_gradient_of_weighted_losses_and_penalty(
    experiment: Any, dataset: Any, batch: Batch
) -> None:
    balancer = {"class": "Fixed", "config": {"weights": {"click": 3.0, "buy": 0.0}}}
    trainer = _trainer(experiment, dataset, balancer=balancer)
    model, variables = trainer.model, trainer.optimizers.variables_in_order
    with tf.GradientTape() as tape:
        logits = model(batch.features, training=True)
        losses, _ = trainer.losses(logits, batch.labels, batch.mask, batch.weights)
        penalty = tf.add_n(model.losses)
        total = 3 * losses[0] + losses[1] + penalty
    before = [v.numpy() for v in variables]
    gradients = tape.gradient(total, variables)
    sums = trainer.train_step(batch)
    for variable, old, gradient in zip(variables, before, gradients):
        moved = 0 if gradient is None else 0.1 * tf.convert_to_tensor(gradient).numpy()
        np.testing.assert_allclose(variable, old - moved, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(sums.losses, losses, rtol=1e-5)
    np.testing.assert_allclose(sums.penalty, penalty, rtol=1e-5)
    np.testing.assert_array_equal(sums.weights, [3, 1, 0])
    assert float(penalty) > 0
    assert int(model.step) == 1
    tower = model.variable_groups()["task/buy"]
    still = [np.array_equal(v, before[_place(variables, v)]) for v in tower]
    assert all(still)


def _place(variables: list[Any], wanted: Any) -> int:
    return next(i for i, v in enumerate(variables) if v is wanted)


def test_a_task_without_labels_counts_in_no_mean(
    experiment: Any, dataset: Any, batch: Batch
) -> None:
    trainer = _trainer(experiment, dataset)
    hidden = batch._replace(mask=batch.mask & tf.constant([True, False, True]))
    data = tf.data.Dataset.from_tensors(hidden).concatenate(
        tf.data.Dataset.from_tensors(batch)
    )
    sums = trainer.train_chunk(iter(data), tf.constant(2, tf.int64))
    np.testing.assert_array_equal(sums.present, [2, 1, 2])
    assert int(sums.steps) == 2


def test_a_chunk_stops_at_the_first_loss_that_is_no_number(
    experiment: Any, dataset: Any, batch: Batch
) -> None:
    trainer = _trainer(experiment, dataset)
    bad = dict(batch.features, price=tf.fill(batch.features["price"].shape, np.inf))
    ones = tf.data.Dataset.from_tensors(batch)
    data = ones.concatenate(tf.data.Dataset.from_tensors(batch._replace(features=bad)))
    data = data.concatenate(ones.repeat(3))
    sums = trainer.train_chunk(iter(data), tf.constant(5, tf.int64))
    assert int(sums.steps) == 2
    assert not bool(sums.finite)
    assert int(trainer.model.step) == 2


def test_a_chunk_equals_its_steps(experiment: Any, dataset: Any) -> None:
    reader = build.make_reader(
        experiment(), dataset[1], dataset[0], "train", train=True
    )
    chunked, single = (_trainer(experiment, dataset) for _ in range(2))
    chunked.train_chunk(iter(reader.epoch()), tf.constant(3, tf.int64))
    for batch in reader.epoch().take(3):
        single.train_step(batch)
    for a, b in zip(chunked.model.variables, single.model.variables):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6, err_msg=a.name)


def test_adatask_by_one_line(experiment: Any, dataset: Any, batch: Batch) -> None:
    trainer = _trainer(experiment, dataset, balancer={"class": "AdaTask"})
    shared = trainer.model.variable_groups()["shared"]
    before = [v.numpy() for v in shared]
    sums = trainer.train_step(batch)
    assert bool(sums.finite)
    # Three tasks of Adam: at the first step each element moves by at most 3 rates.
    moved = [np.abs(v - b).max() for v, b in zip(shared, before)]
    assert max(moved) == pytest.approx(0.3, rel=1e-3)
