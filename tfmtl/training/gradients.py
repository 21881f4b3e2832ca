"""Gradients of one step by the kind of balancer: where per-task gradients are taken.

All is symbolic differentiation of one forward pass in one graph, so that every task
sees the same dropout masks and batch statistics. `cut` are the activations through
which shared variables reach the tasks (`MultiTaskModel.cut`); with the cut held fixed,
a task's loss differentiates through that task's own parts alone.

Under a distribution strategy each replica differentiates the losses of its own rows.
Gradients of a task are averaged over the replicas before anything is computed of them,
so that all replicas solve the same problem, that of the whole batch, and apply the same
gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from tfmtl._keras import tf
from tfmtl.balance.base import (
    Balancer,
    CutCombination,
    GradientCombination,
    GradientWeighting,
    LossWeighting,
    TaskStats,
    has_gradient,
)
from tfmtl.balance.config import GradientConfig
from tfmtl.balance.gram import add, gram_matrix, scale, weighted_sum
from tfmtl.errors import ConfigError
from tfmtl.training.control import clip_tasks
from tfmtl.training.replicas import (
    mean_over_replicas,
    replica_count,
    sum_over_replicas,
)
from tfmtl.training.shared import SharedVariables


class Forward(NamedTuple):
    """One forward pass.

    Attributes:
        losses: T scalars, of this replica's rows.
        penalty: Scalar, of them too.
        cut: Activations through which shared variables reach the tasks.
        stats: Of the tasks, over all replicas.
    """

    losses: Sequence[Any]
    penalty: Any
    cut: Sequence[Any]
    stats: TaskStats


class Found(NamedTuple):
    """What a step does.

    Attributes:
        gradients: In the order of `SharedVariables.all`, over all replicas; None where
            nothing flows.
        weights: [T] to log; the mean over groups of variables.
        stats: Of the tasks, with the Gram matrices the balancer saw.
        group_weights: [G, T] of a gradient weighting; None of others.
    """

    gradients: list[Any]
    weights: Any
    stats: TaskStats
    group_weights: Any = None


def differentiate(
    ys: Sequence[Any],
    xs: Sequence[Any],
    seeds: Sequence[Any] | None = None,
    hold: Sequence[Any] = (),
) -> list[Any]:
    """d sum(ys) / d xs, with `hold` held fixed; None where nothing is connected."""
    if not xs or not ys:
        return [None] * len(xs)
    if seeds is not None:
        seeds = [tf.cast(s, y.dtype) for s, y in zip(seeds, ys)]
    found: list[Any] = tf.gradients(
        list(ys), list(xs), grad_ys=seeds, stop_gradients=list(hold) or None
    )
    return found


def _sum(gradients: Sequence[Any], weights: Any) -> Any:
    """The sum over tasks, weighted where there are weights."""
    return add(gradients) if weights is None else weighted_sum(gradients, weights)


class StepGradients:
    """Base of the ways to differentiate a step.

    Args:
        balancer: The balancer.
        variables: All variables, and which of them are shared.

    Attributes:
        clip: [T] norms of the tasks' gradients on shared variables; see `TaskControl`.
    """

    def __init__(self, balancer: Any, variables: SharedVariables) -> None:
        self.balancer = balancer
        self.variables = variables
        self.clip: Sequence[float | None] | None = None

    def _clipped(self, gradients: list[Any], gramian: Any = None) -> list[Any]:
        """Gradients, variable by task, with those of tasks that have a norm clipped.

        Args:
            gradients: Variable by task.
            gramian: [T, T] their inner products, where they are not all here.
        """
        if self.clip is None:
            return gradients
        return clip_tasks(gradients, self.clip, gramian)

    def __call__(self, forward: Forward) -> Found:
        """The gradients of a step.

        Args:
            forward: Its forward pass, in the graph that is being built.
        """
        raise NotImplementedError

    def _own(self, stats: TaskStats, weights: Any) -> Any:
        """Weights [T] of the losses that unbalanced variables descend, or None."""
        own = self.balancer.own_weights(stats, weights)
        return None if own is None else tf.stop_gradient(own)

    def _of_penalty(self, forward: Forward) -> list[Any]:
        """The penalties' own gradient, which no balancer weighs."""
        found = differentiate([forward.penalty], self.variables.all)
        return mean_over_replicas(found)

    def _with_penalty(self, gradients: Sequence[Any], forward: Forward) -> list[Any]:
        return [add(pair) for pair in zip(gradients, self._of_penalty(forward))]

    def _joined(self, shared: Sequence[Any], rest: Sequence[Any]) -> list[Any]:
        """Gradients of shared variables and of the rest, in the order of all."""
        by_variable = {
            v.ref(): g
            for v, g in zip(
                [*self.variables.shared, *self.variables.rest], [*shared, *rest]
            )
        }
        return [by_variable[v.ref()] for v in self.variables.all]


class OfWeightedLosses(StepGradients):
    """sum_t w_t L_t + penalties, by every variable."""

    balancer: LossWeighting

    def _weighed(self, forward: Forward, factors: Any = None) -> tuple[Any, TaskStats]:
        """Weights [T], and the statistics that they are found from.

        Args:
            forward: The forward pass.
            factors: [T] of the tasks' gradients, which are clipped; 1 where None.
        """
        stats = forward.stats
        if self.balancer.needs_gramian:
            last = self.variables.probed("last_shared", None)
            per_task = [differentiate([loss], last) for loss in forward.losses]
            gramian = gram_matrix(_mean_of_each(list(zip(*per_task))))
            if factors is not None:
                each = tf.cast(factors, gramian.dtype)
                gramian *= each[:, None] * each[None, :]
            stats = stats._replace(gramian=gramian[None])
        return tf.stop_gradient(self.balancer.weigh(stats)), stats

    def __call__(self, forward: Forward) -> Found:
        weights, stats = self._weighed(forward)
        total = tf.reduce_sum(weights * tf.stack(forward.losses)) + forward.penalty
        gradients = mean_over_replicas(differentiate([total], self.variables.all))
        return Found(gradients, weights, stats)


class OfGradients(StepGradients):
    """Every task's full gradient: T backward passes."""

    balancer: GradientWeighting

    def __call__(self, forward: Forward) -> Found:
        shared, rest = self.variables.shared, self.variables.rest
        passes = [differentiate([x], [*shared, *rest]) for x in forward.losses]
        per_task = list(zip(*passes))  # variable by task
        penalty = self._of_penalty(forward)
        mine, penalty = self._with_penalties(
            self._clipped(_mean_of_each(per_task[: len(shared)])),
            penalty,
            forward.stats,
        )
        balanced, weights, stats, *more = self._combine(mine, forward.stats)
        own = self._own(stats, weights)
        plain = [_sum(g, own) for g in per_task[len(shared) :]]
        gradients = self._joined(
            [
                balanced[i] if i in balanced else _sum(g, own)
                for i, g in enumerate(mine)
            ],
            mean_over_replicas(plain),
        )
        gradients = [add(pair) for pair in zip(gradients, penalty)]
        return Found(gradients, weights, stats, *more)

    def _with_penalties(
        self, per_task: list[Any], penalty: list[Any], stats: TaskStats
    ) -> tuple[list[Any], list[Any]]:
        """What of the penalties' gradients, in the order of all variables, belongs to
        the tasks' gradients of the shared ones: nothing; and what is left."""
        return per_task, penalty

    def _combine(self, per_task: Sequence[Any], stats: TaskStats) -> Any:
        """Place of each balanced variable to its gradient, then what `Found` says."""
        stats = stats._replace(gramian=self._gramian(per_task, stats.present))
        weights = tf.stop_gradient(self.balancer.weigh(stats))  # [G, T]
        combined = self._weighed(per_task, weights)
        return combined, tf.reduce_mean(weights, axis=0), stats, weights

    def _weighed(self, per_task: Sequence[Any], weights: Any) -> dict[int, Any]:
        """Place of each balanced variable to its gradient, by weights [G, T]."""
        group_of = self.variables.group_of_each(self.balancer.config)
        return {
            i: weighted_sum(per_task[i], weights[group])
            for i, group in enumerate(group_of)
            if group is not None
        }

    def _gramian(self, per_task: Sequence[Any], present: Any) -> Any:
        """[G, T, T] inner products in each group of variables.

        The dense shared variables of a funnel can be one task's tower, and a task
        outside the funnel has no gradient there. It would count as vanished, and weigh
        0 on the tables, which it does reach. In such a step all variables that get the
        weights are compared: a fixed weight instead would have no common scale with
        those of the others. That is told from values: stacked towers connect each task
        to the variables of all, by zeros.

        Args:
            per_task: Gradients, shared variable by task.
            present: [T] bool.
        """
        config: GradientConfig = self.balancer.config
        groups = self.variables.groups(config)
        grams = [gram_matrix([per_task[i] for i in group]) for group in groups]
        weighed = self.variables.balanced(config)
        if config.granularity != "whole" or set(weighed) <= set(groups[0]):
            return tf.stack(grams)
        (probed,) = grams

        def wider() -> Any:
            found = gram_matrix([per_task[i] for i in weighed])
            reached = tf.reduce_any(missing & has_gradient(found))
            return tf.where(reached, found, probed)

        missing = present & ~has_gradient(probed)
        return tf.cond(tf.reduce_any(missing), wider, lambda: probed)[None]


class OfCombination(OfGradients):
    """Full gradients that the balancer combines itself."""

    def __init__(self, balancer: Any, variables: SharedVariables) -> None:
        super().__init__(balancer, variables)
        self._balanced = variables.balanced(balancer.config)
        balancer.prepare(
            [variables.shared[i] for i in self._balanced],
            [variables.is_table[i] for i in self._balanced],
        )

    def _combine(self, per_task: Sequence[Any], stats: TaskStats) -> Any:
        mine = [per_task[i] for i in self._balanced]
        stats = stats._replace(gramian=gram_matrix(mine)[None])
        combined, weights = self.balancer.combine(stats, mine)
        return dict(zip(self._balanced, combined)), weights, stats


class OfSteps(OfCombination):
    """Full gradients that the balancer turns into steps, penalties included."""

    def _with_penalties(
        self, per_task: list[Any], penalty: list[Any], stats: TaskStats
    ) -> tuple[list[Any], list[Any]]:
        """Deals them out to the tasks that have a label, in equal parts."""
        present = tf.cast(stats.present, tf.float32)
        share = present / tf.maximum(tf.reduce_sum(present), 1.0)
        found = list(per_task)
        left = {v.ref(): g for v, g in zip(self.variables.all, penalty)}
        for i in self._balanced:
            more = left.pop(self.variables.shared[i].ref())
            if more is not None:
                found[i] = [
                    add([g, scale(more, share[t])]) for t, g in enumerate(per_task[i])
                ]
        return found, [left.get(v.ref()) for v in self.variables.all]


def _gram_of_cut(at_cut: Sequence[Any]) -> Any:
    """[T, T] inner products of the tasks' gradients at the cut.

    Replicas have different rows of the cut, so over the whole batch's the inner
    products add up. By the mean of R losses, a row's gradient is 1/R of its own.
    """
    (total,) = sum_over_replicas([gram_matrix(at_cut)])
    return total / replica_count() ** 2


class OfCut(StepGradients):
    """Gradients at the cut: T passes through the tasks' parts, one through the rest."""

    def __call__(self, forward: Forward) -> Found:
        cut, rest = forward.cut, self.variables.rest
        if not cut:
            raise ConfigError(
                f"the balancer {type(self.balancer).__name__} looks at activations "
                "through which shared variables reach the tasks; this model has none. "
                "Use a balancer with `gradients: full`"
            )
        passes = [
            differentiate([loss], [*cut, *rest], hold=cut) for loss in forward.losses
        ]
        at_cut = [
            [tf.zeros_like(z) if p[i] is None else p[i] for p in passes]
            for i, z in enumerate(cut)
        ]
        clipped = at_cut
        if self.clip is not None:
            clipped = self._clipped(at_cut, _gram_of_cut(at_cut))
        seeds, weights, stats, *more = self._combine(cut, clipped, forward.stats)
        own = self._own(stats, weights)
        plain = [_sum([p[len(cut) + i] for p in passes], own) for i in range(len(rest))]
        # What is no task's own may lie before the cut: a scenario's layers in a trunk.
        summed = [_sum(g, own) for g in at_cut]
        plain = [add(p) for p in zip(plain, differentiate(cut, rest, summed))]
        summed = [_sum(g, own) for g in clipped]
        gradients = self._joined(self._shared(cut, seeds, summed), plain)
        gradients = mean_over_replicas(gradients)
        return Found(self._with_penalty(gradients, forward), weights, stats, *more)

    def _combine(
        self, cut: Sequence[Any], at_cut: Sequence[Any], stats: TaskStats
    ) -> Any:
        balancer: GradientWeighting = self.balancer
        stats = stats._replace(gramian=_gram_of_cut(at_cut)[None])
        weights = tf.stop_gradient(balancer.weigh(stats))  # [1, T]
        seeds = [weighted_sum(g, weights[0]) for g in at_cut]
        return seeds, weights[0], stats, weights

    def _shared(
        self, cut: Sequence[Any], seeds: Sequence[Any], summed: Sequence[Any]
    ) -> list[Any]:
        variables = self.variables.shared
        balanced = set(self.variables.balanced(self.balancer.config))
        found: dict[int, Any] = {}
        for places, start in (
            (sorted(balanced), seeds),
            ([i for i in range(len(variables)) if i not in balanced], summed),
        ):
            gradients = differentiate(cut, [variables[i] for i in places], start)
            found.update(zip(places, gradients))
        return [found[i] for i in range(len(variables))]


class OfCombinedCut(OfCut):
    """Gradients at the cut that the balancer combines itself.

    Under a distribution strategy it is given those of a replica's own rows; what must
    be one for the whole batch it asks the other replicas for.
    """

    def _combine(
        self, cut: Sequence[Any], at_cut: Sequence[Any], stats: TaskStats
    ) -> Any:
        stacked = [tf.cast(tf.stack(g), tf.float32) for g in at_cut]
        seeds, weights = self.balancer.combine(stats, cut, stacked)
        return seeds, weights, stats


def _mean_of_each(per_task: Sequence[Sequence[Any]]) -> list[Any]:
    """Means over the replicas of gradients by variable and task."""
    means = iter(mean_over_replicas([g for gradients in per_task for g in gradients]))
    return [[next(means) for _ in gradients] for gradients in per_task]


def _refuse_solving(balancer: GradientCombination) -> None:
    """A `GradientConfig` of a balancer that finds no weights must be left as it is.

    Raises:
        ConfigError: It is not.
    """
    if not isinstance(balancer.config, GradientConfig):
        return
    for name, field in GradientConfig.model_fields.items():
        value = getattr(balancer.config, name)
        if name != "embedding" and value != field.default:
            raise ConfigError(
                f"`balancer.config.{name}` is for balancers that find weights (a "
                f"GradientWeighting); {type(balancer).__name__} is a "
                f"GradientCombination, for which it must be {field.default!r}. "
                f"Received: {value!r}",
                [("balancer", "config", name)],
            )


def step_gradients(balancer: Balancer, variables: SharedVariables) -> StepGradients:
    """How steps are differentiated for a balancer.

    Raises:
        ConfigError: It is of no known kind, or its settings contradict each other.
    """
    if isinstance(balancer, LossWeighting):
        return OfWeightedLosses(balancer, variables)
    if isinstance(balancer, CutCombination):
        return OfCombinedCut(balancer, variables)
    if isinstance(balancer, GradientCombination):
        _refuse_solving(balancer)
        return (OfSteps if balancer.replaces_optimizer else OfCombination)(
            balancer, variables
        )
    if isinstance(balancer, GradientWeighting):
        balancer.prepare(len(variables.groups(balancer.config)))
        at_cut = balancer.config.gradients == "representation"
        return (OfCut if at_cut else OfGradients)(balancer, variables)
    raise ConfigError(
        "`balancer.class` must be a LossWeighting, GradientWeighting, "
        f"GradientCombination or CutCombination. Received: {type(balancer).__name__}"
    )
