"""Hyper-parameters as axes, for pictures, and as columns, for a regression."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from tfmtl.metrics.arrays import Floats

Kind = Literal["number", "choice", "inactive"]
_MIDDLE = 0.5  # where a number lies that is not active


@dataclasses.dataclass(frozen=True)
class Axis:
    """What is told of a dimension of the space to who draws or encodes it.

    Attributes:
        name: Dotted path.
        low: Least value; of a choice unused.
        high: Greatest value.
        log: Equal factors are equally far apart; needs `low` > 0.
        choices: The values of a choice or a boolean; of numbers empty.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[Any, ...] = ()

    def unit(self, value: Any) -> float:
        """Where a value lies, in [0, 1]; choices lie evenly."""
        if self.choices:
            return self.position(value) / max(1, len(self.choices) - 1)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return min(1.0, max(0.0, share))

    def position(self, value: Any) -> int:
        """Which of the choices a value is."""
        # As JSON: 1, 1.0 and true are equal in Python, lists and tuples are not.
        return [json.dumps(c) for c in self.choices].index(json.dumps(value))


@dataclasses.dataclass(frozen=True, eq=False)
class Encoded:
    """Values of trials as numbers in [0, 1].

    Attributes:
        names: The hyper-parameters.
        columns: The hyper-parameter of each of the D columns.
        kinds: What each column is: the place of a number; 1 for one of its choices, 0
            for the others; or 1 where the hyper-parameter is not active. A number that
            is not active lies in the middle, a choice has zeros alone.
        matrix: [N, D].
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    kinds: tuple[Kind, ...]
    matrix: Floats

    def places(self, name: str, kind: Kind | None = None) -> list[int]:
        """The columns of a hyper-parameter."""
        return [
            place
            for place, (column, other) in enumerate(zip(self.columns, self.kinds))
            if column == name and kind in (None, other)
        ]


def encode(axes: Sequence[Axis], values: Sequence[Mapping[str, Any]]) -> Encoded:
    """Encodes the values of N trials.

    Args:
        axes: The dimensions.
        values: Of each trial; what is not active is absent.
    """
    columns: list[str] = []
    kinds: list[Kind] = []
    arrays: list[list[float]] = []

    def add(axis: Axis, kind: Kind, column: list[float]) -> None:
        columns.append(axis.name)
        kinds.append(kind)
        arrays.append(column)

    for axis in axes:
        active = [axis.name in v for v in values]
        if axis.choices:
            taken = [
                axis.position(v[axis.name]) if on else -1
                for v, on in zip(values, active)
            ]
            for place in range(len(axis.choices)):
                add(axis, "choice", [float(t == place) for t in taken])
        else:
            add(
                axis,
                "number",
                [
                    axis.unit(v[axis.name]) if on else _MIDDLE
                    for v, on in zip(values, active)
                ],
            )
        if not all(active):
            add(axis, "inactive", [float(not on) for on in active])
    matrix = np.array(arrays, dtype=np.float64).reshape(len(arrays), len(values)).T
    names = tuple(axis.name for axis in axes)
    return Encoded(names, tuple(columns), tuple(kinds), matrix)
