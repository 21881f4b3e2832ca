"""Inner products of the tasks' gradients, and their sums, without dense tables.

A gradient is a tensor, `tf.IndexedSlices` (rows of an embedding table, whose ids may
repeat), or None where a task does not reach a variable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import tf

_PASSED_ON = ("Identity", "Reshape", "Cast")


def gram_matrix(gradients: Sequence[Sequence[Any]]) -> Any:
    """Inner products of the tasks' gradients over several variables.

        M_ts = sum_v <g_t^v, g_s^v>

    Args:
        gradients: Variable by task.

    Returns:
        [T, T] float64.
    """
    parts = [_gram_of_variable(g) for g in gradients if _known(g)]
    if not parts:
        count = len(gradients[0]) if gradients else 0
        return tf.zeros([count, count], tf.float64)
    return tf.add_n(parts)


def _known(gradients: Sequence[Any]) -> bool:
    return any(g is not None for g in gradients)


def _gram_of_variable(gradients: Sequence[Any]) -> Any:
    if any(isinstance(g, tf.IndexedSlices) for g in gradients):
        return _of_rows(by_row(gradients)[1])
    shape = next(g for g in gradients if g is not None)
    flat = [tf.zeros_like(shape) if g is None else g for g in gradients]
    return _of_rows(tf.stack([tf.reshape(g, [-1]) for g in flat]))


def _of_rows(stacked: Any) -> Any:
    """[T, ...] -> [T, T] float64."""
    flat = tf.reshape(stacked, [stacked.shape[0], -1])
    flat = tf.cast(flat, tf.float64)
    return tf.matmul(flat, flat, transpose_b=True)


def by_row(gradients: Sequence[Any]) -> tuple[Any, Any]:
    """Sparse gradients of one table by distinct row.

    Gradients of a row that repeats are summed: before that nothing may be squared or
    multiplied.

    Args:
        gradients: T gradients, at least one of them known.

    Returns:
        [U] distinct ids, and [T, U, d] the tasks' gradients of these rows.
    """
    sparse = [_sparse(g) for g in gradients if g is not None]
    if _same_rows(sparse):
        rows, places = tf.unique(sparse[0].indices)
        where = [places] * len(sparse)
    else:
        rows, places = tf.unique(tf.concat([g.indices for g in sparse], axis=0))
        where = tf.split(places, [tf.shape(g.indices)[0] for g in sparse])
        # Sizes known to the graph alone: split cannot say how many parts there are.
        where = list(where)
    summed = iter(
        [
            tf.math.unsorted_segment_sum(g.values, w, tf.size(rows))
            for g, w in zip(sparse, where)
        ]
    )
    found = [None if g is None else next(summed) for g in gradients]
    shape = next(g for g in found if g is not None)
    return rows, tf.stack([tf.zeros_like(shape) if g is None else g for g in found])


def _sparse(gradient: Any) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return gradient
    rows = tf.range(tf.shape(gradient, out_type=tf.int64)[0])
    return tf.IndexedSlices(gradient, rows, tf.shape(gradient))


def _same_rows(gradients: Sequence[Any]) -> bool:
    """Whether all tasks looked the same rows up, as they do in one shared lookup.

    Told from the graph: the ids come from one tensor. Where that cannot be seen, the
    answer is no, which costs time and nothing else.
    """
    first = gradients[0].indices
    if all(g.indices is first for g in gradients):
        return True
    if tf.executing_eagerly():
        return False
    return len({_source(g.indices) for g in gradients}) == 1


def _source(tensor: Any) -> Any:
    """The tensors that ids were copied or joined from."""
    while tensor.op.type in _PASSED_ON:
        tensor = tensor.op.inputs[0]
    if tensor.op.type == "ConcatV2":
        return tuple(_source(t) for t in tensor.op.inputs[:-1])
    return tensor.ref()


def add(gradients: Sequence[Any]) -> Any:
    """The sum of gradients of one variable; sparse where all are, None of none."""
    known = [g for g in gradients if g is not None]
    if len(known) <= 1:
        return known[0] if known else None
    if all(isinstance(g, tf.IndexedSlices) for g in known):
        if _same_rows(known):
            values = tf.add_n([g.values for g in known])
            return tf.IndexedSlices(values, known[0].indices, known[0].dense_shape)
        return tf.IndexedSlices(
            tf.concat([g.values for g in known], axis=0),
            tf.concat([g.indices for g in known], axis=0),
            known[0].dense_shape,
        )
    return tf.add_n([tf.convert_to_tensor(g) for g in known])


def scale(gradient: Any, factor: Any) -> Any:
    """A gradient times a scalar."""
    if gradient is None:
        return None
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(
            gradient.values * tf.cast(factor, gradient.values.dtype),
            gradient.indices,
            gradient.dense_shape,
        )
    return gradient * tf.cast(factor, gradient.dtype)


def weighted_sum(gradients: Sequence[Any], weights: Any) -> Any:
    """sum_t w_t g_t of one variable.

    Args:
        gradients: T gradients.
        weights: [T].
    """
    return add([scale(g, weights[t]) for t, g in enumerate(gradients)])
