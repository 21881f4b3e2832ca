"""The fused score inside a served model: `scores.fuse` in stock TensorFlow ops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfmtl._keras import tf
from tfmtl.fusion.scores import EXPONENT_LIMIT
from tfmtl.schema.fusion import FusionSpec


def fuse(outputs: Mapping[str, Any], spec: FusionSpec) -> Any:
    """The fused score of each row of a request.

    It is computed in 64 bits, so that it is what `scores.fuse` says of the same
    outputs, and answered in 32, as the outputs are.

    Args:
        outputs: Output to [B] float32, in the unit of its label, as it is served.
        spec: The form and the weights. The ranks of `form: rank` are among the B rows,
            whatever lists they come from: a call of the graph is one list.

    Returns:
        [B] float32.
    """
    total = tf.zeros([], tf.float64)
    for name in spec.used:
        value = tf.cast(outputs[name], tf.float64)
        total += spec.weights[name] * _term(value, name, spec)
    return tf.cast(total, tf.float32)


def _term(value: Any, name: str, spec: FusionSpec) -> Any:
    if spec.transform.get(name) == "log1p":
        value = tf.math.log1p(tf.maximum(value, 0.0))
    beta = spec.beta.get(name, 1.0)
    match spec.form:
        case "product":
            return tf.math.log(tf.maximum(value, spec.floor))
        case "sum":
            return value
        case "shifted_product":
            return tf.math.log(tf.maximum(1.0 + beta * value, spec.floor))
        case "exponential_sum":
            return tf.exp(tf.minimum(beta * value, EXPONENT_LIMIT))
        case "exponential_product":
            return beta * value
        case "rank":
            return 1.0 / (_ranks(value) + spec.offset)


def _ranks(value: Any) -> Any:
    """Rank of each row [B], 1 the greatest; tied rows share their mean."""
    ordered = tf.sort(value)
    below = tf.searchsorted(ordered, value, side="left")
    up_to = tf.searchsorted(ordered, value, side="right")
    above = tf.cast(tf.size(value) - up_to, tf.float64)
    tied = tf.cast(up_to - below, tf.float64)
    return above + 0.5 * (tied + 1.0)
