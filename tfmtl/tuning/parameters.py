"""keras-tuner's parameters for the dimensions of a space, and back.

keras-tuner sends them between processes as protocol buffers: texts, 64-bit integers and
floats, booleans. Everything else is written as JSON text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from tfmtl.schema.dimension import BooleanDimension, ChoiceDimension
from tfmtl.schema.dimension_base import DimensionSpec
from tfmtl.schema.ranges import FloatDimension, IntDimension, round_digits

DIGITS = 6
"""Digits of a float that count: more say nothing, and make files hard to read."""


def hyperparameters(
    space: Mapping[str, tuple[DimensionSpec, Any, Mapping[str, list[Any]]]],
) -> Any:
    """`keras_tuner.HyperParameters` of a space.

    Args:
        space: Path to dimension, default, and conditions: all ancestors' allowed
            values, encoded. Parents come first.
    """
    # keras-tuner imports TensorFlow: first ours, which says whose Keras that has.
    import tfmtl._keras  # noqa: F401

    # isort: split
    from keras_tuner import HyperParameters
    from keras_tuner.engine import hyperparameters as kinds
    from keras_tuner.src.engine.conditions import Parent

    # `conditional_scope` cannot ask for two parents that do not depend on each other.
    made = HyperParameters()
    for path, (dimension, default, conditions) in space.items():
        asked = [Parent(parent, values) for parent, values in conditions.items()]
        settings = {
            "name": path,
            "default": encode(dimension, default),
            "conditions": asked,
        }
        if isinstance(dimension, FloatDimension):
            one = kinds.Float(**_range(dimension), **settings)
        elif isinstance(dimension, IntDimension):
            one = kinds.Int(**_range(dimension), **settings)
        elif isinstance(dimension, ChoiceDimension):
            values = [encode(dimension, value) for value in dimension.values]
            one = kinds.Choice(values=values, **settings)
        else:
            one = kinds.Boolean(**settings)
        made.merge([one])
    return made


def _range(dimension: FloatDimension | IntDimension) -> dict[str, Any]:
    """Range, step and sampling."""
    log, step = dimension.spacing
    high: float = dimension.max
    if isinstance(dimension, FloatDimension) and step is not None:
        # keras-tuner counts steps by rounding down: 1 // 0.1 is 9. Half a step more
        # than the last value keeps it, whatever the rounding.
        last = dimension.ends[1]
        high = last * math.sqrt(step) if log else last + step / 2
    return {
        "min_value": dimension.min,
        "max_value": high,
        "step": step,
        "sampling": "log" if log else "linear",
    }


def encode(dimension: DimensionSpec, value: Any) -> Any:
    """A value as keras-tuner has it.

    Of a choice it is the one of `values`: where a condition says 1 and means 1.0,
    keras-tuner would make integers of all that the condition names.
    """
    if not isinstance(dimension, ChoiceDimension):
        return value
    own = dimension.values[dimension.position(value) or 0]
    return json.dumps(own) if _as_text(dimension) else own


def decode(dimension: DimensionSpec, value: Any) -> Any:
    """A value as the experiment file has it.

    Args:
        dimension: It is of.
        value: From keras-tuner: on a wire, integers may have become floats.
    """
    if isinstance(dimension, ChoiceDimension):
        if _as_text(dimension):
            return json.loads(value)
        return next(v for v in dimension.values if v == value)
    if isinstance(dimension, BooleanDimension):
        return bool(value)
    if isinstance(dimension, FloatDimension) and dimension.step is None:
        return dimension.nearest(round_digits(float(value), DIGITS))
    assert isinstance(dimension, FloatDimension | IntDimension)
    return dimension.nearest(value)


def _as_text(dimension: ChoiceDimension) -> bool:
    """Whether values are written as JSON: no plain texts, or numbers of one type."""
    kinds = {type(v) for v in dimension.values}
    return kinds not in ({str}, {int}, {float})
