"""Variable groups -> optimizers: every variable in exactly one."""

from __future__ import annotations

import fnmatch
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


class OptimizerGroups:
    """The optimizers of a model, one for each pattern of variable groups.

    Clips each pattern's gradient by its global norm, applies it through TFRS's
    `CompositeOptimizer`, and decays kernels decoupled from the gradient. `composite`
    holds all state, for checkpoints.

    Under a distribution strategy, gradients are expected to be those of all replicas
    already: nothing is summed here.

    Args:
        specs: Pattern to optimizer; has `default`.
        groups: Group to variables, a partition.
        planned_steps: Where learning-rate decays end.

    Raises:
        ConfigError: A pattern fits no group.
    """

    def __init__(
        self,
        specs: Mapping[str, OptimizerSpec],
        groups: Mapping[str, Sequence[Any]],
        planned_steps: int,
    ) -> None:
        chosen = match_groups(list(groups), list(specs))
        self.patterns: dict[str, list[Any]] = {}
        for group, pattern in chosen.items():
            self.patterns.setdefault(pattern, []).extend(groups[group])
        self._tables = {
            v.ref() for g, vs in groups.items() if g.startswith("embedding") for v in vs
        }
        self._specs = {p: specs[p] for p in self.patterns}
        self.variables_in_order = [v for p in self.patterns.values() for v in p]
        self._planned_steps = planned_steps
        self._rates = {
            p: Schedule(s.learning_rate, s.schedule, planned_steps)
            for p, s in self._specs.items()
        }
        self.composite = self._composite(frozenset())

    def follow(self, variables: Sequence[Any]) -> None:
        """Moves variables by their rate times what `apply` is given for them.

        For balancers whose results are steps and not gradients. Patterns, schedules,
        clipping and decay stay; the optimizers' classes are left out. To be called
        before the first step.
        """
        self.composite = self._composite(frozenset(v.ref() for v in variables))

    def _composite(self, followed: frozenset[Any]) -> Any:
        pairs = []
        for pattern, variables in self.patterns.items():
            spec = self._specs[pattern]
            plain = spec.model_copy(update={"class_name": "SGD"})
            for used, moved in ((spec, False), (plain, True)):
                members = [v for v in variables if (v.ref() in followed) == moved]
                if members:
                    pairs.append((make_optimizer(used, self._planned_steps), members))
        # Slots exist before the first step, so that a checkpoint restores into them.
        for optimizer, members in pairs:
            optimizer._create_all_weights(members)
        return tfrs.experimental.optimizers.CompositeOptimizer(
            [(made, lambda members=members: members) for made, members in pairs]
        )

    def apply(self, gradients: Sequence[Any]) -> None:
        """Applies gradients given in the order of `variables_in_order`."""
        by_variable = {v.ref(): g for v, g in zip(self.variables_in_order, gradients)}
        pairs = []
        for pattern, variables in self.patterns.items():
            spec = self._specs[pattern]
            mine = [by_variable[v.ref()] for v in variables]
            if spec.clip_norm is not None:
                mine = clip_by_norm(mine, spec.clip_norm)
            if spec.weight_decay:
                self._decay(pattern, spec, variables)
            known = [(g, v) for g, v in zip(mine, variables) if g is not None]
            if known:
                pairs += known
        self.composite.apply_gradients(pairs, experimental_aggregate_gradients=False)

    def _decay(
        self, pattern: str, spec: OptimizerSpec, variables: Sequence[Any]
    ) -> None:
        rate = self._rates[pattern](self.composite.iterations)
        kernels = [
            v for v in variables if "kernel" in v.name and v.ref() not in self._tables
        ]
        _scale_all(kernels, 1.0 - rate * spec.weight_decay)

    def learning_rates(self) -> dict[str, Any]:
        """Pattern to its rate at the current step."""
        return {p: r(self.composite.iterations) for p, r in self._rates.items()}


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
