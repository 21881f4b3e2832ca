"""What every architecture shares: embedding in, one logit a task out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field

from tfmtl._keras import keras, tf
from tfmtl.errors import ConfigError
from tfmtl.layers.dropout import dropout_step
from tfmtl.layers.embedding import Embedded, FeatureEmbedding
from tfmtl.layers.estimates import EstimateHeads, EstimateTowers
from tfmtl.layers.funnel import conditional_logit, joint_logit
from tfmtl.layers.initializers import Start
from tfmtl.layers.seeds import child_seed
from tfmtl.layers.towers import Towers
from tfmtl.losses.starts import start_of_value, wide_start
from tfmtl.models.sides import id_feature
from tfmtl.schema.base import Spec
from tfmtl.schema.experiment import RegularizationSpec
from tfmtl.schema.feature import FeatureSpec
from tfmtl.schema.loss import ZILN, Ordinal
from tfmtl.schema.manifest import DatasetManifest, LabelStats
from tfmtl.schema.samples import SampleSpec
from tfmtl.schema.task import TaskSpec


class ModelConfig(Spec):
    """Settings that all models share."""

    interaction: Literal["none", "dot"] = "none"
    """Add the dot products of all pairs of fields of one width to the input."""
    tower_units: tuple[int, ...] = (32,)
    """Widths of each task tower's hidden layers; may be empty."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """After each hidden layer, in training."""
    given_loss: Literal["conditional", "joint"] = "conditional"
    """Which output of a task with `given` gets the loss: `buy|click` over the rows with
    a click, or `buy` over all rows."""
    estimates: dict[str, tuple[str, ...]] = {}
    """Task to the tasks whose estimates its tower reads beside its own input. No
    gradient flows back through an estimate: the reader cannot alter what it reads."""
    estimate_form: Literal["logit", "probability"] = "logit"
    """What is read of an estimate."""


class ExtraLoss(NamedTuple):
    """A loss that an architecture adds: an output of its own against a task's label.

    Attributes:
        task: The task whose labels, population and kind of loss it takes.
        weight: What the loss is multiplied by.
    """

    task: str
    weight: float


class MultiTaskModel(keras.Model):
    """Base class of all architectures: features of a batch -> {output: logits}.

    A subclass sets `Config`, creates its layers in `__init__` and writes the paper's
    equations in `represent` (one vector per task), or in `logits` where the paper has
    no such vector. It knows nothing of losses, optimizers, files or metrics.

    Parts that exist in training only (a subnet that helps the embeddings, a position
    tower) are computed by `training_outputs`; an export leaves them out.

    Args:
        manifest: The data set's manifest: columns, sizes, tasks, base rates.
        config: The architecture's settings.
        seed: Of initial values and dropout masks.
        regularization: Of the embeddings; defaults where None.
        side_tables: Vectors of side-table features [rows of the key's table, size].
    """

    Config: ClassVar[type[ModelConfig]] = ModelConfig
    citation: ClassVar[str] = ""

    def __init__(
        self,
        manifest: DatasetManifest,
        config: ModelConfig,
        *,
        seed: int = 0,
        regularization: RegularizationSpec | None = None,
        side_tables: Mapping[str, np.ndarray] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.manifest = manifest
        self.config = config
        self.seed = seed
        self.regularization = regularization or RegularizationSpec()
        self.tasks: tuple[TaskSpec, ...] = manifest.dataset.tasks
        # Each replica counts for itself: none has to ask the others.
        self.step = tf.Variable(
            0,
            dtype=tf.int64,
            trainable=False,
            name="step",
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        self.side_tables = side_tables
        self._cut: list[Any] = []
        self._inspect: dict[str, Any] = {}
        self._complete = False
        self._passed: set[str] = set()
        self._check_estimates()
        self.smearing = {
            t.name: tf.Variable(1.0, trainable=False, name=f"smearing/{t.name}")
            for t in self.tasks
            if t.smearing
        }
        # Where no tower of ours reads the estimates, they are added to the logits.
        self._estimate_heads: Any = None
        if config.estimates:
            self._estimate_heads = EstimateHeads(
                [t.name for t in self.tasks],
                config.estimates,
                form=config.estimate_form,
                seed=self.seed_for("estimates"),
                name="estimates",
            )
        self.embedding: Any = self.make_embedding("embedding")

    @classmethod
    def samples(cls, manifest: DatasetManifest, config: Any) -> SampleSpec | None:
        """What the reader must draw beside each training row; nothing where None.

        Only training batches have it: the model must do without everywhere else.

        Args:
            manifest: The data set's manifest.
            config: The architecture's settings, a `Config`.
        """
        return None

    # === Parts that subclasses use ===

    def seed_for(self, *path: str | int) -> int:
        """A seed for the named part of this model."""
        return child_seed(self.seed, *path)

    def make_embedding(
        self,
        name: str,
        partitions: int = 1,
        exclude: Sequence[str] = (),
        use_scenario: bool = True,
        width: int | None = None,
        replace: Sequence[FeatureSpec] = (),
        vectors: Mapping[str, str] | None = None,
    ) -> FeatureEmbedding:
        """An embedding of all features; arguments as for `FeatureEmbedding`."""
        return FeatureEmbedding(
            self.manifest,
            self.regularization,
            seed=self.seed_for(name),
            interaction=self.config.interaction,
            side_tables=self.side_tables,
            partitions=partitions,
            exclude=exclude,
            use_scenario=use_scenario,
            width=width,
            replace=replace,
            vectors=vectors,
            name=name,
        )

    def features_of_side(self, *sides: str) -> tuple[str, ...]:
        """Names of the features that describe the `user`, the `item`, the `context`."""
        return tuple(f.name for f in self.manifest.dataset.features if f.side in sides)

    def id_feature(self, side: str, chosen: str | None, where: str) -> str:
        """The categorical feature that names the user or the item.

        Args:
            side: `user` or `item`.
            chosen: The configured name; the side's only categorical feature where None.
            where: The setting, for the message.

        Raises:
            ConfigError: There is no such feature, or more than one to choose from.
        """
        return id_feature(self.manifest.dataset, side, chosen, where)

    def make_towers(
        self, initial_bias: Sequence[Start] | None = None
    ) -> Towers | EstimateTowers:
        """One tower a task, owned by `task/<name>`.

        Args:
            initial_bias: Where the outputs start; `initial_output` of each task if
                None.
        """
        owners = [f"task/{t.name}" for t in self.tasks]
        outputs = [t.width for t in self.tasks]
        settings: dict[str, Any] = {
            "seed": self.seed_for("towers"),
            "dropout": self.config.dropout,
            "initial_bias": initial_bias
            or [self.initial_output(t) for t in self.tasks],
            "name": "towers",
        }
        units, estimates = self.config.tower_units, self.config.estimates
        if not estimates:
            return Towers(owners, units, outputs, **settings)
        self._estimate_heads = None
        names = [t.name for t in self.tasks]
        sources = [[names.index(s) for s in estimates.get(n, ())] for n in names]
        form = self.config.estimate_form
        return EstimateTowers(owners, units, outputs, sources, form=form, **settings)

    def _check_estimates(self) -> None:
        """Refuses unknown tasks and circles."""
        names = [t.name for t in self.tasks]
        estimates = self.config.estimates
        unknown = {*estimates, *(s for v in estimates.values() for s in v)} - {*names}
        if unknown:
            raise ConfigError(
                f"`model.config.estimates` names {sorted(unknown)}; tasks: {names}"
            )
        if self.config.estimate_form == "probability":
            self._check_probabilities({s for v in estimates.values() for s in v})
        for task in estimates:
            seen: set[str] = set()
            ahead = list(estimates[task])
            while ahead:
                source = ahead.pop()
                if source == task:
                    raise ConfigError(
                        "`model.config.estimates` must not run in a circle. Received: "
                        f"{task!r} reads itself by {sorted(seen | {source})}"
                    )
                if source not in seen:
                    seen.add(source)
                    ahead += estimates.get(source, ())

    def _check_probabilities(self, read: set[str]) -> None:
        """Refuses to read as probabilities what the softmax makes none of."""
        wrong = sorted(
            t.name
            for t in self.tasks
            if t.name in read and isinstance(t.fitted, ZILN | Ordinal)
        )
        if wrong:
            raise ConfigError(
                "`model.config.estimate_form: probability` cannot read the outputs of "
                f"`loss: ziln` or `ordinal`: take `logit`. Received: {wrong}"
            )

    def initial_bias(self, task: TaskSpec, scenario: str | None = None) -> float:
        """Where a task's output starts: the training split's log-odds, or mean."""
        if self.regularization.output_bias == "zero" or task.type == "multiclass":
            return 0.0
        stats = self._stats(task.name, scenario)
        mean = stats.mean if stats else None
        if mean is None:
            return 0.0
        if task.type == "regression":
            return start_of_value(task, mean)
        if task.given is not None:
            given = self._stats(task.given, scenario)
            if given is None or given.total <= 0 or stats is None:
                return 0.0
            mean = stats.total / given.total
        mean = min(max(mean, 1e-6), 1 - 1e-6)
        return math.log(mean / (1 - mean))

    def initial_output(self, task: TaskSpec) -> Start:
        """Where a task's raw outputs start: a number, or `width` of them."""
        if task.width == 1:
            return self.initial_bias(task)
        if self.regularization.output_bias == "zero":
            return (0.0,) * task.width
        logit = self.initial_bias(task) if task.type == "binary" else 0.0
        return wide_start(task, self._stats(task.name, None), logit)

    def initial_joint_output(self, task: TaskSpec) -> Start:
        """Where a task's outputs over all rows start."""
        if task.width > 1:
            return self.initial_output(task)
        return self.initial_joint_bias(task)

    def initial_joint_bias(self, task: TaskSpec) -> float:
        """Where an output over all rows starts: the product of the steps' rates."""
        steps = self.funnel(task) if task.type == "binary" else (task,)
        if len(steps) == 1 or self.regularization.output_bias == "zero":
            return self.initial_bias(task)
        rate = math.prod(1 / (1 + math.exp(-self.initial_bias(s))) for s in steps)
        return math.log(rate / (1 - rate))

    def funnel(self, task: TaskSpec) -> tuple[TaskSpec, ...]:
        """A task and the tasks it is `given`, upwards."""
        by_name = {t.name: t for t in self.tasks}
        steps = [task]
        while (given := steps[-1].given) is not None:
            steps.append(by_name[given])
        return tuple(steps)

    def initial_cell_bias(self) -> list[list[float]]:
        """Where each task's output starts in each known scenario, [S][T]."""
        scenarios = self.manifest.dataset.scenario_values
        return [[self.initial_bias(t, s) for t in self.tasks] for s in scenarios]

    def scenarios_of_cells(self, several: bool = False) -> tuple[str, ...]:
        """The known scenarios, for networks of each scenario and task.

        Args:
            several: Whether one scenario is too few.

        Raises:
            ConfigError: There are too few, or a task has several outputs.
        """
        scenarios = self.manifest.dataset.scenario_values
        wrong = self.wide_tasks
        if len(scenarios) < 1 + several or wrong:
            more = " with two values or more," if several else ""
            raise ConfigError(
                f"{type(self).__name__} needs `dataset.scenario`{more} and no "
                "multiclass task, nor another with several outputs. Received: "
                f"scenarios {list(scenarios)}, such tasks {wrong}"
            )
        return scenarios

    @property
    def wide_tasks(self) -> list[str]:
        """Tasks with several raw outputs: classes, or what their loss asks for."""
        return [t.name for t in self.tasks if t.width > 1]

    def _stats(self, task: str, scenario: str | None) -> LabelStats | None:
        tasks, cells = self.manifest.base_rates()
        if scenario is None:
            return tasks.get(task)
        return cells.get(task, {}).get(scenario)

    # === What an architecture defines ===

    def represent(self, x: Embedded, training: bool) -> Any:
        """The paper: what each task's tower reads.

        Returns:
            [B, H] where all towers read the same, or [B, T, H].
        """
        raise NotImplementedError(f"{type(self).__name__} must define `represent`")

    def embed(self, features: Mapping[str, Any], training: bool) -> Any:
        """Features -> what `logits` reads."""
        return self.embedding(features, training=training)

    def logits(self, x: Any, training: bool) -> dict[str, Any]:
        """Trained output of each task (`TaskSpec.conditional`) to [B] or [B, C]."""
        outputs = self.towers(self.represent(x, training), training=training)
        return {t.conditional: logit for t, logit in zip(self.tasks, outputs)}

    def training_outputs(self, x: Any, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Outputs that exist in training only, or replace `outputs` there.

        Args:
            x: What `embed` made.
            outputs: What `logits` made.
        """
        return {}

    def aux_losses(self) -> dict[str, Any]:
        """Losses of the architecture's own, added to the tasks', of the last call.

        They belong to no task: no balancer weighs them, and `training.tasks` leaves
        them as they are, whoever takes part in a step.
        """
        return {}

    def extra_losses(self) -> dict[str, ExtraLoss]:
        """Output of `training_outputs` to the loss it gets beside the tasks'.

        No balancer weighs it. It counts in the steps that its task takes part in; the
        task's `clip_norm` and `reach` are of the task's own loss alone.
        """
        return {}

    # === What everybody else uses ===

    def call(
        self, features: Mapping[str, Any], training: bool = False
    ) -> dict[str, Any]:
        """Features of a batch -> logits.

        Args:
            features: Record column to [B], [B, L] or [B, size].
            training: Whether dropouts act.

        Returns:
            Output to float32 [B], or [B, C] for classes. A binary task with `given`
            appears twice, as `buy|click` and, multiplied up the funnel, as `buy`. In
            training, the outputs that `extra_losses` names are there too.
        """
        self._cut, self._inspect, self._passed = [], {}, set()
        with dropout_step(self.step):
            x = self.embed(features, training)
            if isinstance(x, Embedded):
                self._inspect.update(x.inspect)
            outputs = self._with_estimates(self.logits(x, training))
            # The first call creates all variables, those of training too.
            if training or not self._complete:
                changed = self.training_outputs(x, outputs)
                if training:
                    outputs = {**outputs, **changed}
        self._complete = True
        return self._with_joints(self._with_conditionals(outputs))

    def _with_estimates(self, outputs: dict[str, Any]) -> dict[str, Any]:
        if self._estimate_heads is None:
            return outputs
        names = {
            t.name: t.conditional if t.conditional in outputs else t.name
            for t in self.tasks
        }
        read = self._estimate_heads({t: outputs[name] for t, name in names.items()})
        return {**outputs, **{names[t]: value for t, value in read.items()}}

    def _with_conditionals(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Adds `buy|click` where the architecture models only `buy` over all rows."""
        by_name = {t.name: t for t in self.tasks}
        for task in self.tasks:
            if task.conditional in outputs or task.conditional == task.name:
                continue
            assert task.given is not None
            above = by_name[task.given]
            if self.trained_output(task) == task.conditional:
                self._pass_on(above.name, outputs[above.name])
            outputs[task.conditional] = conditional_logit(
                outputs[task.name], outputs[above.name]
            )
        return outputs

    def _with_joints(self, outputs: dict[str, Any]) -> dict[str, Any]:
        for task in self.tasks:
            if task.conditional == task.name or task.name in outputs:
                continue
            steps = self.funnel(task)
            if self.trained_output(task) == task.name:
                for above in steps[1:]:
                    self._pass_on(above.name, outputs[above.conditional])
            outputs[task.name] = joint_logit(*(outputs[t.conditional] for t in steps))
        return outputs

    def _pass_on(self, task: str, logits: Any) -> None:
        """Notes that another task's loss reads a task's output: its parts are shared,
        and reach that loss through the output."""
        if task not in self._passed:
            self._passed.add(task)
            self.keep_for_cut(logits)

    def reached_by_others(self, task: str) -> bool:
        """Whether another task's loss reached a task's output in the last call."""
        return task in self._passed

    def notes(self) -> list[str]:
        """Lines to tell whoever trains the model, before the first step."""
        return []

    def trained_output(self, task: TaskSpec) -> str:
        """The output that gets a task's loss."""
        if self.config.given_loss == "joint":
            return task.name
        return task.conditional

    def keep_for_cut(self, *tensors: Any) -> None:
        """Marks tensors through which shared variables reach the heads."""
        self._cut += tensors

    def keep_for_inspection(self, **tensors: Any) -> None:
        """Marks tensors worth looking at."""
        self._inspect.update(tensors)

    def cut(self) -> list[Any]:
        """The tensors of the last call through which shared variables reach heads."""
        return list(self._cut)

    def inspect(self) -> dict[str, Any]:
        """Gates, attention weights ... of the last call."""
        return dict(self._inspect)

    def variable_groups(self) -> dict[str, list[Any]]:
        """Group to trainable variables: a partition of `trainable_variables`.

        Groups: `embedding`, `embedding/<feature>`, `shared`, `gate/<task>`,
        `task/<task>`, `scenario/<scenario>`, `cell/<scenario>/<task>`. Only a task's
        loss reaches what is its own: where the loss of `buy` is on the product with
        `click`, the parts of `click` count as shared. A layer may name an owner
        `shared/<name>`, to tell the variables of shared members apart.

        Raises:
            ValueError: The model has not been called yet, or a layer claims a variable
                that another one claims too.
        """
        if not self.built:
            raise ValueError("call the model on a batch before asking for its groups")
        groups: dict[str, list[Any]] = {}
        owner_of: dict[Any, str] = {}
        for layer in self._flatten_layers(include_self=False, recursive=False):
            claims = getattr(layer, "variable_groups", None)
            for owner, variables in (claims() if claims else {}).items():
                group = self._group_of(owner)
                for variable in variables:
                    if variable.ref() in owner_of:
                        raise ValueError(
                            f"variable {variable.name!r} is claimed by the groups "
                            f"{owner_of[variable.ref()]!r} and {group!r}"
                        )
                    owner_of[variable.ref()] = group
                    groups.setdefault(group, []).append(variable)
        rest = [v for v in self.trainable_variables if v.ref() not in owner_of]
        if rest:
            groups["shared"] = groups.get("shared", []) + rest
        return groups

    def _group_of(self, owner: str) -> str:
        """The group of what a layer says belongs to `owner`."""
        kind, _, name = owner.partition("/")
        if kind == "cell":
            scenario, _, task = name.partition("/")
            return f"scenario/{scenario}" if task in self._passed else owner
        if kind == "shared" or (kind in ("task", "gate") and name in self._passed):
            return "shared"
        return owner
