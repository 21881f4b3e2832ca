"""What a keras-tuner space allows: defaults, legal values, every combination."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras_tuner
from keras_tuner.engine import hyperparameters as kinds

Values = dict[str, Any]


def defaults(space: keras_tuner.HyperParameters) -> Values:
    """The defaults of what is active under them: the experiment as it is written."""
    walked = _empty(space)
    for one in walked.space:
        if walked.is_active(one):
            walked.values[one.name] = one.default
    values: Values = walked.values
    return values


def legal(
    space: keras_tuner.HyperParameters, values: Mapping[str, Any]
) -> Values | None:
    """Values from elsewhere in the types of the space; None where they do not fit it.

    They fit where every active hyper-parameter has a value in its range and nothing
    else has one.
    """
    walked = _empty(space)
    for one in walked.space:
        if not walked.is_active(one):
            continue
        if one.name not in values:
            return None
        value = _typed(one, values[one.name])
        if value is None:
            return None
        walked.values[one.name] = value
    return walked.values if walked.values.keys() == values.keys() else None


def _typed(one: Any, value: Any) -> Any:
    """The value as the hyper-parameter itself would give it; None where it never."""
    if isinstance(one, kinds.Float | kinds.Int):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not one.min_value <= value <= one.max_value:
            return None
        if isinstance(one, kinds.Float):
            return float(value)
        return int(value) if value == int(value) else None
    return next((v for v in one.values if v == value), None)


def levels(one: Any) -> tuple[Any, ...]:
    """What a grid tries of one hyper-parameter, ascending; ten of a range."""
    values = tuple(one.values)
    numeric = isinstance(one, kinds.Float | kinds.Int)
    return tuple(sorted(set(values))) if numeric else values


def combinations(
    space: keras_tuner.HyperParameters,
    allowed: Sequence[tuple[Any, ...]] | None = None,
) -> Iterator[Values]:
    """Every combination once; the last hyper-parameter moves fastest.

    What is not active has no value, so combinations that differ in it are one.

    Args:
        space: The space.
        allowed: The values of each of its hyper-parameters; by default their `levels`.
    """
    walked = _empty(space)
    yield from _rest(walked, allowed or [levels(one) for one in walked.space], 0)


def _rest(
    walked: keras_tuner.HyperParameters, allowed: Sequence[tuple[Any, ...]], place: int
) -> Iterator[Values]:
    if place == len(walked.space):
        yield dict(walked.values)
        return
    one = walked.space[place]
    if not walked.is_active(one):
        yield from _rest(walked, allowed, place + 1)
        return
    for value in allowed[place]:
        walked.values[one.name] = value
        yield from _rest(walked, allowed, place + 1)
    del walked.values[one.name]


def _empty(space: keras_tuner.HyperParameters) -> keras_tuner.HyperParameters:
    """A copy without values: a condition on what has none is not met."""
    copy = space.copy()
    copy.values = {}
    return copy
