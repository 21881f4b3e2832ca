"""What references of models with networks per scenario share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.parity.reference import OUTPUTS, TASKS, Truth, features, relu
from tfmtl._keras import tf

SCENARIOS = 3
UNKNOWN = 3


def embedded(model: Any, scenario: int) -> Any:
    """All rows as if they were of the scenario."""
    chosen = {**features(), "scenario": tf.fill([50], scenario)}
    return model.embedding(chosen)


def cell(layer: Any, p: int, n: int) -> tuple[np.ndarray, Any]:
    """Kernel and bias of one member of a `ScenarioDense`, in scenario p."""
    kernel = layer._stack(0, tf.float32)[p, n].numpy()
    return kernel, layer._stack(1, tf.float32)[p, n].numpy() if layer.use_bias else 0.0


def network(x: np.ndarray, stack: Any, p: int, n: int) -> np.ndarray:
    """One member of a `ScenarioMLP`."""
    for layer in stack.layers:
        kernel, bias = cell(layer, p, n)
        x = relu(x @ kernel + bias)
    return x


def tower(x: np.ndarray, towers: Any, p: int, t: int) -> np.ndarray:
    """One of `ScenarioTowers`: [B, H] -> [B]."""
    x = network(x, towers.hidden, p, t)
    kernel, bias = cell(towers.head, p, t)
    return (x @ kernel + bias)[:, 0]


def every_row(model: Any, answer: Callable[[Any, int], list[np.ndarray]]) -> Truth:
    """Outputs of mixed rows, from what each scenario's network says to all rows.

    Args:
        model: The model.
        answer: Embedded rows and scenario to [B] of each task.
    """
    said = np.array([answer(embedded(model, p), p) for p in range(SCENARIOS)])
    of_row = features()["scenario"].numpy()
    assert set(of_row) == {0, 1, 2, UNKNOWN}
    rows = np.where(
        of_row == UNKNOWN,
        said.mean(axis=0),
        said[np.minimum(of_row, SCENARIOS - 1), :, np.arange(50)].T,
    )
    return dict(zip(OUTPUTS, rows))


def moved_by_scenario(model: Any, task: int, scenario: int) -> set[str]:
    """Groups with a gradient, of one task's output over the rows of one scenario."""
    rows = features()["scenario"].numpy() == scenario
    groups = model.variable_groups()
    flat = [(g, v) for g, vs in groups.items() for v in vs]
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.boolean_mask(model(features())[OUTPUTS[task]], rows))
    found = tape.gradient(total, [v for _, v in flat])
    return {
        g
        for (g, _), d in zip(flat, found)
        if d is not None and bool(tf.reduce_any(tf.convert_to_tensor(d) != 0))
    }


def check_groups(model: Any, names: tuple[str, ...]) -> None:
    """A cell's variables are moved by its task in its scenario alone.

    Args:
        model: The model.
        names: Its scenarios.
    """
    owned = [g for g in model.variable_groups() if g.startswith(("cell/", "scenario/"))]
    assert owned
    for p, name in enumerate((*names, "unknown")):
        for t, task in enumerate(TASKS):
            moved = moved_by_scenario(model, t, p)
            if name == "unknown":
                assert not moved, "a row of an unknown scenario trains something"
                continue
            assert "embedding" in moved
            for group in owned:
                kind, _, owner = group.partition("/")
                mine = owner == (name if kind == "scenario" else f"{name}/{task}")
                assert (group in moved) == mine, (group, name, task)
