"""Gradients of the steps between two solutions: the last weights serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfmtl._keras import tf
from tfmtl.balance.base import Balancer, GradientWeighting, TaskStats
from tfmtl.balance.gram import add
from tfmtl.training.gradients import (
    Forward,
    Found,
    OfGradients,
    StepGradients,
    differentiate,
)
from tfmtl.training.shared import SharedVariables


class OfLastWeights(StepGradients):
    """The weights of an earlier step: one backward pass for each group of weights.

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


class OfLastWeightsByTask(OfGradients):
    """The same by one backward pass for each task: where groups are no fewer than
    tasks.

    Args:
        balancer: The balancer.
        variables: All variables.
        weights: Variable [G, T] of the weights.
    """

    def __init__(self, balancer: Any, variables: SharedVariables, weights: Any) -> None:
        super().__init__(balancer, variables)
        self.weights = weights

    def _combine(self, per_task: Sequence[Any], stats: TaskStats) -> Any:
        weights = tf.convert_to_tensor(self.weights)
        combined = self._weighed(per_task, weights)
        return combined, tf.reduce_mean(weights, axis=0), stats


def solves_each(balancer: Balancer) -> int:
    """After how many steps a balancer's weights are found anew; 1 where it finds none:
    a setting `every` of another kind of balancer is its own affair."""
    if not isinstance(balancer, GradientWeighting):
        return 1
    return int(balancer.config.every)


def between_solutions(
    balancer: GradientWeighting, variables: SharedVariables, weights: Any
) -> StepGradients:
    """How a step is differentiated by last weights [G, T], at the lesser cost.

    A step with a solution takes T backward passes; none between them takes more.
    """
    passes = len(set(variables.group_of_each(balancer.config)))
    if passes >= balancer.count and balancer.config.gradients == "full":
        return OfLastWeightsByTask(balancer, variables, weights)
    return OfLastWeights(balancer, variables, weights)


def _weighted(losses: Sequence[Any], weights: Any) -> Any:
    """sum_t w_t L_t, through which no gradient reaches the weights."""
    if weights is None:
        return tf.add_n(list(losses))
    return tf.add_n([weights[t] * loss for t, loss in enumerate(losses)])
