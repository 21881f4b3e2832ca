"""The suite finds classic mistakes: each broken model fails the test meant for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.catalogue import ENTRIES
from tfmtl._keras import keras, tf
from tfmtl.models.mmoe import MMoE
from tfmtl.models.shared_bottom import SharedBottom
from tfmtl.models.star import STAR
from tfmtl.testing.conformance import ModelConformance


class SumOfExperts(MMoE):
    """The softmax runs over an axis of one: every expert counts 1."""

    def represent(self, x: Any, training: bool) -> Any:
        mixed = super().represent(x, training)
        gates = self.inspect()["gates"]
        self.keep_for_inspection(gates=tf.nn.softmax(gates[..., None])[..., 0])
        return mixed


class BatchMean(SharedBottom):
    """A row's answer depends on its neighbours."""

    def represent(self, x: Any, training: bool) -> Any:
        shared = super().represent(x, training)
        return shared - tf.reduce_mean(shared, axis=0)


class KerasDropout(SharedBottom):
    """Masks that no step decides."""

    def represent(self, x: Any, training: bool) -> Any:
        shared = super().represent(x, training)
        return tf.nn.dropout(shared, 0.5) if training else shared


class EqualExperts(MMoE):
    """All experts start alike."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for layer in self.experts.layers:
            layer.build([None, 1 if layer.built else self._width()])
            kernel = layer._kernels[0]
            kernel.assign(tf.repeat(kernel[:1], kernel.shape[0], axis=0))

    def _width(self) -> int:
        features = {
            c.name: tf.zeros(
                [1] if c.shape == "scalar" else [1, c.size],
                tf.int32 if c.dtype == "int" else tf.float32,
            )
            for c in self.manifest.columns
            if "/" not in c.name
        }
        return int(self.embedding(features).flat.shape[1])


class Idle(SharedBottom):
    """Holds a variable that nothing reads."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.idle = self.add_weight("idle", [3])


class Leaking(SharedBottom):
    """The loss of one task moves the tower of another."""

    def logits(self, x: Any, training: bool) -> dict[str, Any]:
        outputs = super().logits(x, training)
        return {**outputs, "like": outputs["like"] + outputs["click"]}


class FirstForUnknown(STAR):
    """An unknown scenario borrows the parts of the first."""

    def logits(self, x: Any, training: bool) -> dict[str, Any]:
        known = tf.where(x.scenario < len(self.norm.scenarios), x.scenario, 0)
        return super().logits(x._replace(scenario=known), training)


class Doubled(SharedBottom):
    """Two layers claim the same variables."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.thief = _Thief(self.towers)


class _Thief(keras.layers.Layer):
    def __init__(self, towers: Any) -> None:
        super().__init__()
        self._claims = towers.variable_groups

    def variable_groups(self) -> dict[str, list[Any]]:
        return {"shared": [v for vs in self._claims().values() for v in vs]}


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (SumOfExperts, "test_gates_sum_to_one_and_follow_the_input"),
        (BatchMean, "test_batch_of_one"),
        (BatchMean, "test_batch_without_a_scenario"),
        (KerasDropout, "test_dropout_acts_in_training_only"),
        (EqualExperts, "test_members_start_different"),
        (Idle, "test_every_variable_learns"),
        (Leaking, "test_a_tasks_own_variables_are_reached_by_its_loss_alone"),
        (FirstForUnknown, "test_unknown_scenario"),
        (Doubled, "test_groups_partition_the_trainable_variables"),
    ],
)
def test_broken_models_fail(broken: type[Any], test: str) -> None:
    base = broken.__base__.__name__
    attributes = {"model": broken, **ENTRIES[base]}
    suite = type("Suite", (ModelConformance,), attributes)()
    with pytest.raises((AssertionError, ValueError)):
        getattr(suite, test)()
    sound = type("Sound", (ModelConformance,), {**attributes, "model": broken.__base__})
    getattr(sound(), test)()
