"""Parameters by group and multiplications of a row, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.catalogue import ENTRIES
from tests.parity.reference import make, with_spec
from tfmtl._keras import tf
from tfmtl.models import MODELS
from tfmtl.models.cost import cost, multiplications
from tfmtl.testing.conformance import ModelConformance

X = tf.ones([4, 5])


@pytest.mark.parametrize(
    ("call", "count"),
    [
        (lambda: tf.matmul(X, tf.ones([5, 3])), 4 * 5 * 3),
        (lambda: tf.matmul(X, X, transpose_a=True), 5 * 4 * 5),
        (lambda: tf.matmul(X, X, transpose_b=True), 4 * 5 * 4),
        (lambda: tf.matmul(tf.ones([7, 4, 5]), tf.ones([5, 3])), 7 * 4 * 5 * 3),
        (
            lambda: tf.matmul(tf.ones([7, 5, 4]), tf.ones([7, 5, 3]), transpose_a=True),
            7 * 4 * 5 * 3,
        ),
        (lambda: tf.einsum("bd,edh->beh", X, tf.ones([2, 5, 3])), 4 * 2 * 5 * 3),
        (lambda: tf.einsum("...d,dh->...h", X, tf.ones([5, 3])), 4 * 5 * 3),
        (
            lambda: tf.einsum(
                "...td,tdh->...th", tf.ones([6, 2, 5]), tf.ones([2, 5, 3])
            ),
            6 * 2 * 5 * 3,
        ),
        (lambda: tf.einsum("bd->db", X), 0),
        (lambda: X * X + tf.reduce_sum(X), 0),
        (
            lambda: tf.nn.conv1d(tf.ones([2, 7, 3]), tf.ones([2, 3, 5]), 1, "VALID"),
            2 * 6 * 5 * (2 * 3),
        ),
        (
            # A loop counts as often as it runs.
            lambda: tf.while_loop(
                lambda i, x: i < 3,
                lambda i, x: (i + 1, tf.matmul(x, tf.ones([5, 5]))),
                [0, X],
            ),
            3 * 4 * 5 * 5,
        ),
    ],
)
def test_multiplications(call: Any, count: int) -> None:
    assert multiplications(call) == count
    before = multiplications(lambda: None)
    call()
    assert before == 0, "what is done outside counts too"


def test_counting_stops_when_the_call_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        multiplications(lambda: 1 // 0)
    assert multiplications(lambda: tf.matmul(X, X, transpose_b=True)) == 80


def test_a_shared_bottom_by_hand() -> None:
    data = with_spec(
        features=[{"name": "user", "kind": "categorical", "dim": 4}],
        vocabularies={},
        scenario=None,
        tasks=[{"name": "click", "label": "click"}, {"name": "like", "label": "like"}],
    )
    model = make("SharedBottom", data, bottom_units=[6], tower_units=[3])
    found = cost(model)
    assert found.parameters == {
        "embedding": 12 * 4,
        "shared": (4 + 1) * 6,
        "task": 2 * ((6 + 1) * 3 + (3 + 1)),
    }
    assert found.total == found.dense + 48 == model.count_params() - 1  # the step
    assert found.statistics == 0
    assert found.macs == 4 * 6 + 2 * (6 * 3 + 3)


@pytest.mark.parametrize("name", ENTRIES)
def test_every_architecture_can_be_counted(name: str) -> None:
    suite: Any = type(
        "Suite", (ModelConformance,), {"model": MODELS[name], **ENTRIES[name]}
    )
    model = suite.make()
    found = cost(model)
    trained = sum(int(tf.size(v)) for v in model.trainable_variables)
    assert found.total == trained
    assert found.macs > 0
    assert (found.statistics > 0) == (name in ("STAR", "ExpertFusion"))
