"""Gradients of one step by the kind of balancer: where per-task gradients are taken.

All is symbolic differentiation of one forward pass in one graph, so that every task
sees the same dropout masks and batch statistics. `cut` are the activations through
which shared variables reach the tasks (`MultiTaskModel.cut`); with the cut held fixed,
a task's loss differentiates through that task's own parts alone.
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
)
from tfmtl.balance.config import GradientConfig
from tfmtl.balance.gram import add, gram_matrix, weighted_sum
from tfmtl.errors import ConfigError
from tfmtl.training.shared import SharedVariables


class Forward(NamedTuple):
    """One forward pass.

    Attributes:
        losses: T scalars.
        penalty: Scalar.
        cut: Activations through which shared variables reach the tasks.
        stats: Of the tasks.
    """

    losses: Sequence[Any]
    penalty: Any
    cut: Sequence[Any]
    stats: TaskStats


class Found(NamedTuple):
    """What a step does.

    Attributes:
        gradients: In the order of `SharedVariables.all`; None where nothing flows.
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


def _weighted(losses: Sequence[Any], weights: Any) -> Any:
    """sum_t w_t L_t, through which no gradient reaches the weights."""
    if weights is None:
        return tf.add_n(list(losses))
    return tf.add_n([weights[t] * loss for t, loss in enumerate(losses)])


class StepGradients:
    """Base of the ways to differentiate a step.

    Args:
        balancer: The balancer.
        variables: All variables, and which of them are shared.
    """

    def __init__(self, balancer: Any, variables: SharedVariables) -> None:
        self.balancer = balancer
        self.variables = variables

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

    def _with_penalty(self, gradients: Sequence[Any], forward: Forward) -> list[Any]:
        """Adds the penalties' own gradient, which no balancer weighs."""
        more = differentiate([forward.penalty], self.variables.all)
        return [add(pair) for pair in zip(gradients, more)]

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

    def __call__(self, forward: Forward) -> Found:
        stats = forward.stats
        if self.balancer.needs_gramian:
            last = self.variables.probed("last_shared", None)
            per_task = [differentiate([loss], last) for loss in forward.losses]
            stats = stats._replace(gramian=gram_matrix(list(zip(*per_task)))[None])
        weights = tf.stop_gradient(self.balancer.weigh(stats))
        total = tf.reduce_sum(weights * stats.losses) + forward.penalty
        return Found(differentiate([total], self.variables.all), weights, stats)


class OfGradients(StepGradients):
    """Every task's full gradient: T backward passes."""

    balancer: GradientWeighting

    def __call__(self, forward: Forward) -> Found:
        shared, rest = self.variables.shared, self.variables.rest
        passes = [differentiate([x], [*shared, *rest]) for x in forward.losses]
        per_task = list(zip(*passes))  # variable by task
        mine = per_task[: len(shared)]
        balanced, weights, stats, *more = self._combine(mine, forward.stats)
        own = self._own(stats, weights)
        gradients = self._joined(
            [
                balanced[i] if i in balanced else _sum(g, own)
                for i, g in enumerate(mine)
            ],
            [_sum(g, own) for g in per_task[len(shared) :]],
        )
        return Found(self._with_penalty(gradients, forward), weights, stats, *more)

    def _combine(self, per_task: Sequence[Any], stats: TaskStats) -> Any:
        """Place of each balanced variable to its gradient, then what `Found` says."""
        config: GradientConfig = self.balancer.config
        groups = self.variables.groups(config)
        grams = [gram_matrix([per_task[i] for i in group]) for group in groups]
        stats = stats._replace(gramian=tf.stack(grams))
        weights = tf.stop_gradient(self.balancer.weigh(stats))  # [G, T]
        group_of = self.variables.group_of_each(config)
        combined = {
            i: weighted_sum(per_task[i], weights[group])
            for i, group in enumerate(group_of)
            if group is not None
        }
        return combined, tf.reduce_mean(weights, axis=0), stats, weights


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
        seeds, weights, stats, *more = self._combine(cut, at_cut, forward.stats)
        own = self._own(stats, weights)
        plain = [_sum([p[len(cut) + i] for p in passes], own) for i in range(len(rest))]
        # What is no task's own may lie before the cut: a scenario's layers in a trunk.
        summed = [_sum(g, own) for g in at_cut]
        plain = [add(p) for p in zip(plain, differentiate(cut, rest, summed))]
        gradients = self._joined(self._shared(cut, seeds, summed), plain)
        return Found(self._with_penalty(gradients, forward), weights, stats, *more)

    def _combine(
        self, cut: Sequence[Any], at_cut: Sequence[Any], stats: TaskStats
    ) -> Any:
        balancer: GradientWeighting = self.balancer
        stats = stats._replace(gramian=gram_matrix(at_cut)[None])
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
    """Gradients at the cut that the balancer combines itself."""

    def _combine(
        self, cut: Sequence[Any], at_cut: Sequence[Any], stats: TaskStats
    ) -> Any:
        stacked = [tf.cast(tf.stack(g), tf.float32) for g in at_cut]
        seeds, weights = self.balancer.combine(stats, cut, stacked)
        return seeds, weights, stats


class OfLastWeights(StepGradients):
    """The weights of an earlier step for the shared variables: one backward pass.

    Args:
        balancer: The balancer.
        variables: All variables.
        weights: Variable [G, T] of the weights.
    """

    def __init__(self, balancer: Any, variables: SharedVariables, weights: Any) -> None:
        super().__init__(balancer, variables)
        self.weights = weights

    def __call__(self, forward: Forward) -> Found:
        cut, rest = forward.cut, self.variables.rest
        mean = tf.reduce_mean(self.weights, axis=0)
        total = _weighted(forward.losses, self._own(forward.stats, mean))
        own = differentiate([total], [*cut, *rest], hold=cut)
        summed = [
            tf.zeros_like(z) if g is None else g for z, g in zip(cut, own[: len(cut)])
        ]
        plain = [add(p) for p in zip(own[len(cut) :], differentiate(cut, rest, summed))]
        shared: dict[int, Any] = {}
        groups = self.variables.group_of_each(self.balancer.config)
        for group in sorted(set(groups), key=str):
            places = [i for i, g in enumerate(groups) if g == group]
            target = total
            if group is not None:
                target = _weighted(forward.losses, self.weights[group])
            found = differentiate([target], [self.variables.shared[i] for i in places])
            shared.update(zip(places, found))
        gradients = self._joined([shared[i] for i in range(len(groups))], plain)
        return Found(self._with_penalty(gradients, forward), mean, forward.stats)


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
        return OfCombination(balancer, variables)
    if isinstance(balancer, GradientWeighting):
        balancer.prepare(len(variables.groups(balancer.config)))
        at_cut = balancer.config.gradients == "representation"
        return (OfCut if at_cut else OfGradients)(balancer, variables)
    raise ConfigError(
        "`balancer.class` must be a LossWeighting, GradientWeighting, "
        f"GradientCombination or CutCombination. Received: {type(balancer).__name__}"
    )
