"""The dimensions of a search: which values a setting may take."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from tfmtl.schema.dimension_base import DimensionSpec
from tfmtl.schema.ranges import FloatDimension, IntDimension


class ChoiceDimension(DimensionSpec):
    """One of some values, which have no order unless they are numbers."""

    type: Literal["choice"] = "choice"
    values: tuple[Any, ...]
    """Texts, numbers or lists, two or more; null may be one of them."""

    @field_validator("values")
    @classmethod
    def _one_type(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        kinds = {type(v) for v in values} - {type(None)}
        if kinds == {int, float}:
            values = tuple(None if v is None else float(v) for v in values)
            kinds = {float}
        if len(kinds) > 1 or kinds - {str, int, float, bool, list}:
            raise ValueError(
                "`values` must be of one type: texts, numbers, booleans or lists. "
                f"Received: {list(values)}"
            )
        try:
            written = [json.dumps(v, allow_nan=False) for v in values]
        except (TypeError, ValueError) as error:
            raise ValueError(
                "`values` must be finite numbers, texts, booleans, or lists of such. "
                f"Received: {list(values)}"
            ) from error
        if len(set(written)) < len(written):
            raise ValueError(f"`values` must be distinct. Received: {list(values)}")
        if len(values) < 2:
            raise ValueError(
                "a choice needs two `values` or more; one that is always taken belongs "
                f"into the experiment itself. Received: {list(values)}"
            )
        return values

    def position(self, value: Any) -> int | None:
        """Where a value stands among `values`, 1 being 1.0; None where it does not."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        for found, own in enumerate(self.values):
            alike = type(own) is type(value) or (number and type(own) is float)
            if alike and own == value:
                return found
        return None

    def has(self, value: Any) -> bool:
        return self.position(value) is not None

    @property
    def middle(self) -> Any:
        return self.values[0]

    @property
    def ends(self) -> tuple[Any, ...]:
        return self.values


class BooleanDimension(DimensionSpec):
    """`true` or `false`."""

    type: Literal["boolean"] = "boolean"

    def has(self, value: Any) -> bool:
        return isinstance(value, bool)

    @property
    def middle(self) -> bool:
        return False

    @property
    def ends(self) -> tuple[Any, ...]:
        return False, True


Dimension = Annotated[
    FloatDimension | IntDimension | ChoiceDimension | BooleanDimension,
    Field(discriminator="type"),
]
