"""The protocol of balancers: statistics of the tasks in, weights out."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from tfmtl._keras import tf
from tfmtl.schema.base import Spec


class TaskStats(NamedTuple):
    """What a balancer may look at in one step.

    Attributes:
        losses: [T] float32.
        present: [T] bool; whether the task has a label in the batch.
        step: Scalar int64.
    """

    losses: Any
    present: Any
    step: Any


class BalancerConfig(Spec):
    """Settings of a balancer."""


class LossWeighting(tf.Module):
    """A balancer whose weights come from the losses: one backward pass a step.

    The weighted sum of losses is what every variable is trained on.

    Args:
        tasks: Names of the T tasks.
        config: The balancer's settings.
    """

    Config: ClassVar[type[BalancerConfig]] = BalancerConfig
    citation: ClassVar[str] = ""
    scope: ClassVar[str] = "all"

    def __init__(self, tasks: tuple[str, ...], config: BalancerConfig) -> None:
        super().__init__(name=type(self).__name__)
        self.tasks = tasks
        self.config = config

    def weigh(self, stats: TaskStats) -> Any:
        """Weights [T] float32 of the losses in this step."""
        raise NotImplementedError(f"{type(self).__name__} must define `weigh`")
