"""What every balancer on Gram matrices keeps, whatever its method."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.unit.balance.properties import (
    COUNTS,
    SAMPLES,
    drawn,
    make,
    stats_of,
    weights_of,
)
from tfmtl._keras import tf
from tfmtl.balance import BALANCERS, GradientWeighting

SETTINGS: dict[str, dict[str, Any]] = {
    "MetaBalance": {"target": "t0"},
    "PE-LTR": {"bounds": {"t0": 0.2}, "use": "now"},
    "DCB": {"progress": 0.5},
}
KINDS = {n: b for n, b in BALANCERS.items() if issubclass(b, GradientWeighting)}
ALONE = {"CAGrad": 1.4 / 1.16, "Nash-MTL": None}
"""Weight of a task alone, where it is not 1. CAGrad: (1 + c) / (1 + c^2), the mean
gradient being its own worst case. Nash-MTL: d has length 1."""


def made(name: str, count: int, groups: int = 1) -> GradientWeighting:
    return make(KINDS[name], count, groups, **SETTINGS.get(name, {}))


@pytest.mark.parametrize("name", KINDS)
def test_a_task_alone_gets_its_plain_gradient(name: str) -> None:
    gradients = drawn(1)
    wanted = ALONE.get(name, 1.0) or 1.0 / np.linalg.norm(gradients)
    found = weights_of(made(name, 1), gradients)
    np.testing.assert_allclose(found, [wanted], rtol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_weights_are_numbers_for_all_gradients_compiled_or_not(name: str) -> None:
    for count in COUNTS:
        eager, balancer = made(name, count), made(name, count)
        compiled = balancer.weigh
        if count in (1, 3):
            compiled = tf.function(balancer.weigh, autograph=False)
        for step, sample in enumerate(SAMPLES.values()):
            stats = stats_of(sample(count), np.full(count, 0.7), step=step)
            found = eager.weigh(stats).numpy()
            assert np.all(np.isfinite(found)), (count, step)
            # Weights of gradients that cancel are as exact as what is left of them.
            np.testing.assert_allclose(compiled(stats), found, rtol=1e-3, atol=1e-6)
        nothing = stats_of(np.zeros((count, 4)))
        np.testing.assert_array_equal(compiled(nothing), np.zeros((1, count)))
        if count == 3:
            assert compiled.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("name", KINDS)
def test_the_same_gradient_for_all_is_followed(name: str) -> None:
    one = drawn(1)
    for count in COUNTS:
        balancer = made(name, count)
        gradients = np.repeat(one, count, axis=0)
        for step in range(3):
            assert weights_of(balancer, gradients, step=step).sum() > 0.01


@pytest.mark.parametrize("name", sorted(set(KINDS) - {"PCGrad", "GradVac"}))
def test_weights_go_with_their_tasks(name: str) -> None:
    moved = np.array([0, 3, 1, 4, 2])  # t0 is named in settings.
    first, second = made(name, 5), made(name, 5)
    for step in range(3):
        gradients, losses = drawn(5, step), np.arange(1.0, 6.0)
        np.testing.assert_allclose(
            weights_of(first, gradients, losses=losses)[moved],
            weights_of(second, gradients[moved], losses=losses[moved]),
            rtol=1e-4,
        )


@pytest.mark.parametrize("name", KINDS)
def test_a_task_without_labels_changes_nothing(name: str) -> None:
    """The others' weights are as if it did not exist; that its state rests is in
    `tfmtl.testing.balancers`."""
    whole, part = made(name, 3), made(name, 2)
    both = [True, True, False]
    for step in range(4):
        gradients = drawn(3, step)
        found = weights_of(whole, gradients, present=both, step=step)
        assert found[2] == 0
        if name in ("PCGrad", "GradVac"):
            continue  # Two tasks draw other orders than three.
        wanted = weights_of(part, gradients[:2], step=step)
        np.testing.assert_allclose(found[:2], wanted, rtol=1e-5)


@pytest.mark.parametrize("name", KINDS)
def test_groups_do_not_see_each_other(name: str) -> None:
    both, first, second = made(name, 3, 2), made(name, 3), made(name, 3)
    for step in range(3):
        one, other = drawn(3, step), 5 * drawn(3, step + 10)
        found = weights_of(both, np.stack([one, other]), step=step)
        np.testing.assert_allclose(found[0], weights_of(first, one, step=step), 1e-5)
        if name in ("PCGrad", "GradVac"):
            continue  # Each group has orders of its own.
        np.testing.assert_allclose(found[1], weights_of(second, other, step=step), 1e-5)
