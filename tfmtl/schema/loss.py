"""Losses that a task may name, and their settings."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import pydantic
from pydantic import Field

from tfmtl.schema.base import Spec

TaskType = Literal["binary", "regression", "multiclass"]
Within = Literal["group", "scenario", "group_scenario", "batch"]


class LossSpec(Spec):
    """What all losses share."""

    types: ClassVar[tuple[TaskType, ...]]
    """Types of tasks that may name it."""
    transforms: ClassVar[bool] = False
    """Whether a regression may be fitted to `transform: log1p` of its label."""

    name: str
    """Says which one it is."""

    def width(self, classes: int | None) -> int:
        """Raw outputs of a row, of a task with so many classes."""
        return classes or 1

    @property
    def fits(self) -> bool:
        """Whether the output says what the label is expected to be; that of a pure
        ranking loss says an order alone."""
        return True

    @property
    def reads_groups(self) -> bool:
        """Whether rows of one `keys.group` must be told from others."""
        return False

    @property
    def reads_scenario(self) -> bool:
        """Whether rows of one scenario must be told from others."""
        return False


class _Grouped(LossSpec):
    """Losses that compare rows."""

    within: Within = "group"
    """Which rows are compared: those of one `keys.group`, one scenario, both, or all
    rows of the batch."""

    @property
    def reads_groups(self) -> bool:
        return self.within in ("group", "group_scenario")

    @property
    def reads_scenario(self) -> bool:
        return self.within in ("scenario", "group_scenario")


class _Ranking(_Grouped):
    """Losses of orders, to which the type's own pointwise loss may be added."""

    types: ClassVar[tuple[TaskType, ...]] = ("binary", "regression")
    transforms: ClassVar[bool] = True

    pointwise: float = Field(default=0.0, ge=0)
    """Weight of the type's default loss (`bce`, `mse`), added to this one. At 0 the
    outputs are scores: their order means something, their size does not."""

    @property
    def fits(self) -> bool:
        return self.pointwise > 0


class BCE(LossSpec):
    """Cross-entropy of a probability."""

    types = ("binary",)

    name: Literal["bce"] = "bce"
    """Says that it is this one."""
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each label that is replaced by 1/2."""


class Focal(LossSpec):
    """Cross-entropy with easy rows weighed down; probabilities lose their
    calibration."""

    types = ("binary",)

    name: Literal["focal"] = "focal"
    """Says that it is this one."""
    gamma: float = Field(default=2.0, ge=0)
    """The cross-entropy is multiplied by (1 - p of the true label)^gamma."""
    alpha: float | None = Field(default=0.25, gt=0, lt=1)
    """Weight of positives, that of negatives is 1 - alpha; null: both 1."""


class L2R(LossSpec):
    """DUPN's weighted logistic loss of a ranking score, with labels -1 and 1."""

    types = ("binary",)

    name: Literal["l2r"] = "l2r"
    """Says that it is this one. The paper sums: `normalization: sum`."""


class Distill(LossSpec):
    """Cross-entropy with the label and with what a teacher says of the row."""

    types = ("binary",)

    name: Literal["distill"] = "distill"
    """Says that it is this one; the task's `teacher` names the column."""
    form: Literal["logit", "probability"] = "logit"
    """What the column holds."""
    temperature: float = Field(default=1.0, gt=0)
    """Both logits are divided by it for the teacher's part."""
    mix: float = Field(default=0.5, ge=0, le=1)
    """Weight of the teacher's part; the label's has the rest. A row where the teacher
    is missing has the label's part alone."""


class JRC(_Grouped):
    """Calibration and ranking in one: two logits a row, compared by row and by list."""

    types = ("binary",)

    name: Literal["jrc"] = "jrc"
    """Says that it is this one."""
    alpha: float = Field(default=0.5, ge=0, le=1)
    """Weight of the calibrating part; the ranking one has the rest."""

    def width(self, classes: int | None) -> int:
        return 2


class BPR(_Ranking):
    """Pairs of rows, one with a higher label than the other."""

    name: Literal["bpr"] = "bpr"
    """Says that it is this one."""
    gap: bool = False
    """Weigh a pair by the difference of its labels."""


class ListSoftmax(_Ranking):
    """Cross-entropy of each list's softmax with its labels."""

    name: Literal["list_softmax"] = "list_softmax"
    """Says that it is this one."""


class ListNet(_Ranking):
    """Cross-entropy of each list's softmax with that of its labels."""

    name: Literal["listnet"] = "listnet"
    """Says that it is this one."""
    temperature: float = Field(default=1.0, gt=0)
    """Labels are divided by it before their softmax."""


class ListMLE(_Ranking):
    """Likelihood of each list's order by label."""

    name: Literal["listmle"] = "listmle"
    """Says that it is this one."""


class MSE(LossSpec):
    """Half the squared error."""

    types = ("regression",)
    transforms = True

    name: Literal["mse"] = "mse"
    """Says that it is this one."""


class Huber(LossSpec):
    """Half the squared error, linear beyond `delta`."""

    types = ("regression",)
    transforms = True

    name: Literal["huber"] = "huber"
    """Says that it is this one."""
    delta: float = Field(default=1.0, gt=0)
    """In what is fitted: the label's unit, or its log1p."""


class WeightedLogistic(LossSpec):
    """Watch time by a logistic loss: positives are weighed by the label, and the odds
    are its expectation."""

    types = ("regression",)

    name: Literal["weighted_logistic"] = "weighted_logistic"
    """Says that it is this one."""
    negatives: Literal["all", "zeros"] = "all"
    """Rows that count as a negative of weight 1: all, so that the odds are the expected
    label, or as in the source those whose label is 0, so that they are the expected
    label over the share of zeros."""


class ZILN(LossSpec):
    """A value that is often 0 and else log-normal: three outputs a row."""

    types = ("regression",)

    name: Literal["ziln"] = "ziln"
    """Says that it is this one."""

    def width(self, classes: int | None) -> int:
        return 3


class Softmax(LossSpec):
    """Cross-entropy of classes."""

    types = ("multiclass",)

    name: Literal["softmax"] = "softmax"
    """Says that it is this one."""
    smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each label that is spread over all classes."""


class Ordinal(LossSpec):
    """Classes in an order, by cumulative logits whose order is built in."""

    types = ("multiclass",)

    name: Literal["ordinal"] = "ordinal"
    """Says that it is this one."""

    def width(self, classes: int | None) -> int:
        assert classes is not None
        return classes - 1


LOSSES: tuple[type[LossSpec], ...] = (
    BCE,
    Focal,
    L2R,
    Distill,
    JRC,
    MSE,
    Huber,
    WeightedLogistic,
    ZILN,
    Softmax,
    Ordinal,
    BPR,
    ListSoftmax,
    ListNet,
    ListMLE,
)
"""All losses; the first of a type is its default."""


def losses_of(kind: TaskType) -> dict[str, type[LossSpec]]:
    """Name to class of the losses that a type of task may name, its default first."""
    return {c.model_fields["name"].default: c for c in LOSSES if kind in c.types}


def default_loss(kind: TaskType) -> LossSpec:
    """The loss of a task that names none."""
    return next(iter(losses_of(kind).values())).model_validate({})


def _named(value: Any) -> Any:
    """A plain name -> the loss with its default settings."""
    name = value.get("name") if isinstance(value, dict) else value
    known = [c.model_fields["name"].default for c in LOSSES]
    if isinstance(value, dict | str) and name not in known:
        raise ValueError(
            f"`loss` must be one of {known}, or a mapping with one of them as `name` "
            f"and its settings. Received: {value!r}"
        )
    return {"name": value} if isinstance(value, str) else value


LossName = Literal[
    "bce",
    "focal",
    "l2r",
    "distill",
    "jrc",
    "mse",
    "huber",
    "weighted_logistic",
    "ziln",
    "softmax",
    "ordinal",
    "bpr",
    "list_softmax",
    "listnet",
    "listmle",
]
AnyLoss = (
    BCE
    | Focal
    | L2R
    | Distill
    | JRC
    | MSE
    | Huber
    | WeightedLogistic
    | ZILN
    | Softmax
    | Ordinal
    | BPR
    | ListSoftmax
    | ListNet
    | ListMLE
)
Loss = Annotated[
    Annotated[AnyLoss, Field(discriminator="name")],
    pydantic.BeforeValidator(_named, json_schema_input_type=LossName | AnyLoss),
]
"""A name, or a mapping with `name` and the loss's settings."""
