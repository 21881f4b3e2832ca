"""Gradients of a step under per-task control: tasks clipped, or kept to their own."""

from __future__ import annotations

from typing import Any

from tfmtl._keras import tf
from tfmtl.balance.base import Balancer, LossWeighting
from tfmtl.balance.gram import add, scale
from tfmtl.errors import ConfigError
from tfmtl.training.between import solves_each
from tfmtl.training.control import TaskControl, clip_task
from tfmtl.training.gradients import (
    Forward,
    Found,
    OfWeightedLosses,
    StepGradients,
    differentiate,
    step_gradients,
)
from tfmtl.training.replicas import mean_over_replicas
from tfmtl.training.shared import SharedVariables


class OfClippedLosses(OfWeightedLosses):
    """Weighted losses whose tasks' gradients on shared variables are clipped first.

        shared: sum_t w_t min(1, c_t / |g_t|) g_t        own: w_t g_t

    One backward pass for each task with a norm c_t, and one for the others together.
    """

    def __call__(self, forward: Forward) -> Found:
        shared, rest = self.variables.shared, self.variables.rest
        assert self.clip is not None
        clipped: dict[int, list[Any]] = {}
        factors = [tf.ones([])] * len(forward.losses)
        for task, norm in enumerate(self.clip):
            if norm is not None:
                passed = differentiate([forward.losses[task]], shared)
                found = mean_over_replicas(passed)
                clipped[task], factors[task] = clip_task(found, norm)
        # A balancer that looks at norms sees the gradients that count.
        weights, stats = self._weighed(forward, tf.stack(factors))
        weighted = [weights[t] * loss for t, loss in enumerate(forward.losses)]
        plain = mean_over_replicas(differentiate([tf.add_n(weighted)], rest))
        free = [x for t, x in enumerate(weighted) if t not in clipped]
        parts = []
        if free:
            parts = [mean_over_replicas(differentiate([tf.add_n(free)], shared))]
        for task, gradients in clipped.items():
            parts.append([scale(g, weights[task]) for g in gradients])
        joined = self._joined([add(g) for g in zip(*parts)], plain)
        return Found(self._with_penalty(joined, forward), weights, stats)


class OfOwnReach(StepGradients):
    """Other gradients, without those of some tasks but on the tasks' own variables.

    To a balancer that looks at gradients these tasks are absent, but not to its
    `own_weights`, which get 1 as theirs; to one that looks at losses they are tasks
    like others, and its weight counts on their own variables.

    Args:
        inner: Differentiates the step.
        control: Says which tasks.
    """

    def __init__(self, inner: StepGradients, control: TaskControl) -> None:
        super().__init__(inner.balancer, inner.variables)
        self.inner = inner
        self.control = control

    def __call__(self, forward: Forward) -> Found:
        apart = self.control.apart
        losses = [
            tf.stop_gradient(x) if t in apart else x
            for t, x in enumerate(forward.losses)
        ]
        stats = forward.stats
        weighs_losses = isinstance(self.balancer, LossWeighting)
        joins = tf.constant([t not in apart for t in range(len(losses))])
        if not weighs_losses:
            stats = stats._replace(present=stats.present & joins)
        found = self.inner(forward._replace(losses=losses, stats=stats))
        weights = found.weights
        if not weighs_losses:
            # Absent, these tasks weigh 0, which is not meant for what is their own.
            weights = self._own(
                found.stats._replace(present=forward.stats.present),
                tf.where(joins, weights, tf.ones_like(weights)),
            )
        by_variable: dict[Any, list[Any]] = {
            v.ref(): [g] for v, g in zip(self.variables.all, found.gradients)
        }
        for task in apart:
            own = self.control.own(task)
            passed = differentiate([forward.losses[task]], own)
            for v, g in zip(own, mean_over_replicas(passed)):
                weighed = g if weights is None else scale(g, weights[task])
                by_variable[v.ref()].append(weighed)
        gradients = [add(by_variable[v.ref()]) for v in self.variables.all]
        return found._replace(gradients=gradients)


def controlled_gradients(
    balancer: Balancer, variables: SharedVariables, control: TaskControl
) -> StepGradients:
    """How steps are differentiated for a balancer, under per-task control.

    Raises:
        ConfigError: The settings of balancer and tasks contradict each other.
    """
    every = solves_each(balancer)
    if control.clips and every > 1:
        raise ConfigError(
            "`training.tasks.<task>.clip_norm` needs each task's gradient in each "
            "step, and `balancer.config.every` saves them: give one of the two. "
            f"Received: every={every}"
        )
    made: StepGradients
    if control.clips and isinstance(balancer, LossWeighting):
        made = OfClippedLosses(balancer, variables)
    else:
        made = step_gradients(balancer, variables)
    made.clip = control.clip_norms if control.clips else None
    return within_reach(made, control)


def within_reach(made: StepGradients, control: TaskControl) -> StepGradients:
    """The same gradients, with tasks of `reach: own` kept to their own variables."""
    return OfOwnReach(made, control) if control.apart else made
