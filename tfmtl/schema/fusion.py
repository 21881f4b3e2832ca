"""How the outputs of a model become the one number that a list is ordered by."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from tfmtl.schema.base import Spec
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.task import TaskSpec, outputs_of

SCORE = "score"
"""Name of the fused output."""

Form = Literal[
    "product",
    "sum",
    "shifted_product",
    "exponential_sum",
    "exponential_product",
    "rank",
]
FusionChoice = Literal["found", "configured", "none"]

WITH_BETA = ("shifted_product", "exponential_sum", "exponential_product")
"""Forms that read `beta`."""


class FusionSpec(Spec):
    """One score from the outputs of several tasks, by which the rows of a list are
    ordered: one more output, `score`, of the exported model.

    A negative weight turns an output around: negative feedback. The products answer
    their logarithm, which orders rows alike and neither under- nor overflows.
    """

    form: Form = "product"
    """`product`: Π ŷ^w; `sum`: Σ w ŷ; `shifted_product`: Π (1 + β ŷ)^w;
    `exponential_sum`: Σ w exp(β ŷ); `exponential_product`: Π exp(β ŷ)^w; `rank`:
    Σ w / (rank + offset), rank 1 being the greatest ŷ of the request."""
    weights: dict[str, float] = Field(min_length=1)
    """Output (`click`, `buy`, `buy|click`) to its weight w. Outputs that are not named
    take no part."""
    beta: dict[str, float] = {}
    """Output to β > 0, of the shifted and the exponential forms; 1 where absent."""
    offset: float = Field(default=60.0, ge=0)
    """Of `rank`: the greater, the less the first places stand out."""
    transform: dict[str, Literal["none", "log1p"]] = {}
    """Regression output to what is done with it first; `log1p` takes the logarithm of
    1 + ŷ, and ŷ below 0 as 0."""
    floor: float = Field(default=1e-8, gt=0, le=1e-2)
    """What a product takes a logarithm of is at least this."""

    @model_validator(mode="after")
    def _sound(self) -> FusionSpec:
        wrong = {k: w for k, w in self.weights.items() if not math.isfinite(w)}
        if wrong or not any(self.weights.values()):
            raise ValueError(
                "`weights` must be finite, and one of them not 0. Received: "
                f"{wrong or self.weights}"
            )
        for setting in ("beta", "transform"):
            unknown = sorted(set(getattr(self, setting)) - set(self.weights))
            if unknown:
                raise ValueError(
                    f"`{setting}` names {unknown}, which `weights` does not; weights: "
                    f"{sorted(self.weights)}"
                )
        low = {k: b for k, b in self.beta.items() if not 0 < b < math.inf}
        if low:
            raise ValueError(
                "`beta` must be above 0; the sign of an output is that of its weight. "
                f"Received: {low}"
            )
        if self.beta and self.form not in WITH_BETA:
            raise ValueError(
                f"`beta` belongs to the forms {list(WITH_BETA)}. Received: "
                f"form={self.form!r}"
            )
        if "offset" in self.model_fields_set and self.form != "rank":
            offset = type(self).model_fields["offset"].default
            if self.offset != offset:  # a resolved file writes the default out
                raise ValueError(
                    f"`offset` belongs to `form: rank`. Received: form={self.form!r}, "
                    f"offset={self.offset}"
                )
        return self

    @property
    def used(self) -> tuple[str, ...]:
        """The outputs that take part: those whose weight is not 0."""
        return tuple(name for name, weight in self.weights.items() if weight)

    def check(self, dataset: DatasetSpec) -> None:
        """Refuses names that are no outputs of these tasks.

        Raises:
            ValueError: A name, a type or a missing key; the message says which.
        """
        outputs = outputs_of(dataset.tasks)
        check_free(dataset)
        for name in self.weights:
            if name not in outputs:
                close = difflib.get_close_matches(name, list(outputs), n=1)
                hint = f". Did you mean {close[0]!r}?" if close else ""
                raise ValueError(
                    f"`fusion.weights` names {name!r}, which is no output; outputs: "
                    f"{sorted(outputs)}{hint}"
                )
            if outputs[name].type == "multiclass":
                raise ValueError(
                    f"`fusion.weights` names {name!r}: a multiclass task has a "
                    "probability for each class, and no one number to order by"
                )
            if name in self.transform and outputs[name].type != "regression":
                raise ValueError(
                    f"`fusion.transform` is for regressions. Received: {name!r}, a "
                    f"{outputs[name].type} task"
                )
        self._check_levels(outputs)
        if self.form == "rank" and not (dataset.keys.group or dataset.keys.user):
            raise ValueError(
                "`fusion.form: rank` compares the rows of a list; say which rows are "
                "one: `keys: {group: column}` (or `user`)"
            )

    def _check_levels(self, outputs: Mapping[str, TaskSpec]) -> None:
        """A logarithm needs values above 0; a score lies about 0."""
        if self.form not in ("product", "shifted_product"):
            return
        for name in self.used:
            if outputs[name].orders_alone:
                raise ValueError(
                    f"`fusion.form: {self.form}` takes logarithms, and {name!r} is a "
                    f"regression with `loss: {outputs[name].fitted.name}` alone, whose "
                    "score has no level and may be below 0: use `form: rank` or "
                    "another without logarithms, give the loss a `pointwise` weight, "
                    "or leave the output out"
                )


def check_free(dataset: DatasetSpec) -> None:
    """Refuses a task with the name of the fused output.

    Raises:
        ValueError: There is one.
    """
    if SCORE in outputs_of(dataset.tasks):
        raise ValueError(
            f"a task is named {SCORE!r}, which is the name of the output that `fusion` "
            "adds; give the task another name"
        )
