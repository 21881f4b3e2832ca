"""Dimensions of numbers: a range, its scale and its steps."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tfmtl.schema.base import Misplaced
from tfmtl.schema.dimension_base import DimensionSpec

Finite = Annotated[float, Field(allow_inf_nan=False)]


class RangeDimension(DimensionSpec):
    """Numbers from `min` to `max`; the subclasses say of which type."""

    @property
    def range(self) -> tuple[float, float]:
        """`min` and `max`."""
        raise NotImplementedError

    @property
    def spacing(self) -> tuple[bool, float | None]:
        """Whether values are spaced by a factor, and the step or factor."""
        raise NotImplementedError

    @property
    def count(self) -> int | None:
        """How many values there are; None where there is no step."""
        (low, high), (log, step) = self.range, self.spacing
        if step is None:
            return None
        reach = math.log(high / low, step) if log else (high - low) / step
        return int(reach + 1e-9) + 1

    def at(self, position: int) -> Any:
        """The value at a position, where there is a step."""
        low, (log, step) = self.range[0], self.spacing
        assert step is not None
        value = low * step**position if log else low + position * step
        return round_digits(value, 12)

    def nearest(self, value: float) -> Any:
        """The value of this dimension that lies nearest."""
        (low, high), (log, step) = self.range, self.spacing
        value = min(max(value, low), high)
        if self.count is None or step is None:
            return value
        reach = math.log(value / low, step) if log else (value - low) / step
        return self.at(min(round(reach), self.count - 1))

    def has(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low, high = self.range
        return low <= value <= high and math.isclose(
            self.nearest(value), value, rel_tol=1e-9, abs_tol=1e-12
        )

    @property
    def middle(self) -> Any:
        low, high = self.range
        middle = math.sqrt(low * high) if self.spacing[0] else (low + high) / 2
        return self.nearest(middle)

    @property
    def ends(self) -> tuple[Any, ...]:
        low, high = self.range
        return self.nearest(low), self.nearest(high)

    def _check(self, scale: str, given: float | None) -> None:
        """Refuses an empty range, and steps that lead nowhere."""
        low, high = self.range
        if low >= high:
            raise Misplaced(
                f"an empty range: `min` must be below `max`. Received: min={low}, "
                f"max={high}",
                "min",
            )
        log, step = self.spacing
        if log and low <= 0:
            raise Misplaced(
                f"`scale: {scale}` needs `min` > 0. Received: min={low}", "min"
            )
        if given is not None and log and given <= 1:
            raise Misplaced(
                f"with `scale: {scale}` a step is a factor, > 1. Received: "
                f"step={given}",
                "step",
            )
        if given is not None and given <= 0:
            raise Misplaced(f"`step` must be > 0. Received: step={given}", "step")
        if step is not None and self.count == 1:
            raise Misplaced(
                f"a step from `min` leads beyond `max`. Received: min={low}, "
                f"max={high}, step={step}",
                "min" if given is None else "step",
            )


class FloatDimension(RangeDimension):
    """Numbers from `min` to `max`."""

    type: Literal["float"] = "float"
    min: Finite
    """The least, which is one of the values."""
    max: Finite
    """The greatest, which is one of the values where a step leads there."""
    scale: Literal["linear", "log"] = "linear"
    """`log`: each factor is as likely as another; needs `min` > 0. Loss weights
    (`balancer.config.weights.<task>`) are `log` always: what counts is their ratio to
    the tasks that are not searched."""
    step: Finite | None = None
    """Only `min`, `min` + step ...; with `log`, `min`, `min` x step ..."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        self._check(self.scale, self.step)
        return self

    @property
    def range(self) -> tuple[float, float]:
        return self.min, self.max

    @property
    def spacing(self) -> tuple[bool, float | None]:
        return self.scale == "log", self.step

    def nearest(self, value: float) -> float:
        return float(super().nearest(value))


class IntDimension(RangeDimension):
    """Integers from `min` to `max`."""

    type: Literal["int"] = "int"
    min: int
    """The least, which is one of the values."""
    max: int
    """The greatest, which is one of the values where a step leads there."""
    scale: Literal["linear", "log", "pow2"] = "linear"
    """`log`: each factor is as likely as another; `pow2`: `min`, 2 `min` ..."""
    step: int | None = None
    """Only `min`, `min` + step ...; with `log`, `min`, `min` x step ..."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.scale == "pow2" and self.step is not None:
            raise Misplaced(
                f"`scale: pow2` has the step 2. Received: step={self.step}", "step"
            )
        self._check(self.scale, self.step)
        return self

    @property
    def range(self) -> tuple[float, float]:
        return self.min, self.max

    @property
    def spacing(self) -> tuple[bool, float | None]:
        if self.scale == "linear":
            return False, self.step or 1
        return True, 2 if self.scale == "pow2" else self.step

    def nearest(self, value: float) -> int:
        found: int = round(super().nearest(value))
        return found

    def has(self, value: Any) -> bool:
        return isinstance(value, int) and super().has(value)


def round_digits(value: float, digits: int) -> float:
    """A number with so many digits that count."""
    return float(f"{value:.{digits}g}")
