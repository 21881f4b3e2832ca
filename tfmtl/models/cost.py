"""What an architecture costs: trainable numbers, and multiplications of a row."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from tfmtl._keras import tf
from tfmtl.models.base import MultiTaskModel

ROWS = 64


class Cost(NamedTuple):
    """What a model costs.

    Attributes:
        parameters: Kind of group (`embedding`, `shared`, `task` ...) to its trainable
            numbers.
        statistics: Numbers that are kept and not trained, such as moving moments;
            without the frozen vectors of side tables.
        macs: Multiplications, each with an addition, of the matrix products that one
            served row takes.
    """

    parameters: dict[str, int]
    statistics: int
    macs: int

    @property
    def total(self) -> int:
        """All trainable numbers."""
        return sum(self.parameters.values())

    @property
    def dense(self) -> int:
        """Trainable numbers outside the tables of ids."""
        return self.total - self.parameters.get("embedding", 0)


def cost(model: MultiTaskModel) -> Cost:
    """Counts what a model costs; its variables must exist."""
    parameters: dict[str, int] = {}
    for group, variables in model.variable_groups().items():
        kind = group.partition("/")[0]
        parameters[kind] = parameters.get(kind, 0) + sum(map(_size, variables))
    kept = [v for v in model.non_trainable_variables if v is not model.step]
    statistics = sum(_size(v) for v in kept if not v.name.endswith("_vectors:0"))
    features = full_features(model)
    macs = multiplications(lambda: model(features, training=False))
    return Cost(parameters, statistics, macs // ROWS)


def multiplications(call: Callable[[], Any]) -> int:
    """Multiply-adds of the matrix products of a call, which must run eagerly.

    Counted are the operations `MatMul`, `BatchMatMul`, `Einsum` and `Conv2D` as they
    run, so that loops and shapes that only the data decide count for what they are;
    element-wise products, sums and activations do not.
    """
    # The one way to see every operation, of loops too; tfdbg stands on it.
    from tensorflow.python.framework import op_callbacks

    done = 0

    def count(
        kind: str,
        inputs: Sequence[Any],
        attributes: Sequence[Any],
        outputs: Sequence[Any],
        *_: Any,
        **__: Any,
    ) -> None:
        nonlocal done
        counted = _COUNTED.get(_as_text(kind))
        # An einsum of one factor is a sum or a transpose.
        if counted is not None and len(inputs) == 2:
            given = dict(zip(map(_as_text, attributes[::2]), attributes[1::2]))
            shapes = [[int(n) for n in t.shape] for t in (*inputs, outputs[0])]
            done += counted(*shapes, given)

    op_callbacks.add_op_callback(count)
    try:
        call()
    finally:
        op_callbacks.remove_op_callback(count)
    return done


def full_features(model: MultiTaskModel, rows: int = ROWS) -> dict[str, Any]:
    """Features of rows of the first scenario whose lists are full.

    64 rows fill a tile of architectures that sort rows by scenario.
    """
    features = {}
    for column in model.manifest.columns:
        if "/" not in column.name:
            shape = [rows] if column.shape == "scalar" else [rows, column.size]
            dtype = tf.int32 if column.dtype == "int" else tf.float32
            features[column.name] = tf.ones(shape, dtype)
    if "scenario" in features:
        features["scenario"] = tf.zeros([rows], tf.int32)
    return features


def _matmul(
    left: list[int], right: list[int], out: list[int], attributes: Mapping[str, Any]
) -> int:
    across = attributes.get("transpose_a") or attributes.get("adj_x")
    return math.prod(out) * left[-2 if across else -1]


def _einsum(
    left: list[int], right: list[int], out: list[int], attributes: Mapping[str, Any]
) -> int:
    sides, _, _ = _as_text(attributes["equation"]).partition("->")
    sizes: dict[str, int] = {}
    for labels, shape in zip(sides.split(","), (left, right)):
        before, dots, after = labels.partition("...")
        free = len(shape) - len(before) - len(after) if dots else 0
        axes = [*before, *(f"...{free - i}" for i in range(free)), *after]
        for label, size in zip(axes, shape):
            sizes[label] = max(size, sizes.get(label, 1))
    return math.prod(sizes.values())


def _convolution(
    left: list[int], right: list[int], out: list[int], attributes: Mapping[str, Any]
) -> int:
    return math.prod(out) * math.prod(right[:-1])


_COUNTED: dict[str, Callable[..., int]] = {
    "MatMul": _matmul,
    "BatchMatMul": _matmul,
    "BatchMatMulV2": _matmul,
    "BatchMatMulV3": _matmul,
    "Einsum": _einsum,
    "Conv2D": _convolution,
}


def _as_text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _size(variable: Any) -> int:
    return math.prod(int(n) for n in variable.shape)
