"""The experiment file: one document from raw columns to the served model."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field, model_validator

from tfmtl.schema.base import Misplaced, Spec
from tfmtl.schema.calibration import CalibrationSpec
from tfmtl.schema.control import TaskControlSpec
from tfmtl.schema.dataset import DatasetSpec
from tfmtl.schema.evaluation import EvaluationSpec
from tfmtl.schema.feature import has_ids
from tfmtl.schema.fusion import FusionSpec
from tfmtl.schema.monitor import check_metric
from tfmtl.schema.tuning import TuningSpec


class ComponentSpec(Spec):
    """A class by name (ours) or by path (`package.module:Class`), and its settings.

    The settings are checked by the class's own `Config`; `tfmtl config check` does it.
    """

    model_config = pydantic.ConfigDict(populate_by_name=True)

    class_name: str = Field(alias="class", min_length=1)
    """Such as `MMoE`, or `package.module:Class`."""
    config: dict[str, Any] = {}
    """Settings of the class."""


class ScheduleSpec(Spec):
    """How a learning rate changes over the steps of a training run."""

    kind: Literal["constant", "cosine", "exponential", "linear"] = "constant"
    """How the rate falls after the warm-up."""
    warmup_steps: int = Field(default=0, ge=0)
    """Rise linearly from 0 over so many steps."""
    decay_steps: int | None = Field(default=None, ge=1)
    """Steps from the end of the warm-up to the end of the decay; the planned number of
    steps of the run where absent."""
    end_factor: float = Field(default=0.0, ge=0, le=1)
    """The rate at the end, as a share of `learning_rate`."""


class OptimizerSpec(Spec):
    """The optimizer of one group of variables."""

    model_config = pydantic.ConfigDict(populate_by_name=True)

    class_name: Literal[
        "SGD", "Momentum", "Adagrad", "Adam", "LazyAdam", "RMSprop", "Ftrl"
    ] = Field(default="Adam", alias="class")
    """`LazyAdam` updates only the embedding rows of the batch; `Ftrl` with `l1` keeps
    weights at exactly 0 and is for linear models (`embedding/wide`)."""
    learning_rate: float = Field(default=1e-3, ge=0)
    """The rate before any schedule; 0 freezes the group, its optimizer's state too."""
    schedule: ScheduleSpec = ScheduleSpec()
    """How the rate changes."""
    start_step: int = Field(default=0, ge=0)
    """The first step that updates the group, counted from 0; its schedule begins
    there."""
    stop_step: int | None = Field(default=None, ge=1)
    """The first step that no longer updates it; never where absent."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Scale the group's gradient down to this global norm."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled: multiply dense kernels by 1 - rate x decay at each step."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum's."""
    beta_1: float = Field(default=0.9, ge=0, lt=1)
    """Adam's and LazyAdam's decay of the mean."""
    beta_2: float = Field(default=0.999, ge=0, lt=1)
    """Their decay of the squares; RMSprop's too."""
    epsilon: float = Field(default=1e-7, gt=0)
    """Added to the root of the squares."""
    initial_accumulator: float = Field(default=0.1, ge=0)
    """Adagrad's and Ftrl's."""
    l1: float = Field(default=0.0, ge=0)
    """Ftrl's: strength of the absolute weights."""
    l2: float = Field(default=0.0, ge=0)
    """Ftrl's: strength of the squared weights."""

    @model_validator(mode="after")
    def _penalties_are_ftrls(self) -> OptimizerSpec:
        if (self.l1 or self.l2) and self.class_name != "Ftrl":
            raise ValueError(
                "`l1` and `l2` belong to `class: Ftrl`. Received: "
                f"class={self.class_name!r}, l1={self.l1}, l2={self.l2}"
            )
        return self

    @model_validator(mode="after")
    def _some_steps(self) -> OptimizerSpec:
        if self.stop_step is not None and self.stop_step <= self.start_step:
            raise ValueError(
                "`stop_step` must come after `start_step`. Received: "
                f"start_step={self.start_step}, stop_step={self.stop_step}"
            )
        return self


class RegularizationSpec(Spec):
    """Penalties that the trainer adds; dropout belongs to the model's config."""

    embedding_l2: float = Field(default=0.0, ge=0)
    """Half the squared norm of the embeddings that a batch looks up, summed over the
    features of one value and averaged over rows, times this: a table's row decays as
    often as it is used."""
    feature_l2: dict[str, float] = {}
    """Feature to an `embedding_l2` of its own; ids with few rows each, such as users,
    often need more. Lists (multi-valent features, sequences) count as the mean of their
    values, and only where they are named here."""
    embedding_std: float = Field(default=0.01, gt=0)
    """Standard deviation of the initial embeddings."""
    feature_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the embedded fields that are zeroed, per row, in training."""
    id_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of categorical ids replaced by the unknown value in training, per row and
    feature: what the model does with a new user or item is then trained too."""
    output_bias: Literal["base_rate", "zero"] = "base_rate"
    """Start each task's output at the log-odds of its rate in the training split."""


class TrainingSpec(Spec):
    """How long, in which steps, and what is watched."""

    batch_size: int = Field(default=4096, ge=1)
    """Rows of a step."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the training split, at most."""
    steps: int | None = Field(default=None, ge=1)
    """Stop after so many steps, whatever `epochs` says."""
    monitor: str = "mean/auc"
    """`task/metric`, `task@scenario/metric` or `mean/metric`, on validation. Means are
    over the main tasks of one type: `auc` and `logloss` over the binary ones. A metric
    of the order inside lists, such as `click/ndcg@10`, is of a task or of a task in a
    scenario, and costs a second pass over the split."""
    patience: int | None = Field(default=2, ge=1)
    """Stop after so many evaluations without a better one; null: never."""
    evaluate_every: int | None = Field(default=None, ge=1)
    """Steps between evaluations; once per epoch where absent."""
    checkpoint_every: int | None = Field(default=None, ge=1)
    """Steps between checkpoints to resume from; at each evaluation where absent."""
    log_every: int = Field(default=50, ge=1)
    """Steps between lines of `metrics.jsonl`."""
    diagnose_every: int | None = Field(default=500, ge=1)
    """Steps between looks at the tasks' gradients, the gates and the experts, which
    `tfmtl diagnose` reads; each costs about one step a task and one to open the data.
    null: never."""
    tasks: dict[str, TaskControlSpec] = {}
    """Task to when and how far it takes part; tasks not named always do, wholly."""
    task_snapshots: bool = False
    """Also keep the model of each task's own best evaluation, for `--snapshot TASK`;
    one model on disk for each such step. A regression with a pure ranking loss has no
    metric of its own, and no snapshot."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 computes layers in 16 bits; variables and losses stay float32."""
    deterministic: bool = False
    """Ask TensorFlow for deterministic ops: the same bits on the same machine."""
    shuffle_blocks: int = Field(default=8, ge=1)
    """Blocks in the pool within which rows are shuffled; the job has mixed all rows
    of a split already when it wrote them."""
    shuffle: Literal["rows", "groups"] = "rows"
    """What is shuffled; `groups` keeps the rows of one `keys.group` together."""


class ExportSpec(Spec):
    """What the served model answers."""

    outputs: tuple[str, ...] | None = None
    """Tasks whose outputs the model answers; all main tasks where absent."""
    warmup_batch_sizes: tuple[int, ...] = (1, 64)
    """Requests of these sizes warm a new version up before it serves."""


class Experiment(Spec):
    """One experiment: data, model, balancer, optimizers, training, export."""

    version: Literal[1] = 1
    """Of the file format."""
    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Of the experiment; the model card carries it."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of initial values, order of rows, dropout."""
    dataset: DatasetSpec
    """The data."""
    model: ComponentSpec
    """The architecture, one of `tfmtl models` or a class of your own."""
    balancer: ComponentSpec = ComponentSpec(class_name="Equal")
    """How the tasks' losses are weighed, one of `tfmtl balancers` or your own."""
    optimizers: dict[str, OptimizerSpec] = {
        "default": OptimizerSpec(),
        "embedding": OptimizerSpec(class_name="LazyAdam"),
    }
    """Pattern of variable groups (`embedding`, `shared`, `gate/*`, `task/*` ...) to
    optimizer; the longest pattern that fits wins, `default` is mandatory. Given, it
    replaces the default as a whole."""
    regularization: RegularizationSpec = RegularizationSpec()
    """Penalties, dropout of inputs, initial values."""
    training: TrainingSpec = TrainingSpec()
    """How long, in which steps, and what is watched."""
    evaluation: EvaluationSpec = EvaluationSpec()
    """What `tfmtl evaluate` measures beside each task's own metrics."""
    fusion: FusionSpec | None = None
    """How the outputs become one `score`; null: they do not."""
    calibration: CalibrationSpec = CalibrationSpec()
    """Calibrators that are fitted on the validation split after training."""
    export: ExportSpec = ExportSpec()
    """What the served model answers."""
    tuning: TuningSpec | None = None
    """What `tfmtl tune` searches."""

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if "default" not in self.optimizers:
            raise ValueError(
                "`optimizers` must have a `default` for the groups no pattern fits. "
                f"Received: {sorted(self.optimizers)}"
            )
        tasks = {t.name: t for t in self.dataset.tasks}
        for name in self.export.outputs or ():
            if name not in tasks:
                raise ValueError(
                    f"`export.outputs` names {name!r}, which is no task; tasks: "
                    f"{sorted(tasks)}"
                )
        features = [f.name for f in self.dataset.features if has_ids(f)]
        unknown = sorted(set(self.regularization.feature_l2) - set(features))
        if unknown:
            raise ValueError(
                f"`regularization.feature_l2` names {unknown}; features with an "
                f"embedding table: {features}"
            )
        ranking, monitor = self.evaluation.ranking, self.training.monitor
        check_metric(monitor, "training.monitor", self.dataset, ranking)
        if self.evaluation.ranking is not None:
            self.evaluation.ranking.check(self.dataset)
        if self.fusion is not None:
            self.fusion.check(self.dataset)
        strangers = sorted(set(self.training.tasks) - set(tasks))
        if strangers:
            raise ValueError(
                f"`training.tasks` names {strangers}; tasks: {sorted(tasks)}"
            )
        for name, control in self.training.tasks.items():
            if control.patience is not None and tasks[name].orders_alone:
                raise ValueError(
                    f"`training.tasks.{name}.patience` needs a metric of the task's "
                    f"own, and a regression with `loss: {tasks[name].fitted.name}` "
                    "alone has none: the size of its score means nothing. Use `stop`, "
                    f"`training.monitor: {name}/ndcg@10` with `training.patience`, or "
                    f"a `pointwise` weight. Received: {control.patience}"
                )
        if self.training.shuffle == "groups" and self.dataset.keys.group is None:
            raise ValueError("`training.shuffle: groups` needs `keys: {group: column}`")
        self._check_groups()
        if self.tuning is not None:
            try:
                self.tuning.check(self.dataset, monitor, ranking)
            except Misplaced as error:
                raise Misplaced(str(error), "tuning", *error.place) from None
        return self

    def _check_groups(self) -> None:
        """A loss that compares the rows of a group needs them side by side."""
        group, shuffle = self.dataset.keys.group, self.training.shuffle
        for task in self.dataset.tasks:
            if task.fitted.reads_groups and (group is None or shuffle != "groups"):
                raise ValueError(
                    f"task {task.name!r}: a loss `within` groups needs `keys: {{group: "
                    "column}` and `training: {shuffle: groups}`. Received: group="
                    f"{group!r}, shuffle={shuffle!r}"
                )
