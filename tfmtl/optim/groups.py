"""Variable groups -> optimizers: every variable in exactly one."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_recommenders as tfrs

from tfmtl._keras import keras, tf
from tfmtl.errors import ConfigError
from tfmtl.optim.lazy_adam import LazyAdam
from tfmtl.optim.schedule import Schedule
from tfmtl.schema.experiment import OptimizerSpec


def match_groups(groups: Sequence[str], patterns: Sequence[str]) -> dict[str, str]:
    """Group to the pattern whose optimizer it gets: the longest that fits.

    A pattern fits a group by shell rules (`task/*`), or as its folder (`embedding` fits
    `embedding/title`).

    Raises:
        ConfigError: A pattern fits no group.
    """
    chosen = {}
    for group in groups:
        fitting = [
            p
            for p in patterns
            if p != "default"
            and (fnmatch.fnmatchcase(group, p) or _is_folder(p, group))
        ]
        chosen[group] = max(fitting, key=len, default="default")
    idle = sorted(set(patterns) - set(chosen.values()) - {"default"})
    if idle:
        raise ConfigError(
            f"`optimizers` has patterns that no group of variables needs: {idle}. "
            f"Groups: {sorted(groups)}"
        )
    return chosen


def _is_folder(pattern: str, group: str) -> bool:
    return group.startswith(pattern.rstrip("/") + "/")


@dataclasses.dataclass(frozen=True)
class _Part:
    """Variables that are updated together, or stay together.

    Attributes:
        pattern: Whose settings they have.
        task: The task that they wait for; None where they wait for none.
        variables: Of one optimizer.
        optimizer: Theirs.
    """

    pattern: str
    task: str | None
    variables: list[Any]
    optimizer: Any


class OptimizerGroups:
    """The optimizers of a model, one for each pattern of variable groups.

    Clips each pattern's gradient by its global norm, the steps of followed variables
    apart (see `follow`), applies it through TFRS's
    `CompositeOptimizer`, and decays kernels decoupled from the gradient. `composite`
    holds all state, for checkpoints. What is frozen, or not in its steps, is left
    alone: values, slots and the count of updates that schedules go by.

    Under a distribution strategy, gradients are expected to be those of all replicas
    already: nothing is summed here.

    Args:
        specs: Pattern to optimizer; has `default`.
        groups: Group to variables, a partition.
        planned_steps: Where learning-rate decays end.
        waiting: Group to the task without which it is not updated, see `apply`; each
            task's groups have an optimizer of their own.

    Raises:
        ConfigError: A pattern fits no group.
    """

    def __init__(
        self,
        specs: Mapping[str, OptimizerSpec],
        groups: Mapping[str, Sequence[Any]],
        planned_steps: int,
        waiting: Mapping[str, str] | None = None,
    ) -> None:
        chosen = match_groups(list(groups), list(specs))
        self.patterns: dict[str, list[Any]] = {}
        parts: dict[tuple[str, str | None], list[Any]] = {}
        for group, pattern in chosen.items():
            self.patterns.setdefault(pattern, []).extend(groups[group])
            task = (waiting or {}).get(group)
            parts.setdefault((pattern, task), []).extend(groups[group])
        self._tables = {
            v.ref() for g, vs in groups.items() if g.startswith("embedding") for v in vs
        }
        self._specs = {p: specs[p] for p in self.patterns}
        self.variables_in_order = [v for p in self.patterns.values() for v in p]
        self._planned_steps = planned_steps
        self._members = parts
        self._rates = {
            p: Schedule(s.learning_rate, s.schedule, planned_steps)
            for p, s in self._specs.items()
        }
        self._followed: frozenset[Any] = frozenset()
        self.composite = self._composite()

    def follow(self, variables: Sequence[Any]) -> None:
        """Moves variables by their rate times what `apply` is given for them.

        For balancers whose results are steps and not gradients. Patterns, schedules,
        clipping and decay stay; the optimizers' classes are left out. Steps have no
        unit in common with gradients: of a pattern, each kind has a norm of its own. To
        be called before the first step.
        """
        self._followed = frozenset(v.ref() for v in variables)
        self.composite = self._composite()

    def _composite(self) -> Any:
        self._parts = []
        for (pattern, task), variables in self._members.items():
            spec = self._specs[pattern]
            plain = spec.model_copy(update={"class_name": "SGD"})
            for used, moved in ((spec, False), (plain, True)):
                members = [v for v in variables if (v.ref() in self._followed) == moved]
                if members:
                    made = make_optimizer(used, self._planned_steps)
                    # Slots exist before the first step: a checkpoint restores into
                    # them.
                    made._create_all_weights(members)
                    self._parts.append(_Part(pattern, task, members, made))
        return tfrs.experimental.optimizers.CompositeOptimizer(
            [
                (part.optimizer, lambda members=part.variables: members)
                for part in self._parts
            ]
        )

    def apply(
        self,
        gradients: Sequence[Any],
        step: Any = 0,
        active: Mapping[str, Any] | None = None,
    ) -> None:
        """Applies gradients given in the order of `variables_in_order`.

        Args:
            gradients: One a variable; None where nothing flows.
            step: Scalar, the number of this step, for `start_step` and `stop_step`.
            active: Task to a scalar bool: whether the groups that wait for it are
                updated in this step. All are where absent.
        """
        by_variable = {v.ref(): g for v, g in zip(self.variables_in_order, gradients)}
        conditions = [self._condition(part, step, active) for part in self._parts]
        if tf.distribute.has_strategy() and any(c is not None for c in conditions):
            raise ConfigError(
                "`start_step` and `stop_step` of `optimizers`, and `start`, `stop` and "
                "`patience` of `training.tasks`, need training without a distribution "
                "strategy"
            )
        for part, condition in zip(self._parts, conditions):
            if condition is not None:
                for v in part.variables:
                    by_variable[v.ref()] = _if(condition, by_variable[v.ref()])
        for pattern, variables in self.patterns.items():
            norm = self._specs[pattern].clip_norm
            if norm is None:
                continue
            for moved in (False, True):
                refs = [v.ref() for v in variables]
                refs = [r for r in refs if (r in self._followed) == moved]
                clipped = clip_by_norm([by_variable[r] for r in refs], norm)
                by_variable |= dict(zip(refs, clipped))
        always = []
        for part, condition in zip(self._parts, conditions):
            if self._specs[part.pattern].learning_rate == 0:
                continue
            pairs = [(by_variable[v.ref()], v) for v in part.variables]
            pairs = [(g, v) for g, v in pairs if g is not None]
            if condition is not None:
                update = functools.partial(self._update, part, pairs)
                tf.cond(condition, update, lambda: False)
                continue
            self._decay(part)
            always += pairs
        if always:
            self.composite.apply_gradients(
                always, experimental_aggregate_gradients=False
            )

    def _condition(
        self, part: _Part, step: Any, active: Mapping[str, Any] | None
    ) -> Any:
        """Whether a part is updated in a step, a scalar bool; None where always."""
        spec = self._specs[part.pattern]
        conditions = []
        if spec.start_step:
            conditions.append(tf.cast(step, tf.int64) >= spec.start_step)
        if spec.stop_step is not None:
            conditions.append(tf.cast(step, tf.int64) < spec.stop_step)
        if part.task is not None and active is not None:
            conditions.append(active[part.task])
        return functools.reduce(tf.logical_and, conditions) if conditions else None

    def _update(self, part: _Part, pairs: Sequence[tuple[Any, Any]]) -> bool:
        self._decay(part)
        if pairs:
            part.optimizer.apply_gradients(
                pairs, experimental_aggregate_gradients=False
            )
        return True

    def _decay(self, part: _Part) -> None:
        decay = self._specs[part.pattern].weight_decay
        if not decay:
            return
        rate = self._rates[part.pattern](part.optimizer.iterations)
        kernels = [
            v
            for v in part.variables
            if "kernel" in v.name and v.ref() not in self._tables
        ]
        _scale_all(kernels, 1.0 - rate * decay)

    def change(self, specs: Mapping[str, OptimizerSpec]) -> None:
        """Takes other learning rates, in the graphs that are traced too.

        Args:
            specs: As at first, but for rates that `has_free_rate` allows to differ.
        """
        self._specs = {p: specs[p] for p in self.patterns}
        self._rates = {
            p: Schedule(s.learning_rate, s.schedule, self._planned_steps)
            for p, s in self._specs.items()
        }
        for part in self._parts:
            if has_free_rate(specs[part.pattern]):
                part.optimizer.learning_rate = specs[part.pattern].learning_rate

    def learning_rates(self) -> dict[str, Any]:
        """Pattern to its rate at the current step."""
        counts: dict[str, Any] = {}
        for part in self._parts:
            counts.setdefault(part.pattern, part.optimizer.iterations)
        return {p: r(counts[p]) for p, r in self._rates.items()}


def has_free_rate(spec: OptimizerSpec) -> bool:
    """Whether the rate is a number that the graph reads, and not one it is made of.

    A schedule and decay are part of the graph; a rate of 0 leaves the update out.
    """
    constant = spec.schedule.kind == "constant" and not spec.schedule.warmup_steps
    return constant and not spec.weight_decay and spec.learning_rate > 0


def _if(condition: Any, gradient: Any) -> Any:
    """The gradient, or zeros: what stays must not count in the norm of what moves."""
    if gradient is None:
        return None
    values = _values(gradient)
    values = tf.where(condition, values, tf.zeros_like(values))
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(values, gradient.indices, gradient.dense_shape)
    return values


def _scale_all(variables: Sequence[Any], factor: Any) -> None:
    """Multiplies variables by a scalar that all replicas agree on."""
    if not tf.distribute.has_strategy():
        for variable in variables:
            variable.assign(variable * factor)
        return

    def scale(strategy: Any, by: Any) -> None:
        for variable in variables:
            # A replica may not assign to a variable that mirrors others.
            strategy.extended.update(variable, _scale, args=(by,))

    tf.distribute.get_replica_context().merge_call(scale, args=(factor,))


def _scale(variable: Any, factor: Any) -> Any:
    return variable.assign(variable * factor)


def clip_by_norm(gradients: Sequence[Any], norm: float) -> list[Any]:
    """Scales gradients down to a global norm; duplicate rows are summed first.

    The norm of an `IndexedSlices` whose ids repeat is that of the dense gradient it
    stands for, which the norm of its values is not.
    """
    summed = [_sum_duplicates(g) for g in gradients]
    present = [g for g in summed if g is not None]
    if not present:
        return list(summed)
    total = tf.sqrt(tf.add_n([tf.reduce_sum(tf.square(_values(g))) for g in present]))
    scale = norm / tf.maximum(total, norm)
    return [None if g is None else _scaled(g, scale) for g in summed]


def _sum_duplicates(gradient: Any) -> Any:
    if not isinstance(gradient, tf.IndexedSlices):
        return gradient
    ids, places = tf.unique(gradient.indices)
    values = tf.math.unsorted_segment_sum(gradient.values, places, tf.size(ids))
    return tf.IndexedSlices(values, ids, gradient.dense_shape)


def _values(gradient: Any) -> Any:
    return gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient


def _scaled(gradient: Any, scale: Any) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(
            gradient.values * scale, gradient.indices, gradient.dense_shape
        )
    return gradient * scale


def make_optimizer(spec: OptimizerSpec, planned_steps: int) -> Any:
    """One of tf_keras' legacy optimizers, or ours.

    The legacy ones are the fast ones: the newer classes compile each sparse update with
    XLA on a GPU and were 15 times slower.
    """
    rate: Any = spec.learning_rate
    if spec.schedule.kind != "constant" or spec.schedule.warmup_steps:
        rate = Schedule(spec.learning_rate, spec.schedule, planned_steps)
    legacy = keras.optimizers.legacy
    match spec.class_name:
        case "SGD":
            return legacy.SGD(rate)
        case "Momentum":
            return legacy.SGD(rate, momentum=spec.momentum)
        case "Adagrad":
            return legacy.Adagrad(
                rate,
                initial_accumulator_value=spec.initial_accumulator,
                epsilon=spec.epsilon,
            )
        case "Ftrl":
            return legacy.Ftrl(
                rate,
                initial_accumulator_value=spec.initial_accumulator,
                l1_regularization_strength=spec.l1,
                l2_regularization_strength=spec.l2,
            )
        case "RMSprop":
            return legacy.RMSprop(rate, rho=spec.beta_2, epsilon=spec.epsilon)
        case _:
            kind = LazyAdam if spec.class_name == "LazyAdam" else legacy.Adam
            return kind(rate, spec.beta_1, spec.beta_2, spec.epsilon)
