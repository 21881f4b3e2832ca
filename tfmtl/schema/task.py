"""Tasks and scenarios: what is predicted, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from tfmtl.schema import expression
from tfmtl.schema.base import Name, Spec
from tfmtl.schema.loss import Loss, LossSpec, default_loss, losses_of


class TaskSpec(Spec):
    """One thing to predict.

    `given: click` declares a funnel: the task's label counts only where click is 1.
    Every model then reports the task twice: `buy|click`, over the rows with a click,
    and `buy`, click and buy over all rows.
    """

    name: Name
    """Of the output, in reports and in `--set`."""
    label: str
    """A column, or an expression over columns such as `rating >= 4`."""
    type: Literal["binary", "regression", "multiclass"] = "binary"
    """What the label is: 0 or 1, a number, or a class."""
    classes: int | None = Field(default=None, ge=2)
    """Number of classes of a multiclass task; labels are 0 .. classes - 1."""
    loss: Loss | None = None
    """A loss for this type, by its name or with settings: `focal`, or `{name: focal,
    gamma: 1}`; the type's default (`bce`, `mse`, `softmax`) where absent."""
    given: str | None = None
    """The task that must be 1 before this one can be."""
    observed_when: str | None = None
    """An expression: elsewhere the label is missing, whatever the column says."""
    weight: str | None = None
    """A column with the weight of the row in this task's loss and metrics, >= 0."""
    role: Literal["main", "auxiliary"] = "main"
    """Auxiliary tasks train, but stay out of means, monitors and the export."""
    normalization: Literal["observed", "batch", "weights", "sum"] = "observed"
    """Divide the batch's loss by its labelled rows of weight above 0, all its rows, the
    labelled rows' weights, or nothing. A loss of pairs or lists counts and weighs
    these."""
    transform: Literal["none", "log1p"] = "none"
    """What a regression is fitted to; metrics and outputs are in the label's unit."""
    smearing: bool = False
    """With `transform: log1p`: answer the expectation, by Duan's smearing factor of the
    validation split's residuals; without, about the geometric mean, which is below."""
    teacher: str | None = None
    """For `loss: distill`: a column with another model's logit or probability."""

    @field_validator("label", "observed_when")
    @classmethod
    def _parses(cls, value: str | None) -> str | None:
        if value is not None:
            expression.parse(value)
        return value

    @model_validator(mode="after")
    def _classes_for_multiclass(self) -> TaskSpec:
        if (self.classes is not None) != (self.type == "multiclass"):
            raise ValueError(
                "`classes` belongs to `type: multiclass`, and must be there. "
                f"Received: type={self.type!r}, classes={self.classes}"
            )
        if self.transform != "none" and self.type != "regression":
            raise ValueError(
                "`transform` belongs to `type: regression`. "
                f"Received: type={self.type!r}"
            )
        return self

    @model_validator(mode="after")
    def _loss_for_the_type(self) -> TaskSpec:
        loss, legal = self.fitted, losses_of(self.type)
        name = loss.name
        where = f"task {self.name!r}"
        if name not in legal:
            raise ValueError(
                f"{where}: `loss` of a {self.type} task must be one of "
                f"{sorted(legal)}. Received: {name!r}"
            )
        if self.transform != "none" and not loss.transforms:
            raise ValueError(
                f"{where}: `loss: {name}` fits the label itself. Received: "
                f"transform={self.transform!r}"
            )
        if self.smearing and not (self.transform == "log1p" and loss.fits):
            raise ValueError(
                f"{where}: `smearing` needs `transform: log1p` and a loss that fits "
                f"the label. Received: transform={self.transform!r}, loss={name!r}"
            )
        if (self.teacher is not None) != (name == "distill"):
            raise ValueError(
                f"{where}: `teacher` belongs to `loss: distill`, and must be there. "
                f"Received: teacher={self.teacher!r}, loss={name!r}"
            )
        if name == "ordinal" and self.classes == 2:
            raise ValueError(
                f"{where}: `loss: ordinal` needs 3 classes or more; two are a binary "
                "task. Received: 2"
            )
        if self.given is not None and self.type == "binary" and self.width > 1:
            raise ValueError(
                f"{where}: `loss: {name}` has {self.width} outputs a row, which no "
                f"funnel multiplies. Received: given={self.given!r}"
            )
        return self

    @property
    def fitted(self) -> LossSpec:
        """The loss: the one that is named, or the type's default."""
        return self.loss or default_loss(self.type)

    @property
    def width(self) -> int:
        """Raw outputs of a row: a model's output is [B] where it is 1, else [B, width].

        What they mean is the loss's affair: `tfmtl.losses.units` translates.
        """
        return self.fitted.width(self.classes)

    @property
    def orders_alone(self) -> bool:
        """Whether it is a regression with a pure ranking loss: its output is a score
        without a level or a unit, of which only the order means something. (That of a
        binary task passes a sigmoid, and calibrators may give it a level.)"""
        return self.type == "regression" and not self.fitted.fits

    @property
    def conditional(self) -> str:
        """Name of the output that is trained: `buy|click` for a binary task with
        `given`, else the task's own name.

        A regression with `given` is a mean over the rows where `given` is 1; it has one
        output.
        """
        if self.given and self.type == "binary":
            return f"{self.name}|{self.given}"
        return self.name

    @property
    def columns(self) -> frozenset[str]:
        """The raw columns that label, population and weight read."""
        names = set(expression.parse(self.label).columns)
        if self.observed_when is not None:
            names |= expression.parse(self.observed_when).columns
        names |= {n for n in (self.weight, self.teacher) if n is not None}
        return frozenset(names)


class ScenarioSpec(Spec):
    """The scenarios that share a model: tabs, pages, markets.

    A value outside `values` is never an error: it gets the id `len(values)`, whose
    parameters are the mean of the known scenarios' (the shared centre).
    """

    column: str
    """The raw column that holds the scenario."""
    values: tuple[str, ...] = Field(min_length=1)
    """The known scenarios, as text."""
    dim: int = Field(default=8, ge=1)
    """Width of the scenario's embedding in the flat input."""

    @field_validator("values")
    @classmethod
    def _distinct(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(values)) != len(values) or "unknown" in values or "" in values:
            raise ValueError(
                "scenario values must be distinct, not empty and not 'unknown' (the "
                f"name of every other value). Received: {values}"
            )
        return values


def outputs_of(tasks: Sequence[TaskSpec]) -> dict[str, TaskSpec]:
    """Every output of a model to its task, conditional before joint."""
    found = {}
    for task in tasks:
        found[task.conditional] = task
        found[task.name] = task
    return found
