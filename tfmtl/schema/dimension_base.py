"""What all dimensions of a search have, whatever their values."""

from __future__ import annotations

from typing import Any

from pydantic import field_validator

from tfmtl.schema.base import Misplaced, Spec


class DimensionSpec(Spec):
    """What all dimensions have."""

    when: dict[str, tuple[Any, ...]] = {}
    """Other dimensions (choices, booleans, integers) to those of their values under
    which this one is part of the search; elsewhere it is left out."""

    @field_validator("when")
    @classmethod
    def _some_values(
        cls, when: dict[str, tuple[Any, ...]]
    ) -> dict[str, tuple[Any, ...]]:
        for path, values in when.items():
            if not values:
                raise Misplaced(
                    f"`when` must name values of {path!r}. Received: none", path
                )
        return when

    def has(self, value: Any) -> bool:
        """Whether a value is one of this dimension's."""
        raise NotImplementedError

    @property
    def middle(self) -> Any:
        """A value in the middle."""
        raise NotImplementedError

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that show whether all of them are legal."""
        raise NotImplementedError
