"""A search space as the unit cube that a Gaussian process sees.

Every hyper-parameter has one place in [0, 1], by keras-tuner's cumulative probability:
a logarithmic range is linear there. Places are rounded to those of legal values, and
what is not active lies at a neutral place, so that equal trials have equal places. An
unordered choice of n becomes n coordinates, one of them 1.

`tfmtl.tuning.axes` maps to [0, 1] too and stays apart, since it reads the dimensions of
the schema, their ends at 0 and 1, while a place here is a share of keras-tuner's draws
and must lead back to a legal value.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras_tuner
import numpy as np
import numpy.typing as npt
from keras_tuner.engine import hyperparameters as kinds

from tfmtl.metrics.arrays import Floats, Ints
from tfmtl.tuning.oracles.values import Values

Bools = npt.NDArray[np.bool_]

MOST_LEVELS = 4096
"""Of a range of more integers, this many evenly spaced ones can be proposed."""
NEUTRAL = 0.5


@dataclasses.dataclass(frozen=True)
class Axis:
    """One hyper-parameter.

    Attributes:
        one: keras-tuner's.
        values: Legal values in the order of their places; empty where every place
            is legal.
        places: [len(values)] of the values, ascending.
    """

    one: Any
    values: tuple[Any, ...]
    places: Floats

    @classmethod
    def of(cls, one: Any) -> Axis:
        """The axis of a hyper-parameter."""
        values: tuple[Any, ...]
        if isinstance(one, kinds.Float) and one.step is None:
            values = (one.min_value,) if one.min_value == one.max_value else ()
            return cls(one, values, np.full(len(values), NEUTRAL))
        if isinstance(one, kinds.Int) and one.step is None:
            values = _integers(one)
            return cls(one, values, np.array([one.value_to_prob(v) for v in values]))
        values = tuple(one.values)
        if isinstance(one, kinds.Float | kinds.Int | kinds.Boolean):
            values = tuple(sorted(values))
        return cls(one, values, (np.arange(len(values)) + 0.5) / len(values))

    @property
    def unordered(self) -> bool:
        """Whether its values have no order."""
        return isinstance(self.one, kinds.Choice) and not self.one.ordered

    def level(self, places: Floats) -> Ints:
        """The legal value nearest to each place."""
        between = (self.places[1:] + self.places[:-1]) / 2
        return np.searchsorted(between, places, side="right")

    def rounded(self, places: Floats) -> Floats:
        """Places of legal values. [N] -> [N]."""
        return self.places[self.level(places)] if self.values else places.clip(0.0, 1.0)

    def value(self, place: float) -> Any:
        """The value of a legal place."""
        if self.values:
            return self.values[int(self.level(np.array([place]))[0])]
        value = self.one.prob_to_value(place)
        return min(max(value, self.one.min_value), self.one.max_value)

    def place(self, value: Any) -> float:
        """The place of a value."""
        if value in self.values:
            return float(self.places[self.values.index(value)])
        return float(np.clip(self.one.value_to_prob(value), 0.0, 1.0))

    def features(self, places: Floats, active: Bools) -> Floats:
        """What the process sees. [N] -> [N, 1], or [N, values] of unordered ones."""
        if not self.unordered:
            return places[:, None]
        ones = np.eye(len(self.values))[self.level(places)]
        return np.where(active[:, None], ones, 1.0 / len(self.values))


def _integers(one: Any) -> tuple[int, ...]:
    if one.max_value - one.min_value < MOST_LEVELS:
        return tuple(range(one.min_value, one.max_value + 1))
    even = (np.arange(MOST_LEVELS) + 0.5) / MOST_LEVELS
    return tuple(sorted({one.prob_to_value(place) for place in even}))


class Coordinates:
    """The axes of a space; fixed hyper-parameters have none.

    Args:
        space: Conditions name only hyper-parameters before them.
    """

    def __init__(self, space: keras_tuner.HyperParameters) -> None:
        self.space = space
        self.axes = [
            None if isinstance(one, kinds.Fixed) else Axis.of(one)
            for one in space.space
        ]
        self.dimensions = sum(axis is not None for axis in self.axes)

    @property
    def finite(self) -> bool:
        """Whether it has finitely many points."""
        return all(axis is None or axis.values for axis in self.axes)

    def levels(self) -> list[tuple[Any, ...]]:
        """The legal values of each hyper-parameter of a finite space."""
        return [
            (one.value,) if axis is None else axis.values
            for one, axis in zip(self.space.space, self.axes)
        ]

    def rounded(self, places: Floats) -> Floats:
        """Places of legal values, neutral where not active. [N, D] -> [N, D]."""
        columns, active = [], self._active(places)
        for axis, column, on in zip(self._tuned(), places.T, active):
            columns.append(np.where(on, axis.rounded(column), NEUTRAL))
        return np.stack(columns, axis=1) if columns else places

    def features(self, places: Floats) -> Floats:
        """What a Gaussian process sees of rounded places. [N, D] -> [N, X]."""
        active = self._active(places)
        parts = [
            axis.features(column, on)
            for axis, column, on in zip(self._tuned(), places.T, active)
        ]
        return np.concatenate(parts, axis=1)

    def values(self, places: Floats) -> Values:
        """The values of one row of rounded places, of what is active. [D]."""
        walked = self.space.copy()
        walked.values = {}
        left = iter(places)
        for one, axis in zip(walked.space, self.axes):
            value = one.value if axis is None else axis.value(float(next(left)))
            if walked.is_active(one):
                walked.values[one.name] = value
        values: Values = walked.values
        return values

    def places(self, trials: Sequence[Mapping[str, Any]]) -> Floats:
        """The places of values. [N, D]."""
        rows = np.full((len(trials), self.dimensions), NEUTRAL)
        walked = self.space.copy()
        for row, values in zip(rows, trials):
            walked.values = dict(values)
            for place, axis in enumerate(self._tuned()):
                if walked.is_active(axis.one) and axis.one.name in values:
                    row[place] = axis.place(values[axis.one.name])
        return rows

    def _tuned(self) -> list[Axis]:
        return [axis for axis in self.axes if axis is not None]

    def _active(self, places: Floats) -> list[Bools]:
        """Of each axis, the rows where it is active. D times [N]."""
        # Of each name so far, (active [N], the value at each row).
        known: dict[str, list[tuple[Bools, list[Any]]]] = {}
        columns = iter(places.T)
        found: list[Bools] = []
        needed = {c.name for one in self.space.space for c in one.conditions}
        for one, axis in zip(self.space.space, self.axes):
            on = np.ones(len(places), bool)
            for condition in one.conditions:
                on &= _met(condition, known.get(condition.name, []), len(places))
            column = None if axis is None else next(columns)
            if column is not None:
                found.append(on)
            if one.name not in needed:
                continue
            if axis is None or column is None:
                values = [one.value] * len(places)
            elif axis.values:
                values = [axis.values[level] for level in axis.level(column)]
            else:
                values = [axis.value(float(place)) for place in column]
            known.setdefault(one.name, []).append((on, values))
        return found


def _met(
    condition: Any, parents: Sequence[tuple[Bools, list[Any]]], rows: int
) -> Bools:
    """Where a condition is met: the active parent of its name has one of its values."""
    met = np.zeros(rows, bool)
    for on, values in parents:
        met |= on & np.array([value in condition.values for value in values], bool)
    return met
