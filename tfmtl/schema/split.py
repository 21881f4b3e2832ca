"""How rows are divided into train, validation and test."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic
from pydantic import Field, model_validator

from tfmtl.schema.base import Spec

SPLITS = ("train", "validation", "test")


class _Fractions(Spec):
    validation: float = Field(default=0.1, gt=0, lt=1)
    """Share of the rows for choosing."""
    test: float = Field(default=0.1, ge=0, lt=1)
    """Share of the rows for the last word."""

    @model_validator(mode="after")
    def _something_to_train_on(self) -> _Fractions:
        if self.validation + self.test >= 1:
            raise ValueError(
                "`validation` + `test` must stay below 1. Received: "
                f"{self.validation} + {self.test}"
            )
        return self


class TimeSplit(_Fractions):
    """Oldest rows train, newest test; rows of one timestamp stay together."""

    by: Literal["time"] = "time"
    gap: float = Field(default=0.0, ge=0)
    """Drop so much time (in the unit of `keys.timestamp`) before each boundary, since
    labels there had no time to mature."""


class BoundarySplit(Spec):
    """Explicit times: train < validation_from <= validation < test_from <= test."""

    by: Literal["boundaries"] = "boundaries"
    validation_from: float
    """First time of the validation split, in the unit of `keys.timestamp`."""
    test_from: float | None = None
    """First time of the test split; without it there is none."""
    end: float | None = None
    """Rows at or after this time are dropped."""
    gap: float = Field(default=0.0, ge=0)
    """Drop so much time before each boundary, for label maturity."""

    @model_validator(mode="after")
    def _in_order(self) -> BoundarySplit:
        marks = [self.validation_from, self.test_from, self.end]
        known = [m for m in marks if m is not None]
        if known != sorted(set(known)):
            raise ValueError(
                "`validation_from` < `test_from` < `end` must hold. Received: "
                f"{self.validation_from}, {self.test_from}, {self.end}"
            )
        return self


class HashSplit(_Fractions):
    """By a hash of a column: all rows of one value fall on one side."""

    by: Literal["hash"] = "hash"
    column: str
    """Such as the row key (random split) or the user (unseen users in test)."""
    salt: str = ""
    """Another salt gives another split."""


class GivenSplit(Spec):
    """A column says it: `train`, `validation` or `test`."""

    by: Literal["given"] = "given"
    column: str
    """The column that says it."""
    train: tuple[str, ...] = ("train",)
    """Values of rows that train."""
    validation: tuple[str, ...] = ("validation",)
    """Values of rows for choosing."""
    test: tuple[str, ...] = ("test",)
    """Values of rows for the last word."""


SplitSpec = Annotated[
    TimeSplit | BoundarySplit | HashSplit | GivenSplit,
    pydantic.Field(discriminator="by"),
]
